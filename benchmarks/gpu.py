"""The losses and the k-NN graphs on a GPU: answers checked, then turns taken inside one process, beside the machine's
half-precision matrix rate of the same minute.

python -m benchmarks.gpu --out FILE.json        what `make gpu` runs
python -m benchmarks.gpu --only knn             one suite of the two: info_nce, knn
python -m benchmarks.gpu --device cpu --small   that the script itself works, where there is no GPU
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_cases import Case, knn_cases, loss_cases
from modalign import provenance

SUITES = {"info_nce": (loss_cases, torch.bfloat16), "knn": (knn_cases, torch.float16)}
SLOW = 5.0  # seconds of a call after which a rival gets two rounds only


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    call()
    _synchronize(device)
    return time.perf_counter() - start


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of a dense product: what the shares are of."""
    a, b = torch.randn(2, size, size, device=device, dtype=dtype).unbind()
    return 2 * size**3 / min(_seconds(lambda: a @ b, device) for _ in range(10))


def measure(case: Case, device: torch.device, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Milliseconds and peak MiB of every rival whose answer is right; why the others are not timed."""
    inputs = case.make(device)
    ours = case.rivals["modalign"](*inputs)
    wrong = case.agree(inputs, "modalign", ours, ours)
    if wrong:
        raise SystemExit(f"{case.name}: modalign is wrong, {wrong}: there is nothing to time")
    refused: dict[str, str] = {}
    for name, rival in case.rivals.items():
        if name == "modalign":
            continue
        try:
            found = case.agree(inputs, name, rival(*inputs), ours)
        except Exception as error:  # a peer that cannot run here must not cost our numbers
            found = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if found:
            refused[name] = found
    del ours
    rivals = {name: rival for name, rival in case.rivals.items() if name not in refused}
    memory, times = {}, {}
    for name, rival in rivals.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            base = torch.cuda.memory_allocated(device)
            rival(*inputs)
            memory[name] = (torch.cuda.max_memory_allocated(device) - base) / 2**20
        times[name] = [_seconds(functools.partial(rival, *inputs), device)]
    fewer = max(own[0] for own in times.values()) > SLOW
    for _ in range((2 if fewer else rounds) - 1):
        for name, rival in rivals.items():
            times[name].append(_seconds(functools.partial(rival, *inputs), device))
    medians = {name: statistics.median(own) for name, own in times.items()}
    rate = matrix_rate(device, dtype, 8192 if device.type == "cuda" else 512)
    return {
        "case": case.name,
        "milliseconds": {name: 1e3 * own for name, own in medians.items()},
        "operations_per_second": case.operations / medians["modalign"],
        "matrix_rate": rate,
        "share_of_matrix_rate": case.operations / medians["modalign"] / rate,
        "megabytes": memory,
        "not_timed": refused,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=[*SUITES], help="one suite")
    parser.add_argument("--small", action="store_true", help="sizes for a machine without a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the record here (JSON)")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; --device cpu --small shows that the script works")
    console = Console()
    record: dict[str, Any] = {"provenance": provenance.collect(), "suites": {}}
    for suite, (cases, dtype) in SUITES.items():
        if arguments.only not in (None, suite):
            continue
        table = Table("case", "ms", "TFLOP/s", "share of matrix rate", "rivals, ms", "MiB above inputs", title=suite)
        rows = record["suites"][suite] = []
        for case in cases(arguments.small):
            row = measure(case, device, dtype, arguments.rounds)
            rows.append(row)
            rivals = [f"{name} {ms:.2f}" for name, ms in row["milliseconds"].items() if name != "modalign"]
            rivals += [f"{name} not timed: {why}" for name, why in row["not_timed"].items()]
            table.add_row(
                row["case"], f"{row['milliseconds']['modalign']:.2f}", f"{row['operations_per_second'] / 1e12:.2f}",
                f"{row['share_of_matrix_rate']:.0%}", ", ".join(rivals),
                ", ".join(f"{name} {value:.0f}" for name, value in row["megabytes"].items()),
            )  # fmt: skip
            if arguments.out:  # after every case: what was measured is not lost with the next
                provenance.write_atomically(
                    arguments.out, lambda path: path.write_text(json.dumps(record, indent=1), encoding="utf-8")
                )
        console.print(table)


if __name__ == "__main__":
    main()
