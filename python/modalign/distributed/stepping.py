"""One run of the user's training step: the loss, the gradient of every parameter, and what else a check compares."""

from __future__ import annotations

import dataclasses
import importlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from modalign.distributed.draws import Draw, Draws, Part

__all__ = ["Described", "Outcome", "Step", "place_of", "run_step", "step_at"]

Step: TypeAlias = Callable[..., tuple[Any, ...]]
Described: TypeAlias = dict[str, Any]  # an outcome without its gradients, as JSON takes it

LOCAL_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
WRAPPERS = re.compile(r"(^|\.)(?:(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")


@dataclasses.dataclass
class Outcome:
    """What a run of a step left.

    Attributes:
        loss: The loss.
        gradients: The gradient of every parameter that is trained, whole and detached; None for a parameter without.
        weights: The norm of every parameter.
        rows: The numbers of the items that were used, where the step returns them.
        draws: The random draws.
        half: Whether anything was computed in half precision.
        batch_norm: Whether a module normalises over the rows of its own process.
    """

    loss: float
    gradients: dict[str, Tensor | None]
    weights: dict[str, float]
    rows: list[int] | None
    draws: list[Draw]
    half: bool
    batch_norm: bool

    def described(self) -> Described:
        """Return all but the gradients, for which their shapes and dtypes stand."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        shapes = {name: None if g is None else [*g.shape, str(g.dtype)] for name, g in self.gradients.items()}
        return values | {"gradients": shapes}


def place_of(step: object) -> tuple[str, str]:
    """Return the module and the name by which another process imports a step.

    Raises:
        TypeError: The step is no function, and no text.
        ValueError: It is a text without "module:function", or a function that no module holds.
    """
    if isinstance(step, str):
        module, _, name = step.partition(":")
        if not name or module.endswith(".py") or not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f'check: step must be "module:function", such as "my_training:step", got {step!r}')
        return module, name
    if not isinstance(step, FunctionType):
        raise TypeError(
            'check: step must be a function or "module:function", such as "my_training:step", got '
            f"{type(step).__name__}"
        )
    module, name = step.__module__, step.__qualname__
    if "<" in name:
        raise ValueError(
            f"check: step must be a function at the top of a module, which another process can import, got {name}"
        )
    return module, name


def step_at(module: str, name: str) -> Step:
    """Import a step.

    Raises:
        ValueError: It cannot be imported, or is no function.
    """
    try:
        value: Any = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except Exception as error:  # the user's module runs here
        raise ValueError(f"check: step {module}:{name} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(value):
        raise ValueError(f"check: step {module}:{name} must be a function, got {type(value).__name__}")
    step: Step = value
    return step


def run_step(step: Step, inputs: Sequence[Any], *, seed: int, parts: Sequence[Part | None] = ()) -> Outcome:
    """Run a step, and take its gradients from the parameters.

    Compiled functions run eagerly, and attention runs as plain products, so that every draw can be seen.

    Args:
        step: The user's function.
        inputs: Its arguments.
        seed: The seed of torch, NumPy and Python.
        parts: This rank's parts of the random draws.

    Raises:
        TypeError: The step returns anything but a loss and a module, with or without the numbers of rows.
        ValueError: No parameter has a gradient.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), Draws(parts) as draws:
        result = step(*inputs)
    loss, module, rows = _parsed(result)
    parameters = {name: p for name, p in _parameters(module).items() if p.requires_grad}
    gradients = {name: None if p.grad is None else _whole(p.grad) for name, p in parameters.items()}
    weights = {name: float(torch.linalg.vector_norm(_whole(p), dtype=torch.float64)) for name, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None  # a module that outlives the step begins the next one anew
    if all(gradient is None for gradient in gradients.values()):
        raise ValueError("check: step must call loss.backward(), got a module without any gradient")
    parts_of_module = [part for one in _modules(module).values() for part in one.modules()]
    return Outcome(
        loss=loss,
        gradients=gradients,
        weights=weights,
        rows=rows,
        draws=draws.found,
        half=draws.half,
        batch_norm=any(isinstance(part, LOCAL_NORMS) and part.training for part in parts_of_module),
    )


def _modules(module: nn.Module | Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    return module if isinstance(module, Mapping) else {"": module}


def _parsed(result: object) -> tuple[float, nn.Module | Mapping[str, nn.Module], list[int] | None]:
    """Return the loss, the module or modules, and the numbers of rows that a step returned."""
    values = result if isinstance(result, (tuple, list)) else (result,)
    if len(values) not in (2, 3):
        raise TypeError(f"check: step must return (loss, module) or (loss, module, rows), got {type(result).__name__}")
    loss, module = values[0], values[1]
    modules = list(module.values()) if isinstance(module, Mapping) else [module]
    if not modules or not all(isinstance(one, nn.Module) for one in modules):
        raise TypeError(f"check: step must return a torch.nn.Module or a dict of them, got {type(module).__name__}")
    if not isinstance(loss, (Tensor, float)) or (isinstance(loss, Tensor) and loss.numel() != 1):
        came = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(f"check: step must return a loss of one number, got {came}")
    rows = None
    if len(values) == 3 and values[2] is not None:
        rows = [int(row) for row in torch.as_tensor(values[2]).reshape(-1).tolist()]
    return float(_whole(loss) if isinstance(loss, Tensor) else loss), module, rows


def _parameters(module: nn.Module | Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return the parameters by their names, without what wrappers add to those."""
    named = {}
    for prefix, part in _modules(module).items():
        for name, parameter in part.named_parameters():
            plain = WRAPPERS.sub(r"\1", name)
            named[f"{prefix}.{plain}" if prefix else plain] = parameter
    return named


def _whole(table: Tensor) -> Tensor:
    """Return all of a tensor that may be sharded over ranks, which then all call this."""
    whole: Any = table.detach()
    whole = whole.full_tensor() if hasattr(whole, "full_tensor") else whole
    dense: Tensor = whole.to_dense() if whole.layout != torch.strided else whole.clone()
    return dense
