"""The operators of info_nce: log-sum-exps of a similarity matrix that is never stored, and products with its softmaxes.

    S_ij = scale_i <x_i, y_j>     row_lse_i = log sum_j exp S_ij     col_lse_j = log sum_i exp S_ij
    W_ij = scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j) + [i = j] grad_positive_i)

over the entries that count. The kernels are in ``info_nce_sums`` (forward) and ``info_nce_weights`` (backward). In a
call of one stream (y is None) S is symmetric, and tiles on and above the diagonal serve both of their sides.
``modalign.reference.info_nce`` defines both operators.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from modalign.kernels.losses.entries import make_contiguous, weight_scale
from modalign.kernels.losses.info_nce_sums import _info_nce_combine_kernel, _info_nce_fwd_kernel
from modalign.kernels.losses.info_nce_weights import _info_nce_bwd_kernel, _info_nce_weights_kernel
from modalign.kernels.losses.products import BAND_BYTES, Block, Workload, banded_products, choose_schedule
from modalign.kernels.shared.launch import is_misread, launch, to_operand, to_table
from modalign.kernels.shared.tiles import ANY, Tile, architecture, tile
from modalign.ops.loss_tables import ForwardOptions, LossTables, Sums, WeightTables

__all__ = ["Compiled", "Similarities", "info_nce_backward", "info_nce_forward"]

PROGRAMS = 1024  # enough to fill a device; with fewer blocks of rows than this, the columns are split


class Similarities(NamedTuple):
    """The operands of one similarity matrix S = scale <x, y>, as kernels from elsewhere read them.

    x, y: [1, n, d] and [1, m, d] bfloat16. scale: [1, n] float32. mask: "none", or "diagonal" to exclude S_ii.
    """

    x: Tensor
    y: Tensor
    scale: Tensor
    mask: str


class Compiled(NamedTuple):
    """Kernels from elsewhere than Triton that compute tiles of one bfloat16 problem in two streams.

    Every entry counts but those that the mask "diagonal" excludes, and no logits are stored.

    Attributes:
        height: the number of rows that share a partial sum of a column.
        width: the number of columns that share a partial sum of a row.
        tile_blocks: the number of blocks of ``height`` rows in a tile.
        sums: called as sums(similarities, rows, row_parts=, col_parts=, positive=), writes the partial sums of a range
            of rows, and their positives if there is a table for them.
        weights: called as weights(similarities, block, row=, col=, positive_grad=, weights=), writes the weights of a
            block; ``row`` and ``col`` are pairs of log-sum-exps and gradients.
    """

    height: int
    width: int
    tile_blocks: int
    sums: Callable[..., None]
    weights: Callable[..., None]


@dataclasses.dataclass(frozen=True)
class _Bands:
    """The division of S in the forward pass: bands of blocks of rows, and parts of the columns.

    Attributes:
        height: rows in a block.
        blocks: blocks of rows in S.
        band: blocks of rows that one launch computes.
        splits: parts of the columns.
        length: columns in a part.
    """

    height: int
    blocks: int
    band: int
    splits: int
    length: int


def info_nce_forward(tables: LossTables, options: ForwardOptions, *, compiled: Compiled | None = None) -> Sums:
    """Return the sums over the entries of S that count, in float32.

    The rows are float32, float16 or bfloat16; all tensors are on one device, for which the host never waits. Products
    are accumulated in float32 (float32 inputs without tf32). Results that are not requested have width 0 and are not
    computed. ``compiled`` computes the tiles instead of the Triton kernel.
    """
    (b, n, m, width), x, y = tables.sizes, tables.x, tables.y
    one_stream, stats = y is None, options.stats
    columns = options.columns and not one_stream
    row_entries = (make_contiguous(tables.row_id), _to_float(tables.row_cap))
    col_entries = row_entries if one_stream else (make_contiguous(tables.col_id), _to_float(tables.col_cap))
    left = to_operand(x, compiled is not None)
    right = left if y is None else to_operand(y, compiled is not None)
    scale = _to_float(tables.logit_scale)
    sums = Sums.empty(tables, options)
    row_sums = (sums.row_lse, sums.row_best, sums.row_mean)
    col_sums = (sums.col_lse, sums.col_best, sums.col_mean)
    diagonal = sums.positive if sums.positive.shape[1] else None
    stored = sums.stored
    empty = functools.partial(torch.empty, dtype=torch.float32, device=x.device)
    variant = "full" if stats or stored.numel() or _any(*row_entries, *col_entries) else "lean"
    sizes = tile("info_nce_forward", x.dtype, width, architecture(x.device), variant=variant)
    kinds, both_sides = 3 if stats else 2, columns or one_stream
    bands = _divide((b, n, m), kinds, both_sides=both_sides, sizes=sizes, compiled=compiled)
    row_parts = empty(b, bands.splits, kinds, bands.band * bands.height)
    col_parts = empty(b, 1 + bands.band, kinds, m) if both_sides else None

    def write_parts(first: int, count: int) -> None:
        if compiled:
            rows = range(first * bands.height, min((first + count) * bands.height, n))
            similarities = Similarities(left, right, scale, tables.mask)
            compiled.sums(similarities, rows, row_parts=row_parts, col_parts=col_parts, positive=diagonal)
            return
        operands = (to_table(left, "BLOCK_M", sizes), to_table(right, "BLOCK_N", sizes), scale)
        results = (row_parts, col_parts, diagonal, stored if stored.numel() else None)
        numbers = (first, count, bands.band, bands.splits, bands.length, len(stored), n, m, left.shape[2])
        constants = {"MASK": tables.mask, "STATS": stats, "ONE_STREAM": one_stream}
        pointers = (*operands, *row_entries, *col_entries, *results)
        launch(_info_nce_fwd_kernel, b * count * bands.splits, sizes, *pointers, *numbers, **constants)

    for first in range(0, bands.blocks, bands.band):
        count, row = min(bands.band, bands.blocks - first), first * bands.height
        write_parts(first, count)
        if col_parts is not None:
            start = (row, bands.height) if one_stream else None
            results = col_sums if columns and first + count == bands.blocks else None
            parts = range(1 if first == 0 else 0, 1 + count)
            _Combination(col_parts, parts, m, running=True, diagonal=start, results=results).run()
        size, extra = min(count * bands.height, n - row), col_parts if one_stream else None
        _Combination(row_parts, range(bands.splits), size, extra=extra, results=row_sums, offset=row).run()
    return sums


def _divide(
    shape: tuple[int, int, int], kinds: int, *, both_sides: bool, sizes: Tile, compiled: Compiled | None
) -> _Bands:
    """Choose bands whose partial sums take at most BAND_BYTES.

    Args:
        shape: b, n and m.
        kinds: the number of partial sums of each row or column.
        both_sides: whether columns have partial sums too, one for each block of rows.
        sizes: the tile of the Triton kernel.
        compiled: the kernels that replace it, or None.
    """
    b, n, m = shape
    height = compiled.height if compiled else sizes.blocks["BLOCK_M"]
    width = sizes.blocks["BLOCK_N"]
    blocks = triton.cdiv(n, height)
    splits = triton.cdiv(m, compiled.width) if compiled else 0
    block_bytes = 4 * kinds * b * ((m if both_sides else 0) + splits * height)
    band = min(blocks, max(1, BAND_BYTES // max(1, block_bytes) - 1))
    if compiled and band < blocks:  # whole tiles
        band = max(compiled.tile_blocks, band // compiled.tile_blocks * compiled.tile_blocks)
    if not compiled:
        splits = max(1, min(PROGRAMS // max(1, b * band), triton.cdiv(m, width) // 4))
    return _Bands(height, blocks, band, splits, length=triton.cdiv(triton.cdiv(m, splits), width) * width)


@dataclasses.dataclass(frozen=True)
class _Combination:
    """Partial sums [b, ., kinds, .] of the first ``size`` rows or columns that are to be combined in order.

    Attributes:
        parts: the partial sums.
        part_range: the parts to combine.
        size: the number of rows or columns.
        running: whether the combined sums replace part 0.
        diagonal: (row, height) in a call of one stream, where part p > 0 belongs to the rows from row + (p - 1) height
            on and holds only the columns to the right of its block; otherwise None.
        extra: partial sums whose part 0 is combined too, from ``offset`` on.
        results: tables [b, .] of the log-sum-exps, largest logits and means, written from ``offset`` on; tables of
            width 0 are not written. None if there are more parts to come.
        offset: the first row or column.
    """

    parts: Tensor
    part_range: range
    size: int
    running: bool = False
    diagonal: tuple[int, int] | None = None
    extra: Tensor | None = None
    results: tuple[Tensor, ...] | None = None
    offset: int = 0

    def run(self) -> None:
        """Combine the parts and write what they give."""
        parts, extra, results = self.parts, self.extra, self.results
        sizes = tile("info_nce_combine", parts.dtype, ANY, architecture(parts.device))
        programs = len(parts) * triton.cdiv(self.size, sizes.blocks["BLOCK_N"])
        tables = [None if table is None or not table.shape[1] else table for table in results or (None, None, None)]
        extra_strides = (0, 0) if extra is None else (extra.stride(0), extra.stride(2))
        strides = (parts.stride(0), parts.stride(2), *extra_strides, results[0].shape[1] if results else 0)
        numbers = (self.part_range.start, self.part_range.stop, self.size, *strides, self.offset)
        pointers = (parts, parts if self.running else None, extra, *tables)
        constants = {"STATS": parts.shape[2] == 3}
        launch(_info_nce_combine_kernel, programs, sizes, *pointers, *numbers, *(self.diagonal or (0, 0)), **constants)


class _Side(NamedTuple):
    """The rows of x or of y, and the tables that belong to them; None for a table that the call does not have."""

    operand: Tensor
    ids: Tensor | None
    caps: Tensor | None
    lse: Tensor | None
    grad: Tensor | None


@dataclasses.dataclass(frozen=True)
class _Weights:
    """The weights W of a backward call, as the kernels compute them."""

    row: _Side
    col: _Side
    scale: Tensor
    factor: Tensor | None  # of float16 weights
    positive_grad: Tensor | None
    stored: Tensor | None  # logits of the forward pass, if they are to be read
    mask: str
    variant: str
    dtype: torch.dtype
    features: int  # before padding
    compiled: Compiled | None

    def multiply(self, values: Tensor | None, sizes: Tile, *, transposed: bool) -> Tensor | None:
        """Return W values, or W' values if ``transposed``, from the fused kernel; None for values that are None."""
        if values is None:
            return None
        left, right = (self.col, self.row) if transposed else (self.row, self.col)
        (b, size, d), width = left.operand.shape, values.shape[2]
        product = torch.empty(b, size, width, dtype=torch.float32, device=values.device)
        blocks = triton.cdiv(size, sizes.blocks["BLOCK_M"]) * triton.cdiv(width, sizes.blocks["BLOCK_V"])
        tables = (left.operand, right.operand, values, self.scale, self.factor, *left[1:], *right[1:])
        numbers = (size, right.operand.shape[1], d, width)
        constants = {"SCALE_ROWS": not transposed, "MASK": self.mask, "ROUND": is_misread(self.dtype)}
        pointers = (*tables, self.positive_grad, product)
        launch(_info_nce_bwd_kernel, b * blocks, sizes, *pointers, *numbers, **constants)
        return product

    def multiply_banded(self, v: Tensor | None, u: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return W v and W' u by the banded schedule; None for a table that is None."""
        products = banded_products(self.write, self.row.operand, self.col.operand.shape[1], v=v, u=u)
        if self.factor is None:
            return products
        wv, wu = (None if product is None else product / self.factor[:, None, None] for product in products)
        return wv, wu

    def write(self, weights: Tensor, block: Block) -> None:
        """Write the weights of a block."""
        x, y = self.row.operand, self.col.operand
        if self.compiled:
            similarities, row, col = Similarities(x, y, self.scale, self.mask), self.row[3:], self.col[3:]
            grad = self.positive_grad
            self.compiled.weights(similarities, block, row=row, col=col, positive_grad=grad, weights=weights)
            return
        variant = self.variant if self.stored is None else "full"
        sizes = tile("info_nce_weights", self.dtype, self.features, architecture(x.device), variant=variant)
        programs = triton.cdiv(block.rows, sizes.blocks["BLOCK_M"]) * triton.cdiv(block.cols, sizes.blocks["BLOCK_N"])
        tables = (to_table(x, "BLOCK_M", sizes), to_table(y, "BLOCK_N", sizes), self.stored, self.scale, self.factor)
        pointers = (*tables, *self.row[1:], *self.col[1:], self.positive_grad, weights)
        place = (weights.stride(1), block.problem, block.row, block.rows, block.col, block.cols)
        stored_rows = 0 if self.stored is None else len(self.stored)
        numbers = (*place, stored_rows, x.shape[1], y.shape[1], x.shape[2])
        constants = {"MASK": self.mask, "ROUND": is_misread(self.dtype)}
        launch(_info_nce_weights_kernel, block.problems * programs, sizes, *pointers, *numbers, **constants)


def info_nce_backward(
    tables: LossTables,
    weights: WeightTables,
    v: Tensor | None,
    u: Tensor | None,
    *,
    schedule: str | None = None,
    compiled: Compiled | None = None,
) -> tuple[Tensor, Tensor]:
    """Return W v [b, n, e] and W' u [b, m, e] in float32, for v [b, m, e] and u [b, n, e].

    The product with a table that is None is [b, 0, d]. Weights, v and u are multiplied in the dtype of the rows;
    float16 weights are first scaled by 2^15 over the largest possible weight of their problem. ``schedule`` is "fused",
    "banded" or "stored", as ``modalign.kernels.losses.products`` describes them; by default it is the one with the
    least estimated cost. ``compiled`` computes the weights instead of the Triton kernel, in the banded schedule.

    Raises:
        ValueError: the schedule does not exist, or is "stored" and the forward pass stored no logits.
        NotImplementedError: the schedule cannot run here.
    """
    x, y, stored = tables.x, tables.y, weights.stored
    if y is None:
        tables, weights = tables.two_streams(), weights.two_streams()
    row_entries = (make_contiguous(tables.row_id), _to_float(tables.row_cap))
    col_entries = (make_contiguous(tables.col_id), _to_float(tables.col_cap))
    widths = [values.shape[2] for values in (v, u) if values is not None]
    width = max(widths, default=0)
    variant = "full" if _any(*row_entries, *col_entries) else "lean"
    sizes = tile("info_nce_backward", x.dtype, width, architecture(x.device), variant=variant)
    count, block_v, has_logits = len(widths), sizes.blocks["BLOCK_V"], bool(stored.numel())
    workload = Workload("info_nce_backward", x, width=width, products=count, block_v=block_v, stored=has_logits)
    schedule = choose_schedule("banded" if compiled else schedule, workload)
    scale, factor = _to_float(tables.logit_scale), None
    if x.dtype == torch.float16:
        largest_grad = _largest(weights.grad_row) + _largest(weights.grad_col) + _largest(weights.grad_positive)
        factor = weight_scale(_largest(scale) * largest_grad)
    left = to_operand(x, compiled is not None)
    right = left if y is None else to_operand(y, compiled is not None)
    matrix = _Weights(
        row=_Side(left, *row_entries, _to_float(weights.row_lse), _nonzero(weights.grad_row)),
        col=_Side(right, *col_entries, _to_float(weights.col_lse), _nonzero(weights.grad_col)),
        scale=scale,
        factor=factor,
        positive_grad=_nonzero(weights.grad_positive),
        stored=make_contiguous(stored) if schedule == "stored" else None,
        mask=tables.mask,
        variant=variant,
        dtype=x.dtype,
        features=x.shape[2],
        compiled=compiled,
    )
    v_table, u_table = (None if values is None else to_operand(values.to(x.dtype)) for values in (v, u))
    if schedule == "fused":
        wv = matrix.multiply(v_table, sizes, transposed=False)
        wu = matrix.multiply(u_table, sizes, transposed=True)
    else:
        wv, wu = matrix.multiply_banded(v_table, u_table)
    return _trim(wv, v, x), _trim(wu, u, x)


def _trim(product: Tensor | None, values: Tensor | None, x: Tensor) -> Tensor:
    """Return a product without its padding, or [b, 0, d] where there are no values."""
    if product is None or values is None:
        return torch.empty(len(x), 0, x.shape[2], dtype=torch.float32, device=x.device)
    return product[..., : values.shape[2]].contiguous()


def _any(*tables: Tensor | None) -> bool:
    return any(table is not None for table in tables)


def _to_float(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.float().contiguous()


def _nonzero(grad: Tensor) -> Tensor | None:
    """Return the gradient in float32, or None for one of width 0, which stands for zeros."""
    return grad.float().contiguous() if grad.shape[1] else None


def _largest(values: Tensor | None) -> Tensor | float:
    """Return the largest absolute value of each problem [b]."""
    return values.float().abs().amax(1) if values is not None and values.shape[1] else 0.0
