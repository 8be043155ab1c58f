"""An encoder of the user's: a function by name that returns an ``nn.Module``, and what is asked of that module.

A module that is trained is called for many runs at once by ``torch.func.vmap``, its parameters stacked. So it may hold
no buffers, draw no random numbers, change none of its tensors, and each row's output must be a function of that row
alone. A frozen one is called in eval mode, where batch norm and dropout are harmless; only the last is asked of it.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modalign.encoders.networks import Layered, as_float

__all__ = ["UserModule", "made_by", "named_function", "require_usable"]

ROWS = 4  # that a module is tried on
SAME = 1e-4  # of the largest output: what rounding may differ by when a row comes with others
_passed: set[tuple[Any, ...]] = set()
_passing = threading.Lock()


class UserModule(Layered):
    """The user's module behind one door: floats come in the precision of its weights, pixels mapped to [-1, 1].

    Token ids stay as they are. Its layers are those of its own ``every_layer``, where it has one, else its output.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(self._ready(x))
        return out

    def every_layer(self, x: Tensor) -> list[Tensor]:
        own = getattr(self.module, "every_layer", None)
        return [self(x)] if own is None else [layer.flatten(1) for layer in own(self._ready(x))]

    def _ready(self, x: Tensor) -> Tensor:
        floats = [p.dtype for p in self.module.parameters() if p.is_floating_point()]
        dtype = floats[0] if floats else x.dtype if x.is_floating_point() else torch.float32
        return as_float(x, dtype) if x.is_floating_point() or x.dtype == torch.uint8 else x


def named_function(name: str, called: str = "module encoder: make") -> Callable[..., Any]:
    """What ``package.module:function`` names; the working folder is the last place to look in.

    called: what errors call it. Raises ValueError where it cannot be imported.

    Examples:
        >>> from modalign.encoders.user_modules import named_function
        >>> named_function("torch.nn:Linear").__name__
        'Linear'
    """
    place, _, attribute = name.partition(":")
    # a command's search path begins at the command, not at the folder it was called in
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(place)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the module's own code runs here
        raise ValueError(f"{called} {name!r} cannot be imported: {_said(error)}") from error
    if not callable(found):
        raise ValueError(f"{called} {name!r} must be a function, got a {type(found).__name__}")
    made: Callable[..., Any] = found
    return made


def made_by(name: str, arguments: Mapping[str, Any], example: Tensor) -> UserModule:
    """The module that the named function makes. ValueError where it raises or gives something else."""
    function = named_function(name)
    try:
        module = function(example, **arguments)
    except Exception as error:
        raise ValueError(f"module encoder: {name}(example, **arguments) failed: {_said(error)}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"module encoder: {name} must return a torch.nn.Module, got a {type(module).__name__}")
    return UserModule(module)


def require_usable(
    make: Callable[[], nn.Module], name: str, arguments: Mapping[str, Any], example: Tensor, dim: int, frozen: bool
) -> None:
    """ValueError unless ``make()`` is a module as this file's head asks for, tried on a few rows of ``example``.

    It is tried once for each function, arguments and shape of the rows.
    """
    key = (named_function(name), json.dumps(arguments, sort_keys=True), example.shape, example.dtype, dim, frozen)
    with _passing:
        if key in _passed:
            return
    module, same = make(), make()
    if not frozen:
        try:
            module = copy.deepcopy(module)
        except Exception as error:
            raise ValueError(f"module encoder: {name}'s module cannot be copied: {_said(error)}") from error
    rows = example[torch.linspace(0, len(example) - 1, min(ROWS, len(example))).long()]
    if rows.is_floating_point():
        rows = rows.double()
    again = dict(same.named_parameters())
    for part, value in module.named_parameters():
        if part not in again or not torch.equal(value, again[part]):
            raise ValueError(
                f"module encoder: {name} gives {_inner(part)} other values at each call: draw initial weights from "
                "torch's global generator, which is seeded for it"
            )
    module.double().train(not frozen)
    if not frozen:
        _require_trainable(module, name)
    out = _called(module, rows, name)
    if not isinstance(out, Tensor) or out.shape != (len(rows), dim) or not out.is_floating_point():
        got = f"{tuple(out.shape)} {out.dtype}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise ValueError(
            f"module encoder: {name}'s module must map {tuple(rows.shape)} to ({len(rows)}, {dim}) floats, as dim "
            f"says, got {got}"
        )
    if not torch.equal(out, _called(module, rows, name)):
        raise ValueError(
            f"module encoder: {name}'s module gives the same rows other outputs at a second call: take out what is "
            "random or remembers"
        )
    alone = torch.cat([_called(module, rows[i : i + 1], name) for i in range(len(rows))])
    if bool(((out - alone).abs() > SAME * out.abs().max()).any()):
        raise ValueError(
            f"module encoder: the output of a row of {name}'s module changes with the rows beside it; it must depend "
            "on its own row alone: take out what normalises or attends over the batch"
        )
    if not frozen:
        _require_stackable(module, rows, out, name)
    with _passing:
        _passed.add(key)


def _require_trainable(module: nn.Module, name: str) -> None:
    buffers = [_inner(buffer) for buffer, _ in module.named_buffers()]
    if buffers:
        raise ValueError(
            f"module encoder: {name}'s module holds buffers ({', '.join(buffers[:3])}), which copies that train at "
            "once cannot keep: use group or layer norm for batch norm, parameters with requires_grad=False for "
            "constants, or frozen: true"
        )
    random = [
        _inner(part)
        for part, inside in module.named_modules()
        if isinstance(inside, nn.modules.dropout._DropoutNd) and inside.p > 0
    ]
    if random:
        raise ValueError(
            f"module encoder: {name}'s module has dropout ({', '.join(random[:3])}), and a run's numbers may not "
            "depend on the runs beside it: take it out or set p to 0, or frozen: true"
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError(f"module encoder: {name}'s module has nothing to train; say frozen: true for it")


def _require_stackable(module: nn.Module, rows: Tensor, out: Tensor, name: str) -> None:
    """Two copies called at once must give what one gives, and gradients for all that is trained."""
    stacked = {part: torch.stack([value.detach()] * 2) for part, value in module.named_parameters()}
    trained = {part: stacked[part].requires_grad_() for part, p in module.named_parameters() if p.requires_grad}

    def call(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(module, parameters, (x,))
        return found

    try:
        both = torch.func.vmap(call, in_dims=(0, None))(stacked, rows)
        gradients = torch.autograd.grad(both.sum(), list(trained.values()), allow_unused=True)
    except Exception as error:
        raise ValueError(
            f"module encoder: copies of {name}'s module cannot be called at once by torch.func.vmap: {_said(error)}"
        ) from error
    unused = [_inner(part) for part, gradient in zip(trained, gradients, strict=True) if gradient is None]
    if unused:
        raise ValueError(
            f"module encoder: {name}'s module does not use {', '.join(unused[:3])}: take it out, or set its "
            "requires_grad to False"
        )
    if bool(((both - out).abs() > SAME * out.abs().max()).any()):
        raise ValueError(
            f"module encoder: copies of {name}'s module called at once by torch.func.vmap give other outputs than one "
            "alone; compute everything from the parameters and the input in forward"
        )


def _called(module: nn.Module, rows: Tensor, name: str) -> Any:
    try:
        with torch.no_grad():
            return module(rows)
    except Exception as error:
        shape = tuple(rows.shape)
        raise ValueError(f"module encoder: {name}'s module fails on rows {shape}: {_said(error)}") from error


def _inner(name: str) -> str:
    """A name as the user's module knows it."""
    return name.removeprefix("module.") or "itself"


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
