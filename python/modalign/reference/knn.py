"""k nearest neighbours by float64 score: equal scores by the lower index, a row excluded from its own list by index."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modalign.ops.knn_tables import Report, RowBlock, SearchOptions

BLOCK_ELEMENTS = 1 << 22  # scores held at once


def knn(
    x: Tensor,
    queries: Tensor | None,
    k: int,
    metric: str,
    *,
    groups: Tensor | None = None,
    query_groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return indices and scores [m, k] of the neighbours of queries [m, d], or of x's own rows, among x [n, d].

    Rows of equal groups [n] and [m] are no neighbours; ``query_groups`` are given where queries and groups are.
    """
    rows, row_groups = (x, groups) if queries is None else (queries, query_groups)
    block = max(1, BLOCK_ELEMENTS // len(x))
    indices = torch.empty(len(rows), k, dtype=torch.int64, device=x.device)
    best = torch.empty(len(rows), k, dtype=torch.float64, device=x.device)
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        score = scores(rows[part], x, metric)
        if queries is None:
            ids = torch.arange(len(rows), device=x.device)[part]
            score[torch.arange(len(ids), device=x.device), ids] = -torch.inf
        if groups is not None and row_groups is not None:
            score.masked_fill_(row_groups[part, None] == groups, -torch.inf)
        order = score.sort(dim=1, descending=True, stable=True)  # stable: ties to the lower index
        indices[part], best[part] = order.indices[:, :k], order.values[:, :k]
    return indices, best


def search(x: RowBlock, queries: RowBlock | None, options: SearchOptions) -> tuple[Tensor, Tensor, Report]:
    """Call ``knn`` as ``modalign.ops.knn.search`` does. The report says that no screen ran: nothing was proved."""
    rows, groups = (None, None) if queries is None else (queries.rows, queries.groups)
    indices, best = knn(x.rows, rows, options.k, options.metric, groups=x.groups, query_groups=groups)
    return indices, best, Report("none", 0, len(indices), 0)


def merge(x: RowBlock, y: RowBlock | None, options: SearchOptions) -> Report:
    """Fold the pairs of two blocks into their lists of neighbours, in place, as ``modalign.ops.knn.merge`` promises.

    The report says that no screen ran: every pair was scored in float64.
    """
    sides = [(x, x)] if y is None else [(x, y), (y, x)]
    searched = scored = 0
    for block, others in sides:
        if block.best is not None:
            _merge_side(block, others, options.metric)
            searched, scored = searched + len(block.rows), scored + len(block.rows) * len(others.rows)
    if options.watch is not None:
        options.watch.done.add_(len(x.rows) * len((x if y is None else y).rows))
    return Report("none", 0, searched, scored)


def _merge_side(block: RowBlock, others: RowBlock, metric: str) -> None:
    assert block.best is not None
    indices, values = block.best
    step = max(1, BLOCK_ELEMENTS // len(others.rows))
    for first in range(0, len(block.rows), step):
        part = slice(first, first + step)
        score = scores(block.rows[part], others.rows, metric)
        if others is block:
            score.diagonal(first).fill_(-torch.inf)
        if block.groups is not None and others.groups is not None:
            score.masked_fill_(block.groups[part, None] == others.groups, -torch.inf)
        ids = torch.where(score > -torch.inf, torch.arange(others.start, others.start + len(others.rows)), -1)
        ids, order = torch.cat([indices[part], ids], 1).sort(dim=1)
        score = torch.cat([values[part], score], 1).gather(1, order)
        order = score.argsort(dim=1, descending=True, stable=True)[:, : indices.shape[1]]
        indices[part], values[part] = ids.gather(1, order), score.gather(1, order)


def scores(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """Return the scores [m, n] of the rows of x [m, d] with those of y [n, d], summed in the order of the features."""
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
    """Return 1 / |x_i|, the squares summed feature by feature in order; 0 for a zero row."""
    squares = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for a in x.double().unbind(1):
        squares += a * a
    # math.sqrt is correctly rounded, as IEEE 754 wants; torch.sqrt on the CPU may be off by one place
    inverse = [1 / math.sqrt(square) if square > 0 else 0.0 for square in squares.tolist()]
    return torch.tensor(inverse, dtype=torch.float64, device=x.device)
