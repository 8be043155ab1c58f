"""Operators under torch's transforms: derivatives that torch.func can take too, and vmap as more problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["differentiable", "register_vmap"]


def differentiable(
    operator: Any, setup_context: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """``operator`` with derivatives, for eager torch and torch.func as an autograd.Function, and for torch.compile,
    which cannot trace one within another's backward, as registered ones, which torch.func refuses (torch 2.13)."""
    operator.register_autograd(backward, setup_context=setup_context)

    _, _, name = operator._qualname.partition("::")
    overload = getattr(torch.ops.modalign, name).default  # what torch.compile can see through

    class Differentiable(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*args: Any) -> Any:
            return overload(*args)

    Differentiable.setup_context = staticmethod(setup_context)  # type: ignore[method-assign]
    Differentiable.backward = staticmethod(backward)  # type: ignore[method-assign]

    def call(*args: Any) -> Any:
        return overload(*args) if torch.compiler.is_compiling() else Differentiable.apply(*args)  # type: ignore[no-untyped-call]

    return call


def register_vmap(
    operator: Any,
    overrides: dict[str, Any],
    unbatched_inputs: tuple[str, ...] = (),
    unbatched_outputs: tuple[int, ...] = (),
) -> None:
    """Teach vmap an operator whose tensors all have the problems as their first dimension.

    overrides: arguments that are set to a value of their own under vmap. unbatched_inputs, unbatched_outputs: those
    that have no problem dimension; nothing is in them under vmap.
    """
    names = [argument.name for argument in operator._opoverload._schema.arguments]

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size

        def fold(name: str, argument: Any, dim: int | None) -> Any:
            if name in overrides:
                return overrides[name]
            if not isinstance(argument, Tensor) or name in unbatched_inputs:
                return argument
            table = argument.expand(size, *argument.shape) if dim is None else argument.movedim(dim, 0)
            return table.reshape(size * table.shape[1], *table.shape[2:])

        outputs = operator(*(fold(*one) for one in zip(names, args, in_dims, strict=True)))
        single = isinstance(outputs, Tensor)
        tables = [outputs] if single else list(outputs)
        dims = [None if index in unbatched_outputs else 0 for index in range(len(tables))]
        unfolded = [
            table if dim is None else table.reshape(size, table.shape[0] // size, *table.shape[1:])
            for table, dim in zip(tables, dims, strict=True)
        ]
        return (unfolded[0], dims[0]) if single else (tuple(unfolded), tuple(dims))

    torch.library.register_vmap(operator, rule)
