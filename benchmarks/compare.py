"""Compare the speed of modalign with that of its rivals.

Results are checked first; then the candidates take turns in one process.

    python -m benchmarks.compare info_nce                 one suite
    python -m benchmarks.compare all --out FILE.json      all suites, and a record with machine, versions and commit

A ratio is the median over rounds of (rival's time / our time) within a round, so that a slow moment of the machine
affects both. The script refuses to run when the load exceeds the number of cores, unless --even-if-loaded is given; the
record contains the load.
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

from benchmarks import speed
from benchmarks.cases import Case, first_rows
from benchmarks.load import require_idle_machine
from benchmarks.suites import CASES
from modalign.common import provenance
from modalign.files.atomic import write_atomically

GEMM_SIZE = 2048  # rows and columns of the matrices whose product gives the machine's rate


def gemm_rates(seconds: float = 0.5) -> dict[str, float]:
    """Return the machine's matrix rates by torch, in operations a second, by number format."""
    rates = {}
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        a, b = (10 * torch.randn(2, GEMM_SIZE, GEMM_SIZE)).to(dtype).unbind()
        multiply = torch._int_mm if dtype == torch.int8 else torch.mm
        best, until = 0.0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            start = time.perf_counter()
            multiply(a, b)
            best = max(best, 2 * GEMM_SIZE**3 / (time.perf_counter() - start))
        rates[str(dtype).removeprefix("torch.")] = best
    return rates


def peak_megabytes(suite: str, case: str, rival: str) -> float:
    """Return the peak memory of one call above its inputs, measured in another process."""
    command = [sys.executable, "-m", "benchmarks.memory", suite, case, rival]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(case: Case, budget: float, suite: str | None = None) -> dict[str, Any]:
    """Return the times of every candidate, and their memory if the name of the case's suite is given."""
    inputs = case.make()
    times: dict[str, list[float]] = {name: [] for name in case.rivals}

    def timed(name: str) -> Any:
        start = time.perf_counter()
        answer = case.rivals[name](*inputs)
        times[name].append(time.perf_counter() - start)
        return answer

    if case.rounds == 1:  # pynndescent is compiled by numba, which takes half a minute
        for rival in case.rivals.values():
            rival(*first_rows(inputs))
    expected = timed("modalign")
    if not case.right(*inputs, expected):
        raise SystemExit(f"{case.name}: modalign's result is wrong, so nothing is timed")
    recall = {}
    for name in case.rivals:
        answer = expected if name == "modalign" else timed(name)
        if not case.agree(answer, expected):
            raise SystemExit(f"{case.name}: {name} and modalign disagree, so nothing is timed")
        recall[name] = case.recall(answer, expected)
    memory = {name: peak_megabytes(suite, case.name, name) for name in case.rivals} if suite else {}
    if case.rounds != 1:  # the first round also compiled and loaded code
        times = {name: [] for name in case.rivals}
    until = time.perf_counter() + budget
    while len(times["modalign"]) < (case.rounds or 3) or (
        case.rounds is None and time.perf_counter() < until and len(times["modalign"]) < 50
    ):
        for name in case.rivals:
            timed(name)
    ratios = {
        name: statistics.median(theirs / ours for theirs, ours in zip(seconds, times["modalign"], strict=True))
        for name, seconds in times.items()
    }
    return {
        "case": case.name,
        "rounds": len(times["modalign"]),
        "milliseconds": {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()},
        "spread": {name: (max(seconds) - min(seconds)) / statistics.median(seconds) for name, seconds in times.items()},
        "ratio": ratios,
        "recall": {name: value for name, value in recall.items() if value is not None},
        "megabytes": memory,
        "operations_per_second": case.operations / statistics.median(times["modalign"]),
        "rate": case.rate,
    }


def save(record: dict[str, Any], out: Path | None) -> None:
    """Write the record; called after every case, so that a failure does not lose what was measured."""
    if out:
        write_atomically(out, lambda path: path.write_text(json.dumps(record, indent=1)))


def suite_table(suite: str, record: dict[str, Any]) -> Table:
    """Return the table of a suite."""
    table = Table(title=f"{suite} (load {record['load']:.1f})")
    for column in ("case", "ms", "share of matrix rate", "times faster than", "MB above inputs"):
        table.add_column(column)
    for row in record["suites"][suite]:
        rivals = [
            f"{name} {ratio:.2f}" + (f" (recall {row['recall'][name]:.3f})" if name in row["recall"] else "")
            for name, ratio in row["ratio"].items()
            if name != "modalign"
        ]
        megabytes = ", ".join(f"{name} {value:.0f}" for name, value in row["megabytes"].items())
        time_cell = f"{row['milliseconds']['modalign']:.2f}"
        table.add_row(*[row["case"], time_cell, speed.share(row, record), ", ".join(rivals), megabytes])
    return table


def main() -> None:
    """Measure the suites, print their tables and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=[*CASES, "all"], help="the suite to measure")
    parser.add_argument(
        "--budget", type=float, default=3.0, help="seconds of each case (default: 3; at least 3 rounds)"
    )
    parser.add_argument("--out", type=Path, help="write the record to this JSON file")
    parser.add_argument(
        "--memory", action="store_true", help="also measure peak memory, each candidate in a fresh process"
    )
    parser.add_argument("--only", default="", help="measure only cases whose name contains this")
    parser.add_argument("--even-if-loaded", action="store_true", help="measure on a loaded machine too")
    arguments = parser.parse_args()
    if arguments.out and not os.access(arguments.out.absolute().parent, os.W_OK):  # before an hour of work
        parser.error(f"--out: {arguments.out.absolute().parent} is not a folder that can be written to")
    suites = {
        suite: [case for case in CASES[suite]() if arguments.only in case.name]
        for suite in (CASES if arguments.suite == "all" else [arguments.suite])
    }
    if not any(suites.values()):
        parser.error(f"no case of {arguments.suite} contains {arguments.only!r} in its name")
    load = require_idle_machine(arguments.even_if_loaded)
    console = Console()
    record: dict[str, Any] = {"provenance": provenance.collect(), "load": load, "gemm_rates": gemm_rates()}
    record["suites"] = {}
    for suite, cases in suites.items():
        rows = record["suites"][suite] = []
        for case in track(cases, suite, console=console, transient=True):
            rows.append(measure(case, arguments.budget, suite if arguments.memory else None))
            save(record, arguments.out)
        console.print(suite_table(suite, record))
    rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in record["gemm_rates"].items())
    console.print(f"matrix rates by torch, in GFLOP/s: {rates}")
    record["load_after"] = os.getloadavg()[0]
    save(record, arguments.out)
    if arguments.out:
        console.print(f"record: {arguments.out}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; the cases measured so far are in the record, if --out was given")
