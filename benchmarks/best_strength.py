"""Compare searches for the best alignment strength with a grid, on every pair of ``modalign reproduce align``.

    python -m benchmarks.best_strength results/align --folder results/best       ten minutes; an interrupted run resumes
    python -m benchmarks.best_strength results/align --folder results/best --out FILE.json     also write a record

results/align is a finished ``modalign reproduce align``, whose sweeps are the grid. The other methods are the search of
``modalign tune``, one strength for all pairs, one ratio of gradient norms for all pairs, and strengths that rise or
fall over the epochs. The regret of a method is the test accuracy of the strength with the grid's highest validation
accuracy, minus the test accuracy of the method, both means over seeds. Its cost is its number of runs over the grid's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import bootstrap

from modalign.common import provenance
from modalign.common.progress import Reporter
from modalign.experiments import tuning as tune
from modalign.experiments.sweep.config import load, parse
from modalign.experiments.sweep.results import Results, read
from modalign.experiments.sweep.runner import run as run_sweep
from modalign.files.atomic import write_atomically

STRENGTHS, RATIOS, ENDS = (0.1, 0.3, 1.0), (0.1, 0.3, 1.0), (0.3, 1.0)
CHANGES: dict[str, dict[str, Any]] = {
    "gradient ratio": {"strength_kind": "gradient_ratio", "strengths": RATIOS},
    "rising to": {"strength_schedule": "rising", "strengths": ENDS},
    "falling from": {"strength_schedule": "falling", "strengths": ENDS},
}


def grid_accuracy(grid: Results, case: Any, modality: int) -> float:
    """Return the test accuracy of the strength with the highest validation accuracy in the grid."""
    best = int(grid.grid(case, f"validation_accuracy_{modality}").mean(0).round(12).argmax())
    return float(grid.grid(case, f"accuracy_{modality}").mean(0)[best])


def regret_rows(grid: Results, other: Results, strength: float, cost: float) -> list[dict[str, Any]]:
    """Return the regrets of one strength of another sweep of the same cases and seeds."""
    column = other.strengths.index(strength)
    cases = {case.label: case for case in other.cases}
    return [
        {
            "case": case.label,
            "modality": modality,
            "cost": cost,
            "regret": grid_accuracy(grid, case, modality)
            - float(other.grid(cases[case.label], f"accuracy_{modality}")[:, column].mean()),
        }
        for case in grid.cases
        for modality in (1, 2)
    ]


def measure_methods(study: Path, folder: Path, reporter: Callable[[], Reporter]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every method, over the synthetic and the real pairs of the study."""
    rows_by_method: dict[str, list[dict[str, Any]]] = {}
    for name in ("strength", "pairs"):
        grid, sweep = read(study / name), load(study / name / "config.yaml")
        content = sweep.model_dump(mode="json")
        one = 1 / len(grid.strengths)
        rows_by_method.setdefault("no alignment", []).extend(regret_rows(grid, grid, 0.0, one))
        for strength in STRENGTHS:
            rows_by_method.setdefault(f"strength {strength:g}", []).extend(regret_rows(grid, grid, strength, one))
        place = folder / f"{name}-tuned"
        tune.run(sweep, place, tune.Budget(highest=max(grid.strengths)), reporter=reporter())
        rows_by_method.setdefault("modalign tune", []).extend(tune.against_grid(place, study / name))
        for method, changes in CHANGES.items():
            place = folder / f"{name}-{method.replace(' ', '-')}"
            run_sweep(parse({**content, **changes, "name": place.name}, place.name), place, reporter=reporter())
            other = read(place)
            for strength in changes["strengths"]:
                rows_by_method.setdefault(f"{method} {strength:g}", []).extend(regret_rows(grid, other, strength, one))
    return rows_by_method


def main() -> None:
    """Run the methods, print their regrets and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a finished `modalign reproduce align`")
    parser.add_argument("--folder", type=Path, required=True, help="folder for the sweeps of the other methods")
    parser.add_argument("--out", type=Path, help="write the record to this JSON file")
    arguments = parser.parse_args()
    rows_by_method = measure_methods(arguments.study, arguments.folder, lambda: Reporter("auto"))
    count = len(rows_by_method["no alignment"])
    table = Table(title=f"against a grid, {count} modalities of {count // 2} pairs")
    for column in ("method", "regret, points", "95 % interval", "worst", "runs, share of the grid's"):
        table.add_column(column)
    summary = {}
    for method, rows in sorted(rows_by_method.items(), key=lambda item: np.mean([row["regret"] for row in item[1]])):
        assert len(rows) == count, f"{method} has {len(rows)} modalities, the grid {count}"
        regrets = 100 * np.array([row["regret"] for row in rows])
        drawn = bootstrap((regrets,), np.mean, n_resamples=2000, method="percentile", random_state=0)
        mean, (low, high) = float(regrets.mean()), map(float, drawn.confidence_interval)
        cost = float(np.mean([row["cost"] for row in rows]))
        summary[method] = {"mean": mean, "low": low, "high": high, "worst": float(regrets.max()), "cost": cost}
        table.add_row(*[method, f"{mean:.2f}", f"{low:.2f} to {high:.2f}", f"{regrets.max():.2f}", f"{cost:.0%}"])
    Console().print(table)
    if arguments.out:
        record = {"provenance": provenance.collect(), "points": summary, "rows": rows_by_method}
        text = json.dumps(record, indent=1) + "\n"
        write_atomically(arguments.out, lambda path: path.write_text(text, encoding="utf-8"))
        Console().print(f"record: {arguments.out}")


if __name__ == "__main__":
    main()
