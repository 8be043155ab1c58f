"""The operators of sigmoid_loss and their kernels; the similarity matrix is never stored.

    loss_i = sum_j log(1 + exp(-t_ij))     t_ij = z_ij (S_ij + bias)     S_ij = scale_i <x_i, y_j>
    slope_i = sum_j dS_ij                  dS_ij = -grad_i z_ij / (1 + exp(t_ij))     dx = W y, dy = W' x, W = scale dS

z_ij is 1 where i = j (where the ids are equal, if given) and -1 elsewhere; a negative id excludes its row or column.
``modalign.reference.info_nce`` defines both operators. ``modalign.kernels.losses.products`` describes the schedules.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.losses.entries import cast_weights, make_contiguous, scale_tile, weight_scale
from modalign.kernels.losses.products import Block, Workload, banded_products, choose_schedule
from modalign.kernels.shared.launch import dot_tile, is_misread, launch, to_operand, to_table
from modalign.kernels.shared.tiles import Tile, architecture, tile
from modalign.ops.loss_tables import LossTables

__all__ = ["sigmoid_loss_backward", "sigmoid_loss_forward"]


def sigmoid_loss_forward(tables: LossTables, bias: Tensor) -> Tensor:
    """Return the sums [b, n] of the losses of each row's entries, in float32.

    The rows are float32, float16 or bfloat16.
    """
    (b, n, m, d), x = tables.sizes, tables.x
    variant = "lean" if tables.row_id is None else "full"
    sizes = tile("sigmoid_loss_forward", x.dtype, d, architecture(x.device), variant=variant)
    left, right = to_operand(x), to_operand(tables.right)
    loss = torch.empty(b, n, dtype=torch.float32, device=x.device)
    operands = (to_table(left, "BLOCK_M", sizes), to_table(right, "BLOCK_N", sizes))
    values = (tables.logit_scale.float().contiguous(), bias.float().contiguous())
    pointers = (*operands, *values, make_contiguous(tables.row_id), make_contiguous(tables.col_id), loss)
    programs = b * triton.cdiv(n, sizes.blocks["BLOCK_M"])
    launch(_sigmoid_loss_fwd_kernel, programs, sizes, *pointers, n, m, left.shape[2])
    return loss


class _Side(NamedTuple):
    """The rows of x or of y, and their ids if there are any."""

    operand: Tensor
    ids: Tensor | None


@dataclasses.dataclass(frozen=True)
class _Weights:
    """The weights W of a backward call, as the kernels compute them, and the table of slopes that they add to."""

    row: _Side
    col: _Side
    scale: Tensor
    factor: Tensor | None  # of float16 weights
    bias: Tensor
    grad: Tensor
    slope: Tensor
    variant: str
    dtype: torch.dtype
    features: int  # before padding

    def multiply(self, sizes: Tile, *, transposed: bool, with_product: bool = True) -> Tensor:
        """Return W y, or W' x if ``transposed``, from the fused kernel, which writes the slopes too unless transposed.

        The product has no rows without ``with_product``.
        """
        left, right = (self.col, self.row) if transposed else (self.row, self.col)
        b, size, width = left.operand.shape
        product = torch.empty(b, size if with_product else 0, width, dtype=torch.float32, device=self.scale.device)
        chunks = triton.cdiv(width, sizes.blocks["BLOCK_V"]) if with_product else 1
        programs = b * triton.cdiv(size, sizes.blocks["BLOCK_M"]) * chunks
        tables = (left.operand, right.operand, self.scale, self.factor, self.bias, self.grad, left.ids, right.ids)
        results = (product if with_product else None, None if transposed else self.slope)
        constants = {"SCALE_ROWS": not transposed, "ROUND": is_misread(self.dtype)}
        numbers = (size, right.operand.shape[1], width)
        launch(_sigmoid_loss_bwd_kernel, programs, sizes, *tables, *results, *numbers, **constants)
        return product

    def write(self, weights: Tensor, block: Block) -> None:
        """Write the weights of a block and add its row sums to the slopes."""
        x, y = self.row.operand, self.col.operand
        sizes = tile("sigmoid_loss_weights", self.dtype, self.features, architecture(x.device), variant=self.variant)
        col_blocks = triton.cdiv(block.cols, sizes.blocks["BLOCK_N"])
        parts = torch.empty(block.problems, block.rows, col_blocks, dtype=torch.float32, device=x.device)
        programs = block.problems * triton.cdiv(block.rows, sizes.blocks["BLOCK_M"]) * col_blocks
        tables = (to_table(x, "BLOCK_M", sizes), to_table(y, "BLOCK_N", sizes), self.scale, self.factor)
        pointers = (*tables, self.bias, self.grad, self.row.ids, self.col.ids, weights, parts)
        place = (weights.stride(1), block.problem, block.row, block.rows, block.col, block.cols)
        numbers = (*place, x.shape[1], y.shape[1], x.shape[2])
        launch(_sigmoid_loss_weights_kernel, programs, sizes, *pointers, *numbers, ROUND=is_misread(self.dtype))
        problems = slice(block.problem, block.problem + block.problems)
        self.slope[problems, block.row : block.row + block.rows] += parts.sum(2)


def sigmoid_loss_backward(
    tables: LossTables, bias: Tensor, grad_row: Tensor, *, need_x: bool, need_y: bool, schedule: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx [b, n, d], dy [b, m, d] and slope [b, n] in float32; dx or dy is [b, 0, d] if it is not needed.

    Weights are rounded as ``info_nce_backward`` rounds them; the slopes are sums of unrounded values. ``schedule`` is
    "fused" or "banded", by default the one with the least estimated cost.
    """
    (b, n, m, d), x = tables.sizes, tables.x
    variant = "lean" if tables.row_id is None else "full"
    sizes = tile("sigmoid_loss_backward", x.dtype, d, architecture(x.device), variant=variant)
    products, block_v = need_x + need_y, sizes.blocks["BLOCK_V"]
    workload = Workload("sigmoid_loss_backward", x, width=d, products=products, block_v=block_v, stored=False)
    schedule = choose_schedule(schedule, workload)
    grad, scale, bias = (values.float().contiguous() for values in (grad_row, tables.logit_scale, bias))
    factor = weight_scale(scale.amax(1) * grad.abs().amax(1)) if x.dtype == torch.float16 else None
    slope = torch.zeros(b, n, dtype=torch.float32, device=x.device)
    left, right = to_operand(x), to_operand(tables.right)
    weights = _Weights(
        row=_Side(left, make_contiguous(tables.row_id)),
        col=_Side(right, make_contiguous(tables.col_id)),
        scale=scale,
        factor=factor,
        bias=bias,
        grad=grad,
        slope=slope,
        variant=variant,
        dtype=x.dtype,
        features=d,
    )
    nothing = slope.new_empty(b, 0, left.shape[2])
    if schedule == "fused" or not products:
        dx = weights.multiply(sizes, transposed=False, with_product=need_x)
        dy = weights.multiply(sizes, transposed=True) if need_y else nothing
    else:
        wv, wu = banded_products(weights.write, left, m, v=right if need_x else None, u=left if need_y else None)
        dx, dy = (nothing if product is None else product for product in (wv, wu))
        if factor is not None:
            dx, dy = (product / factor[:, None, None] for product in (dx, dy))
    return dx[..., :d].contiguous(), dy[..., :d].contiguous(), slope


