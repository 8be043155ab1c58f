"""The page of ``modalign reproduce emergence``: verdicts, and the paper's figures drawn from the study's tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modalign.experiments.studies.changes import Change, changes_of
from modalign.experiments.studies.claims import WORDS
from modalign.experiments.studies.emergence_claims import (
    best_of_layers,
    correlations,
    defining,
    published_statistics,
)
from modalign.experiments.studies.layer_pairs import MEASURES
from modalign.experiments.studies.measured import spearman
from modalign.files.paths import expanded
from modalign.report.figures import (
    Figure,
    Key,
    Sheet,
    Trace,
    band,
    boxes,
    heat_map,
    level_line,
    line,
    name_axis,
    panel_layout,
    points,
    title_above,
    value_axis,
)
from modalign.report.html import Page, folded_settings, write_study_page
from modalign.report.palette import ramp, step
from modalign.report.words import Table, claims_table, counted, verdict_counts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write"]

NAMES = {"unbiased_cka": "unbiased CKA", "mutual_knn": "mutual k-NN", "svcca": "SVCCA"}
FACTORS = ["uniqueness", "heterogeneity"]
SHOWN = 5  # values of uniqueness in figures
READING = (
    (
        "Uniqueness U",
        "The number of the label's 8 features that only one modality has; both modalities have the other 8 − U.",
    ),
    ("Heterogeneity", "The depth of the random network through which modality 2 is seen."),
    ("Alignment", "The highest score of all pairs of layers of two encoders, on held-out pairs."),
    *WORDS.items(),
)


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` from alignment.parquet, models.parquet and claims.json.

    Args:
        folder (Path): The folder of a finished study.
    """
    folder = expanded(folder)
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["settings"]
    table = best_of_layers(folder)
    return write_study_page(
        Page(
            title="When does alignment emerge without an alignment loss?",
            eyebrow="Reproduction of arXiv:2502.16282",
            facts=f"{counted(len(table), 'pair')} of encoders trained independently, "
            f"{counted(len(settings['seeds']), 'seed')}, {settings['n']:,} items",
            sentences=[verdict_counts(claims, "claim", " of the paper that this study can judge"), *_sentences(table)],
            tables=[claims_table(claims)] if claims else [],
            sheets=[
                *_against(table, "uniqueness", "heterogeneity"),
                *_against(table, "heterogeneity", "uniqueness"),
                _heat_maps(table),
                *_correlations(table),
                *_scatters(table),
                *_levels(folder),
            ],
            numbers=_published(table, changes_of(settings)) if settings.get("protocol") == "paper" else (),
            notes=_notes(settings),
            reading=READING,
            folded=folded_settings(folder),
        ),
        folder,
    )


def _notes(settings: Mapping[str, Any]) -> list[str]:
    """Return what the numbers of a protocol depend on."""
    if "compared" not in settings:
        return []
    k, compared = settings["k"], settings["compared"]
    notes = [
        f"Mutual k-NN of unrelated encoders is {k / (compared - 1):.3f}: {k} neighbours among {compared:,} pairs. The "
        "highest score of several pairs of layers lies above it."
    ]
    if settings.get("protocol") == "paper":
        notes.append(
            "As in the published code, all seeds train on one draw of the data: an interval over seeds says nothing "
            "about other draws. The default protocol draws the data anew for each seed."
        )
    return notes


def _published(table: pd.DataFrame, changes: Sequence[Change]) -> list[Table]:
    """Return the table of statistics as the published code takes them, if there are any.

    A number of the paper is left out where a changed setting gives ours another meaning.
    """
    changed = {change.name for change in changes if change.by_user}
    rows = [
        (name, f"{ours:+.3f}", "" if changed & defining(source, name) else f"{paper:+.3f}")
        for source, name, ours, paper in published_statistics(table)
    ]
    lead = (
        "The highest alignment over all seeds and depths, and correlations over all seeds of a heterogeneity together, "
        "as in the published code. The paper's are of ten heterogeneities; those with U leave out its U = 8."
    )
    columns = ("statistic", "here", "paper")
    title = "Statistics as the published code takes them"
    return [Table("published", title, columns, rows, lead=lead)] if rows else []


def _highest(table: pd.DataFrame) -> pd.DataFrame:
    """Return the highest alignment over the depths of encoder 2."""
    highest: pd.DataFrame = table.groupby([*FACTORS, "temperature", "seed"])[list(MEASURES)].max().reset_index()
    return highest


