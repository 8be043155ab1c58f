"""The page of ``modalign reproduce align``: verdicts, sweeps over the strength, the thesis across all pairs, and the
sensitivity to the settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modalign.experiments.studies.claims import WORDS
from modalign.experiments.sweep.results import Case, Results, read
from modalign.files.paths import expanded
from modalign.report.figures import (
    Figure,
    Key,
    Layout,
    Sheet,
    Trace,
    band,
    bars,
    error_bar,
    level_line,
    line,
    means,
    name_axis,
    panel_layout,
    plain,
    points,
    share_range,
    strength_axis,
    stretched,
    stretched_axis,
    title_above,
    upright_line,
    value_axis,
)
from modalign.report.html import Page, folded_settings, write_study_page
from modalign.report.palette import modality, series
from modalign.report.words import Table, claims_table, counted, rounded, signed_points, verdict_counts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["best_strengths_sheet", "write"]

MEASURES = {"cka": "CKA", "svcca": "SVCCA", "mutual_knn": "mutual k-NN"}
KINDS = {"synthetic": ("synthetic", "circle"), "pairs": ("real pairs", "diamond")}
SENSITIVE = ("R = 0", "R = 4", "R = 8")  # the cases whose sensitivity is drawn
ABREAST = 5  # panels side by side
READING = (
    (
        "R",
        "The number of the label's 8 features that both modalities have; the other features are divided between them.",
    ),
    ("Strength", "The weight of the alignment term in the loss: task loss + strength × InfoNCE."),
    (
        "Best strength",
        "The strength with the highest validation accuracy, averaged over seeds. Brackets hold its 95 % bootstrap "
        "range.",
    ),
    (
        "Redundancy",
        "The share of the information about the label that each of the two modalities carries: R / I(X1, X2; Y). It is "
        "exact for the synthetic data and estimated from the training pairs otherwise.",
    ),
    *WORDS.items(),
)


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` from the sweeps, best.parquet and claims.json of the study.

    Args:
        folder (Path): The folder of a finished study.
    """
    import pandas as pd

    folder = expanded(folder)
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    best = pd.read_parquet(folder / "best.parquet")
    if (folder / "sweep").is_dir():
        return _write_real(folder, claims, best)
    synthetic, pairs = read(folder / "strength"), read(folder / "pairs")
    runs = sum(len(read(path.parent).runs) for path in folder.glob("*/runs.parquet"))
    return write_study_page(
        Page(
            title="Effect of the alignment strength",
            eyebrow="Reproduction of arXiv:2511.12121",
            facts=counted(runs, "run"),
            sentences=[verdict_counts(claims), *_sentences(best)],
            tables=[claims_table(claims), _best_table(best)],
            sheets=[
                _changes("strength", "Accuracy against strength, synthetic data", synthetic),
                _alignment(synthetic),
                _changes("pairs", "Accuracy against strength, real pairs", pairs),
                best_strengths_sheet(best[best["setting"] == "default"]),
                _sensitivity(best),
            ],
            reading=READING,
            folded=folded_settings(folder),
        ),
        folder,
    )


def _write_real(folder: Path, claims: list[dict[str, Any]], best: pd.DataFrame) -> Path:
    """Write the page of the study on a real data set, or on data with synergy."""
    results = read(folder / "sweep")
    label = results.cases[0].label
    return write_study_page(
        Page(
            title="Effect of the alignment strength",
            eyebrow="Reproduction of arXiv:2511.12121",
            facts=f"{label}, {counted(len(results.strengths), 'strength')}, {counted(len(results.runs), 'run')}",
            sentences=[verdict_counts(claims)],
            tables=[claims_table(claims), _best_table(best)],
            sheets=[_changes("strength", f"Accuracy against strength, {label}", results), _alignment(results, label)],
            reading=[
                (
                    "Paper",
                    "The paper publishes no code. Its protocol here is its data, its pair of modalities and its "
                    "strengths, 0 to 4 by 0.1; encoders and training are ours.",
                ),
                *READING[1:3],
                (
                    "Redundancy",
                    "R / I(X1, X2; Y), exact for generated data. Otherwise it is estimated from 16 principal "
                    "components of the mean step of each training sequence, and the sign of a score.",
                ),
                *WORDS.items(),
            ],
            folded=folded_settings(folder),
        ),
        folder,
    )


