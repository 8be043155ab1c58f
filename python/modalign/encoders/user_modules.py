"""Encoders of the user's: a function by name that returns an ``nn.Module``, and the checks the module must pass.

A module that is trained is called for many runs at once by ``torch.func.vmap``, its parameters stacked. So it may hold
no buffers, draw no random numbers, change none of its tensors, and each row's output must be a function of that row
alone. A frozen module is called in eval mode, where batch norm and dropout are harmless; it needs only the last.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modalign.encoders.build import Maker, seeded_module
from modalign.encoders.configs import ModuleConfig
from modalign.encoders.networks import Layered, as_float

__all__ = ["UserModule", "named_function", "prepare_module"]

ROWS = 4  # on which a module is tried
TOLERANCE = 1e-4  # of the largest output: rounding may differ this much when a row comes with others
_passed: set[tuple[object, ...]] = set()
_passed_lock = threading.Lock()


class UserModule(Layered):
    """The user's module, with inputs converted: floats to the dtype of its weights, pixels to [-1, 1], token ids as is.

    Its layers are those of the module's own ``every_layer``, where it has one, else its output.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(self._converted(x))
        return out

    def every_layer(self, x: Tensor) -> list[Tensor]:
        layers = getattr(self.module, "every_layer", None)
        return [self(x)] if layers is None else [layer.flatten(1) for layer in layers(self._converted(x))]

    def _converted(self, x: Tensor) -> Tensor:
        dtypes = [p.dtype for p in self.module.parameters() if p.is_floating_point()]
        dtype = dtypes[0] if dtypes else x.dtype if x.is_floating_point() else torch.float32
        return as_float(x, dtype) if x.is_floating_point() or x.dtype == torch.uint8 else x