def _sentences(table: pd.DataFrame) -> list[str]:
    highest = _highest(table)
    by_u = highest.groupby("uniqueness")["unbiased_cka"].mean()
    by_d = highest[highest["uniqueness"] == by_u.index.min()].groupby("heterogeneity")["unbiased_cka"].mean()
    # numbers without a verdict: the claims have one, with an interval
    sentences = []
    if len(by_u) == len(by_d) == 1:
        sentences.append(
            f"Unbiased CKA is {by_u.iloc[0]:.2f} at U = {by_u.index[0]} and heterogeneity {by_d.index[0]}, the mean of "
            "all seeds."
        )
    if len(by_u) > 1:
        sentences.append(
            f"Unbiased CKA is {by_u.iloc[0]:.2f} at U = {by_u.index[0]} and {by_u.iloc[-1]:.2f} at U = "
            f"{by_u.index[-1]}, the mean of all seeds and heterogeneities."
        )
    if len(by_d) > 1:
        sentences.append(
            f"At U = {by_u.index[0]} unbiased CKA is {by_d.iloc[0]:.2f} at heterogeneity {by_d.index[0]} and "
            f"{by_d.iloc[-1]:.2f} at heterogeneity {by_d.index[-1]}, the mean of all seeds."
        )
    return sentences


def _some(values: pd.Series[Any]) -> list[Any]:
    """Return the values that figures show: all up to five, else five that are evenly spaced in order."""
    every = sorted(values.unique())
    return [every[i] for i in np.unique(np.linspace(0, len(every) - 1, SHOWN).round().astype(int))]


def _heading(table: pd.DataFrame, title: str, value: int) -> str:
    """Return the heading of a panel of one uniqueness; a panel that is alone on its sheet bears the sheet's title."""
    return f"U = {value}" if table["uniqueness"].nunique() > 1 else f"{title}, U = {value}"


def _against(table: pd.DataFrame, x: str, lines: str) -> list[Sheet]:
    """Return the highest alignment against one factor, a panel for each measure and a line for each other factor.

    There is no sheet for a factor of one level.
    """
    highest = _highest(table)
    if highest[x].nunique() == 1:
        return []
    name = f"{x}-by-level" if lines == "temperature" else x
    values = _some(highest[lines]) if lines == "uniqueness" else sorted(highest[lines].unique())
    figures = []
    for measure in MEASURES:
        traces: list[Trace] = []
        keys = []
        for index, value in enumerate(values):
            role = step(index, len(values))
            curve = highest[highest[lines] == value].groupby(x)[measure].agg(["mean", "min", "max"])
            rho = f"  (ρ {spearman(curve.index.to_numpy(), curve['mean'].to_numpy()):+.2f})" if len(curve) > 2 else ""
            hover = f"{lines} {value}, {x} %{{x}}: %{{y:.2f}}"
            traces += [
                band(curve.index, curve["min"], curve["max"], role),
                line(curve.index, curve["mean"], role, hover=hover),
            ]
            keys.append(Key(role, f"{value}{rho}"))
        low, high = _span(traces)
        # the legend of a picture needs room above the lines
        layout = panel_layout(290, xaxis=value_axis(x), yaxis=value_axis(range=[min(0.0, low), 1.3 * high]))
        label = f"{NAMES[measure]} against {x}, one line for each {lines}"
        label += ", with Spearman's correlation ρ" if highest[x].nunique() > 2 else ""
        figures.append(
            Figure(
                f"{name}-{measure}",
                NAMES[measure],
                label,
                data=traces,
                layout=layout,
                keys=tuple(keys),
                keys_title=lines,
            )
        )
    sheet = Sheet(
        f"alignment-{name}",
        f"Alignment against {x}",
        f"highest alignment against {x}, one line for each {lines}, mean over seeds",
        figures=figures,
        columns=len(MEASURES),
        height=3.0,
    )
    return [sheet]


def _span(traces: list[Trace]) -> tuple[float, float]:
    """Return the least and the largest height of all traces."""
    heights = [y for trace in traces for y in trace["y"] if isinstance(y, float)]
    return min(heights, default=0.0), max(heights, default=1.0)


def _heat_maps(table: pd.DataFrame) -> Sheet:
    title = "Unbiased CKA by depth and heterogeneity"
    figures = []
    for value in _some(table["uniqueness"]):
        grid = table[table["uniqueness"] == value].pivot_table(
            index="depth_2", columns="heterogeneity", values="unbiased_cka"
        )
        cells = grid.to_numpy().tolist()
        # leading zeros are left out, so that the numbers fit into the cells
        text = [[f"{score:.2f}"[-3:] if score < 1 else "1" for score in row] for row in cells]
        trace = heat_map(cells, ramp(8, dark=False), text=text, span=(0.0, 1.0), hover="unbiased CKA %{z:.3f}")
        layout = panel_layout(
            240,
            xaxis=name_axis([str(name) for name in grid.columns], "heterogeneity", range=[-0.5, grid.shape[1] - 0.5]),
            yaxis=name_axis([str(name) for name in grid.index], range=[-0.5, grid.shape[0] - 0.5]),
            annotations=[title_above("depth of encoder 2")],
        )
        label = f"unbiased CKA for every depth of encoder 2 and heterogeneity at uniqueness {value}"
        figures.append(Figure(f"heat-map-{value}", _heading(table, title, value), label, data=[trace], layout=layout))
    return Sheet(
        "heat-maps",
        title,
        "unbiased CKA for every depth of encoder 2 and heterogeneity, one map for each uniqueness",
        figures=figures,
        columns=len(figures),
    )


