"""The rows of all processes on each process, with their gradients, for losses over a batch that is spread out."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather"]


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
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return x
    # (number of rows, (other dimensions, dtype)) of each process
    sizes: list[tuple[int, tuple[tuple[int, ...], str]]] = [(0, ((), ""))] * dist.get_world_size(group)
    dist.all_gather_object(sizes, (len(x), (tuple(x.shape[1:]), str(x.dtype))), group)
    kinds = {kind for _, kind in sizes}
    if len(kinds) > 1:
        raise ValueError(f"gather: all processes must have rows of one shape and dtype, got {sorted(map(str, kinds))}")
    rows: Tensor = _Gather.apply(x, [count for count, _ in sizes], group)  # type: ignore[no-untyped-call]
    return rows


class _GatherContext(Protocol):
    sizes: list[int]
    group: dist.ProcessGroup | None


class _Gather(torch.autograd.Function):
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
