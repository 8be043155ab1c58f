"""The page of ``modalign reproduce vision-language``: verdicts, alignment by uniqueness, layers, changed captions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from modalign.experiments.studies.caption_levels import GIVEN
from modalign.experiments.studies.changes import changes_of
from modalign.experiments.studies.claims import WORDS as VERDICTS
from modalign.experiments.studies.measured import spearman
from modalign.experiments.studies.vision_language import MEASURES
from modalign.experiments.studies.vision_language_claims import PAPER, WORDS, highest
from modalign.files.paths import expanded
from modalign.report.figures import (
    Figure,
    Key,
    Sheet,
    Trace,
    band,
    level_line,
    line,
    panel_layout,
    plain,
    share_range,
    title_above,
    value_axis,
)
from modalign.report.html import Page, folded_settings, write_study_page
from modalign.report.palette import series, step
from modalign.report.words import Table, claims_table, counted, verdict_counts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write"]

OTHER_DATA = (
    "The paper's numbers are of 1,024 images and captions of its own, of DINOv2 and of large language models; this "
    "study compared others."
)
NAMES = {"mutual_knn": "mutual k-NN", "unbiased_cka": "unbiased CKA"}
READING = (
    (
        "Uniqueness U",
        "The percentage of a caption's words that are deleted, or replaced by words of other captions. At 100 % "
        "nothing of a caption is left except, where words are replaced, their number. Captions as given have the "
        "level that their file states.",
    ),
    (
        "Alignment",
        "Mutual k-NN or unbiased CKA of a vision and a text encoder: the highest score of all pairs of layers. The "
        "encoders are frozen; rows are clamped and scaled to length one, as in the published code. By the paper's "
        "protocol all layers of an encoder together are scored too.",
    ),
    ("Chance", "The mean of that highest score when images and captions are paired at random."),
    *VERDICTS.items(),
)


class Captions(TypedDict):
    """The captions of one kind and uniqueness, as examples.json holds them."""

    kind: str
    uniqueness: int
    captions: list[str]


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` from the tables, claims.json, notes.json and examples.json.

    Args:
        folder (Path): The folder of a finished study.
    """
    import pandas as pd

    folder = expanded(folder)
    claims, notes, examples, record = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("claims", "notes", "examples", "settings")
    )
    settings = record["settings"]
    papers = _has_the_papers_captions(settings)
    table, layers, models = (pd.read_parquet(folder / f"{name}.parquet") for name in ("alignment", "layers", "models"))
    verdicts = [claims_table(claims)] if claims else []
    return write_study_page(
        Page(
            title="Do images and captions align less when captions say less?",
            eyebrow="Reproduction of arXiv:2502.16282, vision and language",
            facts=f"{settings['items']:,} pairs, {table['images'].nunique()} vision and {table['encoder'].nunique()} "
            f"text encoders, {counted(len(settings['seeds']), 'seed')}, k = {settings['k']}",
            sentences=[
                verdict_counts(claims, "claim", " of the paper that this study can judge"),
                *_sentences(folder),
                *notes,
            ],
            tables=[*verdicts, _numbers(table), _models_table(models), _examples_table(examples)],
            sheets=[
                _against(table, papers=papers),
                *_profiles(layers[layers[["image_layer", "text_layer"]].min(axis=1) >= 0], models),
            ],
            notes=[] if papers else [OTHER_DATA],
            reading=READING,
            folded=folded_settings(folder),
        ),
        folder,
    )


def _has_the_papers_captions(settings: Mapping[str, Any]) -> bool:
    """Return whether captions, their number and the score are the paper's, so that its numbers may stand in a figure.

    The captions are then the user's copy of the paper's file; the images are taken to be those that it describes.
    """
    changed = any(change.by_user for change in changes_of(settings))
    return settings.get("kinds") == [GIVEN] and settings["items"] == PAPER["pairs"] and not changed


def _sentences(folder: Path) -> list[str]:
    sentences = []
    for kind, rows in highest(folder).groupby("kind"):
        mean = rows.groupby("uniqueness")[["mutual_knn", "chance"]].mean()
        best = rows[rows["uniqueness"] == mean.index[0]].iloc[0]
        first, last = mean.iloc[0], mean.iloc[-1]
        pair = f"{first['mutual_knn']:.3f} ({best['images']} and {best['encoder']}) at U = {mean.index[0]} %"
        goes = f"goes from {pair} to {last['mutual_knn']:.3f} at {mean.index[-1]} %" if len(mean) > 1 else f"is {pair}"
        sentences.append(
            f"With {WORDS[str(kind)]} the highest mutual k-NN {goes}, where chance gives {last['chance']:.3f}."
        )
    return sentences


def _against(table: pd.DataFrame, *, papers: bool) -> Sheet:
    """Return alignment against uniqueness: a row for each measure, a column for each kind of change.

    papers: whether to draw the paper's numbers.
    """
    best = table.groupby(["encoder", "kind", "uniqueness", "seed"])[[*MEASURES, "chance"]].max().reset_index()
    kinds, encoders = [str(kind) for kind in best["kind"].unique()], list(best["encoder"].unique())
    crosses = "; crosses: the paper's highest at 10 and 100 %" if papers else ""
    figures = []
    for measure in MEASURES:
        panels = [
            _against_panel(best[best["kind"] == kind], measure, kind, encoders=encoders, papers=papers)
            for kind in kinds
        ]
        share_range(panels, include=[0.0])
        figures += panels
    return Sheet(
        "alignment-uniqueness",
        "Alignment against uniqueness",
        "alignment with the best vision encoder against uniqueness, a line for each text encoder, "
        f"mean and range over seeds{crosses}",
        figures=figures,
        columns=len(kinds),
        height=3.2,
    )


