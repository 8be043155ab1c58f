"""Steps that all metrics of neighbours share: search two graphs, check given graphs, and go through rows in blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from modalign.common.checks import require_same_items, whole_number
from modalign.common.conversion import as_array, require_same_index
from modalign.common.types import Array, Integers
from modalign.files.rows import RowSource, as_source, open_rows
from modalign.neighbors.graph import Neighbors, indices_of

__all__ = [
    "Graph",
    "Search",
    "checked_graph",
    "checked_pair",
    "paired_arrays",
    "paired_rows",
    "require_distinct",
    "row_blocks",
]

BLOCK_ELEMENTS = 1 << 22  # numbers in a block of rows, of which float64 copies are made

Graph: TypeAlias = Neighbors | Array  # (m, k) integers, nearest first


@dataclasses.dataclass(frozen=True)
class Search:
    """The options of ``modalign.knn`` that metrics of neighbours take.

    Attributes:
        k: Neighbours of each item.
        metric: "cosine", "dot" or "euclidean".
        groups: (n,) integers; items of one group are not each other's neighbours. None for no groups.
        backend: "auto" or the name of a backend.

    Raises:
        TypeError: ``k`` is no integer.
    """

    k: int
    metric: str
    groups: Integers | None
    backend: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", whole_number("knn", "k", self.k))


def checked_graph(operation: str, name: str, graph: Graph, candidates: int | None) -> tuple[Tensor, int]:
    """Check a graph, and return its indices and the number of items that they refer to.

    Args:
        operation: The name of the calling function, with which error messages begin.
        name: The name of the argument, for error messages.
        graph: (m, k) integers.
        candidates: The number of items; None for that of ``Neighbors``, or m.
    """
    known = graph.candidates if isinstance(graph, Neighbors) else None
    indices = indices_of(f"{operation}: {name}", graph)
    if indices.numel() == 0:
        raise ValueError(f"{operation}: {name} must be (n, k) with n, k >= 1, got {tuple(indices.shape)}")
    n = candidates if candidates is not None else known if known is not None else len(indices)
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= n:
        raise ValueError(f"{operation}: {name} must hold indices from 0 to {n - 1}, got {low if low < 0 else high}")
    return indices, n


def checked_pair(operation: str, a: Graph, b: Graph, candidates: int | None = None) -> tuple[Tensor, Tensor, int]:
    """Check two graphs of the same items, and return their indices and the number of items that they refer to."""
    (left, n), (right, m) = (checked_graph(operation, name, graph, candidates) for name, graph in (("a", a), ("b", b)))
    if left.shape != right.shape or n != m:
        raise ValueError(
            f"{operation}: a and b must be lists of as many neighbours of the same items, "
            f"got {tuple(left.shape)} of {n} items and {tuple(right.shape)} of {m}"
        )
    return left, right.to(left.device), n


def require_distinct(operation: str, a: Tensor, b: Tensor) -> None:
    """Raise ValueError if a row of one of the graphs a and b holds an index twice."""
    for name, graph in (("a", a), ("b", b)):
        for rows in row_blocks(len(graph), 4 * graph.shape[1]):
            repeated = (graph[rows].sort(dim=1).values.diff(dim=1) == 0).any(1)
            if bool(repeated.any()):
                row = rows.start + int(repeated.nonzero()[0])
                raise ValueError(
                    f"{operation}: each row of {name} must hold distinct indices, got one twice in row {row}"
                )


def paired_rows(operation: str, x: RowSource, y: RowSource) -> tuple[RowSource, RowSource]:
    """Return x and y as arrays, tensors, opened rows or paths; ValueError unless they are (n, d_x) and (n, d_y)."""
    require_same_index(operation, x, y)
    left, right = as_source(f"{operation}: x", x), as_source(f"{operation}: y", y)
    shapes = (tuple((open_rows(rows) if isinstance(rows, (str, Path)) else rows).shape) for rows in (left, right))
    require_same_items(operation, *shapes)
    return left, right


def paired_arrays(operation: str, x: object, y: object) -> tuple[Array, Array]:
    """Return x and y in memory as arrays or tensors; ValueError unless they are (n, d_x) and (n, d_y)."""
    require_same_index(operation, x, y)
    left, right = as_array(f"{operation}: x", x), as_array(f"{operation}: y", y)
    require_same_items(operation, tuple(left.shape), tuple(right.shape))
    return left, right


def row_blocks(n: int, width: int) -> Iterator[slice]:
    """Yield consecutive slices of n rows of ``width`` numbers, each of about ``BLOCK_ELEMENTS`` numbers."""
    block = max(1, BLOCK_ELEMENTS // width)
    return (slice(start, start + block) for start in range(0, n, block))
