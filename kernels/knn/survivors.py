"""Threshold and append: the screen of a large gallery, which keeps no list while it multiplies.

With a threshold that k rows of the gallery are known to reach, no row whose upper bound lies below it can be a
neighbour. What a tile of products costs beyond the products is then one comparison for each pair; the few pairs that
survive are appended to their row. A gallery searched for itself is multiplied once for both sides of a pair: tiles on
and above the diagonal alone, half of the products.

Rows that append more than there is room for are counted and said, never cut.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.knn.screen import Screen, no_survivors, packed, upper_bounds
from modalign.kernels.shared.launch import dot_tile, launch, table
from modalign.kernels.shared.tiles import architecture, tile

__all__ = ["survivors"]

PROGRAMS_AT_ONCE = 1 << 30  # of one launch


def survivors(
    screen: Screen, which: Tensor | None, excluded: Tensor, thresholds: Tensor, capacity: int
) -> tuple[Tensor, Tensor]:
    """Keys of the gallery rows whose upper bounds reach the thresholds, and how many each row has.

    which: [r] rows of the queries; None for a gallery that is searched for itself, by symmetry, all rows in order.
    excluded: [r] the gallery row each must not find, or -1. thresholds: [r] float32, in the units of the bounds.
    Returns keys [r, capacity] int64 in no order, NO_KEY where there is none, and counts [r] int32: where a count
    exceeds the capacity, some are missing. Memory: 8 r capacity bytes.
    """
    n, d = screen.x.shape
    own = slice(None) if which is None else which
    queries, device = screen.queries[own], screen.x.device
    keys, counts = no_survivors(len(thresholds), capacity, device)
    sizes = tile("knn_append", screen.x.dtype, n, architecture(device))
    side = sizes.blocks["BLOCK_M"]
    row_blocks = triton.cdiv(len(thresholds), side)
    squares = (row_blocks + 1) // 2 * (row_blocks + 1) if which is None else row_blocks * triton.cdiv(n, side)
    programs = squares * (side // sizes.blocks["BLOCK_N"])
    for first in range(0, programs, PROGRAMS_AT_ONCE):
        launch(
            _knn_append_kernel, min(PROGRAMS_AT_ONCE, programs - first), sizes,
            table(queries, "BLOCK_M", sizes), table(screen.x, "BLOCK_N", sizes), excluded, screen.row_scale[own],
            screen.row_slack[own], screen.row_norm[own], screen.col_scale, screen.col_offset, screen.col_slack,
            screen.col_error, thresholds, *screen.groups_of(own), keys, counts, first, len(thresholds), n, d, capacity,
            SYMMETRIC=which is None,
        )  # fmt: skip
    return keys, counts


@triton.jit(do_not_specialize=["first", "n_rows", "n", "capacity"])
def _knn_append_kernel(
    queries, x,  # [n_rows, d], [n, d], tables of dot_tile
    excluded_ptr, row_scale_ptr, row_slack_ptr, row_norm_ptr,  # [n_rows]
    col_scale_ptr, col_offset_ptr, col_slack_ptr, col_error_ptr,  # [n]
    threshold_ptr,  # [n_rows]
    row_group_ptr, col_group_ptr,  # [n_rows], [n] int64, or None
    keys_ptr, counts_ptr,  # [n_rows, capacity] int64, [n_rows] int32
    first, n_rows, n, d, capacity,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, DESCRIPTORS: tl.constexpr,
    GROUP: tl.constexpr, SYMMETRIC: tl.constexpr,
):  # fmt: skip
    # squares of BLOCK_M rows and columns, in parts of BLOCK_N columns
    PARTS: tl.constexpr = BLOCK_M // BLOCK_N
    program = first + tl.program_id(0).to(tl.int64)
    part, program = (program % PARTS).to(tl.int32), program // PARTS
    row_blocks = tl.cdiv(n_rows, BLOCK_M)
    # those on and above the diagonal are folded into a rectangle: row i of them beside row row_blocks - 1 - i
    height = tl.cdiv(row_blocks, 2) if SYMMETRIC else row_blocks
    width = row_blocks + 1 if SYMMETRIC else tl.cdiv(n, BLOCK_M)
    # GROUP rows of squares share their columns in the cache
    top = program // (GROUP * width) * GROUP
    across = tl.minimum(height - top, GROUP)
    i = (top + program % (GROUP * width) % across).to(tl.int32)
    j = (program % (GROUP * width) // across).to(tl.int32)
    wanted = True
    if SYMMETRIC:
        folded = j <= i
        wanted = (not folded) | (row_blocks - 1 - i != i)
        i, j = tl.where(folded, row_blocks - 1 - i, i), tl.where(folded, row_blocks - 1 - j, j - 1)
    if wanted:
        first_row, first_col = i * BLOCK_M, j * BLOCK_M + part * BLOCK_N
        dots = dot_tile(
            queries, x, 0, 0, first_row, first_col, n_rows, n, d, BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS,
        )  # fmt: skip
        _append(
            keys_ptr, counts_ptr, dots, first_row, first_col, excluded_ptr, row_scale_ptr, row_slack_ptr,
            row_norm_ptr, col_scale_ptr, col_offset_ptr, col_slack_ptr, col_error_ptr, threshold_ptr, row_group_ptr,
            col_group_ptr, n_rows, n, capacity, BLOCK_M, BLOCK_N, 1,
        )  # fmt: skip
        if SYMMETRIC:  # noqa: SIM102  a constant: without it, nothing below is compiled
            if i != j:
                _append(
                    keys_ptr, counts_ptr, dots, first_col, first_row, excluded_ptr, row_scale_ptr, row_slack_ptr,
                    row_norm_ptr, col_scale_ptr, col_offset_ptr, col_slack_ptr, col_error_ptr, threshold_ptr,
                    row_group_ptr, col_group_ptr, n_rows, n, capacity, BLOCK_N, BLOCK_M, 0,
                )  # fmt: skip


@triton.jit
def _append(
    keys_ptr, counts_ptr, dots, first_owner, first_other, excluded_ptr, row_scale_ptr, row_slack_ptr, row_norm_ptr,
    col_scale_ptr, col_offset_ptr, col_slack_ptr, col_error_ptr, threshold_ptr, row_group_ptr, col_group_ptr, n_rows, n,
    capacity, OWNERS: tl.constexpr, OTHERS: tl.constexpr, AXIS: tl.constexpr,
):  # fmt: skip
    """Append what survives of a tile of products to its rows (AXIS 1), or to its columns (AXIS 0)."""
    SIDE: tl.constexpr = 1 - AXIS  # where the owners lie
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
    # places in the tile from 1 on, 0 for what does not survive
    place = tl.where(survives, tl.expand_dims(1 + tl.arange(0, OTHERS), SIDE), 0)
    # one round for each survivor of any owner; most tiles have one round or none
    last = tl.max(place, AXIS)
    while tl.max(last, 0) > 0:
        bound = tl.max(tl.where(place == tl.expand_dims(last, AXIS), bounds, -float("inf")), AXIS)
        slot = tl.atomic_add(counts_ptr + owner, 1, last > 0, sem="relaxed")
        key = packed(bound, first_other + last - 1)
        tl.store(keys_ptr + owner.to(tl.int64) * capacity + slot, key, (last > 0) & (slot < capacity))
        last = tl.max(tl.where(place < tl.expand_dims(last, AXIS), place, 0), AXIS)
