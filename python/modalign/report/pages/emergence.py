"""The page of ``modalign reproduce emergence``: verdicts, and the paper's figures drawn from the study's tables."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from modalign.experiments.studies.claims import RULES, spearman
from modalign.experiments.studies.emergence import MEASURES, best_of_layers, correlations
from modalign.report.html import Picture, claims_table, figure, write_page

__all__ = ["write"]

NAMES = {"unbiased_cka": "unbiased CKA", "mutual_knn": "mutual k-NN", "svcca": "SVCCA"}
READING = (
    ("Uniqueness U", "How many of the label's 8 features only one modality has; the other 8 − U are shared."),
    ("Heterogeneity", "Depth of the random network in front of modality 2."),
    ("Alignment", "Of two encoders: the highest score of all pairs of layers, on held-out pairs."),
    *RULES.items(),
)


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` from models.parquet, alignment.parquet and claims.json."""
    folder = Path(folder)
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["settings"]
    table = best_of_layers(folder)
    counts = Counter(claim["verdict"] for claim in claims)
    pictures: list[Picture] = []
    _against(pictures, table, "uniqueness", "heterogeneity")
    _against(pictures, table, "heterogeneity", "uniqueness")
    _heat_maps(pictures, table)
    _correlations(pictures, table)
    _performance(pictures, table)
    return write_page(
        folder,
        "report.html",
        title="When does alignment emerge by itself?",
        eyebrow="Reproduction of arXiv:2502.16282",
        facts=f"{len(table)} pairs of encoders trained apart, {len(settings['seeds'])} seeds, {settings['n']:,} items",
        sentences=[_summary(counts, len(claims)), *_sentences(table)],
        tables=[claims_table(claims)],
        pictures=pictures,
        reading=READING,
    )


def _summary(counts: Counter[str], total: int) -> str:
    return (
        f"Of the paper's {total} claims, {counts['reproduced']} are reproduced, {counts['partly']} partly, "
        f"{counts['not']} not."
    )


def _sentences(table: Any) -> list[str]:
    top = table.groupby(["uniqueness", "heterogeneity", "seed"])[list(MEASURES)].max().reset_index()
    by_u = top.groupby("uniqueness")["unbiased_cka"].mean()
    by_d = top[top["uniqueness"] == by_u.index.min()].groupby("heterogeneity")["unbiased_cka"].mean()
    return [
        f"The more unique the information, the less alignment: unbiased CKA goes from {by_u.iloc[0]:.2f} at "
        f"U = {by_u.index[0]} to {by_u.iloc[-1]:.2f} at U = {by_u.index[-1]}.",
        f"The more unlike the modalities, the less: at U = {by_u.index[0]} from {by_d.iloc[0]:.2f} at heterogeneity "
        f"{by_d.index[0]} to {by_d.iloc[-1]:.2f} at {by_d.index[-1]}.",
    ]


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](value) for value in np.linspace(0, 0.88, count)]


def _against(into: list[Picture], table: Any, x: str, lines: str) -> None:
    top = table.groupby(["uniqueness", "heterogeneity", "seed"])[list(MEASURES)].max().reset_index()
    shown = sorted(top[lines].unique())
    if lines == "uniqueness":
        shown = [value for value in shown if value % 2 == 0]
    label = f"highest alignment against {x}, one line for each {lines}, mean over seeds"
    with figure(into, f"alignment-{x}", f"Alignment against {x}", label, 1, len(MEASURES), height=3.0) as axes:
        for ax, measure in zip(axes[0], MEASURES, strict=True):
            for value, colour in zip(shown, _colours(len(shown)), strict=True):
                mine = top[top[lines] == value].groupby(x)[measure].agg(["mean", "min", "max"])
                rho = spearman(mine.index.to_numpy(), mine["mean"].to_numpy())
                ax.plot(mine.index, mine["mean"], "o-", color=colour, ms=3, label=f"{value}  (ρ {rho:+.2f})")
                ax.fill_between(mine.index, mine["min"], mine["max"], color=colour, alpha=0.12, lw=0)
            ax.set(title=NAMES[measure], xlabel=x, ylim=(min(0, ax.get_ylim()[0]), 1.3 * ax.get_ylim()[1]))
            ax.legend(title=lines, title_fontsize=8)


