"""The figures of a page as still pictures: matplotlib draws them from the specification that Plotly draws on the page.

A picture holds the numbers, names and colours of its page, in the light scheme. The same figures give the same bytes.
"""

from __future__ import annotations

import html
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from modalign.report.figures.pictures import Picture
from modalign.report.figures.specification import Axis, Figure, Key, Marker, Sheet, Trace
from modalign.report.palette import colour, variable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.text import Text

__all__ = ["canvas", "draw_sheet", "extra_height", "wrapped"]

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": colour("var(--grid)"),
    "axes.edgecolor": colour("var(--axis)"),
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "modalign",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
}
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "x": "X", "cross": "P", "line-ns": "|"}
DASHES = {"solid": "-", "dash": "--", "dot": ":"}
POINTS = 0.6  # of a picture, for a pixel of the page: a picture is looked at larger
ABREAST = 8  # the largest number of entries of a legend in one line
CHARACTERS, SWATCH = 13, 7  # of a legend in an inch, and in the width of a swatch
Item = TypeVar("Item")


def draw_sheet(sheet: Sheet) -> Picture:
    """Draw the panels of ``sheet`` as one picture."""
    axes_of = [_vertical_axes(panel) for panel in sheet.figures]
    stacked = len(axes_of[0])
    shares = [top - bottom for _, (bottom, top) in axes_of[0]]
    rows = -(-len(sheet.figures) // sheet.columns)
    headings = [wrapped(panel.heading, sheet.columns, sheet.width) for panel in sheet.figures]
    size = (sheet.width, (sheet.height + extra_height(headings)) * rows)
    pictures: list[Picture] = []
    with canvas(pictures, sheet.name, size) as drawing:
        ratios = {"height_ratios": shares * rows}
        axes = drawing.subplots(rows * stacked, sheet.columns, squeeze=False, gridspec_kw=ratios)
        for number, panel in enumerate(sheet.figures):
            row, column = divmod(number, sheet.columns)
            stack = list(axes[row * stacked : (row + 1) * stacked, column])
            _draw_panel(stack, panel, headings[number])
        for ax in axes.reshape(rows, stacked, sheet.columns).swapaxes(1, 2).reshape(-1, stacked)[len(sheet.figures) :]:
            for unused in ax:
                unused.remove()
        _add_legends(drawing, sheet, axes[::stacked].flat)
    return pictures[0]


@contextmanager
def canvas(pictures: list[Picture], name: str, size: tuple[float, float]) -> Iterator[Canvas]:
    """Yield a figure of matplotlib to draw on, and append what was drawn to ``pictures``.

    The same drawing gives the same bytes.

    Args:
        pictures (list): The list that the picture is appended to.
        name (str): The file name of the picture without its ending.
        size (pair of floats): Width and height in inches.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        drawing = Canvas(figsize=size, layout="constrained")
        FigureCanvasAgg(drawing)
        yield drawing
        for text in _named_texts(drawing):
            text.set_parse_math(False)  # a name with dollars is no formula
        drawing.draw_without_rendering()
        drawing.set_layout_engine("none")  # laid out once for both files
        for ax in drawing.axes:
            # the layout's solver goes through its variables by their addresses: the last bits differ from run to run
            ax.set_position(_rounded_bounds(ax.get_position(original=True).bounds))
        svg, png = io.BytesIO(), io.BytesIO()
        drawing.savefig(svg, format="svg", metadata={"Date": None})
        drawing.savefig(png, format="png", metadata={"Software": None})
    pictures.append(Picture(name, svg.getvalue(), png.getvalue()))


def wrapped(title: str, columns: int, width: float = 10.5) -> str:
    """Return a panel's title in lines as wide as the panel.

    Args:
        title (str): The title.
        columns (int): The number of panels side by side.
        width (float): The width of the picture in inches.
    """
    return "\n".join(textwrap.wrap(title, round(10 * width / columns))) or title


def extra_height(titles: Sequence[str]) -> float:
    """Return the inches that a panel needs for the lines beyond the first of the longest of ``titles``."""
    return 0.15 * max((title.count("\n") for title in titles), default=0)


def _rounded_bounds(bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return shares of a figure rounded to multiples of 2^-20, a thousandth of a pixel."""
    left, bottom, width, height = (round(bound * 2**20) / 2**20 for bound in bounds)
    return left, bottom, width, height


def _named_texts(drawing: Canvas) -> Iterator[Text]:
    """Yield the texts that users may have named: titles, labels of axes and ticks, and entries of legends."""
    legends = [*drawing.legends]
    for ax in drawing.axes:
        yield from (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label)  # type: ignore[attr-defined]
        yield from (*ax.get_xticklabels(), *ax.get_yticklabels())
        legend = ax.get_legend()
        legends += [legend] if legend is not None else []
    for legend in legends:
        yield from (legend.get_title(), *legend.get_texts())


def _vertical_axes(panel: Figure) -> list[tuple[str, tuple[float, float]]]:
    """Return the vertical axes of a panel from the top: their Plotly names and the parts of the height they take."""
    layout = cast(Mapping[str, Axis], panel.layout)
    spans = [(name, layout[name].get("domain", [0.0, 1.0])) for name in layout if name.startswith("yaxis")]
    return sorted(((name, (low, high)) for name, (low, high) in spans), key=lambda entry: -entry[1][1])


def _draw_panel(stack: Sequence[Axes], panel: Figure, heading: str) -> None:
    """Draw a panel on axes that stand one above the other."""
    names = _vertical_axes(panel)
    titles = _axis_titles(panel, names)
    layout = cast(Mapping[str, Axis], panel.layout)
    for ax, (name, _) in zip(stack, names, strict=True):
        for trace in panel.data:
            if trace.get("visible", True) and trace.get("yaxis", "y") == name.replace("axis", ""):
                _draw_trace(ax, trace)
        if name == "yaxis":
            _draw_shapes(ax, panel)
        _set_axis(ax, "y", layout[name])
        _set_axis(ax, "x", panel.layout["xaxis"])
        lines = ([heading] if ax is stack[0] else []) + titles.get(name, [])
        ax.set_title((", " if lines[1:] == ["%"] else "\n").join(lines), loc="left")
        if ax is not stack[-1]:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)


