"""Results as tables on a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modalign.experiments.studies.settings import settings_rows
from modalign.metrics.registry import METRICS
from modalign.report.palette import VERDICTS, shade
from modalign.report.words import (
    chance_of,
    changes_in_words,
    claims_table,
    closer,
    fixed,
    interval_of,
    mean_by_chance,
    points,
    title_of,
    verdict_counts,
)

if TYPE_CHECKING:
    from modalign.alignment.results import Alignment, LayerAlignment
    from modalign.report import words

__all__ = [
    "Regret",
    "print_alignment",
    "print_catalogue",
    "print_claims",
    "print_differences",
    "print_layers",
    "print_optima",
    "print_regret",
    "print_settings",
]

WIDE = 160  # columns of a file or a pipe
NARROW = 76  # below so many columns, names of metrics are broken too
ROOMY = 112  # from so many columns on, titles of metrics fit beside their names


class Regret(TypedDict):
    """The loss of a search against a grid, for one modality of one case."""

    case: str
    name: str
    tuned: float
    grid: float
    regret: float
    regret_of_none: float
    cost: float


def print_alignment(result: Alignment, console: Console | None = None) -> None:
    """Print a row for each metric, then the notes on the numbers."""
    settings = result.settings
    rows = {score.rows for score in result.scores}
    searched = "" if rows == {settings["n"]} else f", neighbours of {min(rows):,} of them"
    console = console or _console()
    roomy = console.width >= ROOMY
    numbers = ("score", "interval", "by chance", "p", "calibrated")
    table = _table(
        ["metric", *(["title"] if roomy else []), *numbers],
        right=numbers,
        unbroken=("metric", "calibrated") if console.width >= NARROW else (),
        title=f"{settings['n']:,} items{searched}, k = {settings['k']}, {settings['metric']}",
        caption=_legend(result),
    )
    for score in result.scores:
        calibrated = "" if score.null is None else fixed(score.null.calibrated)
        chance = mean_by_chance(score)
        name = [score.metric, title_of(score.metric)] if roomy else [f"{score.metric}{closer(score.metric, chr(10))}"]
        row = [*name, fixed(score.value), interval_of(score), chance, chance_of(score), calibrated]
        table.add_row(*row)
    console.print(table)
    curve = result.curves.get("size")
    if curve:
        points_of_curve = zip(curve["sizes"], curve["values"], strict=True)
        values = ", ".join(f"{fixed(value)} of {size:,}" for size, value in points_of_curve)
        console.print(f"mutual k-NN expected of so many items: {values}", highlight=False, markup=False)
    for note in result.notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def _legend(result: Alignment) -> str:
    """Return what the columns of the table mean, as far as there is something in them."""
    scores, n = result.scores, result.settings["n"]
    lines = [f"intervals and thresholds at {result.settings['confidence']:.0%}"]
    sampled = [score.metric for score in scores if score.interval == "these items"]
    if sampled and len(sampled) < len(scores):
        lines.append(f"{', '.join(sampled)}: interval of the score of these {n:,} items; others: of other such items")
    elif sampled:
        lines.append(f"interval: of the score of these {n:,} items")
    if any(score.chance is not None for score in scores):
        lines.append("by chance: mean score of unrelated pairs")
    for count in sorted({score.chance.relabellings for score in scores if score.null is None and score.chance} - {0}):
        lines.append(f"(of {count}): the mean of {count} random relabellings, without a p-value")
    if any(score.null is not None for score in scores):
        lines += [
            "p: probability of a score as close by chance",
            "calibrated: 0 where chance could have given the score, 1 for the best there is",
        ]
    return "\n".join(lines)


def print_layers(result: LayerAlignment, console: Console | None = None) -> None:
    """Print the matrix of scores, brighter where more aligned, with its best value marked; layers count from 0."""
    title = f"{title_of(result.metric)} of all pairs of layers, counted from 0: layers of x in rows, of y in columns"
    columns = ["", *(str(j) for j in range(len(result.matrix[0])))]
    table = _table(columns, right=columns)
    values = [value for row in result.matrix for value in row]
    lowest = METRICS[result.metric].best == 0
    least, span = (max if lowest else min)(values), max(values) - min(values) or 1.0
    for i, row in enumerate(result.matrix):
        cells = []
        for j, value in enumerate(row):
            background = f"on {shade(abs(value - least) / span)}"
            mark = "bold reverse" if (i, j) == tuple(result.best) else background
            cells.append(f"[{mark}]{fixed(value, 3)}[/]")
        table.add_row(str(i), *cells)
    console = console or _console()
    console.print(title, style="italic", highlight=False)  # a table's own title is broken to the width of the table
    console.print(table)
    console.print(repr(result), highlight=False, markup=False)


def print_claims(folder: Path, console: Console | None = None, *, read: str = "docs/verdicts.md") -> None:
    """Print the verdicts of a study, the numbers of its paper beside those found here, and what they are.

    read: where the rules are explained.
    """
    console = console or _console()
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    if claims:
        _print_table(claims_table(claims), console, unbroken=("paper", "here"))
    lines = [verdict_counts(claims), *changes_in_words(_settings_in(folder))]
    if claims:
        lines.append(
            "A verdict follows from the 90 % interval by a rule that was fixed before the run. Where the table has no "
            "number of the paper, the paper gives none that means the same. An undecided claim names what there is too "
            f"little of. {read[0].upper()}{read[1:]} has the rules."
        )
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _settings_in(folder: Path) -> dict[str, Any]:
    """Return the settings of a study; a study of the user's may keep none."""
    file = folder / "settings.json"
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["settings"] if file.is_file() else {}
    return settings


