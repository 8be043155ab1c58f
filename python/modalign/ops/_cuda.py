"""The compiled CUDA kernels seen from torch: contiguous device memory and torch's current stream in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modalign import _cuda
from modalign.ops.knn_tables import Report, RowBlock, SearchOptions
from modalign.ops.loss_tables import ForwardOptions, LossTables, Sums, WeightTables

if TYPE_CHECKING:
    from modalign.kernels.knn.screen import Screen
    from modalign.kernels.losses.info_nce import Compiled, Similarities
    from modalign.kernels.losses.products import Block

EXTREME_ROWS = 128  # of csrc/cuda/knn/knn_survivors.cuh, where a tile has two of them
Sides = tuple[Tensor, Tensor | None]  # the log-sum-exps of rows or columns, and their gradients
# of csrc/cuda/losses/info_nce.cuh: rows and columns that have one part together, and how many such rows a tile has
SUM_ROWS, SUM_COLUMNS, OF_TILE = 64, 256, 2


def neighbor_overlap(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.contiguous(), b.contiguous()
    n, k = a.shape
    counts = torch.empty(n, k, dtype=torch.int32, device=a.device)
    _cuda.neighbor_overlap(a.data_ptr(), b.data_ptr(), n, k, counts.data_ptr(), *_stream(a))
    return counts


def info_nce_forward(tables: LossTables, options: ForwardOptions) -> Sums:
    """The operator of modalign.kernels.losses.info_nce, with tiles by the compiled kernel."""
    from modalign.kernels.losses.info_nce import info_nce_forward as forward

    sums: Sums = forward(tables, options, compiled=_tiles())
    return sums


def info_nce_backward(
    tables: LossTables, weights: WeightTables, v: Tensor | None, u: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The operator of modalign.kernels.losses.info_nce, with weights by the compiled kernel."""
    from modalign.kernels.losses.info_nce import info_nce_backward as backward

    products: tuple[Tensor, Tensor] = backward(tables, weights, v, u, compiled=_tiles())
    return products


def _tiles() -> Compiled:
    from modalign.kernels.losses.info_nce import Compiled

    return Compiled(SUM_ROWS, SUM_COLUMNS, OF_TILE, sums=_info_nce_sums, weights=_info_nce_weights)


def _info_nce_sums(
    similarities: Similarities, rows: range, *, row_parts: Tensor, col_parts: Tensor | None, positive: Tensor | None
) -> None:
    """Write the partial sums of a range of rows."""
    x, y, scale, mask = similarities
    (_, n, d), m = x.shape, y.shape[1]
    part = (rows.start, len(rows), 0, m)
    parts = (row_parts.data_ptr(), row_parts.shape[-1], _address(col_parts), _address(positive))
    operands = (x.data_ptr(), y.data_ptr(), scale.data_ptr())
    _cuda.info_nce_sums(*operands, *parts, mask == "diagonal", part, n, m, d, *_stream(x))


def _info_nce_weights(
    similarities: Similarities, block: Block, *, row: Sides, col: Sides, positive_grad: Tensor | None, weights: Tensor
) -> None:
    """Write the weights of a block."""
    x, y, scale, mask = similarities
    (_, n, d), m = x.shape, y.shape[1]
    part = (block.row, block.rows, block.col, block.cols)
    operands = (x.data_ptr(), y.data_ptr(), scale.data_ptr())
    sides = ([_address(table) for table in row], [_address(table) for table in col], _address(positive_grad))
    results = (weights.data_ptr(), weights.stride(1))
    _cuda.info_nce_weights(*operands, *sides, mask == "diagonal", *results, part, n, m, d, *_stream(x))


def _address(table: Tensor | None) -> int:
    return 0 if table is None else table.data_ptr()


def _stream(x: Tensor) -> tuple[int, int]:
    stream = torch.cuda.current_stream(x.device)
    return stream.device_index, stream.cuda_stream


def search(x: RowBlock, queries: RowBlock | None, options: SearchOptions) -> tuple[Tensor, Tensor, Report]:
    """Search as modalign.kernels.knn.search does, with large galleries screened by the compiled kernel."""
    from modalign.kernels.knn.search import knn

    rows, groups = (None, None) if queries is None else (queries.rows, queries.groups)
    result: tuple[Tensor, Tensor, Report] = knn(
        x.rows, rows, options.k, options.metric, groups=x.groups, query_groups=groups, survivors=survivors
    )
    return result


def survivors(
    screen: Screen, rows: Tensor | None, excluded: Tensor, thresholds: Tensor, capacity: int
) -> tuple[Tensor, Tensor]:
    """Find survivors as ``modalign.kernels.knn.survivors.find_survivors`` does, by the compiled kernel."""
    from modalign.kernels.knn.screen import empty_survivors

    selected = slice(None) if rows is None else rows
    n, d = screen.x.shape
    keys, counts = empty_survivors(len(thresholds), capacity, screen.x.device)
    row_vectors = (screen.row_scale, screen.row_slack, screen.row_norm)
    row_tables = [table[selected].contiguous() for table in row_vectors]
    col_tables = [
        table.contiguous() for table in (screen.col_scale, screen.col_offset, screen.col_slack, screen.col_error)
    ]
    groups = [None if table is None else table.contiguous() for table in screen.select_groups(selected)]
    queries, extremes = screen.queries[selected], screen.extremes(EXTREME_ROWS, multiple=2)
    operands = (queries.data_ptr(), screen.x.data_ptr(), screen.x.dtype == torch.bfloat16, rows is None)
    vectors = ([table.data_ptr() for table in (*row_tables, thresholds)], [table.data_ptr() for table in col_tables])
    group_pointers = [_address(table) for table in groups]
    results = (keys.data_ptr(), counts.data_ptr())
    numbers = (len(thresholds), n, d, capacity)
    masks = (extremes.data_ptr(), excluded.data_ptr())
    _cuda.knn_survivors(*operands, *vectors, *masks, group_pointers, *results, *numbers, *_stream(screen.x))
    return keys, counts
