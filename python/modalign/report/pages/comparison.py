"""The page of ``modalign compare``: which settings differ, what changes with them, and the curves of both sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from modalign.experiments.sweep.comparison import Difference, compare, different_settings
from modalign.experiments.sweep.results import Results, read
from modalign.files.paths import expanded
from modalign.report.figures import (
    Figure,
    Key,
    Sheet,
    Trace,
    band,
    line,
    means,
    panel_layout,
    plain,
    points,
    strength_axis,
    title_above,
    value_axis,
)
from modalign.report.html import Page, write_page
from modalign.report.palette import series
from modalign.report.words import Table, accuracy, strength_range
from modalign.report.words import points as in_points

__all__ = ["conclusions", "write"]

SYMBOLS = ("circle", "square")  # of the first and the second sweep
READING = (
    (
        "Change",
        "Test accuracy of the second sweep minus that of the first, each at its own best strength, which was chosen on "
        "validation accuracy. The change is paired by seed where both sweeps have the same seeds; otherwise its "
        "interval is Welch's.",
    ),
    (
        "Gain",
        "Test accuracy at the best strength minus test accuracy at the smallest strength of the same sweep, paired by "
        "seed.",
    ),
    (
        "Best strength",
        "The strength with the highest validation accuracy, averaged over seeds. Brackets hold its 95 % bootstrap "
        "range.",
    ),
    (
        "Intervals",
        "95 % Student-t intervals over seeds. No correction is made for the number of intervals.",
    ),
)


def write(first: Path, second: Path, page: Path) -> Path:
    """Write the page of two sweeps with its pictures beside it, and return its path.

    Args:
        first (Path): The folder of a finished sweep.
        second (Path): The folder of another.
        page (Path): The HTML file.

    Raises:
        ValueError: If a folder holds no finished sweep, or the sweeps have no case in common.
    """
    sweeps = read(expanded(first)), read(expanded(second))
    differences = compare(first, second)
    names = _names(sweeps, (expanded(first), expanded(second)))
    cases = len({item.case for item in differences})
    return write_page(
        Page(
            title=f"{names[0]} and {names[1]}",
            eyebrow="Comparison of two sweeps",
            facts=f"{len(sweeps[0].runs)} and {len(sweeps[1].runs)} runs; {cases} cases in both",
            sentences=conclusions(differences),
            tables=[_settings(different_settings(first, second), names), _changes(differences, names)],
            sheets=[_curves(differences, sweeps, names)],
            reading=READING,
            folded=[(f"Provenance of {name}", results.provenance) for name, results in zip(names, sweeps, strict=True)],
        ),
        expanded(page),
    )


def conclusions(differences: Sequence[Difference]) -> list[str]:
    """Return one sentence for each case: how accuracy changes, and where the best strength moves."""
    return [
        f"{case}: {'; '.join(_clause(item) for item in items)}."
        for case, items in groupby(differences, key=lambda item: item.case)
    ]


def _clause(item: Difference) -> str:
    change = item.change
    if change.low is None:
        clause = f"{item.name} changes by {in_points(change)}, without an interval, since there is one seed"
    elif change.positive or change.negative:
        clause = f"{item.name} is {'better' if change.positive else 'worse'} in the second, {in_points(change)}"
    else:
        clause = f"no difference is shown for {item.name} ({in_points(change)})"
    first, second = item.best
    moved = f"best strength {first:g} in both" if first == second else f"best strength {first:g}, then {second:g}"
    return f"{clause}, {moved}"


def _names(sweeps: tuple[Results, Results], folders: tuple[Path, Path]) -> tuple[str, str]:
    """Return the names in the configurations, or those of the folders where the former are the same."""
    for first, second in (
        (sweeps[0].name, sweeps[1].name),
        (folders[0].resolve().name, folders[1].resolve().name),
    ):
        if first != second:
            return first, second
    return "first", "second"


def _settings(settings: Sequence[tuple[str, object, object]], names: tuple[str, str]) -> Table:
    rows = [(key, *("–" if value is None else str(value) for value in values)) for key, *values in settings]
    lead = "" if rows else "The two sweeps were run with the same settings."
    return Table("settings", "Settings that differ", ("setting", *names), rows, lead=lead)


def _changes(differences: Sequence[Difference], names: tuple[str, str]) -> Table:
    rows = [
        (
            item.case,
            item.name,
            *(strength_range(finding) for finding in item.findings),
            *(in_points(value, unit="") for value in item.gain),
            *(f"{100 * value:.1f}" for value in item.accuracy),
            in_points(item.change, unit="") + ("" if item.paired else " (other seeds)"),
        )
        for item in differences
    ]
    kinds = ("best strength", "gain, points", "accuracy at the best, %")
    columns = ("case", "model", *(f"{kind}: {name}" for kind in kinds for name in names), "change, points")
    return Table("changes", "Best strengths and changes", columns, rows)


def _curves(differences: Sequence[Difference], sweeps: tuple[Results, Results], names: tuple[str, str]) -> Sheet:
    """Return accuracy against strength: a row for each case, a column for each model, both sweeps in each panel."""
    strengths = sorted({value for results in sweeps for value in results.strengths})
    columns = max(item.predictor.position for item in differences)
    at_best = "; ".join(
        f"{item.case}, {item.name}: {_accuracy(item, 0)} and {_accuracy(item, 1)} % at the best strength"
        for item in differences
    )
    figures = []
    for number, item in enumerate(differences):
        traces = [
            trace for side in (0, 1) for trace in _curve(item, side, sweeps[side], names[side], strengths=strengths)
        ]
        layout = panel_layout(
            250,
            xaxis=strength_axis(strengths, "alignment strength"),
            yaxis=value_axis(),
            annotations=[title_above("test accuracy, %")],
        )
        heading = f"{item.case}: {item.name}"
        label = f"{heading}: test accuracy against alignment strength of both sweeps"
        figures.append(Figure(f"curves-{number}", heading, label, data=traces, layout=layout))
    return Sheet(
        "curves",
        "Accuracy against strength, both sweeps",
        f"test accuracy against alignment strength of {names[0]} and {names[1]}, mean over seeds with 95 % bands; "
        f"{at_best}",
        figures=figures,
        columns=columns,
        keys=[Key(series(side), name, SYMBOLS[side]) for side, name in enumerate(names)],
        height=2.7,
    )


def _curve(item: Difference, side: int, results: Results, name: str, strengths: Sequence[float]) -> list[Trace]:
    """Return the line of one sweep with its band, and a ring at the best strength."""
    finding = item.findings[side]
    places = np.array([strengths.index(value) for value in results.strengths])
    mean, half = means(100 * results.grid(finding.case, finding.predictor.column("accuracy")))
    low, high = (mean - half).clip(0, 100), (mean + half).clip(0, 100)
    role, best = series(side), results.strengths.index(finding.best)
    curve = line(
        places,
        mean,
        role,
        hover=f"{plain(name)}, strength %{{customdata}}: %{{y:.1f}}",
        size=6,
        symbol=SYMBOLS[side],
        dash="dash" if side else "solid",
    )
    curve["customdata"] = [f"{value:g}" for value in results.strengths]
    ring = points([places[best]], [mean[best]], role, size=13, symbol=f"{SYMBOLS[side]}-open", outline=2)
    return [band(places, low, high, role), curve, ring]


def _accuracy(item: Difference, side: int) -> str:
    return accuracy(item.change._replace(mean=item.accuracy[side], low=None))
