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
