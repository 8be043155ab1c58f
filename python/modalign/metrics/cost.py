"""How long one evaluation of an alignment metric takes, roughly: whether ``align`` can afford hundreds of them.

Seconds of two slow cores, fitted to measurements at 800 to 1,000,000 items of width 128 to 768.
"""

from __future__ import annotations

from modalign.metrics.registry import METRICS

__all__ = ["AFFORDED", "seconds_of"]

AFFORDED = 40.0  # seconds that the interval or the null of one metric may take unless it is asked for
COMPARES_POSITIONS = ("lcs_knn", "edit_distance_knn", "cycle_knn")  # k^2 an item
GATHERS_ROWS = ("cknna", "second_order_cosine")  # from all over memory, along every edge
DECOMPOSES, DECOMPOSED = ("cca", "svcca", "pwcca", "procrustes", "linear_r2"), 5e-10  # width^3
KERNELS, LOOKED_UP = ("rsa", "rbf_cka"), 8e-9  # every pair of a table, beside a few an item
OF_A_PAIR = {"rsa": 1.7e-7, "rbf_cka": 1.0e-7, "information_imbalance": 4e-8, "retrieval": 1.5e-8}


def seconds_of(name: str, n: int, k: int, d_x: int, d_y: int, again: bool = False) -> float:
    """Of one evaluation of a metric by its name, for n items, lists of k and rows of d_x and d_y.

    again: of another relabelling, or part of the items, when there is what all of them share: tables of all pairs, sums
    of the rows of each part, decompositions of one side.

    Examples:
        >>> from modalign.metrics.cost import seconds_of
        >>> seconds_of("mutual_knn", 10**6, 10, 384, 384) < seconds_of("rsa", 10**4, 10, 384, 384)
        True
    """
    needs = METRICS[name].needs
    if needs == "pairs" and again:
        return LOOKED_UP * n * (n if name in KERNELS else 4)
    if needs == "pairs":
        return n * n * (OF_A_PAIR[name] + 1e-10 * (d_x + d_y))
    if needs == "moments":
        width = d_x + d_y
        return 1e-10 * n * d_x * d_y + (DECOMPOSED * width**3 if name in DECOMPOSES else 2e-8 * width**2)
    if name in GATHERS_ROWS:
        return 2e-9 * n * k * (d_x + d_y)
    return 7e-9 * n * k * (k if name in COMPARES_POSITIONS else 4)