def best_strengths_sheet(best: pd.DataFrame) -> Sheet:
    """Return the thesis of the study: best strength, and the gain there, against the redundant share.

    Args:
        best (DataFrame): A row for each modality of each pair: its information, best strength, gain and intervals.
    """
    highest = float(np.nanmax(best[["best", "best_high"]].to_numpy()))
    strengths = panel_layout(
        360,
        xaxis=value_axis("redundant share of the information", range=[-0.04, 1.04], dtick=0.25),
        yaxis=stretched_axis(highest, "", range=stretched([-0.008, 1.3 * highest]).tolist()),
    )
    gains = panel_layout(
        360,
        xaxis=value_axis("redundant share of the information", range=[-0.04, 1.04], dtick=0.25),
        yaxis=value_axis(),
    )
    return Sheet(
        "thesis",
        "Best strength and gain by redundancy",
        "best strength and gain against the redundant share of the information, a point for each modality",
        figures=[
            _plane("thesis-best", "Best strength", _points(best, "best"), strengths),
            _plane("thesis-gain", "Gain at the best strength, points", _points(best, "gain"), gains),
        ],
        columns=2,
        keys=[
            *(Key("muted", name, symbol, line=False) for name, symbol in KINDS.values()),
            *(Key(modality(number), f"modality {number}", "square", line=False) for number in (1, 2)),
        ],
        height=3.8,
    )


def _sentences(best: pd.DataFrame) -> list[str]:
    rows = best[(best["kind"] == "synthetic") & (best["setting"] == "default") & (best["modality"] == 2)]
    listed = ", ".join(f"{row.best:g} at {row.case}" for row in rows.itertuples())
    gain = rows.loc[rows["gain"].idxmax()]
    return [
        f"The best strength for the transformed modality is {listed}; the largest gain is "
        f"{100 * gain['gain']:.1f} points, at {gain['case']}."
    ]


def _best_table(best: pd.DataFrame) -> Table:
    rows = []
    for row in best[best["setting"] == "default"].itertuples():
        share = row.redundancy / row.mutual_12 if row.mutual_12 > 0 else float("nan")
        interval = f"[{100 * row.gain_low:.1f}, {100 * row.gain_high:.1f}]".replace("-", "−")
        # a strength of 0 was chosen, whose change over itself says nothing
        gain = "–" if row.best == 0 else f"{signed_points(row.gain)} {interval}"
        rows.append(
            (
                row.case,
                row.name,
                row.trend,
                f"{row.best:g} [{row.best_low:g}, {row.best_high:g}]",
                gain,
                signed_points(row.end),
                rounded(row.redundancy),
                rounded(row.unique_1),
                rounded(row.unique_2),
                rounded(row.synergy),
                f"{share:.0%}",
            )
        )
    columns = (
        "pairs",
        "modality",
        "trend",
        "best strength",
        "gain, points",
        "change at the strongest, points",
        "shared",
        "only in 1",
        "only in 2",
        "only jointly",
        "share",
    )
    lead = (
        "Trend: the change of accuracy as the strength grows. The last five columns are the information about the "
        "label, in bits: shared by the modalities, in one of them alone, and only in both together; then the share of "
        "what is shared."
    )
    return Table("best", "Best strengths and information", columns, rows, lead=lead)


def _changes(name: str, title: str, results: Results) -> Sheet:
    """Return the change of accuracy against strength, paired by seed: a panel for each case, a line for each model."""
    columns = min(ABREAST, len(results.cases))
    figures = []
    for number, case in enumerate(results.cases):
        traces = [trace for predictor in case.predictors for trace in _change(results, case, predictor.position - 1)]
        layout = panel_layout(
            250,
            xaxis=strength_axis(results.strengths, "strength", tickangle=-45),
            yaxis=value_axis(),
            annotations=[title_above("change, points")],
            shapes=[level_line(0)],
        )
        label = f"{case.label}: change of test accuracy against alignment strength, paired by seed"
        keys = tuple(Key(modality(predictor.suffix), predictor.name) for predictor in case.predictors)
        figures.append(Figure(f"{name}-{number}", case.label, label, data=traces, layout=layout, keys=keys))
    if len(results.cases) == columns:
        share_range(figures)
    label = "change of test accuracy against alignment strength, a panel for each case, mean over seeds with 95 % bands"
    return Sheet(name, title, label, figures=figures, columns=columns, height=2.7)


def _change(results: Results, case: Case, index: int) -> list[Trace]:
    """Return the line of one model with its band, and a ring at the strength chosen on validation accuracy."""
    predictor = case.predictors[index]
    grid = 100 * results.grid(case, predictor.column("accuracy"))
    mean, half = means(grid - grid[:, :1])
    places, role = np.arange(len(mean)), modality(predictor.suffix)
    best = int(results.grid(case, predictor.column("validation_accuracy")).mean(0).round(12).argmax())
    curve = line(places, mean, role, hover=f"{plain(predictor.name)}, strength %{{customdata}}: %{{y:+.1f}}")
    curve["customdata"] = [f"{value:g}" for value in results.strengths]
    ring = points([best], [mean[best]], role, size=13, symbol="circle-open", outline=2)
    return [band(places, mean - half, mean + half, role), curve, ring]


