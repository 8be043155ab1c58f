"""The pictures of a sweep: accuracy, alignment, one against the other, and training."""

from __future__ import annotations

import dataclasses

from modalign.experiments.sweep.findings import findings
from modalign.experiments.sweep.results import Results
from modalign.report.figures.accuracy import accuracy_figures
from modalign.report.figures.alignment import MEASURES, alignment_figures, case_keys, scatter_figures
from modalign.report.figures.specification import Figure, Key, Sheet
from modalign.report.figures.training import training_figures
from modalign.report.palette import step

__all__ = ["sweep_sheets"]

PANELS = 3  # cases side by side


def sweep_sheets(results: Results) -> list[Sheet]:
    """Return accuracy, alignment, accuracy-alignment, and training-1, training-2, ... for the cases in order."""
    count = len(results.strengths)
    strengths = [Key(step(i, count), f"strength {value:g}", line=False) for i, value in enumerate(results.strengths)]
    accuracy = Sheet(
        "accuracy",
        "Accuracy against strength",
        "test accuracy, its change and the best strength of every modality, a column for each case; mean over seeds "
        "with 95 % bands, a ring at the strength chosen on validation accuracy",
        figures=accuracy_figures(results, findings(results)),
        columns=min(PANELS, len(results.cases)),
        height=4.6,
    )
    alignment = Sheet(
        "alignment",
        "Alignment against strength",
        "alignment of the encoders' outputs, a panel for each measure and a line for each case; mean over seeds with "
        "95 % bands",
        figures=alignment_figures(results),
        columns=len(MEASURES),
        keys=case_keys(results),
        height=2.9,
    )
    scatter = Sheet(
        "accuracy-alignment",
        "Accuracy against alignment",
        "test accuracy of each run against the alignment of its encoders, a row for each case",
        figures=[shown for figure in scatter_figures(results) for shown in _every_measure(figure)],
        columns=len(MEASURES),
        keys=strengths,
        height=2.7,
    )
    training = [
        Sheet(
            f"training-{number}",
            f"Training curves: {case.label}",
            f"{case.label}: losses, validation accuracies and gradient norms against epoch, a line for each strength",
            figures=training_figures(results, case),
            columns=4,
            keys=strengths,
            height=2.3,
        )
        for number, case in enumerate(results.cases, 1)
    ]
    return [accuracy, alignment, scatter, *training]


def _every_measure(figure: Figure) -> list[Figure]:
    """Return a copy of the panel for each measure: the page shows one at a time, a picture all of them."""
    panels = []
    for measure, title in MEASURES.items():
        axis = figure.layout["xaxis"] | {"title": {"text": title}}
        traces = [trace | {"visible": trace["meta"].rpartition("_")[0] == measure} for trace in figure.data]
        panels.append(dataclasses.replace(figure, data=traces, layout=figure.layout | {"xaxis": axis}))
    return panels
