"""Measure the losses and the k-NN graphs on a GPU.

Results are checked, then candidates take turns in one process. The machine's half-precision matrix rate is measured in
the same minute. Cheap cases come first.

    python -m benchmarks.gpu.run --out FILE.json        the run of `make gpu`; cases that are in FILE are not repeated
    python -m benchmarks.gpu.run --only knn             one of the two suites info_nce and knn
    python -m benchmarks.gpu.run --device cpu --small   a test of the script on a machine without a GPU

A rival that fails, has a wrong result, or would take too long is named with the reason. If a rival leaves the device
unusable, the run starts again without it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gpu.cases import Case, one_rank
from benchmarks.gpu.graphs import knn_cases
from benchmarks.gpu.losses import loss_cases
from modalign.common import provenance
from modalign.files.atomic import write_atomically

SUITES = {"info_nce": (loss_cases, torch.bfloat16), "knn": (knn_cases, torch.float16)}
SLOW = 5.0  # calls that take more seconds than this are timed once
OURS = "modalign"

Row = dict[str, Any]  # of a record: the measurements of a case


class DeviceLostError(Exception):
    """A call left the device unusable. The arguments are the name of the candidate and its error."""


@dataclasses.dataclass
class Limits:
    """The rounds of a case, and the rivals that are not called.

    Attributes:
        rounds: how often candidates take turns.
        longest: seconds of a call above which a rival is not called.
        rates: operations a second of the candidates in the last case, from which the time of a call is estimated;
            updated by every case.
        left_out: rivals that are not called, with the reasons.
    """

    rounds: int
    longest: float = math.inf
    rates: dict[str, float] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    call()
    _synchronize(device)
    return time.perf_counter() - start


def _seconds_and_peak(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the seconds of a call and its peak memory above the inputs, in MiB (0 without a GPU)."""
    if device.type != "cuda":
        return _seconds(call, device), 0.0
    torch.cuda.reset_peak_memory_stats(device)
    base = torch.cuda.memory_allocated(device)
    seconds = _seconds(call, device)
    return seconds, (torch.cuda.max_memory_allocated(device) - base) / 2**20


def _describe(name: str, error: Exception, device: torch.device) -> str:
    """Return an error in one line, or raise DeviceLostError if the device is unusable after it."""
    text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    try:
        _synchronize(device)
    except RuntimeError:
        raise DeviceLostError(name, text) from error
    return text


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Return the operations a second of dense matrix products; shares of the machine's rate are relative to it."""
    a, b = torch.randn(2, size, size, device=device, dtype=dtype).unbind()
    count = 20

    def multiply() -> None:
        for _ in range(count):
            a @ b

    multiply()
    return 2 * size**3 * count / _seconds(multiply, device)


class _Measurement:
    """The candidates of one case: which of them are right, their times and their memory."""

    def __init__(self, case: Case, device: torch.device, limits: Limits) -> None:
        self.case, self.device, self.limits = case, device, limits
        self.inputs = case.make(device)
        self.calls = {name: functools.partial(rival, *self.inputs) for name, rival in case.rivals.items()}
        self.times: dict[str, list[float]] = {}
        self.memory: dict[str, float] = {}
        self.not_timed = {name: reason for name, reason in limits.left_out.items() if name in case.rivals}
        self.ours: Any = None

    def check(self, name: str) -> None:
        """Call a candidate, and time its second call if the result is right."""
        rates, is_ours = self.limits.rates, name.startswith(OURS)
        estimate = self.case.operations / rates[name] if name in rates else 0.0
        if estimate > self.limits.longest and not is_ours:
            self.not_timed[name] = f"a step would take about {estimate:.0f} s"
        if name in self.not_timed:
            return
        try:
            result = self.calls[name]()
            if is_ours:
                error = self.case.find_error(self.inputs, result)
            else:
                error = self.case.find_difference(self.inputs, result, self.ours)
            if error is None:
                seconds, self.memory[name] = _seconds_and_peak(self.calls[name], self.device)
                self.times[name] = [seconds]
            if name == OURS:
                self.ours = result
        except Exception as failure:  # a rival that cannot run here must not cost our numbers
            error = _describe(name, failure, self.device)
        if error is not None:
            self.not_timed[name] = error

    def take_turns(self) -> None:
        """Time every candidate that is right once in each of the remaining rounds, unless one of them is slow."""
        self.ours = None  # frees the memory of the result
        if max(times[0] for times in self.times.values()) > SLOW:
            return
        for _ in range(self.limits.rounds - 1):
            for name in [name for name in self.times if name not in self.not_timed]:
                try:
                    self.times[name].append(_seconds(self.calls[name], self.device))
                except Exception as failure:
                    self.not_timed[name] = _describe(name, failure, self.device)


def measure(case: Case, device: torch.device, dtype: torch.dtype, limits: Limits) -> Row:
    """Return milliseconds and peak MiB of every candidate whose result is right, and why the others are not timed."""
    measurement = _Measurement(case, device, limits)
    not_timed = measurement.not_timed
    for name in case.rivals:
        measurement.check(name)
        if OURS in not_timed:
            return {"case": case.name, "failed": not_timed[OURS]}
    measurement.take_turns()
    if OURS in not_timed:
        return {"case": case.name, "failed": not_timed[OURS]}
    times = {name: seconds for name, seconds in measurement.times.items() if name not in not_timed}
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    limits.rates.update((name, case.operations / seconds) for name, seconds in medians.items())
    rate = matrix_rate(device, dtype, 8192 if device.type == "cuda" else 512)
    return {
        "case": case.name,
        "milliseconds": {name: 1e3 * seconds for name, seconds in medians.items()},
        "operations_per_second": case.operations / medians[OURS],
        "matrix_rate": rate,
        "share_of_matrix_rate": case.done / medians[OURS] / rate,
        "megabytes": measurement.memory,
        "not_timed": not_timed,
    }


