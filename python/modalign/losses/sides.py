"""The loss of each anchor, from the log-sum-exps of its pools of candidates.

An anchor a_i has candidates b_j. Its negatives lie in pools: the batch, its hard negatives, a queue. With N_i the
log-sum-exp of all negatives and p_i = S_ii the logit of the pair,

    loss_i = log(exp p_i + exp N_i) - p_i = log(1 + exp(N_i - p_i))

Other targets t_ij replace p_i by sum_j t_ij S_ij = scale_i <a_i, sum_j t_ij b_j>, which takes one more product of
O(n d). All tables are [problems, rows, ...].
"""

from __future__ import annotations

import dataclasses
from functools import partial

import torch
from torch import Tensor

from modalign.common.deterministic import softplus
from modalign.distributed.calls import Call
from modalign.distributed.info_nce import ShardedOptions, ShardedSums, sharded_info_nce
from modalign.distributed.rows import gather_rows
from modalign.losses.pools import Pool, count_and_total, dots, lead_over_mates, sum_pools, union
from modalign.ops.info_nce import info_nce_backward, info_nce_forward
from modalign.ops.loss_tables import ForwardOptions, LossTables, Sums, WeightTables

__all__ = [
    "Direction",
    "SharedOptions",
    "Side",
    "Teacher",
    "anchor_losses",
    "build_sides",
    "hard_negative_pool",
    "queue_pool",
]


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The embeddings whose similarities give soft targets: of anchors and candidates, and their scale [problems, n]."""

    anchors: Tensor
    candidates: Tensor
    scale: Tensor

    def reversed(self) -> Teacher:
        """Return the teacher of the other direction."""
        return Teacher(self.candidates, self.anchors, self.scale)


@dataclasses.dataclass(frozen=True)
class Direction:
    """Anchors and candidates, row i paired with row i, the anchors' scale [problems, n], and a teacher or None."""

    anchors: Tensor
    candidates: Tensor
    scale: Tensor
    teacher: Teacher | None

    def reversed(self) -> Direction:
        """Return the direction from the candidates to the anchors."""
        teacher = None if self.teacher is None else self.teacher.reversed()
        return Direction(self.candidates, self.anchors, self.scale, teacher)


@dataclasses.dataclass(frozen=True)
class Side:
    """The anchors of one direction with all that their losses need.

    Attributes:
        direction: anchors, candidates, scale and teacher.
        positive: [problems, n] the logits of the pairs.
        cap: [problems, n] the largest logit that a negative may have to count, or None.
        pools: the pools of negatives.
        mates: the pool of all positives, where the loss sums over them (positives="in"); None otherwise.
    """

    direction: Direction
    positive: Tensor
    cap: Tensor | None
    pools: tuple[Pool, ...]
    mates: Pool | None


@dataclasses.dataclass(frozen=True)
class SharedOptions:
    """The settings that all directions of a call share.

    Attributes:
        ids: [problems, n] int64, equal for the rows of a group, -1 for a row that is ignored; or None.
        kept: [problems, n] bool, the rows that are not ignored; None if no row is.
        grouped: whether equal ids are mates. Without groups ids only mark the rows that are ignored.
        positives, label_smoothing, margin, backend: as in ``modalign.info_nce``.
        stats: whether by-products are computed.
        workspace: bytes of logits to keep for the backward pass.
        check_finite: whether NaN and inf in embeddings raise an error.
        call: the ranks that share the batch; None for this process alone.
    """

    ids: Tensor | None
    kept: Tensor | None
    grouped: bool
    positives: str
    label_smoothing: float
    margin: float | None
    stats: bool
    workspace: int
    check_finite: bool
    backend: str
    call: Call | None = None

    def forward_options(self, *, columns: bool) -> ForwardOptions:
        """Return what a pass over S computes."""
        return ForwardOptions(columns, self.stats, self.workspace, check_finite=self.check_finite)


