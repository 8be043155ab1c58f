"""Training curves: losses, validation accuracy and gradient norms against epoch, one line for each strength."""

from __future__ import annotations

import numpy as np
import pandas as pd

from modalign.experiments.sweep.results import Case, Results
from modalign.report.figures.drawing import Figure, Trace, layout, title, value_axis

__all__ = ["training_figures"]

MOST_EPOCHS = 150  # points drawn of one line


def training_figures(results: Results, case: Case) -> list[Figure]:
    """The panels of one case; every line is the mean over seeds."""
    number = results.cases.index(case)
    panels = {
        **{one.column("task_loss"): f"task loss, {one.name}" for one in case.predictors},
        **{one.column("validation_accuracy"): f"validation accuracy, {one.name}" for one in case.predictors},
        "alignment_loss": "alignment loss",
        "gradient_norm_task": "gradient norm, task losses",
        "gradient_norm_alignment": "gradient norm, alignment loss",
    }
    mine = results.curves[results.curves["case"] == case.label]
    averages = mine.groupby(["strength", "epoch"])[list(panels)].mean().reset_index()
    figures = []
    for column, heading in panels.items():
        unit = "%" if column.startswith("validation") else None
        data = [_line(averages, column, strength, i, unit) for i, strength in enumerate(results.strengths)]
        figures.append(
            Figure(
                name=f"training-{number}-{column}",
                heading=heading,
                label=f"{case.label}: {heading} against epoch, one line for each alignment strength",
                data=[trace for trace in data if trace["x"]],
                layout=layout(
                    220,
                    margin={"l": 44, "r": 10, "t": 20 if unit else 8, "b": 40},
                    xaxis=value_axis(title={"text": "epoch", "standoff": 4, "font": {"size": 12}}, showgrid=False),
                    yaxis=value_axis(rangemode="tozero"),
                    annotations=[title(unit, y=1.0)] if unit else [],
                ),
            )
        )
    return figures


def _line(averages: pd.DataFrame, column: str, strength: float, index: int, unit: str | None) -> Trace:
    line = averages[averages["strength"] == strength]
    kept = np.unique(np.linspace(0, len(line) - 1, min(len(line), MOST_EPOCHS)).round().astype(int))
    values = line[column].to_numpy(dtype=np.float64)[kept] * (100 if unit else 1)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": line["epoch"].to_numpy(dtype=np.int64)[kept].tolist(),
        "y": [float(f"{value:.6g}") for value in values],
        "line": {"color": f"var(--strength-{index})", "width": 1.5},
        "hovertemplate": f"strength {strength:g}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
        "meta": column,
    }
