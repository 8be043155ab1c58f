"""Simulate whether the probability of `modalign tune` that any strength helps is right as often as it says.

    python -m benchmarks.tune_probability                     100 searches of each curve (two minutes on one core)
    python -m benchmarks.tune_probability --out FILE.json     also write a record with machine, versions and commit

Every search is that of the command, with three seeds, on a curve of the change of validation accuracy that is known:
no effect, harm, or a gain of 0.5, 1.5 or 3 points at a middle strength; runs differ by 0.4 or 1 point. Half of the
searches, by weight, are of curves that gain nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from modalign.common import provenance
from modalign.experiments import tuning
from modalign.experiments.gaussian_process import position
from modalign.files.atomic import write_atomically

NOISE = (0.004, 0.01)
BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
# the weight of a curve, and its gain at the best strength; what gains less than 0.2 points does not help
CURVES: dict[str, tuple[float, float]] = {
    "no effect": (0.35, 0.0), "harm": (0.15, 0.0), "0.5 points": (1 / 6, 0.005), "1.5 points": (1 / 6, 0.015),
    "3 points": (1 / 6, 0.03),
}  # fmt: skip


def change(curve: str, strength: float, highest: float) -> float:
    """Return the true change of validation accuracy at a strength."""
    place = position(strength) / position(highest)
    if curve == "harm":
        return -0.04 * place**2
    return CURVES[curve][1] * (place / 0.6) * float(np.exp(1 - place / 0.6))


def searched(accuracy: Callable[[float, int], float], budget: tuning.Budget) -> tuning.Optimum:
    """Return the result of a search of one modality whose runs have these validation accuracies."""
    rows: list[dict[str, Any]] = []
    strengths = tuning._first_strengths(budget)
    for number in range(budget.rounds + 1):
        rows += [
            {"strength": strength, "seed": seed, "validation_accuracy_1": accuracy(strength, seed)}
            for strength in strengths
            for seed in range(budget.seeds)
        ]
        if number < budget.rounds:
            strengths = tuning._next_strengths(rows, 1, budget, number)
    return tuning.optimum(rows, 1, budget.highest)


def main() -> None:
    """Run the searches, print both tables and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=100, help="searches of each curve and noise (default: 100)")
    parser.add_argument("--out", type=Path, help="write the record to this JSON file")
    arguments = parser.parse_args()
    console, budget, rng = Console(), tuning.Budget(), np.random.default_rng(0)
    rows = []
    for curve, noise in track([(c, n) for c in CURVES for n in NOISE], console=console, transient=True):
        for _ in range(arguments.searches):

            def accuracy(strength: float, seed: int, curve: str = curve, noise: float = noise) -> float:
                return 0.6 + change(curve, strength, budget.highest) + noise * float(rng.normal())

            best = searched(accuracy, budget)
            rows.append({"curve": curve, "noise": noise, "helps": best.helps, "claimed": best.gain_low > 0})
    curves = []
    for curve in CURVES:
        mine = [row for row in rows if row["curve"] == curve]
        curves.append({
            "curve": curve, "helps": float(np.mean([row["helps"] for row in mine])),
            "claimed": float(np.mean([row["claimed"] for row in mine])),
        })  # fmt: skip
    said = np.array([row["helps"] for row in rows])
    true = np.array([CURVES[row["curve"]][1] > 0 for row in rows])
    weights = np.array([CURVES[row["curve"]][0] for row in rows])
    reliability = []
    for low, high in itertools.pairwise(BINS):
        inside = (said >= low) & ((said < high) | (high == 1))
        if inside.any():
            shares = [float(np.average(side[inside], weights=weights[inside])) for side in (said, true)]
            reliability.append(
                {"from": low, "to": high, "says": shares[0], "true": shares[1], "count": int(inside.sum())}
            )
    table = Table(title="probability that any strength helps")
    for column in ("between", "it says, mean", "something helps in", "searches"):
        table.add_column(column)
    for row in reliability:
        table.add_row(
            f"{row['from']:g} and {row['to']:g}", f"{row['says']:.2f}", f"{row['true']:.2f}", str(row["count"])
        )
    console.print(table)
    for row in curves:
        console.print(f"{row['curve']}: says {row['helps']:.2f}, claims a gain in {row['claimed']:.0%}")
    if arguments.out:
        record = {
            "provenance": provenance.collect(),
            "searches": arguments.searches,
            "curves": curves,
            "bins": reliability,
        }
        write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1) + "\n"))
        console.print(f"record: {arguments.out}")


if __name__ == "__main__":
    main()
