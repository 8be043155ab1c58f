"""The reduction of the losses of anchors to one value a problem."""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.common.deterministic import sum_rows
from modalign.losses.inputs import readable

__all__ = ["REDUCTIONS", "reduced"]

REDUCTIONS = ("mean", "sum", "none")


def reduced(
    operation: str, each: Tensor, batch: torch.Size, reduction: str, weights: Tensor | None, kept: Tensor | None
) -> Tensor:
    """Losses [problems, n] as "none" (..., n), "sum" or "mean" (...,): weighted, without the rows that are ignored."""
    if weights is not None and readable(weights) and not bool(((weights >= 0) & (weights < torch.inf)).all()):
        raise ValueError(f"{operation}: weights must be finite and not negative")
    if kept is not None:
        each = torch.where(kept, each, 0.0)
        weights = kept.to(each.dtype) if weights is None else weights * kept
    if weights is not None:
        largest = weights.detach().amax(1, keepdim=True)
        if readable(largest) and not bool((largest > 0).all()):
            raise ValueError(f"{operation}: the weights of a problem are all zero: there is no mean")
        if reduction == "mean":  # their size makes no difference, and might leave the range of the sums
            weights = weights / torch.where(largest > 0, largest, 1)
        weights = weights.to(each.dtype)
        each = each * weights
    if reduction == "none":
        return each.reshape(*batch, -1)
    total = sum_rows(each)
    if reduction == "mean":
        total = total / (each.shape[1] if weights is None else sum_rows(weights).clamp_min(1))
    return total.reshape(batch)
