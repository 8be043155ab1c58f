"""``check``: the user's training step on the ranks of this run against the same step in one process."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree

from modalign.common.checks import number, torch_seed
from modalign.distributed.comparing import StepOnRanks, compare, usual_tolerance
from modalign.distributed.report import RankCheck
from modalign.distributed.single_process import importable_place, run_alone
from modalign.distributed.stepping import Described, Step, place_of
from modalign.distributed.watched import Watch

__all__ = ["check"]


def check(
    step: Step | str, inputs: Any = None, *, seed: int = 0, tolerance: float | None = None, timeout: float = 600.0
) -> RankCheck:
    """Compare a training step on several ranks with the same step in one process: the loss and every gradient.

    Every rank calls the function, under ``torchrun`` for instance, after ``init_process_group``. The step runs on all
    ranks, and in one process more that rank 0 starts, in which the world has one rank. With the gradient g_r of a
    parameter on rank r of P and g in one process, the step is right where

        g_r = g on every rank,    (1 / P) sum_r loss_r = loss

    Otherwise the result names each parameter whose gradient is a multiple of g, by which factor, and what that usually
    means; where it is no multiple, how far it is off. ``torchrun --nproc-per-node 2 -m modalign.distributed
    my_module:step`` does the same from the command line, and ends with code 1 where something is off.

    Args:
        step: the step: a function at the top of a module, or of a script whose other code stands under ``if __name__ ==
            "__main__":``; or its name, "module:function". It builds or takes its module (wrapped in
            DistributedDataParallel or ``fully_shard``, or not), computes the loss, calls ``backward`` and returns

            - ``(loss, module)``, or a dict of several modules, whose ``.grad`` are compared; the whole of sharded ones;
            - ``(loss, module, rows)`` with the numbers of the items that it used, whereupon items that are missing,
              repeated or in another order are named.

            It uses the group that exists, and does not call ``init_process_group``.
        inputs: the global batch, the same on every rank: a tensor, or a tuple of arguments of the step, whose tensors
            (also those in lists and dicts) have one number of rows. Rank r receives the rows that follow those of rank
            r - 1, as many as ``torch.tensor_split`` gives it. None: the step takes its shard itself, by
            ``torch.distributed.get_rank()``.
        seed: seeds torch, NumPy and Python before each run, so that a module that is built by the step begins with the
            same weights everywhere.
        tolerance: relative difference up to which losses and gradients (in their Euclidean norm) are equal. None: 1e-6
            for float64, 1e-3 for float32, 0.05 where anything is computed in half precision.
        timeout: seconds that the step may take, on the ranks and in one process.

    Returns:
        The findings; ``print`` shows them. The same on every rank.

    Random draws:
        Dropout masks are equal on the ranks and in one process, and so are all draws of torch's default generator whose
        shapes on the ranks add up, along one dimension, to that in one process: dropout of every kind, also within
        attention, stochastic depth, noise. The ranks' rows must follow each other in that dimension, or do so in two
        halves (two views of each item). Draws of one shape everywhere, such as initial weights, are equal everywhere.
        Not made equal: permutations, draws from tensors of probabilities, NumPy's and Python's draws. A note says
        where torch's cannot be. Compiled functions run eagerly, and attention as plain products.

    Memory:
        In each process that of the step, twice its gradients, and the draws of the global batch one at a time.

    Raises:
        RuntimeError: torch.distributed is not initialised or has one rank; the step failed on a rank or in one process,
            or did not finish within the timeout; or two runs in one process differ, so that nothing can be compared.
        TypeError, ValueError: a step that another process cannot import or that returns something else, or inputs that
            cannot be divided or differ between ranks.

    Source:
        The convention of DistributedDataParallel and FSDP, whose gradient is the mean over ranks.

    Examples:
        >>> from modalign.distributed import check
        >>> check("my_training:step")
        Traceback (most recent call last):
        RuntimeError: check: needs a group of at least 2 ranks, got none; run it under torchrun --nproc-per-node 2
    """
    seed = torch_seed("check", seed)
    for name, value in (("timeout", timeout), *([("tolerance", tolerance)] if tolerance is not None else [])):
        if not 0 < number("check", name, value) < math.inf:
            raise ValueError(f"check: {name} must be positive, got {value}")
    place = place_of(step)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        came = "1" if dist.is_available() and dist.is_initialized() else "none"
        raise RuntimeError(
            f"check: needs a group of at least 2 ranks, got {came}; run it under torchrun --nproc-per-node 2"
        )
    assert dist.group.WORLD is not None
    watch = Watch(dist.group.WORLD, timeout)
    batch = () if inputs is None else inputs if isinstance(inputs, tuple) else (inputs,)
    agreed = {"step": ":".join(place), "seed": seed, "tolerance": tolerance, "inputs": _fingerprint(batch)}
    _require_one_call(watch.everyone("the call", lambda: agreed))
    ranks = StepOnRanks(watch, step, _shard(batch, watch.rank, watch.count), seed)
    with tempfile.TemporaryDirectory() as folder:

        def alone() -> Described:
            return run_alone(importable_place(step), batch, folder, seed=seed, timeout=timeout)

        single = watch.everyone("the step in one process", alone, only=0)[0]
        limit = tolerance or usual_tolerance(single)
        require_comparable(single["deviation"], limit)
        return compare(ranks, single, folder, limit)


def require_comparable(deviation: float, limit: float) -> None:
    """Raise a RuntimeError if two runs in one process differ by more than a limit, or by NaN."""
    if math.isnan(deviation):
        raise RuntimeError(
            "check: the loss or a gradient is NaN or inf in one process, so nothing can be compared; look at the step "
            "there first"
        )
    if deviation > limit:
        raise RuntimeError(
            f"check: the step is not deterministic: two runs in one process differ by {deviation:.1%}, so nothing can "
            "be compared. It draws from a generator that is not seeded, or keeps what a run changes, such as weights "
            "after an optimizer's step"
        )


def _require_one_call(calls: Sequence[Described]) -> None:
    """Check that all ranks compare the same."""
    for rank, other in enumerate(calls):
        for name, value in other.items():
            if value != calls[0][name]:
                raise ValueError(
                    f"check: all ranks must make the same call, got {name} = {value} on rank {rank} and "
                    f"{calls[0][name]} on rank 0"
                )


def _fingerprint(batch: Sequence[Any]) -> str:
    """Return a text that differs where the tensors of two batches do; "" for a batch without any."""
    digest = hashlib.sha256()
    tables = [leaf for leaf in _pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    for table in tables:
        digest.update(f"{table.dtype} {tuple(table.shape)}".encode())
        digest.update(table.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12] if tables else ""


def _shard(batch: tuple[Any, ...], rank: int, count: int) -> tuple[Any, ...]:
    """Return a rank's rows of a batch."""
    tables = [leaf for leaf in _pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    sizes = {len(table) if table.ndim else 0 for table in tables}
    if len(sizes) > 1 or 0 in sizes or (batch and not tables):
        raise ValueError(
            f"check: inputs must be tensors with one number of rows, got {sorted(sizes) or 'no tensor'} rows; pass "
            "None where the step takes its shard itself"
        )
    shard: tuple[Any, ...] = _pytree.tree_map_only(Tensor, lambda table: table.tensor_split(count)[rank], batch)
    return shard
