"""The page of ``modalign reproduce vision-language``: verdicts, curves over uniqueness, layers, changed captions."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from modalign.experiments.studies.claims import RULES, spearman
from modalign.experiments.studies.vision_language import MEASURES
from modalign.experiments.studies.vision_language_claims import PAPER, WORDS, highest
from modalign.report.html import Picture, Table, claims_table, figure, wrapped, write_page

__all__ = ["write"]

NAMES = {"mutual_knn": "mutual k-NN", "unbiased_cka": "unbiased CKA"}
COLOURS = ("#1f6fb4", "#c8500a", "#2a8c5a", "#8a4fb0", "#8c6d1f", "#b03a6a")
READING = (
    ("Uniqueness U", "Per cent of a caption's words that are deleted, or replaced by words of other captions. At 100 % "
     "nothing of a caption is left but, where words are replaced, their number."),
    ("Alignment", "Of a vision and a text encoder: mutual k-NN, or unbiased CKA, the highest of all pairs of layers. "
     "Encoders are frozen; rows are clamped and of length one, as the published code has them."),
    ("Chance", "The mean of that highest score when images and captions are paired at random."),
    *RULES.items(),
)  # fmt: skip


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` from the tables, claims.json, notes.json and examples.json."""
    import pandas as pd

    folder = Path(folder)
    claims, notes, examples, facts = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("claims", "notes", "examples", "settings")
    )
    settings, seeds = facts["settings"], len(facts["settings"]["seeds"])
    table, layers, models = (pd.read_parquet(folder / f"{name}.parquet") for name in ("alignment", "layers", "models"))
    pictures: list[Picture] = []
    _against(pictures, table)
    _profiles(pictures, layers, models)
    verdicts = [claims_table(claims)] if claims else []
    return write_page(
        folder,
        "report.html",
        title="Do images and captions align less as captions say less?",
        eyebrow="Reproduction of arXiv:2502.16282, vision and language",
        facts=f"{settings['items']:,} pairs, {table['images'].nunique()} vision and {table['encoder'].nunique()} text "
        f"encoders, {seeds} seed{'s' if seeds != 1 else ''}, k = {settings['k']}",
        sentences=[*_summary(claims), *_sentences(folder), *notes],
        tables=[*verdicts, _numbers(table), _models_table(models), _examples_table(examples)],
        pictures=pictures,
        reading=READING,
    )


def _summary(claims: list[dict[str, Any]]) -> list[str]:
    counts = Counter(claim["verdict"] for claim in claims)
    if not claims:
        return ["Too few values of uniqueness for the paper's claims."]
    return [
        f"Of the paper's {len(claims)} claims that this study can judge, {counts['reproduced']} are reproduced, "
        f"{counts['partly']} partly, {counts['not']} not."
    ]


def _sentences(folder: Path) -> list[str]:
    found = []
    for kind, mine in highest(folder).groupby("kind"):
        mean = mine.groupby("uniqueness")[["mutual_knn", "chance"]].mean()
        best = mine[mine["uniqueness"] == mean.index[0]].iloc[0]
        first, last = mean.iloc[0], mean.iloc[-1]
        found.append(
            f"With {WORDS[str(kind)]} the highest mutual k-NN goes from {first['mutual_knn']:.3f} ({best['images']} "
            f"and {best['encoder']}) at U = {mean.index[0]} % to {last['mutual_knn']:.3f} at {mean.index[-1]} %, where "
            f"chance gives {last['chance']:.3f}."
        )
    return found


def _best(table: Any) -> Any:
    """The highest of all vision encoders."""
    return table.groupby(["encoder", "kind", "uniqueness", "seed"])[[*MEASURES, "chance"]].max().reset_index()


