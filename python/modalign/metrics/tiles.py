"""Helpers of metrics that look at every pair of items: checked tables, tiles of pairs, and rows in float64's range."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from modalign.common.checks import require_same_items
from modalign.common.conversion import require_same_index
from modalign.common.tensors import as_tensor
from modalign.common.types import Array

__all__ = ["TILE", "paired_tables", "row_slices", "scaled_down", "triangle_tiles"]

TILE = 1024  # rows of a tile


def paired_tables(operation: str, x: Array, y: Array, fewest: int = 1) -> tuple[Tensor, Tensor]:
    """Check two floating-point tables of the same items, and return them as tensors on the CPU.

    Args:
        operation: The name of the calling function, with which error messages begin.
        x: (n, d_x).
        y: (n, d_y).
        fewest: The smallest n that the operation takes.
    """
    require_same_index(operation, x, y)
    left, right = (as_tensor(f"{operation}: {name}", rows).cpu() for name, rows in (("x", x), ("y", y)))
    require_same_items(operation, tuple(left.shape), tuple(right.shape))
    if len(left) < fewest:
        raise ValueError(f"{operation}: needs at least {fewest} rows, got {len(left)}")
    return left, right


def row_slices(n: int, size: int | None = None) -> Iterator[slice]:
    """Yield consecutive slices of ``size`` rows (``TILE`` if None), which cover rows 0 to n - 1."""
    step = TILE if size is None else size
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def triangle_tiles(n: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and the columns of the tiles on and above the diagonal of an n x n matrix."""
    slices = list(row_slices(n))
    return ((rows, columns) for i, rows in enumerate(slices) for columns in slices[i:])


def scaled_down(rows: Tensor, exponents: Tensor) -> Tensor:
    """Return rows / 2^exponents, exactly wherever the result is a normal number.

    Args:
        rows: (n, d) float64.
        exponents: Integers that broadcast to ``rows``, such as ``torch.frexp(largest).exponent``.
    """
    # in two steps: 2^1074 is not a float64
    return rows.ldexp(-(exponents // 2)).ldexp(exponents // 2 - exponents)
