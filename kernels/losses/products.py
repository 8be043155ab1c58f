"""Products W v and W' u with weights W [b, n, m] that are computed tile by tile: three schedules and a cost model.

*fused*: a program owns a block of rows and of features of a product, computes the weights tile by tile and multiplies
them in registers. Only the product is written; the logits are recomputed for each product and each BLOCK_V features.

*banded*: a kernel writes the weights of a block of rows and columns, in the inputs' dtype, and torch.baddbmm adds
their two products to float32 sums, block by block in order. The logits are computed once for both products. A block
takes at most BAND_BYTES.

*stored*: banded, with the logits read where the forward pass stored them. The results have the same bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = ["SCHEDULES", "Block", "Workload", "banded_products", "blocks", "cheapest_schedule", "choose_schedule"]

SCHEDULES = ("fused", "banded", "stored")

# the largest memory of a block's weights. Its rows fill the products' tiles; with fewer columns or rows than this, the
# float32 sums would be read and written too often
BAND_BYTES = 64 << 20
BAND_ROWS = 4096
# the columns of a block are a multiple of every tile's columns
ALIGNMENT = 128

# multiply-adds that a device does in the time it moves a byte: an H200 does 395e12 a second on its tensor cores, 33e12
# elsewhere, and moves 4.8e12 bytes
MULTIPLY_ADDS_PER_BYTE = {torch.float16: 82, torch.bfloat16: 82, torch.float32: 7}


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of rows and columns of W; it has all rows and columns if it covers more than one problem."""

    problem: int
    problems: int
    row: int
    rows: int
    col: int
    cols: int


@dataclasses.dataclass(frozen=True)
class Workload:
    """The part of a backward call that the choice of its schedule depends on.

    Attributes:
        operation: the name of the operator, for errors.
        x: the inputs [b, n, d].
        width: the number of features e of v and u.
        products: the number of products, 1 or 2.
        block_v: the number of features that a fused program owns.
        stored: whether the forward pass stored logits.
    """

    operation: str
    x: Tensor
    width: int
    products: int
    block_v: int
    stored: bool


def cheapest_schedule(dtype: torch.dtype, d: int, *, width: int, products: int, block_v: int) -> str:
    """Return "fused" or "banded", whichever costs fewer multiply-adds for each entry of W.

    The arguments are those of ``Workload``. A fused call computes a logit for each product and each block_v features. A
    banded call computes it once, writes its weight, and reads the weight for each product.
    """
    fused = products * (d * -(-width // block_v) + width)
    banded = d + products * width + (1 + products) * dtype.itemsize * MULTIPLY_ADDS_PER_BYTE[dtype]
    return "fused" if fused <= banded else "banded"


def choose_schedule(requested: str | None, workload: Workload) -> str:
    """Return the schedule of a call: the requested one, or by default the one with the least estimated cost.

    Raises:
        ValueError: the requested schedule does not exist, or is "stored" and the forward pass stored no logits.
        NotImplementedError: the requested schedule cannot run here.
    """
    operation, x = workload.operation, workload.x
    if requested is not None and requested not in SCHEDULES:
        raise ValueError(f"{operation}: schedule must be one of {SCHEDULES}, got {requested!r}")
    refusal = _banded_refusal(x)
    if requested in ("banded", "stored") and refusal is not None:
        raise NotImplementedError(f"{operation}: schedule {requested!r} cannot run: {refusal}")
    if requested == "stored" and not workload.stored:
        raise ValueError(f"{operation}: schedule 'stored' needs logits that the forward pass stored, got none")
    if requested is not None:
        return requested
    cheapest = cheapest_schedule(
        x.dtype, x.shape[2], width=workload.width, products=workload.products, block_v=workload.block_v
    )
    if cheapest == "fused" or refusal is not None:
        return "fused"
    # the choice above must not depend on whether logits are stored: the products have the same bits either way
    return "stored" if workload.stored else "banded"


def _banded_refusal(x: Tensor) -> str | None:
    """Return the reason why torch's matrix product cannot be used, or None.

    The tf32 setting belongs to the process: changing it for a moment would not be thread-safe.
    """
    if x.is_cuda and x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision not in ("ieee", "none"):
        return "torch.backends.cuda.matmul rounds float32 products to tf32"
    return None


def blocks(b: int, n: int, m: int, itemsize: int) -> Iterator[Block]:
    """Yield blocks that cover every entry once.

    A block has several whole problems if they fit in BAND_BYTES; otherwise the blocks divide one problem after another,
    row by row.
    """
    problems = BAND_BYTES // (n * _round_up_to_16(m) * itemsize)
    if problems:
        for problem in range(0, b, problems):
            yield Block(problem, min(problems, b - problem), row=0, rows=n, col=0, cols=m)
        return
    height = min(n, BAND_ROWS)
    width = max(BAND_BYTES // (height * itemsize) // ALIGNMENT, 1) * ALIGNMENT
    for problem in range(b):
        for row in range(0, n, height):
            for col in range(0, m, width):
                yield Block(problem, 1, row=row, rows=min(height, n - row), col=col, cols=min(width, m - col))


def banded_products(
    write_weights: Callable[[Tensor, Block], None], x: Tensor, m: int, *, v: Tensor | None, u: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return W v [b, n, e] and W' u [b, m, e] in float32, or None for a table that is None.

    Args:
        write_weights: called as write_weights(weights, block), fills weights [problems, rows, cols] of one block.
        x: the inputs [b, n, d], as the kernels read them; likewise v and u.
        m: the number of columns of W.
        v: [b, m, e] or None.
        u: [b, n, e] or None.
    """
    b, n, _ = x.shape
    wv, wu = (
        None if values is None else torch.zeros(b, rows, values.shape[2], dtype=torch.float32, device=x.device)
        for values, rows in ((v, n), (u, m))
    )
    scratch: Tensor | None = None
    for block in blocks(b, n, m, x.dtype.itemsize):
        # the first block is the largest. Rows start at multiples of 16 entries, which products read faster
        stride = _round_up_to_16(block.cols)
        size = block.problems * block.rows * stride
        scratch = torch.empty(size, dtype=x.dtype, device=x.device) if scratch is None else scratch
        weights = scratch[:size].view(block.problems, block.rows, stride)[:, :, : block.cols]
        write_weights(weights, block)
        problems = slice(block.problem, block.problem + block.problems)
        rows, cols = slice(block.row, block.row + block.rows), slice(block.col, block.col + block.cols)
        if v is not None:
            _add_product(wv[problems, rows], weights, v[problems, cols])
        if u is not None:
            _add_product(wu[problems, cols], weights.mT, u[problems, rows])
    return wv, wu


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the product left right to ``total`` in float32; autocast, which would round float32 tables, is off."""
    with torch.autocast(total.device.type, enabled=False):
        if total.is_cuda and left.dtype != torch.float32:
            torch.baddbmm(total, left, right, out_dtype=torch.float32, out=total)
        else:
            torch.baddbmm(total, left.float(), right.float(), out=total)


def _round_up_to_16(size: int) -> int:
    return -(-size // 16) * 16