def _line(row: Row) -> str:
    """Return a row in words."""
    for outcome in ("failed", "skipped"):
        if outcome in row:
            return f"{row['case']}: {outcome}, {row[outcome]}"
    times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in row["milliseconds"].items())
    others = "".join(f"; {name} not timed: {reason}" for name, reason in row["not_timed"].items())
    return f"{row['case']}: {times}{others}"


def _table(suite: str, rows: list[Row]) -> Table:
    """Return the table of a suite."""
    table = Table(title=suite)
    for column in ("case", "ms", "TFLOP/s", "share of matrix rate", "rivals, ms", "MiB above inputs"):
        table.add_column(column)
    for row in rows:
        if "milliseconds" not in row:
            continue
        rivals = ", ".join(f"{name} {ms:.2f}" for name, ms in row["milliseconds"].items() if name != OURS)
        cells = [
            row["case"],
            f"{row['milliseconds'][OURS]:.2f}",
            f"{row['operations_per_second'] / 1e12:.2f}",
            f"{row['share_of_matrix_rate']:.0%}",
            rivals,
            ", ".join(f"{name} {value:.0f}" for name, value in row["megabytes"].items()),
        ]
        table.add_row(*cells)
    return table


def _load_record(path: Path | None) -> dict[str, Any]:
    """Return the record in a file if it has this commit, these versions and this machine, or else a new one."""
    record: dict[str, Any] = {"provenance": provenance.collect(), "left_out": {}, "suites": {}}
    if path is not None and path.is_file():
        existing = json.loads(path.read_text(encoding="utf-8"))
        facts = ("modalign_commit", "versions", "machine")
        if all(existing["provenance"][fact] == record["provenance"][fact] for fact in facts):
            return dict(existing)
    return record


def _save(record: dict[str, Any], out: Path | None) -> None:
    """Write the record; called after every case, so that a failure does not lose what was measured."""
    if out:
        write_atomically(out, lambda path: path.write_text(json.dumps(record, indent=1), encoding="utf-8"))


def _restart_without(name: str, error: str, case: Case, record: dict[str, Any], rows: list[Row], out: Path) -> None:
    """Note in the record that a candidate left the device unusable, and start the program again."""
    if name == OURS:
        rows.append({"case": case.name, "failed": error})
    else:
        record["left_out"][name] = f"it left the device unusable ({error})"
    _save(record, out)
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu.run", *sys.argv[1:]])


def _run(suites: list[str], record: dict[str, Any], options: argparse.Namespace) -> None:
    """Measure the cases that the record does not have, cheap ones first, and save the record after each."""
    started, device = time.perf_counter(), torch.device(options.device)
    cases = [(suite, case) for suite in suites for case in SUITES[suite][0](options.small)]
    limits = {suite: Limits(options.rounds, options.longest, left_out=record["left_out"]) for suite in suites}
    for suite, case in sorted(cases, key=lambda item: item[1].operations):
        rows = record["suites"].setdefault(suite, [])
        if any(row["case"] == case.name for row in rows):
            continue
        if time.perf_counter() - started > options.seconds:
            row = {"case": case.name, "skipped": f"it would begin after the {options.seconds:.0f} s it was given"}
        else:
            try:
                row = measure(case, device, SUITES[suite][1], limits[suite])
            except DeviceLostError as lost:
                name, error = lost.args
                if options.out is None:
                    raise SystemExit(f"{case.name}: {name} left the device unusable ({error})") from lost
                _restart_without(name, error, case=case, record=record, rows=rows, out=options.out)
            except Exception as failure:
                row = {"case": case.name, "failed": _describe(OURS, failure, device)}
        rows.append(row)
        print(_line(row), flush=True)
        _save(record, options.out)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def main() -> None:
    """Measure the suites, print their tables, and exit with an error if one of our results failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="device to measure on (default: cuda)")
    parser.add_argument("--only", choices=[*SUITES], help="measure this suite only")
    parser.add_argument("--small", action="store_true", help="use sizes for a machine without a GPU")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    parser.add_argument("--longest", type=float, default=30.0, help="longest call of a rival, in seconds (default: 30)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no case after this many seconds")
    parser.add_argument("--out", type=Path, help="write the record to this JSON file")
    options = parser.parse_args()
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device was found; use --device cpu --small to test the script without one")
    record = _load_record(options.out)
    suites = [suite for suite in SUITES if options.only in (None, suite)]
    with one_rank(torch.device(options.device)):  # the losses are also measured as those of several ranks
        _run(suites, record, options)
    console = Console(width=200)
    for suite in suites:
        console.print(_table(suite, record["suites"][suite]))
    rows = [row for suite in suites for row in record["suites"][suite]]
    failed = [
        row["case"] for row in rows if "failed" in row or any(n.startswith(OURS) for n in row.get("not_timed", ()))
    ]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
