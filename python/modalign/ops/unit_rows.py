"""Rows divided by their Euclidean norms, keeping only the rows and two numbers each for the backward pass.

    u = x / |x|        dx = (g - u <u, g>) / |x|

Composed of torch's own operations this would keep three tables more. A zero row stays zero and hands its gradient on
unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["unit_rows"]


def unit_rows(x: Tensor) -> Tensor:
    """x [..., d] with rows of length one, in x's dtype, computed in float32 at least. The largest entry is divided out
    first, so that no norm overflows or vanishes. Peak memory: one table, and a float32 copy for half precision."""
    unit: Tensor = _UnitRows.apply(x)[0]  # type: ignore[no-untyped-call]
    return unit


class _UnitRows(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        largest = _or_one(torch.linalg.vector_norm(_wide(x), ord=torch.inf, dim=-1, keepdim=True))
        rows = _wide(x) / largest
        norm = _or_one(torch.linalg.vector_norm(rows, dim=-1, keepdim=True))
        return rows.div_(norm).to(x.dtype), largest, norm

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> Tensor | None:
        if grad is None:
            return None
        x, largest, norm = ctx.saved_tensors
        rows, wide = _wide(x) / largest, _wide(grad)
        if torch.is_grad_enabled():  # a second derivative will be taken: let autograd see where the norm comes from
            length = torch.where(largest > 0, torch.linalg.vector_norm(rows, dim=-1, keepdim=True), 1.0)
            length = torch.where(length > 0, length, 1.0)
            unit = rows / length
            dx = (wide - unit * torch.linalg.vecdot(unit, wide)[..., None]) / length / largest
        else:
            unit = rows.div_(norm)
            dot = torch.linalg.vecdot(unit, wide)[..., None]
            dx = torch.addcmul(wide, unit, dot, value=-1).div_(norm).div_(largest)
        narrow: Tensor = dx.to(x.dtype)
        return narrow


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _or_one(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, 1.0)
