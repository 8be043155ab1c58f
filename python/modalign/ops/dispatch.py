"""The choice of a backend: each operation has a table of implementations, and each refusal has a reason.

``OPERATIONS`` is the only list of operations. It names each table as "module:table", so that a list of operations
imports none of them; ``modalign.explain`` and ``modalign.doctor`` read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from modalign.common.names import resolve, suggestion

__all__ = ["BACKENDS", "OPERATIONS", "Choice", "Implementation", "Operation", "choose", "load_operation", "select"]

# operation -> "module:table", in the order in which ``modalign.doctor`` prints them
OPERATIONS = {
    "info_nce": "modalign.ops.info_nce:INFO_NCE",
    "sigmoid_loss": "modalign.ops.sigmoid_loss:SIGMOID_LOSS",
    "knn": "modalign.ops.knn:KNN",
    "knn_blocks": "modalign.ops.knn:KNN_BLOCKS",
    "neighbor_overlap": "modalign.ops.neighbor_overlap:NEIGHBOR_OVERLAP",
    "neighborhood_scores": "modalign.ops.neighborhoods:NEIGHBORHOOD_SCORES",
    "relabelled_overlap": "modalign.ops.neighborhoods:RELABELLED_OVERLAP",
    "edge_products": "modalign.ops.edge_products:EDGE_PRODUCTS",
}
# backend -> the code that it runs
BACKENDS = {
    "cuda": "kernels compiled from CUDA C++",
    "triton": "Triton kernels",
    "cpp": "the compiled core, on the CPU",
    "torch": "blocks of rows in plain torch",
    "reference": "the definition, in plain torch and float64",
}


def _never_by_name_only(*_: object) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    Attributes:
        name: the backend, a key of ``BACKENDS``.
        functions: role -> "module:function", imported when it is first called.
        refuses: given the operation's arguments, returns the reason why this implementation cannot take them, or None.
        by_name_only: given the same arguments, returns the reason why ``backend="auto"`` passes over this
            implementation although it could take them, or None.
    """

    name: str
    functions: dict[str, str]
    refuses: Callable[..., str | None]
    by_name_only: Callable[..., str | None] = _never_by_name_only

    def __post_init__(self) -> None:
        assert self.name in BACKENDS, self.name

    def load(self, role: str) -> Callable[..., Any]:
        """Import and return the function that computes ``role``."""
        function: Callable[..., Any] = resolve(self.functions[role])
        return function


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation and its implementations.

    Attributes:
        name: a key of ``OPERATIONS``.
        implementations: fastest first; the last one is the reference, which takes what the others refuse.
        example: given a device, returns small arguments on it, with which ``modalign.doctor`` asks for the backend.
    """

    name: str
    implementations: tuple[Implementation, ...]
    example: Callable[[str], tuple[torch.Tensor, ...]]

    def __post_init__(self) -> None:
        assert self.name in OPERATIONS, self.name

    @property
    def backends(self) -> tuple[str, ...]:
        """The values of ``backend`` that the operation takes: "auto" and the names of its implementations."""
        return ("auto", *(implementation.name for implementation in self.implementations))


@dataclasses.dataclass(frozen=True)
class Choice:
    """The backend that would run a call, and why each other one would not.

    ``str(choice)`` is a short list, one backend a line.

    Attributes:
        operation: the name of the operation.
        arguments: the arguments in words.
        backend: the name of the backend, or None if none takes the call.
        refusals: backend -> its reason.
    """

    operation: str
    arguments: str
    backend: str | None
    refusals: dict[str, str]

    def __str__(self) -> str:
        head = f"{self.operation}({self.arguments})"
        lines = [f"{head}: {self.backend}" if self.backend else f"{head}: no backend takes it"]
        return "\n".join(lines + [f"  {name}: {reason}" for name, reason in self.refusals.items()])


def load_operation(name: str) -> Operation:
    """Import and return the operation of this name, one of ``OPERATIONS``."""
    operation: Operation = resolve(OPERATIONS[name])
    return operation


def choose(operation: Operation, backend: str, arguments: tuple[Any, ...]) -> Choice:
    """Choose the first implementation that takes the call (``backend="auto"``), or the named one if it takes it.

    Raises:
        ValueError: the operation has no such backend.
    """
    names = list(operation.backends[1:])
    if backend not in operation.backends:
        hint = suggestion(backend, names)
        raise ValueError(f"{operation.name}: backend must be 'auto' or one of {names}, got {backend!r}{hint}")
    chosen: str | None = None
    refusals: dict[str, str] = {}
    for implementation in operation.implementations:
        reason = implementation.refuses(*arguments)
        if reason is None and backend == "auto":
            reason = implementation.by_name_only(*arguments)
        if reason is None and chosen is not None:
            reason = f"{chosen} comes first"
        if reason is None and backend not in ("auto", implementation.name):
            reason = f"the call names backend={backend!r}"
        if reason is None:
            chosen = implementation.name
        else:
            refusals[implementation.name] = reason
    return Choice(operation.name, ", ".join(map(_describe, arguments)), chosen, refusals)


def select(operation: Operation, role: str, backend: str, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """Return the function that computes ``role`` of the operation for a call with these arguments.

    Raises:
        ValueError: the operation has no such backend.
        NotImplementedError: no implementation takes the call, or the named one refuses it; every reason is given.
    """
    choice = choose(operation, backend, arguments)
    if choice.backend is None:
        raise NotImplementedError(str(choice))
    return next(one for one in operation.implementations if one.name == choice.backend).load(role)


def _describe(argument: object) -> str:
    if isinstance(argument, torch.Tensor):
        shape = "x".join(map(str, argument.shape))
        return f"{shape} {str(argument.dtype).removeprefix('torch.')} {argument.device.type}"
    return repr(argument)
