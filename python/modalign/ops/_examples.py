"""Small arguments of each operation, with which ``modalign.doctor`` asks for the backends of an installation."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["edges", "paired_rows", "rows", "two_graphs"]


def rows(device: str) -> tuple[Tensor, ...]:
    """Return four rows of four features."""
    return (torch.ones(4, 4, device=device),)


def paired_rows(device: str) -> tuple[Tensor, ...]:
    """Return four pairs of rows."""
    return (*rows(device), *rows(device))


def two_graphs(device: str) -> tuple[Tensor, ...]:
    """Return the neighbours of two items in two graphs."""
    graph = torch.arange(4, device=device).reshape(2, 2)
    return (graph, graph)


def edges(device: str) -> tuple[Tensor, ...]:
    """Return rows, items, and the items at the other ends of their edges."""
    graph, _ = two_graphs(device)
    return (*rows(device), graph[0], graph)
