"""W v and W' u for weights W [b, n, m] that are made tile by tile and never stored whole: two ways, and which to take.

*fused*: a program owns a few rows and features of a product, makes the weights tile by tile and multiplies them in
registers. Nothing is written but the product; the logits are recomputed for each product and each BLOCK_V features.

*banded*: a kernel writes the weights of a block of rows and columns, in the inputs' dtype, and torch.baddbmm adds
their two products to float32 sums, block by block in order. The logits are computed once for both products. A block
takes at most BAND_BYTES.

*stored* is banded with the logits read where the forward pass left them: the same bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = ["SCHEDULES", "Block", "banded_products", "blocks", "choose", "schedule"]

SCHEDULES = ("fused", "banded", "stored")

# what the weights of a block may take. Rows fill the products' tiles, and a sum over fewer columns or rows than this
# is read and written too often
BAND_BYTES = 64 << 20
BAND_ROWS = 4096
# a block's columns are a multiple of every tile's
ALIGNMENT = 128

# multiply-adds that a device does while it moves a byte: an H200 does 395e12 a second on its tensor cores, 33e12
# outside, and moves 4.8e12 bytes
PER_BYTE = {torch.float16: 82, torch.bfloat16: 82, torch.float32: 7}


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows and columns of W: all of them if there is more than one problem."""

    problem: int
    problems: int
    row: int
    rows: int
    col: int
    cols: int


def schedule(dtype: torch.dtype, d: int, e: int, products: int, block_v: int) -> str:
    """ "fused" or "banded", whichever costs less for each entry of W, counted in multiply-adds.

    d, e: widths of the inputs and of the tables; products: 1 or 2; block_v: features that a fused program owns.
    Fused computes a logit for each product and each block_v features. Banded computes it once, and writes its weight
    and reads it for each product.
    """
    fused = products * (d * -(-e // block_v) + e)
    banded = d + products * e + (1 + products) * dtype.itemsize * PER_BYTE[dtype]
    return "fused" if fused <= banded else "banded"


def choose(wanted: str | None, operation: str, x: Tensor, e: int, products: int, block_v: int, stored: bool) -> str:
    """The schedule of a call: ``wanted`` if it can run, and an error with the reason if not."""
    if wanted is not None and wanted not in SCHEDULES:
        raise ValueError(f"{operation}: schedule must be one of {SCHEDULES}, got {wanted!r}")
    refusal = _no_banded(x)
    if wanted in ("banded", "stored") and refusal is not None:
        raise NotImplementedError(f"{operation}: schedule {wanted!r} cannot run: {refusal}")
    if wanted == "stored" and not stored:
        raise ValueError(f"{operation}: schedule 'stored' needs logits that the forward pass stored, got none")
    if wanted is not None:
        return wanted
    best = schedule(x.dtype, x.shape[2], e, products, block_v)
    if best == "fused" or refusal is not None:
        return "fused"
    # the choice above must not depend on what is stored: the products have the same bits with and without
    return "stored" if stored else "banded"


def _no_banded(x: Tensor) -> str | None:
    """Why torch's product would not do. Its setting is the process's: changing it for a moment is not thread-safe."""
    if x.is_cuda and x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision not in ("ieee", "none"):
        return "torch.backends.cuda.matmul rounds float32 products to tf32"
    return None


def blocks(b: int, n: int, m: int, itemsize: int) -> Iterator[Block]:
    """All entries once: several problems if they fit together, else blocks of one problem, row by row."""
    together = BAND_BYTES // (n * _aligned(m) * itemsize)
    if together:
        for problem in range(0, b, together):
            yield Block(problem, min(together, b - problem), 0, n, 0, m)
        return
    height = min(n, BAND_ROWS)
    width = max(BAND_BYTES // (height * itemsize) // ALIGNMENT, 1) * ALIGNMENT
    for problem in range(b):
        for row in range(0, n, height):
            for col in range(0, m, width):
                yield Block(problem, 1, row, min(height, n - row), col, min(width, m - col))


def banded_products(
    write: Callable[[Tensor, Block], None], x: Tensor, m: int, v: Tensor | None, u: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """W v [b, n, e] and W' u [b, m, e] in float32, x, v and u as the kernels read them.

    ``write(weights, block)`` fills weights [problems, rows, cols].
    """
    b, n, _ = x.shape
    wv, wu = (
        None if values is None else torch.zeros(b, rows, values.shape[2], dtype=torch.float32, device=x.device)
        for values, rows in ((v, n), (u, m))
    )
    scratch: Tensor | None = None
    for block in blocks(b, n, m, x.dtype.itemsize):
        # the first block is the largest. Rows start at multiples of 16 entries, which products read faster
        stride = -(-block.cols // 16) * 16
        size = block.problems * block.rows * stride
        scratch = torch.empty(size, dtype=x.dtype, device=x.device) if scratch is None else scratch
        weights = scratch[:size].view(block.problems, block.rows, stride)[:, :, : block.cols]
        write(weights, block)
        problems = slice(block.problem, block.problem + block.problems)
        rows, cols = slice(block.row, block.row + block.rows), slice(block.col, block.col + block.cols)
        if v is not None:
            _add_product(wv[problems, rows], weights, v[problems, cols])
        if u is not None:
            _add_product(wu[problems, cols], weights.mT, u[problems, rows])
    return wv, wu


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left right, summed in float32. Autocast would round float32 tables."""
    with torch.autocast(total.device.type, enabled=False):
        if total.is_cuda and left.dtype != torch.float32:
            torch.baddbmm(total, left, right, out_dtype=torch.float32, out=total)
        else:
            torch.baddbmm(total, left.float(), right.float(), out=total)


def _aligned(m: int) -> int:
    return -(-m // 16) * 16
