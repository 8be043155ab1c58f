"""Encoders as users write them, for ``kind: module``: some that can be used, and one for each reason why not."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class Calls:
    """How many rows the frozen encoder was asked for."""

    rows = 0


def perceptron(example: Tensor, width: int = 6, dim: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(example[0].numel(), width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, dim)
    )


class Tied(nn.Module):
    """Two layers that share their weight, a scale that is not trained, and layers to look at."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, features), nn.Linear(features, features)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.rand(features) + 0.5, requires_grad=False)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        hidden = torch.tanh(self.first(x)) * self.scale
        return [hidden, self.second(hidden)]

    def forward(self, x: Tensor) -> Tensor:
        return self.every_layer(x)[-1]


def tied(example: Tensor) -> nn.Module:
    return Tied(example.shape[1])


class Pretrained(nn.Module):
    """The same weights whatever the seed, with batch norm and dropout; it counts the rows it sees."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.weight = nn.Parameter(torch.randn(features, dim, generator=generator))
        self.norm, self.dropout = nn.BatchNorm1d(dim), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        Calls.rows += len(x)
        out: Tensor = self.dropout(self.norm(x @ self.weight))
        return out


def pretrained(example: Tensor, dim: int = 4) -> nn.Module:
    return Pretrained(example.shape[1], dim)


class Function(nn.Module):
    """A function of a weight and the input."""

    def __init__(self, features: int, dim: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(features, dim), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


def _branches(z: Tensor) -> Tensor:
    return z if bool(z.sum() > -1e9) else -z


def _fails(z: Tensor) -> Tensor:
    raise RuntimeError("out of paper\nand ink")


def with_buffer(example: Tensor) -> nn.Module:
    module = perceptron(example)
    module.register_buffer("mean", torch.zeros(3))
    return module


def with_unused(example: Tensor) -> nn.Module:
    module = perceptron(example)
    module.register_parameter("spare", nn.Parameter(torch.zeros(3)))
    return module


def of_other_numbers(example: Tensor) -> nn.Module:
    module = nn.Linear(example.shape[1], 4)
    module.weight.data.fill_(random.random())
    return module


def nothing_trained(example: Tensor) -> nn.Module:
    return nn.Linear(example.shape[1], 4).requires_grad_(False)


def of_kind(example: Tensor, kind: str) -> object:
    """A module that breaks the rule ``kind``."""
    features = example.shape[1]
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "centres": lambda z: z - z.mean(0),
        "drops": lambda z: F.dropout(z, 0.5),
        "branches": _branches,
        "fails": _fails,
        "counts": lambda z: z.argmax(1),
    }
    if kind in functions:
        return Function(features, 4, functions[kind])
    return {
        "batch norm": nn.Sequential(nn.Linear(features, 4), nn.BatchNorm1d(4)),
        "dropout": nn.Sequential(nn.Linear(features, 4), nn.Dropout(0.1)),
        "wide": nn.Linear(features, 5),
        "no module": [1, 2],
    }[kind]
