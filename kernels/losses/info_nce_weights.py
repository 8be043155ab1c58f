"""The backward kernels of info_nce: weights W made tile by tile, multiplied at once (fused) or written (banded).

W_ij = scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j) + [i = j] grad_positive_i)
"""

from __future__ import annotations

import triton
import triton.language as tl

from modalign.kernels.losses.entries import as_weights, left_out, scaled
from modalign.kernels.shared.launch import dot_tile

__all__: list[str] = []


@triton.jit
def _side(logits, lse, cap_ptr, index, size, COLUMN: tl.constexpr):
    """exp(S - lse) over what one side counts; the side of the columns if COLUMN, else of the rows."""
    # a row that counts nothing, and one that is none, have weights of exactly 0
    lse = tl.where(lse == -float("inf"), float("inf"), lse)
    if cap_ptr is not None:
        cap = tl.load(cap_ptr + index, index < size, other=0.0)
        over = logits > (cap[None, :] if COLUMN else cap[:, None])
        logits = tl.where(over, -float("inf"), logits)
    return tl.exp(logits - (lse[None, :] if COLUMN else lse[:, None]))


@triton.jit
def _weights(
    logits, rows, cols, n_own, n_other, scale_ptr,
    own_id_ptr, own_cap_ptr, own_lse_ptr, own_grad_ptr,
    other_id_ptr, other_cap_ptr, other_lse_ptr, other_grad_ptr,
    positive_grad_ptr,
    SCALE_OWN: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """W for a tile of logits; 0 outside the n_own x n_other entries."""
    weights = tl.zeros_like(logits)
    kept = left_out(logits, rows, cols, own_id_ptr, other_id_ptr, n_own, n_other, MASK)
    inside = (rows < n_own)[:, None] & (cols < n_other)[None, :]
    kept = tl.where(inside, kept, -float("inf"))
    if own_grad_ptr is not None:
        lse = tl.load(own_lse_ptr + rows, rows < n_own, other=float("inf"))
        grad = tl.load(own_grad_ptr + rows, rows < n_own, other=0.0)
        weights += grad[:, None] * _side(kept, lse, own_cap_ptr, rows, n_own, False)
    if other_grad_ptr is not None:
        lse = tl.load(other_lse_ptr + cols, cols < n_other, other=float("inf"))
        grad = tl.load(other_grad_ptr + cols, cols < n_other, other=0.0)
        weights += grad[None, :] * _side(kept, lse, other_cap_ptr, cols, n_other, True)
    if positive_grad_ptr is not None:
        grad = tl.load(positive_grad_ptr + rows, rows < n_own, other=0.0)
        weights += tl.where(rows[:, None] == cols[None, :], grad[:, None], 0.0)
    return scaled(weights, scale_ptr, rows, cols, n_own, n_other, SCALE_OWN)


@triton.jit(do_not_specialize=["n_own", "n_other"])
def _info_nce_bwd_kernel(
    own_ptr,  # [b, n_own, d]
    other_ptr,  # [b, n_other, d]
    values_ptr,  # [b, n_other, e]
    scale_ptr,  # [b, n_own] if SCALE_OWN, else [b, n_other]
    weight_scale_ptr,  # [b] or None
    own_id_ptr, own_cap_ptr, own_lse_ptr, own_grad_ptr,  # [b, n_own]; all but the lse or None
    other_id_ptr, other_cap_ptr, other_lse_ptr, other_grad_ptr,  # [b, n_other], likewise
    positive_grad_ptr,  # [b, n_own = n_other] or None
    product_ptr,  # [b, n_own, e]
    n_own, n_other, d, e,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    SCALE_OWN: tl.constexpr, MASK: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    """product = W values, BLOCK_M rows and BLOCK_V features a program."""
    row_blocks = tl.cdiv(n_own, BLOCK_M)
    chunks = tl.cdiv(e, BLOCK_V)
    problem = (tl.program_id(0) // (row_blocks * chunks)).to(tl.int64)
    chunk = (tl.program_id(0) // row_blocks) % chunks
    first_row = (tl.program_id(0) % row_blocks) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    features = chunk * BLOCK_V + tl.arange(0, BLOCK_V)
    own_row, other_row = problem * n_own, problem * n_other
    values_ptr += other_row * e
    product_ptr += own_row * e
    scale_ptr += own_row if SCALE_OWN else other_row
    own_lse_ptr += own_row
    other_lse_ptr += other_row
    if own_id_ptr is not None:
        own_id_ptr += own_row
        other_id_ptr += other_row
    if own_cap_ptr is not None:
        own_cap_ptr += own_row
    if other_cap_ptr is not None:
        other_cap_ptr += other_row
    if own_grad_ptr is not None:
        own_grad_ptr += own_row
    if other_grad_ptr is not None:
        other_grad_ptr += other_row
    if positive_grad_ptr is not None:
        positive_grad_ptr += own_row
    if weight_scale_ptr is not None:
        weight_scale_ptr += problem

    product = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    for first_col in range(0, n_other, BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        dots = dot_tile(
            own_ptr, other_ptr, own_row, other_row, first_row, first_col, n_own, n_other, d,
            BLOCK_M, BLOCK_N, BLOCK_D, False,
        )  # fmt: skip
        logits = scaled(dots, scale_ptr, rows, cols, n_own, n_other, SCALE_OWN)
        weights = _weights(
            logits, rows, cols, n_own, n_other, scale_ptr,
            own_id_ptr, own_cap_ptr, own_lse_ptr, own_grad_ptr,
            other_id_ptr, other_cap_ptr, other_lse_ptr, other_grad_ptr,
            positive_grad_ptr, SCALE_OWN, MASK,
        )  # fmt: skip
        values = tl.load(
            values_ptr + cols[:, None].to(tl.int64) * e + features[None, :],
            (cols[:, None] < n_other) & (features[None, :] < e), other=0.0,
        )  # fmt: skip
        weights = as_weights(weights, weight_scale_ptr, values.dtype, ROUND)
        product = tl.dot(weights, values, product, input_precision="ieee")

    if weight_scale_ptr is not None:
        product /= tl.load(weight_scale_ptr)
    tl.store(
        product_ptr + rows[:, None].to(tl.int64) * e + features[None, :],
        product, (rows[:, None] < n_own) & (features[None, :] < e),
    )  # fmt: skip


@triton.jit(do_not_specialize=["problem", "row", "n_rows", "col", "n_cols", "stored_rows", "n", "m"])
def _info_nce_weights_kernel(
    x, y,  # [b, n, d], [b, m, d], tables of dot_tile
    stored_ptr,  # [stored_rows, m] or None
    scale_ptr,  # [b, n]
    weight_scale_ptr,  # [b] or None
    row_id_ptr, row_cap_ptr, row_lse_ptr, row_grad_ptr,  # [b, n]; all but the lse or None
    col_id_ptr, col_cap_ptr, col_lse_ptr, col_grad_ptr,  # [b, m], likewise
    positive_grad_ptr,  # [b, n = m] or None
    weights_ptr,  # [problems, n_rows, stride], of which n_cols columns are written
    stride, problem, row, n_rows, col, n_cols, stored_rows, n, m, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, DESCRIPTORS: tl.constexpr,
    MASK: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    """W for n_rows rows and n_cols columns from ``row`` and ``col`` on, of one or more problems: a tile a program."""
    row_blocks, col_blocks = tl.cdiv(n_rows, BLOCK_M), tl.cdiv(n_cols, BLOCK_N)
    # neighbours in time share the rows of y: a block's x stays in the cache
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
            dots = dot_tile(
                x, y, first_row, first_col, row + tile_row, col + tile_col, n, m, d,
                BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS,
            )  # fmt: skip
            logits = scaled(dots, scale_ptr, rows, cols, n, m, True)
    else:
        dots = dot_tile(
            x, y, first_row, first_col, row + tile_row, col + tile_col, n, m, d, BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS
        )
        logits = scaled(dots, scale_ptr, rows, cols, n, m, True)
    weights = _weights(
        logits, rows, cols, n, m, scale_ptr,
        row_id_ptr, row_cap_ptr, row_lse_ptr, row_grad_ptr,
        col_id_ptr, col_cap_ptr, col_lse_ptr, col_grad_ptr,
        positive_grad_ptr, True, MASK,
    )  # fmt: skip
    weights = as_weights(weights, weight_scale_ptr, weights_ptr.dtype.element_ty, ROUND)
    row_start = (problem_in_block * n_rows + row_in_block) * stride
    tl.store(weights_ptr + row_start[:, None] + col_in_block[None, :], weights, inside)
