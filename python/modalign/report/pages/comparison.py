"""The page of ``modalign compare``: which settings differ, what that changes, and the curves of both sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from modalign.experiments.sweep.comparison import Difference, compare, different_settings
from modalign.experiments.sweep.results import Results, read
from modalign.report.figures.drawing import means
from modalign.report.html import Picture, Table, beside, extra_height, figure, wrapped, write_single_page
from modalign.report.words import accuracy, points, strength_range

__all__ = ["conclusions", "write"]

COLOURS = ("#007a5a", "#b0559b")  # of the first and the second sweep; blue and orange are modalities elsewhere
READING = (
    ("Change", "Test accuracy of the second sweep less that of the first, each at its own best strength, which was "
     "chosen on validation accuracy. Paired by seed where both have the same seeds, else with Welch's interval."),
    ("Gain", "Test accuracy at the best strength less that of the smallest, within one sweep, paired by seed."),
    ("Best strength", "Of the highest validation accuracy, averaged over seeds; in brackets its 95 % bootstrap range."),
    ("Intervals", "95 % Student-t intervals over seeds. Nothing is corrected for the number of intervals looked at."),
)  # fmt: skip


def write(first: Path, second: Path, page: Path) -> Path:
    """Write ``page`` and its pictures beside it; returns its path. Raises ValueError as ``compare``."""
    one, two = read(Path(first)), read(Path(second))
    found = compare(first, second)
    names = _names(one, two, first, second)
    pictures: list[Picture] = []
    _curves(pictures, found, (one, two), names)
    return write_single_page(
        Path(page),
        beside(Path(page)),
        title=f"{names[0]} and {names[1]}",
        eyebrow="Two sweeps compared",
        facts=f"{len(one.runs)} and {len(two.runs)} runs; {len({item.case for item in found})} cases in both",
        sentences=conclusions(found),
        tables=[_settings(different_settings(first, second), names), _changes(found, names)],
        pictures=pictures,
        reading=READING,
        folded=[(f"Provenance of {name}", of.provenance) for name, of in zip(names, (one, two), strict=True)],
    )


def conclusions(found: Sequence[Difference]) -> list[str]:
    """One sentence for each case: whose accuracy changes, and where the best strength goes."""
    return [
        f"{case}: {'; '.join(_clause(item) for item in items)}."
        for case, items in groupby(found, key=lambda item: item.case)
    ]


def _clause(item: Difference) -> str:
    change = item.change
    if change.low is None:
        said = f"{item.name} changes by {points(change)}, without an interval, since there is one seed"
    elif change.positive or change.negative:
        said = f"{item.name} is {'better' if change.positive else 'worse'} in the second, {points(change)}"
    else:
        said = f"no difference is shown for {item.name} ({points(change)})"
    first, second = item.best
    moved = f"best strength {first:g} in both" if first == second else f"best strength {first:g}, then {second:g}"
    return f"{said}, {moved}"


def _names(one: Results, two: Results, first: Path, second: Path) -> tuple[str, str]:
    """By what the configurations call themselves, or the folders where that is the same."""
    if one.name != two.name:
        return one.name, two.name
    names = Path(first).resolve().name, Path(second).resolve().name
    return names if names[0] != names[1] else ("first", "second")


def _settings(settings: Sequence[tuple[str, Any, Any]], names: tuple[str, str]) -> Table:
    rows = [(key, *("–" if value is None else str(value) for value in values)) for key, *values in settings]
    lead = "" if rows else "None: the two sweeps were run with the same settings."
    return Table("settings", "Settings that differ", ("setting", *names), rows, lead)


def _changes(found: Sequence[Difference], names: tuple[str, str]) -> Table:
    rows = [
        (
            item.case, item.name, *(strength_range(one) for one in item.findings),
            *(points(value, unit="") for value in item.gain), *(f"{100 * value:.1f}" for value in item.accuracy),
            points(item.change, unit="") + ("" if item.paired else " (other seeds)"),
        )
        for item in found
    ]  # fmt: skip
    kinds = ("best strength", "gain, points", "at the best, %")
    columns = ("case", "modality", *(f"{kind}: {name}" for kind in kinds for name in names), "change, points")
    return Table("changes", "Best strengths and what changes", columns, rows)


def _curves(
    into: list[Picture], found: Sequence[Difference], sweeps: tuple[Results, Results], names: tuple[str, str]
) -> None:
    """Accuracy against strength, a row for each case and a column for each modality, both sweeps in each panel."""
    strengths = sorted({value for results in sweeps for value in results.strengths})
    cases = list(dict.fromkeys(item.case for item in found))
    label = (
        f"test accuracy against alignment strength of {names[0]} and {names[1]}, mean over seeds with 95 % bands; "
        + "; ".join(
            f"{item.case}, {item.name}: {accuracy(item.change._replace(mean=item.accuracy[0], low=None))} and "
            f"{accuracy(item.change._replace(mean=item.accuracy[1], low=None))} % at the best"
            for item in found
        )
    )
    titles = [wrapped(f"{item.case}: {item.name}", 2) for item in found]
    height = 2.7 + extra_height(titles)
    columns = max(item.modality for item in found)
    heading = "Accuracy against strength, both sweeps"
    with figure(into, "curves", heading, label, len(cases), columns, height=height) as axes:
        for item, title in zip(found, titles, strict=True):
            ax = axes[cases.index(item.case), item.modality - 1]
            for results, one, name, colour, style in zip(
                sweeps, item.findings, names, COLOURS, ("o-", "s--"), strict=True
            ):
                at = np.array([strengths.index(value) for value in results.strengths])
                mean, half = means(100 * results.grid(one.case, one.predictor.column("accuracy")))
                ax.plot(at, mean, style, color=colour, ms=3.5, label=name)
                low, high = (np.clip(mean + side * half, 0, 100) for side in (-1, 1))
                ax.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
                best = results.strengths.index(one.best)
                ax.plot(at[best], mean[best], style[0], color="none", mec=colour, mew=1.4, ms=9)
            ax.set_xticks(range(len(strengths)), [f"{value:g}" for value in strengths])
            ax.set_title(title, loc="left")
            ax.set(xlabel="alignment strength" if item.case == cases[-1] else "", ylabel="test accuracy, %")
        handles, _ = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles=handles, loc="outside lower center", ncols=2)