def named_function(name: str, role: str = "module encoder: make") -> Callable[..., Any]:
    """Import the function that ``package.module:function`` names; the working folder is searched last.

    Args:
        name: The function, as the user gives it.
        role: The beginning of error messages.

    Raises:
        ValueError: If it cannot be imported or is no function.

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
        value: Any = importlib.import_module(place)
        for part in attribute.split("."):
            value = getattr(value, part)
    except Exception as error:  # the module's own code runs here
        raise ValueError(f"{role} {name!r} cannot be imported: {_first_line(error)}") from error
    if not callable(value):
        raise ValueError(f"{role} {name!r} must be a function, got a {type(value).__name__}")
    function: Callable[..., Any] = value
    return function


def prepare_module(config: ModuleConfig, example: Tensor) -> Maker:
    """Check the user's module on a few rows of ``example`` and return a function that makes it.

    Raises:
        ValueError: If the function cannot be called, or the module is not as the head of this file says.
    """

    def make() -> nn.Module:
        module = _call_function(config, example)
        return module.eval().requires_grad_(False) if config.frozen else module.train()

    _require_usable(lambda: seeded_module(make, 0), config, example)
    return make


def _call_function(config: ModuleConfig, example: Tensor) -> UserModule:
    function = named_function(config.make)
    try:
        module = function(example, **config.arguments)
    except Exception as error:
        raise ValueError(f"module encoder: {config.make}(example, **arguments) failed: {_first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"module encoder: {config.make} must return a torch.nn.Module, got a {type(module).__name__}")
    return UserModule(module)


def _require_usable(make: Maker, config: ModuleConfig, example: Tensor) -> None:
    """Check the module of ``make``; once for each function, arguments and shape of the rows."""
    name, dim, frozen = config.make, config.dim, config.frozen
    arguments = json.dumps(config.arguments, sort_keys=True)
    key = (named_function(name), arguments, example.shape, example.dtype, dim, frozen)
    with _passed_lock:
        if key in _passed:
            return
    module, same = make(), make()
    if not frozen:
        try:
            module = copy.deepcopy(module)
        except Exception as error:
            raise ValueError(f"module encoder: {name}'s module cannot be copied: {_first_line(error)}") from error
    rows = example[torch.linspace(0, len(example) - 1, min(ROWS, len(example))).long()]
    if rows.is_floating_point():
        rows = rows.double()
    _require_same_weights(module, same, name)
    module.double().train(not frozen)
    if not frozen:
        _require_trainable(module, name)
    out = _require_output(module, rows, config)
    if not frozen:
        _require_stackable(module, rows, out, name)
    with _passed_lock:
        _passed.add(key)


def _require_same_weights(module: nn.Module, same: nn.Module, name: str) -> None:
    """Check that a second call of the function, with the same seed, gives the same parameters."""
    second = dict(same.named_parameters())
    for parameter, value in module.named_parameters():
        if parameter not in second or not torch.equal(value, second[parameter]):
            raise ValueError(
                f"module encoder: {name} gives {_user_name(parameter)} other values at each call: draw initial weights "
                "from torch's global generator, which is seeded for it"
            )


def _require_trainable(module: nn.Module, name: str) -> None:
    """Check that the module holds no buffers and no dropout, and has something to train."""
    buffers = [_user_name(buffer) for buffer, _ in module.named_buffers()]
    if buffers:
        raise ValueError(
            f"module encoder: {name}'s module holds buffers ({', '.join(buffers[:3])}), which copies that train at "
            "once cannot keep: use group or layer norm for batch norm, parameters with requires_grad=False for "
            "constants, or frozen: true"
        )
    dropouts = [
        _user_name(part)
        for part, inner in module.named_modules()
        if isinstance(inner, nn.modules.dropout._DropoutNd) and inner.p > 0
    ]
    if dropouts:
        raise ValueError(
            f"module encoder: {name}'s module has dropout ({', '.join(dropouts[:3])}), and a run's numbers may not "
            "depend on the runs beside it: take it out or set p to 0, or frozen: true"
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError(f"module encoder: {name}'s module has nothing to train; say frozen: true for it")


def _require_output(module: nn.Module, rows: Tensor, config: ModuleConfig) -> Tensor:
    """Return the output for ``rows``, checked to be (n, dim), the same at every call and a function of each row."""
    name = config.make
    out = _call_module(module, rows, name)
    if not isinstance(out, Tensor) or out.shape != (len(rows), config.dim) or not out.is_floating_point():
        got = f"{tuple(out.shape)} {out.dtype}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise ValueError(
            f"module encoder: {name}'s module must map {tuple(rows.shape)} to ({len(rows)}, {config.dim}) floats, as "
            f"dim says, got {got}"
        )
    if not torch.equal(out, _call_module(module, rows, name)):
        raise ValueError(
            f"module encoder: {name}'s module gives the same rows other outputs at a second call: take out what is "
            "random or remembers"
        )
    alone = torch.cat([_call_module(module, rows[i : i + 1], name) for i in range(len(rows))])
    if bool(((out - alone).abs() > TOLERANCE * out.abs().max()).any()):
        raise ValueError(
            f"module encoder: the output of a row of {name}'s module changes with the rows beside it; it must depend "
            "on its own row alone: take out what normalises or attends over the batch"
        )
    return out


def _require_stackable(module: nn.Module, rows: Tensor, out: Tensor, name: str) -> None:
    """Check that two copies called at once give the same as one alone, with gradients for all that is trained."""
    stacked = {part: torch.stack([value.detach()] * 2) for part, value in module.named_parameters()}
    trained = {part: stacked[part].requires_grad_() for part, p in module.named_parameters() if p.requires_grad}

    def call(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(module, parameters, (x,))
        return output

    try:
        both = torch.func.vmap(call, in_dims=(0, None))(stacked, rows)
        gradients = torch.autograd.grad(both.sum(), list(trained.values()), allow_unused=True)
    except Exception as error:
        raise ValueError(
            f"module encoder: copies of {name}'s module cannot be called at once by torch.func.vmap: "
            f"{_first_line(error)}"
        ) from error
    unused = [_user_name(part) for part, gradient in zip(trained, gradients, strict=True) if gradient is None]
    if unused:
        raise ValueError(
            f"module encoder: {name}'s module does not use {', '.join(unused[:3])}: take it out, or set its "
            "requires_grad to False"
        )
    if bool(((both - out).abs() > TOLERANCE * out.abs().max()).any()):
        raise ValueError(
            f"module encoder: copies of {name}'s module called at once by torch.func.vmap give other outputs than one "
            "alone; compute everything from the parameters and the input in forward"
        )


def _call_module(module: nn.Module, rows: Tensor, name: str) -> Any:
    try:
        with torch.no_grad():
            return module(rows)
    except Exception as error:
        shape = tuple(rows.shape)
        raise ValueError(f"module encoder: {name}'s module fails on rows {shape}: {_first_line(error)}") from error


def _user_name(name: str) -> str:
    """Return the name of a parameter, buffer or part as the user's module has it."""
    return name.removeprefix("module.") or "itself"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
