"""The loss of each anchor, from sums over its candidates that the operators give.

An anchor a_i has candidates b_j. Its negatives lie in pools (the batch, its own hard negatives, a queue); a pool is
known by its log-sum-exp and never by its entries. With N_i the log-sum-exp of all negatives and p_i the positive,

    loss_i = log(exp p_i + exp N_i) - p_i = log(1 + exp(N_i - p_i))

and other targets t_ij replace p_i by sum_j t_ij S_ij = scale_i <a_i, sum_j t_ij b_j>: one more product of O(n d).
All tables are [problems, rows, ...].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from modalign.ops.info_nce import accumulator, info_nce_backward, info_nce_forward

__all__ = [
    "Options",
    "Pool",
    "Side",
    "Teacher",
    "anchor_losses",
    "dots",
    "own_negatives",
    "queued",
    "sides",
    "softplus",
    "summary",
]


@dataclasses.dataclass(frozen=True)
class Pool:
    """Some of an anchor's candidates, by [b, n] numbers: the log-sum-exp of their logits, the largest and the mean
    under the softmax (with stats), and on request how many they are and the sum of their inner products."""

    lse: Tensor
    best: Tensor
    mean: Tensor
    count_and_total: Callable[[], tuple[Tensor, Tensor]]


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Embeddings whose similarities give soft targets, for anchors and candidates, and their scale [b, n]."""

    anchors: Tensor
    candidates: Tensor
    scale: Tensor


@dataclasses.dataclass(frozen=True)
class Side:
    """One direction: anchors and candidates, row i paired with row i; ``scale`` [b, n] of the anchors, ``positive`` the
    pairs' logits, ``pools`` of negatives, and ``mates``, the pool of all positives where they are summed."""

    anchors: Tensor
    candidates: Tensor
    scale: Tensor
    positive: Tensor
    pools: tuple[Pool, ...]
    mates: Pool | None
    teacher: Teacher | None


@dataclasses.dataclass(frozen=True)
class Options:
    """What all directions of a call share. ``ids`` [b, n]: -1 leaves a row out; ``grouped``: equal ids are mates."""

    ids: Tensor | None
    grouped: bool
    positives: str
    label_smoothing: float
    margin: float | None
    stats: bool
    workspace: int
    backend: str


def sides(
    x: Tensor, y: Tensor, scale: Tensor, teacher: Teacher | None, options: Options, both: bool
) -> tuple[Side, ...]:
    """Anchors x with candidates y and, if ``both``, the reverse, from one pass over S (two for positives="in")."""
    negatives = {"pair": "same" if options.grouped else "diagonal", "in": "same", "out": "none"}[options.positives]
    pools, positive = _batch_pools(x, y, scale, options, negatives, both)
    mates: tuple[Pool | None, ...] = (None, None)
    if options.positives == "in":
        mates, _ = _batch_pools(x, y, scale, options, "different", both)
    forth = Side(x, y, scale, positive, pools[:1], mates[0], teacher)
    if not both:
        return (forth,)
    reverse = None if teacher is None else Teacher(teacher.candidates, teacher.anchors, teacher.scale)
    return forth, Side(y, x, scale, positive, pools[1:], mates[1], reverse)


def _batch_pools(
    x: Tensor, y: Tensor, scale: Tensor, options: Options, mask: str, both: bool
) -> tuple[tuple[Pool, ...], Tensor]:
    ids, cap = options.ids, None
    if options.margin is not None:
        cap = (scale * (dots(x, y) + options.margin)).detach()
    row_lse, col_lse, positive, _, row_best, row_mean, col_best, col_mean = info_nce_forward(
        x, y, scale, ids, ids, cap, cap if both else None, mask, both, options.stats, options.workspace, options.backend
    )
    if ids is not None:  # a row left out has no candidates; its loss, dropped later, must not be NaN
        row_lse, col_lse = (
            lse.masked_fill(ids < 0, 0.0) if lse.shape == ids.shape else lse for lse in (row_lse, col_lse)
        )
    row = Pool(row_lse, row_best, row_mean, partial(_count_and_total, x, y, ids, mask))
    col = Pool(col_lse, col_best, col_mean, partial(_count_and_total, y, x, ids, mask))
    return (row, col) if both else (row,), positive


def own_negatives(x: Tensor, negatives: Tensor, scale: Tensor) -> Pool:
    """The pool of each anchor's own negatives [b, n, h, d]."""
    products = torch.linalg.vecdot(x[:, :, None].to(scale.dtype), negatives.to(scale.dtype))
    logits = scale[:, :, None] * products
    fixed = logits.detach()
    count = torch.full_like(fixed[:, :, 0], negatives.shape[2])
    return Pool(logits.logsumexp(2), fixed.amax(2), (fixed.softmax(2) * fixed).sum(2), lambda: (count, products.sum(2)))


def queued(x: Tensor, queue: Tensor, scale: Tensor, options: Options) -> Pool:
    """The pool of the queue's rows [b, m, d], negatives of every anchor."""
    lse, _, _, _, best, mean, _, _ = info_nce_forward(
        x, queue, scale, None, None, None, None, "none", False, options.stats, options.workspace, options.backend
    )
    return Pool(lse, best, mean, partial(_count_and_total, x, queue, None, "none"))


