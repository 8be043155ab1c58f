"""Tables in the dtype in which they travel.

float16 has few exponents: a table is multiplied by a power of two before it is rounded, and one more row carries the
power, so that neither the gradients of a small loss nor the rows of a large one leave the range.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["opened", "packed", "rows_more"]

LARGEST = 15  # the exponent of the largest entry that travels; float16 ends below 2 ** 16


def rows_more(wire: torch.dtype | None) -> int:
    """Return how many rows a packed table has beyond its own."""
    return 1 if wire == torch.float16 else 0


def packed(table: Tensor, wire: torch.dtype | None) -> Tensor:
    """Return a table (b, n, ...), which is not empty, in contiguous memory and in the dtype ``wire``, None for its own.

    In float16 it has one row more.
    """
    if wire is None or not rows_more(wire):
        return table.to(wire or table.dtype).contiguous()
    largest = torch.maximum(*(bound.abs() for bound in table.aminmax())).float()
    shift = (torch.frexp(largest).exponent - LARGEST).clamp(-126, 126)
    sent = table.new_empty(len(table), table.shape[1] + 1, *table.shape[2:], dtype=wire)
    sent[:, :-1] = table * _power_of_two(-shift)
    sent[:, -1:] = shift
    return sent


def opened(sent: Tensor, dtype: torch.dtype, rows: slice, wire: torch.dtype | None) -> Tensor:
    """Return rows of a table that ``packed`` returned."""
    table = sent[:, rows].to(dtype)
    if not rows_more(wire):
        return table
    return table * _power_of_two(sent[:, -1].flatten()[0].to(torch.int32))


def _power_of_two(exponent: Tensor) -> Tensor:
    """Return 2 ** exponent, exactly, for an int32 from -126 to 126: the bits of a float32."""
    return ((exponent + 127) << 23).view(torch.float32)
