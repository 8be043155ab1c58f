"""The definitions: every operation in plain torch and float64, short enough to check against the papers.

    info_nce            log-sum-exps of a similarity matrix, products with its softmaxes, and the sigmoid loss
    knn                 k nearest neighbours in float64 order
    edge_products       inner products along the edges of a graph
    neighbor_overlap    the number of neighbours that two graphs share
    neighborhoods       scores of two lists of neighbours, and shared edges under relabellings

Every other backend is tested against these. They are slow, may store an n x n matrix, and import torch only.
"""