def _axis_titles(panel: Figure, names: Sequence[tuple[str, tuple[float, float]]]) -> dict[str, list[str]]:
    """Return the texts that stand above each vertical axis."""
    titles: dict[str, list[str]] = {}
    for note in panel.layout.get("annotations", ()):
        top = note["y"]
        name = min(names, key=lambda axis: abs(axis[1][1] - top))[0]
        titles.setdefault(name, []).append(html.unescape(note["text"]))
    return titles


def _add_legends(drawing: Canvas, sheet: Sheet, axes: Iterator[Axes]) -> None:
    """Give the picture the legend that its panels share, and each panel its own where they differ."""
    legends = {(tuple(panel.keys), panel.keys_title) for panel in sheet.figures if panel.keys}
    if len(legends) > 1:
        for ax, panel in zip(axes, sheet.figures, strict=False):
            if panel.keys:
                handles = [_handle(key) for key in panel.keys]
                ax.legend(handles=handles, fontsize=7, title=panel.keys_title or None, title_fontsize=7)
    (shared, title) = next(iter(legends)) if len(legends) == 1 else ((), "")
    keys = (*shared, *sheet.keys)
    if keys:
        title = title or sheet.keys_title
        handles = [_handle(Key("ground", title, "none", line=False))] if title else []
        handles += [_handle(key) for key in keys]
        longest = max(len(key.text) for key in keys) + SWATCH
        abreast = max(1, min(len(handles), ABREAST, round(CHARACTERS * sheet.width / longest)))
        drawing.legend(handles=handles, loc="outside lower center", ncols=abreast)


def _draw_trace(ax: Axes, trace: Trace) -> None:
    if trace["type"] == "heatmap":
        _draw_heat_map(ax, trace)
    elif trace["type"] == "bar":
        _draw_bars(ax, trace)
    elif trace["type"] == "box":
        _draw_boxes(ax, trace)
    else:
        _draw_lines(ax, trace)


