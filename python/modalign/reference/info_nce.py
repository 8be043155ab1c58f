"""InfoNCE's log-sum-exps and their gradients, by blocks of rows in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

BLOCK = 256


def info_nce(x: Tensor, y: Tensor, logit_scale: float) -> Tensor:
    """The loss as the papers write it: x, y [n, d], row i of x paired with row i of y. Dense; for tests."""
    logits = logit_scale * (x.double() @ y.double().T)
    pairs = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def info_nce_forward(x: Tensor, y: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row log-sum-exps, column log-sum-exps and diagonal of S = logit_scale x y'. x, y: [b, n, d]; results [b, n]."""
    scaled, right = x.double() * logit_scale.double()[:, None, None], y.double()
    row_lse = torch.empty_like(scaled[..., 0])
    col_lse = torch.full_like(right[..., 0], -torch.inf)
    for rows in _blocks(x):
        logits = scaled[:, rows] @ right.mT
        row_lse[:, rows] = logits.logsumexp(2)
        col_lse = torch.logaddexp(col_lse, logits.logsumexp(1))
    out = torch.float64 if x.dtype == torch.float64 else torch.float32
    return row_lse.to(out), col_lse.to(out), torch.linalg.vecdot(scaled, right).to(out)


def info_nce_backward(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor, logit_scale: Tensor, row_lse: Tensor, col_lse: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """dx = scale dS y and dy = scale dS' x, for dS_ij = grad_row_i P_ij + grad_col_j Q_ij + [i = j] grad_positive_i."""
    scale, left, right = logit_scale.double()[:, None, None], x.double(), y.double()
    row_lse, col_lse = _row_and_col_lse(left, right, scale) if x.dtype != torch.float64 else (row_lse, col_lse)
    dx = scale * grad_positive.double()[..., None] * right
    dy = scale * grad_positive.double()[..., None] * left
    for rows in _blocks(x):
        logits = scale * (left[:, rows] @ right.mT)
        grad = grad_row[:, rows, None] * (logits - row_lse[:, rows, None]).exp()
        grad = scale * (grad + grad_col[:, None, :] * (logits - col_lse[:, None, :]).exp())
        dx[:, rows] += grad @ right
        dy += grad.mT @ left[:, rows]
    out = torch.float64 if x.dtype == torch.float64 else torch.float32
    return dx.to(out), dy.to(out)


def _row_and_col_lse(left: Tensor, right: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The log-sum-exps in float64 again: the forward pass handed them out rounded to float32."""
    row_lse, col_lse, _ = info_nce_forward(left, right, scale[:, 0, 0])
    return row_lse, col_lse


def _blocks(x: Tensor) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, x.shape[1], BLOCK)]
