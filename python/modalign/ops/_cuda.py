"""The compiled CUDA kernels seen from torch: contiguous device memory and torch's current stream in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modalign import _cuda

if TYPE_CHECKING:
    from modalign.kernels.knn import Report
    from modalign.kernels.screen import Screen

EXTREME_ROWS = 128  # of csrc/cuda/knn_survivors.cuh, where a tile has two of them


def neighbor_overlap(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.contiguous(), b.contiguous()
    n, k = a.shape
    counts = torch.empty(n, k, dtype=torch.int32, device=a.device)
    stream = torch.cuda.current_stream(a.device)
    _cuda.neighbor_overlap(a.data_ptr(), b.data_ptr(), n, k, counts.data_ptr(), stream.device_index, stream.cuda_stream)
    return counts


def knn(
    x: Tensor, queries: Tensor | None, k: int, metric: str, *, groups: Tensor | None = None,
    query_groups: Tensor | None = None,
) -> tuple[Tensor, Tensor, Report]:  # fmt: skip
    """The search of modalign.kernels.knn, its large galleries screened by the compiled kernel."""
    from modalign.kernels.knn import knn as search

    found: tuple[Tensor, Tensor, Report] = search(
        x, queries, k, metric, groups=groups, query_groups=query_groups, survivors=survivors
    )
    return found


def survivors(
    screen: Screen, which: Tensor | None, excluded: Tensor, thresholds: Tensor, capacity: int
) -> tuple[Tensor, Tensor]:
    """As modalign.kernels.survivors.survivors."""
    from modalign.kernels.screen import NO_KEY

    own = slice(None) if which is None else which
    (n, d), device = screen.x.shape, screen.x.device
    keys = torch.full((len(thresholds), capacity), NO_KEY, dtype=torch.int64, device=device)
    counts = torch.zeros(len(thresholds), dtype=torch.int32, device=device)
    rows = [table[own].contiguous() for table in (screen.row_scale, screen.row_slack, screen.row_norm)]
    columns = [
        table.contiguous() for table in (screen.col_scale, screen.col_offset, screen.col_slack, screen.col_error)
    ]
    groups = [None if table is None else table.contiguous() for table in screen.groups_of(own)]
    queries, extremes = screen.queries[own], screen.extremes(EXTREME_ROWS, multiple=2)
    stream = torch.cuda.current_stream(device)
    _cuda.knn_survivors(
        queries.data_ptr(), screen.x.data_ptr(), screen.x.dtype == torch.bfloat16, which is None,
        [table.data_ptr() for table in (*rows, thresholds)], [table.data_ptr() for table in columns],
        extremes.data_ptr(), excluded.data_ptr(), [0 if table is None else table.data_ptr() for table in groups],
        keys.data_ptr(), counts.data_ptr(), len(thresholds), n, d, capacity, stream.device_index,
        stream.cuda_stream,
    )  # fmt: skip
    return keys, counts
