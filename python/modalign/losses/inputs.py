"""The conversion of the losses' arguments into the tables [problems, rows, ...] that the operators take."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from modalign.common.checks import require_tensor
from modalign.common.dtypes import accumulator, autocast_dtype
from modalign.distributed.calls import Call
from modalign.distributed.rows import gather_rows
from modalign.ops.info_nce import require_scales
from modalign.ops.unit_rows import unit_rows

__all__ = [
    "biases",
    "blank_ignored",
    "checks_values",
    "embeddings",
    "groups_and_ignored",
    "has_value_per_anchor",
    "logit_scales",
    "per_row",
    "problem_scales",
    "readable",
    "require_positive",
    "require_real",
    "without_autocast",
]

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context in which operations compute in the dtypes of their inputs."""
    device = x.device.type  # autocast does not know the device of tensors without values
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def readable(values: Tensor, *, wait: bool = False) -> bool:
    """Return whether the host can read the values without stopping torch.compile or torch.func.

    It does not wait for a device, unless ``wait`` is set. A fake or meta tensor has no values to read.
    """
    traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(values)
    device = values.device.type
    return (device == "cpu" or (wait and device != "meta")) and not traced and not isinstance(values, FakeTensor)


def checks_values(check_finite: bool | str, x: Tensor) -> bool:
    """Return whether NaN and inf in embeddings raise an error.

    "auto" passes them on for float16, where a gradient scaler skips the step, and on devices for which the host would
    have to wait.
    """
    if check_finite != "auto":
        return bool(check_finite)
    return x.device.type == "cpu" and torch.float16 not in (x.dtype, autocast_dtype(x))


def embeddings(x: Tensor, normalize: bool, problems: int) -> Tensor:
    """Return the rows (..., n, d) as the operators take them: [problems, n, d], in autocast's dtype under autocast.

    With ``normalize`` the rows have length one; a zero row stays zero.
    """
    dtype = autocast_dtype(x)
    with without_autocast(x):
        if normalize:
            x = unit_rows(x if dtype is None else x.float())
        return x.reshape(problems, *x.shape[-2:]).to(dtype or x.dtype)


def blank_ignored(rows: Tensor, kept: Tensor | None) -> Tensor:
    """Return the rows (..., n, d) with zeros in place of those that are not kept, which may hold anything."""
    return rows if kept is None else rows.masked_fill(~kept.reshape(*rows.shape[:-1], 1), 0.0)


def logit_scales(operation: str, temperature: float | Tensor, batch: torch.Size, x: Tensor) -> tuple[Tensor, bool]:
    """Return 1 / temperature for each row, [problems, n], and whether it may differ within a problem.

    A tensor that broadcasts to the leading dimensions has one temperature for each problem. A tensor with one dimension
    more, the last of size n, has one for each anchor.
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
    require_real(operation, "temperature", temperature, x)
    per_anchor = has_value_per_anchor(temperature, x)
    if temperature.numel() == 1 and not per_anchor:
        temperature = temperature.reshape(())
    scale = 1 / temperature.to(device=x.device, dtype=dtype)
    if per_anchor:
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


def has_value_per_anchor(temperature: float | Tensor, x: Tensor) -> bool:
    """Return whether a temperature has the shape (..., n) of one for each of the rows x (..., n, d).

    One element is both, that of the only row and one for the problem.
    """
    return isinstance(temperature, Tensor) and temperature.ndim == x.ndim - 1 and temperature.shape[-1] == x.shape[-2]


def require_positive(operation: str, scale: Tensor) -> None:
    """Raise a ValueError unless the temperatures are positive and finite, where the host can read them."""
    if readable(scale):
        require_scales(operation, scale)


def require_real(operation: str, name: str, value: Tensor, x: Tensor) -> None:
    """Raise a TypeError unless a tensor is dense, holds real numbers, and has a value if x has values."""
    require_tensor(operation, name, value)
    wrong_dtype = value.is_complex() or value.dtype == torch.bool
    if wrong_dtype or (value.device.type == "meta" and x.device.type != "meta"):
        came = f"dtype {value.dtype}" if wrong_dtype else "one on the meta device, which has no value"
        raise TypeError(f"{operation}: {name} must be a number or a tensor of real numbers, got {came}")


def problem_scales(operation: str, temperature: float | Tensor, batch: torch.Size, x: Tensor) -> Tensor:
    """Return 1 / temperature for each row, [problems, n], of a loss that takes one temperature for each problem."""
    scale, per_anchor = logit_scales(operation, temperature, batch, x)
    if per_anchor and isinstance(temperature, Tensor) and temperature.numel() != 1:
        raise ValueError(f"{operation}: temperature must be one value per problem, got one per anchor")
    return scale


def biases(bias: float | Tensor, batch: torch.Size, scale: Tensor) -> Tensor:
    """Return sigmoid_loss's bias of each problem, [problems], in the dtype and on the device of ``scale``."""
    if not isinstance(bias, Tensor):
        wrong = isinstance(bias, bool) or not isinstance(bias, (int, float))
        # a compiler that takes the bias for a variable does not know its value
        if wrong or (not torch.compiler.is_compiling() and not math.isfinite(bias)):
            raise ValueError(f"sigmoid_loss: bias must be a finite number or a tensor, got {bias!r}")
        return torch.full((math.prod(batch),), float(bias), dtype=scale.dtype, device=scale.device)
    require_real("sigmoid_loss", "bias", bias, scale)
    try:
        bias = bias.reshape(()) if bias.numel() == 1 else bias
        return bias.to(device=scale.device, dtype=scale.dtype).expand(batch).reshape(-1)
    except RuntimeError as error:
        raise ValueError(
            f"sigmoid_loss: bias must broadcast to the leading dimensions {tuple(batch)}, got {tuple(bias.shape)}"
        ) from error


