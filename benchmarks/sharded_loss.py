"""Measure the time, work and memory of ``info_nce`` over several processes of this machine.

    python -m benchmarks.sharded_loss              2 processes against 1, 8,192 x 256; memory of 4 at 65,536 x 128
    python -m benchmarks.sharded_loss --out FILE.json

Time: P processes of one thread compute the sharded loss, the loss of gathered rows (every process all of it), and one
process computes the whole loss with P threads, in turns; ratios are medians over rounds. All must return the same
loss. Work: the multiply-adds of every operator call of a rank, as a share of N^2 d / P. Memory: the peak of each rank
beyond its own rows and their gradients, each way in new processes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from rich.table import Table

import modalign
from modalign.common import provenance
from modalign.distributed import Sharding
from modalign.files.atomic import write_atomically

ROUNDS, TEMPERATURE = 11, 0.07
Record = dict[str, Any]


def rows_of(rank: int, n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x and y of a rank, which need gradients."""
    x, y = torch.randn(2, n, d, generator=torch.Generator().manual_seed(rank)).unbind()
    return x.requires_grad_(), (x.detach() + y).requires_grad_()


def step(loss: Callable[[], torch.Tensor], *tables: torch.Tensor) -> float:
    """Compute a loss and its gradients, and return it."""
    for table in tables:
        table.grad = None
    value = loss()
    value.backward()
    return float(value.detach())


