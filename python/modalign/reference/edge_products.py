"""Inner products of rows along the edges of a graph, summed in the order of the features."""

from __future__ import annotations

import torch
from torch import Tensor


def edge_products(x: Tensor, items: Tensor, others: Tensor) -> Tensor:
    """Return [m, k] float64 for x [n, d], items [m] and others [m, k] int64. Memory: 16 n and 24 m k bytes."""
    total = torch.zeros(others.shape, dtype=torch.float64, device=x.device)
    for feature in x.unbind(1):
        column = feature.double()
        total += column[items, None] * column[others]
    return total
