"""The losses computed from the whole similarity matrix, row by row, for one problem in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def info_nce(
    x: Tensor,
    y: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    direction: str = "both",
    negatives: Tensor | None = None,
    queue: Tensor | None = None,
    groups: Tensor | None = None,
    positives: str = "pair",
    label_smoothing: float = 0.0,
    teacher: tuple[Tensor, Tensor, float] | None = None,
    margin: float | None = None,
    weights: Tensor | None = None,
    ignore: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return ``modalign.info_nce`` of one problem."""
    n = len(x)
    unit = (lambda t: F.normalize(t, dim=-1)) if normalize else (lambda t: t)
    kept = torch.ones(n, dtype=torch.bool) if ignore is None else ~ignore
    inverse = (1 / torch.as_tensor(temperature, dtype=torch.float64)).expand(n)
    left, right = unit(x), unit(y)
    losses_of_rows = torch.zeros(n, dtype=torch.float64)
    sides = [(left, right, negatives, queue, 0), (right, left, None, None, 1)]
    chosen = {"both": sides, "x_to_y": sides[:1], "y_to_x": sides[1:]}[direction]
    for a, b, hard, shared, side in chosen:
        losses = []
        for i in range(n):
            same_group = groups == groups[i] if groups is not None else torch.arange(n) == i
            pair = torch.arange(n) == i
            positive = same_group & kept
            logits = inverse[i] * (b @ a[i])
            used = kept & (pair | ~same_group) if positives == "pair" else kept.clone()
            if margin is not None:
                used &= pair | (b @ a[i] <= a[i] @ b[i] + margin)
            extra = [unit(t) @ a[i] for t in ([] if hard is None else [hard[i]]) + ([] if shared is None else [shared])]
            if margin is not None:
                extra = [products[products <= a[i] @ b[i] + margin] for products in extra]
            extra = [inverse[i] * products for products in extra]
            all_logits = torch.cat([logits[used], *extra])
            target = pair.double()
            if positives in ("out", "in"):
                target = positive.double() / positive.sum().clamp(min=1)
            if teacher is not None:
                t = unit(teacher[1 - side]) @ unit(teacher[side])[i] / teacher[2]
                target = t.masked_fill(~used, -torch.inf).softmax(0) if kept[i] else target
            if not kept[i]:
                losses.append(x.new_zeros(()))
                continue
            if positives == "in":
                losses.append(all_logits.logsumexp(0) - logits[positive].logsumexp(0) + positive.sum().double().log())
                continue
            target_logit = (1 - label_smoothing) * (target * logits).sum() + label_smoothing * all_logits.mean()
            losses.append(all_logits.logsumexp(0) - target_logit)
        losses_of_rows = losses_of_rows + torch.stack(losses) / len(chosen)
    row_weights = kept.double() if weights is None else weights.double() * kept
    if reduction == "none":
        return losses_of_rows * row_weights
    return (losses_of_rows * row_weights).sum() / (row_weights.sum() if reduction == "mean" else 1)


def nt_xent(
    x: Tensor, y: Tensor, *, temperature: float | Tensor = 0.5, normalize: bool = True, reduction: str = "mean"
) -> Tensor:
    """Return ``modalign.nt_xent`` of one problem."""
    z = torch.cat([x, y])
    z = F.normalize(z, dim=-1) if normalize else z
    logits = (
        (z @ z.T / temperature).fill_diagonal_(-torch.inf)
        if not z.requires_grad
        else ((z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf))
    )
    pairs = torch.arange(len(z)).roll(len(x))
    return F.cross_entropy(logits, pairs, reduction=reduction)


def sigmoid_loss(
    x: Tensor,
    y: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    normalize: bool = True,
    groups: Tensor | None = None,
    ignore: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return ``modalign.sigmoid_loss`` of one problem."""
    n = len(x)
    left, right = (F.normalize(t, dim=-1) if normalize else t for t in (x, y))
    groups = torch.arange(n) if groups is None else groups
    kept = torch.ones(n, dtype=torch.bool) if ignore is None else ~ignore
    sign = torch.where(groups[:, None] == groups[None, :], 1.0, -1.0).double()
    losses_of_rows = (-F.logsigmoid(sign * (left @ right.T / temperature + bias)) * kept[None, :]).sum(1) * kept
    if reduction == "none":
        return losses_of_rows
    return losses_of_rows.sum() / (kept.sum() if reduction == "mean" else 1)
