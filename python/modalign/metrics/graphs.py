"""What every metric of neighbours does first: graphs searched or checked, and rows block by block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalign.common.checks import require_same_items
from modalign.files.rows import open_rows
from modalign.neighbors.functional import knn
from modalign.neighbors.graph import Neighbors

__all__ = ["graph_of", "graphs_of", "pair_of", "require_distinct", "row_blocks", "same_items", "tensor_of"]

BLOCK_ELEMENTS = 1 << 22  # float64 copies of a block of rows


def graphs_of(
    operation: str, x: Any, y: Any, k: int, metric: str, groups: Any, backend: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    same_items(operation, x, y)
    a, b = (torch.as_tensor(knn(rows, k, metric=metric, groups=groups, backend=backend).indices) for rows in (x, y))
    return a, b.to(a.device)


def graph_of(operation: str, name: str, graph: Any, candidates: int | None) -> tuple[Tensor, int]:
    """Its indices, and how many items they are of."""
    known = graph.candidates if isinstance(graph, Neighbors) else None
    indices = tensor_of(graph.indices if isinstance(graph, Neighbors) else graph)
    if indices.dtype != torch.int64 or indices.ndim != 2:
        raise TypeError(f"{operation}: {name} must be (n, k) int64, got {tuple(indices.shape)} {indices.dtype}")
    if indices.numel() == 0:
        raise ValueError(f"{operation}: {name} must be (n, k) with n, k >= 1, got {tuple(indices.shape)}")
    n = candidates if candidates is not None else known if known is not None else len(indices)
    least, most = int(indices.min()), int(indices.max())
    if least < 0 or most >= n:
        raise ValueError(f"{operation}: {name} must hold indices from 0 to {n - 1}, got {least if least < 0 else most}")
    return indices, n


def pair_of(operation: str, a: Any, b: Any, candidates: int | None) -> tuple[Tensor, Tensor, int]:
    (left, n), (right, m) = (graph_of(operation, name, graph, candidates) for name, graph in (("a", a), ("b", b)))
    if left.shape != right.shape or n != m:
        raise ValueError(
            f"{operation}: a and b must be lists of as many neighbours of the same items, "
            f"got {tuple(left.shape)} of {n} items and {tuple(right.shape)} of {m}"
        )
    return left, right.to(left.device), n


def require_distinct(operation: str, name: str, graph: Tensor) -> None:
    for rows in row_blocks(len(graph), 4 * graph.shape[1]):
        twice = (graph[rows].sort(dim=1).values.diff(dim=1) == 0).any(1)
        if bool(twice.any()):
            row = rows.start + int(twice.nonzero()[0])
            raise ValueError(f"{operation}: each row of {name} must hold distinct indices, got one twice in row {row}")


def same_items(operation: str, x: Any, y: Any) -> None:
    shapes = [
        open_rows(rows).shape if isinstance(rows, (str, Path)) else tuple(getattr(rows, "shape", ())) for rows in (x, y)
    ]
    require_same_items(operation, *shapes)


def row_blocks(n: int, width: int) -> Iterator[slice]:
    """Blocks of rows of ``width`` numbers."""
    block = max(1, BLOCK_ELEMENTS // width)
    return (slice(start, start + block) for start in range(0, n, block))


def tensor_of(array: Any) -> Tensor:
    with warnings.catch_warnings():  # of a read-only array: nothing here writes to its inputs
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.as_tensor(array)
