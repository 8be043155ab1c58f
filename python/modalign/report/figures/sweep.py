"""The figures of a sweep's page as SVG and PNG: accuracy, alignment, one against the other, training."""

from __future__ import annotations

import dataclasses

from modalign.experiments.sweep.findings import findings
from modalign.experiments.sweep.results import Results
from modalign.report.figures.accuracy import accuracy_figures
from modalign.report.figures.alignment import MEASURES, alignment_figures, case_keys, scatter_figures
from modalign.report.figures.drawing import Figure, Key
from modalign.report.figures.stills import Sheet, colours_of, draw_sheet
from modalign.report.figures.training import training_figures
from modalign.report.html import Picture

__all__ = ["sweep_pictures"]

PANELS = 3  # cases side by side


def sweep_pictures(results: Results) -> list[Picture]:
    """accuracy, alignment, accuracy-alignment, and training-1 for the first case, training-2 for the second, ..."""
    strengths = [Key(f"strength-{i}", f"strength {value:g}", line=False) for i, value in enumerate(results.strengths)]
    sheets = [
        Sheet(
            "accuracy", "Accuracy against strength",
            "test accuracy, its change and the best strength of both modalities, a column for each case; mean over "
            "seeds with 95 % bands, a ring at the strength chosen on validation accuracy",
            accuracy_figures(results, findings(results)), min(PANELS, len(results.cases)), height=4.6,
        ),
        Sheet(
            "alignment", "Alignment against strength",
            "alignment of the two encoders' outputs, a panel for each measure and a line for each case; mean over "
            "seeds with 95 % bands",
            alignment_figures(results), len(MEASURES), case_keys(results), height=2.9,
        ),
        Sheet(
            "accuracy-alignment", "Accuracy against alignment",
            "test accuracy of each run against the alignment of its encoders, a row for each case",
            [shown for figure in scatter_figures(results) for shown in _every_measure(figure)], len(MEASURES),
            strengths, height=2.7,
        ),
    ]  # fmt: skip
    sheets += [
        Sheet(
            f"training-{number}", f"Training curves: {case.label}",
            f"{case.label}: losses, validation accuracies and gradient norms against epoch, a line for each strength",
            training_figures(results, case), 4, strengths, height=2.3,
        )
        for number, case in enumerate(results.cases, 1)
    ]  # fmt: skip
    pictures: list[Picture] = []
    for sheet in sheets:
        draw_sheet(pictures, sheet, colours_of(len(results.strengths)))
    return pictures


def _every_measure(figure: Figure) -> list[Figure]:
    """The page shows one measure at a time, paper all of them."""
    return [
        dataclasses.replace(
            figure,
            data=[trace | {"visible": trace["meta"][:-2] == column} for trace in figure.data],
            layout=figure.layout | {"xaxis": figure.layout["xaxis"] | {"title": {"text": name}}},
        )
        for column, name in MEASURES.items()
    ]
