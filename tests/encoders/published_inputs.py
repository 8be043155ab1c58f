"""Made-up weights, rows and files for numbers of public code, from numpy's legacy generator, which never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["rows_of", "table_of", "weights_of"]

PARTS = {"train": 8, "valid": 3, "test": 4}
WIDTHS = {"vision": 4, "audio": 3, "text": 5}


def weights_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return a weight of each shape, in the order of the names."""
    rng = np.random.RandomState(0)
    return {name: torch.from_numpy(0.4 * rng.normal(size=shapes[name])).float() for name in sorted(shapes)}


def rows_of() -> tuple[Tensor, Tensor]:
    """Return four sequences (4, 9, 6) with padding on the left, and their lengths."""
    lengths = torch.tensor([9, 8, 3, 1])
    x = torch.from_numpy(np.random.RandomState(1).normal(size=(4, 9, 6))).float()
    x[torch.arange(9)[None] < 9 - lengths[:, None]] = 0
    return x, lengths


def table_of() -> dict[str, Any]:
    """Return the content of an affect pickle: sequences of 50 steps, -inf in the audio, and scores."""
    rng = np.random.RandomState(2)
    table: dict[str, Any] = {}
    for part, n in PARTS.items():
        padded = np.arange(50) < (50 - rng.randint(1, 51, n))[:, None]
        arrays = {name: (3 + 2 * rng.normal(size=(n, 50, width))).astype(np.float32) for name, width in WIDTHS.items()}
        for values in arrays.values():
            values[padded] = 0
        arrays["audio"][0, -1, 0] = -np.inf
        table[part] = {**arrays, "labels": rng.normal(size=(n, 1, 1)), "id": np.arange(n)}
    return table
