"""Merging the neighbours within a pair of blocks of a large table into running lists of neighbours."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from modalign.kernels.knn.search import ROWS_AT_ONCE, search
from modalign.kernels.shared.tiles import interpreted
from modalign.ops.knn_tables import Report, RowBlock, SearchOptions

__all__ = ["merge"]


def merge(x: RowBlock, y: RowBlock | None, options: SearchOptions) -> Report:
    """Merge the pairs of two blocks in host memory into the lists of neighbours of either block, in place.

    The arguments are those of ``modalign.ops.knn.merge``; ``options.threads`` is not used. The blocks are searched on
    the GPU, first the rows of x in y, then those of y in x. Memory on the GPU: both blocks, and what ``search`` takes.
    """
    x = _on_device(x)
    y = None if y is None else _on_device(y)
    screens, counters = set(), np.zeros(3, dtype=np.int64)
    for block, gallery in [(x, x)] if y is None else [(x, y), (y, x)]:
        if block.best is None:
            continue
        k = min(block.best[0].shape[1], len(gallery.rows) - (y is None))
        if k:
            queries = None if y is None else block
            indices, scores, (screen, *counts) = search(gallery, queries, dataclasses.replace(options, k=k))
            indices = torch.where(indices >= 0, indices + gallery.start, -1)
            screens.add(screen)
            counters += counts
            for part in torch.arange(len(block.rows)).split(ROWS_AT_ONCE):
                ids, best = (table[part[0] : part[-1] + 1] for table in block.best)
                _merge_lists(ids, best, indices[part].cpu(), scores[part].cpu())
    if options.watch is not None:
        options.watch.done.add_(len(x.rows) * len((x if y is None else y).rows))
    proved, redone, scored = map(int, counters)
    return Report(", ".join(sorted(screens)) or "none", proved, redone, scored)


def _on_device(block: RowBlock) -> RowBlock:
    return block if interpreted() else dataclasses.replace(block, rows=block.rows.to("cuda"))


def _merge_lists(ids: Tensor, scores: Tensor, new_ids: Tensor, new_scores: Tensor) -> None:
    """Replace lists of neighbours by the best entries of them and of new lists: higher scores first, then lower ids."""
    all_ids, all_scores = torch.cat([ids, new_ids], 1), torch.cat([scores, new_scores], 1)
    by_id = all_ids.sort(dim=1)
    by_score = all_scores.gather(1, by_id.indices).sort(dim=1, descending=True, stable=True)
    ids.copy_(by_id.values.gather(1, by_score.indices[:, : ids.shape[1]]))
    scores.copy_(by_score.values[:, : ids.shape[1]])
