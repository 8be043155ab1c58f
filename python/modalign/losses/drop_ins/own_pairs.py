"""Losses of this rank's pairs among the rows of all ranks, as libraries return them.

The losses in ``modalign.losses.functional`` give a temperature and a bias one gradient on all ranks. Here they receive
the gradient of the rank's own losses alone, whose mean over ranks is the same. The rows receive that of the sum of what
all ranks make of their losses, in both.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modalign.common.checks import require_pairs
from modalign.common.dtypes import accumulator
from modalign.distributed.party import Party
from modalign.distributed.sigmoid_loss import sharded_sigmoid_loss
from modalign.losses.inputs import checks_values, embeddings, without_autocast
from modalign.losses.shared_batches import SharedBatch, require_finite_rows, share_batch
from modalign.losses.sides import Direction, SharedOptions, Side, anchor_losses, build_sides
from modalign.ops.loss_tables import LossTables

__all__ = ["info_nce_of_own_pairs", "mean_or_zero", "sigmoid_loss_of_own_pairs"]

Number = float | Tensor


def info_nce_of_own_pairs(party: Party, pairs: tuple[Tensor, Tensor], scale: Number) -> Tensor:
    """Return the symmetric InfoNCE of this rank's pairs among the rows of all ranks, (n,), in 8 n N d FLOPs.

    Args:
        party: The ranks.
        pairs: The rows x and y (n, d) of this rank, used as they are.
        scale: A positive number or a tensor without dimensions, by which inner products are multiplied.
    """
    batch, (x, y), ids = _share(party, pairs, {"scale": scale})
    left, right = (embeddings(rows, False, 1) for rows in (x, y))
    check_finite = checks_values("auto", x)
    with without_autocast(x):
        scales = _constant(scale, left).expand(left.shape[:2])
        trains_scale = isinstance(scale, Tensor) and scale.requires_grad and torch.is_grad_enabled()
        shared = SharedOptions(
            ids=ids,
            kept=None if ids is None else ids >= 0,
            grouped=False,
            positives="pair",
            label_smoothing=0.0,
            margin=None,
            stats=trains_scale,
            workspace=0,
            check_finite=check_finite,
            backend="auto",
            call=batch.call,
        )
        x_side, y_side = build_sides(Direction(left, right, scales.detach(), None), shared, both=True)
        losses = (anchor_losses(x_side, shared)[0] + anchor_losses(y_side, shared)[0]) / 2
        if trains_scale:
            # S would give the scale the gradient of the rank's rows of S, which are not its losses
            slopes = (_slope(x_side, scales.detach()) + _slope(y_side, scales.detach())) / 2
            losses = losses + slopes * (scales - scales.detach())
    return batch.trimmed(losses[0])


def _slope(side: Side, scales: Tensor) -> Tensor:
    """Return the derivative of the loss of each anchor with respect to its scale, [1, n]."""
    (pool,) = side.pools
    share = (pool.lse - side.positive).sigmoid()
    lead = torch.where(pool.lse > -torch.inf, pool.mean - side.positive, 0.0)
    return (share * lead / scales).detach()


def sigmoid_loss_of_own_pairs(party: Party, pairs: tuple[Tensor, Tensor], scale: Number, bias: Number) -> Tensor:
    """Return SigLIP's loss of the rows x of this rank, (n,), against the columns y of all ranks.

    Args:
        party: The ranks.
        pairs: The rows x and y (n, d) of this rank, used as they are.
        scale: A positive number or a tensor without dimensions, by which inner products are multiplied.
        bias: A number or a tensor without dimensions, which is added to them.
    """
    batch, (x, y), ids = _share(party, pairs, {"scale": scale, "bias": bias})
    left, right = (embeddings(rows, False, 1) for rows in (x, y))
    check_finite = checks_values("auto", x)
    with without_autocast(x):
        scales = _constant(scale, left).expand(left.shape[:2])
        tables = LossTables(left, right, scales, row_id=ids, col_id=ids)
        shift = _constant(bias, left).reshape(1)
        losses = sharded_sigmoid_loss(tables, shift, batch.call, "auto", check_finite=check_finite)
    return batch.trimmed(losses[0])


def mean_or_zero(losses: Tensor) -> Tensor:
    """Return the mean of losses (n,), 0 without any: a rank without rows takes part in the backward pass, too."""
    return losses.sum() / max(losses.shape[0], 1)


def _share(
    party: Party, pairs: tuple[Tensor, Tensor], equal: Mapping[str, Number]
) -> tuple[SharedBatch, tuple[Tensor, Tensor], Tensor | None]:
    """Return the batch of all ranks, this rank's rows, and their numbers [1, n], where some rank has none."""
    party.checked(lambda: _require_table(party.operation, *pairs))
    batch = share_batch(party, pairs, {}, equal=equal)
    x, y = batch.rows(*pairs)
    ids = None
    if batch.some_empty:
        numbers = torch.arange(x.shape[0], device=x.device)[None]
        ids = numbers - 1 if batch.is_empty else numbers + batch.call.ranks.own.start
    return batch, (x, y), ids


def _require_table(operation: str, x: Tensor, y: Tensor) -> None:
    require_pairs(operation, x, y, fewest=0)
    if x.ndim != 2:
        raise ValueError(f"{operation}: features must be (n, d), got {tuple(x.shape)}")
    require_finite_rows(operation, {"image_features": x, "text_features": y}, "auto", x)


def _constant(value: Number, rows: Tensor) -> Tensor:
    """Return a number as a tensor without dimensions, in the dtype in which sums over rows are kept."""
    return torch.as_tensor(value, dtype=accumulator(rows.dtype), device=rows.device).reshape(())
