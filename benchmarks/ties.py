"""Simulate scores of neighbours where rows repeat: how often independent rows look aligned, what intervals hold.

    python -m benchmarks.ties FOLDER                          1,000 draws a cell; hours on one core
    python -m benchmarks.ties FOLDER --draws 100 --cells "3 bits" groups
    python -m benchmarks.ties FOLDER --out FILE.json --page docs/alignment.md

In every cell x and y are independent, so p <= 0.05 should come in 5 % of the draws and the score should be chance in
the mean; and 95 % of the intervals should hold the mean score of all draws. Each hundred draws are saved in FOLDER as
they finish, and a call goes on where the last one stopped. Cells are chosen by parts of their names.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

import modalign
from benchmarks.pages import put_on_page
from modalign.common import provenance
from modalign.files.atomic import write_atomically

Rows = NDArray[np.float64]
Family = Callable[[np.random.Generator, int], Rows]

SAVED = 100  # draws of a cell that are saved together
RELABELLINGS = 39  # of a draw: p-values are multiples of a fortieth, and 0.05 is one of them
SIZES = (200, 600, 2000)
OTHERS = (
    "jaccard_knn",
    "rank_similarity",
    "lcs_knn",
    "edit_distance_knn",
    "cycle_knn",
    "cknna",
    "information_imbalance",
    "retrieval",
)
BEGIN, END = "<!-- table of ties: made by benchmarks/ties.py -->", "<!-- end of the table of ties -->"


def bits(count: int) -> Family:
    """Return the family of rows of so many random signs."""
    return lambda rng, n: rng.integers(0, 2, (n, count)) * 2.0 - 1


def categories(rng: np.random.Generator, n: int) -> Rows:
    """Return one-hot rows of five classes."""
    return np.eye(5)[rng.integers(0, 5, n)]


def dead_units(rng: np.random.Generator, n: int) -> Rows:
    """Return normal rows, of which 30 % are zero."""
    return rng.standard_normal((n, 8)) * (rng.random((n, 1)) > 0.3)


def words(rng: np.random.Generator, n: int) -> Rows:
    """Return bags of about one word of forty."""
    return (rng.random((n, 40)) < 0.03) * 1.0


def copies(rng: np.random.Generator, n: int) -> Rows:
    """Return normal rows that occur twenty times each, at random places."""
    return np.repeat(rng.standard_normal((n // 20, 8)), 20, 0)[rng.permutation(n)]


def twice(share: float) -> Family:
    """Return the family of normal rows of which a share occurs twice: few edges are open, so the null is closed."""

    def rows(rng: np.random.Generator, n: int) -> Rows:
        different = n - int(share * n / 2)
        table = rng.standard_normal((different, 8))
        return table[np.r_[np.arange(different), rng.permutation(different)[: n - different]]][rng.permutation(n)]

    return rows


FAMILIES: dict[str, Family] = {
    "3 bits": bits(3),
    "5 bits": bits(5),
    "8 bits": bits(8),
    "12 bits": bits(12),
    "5 classes": categories,
    "30 % zero rows": dead_units,
    "bags of words": words,
    "rows 20 times": copies,
    "10 % of rows twice": twice(0.1),
    "80 % of rows twice": twice(0.8),
    "no ties": lambda rng, n: rng.standard_normal((n, 8)),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A kind of data and a call of ``align`` or ``align_layers``."""

    family: str
    n: int
    call: str = "mutual_knn"
    intervals: bool = False

    @property
    def name(self) -> str:
        return f"{self.family}, n = {self.n:,}, {self.call}{', interval' if self.intervals else ''}"

    def measure(self, seed: int) -> tuple[float, float, float, float]:
        """Return the score, p, and the ends of the interval."""
        rng = np.random.default_rng(seed)
        x, y = (FAMILIES[self.family](rng, self.n) for _ in "xy")
        if self.call == "layers":
            layers = [[rows, FAMILIES[self.family](rng, self.n)] for rows in (x, y)]
            best = modalign.align_layers(*layers, k=10, relabellings=RELABELLINGS, seed=seed)
            assert best.null is not None
            return best.value, best.null.p, np.nan, np.nan
        labels = np.arange(self.n) // 4
        options: dict[str, Any] = {"groups": {"groups": labels}, "within": {"within": labels % 5}}.get(self.call, {})
        name = self.call if self.call in OTHERS else "mutual_knn"
        score = modalign.align(
            x, y, [name], k=10, intervals=self.intervals, relabellings=RELABELLINGS, seed=seed, **options
        )[name]
        p = np.nan if score.null is None else score.null.p
        ends = [np.nan if end is None else end for end in (score.low, score.high)]
        return score.value, p, ends[0], ends[1]


