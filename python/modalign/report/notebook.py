"""How alignments show themselves in a notebook: a table of scores, and a picture.

``modalign.common.doors`` names these functions; ``Alignment`` and ``LayerAlignment`` call them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from markupsafe import Markup, escape

from modalign.alignment.nulls import Null
from modalign.alignment.results import Alignment, LayerAlignment, Score
from modalign.files.atomic import write_atomically
from modalign.report.pages.alignment import draw
from modalign.report.words import at_the_floor, fixed, interval_of, title_of

__all__ = ["Plot", "alignment_html", "alignment_plot"]

COLUMNS = ("metric", "score", "interval", "by chance", "p", "calibrated")


@dataclasses.dataclass(frozen=True)
class Plot:
    """A picture that a notebook shows.

    Attributes:
        svg: bytes. The picture as SVG.
        png: bytes. The picture as PNG.
    """

    svg: bytes
    png: bytes

    def _repr_svg_(self) -> str:
        return self.svg.decode()

    def save(self, path: str | Path) -> Path:
        """Write the picture to a .svg or .png file, whole or not at all, and return the path.

        Raises:
            ValueError: If the name ends in something else.
        """
        target = Path(path)
        contents = {".svg": self.svg, ".png": self.png}
        if target.suffix not in contents:
            raise ValueError(f"save: path must end in .svg or .png, got {target}")
        write_atomically(target, lambda temporary: temporary.write_bytes(contents[target.suffix]))
        return target


def alignment_plot(result: Alignment | LayerAlignment) -> Plot:
    """Return the picture of all scores beside chance, or the heat map of all pairs of layers."""
    name = "layers" if isinstance(result, LayerAlignment) else "scores"
    with TemporaryDirectory() as folder:
        figures = draw(result, Path(folder) / "alignment.html")
        return Plot(*((figures / f"{name}.{suffix}").read_bytes() for suffix in ("svg", "png")))


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
    null = score.null
    chance = ("–",) * 3 if null is None else (fixed(null.mean), _p_value(null), fixed(null.calibrated))
    return (title_of(score.metric), fixed(score.value), interval_of(score) or "–", *chance)


def _p_value(null: Null) -> str:
    return "< 1e-12" if null.p < 1e-12 else f"{'≤ ' if at_the_floor(null) else ''}{null.p:.2g}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    head = _row("th", columns)
    body = Markup("").join(_row("td", row) for row in rows)
    return Markup("<table><thead>{}</thead><tbody>{}</tbody></table>").format(head, body)


def _row(tag: str, cells: Sequence[str]) -> Markup:
    joined = Markup("").join(Markup("<{0}>{1}</{0}>").format(tag, cell) for cell in cells)
    return Markup("<tr>{}</tr>").format(joined)
