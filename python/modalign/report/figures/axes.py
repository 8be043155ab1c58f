"""The axes and the layout of a panel, and the scale on which strengths from 0 to 10 can all be seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modalign.report.figures.specification import Annotation, Axis, Figure, Layout, Shape
from modalign.report.palette import variable

__all__ = [
    "level_line",
    "name_axis",
    "panel_layout",
    "share_range",
    "strength_axis",
    "stretched",
    "stretched_axis",
    "title_above",
    "upright_line",
    "value_axis",
]

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
CLEAR = "rgba(0,0,0,0)"
WIDTH_OF_ZERO = 0.05  # strengths far below it are spread evenly, those far above it by their logarithm
TICKS = (0, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)  # of a stretched axis


def value_axis(title: str = "", **settings: object) -> Axis:
    """Return an axis of numbers.

    Args:
        title (str): The title of the axis; none where empty.
        **settings: Further entries of ``Axis``, which replace those of every axis.
    """
    # a finger that scrolls the page must not zoom the plot, so the range is fixed
    axis = {"fixedrange": True, "gridcolor": "var(--grid)", "linecolor": "var(--axis)", "zeroline": False}
    named = {"title": {"text": title, "standoff": 6, "font": {"size": 12}}} if title else {}
    return cast(Axis, axis | {"nticks": 6, "automargin": True} | named | settings)


def strength_axis(strengths: Sequence[float], title: str, **settings: object) -> Axis:
    """Return an axis with strengths one even step apart: their steps are uneven, and a logarithm has no 0."""
    last = len(strengths) - 1
    # no more than ten steps between ticks, each of a round number of strengths
    step = next((step for step in (1, 2, 5, 10, 20, 50) if last <= 10 * step), max(last, 1))
    shown = range(0, last + 1, step)
    ticks = {"tickvals": list(shown), "ticktext": [f"{strengths[i]:g}" for i in shown], "tickmode": "array"}
    marks = {"tickangle": 0, "ticks": "outside", "ticklen": 4, "tickcolor": "var(--axis)"}
    return value_axis(title, **(ticks | marks | {"range": [-0.35, last + 0.35], "showgrid": False} | settings))


def name_axis(names: Sequence[str], title: str = "", **settings: object) -> Axis:
    """Return an axis with a name at each of the positions 0, 1, 2, ..."""
    ticks = {"tickvals": list(range(len(names))), "ticktext": list(names), "tickmode": "array"}
    return value_axis(title, **(ticks | {"showgrid": False, "range": [-0.6, len(names) - 0.4]} | settings))


def stretched(values: ArrayLike) -> NDArray[np.float64]:
    """Return the positions of strengths on a stretched axis: asinh(value / 0.05)."""
    return np.asarray(np.arcsinh(np.asarray(values, np.float64) / WIDTH_OF_ZERO))


def stretched_axis(highest: float, title: str, **settings: object) -> Axis:
    """Return an axis for ``stretched`` positions with ticks at round strengths up to ``highest``."""
    ticks = [tick for tick in TICKS if tick <= highest]
    marks = {"tickvals": stretched(ticks).tolist(), "ticktext": [f"{tick:g}" for tick in ticks], "tickmode": "array"}
    return value_axis(title, **(marks | settings))


def title_above(text: str, *, y: float = 1.0) -> Annotation:
    """Return the name of a vertical axis, set level above its plot at the left edge.

    Args:
        text (str): The name.
        y (float): The upper end of the axis, as a share of the height of the panel.
    """
    return {
        "text": text,
        "x": 0,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12, "color": "var(--muted)"},
    }


def level_line(y: float, role: str = "muted") -> Shape:
    """Return a straight line across the panel at height ``y``."""
    outline = {"color": variable(role), "width": 1}
    return cast(
        Shape,
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "yref": "y",
            "y0": y,
            "y1": y,
            "line": outline,
            "layer": "below",
        },
    )


def upright_line(x: float, role: str = "muted", dash: str = "dot") -> Shape:
    """Return a straight line from the bottom of the panel to its top at position ``x``."""
    outline = {"color": variable(role), "width": 1, "dash": dash}
    return cast(
        Shape,
        {
            "type": "line",
            "xref": "x",
            "x0": x,
            "x1": x,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": outline,
            "layer": "below",
        },
    )


def panel_layout(height: int, **entries: object) -> Layout:
    """Return the layout of a panel.

    Args:
        height (int): The height in pixels.
        **entries: Further entries of ``Layout``, which replace those of every panel.
    """
    layout = {
        "height": height,
        "margin": {"l": 40, "r": 10, "t": 24, "b": 44},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"family": FONT, "size": 12, "color": "var(--muted)"},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "var(--panel)", "bordercolor": "var(--axis)", "font": {"color": "var(--ink)"}},
        "dragmode": False,
        "showlegend": False,
        "barmode": "overlay",
    }
    return cast(Layout, layout | entries)


def share_range(figures: Iterable[Figure], include: Sequence[float] = ()) -> None:
    """Give the first vertical axis of all ``figures`` one range.

    Args:
        figures (iterable of Figure): The panels; their layouts are changed.
        include (sequence of float): Heights that the range holds besides every number that the panels draw.
    """
    panels = list(figures)
    heights = [y for panel in panels for trace in panel.data for y in trace.get("y", ()) if isinstance(y, (int, float))]
    heights += include
    low, high = min(heights, default=0.0), max(heights, default=1.0)
    room = 0.05 * (high - low or 1.0)
    for panel in panels:
        panel.layout["yaxis"]["range"] = [low - room, high + room]
