"""The page of ``modalign reproduce multibench``: correlations beside the paper's, and the points behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modalign.experiments.studies.claims import WORDS
from modalign.experiments.studies.layer_pairs import MEASURES
from modalign.experiments.studies.multibench_claims import PAPER, best_of_layers
from modalign.experiments.studies.multibench_grid import FULL
from modalign.files.paths import expanded
from modalign.report.figures import (
    Figure,
    Key,
    Sheet,
    band,
    level_line,
    line,
    panel_layout,
    points,
    title_above,
    value_axis,
)
from modalign.report.html import Page, folded_settings, write_study_page
from modalign.report.palette import series, step
from modalign.report.words import Table, claims_table, counted, rounded, verdict_counts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write"]

NAMES = {"unbiased_cka": "unbiased CKA", "mutual_knn": "mutual k-NN", "svcca": "SVCCA"}
PAIR = ["varying", "other"]  # the modality whose depth varies, and the one whose best encoder it is compared with
ABREAST = 3  # panels side by side
INTERVAL = (
    "Its 90 % interval leaves out 0 where a permutation of the depths would give as strong a correlation in less than "
    "5 %."
)
CORRELATION = {
    "default": "Pearson's correlation, over depths, of alignment and score, each averaged over seeds. The alignment is "
    f"that with the best encoder of the same seed. {INTERVAL} The paper's numbers are correlations over depths and "
    "seeds of other encoders (see --protocol paper) and do not stand beside these.",
    "paper": "Pearson's correlation, over all depths and seeds, of score and alignment with the encoder of the other "
    f"modality that is best over all depths and seeds. {INTERVAL}",
}
READING = (
    (
        "Score",
        "The score on the test part: the share of correct classes or, for the sentiment data sets, the share of "
        "correct signs, where 0 counts as negative, as in MultiBench.",
    ),
    (
        "Alignment",
        "The alignment of an encoder with the encoder of the other modality that has the best validation score: the "
        "highest score of all pairs of layers, on held-out pairs. A layer is the output of a block, pooled as the "
        "output of the encoder is.",
    ),
    ("Verdicts", "The verdicts rest on unbiased CKA; mutual k-NN and SVCCA are given for comparison."),
    *WORDS.items(),
)


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` from the tables and claims.json of the study.

    Args:
        folder (Path): The folder of a finished study.
    """
    import pandas as pd

    folder = expanded(folder)
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["settings"]
    models, correlations = (pd.read_parquet(folder / f"{name}.parquet") for name in ("models", "correlations"))
    table = best_of_layers(folder)
    table, by_part = table[table["part"] == "test"], dict(list(correlations.groupby("part", sort=False)))
    # a number of the paper stands in the table if a claim has one, with this data and these settings
    papers = PAPER[settings["dataset"]] if any(claim["paper"] is not None for claim in claims) else None
    tables = [claims_table(claims), _correlations(by_part["test"], papers)]
    if "train" in by_part:
        tables.append(_correlations(by_part["train"], None, part="train"))
    train, validation, test = settings["data"]["pairs"]
    return write_study_page(
        Page(
            title="Does alignment go with performance on real data?",
            eyebrow="Reproduction of arXiv:2502.16282",
            facts=f"{settings['dataset']}: {train:,} training, {validation:,} validation and {test:,} test items, "
            f"{len(models)} Transformers trained independently, {counted(len(settings['seeds']), 'seed')}",
            sentences=_sentences(claims, settings, models),
            tables=[*tables, _encoders(models)],
            sheets=[_performance(table, by_part["test"]), _depths(table, models)],
            reading=[READING[0], READING[1], ("r", CORRELATION[settings["protocol"]]), *READING[2:]],
            folded=folded_settings(folder),
        ),
        folder,
    )


def _sentences(
    claims: Sequence[Mapping[str, float]], settings: Mapping[str, object], models: pd.DataFrame
) -> list[str]:
    sentences = [verdict_counts(claims, "number", " of the paper")]
    clear = [claim for claim in claims if claim["value"] is not None and (claim["low"] > 0 or claim["high"] < 0)]
    listed = ", ".join(f"{claim['source']} {rounded(claim['value'])}" for claim in clear)
    sentences.append(f"{len(clear)} of the {len(claims)} intervals exclude 0{f': {listed}' if clear else ''}.")
    means = models.groupby(["modality", "depth"])[["score", "chance"]].mean().reset_index()
    poor = [name for name, rows in means.groupby("modality", sort=False) if (rows["score"] <= rows["chance"]).all()]
    if poor:
        sentences.append(
            f"No depth of {' or '.join(poor)} is better than the best constant prediction "
            f"({models['chance'].iloc[0]:.1%}), so a correlation with its scores says little."
        )
    paper = {"depths": len(FULL.depths), "epochs": FULL.epochs}
    if settings["protocol"] == "default":
        paper["trials"] = FULL.trials
    counts = {name: _count(settings[name]) for name in paper}
    cuts = [f"{counts[name]} of {paper[name]} {name}" for name in paper if counts[name] < paper[name]]
    if settings["items"] is not None:
        cuts.append(f"at most {settings['items']} items of each part")
    if settings["steps"] is not None and settings["dataset"] != "av_mnist":
        cuts.append(f"the last {settings['steps']} steps of each sequence")
    if cuts:
        sentences.append(f"This is a small version of the study: {', '.join(cuts)}.")
    return sentences


def _count(value: object) -> int:
    return len(value) if isinstance(value, list) else int(str(value))


