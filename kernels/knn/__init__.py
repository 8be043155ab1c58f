"""Triton kernels of the exact nearest-neighbour search, and of comparing two lists of neighbours.

    search             the search: screens in low precision, a proof, float64 scores
    block_pairs        merging the neighbours within two blocks of a large table into running lists
    screen             upper bounds of the scores, and the kernel that keeps the highest bounds of each query
    survivors          the kernel that appends the rows whose upper bounds reach a threshold, for large galleries
    exact_scores       the kernel of the float64 scores
    neighbor_overlap   the number of shared neighbours for every k' <= k

Approximate search does not belong here: every function returns exactly what ``modalign.reference`` defines.
"""
