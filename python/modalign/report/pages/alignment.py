"""The page of one alignment of two representations, or of all pairs of their layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from modalign.alignment.nulls import Null
from modalign.alignment.results import Alignment, LayerAlignment, Score
from modalign.files.paths import expanded
from modalign.metrics.registry import METRICS
from modalign.report.figures.pictures import pictures_of_page, write_pictures
from modalign.report.figures.scores import alignment_sheets, extreme
from modalign.report.figures.stills import draw_sheet
from modalign.report.html import Page, pictures_beside, render_page, write_text
from modalign.report.words import (
    Table,
    at_the_floor,
    capitalised,
    chance_of,
    fixed,
    interval_of,
    mean_by_chance,
    title_of,
)

__all__ = ["conclusions", "draw", "save", "write"]

HUB = 100  # an item that is among the neighbours of more than so many times k others is reported
SCORE = Markup(
    "The metric of that name, as <code>modalign.metrics</code> defines it with its source. For a distance, lower is "
    "closer."
)
P = (
    "The probability that chance reaches the score. “≤” means that no relabelling reached it; more relabellings give a "
    "smaller bound."
)
CALIBRATED = Markup(
    "(score − threshold) / (best − threshold): 0 where the score is within reach of chance, 1 for the best possible "
    'score (<a href="https://arxiv.org/abs/2602.14486">arXiv:2602.14486</a>).'
)
COLUMNS = ("metric", "score", "interval", "by chance", "threshold", "p", "calibrated", "null", "items searched")
NULL_COLUMN = COLUMNS.index("null")


def write(result: Alignment | LayerAlignment, path: str | Path) -> Path:
    """Write the page of an alignment, whole or not at all, and return its path.

    The page holds its own style, scripts and data: it opens without a network, and prints. ``draw`` writes its
    pictures.

    Args:
        result (Alignment or LayerAlignment): What ``modalign.align`` or ``modalign.align_layers`` returned.
        path (str or Path): The HTML file.
    """
    target = expanded(path)
    page = _page_of_layers(result) if isinstance(result, LayerAlignment) else _page_of_scores(result)
    return write_text(target, render_page(page, pictures_beside(target).name))


def save(result: Alignment | LayerAlignment, path: str | Path) -> Path:
    """Write the page of an alignment after its pictures, and return its path; none of them stays if one cannot be.

    Args:
        result (Alignment or LayerAlignment): What the page shows.
        path (str or Path): The HTML file.
    """
    folder = pictures_beside(expanded(path))
    with pictures_of_page(folder, [draw_sheet(sheet) for sheet in alignment_sheets(result)]):
        return write(result, path)


def draw(result: Alignment | LayerAlignment, page: str | Path) -> Path:
    """Draw the figures of a page as SVG and PNG into ``PAGE-figures`` beside it, and return that folder.

    Pictures that an earlier alignment left there and this one does not have are removed; other files stay.

    Args:
        result (Alignment or LayerAlignment): What the page shows.
        page (str or Path): The HTML file; it need not exist.
    """
    folder = pictures_beside(expanded(page))
    pictures = [draw_sheet(sheet) for sheet in alignment_sheets(result)]
    return write_pictures(folder, pictures)


def conclusions(result: Alignment) -> list[str]:
    """Return the conclusions of an alignment as sentences; the first score has a sentence to itself.

    A score is above chance where p is at most 1 - confidence.

    Args:
        result (Alignment): The scores.
    """
    level = 1 - result.settings["confidence"]
    first, *others = result.scores
    sentences = [_sentence(first, level)]
    judged = [score for score in others if score.null is not None]
    for kind, scores in (
        ("Beyond chance as well", [score for score in judged if _beyond_chance(score.null, level)]),
        ("Within reach of chance", [score for score in judged if not _beyond_chance(score.null, level)]),
        ("Not compared with chance", [score for score in others if score.null is None]),
    ):
        if scores:
            sentences.append(f"{kind}: {', '.join(_short(score) for score in scores)}.")
    duplicates = result.facts.get("duplicates", {})
    copies = {side: facts["items"] for side, facts in duplicates.items() if facts["items"]}
    if copies:
        counted = " and ".join(f"{items:,} items of {side}" for side, items in copies.items())
        sentences.append(f"{counted} have an exact copy.")
    for side, hubs in result.facts.get("hubness", {}).items():
        if hubs["largest"] > HUB * result.settings["k"]:
            sentences.append(
                f"One item of {side} is among the neighbours of {hubs['largest']:,} others, and "
                f"{hubs['antihubs']:.0%} of the items are neighbours of no other item. Such hubs lower every score "
                "that compares neighbours."
            )
    return sentences


def _short(score: Score) -> str:
    chance = "" if score.chance is None else f" (chance {mean_by_chance(score, 3)})"
    return f"{title_of(score.metric)} {fixed(score.value, 3)}{chance}"


def _beyond_chance(null: Null | None, level: float) -> bool:
    return null is not None and null.p <= level + 1e-9


def _sentence(score: Score, level: float) -> str:
    """Return the sentence about one score: its value, its interval, and whether chance reaches it."""
    name = capitalised(title_of(score.metric))
    value = fixed(score.value, 3)
    span = "" if score.low is None else f" ({interval_of(score, 3)})"
    if score.null is None:
        mean = mean_by_chance(score, 3)
        known = f", whose mean is {mean}" if mean else ""
        return f"{name} is {value}{span}; it was not tested against chance{known}."
    distance, mean = METRICS[score.metric].best == 0, fixed(score.null.mean, 3)
    bound = chance_of(score)
    p = f"p {bound}" if bound[0] in "<≤" else f"p = {bound}"
    if not _beyond_chance(score.null, level):
        return f"{name} is {value}{span}, within reach of chance, whose mean is {mean} ({p})."
    side = "below" if distance else "above"
    return (
        f"{name} is {value}{span}, {side} chance, whose mean is {mean} ({p}); the calibrated score is "
        f"{fixed(score.null.calibrated, 3)}."
    )


def _floor(count: int) -> str:
    return (
        f"None of {count:,} relabellings reached the score, so p is at most 1/{count + 1:,}; more relabellings give a "
        "smaller bound."
    )


def _floors(result: Alignment) -> list[str]:
    """Return a note for each p that is only bounded by the number of relabellings."""
    nulls = [score.null for score in result.scores if score.null is not None and at_the_floor(score.null)]
    counts = sorted({null.relabellings for null in nulls})
    return [f"p ≤ {1 / (count + 1):.2g}: {_floor(count)[0].lower()}{_floor(count)[1:]}" for count in counts]


def _page_of_scores(result: Alignment) -> Page:
    settings = result.settings
    return Page(
        title=f"{settings['x']} and {settings['y']}",
        eyebrow="Alignment",
        facts=f"{settings['n']:,} items, widths {settings['d_x']} and {settings['d_y']}, k = {settings['k']}, "
        f"{settings['metric']} neighbours, {settings['confidence']:.0%} intervals",
        sentences=conclusions(result),
        notes=(*result.notes, *_floors(result)),
        sheets=alignment_sheets(result),
        numbers=[Table("numbers", "Numbers", COLUMNS, [_row(score) for score in result.scores], wide=(NULL_COLUMN,))],
        reading=_reading_of_scores(result),
        folded=[*_folded(result), ("Further measurements", _entries(result.facts))],
    )


def _row(score: Score) -> tuple[str, ...]:
    """Return the row of one score, in the order of ``COLUMNS``."""
    null = score.null
    chance: tuple[str, ...] = (mean_by_chance(score) or "–", *("–",) * 4)
    if null is not None:
        kind = null.kind + (f", {null.relabellings} times" if null.relabellings else "")
        chance = (fixed(null.mean), fixed(null.threshold), chance_of(score), fixed(null.calibrated), kind)
    return title_of(score.metric), fixed(score.value), interval_of(score) or "–", *chance, f"{score.rows:,}"


def _page_of_layers(result: LayerAlignment) -> Page:
    rows, columns = len(result.matrix), len(result.matrix[0])
    sentence = (
        f"Of {rows * columns} pairs of layers, layer {result.best[0]} of x and layer {result.best[1]} of y, counted "
        f"from 0, have the {extreme(result)} {title_of(result.metric)}: {fixed(result.value, 3)}."
    )
    notes = list(result.notes)
    if result.null is not None:
        sentence += _chance_of_layers(result, result.null, rows * columns)
        if at_the_floor(result.null):
            notes.append(_floor(result.null.relabellings))
    return Page(
        title=f"{capitalised(METRICS[result.metric].title)} of {rows} × {columns} layers",
        eyebrow="Alignment",
        facts=f"{result.settings['n']:,} items, k = {result.settings['k']}, layers counted from 0",
        sentences=[sentence],
        notes=notes,
        sheets=alignment_sheets(result),
        reading=_reading_of_layers(result),
        folded=_folded(result),
    )


def _chance_of_layers(result: LayerAlignment, null: Null, count: int) -> str:
    """Return the sentence that compares the best of many pairs of layers with the best that chance gives."""
    beyond = _beyond_chance(null, 1 - result.settings["confidence"])
    bound = "minimum" if METRICS[result.metric].best == 0 else "maximum"
    return (
        f" That is {'beyond' if beyond else 'within reach of'} chance, by which the {bound} over {count} pairs is "
        f"{fixed(null.mean, 3)} on average (p {'≤' if at_the_floor(null) else '='} {null.p:.2g}); the calibrated score "
        f"is {fixed(null.calibrated, 3)}."
    )


def _reading_of_scores(result: Alignment) -> list[tuple[str, str | Markup]]:
    entries: list[tuple[str, str | Markup]] = [("Score", SCORE)]
    if any(score.low is not None for score in result.scores):
        interval = (
            "If all items were searched: the range in which the score of other items of the same population would lie, "
            "estimated from the spread of random halves and quarters of these items. If queries were sampled: the "
            "range in which the score of all items lies."
        )
        entries.append(("Interval", interval))
    if any(score.chance is not None for score in result.scores):
        by_chance = (
            "The mean score when the items of one representation are relabelled at random; the upright bars in the "
            "first figure. Wide representations and few items score high by chance."
        )
        p = f"{P} No correction is made for the number of metrics."
        entries += [("By chance", by_chance), ("p", p), ("Calibrated", CALIBRATED)]
    return entries


def _reading_of_layers(result: LayerAlignment) -> list[tuple[str, str | Markup]]:
    layers = "x is the first representation and y the second; their layers are counted from 0."
    lower = METRICS[result.metric].best == 0
    bright = f"The {'lower' if lower else 'higher'} a score, the brighter its cell: bright cells are aligned layers."
    entries: list[tuple[str, str | Markup]] = [("Score", SCORE), ("Layers", layers), ("Figure", bright)]
    if result.null is not None:
        by_chance = (
            f"The mean, over random relabellings of the items of one representation, of the {extreme(result)} score of "
            "all pairs of layers. p and the calibrated score refer to it, which corrects for the number of pairs."
        )
        entries += [("By chance", by_chance), ("p", P), ("Calibrated", CALIBRATED)]
    return entries


def _folded(result: Alignment | LayerAlignment) -> list[tuple[str, Mapping[str, str]]]:
    cost = {stage: f"{seconds:.2f} s" for stage, seconds in result.cost.items()}
    return [("Settings", _entries(result.settings)), ("Cost", cost), ("Provenance", _entries(result.provenance))]


def _entries(record: Mapping[str, object]) -> dict[str, str]:
    return {str(name).replace("_", " "): _words(value) for name, value in record.items()}


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value) or "–"
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
