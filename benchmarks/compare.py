"""Times rivals side by side: answers checked first, then turns taken inside one process, then ratios.

    python -m benchmarks.compare info_nce                 one table
    python -m benchmarks.compare all --out FILE.json      every table, and a record with machine, versions and commit

A ratio is the median over rounds of (rival's time / ours) within the round, so a slow moment of the machine hits both.
When more is running than the machine has cores, no ratio is printed unless --even-if-loaded says so; the record keeps
the load either way.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.cases import CASES, Case
from modalign import provenance


def gemm_rate(seconds: float = 0.5) -> float:
    """The machine's float32 matrix rate, in operations a second: the ceiling the shares are of."""
    a, b = torch.randn(2, 2048, 2048).unbind()
    best = 0.0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        a @ b
        best = max(best, 2 * 2048**3 / (time.perf_counter() - start))
    return best


def peak_megabytes(suite: str, case: str, rival: str) -> float:
    """What one call holds at most above its inputs, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", suite, case, rival]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(case: Case, budget: float, suite: str | None = None) -> dict[str, Any]:
    """Times of every rival; with ``suite``, where the case is found again, memory too."""
    inputs = case.make()
    expected = case.rivals["modalign"](*inputs)
    if not case.right(*inputs, expected):
        raise SystemExit(f"{case.name}: modalign's answer is wrong: there is nothing to time")
    for name, rival in case.rivals.items():
        if not case.agree(rival(*inputs), expected):
            raise SystemExit(f"{case.name}: {name} and modalign disagree: there is nothing to time")
    memory = {name: peak_megabytes(suite, case.name, name) for name in case.rivals} if suite else {}
    times: dict[str, list[float]] = {name: [] for name in case.rivals}
    until = time.perf_counter() + budget
    while len(times["modalign"]) < 3 or (time.perf_counter() < until and len(times["modalign"]) < 50):
        for name, rival in case.rivals.items():
            start = time.perf_counter()
            rival(*inputs)
            times[name].append(time.perf_counter() - start)
    ratios = {
        name: statistics.median(theirs / ours for theirs, ours in zip(own, times["modalign"], strict=True))
        for name, own in times.items()
    }
    return {
        "case": case.name,
        "rounds": len(times["modalign"]),
        "milliseconds": {name: 1e3 * statistics.median(own) for name, own in times.items()},
        "spread": {name: (max(own) - min(own)) / statistics.median(own) for name, own in times.items()},
        "ratio": ratios,
        "megabytes": memory,
        "operations_per_second": case.operations / statistics.median(times["modalign"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=[*CASES, "all"])
    parser.add_argument("--budget", type=float, default=3.0, help="seconds a case (default 3; at least 3 rounds)")
    parser.add_argument("--out", type=Path, help="write the record here (JSON)")
    parser.add_argument("--memory", action="store_true", help="measure peak memory too, each in a fresh process")
    parser.add_argument("--only", default="", help="only cases whose name holds this")
    parser.add_argument("--even-if-loaded", action="store_true", help="print ratios on a loaded machine too")
    arguments = parser.parse_args()
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    loaded = load > cores + 0.5
    if loaded and not arguments.even_if_loaded:
        sys.exit(f"load {load:.1f} on {cores} cores: a ratio measured now means nothing (--even-if-loaded to go on)")
    console = Console()
    record: dict[str, Any] = {"provenance": provenance.collect(), "load": load, "gemm_rate": gemm_rate(), "suites": {}}
    for suite in CASES if arguments.suite == "all" else [arguments.suite]:
        cases = [case for case in CASES[suite]() if arguments.only in case.name]
        rows = [
            measure(case, arguments.budget, suite if arguments.memory else None)
            for case in track(cases, suite, console=console, transient=True)
        ]
        record["suites"][suite] = rows
        table = Table(
            "case",
            "ms",
            "share of GEMM rate",
            "times faster than",
            "MB above inputs",
            title=f"{suite} (load {load:.1f})",
        )
        for row in rows:
            rivals = [f"{name} {ratio:.2f}" for name, ratio in row["ratio"].items() if name != "modalign"]
            megabytes = ", ".join(f"{name} {value:.0f}" for name, value in row["megabytes"].items())
            share = row["operations_per_second"] / record["gemm_rate"]
            table.add_row(
                row["case"], f"{row['milliseconds']['modalign']:.2f}", f"{share:.0%}", ", ".join(rivals), megabytes
            )
        console.print(table)
    record["load_after"] = os.getloadavg()[0]
    if arguments.out:
        provenance.write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1)))
        console.print(f"record: {arguments.out}")


if __name__ == "__main__":
    main()
