"""The rows of all processes on each of them, with their gradients: contrastive losses over a batch that is spread."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather"]


def gather(x: Tensor, group: Any = None) -> Tensor:
    """The rows ``x`` of every process, in the order of their ranks, on each process.

    The loss of all rows is then computed everywhere, and L_r, the one of process r, is the same number on all of them.
    The backward pass adds up what every process sends back to a row:

        dL/dx_r = sum_s dL_s/dx_r = (number of processes) * dL/dx_r

    which is what DistributedDataParallel, taking the mean of the parameters' gradients over the processes, needs to
    arrive at the gradient of one process with the whole batch.

    Args:
        x: (n_r, ...), rows of this process; the numbers of rows may differ, all else must be the same everywhere.
            Every process must call.
        group: a process group, None for all processes.

    Returns: (sum of n_r, ...); x itself where torch.distributed is not initialised or there is one process.
    Peak memory beyond the result: one copy of it.

    Raises:
        TypeError: x is no tensor with rows.
        ValueError: shapes beyond the first dimension, or dtypes, that differ between the processes.
        RuntimeError: a second derivative is asked for.

    Source: the gradient as in OpenCLIP's ``gather_features(gather_with_grad=True)``.

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
    mine = (len(x), tuple(x.shape[1:]), str(x.dtype))
    every: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(every, mine, group)
    kinds = {kind[1:] for kind in every}
    if len(kinds) > 1:
        raise ValueError(f"gather: all processes must have rows of one shape and dtype, got {sorted(map(str, kinds))}")
    rows: Tensor = _Gather.apply(x, [kind[0] for kind in every], group)  # type: ignore[no-untyped-call]
    return rows


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], group: Any) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        # collectives want one shape: the shorter ones are filled up
        longest = max(sizes)
        padded = x.new_zeros(longest, *x.shape[1:])
        padded[: len(x)] = x
        tables = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(tables, padded, ctx.group)
        return torch.cat([table[:size] for table, size in zip(tables, sizes, strict=True)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return torch.split(total, ctx.sizes)[dist.get_rank(ctx.group)], None, None
