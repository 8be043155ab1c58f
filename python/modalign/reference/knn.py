"""k nearest neighbours by float64 score, ties to the lower index, self excluded by id."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 22  # scores held at once


def knn(
    x: Tensor, queries: Tensor | None, k: int, metric: str, *, groups: Tensor | None = None,
    query_groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """x: [n, d] gallery, queries: [m, d], or None to search x for itself. Indices and scores [m, k]. Rows of equal
    groups [n], [m] are no neighbours."""
    rows = x if queries is None else queries
    own = groups if queries is None else query_groups
    block = max(1, BLOCK_ELEMENTS // len(x))
    indices = torch.empty(len(rows), k, dtype=torch.int64, device=x.device)
    best = torch.empty(len(rows), k, dtype=torch.float64, device=x.device)
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        score = scores(rows[part], x, metric)
        if queries is None:
            ids = torch.arange(len(rows), device=x.device)[part]
            score[torch.arange(len(ids), device=x.device), ids] = -torch.inf
        if groups is not None and own is not None:
            score.masked_fill_(own[part, None] == groups, -torch.inf)
        order = score.sort(dim=1, descending=True, stable=True)  # stable: ties to the lower index
        indices[part], best[part] = order.indices[:, :k], order.values[:, :k]
    return indices, best


def merge(
    x: Tensor, y: Tensor | None, metric: str, x_best: tuple[Tensor, Tensor] | None,
    y_best: tuple[Tensor, Tensor] | None, *, x_start: int = 0, y_start: int = 0, x_groups: Tensor | None = None,
    y_groups: Tensor | None = None, watch: tuple[Tensor, Tensor] | None = None, **of_other_backends: object,
) -> tuple[str, int, int, int]:  # fmt: skip
    """Fold the pairs of two blocks into the lists of best neighbours of either, in place: ``modalign.ops.knn.merge``.

    Returns that no screen was used, so that none of the rows was proved by one and all were scored, in so many pairs.
    """
    other, other_groups, other_start = (x, x_groups, x_start) if y is None else (y, y_groups, y_start)
    sides = [(x_best, x, x_groups, other, other_groups, other_start)]
    if y is not None:
        sides.append((y_best, y, y_groups, x, x_groups, x_start))
    found = scored = 0
    for best, rows, groups, others, their_groups, start in sides:
        if best is None:
            continue
        indices, values = best
        block = max(1, BLOCK_ELEMENTS // len(others))
        for first in range(0, len(rows), block):
            part = slice(first, first + block)
            score = scores(rows[part], others, metric)
            if y is None:
                score.diagonal(first).fill_(-torch.inf)
            if groups is not None and their_groups is not None:
                score.masked_fill_(groups[part, None] == their_groups, -torch.inf)
            ids = torch.where(score > -torch.inf, torch.arange(start, start + len(others)), -1)
            ids, order = torch.cat([indices[part], ids], 1).sort(dim=1)
            score = torch.cat([values[part], score], 1).gather(1, order)
            order = score.argsort(dim=1, descending=True, stable=True)[:, : indices.shape[1]]
            indices[part], values[part] = ids.gather(1, order), score.gather(1, order)
        found, scored = found + len(rows), scored + len(rows) * len(others)
    if watch is not None:
        watch[0].add_(len(x) * len(other))
    return "none", 0, found, scored


def scores(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """The score of every row of x [m, d] with every row of y [n, d], summed in the order of the features: [m, n]."""
    left, right = x.double(), y.double()
    total = torch.zeros(len(x), len(y), dtype=torch.float64, device=x.device)
    for a, b in zip(left.unbind(1), right.unbind(1), strict=True):
        if metric == "euclidean":
            difference = a[:, None] - b
            total -= difference * difference
        else:
            total += a[:, None] * b
    if metric == "cosine":
        total = total * inverse_norms(left)[:, None] * inverse_norms(right)
    return total


def inverse_norms(x: Tensor) -> Tensor:
    """1 / |x_i|, the squares summed feature by feature in order; 0 for a zero row."""
    squares = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for a in x.double().unbind(1):
        squares += a * a
    # math.sqrt is correctly rounded, as IEEE 754 wants; torch.sqrt on the CPU may be off by one place
    inverse = [1 / math.sqrt(square) if square > 0 else 0.0 for square in squares.tolist()]
    return torch.tensor(inverse, dtype=torch.float64, device=x.device)
