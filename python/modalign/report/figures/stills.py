"""The figures of a page as pictures: what Plotly draws in the browser, drawn by matplotlib from the same dictionaries.

A picture therefore holds the numbers, names and colours of its page, those of the light scheme. Only what
``modalign.report`` puts into a figure is understood: lines, markers, bands, error bars, heat maps, and value axes one
above the other.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from modalign.report.figures.drawing import Figure, Key, Trace, ramp
from modalign.report.html import Picture, extra_height, figure, wrapped

__all__ = ["Sheet", "colours_of", "draw_sheet"]

MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "x": "X", "cross": "P", "line-ns": "|",
}  # fmt: skip
DASHES = {"solid": "-", "dash": "--", "dot": ":"}
POINTS = 0.6  # of a picture, for a pixel of the page: a picture is looked at larger
ABREAST = 8  # entries of a legend in one line
Colour = str | tuple[float, ...]


@dataclass(frozen=True)
class Sheet:
    """Panels that make one picture, ``columns`` side by side. keys: a legend that all of them share; without it, each
    panel's own. height, width: of a panel and of the picture, in inches."""

    name: str
    title: str
    label: str
    figures: Sequence[Figure]
    columns: int
    keys: Sequence[Key] = ()
    height: float = 2.6
    width: float = 10.5


def colours_of(strengths: int = 0) -> dict[str, Colour]:
    """The colour of every role in the light scheme, with the ramp of so many strengths."""
    style = files("modalign.report").joinpath("templates/page.css").read_text(encoding="utf-8")
    light = style[: style.index("@media")]
    roles: dict[str, Colour] = {name: _parsed(value) for name, value in re.findall(r"--([\w-]+):\s*([^;]+);", light)}
    return roles | {f"strength-{i}": colour for i, colour in enumerate(ramp(strengths, dark=False))}


def draw_sheet(into: list[Picture], sheet: Sheet, colours: Mapping[str, Colour]) -> None:
    """Draw one picture and append it to ``into``."""
    axes_of = [_value_axes(panel) for panel in sheet.figures]
    stacked = len(axes_of[0])
    shares = [top - bottom for _, (bottom, top) in axes_of[0]]
    rows = -(-len(sheet.figures) // sheet.columns)
    headings = [wrapped(panel.heading, sheet.columns, sheet.width) for panel in sheet.figures]
    height = sheet.height + extra_height(headings)
    with figure(
        into, sheet.name, sheet.title, sheet.label, rows * stacked, sheet.columns, height=height / stacked,
        width=sheet.width, gridspec_kw={"height_ratios": shares * rows},
    ) as axes:  # fmt: skip
        own = {panel.keys for panel in sheet.figures if panel.keys}
        for number, panel in enumerate(sheet.figures):
            row, column = divmod(number, sheet.columns)
            mine = axes[row * stacked : (row + 1) * stacked, column]
            _draw_panel(mine, panel, headings[number], axes_of[number], colours)
            if len(own) > 1 and panel.keys:
                mine[0].legend(handles=[_handle(key, colours) for key in panel.keys], fontsize=7)
        for ax in axes.reshape(rows, stacked, sheet.columns).swapaxes(1, 2).reshape(-1, stacked)[len(sheet.figures) :]:
            for one in ax:
                one.remove()
        shared = [*(next(iter(own)) if len(own) == 1 else ()), *sheet.keys]
        if shared:
            handles = [_handle(key, colours) for key in shared]
            axes[0, 0].figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), ABREAST))


def _value_axes(panel: Figure) -> list[tuple[str, tuple[float, float]]]:
    """The vertical axes of a panel from the top, by Plotly's names, with the parts of the height that they take."""
    names = [name for name in panel.layout if name.startswith("yaxis")]
    spans = [(name, tuple(panel.layout[name].get("domain", (0.0, 1.0)))) for name in names]
    return sorted(spans, key=lambda found: -found[1][1])


def _draw_panel(
    mine: Any,
    panel: Figure,
    heading: str,
    names: Sequence[tuple[str, tuple[float, float]]],
    colours: Mapping[str, Colour],
) -> None:
    titles = _titles(panel, names)
    for ax, (name, _) in zip(mine, names, strict=True):
        for trace in panel.data:
            if trace.get("visible", True) is True and trace.get("yaxis", "y") == name.replace("axis", ""):
                _draw_trace(ax, trace, colours)
        _set_axis(ax, "y", panel.layout[name], colours)
        _set_axis(ax, "x", panel.layout["xaxis"], colours)
        lines = ([heading] if ax is mine[0] else []) + titles.get(name, [])
        ax.set_title((", " if lines[1:] == ["%"] else "\n").join(lines), loc="left")
        if ax is not mine[-1]:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)


def _titles(panel: Figure, names: Sequence[tuple[str, tuple[float, float]]]) -> dict[str, list[str]]:
    """What stands flat above each vertical axis."""
    found: dict[str, list[str]] = {}
    for note in panel.layout.get("annotations", ()):
        name = min(names, key=lambda axis: abs(axis[1][1] - note["y"]))[0]
        found.setdefault(name, []).append(html.unescape(note["text"]))
    return found


