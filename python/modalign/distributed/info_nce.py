"""The sharded info_nce operators: the log-sum-exps of the rows of a rank, over the columns of all ranks.

``modalign.ops.info_nce`` defines the sums. A rank computes the blocks of S that ``Ranks.blocks`` gives it: 2 n_r N d
FLOPs in the forward and 6 n_r N d in the backward pass. What its blocks add to the columns of other ranks goes to their
owners, so that each rank returns the complete sums of its own rows and columns. All ranks call an operator together.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from modalign.distributed.calls import CALL, Call, require_finite_everywhere
from modalign.distributed.ranks import Block
from modalign.distributed.transport import Gathered, exchanged, gathered
from modalign.ops.info_nce import TABLES, backward_operator, finite_problems, forward_operator
from modalign.ops.loss_tables import ForwardOptions, LossTables, Sums, WeightTables
from modalign.ops.transforms import differentiable

__all__ = ["ShardedOptions", "ShardedSums", "refuse_second_derivatives", "save_nothing", "sharded_info_nce"]

OPTIONS = "bool columns, bool stats, bool check_finite, bool ids_elsewhere, str backend"
FORWARD = f"({TABLES}, {OPTIONS}, {CALL}) -> ({', '.join(['Tensor'] * 8)})"
WEIGHTS = "Tensor grad_row, Tensor grad_col, Tensor grad_positive, Tensor row_lse, Tensor col_lse, Tensor table"
NEEDS = "bool need_x, bool need_y, bool ids_elsewhere, str backend"
BACKWARD = f"({TABLES}, {WEIGHTS}, {NEEDS}, {CALL}) -> (Tensor, Tensor)"
TABLE_FIELDS, OPTION_FIELDS, WEIGHT_FIELDS, NEED_FIELDS = 8, 5, 6, 4
Arguments = tuple[Any, ...]


class ShardedSums(NamedTuple):
    """The sums of the rows and columns of this rank, as ``modalign.ops.loss_tables.Sums`` has them.

    ``table`` holds the columns of all ranks where they were gathered, for the backward pass.
    """

    row_lse: Tensor
    col_lse: Tensor
    positive: Tensor
    row_best: Tensor
    row_mean: Tensor
    col_best: Tensor
    col_mean: Tensor
    table: Tensor


@dataclasses.dataclass(frozen=True)
class ShardedOptions:
    """The results that are wanted, and how.

    Attributes:
        columns: Compute the results of columns as well. Without effect in one stream.
        stats: Compute the largest logit and the mean logit under the softmax.
        check_finite: Raise a ValueError on every rank for NaN or inf on any.
        ids_elsewhere: Ids are numbers of the global batch. Otherwise they matter in the rank's own block alone.
        backend: The backend of the blocks.
    """

    columns: bool
    stats: bool
    check_finite: bool
    ids_elsewhere: bool
    backend: str


@dataclasses.dataclass(frozen=True)
class _Shard:
    """The tables of this rank, and the ids and caps of the columns of all ranks, (b, N) or None."""

    tables: LossTables
    col_id: Tensor | None
    col_cap: Tensor | None

    @classmethod
    def of(cls, tables: LossTables, call: Call, *, ids_elsewhere: bool) -> _Shard:
        own = tables.two_streams()
        ids = gathered(own.col_id, call.ranks) if ids_elsewhere and own.col_id is not None else None
        caps = None if own.col_cap is None else gathered(own.col_cap, call.ranks)
        return cls(tables, ids, caps)

    def block(self, block: Block, columns: Tensor) -> LossTables:
        """Return the tables of a block with columns (b, m, d) of other ranks, in two streams."""
        tables, rows = self.tables, block.rows
        with_ids = self.col_id is not None and tables.row_id is not None
        return LossTables(
            tables.x[:, rows],
            columns,
            tables.logit_scale[:, rows],
            row_id=_part(tables.row_id, rows) if with_ids else None,
            col_id=_part(self.col_id, block.columns) if with_ids else None,
            row_cap=_part(tables.row_cap, rows),
            col_cap=_part(self.col_cap, block.columns),
            mask=tables.mask if with_ids and tables.mask in ("same", "different") else "none",
        )


def _part(table: Tensor | None, columns: slice) -> Tensor | None:
    return None if table is None else table[:, columns]


@torch.library.custom_op("modalign::sharded_info_nce_forward", mutates_args=(), schema=FORWARD)
def sharded_forward(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the fields of ``ShardedSums``. The first three are differentiable."""
    tables, options, call = _unpack_forward(arguments)
    one_stream, ranks = tables.y is None, call.ranks
    shard = _Shard.of(tables, call, ids_elsewhere=options.ids_elsewhere)
    own_options = ForwardOptions(options.columns, options.stats, check_finite=False)
    own = Sums(*forward_operator(*tables.flat(), *own_options.flat(), options.backend))
    rows = _summary(own, options.stats, columns=False)
    both = options.columns or one_stream
    # what this rank knows of the columns of all ranks
    known = tables.logit_scale.new_full((len(rows), len(tables.x), ranks.total if both else 0), -torch.inf)
    if options.columns and not one_stream:
        known[:, :, ranks.own] = torch.stack(_summary(own, options.stats, columns=True))
    moving = call.moves.of(tables.right, ranks, call.wire, one_stream=one_stream)
    others = dataclasses.replace(own_options, columns=both, pairs=False)
    for block, columns in moving.visits():
        sums = Sums(*forward_operator(*shard.block(block, columns).flat(), *others.flat(), options.backend))
        joined = _join([one[:, block.rows] for one in rows], _summary(sums, options.stats, columns=False))
        for one, values in zip(rows, joined, strict=True):
            one[:, block.rows] = values
        if both:
            part = known[:, :, block.columns]
            part.copy_(torch.stack(_join(list(part), _summary(sums, options.stats, columns=True))))
    cols: list[Tensor] = []
    for part in exchanged(known, ranks) if both else ():
        if one_stream:
            rows = _join(rows, list(part))
        else:
            cols = _join(cols, list(part)) if cols else list(part)
    if options.check_finite:
        sums_of_problems = (rows[0], *cols[:1], own.positive.abs())
        finite = finite_problems(tables, *(table for table in sums_of_problems if table.shape[1])).all()
        require_finite_everywhere("nt_xent" if one_stream else "info_nce", tables, finite, ranks)
    tables_of_rows, tables_of_cols = (part + [_nothing(tables) for _ in range(3 - len(part))] for part in (rows, cols))
    row_lse, row_best, row_mean = tables_of_rows
    col_lse, col_best, col_mean = (table.clone() for table in tables_of_cols)
    table = moving.table if isinstance(moving, Gathered) else _nothing(tables)
    return (row_lse, col_lse, own.positive, row_best, row_mean, col_best, col_mean, table)