@triton.jit
def _log1p_exp(x):
    """Return log(1 + exp(x)) to a few units in the last place of float32, also where it is tiny or x is large."""
    small = tl.exp(-tl.abs(x))
    # log(1 + s) = 2 artanh(r), r = s / (2 + s) <= 1/3: the first omitted term is r^17 / 17 < 1e-8 of r
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
def _signs_and_margins(logits, bias_ptr, rows, cols, row_id_ptr, col_id_ptr, n_rows, n_cols):
    """Return z and z (S + bias); the latter is +inf, whose loss and slope are 0, for entries that do not count."""
    if row_id_ptr is not None:
        row_id = tl.load(row_id_ptr + rows, rows < n_rows, other=-1)
        col_id = tl.load(col_id_ptr + cols, cols < n_cols, other=-1)
        same = row_id[:, None] == col_id[None, :]
        counted = (row_id >= 0)[:, None] & (col_id >= 0)[None, :]
    else:
        same = rows[:, None] == cols[None, :]
        counted = (rows < n_rows)[:, None] & (cols < n_cols)[None, :]
    signs = tl.where(same, 1.0, -1.0)
    return signs, tl.where(counted, signs * (logits + tl.load(bias_ptr)), float("inf"))


@triton.jit
def _slope_tile(
    logits, bias_ptr, grad_ptr, rows, cols, row_id_ptr, col_id_ptr, n_rows, n_cols, SCALE_ROWS: tl.constexpr
):
    """Return dS = -grad z / (1 + exp(z (S + bias))) for a tile of logits, and 0 for entries that do not count."""
    signs, margins = _signs_and_margins(logits, bias_ptr, rows, cols, row_id_ptr, col_id_ptr, n_rows, n_cols)
    # the exponential of a number that is not positive cannot overflow
    small = tl.exp(-tl.abs(margins))
    slopes = -signs * tl.where(margins > 0.0, small, 1.0) / (1.0 + small)
    return scale_tile(slopes, grad_ptr, rows, cols, n_rows, n_cols, SCALE_ROWS)


