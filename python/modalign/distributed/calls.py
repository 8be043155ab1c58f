"""The call of a sharded operator: who takes part, and how rows travel."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from modalign.distributed.ranks import Ranks
from modalign.distributed.transport import Gathered, Ring, gathered
from modalign.ops.info_nce import raise_overflow
from modalign.ops.loss_tables import LossTables

__all__ = ["CALL", "Call", "require_finite_everywhere"]

# the fields of Call in an operator's schema
CALL = "str group, SymInt rank, SymInt[] sizes, str way, str wire, Tensor? agreed"


@dataclasses.dataclass(frozen=True)
class Call:
    """The ranks of a call and how rows travel between them.

    Attributes:
        ranks: The ranks, and the rows of each.
        way: "gathered" or "ring".
        wire: The dtype in which rows and gradients travel, None for their own.
        agreed: In a compiled graph, the result of the operator by which the ranks compare the call before it; None
            elsewhere.
    """

    ranks: Ranks
    way: str
    wire: torch.dtype | None
    agreed: Tensor | None = None

    def flat(self) -> tuple[object, ...]:
        """Return the fields in the order of ``CALL``."""
        wire = "" if self.wire is None else str(self.wire).removeprefix("torch.")
        return (self.ranks.name, self.ranks.rank, list(self.ranks.sizes), self.way, wire, self.agreed)

    @classmethod
    def of(cls, name: str, rank: int, sizes: list[int], way: str, wire: str, agreed: Tensor | None) -> Call:
        """Return the call that ``flat`` described."""
        return cls(Ranks(name, rank, tuple(sizes)), way, getattr(torch, wire) if wire else None, agreed)

    @staticmethod
    def for_backward(fields: tuple[object, ...]) -> tuple[object, ...]:
        """Return the fields for the backward pass, which the agreement is long before."""
        return (*fields[:-1], None)

    def one_row_each(self) -> Call:
        """Return the call for one row of numbers on every rank, which travel in their own dtype."""
        return dataclasses.replace(self.with_sizes((1,) * self.ranks.count), wire=None)

    def with_sizes(self, sizes: tuple[int, ...]) -> Call:
        """Return the call for tables of other numbers of rows."""
        return dataclasses.replace(self, ranks=dataclasses.replace(self.ranks, sizes=sizes))

    @property
    def moves(self) -> type[Gathered] | type[Ring]:
        """The class that moves rows and gradients."""
        return Gathered if self.way == "gathered" else Ring

    def moving(self, table: Tensor, kept: Tensor, *, one_stream: bool) -> Gathered | Ring:
        """Return what moves rows (b, n, d) in the backward pass; ``kept`` are those that the forward pass gathered."""
        kind, rows = (Gathered, kept) if self.way == "gathered" else (Ring, table)
        return kind(self.ranks, self.wire, one_stream, rows)


def require_finite_everywhere(operation: str, tables: LossTables, finite: Tensor, ranks: Ranks) -> None:
    """Raise a ValueError on every rank if the results of any rank are not finite.

    Args:
        operation: The name of the loss, with which messages begin.
        tables: The rows of this rank, which are finite.
        finite: Whether its results are.
        ranks: The ranks, which all call this.
    """
    one_each = dataclasses.replace(ranks, sizes=(1,) * ranks.count)
    by_rank = gathered(finite.to(torch.uint8)[None, None], one_each).flatten().bool().tolist()
    if not by_rank[ranks.rank]:
        raise_overflow(operation, tables.x, tables.right, tables.logit_scale)
    if not all(by_rank):
        raise ValueError(f"{operation}: the logits overflow on rank {by_rank.index(False)}; its own message says more")
