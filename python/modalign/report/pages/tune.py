"""The page of ``modalign tune``: the best strength, its uncertainty, and the result of every run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from modalign.experiments.sweep.statistics import Estimate
from modalign.files.paths import expanded
from modalign.report.figures import (
    Figure,
    Key,
    Sheet,
    Trace,
    band,
    level_line,
    line,
    panel_layout,
    plain,
    points,
    stretched,
    stretched_axis,
    title_above,
    upright_line,
    value_axis,
)
from modalign.report.html import Page, folded_settings, write_study_page
from modalign.report.palette import modality
from modalign.report.words import Table
from modalign.report.words import points as in_points

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CaseOptima", "best_strengths", "sentence", "write"]

READING = (
    (
        "Best strength",
        "The strength at which the posterior mean of the change of validation accuracy is highest. The interval holds "
        "the maxima of 95 % of the functions that are drawn from the posterior.",
    ),
    (
        "Gain",
        "Validation accuracy minus validation accuracy at strength 0, paired by seed, in percentage points. Brackets "
        "hold the 95 % posterior interval. A gain is claimed where that interval lies above 0.",
    ),
    (
        "Helps",
        "The posterior probability that any strength gains 0.2 points or more. By simulation it is right about as "
        "often as it says (docs/experiments.md).",
    ),
)


class Optimum(TypedDict):
    """The best strength of one modality, as optima.json holds it."""

    best: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    helps: float
    curve: dict[str, list[float]]


class CaseOptima(TypedDict):
    """The best strengths of one case, as optima.json holds them."""

    modalities: list[str]
    runs: int
    optima: list[Optimum]


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` from evaluations.parquet and optima.json, and return the page's path.

    Args:
        folder (Path): The folder of a finished search.
    """
    import pandas as pd

    folder = expanded(folder)
    optima: dict[str, CaseOptima] = json.loads((folder / "optima.json").read_text(encoding="utf-8"))
    evaluations = pd.read_parquet(folder / "evaluations.parquet")
    return write_study_page(
        Page(
            title="The best alignment strength",
            eyebrow="Search for the best strength",
            facts=f"{len(evaluations)} runs of {len(optima)} {'case' if len(optima) == 1 else 'cases'}",
            sentences=[sentence(case, result) for case, result in optima.items()],
            tables=[best_strengths(optima)],
            sheets=[_curves(optima, evaluations)],
            reading=READING,
            folded=folded_settings(folder),
        ),
        folder,
    )


def sentence(case: str, result: CaseOptima) -> str:
    """Return the conclusion for one case: the gain of each modality, or that none is shown."""
    clauses = []
    for name, optimum in zip(result["modalities"], result["optima"], strict=True):
        gain = _gain(optimum)
        likely_helps = f"some strength helps with probability {optimum['helps']:.0%}"
        if optimum["best"] == 0:
            clauses.append(f"no gain is shown for {name} ({likely_helps})")
        elif gain.positive:
            gained = in_points(gain, sign=False, unit=" points of validation accuracy")
            likely = f"likely between {optimum['low']:g} and {optimum['high']:g}"
            clauses.append(f"{name} gains {gained} at strength {optimum['best']:g}, {likely}")
        else:
            at_best = f"{in_points(gain)} at strength {optimum['best']:g}"
            clauses.append(f"no gain is shown for {name} ({at_best}; {likely_helps})")
    return f"{case}: {'; '.join(clauses)}."


def _gain(optimum: Optimum) -> Estimate:
    return Estimate(optimum["gain"], optimum["gain_low"], optimum["gain_high"])


def best_strengths(optima: Mapping[str, CaseOptima]) -> Table:
    """Return the best strength of every modality of every case, with its interval and gain, as a table."""
    rows = [
        (
            case,
            name,
            f"{optimum['best']:g}",
            f"{optimum['low']:g} to {optimum['high']:g}",
            in_points(_gain(optimum), unit="") if optimum["best"] else "–",
            f"{optimum['helps']:.0%}",
            str(result["runs"]),
        )
        for case, result in optima.items()
        for name, optimum in zip(result["modalities"], result["optima"], strict=True)
    ]
    columns = (
        "case",
        "modality",
        "best strength",
        "95 % interval",
        "gain, points",
        "probability that any helps",
        "runs",
    )
    return Table("optima", "Best strengths", columns, rows)


def _curves(optima: Mapping[str, CaseOptima], evaluations: pd.DataFrame) -> Sheet:
    """Return the posterior of the change of validation accuracy against strength, a panel for each case."""
    figures = []
    for number, (case, result) in enumerate(optima.items()):
        runs = evaluations[evaluations["case"] == case]
        highest = float(runs["strength"].max())
        traces: list[Trace] = []
        shapes = [level_line(0)]
        for index, (name, optimum) in enumerate(zip(result["modalities"], result["optima"], strict=True), 1):
            traces += [*_posterior(optimum, name, modality(index)), _runs(runs, index)]
            shapes.append(upright_line(float(stretched(optimum["best"])), modality(index)))
        layout = panel_layout(
            300,
            xaxis=stretched_axis(highest, "strength", range=stretched([-0.003, 1.1 * highest]).tolist()),
            yaxis=value_axis(),
            annotations=[title_above("change of validation accuracy, points")],
            shapes=shapes,
        )
        figures.append(
            Figure(
                f"curves-{number}",
                case,
                f"{case}: change of validation accuracy against strength, posterior mean with its 95 % band",
                data=traces,
                layout=layout,
                keys=[Key(modality(i), name) for i, name in enumerate(result["modalities"], 1)],
            )
        )
    return Sheet(
        "curves",
        "Change of validation accuracy against strength",
        "posterior of the change of validation accuracy against strength, a panel for each case; points are runs",
        figures=figures,
        columns=min(3, len(optima)),
        height=2.9,
    )


def _posterior(optimum: Optimum, name: str, role: str) -> list[Trace]:
    curve = {key: np.array(values) for key, values in optimum["curve"].items()}
    places, half = stretched(curve["strength"]), 1.96 * curve["deviation"]
    mean = line(
        places, 100 * curve["mean"], role, mode="lines", hover=f"{plain(name)}, strength %{{customdata}}: %{{y:.2f}}"
    )
    mean["customdata"] = [f"{value:.3g}" for value in curve["strength"]]
    return [band(places, 100 * (curve["mean"] - half), 100 * (curve["mean"] + half), role), mean]


def _runs(runs: pd.DataFrame, index: int) -> Trace:
    """Return every run as a point: its change from the run of the same seed at strength 0."""
    column = f"validation_accuracy_{index}"
    without = runs[runs["strength"] == 0].set_index("seed")[column]
    change = 100 * (runs[column].to_numpy() - without.loc[runs["seed"]].to_numpy())
    trace = points(stretched(runs["strength"]), change, modality(index), size=4, hover="%{y:.2f}")
    trace["marker"]["opacity"] = 0.5
    return trace
