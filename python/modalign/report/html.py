"""Pages: one HTML file that needs nothing but itself, and its pictures beside it as SVG and PNG.

A ``Page`` holds the sentences, tables, figures and notes; ``write_page`` renders it with the template
``study_page.html``. The page of a sweep has a template of its own and shares ``environment``, ``packaged`` and
``plot_data``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from modalign.files.atomic import write_atomically
from modalign.report.figures.specification import Figure, Sheet
from modalign.report.palette import VERDICTS, css
from modalign.report.words import Table, changes_in_words, protocol_in_words

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from modalign.experiments.sweep.folder import Folder
    from modalign.report.figures.pictures import Picture

__all__ = [
    "Page",
    "environment",
    "folded_settings",
    "packaged",
    "pictures_beside",
    "plot_data",
    "render_page",
    "write_page",
    "write_report",
    "write_study_page",
    "write_text",
]

FIGURES = "figures"  # the folder of the pictures in a folder of results
LONGEST = 400  # characters of a setting that are shown


@dataclasses.dataclass(frozen=True)
class Page:
    """What a page says, in the order in which it says it.

    Attributes:
        title (str): The heading of the page.
        eyebrow (str): The kind of page, above the heading.
        facts (str): The size of what was measured, below the heading.
        sentences (sequence of str): The conclusions.
        sheets (sequence of Sheet): The figures.
        reading (sequence of pairs of str): Terms and their explanations.
        folded (sequence of pairs): Names and entries that stand at the end of the page, folded away.
        tables (sequence of Table): The tables above the figures.
        numbers (sequence of Table): The tables below the figures.
        notes (sequence of str): Remarks below the conclusions.
    """

    title: str
    eyebrow: str
    facts: str
    sentences: Sequence[str]
    sheets: Sequence[Sheet]
    reading: Sequence[tuple[str, str | Markup]]
    folded: Sequence[tuple[str, Mapping[str, object]]]
    tables: Sequence[Table] = ()
    numbers: Sequence[Table] = ()
    notes: Sequence[str] = ()


def write_page(page: Page, path: Path) -> Path:
    """Write the page whole or not at all, after its pictures in ``NAME-figures`` beside it, and return its path.

    Args:
        page (Page): The content.
        path (Path): The HTML file.
    """
    from modalign.report.figures.pictures import pictures_of_page
    from modalign.report.figures.stills import draw_sheet

    folder = pictures_beside(path)
    with pictures_of_page(folder, [draw_sheet(sheet) for sheet in page.sheets]):
        return write_text(path, render_page(page, folder.name))


def write_study_page(page: Page, folder: Path) -> Path:
    """Write ``report.html`` and, before it, ``figures/`` into the folder of a study, and return the page's path.

    The page says which protocol a study of a paper followed.

    Args:
        page (Page): The content.
        folder (Path): The folder of a finished study.

    Raises:
        ValueError: If a file of the user's is in the place of one of these.
    """
    from modalign.experiments.studies.study import place_of
    from modalign.report.figures.stills import draw_sheet

    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["settings"]
    if "protocol" in settings:
        page = dataclasses.replace(
            page,
            facts=f"{page.facts}, protocol: {settings['protocol']}",
            notes=[*changes_in_words(settings), *page.notes],
            reading=[("Protocol", protocol_in_words(settings)), *page.reading],
        )
    pictures = [draw_sheet(sheet) for sheet in page.sheets]
    return write_report(place_of(folder), render_page(page, FIGURES), pictures)


def write_report(place: Folder, page: str | None, pictures: Sequence[Picture]) -> Path:
    """Write pictures, then the page if there is one, into a folder of results, and return the page's path."""
    from modalign.report.figures.pictures import files_of

    contents = {f"{FIGURES}/{name}": content for name, content in files_of(pictures).items()}
    if page is not None:
        contents["report.html"] = page.encode()
    with place.claimed():
        for name in contents:
            place.checkpoint.require_free(name)
        for name, content in contents.items():
            place.checkpoint.write_bytes(name, content)
    return place.path / "report.html"


def render_page(page: Page, pictures: str) -> str:
    """Return the page as HTML.

    Args:
        page (Page): The content.
        pictures (str): The name of the folder that holds the pictures.
    """
    figures = plot_data(figure for sheet in page.sheets for figure in sheet.figures)
    folded = [(name, [(key, _shortened(value)) for key, value in entries.items()]) for name, entries in page.folded]
    marks = {verdict: mark for verdict, (mark, _) in VERDICTS.items()}
    return (
        environment()
        .from_string(packaged("keys.html") + packaged("study_page.html"))
        .render(
            page=page,
            folded=folded,
            marks=marks,
            pictures=pictures,
            figures=figures,
            style=css(json.dumps(figures)) + packaged("page.css"),
            **plot_scripts(),
        )
    )


def environment() -> Environment:
    """Return the template engine: it escapes what it inserts, and refuses a name without a value."""
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def packaged(name: str) -> str:
    """Return the text of a file in the folder ``templates``."""
    return files("modalign.report").joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def plot_scripts() -> dict[str, str]:
    """Return the scripts of a page with figures: Plotly, and the one that draws with it."""
    from plotly.offline import get_plotlyjs

    return {"plotly": get_plotlyjs(), "script": packaged("page.js")}


def plot_data(figures: Iterable[Figure]) -> dict[str, dict[str, object]]:
    """Return what the script of a page draws, by the name of the figure.

    NaN and infinities become None, which JSON can write and Plotly draws as a gap.
    """
    drawn = {figure.name: {"data": figure.data, "layout": figure.layout} for figure in figures}
    data: dict[str, dict[str, object]] = json.loads(json.dumps(drawn), parse_constant=lambda _: None)
    return data


def pictures_beside(page: Path) -> Path:
    """Return the folder of the pictures of a page that has no folder of results: ``a-figures`` beside ``a.html``."""
    return page.with_name(f"{page.stem}-figures")


def folded_settings(folder: Path) -> list[tuple[str, Mapping[str, object]]]:
    """Return the settings and the provenance that a study left in ``folder``, for the end of its page."""
    record = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return [("Settings", record["settings"]), ("Provenance", record["provenance"])]


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` whole or not at all, and return ``path``."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def _shortened(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
