"""The page of ``modalign reproduce align``: verdicts, strength sweeps, the thesis across all pairs, the sensitivity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from modalign.experiments.studies.claims import RULES
from modalign.experiments.sweep.results import Case, Results, read
from modalign.experiments.sweep.statistics import mean_interval
from modalign.report.html import Picture, Table, claims_table, figure, rounded, write_page

__all__ = ["draw_best", "write"]

MEASURES = {"cka": "CKA", "svcca": "SVCCA", "mutual_knn": "mutual k-NN"}
PANELS = 5  # side by side
COLOURS = ("#0072b2", "#c8500a", "#007a5a", "#b0559b", "#9a6f00", "#444b55", "#c0392b")
READING = (
    ("R", "How many of the label's 8 features both modalities have; the rest is divided between them."),
    ("Strength", "The weight of the alignment term: task loss + strength × InfoNCE."),
    ("Best strength", "Of the highest validation accuracy, averaged over seeds; in brackets its 95 % bootstrap range."),
    ("Redundancy", "The share of what both modalities tell about the label that each of them tells: R / I(X1, X2; Y). "
     "Exact for the synthetic data, else estimated from the training pairs."),
    *RULES.items(),
)  # fmt: skip


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` from the sweeps, best.parquet and claims.json of the study."""
    import pandas as pd

    folder = Path(folder)
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    best = pd.read_parquet(folder / "best.parquet")
    strength, pairs = read(folder / "strength"), read(folder / "pairs")
    pictures: list[Picture] = []
    _changes(pictures, "strength", "Accuracy against strength, synthetic data", strength)
    _alignment(pictures, strength)
    _changes(pictures, "pairs", "Accuracy against strength, real pairs", pairs)
    draw_best(pictures, best[best["setting"] == "default"])
    _sensitivity(pictures, best)
    verdicts = [claim["verdict"] for claim in claims]
    return write_page(
        folder,
        "report.html",
        title="What alignment of chosen strength does",
        eyebrow="Reproduction of arXiv:2511.12121",
        facts=f"{sum(len(read(path.parent).runs) for path in folder.glob('*/runs.parquet'))} runs",
        sentences=[
            f"Of {len(claims)} claims, {verdicts.count('reproduced')} are reproduced, "
            f"{verdicts.count('partly')} partly, {verdicts.count('not')} not.",
            *_sentences(best),
        ],
        tables=[claims_table(claims), _best_table(best)],
        pictures=pictures,
        reading=READING,
    )


def _sentences(best: Any) -> list[str]:
    mine = best[(best["kind"] == "synthetic") & (best["setting"] == "default") & (best["modality"] == 2)]
    listed = ", ".join(f"{row.best:g} at {row.case}" for row in mine.itertuples())
    gain = mine.loc[mine["gain"].idxmax()]
    return [
        f"The best strength for the transformed modality is {listed}; the largest gain is "
        f"{100 * gain['gain']:.1f} points, at {gain['case']}."
    ]


def _best_table(best: Any) -> Table:
    rows = []
    for row in best[best["setting"] == "default"].itertuples():
        share = row.redundancy / row.mutual_12 if row.mutual_12 > 0 else float("nan")
        rows.append((
            row.case, row.name, row.trend, f"{row.best:g} [{row.best_low:g}, {row.best_high:g}]",
            f"{100 * row.gain:+.1f} [{100 * row.gain_low:.1f}, {100 * row.gain_high:.1f}]".replace("-", "−"),
            f"{100 * row.end:+.1f}".replace("-", "−"), rounded(row.redundancy), rounded(row.unique_1),
            rounded(row.unique_2), rounded(row.synergy), f"{share:.0%}",
        ))  # fmt: skip
    columns = (
        "pairs", "modality", "with growing strength", "best strength", "gain, points", "strongest, points", "R, bits",
        "U1", "U2", "S", "redundant",
    )  # fmt: skip
    return Table("best", "Best strengths and information", columns, rows)


