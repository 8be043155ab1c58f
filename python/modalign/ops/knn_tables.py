"""What a k-NN search hands to its backends: rows with their groups and lists of neighbours, and the options.

The compiled core, the Triton kernels and the definition import these types, and nothing else of the operators.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, TypeAlias

from torch import Tensor

from modalign.common.checks import one_of, whole_number
from modalign.common.interruption import Watch

__all__ = ["METRICS", "Best", "Report", "RowBlock", "SearchOptions"]

METRICS = ("cosine", "dot", "euclidean")
MOST_THREADS = 4096

# indices [rows, k] int64 and scores [rows, k] float64, best first; -1 and -inf where a list is not full
Best: TypeAlias = tuple[Tensor, Tensor]


class Report(NamedTuple):
    """What a search took.

    Attributes:
        screen: The precision in which candidates were excluded, "none" if float64 scored every pair.
        proved: The number of searching rows whose neighbours the screen's bound proves.
        redone: The number of searching rows left to float64 alone or to a second screen.
        scored: The number of pairs of rows that float64 scored.
    """

    screen: str
    proved: int
    redone: int
    scored: int


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """The options of a search, as ``modalign.knn`` documents them.

    Attributes:
        k: The number of neighbours of a row.
        metric: "cosine", "dot" or "euclidean".
        backend: "auto" or the name of an implementation.
        threads: The number of threads on a CPU, None for as many as torch has.
        watch: Through which another thread follows and stops the search, or None.

    Raises:
        TypeError: ``k`` or ``threads`` is no integer.
        ValueError: The metric does not exist, or ``threads`` is out of range.
    """

    k: int
    metric: str = "cosine"
    backend: str = "auto"
    threads: int | None = None
    watch: Watch | None = None

    def __post_init__(self) -> None:
        one_of("knn", "metric", self.metric, METRICS)
        object.__setattr__(self, "k", whole_number("knn", "k", self.k))
        if self.threads is not None:
            threads = whole_number("knn", "num_threads", self.threads, least=1, most=MOST_THREADS)
            object.__setattr__(self, "threads", threads)


@dataclasses.dataclass(frozen=True)
class RowBlock:
    """Consecutive rows of a set: a whole gallery, the queries, or a block of either.

    Attributes:
        rows: [n, d].
        groups: [n] int64 or None. Rows of equal groups are no neighbours.
        start: The number of the first row in its set, from which neighbours are numbered.
        best: The lists of neighbours of the rows, which a merge updates in place, or None if none are wanted.
    """

    rows: Tensor
    groups: Tensor | None = None
    start: int = 0
    best: Best | None = None
