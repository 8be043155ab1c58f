"""The sigmoid_loss operators: the logistic loss of every entry of a similarity matrix that is never stored.

    row_loss_i = sum_j log(1 + exp(-z_ij (S_ij + bias)))      S_ij = logit_scale_i <x_i, y_j>      z_ij = 1 or -1

``modalign.reference.info_nce`` defines them. x [b, n, d], y [b, m, d], scale [b, n], bias [b], ids [b, n], [b, m].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modalign.common.dtypes import accumulator
from modalign.ops import _torch
from modalign.ops._transforms import differentiable, register_vmap
from modalign.ops.dispatch import Operation, select
from modalign.ops.info_nce import contiguous, implementations, raise_overflow, require_finite_tables, require_scales

__all__ = ["SIGMOID_LOSS", "sigmoid_loss_backward", "sigmoid_loss_forward"]

SIGMOID_LOSS = Operation("sigmoid_loss", implementations("sigmoid_loss"))


@torch.library.custom_op("modalign::sigmoid_loss_forward", mutates_args=())
def forward_operator(
    x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, backend: str,
) -> Tensor:  # fmt: skip
    forward = select(SIGMOID_LOSS, "forward", backend, x, y, logit_scale)
    row_loss: Tensor = forward(*map(contiguous, (x, y, logit_scale, bias, row_id, col_id)))
    if x.device.type == "cpu":  # elsewhere the check would make the host wait for the device
        require_scales("sigmoid_loss", logit_scale)
        require_finite_tables("sigmoid_loss", {"x": x, "y": y, "bias": bias[:, None]})
        if not bool(row_loss.isfinite().all()):
            raise_overflow("sigmoid_loss", x, y, logit_scale)
    return row_loss


@forward_operator.register_fake
def _(
    x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, backend: str,
) -> Tensor:  # fmt: skip
    return x.new_empty(x.shape[:2], dtype=accumulator(x.dtype))


@torch.library.custom_op("modalign::sigmoid_loss_backward", mutates_args=())
def backward_operator(
    grad_row: Tensor, x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, need_x: bool, need_y: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x and y ([b, 0, d] if not needed) and slope [b, n]: the derivative by S_ij + bias, summed over j."""
    backward = select(SIGMOID_LOSS, "backward", backend, x, y, logit_scale)
    tables = map(contiguous, (grad_row, x, y, logit_scale, bias, row_id, col_id))
    grads: tuple[Tensor, Tensor, Tensor] = backward(*tables, need_x, need_y)
    return grads


@backward_operator.register_fake
def _(
    grad_row: Tensor, x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, need_x: bool, need_y: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    b, n, d = x.shape
    shapes = ((b, n if need_x else 0, d), (b, y.shape[1] if need_y else 0, d), (b, n))
    dx, dy, slope = (x.new_empty(shape, dtype=accumulator(x.dtype)) for shape in shapes)
    return dx, dy, slope


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tables, ctx.backend = inputs
    ctx.save_for_backward(*tables)


def _differentiate_forward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, y, logit_scale, *_ = ctx.saved_tensors
    need_x, need_y, need_scale, need_bias = ctx.needs_input_grad[:4]
    dx, dy, slope = sigmoid_loss_backward(grad, *ctx.saved_tensors, need_x or need_scale, need_y, ctx.backend)
    return (
        dx.to(x.dtype) if need_x else None,
        dy.to(y.dtype) if need_y else None,
        torch.linalg.vecdot(x.to(dx.dtype), dx) / logit_scale if need_scale else None,
        slope.sum(1) if need_bias else None,
        None, None, None,
    )  # fmt: skip


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tables, _, _, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tables)


def _differentiate_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    five = _torch.sigmoid_loss_double_backward(*grads, *ctx.saved_tensors, ctx.needs_input_grad)  # type: ignore[call-arg,arg-type]
    return *five, *5 * [None]


sigmoid_loss_forward = differentiable(forward_operator, _save_forward, _differentiate_forward)
sigmoid_loss_backward = differentiable(backward_operator, _save_backward, _differentiate_backward)
register_vmap(forward_operator, {})
register_vmap(backward_operator, {})
