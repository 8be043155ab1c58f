"""One way to launch a kernel, and the tile product that several kernels share."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.tiles import Tile, interpreted

__all__ = ["FEATURES", "OPTIONS", "dot_tile", "launch", "misread", "operand", "readable"]

# without contraction a logit is one rounded number wherever it is used, and the float64 scores are the definition's
OPTIONS = {"enable_fp_fusion": False}
# widths are padded to a multiple of this: a row of half precision that starts off 16 bytes is read 2 bytes at a time,
# with an address for each, and the kernels spill
FEATURES = 16


def launch(
    kernel: triton.JITFunction, programs: int, tile: Tile, *arguments: Tensor | int, **constants: object
) -> None:
    """Start ``programs`` programs on the device of the first argument."""
    if programs == 0:
        return
    with torch.cuda.device_of(arguments[0]):
        kernel[(programs,)](
            *arguments, **tile.blocks, **constants, num_warps=tile.warps, num_stages=tile.stages, **OPTIONS
        )


def misread(dtype: torch.dtype) -> bool:
    """The interpreter's subnormals, roundings and tl.dot are wrong for bfloat16 (triton 3.6 to 3.9)."""
    return interpreted() and dtype == torch.bfloat16


def readable(x: Tensor) -> Tensor:
    """x, contiguous; in float32, which holds the same numbers, where bfloat16 would be misread."""
    return x.float().contiguous() if misread(x.dtype) else x.contiguous()


def operand(x: Tensor) -> Tensor:
    """x [..., d], readable, with zero features up to a multiple of FEATURES: they change no product."""
    x = readable(x)
    return F.pad(x, (0, -x.shape[-1] % FEATURES)) if x.shape[-1] % FEATURES else x


@triton.jit
def dot_tile(
    own_ptr, other_ptr, rows, cols, n_rows, n_cols, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """<own_i, other_j> for i in rows and j in cols, float32 [BLOCK_M, BLOCK_N], 0 outside. own, other: [., d]."""
    own_rows = own_ptr + rows[:, None].to(tl.int64) * d
    other_rows = other_ptr + cols[None, :].to(tl.int64) * d
    dots = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, d, BLOCK_D):
        features = start + tl.arange(0, BLOCK_D)
        own = tl.load(own_rows + features[None, :], (rows[:, None] < n_rows) & (features[None, :] < d), other=0.0)
        other = tl.load(other_rows + features[:, None], (cols[None, :] < n_cols) & (features[:, None] < d), other=0.0)
        dots = tl.dot(own, other, dots, input_precision="ieee")
    return dots
