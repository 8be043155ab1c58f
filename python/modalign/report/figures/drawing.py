"""What every figure is made of: plain Plotly dictionaries, an axis of strengths, colours by role.

Colours are written as CSS variables (``var(--modality-1)``); the page's script puts in the values of the light or the
dark scheme, so one figure serves both and paper.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalign.experiments.sweep.statistics import mean_interval

__all__ = [
    "SYMBOLS",
    "Figure",
    "Key",
    "Trace",
    "band",
    "layout",
    "means",
    "plain",
    "ramp",
    "strength_axis",
    "title",
    "value_axis",
]

Trace = dict[str, Any]
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
SYMBOLS = {1: "circle", 2: "diamond"}  # of the two modalities
CLEAR = "rgba(0,0,0,0)"
# dark to light with even steps for every kind of colour vision (the corner colours of viridis)
RAMP = ("440154", "46327e", "365c8d", "277f8e", "1fa187", "4ac16d", "a0da39", "fde725")


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a colour role, what it stands for, and how it is drawn."""

    role: str
    text: str
    shape: str = "circle"  # a Plotly symbol, or "dash" for a broken line alone
    line: bool = True
    open: bool = False


@dataclass(frozen=True)
class Figure:
    """One panel: ``data`` and ``layout`` go to Plotly; ``label`` says in words what the picture shows."""

    name: str
    heading: str
    label: str
    data: list[Trace]
    layout: dict[str, Any]
    keys: Sequence[Key] = field(default_factory=tuple)


def plain(text: str) -> str:
    """``text`` for Plotly, which reads a small HTML in every label."""
    return html.escape(text, quote=False)


def means(grid: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and 95 % half-width of each column of (seeds, strengths); half-widths are 0 for one seed."""
    estimates = [mean_interval(column) for column in grid.T]
    return np.array([e.mean for e in estimates]), np.array([e.half_width or 0.0 for e in estimates])


def band(
    mean: NDArray[np.float64],
    half: NDArray[np.float64],
    role: str,
    *,
    possible: tuple[float, float] = (-np.inf, np.inf),
    **more: Any,
) -> Trace:
    """The 95 % band around a line of means as one filled outline; columns without a value are left out.

    possible: what the values cannot leave, nor the band.
    """
    at = np.flatnonzero(np.isfinite(mean + half))
    outline = np.concatenate([(mean + half)[at], (mean - half)[at][::-1]]).clip(*possible)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": np.concatenate([at, at[::-1]]).tolist(),
        "y": outline.tolist(),
        "fill": "toself",
        "fillcolor": f"var(--{role}-band)",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    } | more


def strength_axis(strengths: Sequence[float], name: str, **more: Any) -> dict[str, Any]:
    """Strengths one even step apart, 0 like every other: their steps are uneven and a logarithm has no 0."""
    last = len(strengths) - 1
    # at most ten steps between ticks, each of a round number of strengths
    step = next((step for step in (1, 2, 5, 10, 20, 50) if last <= 10 * step), max(last, 1))
    shown = range(0, last + 1, step)
    return _axis() | {
        "title": {"text": name, "standoff": 6, "font": {"size": 12}},
        "tickmode": "array",
        "tickvals": list(shown),
        "ticktext": [f"{strengths[i]:g}" for i in shown],
        "tickangle": 0,
        "range": [-0.35, last + 0.35],
        "showgrid": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "var(--axis)",
    } | more  # fmt: skip


def value_axis(**more: Any) -> dict[str, Any]:
    return _axis() | {"nticks": 6, "automargin": True} | more


def title(text: str, *, y: float, axis: str = "paper") -> dict[str, Any]:
    """The name of a vertical axis, set flat above its plot at the left edge."""
    return {
        "text": text,
        "x": 0,
        "y": y,
        "xref": "paper",
        "yref": axis,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12, "color": "var(--muted)"},
    }


def layout(height: int, **more: Any) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 40, "r": 10, "t": 24, "b": 44},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"family": FONT, "size": 12, "color": "var(--muted)"},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "var(--panel)", "bordercolor": "var(--axis)", "font": {"color": "var(--ink)"}},
        "dragmode": False,
        "showlegend": False,
    } | more


def ramp(count: int, *, dark: bool) -> list[str]:
    """``count`` colours in order, kept away from the end of the ramp that the background swallows."""
    start, end = (0.25, 1.0) if dark else (0.0, 0.86)
    anchors = np.array([[int(colour[i : i + 2], 16) for i in (0, 2, 4)] for colour in RAMP], dtype=np.float64)
    where = np.linspace(start, end, count) * (len(RAMP) - 1)
    channels = [np.interp(where, np.arange(len(RAMP)), anchors[:, i]) for i in range(3)]
    return [f"#{round(r):02x}{round(g):02x}{round(b):02x}" for r, g, b in zip(*channels, strict=True)]


def _axis() -> dict[str, Any]:
    return {
        "fixedrange": True,  # a finger that scrolls the page must not zoom the plot
        "gridcolor": "var(--grid)",
        "linecolor": "var(--axis)",
        "zeroline": False,
    }