def anchor_losses(side: Side, options: Options) -> tuple[Tensor, Tensor]:
    """The loss of each anchor and the log-sum-exp of all its candidates, [b, n]."""
    lses = [pool.lse for pool in side.pools]
    negatives = lses[0] if len(lses) == 1 else torch.stack(lses).logsumexp(0)
    smoothing = options.label_smoothing
    if side.mates is not None:
        count, _ = side.mates.count_and_total()
        # log(sum over all candidates / mean over the positives)
        loss = count.clamp_min(1).log() + softplus(negatives - side.mates.lse)
        return loss, torch.logaddexp(side.mates.lse, negatives)
    if options.positives == "pair" and not smoothing and side.teacher is None:
        # nothing cancels: exact where it is small
        return softplus(negatives - side.positive), torch.logaddexp(side.positive, negatives)
    everyone = options.positives == "out"  # the positives are in the pool already
    lse = negatives if everyone else torch.logaddexp(side.positive, negatives)
    target = side.positive
    if everyone:
        count, total = _count_and_total(side.anchors, side.candidates, options.ids, "different")
        target = side.scale * total / count.clamp_min(1)
    if side.teacher is not None:
        target = side.scale * _teacher_target(side, side.teacher, options)
    if smoothing:
        count, total = _sums(side.pools)
        if not everyone:
            count, total = count + 1, total + dots(side.anchors, side.candidates)
        target = (1 - smoothing) * target + smoothing * side.scale * total / count.clamp_min(1)
    return lse - target, lse


def summary(side: Side, options: Options) -> dict[str, Tensor]:
    """By-products for each anchor, [b, n]: see ``modalign.contrastive.Stats``."""
    everyone = options.positives == "out"
    best = torch.stack([pool.best for pool in side.pools]).amax(0)
    count, total = _sums(side.pools)
    log_count = count if everyone else count + 1
    if everyone or side.mates is not None:
        mates = _count_and_total(side.anchors, side.candidates, options.ids, "different")
        if everyone:
            count, total = count - mates[0], total - mates[1]
        else:
            log_count = count + mates[0]
    of_pair = (side.positive, side.positive) if side.mates is None else (side.mates.lse, side.mates.mean)
    negatives = [(pool.lse, pool.mean) for pool in side.pools]
    return {
        "accuracy": (side.positive >= best).to(best.dtype),
        "positive": dots(side.anchors, side.candidates),
        "negative": total / count.clamp_min(1),
        "log_count": log_count.clamp_min(1).log(),
        "entropy": _entropy(negatives if everyone else [*negatives, of_pair]),
        "effective_negatives": torch.where(count > 0, _entropy(negatives).exp(), 0.0),
    }


def _entropy(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Of the softmax over the union of parts, from (log-sum-exp, mean logit under its own softmax) of each."""
    lse = torch.stack([part for part, _ in parts]).logsumexp(0)
    shares = [((part - lse).exp().nan_to_num(0.0), mean) for part, mean in parts]
    return (lse - sum(share * mean for share, mean in shares)).nan_to_num(0.0, 0.0, 0.0)


def _sums(pools: tuple[Pool, ...]) -> tuple[Tensor, Tensor]:
    """How many candidates all pools have, and the sum of their inner products with the anchor."""
    counts, totals = zip(*(pool.count_and_total() for pool in pools), strict=True)
    return torch.stack(counts).sum(0), torch.stack(totals).sum(0)


def _teacher_target(side: Side, teacher: Teacher, options: Options) -> Tensor:
    """sum_j q_ij <a_i, b_j> for q the softmax of the teacher's similarities over the same candidates, tile by tile."""
    a, b, scale, ids = teacher.anchors, teacher.candidates, teacher.scale, options.ids
    mask = "same" if options.grouped else "diagonal"
    with torch.no_grad():
        negatives, _, positive, stored, *_ = info_nce_forward(
            a, b, scale, ids, ids, None, None, mask, False, False, options.workspace, options.backend
        )
        lse = torch.logaddexp(positive, negatives)
        none = lse[:, :0]
    # the rows of W are the teacher's softmax: its scale is divided out again
    of_pair = (positive - lse).exp() / scale
    mixed, _ = info_nce_backward(
        1 / scale, none, of_pair, a, b, side.candidates, None, scale, ids, ids, None, None, mask, lse, none, stored,
        options.backend,
    )  # fmt: skip
    target: Tensor = torch.linalg.vecdot(side.anchors.to(mixed.dtype), mixed)
    return target


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x); beyond 40 the 1 is below the last digit. Not logsigmoid, which waits for all threads whatever the
    size (torch 2.13)."""
    return F.softplus(x, threshold=40)


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of paired rows, in the dtype sums are kept in."""
    products: Tensor = torch.linalg.vecdot(a.to(accumulator(a.dtype)), b.to(accumulator(b.dtype)))
    return products


def _count_and_total(a: Tensor, b: Tensor, ids: Tensor | None, mask: str) -> tuple[Tensor, Tensor]:
    """How many of b's rows an anchor's pool has, and the sum of its inner products with them, [b, n], in O(n d)."""
    dtype = accumulator(a.dtype)
    if ids is None:
        count = torch.full(a.shape[:2], b.shape[1] - (mask == "diagonal"), dtype=dtype, device=a.device)
        total = dots(a, b.to(dtype).sum(1, keepdim=True))
        return count, total - dots(a, b) if mask == "diagonal" else total
    present, b = (ids >= 0).to(dtype), b.to(dtype)
    count, total = present.sum(1, keepdim=True), dots(a, (b * present[..., None]).sum(1, keepdim=True))
    if mask == "diagonal":
        count, total = count - 1, total - dots(a, b)
    elif mask != "none":
        # the slot after the last gathers the rows that are left out
        slots = torch.where(ids >= 0, ids, ids.shape[1])
        index = slots[..., None].expand_as(b)
        sizes = present.new_zeros(len(ids), ids.shape[1] + 1).scatter_add(1, slots, present).gather(1, slots)
        sums = b.new_zeros(len(b), b.shape[1] + 1, b.shape[2]).scatter_add(1, index, b).gather(1, index)
        mates = sizes, dots(a, sums)
        count, total = mates if mask == "different" else (count - mates[0], total - mates[1])
    return count * present, total * present
