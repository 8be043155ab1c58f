"""Checks and sums over rows of embeddings that the drop-in losses share."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from modalign.common.checks import number, require_floats
from modalign.common.deterministic import softplus
from modalign.common.dtypes import accumulator
from modalign.distributed.agreement import Description
from modalign.distributed.calls import require_finite_everywhere
from modalign.distributed.party import Party, ProcessGroup, party_of, warn_of_other_ranks
from modalign.distributed.ranks import Ranks
from modalign.distributed.rows import gather_rows
from modalign.distributed.sharding import require_process_group
from modalign.losses.inputs import checks_values, readable, require_real
from modalign.ops.info_nce import info_nce_forward, require_finite_tables
from modalign.ops.loss_tables import ForwardOptions, LossTables

__all__ = [
    "Gathered",
    "alone",
    "cross_entropy",
    "damp_gradient",
    "log_pool",
    "party_of_losses",
    "positive_number",
    "require_finite",
    "require_rows",
    "require_switch",
    "unit_length",
]


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The rows of all ranks.

    Attributes:
        rows: (N, ...) the rows of all ranks. The gradient of a row is the sum of those of all ranks.
        own: which of them are the rows of this rank.
        ranks: the ranks.
    """

    rows: Tensor
    own: slice
    ranks: Ranks

    @classmethod
    def of(cls, party: Party, rows: Tensor, reason: str) -> Gathered:
        """Gather the rows (n, ...) of all ranks, each of which must call this.

        ``reason`` is what needs them, for the message to those who wanted a ring.
        """
        described: Description = {**party.also, "shape": f"(n, {', '.join(map(str, rows.shape[1:]))})"}
        gradient = rows.requires_grad and torch.is_grad_enabled()
        described["x"] = "with a gradient" if gradient else "without a gradient"
        call = party.agree(rows.flatten(1), described, needs_all=reason)
        return cls(gather_rows(rows[None], call)[0], call.ranks.own, call.ranks)

    def require_finite(self, operation: str, logits: Tensor, scale: float) -> None:
        """Raise a ValueError on every rank for NaN or inf in the rows, or for logits of any rank that overflow.

        ``scale`` is what inner products were multiplied by. A compiled call checks nothing here.
        """
        if checks_values("auto", self.rows) and readable(self.rows, wait=True):
            rows = self.rows.flatten(0, -2)
            require_finite_tables(operation, {"embeddings": rows})
            tables = LossTables(rows[None], None, rows.new_full((1, 1), scale))
            require_finite_everywhere(operation, tables, (logits < torch.inf).all(), self.ranks)


def party_of_losses(operation: str, process_group: ProcessGroup) -> Party:
    """Return the ranks of a loss that is one of several ranks'; those of the world if ``process_group`` is unset."""
    unset = isinstance(process_group, str) and process_group == "unset"
    party = party_of(operation, "world" if unset else process_group)
    if party is None:
        raise ValueError(
            f"{operation}: process_group must be 'world', a process group or a modalign.distributed.Sharding for a "
            f"loss of several processes, got {process_group!r}, which is one process"
        )
    return party


def require_switch(operation: str, process_group: ProcessGroup, switch: str, *, is_on: bool) -> None:
    """Raise an error for a process group of a loss that has the rows of other processes with ``switch`` alone."""
    require_process_group(operation, process_group)
    if not is_on and not (isinstance(process_group, str) and process_group in ("unset", "self")):
        raise ValueError(
            f"{operation}: process_group has an effect with {switch} alone: write both, or neither for the loss of the "
            "rows of this process"
        )


def alone(operation: str, process_group: ProcessGroup, remedy: str) -> str:
    """Return the process group of a loss of this process, and warn where others have rows unless that is wanted.

    ``remedy`` are the arguments of the loss with the rows of all.
    """
    if process_group == "unset":
        warn_of_other_ranks(operation, remedy)
    return "self"


def log_pool(
    x: Tensor,
    y: Tensor,
    scale: float | Tensor,
    *,
    ids: tuple[Tensor, Tensor] | None = None,
    check_finite: bool | str = "auto",
) -> Tensor:
    """Return log sum_j exp(scale <x_i, y_j>), (n,), for x (n, d) and y (m, d).

    With ``ids``, (n,) of x and (m,) of y, only rows of y with another id than row i are summed. ``check_finite`` is
    that of ``modalign.info_nce``.
    """
    scales = torch.as_tensor(scale, dtype=accumulator(x.dtype), device=x.device).expand(1, x.shape[0])
    tables = LossTables(x[None], y[None], scales)
    if ids is not None:
        tables = dataclasses.replace(tables, row_id=ids[0][None], col_id=ids[1][None], mask="same")
    options = ForwardOptions(columns=False, check_finite=checks_values(check_finite, x), pairs=False)
    return info_nce_forward(tables, options).row_lse[0]


def cross_entropy(positive: Tensor, log_pool: Tensor) -> Tensor:
    """Return log(exp positive + exp log_pool) - positive, for a pool without the positive; exact where it is small."""
    return softplus(log_pool - positive)


def unit_length(x: Tensor) -> Tensor:
    """Return rows of unit length in x's dtype, computed in float32 at least; a zero row stays zero.

    torch's ``normalize`` computes them, as in the originals, so that a memory bank holds the same bits.
    """
    return F.normalize(x.to(accumulator(x.dtype)), dim=-1).to(x.dtype)


def damp_gradient(x: Tensor, share: float) -> Tensor:
    """Return x, of whose gradient only ``share`` passes."""
    return x.detach() + share * (x - x.detach())


def require_rows(operation: str, **tensors: Tensor) -> None:
    """Raise a TypeError unless all are dense floating-point tensors."""
    for name, tensor in tensors.items():
        require_floats(operation, name, tensor, "a tensor of float16, bfloat16, float32 or float64")


def require_finite(operation: str, **tables: Tensor) -> None:
    """Raise a ValueError for NaN or inf, where ``modalign.info_nce`` would with check_finite="auto"."""
    for name, table in tables.items():
        if checks_values("auto", table) and readable(table):
            require_finite_tables(operation, {name: table})


def positive_number(operation: str, name: str, value: float | Tensor, x: Tensor) -> float | Tensor:
    """Return a positive number, or a tensor without dimensions, whose value is checked where the host can read it.

    ``x`` are the rows that it is for.
    """
    if isinstance(value, Tensor):
        require_real(operation, name, value, x)
        if value.numel() != 1:
            raise ValueError(f"{operation}: {name} must have one element, got shape {tuple(value.shape)}")
        value = value.reshape(())
        if not readable(value):
            return value
    plain = value.item() if isinstance(value, Tensor) else number(operation, name, value)
    if not 0 < plain < math.inf:
        raise ValueError(f"{operation}: {name} must be positive and finite, got {plain}")
    return value
