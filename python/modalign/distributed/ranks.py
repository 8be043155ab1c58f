"""The ranks that share a batch: how many rows each holds, and which blocks of S each computes.

The global batch has the rows of rank 0, then those of rank 1, and so on. S has a block for each pair of ranks. In two
streams rank r computes the blocks of its rows with all columns. In one stream S is symmetric, and each pair of blocks
is computed once: rank r takes the columns of the ranks before it, half of the way round; where the number of ranks is
even, the two ranks that are farthest from each other divide their block.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import torch.distributed as dist
from torch.distributed import distributed_c10d

__all__ = ["Block", "Ranks", "group_of"]


def group_of(name: str) -> dist.ProcessGroup:
    """Return the process group of a ``group_name``, by which operators know it."""
    resolve: Callable[[str], dist.ProcessGroup] = vars(distributed_c10d)["_resolve_process_group"]
    return resolve(name)


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of S that a rank computes: some of its own rows, with some columns of the global batch.

    Attributes:
        rows: The rows, counted from the rank's first.
        columns: The columns, counted from the first of the global batch.
        hops: How many ranks before this one the columns' owner is; 0 for the rank itself. With merged blocks, that of
            the nearest owner.
        is_last: Whether no other piece of the block follows.
    """

    rows: slice
    columns: slice
    hops: int
    is_last: bool = True

    def pieces(self, most: int) -> list[Block]:
        """Return pieces of at most so many rows and columns, whose products are as small."""
        pairs = [(rows, columns) for columns in _cut(self.columns, most) for rows in _cut(self.rows, most)]
        return [Block(*pair, self.hops, is_last=pair == pairs[-1]) for pair in pairs]


def _cut(whole: slice, most: int) -> list[slice]:
    return [slice(start, min(start + most, whole.stop)) for start in range(whole.start, whole.stop, most)]


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The ranks of a process group, and the rows of each.

    Attributes:
        name: The name of the group, as ``group_of`` takes it.
        rank: The number of this rank.
        sizes: The number of rows of every rank, at least 1.
    """

    name: str
    rank: int
    sizes: tuple[int, ...]

    @property
    def group(self) -> dist.ProcessGroup:
        """The process group."""
        return group_of(self.name)

    @property
    def count(self) -> int:
        """The number of ranks."""
        return len(self.sizes)

    @property
    def total(self) -> int:
        """The number of rows of all ranks."""
        return sum(self.sizes)

    @property
    def starts(self) -> tuple[int, ...]:
        """The first row of every rank in the global batch."""
        return (0, *itertools.accumulate(self.sizes[:-1]))

    @property
    def own(self) -> slice:
        """The rows of this rank in the global batch."""
        return self.rows_of(self.rank)

    def rows_of(self, rank: int) -> slice:
        """Return the rows of a rank in the global batch."""
        return slice(self.starts[rank], self.starts[rank] + self.sizes[rank])

    def before(self, hops: int) -> int:
        """Return the rank that is so many ranks before this one."""
        return (self.rank - hops) % self.count

    def hops(self, *, one_stream: bool) -> int:
        """Return how many ranks before this one the farthest columns are."""
        return self.count // 2 if one_stream else self.count - 1

    def blocks(self, *, one_stream: bool) -> list[Block]:
        """Return the blocks of this rank with the columns of others, a rank each, the nearest before it first."""
        found = []
        for hops in range(1, self.hops(one_stream=one_stream) + 1):
            other = self.before(hops)
            rows, columns = slice(0, self.sizes[self.rank]), self.rows_of(other)
            if one_stream and 2 * hops == self.count:  # both ranks are here: the lower one takes half of its rows
                if self.rank < other:
                    rows = slice(0, (rows.stop + 1) // 2)
                else:
                    columns = slice(columns.start + (self.sizes[other] + 1) // 2, columns.stop)
            if rows.stop > rows.start and columns.stop > columns.start:
                found.append(Block(rows, columns, hops))
        return found

    def merged_blocks(self, *, one_stream: bool) -> list[Block]:
        """Return the same blocks, those of adjacent columns and equal rows as one."""
        merged: list[Block] = []
        for block in sorted(self.blocks(one_stream=one_stream), key=lambda block: block.columns.start):
            last = merged[-1] if merged else None
            if last is not None and last.rows == block.rows and last.columns.stop == block.columns.start:
                columns = slice(last.columns.start, block.columns.stop)
                merged[-1] = Block(block.rows, columns, min(last.hops, block.hops))
            else:
                merged.append(block)
        return merged