def per_row(operation: str, name: str, values: Tensor, x: Tensor, *, dtypes: tuple[torch.dtype, ...]) -> Tensor:
    """Return values (..., n) or (n,), one for each row of x, as [problems, n]."""
    names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    require_tensor(operation, name, values, f"a tensor of {names}")
    if values.dtype not in dtypes:
        raise TypeError(f"{operation}: {name} must be a tensor of {names}, got {values.dtype}")
    if values.device != x.device:
        raise TypeError(f"{operation}: {name} must be on {x.device}, as x is, got {values.device}")
    batch, n = x.shape[:-2], x.shape[-2]
    if values.shape not in ((n,), (*batch, n)):  # not a set, which would fix the sizes of a compiled graph
        wanted = f"{(*batch, n)}, one for each row of x" + (f", or ({n},)" if batch else "")
        raise ValueError(f"{operation}: {name} must be {wanted}, got {tuple(values.shape)}")
    return values.expand(*batch, n).reshape(math.prod(batch), n)


def groups_and_ignored(
    operation: str,
    groups: Tensor | None,
    ignore: Tensor | None,
    x: Tensor,
    *,
    call: Call | None = None,
    some_kept: bool = True,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the ids [problems, n] of the groups, and the mask [problems, n] of the rows that are not ignored.

    Ids are 0 to n - 1, equal within a group, and -1 for a row that is ignored; without groups all rows that are not
    ignored have the id 0. Both are None without groups and ignored rows; the mask is None if ``ignore`` is. Where the
    batch is that of several ranks, groups and ids are, too. ``some_kept``: whether a row must be left in every problem.
    """
    kept = None
    if ignore is not None:
        kept = ~per_row(operation, "ignore", ignore, x, dtypes=(torch.bool,))
        some = kept if call is None else gather_rows(kept, call)
        if some_kept and readable(some) and not bool(some.any(1).all()):
            raise ValueError(f"{operation}: every row of a problem is ignored: there is no loss")
    if groups is None:
        return None if kept is None else kept.long() - 1, kept
    labels = per_row(operation, "groups", groups, x, dtypes=INTEGERS).long()
    ids = _numbered(labels) if call is None else _numbered(gather_rows(labels, call))[:, call.ranks.own]
    return ids if kept is None else torch.where(kept, ids, -1), kept


def _numbered(labels: Tensor) -> Tensor:
    """Return numbers (b, n) from 0 that are equal where labels are."""
    order = labels.sort(1)
    starts = (order.values != order.values.roll(1, 1)).long()  # the first value is compared with the last
    return torch.empty_like(labels).scatter_(1, order.indices, starts.cumsum(1) - starts[:, :1])
