"""Accuracy against strength: one panel for each case, with the change from the baseline and the best strength."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modalign.experiments.sweep.findings import Finding
from modalign.experiments.sweep.results import Case, Results
from modalign.report.figures.drawing import (
    SYMBOLS,
    Figure,
    Key,
    Trace,
    band,
    layout,
    means,
    plain,
    strength_axis,
    title,
    value_axis,
)

__all__ = ["accuracy_figures"]


def accuracy_figures(results: Results, found: Sequence[Finding]) -> list[Figure]:
    """One panel for each case: accuracy, its change from the baseline, and where the best strength lies."""
    low, high = _accuracy_range(results)
    figures = []
    for number, case in enumerate(results.cases):
        names = " and ".join(predictor.name for predictor in case.predictors)
        mine = [finding for finding in found if finding.case == case]
        base = "no alignment" if results.strengths[0] == 0 else f"strength {results.strengths[0]:g}"
        axes = {
            "xaxis": strength_axis(results.strengths, results.strength_name, anchor="y3"),
            "yaxis": value_axis(domain=[0.60, 1], range=[low, high]),
            "yaxis2": value_axis(domain=[0.135, 0.51], zeroline=True, zerolinecolor="var(--axis)", nticks=5),
            "yaxis3": value_axis(
                domain=[0, 0.08], range=[0.4, len(case.predictors) + 0.6], showgrid=False, showticklabels=False
            ),
        }
        notes = [
            title("test accuracy, %", y=1.01),
            title(f"change from {base}, points", y=0.52),
            title("best strength", y=0.08),
        ]
        data = [trace for finding in mine for trace in _accuracy_traces(results, finding)]
        data += _chance_traces(results, case)
        figures.append(
            Figure(
                name=f"accuracy-{number}",
                heading=case.label,
                label=f"{case.label}: test accuracy of {names} against alignment strength",
                data=data,
                layout=layout(470, **axes, annotations=notes),
                keys=_modality_keys(case),
            )
        )
    return figures


def _accuracy_range(results: Results) -> tuple[float, float]:
    """One scale for every case, which holds every band and every chance line."""
    low, high = np.inf, -np.inf
    for case in results.cases:
        for predictor in case.predictors:
            mean, half = means(100 * results.grid(case, predictor.column("accuracy")))
            chance = 100 * results.grid(case, predictor.column("chance")).mean()
            low, high = min(low, chance, (mean - half).min()), max(high, chance, (mean + half).max())
    room = 0.05 * max(high - low, 1.0)
    return max(float(low - room), -2.0), min(float(high + room), 102.0)


def _accuracy_traces(results: Results, finding: Finding) -> list[Trace]:
    modality = finding.modality
    role, name = f"modality-{min(modality, 5)}", plain(finding.name)
    accuracy = 100 * results.grid(finding.case, finding.predictor.column("accuracy"))
    change = accuracy - accuracy[:, :1]
    best = results.strengths.index(finding.best)
    strengths = [f"{value:g}" for value in results.strengths]
    traces: list[Trace] = []
    for grid, axis, kind, shown in ((accuracy, "y", "accuracy", ".1f"), (change, "y2", "change", "+.1f")):
        mean, half = means(grid)
        possible = (0.0, 100.0) if kind == "accuracy" else (-100.0, 100.0)
        traces.append(band(mean, half, role, possible=possible, yaxis=axis, meta=f"{kind}_{modality}_band"))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": list(range(len(strengths))),
                "y": mean.tolist(),
                "yaxis": axis,
                "customdata": [[strength, float(h)] for strength, h in zip(strengths, half, strict=True)],
                "hovertemplate": f"{name}, strength %{{customdata[0]}}: "
                f"%{{y:{shown}}} ± %{{customdata[1]:.1f}}<extra></extra>",
                "line": {"color": f"var(--{role})", "width": 2},
                "marker": {"color": f"var(--{role})", "size": 6, "symbol": SYMBOLS.get(modality, "square")},
                "meta": f"{kind}_{modality}",
            }
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [best],
                "y": [float(mean[best])],
                "yaxis": axis,
                "hoverinfo": "skip",
                "marker": {
                    "size": 12,
                    "symbol": f"{SYMBOLS.get(modality, 'square')}-open",
                    "color": f"var(--{role})",
                    "line": {"width": 2},
                },
                "meta": f"best_{kind}_{modality}",
            }
        )
    ends = [results.strengths.index(value) for value in finding.best_range or (finding.best, finding.best)]
    hover = f"{name}: best strength {finding.best:g}"
    if finding.best_range is not None:
        hover += f" [{finding.best_range[0]:g}, {finding.best_range[1]:g}]"
    row = len(finding.case.predictors) + 1 - modality
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [ends[0], ends[1], best],  # the best last, so that it is drawn over an end in the same place
            "y": [row] * 3,
            "yaxis": "y3",
            "hovertemplate": f"{hover}<extra></extra>",
            "line": {"color": f"var(--{role})", "width": 2.5},
            "marker": {
                "color": f"var(--{role})",
                "size": [8, 8, 9],
                "opacity": 1,
                "symbol": ["line-ns-open", "line-ns-open", SYMBOLS.get(modality, "square")],
                "line": {"width": [2, 2, 0], "color": f"var(--{role})"},
            },
            "meta": f"best_{modality}",
        }
    )
    return traces


def _chance_traces(results: Results, case: Case) -> list[Trace]:
    levels = {one.position: 100 * float(results.grid(case, one.column("chance")).mean()) for one in case.predictors}
    same = max(levels.values()) - min(levels.values()) < 0.05
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [-0.35, len(results.strengths) - 0.65],
            "y": [level, level],
            "line": {"color": "var(--muted)" if same else f"var(--modality-{min(m, 5)})", "width": 1.5, "dash": "dot"},
            "hovertemplate": f"chance {level:.1f}<extra></extra>",
            "meta": f"chance_{m}",
        }
        for m, level in levels.items()
        if m == 1 or not same
    ]


def _modality_keys(case: Case) -> tuple[Key, ...]:
    return (
        *(
            Key(f"modality-{min(one.position, 5)}", one.name, SYMBOLS.get(one.position, "square"))
            if one.position > 1
            else Key("modality-1", one.name)
            for one in case.predictors
        ),
        Key("muted", "chance", "dash"),
    )
