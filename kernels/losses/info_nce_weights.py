"""The backward kernels of info_nce: weights W computed tile by tile, and multiplied (fused) or written (banded).

W_ij = scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j) + [i = j] grad_positive_i)
"""

from __future__ import annotations

import triton
import triton.language as tl

from modalign.kernels.losses.entries import cast_weights, mask_logits, scale_tile
from modalign.kernels.shared.launch import dot_tile

__all__: list[str] = []


@triton.jit
def _side_softmax(logits, lse, cap_ptr, index, size, COLUMN: tl.constexpr):
    """Return exp(S - lse) for the entries that count: the softmax of the columns if COLUMN, else of the rows."""
    # rows without a counted entry, and rows beyond the table, have weights of exactly 0
    lse = tl.where(lse == -float("inf"), float("inf"), lse)
    if cap_ptr is not None:
        cap = tl.load(cap_ptr + index, index < size, other=0.0)
        above_cap = logits > (cap[None, :] if COLUMN else cap[:, None])
        logits = tl.where(above_cap, -float("inf"), logits)
    return tl.exp(logits - (lse[None, :] if COLUMN else lse[:, None]))


@triton.jit
def _weight_tile(
    logits,
    rows,
    cols,
    n_rows,
    n_cols,
    scale_ptr,
    row,
    col,
    positive_grad_ptr,
    SCALE_ROWS: tl.constexpr,
    MASK: tl.constexpr,
):
    """Return W for a tile of logits, and 0 outside the n_rows x n_cols entries.

    ``row`` and ``col`` hold pointers to the ids, caps, log-sum-exps and gradients of either side.
    """
    row_id_ptr, row_cap_ptr, row_lse_ptr, row_grad_ptr = row
    col_id_ptr, col_cap_ptr, col_lse_ptr, col_grad_ptr = col
    weights = tl.zeros_like(logits)
    kept = mask_logits(logits, rows, cols, row_id_ptr, col_id_ptr, n_rows, n_cols, MASK)
    inside = (rows < n_rows)[:, None] & (cols < n_cols)[None, :]
    kept = tl.where(inside, kept, -float("inf"))
    if row_grad_ptr is not None:
        lse = tl.load(row_lse_ptr + rows, rows < n_rows, other=float("inf"))
        grad = tl.load(row_grad_ptr + rows, rows < n_rows, other=0.0)
        weights += grad[:, None] * _side_softmax(kept, lse, row_cap_ptr, rows, n_rows, False)
    if col_grad_ptr is not None:
        lse = tl.load(col_lse_ptr + cols, cols < n_cols, other=float("inf"))
        grad = tl.load(col_grad_ptr + cols, cols < n_cols, other=0.0)
        weights += grad[None, :] * _side_softmax(kept, lse, col_cap_ptr, cols, n_cols, True)
    if positive_grad_ptr is not None:
        grad = tl.load(positive_grad_ptr + rows, rows < n_rows, other=0.0)
        weights += tl.where(rows[:, None] == cols[None, :], grad[:, None], 0.0)
    return scale_tile(weights, scale_ptr, rows, cols, n_rows, n_cols, SCALE_ROWS)


