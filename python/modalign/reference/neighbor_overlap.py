"""Definition of the number of neighbours that two graphs share, for every k' <= k."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 22


def neighbor_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return counts[i, r], the size of the intersection of the first r + 1 entries of a_i and b_i.

    Args:
        a: [n, k] int64.
        b: [n, k] int64.

    Returns:
        [n, k] int32.
    """
    n, k = a.shape
    counts = torch.empty(n, k, dtype=torch.int32, device=a.device)
    block = max(1, BLOCK_ELEMENTS // (k * k))
    for start in range(0, n, block):
        rows = slice(start, start + block)
        same = a[rows, :, None] == b[rows, None, :]
        counts[rows] = same.int().cumsum(1).cumsum(2).diagonal(dim1=1, dim2=2).int()
    return counts
