"""The reduction of the losses of anchors to one value for each problem."""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.common.deterministic import sum_rows
from modalign.distributed.calls import Call
from modalign.distributed.rows import gather_rows, sum_over_ranks
from modalign.losses.inputs import readable

__all__ = ["REDUCTIONS", "reduce_losses", "require_weights"]

REDUCTIONS = ("mean", "sum", "none")


def reduce_losses(
    operation: str,
    losses: Tensor,
    batch: torch.Size,
    *,
    reduction: str,
    weights: Tensor | None = None,
    kept: Tensor | None = None,
    call: Call | None = None,
) -> Tensor:
    """Reduce losses [problems, n] to shape (..., n) for "none" and (...,) for "sum" and "mean".

    Args:
        operation: the loss, for messages.
        losses: [problems, n].
        batch: the leading dimensions.
        reduction: one of ``REDUCTIONS``.
        weights: [problems, n] finite and not negative; the mean is weighted by them.
        kept: [problems, n] bool; rows that are not kept have the loss 0 and do not count in the mean.
        call: the ranks whose losses are reduced together; None for those of this process.

    Raises:
        ValueError: weights that are negative or not finite, or all zero in a problem.
    """
    if weights is not None:
        require_weights(operation, weights)
    if kept is not None:
        losses = torch.where(kept, losses, 0.0)
        weights = kept.to(losses.dtype) if weights is None else weights * kept
    if weights is not None:
        # half precision has too few digits to divide in
        weights = weights.to(torch.promote_types(weights.dtype, losses.dtype))
        largest = weights.detach().amax(1, keepdim=True)
        if call is not None:
            largest = gather_rows(largest, call.one_row_each()).amax(1, keepdim=True)
        if readable(largest) and not bool((largest > 0).all()):
            raise ValueError(f"{operation}: the weights of a problem are all zero: there is no mean")
        if reduction == "mean":  # the size of the weights makes no difference, and might leave the range of the sums
            weights = weights / torch.where(largest > 0, largest, 1)
        weights = weights.to(losses.dtype)
        losses = losses * weights
    if reduction == "none":
        return losses.reshape(*batch, -1)
    total = sum_rows(losses)
    count = losses.shape[1] if weights is None else sum_rows(weights)
    if call is not None:
        total = sum_over_ranks(total, call)
        count = sum_over_ranks(count, call) if isinstance(count, Tensor) else call.ranks.total
    if reduction == "mean":
        total = total / (count.clamp_min(1) if isinstance(count, Tensor) else count)
    # a copy: the hooks of fully_shard lose a view that the user divides in place
    return total.reshape(batch).clone()


def require_weights(operation: str, weights: Tensor) -> None:
    """Raise a ValueError unless weights are finite and not negative, where the host can read them."""
    if readable(weights) and not bool(((weights >= 0) & (weights < torch.inf)).all()):
        raise ValueError(f"{operation}: weights must be finite and not negative")
