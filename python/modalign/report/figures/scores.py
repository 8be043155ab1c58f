"""Panels of one alignment: scores beside chance, calibrated scores, curves over k and size, a matrix of layers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from modalign.alignment.results import Alignment, LayerAlignment, Score
from modalign.metrics.registry import METRICS
from modalign.report.figures.axes import panel_layout, value_axis
from modalign.report.figures.drawing import band, error_bar, heat_map, line, plain
from modalign.report.figures.specification import Axis, Figure, Key, Sheet, Trace
from modalign.report.palette import ramp, variable
from modalign.report.words import chance_of, closer, fixed, title_of

__all__ = ["alignment_sheets", "extreme"]

PIXELS = 90  # of a panel on its page, for an inch of its picture
WIDTH = 7.5  # of a picture, in inches
LONGEST = 30  # characters of a metric's name in one line, so that a phone has room for the figure
CELLS = 400  # the largest number of layer pairs whose scores are written into their cells


def alignment_sheets(result: Alignment | LayerAlignment) -> list[Sheet]:
    """Return every figure of an alignment, a picture each."""
    if isinstance(result, LayerAlignment):
        figures = [_layers_figure(result)]
    else:
        figures = [_scores_figure(result)]
        if any(score.null is not None for score in result.scores):
            figures.append(_calibrated_figure(result))
        if "k" in result.curves:
            figures.append(_k_figure(result.curves["k"]))
        if "size" in result.curves:
            figures.append(_size_figure(result.curves["size"]))
    return [
        Sheet(
            figure.name,
            figure.heading,
            figure.label,
            figures=[figure],
            columns=1,
            height=figure.layout["height"] / PIXELS,
            width=WIDTH,
            wide=not figure.name.endswith("-curve"),
        )
        for figure in figures
    ]


def extreme(result: LayerAlignment) -> str:
    """Return ``lowest`` where the metric is a distance, else ``highest``."""
    return "lowest" if METRICS[result.metric].best == 0 else "highest"


def _broken(name: str) -> str:
    return "<br>".join(plain(part) for part in textwrap.wrap(name, LONGEST))


def _metric_axis() -> Axis:
    """Return the axis of names of metrics, which the traces give it."""
    return {"fixedrange": True, "automargin": True, "gridcolor": "var(--grid)"}


def _metric_points(scores: Sequence[Score], values: Sequence[float | None], names: Sequence[str], name: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(values),
        "y": list(names),
        "marker": {"size": 9, "color": "var(--modality-1)"},
        "meta": name,
    }


def _scores_figure(result: Alignment) -> Figure:
    """Return every score with its interval, and the mean of chance as a bar."""
    scores = list(reversed(result.scores))
    names = [_broken(title_of(score.metric)) for score in scores]
    values = _metric_points(scores, [score.value for score in scores], names, "score")
    values["error_x"] = error_bar(
        [0 if score.low is None else score.value - score.low for score in scores],
        [0 if score.high is None else score.high - score.value for score in scores],
        "modality-1",
    )
    means = [None if score.chance is None else score.chance.mean for score in scores]
    chance = _metric_points(scores, means, names, "by chance")
    chance["marker"] = {"symbol": "line-ns-open", "size": 14, "color": variable("modality-2"), "line": {"width": 2}}
    label = "; ".join(
        f"{title_of(score.metric)} {fixed(score.value, 3)}"
        + ("" if score.chance is None else f", by chance {fixed(score.chance.mean, 3)}")
        for score in result.scores
    )
    layout = panel_layout(90 + 34 * len(scores), xaxis=value_axis("score"), yaxis=_metric_axis())
    keys = (
        Key("modality-1", "score with its interval"),
        Key("modality-2", "mean score by chance", "line-ns", line=False),
    )
    return Figure("scores", "Scores and chance", label, data=[values, chance], layout=layout, keys=keys)


def _calibrated_figure(result: Alignment) -> Figure:
    """Return every score on the scale of its null, so that metrics can be compared: 0 is the threshold of chance."""
    judged = [(score, score.null) for score in reversed(result.scores) if score.null is not None]
    calibrated = [null.calibrated for _, null in judged]
    names = [_broken(METRICS[score.metric].title) for score, _ in judged]
    trace = _metric_points([score for score, _ in judged], calibrated, names, "calibrated")
    trace["customdata"] = [chance_of(score) for score, _ in judged]
    trace["hovertemplate"] = "%{y}: %{x:.3f}, p %{customdata}<extra></extra>"
    trace["error_x"] = error_bar(calibrated, [0.0] * len(judged), "modality-1")
    label = "; ".join(f"{METRICS[score.metric].title} {null.calibrated:.3f}" for score, null in reversed(judged))
    axis = value_axis("calibrated score", range=[-0.02, 1.02])
    layout = panel_layout(90 + 34 * len(judged), xaxis=axis, yaxis=_metric_axis())
    heading = "Calibrated scores: 0 is within reach of chance, 1 is the best possible score"
    return Figure("null", heading, label, data=[trace], layout=layout)


def _k_figure(curve: Mapping[str, Sequence[float]]) -> Figure:
    traces = [
        line(curve["k"], curve["value"], "modality-1", hover="mutual k-NN %{y:.3f} at k = %{x}"),
        line(curve["k"], curve["chance"], "modality-2", hover="chance %{y:.3f} at k = %{x}", mode="lines"),
    ]
    ends = [f"{curve['value'][i]:.3f} at k = {curve['k'][i]}" for i in (0, -1)]
    layout = panel_layout(280, xaxis=value_axis("k"), yaxis=value_axis(rangemode="tozero"))
    keys = (Key("modality-1", "mutual k-NN"), Key("modality-2", "chance", "none"))
    label = f"Mutual k-NN from {ends[0]} to {ends[1]}"
    return Figure("k-curve", "Mutual k-NN against k", label, data=traces, layout=layout, keys=keys)


def _size_figure(curve: Mapping[str, Sequence[float]]) -> Figure:
    sizes = list(curve["sizes"])
    traces = [line(sizes, curve["values"], "modality-1", hover="mutual k-NN %{y:.3f} for %{x:,} items")]
    if curve["low"] != curve["high"]:
        traces.insert(0, band(sizes, curve["low"], curve["high"], "modality-1"))
    label = ", ".join(f"{value:.3f} for {size:,} items" for size, value in zip(sizes, curve["values"], strict=True))
    axis = value_axis("items", type="log", tickvals=sizes, ticktext=[f"{size:,}" for size in sizes])
    layout = panel_layout(280, xaxis=axis, yaxis=value_axis(rangemode="tozero"))
    return Figure("size-curve", "Expected mutual k-NN of fewer items", label, data=traces, layout=layout)


def _layers_figure(result: LayerAlignment) -> Figure:
    """Return the matrix of scores, brighter where more aligned, with a box around the best."""
    colours = ramp(8, dark=False)
    if METRICS[result.metric].best == 0:
        colours.reverse()
    rows, columns = len(result.matrix), len(result.matrix[0])
    digits = 3 if columns <= 12 else 2
    text = [[fixed(value, digits) for value in row] for row in result.matrix] if rows * columns <= CELLS else None
    i, j = result.best
    box: Trace = {
        "type": "scatter",
        "mode": "lines",
        "hoverinfo": "skip",
        "x": [j - 0.5, j + 0.5, j + 0.5, j - 0.5, j - 0.5],
        "y": [i - 0.5, i - 0.5, i + 0.5, i + 0.5, i - 0.5],
        "line": {"color": variable("modality-2"), "width": 4},
    }
    label = (
        f"{title_of(result.metric)}: {extreme(result)} {fixed(result.value, 3)} at layer {i} of x and {j} of y, "
        "counted from 0"
    )
    layout = panel_layout(
        160 + 34 * rows,
        xaxis=value_axis("layer of y", dtick=1, showgrid=False, range=[-0.5, columns - 0.5]),
        yaxis=value_axis("layer of x", dtick=1, showgrid=False, range=[rows - 0.5, -0.5]),
    )
    cells = heat_map(result.matrix, colours, text=text, hover="layer %{y} of x, layer %{x} of y: %{z:.4f}")
    heading = f"Scores of all pairs of layers; boxed: the {extreme(result)}{closer(result.metric)}"
    return Figure("layers", heading, label, data=[cells, box], layout=layout)
