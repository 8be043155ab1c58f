"""What the kernels of the losses do to one tile of similarities: leave entries out, and round weights for a product.

Pointers are to the first row of a problem. One that is None is a table that the call does not have: the kernel is
compiled without it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["FLOAT16_TOP", "as_weights", "contiguous", "left_out", "scaled", "weight_scale"]

# the largest weight of a product after scaling, below float16's 65504
FLOAT16_TOP = 2.0**15


def contiguous(table: Tensor | None) -> Tensor | None:
    """The table as the kernels read it."""
    return None if table is None else table.contiguous()


def weight_scale(largest: Tensor) -> Tensor:
    """[b]: what float16 weights of at most ``largest`` [b] are multiplied by, so that 1 / n^2 does not underflow."""
    return (FLOAT16_TOP / largest.clamp_min(1e-30)).where(largest > 0, 1.0)


@triton.jit
def scaled(tile, scale_ptr, rows, cols, n_own, n_other, SCALE_OWN: tl.constexpr):
    """The tile times the factor of its rows if SCALE_OWN, of its columns otherwise."""
    if SCALE_OWN:
        tile *= tl.load(scale_ptr + rows, rows < n_own, other=0.0)[:, None]
    else:
        tile *= tl.load(scale_ptr + cols, cols < n_other, other=0.0)[None, :]
    return tile


@triton.jit
def left_out(logits, rows, cols, own_id_ptr, other_id_ptr, n_own, n_other, MASK: tl.constexpr):
    """The logits, -inf where the mask and the ids leave an entry out, or an id has no row or column."""
    if MASK == "diagonal":
        logits = tl.where(rows[:, None] == cols[None, :], -float("inf"), logits)
    if own_id_ptr is not None:
        own_id = tl.load(own_id_ptr + rows, rows < n_own, other=-1)
        other_id = tl.load(other_id_ptr + cols, cols < n_other, other=-1)
        counted = (own_id[:, None] >= 0) & (other_id[None, :] >= 0)
        if MASK == "same":
            counted &= own_id[:, None] != other_id[None, :]
        if MASK == "different":
            counted &= own_id[:, None] == other_id[None, :]
        logits = tl.where(counted, logits, -float("inf"))
    return logits


@triton.jit
def as_weights(weights, weight_scale_ptr, dtype: tl.constexpr, ROUND: tl.constexpr):
    """The weights in the dtype of the table that they are multiplied with."""
    if weight_scale_ptr is not None:
        weights *= tl.load(weight_scale_ptr)
    if ROUND:
        weights = _rounded_to_bfloat16(weights)
    return weights.to(dtype)


@triton.jit
def _rounded_to_bfloat16(x):
    """float32 numbers rounded to the nearest bfloat16, ties to even, by their bits: what .to does on a device."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True)