def _against(into: list[Picture], table: Any) -> None:
    best = _best(table)
    kinds, encoders = list(best["kind"].unique()), list(best["encoder"].unique())
    label = (
        "alignment with the best vision encoder against per cent of changed words, a line for each text encoder, mean "
        "and range over seeds; crosses: the paper's highest at 10 and 100 %"
    )
    with figure(
        into, "alignment-uniqueness", "Alignment against uniqueness", label, len(MEASURES), len(kinds), height=3.0,
        sharex=True, sharey="row",
    ) as axes:  # fmt: skip
        for (row, measure), (column, kind) in itertools.product(enumerate(MEASURES), enumerate(kinds)):
            ax, mine = axes[row, column], best[best["kind"] == kind]
            for number, encoder in enumerate(encoders):
                colour = COLOURS[number % len(COLOURS)]
                line = mine[mine["encoder"] == encoder].groupby("uniqueness")[measure].agg(["mean", "min", "max"])
                rho = spearman(line.index.to_numpy(), line["mean"].to_numpy())
                ax.plot(line.index, line["mean"], "o-", color=colour, ms=3, label=f"{encoder}  (ρ {rho:+.2f})")
                ax.fill_between(line.index, line["min"], line["max"], color=colour, alpha=0.15, lw=0)
            if measure == "mutual_knn":
                chance = mine.groupby("uniqueness")["chance"].mean()
                ax.plot(chance.index, chance, "--", color="#5b6169", lw=1, label="chance")
                at, values = zip(*PAPER["ends"].items(), strict=True)
                ax.plot(at, values, "x:", color="#5b6169", ms=7, mew=1.5, label="paper, DINOv2 and LLMs")
                ax.set_title(WORDS[kind])
            ax.axhline(0, color="#b9bec6", lw=0.8)
            ax.legend()
            ax.set_xlabel("uniqueness, % of words" if row == len(MEASURES) - 1 else "")
            ax.set_ylabel(NAMES[measure] if column == 0 else "")


def _profiles(into: list[Picture], layers: Any, models: Any) -> None:
    deep = [row.encoder for row in models.itertuples() if row.layers > 1]
    if not deep:
        return
    every = sorted(layers["uniqueness"].unique())
    shown = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, 4).round().astype(int))]
    kinds = list(layers["kind"].unique())
    label = "mutual k-NN of every layer with the best vision encoder, a line for each uniqueness, mean over seeds"
    with figure(into, "layers", "Which layers align", label, len(deep), len(kinds), height=2.8, sharey="row") as axes:
        for (row, encoder), (column, kind) in itertools.product(enumerate(deep), enumerate(kinds)):
            ax, mine = axes[row, column], layers[(layers["encoder"] == encoder) & (layers["kind"] == kind)]
            for value, shade in zip(shown, np.linspace(0, 0.75, len(shown)), strict=True):
                best = mine[mine["uniqueness"] == value].groupby(["seed", "text_layer"])["mutual_knn"].max()
                line = best.groupby("text_layer").mean()
                ax.plot(line.index, line, "o-", color=str(shade), ms=3, label=f"U = {value} %")
            title = wrapped(f"{encoder}, {WORDS[kind]}", len(kinds))
            ax.set(title=title, xlabel="layer (0: the words' embeddings)")
            ax.set_ylabel(NAMES["mutual_knn"] if column == 0 else "")
        axes[0, -1].legend()


def _numbers(table: Any) -> Table:
    shown = sorted(table["uniqueness"].unique())
    rows = []
    for (encoder, images, kind), mine in table.groupby(["encoder", "images", "kind"], sort=False):
        mean = mine.groupby("uniqueness")["mutual_knn"].mean()
        rows.append((encoder, images, WORDS[kind], *(f"{mean.loc[value]:.3f}" for value in shown)))
    chance = f"Mean over seeds; chance gives {table['chance'].min():.3f} to {table['chance'].max():.3f}."
    columns = ("text encoder", "images", "captions", *(f"{value} %" for value in shown))
    return Table("numbers", "Mutual k-NN by uniqueness", columns, rows, chance)


def _models_table(models: Any) -> Table:
    rows = [
        (row.encoder, row.spec, str(row.layers), str(row.width),
         "" if np.isnan(row.bits_per_byte) else f"{row.bits_per_byte:.3f}")
        for row in models.astype({"bits_per_byte": float}).itertuples()
    ]  # fmt: skip
    lead = "Bits per byte: of the unchanged captions, for causal language models."
    return Table("models", "Text encoders", ("name", "given as", "layers", "width", "bits per byte"), rows, lead)


def _examples_table(examples: list[dict[str, Any]]) -> Table:
    rows = [
        (one["captions"][i], f"{one['uniqueness']} %", WORDS[one["kind"]] if one["uniqueness"] else "as it is")
        for i in range(len(examples[0]["captions"]))
        for one in examples
        if one["uniqueness"] or one["kind"] == examples[0]["kind"]
    ]
    lead = "The words that change at 10 % are among those that change at 50 %, and both kinds change the same."
    return Table("examples", "Captions", ("caption", "uniqueness", "kind"), rows, lead)
