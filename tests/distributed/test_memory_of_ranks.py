"""The memory of a rank is what the docstrings of the losses state, whichever way rows travel."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.profiler import ProfilerActivity, profile

import modalign
from modalign.distributed import Sharding
from modalign.distributed.transport import PIECES

RANKS, ROWS, WIDTH = 3, 2500, 64
PIECE = 1000  # rows of the ring's products
CASES = [(name, way) for name in ("info_nce", "nt_xent", "sigmoid_loss") for way in ("gathered", "ring")]


def most_bytes(name: str, way: str) -> int:
    """Return the most bytes that a step has allocated at a time, beyond the rows and their gradients."""
    x, y = torch.randn(2, ROWS, WIDTH, generator=torch.Generator().manual_seed(dist.get_rank())).unbind()
    for rows in (x.requires_grad_(), y.requires_grad_()):
        rows.grad = torch.zeros_like(rows)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        getattr(modalign, name)(x, y, process_group=Sharding(way=way)).backward()
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    events = sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    held = most = 0
    for event in events:
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    PIECES["cpu"] = PIECE
    dist.init_process_group("gloo", f"file://{folder}/meeting", timedelta(seconds=300), RANKS, rank)
    Path(folder, f"{rank}.json").write_text(json.dumps([most_bytes(*case) for case in CASES]))
    dist.barrier()
    os._exit(0)  # without waiting for gloo's threads, see test_gathering


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    folder = tmp_path_factory.mktemp("memory")
    mp.spawn(run_rank, (str(folder),), RANKS)  # type: ignore[no-untyped-call]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_rank_allocates_what_is_stated(name: str, way: str, measured: list[list[int]]) -> None:
    rows = 2 * ROWS if name == "nt_xent" else ROWS
    columns = 3 * RANKS * rows + 5 * rows if way == "gathered" else 8 * rows + 2 * PIECE
    stated = 4 * (columns * WIDTH + 10 * RANKS * rows)
    for rank in measured:
        share = rank[CASES.index((name, way))] / stated
        assert (0.9 if name == "info_nce" else 0.0) < share < 1.1
