"""The loss operators as they are defined: dense, in float64. Every backend is compared with them.

    S_ij = logit_scale_i <x_i, y_j>

``modalign.ops.loss_tables`` describes the tables, and which entries of S count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from modalign.ops.loss_tables import ForwardOptions, LossTables, Sums, WeightTables


def info_nce(x: Tensor, y: Tensor, logit_scale: float) -> Tensor:
    """Return the loss as the papers write it, for x and y (n, d), row i of x paired with row i of y."""
    logits = logit_scale * (x.double() @ y.double().T)
    pairs = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def info_nce_forward(tables: LossTables, options: ForwardOptions) -> Sums:
    """Return the log-sum-exps of the rows and columns of S and its diagonal, and what ``options`` add."""
    logits, in_row, in_col = _logits(tables)
    b, n, m, _ = tables.sizes
    nothing = logits.new_empty(b, 0)
    row = _summarize(logits, in_row, 2)
    two = tables.y is not None
    col = _summarize(logits, in_col, 1) if options.columns and two else (nothing, nothing, nothing)
    positive = logits.diagonal(dim1=1, dim2=2) if two and options.pairs and n == m else nothing
    by_products = [*row[1:], *col[1:]] if options.stats else 4 * [nothing]
    stored = logits.reshape(-1, m)[: options.stored_rows(tables)]
    return Sums(*(result.to(tables.dtype, copy=True) for result in (row[0], col[0], positive, stored, *by_products)))


def info_nce_backward(
    tables: LossTables, weights: WeightTables, v: Tensor | None, u: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return W v (b, n, e) and W' u (b, m, e), for v (b, m, e) and u (b, n, e); one that is None is not computed.

        W_ij = logit_scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j)
                              + [i = j] grad_positive_i)

    over the entries that row i and column j count. With v = y and u = x the products are the gradients of x and y. In
    one stream columns share the values of rows, and the gradient of x is W v with v = x.
    """
    logits, in_row, in_col = _logits(tables)
    matrix = torch.zeros_like(logits)
    if weights.grad_row.shape[1]:
        matrix += weights.grad_row.double()[:, :, None] * _exp(logits - weights.row_lse.double()[:, :, None], in_row)
    if tables.y is None:
        matrix += matrix.mT.clone()
    if weights.grad_col.shape[1]:
        matrix += weights.grad_col.double()[:, None, :] * _exp(logits - weights.col_lse.double()[:, None, :], in_col)
    if weights.grad_positive.shape[1]:
        matrix += torch.diag_embed(weights.grad_positive.double())
    matrix *= tables.logit_scale.double()[:, :, None]
    b, *_, d = tables.sizes
    by_row, by_col = (
        logits.new_empty(b, 0, d) if values is None else product @ values.double()
        for product, values in ((matrix, v), (matrix.mT, u))
    )
    return by_row.to(tables.dtype), by_col.to(tables.dtype)


def sigmoid_loss_forward(tables: LossTables, bias: Tensor) -> Tensor:
    """Return sum_j log(1 + exp(-z_ij (S_ij + bias))) (b, n) for a bias (b,).

    z_ij is 1 where i = j (where the ids are equal, if there are ids) and -1 elsewhere; a negative id leaves out its
    row or column.
    """
    signed, counted, _ = _signed(tables, bias)
    return (-F.logsigmoid(signed) * counted).sum(2).to(tables.dtype)


def sigmoid_loss_backward(
    tables: LossTables, bias: Tensor, grad_row: Tensor, *, need_x: bool, need_y: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x and y that are needed, and the slope (b, n): the gradient of S_ij + bias summed over j.

    A gradient that is not needed has the shape (b, 0, d).
    """
    signed, counted, sign = _signed(tables, bias)
    grad = -grad_row.double()[:, :, None] * sign * torch.sigmoid(-signed) * counted
    weights = grad * tables.logit_scale.double()[:, :, None]
    b, *_, d = tables.sizes
    nothing = grad.new_empty(b, 0, d)
    dx = weights @ tables.right.double() if need_x else nothing
    dy = weights.mT @ tables.x.double() if need_y else nothing
    return dx.to(tables.dtype), dy.to(tables.dtype), grad.sum(2).to(tables.dtype)


def _similarities(tables: LossTables) -> Tensor:
    return tables.logit_scale.double()[:, :, None] * (tables.x.double() @ tables.right.double().mT)


def _logits(tables: LossTables) -> tuple[Tensor, Tensor, Tensor]:
    """Return S, and the masks of the entries that rows and columns count."""
    logits, row_id, col_id = _similarities(tables), tables.row_id, tables.col_id
    counted = torch.ones_like(logits, dtype=torch.bool)
    if row_id is not None and col_id is not None:
        counted &= (row_id >= 0)[:, :, None] & (col_id >= 0)[:, None, :]
        same = row_id[:, :, None] == col_id[:, None, :]
        counted &= {"same": ~same, "different": same}.get(tables.mask, counted)
    if tables.mask == "diagonal":
        counted &= ~torch.eye(*logits.shape[1:], dtype=torch.bool, device=logits.device)
    row_cap, col_cap = tables.row_cap, tables.col_cap
    in_row = counted if row_cap is None else counted & (logits <= row_cap.double()[:, :, None])
    in_col = counted if col_cap is None else counted & (logits <= col_cap.double()[:, None, :])
    return logits, in_row, in_col


def _exp(logits: Tensor, counted: Tensor) -> Tensor:
    """Return the exponentials, 0 where an entry does not count."""
    return logits.masked_fill(~counted, -torch.inf).exp()


def _summarize(logits: Tensor, counted: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-sum-exp, maximum and mean under the softmax; -inf, -inf and 0 where no entry counts."""
    kept = logits.masked_fill(~counted, -torch.inf)
    lse = kept.logsumexp(dim)
    mean = (_exp(logits - lse.unsqueeze(dim), counted) * logits).sum(dim)
    return lse, kept.amax(dim), mean


def _signed(tables: LossTables, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return z (S + bias), the mask of the entries that count, and z."""
    shifted, row_id, col_id = _similarities(tables) + bias.double()[:, None, None], tables.row_id, tables.col_id
    if row_id is not None and col_id is not None:
        same = row_id[:, :, None] == col_id[:, None, :]
        counted = (row_id >= 0)[:, :, None] & (col_id >= 0)[:, None, :]
    else:
        same = torch.eye(*shifted.shape[1:], dtype=torch.bool, device=shifted.device).expand_as(shifted)
        counted = torch.ones_like(same)
    sign = torch.where(same, 1.0, -1.0).double()
    return sign * shifted, counted, sign
