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
from torch import Tensor

from modalign.common.deterministic import softplus
from modalign.common.dtypes import accumulator
from modalign.losses.inputs import without_autocast
from modalign.ops.info_nce import info_nce_backward, info_nce_forward

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
    "summary",
    "union",
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
    pairs' logits, ``cap`` the largest logits that negatives may have, ``pools`` of negatives, and ``mates``, the pool
    of all positives where they are summed."""

    anchors: Tensor
    candidates: Tensor
    scale: Tensor
    positive: Tensor
    cap: Tensor | None
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
    # of SupCon's positives but the own pair, "out" has the others in the pool, and "in" none
    negatives = {"pair": "same" if options.grouped else "diagonal", "in": "same", "out": "diagonal"}[options.positives]
    cap = None if options.margin is None else _cap(x, y, scale, options.margin)
    pools, positive = _batch_pools(x, y, scale, cap, options, negatives, both)
    mates: tuple[Pool | None, ...] = (None, None)
    if options.positives == "in":
        mates, _ = _batch_pools(x, y, scale, None, options, "different", both)
    forth = Side(x, y, scale, positive, cap, pools[:1], mates[0], teacher)
    if not both:
        return (forth,)
    reverse = None if teacher is None else Teacher(teacher.candidates, teacher.anchors, teacher.scale)
    return forth, Side(y, x, scale, positive, cap, pools[1:], mates[1], reverse)


def _cap(x: Tensor, y: Tensor, scale: Tensor, margin: float) -> Tensor:
    """The logits of the pairs and the margin, and what the rounding of two inner products may add: a tie counts."""
    with torch.no_grad():
        lengths = [torch.linalg.vector_norm(rows, dim=-1, dtype=scale.dtype) for rows in (x, y)]
        slack = 32 * torch.finfo(scale.dtype).eps * lengths[0] * lengths[1]
        cap: Tensor = scale * (dots(x, y) + margin + slack)
    return cap


def _batch_pools(
    x: Tensor, y: Tensor, scale: Tensor, cap: Tensor | None, options: Options, mask: str, both: bool
) -> tuple[tuple[Pool, ...], Tensor]:
    ids = options.ids
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


def own_negatives(side: Side, negatives: Tensor) -> Pool:
    """The pool of each anchor's own negatives [b, n, h, d]."""
    products = dots(side.anchors[:, :, None], negatives)
    logits = side.scale[:, :, None] * products
    if side.cap is not None:
        logits = logits.masked_fill(logits > side.cap[:, :, None], -torch.inf)
    fixed = logits.detach()
    lse, best = union(logits, 2), fixed.amax(2)
    mean = ((fixed - lse.detach()[:, :, None]).exp() * fixed).nan_to_num(0.0).sum(2)
    count = torch.full_like(best, negatives.shape[2])
    return Pool(lse, best, mean, lambda: (count, products.sum(2)))


def queued(side: Side, queue: Tensor, options: Options) -> Pool:
    """The pool of the queue's rows [b, m, d], negatives of every anchor."""
    x = side.anchors
    lse, _, _, _, best, mean, _, _ = info_nce_forward(
        x, queue, side.scale, None, None, side.cap, None, "none", False, options.stats, options.workspace,
        options.backend,
    )  # fmt: skip
    return Pool(lse, best, mean, partial(_count_and_total, x, queue, None, "none"))


def anchor_losses(side: Side, options: Options) -> tuple[Tensor, Tensor]:
    """The loss of each anchor and the log-sum-exp of all its candidates, [b, n]."""
    lses = [pool.lse for pool in side.pools]
    negatives = lses[0] if len(lses) == 1 else union(torch.stack(lses), 0)
    smoothing = options.label_smoothing
    if side.mates is not None:
        count, _ = side.mates.count_and_total()
        # log(sum over all candidates / mean over the positives)
        of_negatives = softplus(negatives - side.mates.lse)
        return count.clamp_min(1).log() + of_negatives, side.mates.lse + of_negatives
    of_negatives = softplus(negatives - side.positive)
    # where the pair is the target nothing cancels: exact where it is small
    loss = of_negatives
    if options.positives == "out":
        loss = loss + side.scale * _lead_over_mates(side.anchors, side.candidates, options.ids)
    if side.teacher is not None:
        loss = loss + side.positive - side.scale * _teacher_target(side, side.teacher, options)
    if smoothing:
        count, total = _sums(side.pools)
        mean = (total + dots(side.anchors, side.candidates)) / (count + 1)
        loss = (1 - smoothing) * loss + smoothing * (of_negatives + side.positive - side.scale * mean)
    return loss, side.positive + of_negatives


