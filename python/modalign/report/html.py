"""A study as one HTML file: conclusions, tables, pictures, provenance. The pictures lie beside it, too, SVG and PNG."""

from __future__ import annotations

import base64
import io
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from modalign.files.atomic import write_atomically

__all__ = [
    "Picture",
    "Table",
    "beside",
    "claims_table",
    "extra_height",
    "figure",
    "rounded",
    "wrapped",
    "write_page",
    "write_pictures",
    "write_single_page",
]

STYLE: dict[str, Any] = {
    "figure.dpi": 100, "savefig.dpi": 200, "font.size": 9, "axes.titlesize": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e8eaed", "axes.edgecolor": "#b9bec6",
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8, "svg.hashsalt": "modalign",
    "svg.fonttype": "path", "font.family": "DejaVu Sans",
}  # fmt: skip
CHIPS = {"reproduced": "gain", "partly": "none", "not": "harm"}


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its file name, heading, and what it shows in words."""

    name: str
    title: str
    label: str
    svg: bytes
    png: bytes


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    lead: str = ""


@contextmanager
def figure(
    into: list[Picture], name: str, title: str, label: str, rows: int, columns: int, **more: Any
) -> Iterator[Any]:
    """Axes (rows, columns) to draw on; what was drawn is appended to ``into``, the same bytes for the same drawing."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        height, width = more.pop("height", 2.6), more.pop("width", 10.5)
        drawn = Figure(figsize=(width, height * rows), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn.subplots(rows, columns, squeeze=False, **more)
        for text in _words_of(drawn):
            text.set_parse_math(False)  # a name with dollars is no formula
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")  # laid out once for both files
        for ax in drawn.axes:
            # the layout's solver goes through its variables by their addresses: the last bits differ from run to run
            ax.set_position(_on_a_grid(ax.get_position(original=True).bounds))
        svg, png = io.BytesIO(), io.BytesIO()
        drawn.savefig(svg, format="svg", metadata={"Date": None})
        drawn.savefig(png, format="png", metadata={"Software": None})
    into.append(Picture(name, title, label, svg.getvalue(), png.getvalue()))


def wrapped(title: str, columns: int, width: float = 10.5) -> str:
    """A panel's title in lines as wide as the panel, for so many side by side in so many inches."""
    return "\n".join(textwrap.wrap(title, round(10 * width / columns))) or title


def extra_height(titles: Sequence[str]) -> float:
    """The inches that a panel needs for the lines beyond the first of the longest of ``titles``."""
    return 0.15 * max((title.count("\n") for title in titles), default=0)


def _on_a_grid(bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Shares of a figure as multiples of 2^-20, a thousandth of a pixel."""
    left, bottom, width, height = (round(bound * 2**20) / 2**20 for bound in bounds)
    return left, bottom, width, height


def _words_of(drawn: Any) -> Iterator[Any]:
    """What users may have named: titles, axis labels and entries of legends."""
    legends = [*drawn.legends]
    for ax in drawn.axes:
        yield from (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label)
        legends += [ax.get_legend()] if ax.get_legend() is not None else []
    for legend in legends:
        yield from (legend.get_title(), *legend.get_texts())


def beside(page: Path) -> Path:
    """Where the pictures of a page that is no sweep's or study's lie: ``a-figures`` beside ``a.html``."""
    return page.with_name(f"{page.stem}-figures")


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> Path:
    """Write every picture into ``folder`` as SVG and PNG, each file whole or not at all."""
    for picture in pictures:
        for suffix, content in (("svg", picture.svg), ("png", picture.png)):
            write_atomically(folder / f"{picture.name}.{suffix}", partial(_put, content))
    return folder


def claims_table(claims: Sequence[Mapping[str, Any]]) -> Table:
    """The paper's number beside ours, and a verdict."""
    rows = []
    for claim in claims:
        interval = "" if claim["low"] is None else f"{rounded(claim['low'])} to {rounded(claim['high'])}"
        ours = "" if claim["rule"] == "holds" else rounded(claim["value"])
        paper = "" if claim["paper"] is None else rounded(claim["paper"])
        rows.append((claim["text"], claim["source"], paper, ours, interval, claim["verdict"]))
    columns = ("claim", "about", "paper", "here", "95 % interval", "verdict")
    lead = "The rules of a verdict were written down before anything was run; they are at the end of this page."
    return Table("verdicts", "Claims and verdicts", columns, rows, lead)


def rounded(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def write_page(
    folder: Path,
    name: str,
    *,
    title: str,
    eyebrow: str,
    facts: str,
    sentences: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    reading: Sequence[tuple[str, str]],
) -> Path:
    """Write ``folder/name``, whole or not at all, and the pictures into ``folder/figures``; returns the page's path."""
    facts_of = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return write_single_page(
        folder / name, folder / "figures",
        title=title, eyebrow=eyebrow, facts=facts, sentences=sentences, tables=tables, pictures=pictures,
        reading=reading,
        folded=[("Settings", facts_of["settings"]), ("Provenance", facts_of["provenance"])],
    )  # fmt: skip


def write_single_page(
    path: Path,
    figures: Path,
    *,
    title: str,
    eyebrow: str,
    facts: str,
    sentences: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    reading: Sequence[tuple[str, str]],
    folded: Sequence[tuple[str, Mapping[str, Any]]],
) -> Path:
    """Write the pictures into the folder ``figures``, then ``path``, whole or not at all; returns ``path``.

    folded: names and values that stand at the end of the page, folded away.
    """
    from jinja2 import Environment, StrictUndefined

    write_pictures(figures, pictures)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    room = files("modalign.report") / "templates"
    page = environment.from_string((room / "study_page.html").read_text(encoding="utf-8")).render(
        style=(room / "page.css").read_text(encoding="utf-8"),
        title=title, eyebrow=eyebrow, facts=facts, sentences=sentences, tables=tables, reading=reading, chips=CHIPS,
        pictures=[
            {"title": picture.title, "label": picture.label, "source": _inline(picture.svg)} for picture in pictures
        ],
        folded=[(name, [(key, _short(value)) for key, value in entries.items()]) for name, entries in folded],
        figures=figures.name,
    )  # fmt: skip
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def _put(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _inline(svg: bytes) -> str:
    text = re.sub(rb"^.*?(?=<svg)", b"", svg, flags=re.DOTALL)
    return "data:image/svg+xml;base64," + base64.b64encode(text).decode()


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 400 else f"{text[:397]}..."