def _draw_lines(ax: Axes, trace: Trace) -> None:
    x, y = _numbers(trace["x"]), _heights(ax, trace["y"])
    line, mode = trace.get("line", {}), trace["mode"]
    if trace.get("fill") == "toself":
        ax.fill(x, y, color=colour(trace["fillcolor"]), lw=0)
        return
    if "lines" in mode:
        width = POINTS * cast(float, line["width"])
        ax.plot(x, y, color=colour(line["color"]), lw=width, ls=DASHES[line.get("dash", "solid")])
    for name, across in (("error_x", True), ("error_y", False)):
        if name in trace:
            _draw_error_bars(ax, x, y, trace, across=across)
    if "markers" in mode:
        _draw_markers(ax, x, y, trace.get("marker") or {"color": line["color"], "size": 6})
    if "text" in mode:
        for place, text in zip(zip(x, y, strict=True), cast(list[str], trace["text"]), strict=True):
            ax.annotate(text, place, xytext=(3, 3), textcoords="offset points", fontsize=7.5)


def _draw_error_bars(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], trace: Trace, *, across: bool) -> None:
    bar = trace["error_x"] if across else trace["error_y"]
    reach = {"xerr" if across else "yerr": [bar["arrayminus"], bar["array"]]}
    look = {"ecolor": colour(bar["color"]), "elinewidth": POINTS * bar["thickness"]}
    ax.errorbar(x, y, fmt="none", **reach, **look)  # type: ignore[arg-type]


def _draw_markers(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], marker: Marker) -> None:
    count = len(x)
    symbols = _repeated(marker.get("symbol", "circle"), count)
    sizes = POINTS * np.array(_repeated(marker["size"], count))
    widths = POINTS * np.array(_repeated(marker.get("line", {}).get("width", 0), count))
    inks = [colour(value) for value in _repeated(marker["color"], count)]
    for symbol in dict.fromkeys(symbols):
        rows = [i for i, other in enumerate(symbols) if other == symbol and np.isfinite(x[i] + y[i])]
        kind, hollow = MARKERS[symbol.removesuffix("-open")], symbol.endswith("-open")
        ink = [inks[i] for i in rows]
        look = {"facecolors": "none", "edgecolors": ink} if hollow and kind != "|" else {"c": ink}
        shape = {"s": sizes[rows] ** 2, "marker": kind, "linewidths": widths[rows], "zorder": 3}
        ax.scatter(x[rows], y[rows], alpha=marker.get("opacity"), **shape, **look)  # type: ignore[arg-type]


def _draw_bars(ax: Axes, trace: Trace) -> None:
    lengths, places, starts = _numbers(trace["x"]), _heights(ax, trace["y"]), _numbers(trace["base"])
    ax.barh(places, lengths, trace["width"], left=starts, color=colour(cast(str, trace["marker"]["color"])))
    if "error_x" in trace:
        _draw_error_bars(ax, starts + lengths, places, trace, across=True)
    for place, start, length, text in zip(places, starts, lengths, trace.get("text", ()), strict=False):
        ax.text(start + length / 2, place, str(text), ha="center", va="center", color="white", fontsize=8)


def _draw_boxes(ax: Axes, trace: Trace) -> None:
    numbers = zip(trace["q1"], trace["median"], trace["q3"], trace["lowerfence"], trace["upperfence"], strict=True)
    boxes = [
        {"q1": low, "med": middle, "q3": high, "whislo": least, "whishi": largest, "fliers": []}
        for low, middle, high, least, largest in numbers
    ]
    line = {"color": colour(trace["line"]["color"]), "linewidth": POINTS * cast(float, trace["line"]["width"])}
    look = dict.fromkeys(("boxprops", "whiskerprops", "capprops"), line)
    look["medianprops"] = {"linewidth": 0}  # a line of the figure marks the median
    ax.bxp(boxes, positions=_numbers(trace["x"]), widths=trace["width"], showfliers=False, **look)  # type: ignore[arg-type]


