"""Operators under torch's transforms: derivatives for eager torch, torch.func and torch.compile, and vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from modalign.common.checks import refuse_forward_mode

__all__ = ["Context", "differentiable", "register_vmap"]


class Context(Protocol):
    """The context that torch hands from the forward to the backward pass, with the attributes that operators keep."""

    mask: str
    backend: str
    check_finite: bool
    needs_input_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> tuple[Any, ...]: ...

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


def differentiable(
    operator: CustomOpDef, setup_context: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a function that calls ``operator`` and has derivatives.

    Eager torch and torch.func use an autograd.Function. torch.compile, which cannot trace an autograd.Function within
    the backward pass of another, uses derivatives that are registered with the operator, which torch.func refuses
    (torch 2.13). torch.jit.trace is refused.
    """
    operator.register_autograd(backward, setup_context=setup_context)

    _, _, name = operator._qualname.partition("::")
    overload = getattr(torch.ops.modalign, name).default  # what torch.compile can see through

    class Differentiable(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*args: object) -> object:
            return overload(*args)

        jvp = staticmethod(refuse_forward_mode)

    Differentiable.setup_context = staticmethod(setup_context)  # type: ignore[method-assign]
    Differentiable.backward = staticmethod(backward)  # type: ignore[method-assign]

    def call(*args: object) -> Any:
        if torch.compiler.is_compiling():
            return overload(*args)
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            raise NotImplementedError(
                "torch.jit.trace would record the sizes of one batch of a loss. Use torch.export.export, with "
                "dynamic_shapes for batches of other sizes"
            )
        return Differentiable.apply(*args)  # type: ignore[no-untyped-call]

    return call


def register_vmap(
    operator: CustomOpDef,
    overrides: dict[str, object],
    unbatched_inputs: tuple[str, ...] = (),
    unbatched_outputs: tuple[int, ...] = (),
) -> None:
    """Register a vmap rule that turns the mapped dimension into more problems.

    Args:
        operator: an operator whose tensors have the problems as their first dimension.
        overrides: arguments and the value that they are set to under vmap.
        unbatched_inputs: names of inputs without a dimension of problems; they are empty under vmap.
        unbatched_outputs: indices of outputs without a dimension of problems; they are empty under vmap.
    """
    names = [argument.name for argument in operator._opoverload._schema.arguments]

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: object) -> tuple[object, object]:
        size = info.batch_size

        def fold(name: str, argument: object, dim: int | None) -> object:
            if name in overrides:
                return overrides[name]
            if not isinstance(argument, Tensor) or name in unbatched_inputs:
                return argument
            table = argument.expand(size, *argument.shape) if dim is None else argument.movedim(dim, 0)
            return table.reshape(size * table.shape[1], *table.shape[2:])

        outputs = operator(*(fold(*argument) for argument in zip(names, args, in_dims, strict=True)))
        single = isinstance(outputs, Tensor)
        tables = [outputs] if single else list(outputs)
        dims = [None if index in unbatched_outputs else 0 for index in range(len(tables))]
        unfolded = [
            table if dim is None else table.reshape(size, table.shape[0] // size, *table.shape[1:])
            for table, dim in zip(tables, dims, strict=True)
        ]
        return (unfolded[0], dims[0]) if single else (tuple(unfolded), tuple(dims))

    torch.library.register_vmap(operator, rule)
