"""The rows of all processes on each process, with their gradients, for what needs all of them."""

from __future__ import annotations

import math
import operator

import torch
import torch.distributed as dist
from torch import Tensor

from modalign.distributed.agreement import Description
from modalign.distributed.party import ProcessGroup, note_gathered, party_of
from modalign.distributed.rows import gather_rows
from modalign.distributed.sharding import require_process_group

__all__ = ["count_processes", "gather"]


def gather(x: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Return the rows of every process, in the order of their ranks, on each process.

    A loss of all rows computed from them costs each process the whole loss. ``modalign.info_nce(...,
    process_group="world")`` is the same loss, of which each process computes its share.

    The backward pass adds up the gradients that all processes send back to a row,

        dL/dx_r = sum_s dL_s/dx_r = (number of processes) * dL/dx_r    if the loss L_s is the same on all processes

    DistributedDataParallel takes the mean of the parameters' gradients over the processes, so that a step is that of
    one process with the whole batch.

    Args:
        x: (n_r, ...) the rows of this process. The number of rows may differ between processes; the other dimensions
            and the dtype must be the same. Every process must call the function.
        group: None or "world" for all processes, a process group, a ``DeviceMesh`` of one dimension, or a
            ``modalign.distributed.Sharding``. "self" is this process alone.

    Returns:
        (sum of n_r, ...); x itself where torch.distributed is not initialised or the group has one process.

    Memory:
        One copy of the result beyond the result itself.

    Raises:
        TypeError: x is not a tensor with rows, or the group is none.
        ValueError: the processes have rows of different shapes or dtypes.
        RuntimeError: another process did not call the function within the group's timeout.

    Source:
        The gradient is that of OpenCLIP's ``gather_features(gather_with_grad=True)``.

    Examples:
        >>> import torch, modalign
        >>> x, y = torch.randn(2, 8, 4)
        >>> modalign.gather(x) is x  # one process
        True
        >>> loss = modalign.info_nce(modalign.gather(x), modalign.gather(y))
    """
    process_group: ProcessGroup = "world" if group is None else group
    require_process_group("gather", process_group)
    party = party_of("gather", process_group) if count_processes() > 1 else None
    if party is None or party.group.size() == 1:
        _require_rows(x)
        return x
    party.checked(lambda: _require_rows(x))
    note_gathered()
    shape = tuple(map(operator.index, x.shape[1:]))
    described: Description = {"shape": f"(n, {', '.join(map(str, shape))})"}
    described["gradient"] = "with a gradient" if x.requires_grad and torch.is_grad_enabled() else "without a gradient"
    call = party.agree(x.reshape(x.shape[0], math.prod(shape)), described, needs_all="gather")
    return gather_rows(x[None], call)[0] if call.ranks.total else x


def _require_rows(x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.ndim == 0:
        came = "one number" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"gather: x must be a tensor (n, ...), got {came}")


def count_processes() -> int:
    """Return the number of all processes; 1 outside distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
