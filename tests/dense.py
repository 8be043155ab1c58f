"""The losses computed from the whole similarity matrix, row by row, for one problem in float64."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def info_nce(
    x: Tensor, y: Tensor, *, temperature: Any = 0.07, normalize: bool = True, direction: str = "both",
    negatives: Tensor | None = None, queue: Tensor | None = None, groups: Tensor | None = None,
    positives: str = "pair", label_smoothing: float = 0.0, teacher: Any = None, margin: float | None = None,
    weights: Tensor | None = None, ignore: Tensor | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    n = len(x)
    unit = (lambda t: F.normalize(t, dim=-1)) if normalize else (lambda t: t)
    kept = torch.ones(n, dtype=torch.bool) if ignore is None else ~ignore
    inverse = (1 / torch.as_tensor(temperature, dtype=torch.float64)).expand(n)
    left, right = unit(x), unit(y)
    each = torch.zeros(n, dtype=torch.float64)
    sides = [(left, right, negatives, queue, 0), (right, left, None, None, 1)]
    chosen = {"both": sides, "x_to_y": sides[:1], "y_to_x": sides[1:]}[direction]
    for a, b, hard, more, side in chosen:
        losses = []
        for i in range(n):
            mates = groups == groups[i] if groups is not None else torch.arange(n) == i
            pair = torch.arange(n) == i
            logits = inverse[i] * (b @ a[i])
            use = kept & (pair | ~mates) if positives == "pair" else kept.clone()
            if margin is not None:
                use &= pair | (b @ a[i] <= a[i] @ b[i] + margin)
            extra = [unit(t) @ a[i] for t in ([] if hard is None else [hard[i]]) + ([] if more is None else [more])]
            if margin is not None:
                extra = [products[products <= a[i] @ b[i] + margin] for products in extra]
            extra = [inverse[i] * products for products in extra]
            everything = torch.cat([logits[use], *extra])
            target = pair.double()
            if positives in ("out", "in"):
                target = (mates & kept).double() / (mates & kept).sum().clamp(min=1)
            if teacher is not None:
                t = unit(teacher[1 - side]) @ unit(teacher[side])[i] / teacher[2]
                target = t.masked_fill(~use, -torch.inf).softmax(0) if kept[i] else target
            if not kept[i]:
                losses.append(x.new_zeros(()))
                continue
            if positives == "in":
                losses.append(
                    everything.logsumexp(0) - logits[mates & kept].logsumexp(0) + (mates & kept).sum().double().log()
                )
                continue
            aim = (target * logits).sum()
            aim = (1 - label_smoothing) * aim + label_smoothing * everything.mean()
            losses.append(everything.logsumexp(0) - aim)
        each = each + torch.stack(losses) / len(chosen)
    share = kept.double() if weights is None else weights.double() * kept
    if reduction == "none":
        return each * share
    return (each * share).sum() / (share.sum() if reduction == "mean" else 1)


def nt_xent(x: Tensor, y: Tensor, *, temperature: Any = 0.5, normalize: bool = True, reduction: str = "mean") -> Tensor:
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
    x: Tensor, y: Tensor, *, temperature: Any = 0.1, bias: Any = -10.0, normalize: bool = True,
    groups: Tensor | None = None, ignore: Tensor | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    n = len(x)
    left, right = (F.normalize(t, dim=-1) if normalize else t for t in (x, y))
    groups = torch.arange(n) if groups is None else groups
    kept = torch.ones(n, dtype=torch.bool) if ignore is None else ~ignore
    sign = torch.where(groups[:, None] == groups[None, :], 1.0, -1.0).double()
    each = (-F.logsigmoid(sign * (left @ right.T / temperature + bias)) * kept[None, :]).sum(1) * kept
    if reduction == "none":
        return each
    return each.sum() / (kept.sum() if reduction == "mean" else 1)