def _correlations(
    correlations: pd.DataFrame, papers: Mapping[tuple[str, str], float] | None, part: str = "test"
) -> Table:
    """Return the correlations on a part of the split, beside the paper's where they mean the same."""
    rows = []
    for pair, group in correlations.groupby(PAIR, sort=False):
        varying, other = (str(name) for name in pair)
        by_measure = group.set_index("measure")
        cells = []
        for name in MEASURES:
            r, low, high = (rounded(by_measure.loc[name, column]) for column in ("r", "low", "high"))
            cells.append(f"{r} [{low}, {high}]")
        beside = () if papers is None else (rounded(papers[varying, other]),)
        rows.append((varying, other, *beside, *cells))
    columns = ("depth varies", "best encoder of", *(() if papers is None else ("paper",)))
    title = "r of alignment and performance, by measure, with 90 % intervals"
    name = "correlations" if part == "test" else "correlations-train"
    heading = title if part == "test" else f"{title}, on the training part"
    return Table(name, heading, (*columns, *(NAMES[name] for name in MEASURES)), rows)


def _encoders(models: pd.DataFrame) -> Table:
    means = models.groupby(["modality", "depth"], sort=False)[["validation_score", "score", "chance"]].mean()
    rows = []
    for modality, group in means.reset_index().groupby("modality", sort=False):
        best = group.loc[group["validation_score"].idxmax()]
        scores = (f"{100 * best[name]:.1f}" for name in ("validation_score", "score", "chance"))
        rows.append((str(modality), str(best["depth"]), *scores))
    columns = ("modality", "best depth", "validation score, %", "test score, %", "best constant prediction, %")
    return Table("encoders", "The best encoders, mean over seeds", columns, rows)


def _performance(table: pd.DataFrame, correlations: pd.DataFrame) -> Sheet:
    groups = list(table.groupby(PAIR, sort=False))
    depths = sorted(table["depth"].unique())
    roles = {depth: step(index, len(depths)) for index, depth in enumerate(depths)}
    figures = []
    for number, ((varying, other), rows) in enumerate(groups):
        means = rows.groupby("depth")[["unbiased_cka", "score"]].mean()
        selected = (correlations[PAIR] == [varying, other]).all(axis=1) & (correlations["measure"] == "unbiased_cka")
        r = correlations.loc[selected, "r"].iloc[0]
        seeds = points(rows["unbiased_cka"], 100 * rows["score"], "axis", size=5)
        depth_means = points(
            means["unbiased_cka"],
            100 * means["score"],
            [roles[depth] for depth in means.index],
            size=8,
            text=[str(depth) for depth in means.index],
        )
        layout = panel_layout(
            280, xaxis=value_axis("unbiased CKA"), yaxis=value_axis(), annotations=[title_above("score, %")]
        )
        heading = f"{varying}, best {other}: r {r:+.2f}"
        label = f"test score of {varying} against unbiased CKA with the best encoder of {other}, r {r:+.2f}"
        figures.append(Figure(f"performance-{number}", heading, label, data=[seeds, depth_means], layout=layout))
    return Sheet(
        "performance",
        "Performance against alignment",
        "test score against unbiased CKA with the best encoder of the other modality: a numbered point for the mean of "
        "each depth, grey points for its seeds",
        figures=figures,
        columns=min(ABREAST, len(groups)),
        height=2.9,
    )


def _depths(table: pd.DataFrame, models: pd.DataFrame) -> Sheet:
    scores = [
        _scores(str(name), rows, number) for number, (name, rows) in enumerate(models.groupby("modality", sort=False))
    ]
    alignments = [
        _alignments(str(varying), str(other), rows, number=number)
        for number, ((varying, other), rows) in enumerate(table.groupby(PAIR, sort=False))
    ]
    return Sheet(
        "depths",
        "Performance and alignment against depth",
        "test score of each modality, then alignment with the best encoder of each other one, against depth",
        figures=[*scores, *alignments],
        columns=max(len(scores), min(ABREAST, len(alignments))),
        keys=[Key(series(index), NAMES[name]) for index, name in enumerate(MEASURES)],
        height=2.5,
    )


def _scores(modality: str, rows: pd.DataFrame, number: int) -> Figure:
    score = 100 * rows.groupby("depth")["score"].agg(["mean", "min", "max"])
    traces = [band(score.index, score["min"], score["max"], "ink"), line(score.index, score["mean"], "ink")]
    layout = panel_layout(
        240,
        xaxis=value_axis("depth"),
        yaxis=value_axis(),
        annotations=[title_above("score, %")],
        shapes=[level_line(100 * float(rows["chance"].iloc[0]))],
    )
    label = f"test score of {modality} against depth, mean and range over seeds; a level line at the chance level"
    return Figure(f"scores-{number}", modality, label, data=traces, layout=layout)


def _alignments(varying: str, other: str, rows: pd.DataFrame, *, number: int) -> Figure:
    traces = []
    for index, measure in enumerate(MEASURES):
        means = rows.groupby("depth")[measure].mean()
        traces.append(line(means.index, means, series(index), hover=f"{NAMES[measure]}, depth %{{x}}: %{{y:.3f}}"))
    layout = panel_layout(
        240, xaxis=value_axis(f"depth of {varying}"), yaxis=value_axis(), annotations=[title_above("alignment")]
    )
    label = f"alignment of {varying} with the best encoder of {other} against depth, one line for each measure"
    return Figure(f"depths-{number}", f"{varying}, best {other}", label, data=traces, layout=layout)
