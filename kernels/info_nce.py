"""InfoNCE's log-sum-exps and gradients by tiles of the similarity matrix, which is never stored.

    S = scale own other'     lse_i = log sum_j exp S_ij     dS_ij = grad_i exp(S_ij - lse_i)
                                                                    + grad'_j exp(S_ij - lse'_j) + [i = j] positive_i

Each program owns a block of rows of ``own`` and walks over all rows of ``other``: there is no sum between programs, so
the result is the same every time. (own, other) = (x, y) gives the row side, (y, x) the column side.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.launch import dot_tile, launch, misread, operand
from modalign.kernels.tiles import architecture, tile

__all__ = ["info_nce_backward", "info_nce_forward"]

# the largest weight of the backward product after scaling, below float16's 65504
FLOAT16_TOP = 2.0**15


def info_nce_forward(x: Tensor, y: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row log-sum-exps, column log-sum-exps and diagonal of S = logit_scale x y'.

    x, y: [b, n, d] float32, float16 or bfloat16; logit_scale: [b] on the same device, read there: the host never waits.
    Returns three [b, n] float32. Products are accumulated in float32 (float32 inputs without tf32).
    """
    b, n, _ = x.shape
    x, y, scale = operand(x), operand(y), logit_scale.float().contiguous()
    d = x.shape[2]
    row_lse, col_lse, positive = (torch.empty(b, n, dtype=torch.float32, device=x.device) for _ in range(3))
    sizes = tile("info_nce_forward", x.dtype, d, architecture(x.device))
    programs = b * triton.cdiv(n, sizes.blocks["BLOCK_M"])
    for own, other, lse, with_positive in ((x, y, row_lse, True), (y, x, col_lse, False)):
        launch(
            _info_nce_fwd_kernel, programs, sizes, own, other, scale, lse, positive, n, d,
            WITH_POSITIVE=with_positive,
        )  # fmt: skip
    return row_lse, col_lse, positive


