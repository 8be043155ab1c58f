"""The page of ``modalign reproduce multibench``: the table beside the paper's, and what its correlations are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from modalign.experiments.studies.claims import RULES
from modalign.experiments.studies.layer_pairs import MEASURES
from modalign.experiments.studies.multibench import FULL, PAPER, best_of_layers
from modalign.report.html import Picture, Table, claims_table, figure, rounded, write_page

__all__ = ["write"]

NAMES = {"unbiased_cka": "unbiased CKA", "mutual_knn": "mutual k-NN", "svcca": "SVCCA"}
COLOURS = {"unbiased_cka": "#0072b2", "mutual_knn": "#c8500a", "svcca": "#007a5a"}
READING = (
    ("Score", "Of the test part: share of right classes; of the sentiment sets, share of right signs, 0 counting as "
     "positive."),
    ("Alignment", "Of an encoder with the best one, by validation score, of the other modality: the highest of all "
     "pairs of layers, on held-out pairs. A layer is a block's output, pooled as the encoder's is."),
    ("r", "Pearson's correlation, over depths, of alignment and score, each the mean over seeds. Its interval draws "
     "depths and, for each, seeds again, 2,000 times."),
    ("Verdicts", "By unbiased CKA; mutual k-NN and SVCCA stand beside it."),
    *RULES.items(),
)  # fmt: skip


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` from the tables and claims.json of the study."""
    import pandas as pd

    folder = Path(folder)
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["settings"]
    models, found = (pd.read_parquet(folder / f"{name}.parquet") for name in ("models", "correlations"))
    table = best_of_layers(folder)
    pictures: list[Picture] = []
    _performance(pictures, table, found)
    _depths(pictures, table, models)
    train, validation, test = settings["data"]["pairs"]
    return write_page(
        folder,
        "report.html",
        title="Does alignment go with performance on real data?",
        eyebrow="Reproduction of arXiv:2502.16282",
        facts=f"{settings['dataset']}: {train:,} training, {validation:,} validation and {test:,} test items, "
        f"{len(models)} Transformers trained apart, {len(settings['seeds'])} seeds",
        sentences=_sentences(claims, settings, models),
        tables=[claims_table(claims), _correlations(found, settings["dataset"]), _encoders(models)],
        pictures=pictures,
        reading=READING,
    )


def _sentences(claims: Any, settings: Any, models: Any) -> list[str]:
    verdicts = [claim["verdict"] for claim in claims]
    said = [
        f"Of the paper's {len(claims)} numbers, {verdicts.count('reproduced')} are reproduced, "
        f"{verdicts.count('partly')} partly, {verdicts.count('not')} not."
    ]
    clear = [claim for claim in claims if claim["low"] > 0 or claim["high"] < 0]
    which = ", ".join(f"{claim['source']} {rounded(claim['value'])}" for claim in clear)
    said.append(f"{len(clear)} of the {len(claims)} intervals leave out 0{f': {which}' if clear else ''}.")
    means = models.groupby(["modality", "depth"])[["score", "chance"]].mean().reset_index()
    lost = [name for name, mine in means.groupby("modality", sort=False) if (mine["score"] <= mine["chance"]).all()]
    if lost:
        said.append(
            f"No depth of {' or '.join(lost)} is better than the best constant answer "
            f"({models['chance'].iloc[0]:.1%}): a correlation with such scores says little."
        )
    paper = {"depths": len(FULL.depths), "epochs": FULL.epochs, "trials": FULL.trials}
    ours = {name: _count(settings[name]) for name in paper}
    cut = [f"{ours[name]} of {paper[name]} {name}" for name in paper if ours[name] < paper[name]]
    if settings["items"] is not None:
        cut.append(f"at most {settings['items']} items of each part")
    if settings["steps"] is not None and settings["dataset"] != "av_mnist":
        cut.append(f"the last {settings['steps']} steps of each sequence")
    if cut:
        said.append(f"This is a small version of the study: {', '.join(cut)}.")
    return said


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list) else int(value)


