"""The sharded sigmoid_loss operators: the losses of the rows of a rank, over the columns of all ranks.

``modalign.ops.sigmoid_loss`` defines the loss. In the blocks of other ranks no row meets its own column, so that all
entries are negatives, but for those of equal ids.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modalign.distributed.calls import CALL, Call, require_finite_everywhere
from modalign.distributed.info_nce import refuse_second_derivatives, save_nothing
from modalign.distributed.ranks import Block
from modalign.distributed.transport import Gathered, gathered
from modalign.ops.info_nce import finite_problems
from modalign.ops.loss_tables import LossTables
from modalign.ops.sigmoid_loss import TABLES, backward_operator, forward_operator
from modalign.ops.transforms import differentiable

__all__ = ["sharded_sigmoid_loss"]

FORWARD = f"({TABLES}, bool check_finite, str backend, {CALL}) -> (Tensor, Tensor)"
WEIGHTS = "Tensor grad_row, Tensor table, bool need_x, bool need_y, str backend"
BACKWARD = f"({TABLES}, {WEIGHTS}, {CALL}) -> (Tensor, Tensor, Tensor)"
TABLE_FIELDS = 5
Arguments = tuple[Any, ...]


def _flat(tables: LossTables, bias: Tensor) -> tuple[Tensor | None, ...]:
    return (tables.x, tables.y, tables.logit_scale, tables.row_id, tables.col_id, bias)


def _block(tables: LossTables, block: Block, columns: Tensor, ids: Tensor | None) -> LossTables:
    """Return the tables of a block with columns (b, m, d) of other ranks; ids (b, N) are those of all ranks."""
    x, scale = tables.x[:, block.rows], tables.logit_scale[:, block.rows]
    if ids is not None:
        row_id = None if tables.row_id is None else tables.row_id[:, block.rows]
        return LossTables(x, columns, scale, row_id=row_id, col_id=ids[:, block.columns])
    zeros, ones = (scale.new_full(part.shape[:2], value, dtype=torch.int64) for value, part in enumerate((x, columns)))
    return LossTables(x, columns, scale, row_id=zeros, col_id=ones)


@torch.library.custom_op("modalign::sharded_sigmoid_loss_forward", mutates_args=(), schema=FORWARD)
def sharded_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Return the losses of the rows (b, n), and the columns of all ranks where they were gathered."""
    tables, (bias, check_finite, backend, *call_fields) = (
        LossTables(*arguments[:TABLE_FIELDS]),
        arguments[TABLE_FIELDS:],
    )
    call = Call.of(*call_fields)
    ids = None if tables.col_id is None else gathered(tables.col_id, call.ranks)
    losses: Tensor = forward_operator(*_flat(tables, bias), False, backend)
    moving = call.moves.of(tables.right, call.ranks, call.wire, one_stream=False)
    for block, columns in moving.visits():
        part = _block(tables, block, columns, ids)
        losses[:, block.rows] += forward_operator(*_flat(part, bias), False, backend)
    if check_finite:
        finite = finite_problems(tables, losses, bias[:, None].abs()).all()
        require_finite_everywhere("sigmoid_loss", tables, finite, call.ranks)
    table = moving.table if isinstance(moving, Gathered) else losses.new_empty(len(losses), 0)
    return losses, table


@sharded_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    tables, call = LossTables(*arguments[:TABLE_FIELDS]), Call.of(*arguments[TABLE_FIELDS + 3 :])
    losses = torch.empty_like(tables.logit_scale)
    if call.way == "ring":
        return losses, losses.new_empty(len(losses), 0)
    return losses, tables.x.new_empty(len(losses), call.ranks.total, tables.x.shape[2])


@torch.library.custom_op("modalign::sharded_sigmoid_loss_backward", mutates_args=(), schema=BACKWARD)
def sharded_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x and y of this rank, (b, 0, d) if not needed, and the slope (b, n) of each row.

    The gradient of y is that of the sum of the losses of all ranks.
    """
    tables, rest = LossTables(*arguments[:TABLE_FIELDS]), arguments[TABLE_FIELDS:]
    bias, grad_row, table, need_x, need_y, backend, *call_fields = rest
    call = Call.of(*call_fields)
    ids = None if tables.col_id is None else gathered(tables.col_id, call.ranks)
    needs = (need_x, need_y, backend)
    dx, dy, slope = backward_operator(*_flat(tables, bias), grad_row, *needs)
    moving = call.moving(tables.right, table, one_stream=False)
    moving.start_sums(dy)
    for block, columns in moving.visits():
        part = _flat(_block(tables, block, columns, ids), bias)
        by_row, by_column, slopes = backward_operator(*part, grad_row[:, block.rows], *needs)
        slope[:, block.rows] += slopes
        if need_x:
            dx[:, block.rows] += by_row
        if need_y:
            moving.add(block, by_column)
        del columns, part, by_row, by_column  # before the next block is computed
    if need_y:
        dy += moving.collect()
    return dx, dy, slope


@sharded_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    tables, (_, _, _, need_x, need_y, *_) = LossTables(*arguments[:TABLE_FIELDS]), arguments[TABLE_FIELDS:]
    b, n, d = tables.x.shape
    dx, dy = (tables.logit_scale.new_empty(b, n if needed else 0, d) for needed in (need_x, need_y))
    return dx, dy, torch.empty_like(tables.logit_scale)


def _save(ctx: Any, inputs: Arguments, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.check_finite, ctx.backend = inputs[: TABLE_FIELDS + 3]
    ctx.call = Call.for_backward(inputs[TABLE_FIELDS + 3 :])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *saved, bias, losses, table = ctx.saved_tensors
    tables = LossTables(*saved)
    need_x, need_y, need_scale, _, _, need_bias, *rest = ctx.needs_input_grad
    if grad is None:
        return (None,) * (6 + len(rest))
    if not ctx.check_finite:  # the gradient of a loss that is NaN is NaN
        grad = torch.where(losses.isnan(), losses, grad)
    needs = (need_x or need_scale, need_y)
    dx, dy, slope = _backward(*_flat(tables, bias), grad, table, *needs, ctx.backend, *ctx.call)
    x = tables.x
    dscale = torch.linalg.vecdot(x.to(dx.dtype), dx) / tables.logit_scale if need_scale else None
    by_row = (dx.to(x.dtype) if need_x else None, dy.to(x.dtype) if need_y else None, dscale)
    return *by_row, None, None, slope.sum(1) if need_bias else None, *len(rest) * [None]


_forward = differentiable(sharded_forward, _save, _differentiate)
_backward = differentiable(sharded_backward, save_nothing, refuse_second_derivatives)


def sharded_sigmoid_loss(tables: LossTables, bias: Tensor, call: Call, backend: str, *, check_finite: bool) -> Tensor:
    """Return the losses of the rows (b, n) of this rank, differentiable in x, y, logit_scale and bias (b,).

    Ids, if there are any, are numbers of the global batch.
    """
    losses, _ = _forward(*_flat(tables, bias), check_finite, backend, *call.flat())
    result: Tensor = losses
    return result