def build_sides(rows: Direction, options: SharedOptions, *, both: bool) -> tuple[Side, ...]:
    """Return the side of a direction and, if ``both``, that of its reverse.

    One pass over S gives both sides, two passes for positives="in".
    """
    # the batch's pool holds, besides the negatives, the other positives of "out"; that of "in" holds no positive
    mask = {"pair": "same" if options.grouped else "diagonal", "in": "same", "out": "diagonal"}[options.positives]
    cap = None if options.margin is None else _cap(rows, options.margin)
    pools, positive = _batch_pools(rows, options, mask, cap=cap, both=both)
    mates: tuple[Pool | None, ...] = (None, None)
    if options.positives == "in":
        mates, _ = _batch_pools(rows, options, "different", cap=None, both=both)
    return tuple(
        Side(direction, positive, cap, pools=(pool,), mates=positives)
        for direction, pool, positives in zip((rows, rows.reversed()), pools, mates, strict=False)
    )


def _cap(rows: Direction, margin: float) -> Tensor:
    """Return the logits of the pairs plus the margin, and plus the rounding of two inner products: a tie counts."""
    x, y, scale = rows.anchors, rows.candidates, rows.scale
    with torch.no_grad():
        lengths = [torch.linalg.vector_norm(table, dim=-1, dtype=scale.dtype) for table in (x, y)]
        slack = 32 * torch.finfo(scale.dtype).eps * lengths[0] * lengths[1]
        cap: Tensor = scale * (dots(x, y) + margin + slack)
    return cap


def _batch_pools(
    rows: Direction, options: SharedOptions, mask: str, *, cap: Tensor | None, both: bool
) -> tuple[tuple[Pool, ...], Tensor]:
    """Return the pools of the anchors and, if ``both``, of the candidates, in the batch, and the pairs' logits."""
    x, y, ids = rows.anchors, rows.candidates, options.ids
    tables = LossTables(x, y, rows.scale, row_id=ids, col_id=ids, row_cap=cap, col_cap=cap if both else None, mask=mask)
    sums = _sums(tables, options, columns=both)
    row_lse, col_lse = sums.row_lse, sums.col_lse
    if ids is not None:  # a row left out has no candidates; its loss, dropped later, must not be NaN
        row_lse, col_lse = (
            lse.masked_fill(ids < 0, 0.0) if lse.shape == ids.shape else lse for lse in (row_lse, col_lse)
        )
    count = partial(count_and_total, ids=ids, mask=mask, call=options.call)
    row = Pool(row_lse, sums.row_best, sums.row_mean, partial(count, x, y))
    col = Pool(col_lse, sums.col_best, sums.col_mean, partial(count, y, x))
    return (row, col) if both else (row,), sums.positive


def _sums(tables: LossTables, options: SharedOptions, *, columns: bool) -> Sums | ShardedSums:
    """Return the sums of rows and columns in the batch, of this process or of all ranks."""
    if options.call is None:
        return info_nce_forward(tables, options.forward_options(columns=columns), options.backend)
    ids = tables.row_id is not None
    sharded = ShardedOptions(columns, options.stats, options.check_finite, ids_elsewhere=ids, backend=options.backend)
    return sharded_info_nce(tables, sharded, options.call)


def hard_negative_pool(side: Side, negatives: Tensor) -> Pool:
    """Return the pool of the negatives [problems, n, h, d] that each anchor has for itself."""
    products = dots(side.direction.anchors[:, :, None], negatives)
    logits = side.direction.scale[:, :, None] * products
    if side.cap is not None:
        logits = logits.masked_fill(logits > side.cap[:, :, None], -torch.inf)
    fixed = logits.detach()
    lse, best = union(logits, 2), fixed.amax(2)
    mean = ((fixed - lse.detach()[:, :, None]).exp() * fixed).nan_to_num(0.0).sum(2)
    count = torch.full_like(best, negatives.shape[2])
    return Pool(lse, best, mean, lambda: (count, products.sum(2)))