@triton.jit(do_not_specialize=["n_rows", "n_cols"])
def _info_nce_bwd_kernel(
    left,  # [b, n_rows, d]
    right,  # [b, n_cols, d]
    values_ptr,  # [b, n_cols, e]
    scale_ptr,  # [b, n_rows] if SCALE_ROWS, else [b, n_cols]
    weight_scale_ptr,  # [b] or None
    row_id_ptr,  # [b, n_rows] or None
    row_cap_ptr,  # [b, n_rows] or None
    row_lse_ptr,  # [b, n_rows]
    row_grad_ptr,  # [b, n_rows] or None
    col_id_ptr,  # [b, n_cols] or None
    col_cap_ptr,  # [b, n_cols] or None
    col_lse_ptr,  # [b, n_cols]
    col_grad_ptr,  # [b, n_cols] or None
    positive_grad_ptr,  # [b, n_rows = n_cols] or None
    product_ptr,  # [b, n_rows, e]
    n_rows,
    n_cols,
    d,
    e,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    SCALE_ROWS: tl.constexpr,
    MASK: tl.constexpr,
    ROUND: tl.constexpr,
):
    """Compute product = W values, or W' values without SCALE_ROWS; a program owns BLOCK_M rows and BLOCK_V features.

    The kernel is long because every table that a call may lack is moved to its problem by itself.
    """
    row_blocks = tl.cdiv(n_rows, BLOCK_M)
    chunks = tl.cdiv(e, BLOCK_V)
    problem = (tl.program_id(0) // (row_blocks * chunks)).to(tl.int64)
    chunk = (tl.program_id(0) // row_blocks) % chunks
    first_row = (tl.program_id(0) % row_blocks) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    features = chunk * BLOCK_V + tl.arange(0, BLOCK_V)
    row_start, col_start = problem * n_rows, problem * n_cols
    values_ptr += col_start * e
    product_ptr += row_start * e
    scale_ptr += row_start if SCALE_ROWS else col_start
    row_lse_ptr += row_start
    col_lse_ptr += col_start
    if row_id_ptr is not None:
        row_id_ptr += row_start
        col_id_ptr += col_start
    if row_cap_ptr is not None:
        row_cap_ptr += row_start
    if col_cap_ptr is not None:
        col_cap_ptr += col_start
    if row_grad_ptr is not None:
        row_grad_ptr += row_start
    if col_grad_ptr is not None:
        col_grad_ptr += col_start
    if positive_grad_ptr is not None:
        positive_grad_ptr += row_start
    if weight_scale_ptr is not None:
        weight_scale_ptr += problem

    product = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    for first_col in range(0, n_cols, BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        dots = dot_tile(
            left, right, row_start, col_start, first_row, first_col, n_rows, n_cols, d, BLOCK_M, BLOCK_N, BLOCK_D, False
        )
        logits = scale_tile(dots, scale_ptr, rows, cols, n_rows, n_cols, SCALE_ROWS)
        row_tables = (row_id_ptr, row_cap_ptr, row_lse_ptr, row_grad_ptr)
        col_tables = (col_id_ptr, col_cap_ptr, col_lse_ptr, col_grad_ptr)
        weights = _weight_tile(
            logits, rows, cols, n_rows, n_cols, scale_ptr, row_tables, col_tables, positive_grad_ptr, SCALE_ROWS, MASK
        )
        values = tl.load(
            values_ptr + cols[:, None].to(tl.int64) * e + features[None, :],
            (cols[:, None] < n_cols) & (features[None, :] < e),
            other=0.0,
        )
        weights = cast_weights(weights, weight_scale_ptr, values.dtype, ROUND)
        product = tl.dot(weights, values, product, input_precision="ieee")

    if weight_scale_ptr is not None:
        product /= tl.load(weight_scale_ptr)
    tl.store(
        product_ptr + rows[:, None].to(tl.int64) * e + features[None, :],
        product,
        (rows[:, None] < n_rows) & (features[None, :] < e),
    )


@triton.jit(do_not_specialize=["problem", "row", "n_rows", "col", "n_cols", "stored_rows", "n", "m"])
def _info_nce_weights_kernel(
    x,  # [b, n, d], a table of dot_tile
    y,  # [b, m, d], likewise
    stored_ptr,  # [stored_rows, m] or None
    scale_ptr,  # [b, n]
    weight_scale_ptr,  # [b] or None
    row_id_ptr,  # [b, n] or None
    row_cap_ptr,  # [b, n] or None
    row_lse_ptr,  # [b, n]
    row_grad_ptr,  # [b, n] or None
    col_id_ptr,  # [b, m] or None
    col_cap_ptr,  # [b, m] or None
    col_lse_ptr,  # [b, m]
    col_grad_ptr,  # [b, m] or None
    positive_grad_ptr,  # [b, n = m] or None
    weights_ptr,  # [problems, n_rows, stride], of which n_cols columns are written
    stride,
    problem,
    row,
    n_rows,
    col,
    n_cols,
    stored_rows,
    n,
    m,
    d,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    MASK: tl.constexpr,
    ROUND: tl.constexpr,
):
    """Write W for n_rows rows from ``row`` on and n_cols columns from ``col`` on of one or more problems.

    A program writes one tile. The kernel is long because every table that a call may lack is moved to its problem by
    itself.
    """
    row_blocks, col_blocks = tl.cdiv(n_rows, BLOCK_M), tl.cdiv(n_cols, BLOCK_N)
    # consecutive programs share the rows of y, and the x of a block stays in the cache
    tile_row = (tl.program_id(0) % row_blocks) * BLOCK_M
    tile_col = (tl.program_id(0) // row_blocks % col_blocks) * BLOCK_N
    row_in_block, col_in_block = tile_row + tl.arange(0, BLOCK_M), tile_col + tl.arange(0, BLOCK_N)
    problem_in_block = (tl.program_id(0) // (row_blocks * col_blocks)).to(tl.int64)
    rows, cols = row + row_in_block, col + col_in_block
    first_row, first_col = (problem + problem_in_block) * n, (problem + problem_in_block) * m
    scale_ptr += first_row
    row_lse_ptr += first_row
    col_lse_ptr += first_col
    if row_id_ptr is not None:
        row_id_ptr += first_row
        col_id_ptr += first_col
    if row_cap_ptr is not None:
        row_cap_ptr += first_row
    if col_cap_ptr is not None:
        col_cap_ptr += first_col
    if row_grad_ptr is not None:
        row_grad_ptr += first_row
    if col_grad_ptr is not None:
        col_grad_ptr += first_col
    if positive_grad_ptr is not None:
        positive_grad_ptr += first_row
    if weight_scale_ptr is not None:
        weight_scale_ptr += problem + problem_in_block

    inside = (row_in_block < n_rows)[:, None] & (col_in_block < n_cols)[None, :]
    if stored_ptr is not None:
        last_row = tl.minimum(tl.max(rows, 0), n - 1)
        if first_row + last_row < stored_rows:
            index = (first_row + rows)[:, None] * m + cols[None, :]
            logits = tl.load(stored_ptr + index, inside, other=0.0)
        else:
            start_row, start_col = row + tile_row, col + tile_col
            dots = dot_tile(
                x, y, first_row, first_col, start_row, start_col, n, m, d, BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS
            )
            logits = scale_tile(dots, scale_ptr, rows, cols, n, m, True)
    else:
        dots = dot_tile(
            x, y, first_row, first_col, row + tile_row, col + tile_col, n, m, d, BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS
        )
        logits = scale_tile(dots, scale_ptr, rows, cols, n, m, True)
    row_tables = (row_id_ptr, row_cap_ptr, row_lse_ptr, row_grad_ptr)
    col_tables = (col_id_ptr, col_cap_ptr, col_lse_ptr, col_grad_ptr)
    weights = _weight_tile(logits, rows, cols, n, m, scale_ptr, row_tables, col_tables, positive_grad_ptr, True, MASK)
    weights = cast_weights(weights, weight_scale_ptr, weights_ptr.dtype.element_ty, ROUND)
    offsets = (problem_in_block * n_rows + row_in_block) * stride
    tl.store(weights_ptr + offsets[:, None] + col_in_block[None, :], weights, inside)
