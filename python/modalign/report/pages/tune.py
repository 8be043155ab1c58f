"""The page of ``modalign tune``: where the best strength lies, how sure that is, and what every run gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from modalign.experiments.sweep.statistics import Estimate
from modalign.report.html import Picture, Table, extra_height, figure, wrapped, write_page
from modalign.report.words import points

__all__ = ["write"]

COLOURS = ("#0072b2", "#c8500a", "#007a5a", "#b0559b")
READING = (
    ("Best strength", "Where the posterior mean of the change of validation accuracy is highest; the interval holds "
     "the maxima of 95 % of the functions drawn from the posterior."),
    ("Gain", "Of validation accuracy over strength 0, paired by seed, in percentage points; in brackets its 95 % "
     "posterior interval. A gain is claimed where that lies above 0."),
    ("Helps", "The posterior probability that the best strength is better than 0."),
)  # fmt: skip


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` from evaluations.parquet and optima.json."""
    import pandas as pd

    folder = Path(folder)
    optima = json.loads((folder / "optima.json").read_text(encoding="utf-8"))
    evaluations = pd.read_parquet(folder / "evaluations.parquet")
    pictures: list[Picture] = []
    _curves(pictures, optima, evaluations)
    rows = []
    for case, found in optima.items():
        for name, one in zip(found["modalities"], found["optima"], strict=True):
            rows.append((
                case, name, f"{one['best']:g}", f"{one['low']:g} to {one['high']:g}",
                points(Estimate(one["gain"], one["gain_low"], one["gain_high"]), unit=""), f"{one['helps']:.0%}",
                str(found["runs"]),
            ))  # fmt: skip
    columns = ("pairs", "modality", "best strength", "95 % interval", "gain, points", "helps", "runs")
    return write_page(
        folder,
        "report.html",
        title="The best alignment strength",
        eyebrow="Tuning",
        facts=f"{len(evaluations)} runs of {len(optima)} {'case' if len(optima) == 1 else 'cases'}",
        sentences=[_sentence(case, found) for case, found in optima.items()],
        tables=[Table("optima", "Best strengths", columns, rows)],
        pictures=pictures,
        reading=READING,
    )


def _sentence(case: str, found: dict[str, Any]) -> str:
    clauses = []
    for name, one in zip(found["modalities"], found["optima"], strict=True):
        gain = Estimate(one["gain"], one["gain_low"], one["gain_high"])
        if one["best"] == 0:
            clauses.append(f"{name} is best without alignment")
        elif gain.positive:
            gained = points(gain, sign=False, unit=" points of validation accuracy")
            likely = f"likely between {one['low']:g} and {one['high']:g}"
            clauses.append(f"{name} gains {gained} at strength {one['best']:g}, {likely}")
        else:
            at_best = f"{points(gain)} at strength {one['best']:g}, above 0 with probability {one['helps']:.0%}"
            clauses.append(f"no gain is shown for {name} ({at_best})")
    return f"{case}: {'; '.join(clauses)}."


def _curves(into: list[Picture], optima: dict[str, Any], evaluations: Any) -> None:
    label = "posterior of the change of validation accuracy against strength, a panel for each case; points are runs"
    columns = min(3, len(optima))
    rows = -(-len(optima) // columns)
    titles = [wrapped(case, columns) for case in optima]
    height = 2.8 + extra_height(titles)
    with figure(into, "curves", "What strength does", label, rows, columns, height=height) as axes:
        for ax, (case, found), title in zip(axes.flat, optima.items(), titles, strict=False):
            mine = evaluations[evaluations["case"] == case]
            for m, (name, one) in enumerate(zip(found["modalities"], found["optima"], strict=True)):
                curve = {key: np.array(values) for key, values in one["curve"].items()}
                column = f"validation_accuracy_{m + 1}"
                without = mine[mine["strength"] == 0].set_index("seed")[column]
                change = 100 * (mine[column].to_numpy() - without.loc[mine["seed"]].to_numpy())
                ax.plot(mine["strength"], change, ".", color=COLOURS[m % len(COLOURS)], ms=3, alpha=0.5)
                ax.plot(curve["strength"], 100 * curve["mean"], color=COLOURS[m % len(COLOURS)], label=name)
                low, high = (100 * (curve["mean"] + side * 1.96 * curve["deviation"]) for side in (-1, 1))
                ax.fill_between(curve["strength"], low, high, color=COLOURS[m % len(COLOURS)], alpha=0.15, lw=0)
                ax.axvline(one["best"], color=COLOURS[m % len(COLOURS)], lw=0.8, ls=":")
            ax.axhline(0, color="#5b6169", lw=0.8)
            ax.set_xscale("asinh", linear_width=0.05)
            highest = float(mine["strength"].max())
            ticks = [tick for tick in (0, 0.1, 0.3, 1, 3, 10, 30, 100) if tick <= highest]
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.set(title=title, xlabel="strength", xlim=(-0.003, 1.1 * highest))
            ax.legend()
        for ax in axes.flat[len(optima) :]:
            ax.remove()
        axes[0, 0].set_ylabel("change of validation\naccuracy, points")