def info_nce_backward(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor, logit_scale: Tensor, row_lse: Tensor, col_lse: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """dx = scale dS y and dy = scale dS' x, [b, n, d] float32, dS recomputed tile by tile.

    For half-precision inputs dS is rounded to their dtype before it meets y; float16 weights are first scaled by
    2^15 over the largest gradient of the problem, so that 1 / n^2 does not underflow.
    """
    b, n, width = x.shape
    dtype = x.dtype
    x, y, scale = operand(x), operand(y), logit_scale.float().contiguous()
    d = x.shape[2]
    grad_row, grad_col, grad_positive = (g.float().contiguous() for g in (grad_row, grad_col, grad_positive))
    row_lse, col_lse = row_lse.float().contiguous(), col_lse.float().contiguous()
    dx, dy = (torch.empty(b, n, d, dtype=torch.float32, device=x.device) for _ in range(2))
    weight_scale = _weight_scale(grad_row, grad_col, grad_positive, dtype)
    sizes = tile("info_nce_backward", x.dtype, d, architecture(x.device))
    programs = b * triton.cdiv(n, sizes.blocks["BLOCK_M"]) * triton.cdiv(d, sizes.blocks["BLOCK_V"])
    row_side, col_side = (x, row_lse, grad_row, dx), (y, col_lse, grad_col, dy)
    for own, other in ((row_side, col_side), (col_side, row_side)):
        launch(
            _info_nce_bwd_kernel, programs, sizes,
            own[0], other[0], scale, weight_scale, own[1], other[1], own[2], other[2], grad_positive, own[3], n, d,
            ROUND=misread(dtype),
        )  # fmt: skip
    return dx[..., :width].contiguous(), dy[..., :width].contiguous()


def _weight_scale(grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor, dtype: torch.dtype) -> Tensor:
    """[b]: what dS is multiplied by before it is rounded to ``dtype``; |dS| is at most the sum of the three maxima."""
    largest = grad_row.abs().amax(1) + grad_col.abs().amax(1) + grad_positive.abs().amax(1)
    if dtype != torch.float16:
        return torch.ones_like(largest)
    return FLOAT16_TOP / largest.clamp_min(1e-30)


@triton.jit
def _rounded_to_bfloat16(x):
    """float32 numbers rounded to the nearest bfloat16, ties to even, by their bits: what .to does on a device."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["n"])
def _info_nce_fwd_kernel(
    own_ptr, other_ptr,  # [b, n, d]
    scale_ptr,  # [b]
    lse_ptr, positive_ptr,  # [b, n]
    n, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    WITH_POSITIVE: tl.constexpr,
):  # fmt: skip
    row_blocks = tl.cdiv(n, BLOCK_M)
    problem = (tl.program_id(0) // row_blocks).to(tl.int64)
    first_row = (tl.program_id(0) % row_blocks) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    own_ptr += problem * n * d
    other_ptr += problem * n * d
    scale = tl.load(scale_ptr + problem)

    running_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    running_sum = tl.zeros([BLOCK_M], tl.float32)
    positive = tl.zeros([BLOCK_M], tl.float32)
    for first_col in range(0, n, BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        logits = dot_tile(own_ptr, other_ptr, rows, cols, n, n, d, BLOCK_M, BLOCK_N, BLOCK_D) * scale
        logits = tl.where(cols[None, :] < n, logits, -float("inf"))
        new_max = tl.maximum(running_max, tl.max(logits, 1))
        tile_sum = tl.sum(tl.exp(logits - new_max[:, None]), 1)
        running_sum = running_sum * tl.exp(running_max - new_max) + tile_sum
        running_max = new_max
        # the diagonal is read from the same logits: a pair alone has a loss of exactly 0
        if WITH_POSITIVE:  # noqa: SIM102 - decided when compiling, the next one when running
            if (first_col < first_row + BLOCK_M) & (first_row < first_col + BLOCK_N):
                positive += tl.sum(tl.where(rows[:, None] == cols[None, :], logits, 0.0), 1)

    tl.store(lse_ptr + problem * n + rows, running_max + tl.log(running_sum), rows < n)
    if WITH_POSITIVE:
        tl.store(positive_ptr + problem * n + rows, positive, rows < n)


@triton.jit(do_not_specialize=["n"])
def _info_nce_bwd_kernel(
    own_ptr, other_ptr,  # [b, n, d]
    scale_ptr, weight_scale_ptr,  # [b]
    own_lse_ptr, other_lse_ptr, own_grad_ptr, other_grad_ptr, positive_grad_ptr,  # [b, n]
    d_own_ptr,  # [b, n, d]
    n, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    row_blocks = tl.cdiv(n, BLOCK_M)
    chunks = tl.cdiv(d, BLOCK_V)
    problem = (tl.program_id(0) // (row_blocks * chunks)).to(tl.int64)
    chunk = (tl.program_id(0) // row_blocks) % chunks
    rows = (tl.program_id(0) % row_blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    values = chunk * BLOCK_V + tl.arange(0, BLOCK_V)
    own_ptr += problem * n * d
    other_ptr += problem * n * d
    d_own_ptr += problem * n * d
    scale = tl.load(scale_ptr + problem)
    weight_scale = tl.load(weight_scale_ptr + problem)
    own_lse = tl.load(own_lse_ptr + problem * n + rows, rows < n, other=0.0)
    own_grad = tl.load(own_grad_ptr + problem * n + rows, rows < n, other=0.0)
    positive_grad = tl.load(positive_grad_ptr + problem * n + rows, rows < n, other=0.0)

    gradient = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    for first_col in range(0, n, BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        other_lse = tl.load(other_lse_ptr + problem * n + cols, cols < n, other=0.0)
        other_grad = tl.load(other_grad_ptr + problem * n + cols, cols < n, other=0.0)
        logits = dot_tile(own_ptr, other_ptr, rows, cols, n, n, d, BLOCK_M, BLOCK_N, BLOCK_D) * scale
        logits = tl.where((rows[:, None] < n) & (cols[None, :] < n), logits, -float("inf"))
        weights = own_grad[:, None] * tl.exp(logits - own_lse[:, None])
        weights += other_grad[None, :] * tl.exp(logits - other_lse[None, :])
        weights += tl.where(rows[:, None] == cols[None, :], positive_grad[:, None], 0.0)
        other = tl.load(
            other_ptr + cols[:, None].to(tl.int64) * d + values[None, :],
            (cols[:, None] < n) & (values[None, :] < d), other=0.0,
        )  # fmt: skip
        weights *= weight_scale
        if ROUND:
            weights = _rounded_to_bfloat16(weights)
        gradient = tl.dot(weights.to(other.dtype), other, gradient, input_precision="ieee")

    tl.store(
        d_own_ptr + rows[:, None].to(tl.int64) * d + values[None, :],
        gradient * (scale / weight_scale),
        (rows[:, None] < n) & (values[None, :] < d),
    )
