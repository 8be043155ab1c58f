"""Rows that are equal to other rows: the number of each row among the distinct ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from modalign.files.rows import Rows, read_rows

__all__ = ["distinct_rows"]

WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int32}  # by the bytes of a number
BLOCK_ELEMENTS = 1 << 21  # numbers of a block of rows


def distinct_rows(table: Tensor | Rows) -> tuple[Tensor, Tensor]:
    """Number the distinct rows of a table, in the order in which they first occur; 0 and -0 are the same number.

    Rows with the same hash are compared number by number, so equal means equal.

    Args:
        table: (n, d) of any floating-point dtype, or int8; rows of a file are read once, and again where hashes agree.

    Returns:
        The number of each row's distinct row, int64 (n,), and the first row of each distinct row, int64 (m,), rising.
        Time is O(n d + n log n); memory is about 60 n bytes and a block of rows.

    Examples:
        >>> import torch
        >>> from modalign.neighbors.copies import distinct_rows
        >>> [part.tolist() for part in distinct_rows(torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, -0.0]]))]
        [[0, 1, 0], [0, 1]]
    """
    n, width = table.shape
    device = table.device if isinstance(table, Tensor) else torch.device("cpu")
    hashes = torch.cat([_hashes(piece) for piece in _pieces(table)])
    order = hashes.argsort(stable=True)
    # the rows that share a hash with another and are not equal to the first row of that hash, round by round
    hashes, remaining = hashes[order], order
    first_copy = torch.arange(n, device=device)
    while True:
        _, bucket, count = torch.unique_consecutive(hashes, return_inverse=True, return_counts=True)
        shared = count[bucket] > 1
        if not bool(shared.any()):
            break
        first = remaining[(count.cumsum(0) - count)[bucket]]
        equal = torch.zeros_like(shared)
        candidates = shared.nonzero()[:, 0]
        for block in _blocks(len(candidates), width):
            rows = candidates[block]
            equal[rows] = (_take(table, remaining[rows]) == _take(table, first[rows])).all(1)
        first_copy[remaining[equal]] = first[equal]
        hashes, remaining = hashes[shared & ~equal], remaining[shared & ~equal]
    is_first = first_copy == torch.arange(n, device=device)
    numbers = (is_first.cumsum(0) - 1)[first_copy]
    return numbers, is_first.nonzero()[:, 0]


def _pieces(table: Tensor | Rows) -> Iterator[Tensor]:
    if not isinstance(table, Tensor):
        return table.pieces()
    return (table[block] for block in _blocks(*table.shape))


def _take(table: Tensor | Rows, rows: Tensor) -> Tensor:
    return table[rows] if isinstance(table, Tensor) else read_rows(table, rows)


def _hashes(rows: Tensor) -> Tensor:
    """Return equal hashes for equal rows: their bits as words, times odd factors, summed modulo 2^64."""
    words = (rows + 0).contiguous().view(WORDS[rows.itemsize])  # -0 + 0 is 0
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**63), 2**63 - 1, (words.shape[1],), generator=generator) | 1
    return (words * factors.to(rows.device)).sum(1)


def _blocks(n: int, width: int) -> Iterator[slice]:
    step = max(1, BLOCK_ELEMENTS // width)
    return (slice(start, start + step) for start in range(0, n, step))
