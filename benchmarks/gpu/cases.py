"""A case of the GPU benchmark, and what the cases of losses and of k-NN graphs share."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["CLUSTER", "Case", "Rivals", "is_installed", "one_rank", "sample_rows"]

SAMPLED = 64  # rows whose gradients or neighbours are compared with the definition
CLUSTER = 100  # rows in a cluster of the inputs

Rivals = dict[str, Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Case:
    """A task, the candidates that compute it, and the checks of their results.

    Attributes:
        name: the name of the case in tables and records.
        make: called as make(device), returns the inputs.
        rivals: functions of the inputs by name; ours is "modalign", and our other backends start with "modalign".
        find_error: called as find_error(inputs, result), returns the error of our result against the definition, or
            None if there is none.
        find_difference: called as find_difference(inputs, result, ours), returns how a rival's result differs from
            ours, or None if it agrees.
        operations: additions and multiplications that the task is usually said to take.
        done: additions and multiplications of the products that ours computes, where they are fewer.
    """

    name: str
    make: Callable[[torch.device], tuple[Tensor, ...]]
    rivals: Rivals
    find_error: Callable[[tuple[Tensor, ...], Any], str | None]
    find_difference: Callable[[tuple[Tensor, ...], Any, Any], str | None]
    operations: float
    done: float


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


@contextlib.contextmanager
def one_rank(device: torch.device) -> Iterator[None]:
    """Let this process be the only rank of torch.distributed, which communicates by NCCL on a GPU."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def sample_rows(rows: Tensor) -> Tensor:
    """Return the indices of SAMPLED random rows, the same in every call."""
    return torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:SAMPLED].to(rows.device)
