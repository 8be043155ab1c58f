"""Rows divided by their Euclidean norms, with a backward pass that needs only the rows and two numbers for each.

    u = x / |x|        dx = (g - u <u, g>) / |x|

Written with torch's operations this would keep three more tables, and on the CPU take a quarter of a small batch's
step. A zero row stays zero, and its gradient passes unchanged. The size of a row, a number near its largest entry, is
divided out before entries are squared, so that no norm overflows or vanishes.

On the CPU the operators ``modalign::unit_rows`` and ``modalign::unit_rows_backward`` compute this; on other devices
torch's operations do, which a compiler can fuse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.common.checks import refuse_forward_mode
from modalign.common.dtypes import accumulator
from modalign.ops.transforms import Context, differentiable, register_vmap

__all__ = ["backward_operator", "forward_operator", "unit_rows"]


def unit_rows(x: Tensor) -> Tensor:
    """Return x (..., d) with rows of length one, in x's dtype, computed in float32 at least.

    Peak memory is one table, and a float32 copy for half precision.
    """
    divide = _forward if x.device.type == "cpu" else _ByTorch.apply
    unit: Tensor = divide(x.reshape(-1, x.shape[-1]))[0]
    return unit.reshape(x.shape)


@torch.library.custom_op("modalign::unit_rows", mutates_args=())
def forward_operator(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the unit rows of x (n, d) on the CPU, and their sizes and norms (n, 1), in float32 at least."""
    from modalign.ops import _cpp

    unit, size, norm = _cpp.unit_rows(_wide(x).contiguous())
    return unit.to(x.dtype), size, norm


@forward_operator.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    size, norm = (x.new_empty((x.shape[0], 1), dtype=accumulator(x.dtype)) for _ in range(2))
    return x.new_empty(x.shape), size, norm


@torch.library.custom_op("modalign::unit_rows_backward", mutates_args=())
def backward_operator(grad: Tensor, x: Tensor, size: Tensor, norm: Tensor) -> Tensor:
    """Return the gradient of x (n, d) from that of its unit rows, and their sizes and norms (n, 1)."""
    from modalign.ops import _cpp

    dx = _cpp.unit_rows_backward(*(table.contiguous() for table in (_wide(grad), _wide(x), size, norm)))
    return dx.to(x.dtype)


@backward_operator.register_fake
def _(grad: Tensor, x: Tensor, size: Tensor, norm: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _save_forward(ctx: Context, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *output[1:])


def _differentiate_forward(ctx: Context, grad: Tensor | None, *_: None) -> Tensor | None:
    if grad is None:
        return None
    dx: Tensor = _backward(grad, *ctx.saved_tensors)
    return dx


def _save_backward(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_backward(ctx: Context, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    grad, x, size, _ = ctx.saved_tensors
    pull = torch.func.vjp(lambda grad, x: _gradient(grad, x, size), grad, x)[1]
    return *pull(cotangent), None, None


def _gradient(grad: Tensor, x: Tensor, size: Tensor) -> Tensor:
    """Return the gradient of x by torch's operations, which show how the norm depends on the rows."""
    rows, wide = _wide(x) / size, _wide(grad)
    length = _nonzero(torch.linalg.vector_norm(rows, dim=-1, keepdim=True))
    unit = rows / length
    dx: Tensor = (wide - unit * torch.linalg.vecdot(unit, wide)[..., None]) / length / size
    return dx.to(x.dtype)


_forward = differentiable(forward_operator, _save_forward, _differentiate_forward)
_backward = differentiable(backward_operator, _save_backward, _differentiate_backward)
register_vmap(forward_operator, {})
register_vmap(backward_operator, {})


class _ByTorch(torch.autograd.Function):
    """The operators by torch's operations, for devices other than the CPU."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide = _wide(x)
        size = _nonzero(torch.linalg.vector_norm(wide, ord=torch.inf, dim=-1, keepdim=True))
        rows = wide / size
        norm = _nonzero(torch.linalg.vector_norm(rows, dim=-1, keepdim=True))
        return rows.div_(norm).to(x.dtype), size, norm

    setup_context = staticmethod(_save_forward)
    jvp = staticmethod(refuse_forward_mode)

    @staticmethod
    def backward(ctx: Context, grad: Tensor | None, *_: None) -> Tensor | None:
        if grad is None:
            return None
        x, size, norm = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative follows
            return _gradient(grad, x, size)
        wide = _wide(grad)
        unit = (_wide(x) / size).div_(norm)
        dot = torch.linalg.vecdot(unit, wide)[..., None]
        dx: Tensor = torch.addcmul(wide, unit, dot, value=-1).div_(norm).div_(size)
        return dx.to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    """Return the table in the dtype that norms are computed in: float64 for float64, float32 otherwise."""
    return x.to(accumulator(x.dtype))


def _nonzero(size: Tensor) -> Tensor:
    """Return the sizes with 1 in place of 0."""
    return torch.where(size > 0, size, 1.0)
