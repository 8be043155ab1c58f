"""The floating-point dtypes that operations take, and the dtype in which they keep sums."""

from __future__ import annotations

import torch

__all__ = ["FLOATS", "HALF_AND_FLOAT", "accumulator"]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
HALF_AND_FLOAT = (torch.float16, torch.bfloat16, torch.float32)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which sums are kept and results are returned for inputs of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32
