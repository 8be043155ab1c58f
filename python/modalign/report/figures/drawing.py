"""The traces of figures: lines, points, bands, bars, boxes and heat maps, as ``specification`` describes them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modalign.experiments.sweep.statistics import mean_interval
from modalign.report.figures.specification import ErrorBar, Symbol, Trace
from modalign.report.palette import variable

__all__ = ["band", "bars", "boxes", "error_bar", "heat_map", "line", "means", "plain", "points"]


def means(grid: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the 95 % half-width of each column of (seeds, strengths); half-widths are 0 for one seed."""
    estimates = [mean_interval(column) for column in grid.T]
    return np.array([e.mean for e in estimates]), np.array([e.half_width or 0.0 for e in estimates])


def plain(text: str) -> str:
    """Return ``text`` as Plotly must get it, which reads a small HTML in every label."""
    return html.escape(text, quote=False)


def line(
    x: ArrayLike,
    y: ArrayLike,
    role: str,
    *,
    hover: str = "",
    mode: str = "lines+markers",
    dash: Literal["solid", "dash", "dot"] = "solid",
    width: float = 2,
    size: float = 5,
    symbol: Symbol = "circle",
    axis: str = "y",
    meta: str = "",
) -> Trace:
    """Return a line through points, with a marker at each; a value that is not finite is a gap.

    Args:
        x (array of n): Horizontal positions.
        y (array of n): Heights.
        role (str): The role of the colour.
        hover (str): The text at the pointer, a template of Plotly; by default the two coordinates.
        mode (str): ``"lines"``, ``"markers"`` or ``"lines+markers"``.
        dash (str): The style of the line.
        width (float): The width of the line in pixels.
        size (float): The diameter of the markers in pixels.
        symbol (str): The symbol of the markers.
        axis (str): The vertical axis by its Plotly name: ``"y"``, ``"y2"`` or ``"y3"``.
        meta (str): The name that the page's script knows the trace by.
    """
    trace: Trace = {
        "type": "scatter",
        "mode": mode,
        "x": _floats(x),
        "y": _floats(y),
        "yaxis": axis,
        "line": {"color": variable(role), "width": width, "dash": dash},
        "hovertemplate": f"{hover or '%{x:.4g}: %{y:.4g}'}<extra></extra>",
        "meta": meta,
    }
    if "markers" in mode:
        trace["marker"] = {"color": variable(role), "size": size, "symbol": symbol}
    return trace


def points(
    x: ArrayLike,
    y: ArrayLike,
    roles: str | Sequence[str],
    *,
    hover: str = "",
    size: float = 7,
    symbol: Symbol = "circle",
    outline: float = 0,
    text: Sequence[str] = (),
    meta: str = "",
) -> Trace:
    """Return markers without a line.

    Args:
        x (array of n): Horizontal positions.
        y (array of n): Heights.
        roles (str or sequence of n str): The role of the colour, of all points or of each.
        hover (str): The text at the pointer, a template of Plotly; by default the two coordinates.
        size (float): The diameter in pixels.
        symbol (str): The symbol; one that ends in ``-open`` is drawn as an outline.
        outline (float): The width of the outline in pixels.
        text (sequence of n str): The text beside each point.
        meta (str): The name that the page's script knows the trace by.
    """
    trace: Trace = {
        "type": "scatter",
        "mode": "markers+text" if text else "markers",
        "x": _floats(x),
        "y": _floats(y),
        "hovertemplate": f"{hover or '%{x:.4g}: %{y:.4g}'}<extra></extra>",
        "marker": {
            "color": variable(roles) if isinstance(roles, str) else [variable(role) for role in roles],
            "size": size,
            "symbol": symbol,
            "line": {"width": outline},
        },
        "meta": meta,
    }
    if text:
        trace |= {"text": list(text), "textposition": "top right", "textfont": {"size": 11, "color": "var(--ink)"}}
    return trace


def band(x: ArrayLike, low: ArrayLike, high: ArrayLike, role: str, *, axis: str = "y", meta: str = "") -> Trace:
    """Return the area between two lines as one filled outline; positions where either is not finite are left out.

    Args:
        x (array of n): Horizontal positions.
        low (array of n): The lower edge.
        high (array of n): The upper edge.
        role (str): The role of the colour, which is made translucent.
        axis (str): The vertical axis by its Plotly name.
        meta (str): The name that the page's script knows the trace by.
    """
    positions, bottom, top = (np.asarray(values, np.float64) for values in (x, low, high))
    kept = np.isfinite(bottom + top)
    positions, bottom, top = positions[kept], bottom[kept], top[kept]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": np.concatenate([positions, positions[::-1]]).tolist(),
        "y": np.concatenate([top, bottom[::-1]]).tolist(),
        "yaxis": axis,
        "fill": "toself",
        "fillcolor": variable(f"{role}-band"),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": meta,
    }


