"""The losses and the k-NN graphs on a GPU: answers checked, then turns taken inside one process, beside the machine's
half-precision matrix rate of the same minute. Cheap cases come first.

python -m benchmarks.gpu.run --out FILE.json        what `make gpu` runs; cases that FILE has are not measured again
python -m benchmarks.gpu.run --only knn             one suite of the two: info_nce, knn
python -m benchmarks.gpu.run --device cpu --small   that the script itself works, where there is no GPU

A rival that fails, is wrong, or would take too long is named with the reason. Where one leaves the device unusable, the
run begins anew without it.
"""

from __future__ import annotations

import argparse
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

from benchmarks.gpu.cases import Case, knn_cases, loss_cases
from modalign.common import provenance
from modalign.files.atomic import write_atomically

SUITES = {"info_nce": (loss_cases, torch.bfloat16), "knn": (knn_cases, torch.float16)}
SLOW = 5.0  # seconds of a call that is timed once
OURS = "modalign"


class DeviceLostError(Exception):
    """After a rival's call the device takes no other. Its arguments: the rival, and what was said."""


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    call()
    _synchronize(device)
    return time.perf_counter() - start


def _peak(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of a call, and MiB that it takes above what is there (0 without a GPU)."""
    if device.type != "cuda":
        return _seconds(call, device), 0.0
    torch.cuda.reset_peak_memory_stats(device)
    base = torch.cuda.memory_allocated(device)
    seconds = _seconds(call, device)
    return seconds, (torch.cuda.max_memory_allocated(device) - base) / 2**20


def _what_failed(name: str, error: Exception, device: torch.device) -> str:
    """In one line; DeviceLostError if nothing can be called any more."""
    said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    try:
        _synchronize(device)
    except RuntimeError:
        raise DeviceLostError(name, said) from error
    return said


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of dense products, one after the other: what the shares are of."""
    a, b = torch.randn(2, size, size, device=device, dtype=dtype).unbind()
    times = 20

    def products() -> None:
        for _ in range(times):
            a @ b

    products()
    return 2 * size**3 * times / _seconds(products, device)


def measure(
    case: Case, device: torch.device, dtype: torch.dtype, rounds: int, *, longest: float = math.inf,
    rates: dict[str, float] | None = None, left_out: dict[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Milliseconds and peak MiB of every rival whose answer is right; why the others are not timed.

    longest: seconds of a step for which a rival is left out. rates: operations a second of the rivals in the case
    before, by which that is foreseen; brought up to date. left_out: rivals not to be called, and why.
    """
    rates = {} if rates is None else rates
    not_timed = {name: why for name, why in (left_out or {}).items() if name in case.rivals}
    inputs = case.make(device)
    calls = {name: functools.partial(rival, *inputs) for name, rival in case.rivals.items()}
    times: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    ours: Any = None
    for name, call in calls.items():
        foreseen = case.operations / rates[name] if name in rates else 0.0
        if foreseen > longest and not name.startswith(OURS):
            not_timed[name] = f"a step would take about {foreseen:.0f} s"
        if name in not_timed:
            continue
        try:
            answer = call()
            own = name.startswith(OURS)
            wrong = case.right(inputs, answer) if own else case.agree(inputs, answer, ours)
            if wrong is None:
                first, memory[name] = _peak(call, device)
                times[name] = [first]
        except Exception as error:  # a peer that cannot run here must not cost our numbers
            wrong = _what_failed(name, error, device)
        if wrong is not None:
            not_timed[name] = wrong
        if name == OURS:
            if wrong is not None:
                return {"case": case.name, "failed": wrong}
            ours = answer
    del ours, answer
    if max(own[0] for own in times.values()) <= SLOW:
        for _ in range(rounds - 1):
            for name in [name for name in times if name not in not_timed]:
                try:
                    times[name].append(_seconds(calls[name], device))
                except Exception as error:
                    not_timed[name] = _what_failed(name, error, device)
    if OURS in not_timed:
        return {"case": case.name, "failed": not_timed[OURS]}
    medians = {name: statistics.median(own) for name, own in times.items() if name not in not_timed}
    rates.update((name, case.operations / seconds) for name, seconds in medians.items())
    rate = matrix_rate(device, dtype, 8192 if device.type == "cuda" else 512)
    return {
        "case": case.name,
        "milliseconds": {name: 1e3 * own for name, own in medians.items()},
        "operations_per_second": case.operations / medians[OURS],
        "matrix_rate": rate,
        "share_of_matrix_rate": case.done / medians[OURS] / rate,
        "megabytes": memory,
        "not_timed": not_timed,
    }


def _line(row: dict[str, Any]) -> str:
    """A row in words, said as soon as it is known."""
    for what in ("failed", "skipped"):
        if what in row:
            return f"{row['case']}: {what}, {row[what]}"
    times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in row["milliseconds"].items())
    others = "".join(f"; {name} not timed: {why}" for name, why in row["not_timed"].items())
    return f"{row['case']}: {times}{others}"


def _table(suite: str, rows: list[dict[str, Any]]) -> Table:
    table = Table("case", "ms", "TFLOP/s", "share of matrix rate", "rivals, ms", "MiB above inputs", title=suite)
    for row in rows:
        if "milliseconds" not in row:
            continue
        rivals = ", ".join(f"{name} {ms:.2f}" for name, ms in row["milliseconds"].items() if name != OURS)
        table.add_row(
            row["case"], f"{row['milliseconds'][OURS]:.2f}", f"{row['operations_per_second'] / 1e12:.2f}",
            f"{row['share_of_matrix_rate']:.0%}", rivals,
            ", ".join(f"{name} {value:.0f}" for name, value in row["megabytes"].items()),
        )  # fmt: skip
    return table


def _begun(path: Path | None) -> dict[str, Any]:
    """The record in the file, if it is of this commit and machine, or a new one."""
    record: dict[str, Any] = {"provenance": provenance.collect(), "left_out": {}, "suites": {}}
    if path is not None and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        same = ("modalign_commit", "versions", "machine")
        if all(before["provenance"][what] == record["provenance"][what] for what in same):
            return dict(before)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=[*SUITES], help="one suite")
    parser.add_argument("--small", action="store_true", help="sizes for a machine without a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=float, default=30.0, help="seconds of a step that no rival may take")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after so many no case is begun")
    parser.add_argument("--out", type=Path, help="write the record here (JSON)")
    arguments = parser.parse_args()
    started = time.perf_counter()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; --device cpu --small shows that the script works")
    record = _begun(arguments.out)

    def save() -> None:
        if arguments.out:  # after every case: what was measured is not lost with the next
            write_atomically(
                arguments.out, lambda path: path.write_text(json.dumps(record, indent=1), encoding="utf-8")
            )

    chosen = [suite for suite in SUITES if arguments.only in (None, suite)]
    cases = [(suite, case) for suite in chosen for case in SUITES[suite][0](arguments.small)]
    rates: dict[str, dict[str, float]] = {suite: {} for suite in chosen}
    for suite, case in sorted(cases, key=lambda of: of[1].operations):
        rows = record["suites"].setdefault(suite, [])
        if any(row["case"] == case.name for row in rows):
            continue
        if time.perf_counter() - started > arguments.seconds:
            row = {"case": case.name, "skipped": f"it would begin after the {arguments.seconds:.0f} s it was given"}
        else:
            try:
                row = measure(
                    case, device, SUITES[suite][1], arguments.rounds, longest=arguments.longest, rates=rates[suite],
                    left_out=record["left_out"],
                )  # fmt: skip
            except DeviceLostError as lost:
                name, said = lost.args
                if arguments.out is None:
                    raise SystemExit(f"{case.name}: {name} left the device unusable ({said})") from lost
                if name == OURS:
                    rows.append({"case": case.name, "failed": said})
                else:
                    record["left_out"][name] = f"it left the device unusable ({said})"
                save()
                os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu.run", *sys.argv[1:]])
            except Exception as error:
                row = {"case": case.name, "failed": _what_failed(OURS, error, device)}
        rows.append(row)
        print(_line(row), flush=True)
        save()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    console = Console(width=200)
    for suite in chosen:
        console.print(_table(suite, record["suites"][suite]))
    measured = [row for suite in chosen for row in record["suites"][suite]]
    failed = [
        row["case"] for row in measured
        if "failed" in row or any(name.startswith(OURS) for name in row.get("not_timed", ()))
    ]  # fmt: skip
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
