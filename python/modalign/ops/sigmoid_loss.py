"""The sigmoid_loss operators: the logistic loss of every entry of a similarity matrix that is never stored.

    row_loss_i = sum_j log(1 + exp(-z_ij (S_ij + bias)))     S_ij = logit_scale_i <x_i, y_j>

z_ij is 1 where i = j and -1 elsewhere. With ids z_ij is 1 where they are equal, and a negative id leaves out its whole
row or column. Caps and masks have no meaning here. ``modalign.reference.info_nce`` defines both operators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modalign.ops import _examples, _torch
from modalign.ops.dispatch import Operation, select
from modalign.ops.info_nce import (
    Arguments,
    finite_problems,
    loss_implementations,
    raise_overflow,
    require_finite_tables,
    require_scales,
)
from modalign.ops.loss_tables import LossTables
from modalign.ops.transforms import Context, differentiable, register_vmap

__all__ = ["SIGMOID_LOSS", "backward_operator", "forward_operator", "sigmoid_loss_backward", "sigmoid_loss_forward"]

SIGMOID_LOSS = Operation("sigmoid_loss", loss_implementations("sigmoid_loss"), _examples.paired_rows)

# the fields of LossTables that the loss has, in order, and the bias (b,) of each problem
TABLES = "Tensor x, Tensor y, Tensor logit_scale, Tensor? row_id, Tensor? col_id, Tensor bias"
FORWARD = f"({TABLES}, bool check_finite, str backend) -> Tensor"
BACKWARD = f"({TABLES}, Tensor grad_row, bool need_x, bool need_y, str backend) -> (Tensor, Tensor, Tensor)"
_BACKWARD_ARGUMENTS = ("x", "y", "logit_scale", "row_id", "col_id", "bias", "grad_row", "need_x", "need_y", "backend")
_TWICE_DIFFERENTIABLE = {"x", "y", "logit_scale", "bias", "grad_row"}


def _flat(tables: LossTables, bias: Tensor) -> tuple[Tensor | None, ...]:
    return (tables.x, tables.y, tables.logit_scale, tables.row_id, tables.col_id, bias)


@torch.library.custom_op("modalign::sigmoid_loss_forward", mutates_args=(), schema=FORWARD)
def forward_operator(*arguments: Any) -> Tensor:
    """Return the losses of the rows (b, n)."""
    tables, (bias, check_finite, backend) = LossTables(*arguments[:5]), arguments[5:]
    forward = select(SIGMOID_LOSS, "forward", backend, (tables.x, tables.y, tables.logit_scale))
    row_loss: Tensor = forward(tables.contiguous(), bias.contiguous())
    on_cpu = tables.x.device.type == "cpu"
    if on_cpu or check_finite:  # elsewhere the check makes the host wait for the device
        require_scales("sigmoid_loss", tables.logit_scale)
    if check_finite:
        require_finite_tables("sigmoid_loss", {"x": tables.x, "y": tables.y, "bias": bias[:, None]})
        if not bool(row_loss.isfinite().all()):
            raise_overflow("sigmoid_loss", tables.x, tables.right, tables.logit_scale)
    elif on_cpu:  # on a GPU NaN spreads by itself
        row_loss[~finite_problems(tables, row_loss, bias[:, None].abs())] = torch.nan
    return row_loss


@forward_operator.register_fake
def _(*arguments: Any) -> Tensor:
    tables = LossTables(*arguments[:5])
    return tables.x.new_empty(tables.x.shape[:2], dtype=tables.dtype)


@torch.library.custom_op("modalign::sigmoid_loss_backward", mutates_args=(), schema=BACKWARD)
def backward_operator(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x and y, (b, 0, d) if not needed, and the slope (b, n) of each row.

    The slope is the derivative by S_ij + bias, summed over j.
    """
    tables, (bias, grad_row, need_x, need_y, backend) = LossTables(*arguments[:5]), arguments[5:]
    backward = select(SIGMOID_LOSS, "backward", backend, (tables.x, tables.y, tables.logit_scale))
    needs = {"need_x": need_x, "need_y": need_y}
    grads: tuple[Tensor, Tensor, Tensor]
    grads = backward(tables.contiguous(), bias.contiguous(), grad_row.contiguous(), **needs)
    return grads


@backward_operator.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    tables, (_, _, need_x, need_y, _) = LossTables(*arguments[:5]), arguments[5:]
    b, n, m, d = tables.sizes
    shapes = ((b, n if need_x else 0, d), (b, m if need_y else 0, d), (b, n))
    dx, dy, slope = (tables.x.new_empty(shape, dtype=tables.dtype) for shape in shapes)
    return dx, dy, slope


def _save_forward(ctx: Context, inputs: Arguments, output: Tensor) -> None:
    *tensors, ctx.check_finite, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, None if ctx.check_finite else output)


def _differentiate_forward(ctx: Context, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return 8 * (None,)
    *saved, bias, row_loss = ctx.saved_tensors
    tables = LossTables(*saved)
    need_x, need_y, need_scale, _, _, need_bias, *_ = ctx.needs_input_grad
    if row_loss is not None:  # the gradient of a loss that is NaN is NaN
        grad = torch.where(row_loss.isnan(), row_loss, grad)
    dx, dy, slope = sigmoid_loss_backward(
        tables, bias, grad, need_x=need_x or need_scale, need_y=need_y, backend=ctx.backend
    )
    x = tables.x
    dscale = torch.linalg.vecdot(x.to(dx.dtype), dx) / tables.logit_scale if need_scale else None
    by_row = (dx.to(x.dtype) if need_x else None, dy.to(x.dtype) if need_y else None, dscale)
    return *by_row, None, None, slope.sum(1) if need_bias else None, None, None


def _save_backward(ctx: Context, inputs: Arguments, output: tuple[Tensor, ...]) -> None:
    *tensors, _, _, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _differentiate_backward(ctx: Context, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *saved, bias, grad_row = ctx.saved_tensors
    needed = {name for name, need in zip(_BACKWARD_ARGUMENTS, ctx.needs_input_grad, strict=True) if need}
    wanted = needed & _TWICE_DIFFERENTIABLE
    second = _torch.sigmoid_loss_double_backward(LossTables(*saved), bias, grad_row, grads=grads, wanted=wanted)
    return tuple(second.get(name) for name in _BACKWARD_ARGUMENTS)


_forward = differentiable(forward_operator, _save_forward, _differentiate_forward)
_backward = differentiable(backward_operator, _save_backward, _differentiate_backward)
register_vmap(forward_operator, {})
register_vmap(backward_operator, {})


def sigmoid_loss_forward(
    tables: LossTables, bias: Tensor, backend: str = "auto", *, check_finite: bool = True
) -> Tensor:
    """Return the losses of the rows (b, n) in two streams, differentiable in x, y, logit_scale and bias (b,).

    NaN or inf raises a ValueError with ``check_finite``, and makes the losses NaN without.
    """
    row_loss: Tensor = _forward(*_flat(tables, bias), check_finite, backend)
    return row_loss


def sigmoid_loss_backward(
    tables: LossTables, bias: Tensor, grad_row: Tensor, *, need_x: bool, need_y: bool, backend: str = "auto"
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x and y, (b, 0, d) if not needed, and the slope (b, n) of each row."""
    grads: tuple[Tensor, Tensor, Tensor] = _backward(*_flat(tables, bias), grad_row, need_x, need_y, backend)
    return grads
