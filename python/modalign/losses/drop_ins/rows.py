"""Checks and sums over rows of embeddings that the drop-in losses share."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from modalign.common.checks import number
from modalign.common.deterministic import softplus
from modalign.common.dtypes import FLOATS, accumulator
from modalign.ops.info_nce import info_nce_forward
from modalign.ops.loss_tables import ForwardOptions, LossTables

__all__ = ["cross_entropy", "log_pool", "require_rows", "require_temperature", "unit_length"]


def log_pool(x: Tensor, y: Tensor, scale: float | Tensor, *, ids: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return log sum_j exp(scale <x_i, y_j>), (n,), for x (n, d) and y (m, d).

    With ``ids``, (n,) of x and (m,) of y, only rows of y with another id than row i are summed.
    """
    scales = torch.as_tensor(scale, dtype=accumulator(x.dtype), device=x.device).expand(1, len(x))
    tables = LossTables(x[None], y[None], scales)
    if ids is not None:
        tables = dataclasses.replace(tables, row_id=ids[0][None], col_id=ids[1][None], mask="same")
    return info_nce_forward(tables, ForwardOptions(columns=False)).row_lse[0]


def cross_entropy(positive: Tensor, log_pool: Tensor) -> Tensor:
    """Return log(exp positive + exp log_pool) - positive, for a pool without the positive; exact where it is small."""
    return softplus(log_pool - positive)


def unit_length(x: Tensor) -> Tensor:
    """Return rows of unit length in x's dtype, computed in float32 at least; a zero row stays zero.

    torch's ``normalize`` computes them, as in the originals, so that a memory bank holds the same bits.
    """
    return F.normalize(x.to(accumulator(x.dtype)), dim=-1).to(x.dtype)


def require_rows(operation: str, **tensors: Tensor) -> None:
    """Raise a TypeError unless all are floating-point tensors."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in FLOATS:
            came = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(
                f"{operation}: {name} must be a tensor of float16, bfloat16, float32 or float64, got {came}"
            )


def require_temperature(operation: str, temperature: float) -> None:
    """Raise an error unless the temperature is a positive finite number."""
    if not 0 < number(operation, "temperature", temperature) < math.inf:
        raise ValueError(f"{operation}: temperature must be positive and finite, got {temperature}")
