"""``torchrun --nproc-per-node 2 -m modalign.distributed my_module:step`` checks a training step, as ``check`` does."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist

from modalign.distributed.checker import check

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Check a step, print the findings on rank 0, and return the exit code: 1 where something is off, 2 for errors."""
    parser = argparse.ArgumentParser(
        prog="torchrun --nproc-per-node 2 -m modalign.distributed",
        description="Compare a training step on several ranks with the same step in one process.",
    )
    parser.add_argument("step", help="the function that runs forward and backward, my_module:step")
    parser.add_argument("--seed", type=int, default=0, help="seed of torch, NumPy and Python before each run (0)")
    parser.add_argument("--tolerance", type=float, help="relative difference that counts as equal (by dtype)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds that the step may take (600)")
    parser.add_argument("--backend", help="nccl or gloo (nccl where each rank has a GPU)")
    options = parser.parse_args(arguments)
    if "RANK" not in os.environ:
        parser.error("run it under torchrun, with at least 2 ranks")
    _start(options.backend, options.timeout)
    rank = dist.get_rank()
    try:
        result = check(options.step, seed=options.seed, tolerance=options.tolerance, timeout=options.timeout)
    except Exception as error:  # the user's step may raise anything
        if not str(error).startswith("check: "):
            traceback.print_exc()
        elif rank == 0:
            print(error, file=sys.stderr)
        return 2
    if rank == 0:
        print(result)
    return 0 if result.ok else 1


def _start(backend: str | None, timeout: float) -> None:
    """Initialise the group of all ranks, each with a GPU of its own where there are enough."""
    local, locals_ = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if backend != "gloo" and torch.cuda.device_count() >= locals_:
        torch.cuda.set_device(local)
        backend = backend or "nccl"
    dist.init_process_group(backend or "gloo", timeout=timedelta(seconds=timeout))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if code and os.environ.get("RANK") != "0":
        time.sleep(1)  # torchrun ends all ranks with the first that fails, and rank 0 still prints
    # a thread may still wait for a lost rank, and gloo's threads may abort a process that ends its interpreter
    os._exit(code)
