"""Functions of the losses' kernels on one tile of similarities: scales, masks, and rounding of weights.

Pointers are to the first row of a problem. A pointer that is None stands for a table that the call does not have; the
kernel is compiled without it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["MAX_FLOAT16_WEIGHT", "cast_weights", "make_contiguous", "mask_logits", "scale_tile", "weight_scale"]

# the largest weight of a product after scaling, below float16's 65504
MAX_FLOAT16_WEIGHT = 2.0**15


def make_contiguous(table: Tensor | None) -> Tensor | None:
    """Return the table contiguous, as the kernels read it, or None for None."""
    return None if table is None else table.contiguous()


def weight_scale(largest: Tensor) -> Tensor:
    """Return the factors [b] of float16 weights of at most ``largest`` [b], so that 1 / n^2 does not underflow."""
    return (MAX_FLOAT16_WEIGHT / largest.clamp_min(1e-30)).where(largest > 0, 1.0)


@triton.jit
def scale_tile(tile, scale_ptr, rows, cols, n_rows, n_cols, SCALE_ROWS: tl.constexpr):
    """Return the tile times one factor for each row if SCALE_ROWS, for each column otherwise."""
    if SCALE_ROWS:
        tile *= tl.load(scale_ptr + rows, rows < n_rows, other=0.0)[:, None]
    else:
        tile *= tl.load(scale_ptr + cols, cols < n_cols, other=0.0)[None, :]
    return tile


@triton.jit
def mask_logits(logits, rows, cols, row_id_ptr, col_id_ptr, n_rows, n_cols, MASK: tl.constexpr):
    """Return the logits, with -inf for each entry that the mask or the ids exclude.

    A negative id excludes its row or column.
    """
    if MASK == "diagonal":
        logits = tl.where(rows[:, None] == cols[None, :], -float("inf"), logits)
    if row_id_ptr is not None:
        row_id = tl.load(row_id_ptr + rows, rows < n_rows, other=-1)
        col_id = tl.load(col_id_ptr + cols, cols < n_cols, other=-1)
        counted = (row_id[:, None] >= 0) & (col_id[None, :] >= 0)
        if MASK == "same":
            counted &= row_id[:, None] != col_id[None, :]
        if MASK == "different":
            counted &= row_id[:, None] == col_id[None, :]
        logits = tl.where(counted, logits, -float("inf"))
    return logits


@triton.jit
def cast_weights(weights, weight_scale_ptr, dtype: tl.constexpr, ROUND: tl.constexpr):
    """Return the weights, scaled if there is a scale, in the dtype of the table that they are multiplied with."""
    if weight_scale_ptr is not None:
        weights *= tl.load(weight_scale_ptr)
    if ROUND:
        weights = _round_to_bfloat16(weights)
    return weights.to(dtype)


@triton.jit
def _round_to_bfloat16(x):
    """Round float32 numbers to the nearest bfloat16, ties to even, by their bits, as .to does on a device."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True)