def _against_panel(best: pd.DataFrame, measure: str, kind: str, *, encoders: Sequence[str], papers: bool) -> Figure:
    traces: list[Trace] = []
    keys = []
    for index, encoder in enumerate(encoders):
        curve = best[best["encoder"] == encoder].groupby("uniqueness")[measure].agg(["mean", "min", "max"])
        rho = f"  (ρ {spearman(curve.index.to_numpy(), curve['mean'].to_numpy()):+.2f})" if len(curve) > 2 else ""
        hover = f"{plain(encoder)}, U = %{{x}} %: %{{y:.3f}}"
        traces += [
            band(curve.index, curve["min"], curve["max"], series(index)),
            line(curve.index, curve["mean"], series(index), hover=hover),
        ]
        keys.append(Key(series(index), f"{encoder}{rho}"))
    if measure == "mutual_knn":
        chance = best.groupby("uniqueness")["chance"].mean()
        traces.append(line(chance.index, chance, "muted", mode="lines", dash="dot", width=1.5, hover="chance %{y:.3f}"))
        keys.append(Key("muted", "chance", "dash"))
        if papers:
            places, values = zip(*PAPER["ends"].items(), strict=True)
            traces.append(line(places, values, "muted", dash="dash", symbol="x", size=9, hover="paper %{y:.3f}"))
            keys.append(Key("muted", "paper, DINOv2 and LLMs", "x"))
    layout = panel_layout(
        310,
        xaxis=value_axis("uniqueness, %"),
        yaxis=value_axis(),
        annotations=[title_above(NAMES[measure])],
        shapes=[level_line(0, "axis")],
    )
    label = f"{NAMES[measure]} against uniqueness with {WORDS[kind]}, one line for each text encoder"
    return Figure(f"{measure}-{kind}", WORDS[kind], label, data=traces, layout=layout, keys=tuple(keys))


def _profiles(layers: pd.DataFrame, models: pd.DataFrame) -> list[Sheet]:
    """Return mutual k-NN of every layer, for the encoders that have more than one."""
    deep = [str(encoder) for encoder in models.loc[models["layers"] > 1, "encoder"]]
    if not deep:
        return []
    every = sorted(layers["uniqueness"].unique())
    values = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, 4).round().astype(int))]
    kinds = [str(kind) for kind in layers["kind"].unique()]
    figures = []
    for number, encoder in enumerate(deep):
        panels = []
        for kind in kinds:
            rows = layers[(layers["encoder"] == encoder) & (layers["kind"] == kind)]
            traces = []
            for index, value in enumerate(values):
                best = rows[rows["uniqueness"] == value].groupby(["seed", "text_layer"])["mutual_knn"].max()
                curve = best.groupby("text_layer").mean()
                role, hover = step(index, len(values)), f"U = {value} %, layer %{{x}}: %{{y:.3f}}"
                traces.append(line(curve.index, curve, role, hover=hover))
            layout = panel_layout(
                290,
                xaxis=value_axis("layer (0: the words' embeddings)"),
                yaxis=value_axis(),
                annotations=[title_above(NAMES["mutual_knn"])],
            )
            heading = f"{encoder}, {WORDS[kind]}"
            label = f"mutual k-NN of every layer of {heading}, one line for each uniqueness"
            panels.append(Figure(f"layers-{number}-{kind}", heading, label, data=traces, layout=layout))
        share_range(panels)
        figures += panels
    sheet = Sheet(
        "layers",
        "Alignment of each layer",
        "mutual k-NN of every layer with the best vision encoder, a line for each uniqueness, mean over seeds",
        figures=figures,
        columns=len(kinds),
        keys=[Key(step(index, len(values)), f"U = {value} %") for index, value in enumerate(values)],
        height=2.9,
    )
    return [sheet]


def _numbers(table: pd.DataFrame) -> Table:
    values = sorted(table["uniqueness"].unique())
    rows = []
    for (encoder, images, kind), group in table.groupby(["encoder", "images", "kind"], sort=False):
        mean = group.groupby("uniqueness")["mutual_knn"].mean()
        cells = (f"{mean.loc[value]:.3f}" for value in values)
        rows.append((str(encoder), str(images), WORDS[str(kind)], *cells))
    low, high = table["chance"].min(), table["chance"].max()
    lead = f"Each number is the mean over seeds; chance gives {low:.3f} to {high:.3f}."
    columns = ("text encoder", "images", "captions", *(f"{value} %" for value in values))
    return Table("numbers", "Mutual k-NN by uniqueness", columns, rows, lead=lead)


def _models_table(models: pd.DataFrame) -> Table:
    rows = [
        (
            row.encoder,
            row.spec,
            str(row.layers),
            str(row.width),
            "" if np.isnan(row.bits_per_byte) else f"{row.bits_per_byte:.3f}",
        )
        for row in models.astype({"bits_per_byte": float}).itertuples()
    ]
    lead = "Bits per byte are those of the first captions of the study; only causal language models have them."
    columns = ("name", "specification", "layers", "width", "bits per byte")
    return Table("models", "Text encoders", columns, rows, lead=lead)


def _examples_table(examples: Sequence[Captions]) -> Table:
    rows = [
        (
            example["captions"][i],
            f"{example['uniqueness']} %",
            WORDS[example["kind"]] if example["uniqueness"] else "unchanged",
        )
        for i, example in itertools.product(range(len(examples[0]["captions"])), examples)
        if example["uniqueness"] or example["kind"] == examples[0]["kind"]
    ]
    given = any(example["kind"] == "given" for example in examples)
    lead = (
        "The captions are those of the files."
        if given
        else "The words that change at 10 % are among those that change at 50 %, and both kinds of change affect the "
        "same words."
    )
    return Table("examples", "Captions", ("caption", "uniqueness", "change"), rows, lead=lead)
