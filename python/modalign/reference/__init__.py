"""The definitions: every operation in plain torch, float64, short enough to check against the papers.

Every other backend is tested against these. They are slow and never store an n x n matrix.
"""