def _heat_maps(into: list[Picture], table: Any) -> None:
    shown = [value for value in sorted(table["uniqueness"].unique()) if value % 2 == 0]
    label = "unbiased CKA for every depth of encoder 2 and heterogeneity, one map for each uniqueness"
    with figure(into, "heat-maps", "Depth against heterogeneity", label, 1, len(shown), height=2.6) as axes:
        for ax, value in zip(axes[0], shown, strict=True):
            grid = table[table["uniqueness"] == value].pivot_table(
                index="depth_2", columns="heterogeneity", values="unbiased_cka"
            )
            ax.imshow(grid.to_numpy(), origin="lower", vmin=0, vmax=1, cmap="viridis", aspect="auto")
            for row, column in np.ndindex(grid.shape):
                score = grid.to_numpy()[row, column]
                ax.text(column, row, f"{score:.2f}"[-3:] if score < 1 else "1", ha="center", va="center", fontsize=7,
                        color="white" if score < 0.6 else "black")  # fmt: skip
            ax.set(title=f"U = {value}", xlabel="heterogeneity")
            ax.set_xticks(range(grid.shape[1]), grid.columns)
            ax.set_yticks(range(grid.shape[0]), grid.index)
            ax.grid(visible=False)
        axes[0, 0].set_ylabel("depth of encoder 2")


def _correlations(into: list[Picture], table: Any) -> None:
    shown = sorted(table["uniqueness"].unique())
    pairs = (
        ("alignment and performance", "unbiased_cka", "accuracy"),
        ("alignment and depth", "unbiased_cka", "depth_2"),
        ("performance and depth", "accuracy", "depth_2"),
    )
    label = "Spearman correlations over depths of encoder 2, a box over heterogeneities and seeds for each uniqueness"
    with figure(into, "correlations", "Correlations over depth, by uniqueness", label, 1, 3, height=2.8) as axes:
        for ax, (title, one, two) in zip(axes[0], pairs, strict=True):
            values = [correlations(table, one, two, value) for value in shown]
            if all(len(some) for some in values):
                ax.boxplot(values, positions=range(len(shown)), widths=0.6, medianprops={"color": "#c8500a"},
                           flierprops={"ms": 2})  # fmt: skip
            ax.axhline(0, color="#5b6169", lw=0.8)
            ax.set(title=title, xlabel="uniqueness", ylim=(-1.05, 1.05))
            ax.set_xticks(range(len(shown)), shown)
        axes[0, 0].set_ylabel("Spearman's ρ")


def _performance(into: list[Picture], table: Any) -> None:
    every = sorted(table["uniqueness"].unique())
    shown = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, 4).round().astype(int))]
    kinds = sorted(table["heterogeneity"].unique())
    label = "test accuracy of encoder 2 against its alignment with encoder 1, a point for each depth and seed"
    with figure(into, "performance", "Performance against alignment", label, 1, len(shown), height=2.8) as axes:
        for ax, value in zip(axes[0], shown, strict=True):
            for kind, colour in zip(kinds, _colours(len(kinds)), strict=True):
                mine = table[(table["uniqueness"] == value) & (table["heterogeneity"] == kind)]
                ax.plot(mine["unbiased_cka"], 100 * mine["accuracy"], "o", color=colour, ms=3, label=kind)
            ax.set(title=f"U = {value}", xlabel="unbiased CKA")
        axes[0, 0].set_ylabel("accuracy, %")
        axes[0, -1].legend(title="heterogeneity", title_fontsize=8)