@triton.jit(do_not_specialize=["n", "m"])
def _sigmoid_loss_fwd_kernel(
    x,  # [b, n, d], a table of dot_tile
    y,  # [b, m, d], likewise
    scale_ptr,  # [b, n]
    bias_ptr,  # [b]
    row_id_ptr,  # [b, n] or None
    col_id_ptr,  # [b, m] or None
    loss_ptr,  # [b, n]
    n,
    m,
    d,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
):
    """Write the sum of the losses of each row; a program owns BLOCK_M rows."""
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
        logits = scale_tile(dots, scale_ptr, rows, cols, n, m, True)
        _, margins = _signs_and_margins(logits, bias_ptr + problem, rows, cols, row_id_ptr, col_id_ptr, n, m)
        loss += tl.sum(_log1p_exp(-margins), 1)
    tl.store(loss_ptr + problem * n + rows, loss, rows < n)


@triton.jit(do_not_specialize=["n_rows", "n_cols"])
def _sigmoid_loss_bwd_kernel(
    left,  # [b, n_rows, d]
    right,  # [b, n_cols, d]
    scale_ptr,  # [b, n_rows] if SCALE_ROWS, else [b, n_cols]
    weight_scale_ptr,  # [b] or None
    bias_ptr,  # [b]
    grad_ptr,  # like scale
    row_id_ptr,  # [b, n_rows] or None
    col_id_ptr,  # [b, n_cols] or None
    product_ptr,  # [b, n_rows, d] or None
    slope_ptr,  # [b, n_rows] or None
    n_rows,
    n_cols,
    d,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    SCALE_ROWS: tl.constexpr,
    ROUND: tl.constexpr,
):
    """Compute product = W right, or W' right without SCALE_ROWS, and the row sums of dS.

    A program owns BLOCK_M rows and BLOCK_V features. The kernel is long because the product and the sums read the same
    tile of slopes, and either may be missing.
    """
    row_blocks = tl.cdiv(n_rows, BLOCK_M)
    chunks = tl.cdiv(d, BLOCK_V) if product_ptr is not None else 1
    problem = (tl.program_id(0) // (row_blocks * chunks)).to(tl.int64)
    chunk = (tl.program_id(0) // row_blocks) % chunks
    first_row = (tl.program_id(0) % row_blocks) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    features = chunk * BLOCK_V + tl.arange(0, BLOCK_V)
    row_start, col_start = problem * n_rows, problem * n_cols
    scale_ptr += row_start if SCALE_ROWS else col_start
    grad_ptr += row_start if SCALE_ROWS else col_start
    if row_id_ptr is not None:
        row_id_ptr += row_start
        col_id_ptr += col_start
    if weight_scale_ptr is not None:
        weight_scale_ptr += problem

    slope = tl.zeros([BLOCK_M], tl.float32)
    product = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    for first_col in range(0, n_cols, BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        dots = dot_tile(
            left, right, row_start, col_start, first_row, first_col, n_rows, n_cols, d, BLOCK_M, BLOCK_N, BLOCK_D, False
        )
        logits = scale_tile(dots, scale_ptr, rows, cols, n_rows, n_cols, SCALE_ROWS)
        slopes = _slope_tile(
            logits, bias_ptr + problem, grad_ptr, rows, cols, row_id_ptr, col_id_ptr, n_rows, n_cols, SCALE_ROWS
        )
        if slope_ptr is not None:
            slope += tl.sum(slopes, 1)
        if product_ptr is not None:
            weights = scale_tile(slopes, scale_ptr, rows, cols, n_rows, n_cols, SCALE_ROWS)
            values = tl.load(
                right + (col_start + cols)[:, None] * d + features[None, :],
                (cols[:, None] < n_cols) & (features[None, :] < d),
                other=0.0,
            )
            weights = cast_weights(weights, weight_scale_ptr, values.dtype, ROUND)
            product = tl.dot(weights, values, product, input_precision="ieee")

    if slope_ptr is not None:
        tl.store(slope_ptr + row_start + rows, slope, (rows < n_rows) & (chunk == 0))
    if product_ptr is not None:
        if weight_scale_ptr is not None:
            product /= tl.load(weight_scale_ptr)
        tl.store(
            product_ptr + (row_start + rows)[:, None] * d + features[None, :],
            product,
            (rows[:, None] < n_rows) & (features[None, :] < d),
        )


@triton.jit(do_not_specialize=["problem", "row", "n_rows", "col", "n_cols", "n", "m"])
def _sigmoid_loss_weights_kernel(
    x,  # [b, n, d], a table of dot_tile
    y,  # [b, m, d], likewise
    scale_ptr,  # [b, n]
    weight_scale_ptr,  # [b] or None
    bias_ptr,  # [b]
    grad_ptr,  # [b, n]
    row_id_ptr,  # [b, n] or None
    col_id_ptr,  # [b, m] or None
    weights_ptr,  # [problems, n_rows, stride], of which n_cols columns are written
    slope_ptr,  # [problems, n_rows, n_cols / BLOCK_N rounded up]
    stride,
    problem,
    row,
    n_rows,
    col,
    n_cols,
    n,
    m,
    d,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    ROUND: tl.constexpr,
):
    """Write W and the row sums of dS for n_rows rows from ``row`` on and n_cols columns from ``col`` on.

    A program writes one tile. The kernel is long because its signature and the moves of pointers to a problem are.
    """
    row_blocks, col_blocks = tl.cdiv(n_rows, BLOCK_M), tl.cdiv(n_cols, BLOCK_N)
    tile_row = (tl.program_id(0) % row_blocks) * BLOCK_M
    row_in_block = tile_row + tl.arange(0, BLOCK_M)
    col_block = tl.program_id(0) // row_blocks % col_blocks
    col_in_block = col_block * BLOCK_N + tl.arange(0, BLOCK_N)
    problem_in_block = (tl.program_id(0) // (row_blocks * col_blocks)).to(tl.int64)
    # entries outside the block do not count
    end_row, end_col = row + n_rows, col + n_cols
    rows, cols = row + row_in_block, col + col_in_block
    first_row, first_col = (problem + problem_in_block) * n, (problem + problem_in_block) * m
    if row_id_ptr is not None:
        row_id_ptr += first_row
        col_id_ptr += first_col
    if weight_scale_ptr is not None:
        weight_scale_ptr += problem + problem_in_block

    start_row, start_col = row + tile_row, col + col_block * BLOCK_N
    dots = dot_tile(x, y, first_row, first_col, start_row, start_col, n, m, d, BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS)
    logits = scale_tile(dots, scale_ptr + first_row, rows, cols, end_row, end_col, True)
    slopes = _slope_tile(
        logits,
        bias_ptr + problem + problem_in_block,
        grad_ptr + first_row,
        rows,
        cols,
        row_id_ptr,
        col_id_ptr,
        end_row,
        end_col,
        True,
    )
    row_index = problem_in_block * n_rows + row_in_block
    tl.store(slope_ptr + row_index * col_blocks + col_block, tl.sum(slopes, 1), row_in_block < n_rows)
    weights = scale_tile(slopes, scale_ptr + first_row, rows, cols, end_row, end_col, True)
    weights = cast_weights(weights, weight_scale_ptr, weights_ptr.dtype.element_ty, ROUND)
    inside = (row_in_block < n_rows)[:, None] & (col_in_block < n_cols)[None, :]
    tl.store(weights_ptr + row_index[:, None] * stride + col_in_block[None, :], weights, inside)
