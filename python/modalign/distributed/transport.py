"""How rows and gradients travel between ranks: gathered at once, or from rank to rank around a ring.

Tables are (b, n, ...): b problems, and the rows of this rank. Gathered, each rank holds the rows of all; in the ring a
block of rows visits one rank after the other, and the next block arrives while a rank computes with the last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from modalign.distributed.agreement import naming_lost_ranks
from modalign.distributed.ranks import Block, Ranks
from modalign.distributed.wire import opened, packed, rows_more

__all__ = ["Gathered", "Ring", "exchanged", "gathered", "scattered", "sum_in_order"]

# rows and columns of a block that the ring computes at once: their products need memory, and GPUs much work at a time
PIECES = {"cpu": 4096, "cuda": 16_384}

# torch 2.13 renamed both
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gathered(table: Tensor, ranks: Ranks, wire: torch.dtype | None = None) -> Tensor:
    """Return the rows (b, N, ...) of all ranks, which travel in the dtype ``wire`` if they are floating-point numbers.

    Every rank calls it with its rows (b, n, ...).
    """
    longest, wire = max(ranks.sizes), wire if table.is_floating_point() and 0 not in table.shape[2:] else None
    sent = packed(_padded(table, longest), wire)
    out = sent.new_empty(ranks.count, *sent.shape)
    with naming_lost_ranks(ranks.group):
        _all_gather(out.flatten(0, 1), sent, group=ranks.group)
    if len(table) == 1 and ranks.total == longest * ranks.count and not rows_more(wire):
        return out.flatten(0, 2)[None].to(table.dtype)
    sizes = zip(out, ranks.sizes, strict=True)
    return torch.cat([opened(part, table.dtype, slice(size), wire) for part, size in sizes], 1)


def scattered(table: Tensor, ranks: Ranks, wire: torch.dtype | None = None) -> Tensor:
    """Return the sum over all ranks of this rank's rows (b, n, ...) of tables (b, N, ...).

    Sums are in the dtype of the table, whatever travels.
    """
    longest, even = max(ranks.sizes), ranks.total == max(ranks.sizes) * ranks.count
    parts = [_padded(table[:, ranks.rows_of(rank)], longest) for rank in range(ranks.count)]
    if wire is not None:
        sent = torch.stack([packed(part, wire) for part in parts])
        received = torch.empty_like(sent)
        with naming_lost_ranks(ranks.group):
            dist.all_to_all_single(received, sent, group=ranks.group)
        own = slice(ranks.sizes[ranks.rank])
        return sum_in_order([opened(part, table.dtype, own, wire) for part in received], table.dtype)
    whole = table.reshape(ranks.count, 1, longest, *table.shape[2:]) if even and len(table) == 1 else torch.stack(parts)
    out = table.new_empty(whole.shape[1:])
    with naming_lost_ranks(ranks.group):
        _reduce_scatter(out, whole.flatten(0, 1).contiguous(), group=ranks.group)
    return out[:, : ranks.sizes[ranks.rank]]


def sum_in_order(tables: Tensor | Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the sum of the tables of all ranks, in the order of the ranks."""
    total = tables[0].to(dtype)
    for table in tables[1:]:
        total = total + table.to(dtype)
    return total


def exchanged(table: Tensor, ranks: Ranks) -> Tensor:
    """Return what every rank has for the rows of this one: (P, f, b, n) of tables (f, b, N)."""
    sent = table.movedim(2, 0).contiguous()
    n = ranks.sizes[ranks.rank]
    received = sent.new_empty(ranks.count * n, *sent.shape[1:])
    with naming_lost_ranks(ranks.group):
        dist.all_to_all_single(received, sent, [n] * ranks.count, list(ranks.sizes), group=ranks.group)
    parts: Tensor = received.reshape(ranks.count, n, *sent.shape[1:]).movedim(1, 3)
    return parts


def _padded(table: Tensor, length: int) -> Tensor:
    """Return rows (b, n, ...) in contiguous memory, with zeros up to a length."""
    if table.shape[1] == length:
        return table.contiguous()
    result = table.new_zeros(len(table), length, *table.shape[2:])
    result[:, : table.shape[1]] = table
    return result


@dataclasses.dataclass
class Columns:
    """The columns of S on a rank, which other ranks need, too.

    Attributes:
        ranks: The ranks.
        wire: The dtype in which rows and gradients travel; None for their own.
        one_stream: Whether the columns are the rows.
        table: (b, m, d) those that this rank holds.
    """

    ranks: Ranks
    wire: torch.dtype | None
    one_stream: bool
    table: Tensor


class Gathered(Columns):
    """The columns of all ranks at once, and the sums of their gradients."""

    @classmethod
    def of(cls, table: Tensor, ranks: Ranks, wire: torch.dtype | None, *, one_stream: bool) -> Gathered:
        """Return the gathered columns of tables (b, n, d)."""
        return cls(ranks, wire, one_stream, gathered(table, ranks, wire))

    def visits(self) -> Iterator[tuple[Block, Tensor]]:
        """Yield the blocks with the columns of other ranks, and their columns (b, m, d)."""
        for block in self.ranks.merged_blocks(one_stream=self.one_stream):
            yield block, self.table[:, block.columns]

    def start_sums(self, like: Tensor) -> None:
        """Begin the sums of gradients, in the dtype of ``like``."""
        self.sums = like.new_zeros(self.table.shape)

    def add(self, block: Block, gradient: Tensor) -> None:
        """Add the gradient (b, m, d) of a block's columns."""
        self.sums[:, block.columns] += gradient

    def collect(self) -> Tensor:
        """Return the sum of the gradients that all ranks have for the columns of this one, (b, n, d)."""
        return scattered(self.sums, self.ranks, self.wire)


