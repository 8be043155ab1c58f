"""Alignments as tables on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from modalign.metrics.registry import METRICS
from modalign.scores import Alignment, LayerAlignment, Score

__all__ = [
    "chance_of",
    "print_alignment",
    "print_catalogue",
    "print_claims",
    "print_differences",
    "print_layers",
    "print_optima",
    "print_regret",
]


def print_alignment(found: Alignment, console: Console | None = None) -> None:
    """A row for each metric, then what a reader of the numbers should know."""
    settings = found.settings
    rows = {score.rows for score in found.scores}
    searched = "" if rows == {settings["n"]} else f", neighbours of {min(rows):,} of them"
    title = f"{settings['n']:,} items{searched}, k = {settings['k']}, {settings['metric']}"
    table = Table(title=title, caption=f"intervals and thresholds at {settings['confidence']:.0%}")
    for name in ("metric", "score", "interval", "by chance", "p", "calibrated"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for score in found.scores:
        span = "" if score.low is None else f"{score.low:.4f} to {score.high:.4f}"
        calibrated = "" if score.null is None else f"{score.null.calibrated:.4f}"
        chance = "" if score.null is None else f"{score.null.mean:.4f}"
        table.add_row(METRICS[score.metric].title, f"{score.value:.4f}", span, chance, chance_of(score), calibrated)
    console = console or Console()
    console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def chance_of(score: Score) -> str:
    """The p-value, as short as it is sure."""
    if score.null is None:
        return ""
    return "< 1e-12" if score.null.p < 1e-12 else f"{score.null.p:.2g}"


def print_layers(found: LayerAlignment, console: Console | None = None) -> None:
    """The matrix, the darker the higher, its maximum marked."""
    table = Table(title=f"{METRICS[found.metric].title} of every pair of layers, x down, y across")
    table.add_column("", justify="right")
    for j in range(len(found.matrix[0])):
        table.add_column(str(j), justify="right")
    values = [value for row in found.matrix for value in row]
    low, span = min(values), max(values) - min(values) or 1.0
    for i, row in enumerate(found.matrix):
        cells = []
        for j, value in enumerate(row):
            shade = round(60 * (value - low) / span)
            mark = "bold reverse" if (i, j) == tuple(found.best) else f"on rgb({30},{30 + shade},{30 + 2 * shade})"
            cells.append(f"[{mark}]{value:.3f}[/]")
        table.add_row(str(i), *cells)
    console = console or Console()
    console.print(table)
    console.print(repr(found), highlight=False, markup=False)


def print_claims(folder: Path, console: Console | None = None) -> None:
    """The verdicts of a study: the paper's number beside ours."""
    import json

    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    table = Table("claim", "paper", "here", "95 % interval", "verdict")
    colours = {"reproduced": "green", "partly": "yellow", "not": "red"}
    for claim in claims:
        interval = "" if claim["low"] is None else f"{claim['low']:.2f} to {claim['high']:.2f}"
        paper = "" if claim["paper"] is None else f"{claim['paper']:.2f}"
        ours = "" if claim["rule"] == "holds" else f"{claim['value']:.2f}"
        verdict = claim["verdict"]
        table.add_row(claim["text"], paper, ours, interval, f"[{colours[verdict]}]{verdict}[/]")
    (console or Console()).print(table)


def print_optima(folder: Path, console: Console | None = None) -> None:
    """The best strengths that a search found."""
    import json

    table = Table("case", "modality", "best strength", "interval", "gain, points", "helps", "runs")
    for case, found in json.loads((folder / "optima.json").read_text(encoding="utf-8")).items():
        for name, one in zip(found["modalities"], found["optima"], strict=True):
            gain = f"{100 * one['gain']:+.1f} [{100 * one['gain_low']:.1f}, {100 * one['gain_high']:.1f}]"
            span = f"{one['low']:g} to {one['high']:g}"
            table.add_row(case, name, f"{one['best']:g}", span, gain, f"{one['helps']:.0%}", str(found["runs"]))
    (console or Console()).print(table)


def print_regret(rows: list[dict[str, Any]], console: Console | None = None) -> None:
    """What a search lost against a grid, and what it cost."""
    table = Table("case", "modality", "tuned", "grid", "regret, points", "regret of no alignment", "cost")
    for row in rows:
        table.add_row(
            row["case"], row["name"], f"{row['tuned']:g}", f"{row['grid']:g}", f"{100 * row['regret']:+.2f}",
            f"{100 * row['regret_of_none']:+.2f}", f"{row['cost']:.0%}",
        )  # fmt: skip
    names = ("regret", "regret_of_none", "cost")
    regret, none, cost = (sum(row[name] for row in rows) / len(rows) for name in names)
    table.add_section()
    table.add_row("mean", "", "", "", f"{100 * regret:+.2f}", f"{100 * none:+.2f}", f"{cost:.0%}")
    (console or Console()).print(table)


def print_differences(first: Path, second: Path, console: Console | None = None) -> None:
    """Two sweeps side by side."""
    from modalign.report.comparison import compare, settings_that_differ
    from modalign.report.sentences import points

    console = console or Console()
    for line in settings_that_differ(first, second):
        console.print(line, highlight=False, markup=False)
    table = Table("case", "modality", "best strength", "gain, points", "accuracy at the best, %", "change, points")
    for one in compare(first, second):
        table.add_row(
            one.case, one.name, " → ".join(f"{value:g}" for value in one.best),
            " → ".join(f"{100 * value.mean:+.1f}" for value in one.gain),
            " → ".join(f"{100 * value:.1f}" for value in one.accuracy),
            points(one.change, unit="") + ("" if one.paired else " (other seeds)"),
        )  # fmt: skip
    console.print(table)


def print_catalogue(console: Console | None = None) -> None:
    """Every data set: what is available, how to get the rest, and under which licence."""
    from modalign.data import catalogue

    table = Table("name", "here", "modalities", "items", "task", "how to get it", "licence", show_lines=True)
    for entry in catalogue():
        name = f"{entry.name}\n{entry.settings}" if entry.settings else entry.name
        here = "[green]yes[/]" if entry.available else "no"
        table.add_row(name, here, entry.modalities, entry.items, entry.task, entry.get, entry.licence)
    (console or Console()).print(table)
