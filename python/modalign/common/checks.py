"""Checks of what users pass to the losses, and its conversion to what the operators take: [problems, rows, ...]."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from modalign.common.deterministic import sum_rows
from modalign.ops.info_nce import accumulator
from modalign.ops.unit_rows import unit_rows

__all__ = [
    "FLOATS",
    "REDUCTIONS",
    "autocast_dtype",
    "embeddings",
    "groups_and_ignored",
    "logit_scales",
    "number",
    "one_of",
    "per_row",
    "readable",
    "reduced",
    "require_groups",
    "require_like",
    "require_pairs",
    "require_same_items",
    "without_autocast",
]

REDUCTIONS = ("mean", "sum", "none")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def one_of(operation: str, name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{operation}: {name} must be one of {allowed}, got {value!r}")


def number(operation: str, name: str, value: Any) -> float:
    """``value`` if it is a number, of Python or NumPy."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise TypeError(f"{operation}: {name} must be a number, got {value!r}")
    return value  # type: ignore[return-value]


def require_pairs(operation: str, x: Tensor, y: Tensor) -> None:
    for name, tensor in (("x", x), ("y", y)):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{operation}: {name} must be a torch tensor, got {type(tensor).__name__}")
        if tensor.dtype not in FLOATS:
            raise TypeError(f"{operation}: {name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")
    one_dtype = x.dtype == y.dtype or (autocast_dtype(x) is not None and autocast_dtype(y) is not None)
    if x.device != y.device or not one_dtype:
        raise TypeError(
            f"{operation}: x and y must share dtype and device, got {x.dtype} {x.device} and {y.dtype} {y.device}"
        )
    if x.ndim < 2 or x.shape != y.shape:
        raise ValueError(
            f"{operation}: x and y must have one shape (..., n, d), row i of x paired with row i of y, "
            f"got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if x.numel() == 0:
        raise ValueError(f"{operation}: x and y must not be empty, got {tuple(x.shape)}")


def require_same_items(operation: str, x: tuple[int, ...], y: tuple[int, ...]) -> None:
    """Shapes of two representations of the same items."""
    if len(x) != 2 or len(y) != 2 or x[0] != y[0]:
        raise ValueError(
            f"{operation}: x and y must be (n, d_x) and (n, d_y), row i of both the same item, got {x} and {y}"
        )


def require_like(
    operation: str, name: str, tensor: Tensor, x: Tensor, shapes: tuple[tuple[Any, ...], ...], any_float: bool = False
) -> None:  # fmt: skip
    """``tensor`` has x's dtype (or any float) and device and one of ``shapes``, whose letters stand for any size."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{operation}: {name} must be a torch tensor, got {type(tensor).__name__}")

    def fits(shape: tuple[Any, ...]) -> bool:
        return len(shape) == tensor.ndim and all(
            size > 0 if isinstance(wanted, str) else size == wanted
            for size, wanted in zip(tensor.shape, shape, strict=True)
        )

    if not any(map(fits, shapes)):
        wanted = " or ".join(dict.fromkeys("(" + ", ".join(map(str, shape)) + ")" for shape in shapes))
        raise ValueError(f"{operation}: {name} must be {wanted} for x {tuple(x.shape)}, got {tuple(tensor.shape)}")
    cast = tensor.dtype in FLOATS and autocast_dtype(x) is not None and autocast_dtype(tensor) is not None
    same = tensor.dtype == x.dtype or cast or (any_float and tensor.dtype in FLOATS)
    if tensor.device != x.device or not same:
        raise TypeError(
            f"{operation}: {name} must have the dtype and device of x, {x.dtype} {x.device}, "
            f"got {tensor.dtype} {tensor.device}"
        )


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype in which autocast wants matrix products of ``x``; None outside it, and for float64."""
    device = x.device.type
    if x.dtype == torch.float64 or device == "meta" or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


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


def require_groups(n: int, m: int, k: int, groups: Tensor | None, query_groups: Tensor | None) -> None:
    """Groups [n] of candidates and [m] of those who search; every one of these must have k outside its own."""
    if groups is None and query_groups is None:
        return
    if groups is None or query_groups is None:
        raise ValueError("knn: groups and query_groups go together where there are queries, got one of them")
    for name, of, rows in (("groups", groups, n), ("query_groups", query_groups, m)):
        if tuple(of.shape) != (rows,):
            raise ValueError(f"knn: {name} must be ({rows},), one for each row, got {tuple(of.shape)}")
    values, counts = torch.unique(groups, return_counts=True)
    place = torch.searchsorted(values, query_groups).clamp_(max=len(values) - 1)
    mates = counts[place] * (values[place] == query_groups)
    few = (n - mates < k).nonzero()[:, 0]
    if len(few):
        raise ValueError(
            f"knn: every row must have k = {k} candidates outside its group, got fewer for {len(few)} rows, the first "
            f"{few[:3].tolist()}; take a smaller k or leave out the largest groups"
        )


def reduced(
    operation: str, each: Tensor, batch: torch.Size, reduction: str, weights: Tensor | None, kept: Tensor | None
) -> Tensor:
    """Losses [problems, n] as "none" (..., n), "sum" or "mean" (...,): weighted, without the rows that are ignored."""
    if weights is not None and readable(weights) and not bool(((weights >= 0) & (weights < torch.inf)).all()):
        raise ValueError(f"{operation}: weights must be finite and not negative")
    if kept is not None:
        each = torch.where(kept, each, 0.0)
        weights = kept.to(each.dtype) if weights is None else weights * kept
    if weights is not None:
        largest = weights.detach().amax(1, keepdim=True)
        if readable(largest) and not bool((largest > 0).all()):
            raise ValueError(f"{operation}: the weights of a problem are all zero: there is no mean")
        if reduction == "mean":  # their size makes no difference, and might leave the range of the sums
            weights = weights / torch.where(largest > 0, largest, 1)
        weights = weights.to(each.dtype)
        each = each * weights
    if reduction == "none":
        return each.reshape(*batch, -1)
    total = sum_rows(each)
    if reduction == "mean":
        total = total / (each.shape[1] if weights is None else sum_rows(weights).clamp_min(1))
    return total.reshape(batch)
