"""Exact k nearest neighbours: the graphs that every neighbourhood metric reads.

    functional      knn and neighbor_overlap, as users call them
    graph           the graph that knn returns, and the certificate of how it is known
    candidates      the checks that tables, k and groups of a search must pass
    rows_in_range   powers of two for float64 rows whose squares float64 cannot hold
    blocks          searches block by block, for files and a limit on memory
    block_size      how many rows a block may have
    ties            lists in which ties are ties, and lists that order them at random
    tie_search      searches that report all neighbours which tie
    copies          the distinct rows of a table
    lists           the lists of neighbours of a search by blocks, and its checkpoint
    approximate     pynndescent's graphs, with their measured recall

A search runs through ``ops.knn``, whose backends compute the scores; nothing here computes one, except for the few
candidates of an approximate graph. Metrics of graphs belong to ``metrics``, reading files to ``files``.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
