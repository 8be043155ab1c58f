"""The rows of all processes on each process, with their gradients, for losses over a batch that is spread out."""

from __future__ import annotations

import warnings
from typing import Any, Protocol, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from modalign.common.checks import refuse_forward_mode

__all__ = ["Gather", "count_processes", "gather", "gather_options", "require_gather"]

# what a loss does about the rows of other processes: see modalign.InfoNCE
Gather: TypeAlias = "bool | str | dist.ProcessGroup | None"
# options of losses with one value for each row -> the dimension of the rows
ROW_OPTIONS = {"groups": -1, "ignore": -1, "weights": -1, "negatives": -3}
# losses that have warned in this process, and "gather" once rows have been gathered
_answered: set[str] = set()


def gather(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return the rows of every process, in the order of their ranks, on each process.

    The loss of all rows can then be computed everywhere: the loss L_r of process r is the same number on every process.
    The backward pass adds up the gradients that all processes send back to a row,

        dL/dx_r = sum_s dL_s/dx_r = (number of processes) * dL/dx_r

    DistributedDataParallel takes the mean of the parameters' gradients over the processes, so that a step is that of
    one process with the whole batch.

    Args:
        x: (n_r, ...) the rows of this process. The number of rows may differ between processes; the other dimensions
            and the dtype must be the same. Every process must call the function.
        group: a process group, or None for all processes.

    Returns:
        (sum of n_r, ...); x itself where torch.distributed is not initialised or has one process.

    Memory:
        One copy of the result beyond the result itself.

    Raises:
        TypeError: x is not a tensor with rows.
        ValueError: the processes have rows of different shapes or dtypes.
        RuntimeError: a second derivative is computed.

    Source:
        The gradient is that of OpenCLIP's ``gather_features(gather_with_grad=True)``.

    Examples:
        >>> import torch, modalign
        >>> x, y = torch.randn(2, 8, 4)
        >>> modalign.gather(x) is x  # one process
        True
        >>> loss = modalign.info_nce(modalign.gather(x), modalign.gather(y))
    """
    if not isinstance(x, Tensor) or x.ndim == 0:
        came = "one number" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"gather: x must be a tensor (n, ...), got {came}")
    if count_processes(group) == 1:
        return x
    _answered.add("gather")
    # (number of rows, (other dimensions, dtype)) of each process
    sizes: list[tuple[int, tuple[tuple[int, ...], str]]] = [(0, ((), ""))] * dist.get_world_size(group)
    dist.all_gather_object(sizes, (len(x), (tuple(x.shape[1:]), str(x.dtype))), group)
    kinds = {kind for _, kind in sizes}
    if len(kinds) > 1:
        raise ValueError(f"gather: all processes must have rows of one shape and dtype, got {sorted(map(str, kinds))}")
    rows: Tensor = _Gather.apply(x, [count for count, _ in sizes], group)  # type: ignore[no-untyped-call]
    return rows


def require_gather(loss: str, choice: object) -> None:
    """Raise a ValueError unless the value is "unset", None, False, True or a process group."""
    groups = (dist.ProcessGroup,) if dist.is_available() else ()
    if not (choice is None or isinstance(choice, (bool, *groups)) or choice == "unset"):
        hint = "; did you mean True?" if str(choice).lower() in ("yes", "on", "true", "1") else ""
        raise ValueError(f"{loss}: gather must be 'unset', None, True or a process group, got {choice!r}{hint}")


def gather_options(
    loss: str, choice: Gather, pairs: tuple[Tensor, Tensor], options: dict[str, Any]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return x, y and the options of a loss, of the rows of all processes if that is its ``choice``."""
    x, y = pairs
    if choice == "unset" and not torch.compiler.is_compiling():
        _warn_of_other_processes(loss)
    group = None if choice is None or isinstance(choice, (bool, str)) else choice
    if choice in ("unset", None, False) or count_processes(group) == 1:
        return x, y, options

    def rows(table: Tensor, dim: int) -> Tensor:
        return gather(table.movedim(dim, 0), group).movedim(0, dim)

    every = {name: rows(options[name], dim) for name, dim in ROW_OPTIONS.items() if options.get(name) is not None}
    if options.get("teacher") is not None:
        tx, ty, temperature = options["teacher"]
        every["teacher"] = (rows(tx, -2), rows(ty, -2), temperature)  # type: ignore[assignment]
    return rows(x, -2), rows(y, -2), options | every


def count_processes(group: dist.ProcessGroup | None = None) -> int:
    """Return the number of processes of a group, of all processes if it is None; 1 outside distributed training."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def _warn_of_other_processes(loss: str) -> None:
    """Warn once if other processes may have rows of the batch, and rows were never gathered."""
    processes = count_processes()
    if processes == 1 or _answered & {"gather", loss}:
        return
    _answered.add(loss)
    warnings.warn(
        f"{loss}: this process is one of {processes}, and the loss has its rows alone. The rows of other processes are "
        "no negatives, and a learnable temperature that DistributedDataParallel does not hold differs more and more "
        f"between the processes. Write {loss}(..., gather=True) for the loss of the rows of all processes, or "
        "gather=None for a loss of the rows that it is given",
        stacklevel=6,  # the call of the module
    )


class _GatherContext(Protocol):
    sizes: list[int]
    group: dist.ProcessGroup | None


class _Gather(torch.autograd.Function):
    jvp = staticmethod(refuse_forward_mode)

    @staticmethod
    def forward(ctx: _GatherContext, x: Tensor, sizes: list[int], group: dist.ProcessGroup | None) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        # collectives take one shape: shorter tables are padded
        longest = max(sizes)
        padded = x.new_zeros(longest, *x.shape[1:])
        padded[: len(x)] = x
        tables = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(tables, padded, ctx.group)
        return torch.cat([table[:size] for table, size in zip(tables, sizes, strict=True)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _GatherContext, grad: Tensor) -> tuple[Tensor, None, None]:
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return torch.split(total, ctx.sizes)[dist.get_rank(ctx.group)], None, None