def _draw_trace(ax: Any, trace: Trace, colours: Mapping[str, Colour]) -> None:
    if trace["type"] == "heatmap":
        _draw_heat_map(ax, trace)
        return
    x = np.array([np.nan if value is None else value for value in trace["x"]], np.float64)
    y = _places(ax, trace["y"])
    line, marker, mode = trace.get("line", {}), trace.get("marker", {}), trace["mode"]
    if trace.get("fill") == "toself":
        ax.fill(x, y, color=_colour(trace["fillcolor"], colours), lw=0)
        return
    if "lines" in mode:
        ax.plot(x, y, color=_colour(line["color"], colours), lw=POINTS * line["width"],
                ls=DASHES[line.get("dash", "solid")])  # fmt: skip
    if "error_x" in trace:
        bar = trace["error_x"]
        ax.errorbar(x, y, xerr=[bar["arrayminus"], bar["array"]], fmt="none", ecolor=_colour(bar["color"], colours),
                    elinewidth=POINTS * bar["thickness"])  # fmt: skip
    if "markers" in mode:
        _draw_markers(ax, x, y, marker or {"color": line["color"], "size": 6}, colours)


def _draw_markers(ax: Any, x: Any, y: Any, marker: Mapping[str, Any], colours: Mapping[str, Colour]) -> None:
    symbols = _each(marker.get("symbol", "circle"), len(x))
    sizes = POINTS * np.array(_each(marker["size"], len(x)))
    widths = POINTS * np.array(_each(marker.get("line", {}).get("width", 0), len(x)))
    inks = [_colour(colour, colours) for colour in _each(marker["color"], len(x))]
    for symbol in dict.fromkeys(symbols):
        some = [i for i, other in enumerate(symbols) if other == symbol and np.isfinite(x[i] + y[i])]
        kind, hollow = MARKERS[symbol.removesuffix("-open")], symbol.endswith("-open")
        ink = [inks[i] for i in some]
        look = {"facecolors": "none", "edgecolors": ink} if hollow and kind != "|" else {"c": ink}
        ax.scatter(x[some], y[some], s=sizes[some] ** 2, marker=kind, linewidths=widths[some], zorder=3, **look)


def _draw_heat_map(ax: Any, trace: Trace) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    grid = np.array(trace["z"], np.float64)
    scale = LinearSegmentedColormap.from_list("page", [(at, colour) for at, colour in trace["colorscale"]])
    image = ax.imshow(grid, cmap=scale, aspect="auto")
    ax.figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02)
    if trace["texttemplate"]:
        shown = trace["texttemplate"].replace("%{z", "{0")
        for (row, column), value in np.ndenumerate(grid):
            red, green, blue, _ = scale(image.norm(value))
            ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            text = shown.format(value)
            text = text if float(text) else text.lstrip("-")
            ax.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)


def _places(ax: Any, values: Sequence[Any]) -> Any:
    """Numbers as they are; names one step apart, the first at the bottom, as ticks of the axis."""
    if not any(isinstance(value, str) for value in values):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    names = list(dict.fromkeys(values))
    ax.set_yticks(range(len(names)), [html.unescape(name.replace("<br>", "\n")) for name in names])
    ax.set_ylim(-0.6, len(names) - 0.4)
    return np.array([names.index(value) for value in values], np.float64)


def _set_axis(ax: Any, side: str, settings: Mapping[str, Any], colours: Mapping[str, Colour]) -> None:
    from matplotlib.ticker import MultipleLocator, NullLocator

    axis = ax.xaxis if side == "x" else ax.yaxis
    if settings.get("type") == "log":
        ax.set(**{f"{side}scale": "log"})
        axis.set_minor_locator(NullLocator())
    if "tickvals" in settings:
        axis.set_ticks(settings["tickvals"], settings.get("ticktext"))
    if "dtick" in settings:
        axis.set_major_locator(MultipleLocator(settings["dtick"]))
    if settings.get("showticklabels") is False:
        axis.set_ticks([])
    if settings.get("showgrid") is False:
        ax.grid(visible=False, axis=side)
    if settings.get("zeroline"):
        ax.axhline(0, color=_colour(settings["zerolinecolor"], colours), lw=0.8)
    if "range" in settings:
        ax.set(**{f"{side}lim": settings["range"]})
    elif settings.get("rangemode") == "tozero":
        low, high = axis.get_data_interval()
        if low >= 0 and np.isfinite(high):
            ax.set(**{f"{side}lim": (0, 1.05 * high or 1)})
    if "title" in settings:
        axis.set_label_text(html.unescape(settings["title"]["text"]))


def _handle(key: Key, colours: Mapping[str, Colour]) -> Any:
    from matplotlib.lines import Line2D

    colour: Any = colours[key.role]
    marker = MARKERS.get(key.shape, "")
    style = (":" if key.shape == "dash" else "-") if key.line else ""
    return Line2D([], [], color=colour, ls=style, marker=marker, ms=5, lw=1.4, label=key.text,
                  mfc="none" if key.open else colour)  # fmt: skip


def _each(value: Any, count: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


def _colour(value: str, colours: Mapping[str, Colour]) -> Colour:
    return colours[value[len("var(--") : -1]] if value.startswith("var(") else _parsed(value)


def _parsed(value: str) -> Colour:
    """A colour of a style sheet as one of matplotlib."""
    found = re.fullmatch(r"rgba\((\d+), (\d+), (\d+), ([\d.]+)\)", value.strip())
    if found is None:
        return value.strip()
    red, green, blue, alpha = (float(part) for part in found.groups())
    return red / 255, green / 255, blue / 255, alpha
