"""Alignments as tables on a terminal."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modalign.alignment.results import Alignment, LayerAlignment
from modalign.metrics.registry import METRICS
from modalign.report.words import chance_of, closer, fixed, interval_of, title_of

__all__ = [
    "print_alignment",
    "print_catalogue",
    "print_claims",
    "print_differences",
    "print_layers",
    "print_optima",
    "print_regret",
]

WIDE = 160  # columns of a file or a pipe
NARROW = 76  # columns below which names are broken, too
ROOMY = 112  # columns that titles of metrics fit into beside their names


def print_alignment(found: Alignment, console: Console | None = None) -> None:
    """A row for each metric, then what a reader of the numbers should know."""
    settings = found.settings
    rows = {score.rows for score in found.scores}
    searched = "" if rows == {settings["n"]} else f", neighbours of {min(rows):,} of them"
    title = f"{settings['n']:,} items{searched}, k = {settings['k']}, {settings['metric']}"
    console = console or _console()
    roomy = console.width >= ROOMY
    numbers = ("score", "interval", "by chance", "p", "calibrated")
    table = _table(
        "metric", *(("title",) if roomy else ()), *numbers, right=numbers, title=title,
        whole=("metric", "calibrated") if console.width >= NARROW else (),
        caption=f"intervals and thresholds at {settings['confidence']:.0%}",
    )  # fmt: skip
    for score in found.scores:
        calibrated = "" if score.null is None else fixed(score.null.calibrated)
        chance = "" if score.null is None else fixed(score.null.mean)
        name = [score.metric, title_of(score.metric)] if roomy else [f"{score.metric}{closer(score.metric, chr(10))}"]
        table.add_row(*name, fixed(score.value), interval_of(score), chance, chance_of(score), calibrated)
    console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def _console() -> Console:
    """A file or a pipe is wide, unless COLUMNS says otherwise; ``:words:`` of users are no emoji."""
    console = Console(emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    return console


def _table(
    *columns: str, whole: Collection[str] = (), right: Collection[str] = (), title: str | None = None,
    caption: str | None = None, show_lines: bool = False,
) -> Table:  # fmt: skip
    """A table that breaks its lines rather than leave out; ``whole``: columns of short names, which stay unbroken."""
    table = Table(title=title, caption=caption, show_lines=show_lines)
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(name, overflow="fold", no_wrap=name in whole, justify=justify)
    return table


def print_layers(found: LayerAlignment, console: Console | None = None) -> None:
    """The matrix, the brighter the more aligned, its best value marked. Layers count from 0."""
    title = f"{title_of(found.metric)} of every pair of layers, x down, y across, from 0"
    columns = ["", *(str(j) for j in range(len(found.matrix[0])))]
    table = _table(*columns, right=columns)
    values = [value for row in found.matrix for value in row]
    lowest = METRICS[found.metric].best == 0
    least, span = (max if lowest else min)(values), max(values) - min(values) or 1.0
    for i, row in enumerate(found.matrix):
        cells = []
        for j, value in enumerate(row):
            shade = round(60 * abs(value - least) / span)
            mark = "bold reverse" if (i, j) == tuple(found.best) else f"on rgb({30},{30 + shade},{30 + 2 * shade})"
            cells.append(f"[{mark}]{fixed(value, 3)}[/]")
        table.add_row(str(i), *cells)
    console = console or _console()
    console.print(title, style="italic", highlight=False)  # a table's own title is broken to the width of the table
    console.print(table)
    console.print(repr(found), highlight=False, markup=False)


def print_claims(folder: Path, console: Console | None = None) -> None:
    """The verdicts of a study: the paper's number beside ours."""
    import json

    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    table = _table("claim", "paper", "here", "95 % interval", "verdict", whole=("paper", "here", "verdict"))
    colours = {"reproduced": "green", "partly": "yellow", "not": "red"}
    for claim in claims:
        interval = "" if claim["low"] is None else f"{claim['low']:.2f} to {claim['high']:.2f}"
        paper = "" if claim["paper"] is None else f"{claim['paper']:.2f}"
        ours = "" if claim["rule"] == "holds" else f"{claim['value']:.2f}"
        verdict = claim["verdict"]
        table.add_row(escape(claim["text"]), paper, ours, interval, f"[{colours[verdict]}]{verdict}[/]")
    (console or _console()).print(table)


def print_optima(folder: Path, console: Console | None = None) -> None:
    """The best strengths that a search found."""
    import json

    from modalign.experiments.sweep.statistics import Estimate
    from modalign.report.words import points

    table = _table("case", "modality", "best strength", "interval", "gain, points", "helps", "runs")
    for case, found in json.loads((folder / "optima.json").read_text(encoding="utf-8")).items():
        for name, one in zip(found["modalities"], found["optima"], strict=True):
            gain = points(Estimate(one["gain"], one["gain_low"], one["gain_high"]), unit="")
            span = f"{one['low']:g} to {one['high']:g}"
            helps = f"{one['helps']:.0%}"
            table.add_row(escape(case), escape(name), f"{one['best']:g}", span, gain, helps, str(found["runs"]))
    (console or _console()).print(table)


def print_regret(rows: list[dict[str, Any]], console: Console | None = None) -> None:
    """What a search lost against a grid, and what it cost."""
    table = _table("case", "modality", "tuned", "grid", "regret, points", "regret of no alignment", "cost")
    for row in rows:
        table.add_row(
            escape(row["case"]), escape(row["name"]), f"{row['tuned']:g}", f"{row['grid']:g}",
            f"{100 * row['regret']:+.2f}", f"{100 * row['regret_of_none']:+.2f}", f"{row['cost']:.0%}",
        )  # fmt: skip
    names = ("regret", "regret_of_none", "cost")
    regret, none, cost = (sum(row[name] for row in rows) / len(rows) for name in names)
    table.add_section()
    table.add_row("mean", "", "", "", f"{100 * regret:+.2f}", f"{100 * none:+.2f}", f"{cost:.0%}")
    (console or _console()).print(table)


def print_differences(first: Path, second: Path, console: Console | None = None) -> None:
    """Two sweeps side by side."""
    from modalign.experiments.sweep.comparison import compare, settings_that_differ
    from modalign.report.words import points

    console = console or _console()
    for line in settings_that_differ(first, second):
        console.print(line, highlight=False, markup=False)
    table = _table("case", "modality", "best strength", "gain, points", "accuracy at the best, %", "change, points")
    for one in compare(first, second):
        table.add_row(
            escape(one.case), escape(one.name), " → ".join(f"{value:g}" for value in one.best),
            " → ".join(points(value, unit="") for value in one.gain),
            " → ".join(f"{100 * value:.1f}" for value in one.accuracy),
            points(one.change, unit="") + ("" if one.paired else " (other seeds)"),
        )  # fmt: skip
    console.print(table)


def print_catalogue(console: Console | None = None) -> None:
    """Every data set: what is available, how to get the rest, and under which licence."""
    from modalign.data import catalogue

    columns = ("name", "here", "modalities", "items", "task", "how to get it", "licence")
    table = _table(*columns, whole=("name", "here"), show_lines=True)
    for entry in catalogue():
        name = f"{entry.name}\n{entry.settings}" if entry.settings else entry.name
        here = "[green]yes[/]" if entry.available else "no"
        texts = (entry.modalities, entry.items, entry.task, entry.get, entry.licence)
        table.add_row(escape(name), here, *(escape(text) for text in texts))
    (console or _console()).print(table)
