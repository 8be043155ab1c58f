"""Losses and gradients of libraries, and of the losses that replace them, on several ranks of gloo.

A case of ``make_drop_ins`` with ``sizes`` is for as many ranks as there are sizes, and each passes so many rows of the
batch. All cases run in one start of four processes.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from losses import make_drop_ins

RANKS = (2, 4)


def run_on_ranks(
    cases: list[dict[str, Any]], library: str, facts: str | None = None
) -> tuple[list[list[np.ndarray]], list[Any]]:
    """Return for each case what ``make_drop_ins.run`` returns on rank 0, then on rank 1, and so on.

    ``library`` is "originals" or "ours". The second result is what a function "module:name" of the rank returns on each
    of two ranks.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_run, (cases, (library, facts), os.path.join(folder, "meeting")), max(RANKS))
        results = [
            torch.load(os.path.join(folder, f"meeting.{rank}"), weights_only=False) for rank in range(max(RANKS))
        ]
    arrays = [[array for rank in results for array in rank.get(number, [])] for number in range(len(cases))]
    return arrays, [rank[-1] for rank in results if -1 in rank]


def _run(rank: int, cases: list[dict[str, Any]], what: tuple[str, str | None], address: str) -> None:
    torch.set_num_threads(1)
    library, facts = what
    losses, results = getattr(make_drop_ins, library)(), {}
    for count in RANKS:
        if rank < count:
            dist.init_process_group("gloo", f"file://{address}{count}", timedelta(seconds=60), count, rank)
            for number, case in enumerate(cases):
                if len(case["sizes"]) == count:
                    results[number] = make_drop_ins.run(case, losses, rank)
            if facts is not None and count == 2:
                module, name = facts.split(":")
                results[-1] = getattr(importlib.import_module(module), name)(rank)
            dist.barrier()
            dist.destroy_process_group()
    torch.save(results, f"{address}.{rank}")
    os._exit(0)
