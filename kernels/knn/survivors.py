"""The screen of a large gallery: append the rows whose upper bounds reach a threshold, and keep no lists.

With a threshold that k rows of the gallery are known to reach, no row whose upper bound lies below it can be a
neighbour. Beyond the products, a tile then costs one comparison for each pair; the few pairs that survive are appended
to their row. A gallery searched for itself is multiplied once for both rows of a pair: only tiles on and above the
diagonal, half of the products.

Survivors beyond the capacity of a row are counted but not written, so the caller knows which rows are incomplete.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.knn.screen import Screen, empty_survivors, pack_keys, upper_bounds
from modalign.kernels.shared.launch import dot_tile, launch, to_table
from modalign.kernels.shared.tiles import architecture, tile

__all__ = ["find_survivors"]

PROGRAMS_AT_ONCE = 1 << 30  # of one launch


def find_survivors(
    screen: Screen, rows: Tensor | None, excluded: Tensor, thresholds: Tensor, capacity: int
) -> tuple[Tensor, Tensor]:
    """Return the keys of the gallery rows whose upper bounds reach the thresholds, and their number for each query.

    Args:
        screen: the gallery, the queries and the vectors of the bound.
        rows: [r] indices of the queries; None for all rows of a gallery that is searched for itself, by symmetry.
        excluded: [r] the gallery row that is no neighbour of each query, or -1.
        thresholds: [r] float32, in the units of the bounds.
        capacity: the number of keys that each query has room for.

    Returns:
        Keys [r, capacity] int64 in no order, NO_KEY in empty places, and counts [r] int32; where a count exceeds the
        capacity, some keys are missing. Memory: 8 r capacity bytes.
    """
    n, d = screen.x.shape
    selected = slice(None) if rows is None else rows
    queries, device = screen.queries[selected], screen.x.device
    keys, counts = empty_survivors(len(thresholds), capacity, device)
    sizes = tile("knn_append", screen.x.dtype, n, architecture(device))
    side = sizes.blocks["BLOCK_M"]
    row_blocks = triton.cdiv(len(thresholds), side)
    squares = (row_blocks + 1) // 2 * (row_blocks + 1) if rows is None else row_blocks * triton.cdiv(n, side)
    programs = squares * (side // sizes.blocks["BLOCK_N"])
    row_vectors = (screen.row_scale[selected], screen.row_slack[selected], screen.row_norm[selected])
    col_vectors = (screen.col_scale, screen.col_offset, screen.col_slack, screen.col_error)
    tables = (to_table(queries, "BLOCK_M", sizes), to_table(screen.x, "BLOCK_N", sizes), excluded)
    pointers = (*tables, *row_vectors, *col_vectors, thresholds, *screen.select_groups(selected), keys, counts)
    for first in range(0, programs, PROGRAMS_AT_ONCE):
        count, numbers = min(PROGRAMS_AT_ONCE, programs - first), (first, len(thresholds), n, d, capacity)
        launch(_knn_append_kernel, count, sizes, *pointers, *numbers, SYMMETRIC=rows is None)
    return keys, counts


@triton.jit(do_not_specialize=["first", "n_rows", "n", "capacity"])
def _knn_append_kernel(
    queries,  # [n_rows, d], a table of dot_tile
    x,  # [n, d], likewise
    excluded_ptr,  # [n_rows]
    row_scale_ptr,  # [n_rows]
    row_slack_ptr,  # [n_rows]
    row_norm_ptr,  # [n_rows]
    col_scale_ptr,  # [n]
    col_offset_ptr,  # [n]
    col_slack_ptr,  # [n]
    col_error_ptr,  # [n]
    threshold_ptr,  # [n_rows]
    row_group_ptr,  # [n_rows] int64 or None
    col_group_ptr,  # [n] int64 or None
    keys_ptr,  # [n_rows, capacity] int64
    counts_ptr,  # [n_rows] int32
    first,
    n_rows,
    n,
    d,
    capacity,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    GROUP: tl.constexpr,
    SYMMETRIC: tl.constexpr,
):
    """Append the survivors of one tile: BLOCK_N columns of a square of BLOCK_M rows and columns.

    The kernel is long because its signature is, and because it maps programs to tiles above the diagonal.
    """
    PARTS: tl.constexpr = BLOCK_M // BLOCK_N
    program = first + tl.program_id(0).to(tl.int64)
    part, program = (program % PARTS).to(tl.int32), program // PARTS
    row_blocks = tl.cdiv(n_rows, BLOCK_M)
    # squares on and above the diagonal are folded into a rectangle: row i beside row row_blocks - 1 - i
    height = tl.cdiv(row_blocks, 2) if SYMMETRIC else row_blocks
    width = row_blocks + 1 if SYMMETRIC else tl.cdiv(n, BLOCK_M)
    # GROUP rows of squares share their columns in the cache
    top = program // (GROUP * width) * GROUP
    across = tl.minimum(height - top, GROUP)
    i = (top + program % (GROUP * width) % across).to(tl.int32)
    j = (program % (GROUP * width) // across).to(tl.int32)
    inside = True
    if SYMMETRIC:
        folded = j <= i
        inside = (not folded) | (row_blocks - 1 - i != i)
        i, j = tl.where(folded, row_blocks - 1 - i, i), tl.where(folded, row_blocks - 1 - j, j - 1)
    if inside:
        first_row, first_col = i * BLOCK_M, j * BLOCK_M + part * BLOCK_N
        dots = dot_tile(queries, x, 0, 0, first_row, first_col, n_rows, n, d, BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS)
        row_ptrs = (excluded_ptr, row_scale_ptr, row_slack_ptr, row_norm_ptr, threshold_ptr, row_group_ptr)
        col_ptrs = (col_scale_ptr, col_offset_ptr, col_slack_ptr, col_error_ptr, col_group_ptr)
        results = (keys_ptr, counts_ptr, capacity)
        _append(results, dots, first_row, first_col, row_ptrs, col_ptrs, n_rows, n, BLOCK_M, BLOCK_N, 1)
        if SYMMETRIC:  # noqa: SIM102  a constant: without it, nothing below is compiled
            if i != j:
                _append(results, dots, first_col, first_row, row_ptrs, col_ptrs, n_rows, n, BLOCK_N, BLOCK_M, 0)


@triton.jit
def _append(
    results,
    dots,
    first_owner,
    first_other,
    row_ptrs,
    col_ptrs,
    n_rows,
    n,
    OWNERS: tl.constexpr,
    OTHERS: tl.constexpr,
    AXIS: tl.constexpr,
):
    """Append the survivors of a tile of products to its rows (AXIS 1) or to its columns (AXIS 0), the owners."""
    SIDE: tl.constexpr = 1 - AXIS  # the axis of the owners
    keys_ptr, counts_ptr, capacity = results
    excluded_ptr, row_scale_ptr, row_slack_ptr, row_norm_ptr, threshold_ptr, row_group_ptr = row_ptrs
    col_scale_ptr, col_offset_ptr, col_slack_ptr, col_error_ptr, col_group_ptr = col_ptrs
    owner = first_owner + tl.arange(0, OWNERS)
    other = first_other + tl.arange(0, OTHERS)
    owned = owner < n_rows
    row_scale = tl.expand_dims(tl.load(row_scale_ptr + owner, owned, other=0.0), AXIS)
    row_slack = tl.expand_dims(tl.load(row_slack_ptr + owner, owned, other=0.0), AXIS)
    row_norm = tl.expand_dims(tl.load(row_norm_ptr + owner, owned, other=0.0), AXIS)
    col_scale = tl.expand_dims(tl.load(col_scale_ptr + other, other < n, other=0.0), SIDE)
    col_offset = tl.expand_dims(tl.load(col_offset_ptr + other, other < n, other=0.0), SIDE)
    col_slack = tl.expand_dims(tl.load(col_slack_ptr + other, other < n, other=0.0), SIDE)
    col_error = tl.expand_dims(tl.load(col_error_ptr + other, other < n, other=0.0), SIDE)
    bounds = upper_bounds(dots, row_scale, row_slack, row_norm, col_scale, col_offset, col_slack, col_error)
    threshold = tl.expand_dims(tl.load(threshold_ptr + owner, owned, other=float("inf")), AXIS)
    excluded = tl.expand_dims(tl.load(excluded_ptr + owner, owned, other=-1).to(tl.int32), AXIS)
    column = tl.expand_dims(other, SIDE)
    survives = (bounds >= threshold) & (column != excluded) & (column < n) & tl.expand_dims(owned, AXIS)
    if row_group_ptr is not None:
        row_group = tl.expand_dims(tl.load(row_group_ptr + owner, owned, other=0), AXIS)
        survives &= row_group != tl.expand_dims(tl.load(col_group_ptr + other, other < n, other=0), SIDE)
    # places in the tile from 1 on, 0 for pairs that do not survive
    place = tl.where(survives, tl.expand_dims(1 + tl.arange(0, OTHERS), SIDE), 0)
    # one iteration for each survivor of any owner; most tiles have one or none
    last = tl.max(place, AXIS)
    while tl.max(last, 0) > 0:
        bound = tl.max(tl.where(place == tl.expand_dims(last, AXIS), bounds, -float("inf")), AXIS)
        slot = tl.atomic_add(counts_ptr + owner, 1, last > 0, sem="relaxed")
        key = pack_keys(bound, first_other + last - 1)
        tl.store(keys_ptr + owner.to(tl.int64) * capacity + slot, key, (last > 0) & (slot < capacity))
        last = tl.max(tl.where(place < tl.expand_dims(last, AXIS), place, 0), AXIS)
