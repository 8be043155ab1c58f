"""Triton kernels of the exact nearest-neighbour search, and of comparing two neighbour lists.

    search             the search: screens in low precision, a proof, float64 scores
    screen             upper bounds of the scores, and the kernel that keeps the highest bounds of each query
    survivors          the kernel that appends the rows whose upper bounds reach a threshold, for large galleries
    neighbor_overlap   the number of shared neighbours for every k' <= k

Approximate search does not belong here: every function returns exactly what ``modalign.reference`` defines.
"""