def _alignment(results: Results, data: str = "synthetic data") -> Sheet:
    figures = []
    for measure, title in MEASURES.items():
        traces = []
        for index, case in enumerate(results.cases):
            mean = results.grid(case, measure).mean(0)
            hover = f"{plain(case.label)}, strength %{{customdata}}: %{{y:.3f}}"
            curve = line(np.arange(len(mean)), mean, series(index), hover=hover)
            curve["customdata"] = [f"{value:g}" for value in results.strengths]
            traces.append(curve)
        layout = panel_layout(270, xaxis=strength_axis(results.strengths, "strength"), yaxis=value_axis())
        label = f"{title} of the encoders' outputs against strength, one line for each redundancy"
        figures.append(Figure(f"alignment-{measure}", title, label, data=traces, layout=layout))
    return Sheet(
        "alignment",
        f"Alignment against strength, {data}",
        "alignment of the two encoders' outputs against strength, one line for each redundancy",
        figures=figures,
        columns=len(MEASURES),
        keys=[Key(series(index), case.label) for index, case in enumerate(results.cases)],
        height=2.8,
    )


def _points(best: pd.DataFrame, column: str) -> list[Trace]:
    """Return a point with its interval for each modality: its ``column`` against the redundant share."""
    share = (best["redundancy"] / best["mutual_12"]).to_numpy()
    traces = []
    for kind, (_, symbol) in KINDS.items():
        selected = (best["kind"] == kind).to_numpy()
        values = best.loc[selected, [column, f"{column}_low", f"{column}_high"]].to_numpy(np.float64)
        heights = stretched(values) if column == "best" else 100 * values
        below, above = np.abs(np.nan_to_num(heights[:, [1, 2]] - heights[:, [0]])).T
        roles = [modality(number) for number in best.loc[selected, "modality"]]
        trace = points(share[selected], heights[:, 0], roles, size=8, symbol=symbol)
        trace["error_y"] = error_bar(below.tolist(), above.tolist(), "axis", 1.5)
        trace["customdata"] = [
            f"{value:g}" if column == "best" else f"{100 * value:.1f} points" for value in values[:, 0]
        ]
        trace["hovertemplate"] = "redundant share %{x:.2f}: %{customdata}<extra></extra>"
        traces.append(trace)
    return traces


def _plane(name: str, heading: str, traces: list[Trace], layout: Layout) -> Figure:
    label = f"{heading.lower()} against the redundant share of the information, a point for each modality"
    return Figure(name, heading, label, data=traces, layout=layout)


def _sensitivity(best: pd.DataFrame) -> Sheet:
    """Return gain at the best strength and change at the strongest, a group of bars for each setting."""
    rows = best[(best["kind"] == "synthetic") & (best["modality"] == 2)]
    settings = list(dict.fromkeys(rows["setting"]))
    figures = []
    for column, heading in (("gain", "gain at the best strength, points"), ("end", "change at the strongest, points")):
        traces = []
        for index, case in enumerate(SENSITIVE):
            values = rows[rows["case"] == case].set_index("setting").loc[settings]
            halves = 100 * (values[f"{column}_high"] - values[f"{column}_low"]).to_numpy() / 2
            places = np.arange(len(settings)) + 0.27 * (index - 1)
            lengths = 100 * values[column].to_numpy()
            traces.append(
                bars(places, lengths, series(index), width=0.25, halves=halves, hover=f"{case}: %{{x:+.1f}} points")
            )
        layout = panel_layout(
            120 + 60 * len(settings),
            xaxis=value_axis(),
            yaxis=name_axis(settings),
            shapes=[upright_line(0, dash="solid")],
        )
        label = f"{heading} for {', '.join(SENSITIVE)}, one group of bars for each setting"
        figures.append(Figure(f"sensitivity-{column}", heading, label, data=traces, layout=layout))
    return Sheet(
        "sensitivity",
        "Sensitivity to the settings",
        f"gain at the best strength and change at the strongest for {', '.join(SENSITIVE)}, one group of bars for each "
        "setting",
        figures=figures,
        columns=2,
        keys=[Key(series(index), case, "square", line=False) for index, case in enumerate(SENSITIVE)],
        height=3.4,
    )