def queue_pool(side: Side, queue: Tensor, options: SharedOptions) -> Pool:
    """Return the pool of the rows of a queue [problems, m, d], which are negatives of every anchor."""
    anchors = side.direction.anchors
    tables = LossTables(anchors, queue, side.direction.scale, row_cap=side.cap)
    # several ranks hear of each other's overflow from the caller, unless they are compiled
    check_finite = options.check_finite and (options.call is None or torch.compiler.is_compiling())
    forward_options = ForwardOptions(False, options.stats, options.workspace, check_finite=check_finite, pairs=False)
    sums = info_nce_forward(tables, forward_options, options.backend)
    count = partial(count_and_total, anchors, queue, ids=None, mask="none")
    return Pool(sums.row_lse, sums.row_best, sums.row_mean, count)


def anchor_losses(side: Side, options: SharedOptions) -> tuple[Tensor, Tensor]:
    """Return the loss of each anchor and the log-sum-exp of all its candidates, [problems, n]."""
    rows = side.direction
    lses = [pool.lse for pool in side.pools]
    negatives = lses[0] if len(lses) == 1 else union(torch.stack(lses), 0)
    smoothing = options.label_smoothing
    if side.mates is not None:
        count, _ = side.mates.count_and_total()
        # log(sum over all candidates / mean over the positives)
        excess = softplus(negatives - side.mates.lse)
        return count.clamp_min(1).log() + excess, side.mates.lse + excess
    excess = softplus(negatives - side.positive)
    # where the pair is the target nothing cancels: the loss is exact where it is small
    loss = excess
    if options.positives == "out":
        loss = loss + rows.scale * lead_over_mates(rows.anchors, rows.candidates, options.ids, options.call)
    if rows.teacher is not None:
        loss = loss + side.positive - rows.scale * _teacher_target(rows, rows.teacher, options)
    if smoothing:
        count, total = sum_pools(side.pools)
        mean = (total + dots(rows.anchors, rows.candidates)) / (count + 1)
        loss = (1 - smoothing) * loss + smoothing * (excess + side.positive - rows.scale * mean)
    return loss, side.positive + excess


def _teacher_target(rows: Direction, teacher: Teacher, options: SharedOptions) -> Tensor:
    """Return sum_j q_ij <a_i, b_j>, where q is the softmax of the teacher's similarities over the same candidates."""
    a, b, scale, ids = teacher.anchors, teacher.candidates, teacher.scale, options.ids
    mask = "same" if options.grouped else "diagonal"
    tables = LossTables(a, b, scale, row_id=ids, col_id=ids, mask=mask)
    with torch.no_grad():
        sums = _sums(tables, dataclasses.replace(options, stats=False), columns=False)
        lse = sums.positive + softplus(sums.row_lse - sums.positive)
    # the rows of W are the teacher's softmax: its scale is divided out again
    nothing = lse[:, :0]
    weights = WeightTables(
        grad_row=1 / scale,
        grad_col=nothing,
        grad_positive=(sums.positive - lse).exp() / scale,
        row_lse=lse,
        col_lse=nothing,
        stored=sums.stored if isinstance(sums, Sums) else lse.new_empty(0, b.shape[1]),
    )
    return dots(rows.anchors, _mixed(tables, weights, rows.candidates, options))


def _mixed(tables: LossTables, weights: WeightTables, candidates: Tensor, options: SharedOptions) -> Tensor:
    """Return W times the candidates, of this process or of all ranks."""
    call, backend = options.call, options.backend
    own, _ = info_nce_backward(tables, weights, candidates, None, backend=backend)
    if call is None:
        return own
    everyone = gather_rows(candidates, call)
    columns, ids = gather_rows(tables.right, call), options.ids
    ids = None if ids is None else gather_rows(ids, call)
    weights = dataclasses.replace(weights, grad_positive=weights.grad_col)
    mask = tables.mask if tables.mask == "same" else "none"
    for part in (slice(0, call.ranks.own.start), slice(call.ranks.own.stop, call.ranks.total)):
        if part.stop > part.start:
            col_id = None if ids is None else ids[:, part]
            block = dataclasses.replace(tables, y=columns[:, part], col_id=col_id, mask=mask)
            stored = weights.stored.new_empty(0, part.stop - part.start)
            block_weights = dataclasses.replace(weights, stored=stored)
            own = own + info_nce_backward(block, block_weights, everyone[:, part], None, backend=backend)[0]
    return own
