"""The page of ``modalign reproduce emergence``: verdicts, and the paper's figures drawn from the study's tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modalign.experiments.studies.claims import RULES
from modalign.experiments.studies.emergence_claims import best_of_layers, correlations, published_statistics
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
from modalign.report.words import Table, claims_table, verdict_counts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write"]

NAMES = {"unbiased_cka": "unbiased CKA", "mutual_knn": "mutual k-NN", "svcca": "SVCCA"}
FACTORS = ["uniqueness", "heterogeneity"]
READING = (
    (
        "Uniqueness U",
        "The number of the label's 8 features that only one modality has; both modalities have the other 8 − U.",
    ),
    ("Heterogeneity", "The depth of the random network through which modality 2 is seen."),
    ("Alignment", "The highest score of all pairs of layers of two encoders, on held-out pairs."),
    *RULES.items(),
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
            facts=f"{len(table)} pairs of encoders trained independently, {len(settings['seeds'])} seeds, "
            f"{settings['n']:,} items",
            sentences=[verdict_counts(claims, "the paper's {} claims"), *_sentences(table)],
            tables=[claims_table(claims)],
            sheets=[
                _against(table, "uniqueness", "heterogeneity"),
                _against(table, "heterogeneity", "uniqueness"),
                _heat_maps(table),
                _correlations(table),
                _performance(table),
                _deepest(table),
                *_levels(folder),
            ],
            numbers=_published(table) if settings.get("protocol") == "paper" else (),
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


def _published(table: pd.DataFrame) -> list[Table]:
    """Return the table of statistics as the published code takes them."""
    rows = [(name, f"{ours:+.3f}", f"{paper:+.3f}") for name, ours, paper in published_statistics(table)]
    lead = (
        "The highest alignment over all seeds and depths, and correlations over all seeds of a heterogeneity together, "
        "as in the published code. The paper's are of ten heterogeneities; those with U leave out its U = 8."
    )
    columns = ("statistic", "here", "paper")
    return [Table("published", "Statistics as the published code takes them", columns, rows, lead=lead)]


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


def _against(table: pd.DataFrame, x: str, lines: str) -> Sheet:
    """Return the highest alignment against one factor, a panel for each measure and a line for each other factor."""
    highest = _highest(table)
    name = f"{x}-by-level" if lines == "temperature" else x
    values = sorted(highest[lines].unique())
    if lines == "uniqueness":
        values = [value for value in values if value % 2 == 0]
    figures = []
    for measure in MEASURES:
        traces: list[Trace] = []
        keys = []
        for index, value in enumerate(values):
            role = step(index, len(values))
            curve = highest[highest[lines] == value].groupby(x)[measure].agg(["mean", "min", "max"])
            rho = spearman(curve.index.to_numpy(), curve["mean"].to_numpy())
            hover = f"{lines} {value}, {x} %{{x}}: %{{y:.2f}}"
            traces += [
                band(curve.index, curve["min"], curve["max"], role),
                line(curve.index, curve["mean"], role, hover=hover),
            ]
            keys.append(Key(role, f"{value}  (ρ {rho:+.2f})"))
        low, high = _span(traces)
        # the legend of a picture needs room above the lines
        layout = panel_layout(290, xaxis=value_axis(x), yaxis=value_axis(range=[min(0.0, low), 1.3 * high]))
        label = f"{NAMES[measure]} against {x}, one line for each {lines}, with Spearman's correlation ρ"
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
    return Sheet(
        f"alignment-{name}",
        f"Alignment against {x}",
        f"highest alignment against {x}, one line for each {lines}, mean over seeds",
        figures=figures,
        columns=len(MEASURES),
        height=3.0,
    )


def _span(traces: list[Trace]) -> tuple[float, float]:
    """Return the least and the largest height of all traces."""
    heights = [y for trace in traces for y in trace["y"] if isinstance(y, float)]
    return min(heights, default=0.0), max(heights, default=1.0)


def _heat_maps(table: pd.DataFrame) -> Sheet:
    figures = []
    for value in (value for value in sorted(table["uniqueness"].unique()) if value % 2 == 0):
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
        figures.append(Figure(f"heat-map-{value}", f"U = {value}", label, data=[trace], layout=layout))
    return Sheet(
        "heat-maps",
        "Unbiased CKA by depth and heterogeneity",
        "unbiased CKA for every depth of encoder 2 and heterogeneity, one map for each uniqueness",
        figures=figures,
        columns=len(figures),
    )


def _correlations(table: pd.DataFrame) -> Sheet:
    values = sorted(table["uniqueness"].unique())
    pairs = {
        "alignment and performance": ("unbiased_cka", "accuracy"),
        "alignment and depth": ("unbiased_cka", "depth_2"),
        "performance and depth": ("accuracy", "depth_2"),
    }
    figures = []
    for number, (heading, (first, second)) in enumerate(pairs.items()):
        samples = [correlations(table, first, second, value) for value in values]
        complete = all(len(sample) for sample in samples)
        layout = panel_layout(
            260,
            xaxis=name_axis([str(value) for value in values], "uniqueness", range=[-0.5, len(values) - 0.5]),
            yaxis=value_axis(range=[-1.05, 1.05]),
            annotations=[title_above("Spearman's ρ")],
            shapes=[level_line(0)],
        )
        traces = boxes(samples, range(len(values)), "ink", "modality-2") if complete else []
        label = f"Spearman correlation of {heading}, a box over heterogeneities and seeds for each uniqueness"
        figures.append(Figure(f"correlations-{number}", heading, label, data=traces, layout=layout))
    return Sheet(
        "correlations",
        "Correlations over the depth, by uniqueness",
        "Spearman correlations over depths of encoder 2, a box over heterogeneities and seeds for each uniqueness",
        figures=figures,
        columns=len(pairs),
        height=2.9,
    )


def _performance(table: pd.DataFrame) -> Sheet:
    every = sorted(table["uniqueness"].unique())
    values = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, 4).round().astype(int))]
    kinds = sorted(table["heterogeneity"].unique())
    figures = []
    for value in values:
        traces = []
        for index, kind in enumerate(kinds):
            rows = table[(table["uniqueness"] == value) & (table["heterogeneity"] == kind)]
            hover = f"heterogeneity {kind}: %{{y:.1f}} % at %{{x:.3f}}"
            role = step(index, len(kinds))
            traces.append(points(rows["unbiased_cka"], 100 * rows["accuracy"], role, size=5, hover=hover))
        layout = panel_layout(
            260, xaxis=value_axis("unbiased CKA"), yaxis=value_axis(), annotations=[title_above("accuracy, %")]
        )
        label = f"test accuracy of encoder 2 against its alignment with encoder 1 at uniqueness {value}"
        figures.append(Figure(f"performance-{value}", f"U = {value}", label, data=traces, layout=layout))
    return Sheet(
        "performance",
        "Performance against alignment",
        "test accuracy of encoder 2 against its alignment with encoder 1, a point for each depth and seed",
        figures=figures,
        columns=len(values),
        keys=[Key(step(index, len(kinds)), str(kind), line=False) for index, kind in enumerate(kinds)],
        keys_title="heterogeneity",
        height=2.9,
    )


def _deepest(table: pd.DataFrame) -> Sheet:
    """Return alignment against performance over heterogeneities, for the deepest encoder of modality 2."""
    depth = int(table["depth_2"].max())
    rows = table[table["depth_2"] == depth]
    kinds = sorted(rows["heterogeneity"].unique())
    figures = []
    for value in (value for value in sorted(rows["uniqueness"].unique()) if value % 2 == 0):
        traces = []
        for index, kind in enumerate(kinds):
            some = rows[(rows["uniqueness"] == value) & (rows["heterogeneity"] == kind)]
            hover = f"heterogeneity {kind}: %{{y:.3f}} at %{{x:.1f}} %"
            role = step(index, len(kinds))
            traces.append(points(100 * some["accuracy"], some["unbiased_cka"], role, size=5, hover=hover))
        layout = panel_layout(
            260, xaxis=value_axis("accuracy, %"), yaxis=value_axis(), annotations=[title_above("unbiased CKA")]
        )
        label = f"alignment of the encoder of depth {depth} against its accuracy at uniqueness {value}"
        figures.append(Figure(f"deepest-{value}", f"U = {value}", label, data=traces, layout=layout))
    return Sheet(
        "deepest",
        f"Alignment against performance at depth {depth}",
        "unbiased CKA of the deepest encoder of modality 2 against its test accuracy, a point for each heterogeneity "
        "and seed",
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
    return [_against(table, "uniqueness", "temperature")]
