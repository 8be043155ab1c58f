"""Measure how the time and memory of alignment grow with the number of items, and fit exponents.

    python -m benchmarks.scaling --folder /tmp/rows                 10,000 to 1,000,000 items of width 384, float16
    python -m benchmarks.scaling --folder DIR --out FILE.json       also write a record of the run

Two files of rows are written once and read as memory maps. Every measurement runs in its own process, which reports its
seconds and its peak memory above that of the imported package; mapped files count where they are resident. The sampled
value is checked against an exact one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import modalign
from modalign.common import provenance
from modalign.files.atomic import write_atomically

WIDTH, K = 384, 10
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)


def tolerance(x: Path, y: Path, graphs: Path) -> dict[str, Any]:
    score = modalign.align(x, y, ["mutual_knn"], K, tolerance=0.005, max_memory="800MB")["mutual_knn"]
    return {"value": score.value, "low": score.low, "high": score.high, "rows": score.rows}


def exact(x: Path, y: Path, graphs: Path) -> dict[str, Any]:
    score = modalign.align(x, y, ["mutual_knn"], K, intervals=False, max_memory="800MB")["mutual_knn"]
    return {"value": score.value, "p": score.null.p if score.null else None}


def streamed_cka(x: Path, y: Path, graphs: Path) -> dict[str, Any]:
    from modalign.metrics import unbiased_cka

    return {"value": unbiased_cka(x, y)}


def _two(graphs: Path) -> list[np.ndarray[Any, Any]]:
    return [np.load(graphs / f"{side}.npy") for side in "xy"]


def cycle(x: Path, y: Path, graphs: Path) -> dict[str, Any]:
    from modalign.metrics.neighborhoods import neighborhood_scores

    return {"value": float(neighborhood_scores("cycle_knn", *_two(graphs)).mean())}


def cknna(x: Path, y: Path, graphs: Path) -> dict[str, Any]:
    from modalign.metrics.edges import cknna_from_graphs

    return {"value": cknna_from_graphs(np.load(x, mmap_mode="r"), np.load(y, mmap_mode="r"), *_two(graphs))}


def null(x: Path, y: Path, graphs: Path) -> dict[str, Any]:
    from modalign.alignment.nulls import mutual_knn_null

    return {"value": mutual_knn_null(*_two(graphs), 0.5).sd}


OPERATIONS: dict[str, tuple[Callable[..., dict[str, Any]], int]] = {  # and the most items it is run with
    "mutual k-NN to +-0.005, sampled": (tolerance, 1_000_000),
    "mutual k-NN, all rows": (exact, 100_000),
    "unbiased CKA, one pass": (streamed_cka, 1_000_000),
    "cycle k-NN from graphs": (cycle, 1_000_000),
    "CKNNA from graphs": (cknna, 1_000_000),
    "closed-form null from graphs": (null, 1_000_000),
}


def peak() -> float:
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]


def make(folder: Path, n: int) -> Path:
    """Two views of clustered items, and graphs that stand for theirs: rings over items in random order, so that lists
    point all over memory; the odd steps, half of each list, are shared."""
    place = folder / str(n)
    if (place / "graphs" / "y.npy").exists():
        return place
    (place / "graphs").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((max(1, n // 100), 64), dtype=np.float32)
    labels = rng.integers(0, len(centers), n)
    maps = [rng.standard_normal((64, WIDTH), dtype=np.float32) / 8 for _ in range(2)]
    files = [np.lib.format.open_memmap(place / f"{side}.npy", "w+", np.float16, (n, WIDTH)) for side in "xy"]
    for start in range(0, n, 50_000):
        here = labels[start : start + 50_000]
        latent = centers[here] + 0.7 * rng.standard_normal((len(here), 64), dtype=np.float32)
        for rows, mixing in zip(files, maps, strict=True):
            view = latent + 0.7 * rng.standard_normal(latent.shape, dtype=np.float32)
            rows[start : start + len(here)] = np.tanh(view @ mixing)
    ring = rng.permutation(n)
    step = (1 + np.arange(K) // 2) * np.where(np.arange(K) % 2, -1, 1)
    for side, factor in (("x", 7), ("y", np.where(step % 2, 7, 11))):
        graph = np.empty((n, K), np.int64)
        graph[ring] = ring[(np.arange(n)[:, None] + factor * step) % n]
        np.save(place / "graphs" / f"{side}.npy", graph)
    return place


def measure(operation: str, place: Path) -> dict[str, Any]:
    """Measure an operation on the rows in a folder, in another process."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--measure", operation, "--folder", str(place)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def measure_here(operation: str, place: Path) -> None:
    """Measure one operation in this process and print the result as JSON."""
    call = OPERATIONS[operation][0]
    x, y, graphs = place / "x.npy", place / "y.npy", place / "graphs"
    small = make(place.parent, 2_000)
    call(small / "x.npy", small / "y.npy", small / "graphs")  # a first call loads modules, which are not to be measured
    base, start = peak(), time.perf_counter()
    result = call(x, y, graphs)
    print(json.dumps(result | {"seconds": time.perf_counter() - start, "megabytes": peak() - base}))


def exponent(sizes: list[int], values: list[float]) -> float:
    """Return the exponent of the power of n that fits best, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder for the rows (3 GB)")
    parser.add_argument("--out", type=Path, help="write the record to this JSON file")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="largest number of items to measure")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_here(arguments.measure, arguments.folder)
        return
    console, load = Console(), os.getloadavg()[0]
    sizes = [n for n in SIZES if n <= arguments.most]
    places = {n: make(arguments.folder, n) for n in sizes}
    make(arguments.folder, 2_000)
    record: dict[str, Any] = {"provenance": provenance.collect(), "load": load, "width": WIDTH, "k": K, "rows": {}}
    runs = [(operation, n) for operation, (_, largest) in OPERATIONS.items() for n in sizes if n <= largest]
    for operation, n in track(runs, "scaling", console=console, transient=True):
        record["rows"].setdefault(operation, {})[str(n)] = measure(operation, places[n])
        if arguments.out:
            write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1)))
    table = Table(title=f"seconds (megabytes) at width {WIDTH}, load {load:.1f}")
    table.add_column("operation")
    for n in sizes:
        table.add_column(f"{n:,}", justify="right")
    table.add_column("exponent", justify="right")
    for operation, rows in record["rows"].items():
        known = [int(n) for n in rows]
        seconds = [row["seconds"] for row in rows.values()]
        rate = exponent(known[1:], seconds[1:]) if len(known) > 2 else math.nan
        rows["exponent from the second size on"] = rate
        known_rows = [rows.get(str(n)) for n in sizes]
        cells = [f"{row['seconds']:.3g} ({row['megabytes']:.0f})" if row else "" for row in known_rows]
        table.add_row(operation, *cells, f"{rate:.2f}")
    console.print(table)
    both = [n for n in sizes if n <= OPERATIONS["mutual k-NN, all rows"][1]]
    for n in both:
        sampled, whole = (record["rows"][operation][str(n)] for operation in list(OPERATIONS)[:2])
        if not sampled["low"] <= whole["value"] <= sampled["high"]:
            raise SystemExit(
                f"the interval of the sample at n = {n} does not cover the exact value {whole['value']}: {sampled}"
            )
    if arguments.out:
        write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1)))
        console.print(f"record: {arguments.out}")


if __name__ == "__main__":
    main()
