"""How time and memory of alignment grow with the number of items, and the exponents fitted to them.

    python -m benchmarks.scaling --folder /tmp/rows                 10,000 to 1,000,000 items of width 384, float16
    python -m benchmarks.scaling --folder DIR --out FILE.json       and a record with machine, versions and commit

Two files of rows are written once and read as memory maps. Every measurement is a process of its own, which says its
seconds and its peak memory above an imported package; the mapped files count where they are resident. One exact value
checks the sampled one.
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


WHAT: dict[str, tuple[Callable[..., dict[str, Any]], int]] = {  # and the most items it is run with
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
            own = latent + 0.7 * rng.standard_normal(latent.shape, dtype=np.float32)
            rows[start : start + len(here)] = np.tanh(own @ mixing)
    ring = rng.permutation(n)
    step = (1 + np.arange(K) // 2) * np.where(np.arange(K) % 2, -1, 1)
    for side, factor in (("x", 7), ("y", np.where(step % 2, 7, 11))):
        graph = np.empty((n, K), np.int64)
        graph[ring] = ring[(np.arange(n)[:, None] + factor * step) % n]
        np.save(place / "graphs" / f"{side}.npy", graph)
    return place


def measure(what: str, place: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scaling", "--measure", what, "--folder", str(place)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def measured(what: str, place: Path) -> None:
    """In the process of one measurement."""
    call = WHAT[what][0]
    x, y, graphs = place / "x.npy", place / "y.npy", place / "graphs"
    small = make(place.parent, 2_000)
    call(small / "x.npy", small / "y.npy", small / "graphs")  # whatever a first call loads stays out
    base, start = peak(), time.perf_counter()
    found = call(x, y, graphs)
    print(json.dumps(found | {"seconds": time.perf_counter() - start, "megabytes": peak() - base}))


def exponent(sizes: list[int], values: list[float]) -> float:
    """Of the power of n that fits best, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the rows are written (3 GB)")
    parser.add_argument("--out", type=Path, help="write the record here (JSON)")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the largest number of items")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measured(arguments.measure, arguments.folder)
        return
    console, load = Console(), os.getloadavg()[0]
    sizes = [n for n in SIZES if n <= arguments.most]
    places = {n: make(arguments.folder, n) for n in sizes}
    make(arguments.folder, 2_000)
    record: dict[str, Any] = {"provenance": provenance.collect(), "load": load, "width": WIDTH, "k": K, "rows": {}}
    runs = [(what, n) for what, (_, most) in WHAT.items() for n in sizes if n <= most]
    for what, n in track(runs, "scaling", console=console, transient=True):
        record["rows"].setdefault(what, {})[str(n)] = measure(what, places[n])
        if arguments.out:
            write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1)))
    table = Table(title=f"seconds (megabytes) at width {WIDTH}, load {load:.1f}")
    table.add_column("what")
    for n in sizes:
        table.add_column(f"{n:,}", justify="right")
    table.add_column("exponent", justify="right")
    for what, rows in record["rows"].items():
        known = [int(n) for n in rows]
        seconds = [row["seconds"] for row in rows.values()]
        rate = exponent(known[1:], seconds[1:]) if len(known) > 2 else math.nan
        rows["exponent from the second size on"] = rate
        there = {n: rows.get(str(n)) for n in sizes}
        cells = [f"{row['seconds']:.3g} ({row['megabytes']:.0f})" if row else "" for row in there.values()]
        table.add_row(what, *cells, f"{rate:.2f}")
    console.print(table)
    both = [n for n in sizes if n <= WHAT["mutual k-NN, all rows"][1]]
    for n in both:
        sampled, whole = (record["rows"][what][str(n)] for what in list(WHAT)[:2])
        if not sampled["low"] <= whole["value"] <= sampled["high"]:
            raise SystemExit(f"the interval of the sample at n = {n} misses the exact {whole['value']}: {sampled}")
    if arguments.out:
        write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1)))
        console.print(f"record: {arguments.out}")


if __name__ == "__main__":
    main()
