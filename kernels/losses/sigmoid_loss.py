"""The logistic loss of every entry of a similarity matrix, and its gradients, by tiles that are never stored together.

    loss_i = sum_j log(1 + exp(-t_ij))     t_ij = z_ij (S_ij + bias)     S_ij = scale_i <x_i, y_j>
    slope_i = sum_j dS_ij                  dS_ij = -grad_i z_ij / (1 + exp(t_ij))     dx = W y, dy = W' x, W = scale dS

z_ij is 1 where i = j (equal ids, if given) and -1 elsewhere; a negative id leaves out its row or column.
``modalign.reference.info_nce`` defines both operators. The schedules are those of ``modalign.kernels.losses.products``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.losses.entries import as_weights, contiguous, scaled, weight_scale
from modalign.kernels.losses.products import Block, banded_products, choose
from modalign.kernels.shared.launch import dot_tile, launch, misread, operand, table
from modalign.kernels.shared.tiles import architecture, tile

__all__ = ["sigmoid_loss_backward", "sigmoid_loss_forward"]


def sigmoid_loss_forward(
    x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor, row_id: Tensor | None, col_id: Tensor | None
) -> Tensor:
    """[b, n] float32: the losses of each row's entries, summed. x, y: float32, float16 or bfloat16."""
    (b, n, d), m = x.shape, y.shape[1]
    sizes = tile("sigmoid_loss_forward", x.dtype, d, architecture(x.device), "lean" if row_id is None else "full")
    x, y, row_id, col_id = operand(x), operand(y), contiguous(row_id), contiguous(col_id)
    loss = torch.empty(b, n, dtype=torch.float32, device=x.device)
    launch(
        _sigmoid_loss_fwd_kernel, b * triton.cdiv(n, sizes.blocks["BLOCK_M"]), sizes,
        table(x, "BLOCK_M", sizes), table(y, "BLOCK_N", sizes), logit_scale.float().contiguous(),
        bias.float().contiguous(), row_id, col_id, loss, n, m, x.shape[2],
    )  # fmt: skip
    return loss