def _correlations(table: pd.DataFrame) -> list[Sheet]:
    """Return the correlations over depths, if there are enough of them."""
    if table["depth_2"].nunique() < 3:
        return []
    values = sorted(table["uniqueness"].unique())
    pairs = {
        "alignment and performance": ("unbiased_cka", "accuracy"),
        "alignment and depth": ("unbiased_cka", "depth_2"),
        "performance and depth": ("accuracy", "depth_2"),
    }
    figures = []
    for number, (heading, (first, second)) in enumerate(pairs.items()):
        samples = [correlations(table, first, second, value) for value in values]
        layout = panel_layout(
            260,
            xaxis=name_axis([str(value) for value in values], "uniqueness", range=[-0.5, len(values) - 0.5]),
            yaxis=value_axis(range=[-1.05, 1.05]),
            annotations=[title_above("Spearman's ρ")],
            shapes=[level_line(0)],
        )
        traces = boxes(samples, range(len(values)), "ink", "modality-2")
        label = f"Spearman correlation of {heading}, a box over heterogeneities and seeds for each uniqueness"
        figures.append(Figure(f"correlations-{number}", heading, label, data=traces, layout=layout))
    sheet = Sheet(
        "correlations",
        "Correlations over the depth, by uniqueness",
        "Spearman correlations over depths of encoder 2, a box over heterogeneities and seeds for each uniqueness",
        figures=figures,
        columns=len(pairs),
        height=2.9,
    )
    return [sheet]


def _scatters(table: pd.DataFrame) -> list[Sheet]:
    """Return performance against alignment at every depth, and alignment against performance at the largest."""
    depth = int(table["depth_2"].max())
    axes = ("unbiased CKA", "accuracy, %")
    every = _scatter(
        table,
        axes,
        name="performance",
        title="Performance against alignment",
        label="test accuracy of encoder 2 against its alignment with encoder 1, a point for each depth and seed",
    )
    deepest = _scatter(
        table[table["depth_2"] == depth],
        axes[::-1],
        name="deepest",
        title=f"Alignment against performance at depth {depth}",
        label=f"unbiased CKA of the encoder of modality 2 of depth {depth} against its test accuracy, a point for each "
        "heterogeneity and seed",
    )
    return [every, deepest]


def _scatter(table: pd.DataFrame, axes: Sequence[str], *, name: str, title: str, label: str) -> Sheet:
    """Return a sheet with a panel for each uniqueness that figures show and a colour for each heterogeneity."""
    kinds = sorted(table["heterogeneity"].unique())
    scores = {"unbiased CKA": table["unbiased_cka"], "accuracy, %": 100 * table["accuracy"]}
    x, y = (scores[axis] for axis in axes)
    figures = []
    for value in _some(table["uniqueness"]):
        traces = []
        for index, kind in enumerate(kinds):
            rows = (table["uniqueness"] == value) & (table["heterogeneity"] == kind)
            hover = f"heterogeneity {kind}: {axes[0]} %{{x:.3g}}, {axes[1]} %{{y:.3g}}"
            traces.append(points(x[rows], y[rows], step(index, len(kinds)), size=5, hover=hover))
        layout = panel_layout(260, xaxis=value_axis(axes[0]), yaxis=value_axis(), annotations=[title_above(axes[1])])
        heading = _heading(table, title, value)
        figures.append(
            Figure(f"{name}-{value}", heading, f"{label}, at uniqueness {value}", data=traces, layout=layout)
        )
    return Sheet(
        name,
        title,
        label,
        figures=figures,
        columns=len(figures),
        keys=[Key(step(index, len(kinds)), str(kind), line=False) for index, kind in enumerate(kinds)],
        keys_title="heterogeneity",
        height=2.9,
    )


def _levels(folder: Path) -> list[Sheet]:
    """Return alignment against uniqueness by level of information, where the study has several."""
    table = best_of_layers(folder, levels=True)
    if table["temperature"].nunique() == 1:
        return []
    return _against(table, "uniqueness", "temperature")