def summary(side: Side, options: Options) -> dict[str, Tensor]:
    """By-products for each anchor, [b, n]: see ``modalign.losses.functional.Stats``."""
    best = torch.stack([pool.best for pool in side.pools]).amax(0)
    count, total = _sums(side.pools)
    pair = dots(side.anchors, side.candidates)
    log_count = count + 1
    everyone = options.positives == "out"
    if everyone or side.mates is not None:
        mates = _count_and_total(side.anchors, side.candidates, options.ids, "different")
        if everyone:
            count, total = count + 1 - mates[0], total + pair - mates[1]
        else:
            log_count = count + mates[0]
    of_pair = (side.positive, side.positive) if side.mates is None else (side.mates.lse, side.mates.mean)
    negatives = [(pool.lse, pool.mean) for pool in side.pools]
    there = torch.stack([lse for lse, _ in negatives]).amax(0) > -torch.inf
    return {
        "accuracy": (side.positive >= best).to(best.dtype),
        "positive": pair,
        "negative": total / count.clamp_min(1),
        "log_count": log_count.clamp_min(1).log(),
        "entropy": _entropy([*negatives, of_pair]),
        "effective_negatives": torch.where(
            there | everyone, _entropy([*negatives, of_pair] if everyone else negatives).exp(), 0.0
        ),
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
        lse = positive + softplus(negatives - positive)
        none = lse[:, :0]
    # the rows of W are the teacher's softmax: its scale is divided out again
    of_pair = (positive - lse).exp() / scale
    mixed, _ = info_nce_backward(
        1 / scale, none, of_pair, a, b, side.candidates, None, scale, ids, ids, None, None, mask, lse, none, stored,
        options.backend,
    )  # fmt: skip
    return dots(side.anchors, mixed)


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of paired rows, in the dtype sums are kept in."""
    with without_autocast(a):
        products: Tensor = torch.linalg.vecdot(a.to(accumulator(a.dtype)), b.to(accumulator(b.dtype)))
    return products


def union(logs: Tensor, dim: int) -> Tensor:
    """log-sum-exp along ``dim``; where all are -inf it is -inf too, with the gradient 0."""
    nothing = (logs == -torch.inf).all(dim, keepdim=True)
    return logs.masked_fill(nothing, 0.0).logsumexp(dim).masked_fill(nothing.squeeze(dim), -torch.inf)


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
        sizes, sums = _group_sums(b, ids)
        mates = sizes, dots(a, sums)
        count, total = mates if mask == "different" else (count - mates[0], total - mates[1])
    return count * present, total * present


def _lead_over_mates(a: Tensor, b: Tensor, ids: Tensor | None) -> Tensor:
    """<a_i, b_i> less the mean of <a_i, b_j> over the rows j of i's group, [b, n]: exactly 0 for a row alone."""
    assert ids is not None
    sizes, sums = _group_sums(b.to(accumulator(b.dtype)), ids)
    return dots(a, sizes[..., None] * b - sums) / sizes


def _group_sums(b: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """How many rows the group of each row has, [b, n], and their sum, [b, n, d]."""
    # the slot after the last gathers the rows that are left out
    slots = torch.where(ids >= 0, ids, ids.shape[1])
    index = slots[..., None].expand_as(b)
    sizes = b.new_zeros(len(ids), ids.shape[1] + 1).scatter_add(1, slots, torch.ones_like(slots, dtype=b.dtype))
    sums = b.new_zeros(len(b), b.shape[1] + 1, b.shape[2]).scatter_add(1, index, b).gather(1, index)
    return sizes.gather(1, slots), sums