def sigmoid_loss_backward(
    grad_row: Tensor, x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, need_x: bool, need_y: bool, *, schedule: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dx [b, n, d] and dy [b, m, d] ([b, 0, d] if not needed) and slope [b, n], float32.

    Weights are rounded as ``info_nce_backward`` does, slope is not. ``schedule``: "fused" or "banded", by default the
    one that should cost least.
    """
    (b, n, d), m, dtype, device = x.shape, y.shape[1], x.dtype, x.device
    variant = "lean" if row_id is None else "full"
    sizes = tile("sigmoid_loss_backward", dtype, d, architecture(device), variant)
    schedule = choose(schedule, "sigmoid_loss_backward", x, d, need_x + need_y, sizes.blocks["BLOCK_V"], stored=False)
    grad, scale, bias = (values.float().contiguous() for values in (grad_row, logit_scale, bias))
    scale_of_weights = weight_scale(scale.amax(1) * grad.abs().amax(1)) if dtype == torch.float16 else None
    left, right, row_id, col_id = operand(x), operand(y), contiguous(row_id), contiguous(col_id)
    width = left.shape[2]
    slope = torch.zeros(b, n, dtype=torch.float32, device=device)
    row, col = (left, row_id), (right, col_id)

    def fused(own: tuple, other: tuple, row_side: bool, with_product: bool) -> Tensor:
        (own_rows, own_id), (other_rows, other_id) = own, other
        size = own_rows.shape[1]
        product = torch.empty(b, size if with_product else 0, width, dtype=torch.float32, device=device)
        chunks = triton.cdiv(width, sizes.blocks["BLOCK_V"]) if with_product else 1
        launch(
            _sigmoid_loss_bwd_kernel, b * triton.cdiv(size, sizes.blocks["BLOCK_M"]) * chunks, sizes,
            own_rows, other_rows, scale, scale_of_weights, bias, grad, own_id, other_id,
            product if with_product else None, slope if row_side else None, size, other_rows.shape[1], width,
            SCALE_OWN=row_side, ROUND=misread(dtype),
        )  # fmt: skip
        return product

    def write(weights: Tensor, block: Block) -> None:
        tiles = tile("sigmoid_loss_weights", dtype, d, architecture(device), variant)
        col_blocks = triton.cdiv(block.cols, tiles.blocks["BLOCK_N"])
        parts = torch.empty(block.problems, block.rows, col_blocks, dtype=torch.float32, device=device)
        launch(
            _sigmoid_loss_weights_kernel,
            block.problems * triton.cdiv(block.rows, tiles.blocks["BLOCK_M"]) * col_blocks, tiles,
            table(left, "BLOCK_M", tiles), table(right, "BLOCK_N", tiles), scale, scale_of_weights, bias, grad,
            row_id, col_id, weights, parts,
            weights.stride(1), block.problem, block.row, block.rows, block.col, block.cols, n, m, width,
            ROUND=misread(dtype),
        )  # fmt: skip
        problems = slice(block.problem, block.problem + block.problems)
        slope[problems, block.row : block.row + block.rows] += parts.sum(2)

    if schedule == "fused" or not (need_x or need_y):
        dx = fused(row, col, True, need_x)
        dy = fused(col, row, False, True) if need_y else dx.new_empty(b, 0, width)
    else:
        products = banded_products(write, left, m, right if need_x else None, left if need_y else None)
        dx, dy = (slope.new_empty(b, 0, width) if product is None else product for product in products)
        if scale_of_weights is not None:
            dx, dy = (product / scale_of_weights[:, None, None] for product in (dx, dy))
    return dx[..., :d].contiguous(), dy[..., :d].contiguous(), slope


@triton.jit
def _log1p_exp(x):
    """log(1 + exp(x)) to a few units in the last place of float32, also where it is tiny or x is large."""
    small = tl.exp(-tl.abs(x))
    # log(1 + s) = 2 artanh(r), r = s / (2 + s) <= 1/3: the first term left out is r^17 / 17 < 1e-8 of r
    r = small / (2.0 + small)
    square = r * r
    series = 1.0 / 15.0
    series = series * square + 1.0 / 13.0
    series = series * square + 1.0 / 11.0
    series = series * square + 1.0 / 9.0
    series = series * square + 1.0 / 7.0
    series = series * square + 1.0 / 5.0
    series = series * square + 1.0 / 3.0
    series = series * square + 1.0
    return tl.maximum(x, 0.0) + 2.0 * r * series


@triton.jit
def _signs_and_shifted(
    logits, bias_ptr, rows, cols, own_id_ptr, other_id_ptr, n_own, n_other
):  # fmt: skip
    """z, and z (S + bias): +inf, whose loss and slope are 0, outside what counts."""
    if own_id_ptr is not None:
        own_id = tl.load(own_id_ptr + rows, rows < n_own, other=-1)
        other_id = tl.load(other_id_ptr + cols, cols < n_other, other=-1)
        same = own_id[:, None] == other_id[None, :]
        counted = (own_id >= 0)[:, None] & (other_id >= 0)[None, :]
    else:
        same = rows[:, None] == cols[None, :]
        counted = (rows < n_own)[:, None] & (cols < n_other)[None, :]
    signs = tl.where(same, 1.0, -1.0)
    return signs, tl.where(counted, signs * (logits + tl.load(bias_ptr)), float("inf"))


@triton.jit
def _slopes(
    logits, bias_ptr, grad_ptr, rows, cols, own_id_ptr, other_id_ptr, n_own, n_other, SCALE_OWN: tl.constexpr
):  # fmt: skip
    """dS for a tile of logits: -grad z / (1 + exp(z (S + bias))); 0 outside what counts."""
    signs, shifted = _signs_and_shifted(logits, bias_ptr, rows, cols, own_id_ptr, other_id_ptr, n_own, n_other)
    # the exponential of what is not positive cannot overflow
    small = tl.exp(-tl.abs(shifted))
    slopes = -signs * tl.where(shifted > 0.0, small, 1.0) / (1.0 + small)
    return scaled(slopes, grad_ptr, rows, cols, n_own, n_other, SCALE_OWN)


@triton.jit(do_not_specialize=["n", "m"])
def _sigmoid_loss_fwd_kernel(
    x, y,  # [b, n, d], [b, m, d], tables of dot_tile
    scale_ptr, bias_ptr,  # [b, n], [b]
    row_id_ptr, col_id_ptr,  # [b, n], [b, m] or None
    loss_ptr,  # [b, n]
    n, m, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    row_blocks = tl.cdiv(n, BLOCK_M)
    problem = (tl.program_id(0) // row_blocks).to(tl.int64)
    first_row = (tl.program_id(0) % row_blocks) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    scale_ptr += problem * n
    if row_id_ptr is not None:
        row_id_ptr += problem * n
        col_id_ptr += problem * m

    loss = tl.zeros([BLOCK_M], tl.float32)
    for first_col in range(0, m, BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        dots = dot_tile(
            x, y, problem * n, problem * m, first_row, first_col, n, m, d, BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS
        )
        logits = scaled(dots, scale_ptr, rows, cols, n, m, True)
        _, shifted = _signs_and_shifted(logits, bias_ptr + problem, rows, cols, row_id_ptr, col_id_ptr, n, m)
        loss += tl.sum(_log1p_exp(-shifted), 1)
    tl.store(loss_ptr + problem * n + rows, loss, rows < n)


@triton.jit(do_not_specialize=["n_own", "n_other"])
def _sigmoid_loss_bwd_kernel(
    own_ptr, other_ptr,  # [b, n_own, d], [b, n_other, d]
    scale_ptr,  # [b, n_own] if SCALE_OWN, else [b, n_other]
    weight_scale_ptr, bias_ptr,  # [b]; the first or None
    grad_ptr,  # like scale
    own_id_ptr, other_id_ptr,  # [b, n_own], [b, n_other] or None
    product_ptr,  # [b, n_own, d] or None
    slope_ptr,  # [b, n_own] or None
    n_own, n_other, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    SCALE_OWN: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    """product = W other, BLOCK_M rows and BLOCK_V features a program, and the sums of the rows of dS."""
    row_blocks = tl.cdiv(n_own, BLOCK_M)
    chunks = tl.cdiv(d, BLOCK_V) if product_ptr is not None else 1
    problem = (tl.program_id(0) // (row_blocks * chunks)).to(tl.int64)
    chunk = (tl.program_id(0) // row_blocks) % chunks
    first_row = (tl.program_id(0) % row_blocks) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    features = chunk * BLOCK_V + tl.arange(0, BLOCK_V)
    own_row, other_row = problem * n_own, problem * n_other
    scale_ptr += own_row if SCALE_OWN else other_row
    grad_ptr += own_row if SCALE_OWN else other_row
    if own_id_ptr is not None:
        own_id_ptr += own_row
        other_id_ptr += other_row
    if weight_scale_ptr is not None:
        weight_scale_ptr += problem

    slope = tl.zeros([BLOCK_M], tl.float32)
    product = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    for first_col in range(0, n_other, BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        dots = dot_tile(
            own_ptr, other_ptr, own_row, other_row, first_row, first_col, n_own, n_other, d,
            BLOCK_M, BLOCK_N, BLOCK_D, False,
        )  # fmt: skip
        logits = scaled(dots, scale_ptr, rows, cols, n_own, n_other, SCALE_OWN)
        slopes = _slopes(
            logits, bias_ptr + problem, grad_ptr, rows, cols, own_id_ptr, other_id_ptr, n_own, n_other, SCALE_OWN
        )
        if slope_ptr is not None:
            slope += tl.sum(slopes, 1)
        if product_ptr is not None:
            weights = scaled(slopes, scale_ptr, rows, cols, n_own, n_other, SCALE_OWN)
            values = tl.load(
                other_ptr + (other_row + cols)[:, None] * d + features[None, :],
                (cols[:, None] < n_other) & (features[None, :] < d), other=0.0,
            )  # fmt: skip
            weights = as_weights(weights, weight_scale_ptr, values.dtype, ROUND)
            product = tl.dot(weights, values, product, input_precision="ieee")

    if slope_ptr is not None:
        tl.store(slope_ptr + own_row + rows, slope, (rows < n_own) & (chunk == 0))
    if product_ptr is not None:
        if weight_scale_ptr is not None:
            product /= tl.load(weight_scale_ptr)
        tl.store(
            product_ptr + (own_row + rows)[:, None] * d + features[None, :],
            product, (rows[:, None] < n_own) & (features[None, :] < d),
        )  # fmt: skip


@triton.jit(do_not_specialize=["problem", "row", "n_rows", "col", "n_cols", "n", "m"])
def _sigmoid_loss_weights_kernel(
    x, y,  # [b, n, d], [b, m, d], tables of dot_tile
    scale_ptr,  # [b, n]
    weight_scale_ptr, bias_ptr,  # [b]; the first or None
    grad_ptr,  # [b, n]
    row_id_ptr, col_id_ptr,  # [b, n], [b, m] or None
    weights_ptr,  # [problems, n_rows, stride], of which n_cols columns are written
    slope_ptr,  # [problems, n_rows, n_cols / BLOCK_N rounded up]
    stride, problem, row, n_rows, col, n_cols, n, m, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, DESCRIPTORS: tl.constexpr,
    ROUND: tl.constexpr,
):  # fmt: skip
    """W for n_rows rows and n_cols columns from ``row`` and ``col`` on: a tile a program, and its row sums of dS."""
    row_blocks, col_blocks = tl.cdiv(n_rows, BLOCK_M), tl.cdiv(n_cols, BLOCK_N)
    tile_row = (tl.program_id(0) % row_blocks) * BLOCK_M
    row_in_block = tile_row + tl.arange(0, BLOCK_M)
    col_block = tl.program_id(0) // row_blocks % col_blocks
    col_in_block = col_block * BLOCK_N + tl.arange(0, BLOCK_N)
    problem_in_block = (tl.program_id(0) // (row_blocks * col_blocks)).to(tl.int64)
    # no entry outside the block counts
    end_row, end_col = row + n_rows, col + n_cols
    rows, cols = row + row_in_block, col + col_in_block
    first_row, first_col = (problem + problem_in_block) * n, (problem + problem_in_block) * m
    if row_id_ptr is not None:
        row_id_ptr += first_row
        col_id_ptr += first_col
    if weight_scale_ptr is not None:
        weight_scale_ptr += problem + problem_in_block

    dots = dot_tile(
        x, y, first_row, first_col, row + tile_row, col + col_block * BLOCK_N, n, m, d,
        BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS,
    )  # fmt: skip
    logits = scaled(dots, scale_ptr + first_row, rows, cols, end_row, end_col, True)
    slopes = _slopes(
        logits, bias_ptr + problem + problem_in_block, grad_ptr + first_row, rows, cols,
        row_id_ptr, col_id_ptr, end_row, end_col, True,
    )  # fmt: skip
    row_index = problem_in_block * n_rows + row_in_block
    tl.store(slope_ptr + row_index * col_blocks + col_block, tl.sum(slopes, 1), row_in_block < n_rows)
    weights = scaled(slopes, scale_ptr + first_row, rows, cols, end_row, end_col, True)
    weights = as_weights(weights, weight_scale_ptr, weights_ptr.dtype.element_ty, ROUND)
    inside = (row_in_block < n_rows)[:, None] & (col_in_block < n_cols)[None, :]
    tl.store(weights_ptr + row_index[:, None] * stride + col_in_block[None, :], weights, inside)
