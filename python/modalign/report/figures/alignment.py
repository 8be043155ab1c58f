"""Alignment of the two encoders against strength, and accuracy against alignment."""

from __future__ import annotations

from modalign.experiments.sweep.results import Results
from modalign.experiments.sweep.schema import ALIGNMENT
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

__all__ = ["MEASURES", "alignment_figures", "case_keys", "scatter_figures"]

MEASURES = dict(zip(ALIGNMENT, ("mutual k-NN", "CKA", "unbiased CKA", "SVCCA"), strict=True))
CASE_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
CASE_ROLES = len(CASE_SYMBOLS)  # roles --case-1 to --case-6 of the style sheet


def case_keys(results: Results) -> list[Key]:
    """The legend that the alignment panels share."""
    entries = [
        Key(f"case-{i % CASE_ROLES + 1}", case.label, CASE_SYMBOLS[i % CASE_ROLES])
        for i, case in enumerate(results.cases)
    ]
    return [*entries, Key("muted", "chance", "dash")]


def alignment_figures(results: Results) -> list[Figure]:
    """One panel for each alignment measure, one line for each case."""
    figures = []
    for column, name in MEASURES.items():
        data: list[Trace] = []
        for number, case in enumerate(results.cases):
            role = f"case-{number % CASE_ROLES + 1}"
            mean, half = means(results.grid(case, column))
            data.append(band(mean, half, role, meta=f"{column}_{number}_band"))
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "x": list(range(len(results.strengths))),
                    "y": mean.tolist(),
                    "customdata": [[f"{s:g}", float(h)] for s, h in zip(results.strengths, half, strict=True)],
                    "hovertemplate": f"{plain(case.label)}, strength %{{customdata[0]}}: "
                    "%{y:.3f} ± %{customdata[1]:.3f}<extra></extra>",
                    "line": {
                        "color": f"var(--{role})",
                        "width": 2,
                        "dash": "solid" if number < CASE_ROLES else "dash",
                    },
                    "marker": {
                        "color": f"var(--{role})",
                        "size": 7,
                        "symbol": CASE_SYMBOLS[number % CASE_ROLES],
                    },
                    "meta": f"{column}_{number}",
                }
            )
        if column == "mutual_knn":
            data += _knn_chance(results)
        figures.append(
            Figure(
                name=f"alignment-{column}",
                heading=name,
                label=f"{name} of the two encoders' outputs against alignment strength, one line for each case",
                data=data,
                layout=layout(
                    290,
                    margin={"l": 44, "r": 10, "t": 8, "b": 44},
                    xaxis=strength_axis(results.strengths, results.strength_name),
                    yaxis=value_axis(rangemode="tozero"),
                ),
            )
        )
    return figures


def _knn_chance(results: Results) -> list[Trace]:
    levels = sorted({float(value) for value in results.runs["mutual_knn_chance"].round(6)})
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [-0.35, len(results.strengths) - 0.65],
            "y": [level, level],
            "line": {"color": "var(--muted)", "width": 1.5, "dash": "dot"},
            "hovertemplate": f"chance {level:.3f}<extra></extra>",
            "meta": "mutual_knn_chance",
        }
        for level in levels
    ]


def scatter_figures(results: Results) -> list[Figure]:
    """One panel for each case: a point is a run, coloured by its strength; one measure is shown at a time."""
    figures = []
    for number, case in enumerate(results.cases):
        mine = results.runs[results.runs["case"] == case.label].sort_values(["strength", "seed"])
        strengths = mine["strength"].tolist()
        colours = [f"var(--strength-{results.strengths.index(value)})" for value in strengths]
        data: list[Trace] = []
        for column in MEASURES:
            for predictor in case.predictors:
                modality = predictor.position
                data.append(
                    {
                        "type": "scatter",
                        "mode": "markers",
                        "x": mine[column].astype(float).tolist(),
                        "y": (100 * mine[predictor.column("accuracy")]).tolist(),
                        "customdata": [[f"{s:g}", int(seed)] for s, seed in zip(strengths, mine["seed"], strict=True)],
                        "hovertemplate": f"{plain(predictor.name)}, strength %{{customdata[0]}}, "
                        "seed %{customdata[1]}: %{y:.1f} at %{x:.3f}<extra></extra>",
                        "marker": {
                            "color": colours,
                            "size": 8,
                            "symbol": SYMBOLS[1] if modality == 1 else f"{SYMBOLS.get(modality, 'square')}-open",
                            "line": {"width": 1.5 if modality > 1 else 0},
                        },
                        "visible": column == "mutual_knn",
                        "meta": f"{column}_{modality}",
                    }
                )
        figures.append(
            Figure(
                name=f"scatter-{number}",
                heading=case.label,
                label=f"{case.label}: test accuracy of each run against the alignment of its encoders",
                data=data,
                layout=layout(
                    330,
                    xaxis=value_axis(title={"text": MEASURES["mutual_knn"], "standoff": 6, "font": {"size": 12}}),
                    yaxis=value_axis(),
                    annotations=[title("test accuracy, %", y=1.01)],
                ),
                keys=(
                    Key("muted", case.modalities[0], line=False),
                    *(
                        Key("muted", one.name, SYMBOLS.get(one.position, "square"), line=False, open=True)
                        for one in case.predictors[1:]
                    ),
                ),
            )
        )
    return figures
