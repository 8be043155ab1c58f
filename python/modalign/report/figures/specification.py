"""The specification of a figure, from which a page draws it with Plotly and ``stills`` draws it with matplotlib.

A ``Figure`` is one panel: traces and a layout as Plotly takes them, restricted to the entries below. ``drawing`` builds
traces, ``axes`` builds axes and layouts. A ``Sheet`` is a picture of several panels. Colours are roles of
``modalign.report.palette``, written as CSS variables; the page's script puts in the values of the light or the dark
scheme, so one figure serves both and paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

__all__ = [
    "Annotation",
    "Axis",
    "ErrorBar",
    "Figure",
    "Key",
    "Layout",
    "Line",
    "Marker",
    "Shape",
    "Sheet",
    "Symbol",
    "Trace",
]

Symbol = str  # a Plotly symbol, such as "circle" or "diamond-open"


class Line(TypedDict, total=False):
    """How a line or an outline is drawn."""

    color: str
    width: float | list[float]
    dash: Literal["solid", "dash", "dot"]


class Marker(TypedDict, total=False):
    """How markers are drawn; a list has an entry for each point."""

    color: str | list[str]
    size: float | list[float]
    symbol: Symbol | list[Symbol]
    opacity: float
    line: Line


class ErrorBar(TypedDict, total=False):
    """The bar through a point, by its lengths above and below."""

    type: Literal["data"]
    symmetric: bool
    array: list[float]
    arrayminus: list[float]
    color: str
    thickness: float
    width: float


class Trace(TypedDict, total=False):
    """One trace of Plotly: a line, markers, bars, boxes or a heat map."""

    type: Literal["scatter", "bar", "box", "heatmap"]
    mode: str
    meta: str  # the name that tests and the page's script know the trace by
    x: Sequence[float | None]
    y: Sequence[float | None] | Sequence[str]
    yaxis: str
    line: Line
    marker: Marker
    error_x: ErrorBar
    error_y: ErrorBar
    fill: Literal["toself"]
    fillcolor: str
    text: list[str] | list[list[str]]
    textposition: str
    textfont: dict[str, object]
    customdata: list[str] | list[list[object]]
    hovertemplate: str
    hoverinfo: str
    showlegend: bool
    visible: bool
    # bars
    orientation: Literal["h"]
    insidetextanchor: Literal["middle"]
    base: list[float]
    width: float
    # boxes
    q1: list[float]
    median: list[float]
    q3: list[float]
    lowerfence: list[float]
    upperfence: list[float]
    # heat maps
    z: list[list[float]]
    zmin: float
    zmax: float
    showscale: bool
    colorscale: list[tuple[float, str]]
    colorbar: dict[str, float]
    texttemplate: str


class Title(TypedDict, total=False):
    """The title of an axis."""

    text: str
    standoff: float
    font: dict[str, float]


class Axis(TypedDict, total=False):
    """The settings of an axis that both renderers understand; ``axes`` builds them."""

    type: Literal["linear", "log"]
    title: Title
    range: list[float]
    rangemode: Literal["tozero"]
    domain: list[float]
    tickvals: list[float]
    ticktext: list[str]
    dtick: float
    showgrid: bool
    showticklabels: bool
    zeroline: bool
    zerolinecolor: str
    # read by Plotly alone
    anchor: str
    automargin: bool
    fixedrange: bool
    gridcolor: str
    linecolor: str
    nticks: int
    tickangle: float
    tickcolor: str
    ticklen: float
    tickmode: Literal["array"]
    ticks: Literal["outside"]


class Annotation(TypedDict):
    """A text above a vertical axis, at the left edge; ``y`` is a share of the height of the panel."""

    text: str
    y: float
    x: float
    xref: str
    yref: str
    xanchor: str
    yanchor: str
    showarrow: bool
    font: dict[str, object]


class Shape(TypedDict):
    """A straight line across the whole plot, upright or level."""

    x0: float
    x1: float
    y0: float
    y1: float
    line: Line
    xref: str
    yref: str


class Layout(TypedDict, total=False):
    """The layout of a panel: its height in pixels, its axes, texts and straight lines."""

    height: int
    xaxis: Axis
    yaxis: Axis
    yaxis2: Axis
    yaxis3: Axis
    annotations: list[Annotation]
    shapes: list[Shape]
    # read by Plotly alone
    margin: dict[str, float]
    paper_bgcolor: str
    plot_bgcolor: str
    font: dict[str, object]
    hovermode: Literal["closest"]
    hoverlabel: dict[str, object]
    dragmode: Literal[False]
    showlegend: bool
    barmode: Literal["overlay"]


@dataclass(frozen=True)
class Key:
    """One entry of a legend.

    Attributes:
        role (str): The role of the colour.
        text (str): What the colour and the shape stand for.
        shape (str): A Plotly symbol, ``"dash"`` for a broken line or ``"none"`` for a line without a marker.
        line (bool): Whether a line runs through the symbol.
        open (bool): Whether the symbol is drawn as an outline.
    """

    role: str
    text: str
    shape: str = "circle"
    line: bool = True
    open: bool = False


@dataclass(frozen=True)
class Figure:
    """One panel.

    Attributes:
        name (str): The identifier of the panel on its page.
        heading (str): The title above the panel.
        label (str): What the panel shows, in words, for readers who cannot see it.
        data (list[Trace]): The traces, the first drawn first.
        layout (Layout): Axes, texts and size.
        keys (Sequence[Key]): The legend of this panel alone.
        keys_title (str): The title of that legend.
    """

    name: str
    heading: str
    label: str
    data: list[Trace]
    layout: Layout
    keys: Sequence[Key] = field(default_factory=tuple)
    keys_title: str = ""


@dataclass(frozen=True)
class Sheet:
    """The panels of one picture.

    Attributes:
        name (str): The file name of the picture, without its ending.
        title (str): The title of the picture on its page.
        label (str): What the picture shows, in words, for readers who cannot see it.
        figures (Sequence[Figure]): The panels, row by row.
        columns (int): The number of panels side by side.
        keys (Sequence[Key]): The legend that all panels share.
        keys_title (str): The title of that legend.
        height (float): The height of a panel of the still picture, in inches.
        width (float): The width of the still picture, in inches.
        wide (bool): Whether a single panel takes the whole width of the page.
    """

    name: str
    title: str
    label: str
    figures: Sequence[Figure]
    columns: int
    keys: Sequence[Key] = ()
    keys_title: str = ""
    height: float = 2.6
    width: float = 10.5
    wide: bool = True