def _draw_heat_map(ax: Axes, trace: Trace) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    grid = np.array(trace["z"], np.float64)
    scale = LinearSegmentedColormap.from_list("page", list(trace["colorscale"]))
    image = ax.imshow(grid, cmap=scale, aspect="auto", vmin=trace.get("zmin"), vmax=trace.get("zmax"))
    if trace["showscale"]:
        ax.figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02)
    for row, texts in enumerate(cast(list[list[str]], trace.get("text", []))):
        for column, text in enumerate(texts):
            red, green, blue, _ = scale(image.norm(grid[row, column]))
            ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            ax.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)


def _draw_shapes(ax: Axes, panel: Figure) -> None:
    """Draw the straight lines across a panel."""
    for shape in panel.layout.get("shapes", ()):
        line = shape["line"]
        look: dict[str, Any] = {
            "color": colour(line["color"]),
            "lw": POINTS * cast(float, line["width"]) + 0.2,
            "ls": DASHES[line.get("dash", "solid")],
            "zorder": 1,
        }
        if shape["xref"] == "paper":
            ax.axhline(shape["y0"], **look)
        else:
            ax.axvline(shape["x0"], **look)


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _heights(ax: Axes, values: Sequence[float | None] | Sequence[str]) -> NDArray[np.float64]:
    """Return heights: numbers as they are; names one step apart, the first at the bottom, as ticks of the axis."""
    if not any(isinstance(value, str) for value in values):
        return _numbers(cast(Sequence[float | None], values))
    names = list(dict.fromkeys(cast(Sequence[str], values)))
    ax.set_yticks(range(len(names)), [html.unescape(name.replace("<br>", "\n")) for name in names])
    ax.set_ylim(-0.6, len(names) - 0.4)
    return np.array([names.index(cast(str, value)) for value in values], np.float64)


def _set_axis(ax: Axes, side: str, settings: Axis) -> None:
    from matplotlib.ticker import MaxNLocator, MultipleLocator, NullLocator

    axis = ax.xaxis if side == "x" else ax.yaxis
    if settings.get("type") == "log":
        ax.set(**{f"{side}scale": "log"})
        axis.set_minor_locator(NullLocator())
    if "tickvals" in settings:
        texts = settings.get("ticktext")
        names = None if texts is None else [html.unescape(text.replace("<br>", "\n")) for text in texts]
        axis.set_ticks(settings["tickvals"], names)
        if settings.get("tickangle"):
            ax.tick_params(axis="x" if side == "x" else "y", labelrotation=-settings["tickangle"], labelsize=7)
    elif side == "x" and "nticks" in settings:
        axis.set_major_locator(MaxNLocator(settings["nticks"] - 1, steps=[1, 2, 2.5, 5, 10]))
    if "dtick" in settings:
        axis.set_major_locator(MultipleLocator(settings["dtick"]))
    if settings.get("showticklabels") is False:
        axis.set_ticks([])
    if settings.get("showgrid") is False:
        ax.grid(visible=False, axis="x" if side == "x" else "y")
    if settings.get("zeroline"):
        ax.axhline(0, color=colour(settings["zerolinecolor"]), lw=0.8)
    if "range" in settings:
        ax.set(**{f"{side}lim": settings["range"]})
    elif settings.get("rangemode") == "tozero":
        low, high = axis.get_data_interval()
        if low >= 0 and np.isfinite(high):
            ax.set(**{f"{side}lim": (0, 1.05 * high or 1)})
    if "title" in settings:
        axis.set_label_text(html.unescape(settings["title"]["text"]))


def _handle(key: Key) -> Artist:
    """Return the entry of a legend as matplotlib takes it."""
    from matplotlib.lines import Line2D

    ink: Any = colour(variable(key.role))
    marker = MARKERS.get(key.shape, "")
    style = (":" if key.shape == "dash" else "-") if key.line else ""
    face = "none" if key.open else ink
    return Line2D([], [], color=ink, ls=style, marker=marker, ms=5, lw=1.4, label=key.text, mfc=face)


def _repeated(value: Item | list[Item], count: int) -> list[Item]:
    """Return ``count`` entries: those of a list, or the one value again and again."""
    return value if isinstance(value, list) else [value] * count
