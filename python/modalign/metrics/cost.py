"""Estimates of how long one evaluation of an alignment metric takes; the registry gives each metric one of them.

``modalign.align`` uses them to decide whether it can afford hundreds of evaluations for an interval or a null.
The constants are seconds on two slow cores, fitted to measurements at 800 to 1,000,000 items of width 128 to 768.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

__all__ = [
    "AFFORDED",
    "COLUMN_DECOMPOSITIONS",
    "COLUMN_PRODUCTS",
    "COLUMN_SUBSPACES",
    "LIST_POSITIONS",
    "LIST_SETS",
    "NEIGHBOR_ROWS",
    "Cost",
    "Sizes",
    "nearest_pairs",
    "tabled_pairs",
]

AFFORDED = 40.0  # seconds that the interval or the null of one metric may take unless the caller asks for it


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes that an evaluation time depends on: n items, lists of k neighbours, rows of width d_x and d_y."""

    n: int
    k: int
    d_x: int
    d_y: int

    @property
    def width(self) -> int:
        """The width of both rows together."""
        return self.d_x + self.d_y


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one evaluation of a metric.

    Attributes:
        order: The time as a formula in n, k and d (the width of a row), for tables.
        first: Seconds of an evaluation from rows or graphs.
        again: Seconds of an evaluation that shares its tables with earlier ones, such as another relabelling; None
            where every evaluation takes as long as the first.
        table_bytes: Peak memory of these tables for n items, beside that of the metric; None where there are none.
        pair_bytes: Bytes that an evaluation holds for each pair of items.
    """

    order: str
    first: Callable[[Sizes], float]
    again: Callable[[Sizes], float] | None = None
    table_bytes: Callable[[int], int] | None = None
    pair_bytes: int = 0

    def seconds(self, sizes: Sizes, *, again: bool = False) -> float:
        """Return the seconds of one evaluation.

        Args:
            sizes: The sizes of the data.
            again: Whether the tables that evaluations share exist already: of all pairs, sums of the rows of each
                part, decompositions of one side.

        Examples:
            >>> from modalign.metrics.cost import LIST_SETS, Sizes, tabled_pairs
            >>> LIST_SETS.seconds(Sizes(10**6, 10, 384, 384)) < tabled_pairs(1.7e-7).seconds(Sizes(10**4, 10, 384, 384))
            True
        """
        return self.again(sizes) if again and self.again is not None else self.first(sizes)


# The two lists of an item are compared as sets, or by a merge.
LIST_SETS = Cost("n k log k", lambda s: 7e-9 * s.n * s.k * 4)
# Every position of one list is compared with every position of another.
LIST_POSITIONS = Cost("n k^2", lambda s: 7e-9 * s.n * s.k * s.k)
# Rows are gathered from all over memory, along every edge.
NEIGHBOR_ROWS = Cost("n k d", lambda s: 2e-9 * s.n * s.k * s.width)
# Products of columns are added up over the rows.
COLUMN_PRODUCTS = Cost("n d^2", lambda s: 1e-10 * s.n * s.d_x * s.d_y + 2e-8 * s.width**2)
# The sums of products are decomposed too.
COLUMN_DECOMPOSITIONS = Cost("n d^2 + d^3", lambda s: 1e-10 * s.n * s.d_x * s.d_y + 5e-10 * s.width**3)
# Ten directions of either side are found by products with all rows; relabellings compare these alone.
COLUMN_SUBSPACES = Cost("n d", lambda s: 3e-8 * s.n * s.width, lambda s: 1e-6 * s.n, lambda n: 160 * n)


def tabled_pairs(pair_seconds: float, pair_bytes: int = 0) -> Cost:
    """Return the cost of a metric of all pairs whose relabellings look up two n x n tables.

    Args:
        pair_seconds: Seconds that a pair takes, its inner products aside.
        pair_bytes: Bytes that an evaluation holds for each pair.
    """
    return Cost(
        "n^2 d", _all_pairs(pair_seconds), lambda s: 8e-9 * s.n * s.n, lambda n: 24 * n * n, pair_bytes=pair_bytes
    )


def nearest_pairs(pair_seconds: float, table_bytes: Callable[[int], int]) -> Cost:
    """Return the cost of a metric of all pairs whose relabellings look up a few entries for each item.

    Args:
        pair_seconds: Seconds that a pair takes, its inner products aside.
        table_bytes: Peak memory of the tables for n items.
    """
    return Cost("n^2 d", _all_pairs(pair_seconds), lambda s: 8e-9 * s.n * 4, table_bytes)


def _all_pairs(pair_seconds: float) -> Callable[[Sizes], float]:
    return lambda s: s.n * s.n * (pair_seconds + 1e-10 * s.width)