def time_rank(rank: int, ranks: int, address: str, shape: tuple[int, int]) -> None:
    """Time the losses in turns; rank 0 saves the seconds."""
    dist.init_process_group("gloo", f"file://{address}", timedelta(seconds=600), ranks, rank)
    n, d = shape
    x, y = rows_of(rank, n // ranks, d)
    every = [rows_of(other, n // ranks, d) for other in range(ranks)]
    whole = [torch.cat([pair[side].detach() for pair in every]).requires_grad_() for side in range(2)]

    def sharded(way: str) -> float:
        torch.set_num_threads(1)
        return step(lambda: modalign.info_nce(x, y, temperature=TEMPERATURE, process_group=Sharding(way=way)), x, y)

    def gathered() -> float:
        torch.set_num_threads(1)
        both = lambda: (modalign.gather(x), modalign.gather(y))  # noqa: E731
        return step(lambda: modalign.info_nce(*both(), temperature=TEMPERATURE), x, y)

    def alone() -> float:
        if rank:
            return 0.0
        torch.set_num_threads(ranks)
        return step(lambda: modalign.info_nce(*whole, temperature=TEMPERATURE, process_group="self"), *whole)

    kinds: dict[str, Callable[[], float]] = {
        "gathered": lambda: sharded("gathered"),
        "ring": lambda: sharded("ring"),
        "redundant": gathered,
        "one process": alone,
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    losses: dict[str, float] = {}
    for _ in range(ROUNDS + 1):
        for name, kind in kinds.items():
            dist.barrier()
            begin = time.perf_counter()
            losses[name] = kind()
            dist.barrier()
            seconds[name].append(time.perf_counter() - begin)
    if rank == 0:
        assert max(losses.values()) - min(losses.values()) < 1e-5 * abs(losses["one process"]), losses
        text = json.dumps({name: values[1:] for name, values in seconds.items()})
        Path(f"{address}.json").write_text(text, encoding="utf-8")
    dist.barrier()
    os._exit(0)


def peak() -> int:
    """Return the peak memory of this process in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def measure_memory(rank: int, ranks: int, address: str, call: tuple[tuple[int, int], str]) -> None:
    """Save the peak of this rank beyond its rows and gradients, and the formula for it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{address}", timedelta(seconds=600), ranks, rank)
    (n, d), way = call
    small = rows_of(rank, 64, d)
    step(lambda: modalign.info_nce(*small, process_group=Sharding(way=way)), *small)  # loads libraries
    x, y = rows_of(rank, n // ranks, d)
    x.grad, y.grad = torch.zeros_like(x), torch.zeros_like(y)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before = peak()
    loss = modalign.info_nce(x, y, temperature=TEMPERATURE, process_group=Sharding(way=way))
    loss.backward()
    Path(f"{address}.{rank}").write_text(str(peak() - before), encoding="utf-8")
    dist.barrier()
    os._exit(0)


def work_of_rank(rank: int, ranks: int, address: str, shape: tuple[int, int]) -> None:
    """Save the FLOPs of the operator calls of this rank, by loss."""
    from modalign.distributed import info_nce as sharded

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{address}", timedelta(seconds=600), ranks, rank)
    flops = 0
    forward, backward = sharded.forward_operator, sharded.backward_operator

    def count(x: torch.Tensor, y: torch.Tensor | None, products: int) -> None:
        nonlocal flops
        entries = x.shape[1] * (x.shape[1] / 2 if y is None else y.shape[1])
        flops += int(2 * len(x) * x.shape[2] * entries * products)

    def counted_forward(*arguments: Any) -> Any:
        count(arguments[0], arguments[1], 1)
        return forward(*arguments)

    def counted_backward(*arguments: Any) -> Any:
        x, y, (v, u) = arguments[0], arguments[1], arguments[14:16]
        # S again, and a product for each table; in one stream W v is the whole product
        count(x, y, 1 + (v is not None) * (2 if y is None else 1) + (u is not None))
        return backward(*arguments)

    sharded.forward_operator, sharded.backward_operator = counted_forward, counted_backward  # type: ignore[assignment]
    n, d = shape
    found = {}
    for loss, factor in (("info_nce", 8), ("nt_xent", 16)):
        for way in ("gathered", "ring"):
            flops = 0
            x, y = rows_of(rank, n // ranks, d)
            step(lambda: getattr(modalign, loss)(x, y, process_group=Sharding(way=way)), x, y)  # noqa: B023
            found[f"{loss}, {way}"] = flops / (factor * n * n * d / ranks)
    Path(f"{address}.{rank}").write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    os._exit(0)


def spawned(function: Callable[..., None], ranks: int, *arguments: Any) -> list[Any]:
    """Run a function on some ranks, and return what each, or rank 0, has saved."""
    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder) / "meeting"
        mp.spawn(function, (ranks, str(address), *arguments), ranks)  # type: ignore[no-untyped-call]
        alone = Path(f"{address}.json")
        files = [alone] if alone.exists() else [Path(f"{address}.{rank}") for rank in range(ranks)]
        return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2, help="processes of the timing (2)")
    parser.add_argument("--shape", type=int, nargs=2, default=[8192, 256], help="N and d of the timing")
    parser.add_argument("--memory-ranks", type=int, default=4, help="processes of the measurement of memory (4)")
    parser.add_argument("--memory-shape", type=int, nargs=2, default=[65536, 128], help="its N and d")
    parser.add_argument("--out", type=Path, help="the JSON file of the record")
    arguments = parser.parse_args()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "1000000"  # for the processes: tables that are freed leave at once
    console, shape = Console(), tuple(arguments.shape)
    (seconds,) = spawned(time_rank, arguments.ranks, shape)
    ratios = {
        f"{name} / {other}": statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))
        for name, other in (("gathered", "one process"), ("ring", "one process"), ("redundant", "gathered"))
    }
    work = {
        ranks: [max(one[name] for one in found) for name in found[0]]
        for ranks in (2, 3, 4)
        if (found := spawned(work_of_rank, ranks, (1200, 16)))
    }
    n, d = arguments.memory_shape
    memory = {way: max(spawned(measure_memory, arguments.memory_ranks, ((n, d), way))) for way in ("gathered", "ring")}
    table = Table("measured", "value", title=f"info_nce, {arguments.ranks} processes, {shape[0]} x {shape[1]}")
    for name, value in ratios.items():
        table.add_row(name, f"{value:.2f}")
    for ranks, shares in work.items():
        table.add_row(
            f"work / bound, P = {ranks}: info_nce gathered, ring, nt_xent", " ".join(f"{s:.3f}" for s in shares)
        )
    unit = 4 * n * d / arguments.memory_ranks
    for way, value in memory.items():
        table.add_row(
            f"memory, {way}, P = {arguments.memory_ranks}, {n} x {d}",
            f"{value / 2**20:.0f} MiB, {value / unit:.1f} n_r d",
        )
    console.print(table)
    if arguments.out is not None:
        record: Record = {"provenance": provenance.collect(), "seconds": seconds, "ratios": ratios}
        record |= {"work": work, "memory": memory, "memory_shape": [n, d], "memory_ranks": arguments.memory_ranks}
        text = json.dumps(record, indent=1) + "\n"
        write_atomically(arguments.out, lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