def _summary(sums: Sums, stats: bool, *, columns: bool) -> list[Tensor]:
    """Return the log-sum-exps of rows or columns and, with stats, their largest and mean logits."""
    found = [sums.col_lse, sums.col_best, sums.col_mean] if columns else [sums.row_lse, sums.row_best, sums.row_mean]
    return found if stats else found[:1]


def _join(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    """Return the summary of the entries of two summaries together."""
    lse = torch.logaddexp(first[0], second[0])
    if len(first) == 1:
        return [lse]
    shares = [(part[0] - lse).exp().nan_to_num(0.0) for part in (first, second)]
    means = [torch.where(part[0] == -torch.inf, 0.0, part[2]) for part in (first, second)]
    return [lse, torch.maximum(first[1], second[1]), shares[0] * means[0] + shares[1] * means[1]]


def _nothing(tables: LossTables) -> Tensor:
    return tables.logit_scale.new_empty(len(tables.x), 0)


def _unpack_forward(arguments: Arguments) -> tuple[LossTables, ShardedOptions, Call]:
    options = arguments[TABLE_FIELDS : TABLE_FIELDS + OPTION_FIELDS]
    return (
        LossTables(*arguments[:TABLE_FIELDS]),
        ShardedOptions(*options),
        Call.of(*arguments[TABLE_FIELDS + OPTION_FIELDS :]),
    )


@sharded_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    tables, options, call = _unpack_forward(arguments)
    b, n, d = tables.x.shape
    cols = n if options.columns and tables.y is not None else 0
    widths = (n, cols, 0 if tables.y is None else n, *(2 * [n * options.stats]), *(2 * [cols * options.stats]))
    kept = (b, call.ranks.total, d) if call.way == "gathered" else (b, 0)
    dtype = tables.x.dtype if call.way == "gathered" else tables.dtype
    return (*(tables.logit_scale.new_empty(b, width) for width in widths), tables.x.new_empty(kept, dtype=dtype))


@torch.library.custom_op("modalign::sharded_info_nce_backward", mutates_args=(), schema=BACKWARD)
def sharded_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Return the gradients of the rows of this rank, x (b, n, d) and y; (b, 0, d) for one that is not needed.

    They are those of the sum of the losses of all ranks. In one stream the first is the whole gradient.
    """
    tables, weights, table, (need_x, need_y, ids_elsewhere, backend), call = _unpack_backward(arguments)
    one_stream, ranks = tables.y is None, call.ranks
    shard = _Shard.of(tables, call, ids_elsewhere=ids_elsewhere)
    spelled = weights.two_streams() if one_stream else weights
    grad_col, col_lse = (gathered(one, ranks) if one.shape[1] else one for one in (spelled.grad_col, spelled.col_lse))
    dx, dy = _products(tables, weights, (need_x, need_y and not one_stream), backend)
    sums = dx if one_stream else dy  # what other ranks have for the columns of this one is added to it
    moving = call.moving(tables.right, table, one_stream=one_stream)
    moving.start_sums(sums)
    for block, columns in moving.visits():
        part = WeightTables(
            _columns(weights.grad_row, block.rows),
            _columns(grad_col, block.columns),
            weights.grad_positive[:, :0],
            row_lse=weights.row_lse[:, block.rows],
            col_lse=_columns(col_lse, block.columns),
            stored=weights.stored,
        )
        by_row, by_column = _products(shard.block(block, columns), part, (need_x, need_y), backend)
        if need_x:
            dx[:, block.rows] += by_row
        if need_y:
            moving.add(block, by_column)
        del columns, by_row, by_column  # before the next block is computed
    if need_y:
        sums += moving.collect()
    return dx, dy


def _products(
    tables: LossTables, weights: WeightTables, needs: tuple[bool, bool], backend: str
) -> tuple[Tensor, Tensor]:
    """Return W y and W' x, (b, 0, d) for one that is not needed."""
    v, u = tables.right if needs[0] else None, tables.x if needs[1] else None
    products: tuple[Tensor, Tensor] = backward_operator(*tables.flat(), *weights.flat(), v, u, backend)
    return products


def _columns(table: Tensor, columns: slice) -> Tensor:
    """Return some columns of a table, which may have none."""
    return table[:, columns] if table.shape[1] else table


def _unpack_backward(
    arguments: Arguments,
) -> tuple[LossTables, WeightTables, Tensor, tuple[bool, bool, bool, str], Call]:
    tables, rest = LossTables(*arguments[:TABLE_FIELDS]), arguments[TABLE_FIELDS:]
    *vectors, table = rest[:WEIGHT_FIELDS]
    stored = tables.logit_scale.new_empty(0, tables.right.shape[1])
    weights = WeightTables(*(*vectors, stored))
    need_x, need_y, ids_elsewhere, backend = rest[WEIGHT_FIELDS : WEIGHT_FIELDS + NEED_FIELDS]
    call = Call.of(*rest[WEIGHT_FIELDS + NEED_FIELDS :])
    return tables, weights, table, (need_x, need_y, ids_elsewhere, backend), call


@sharded_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    tables, _, _, (need_x, need_y, _, _), _ = _unpack_backward(arguments)
    b, n, d = tables.x.shape
    widths = (n if need_x else 0, n if need_y and tables.y is not None else 0)
    dx, dy = (tables.logit_scale.new_empty(b, width, d) for width in widths)
    return dx, dy


def _save(ctx: Any, inputs: Arguments, output: tuple[Tensor, ...]) -> None:
    *tables, ctx.mask = inputs[:TABLE_FIELDS]
    _, _, ctx.check_finite, ctx.ids_elsewhere, ctx.backend = inputs[TABLE_FIELDS : TABLE_FIELDS + OPTION_FIELDS]
    ctx.call = Call.for_backward(inputs[TABLE_FIELDS + OPTION_FIELDS :])
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tables, *output[:2], output[7])


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *saved, row_lse, col_lse, table = ctx.saved_tensors
    tables = LossTables(*(*saved, ctx.mask))
    need_x, need_y, need_scale = ctx.needs_input_grad[:3]
    one_stream = tables.y is None
    nothing = row_lse[:, :0]
    grad_row, grad_col, grad_positive = (nothing if grad is None else grad for grad in grads[:3])
    if not ctx.check_finite:  # the weight of a log-sum-exp that is NaN is NaN
        grad_row, grad_col = (
            torch.where(lse.isnan(), lse, grad) if grad.shape[1] else grad
            for lse, grad in ((row_lse, grad_row), (col_lse, grad_col))
        )
    need_rows = need_x or need_scale
    dx, dy = backward_of(
        *tables.flat(),
        *(grad_row, grad_col, grad_positive, row_lse, col_lse, table),
        *(need_rows, need_rows if one_stream else need_y, ctx.ids_elsewhere, ctx.backend),
        *ctx.call,
    )
    x, scale = tables.x, tables.logit_scale
    # the scale of a row enters its entries in this rank's blocks, and in one stream those that other ranks computed
    dscale = torch.linalg.vecdot(x.to(dx.dtype), dx) / ((2 if one_stream else 1) * scale) if need_scale else None
    others = len(ctx.needs_input_grad) - 3
    return dx.to(x.dtype) if need_x else None, dy.to(x.dtype) if need_y else None, dscale, *others * [None]


def save_nothing(ctx: Any, inputs: Arguments, output: tuple[Tensor, ...]) -> None:
    """Save nothing: there is no second derivative."""


def refuse_second_derivatives(ctx: Any, *grads: Tensor | None) -> NoReturn:
    raise NotImplementedError(
        "losses over several ranks have no second derivatives: compute them on one process with the rows of all ranks, "
        'modalign.gather(x), and process_group="self"'
    )


forward_of = differentiable(sharded_forward, _save, _differentiate)
backward_of = differentiable(sharded_backward, save_nothing, refuse_second_derivatives)


def sharded_info_nce(tables: LossTables, options: ShardedOptions, call: Call) -> ShardedSums:
    """Return the sums of the rows and columns of this rank; row_lse, col_lse and positive are differentiable."""
    return ShardedSums(*forward_of(*tables.flat(), *dataclasses.astuple(options), *call.flat()))
