"""The loss operators in plain torch, by blocks of rows: every device and every option, one block of S in memory.

This backend is what compiled kernels are compared with in speed, and it runs float64 on a GPU. It also computes the
second derivatives for all backends: autograd differentiates a block, so no formula is written twice.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from modalign.ops.loss_tables import ForwardOptions, LossTables, Sums, WeightTables

__all__ = [
    "Products",
    "info_nce_backward",
    "info_nce_double_backward",
    "info_nce_forward",
    "sigmoid_loss_backward",
    "sigmoid_loss_double_backward",
    "sigmoid_loss_forward",
]

BLOCK_BYTES = 1 << 25  # of S at a time; a block is held about four times over

Tables = dict[str, Tensor]


class Products(NamedTuple):
    """The tables v and u of the products W v and W' u, and the gradients of the products. None stands for zero."""

    values: tuple[Tensor | None, Tensor | None]
    grads: tuple[Tensor | None, Tensor | None]


def info_nce_forward(tables: LossTables, options: ForwardOptions) -> Sums:
    b, n, m, _ = tables.sizes
    two, stats = tables.y is not None, options.stats
    columns, square = options.columns and two, two and options.pairs and n == m
    stored = tables.x.new_empty(options.stored_rows(tables), m, dtype=tables.dtype)
    tables = tables.two_streams()
    per_row: list[tuple[Tensor, ...]] = []
    col = tuple(tables.logit_scale.new_full((b, m), value) for value in (-torch.inf, -torch.inf, 0.0))
    for rows in _blocks(tables):
        block = _take_rows(tables, rows)
        logits = _logits(block)
        in_row, in_col = _counted(logits, block, rows)
        _store(stored, logits, rows, n)
        positive = logits.diagonal(rows.start, 1, 2)[:, : logits.shape[1]] if square else logits[:, :0, 0]
        per_row.append((*_summarize(logits, in_row, 2, stats), positive))
        if columns:
            col = _join(col, _summarize(logits, in_col, 1, stats))
    row_lse, row_best, row_mean, positive = (torch.cat(parts, 1) for parts in zip(*per_row, strict=True))
    results = [row_lse, col[0], positive, stored, row_best, row_mean, col[1], col[2]]
    wanted = [True, columns, square, True, stats, stats, stats and columns, stats and columns]
    return Sums(*(r if want else r.new_empty(b, 0) for r, want in zip(results, wanted, strict=True)))


def info_nce_backward(
    tables: LossTables, weights: WeightTables, v: Tensor | None, u: Tensor | None
) -> tuple[Tensor, Tensor]:
    b, _, m, d = tables.sizes
    if tables.y is None:
        tables, weights = tables.two_streams(), weights.two_streams()
    by_row: list[Tensor] = []
    by_col = tables.logit_scale.new_zeros((b, 0, d) if u is None else (b, m, u.shape[2]))
    for rows in _blocks(tables):
        block = _weights(_take_rows(tables, rows), _take_weight_rows(weights, rows), rows)
        if v is not None:
            by_row.append(_multiply(block, v))
        if u is not None:
            by_col += _multiply(block.mT, u[:, rows])
    return torch.cat(by_row, 1) if by_row else tables.logit_scale.new_empty(b, 0, d), by_col


