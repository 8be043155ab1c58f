"""The InfoNCE operators in plain torch, by blocks of rows: any device, every option, one block of S in memory.

The floor that compiled kernels are measured against, what float64 on a GPU runs on, and the second derivatives of all
backends: a block is differentiated by autograd, so no formula is written twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = [
    "info_nce_backward",
    "info_nce_double_backward",
    "info_nce_forward",
    "sigmoid_loss_backward",
    "sigmoid_loss_double_backward",
    "sigmoid_loss_forward",
]

BLOCK_BYTES = 1 << 25  # of S at a time; a block is held about four times over

Tables = dict[str, Tensor]


def info_nce_forward(
    x: Tensor, y: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None,
    mask: str, columns: bool, stats: bool, workspace: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    b, n, m = *x.shape[:2], (x if y is None else y).shape[1]
    columns = columns and y is not None
    right, square = x if y is None else y, y is not None and n == m
    stored = logit_scale.new_empty(0 if y is None else min(b * n, workspace // (logit_scale.itemsize * m)), m)
    per_row: list[tuple[Tensor, ...]] = []
    col = tuple(logit_scale.new_full((b, m), value) for value in (-torch.inf, -torch.inf, 0.0))
    for rows in _blocks(b, n, m, logit_scale.dtype):
        logits = _logits(x[:, rows], right, logit_scale[:, rows])
        in_row, in_col = _counted(logits, rows, row_id, col_id, row_cap, col_cap, mask)
        _keep(stored, logits, rows, n)
        positive = logits.diagonal(rows.start, 1, 2)[:, : logits.shape[1]] if square else logits[:, :0, 0]
        per_row.append((*_summary(logits, in_row, 2, stats), positive))
        if columns:
            col = _joined(col, _summary(logits, in_col, 1, stats))
    row_lse, row_best, row_mean, positive = (torch.cat(parts, 1) for parts in zip(*per_row, strict=True))
    results = [row_lse, col[0], positive, stored, row_best, row_mean, col[1], col[2]]
    wanted = [True, columns, square, True, stats, stats, stats and columns, stats and columns]
    return tuple(r if want else r.new_empty(b, 0) for r, want in zip(results, wanted, strict=True))


def info_nce_backward(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor | None, v: Tensor | None, u: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
    row_lse: Tensor, col_lse: Tensor, stored: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    right = x if y is None else y
    b, n, m, d = *x.shape[:2], *right.shape[1:]
    if y is None:
        grad_col, col_lse, col_id, col_cap = grad_row, row_lse, row_id, row_cap
    by_row: list[Tensor] = []
    by_col = logit_scale.new_zeros((b, 0, d) if u is None else (b, m, u.shape[2]))
    for rows in _blocks(b, n, m, logit_scale.dtype):
        weights = _weights(
            grad_row[:, rows], grad_col, grad_positive[:, rows], x[:, rows], right, logit_scale[:, rows],
            row_id, col_id, row_cap, col_cap, mask, row_lse[:, rows], col_lse, rows,
        )  # fmt: skip
        if v is not None:
            by_row.append(_product(weights, v))
        if u is not None:
            by_col += _product(weights.mT, u[:, rows])
    return torch.cat(by_row, 1) if by_row else logit_scale.new_empty(b, 0, d), by_col


def info_nce_double_backward(
    grad_a: Tensor | None, grad_b: Tensor | None,
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor | None, v: Tensor | None, u: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
    row_lse: Tensor, col_lse: Tensor, needs: tuple[bool, ...],
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of <grad_a, W v> + <grad_b, W' u>, one for each argument of ``info_nce_backward``'s operator; those of
    v and u are left to the caller."""
    one_stream = y is None
    if one_stream:
        col_id, col_cap = row_id, row_cap
    names = (
        "grad_row",
        "grad_col",
        "grad_positive",
        "x",
        "y",
        "v",
        "u",
        "logit_scale",
        *5 * [""],
        "row_lse",
        "col_lse",
    )
    wanted = {name for name, need in zip(names, needs, strict=False) if need} - {"v", "u", ""}
    twins = (("grad_row", "grad_col"), ("x", "y"), ("row_lse", "col_lse")) if one_stream else ()
    for name, other in twins:
        wanted = wanted | {other} if name in wanted else wanted - {other}
    row_tables = {
        "grad_row": grad_row,
        "grad_positive": grad_positive,
        "x": x,
        "logit_scale": logit_scale,
        "row_lse": row_lse,
    }
    col_tables = {
        "grad_col": grad_row if one_stream else grad_col, "y": x if one_stream or y is None else y,
        "col_lse": row_lse if one_stream else col_lse,
    }  # fmt: skip

    def scalar(row: Tables, col: Tables, rows: slice) -> Tensor:
        weights = _weights(
            row["grad_row"], col["grad_col"], row["grad_positive"], row["x"], col["y"], row["logit_scale"],
            row_id, col_id, row_cap, col_cap, mask, row["row_lse"], col["col_lse"], rows,
        )  # fmt: skip
        total = weights.new_zeros(())
        if grad_a is not None and v is not None:
            total = total + (grad_a[:, rows] * (weights @ v.to(weights.dtype))).sum()
        if grad_b is not None and u is not None:
            total = total + (grad_b * (weights.mT @ u[:, rows].to(weights.dtype))).sum()
        return total

    grads = _differentiate(scalar, row_tables, col_tables, wanted)
    for name, other in twins:
        if name in grads:
            grads[name] = grads[name] + grads.pop(other)
    return [grads.get(name) for name in (*names, "", "")]


