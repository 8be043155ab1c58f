"""Training curves: losses, validation accuracy and gradient norms against epoch, one line for each strength."""

from __future__ import annotations

import numpy as np
import pandas as pd

from modalign.experiments.sweep.results import Case, Results
from modalign.report.figures.axes import panel_layout, title_above, value_axis
from modalign.report.figures.drawing import line
from modalign.report.figures.specification import Figure, Trace
from modalign.report.palette import step

__all__ = ["training_figures"]

MOST_EPOCHS = 150  # points drawn of one line


def training_figures(results: Results, case: Case) -> list[Figure]:
    """Return the panels of one case; every line is the mean over seeds."""
    number = results.cases.index(case)
    panels = {
        **{predictor.column("task_loss"): f"task loss, {predictor.name}" for predictor in case.predictors},
        **{p.column("validation_accuracy"): f"validation accuracy, {p.name}" for p in case.predictors},
        "alignment_loss": "alignment loss",
        "gradient_norm_task": "gradient norm, task losses",
        "gradient_norm_alignment": "gradient norm, alignment loss",
    }
    rows = results.curves[results.curves["case"] == case.label]
    averages = rows.groupby(["strength", "epoch"])[list(panels)].mean().reset_index()
    figures = []
    for column, heading in panels.items():
        unit = "%" if column.startswith("validation") else None
        traces = [_line(averages, column, strength, results) for strength in results.strengths]
        layout = panel_layout(
            220,
            margin={"l": 44, "r": 10, "t": 20 if unit else 8, "b": 40},
            xaxis=value_axis("epoch", showgrid=False),
            yaxis=value_axis(rangemode="tozero"),
            annotations=[title_above(unit)] if unit else [],
        )
        label = f"{case.label}: {heading} against epoch, one line for each alignment strength"
        shown = [trace for trace in traces if trace["x"]]
        figures.append(Figure(f"training-{number}-{column}", heading, label, data=shown, layout=layout))
    return figures


def _line(averages: pd.DataFrame, column: str, strength: float, results: Results) -> Trace:
    """Return the line of one strength, thinned to ``MOST_EPOCHS`` points that keep both ends."""
    curve = averages[averages["strength"] == strength]
    kept = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), MOST_EPOCHS)).round().astype(int))
    values = curve[column].to_numpy(dtype=np.float64)[kept] * (100 if column.startswith("validation") else 1)
    role = step(results.strengths.index(strength), len(results.strengths))
    hover = f"strength {strength:g}, epoch %{{x}}: %{{y:.4g}}"
    rounded = [float(f"{value:.6g}") for value in values]
    return line(curve["epoch"].to_numpy()[kept], rounded, role, hover=hover, mode="lines", width=1.5, meta=column)
