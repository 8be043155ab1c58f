"""Accuracy against strength: one panel for each case, with the change from the baseline and the best strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalign.experiments.sweep.findings import Finding
from modalign.experiments.sweep.results import Case, Predictor, Results
from modalign.report.figures.axes import panel_layout, strength_axis, title_above, value_axis
from modalign.report.figures.drawing import band, line, means, plain
from modalign.report.figures.specification import Figure, Key, Trace
from modalign.report.palette import modality, variable
from modalign.report.words import baseline_of

__all__ = ["accuracy_figures", "predictor_symbol"]

SYMBOLS = ("circle", "diamond", "square", "triangle-up")  # of the modalities
FUSED_SYMBOL = "x"
ROW = 0.04  # the height of one predictor's row of best strengths, as a share of the panel


@dataclass(frozen=True)
class _Scale:
    """One of the two vertical axes on which a predictor has a line."""

    name: str
    axis: str
    digits: str
    possible: tuple[float, float]


ACCURACY = _Scale("accuracy", "y", ".1f", (0.0, 100.0))
CHANGE = _Scale("change", "y2", "+.1f", (-100.0, 100.0))


def accuracy_figures(results: Results, findings: Sequence[Finding]) -> list[Figure]:
    """Return one panel for each case: accuracy, its change from the baseline, and the range of the best strength."""
    low, high = _accuracy_range(results)
    rows = max(len(case.predictors) for case in results.cases)
    figures = []
    for number, case in enumerate(results.cases):
        axes = {
            "xaxis": strength_axis(results.strengths, results.strength_name, anchor="y3"),
            "yaxis": value_axis(domain=[0.60, 1], range=[low, high]),
            "yaxis2": value_axis(
                domain=[ROW * rows + 0.055, 0.51], zeroline=True, zerolinecolor="var(--axis)", nticks=5
            ),
            "yaxis3": value_axis(domain=[0, ROW * rows], range=[0.4, rows + 0.6], showgrid=False, showticklabels=False),
        }
        titles = [
            title_above("test accuracy, %", y=1.01),
            title_above(f"change from {baseline_of(results.strengths)}, points", y=0.52),
            title_above("best strength", y=ROW * rows),
        ]
        traces = [trace for finding in findings if finding.case == case for trace in _traces(results, finding, rows)]
        names = " and ".join(predictor.name for predictor in case.predictors)
        figures.append(
            Figure(
                name=f"accuracy-{number}",
                heading=case.label,
                label=f"{case.label}: test accuracy of {names} against alignment strength",
                data=traces + _chance_traces(results, case),
                layout=panel_layout(470 + 35 * (rows - 2), **axes, annotations=titles),
                keys=_keys(case),
            )
        )
    return figures


def predictor_symbol(predictor: Predictor) -> str:
    """Return the symbol of a modality, or of the fused model."""
    return FUSED_SYMBOL if predictor.fused else SYMBOLS[(predictor.position - 1) % len(SYMBOLS)]


def _accuracy_range(results: Results) -> tuple[float, float]:
    """Return one range for the accuracies of every case, which holds every band and every line of chance."""
    low, high = np.inf, -np.inf
    for case in results.cases:
        for predictor in case.predictors:
            mean, half = means(100 * results.grid(case, predictor.column("accuracy")))
            chance = 100 * results.grid(case, predictor.column("chance")).mean()
            low, high = min(low, chance, (mean - half).min()), max(high, chance, (mean + half).max())
    room = 0.05 * max(high - low, 1.0)
    return max(float(low - room), -2.0), min(float(high + room), 102.0)


def _traces(results: Results, finding: Finding, rows: int) -> list[Trace]:
    """Return the lines of one predictor: its accuracy, the change of it, and the range of its best strength."""
    accuracy = 100 * results.grid(finding.case, finding.predictor.column("accuracy"))
    strengths = [f"{value:g}" for value in results.strengths]
    best = results.strengths.index(finding.best)
    traces = _curve(finding, ACCURACY, accuracy, strengths, best=best)
    traces += _curve(finding, CHANGE, accuracy - accuracy[:, :1], strengths, best=best)
    return [*traces, _best_strength(results, finding, rows + 1 - finding.predictor.position)]


def _curve(
    finding: Finding, scale: _Scale, grid: NDArray[np.float64], strengths: Sequence[str], *, best: int
) -> list[Trace]:
    """Return the band, the line of means and the ring at the best strength."""
    mean, half = means(grid)
    places = np.arange(len(strengths))
    suffix, role = finding.predictor.suffix, modality(finding.predictor.suffix)
    symbol = predictor_symbol(finding.predictor)
    hover = f"{plain(finding.name)}, strength %{{customdata[0]}}: %{{y:{scale.digits}}} ± %{{customdata[1]:.1f}}"
    low, high = (mean - half).clip(*scale.possible), (mean + half).clip(*scale.possible)
    means_line = line(
        places, mean, role, hover=hover, size=6, symbol=symbol, axis=scale.axis, meta=f"{scale.name}_{suffix}"
    )
    means_line["customdata"] = [[strength, float(h)] for strength, h in zip(strengths, half, strict=True)]
    ring: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [best],
        "y": [float(mean[best])],
        "yaxis": scale.axis,
        "hoverinfo": "skip",
        "marker": {"size": 12, "symbol": f"{symbol}-open", "color": variable(role), "line": {"width": 2}},
        "meta": f"best_{scale.name}_{suffix}",
    }
    return [band(places, low, high, role, axis=scale.axis, meta=f"{scale.name}_{suffix}_band"), means_line, ring]


def _best_strength(results: Results, finding: Finding, row: int) -> Trace:
    """Return the best strength of one predictor with the range of the choice, at height ``row``."""
    best = results.strengths.index(finding.best)
    ends = [results.strengths.index(value) for value in finding.best_range or (finding.best, finding.best)]
    hover = f"{plain(finding.name)}: best strength {finding.best:g}"
    if finding.best_range is not None:
        hover += f" [{finding.best_range[0]:g}, {finding.best_range[1]:g}]"
    ink = variable(modality(finding.predictor.suffix))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [ends[0], ends[1], best],  # the best last, so that it is drawn over an end in the same place
        "y": [row] * 3,
        "yaxis": "y3",
        "hovertemplate": f"{hover}<extra></extra>",
        "line": {"color": ink, "width": 2.5},
        "marker": {
            "color": ink,
            "size": [8, 8, 9],
            "opacity": 1,
            "symbol": ["line-ns-open", "line-ns-open", predictor_symbol(finding.predictor)],
            "line": {"width": [2, 2, 0], "color": ink},
        },
        "meta": f"best_{finding.predictor.suffix}",
    }


def _chance_traces(results: Results, case: Case) -> list[Trace]:
    """Return the chance level of every predictor; one grey line where all are the same."""
    levels = {
        predictor.suffix: 100 * float(results.grid(case, predictor.column("chance")).mean())
        for predictor in case.predictors
    }
    if max(levels.values()) - min(levels.values()) < 0.05:
        levels = dict(list(levels.items())[:1])
    ends = [-0.35, len(results.strengths) - 0.65]
    return [
        line(
            ends,
            [level, level],
            "muted" if len(levels) == 1 else modality(suffix),
            hover=f"chance {level:.1f}",
            mode="lines",
            dash="dot",
            width=1.5,
            meta=f"chance_{suffix}",
        )
        for suffix, level in levels.items()
    ]


def _keys(case: Case) -> tuple[Key, ...]:
    predictors = [
        Key(modality(predictor.suffix), predictor.name, predictor_symbol(predictor)) for predictor in case.predictors
    ]
    return (*predictors, Key("muted", "chance", "dash"))
