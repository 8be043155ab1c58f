"""Merging the neighbours within a pair of blocks of a large table into running lists of neighbours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from modalign.kernels.knn.search import ROWS_AT_ONCE, Report, knn
from modalign.kernels.shared.tiles import interpreted

__all__ = ["merge"]


def merge(
    x: Tensor,
    y: Tensor | None,
    metric: str,
    x_best: tuple[Tensor, Tensor] | None,
    y_best: tuple[Tensor, Tensor] | None,
    *,
    x_start: int = 0,
    y_start: int = 0,
    x_groups: Tensor | None = None,
    y_groups: Tensor | None = None,
    watch: tuple[Tensor, Tensor] | None = None,
    threads: int | None = None,
) -> Report:
    """Merge the pairs of two blocks in host memory into the lists of neighbours of either block, in place.

    The arguments are those of ``modalign.ops.knn.merge``; ``threads`` is not used. The blocks are searched on the GPU,
    first the rows of x in y, then those of y in x. Memory on the GPU: both blocks, and what ``knn`` takes for them.
    """
    self_search = y is None
    left = x if interpreted() else x.to("cuda")
    right = left if self_search else (y if interpreted() else y.to("cuda"))
    right_groups = x_groups if self_search else y_groups
    sides = [
        (x_best, left, right, x_start if self_search else y_start, x_groups, right_groups),
        (y_best, right, left, x_start, right_groups, x_groups),
    ]
    screens, counters = set(), np.zeros(3, dtype=np.int64)
    for best, rows, gallery, start, row_groups, gallery_groups in sides:
        k = 0 if best is None else min(best[0].shape[1], len(gallery) - self_search)
        if k:
            queries, query_groups = (None, None) if self_search else (rows, row_groups)
            indices, scores, (screen, *counts) = knn(
                gallery, queries, k, metric, groups=gallery_groups, query_groups=query_groups
            )
            indices = torch.where(indices >= 0, indices + start, -1)
            screens.add(screen)
            counters += counts
            for part in torch.arange(len(rows)).split(ROWS_AT_ONCE):
                lists = (table[part[0] : part[-1] + 1] for table in best)
                _merge_lists(*lists, indices[part].cpu(), scores[part].cpu())
    if watch is not None:
        watch[0].add_(len(left) * len(right))
    return ", ".join(sorted(screens)) or "none", *map(int, counters)


def _merge_lists(ids: Tensor, scores: Tensor, new_ids: Tensor, new_scores: Tensor) -> None:
    """Replace lists of neighbours by the best entries of them and of new lists: higher scores first, then lower ids."""
    all_ids, all_scores = torch.cat([ids, new_ids], 1), torch.cat([scores, new_scores], 1)
    by_id = all_ids.sort(dim=1)
    by_score = all_scores.gather(1, by_id.indices).sort(dim=1, descending=True, stable=True)
    ids.copy_(by_id.values.gather(1, by_score.indices[:, : ids.shape[1]]))
    scores.copy_(by_score.values[:, : ids.shape[1]])