def cells() -> list[Cell]:
    """Return all cells: every family and size, and the other calls for three families."""
    some = ("3 bits", "5 classes", "30 % zero rows")
    return [
        *(Cell(family, n) for n in SIZES for family in FAMILIES),
        *(Cell(family, 200, call) for call in ("groups", "within", "layers", *OTHERS) for family in some),
        *(Cell(family, 300, "mutual_knn", intervals=True) for family in FAMILIES),
    ]


def run(cell: Cell, folder: Path, draws: int) -> Rows:
    """Return score, p, low and high of so many draws, (draws, 4), measured or read from the folder."""
    parts = []
    for start in range(0, draws, SAVED):
        path = folder / f"{cell.name.replace(' ', '_').replace('%', 'percent')}-{start:05d}.npy"
        if not path.exists():
            values = np.array([cell.measure(seed) for seed in range(start, start + SAVED)])
            write_atomically(path, lambda temporary, values=values: np.save(temporary.open("wb"), values))
        parts.append(np.load(path))
    return np.concatenate(parts)[:draws]


def summary(cell: Cell, values: Rows) -> dict[str, Any]:
    """Return the shares that the table shows."""
    score, p, low, high = values.T
    mean = float(score.mean())
    row: dict[str, Any] = {**dataclasses.asdict(cell), "name": cell.name, "draws": len(values), "score": mean}
    if not np.isnan(p).all():
        row |= {"p_at_most_0.05": float((p <= 0.05).mean()), "p_at_most_0.1": float((p <= 0.1).mean())}
    if cell.intervals:
        row["covered"] = float(((low <= mean) & (mean <= high)).mean())
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown table of the page."""
    lines = [
        "| data | n | call | mean score | p <= 0.05 | p <= 0.1 | interval holds the mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = [f"{row[key]:.1%}" if key in row else "" for key in ("p_at_most_0.05", "p_at_most_0.1", "covered")]
        cells_of_row = (row["family"], f"{row['n']:,}", f"`{row['call']}`", f"{row['score']:.4f}", *shares)
        lines.append(f"| {' | '.join(cells_of_row)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where draws are saved")
    parser.add_argument("--draws", type=int, default=1000, help="draws of each cell (1000)")
    parser.add_argument("--cells", nargs="*", default=[""], help="parts of the names of the cells to run")
    parser.add_argument("--out", type=Path, help="the JSON file of the record")
    parser.add_argument("--page", type=Path, help="the page that shows the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    console, rows = Console(), []
    for cell in cells():
        if not any(part in cell.name for part in arguments.cells):
            continue
        begin = time.process_time()
        rows.append(summary(cell, run(cell, arguments.folder, arguments.draws)))
        console.print(table(rows[-1:]).splitlines()[-1], f"{time.process_time() - begin:.0f} s", markup=False)
    if arguments.out is not None:
        record = {"provenance": provenance.collect(), "relabellings": RELABELLINGS, "k": 10, "cells": rows}
        write_atomically(arguments.out, lambda temporary: temporary.write_text(json.dumps(record, indent=1) + "\n"))
    if arguments.page is not None:
        put_on_page(arguments.page, table(rows), (BEGIN, END))


if __name__ == "__main__":
    main()