def bars(
    places: ArrayLike,
    lengths: ArrayLike,
    role: str,
    *,
    starts: ArrayLike = 0.0,
    width: float = 0.6,
    text: Sequence[str] = (),
    halves: ArrayLike | None = None,
    hover: str = "",
) -> Trace:
    """Return level bars.

    Args:
        places (array of n): Heights of the middles of the bars.
        lengths (array of n): Lengths, negative to the left.
        role (str): The role of the colour.
        starts (array of n): Where the bars begin.
        width (float): The thickness in units of the vertical axis.
        text (sequence of n str): The text inside each bar; none where it is empty.
        halves (array of n): Half-widths of the intervals of the lengths.
        hover (str): The text at the pointer, a template of Plotly; by default the length.
    """
    heights = np.asarray(places, np.float64)
    trace: Trace = {
        "type": "bar",
        "orientation": "h",
        "x": _floats(lengths),
        "y": heights.tolist(),
        "base": np.broadcast_to(np.asarray(starts, np.float64), heights.shape).tolist(),
        "width": width,
        "marker": {"color": variable(role)},
        "hovertemplate": f"{hover or '%{x:.4g}'}<extra></extra>",
    }
    if text:
        trace |= {"text": list(text), "textposition": "inside", "insidetextanchor": "middle"}
    if halves is not None:
        half = np.nan_to_num(np.asarray(halves, np.float64)).tolist()
        trace["error_x"] = error_bar(half, half, "ink", 1)
    return trace


def error_bar(below: Sequence[float], above: Sequence[float], role: str, thickness: float = 2) -> ErrorBar:
    """Return the bars through points, by their lengths to both sides."""
    return {
        "type": "data",
        "symmetric": False,
        "array": list(above),
        "arrayminus": list(below),
        "color": variable(role),
        "thickness": thickness,
        "width": 0,
    }


def boxes(samples: Sequence[ArrayLike], places: Sequence[float], role: str, median_role: str) -> list[Trace]:
    """Return box plots: quartiles by linear interpolation, whiskers to the last value within 1.5 of their distance.

    Args:
        samples (sequence of arrays): The values of each box, at least one.
        places (sequence of float): Horizontal positions.
        role (str): The role of the colour.
        median_role (str): The role of the colour of the medians.
    """
    arrays = [np.sort(np.asarray(values, np.float64)) for values in samples]
    quartiles = [np.quantile(values, (0.25, 0.5, 0.75)) for values in arrays]
    reaches = [1.5 * (high - low) for low, _, high in quartiles]
    inside = [
        values[(values >= low - reach) & (values <= high + reach)]
        for values, (low, _, high), reach in zip(arrays, quartiles, reaches, strict=True)
    ]
    outside = [
        (place, float(value))
        for place, values, kept in zip(places, arrays, inside, strict=True)
        for value in values
        if not kept[0] <= value <= kept[-1]
    ]
    box: Trace = {
        "type": "box",
        "x": list(places),
        "q1": [float(low) for low, _, _ in quartiles],
        "median": [float(middle) for _, middle, _ in quartiles],
        "q3": [float(high) for _, _, high in quartiles],
        "lowerfence": [float(values[0]) for values in inside],
        "upperfence": [float(values[-1]) for values in inside],
        "width": 0.6,
        "line": {"color": variable(role), "width": 1.5},
        "fillcolor": "rgba(0,0,0,0)",
    }
    medians = [
        line([place - 0.3, place + 0.3], [float(q[1])] * 2, median_role, mode="lines", hover="median %{y:.2f}")
        for place, q in zip(places, quartiles, strict=True)
    ]
    return [box, *medians, points([x for x, _ in outside], [y for _, y in outside], role, size=4)]


def heat_map(
    values: Sequence[Sequence[float]],
    colours: Sequence[str],
    *,
    text: Sequence[Sequence[str]] | None = None,
    span: tuple[float, float] | None = None,
    hover: str = "",
) -> Trace:
    """Return a matrix as coloured cells, row 0 at height 0, with a text in each and a colour bar without a ``span``.

    Args:
        values (n rows of m floats): The numbers.
        colours (sequence of str): The colours from the least number to the largest, at even steps.
        text (n rows of m str): What stands in the cells; nothing where None.
        span (pair of floats): The numbers of the first and the last colour; the least and the largest where None.
        hover (str): The text at the pointer, a template of Plotly; by default the number.
    """
    trace: Trace = {
        "type": "heatmap",
        "z": [list(row) for row in values],
        "colorscale": [(index / (len(colours) - 1), shade) for index, shade in enumerate(colours)],
        "showscale": span is None,
        "colorbar": {"thickness": 12},
        "hovertemplate": f"{hover or '%{z:.4g}'}<extra></extra>",
    }
    if span is not None:
        trace |= {"zmin": span[0], "zmax": span[1]}
    if text is not None:
        trace |= {"text": [list(row) for row in text], "texttemplate": "%{text}"}
    return trace


def _floats(values: ArrayLike) -> list[float | None]:
    """Return numbers as Plotly takes them: None, a gap, where one is not finite."""
    array: NDArray[np.float64] = np.asarray(values, np.float64)
    return [float(value) if np.isfinite(value) else None for value in array]
