"""Sums and functions of many elements that give the same bits for every number of CPU threads.

torch divides more than 32,768 elements among its threads. Where a piece ends decides which elements go through vector
instructions and in which order sums are taken. The functions here hand torch one piece of at most that size at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["PIECE", "pieces", "softplus", "sum_rows"]

PIECE = 1 << 15  # elements


def pieces(table: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of pieces of a table (n, d) on which torch works in the calling thread.

    On devices other than the CPU the whole table is one piece.
    """
    n, d = table.shape
    rows, columns = (max(1, PIECE // d), min(d, PIECE)) if table.device.type == "cpu" else (max(n, 1), d)
    for start in range(0, n, rows):
        for first in range(0, d, columns):
            yield slice(start, start + rows), slice(first, first + columns)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp x); beyond 40 the 1 is below the last digit."""
    # not logsigmoid, which waits for all threads whatever the size (torch 2.13)
    if not _divided(x):
        return F.softplus(x, threshold=40)
    pieces = torch.split(x.flatten(), PIECE)
    return torch.cat([F.softplus(piece, threshold=40) for piece in pieces]).reshape(x.shape)


def sum_rows(values: Tensor) -> Tensor:
    """Return the sums (b,) of the rows of ``values`` (b, n)."""
    n = values.shape[1]
    if not _divided(values):
        return values.sum(1)
    if n > PIECE:
        return sum_rows(torch.stack([sum_rows(piece) for piece in torch.split(values, PIECE, 1)], 1))
    return torch.cat([rows.sum(1) for rows in torch.split(values, PIECE // n)])


def _divided(values: Tensor) -> bool:
    """Return whether torch would divide the work among threads, in eager mode."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling() and values.numel() > PIECE
