"""Rows divided by their Euclidean norms, with a backward pass that needs only the rows and two numbers for each.

    u = x / |x|        dx = (g - u <u, g>) / |x|

Written with torch's operations this would keep three more tables, and on the CPU take a quarter of a small batch's
step. A zero row stays zero, and its gradient passes unchanged. The size of a row, a number near its largest entry, is
divided out before entries are squared, so that no norm overflows or vanishes.

On the CPU every call goes through the operators ``modalign::unit_rows`` and ``modalign::unit_rows_backward``; on other
devices the rows are divided by torch's operations, which a compiler can fuse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.ops._transforms import Context, register_vmap

__all__ = ["unit_rows"]


def unit_rows(x: Tensor) -> Tensor:
    """Return x (..., d) with rows of length one, in x's dtype, computed in float32 at least.

    Peak memory is one table, and a float32 copy for half precision.
    """
    unit: Tensor = _UnitRows.apply(x.reshape(-1, x.shape[-1]))[0]  # type: ignore[no-untyped-call]
    return unit.reshape(x.shape)


@torch.library.custom_op("modalign::unit_rows", mutates_args=())
def forward_operator(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the unit rows of x (n, d), float32 or float64 on the CPU, and their sizes and norms (n, 1)."""
    from modalign.ops import _cpp

    return _cpp.unit_rows(x.contiguous())


@forward_operator.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(len(x), 1), x.new_empty(len(x), 1)


@torch.library.custom_op("modalign::unit_rows_backward", mutates_args=())
def backward_operator(grad: Tensor, x: Tensor, size: Tensor, norm: Tensor) -> Tensor:
    """Return the gradient of x (n, d) from that of its unit rows, and their sizes and norms (n, 1)."""
    from modalign.ops import _cpp

    return _cpp.unit_rows_backward(*(table.contiguous() for table in (grad, x, size, norm)))


@backward_operator.register_fake
def _(grad: Tensor, x: Tensor, size: Tensor, norm: Tensor) -> Tensor:
    return x.new_empty(x.shape)


class _UnitRows(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide = _wide(x)
        if x.device.type == "cpu":
            unit, size, norm = forward_operator(wide)
        else:
            size = _nonzero(torch.linalg.vector_norm(wide, ord=torch.inf, dim=-1, keepdim=True))
            rows = wide / size
            norm = _nonzero(torch.linalg.vector_norm(rows, dim=-1, keepdim=True))
            unit = rows.div_(norm)
        return unit.to(x.dtype), size, norm

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Context, grad: Tensor | None, *_: None) -> Tensor | None:
        if grad is None:
            return None
        x, size, norm = ctx.saved_tensors
        wide_x, wide = _wide(x), _wide(grad)
        if torch.is_grad_enabled():  # a second derivative follows: autograd must see how the norm depends on the rows
            rows = wide_x / size
            length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
            length = torch.where(length > 0, length, 1.0)
            unit = rows / length
            dx = (wide - unit * torch.linalg.vecdot(unit, wide)[..., None]) / length / size
        elif x.device.type == "cpu":
            dx = backward_operator(wide, wide_x, size, norm)
        else:
            unit = (wide_x / size).div_(norm)
            dot = torch.linalg.vecdot(unit, wide)[..., None]
            dx = torch.addcmul(wide, unit, dot, value=-1).div_(norm).div_(size)
        narrow: Tensor = dx.to(x.dtype)
        return narrow


def _wide(x: Tensor) -> Tensor:
    """Return the table in the dtype that norms are computed in: float64 for float64, float32 otherwise."""
    return x if x.dtype == torch.float64 else x.float()


def _nonzero(size: Tensor) -> Tensor:
    """Return the sizes with 1 in place of 0."""
    return torch.where(size > 0, size, 1.0)


register_vmap(forward_operator, {})
register_vmap(backward_operator, {})
