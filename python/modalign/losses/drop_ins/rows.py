"""Checks and sums over rows of embeddings that the drop-in losses share."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from modalign.common.checks import number, require_floats
from modalign.common.deterministic import softplus
from modalign.common.dtypes import accumulator
from modalign.losses.gathering import count_processes, gather
from modalign.losses.inputs import checks_values, readable, require_real
from modalign.ops.info_nce import info_nce_forward, require_finite_tables
from modalign.ops.loss_tables import ForwardOptions, LossTables

__all__ = ["Gathered", "cross_entropy", "log_pool", "positive_number", "require_finite", "require_rows", "unit_length"]


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The rows of all processes, and which of them are those of this process.

    Attributes:
        rows: (N, d) the rows of all processes, with their gradients; in one process its rows.
        ids: (N,) int64, a number for each of these rows.
        local_ids: (n,) the numbers of the rows of this process.
    """

    rows: Tensor
    ids: Tensor
    local_ids: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Gathered:
        """Gather the rows (n, d), of which every process must call this."""
        local_ids = torch.arange(rows.shape[0], device=rows.device)
        if count_processes() > 1:
            local_ids = local_ids + (dist.get_rank() << 32)  # no process has as many rows
        return cls(gather(rows), gather(local_ids), local_ids)


def log_pool(x: Tensor, y: Tensor, scale: float | Tensor, *, ids: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return log sum_j exp(scale <x_i, y_j>), (n,), for x (n, d) and y (m, d).

    With ``ids``, (n,) of x and (m,) of y, only rows of y with another id than row i are summed.
    """
    scales = torch.as_tensor(scale, dtype=accumulator(x.dtype), device=x.device).expand(1, x.shape[0])
    tables = LossTables(x[None], y[None], scales)
    if ids is not None:
        tables = dataclasses.replace(tables, row_id=ids[0][None], col_id=ids[1][None], mask="same")
    options = ForwardOptions(columns=False, check_finite=checks_values("auto", x), pairs=False)
    return info_nce_forward(tables, options).row_lse[0]


def cross_entropy(positive: Tensor, log_pool: Tensor) -> Tensor:
    """Return log(exp positive + exp log_pool) - positive, for a pool without the positive; exact where it is small."""
    return softplus(log_pool - positive)


def unit_length(x: Tensor) -> Tensor:
    """Return rows of unit length in x's dtype, computed in float32 at least; a zero row stays zero.

    torch's ``normalize`` computes them, as in the originals, so that a memory bank holds the same bits.
    """
    return F.normalize(x.to(accumulator(x.dtype)), dim=-1).to(x.dtype)


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
