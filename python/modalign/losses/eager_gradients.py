"""InfoNCE differentiated at once (stats="gradient"): the gradients' norms are known before the backward pass."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch
from torch import Tensor

from modalign.common.checks import refuse_forward_mode
from modalign.common.dtypes import FLOATS, autocast_dtype
from modalign.distributed.calls import Call
from modalign.distributed.rows import total_of_ranks
from modalign.losses.evaluation import evaluate
from modalign.losses.inputs import logit_scales, per_row
from modalign.losses.options import InfoNCEOptions
from modalign.losses.statistics import Stats

__all__ = ["evaluate_with_gradients"]


def evaluate_with_gradients(
    x: Tensor, y: Tensor, options: InfoNCEOptions, call: Call | None = None
) -> tuple[Tensor, Stats]:
    """Return the loss, whose gradients are computed already, and the by-products with the gradients' norms.

    With a call the norms are those of the gradients at the rows of all ranks.
    """
    inputs = _expanded_inputs(x, y, options)
    if any(map(torch._C._functorch.is_functorch_wrapped_tensor, inputs.values())):
        raise NotImplementedError(
            "info_nce: stats='gradient' differentiates at once, which torch.func cannot transform. Use stats=True, and "
            "torch.func.grad for the gradients"
        )
    leaves = {name: tensor.detach().requires_grad_(tensor.requires_grad) for name, tensor in inputs.items()}
    fields = {name: leaf for name, leaf in leaves.items() if name not in ("x", "y")}
    loss, stats = evaluate(leaves["x"], leaves["y"], dataclasses.replace(options, **fields), call)  # type: ignore[arg-type]
    assert stats is not None
    fixed = Stats(*(field.detach() if isinstance(field, Tensor) else field for field in stats))  # type: ignore[arg-type]
    names = [name for name, leaf in leaves.items() if leaf.requires_grad]
    if not names:
        return loss, fixed
    # the gradient of a mean may be too small for float16 until a scaler has multiplied it; that of a sum is not
    halves = options.reduction == "mean" and torch.float16 in (x.dtype, autocast_dtype(x))
    factor = 2.0 ** (x.shape[-2].bit_length() - 1) if halves else 1.0
    gradients = torch.autograd.grad((factor * loss).sum(), [leaves[name] for name in names])
    norms = {
        f"{name}_gradient": _norm(gradient.to(loss.dtype), call) / factor
        for name, gradient in zip(names, gradients, strict=True)
        if name in ("x", "y")
    }
    tensors = [inputs[name] for name in names]
    scaled: Tensor = _Scaled.apply(loss.detach(), factor, *gradients, *tensors)  # type: ignore[no-untyped-call]
    return scaled, fixed._replace(**norms)


def _norm(gradient: Tensor, call: Call | None) -> Tensor:
    """Return the norms (...,) of gradients (..., n, d), over the rows of all ranks, of which each has its share."""
    norms: Tensor = gradient.flatten(-2).norm(dim=-1)
    if call is None:
        return norms
    total = total_of_ranks(norms.square().reshape(1, -1), call)
    return total.sqrt().reshape(norms.shape) / call.ranks.count


def _expanded_inputs(x: Tensor, y: Tensor, options: InfoNCEOptions) -> dict[str, Tensor]:
    """Return the tensors that may need a gradient, with a copy for each problem.

    The gradient of a problem is scaled with the gradient of its loss, so problems cannot share an input.
    """
    batch, n = x.shape[:-2], x.shape[-2]
    temperature, weights, queue = options.temperature, options.weights, options.queue
    _, per_anchor = logit_scales("info_nce", temperature, batch, x)  # refuses a temperature that does not fit
    inputs = {"x": x, "y": y}
    if isinstance(temperature, Tensor):
        temperature = temperature.reshape(()) if temperature.numel() == 1 else temperature
        inputs["temperature"] = temperature.expand((*batch, n) if per_anchor else batch)
    if options.negatives is not None:
        inputs["negatives"] = options.negatives
    if queue is not None:
        inputs["queue"] = queue.expand(*batch, *queue.shape[-2:])
    if weights is not None:
        inputs["weights"] = per_row("info_nce", "weights", weights, x, dtypes=FLOATS).reshape(*batch, n)
    return inputs


class _ScaledContext(Protocol):
    factor: float

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Scaled(torch.autograd.Function):
    """A loss whose gradients are known: the backward pass multiplies them by the gradient of the loss."""

    jvp = staticmethod(refuse_forward_mode)

    @staticmethod
    def forward(ctx: _ScaledContext, loss: Tensor, factor: float, *gradients_and_inputs: Tensor) -> Tensor:
        """Keep the gradients, which are those of ``factor`` times the loss; the inputs only receive them."""
        half = len(gradients_and_inputs) // 2
        ctx.save_for_backward(*gradients_and_inputs[:half])
        ctx.factor = factor
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _ScaledContext, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad / ctx.factor
        scaled = [
            (grad.reshape(grad.shape + (1,) * (saved.ndim - grad.ndim)) * saved.to(grad.dtype)).to(saved.dtype)
            for saved in ctx.saved_tensors
        ]
        return None, None, *len(scaled) * [None], *scaled