def info_nce_double_backward(
    tables: LossTables, weights: WeightTables, products: Products, *, wanted: set[str]
) -> Tables:
    """Return the gradients of <grad_a, W v> + <grad_b, W' u> by those fields of both tables that are ``wanted``."""
    twins: tuple[tuple[str, str], ...] = ()
    if tables.y is None:
        tables, weights = tables.two_streams(), weights.two_streams()
        # one stream: the columns' gradients are parts of the rows'
        twins = (("grad_row", "grad_col"), ("x", "y"), ("row_lse", "col_lse"))
    for row_name, col_name in twins:
        wanted = wanted | {col_name} if row_name in wanted else wanted - {col_name}
    row_tables = {name: getattr(weights, name) for name in ("grad_row", "grad_positive", "row_lse")}
    col_tables = {name: getattr(weights, name) for name in ("grad_col", "col_lse")}
    row_tables |= {"x": tables.x, "logit_scale": tables.logit_scale}
    col_tables |= {"y": tables.right}
    (v, u), (grad_a, grad_b) = products

    def scalar(part: Tables, rows: slice) -> Tensor:
        x, y, logit_scale = (part.pop(name) for name in ("x", "y", "logit_scale"))
        block = dataclasses.replace(_take_rows(tables, rows), x=x, y=y, logit_scale=logit_scale)
        matrix = _weights(block, dataclasses.replace(weights, **part), rows)
        total = matrix.new_zeros(())
        if grad_a is not None and v is not None:
            total = total + (grad_a[:, rows] * (matrix @ v.to(matrix.dtype))).sum()
        if grad_b is not None and u is not None:
            total = total + (grad_b * (matrix.mT @ u[:, rows].to(matrix.dtype))).sum()
        return total

    grads = _differentiate(scalar, row_tables, col_tables, wanted)
    for row_name, col_name in twins:
        if row_name in grads:
            grads[row_name] = grads[row_name] + grads.pop(col_name)
    return grads


def sigmoid_loss_forward(tables: LossTables, bias: Tensor) -> Tensor:
    sums = []
    for rows in _blocks(tables):
        signed, _ = _signed(_take_rows(tables, rows), bias, rows)
        sums.append(-F.logsigmoid(signed).sum(2))
    return torch.cat(sums, 1)


def sigmoid_loss_backward(
    tables: LossTables, bias: Tensor, grad_row: Tensor, *, need_x: bool, need_y: bool
) -> tuple[Tensor, Tensor, Tensor]:
    b, _, m, d = tables.sizes
    by_row, slopes = [], []
    dy = tables.logit_scale.new_zeros(b, m if need_y else 0, d)
    for rows in _blocks(tables):
        block = _take_rows(tables, rows)
        slope = _slope(block, bias, grad_row[:, rows], rows)
        slopes.append(slope.sum(2))
        weights = slope * block.logit_scale[:, :, None]
        if need_x:
            by_row.append(_multiply(weights, tables.right))
        if need_y:
            dy += _multiply(weights.mT, block.x)
    return torch.cat(by_row, 1) if need_x else tables.logit_scale.new_empty(b, 0, d), dy, torch.cat(slopes, 1)


def sigmoid_loss_double_backward(
    tables: LossTables, bias: Tensor, grad_row: Tensor, *, grads: tuple[Tensor | None, ...], wanted: set[str]
) -> Tables:
    """Return the gradients of <grad_dx, dx> + <grad_dy, dy> + <grad_slope, slope> by those tables that are ``wanted``.

    ``grads`` are grad_dx, grad_dy and grad_slope.
    """
    grad_dx, grad_dy, grad_slope = grads

    def scalar(part: Tables, rows: slice) -> Tensor:
        x, y, logit_scale = part["x"], part["y"], part["logit_scale"]
        block = dataclasses.replace(_take_rows(tables, rows), x=x, y=y, logit_scale=logit_scale)
        slope = _slope(block, part["bias"], part["grad_row"], rows)
        weights, total = slope * logit_scale[:, :, None], slope.new_zeros(())
        if grad_dx is not None and grad_dx.shape[1]:
            total = total + (grad_dx[:, rows] * (weights @ y)).sum()
        if grad_dy is not None and grad_dy.shape[1]:
            total = total + (grad_dy * (weights.mT @ x)).sum()
        return total if grad_slope is None else total + (grad_slope[:, rows] * slope.sum(2)).sum()

    row_tables = {"grad_row": grad_row, "x": tables.x, "logit_scale": tables.logit_scale}
    return _differentiate(scalar, row_tables, {"y": tables.right, "bias": bias}, wanted)