def _correlations(found: Any, dataset: str) -> Table:
    rows = []
    for (varying, other), mine in found.groupby(["varying", "other"], sort=False):
        ours = mine.set_index("measure")
        cells = [
            f"{rounded(ours.loc[name, 'r'])} [{rounded(ours.loc[name, 'low'])}, {rounded(ours.loc[name, 'high'])}]"
            for name in MEASURES
        ]
        rows.append((varying, other, rounded(PAPER[dataset][varying, other]), *cells))
    columns = ("depth varies", "beside the best", "paper", *(NAMES[name] for name in MEASURES))
    return Table("correlations", "r of alignment and performance, by every measure", columns, rows)


def _encoders(models: Any) -> Table:
    means = models.groupby(["modality", "depth"], sort=False)[["validation_score", "score", "chance"]].mean()
    rows = []
    for modality, mine in means.groupby(level=0, sort=False):
        best = mine["validation_score"].idxmax()
        rows.append((modality, str(best[1]), *(f"{100 * value:.1f}" for value in mine.loc[best])))
    columns = ("modality", "best depth", "validation, %", "test, %", "best constant answer, %")
    return Table("encoders", "The best encoders, mean over seeds", columns, rows)


def _performance(into: list[Picture], table: Any, found: Any) -> None:
    groups = list(table.groupby(["varying", "other"], sort=False))
    across = min(3, len(groups))
    label = "test score against unbiased CKA with the best encoder of the other modality: a numbered point for the "
    label += "mean of each depth, grey ones for its seeds"
    title = "Performance against alignment"
    with figure(into, "performance", title, label, len(groups) // across, across, height=2.8) as axes:
        for ax, ((varying, other), mine) in zip(axes.flat, groups, strict=True):
            ax.plot(mine["unbiased_cka"], 100 * mine["score"], "o", color="#b9bec6", ms=3)
            means = mine.groupby("depth")[["unbiased_cka", "score"]].mean()
            ax.scatter(means["unbiased_cka"], 100 * means["score"], c=means.index, cmap="viridis", s=18, zorder=3)
            for depth, row in means.iterrows():
                at = (row["unbiased_cka"], 100 * row["score"])
                ax.annotate(str(depth), at, xytext=(3, 3), textcoords="offset points", fontsize=7)
            is_this = (found["varying"] == varying) & (found["other"] == other) & (found["measure"] == "unbiased_cka")
            r = found.loc[is_this, "r"].iloc[0]
            ax.set(title=f"{varying} (depth varies), best {other}: r {r:+.2f}", xlabel="unbiased CKA")
        for ax in axes[:, 0]:
            ax.set_ylabel("score, %")


def _depths(into: list[Picture], table: Any, models: Any) -> None:
    groups = list(table.groupby(["varying", "other"], sort=False))
    modalities = list(models.groupby("modality", sort=False))
    label = "test score of each modality, then alignment with the best encoder of each other one, against depth"
    columns = max(len(modalities), min(3, len(groups)))
    rows = 1 + int(np.ceil(len(groups) / columns))
    with figure(into, "depths", "Performance and alignment against depth", label, rows, columns, height=2.4) as axes:
        for ax, (name, mine) in zip(axes[0], modalities, strict=False):
            score = 100 * mine.groupby("depth")["score"].agg(["mean", "min", "max"])
            ax.plot(score.index, score["mean"], "o-", color="#1b1f24", ms=3)
            ax.fill_between(score.index, score["min"], score["max"], color="#1b1f24", alpha=0.12, lw=0)
            ax.axhline(100 * mine["chance"].iloc[0], color="#5b6169", lw=0.8, ls="--")
            ax.set(title=name, xlabel="depth", ylabel="score, %")
        for ax, ((varying, other), mine) in zip(axes[1:].flat, groups, strict=False):
            for measure in MEASURES:
                value = mine.groupby("depth")[measure].mean()
                ax.plot(value.index, value, "o-", color=COLOURS[measure], ms=3, label=NAMES[measure])
            ax.set(title=f"{varying}, best {other}", xlabel=f"depth of {varying}", ylabel="alignment")
        for ax in [*axes[0, len(modalities) :], *axes[1:].flat[len(groups) :]]:
            ax.set_visible(False)
        axes[1, 0].legend()
