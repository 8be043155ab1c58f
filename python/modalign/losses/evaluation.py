"""The computation of InfoNCE: from rows and options, through the sides of S, to the loss and its by-products."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from modalign.common.dtypes import FLOATS, accumulator
from modalign.distributed.calls import Call, require_finite_everywhere
from modalign.distributed.rows import gather_rows
from modalign.losses.inputs import (
    blank_ignored,
    checks_values,
    embeddings,
    groups_and_ignored,
    logit_scales,
    per_row,
    readable,
    without_autocast,
)
from modalign.losses.options import InfoNCEOptions
from modalign.losses.pools import Pool
from modalign.losses.reduction import reduce_losses
from modalign.losses.sides import (
    Direction,
    SharedOptions,
    Side,
    Teacher,
    anchor_losses,
    build_sides,
    hard_negative_pool,
    queue_pool,
)
from modalign.losses.statistics import Stats, compute_stats
from modalign.ops.info_nce import raise_overflow, require_finite_tables
from modalign.ops.loss_tables import LossTables

__all__ = ["evaluate"]

KEPT_BYTES = 1 << 24  # logits kept for the backward pass if all fit: small batches need three products, not four


def evaluate(x: Tensor, y: Tensor, options: InfoNCEOptions, call: Call | None = None) -> tuple[Tensor, Stats | None]:
    """Return the loss of pairs (..., n, d) and, with ``options.stats``, its by-products.

    With a call the batch is that of all ranks, and x and y are the rows of this one.
    """
    batch = x.shape[:-2]
    scale, per_anchor = logit_scales("info_nce", options.temperature, batch, x)
    ids, kept = groups_and_ignored("info_nce", options.groups, options.ignore, x, call=call)
    weights = options.weights
    if weights is not None:
        weights = per_row("info_nce", "weights", weights, x, dtypes=FLOATS)
    rows = _direction(x, y, scale, kept=kept, options=options)
    shared = SharedOptions(
        ids=ids,
        kept=kept,
        grouped=options.groups is not None,
        positives=options.positives,
        label_smoothing=float(options.label_smoothing),
        margin=options.margin,
        stats=bool(options.stats),
        workspace=_workspace(rows, options) if call is None else 0,
        check_finite=checks_values(options.check_finite, x),
        backend=options.backend,
        call=call,
    )
    with without_autocast(x):
        sides = _sides(rows, shared, direction=options.direction, per_anchor=per_anchor)
        if "x" in sides:
            sides["x"] = _add_candidates(sides["x"], options, shared, batch)
        losses, lses = zip(*(anchor_losses(side, shared) for side in sides.values()), strict=True)
        each = losses[0] if len(losses) == 1 else (losses[0] + losses[1]) / 2
        loss = reduce_losses(
            "info_nce", each, batch, reduction=options.reduction, weights=weights, kept=kept, call=call
        )
        stats = compute_stats(sides, lses, each, options=shared, batch=batch) if options.stats else None
    return loss, stats


def _direction(x: Tensor, y: Tensor, scale: Tensor, *, kept: Tensor | None, options: InfoNCEOptions) -> Direction:
    """Return the rows as the operators take them, from x to y."""
    problems, normalize, teacher = math.prod(x.shape[:-2]), options.normalize, options.teacher
    left, right = (embeddings(blank_ignored(rows, kept), normalize, problems) for rows in (x, y))
    if options.positives == "out" or options.label_smoothing or teacher is not None:
        # near the optimum the softmax and its target cancel: weights in half precision would leave noise
        left, right = (rows.to(accumulator(rows.dtype)) for rows in (left, right))
    if teacher is None:
        return Direction(left, right, scale, None)
    tx, ty, temperature = teacher
    tx, ty = (embeddings(blank_ignored(rows.detach(), kept), normalize, problems).to(left.dtype) for rows in (tx, ty))
    if checks_values(options.check_finite, x) and readable(tx, wait=True):
        require_finite_tables("info_nce", {"the teacher's x": tx, "the teacher's y": ty})
    teacher_scale = torch.full_like(scale, 1 / temperature, requires_grad=False)
    return Direction(left, right, scale, Teacher(tx, ty, teacher_scale))


def _workspace(rows: Direction, options: InfoNCEOptions) -> int:
    """Return the bytes of logits to keep from the forward to the backward pass."""
    inputs = (rows.anchors, rows.candidates, rows.scale, options.negatives, options.queue)
    if not torch.is_grad_enabled() or not any(table is not None and table.requires_grad for table in inputs):
        return 0
    if options.workspace is not None:
        return int(options.workspace)
    if options.backend == "cuda":
        return 0
    bytes_of_logits = rows.scale.numel() * rows.candidates.shape[1] * rows.scale.itemsize
    return bytes_of_logits if _known(bytes_of_logits <= KEPT_BYTES) else 0


def _known(fact: bool) -> bool:
    """Return whether a fact about sizes is known to hold, without making a compiled graph depend on it."""
    if not torch.compiler.is_compiling():
        return fact
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(fact)


def _sides(rows: Direction, options: SharedOptions, *, direction: str, per_anchor: bool) -> dict[str, Side]:
    """Return "x" -> the side of anchors x and "y" -> that of anchors y, those that ``direction`` has."""
    if direction == "both" and not per_anchor:
        return dict(zip("xy", build_sides(rows, options, both=True), strict=True))
    sides: dict[str, Side] = {}
    if direction != "y_to_x":
        (sides["x"],) = build_sides(rows, options, both=False)
    if direction != "x_to_y":
        (sides["y"],) = build_sides(rows.reversed(), options, both=False)
    return sides


def _add_candidates(side: Side, options: InfoNCEOptions, shared: SharedOptions, batch: torch.Size) -> Side:
    """Return the side with the pools of hard negatives and of the queue, if there are any."""
    problems, pools = math.prod(batch), side.pools
    anchors, scale = side.direction.anchors, side.direction.scale
    if options.negatives is not None:
        n, h, d = options.negatives.shape[-3:]
        flat = options.negatives.reshape(*batch, n * h, d)
        rows = embeddings(flat, options.normalize, problems).reshape(problems, n, h, d)
        if shared.ids is not None:
            rows = rows.masked_fill((shared.ids < 0)[:, :, None, None], 0.0)
        if shared.check_finite and readable(rows, wait=True):
            require_finite_tables("info_nce", {"negatives": rows})
        pool = hard_negative_pool(side, rows)
        _require_finite_pool(pool, LossTables(anchors, rows.flatten(1, 2), scale), shared)
        pools += (pool,)
    if options.queue is not None:
        rows = embeddings(options.queue, options.normalize, math.prod(options.queue.shape[:-2]))
        if shared.check_finite and readable(rows, wait=True):
            require_finite_tables("info_nce", {"queue": rows})
        if options.sharded_queue and shared.call is not None:  # parts of one size, as the ranks agreed
            rows = gather_rows(rows, shared.call.with_sizes((rows.shape[1],) * shared.call.ranks.count))
        rows = rows.to(anchors.dtype).expand(problems, *rows.shape[1:])
        pool = queue_pool(side, rows, shared)
        _require_finite_pool(pool, LossTables(anchors, rows, scale), shared)
        pools += (pool,)
    return dataclasses.replace(side, pools=pools)


def _require_finite_pool(pool: Pool, tables: LossTables, shared: SharedOptions) -> None:
    """Raise a ValueError, on every rank, if the logits of a pool overflow on any; ``tables`` are its rows here."""
    if not shared.check_finite or not readable(pool.lse, wait=True):
        return
    finite = (pool.lse < torch.inf).all()
    if shared.call is not None:
        require_finite_everywhere("info_nce", tables, finite, shared.call.ranks)
    elif not bool(finite):
        raise_overflow("info_nce", tables.x, tables.right, tables.logit_scale)
