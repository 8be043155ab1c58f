"""Alignments in a notebook: a table of scores as HTML, and a picture.

``modalign.common.doors`` names these functions; ``Alignment`` and ``LayerAlignment`` call them.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from modalign.alignment.results import Alignment, LayerAlignment, Score
from modalign.report.figures.pictures import Picture
from modalign.report.figures.scores import alignment_sheets
from modalign.report.figures.stills import draw_sheet
from modalign.report.words import chance_of, fixed, interval_of, mean_by_chance, title_of

__all__ = ["alignment_html", "alignment_plot"]

COLUMNS = ("metric", "score", "interval", "by chance", "p", "calibrated")


def alignment_plot(result: Alignment | LayerAlignment) -> Picture:
    """Return the picture of all scores beside chance, or the heat map of all pairs of layers."""
    return draw_sheet(alignment_sheets(result)[0])


def alignment_html(result: Alignment | LayerAlignment) -> str:
    """Return an HTML fragment with the scores as a table, everything from users escaped."""
    if isinstance(result, LayerAlignment):
        return _layers_html(result)
    settings = result.settings
    heading = f"{settings['n']:,} items, k = {settings['k']}, {settings['confidence']:.0%} intervals"
    table = _table(COLUMNS, [_cells(score) for score in result.scores])
    notes = Markup("").join(Markup("<p>Note: {}</p>").format(note) for note in result.notes)
    return Markup("<div><p>{}</p>{}{}</div>").format(heading, table, notes)


def _layers_html(result: LayerAlignment) -> str:
    rows: list[Sequence[str]] = []
    for i, scores in enumerate(result.matrix):
        cells = [escape(fixed(score, 3)) for score in scores]
        if i == result.best[0]:
            cells[result.best[1]] = Markup("<strong>{}</strong>").format(cells[result.best[1]])
        rows.append([str(i), *cells])
    columns = ["x \\ y", *map(str, range(len(result.matrix[0])))]
    return Markup("<div><p>{}</p>{}</div>").format(repr(result), _table(columns, rows))


def _cells(score: Score) -> Sequence[str]:
    """Return the row of one score, in the order of ``COLUMNS``."""
    null = score.null
    judged = ("–", "–") if null is None else (chance_of(score), fixed(null.calibrated))
    chance = (mean_by_chance(score) or "–", *judged)
    return (title_of(score.metric), fixed(score.value), interval_of(score) or "–", *chance)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    head = _row("th", columns)
    body = Markup("").join(_row("td", row) for row in rows)
    return Markup("<table><thead>{}</thead><tbody>{}</tbody></table>").format(head, body)


def _row(tag: str, cells: Sequence[str]) -> Markup:
    joined = Markup("").join(Markup("<{0}>{1}</{0}>").format(tag, cell) for cell in cells)
    return Markup("<tr>{}</tr>").format(joined)
