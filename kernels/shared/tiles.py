"""Tile sizes as data: one row for each kernel, kind of dtype, architecture and size, looked up and never tuned.

A row serves every size up to its ``up_to``. The size is the width of the tables for the losses, the number of rows kept
for knn's screen, the number of columns for its exact scores and k for neighbor_overlap. A "lean" call of a loss has no
ids, caps, statistics or stored logits; a "full" call has some of them, which costs registers. Where the two have
different tiles, their sums are added in another order. The sm_80 rows fit the 99 KiB of shared memory of sm_86, sm_89
and sm_120, which use them too. ``python -m modalign.kernels.ahead_of_time`` compiles every row and prints its registers
and shared memory.
"""

from __future__ import annotations

import dataclasses
import functools

import torch
import triton

__all__ = ["ANY", "ARCHITECTURES", "TABLE", "VARIANTS", "Row", "Tile", "architecture", "interpreted", "tile"]

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
VARIANTS = ("lean", "full")
ANY = 1 << 62  # the ``up_to`` of a row that serves every size
HALF = (torch.float16, torch.bfloat16)
FLOAT = (torch.float32,)
INTEGER = (torch.int64,)


@dataclasses.dataclass(frozen=True)
class Tile:
    """The compile-time sizes of one kernel; ``blocks`` are its constexpr arguments by name."""

    blocks: dict[str, int]
    warps: int = 4
    stages: int = 2


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: which calls of a kernel it serves, and their tile."""

    kernel: str
    dtypes: tuple[torch.dtype, ...]
    architectures: tuple[str, ...]
    tile: Tile
    up_to: int = ANY
    variants: tuple[str, ...] = VARIANTS


def _product(m: int, n: int, d: int, *, warps: int, stages: int, **extra_blocks: int) -> Tile:
    return Tile({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_D": d, **extra_blocks}, warps, stages)


def _tile(m: int, n: int, d: int, *, warps: int, stages: int, copied: bool = False, **extra_blocks: int) -> Tile:
    """Return the tile of a product whose operands are read by pointers, or ``copied`` by tensor descriptors."""
    return _product(m, n, d, warps=warps, stages=stages, DESCRIPTORS=int(copied), **extra_blocks)


def _block(m: int, n: int) -> Tile:
    return Tile({"BLOCK_M": m, "BLOCK_N": n})


def _losses(
    kernel: str,
    dtypes: tuple[torch.dtype, ...],
    architectures: tuple[str, ...],
    tile: Tile,
    *,
    up_to: int = ANY,
    variants: tuple[str, ...] = VARIANTS,
) -> tuple[Row, Row]:
    """Return the rows of info_nce and sigmoid_loss for a kernel whose tiles they share."""
    return (
        Row(f"info_nce_{kernel}", dtypes, architectures, tile, up_to=up_to, variants=variants),
        Row(f"sigmoid_loss_{kernel}", dtypes, architectures, tile, up_to=up_to, variants=variants),
    )


HOPPER_UP = ("sm_90", "sm_100")
INTERPRETER = ("interpreter",)
LEAN, FULL = VARIANTS[:1], VARIANTS[1:]

TABLE = (
    # two half tiles of 128 x 64 are 32 KiB a stage
    *_losses("forward", HALF, ("sm_80",), _tile(128, 128, 64, warps=8, stages=3), variants=LEAN),
    *_losses("forward", HALF, HOPPER_UP, _tile(128, 128, 64, warps=8, stages=4, copied=True), variants=LEAN),
    Row("info_nce_forward", HALF, ("sm_80",), _tile(64, 128, 64, warps=8, stages=3), variants=FULL),
    Row("info_nce_forward", HALF, HOPPER_UP, _tile(64, 128, 64, warps=8, stages=4, copied=True), variants=FULL),
    Row("sigmoid_loss_forward", HALF, ("sm_80",), _tile(128, 64, 64, warps=8, stages=3), variants=FULL),
    Row("sigmoid_loss_forward", HALF, HOPPER_UP, _tile(128, 64, 64, warps=8, stages=4, copied=True), variants=FULL),
    # float32 products run on the ordinary units, from registers: small tiles
    *_losses("forward", FLOAT, ARCHITECTURES, _tile(64, 32, 32, warps=8, stages=2), variants=FULL),
    Row("info_nce_forward", FLOAT, ("sm_80", "sm_100"), _tile(64, 64, 32, warps=8, stages=2), variants=LEAN),
    Row("info_nce_forward", FLOAT, ("sm_90",), _tile(64, 32, 32, warps=8, stages=2), variants=LEAN),
    Row("sigmoid_loss_forward", FLOAT, ARCHITECTURES, _tile(64, 64, 16, warps=8, stages=2), variants=LEAN),
    *_losses("forward", HALF + FLOAT, INTERPRETER, _tile(32, 64, 256, warps=1, stages=1)),
    Row("info_nce_combine", FLOAT, (*ARCHITECTURES, *INTERPRETER), Tile({"BLOCK_N": 128, "PARTS": 8})),
    # the weights of a block. BLOCK_D is that of info_nce_forward: recomputed logits have the bits of stored ones
    *_losses("weights", HALF, ("sm_80",), _tile(128, 128, 64, warps=8, stages=3), variants=LEAN),
    *_losses("weights", HALF, ("sm_90",), _tile(128, 128, 64, warps=8, stages=4, copied=True), variants=LEAN),
    *_losses("weights", HALF, ("sm_100",), _tile(128, 64, 64, warps=8, stages=4, copied=True), variants=LEAN),
    *_losses("weights", HALF, ("sm_80",), _tile(128, 64, 64, warps=8, stages=3), variants=FULL),
    *_losses("weights", HALF, HOPPER_UP, _tile(128, 64, 64, warps=8, stages=4, copied=True), variants=FULL),
    Row("sigmoid_loss_weights", FLOAT, ("sm_80",), _tile(64, 32, 32, warps=8, stages=2), variants=LEAN),
    Row("sigmoid_loss_weights", FLOAT, ("sm_80",), _tile(64, 64, 32, warps=8, stages=2), variants=FULL),
    Row("sigmoid_loss_weights", FLOAT, HOPPER_UP, _tile(64, 64, 32, warps=8, stages=2)),
    Row("info_nce_weights", FLOAT, ARCHITECTURES, _tile(64, 64, 32, warps=8, stages=2)),
    *_losses("weights", HALF + FLOAT, INTERPRETER, _tile(32, 64, 256, warps=1, stages=1)),
    # BLOCK_M x BLOCK_V float32 sums stay in registers; for wider tables the weights are recomputed for each BLOCK_V
    # features
    *_losses("backward", HALF, ("sm_80",), _product(64, 64, 64, warps=4, stages=2, BLOCK_V=128), up_to=128),
    *_losses("backward", HALF, ("sm_90",), _product(64, 64, 64, warps=8, stages=2, BLOCK_V=128), up_to=128),
    Row("info_nce_backward", HALF, ("sm_100",), _product(64, 64, 64, warps=8, stages=2, BLOCK_V=128), up_to=128),
    Row("sigmoid_loss_backward", HALF, ("sm_100",), _product(64, 64, 64, warps=4, stages=2, BLOCK_V=128), up_to=128),
    *_losses("backward", HALF, ARCHITECTURES, _product(64, 64, 64, warps=8, stages=2, BLOCK_V=256)),
    *_losses("backward", FLOAT, ("sm_80",), _product(64, 32, 32, warps=8, stages=2, BLOCK_V=128), variants=LEAN),
    *_losses("backward", FLOAT, ("sm_80",), _product(64, 32, 32, warps=8, stages=2, BLOCK_V=64), variants=FULL),
    *_losses("backward", FLOAT, HOPPER_UP, _product(64, 32, 32, warps=8, stages=2, BLOCK_V=128)),
    *_losses("backward", HALF + FLOAT, INTERPRETER, _product(32, 64, 256, warps=1, stages=1, BLOCK_V=256)),
    # BLOCK_M x KEPT 64-bit keys stay in registers; up_to is KEPT
    Row("knn_screen", HALF, ("sm_80", "sm_90"), _product(64, 64, 64, warps=4, stages=3), up_to=32),
    Row("knn_screen", HALF, ("sm_100",), _product(64, 64, 64, warps=8, stages=3), up_to=32),  # with 4 it spills
    Row("knn_screen", HALF, ARCHITECTURES, _product(64, 64, 64, warps=8, stages=3), up_to=128),
    Row("knn_screen", FLOAT, ARCHITECTURES, _product(64, 64, 32, warps=8, stages=2), up_to=32),
    Row("knn_screen", FLOAT, ARCHITECTURES, _product(32, 32, 16, warps=8, stages=2), up_to=128),
    Row("knn_screen", HALF + FLOAT, INTERPRETER, _product(128, 32, 256, warps=1, stages=1), up_to=128),
    # GROUP rows of squares of BLOCK_M x BLOCK_M pairs share their columns in the cache
    Row("knn_append", HALF, ("sm_80",), _tile(128, 64, 64, warps=8, stages=3, GROUP=8)),
    Row("knn_append", HALF, ("sm_90",), _tile(128, 64, 64, warps=8, stages=4, copied=True, GROUP=8)),
    Row("knn_append", HALF, ("sm_100",), _tile(64, 64, 64, warps=8, stages=4, copied=True, GROUP=8)),
    Row("knn_append", FLOAT, ARCHITECTURES, _tile(64, 64, 32, warps=8, stages=2, GROUP=8)),
    Row("knn_append", HALF + FLOAT, INTERPRETER, _tile(64, 32, 256, warps=1, stages=1, GROUP=8)),
    # up_to is the number of columns: 1 for norms (a row with itself), the number of kept rows, or the whole gallery
    Row("knn_exact", HALF + FLOAT, ARCHITECTURES, _block(128, 1), up_to=1),
    Row("knn_exact", HALF + FLOAT, ARCHITECTURES, _block(4, 32), up_to=128),
    Row("knn_exact", HALF + FLOAT, ARCHITECTURES, _block(32, 32)),
    Row("knn_exact", HALF + FLOAT, INTERPRETER, _block(256, 1), up_to=1),
    Row("knn_exact", HALF + FLOAT, INTERPRETER, _block(32, 64)),
    # up_to is k
    Row("neighbor_overlap", INTEGER, ARCHITECTURES, Tile({"BLOCK_M": 16, "BLOCK_K": 16}), up_to=16),
    Row("neighbor_overlap", INTEGER, ARCHITECTURES, Tile({"BLOCK_M": 1, "BLOCK_K": 64}, warps=8)),
    Row("neighbor_overlap", INTEGER, INTERPRETER, Tile({"BLOCK_M": 64, "BLOCK_K": 16}), up_to=16),
    Row("neighbor_overlap", INTEGER, INTERPRETER, Tile({"BLOCK_M": 8, "BLOCK_K": 32})),
)


def tile(kernel: str, dtype: torch.dtype, size: int, architecture: str, variant: str = "full") -> Tile:
    """Return the tile of the first row of the table that serves this call.

    Raises:
        NotImplementedError: no row does; the message lists the kernels and sizes that exist.
    """
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
    """Return whether the kernels of this process were made for Triton's interpreter."""
    return bool(triton.knobs.runtime.interpret)


def architecture(device: torch.device) -> str:
    """Return the table's name for a device: "interpreter", or the newest architecture whose tiles fit it."""
    return "interpreter" if interpreted() else _architecture(device.index or 0)


@functools.cache
def _architecture(index: int) -> str:
    if torch.version.hip is not None:
        raise NotImplementedError("the Triton kernels have tiles for NVIDIA devices only; this torch is built for ROCm")
    major, minor = torch.cuda.get_device_capability(index)
    if major < 8:
        raise NotImplementedError(
            f"the Triton kernels need compute capability 8.0 or later, device {index} has {major}.{minor}"
        )
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")
