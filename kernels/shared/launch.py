"""One way to launch a kernel, and the tile product that several kernels share."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from modalign.kernels.shared.tiles import Tile, interpreted

__all__ = ["FEATURES", "OPTIONS", "dot_tile", "launch", "misread", "operand", "readable", "table"]

# without contraction a logit is one rounded number wherever it is used, and the float64 scores are the definition's
OPTIONS = {"enable_fp_fusion": False}
# widths are padded to a multiple of this: a row of half precision that starts off 16 bytes is read 2 bytes at a time,
# with an address for each, and the kernels spill
FEATURES = 16


def launch(
    kernel: triton.JITFunction, programs: int, tile: Tile, *arguments: Tensor | TensorDescriptor | int | None,
    **constants: object,
) -> None:  # fmt: skip
    """Start ``programs`` programs on the device of the tensors."""
    if programs == 0:
        return
    with torch.cuda.device_of(next(argument for argument in arguments if isinstance(argument, Tensor))):
        kernel[(programs,)](
            *arguments, **tile.blocks, **constants, num_warps=tile.warps, num_stages=tile.stages, **OPTIONS
        )


def misread(dtype: torch.dtype) -> bool:
    """The interpreter's subnormals, roundings and tl.dot are wrong for bfloat16 (triton 3.6 to 3.9)."""
    return interpreted() and dtype == torch.bfloat16


def readable(x: Tensor) -> Tensor:
    """x, contiguous; in float32, which holds the same numbers, where bfloat16 would be misread."""
    return x.float().contiguous() if misread(x.dtype) else x.contiguous()


def operand(x: Tensor, compiled: bool = False) -> Tensor:
    """x [..., d], readable (by compiled kernels as it is), with zero features up to a multiple of FEATURES, which
    change no product; it starts at a multiple of 16 bytes."""
    x = x.contiguous() if compiled else readable(x)
    x = F.pad(x, (0, -x.shape[-1] % FEATURES)) if x.shape[-1] % FEATURES else x
    return x if x.data_ptr() % 16 == 0 else x.clone()


def table(x: Tensor, side: str, tile: Tile) -> Tensor | TensorDescriptor:
    """An operand [..., d] as dot_tile reads it, by its blocks of ``side`` "BLOCK_M" or "BLOCK_N"."""
    if not tile.blocks["DESCRIPTORS"] or not x.numel():
        return x
    return TensorDescriptor.from_tensor(x.flatten(0, -2), [tile.blocks[side], tile.blocks["BLOCK_D"]])


@triton.jit
def dot_tile(
    own, other, own_start, other_start, first_row, first_col, n_rows, n_cols, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """<own_i, other_j> for BLOCK_M rows from first_row and BLOCK_N columns from first_col on, in float32.

    own, other: tables [., d], whose rows count from own_start and other_start; tensor descriptors if DESCRIPTORS, else
    pointers. Beyond n_rows and n_cols the products are anything.
    """
    dots = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if DESCRIPTORS:
        own_row, other_row = (own_start + first_row).to(tl.int32), (other_start + first_col).to(tl.int32)
        for start in range(0, d, BLOCK_D):
            left = own.load([own_row, start])
            dots = tl.dot(left, other.load([other_row, start]).T, dots, input_precision="ieee")
    else:
        rows, cols = first_row + tl.arange(0, BLOCK_M), first_col + tl.arange(0, BLOCK_N)
        own_rows = own + (own_start + rows)[:, None].to(tl.int64) * d
        other_rows = other + (other_start + cols)[None, :].to(tl.int64) * d
        for start in range(0, d, BLOCK_D):
            features = start + tl.arange(0, BLOCK_D)
            left = tl.load(own_rows + features[None, :], (rows[:, None] < n_rows) & (features[None, :] < d), other=0.0)
            right = tl.load(
                other_rows + features[:, None], (cols[None, :] < n_cols) & (features[:, None] < d), other=0.0
            )
            dots = tl.dot(left, right, dots, input_precision="ieee")
    return dots
