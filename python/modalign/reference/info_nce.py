"""InfoNCE's operators as they are defined: dense, in float64. What every backend is compared with.

    S_ij = logit_scale_i <x_i, y_j>                       x [b, n, d], y [b, m, d], logit_scale [b, n]

Entry (i, j) counts unless ``mask`` or the ids leave it out: "none" leaves out nothing, "diagonal" i = j, "same" equal
ids, "different" ids that differ; a negative id leaves out its whole row or column. Row i further leaves out what lies
above row_cap_i, column j what lies above col_cap_j. ``y=None`` is one stream: y = x.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def info_nce(x: Tensor, y: Tensor, logit_scale: float) -> Tensor:
    """The loss as the papers write it: x, y [n, d], row i of x paired with row i of y."""
    logits = logit_scale * (x.double() @ y.double().T)
    pairs = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def info_nce_forward(
    x: Tensor, y: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None = None, col_id: Tensor | None = None,
    row_cap: Tensor | None = None, col_cap: Tensor | None = None,
    mask: str = "none", columns: bool = True, stats: bool = False, workspace: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """row_lse [b, n], col_lse [b, m] (if ``columns``), positive S_ii [b, n] (if n = m), stored [rows, m], the first
    rows of S that ``workspace`` bytes hold, and with ``stats`` the largest S and the mean of S under the softmax:
    row_best, row_mean, col_best, col_mean."""
    logits, in_row, in_col = _logits(x, y, logit_scale, row_id, col_id, row_cap, col_cap, mask)
    nothing = logits.new_empty(len(x), 0)
    row = _summary(logits, in_row, 2)
    col = _summary(logits, in_col, 1) if columns and y is not None else (nothing, nothing, nothing)
    square = y is not None and x.shape[1] == y.shape[1]
    positive = logits.diagonal(dim1=1, dim2=2) if square else nothing
    by_products = [*row[1:], *col[1:]] if stats else 4 * [nothing]
    m = logits.shape[2]
    rows = 0 if y is None else workspace // (m * _out(x).itemsize)
    results = [row[0], col[0], positive, logits.reshape(-1, m)[:rows], *by_products]
    return tuple(result.to(_out(x), copy=True) for result in results)  # type: ignore[return-value]


def info_nce_backward(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor | None, v: Tensor | None, u: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
    row_lse: Tensor, col_lse: Tensor, stored: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """W v [b, n, e] and W' u [b, m, e], for v [b, m, e] and u [b, n, e]; one that is None is not computed.

    W_ij = logit_scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j) + [i = j] grad_positive_i)

    over the entries that row i and column j count. With v = y and u = x these are the gradients of x and y. Gradients
    of width 0 are zero. One stream: the gradient of x is W v with v = x, in which columns share the rows' values.
    """
    logits, in_row, in_col = _logits(x, y, logit_scale, row_id, col_id, row_cap, col_cap, mask)
    weights = torch.zeros_like(logits)
    if grad_row.shape[1]:
        weights += grad_row.double()[:, :, None] * _exp(logits - row_lse.double()[:, :, None], in_row)
    if y is None:
        weights += weights.mT.clone()
    if grad_col.shape[1]:
        weights += grad_col.double()[:, None, :] * _exp(logits - col_lse.double()[:, None, :], in_col)
    if grad_positive.shape[1]:
        weights += torch.diag_embed(grad_positive.double())
    weights *= logit_scale.double()[:, :, None]
    products = [
        logits.new_empty(len(x), 0, x.shape[2]) if values is None else product @ values.double()
        for product, values in ((weights, v), (weights.mT, u))
    ]
    return products[0].to(_out(x)), products[1].to(_out(x))


def sigmoid_loss_forward(
    x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor, row_id: Tensor | None, col_id: Tensor | None
) -> Tensor:
    """sum_j log(1 + exp(-z_ij (S_ij + bias))) [b, n], bias [b]; z_ij = 1 where i = j (equal ids, if given), else -1;
    a negative id leaves out its row or column."""
    signed, counted, _ = _signed(x, y, logit_scale, bias, row_id, col_id)
    return (-F.logsigmoid(signed) * counted).sum(2).to(_out(x))


def sigmoid_loss_backward(
    grad_row: Tensor, x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, need_x: bool, need_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x and y (those needed) and ``slope`` [b, n], the gradient of (S_ij + bias) summed over j."""
    signed, counted, sign = _signed(x, y, logit_scale, bias, row_id, col_id)
    grad = -grad_row.double()[:, :, None] * sign * torch.sigmoid(-signed) * counted
    weights = grad * logit_scale.double()[:, :, None]
    nothing = grad.new_empty(len(x), 0, x.shape[2])
    dx, dy = weights @ y.double() if need_x else nothing, weights.mT @ x.double() if need_y else nothing
    return dx.to(_out(x)), dy.to(_out(x)), grad.sum(2).to(_out(x))


def _out(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _logits(
    x: Tensor, y: Tensor | None, logit_scale: Tensor, row_id: Tensor | None, col_id: Tensor | None,
    row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """S, and which of its entries rows and columns count."""
    right = x if y is None else y
    logits = logit_scale.double()[:, :, None] * (x.double() @ right.double().mT)
    counted = torch.ones_like(logits, dtype=torch.bool)
    if row_id is not None and col_id is not None:
        counted &= (row_id >= 0)[:, :, None] & (col_id >= 0)[:, None, :]
        same = row_id[:, :, None] == col_id[:, None, :]
        counted &= {"same": ~same, "different": same}.get(mask, counted)
    if mask == "diagonal":
        counted &= ~torch.eye(*logits.shape[1:], dtype=torch.bool, device=x.device)
    in_row = counted if row_cap is None else counted & (logits <= row_cap.double()[:, :, None])
    in_col = counted if col_cap is None else counted & (logits <= col_cap.double()[:, None, :])
    return logits, in_row, in_col


def _exp(logits: Tensor, counted: Tensor) -> Tensor:
    """0 where nothing is counted."""
    return logits.masked_fill(~counted, -torch.inf).exp()


def _summary(logits: Tensor, counted: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """log-sum-exp, maximum and mean under the softmax; -inf, -inf and 0 where nothing is counted."""
    kept = logits.masked_fill(~counted, -torch.inf)
    lse = kept.logsumexp(dim)
    mean = (_exp(logits - lse.unsqueeze(dim), counted) * logits).sum(dim)
    return lse, kept.amax(dim), mean


def _signed(
    x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor, row_id: Tensor | None, col_id: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """z (S + bias), which entries count, and z."""
    shifted = logit_scale.double()[:, :, None] * (x.double() @ y.double().mT) + bias.double()[:, None, None]
    if row_id is not None and col_id is not None:
        same = row_id[:, :, None] == col_id[:, None, :]
        counted = (row_id >= 0)[:, :, None] & (col_id >= 0)[:, None, :]
    else:
        same = torch.eye(*shifted.shape[1:], dtype=torch.bool, device=x.device).expand_as(shifted)
        counted = torch.ones_like(same)
    sign = torch.where(same, 1.0, -1.0).double()
    return sign * shifted, counted, sign