def _blocks(tables: LossTables) -> Iterator[slice]:
    """Yield ranges of rows whose part of S has at most BLOCK_BYTES, or one row."""
    b, n, m, _ = tables.sizes
    rows = max(1, BLOCK_BYTES // max(1, b * m * tables.dtype.itemsize))
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def _take_rows(tables: LossTables, rows: slice) -> LossTables:
    """Return the tables of a range of rows and all columns."""
    row_id, row_cap = (None if table is None else table[:, rows] for table in (tables.row_id, tables.row_cap))
    x, logit_scale = tables.x[:, rows], tables.logit_scale[:, rows]
    return dataclasses.replace(tables, x=x, logit_scale=logit_scale, row_id=row_id, row_cap=row_cap)


def _take_weight_rows(weights: WeightTables, rows: slice) -> WeightTables:
    """Return the tables of a range of rows and all columns."""
    return dataclasses.replace(
        weights,
        grad_row=weights.grad_row[:, rows],
        grad_positive=weights.grad_positive[:, rows],
        row_lse=weights.row_lse[:, rows],
    )


@functools.cache
def _multiplies_into_float32() -> bool:
    """Return whether torch multiplies half-precision tables into float32 results (since 2.8, on CUDA)."""
    return "dtype" in torch.ops.aten.bmm.overloads()  # type: ignore[no-untyped-call]


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return a b with sums in float32 at least, for weights or a table a and a table b in the dtype of the rows."""
    if b.dtype == torch.bfloat16 and b.is_cuda and _multiplies_into_float32():
        return torch.bmm(a.to(b.dtype), b, out_dtype=torch.float32)
    dtype = torch.float64 if b.dtype == torch.float64 else torch.float32
    return a.to(dtype) @ b.to(dtype)


def _logits(block: LossTables) -> Tensor:
    return _multiply(block.x, block.right.mT) * block.logit_scale[:, :, None]


def _pairs(logits: Tensor, rows: slice) -> Tensor:
    """Return the mask (rows, m) of the entries where a row meets the column of its number."""
    column = torch.arange(logits.shape[2], device=logits.device)
    return column == torch.arange(rows.start, rows.stop, device=logits.device)[:, None]


def _counted(logits: Tensor, block: LossTables, rows: slice) -> tuple[Tensor | None, Tensor | None]:
    """Return the masks of the entries that rows and columns count; None stands for all."""
    mask = block.mask
    counted = ~_pairs(logits, rows).expand_as(logits) if mask == "diagonal" else None
    if block.row_id is not None and block.col_id is not None:
        row_id, col_id = block.row_id[:, :, None], block.col_id[:, None, :]
        present = (row_id >= 0) & (col_id >= 0)
        if mask in ("same", "different"):
            present &= (row_id == col_id) if mask == "different" else (row_id != col_id)
        counted = present if counted is None else counted & present
    row_cap = None if block.row_cap is None else block.row_cap[:, :, None]
    col_cap = None if block.col_cap is None else block.col_cap[:, None, :]
    in_row, in_col = (
        counted if cap is None else (logits <= cap) if counted is None else counted & (logits <= cap)
        for cap in (row_cap, col_cap)
    )
    return in_row, in_col


def _summarize(logits: Tensor, counted: Tensor | None, dim: int, stats: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log-sum-exp of the entries that count and, with stats, their maximum and mean under the softmax.

    Without stats the last two are placeholders.
    """
    kept = logits if counted is None else logits.masked_fill(~counted, -torch.inf)
    lse = kept.logsumexp(dim)
    if not stats:
        return lse, lse, lse
    softmax = kept.softmax(dim).nan_to_num_(0.0)
    return lse, kept.amax(dim), softmax.mul_(logits).sum(dim)


def _join(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the summary of the entries of two summaries together."""
    lse = torch.logaddexp(first[0], second[0])
    shares = [(part[0] - lse).exp().nan_to_num(0.0) for part in (first, second)]
    return lse, torch.maximum(first[1], second[1]), shares[0] * first[2] + shares[1] * second[2]


def _store(stored: Tensor, logits: Tensor, rows: slice, n: int) -> None:
    """Copy those rows of the block that are among the first rows of all problems."""
    for problem in range(len(logits)):
        first = problem * n + rows.start
        count = min(logits.shape[1], len(stored) - first)
        if count > 0:
            stored[first : first + count] = logits[problem, :count]


def _softmax(logits: Tensor, lse: Tensor, counted: Tensor | None) -> Tensor:
    shifted = logits - lse
    # entries are left out before exp, so that neither exp(S + inf) nor its derivative is ever formed
    return (shifted if counted is None else shifted.masked_fill(~counted, -torch.inf)).exp()


def _weights(block: LossTables, weights: WeightTables, rows: slice) -> Tensor:
    """Return a block of W from the tables of its rows."""
    logits = _logits(block)
    in_row, in_col = _counted(logits, block, rows)
    matrix = torch.zeros_like(logits)
    if weights.grad_row.shape[1]:
        matrix = matrix + weights.grad_row[:, :, None] * _softmax(logits, weights.row_lse[:, :, None], in_row)
    if weights.grad_col.shape[1]:
        matrix = matrix + weights.grad_col[:, None, :] * _softmax(logits, weights.col_lse[:, None, :], in_col)
    if weights.grad_positive.shape[1]:
        matrix = matrix + torch.where(_pairs(logits, rows), weights.grad_positive[:, :, None], 0.0)
    return matrix * block.logit_scale[:, :, None]


def _signed(block: LossTables, bias: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Return z (S + bias), +inf where an entry does not count, and z, 0 there."""
    shifted = _logits(block) + bias[:, None, None]
    if block.row_id is None or block.col_id is None:
        sign = torch.where(_pairs(shifted, rows), 1.0, -1.0).to(shifted.dtype).expand_as(shifted)
        return sign * shifted, sign
    row_id, col_id = block.row_id[:, :, None], block.col_id[:, None, :]
    counted = (row_id >= 0) & (col_id >= 0)
    sign = torch.where(row_id == col_id, 1.0, -1.0).to(shifted.dtype) * counted
    return (sign * shifted).masked_fill(~counted, torch.inf), sign


def _slope(block: LossTables, bias: Tensor, grad_row: Tensor, rows: slice) -> Tensor:
    """Return a block of the loss's derivative by S."""
    signed, sign = _signed(block, bias, rows)
    return -grad_row[:, :, None] * sign * torch.sigmoid(-signed)


def _differentiate(
    scalar: Callable[[Tables, slice], Tensor], row_tables: Tables, col_tables: Tables, wanted: set[str]
) -> Tables:
    """Return the gradients of the sum over blocks of scalar(tables, rows) by the ``wanted`` tables.

    The tables are the block's rows of ``row_tables`` and all of ``col_tables``, in the dtype of sums. The graph of one
    block lives at a time, unless a third derivative is wanted: then all do.
    """
    shapes = LossTables(row_tables["x"], col_tables["y"], row_tables["logit_scale"])
    by_row: dict[str, list[Tensor]] = {name: [] for name in row_tables if name in wanted}
    by_col: Tables = {}
    for rows in _blocks(shapes):
        tables = {name: table[:, rows] for name, table in row_tables.items()} | col_tables

        def evaluate(sources: Tables, tables: Tables = tables, rows: slice = rows) -> Tensor:
            wide = {name: table.to(shapes.dtype) for name, table in (tables | sources).items()}
            return scalar(wide, rows)

        grads = torch.func.grad(evaluate)({name: table for name, table in tables.items() if name in wanted})
        for name, grad in grads.items():
            if name in by_row:
                by_row[name].append(grad)
            else:
                by_col[name] = by_col[name] + grad if name in by_col else grad
    return {name: torch.cat(parts, 1) for name, parts in by_row.items()} | by_col
