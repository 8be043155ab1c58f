"""The floating-point dtypes that operations take, and the dtype in which they keep sums."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FLOATS", "HALF_AND_FLOAT", "accumulator", "autocast_dtype", "name_of"]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
HALF_AND_FLOAT = (torch.float16, torch.bfloat16, torch.float32)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which sums are kept and results are returned for inputs of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return the dtype in which autocast computes matrix products of ``x``; None outside autocast and for float64."""
    device = x.device.type
    if x.dtype == torch.float64 or device == "meta" or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a dtype, which NumPy and files use too.

    Examples:
        >>> import torch
        >>> from modalign.common.dtypes import name_of
        >>> name_of(torch.float16)
        'float16'
    """
    return str(dtype).removeprefix("torch.")
