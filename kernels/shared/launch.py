"""Launching a kernel, preparing its operands, and the tile of inner products that several kernels share."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from modalign.kernels.shared.tiles import Tile, interpreted

__all__ = [
    "COMPILE_OPTIONS",
    "FEATURE_MULTIPLE",
    "dot_tile",
    "is_misread",
    "launch",
    "to_operand",
    "to_readable",
    "to_table",
]

# without contraction a logit is one rounded number wherever it is used, and the float64 scores are the definition's
COMPILE_OPTIONS = {"enable_fp_fusion": False}
# widths are padded to a multiple of this: a half-precision row that does not start at a multiple of 16 bytes is read
# two bytes at a time, with an address for each, and the kernels spill registers
FEATURE_MULTIPLE = 16


def launch(
    kernel: triton.JITFunction,
    programs: int,
    tile: Tile,
    *arguments: Tensor | TensorDescriptor | int | None,
    **constants: object,
) -> None:
    """Start ``programs`` programs of a kernel on the device of its tensors; do nothing if there are none."""
    if programs == 0:
        return
    with torch.cuda.device_of(next(argument for argument in arguments if isinstance(argument, Tensor))):
        kernel[(programs,)](
            *arguments, **tile.blocks, **constants, num_warps=tile.warps, num_stages=tile.stages, **COMPILE_OPTIONS
        )


def is_misread(dtype: torch.dtype) -> bool:
    """Return whether this process's kernels would compute wrongly with tensors of a dtype.

    Triton's interpreter does so for bfloat16: its subnormals, roundings and tl.dot are wrong (triton 3.6 to 3.9).
    """
    return interpreted() and dtype == torch.bfloat16


def to_readable(x: Tensor) -> Tensor:
    """Return x contiguous, and in float32, which holds the same numbers, where its dtype would be misread."""
    return x.float().contiguous() if is_misread(x.dtype) else x.contiguous()


def to_operand(x: Tensor, compiled: bool = False) -> Tensor:
    """Return x [..., d] ready to be multiplied: contiguous, padded and aligned.

    Zero features are appended up to a multiple of FEATURE_MULTIPLE, which changes no product, and the memory starts at
    a multiple of 16 bytes. Kernels that are ``compiled`` elsewhere read every dtype as it is.
    """
    x = x.contiguous() if compiled else to_readable(x)
    x = F.pad(x, (0, -x.shape[-1] % FEATURE_MULTIPLE)) if x.shape[-1] % FEATURE_MULTIPLE else x
    return x if x.data_ptr() % 16 == 0 else x.clone()


def to_table(x: Tensor, side: str, tile: Tile) -> Tensor | TensorDescriptor:
    """Return an operand [..., d] as dot_tile reads it, in blocks of ``side`` ("BLOCK_M" or "BLOCK_N") rows."""
    if not tile.blocks["DESCRIPTORS"] or not x.numel():
        return x
    return TensorDescriptor.from_tensor(x.flatten(0, -2), [tile.blocks[side], tile.blocks["BLOCK_D"]])


@triton.jit
def dot_tile(
    left,  # [., d], a tensor descriptor if DESCRIPTORS, else a pointer
    right,  # [., d], likewise
    left_start,
    right_start,
    first_row,
    first_col,
    n_rows,
    n_cols,
    d,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
):
    """Return <left_i, right_j> in float32 for BLOCK_M rows from first_row on and BLOCK_N columns from first_col on.

    Rows of the two tables count from left_start and right_start. Products beyond n_rows and n_cols are undefined.
    """
    dots = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if DESCRIPTORS:
        left_row, right_row = (left_start + first_row).to(tl.int32), (right_start + first_col).to(tl.int32)
        for start in range(0, d, BLOCK_D):
            left_tile = left.load([left_row, start])
            dots = tl.dot(left_tile, right.load([right_row, start]).T, dots, input_precision="ieee")
    else:
        rows, cols = first_row + tl.arange(0, BLOCK_M), first_col + tl.arange(0, BLOCK_N)
        left_ptr = left + (left_start + rows)[:, None].to(tl.int64) * d
        right_ptr = right + (right_start + cols)[None, :].to(tl.int64) * d
        for start in range(0, d, BLOCK_D):
            features = start + tl.arange(0, BLOCK_D)
            left_tile = tl.load(
                left_ptr + features[None, :], (rows[:, None] < n_rows) & (features[None, :] < d), other=0.0
            )
            right_tile = tl.load(
                right_ptr + features[:, None], (cols[None, :] < n_cols) & (features[:, None] < d), other=0.0
            )
            dots = tl.dot(left_tile, right_tile, dots, input_precision="ieee")
    return dots