def print_settings(grids: Mapping[str, tuple[Any, Any]], console: Console | None = None) -> None:
    """Print the settings of a study that ``--setting`` takes, with their values by each protocol."""
    columns = ("setting", "is", *(f"--protocol {protocol}" for protocol in grids), "meaning")
    table = _table(columns, unbroken=("setting",), show_lines=True)
    for row in settings_rows(grids):
        table.add_row(*map(escape, row))
    (console or _console()).print(table)


def print_optima(folder: Path, console: Console | None = None) -> None:
    """Print the best strengths that a search left in ``folder``."""
    from modalign.report.pages.tune import best_strengths

    _print_table(best_strengths(json.loads((folder / "optima.json").read_text(encoding="utf-8"))), console)


def print_regret(rows: Sequence[Regret], console: Console | None = None) -> None:
    """Print the loss of a search against a grid, and its cost, with the means over all rows."""
    table = _table(
        [
            "case",
            "modality",
            "strength by the search",
            "strength by the grid",
            "regret, points",
            "regret without alignment, points",
            "cost",
        ]
    )
    for row in rows:
        strengths = (f"{row['tuned']:g}", f"{row['grid']:g}")
        regrets = (f"{100 * row['regret']:+.2f}", f"{100 * row['regret_of_none']:+.2f}")
        table.add_row(escape(row["case"]), escape(row["name"]), *strengths, *regrets, f"{row['cost']:.0%}")
    regret = sum(row["regret"] for row in rows) / len(rows)
    without = sum(row["regret_of_none"] for row in rows) / len(rows)
    cost = sum(row["cost"] for row in rows) / len(rows)
    table.add_section()
    means = ("mean", "", "", "", f"{100 * regret:+.2f}", f"{100 * without:+.2f}", f"{cost:.0%}")
    table.add_row(*means)
    (console or _console()).print(table)


def print_differences(first: Path, second: Path, console: Console | None = None) -> None:
    """Print the settings that differ between two sweeps, and what changes for every model of every case."""
    from modalign.experiments.sweep.comparison import compare, settings_that_differ

    console = console or _console()
    for line in settings_that_differ(first, second):
        console.print(line, highlight=False, markup=False)
    table = _table(
        ["case", "model", "best strength", "gain, points", "accuracy at the best strength, %", "change, points"]
    )
    for item in compare(first, second):
        change = points(item.change, unit="") + ("" if item.paired else " (other seeds)")
        row = [
            escape(item.case),
            escape(item.name),
            " → ".join(f"{value:g}" for value in item.best),
            " → ".join(points(value, unit="") for value in item.gain),
            " → ".join(f"{100 * value:.1f}" for value in item.accuracy),
            change,
        ]
        table.add_row(*row)
    console.print(table)


def print_catalogue(console: Console | None = None) -> None:
    """Print every data set: whether it is available here, how to get it, and its licence."""
    from modalign.data import catalogue

    columns = ("name", "available", "modalities", "items", "task", "how to get it", "licence")
    table = _table(columns, unbroken=("name", "available"), show_lines=True)
    for entry in catalogue():
        name = f"{entry.name}\n{entry.settings}" if entry.settings else entry.name
        available = "[green]yes[/]" if entry.available else "no"
        texts = (entry.modalities, entry.items, entry.task, entry.get, entry.licence)
        table.add_row(escape(name), available, *(escape(text) for text in texts))
    (console or _console()).print(table)


def _console() -> Console:
    """Return the console of standard output, without emoji for the ``:words:`` in users' names.

    A file or a pipe is wide, unless COLUMNS says otherwise.
    """
    console = Console(emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    return console


def _table(
    columns: Sequence[str],
    *,
    unbroken: Collection[str] = (),
    right: Collection[str] = (),
    title: str | None = None,
    caption: str | None = None,
    show_lines: bool = False,
) -> Table:
    """Return an empty table that breaks lines rather than leave out text.

    Args:
        columns (sequence of str): The names of the columns.
        unbroken (collection of str): The columns of short names, whose lines are not broken.
        right (collection of str): The columns that are aligned to the right.
        title (str): The text above the table.
        caption (str): The text below the table.
        show_lines (bool): Whether a line separates the rows.
    """
    table = Table(title=title, caption=caption, show_lines=show_lines)
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(name, overflow="fold", no_wrap=name in unbroken, justify=justify)
    return table


def _print_table(content: words.Table, console: Console | None, unbroken: Collection[str] = ()) -> None:
    """Print a table of a page, with its verdicts in colour."""
    table = _table(content.columns, unbroken=unbroken)
    for row in content.rows:
        cells = [f"[{VERDICTS[cell][1]}]{cell}[/]" if cell in VERDICTS else escape(cell) for cell in row]
        table.add_row(*cells)
    (console or _console()).print(table)
