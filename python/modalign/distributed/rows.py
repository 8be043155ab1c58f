"""Rows and numbers of all ranks on each rank, with their derivatives."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from modalign.distributed.calls import CALL, Call
from modalign.distributed.transport import gathered, scattered, sum_in_order
from modalign.ops.transforms import differentiable

__all__ = ["gather_rows", "replicated", "sum_over_ranks", "total_of_ranks"]

Arguments = tuple[Any, ...]


@torch.library.custom_op("modalign::gather_rows", mutates_args=(), schema=f"(Tensor rows, {CALL}) -> Tensor")
def gather_operator(rows: Tensor, *arguments: Any) -> Tensor:
    """Return the rows (b, N, ...) of all ranks."""
    call = Call.of(*arguments)
    result = gathered(rows, call.ranks, call.wire)
    return result.clone() if result is rows else result


@gather_operator.register_fake
def _(rows: Tensor, *arguments: Any) -> Tensor:
    call = Call.of(*arguments)
    return rows.new_empty(len(rows), call.ranks.total, *rows.shape[2:])


@torch.library.custom_op("modalign::scatter_rows", mutates_args=(), schema=f"(Tensor rows, {CALL}) -> Tensor")
def scatter_operator(rows: Tensor, *arguments: Any) -> Tensor:
    """Return the sum over all ranks of this rank's rows of tables (b, N, ...)."""
    call = Call.of(*arguments)
    return scattered(rows.contiguous(), call.ranks, call.wire).clone()


@scatter_operator.register_fake
def _(rows: Tensor, *arguments: Any) -> Tensor:
    ranks = Call.of(*arguments).ranks
    return rows.new_empty(len(rows), ranks.sizes[ranks.rank], *rows.shape[2:])


@torch.library.custom_op(
    "modalign::sum_over_ranks", mutates_args=(), schema=f"(Tensor values, float factor, {CALL}) -> Tensor"
)
def sum_operator(values: Tensor, factor: float, *arguments: Any) -> Tensor:
    """Return the sum of the values of all ranks, in the order of the ranks: the same bits on each."""
    ranks = Call.of(*arguments).ranks
    alone = dataclasses.replace(ranks, sizes=(values.numel(),) * ranks.count)
    parts = gathered(values.reshape(1, -1), alone).reshape(ranks.count, *values.shape)
    return sum_in_order(parts, values.dtype).clone()


# factor: that of the gradient of a rank's values; 0 for the sum of the gradients of all ranks
@sum_operator.register_fake
def _(values: Tensor, factor: float, *arguments: Any) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("modalign::replicated", mutates_args=(), schema=f"(Tensor values, {CALL}) -> Tensor")
def replicated_operator(values: Tensor, *arguments: Any) -> Tensor:
    """Return the values."""
    return values.clone()


@replicated_operator.register_fake
def _(values: Tensor, *arguments: Any) -> Tensor:
    return torch.empty_like(values)


def _save_call(ctx: Any, inputs: Arguments, output: Tensor) -> None:
    ctx.call = Call.for_backward(inputs[1:])


def _save_factor(ctx: Any, inputs: Arguments, output: Tensor) -> None:
    ctx.factor, ctx.call = inputs[1], Call.for_backward(inputs[2:])
    ctx.nothing = (None,) * (len(inputs) - 1)


def _differentiate_gather(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _scatter(grad, *ctx.call), *len(ctx.call) * [None]


def _differentiate_replicated(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    call = Call.of(*ctx.call)
    return total_of_ranks(grad, call) / call.ranks.count, *len(ctx.call) * [None]


def _differentiate_scatter(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _gather(grad, *ctx.call), *len(ctx.call) * [None]


def _differentiate_sum(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.factor == 0:
        return _sum(grad, 0.0, *ctx.call), *ctx.nothing
    return grad * ctx.factor, *ctx.nothing


_gather = differentiable(gather_operator, _save_call, _differentiate_gather)
_scatter = differentiable(scatter_operator, _save_call, _differentiate_scatter)
_replicated = differentiable(replicated_operator, _save_call, _differentiate_replicated)
_sum = differentiable(sum_operator, _save_factor, _differentiate_sum)


def gather_rows(rows: Tensor, call: Call) -> Tensor:
    """Return the rows (b, N, ...) of all ranks. The gradient of a row is the sum of those of all ranks."""
    result: Tensor = _gather(rows, *call.flat())
    return result


def sum_over_ranks(values: Tensor, call: Call) -> Tensor:
    """Return the sum of the values of all ranks, a loss that each of them returns.

    The gradient of a rank's own values is that of the sum times the number of ranks, so that the mean of gradients over
    ranks, as DistributedDataParallel and FSDP take it, is the gradient of the sum.
    """
    result: Tensor = _sum(values, float(call.ranks.count), *call.flat())
    return result


def total_of_ranks(values: Tensor, call: Call) -> Tensor:
    """Return the sum of the values of all ranks, on which the rows of each depend: their gradients are summed, too."""
    result: Tensor = _sum(values, 0.0, *call.flat())
    return result


def replicated(values: Tensor, call: Call) -> Tensor:
    """Return values that are equal on all ranks, whose gradient is the mean over ranks on each.

    Their owner trains as one process does, whether DistributedDataParallel takes the mean of its gradients or not.
    """
    result: Tensor = _replicated(values, *call.flat())
    return result
