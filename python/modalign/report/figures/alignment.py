"""Alignment of the encoders of a sweep against strength, and accuracy against alignment."""

from __future__ import annotations

import numpy as np

from modalign.experiments.sweep.results import Case, ModalityPair, Predictor, Results
from modalign.experiments.sweep.schema import ALIGNMENT
from modalign.report.figures.accuracy import predictor_symbol
from modalign.report.figures.axes import panel_layout, strength_axis, title_above, value_axis
from modalign.report.figures.drawing import band, line, means, plain, points
from modalign.report.figures.specification import Figure, Key, Trace
from modalign.report.palette import SERIES, series, step

__all__ = ["MEASURES", "alignment_figures", "case_keys", "scatter_figures"]

MEASURES = dict(zip(ALIGNMENT, ("mutual k-NN", "CKA", "unbiased CKA", "SVCCA"), strict=True))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")


def case_keys(results: Results) -> list[Key]:
    """Return the legend that the panels of alignment share: a line for each case and pair of modalities."""
    entries = [
        Key(series(index), _line_name(case, pair), SYMBOLS[index % len(SYMBOLS)])
        for index, (case, pair) in enumerate(_lines(results))
    ]
    return [*entries, Key("muted", "chance", "dash")]


def alignment_figures(results: Results) -> list[Figure]:
    """Return one panel for each measure of alignment, with a line for each case and pair of modalities."""
    layout = {
        "margin": {"l": 44, "r": 10, "t": 8, "b": 44},
        "xaxis": strength_axis(results.strengths, results.strength_name),
        "yaxis": value_axis(rangemode="tozero"),
    }
    figures = []
    for measure, title in MEASURES.items():
        traces = [
            trace
            for index, (case, pair) in enumerate(_lines(results))
            for trace in _line(results, case, pair, measure=measure, index=index)
        ]
        if measure == "mutual_knn":
            traces += _chance_of_mutual_knn(results)
        label = f"{title} of the encoders' outputs against alignment strength, one line for each case"
        figures.append(Figure(f"alignment-{measure}", title, label, data=traces, layout=panel_layout(290, **layout)))
    return figures


def scatter_figures(results: Results) -> list[Figure]:
    """Return one panel for each case and pair of modalities, in which a point is a run, coloured by its strength.

    The panel holds the points of every measure and shows those of one measure at a time.
    """
    return [_scatter_figure(results, case, pair) for case in results.cases for pair in case.pairs]


def _lines(results: Results) -> list[tuple[Case, ModalityPair]]:
    return [(case, pair) for case in results.cases for pair in case.pairs]


def _line_name(case: Case, pair: ModalityPair) -> str:
    return case.label if len(case.pairs) == 1 else f"{case.label}: {pair.name}"


def _line(results: Results, case: Case, pair: ModalityPair, *, measure: str, index: int) -> list[Trace]:
    """Return the line of one case and pair with its band."""
    mean, half = means(results.grid(case, pair.column(measure)))
    places, role = np.arange(len(mean)), series(index)
    hover = f"{plain(_line_name(case, pair))}, strength %{{customdata[0]}}: %{{y:.3f}} ± %{{customdata[1]:.3f}}"
    trace = line(
        places,
        mean,
        role,
        hover=hover,
        size=7,
        symbol=SYMBOLS[index % len(SYMBOLS)],
        dash="solid" if index < SERIES else "dash",
        meta=f"{measure}_{index}",
    )
    trace["customdata"] = [[f"{s:g}", float(h)] for s, h in zip(results.strengths, half, strict=True)]
    return [band(places, mean - half, mean + half, role, meta=f"{measure}_{index}_band"), trace]


def _chance_of_mutual_knn(results: Results) -> list[Trace]:
    levels = sorted({float(value) for value in results.runs["mutual_knn_chance"].round(6)})
    ends = [-0.35, len(results.strengths) - 0.65]
    return [
        line(
            ends,
            [level, level],
            "muted",
            hover=f"chance {level:.3f}",
            mode="lines",
            dash="dot",
            width=1.5,
            meta="mutual_knn_chance",
        )
        for level in levels
    ]


def _scatter_figure(results: Results, case: Case, pair: ModalityPair) -> Figure:
    """Return the panel of one pair: the accuracies of its two modalities, and of the fused model, by its alignment."""
    rows = results.runs[results.runs["case"] == case.label].sort_values(["strength", "seed"])
    strengths = rows["strength"].tolist()
    colours = [step(results.strengths.index(value), len(results.strengths)) for value in strengths]
    labels = [[f"{strength:g}", int(seed)] for strength, seed in zip(strengths, rows["seed"], strict=True)]
    shown = [p for p in case.predictors if p.fused or p.position - 1 in pair.modalities]
    traces: list[Trace] = []
    for measure in MEASURES:
        for predictor in shown:
            hover = f"{plain(predictor.name)}, strength %{{customdata[0]}}, seed %{{customdata[1]}}: %{{y:.1f}} at "
            trace = points(
                rows[pair.column(measure)].astype(float),
                100 * rows[predictor.column("accuracy")],
                colours,
                hover=hover + "%{x:.3f}",
                size=8,
                symbol=_scatter_symbol(predictor),
                outline=0 if predictor.position == 1 else 1.5,
                meta=f"{measure}_{predictor.suffix}",
            )
            traces.append(trace | {"customdata": labels, "visible": measure == "mutual_knn"})
    number, first = results.cases.index(case), pair == case.pairs[0]
    name = f"scatter-{number}" if first else f"scatter-{number}-{'-'.join(str(m + 1) for m in pair.modalities)}"
    title = _line_name(case, pair)
    return Figure(
        name=name,
        heading=title,
        label=f"{title}: test accuracy of each run against the alignment of its encoders",
        data=traces,
        layout=panel_layout(
            330,
            xaxis=value_axis(MEASURES["mutual_knn"]),
            yaxis=value_axis(),
            annotations=[title_above("test accuracy, %", y=1.01)],
        ),
        keys=tuple(Key("muted", p.name, predictor_symbol(p), line=False, open=p.position > 1) for p in shown),
    )


def _scatter_symbol(predictor: Predictor) -> str:
    """Return a filled symbol for modality 1 and an outline for every other predictor."""
    return predictor_symbol(predictor) + ("-open" if predictor.position > 1 else "")
