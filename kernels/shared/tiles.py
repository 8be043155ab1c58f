"""Tile sizes as data: a row for each kernel, kind of dtype, architecture and size, looked up, never tuned at run time.

A row serves every size up to its ``up_to``: the widths of the losses' tables, the number of rows kept by knn's screen,
the columns of its exact kernel, the neighbours k of neighbor_overlap. A "lean" call of a loss has no ids, caps,
statistics or stored logits, which cost a "full" one registers: where its tiles are others, sums have another order.
The sm_80 rows fit the 99 KiB of shared memory of sm_86, sm_89 and sm_120, which therefore use them too.
``python -m modalign.kernels.ahead_of_time`` compiles every row and prints its registers and shared memory.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
import triton

__all__ = ["ANY", "ARCHITECTURES", "TABLE", "VARIANTS", "Tile", "architecture", "interpreted", "tile"]

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
VARIANTS = ("lean", "full")
ANY = 1 << 62
HALF = (torch.float16, torch.bfloat16)
FLOAT = (torch.float32,)
INTEGER = (torch.int64,)


@dataclasses.dataclass(frozen=True)
class Tile:
    """The compile-time sizes of one kernel: ``blocks`` are its constexpr arguments."""

    blocks: dict[str, int]
    warps: int = 4
    stages: int = 2


@dataclasses.dataclass(frozen=True)
class Row:
    kernel: str
    dtypes: tuple[torch.dtype, ...]
    architectures: tuple[str, ...]
    up_to: int
    tile: Tile
    variants: tuple[str, ...] = VARIANTS


def _product(m: int, n: int, d: int, *, warps: int, stages: int, **more: int) -> Tile:
    return Tile({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_D": d, **more}, warps, stages)


def _tile(m: int, n: int, d: int, *, warps: int, stages: int, copied: bool = False, **more: int) -> Tile:
    """A product whose operands are read by pointers, or ``copied`` by tensor descriptors, from sm_90 on."""
    return _product(m, n, d, warps=warps, stages=stages, DESCRIPTORS=int(copied), **more)


def _block(m: int, n: int) -> Tile:
    return Tile({"BLOCK_M": m, "BLOCK_N": n})


def _losses(kernel: str, *of_row: Any, variants: tuple[str, ...] = VARIANTS) -> tuple[Row, Row]:
    """info_nce and sigmoid_loss take the same products."""
    return Row(f"info_nce_{kernel}", *of_row, variants), Row(f"sigmoid_loss_{kernel}", *of_row, variants)


HOPPER_UP = ("sm_90", "sm_100")
INTERPRETER = ("interpreter",)
LEAN, FULL = VARIANTS[:1], VARIANTS[1:]

TABLE = (
    # two half tiles of 128 x 64 are 32 KiB a stage
    *_losses("forward", HALF, ("sm_80",), ANY, _tile(128, 128, 64, warps=8, stages=3), variants=LEAN),
    *_losses("forward", HALF, HOPPER_UP, ANY, _tile(128, 128, 64, warps=8, stages=4, copied=True), variants=LEAN),
    Row("info_nce_forward", HALF, ("sm_80",), ANY, _tile(64, 128, 64, warps=8, stages=3), FULL),
    Row("info_nce_forward", HALF, HOPPER_UP, ANY, _tile(64, 128, 64, warps=8, stages=4, copied=True), FULL),
    Row("sigmoid_loss_forward", HALF, ("sm_80",), ANY, _tile(128, 64, 64, warps=8, stages=3), FULL),
    Row("sigmoid_loss_forward", HALF, HOPPER_UP, ANY, _tile(128, 64, 64, warps=8, stages=4, copied=True), FULL),
    # float32 products run on the ordinary units, from registers: small tiles
    *_losses("forward", FLOAT, ARCHITECTURES, ANY, _tile(64, 32, 32, warps=8, stages=2), variants=FULL),
    Row("info_nce_forward", FLOAT, ("sm_80", "sm_100"), ANY, _tile(64, 64, 32, warps=8, stages=2), LEAN),
    Row("info_nce_forward", FLOAT, ("sm_90",), ANY, _tile(64, 32, 32, warps=8, stages=2), LEAN),
    Row("sigmoid_loss_forward", FLOAT, ARCHITECTURES, ANY, _tile(64, 64, 16, warps=8, stages=2), LEAN),
    *_losses("forward", HALF + FLOAT, INTERPRETER, ANY, _tile(32, 64, 256, warps=1, stages=1)),
    Row("info_nce_combine", FLOAT, (*ARCHITECTURES, *INTERPRETER), ANY, Tile({"BLOCK_N": 128, "PARTS": 8})),
    # the weights of a block. BLOCK_D is that of info_nce_forward: the logits that it stores have the same bits
    *_losses("weights", HALF, ("sm_80",), ANY, _tile(128, 128, 64, warps=8, stages=3), variants=LEAN),
    *_losses("weights", HALF, ("sm_90",), ANY, _tile(128, 128, 64, warps=8, stages=4, copied=True), variants=LEAN),
    *_losses("weights", HALF, ("sm_100",), ANY, _tile(128, 64, 64, warps=8, stages=4, copied=True), variants=LEAN),
    *_losses("weights", HALF, ("sm_80",), ANY, _tile(128, 64, 64, warps=8, stages=3), variants=FULL),
    *_losses("weights", HALF, HOPPER_UP, ANY, _tile(128, 64, 64, warps=8, stages=4, copied=True), variants=FULL),
    Row("sigmoid_loss_weights", FLOAT, ("sm_80",), ANY, _tile(64, 32, 32, warps=8, stages=2), LEAN),
    Row("sigmoid_loss_weights", FLOAT, ("sm_80",), ANY, _tile(64, 64, 32, warps=8, stages=2), FULL),
    Row("sigmoid_loss_weights", FLOAT, HOPPER_UP, ANY, _tile(64, 64, 32, warps=8, stages=2)),
    Row("info_nce_weights", FLOAT, ARCHITECTURES, ANY, _tile(64, 64, 32, warps=8, stages=2)),
    *_losses("weights", HALF + FLOAT, INTERPRETER, ANY, _tile(32, 64, 256, warps=1, stages=1)),
    # BLOCK_M x BLOCK_V float32 sums stay in registers; wider tables make the weights again for each BLOCK_V features
    *_losses("backward", HALF, ("sm_80",), 128, _product(64, 64, 64, warps=4, stages=2, BLOCK_V=128)),
    *_losses("backward", HALF, ("sm_90",), 128, _product(64, 64, 64, warps=8, stages=2, BLOCK_V=128)),
    Row("info_nce_backward", HALF, ("sm_100",), 128, _product(64, 64, 64, warps=8, stages=2, BLOCK_V=128)),
    Row("sigmoid_loss_backward", HALF, ("sm_100",), 128, _product(64, 64, 64, warps=4, stages=2, BLOCK_V=128)),
    *_losses("backward", HALF, ARCHITECTURES, ANY, _product(64, 64, 64, warps=8, stages=2, BLOCK_V=256)),
    *_losses("backward", FLOAT, ("sm_80",), ANY, _product(64, 32, 32, warps=8, stages=2, BLOCK_V=128), variants=LEAN),
    *_losses("backward", FLOAT, ("sm_80",), ANY, _product(64, 32, 32, warps=8, stages=2, BLOCK_V=64), variants=FULL),
    *_losses("backward", FLOAT, HOPPER_UP, ANY, _product(64, 32, 32, warps=8, stages=2, BLOCK_V=128)),
    *_losses("backward", HALF + FLOAT, INTERPRETER, ANY, _product(32, 64, 256, warps=1, stages=1, BLOCK_V=256)),
    # BLOCK_M x kept 64-bit keys stay in registers; up_to is the number kept
    Row("knn_screen", HALF, ("sm_80", "sm_90"), 32, _product(64, 64, 64, warps=4, stages=3)),
    Row("knn_screen", HALF, ("sm_100",), 32, _product(64, 64, 64, warps=8, stages=3)),  # with 4 it spills
    Row("knn_screen", HALF, ARCHITECTURES, 128, _product(64, 64, 64, warps=8, stages=3)),
    Row("knn_screen", FLOAT, ARCHITECTURES, 32, _product(64, 64, 32, warps=8, stages=2)),
    Row("knn_screen", FLOAT, ARCHITECTURES, 128, _product(32, 32, 16, warps=8, stages=2)),
    Row("knn_screen", HALF + FLOAT, INTERPRETER, 128, _product(128, 32, 256, warps=1, stages=1)),
    # products, bounds and what survives, of both sides in turn; GROUP rows of squares of BLOCK_M share their columns
    Row("knn_append", HALF, ("sm_80",), ANY, _tile(128, 64, 64, warps=8, stages=3, GROUP=8)),
    Row("knn_append", HALF, ("sm_90",), ANY, _tile(128, 64, 64, warps=8, stages=4, copied=True, GROUP=8)),
    Row("knn_append", HALF, ("sm_100",), ANY, _tile(64, 64, 64, warps=8, stages=4, copied=True, GROUP=8)),
    Row("knn_append", FLOAT, ARCHITECTURES, ANY, _tile(64, 64, 32, warps=8, stages=2, GROUP=8)),
    Row("knn_append", HALF + FLOAT, INTERPRETER, ANY, _tile(64, 32, 256, warps=1, stages=1, GROUP=8)),
    # up_to is the number of columns: a row with itself (norms), the kept rows, or the gallery
    Row("knn_exact", HALF + FLOAT, ARCHITECTURES, 1, _block(128, 1)),
    Row("knn_exact", HALF + FLOAT, ARCHITECTURES, 128, _block(4, 32)),
    Row("knn_exact", HALF + FLOAT, ARCHITECTURES, ANY, _block(32, 32)),
    Row("knn_exact", HALF + FLOAT, INTERPRETER, 1, _block(256, 1)),
    Row("knn_exact", HALF + FLOAT, INTERPRETER, ANY, _block(32, 64)),
    # up_to is k
    Row("neighbor_overlap", INTEGER, ARCHITECTURES, 16, Tile({"BLOCK_M": 16, "BLOCK_K": 16})),
    Row("neighbor_overlap", INTEGER, ARCHITECTURES, ANY, Tile({"BLOCK_M": 1, "BLOCK_K": 64}, warps=8)),
    Row("neighbor_overlap", INTEGER, INTERPRETER, 16, Tile({"BLOCK_M": 64, "BLOCK_K": 16})),
    Row("neighbor_overlap", INTEGER, INTERPRETER, ANY, Tile({"BLOCK_M": 8, "BLOCK_K": 32})),
)


def tile(kernel: str, dtype: torch.dtype, size: int, architecture: str, variant: str = "full") -> Tile:
    """The first row of the table that serves this call; NotImplementedError with what exists when there is none."""
    rows = [
        row
        for row in TABLE
        if row.kernel == kernel
        and dtype in row.dtypes
        and architecture in row.architectures
        and variant in row.variants
    ]
    for row in rows:
        if size <= row.up_to:
            return row.tile
    raise NotImplementedError(
        f"{kernel}: no tile for {dtype}, size {size}, {architecture} "
        f"(kernels: {sorted({row.kernel for row in TABLE})}; sizes up to {[row.up_to for row in rows] or 'none'})"
    )


def interpreted() -> bool:
    """Whether the kernels of this process were made for triton's interpreter."""
    return bool(triton.knobs.runtime.interpret)


def architecture(device: torch.device) -> str:
    """The table's name for a device: "interpreter", or the newest architecture whose tiles fit it."""
    return "interpreter" if interpreted() else _architecture(device.index or 0)


@functools.cache
def _architecture(index: int) -> str:
    if torch.version.hip is not None:
        raise NotImplementedError("the Triton kernels have tiles for NVIDIA devices only, this torch is built for ROCm")
    major, minor = torch.cuda.get_device_capability(index)
    if major < 8:
        raise NotImplementedError(
            f"the Triton kernels need compute capability 8.0 or later, device {index} has {major}.{minor}"
        )
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")