def sigmoid_loss_forward(
    x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor, row_id: Tensor | None, col_id: Tensor | None
) -> Tensor:
    sums = []
    for rows in _blocks(x.shape[0], x.shape[1], y.shape[1], logit_scale.dtype):
        signed, _ = _signed(x[:, rows], y, logit_scale[:, rows], bias, row_id, col_id, rows)
        sums.append(-F.logsigmoid(signed).sum(2))
    return torch.cat(sums, 1)


def sigmoid_loss_backward(
    grad_row: Tensor, x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, need_x: bool, need_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    b, n, d = x.shape
    by_row, slopes = [], []
    dy = logit_scale.new_zeros(b, y.shape[1] if need_y else 0, d)
    for rows in _blocks(b, n, y.shape[1], logit_scale.dtype):
        slope = _slope(grad_row[:, rows], x[:, rows], y, logit_scale[:, rows], bias, row_id, col_id, rows)
        slopes.append(slope.sum(2))
        weights = slope * logit_scale[:, rows, None]
        if need_x:
            by_row.append(_product(weights, y))
        if need_y:
            dy += _product(weights.mT, x[:, rows])
    return torch.cat(by_row, 1) if need_x else logit_scale.new_empty(b, 0, d), dy, torch.cat(slopes, 1)


def sigmoid_loss_double_backward(
    grad_dx: Tensor | None, grad_dy: Tensor | None, grad_slope: Tensor | None,
    grad_row: Tensor, x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, needs: tuple[bool, ...],
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of <grad_dx, dx> + <grad_dy, dy> + <grad_slope, slope> for the operator's first five arguments."""
    names = ("grad_row", "x", "y", "logit_scale", "bias")

    def scalar(row: Tables, col: Tables, rows: slice) -> Tensor:
        args = (row["grad_row"], row["x"], col["y"], row["logit_scale"], col["bias"])
        slope = _slope(*args, row_id, col_id, rows)
        weights, total = slope * row["logit_scale"][:, :, None], slope.new_zeros(())
        if grad_dx is not None and grad_dx.shape[1]:
            total = total + (grad_dx[:, rows] * (weights @ col["y"])).sum()
        if grad_dy is not None and grad_dy.shape[1]:
            total = total + (grad_dy * (weights.mT @ row["x"])).sum()
        return total if grad_slope is None else total + (grad_slope[:, rows] * slope.sum(2)).sum()

    wanted = {name for name, need in zip(names, needs, strict=False) if need}
    row_tables = {"grad_row": grad_row, "x": x, "logit_scale": logit_scale}
    grads = _differentiate(scalar, row_tables, {"y": y, "bias": bias}, wanted)
    return [grads.get(name) for name in names]


def _blocks(b: int, n: int, m: int, dtype: torch.dtype) -> Iterator[slice]:
    rows = max(1, BLOCK_BYTES // max(1, b * m * dtype.itemsize))
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


@functools.cache
def _multiplies_into_float32() -> bool:
    """Whether torch has products of half-precision tables with float32 results (since 2.8, on CUDA)."""
    return "dtype" in torch.ops.aten.bmm.overloads()  # type: ignore[no-untyped-call]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b with float32 sums at least. a: weights or a table, b: a table as it came in."""
    if b.dtype == torch.bfloat16 and b.is_cuda and _multiplies_into_float32():
        return torch.bmm(a.to(b.dtype), b, out_dtype=torch.float32)
    dtype = torch.float64 if b.dtype == torch.float64 else torch.float32
    return a.to(dtype) @ b.to(dtype)


def _logits(x: Tensor, y: Tensor, logit_scale: Tensor) -> Tensor:
    return _product(x, y.mT) * logit_scale[:, :, None]


def _pairs(logits: Tensor, rows: slice) -> Tensor:
    """[rows, m]: where a row meets the column of its own number."""
    column = torch.arange(logits.shape[2], device=logits.device)
    return column == torch.arange(rows.start, rows.stop, device=logits.device)[:, None]


def _counted(
    logits: Tensor, rows: slice, row_id: Tensor | None, col_id: Tensor | None,
    row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Which entries rows and columns count; None for all."""
    counted = ~_pairs(logits, rows).expand_as(logits) if mask == "diagonal" else None
    if row_id is not None and col_id is not None:
        own, other = row_id[:, rows, None], col_id[:, None, :]
        present = (own >= 0) & (other >= 0)
        if mask in ("same", "different"):
            present &= (own == other) if mask == "different" else (own != other)
        counted = present if counted is None else counted & present
    by_cap = [None if row_cap is None else row_cap[:, rows, None], None if col_cap is None else col_cap[:, None, :]]
    in_row, in_col = (
        counted if cap is None else (logits <= cap) if counted is None else counted & (logits <= cap) for cap in by_cap
    )
    return in_row, in_col


def _summary(logits: Tensor, counted: Tensor | None, dim: int, stats: bool) -> tuple[Tensor, Tensor, Tensor]:
    """log-sum-exp, maximum and mean under the softmax, of what is counted; without stats the last two are not."""
    kept = logits if counted is None else logits.masked_fill(~counted, -torch.inf)
    lse = kept.logsumexp(dim)
    if not stats:
        return lse, lse, lse
    softmax = kept.softmax(dim).nan_to_num_(0.0)
    return lse, kept.amax(dim), softmax.mul_(logits).sum(dim)


def _joined(one: tuple[Tensor, ...], two: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The summary of both summaries' entries together."""
    lse = torch.logaddexp(one[0], two[0])
    shares = [(part[0] - lse).exp().nan_to_num(0.0) for part in (one, two)]
    return lse, torch.maximum(one[1], two[1]), shares[0] * one[2] + shares[1] * two[2]


def _keep(stored: Tensor, logits: Tensor, rows: slice, n: int) -> None:
    """Copy the block's rows that are among the first of all problems' rows."""
    for problem in range(len(logits)):
        first = problem * n + rows.start
        count = min(logits.shape[1], len(stored) - first)
        if count > 0:
            stored[first : first + count] = logits[problem, :count]


def _softmax(logits: Tensor, lse: Tensor, counted: Tensor | None) -> Tensor:
    shifted = logits - lse
    # left out before exp, so that neither exp(S + inf) nor its derivative is ever formed
    return (shifted if counted is None else shifted.masked_fill(~counted, -torch.inf)).exp()


def _weights(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor, x: Tensor, y: Tensor, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
    row_lse: Tensor, col_lse: Tensor, rows: slice,
) -> Tensor:  # fmt: skip
    """A block of W: rows of grad_row, grad_positive, x, logit_scale and row_lse are the block's, all else is whole."""
    logits = _logits(x, y, logit_scale)
    in_row, in_col = _counted(logits, rows, row_id, col_id, row_cap, col_cap, mask)
    weights = torch.zeros_like(logits)
    if grad_row.shape[1]:
        weights = weights + grad_row[:, :, None] * _softmax(logits, row_lse[:, :, None], in_row)
    if grad_col.shape[1]:
        weights = weights + grad_col[:, None, :] * _softmax(logits, col_lse[:, None, :], in_col)
    if grad_positive.shape[1]:
        weights = weights + torch.where(_pairs(logits, rows), grad_positive[:, :, None], 0.0)
    return weights * logit_scale[:, :, None]


def _signed(
    x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor, row_id: Tensor | None, col_id: Tensor | None, rows: slice
) -> tuple[Tensor, Tensor]:
    """z (S + bias), +inf where nothing counts, and z: 0 there."""
    shifted = _logits(x, y, logit_scale) + bias[:, None, None]
    if row_id is None or col_id is None:
        sign = torch.where(_pairs(shifted, rows), 1.0, -1.0).to(shifted.dtype).expand_as(shifted)
        return sign * shifted, sign
    own, other = row_id[:, rows, None], col_id[:, None, :]
    counted = (own >= 0) & (other >= 0)
    sign = torch.where(own == other, 1.0, -1.0).to(shifted.dtype) * counted
    return (sign * shifted).masked_fill(~counted, torch.inf), sign


def _slope(
    grad_row: Tensor, x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, rows: slice,
) -> Tensor:  # fmt: skip
    """A block of the loss's derivative by S."""
    signed, sign = _signed(x, y, logit_scale, bias, row_id, col_id, rows)
    return -grad_row[:, :, None] * sign * torch.sigmoid(-signed)


def _differentiate(
    scalar: Callable[[Tables, Tables, slice], Tensor], row_tables: Tables, col_tables: Tables, wanted: set[str]
) -> Tables:
    """Gradients of sum over blocks of scalar(the block's rows of row_tables, col_tables, rows), for those wanted.

    One block's graph lives at a time, unless a third derivative is wanted: then all do.
    """
    x, y = row_tables["x"], col_tables["y"]
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    by_row: dict[str, list[Tensor]] = {name: [] for name in row_tables if name in wanted}
    by_col: Tables = {}
    for rows in _blocks(x.shape[0], x.shape[1], y.shape[1], dtype):
        tables = {name: table[:, rows] for name, table in row_tables.items()} | col_tables

        def of_block(sources: Tables, tables: Tables = tables, rows: slice = rows) -> Tensor:
            wide = {name: table.to(dtype) for name, table in (tables | sources).items()}
            return scalar(wide, wide, rows)

        grads = torch.func.grad(of_block)({name: table for name, table in tables.items() if name in wanted})
        for name, grad in grads.items():
            if name in by_row:
                by_row[name].append(grad)
            else:
                by_col[name] = by_col[name] + grad if name in by_col else grad
    return {name: torch.cat(parts, 1) for name, parts in by_row.items()} | by_col
