"""Conversion of what users pass to the losses into what the operators take: tables of [problems, rows, ...]."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from modalign.common.checks import autocast_dtype
from modalign.common.dtypes import accumulator
from modalign.ops.unit_rows import unit_rows

__all__ = ["embeddings", "groups_and_ignored", "logit_scales", "per_row", "readable", "without_autocast"]


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """What is computed inside is computed in the dtypes it is given."""
    device = x.device.type  # autocast does not know the devices of tensors without values
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def readable(values: Tensor) -> bool:
    """Whether the host can look at values without waiting for a device, or stopping torch.compile or torch.func, and
    there are values."""
    traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(values)
    return values.device.type == "cpu" and not traced and not isinstance(values, FakeTensor)


def embeddings(x: Tensor, normalize: bool, problems: int) -> Tensor:
    """[problems, n, d] as the operators take it: rows of length one if asked for, autocast's dtype under autocast."""
    wanted = autocast_dtype(x)
    with without_autocast(x):
        if normalize:
            x = unit_rows(x if wanted is None else x.float())
        return x.reshape(problems, *x.shape[-2:]).to(wanted or x.dtype)


def logit_scales(operation: str, temperature: float | Tensor, batch: torch.Size, x: Tensor) -> tuple[Tensor, bool]:
    """1 / temperature for each row [problems, n], and whether it may differ within a problem.

    A tensor gives one for each problem if it broadcasts to the leading dimensions, one for each anchor if its last
    dimension is n and it has as many dimensions as they have and one more.
    """
    dtype, n = accumulator(x.dtype), x.shape[-2]
    problems = math.prod(batch)
    if not isinstance(temperature, Tensor):
        if isinstance(temperature, bool) or not isinstance(temperature, (int, float, np.floating, np.integer)):
            raise TypeError(f"{operation}: temperature must be a number or a tensor, got {temperature!r}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"{operation}: temperature must be positive and finite, got {temperature}")
        if not 1 / float(temperature) <= torch.finfo(dtype).max:
            raise ValueError(
                f"{operation}: temperature must be at least 1 / {torch.finfo(dtype).max:.2g}, got {temperature}"
            )
        return torch.full((problems, n), 1 / float(temperature), dtype=dtype, device=x.device), False
    if temperature.numel() == 1:
        temperature = temperature.reshape(())
    scale = 1 / temperature.to(device=x.device, dtype=dtype)
    if temperature.ndim == len(batch) + 1 and temperature.shape[-1] == n:
        try:
            return scale.expand(*batch, n).reshape(problems, n), True
        except RuntimeError:
            pass  # the message below covers it
    else:
        try:
            return scale.expand(batch).reshape(problems, 1).expand(problems, n), False
        except RuntimeError:
            pass
    raise ValueError(
        f"{operation}: temperature must broadcast to the leading dimensions {tuple(batch)}, or be {(*batch, n)}, "
        f"one for each anchor, got shape {tuple(temperature.shape)}"
    )


def per_row(operation: str, name: str, values: Tensor, x: Tensor, kinds: tuple[torch.dtype, ...]) -> Tensor:
    """``values`` (..., n) or (n,), one for each row of x, as [problems, n]."""
    if not isinstance(values, Tensor) or values.dtype not in kinds:
        came = values.dtype if isinstance(values, Tensor) else type(values).__name__
        names = " or ".join(str(kind).removeprefix("torch.") for kind in kinds)
        raise TypeError(f"{operation}: {name} must be a tensor of {names}, got {came}")
    if values.device != x.device:
        raise TypeError(f"{operation}: {name} must be on {x.device}, as x is, got {values.device}")
    batch, n = x.shape[:-2], x.shape[-2]
    if tuple(values.shape) not in {(n,), (*batch, n)}:
        wanted = f"{(*batch, n)}, one for each row of x" + (f", or ({n},)" if batch else "")
        raise ValueError(f"{operation}: {name} must be {wanted}, got {tuple(values.shape)}")
    return values.expand(*batch, n).reshape(-1, n)


INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def groups_and_ignored(
    operation: str, groups: Tensor | None, ignore: Tensor | None, x: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Ids [problems, n]: 0 to n - 1, equal within a group, -1 for a row to ignore; and which rows are kept."""
    kept = None
    if ignore is not None:
        kept = ~per_row(operation, "ignore", ignore, x, (torch.bool,))
        if readable(kept) and not bool(kept.any(1).all()):
            raise ValueError(f"{operation}: every row of a problem is ignored: there is no loss")
    if groups is None:
        return None if kept is None else kept.long() - 1, kept
    labels = per_row(operation, "groups", groups, x, INTEGERS).long()
    order = labels.sort(1)
    starts = F.pad((order.values.diff(dim=1) != 0).long(), (1, 0))
    ids = torch.empty_like(labels).scatter_(1, order.indices, starts.cumsum(1))
    return ids if kept is None else torch.where(kept, ids, -1), kept