class Ring(Columns):
    """The columns of one rank at a time, which travel to the next rank with the sums of their gradients."""

    @classmethod
    def of(cls, table: Tensor, ranks: Ranks, wire: torch.dtype | None, *, one_stream: bool) -> Ring:
        """Return the ring of tables (b, n, d)."""
        return cls(ranks, wire, one_stream, table)

    def visits(self) -> Iterator[tuple[Block, Tensor]]:
        """Yield the blocks with the columns of other ranks, and their columns (b, m, d), as they arrive."""
        ranks, hops = self.ranks, self.ranks.hops(one_stream=self.one_stream)
        blocks = {block.hops: block for block in ranks.blocks(one_stream=self.one_stream)}
        most = PIECES.get(self.table.device.type, PIECES["cuda"])
        here = packed(self.table, self.wire)
        pending, arriving = self._pass_on(here, 1) if hops else ([], here)
        for hop in range(1, hops + 1):
            _wait(pending, ranks)
            here = arriving
            if hop < hops:
                pending, arriving = self._pass_on(here, hop + 1)
            first = ranks.rows_of(ranks.before(hop)).start
            for block in blocks[hop].pieces(most) if hop in blocks else ():
                columns = slice(block.columns.start - first, block.columns.stop - first)
                yield block, opened(here, self.table.dtype, columns, self.wire)

    def _pass_on(self, here: Tensor, hops: int) -> tuple[list[dist.Work], Tensor]:
        """Send what is here to the next rank, and begin to receive what has made so many hops."""
        rows = self.ranks.sizes[self.ranks.before(hops)] + rows_more(self.wire)
        arriving = here.new_empty(len(here), rows, *here.shape[2:])
        return self._swap(here, 1, arriving), arriving

    def _swap(self, sent: Tensor, distance: int, received: Tensor) -> list[dist.Work]:
        """Send to the rank so far after this one, and receive from the one so far before it."""
        ranks = self.ranks
        operations = [
            dist.P2POp(dist.isend, sent, group=ranks.group, group_peer=(ranks.rank + distance) % ranks.count),
            dist.P2POp(dist.irecv, received, group=ranks.group, group_peer=ranks.before(distance)),
        ]
        with naming_lost_ranks(ranks.group):
            works: Sequence[dist.Work] = dist.batch_isend_irecv(operations)
        return list(works)

    def start_sums(self, like: Tensor) -> None:
        """Begin the sums of gradients, in the dtype of ``like``."""
        self.like, self.hop = like, 0
        self.held = like.new_zeros(0)  # the sums of the columns that are here
        self.sending: list[dist.Work] = []
        self.travelling = self.arriving = self.held

    def add(self, block: Block, gradient: Tensor) -> None:
        """Add the gradient (b, m, d) of a block's columns to the sums that came with them, and pass those on."""
        while self.hop < block.hops:
            self._receive()
        first = self.ranks.rows_of(self.ranks.before(block.hops)).start
        self.held[:, block.columns.start - first : block.columns.stop - first] += gradient
        if block.is_last and self.hop < self.ranks.hops(one_stream=self.one_stream):
            self._send()

    def collect(self) -> Tensor:
        """Return the sum of the gradients that all ranks have for the columns of this one, (b, n, d)."""
        hops = self.ranks.hops(one_stream=self.one_stream)
        if not hops:
            return self.like.new_zeros(self.table.shape)
        while self.hop < hops:
            self._receive()
        self._send(-hops)  # home
        _wait(self.sending, self.ranks)
        return self._arrived()

    def _send(self, distance: int = 1) -> None:
        """Begin to send the sums that are here, and to receive those that are next."""
        b, _, d = self.table.shape
        next_here = self.ranks.before(self.hop + 1 if distance == 1 else 0)
        self.travelling = packed(self.held, self.wire)
        self.arriving = self.travelling.new_empty(b, self.ranks.sizes[next_here] + rows_more(self.wire), d)
        self.sending = self._swap(self.travelling, distance, self.arriving)

    def _arrived(self) -> Tensor:
        return opened(self.arriving, self.like.dtype, slice(self.arriving.shape[1] - rows_more(self.wire)), self.wire)

    def _receive(self) -> None:
        """Let the sums of the columns that have made one hop more be here."""
        if self.hop == 0:  # columns leave their owner without sums: it adds its own at the end
            b, _, d = self.table.shape
            self.held = self.like.new_zeros(b, self.ranks.sizes[self.ranks.before(1)], d)
        else:
            if not self.sending:
                self._send()
            _wait(self.sending, self.ranks)
            self.held = self._arrived()
        self.sending = []
        self.hop += 1


def _wait(works: Sequence[dist.Work], ranks: Ranks) -> None:
    with naming_lost_ranks(ranks.group):
        for work in works:
            work.wait()
