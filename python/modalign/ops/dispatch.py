"""Which implementation runs an operation: one table an operation, fastest first, and a reason for every refusal."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import torch

from modalign.common.names import resolve

__all__ = ["Choice", "Implementation", "Operation", "operations", "select"]

PROCESS = os.getpid()  # that imported the package


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    functions: role -> "module:function", imported when first called.
    refuses: given the operation's arguments, the reason this implementation cannot take them, or None.
    by_name_only: given the same arguments, the reason ``backend="auto"`` passes it over although it could, or None.
    """

    name: str
    functions: dict[str, str]
    refuses: Callable[..., str | None]
    by_name_only: Callable[..., str | None] = lambda *_: None

    def load(self, role: str) -> Callable[..., Any]:
        function: Callable[..., Any] = resolve(self.functions[role])
        return function


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation and its implementations, fastest first. ``arguments`` says what a call is made of, for messages."""

    name: str
    implementations: tuple[Implementation, ...]

    def __post_init__(self) -> None:
        operations[self.name] = self


operations: dict[str, Operation] = {}


@dataclasses.dataclass(frozen=True)
class Choice:
    """The backend that would run a call (None if none does), and why each other one would not."""

    operation: str
    arguments: str
    backend: str | None
    refusals: dict[str, str]

    def __str__(self) -> str:
        head = f"{self.operation}({self.arguments})"
        lines = [f"{head}: {self.backend}" if self.backend else f"{head}: no backend takes it"]
        return "\n".join(lines + [f"  {name}: {reason}" for name, reason in self.refusals.items()])


def choose(operation: Operation, backend: str, *args: Any) -> Choice:
    """The first implementation that takes the call (``backend="auto"``), or the named one if it takes it."""
    names = [implementation.name for implementation in operation.implementations]
    if backend != "auto" and backend not in names:
        raise ValueError(f"{operation.name}: backend must be 'auto' or one of {names}, got {backend!r}")
    chosen: str | None = None
    refusals: dict[str, str] = {}
    for implementation in operation.implementations:
        reason = implementation.refuses(*args)
        if reason is None and backend == "auto":
            reason = implementation.by_name_only(*args)
        if reason is None and chosen is not None:
            reason = f"{chosen} comes first"
        if reason is None and backend not in ("auto", implementation.name):
            reason = f"backend={backend!r} was asked for"
        if reason is None:
            chosen = implementation.name
        else:
            refusals[implementation.name] = reason
    return Choice(operation.name, ", ".join(map(describe, args)), chosen, refusals)


def select(operation: Operation, role: str, backend: str, *args: Any) -> Callable[..., Any]:
    """The function that computes ``role`` of the operation for this call; NotImplementedError with every reason."""
    choice = choose(operation, backend, *args)
    if choice.backend is None:
        raise NotImplementedError(str(choice))
    return next(i for i in operation.implementations if i.name == choice.backend).load(role)


def describe(argument: object) -> str:
    if isinstance(argument, torch.Tensor):
        shape = "x".join(map(str, argument.shape))
        return f"{shape} {str(argument.dtype).removeprefix('torch.')} {argument.device.type}"
    return repr(argument)