def _changes(into: list[Picture], name: str, title: str, results: Results) -> None:
    """Change of accuracy against strength, paired by seed: one panel a case, one line a modality."""
    at = np.arange(len(results.strengths))
    label = "change of test accuracy against alignment strength, a panel for each case, mean over seeds with 95 % bands"
    rows = -(-len(results.cases) // PANELS)
    columns = min(PANELS, len(results.cases))
    with figure(into, name, title, label, rows, columns, height=2.7, sharey=rows == 1) as axes:
        for ax in axes.flat[len(results.cases) :]:
            ax.remove()
        for ax, case in zip(axes.flat, results.cases, strict=False):
            for modality, colour in ((1, COLOURS[0]), (2, COLOURS[1])):
                mean, half = _paired(results, case, modality)
                ax.plot(at, mean, "o-", color=colour, ms=3, label=case.modalities[modality - 1])
                ax.fill_between(at, mean - half, mean + half, color=colour, alpha=0.15, lw=0)
                chosen = int(results.grid(case, f"validation_accuracy_{modality}").mean(0).round(12).argmax())
                ax.plot(chosen, mean[chosen], "o", color="none", mec=colour, mew=1.5, ms=9)
            ax.axhline(0, color="#5b6169", lw=0.8)
            ax.set_xticks(at, [f"{value:g}" for value in results.strengths], fontsize=7, rotation=45)
            ax.set(title=case.label, xlabel="strength")
            if rows > 1 or ax is axes[0, 0]:
                ax.legend(fontsize=6.5)
        axes[0, 0].set_ylabel("change of accuracy, points")


def _paired(results: Results, case: Case, modality: int) -> tuple[Any, Any]:
    grid = 100 * results.grid(case, f"accuracy_{modality}")
    estimates = [mean_interval(column) for column in (grid - grid[:, :1]).T]
    return np.array([e.mean for e in estimates]), np.array([e.half_width or 0.0 for e in estimates])


def _alignment(into: list[Picture], results: Results) -> None:
    at = np.arange(len(results.strengths))
    label = "alignment of the two encoders' outputs against strength, one line for each redundancy"
    with figure(into, "alignment", "Alignment rises, whatever accuracy does", label, 1, 3, height=2.8) as axes:
        for ax, (measure, title) in zip(axes[0], MEASURES.items(), strict=True):
            for case, colour in zip(results.cases, COLOURS, strict=False):
                ax.plot(at, results.grid(case, measure).mean(0), "o-", color=colour, ms=3, label=case.label)
            ax.set_xticks(at, [f"{value:g}" for value in results.strengths])
            ax.set(title=title, xlabel="strength")
        axes[0, 0].legend()


def draw_best(into: list[Picture], best: Any) -> None:
    """The thesis: best strength, and the gain there, against the redundant share of the information."""
    share = (best["redundancy"] / best["mutual_12"]).to_numpy()
    order = np.linspace(0, 1, 5)
    label = "best strength and gain against the redundant share of the information, a point for each modality"
    with figure(into, "thesis", "Redundancy and the best strength", label, 1, 2, height=3.8) as axes:
        for ax, (value, low, high), name in (
            (axes[0, 0], ("best", "best_low", "best_high"), "best strength"),
            (axes[0, 1], ("gain", "gain_low", "gain_high"), "gain at the best strength, points"),
        ):
            scale = 100 if value == "gain" else 1
            for kind, marker in (("synthetic", "o"), ("pairs", "D")):
                mine = (best["kind"] == kind).to_numpy()
                middle = scale * best[value].to_numpy()[mine]
                from_to = scale * best[[low, high]].to_numpy()[mine].T
                ends = np.stack([middle - from_to[0], from_to[1] - middle])
                colours = [COLOURS[modality - 1] for modality in best["modality"].to_numpy()[mine]]
                ax.errorbar(share[mine], middle, np.abs(np.nan_to_num(ends)), fmt="none", ecolor="#b9bec6", lw=1)
                ax.scatter(share[mine], middle, c=colours, marker=marker, s=26, zorder=3,
                           label="synthetic" if kind == "synthetic" else "real pairs")  # fmt: skip
            ax.set(xlabel="redundant share of the information", ylabel=name, xticks=order)
        highest = float(np.nanmax(best[["best", "best_high"]].to_numpy()))
        axes[0, 0].set_yscale("asinh", linear_width=0.05)
        ticks = [tick for tick in (0, 0.03, 0.1, 0.3, 1, 3, 10) if tick <= highest]
        axes[0, 0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes[0, 0].set_ylim(-0.008, 1.3 * highest)
        axes[0, 0].legend(title="blue: modality 1, orange: 2", title_fontsize=8)


def _sensitivity(into: list[Picture], best: Any) -> None:
    mine = best[(best["kind"] == "synthetic") & (best["modality"] == 2)]
    settings = list(dict.fromkeys(mine["setting"]))
    label = "gain at the best strength and loss at the strongest for R = 0, 4, 8, one group of bars for each setting"
    with figure(into, "sensitivity", "When the claim holds", label, 1, 2, height=3.4, sharey=True) as axes:
        for ax, column, title in (
            (axes[0, 0], "gain", "at the best strength, points"),
            (axes[0, 1], "end", "at the strongest, points"),
        ):
            for i, (label_of_case, colour) in enumerate(zip(("R = 0", "R = 4", "R = 8"), COLOURS, strict=False)):
                rows = mine[mine["case"] == label_of_case].set_index("setting").loc[settings]
                middle = 100 * rows[column].to_numpy()
                half = 100 * (rows[f"{column}_high"] - rows[f"{column}_low"]).to_numpy() / 2
                ax.barh(np.arange(len(settings)) + 0.27 * (i - 1), middle, 0.25, xerr=half, color=colour,
                        label=label_of_case, error_kw={"lw": 0.8})  # fmt: skip
            ax.axvline(0, color="#5b6169", lw=0.8)
            ax.set(title=title)
            ax.set_yticks(range(len(settings)), settings)
        axes[0, 0].legend()
