"""The vision-language study: alignment of frozen encoders as captions say less about their images.

The study of Tjandrasuwita et al. 2025 (arXiv:2502.16282): images beside captions of which U per cent of
the words are deleted, or replaced by words of other captions; every vision encoder against every layer of every text
encoder; mutual k-NN, the best of the layers, with rows prepared as in the published code. Encoders are those installed
here (``modalign.experiments.studies.text_encoders``), images the embedded emoji's features by default.

    run(QUICK, folder)      some minutes on two cores
    run(FULL, folder)       every layer, every pair, five seeds
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from modalign.alignment.layers import align_layers
from modalign.alignment.preparation import prepare_layers
from modalign.common.progress import Reporter
from modalign.data import emoji, emoji_texts
from modalign.encoders.embedding import embed, files_of
from modalign.encoders.pretrained import Encode, offline
from modalign.experiments.studies.caption_levels import CaptionLevels, read_captions
from modalign.experiments.studies.claims import records
from modalign.experiments.studies.layer_pairs import highest_defined
from modalign.experiments.studies.registry import StudyOptions
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.studies.text_encoders import TextEncoder, bits_per_byte, text_encoders
from modalign.experiments.studies.vision_language_claims import claims, notes
from modalign.experiments.studies.vision_language_grid import FULL, GRIDS, QUICK, Grid
from modalign.experiments.sweep.chunks import count_cores
from modalign.files.rows import open_layers
from modalign.metrics import unbiased_cka
from modalign.metrics.undefined import score_or_nan

__all__ = ["FULL", "GRIDS", "MEASURES", "QUICK", "Grid", "reproduce", "run"]

MEASURES = ("mutual_knn", "unbiased_cka")
CONCATENATED = -1  # the number of all layers together, as the published code counts
PREPARED = "platonic"  # rows as Huh et al. 2024 have them: outliers clamped, length one
SHOWN = 3  # captions shown in the report
BATCH = 32  # texts embedded together
# rough seconds a text, relative to tfidf, for the estimate of the time left
PACE = {"tfidf": 1, "python": 2, "sentence-transformers": 20, "transformers": 200}


Images = dict[str, list[Tensor]]
Condition = tuple[int, str, int]  # uniqueness, kind of change and seed


def reproduce(options: StudyOptions) -> None:
    """Run the study as ``modalign reproduce vision-language`` does."""
    decided = sorted({"uniqueness", "kinds", "seeds"} & options.setting.keys())
    if decided and options.captions is not None and read_captions(options.captions).given:
        raise ValueError(
            f"vision-language: the captions of a folder have the uniqueness that its files state: leave --setting "
            f"{decided[0]} out"
        )
    run(
        options.grid(GRIDS),
        options.folder,
        images=options.images,
        captions=options.captions,
        encoders=options.encoders,
        fresh=options.fresh,
        reporter=options.reporter,
        workers=options.workers,
    )


def run(
    grid: Grid,
    folder: Path,
    *,
    images: Sequence[str | Path] | None = None,
    captions: str | Path | None = None,
    encoders: Sequence[str] | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
    workers: int | None = None,
) -> Path:
    """Run the study of ``grid`` and write its tables, examples, claims and notes into ``folder``.

    The files are alignment.parquet, layers.parquet, models.parquet, examples.json, claims.json and notes.json.

    Args:
        images: files of features of the same n images, (n, d) or (n, layers, d), as ``modalign embed`` writes them; by
            default EfficientNet-Lite0's of Twemoji's and of Noto's drawings of 1,644 emoji.
        captions: the captions, a text file of one a line or ``file.parquet:column``; or a folder of captions at several
            uniquenesses, as ``caption_levels.read_captions`` takes it, whose words are then left as they are; by
            default the emoji's English tags.
        encoders: text encoders, as ``text_encoders.text_encoders`` of this folder takes them; by default all
            that are installed.

    A folder that holds a part of the same study is continued, within a part from the last batch of texts.
    Raises ValueError for images and captions of different number, captions without words, an unknown encoder, or a
    folder with something else in it; FileNotFoundError for what is not there.
    """
    if (images is None) != (captions is None):
        raise ValueError("vision-language: give both images and captions, in the same order, or neither")
    chosen = text_encoders(encoders)
    every, levels = _pairs(images, captions)
    rows = _chosen(len(levels.texts), grid)
    pictures = {name: [layer[rows] for layer in layers] for name, layers in every.items()}
    levels = levels.of(rows.tolist())
    grid = dataclasses.replace(grid, **levels.settings())
    for kind in grid.kinds:  # refuses captions without words, and given ones that nobody gave
        levels.changed(grid.uniqueness[0], kind, grid.seeds[0])
    settings = {
        "study": "vision-language",
        **dataclasses.asdict(grid),
        "encoders": [encoder.asked for encoder in chosen],
        "images": {name: _digest(*(layer.numpy().tobytes() for layer in layers)) for name, layers in pictures.items()},
        "captions": _digest(*(text.encode() for texts in (levels.texts, *levels.given.values()) for text in texts)),
        "items": len(levels.texts),
    }
    study = Study(folder, settings, fresh=fresh)
    with study.begun(), offline():
        prepared = {name: _prepared(layers, name, grid) for name, layers in pictures.items()}
        conditions: list[Condition] = [
            (uniqueness, kind, seed)
            for uniqueness, kind, seed in itertools.product(grid.uniqueness, grid.kinds, grid.seeds)
            # unchanged captions are the same for every kind and seed
            if uniqueness or (kind, seed) == (grid.kinds[0], grid.seeds[0])
        ]
        work = [(condition, encoder) for condition in conditions for encoder in chosen]
        parts, performances = _parts(grid, study, prepared, levels=levels, work=work)
        done = study.run([*parts, *performances], "vision-language", workers=workers, reporter=reporter)
        study.place.checkpoint.remove_folder("embeddings")
        _write_tables(study, grid, chosen, asked=work, compared=done[: len(parts)], performances=done[len(parts) :])
        study.write_json("examples.json", _examples(levels, grid))
        study.write_json("claims.json", records(claims(study.path)))
        study.write_json("notes.json", notes(study.path))
    return study.path


def _parts(
    grid: Grid, study: Study, images: Images, *, levels: CaptionLevels, work: list[tuple[Condition, TextEncoder]]
) -> tuple[list[Part], list[Part]]:
    """Return the parts that compare each encoder on changed captions, and those that measure its performance.

    By the paper's protocol performance is that on the changed captions, and there is a part for each of ``work``.
    """
    encoders = list(dict.fromkeys(encoder for _, encoder in work))
    shared = {encoder.name: _Shared(encoder, levels.texts, grid.device) for encoder in encoders}
    compared, performances = [], []
    for condition, encoder in work:
        uniqueness, kind, seed = condition
        name, pace = f"{encoder.name}-{uniqueness}-{kind}-seed{seed}", PACE[encoder.kind] * len(levels.texts)
        texts = levels.changed(uniqueness, kind, seed)
        make = _compared(grid, study, shared[encoder.name], images=images, changed=texts, name=name)
        compared.append(Part(name, pace, make))
        if grid.paper:
            performances.append(Part(f"{name}-performance", pace, _performance(encoder, texts, grid)))
    if not grid.paper:
        for encoder in encoders:
            make = _performance(encoder, levels.texts, grid)
            performances.append(Part(f"{encoder.name}-performance", PACE[encoder.kind] * len(levels.texts), make))
    return compared, performances


def _prepared(layers: list[Tensor], name: str, grid: Grid) -> list[Tensor]:
    """Return the layers with clamped unit rows; by the paper's protocol all of them concatenated come last."""
    if not grid.paper or len(layers) == 1:
        return prepare_layers(layers, PREPARED, name=name)
    clamped = prepare_layers(layers, f"{PREPARED}_unnorm", name=name)
    return [F.normalize(rows, dim=-1) for rows in (*clamped, torch.cat(clamped, 1))]


def _pairs(images: Sequence[str | Path] | None, captions: str | Path | None) -> tuple[Images, CaptionLevels]:
    """Return the layers of each vision encoder by name, and the captions."""
    if images is None or captions is None:
        drawings = emoji("image-image", pca=None)
        return {"Twemoji": [drawings.x], "Noto": [drawings.y]}, CaptionLevels(emoji_texts(tags=True))
    if not images:
        raise ValueError("vision-language: give at least one file of image features")
    levels = read_captions(captions)
    found: Images = {}
    for path in images:
        layers = [layer.read(0, layer.shape[0]).float() for layer in open_layers(path, str(path))]
        if len(layers[0]) != len(levels.texts):
            raise ValueError(
                f"vision-language: images and captions must be of the same number, got {len(layers[0])} in {path} and "
                f"{len(levels.texts)} in {captions}"
            )
        name = Path(path).name.partition(".")[0]
        found[name if name not in found else str(path)] = layers
    return found, levels


def _chosen(n: int, grid: Grid) -> Tensor:
    """Return the rows of the pairs to compare, in random order.

    Equal captions tie, ties go to the lower row, and neighbouring rows of a file are often of one kind: the order of
    the file would align them.
    """
    order = np.random.default_rng(0).permutation(n)[: grid.pairs]
    if not grid.k < len(order):
        raise ValueError(f"vision-language: {grid.k} neighbours need more pairs than that, got {len(order)}")
    return torch.from_numpy(order)


class _Shared:
    """A text encoder that all parts of a study share: loaded when first called, one batch at a time on all cores."""

    def __init__(self, encoder: TextEncoder, captions: Sequence[str], device: str) -> None:
        self.encoder, self.captions, self.device = encoder, captions, device
        self.lock = threading.Lock()
        self.encode: Encode | None = None

    def __call__(self, batch: Sequence[str]) -> Any:
        with self.lock:
            before = torch.get_num_threads()
            torch.set_num_threads(count_cores())
            try:
                if self.encode is None:
                    self.encode = self.encoder.load(self.captions, self.device)
                return self.encode(batch)
            finally:
                torch.set_num_threads(before)


def _compared(
    grid: Grid, study: Study, shared: _Shared, *, images: Images, changed: list[str], name: str
) -> Callable[[Callable[[int], None]], dict[str, Any]]:
    """Return the work of one part: every layer of a text encoder, on changed captions, against every vision layer."""
    pace = PACE[shared.encoder.kind]

    def make(advance: Callable[[int], None]) -> dict[str, Any]:
        # equal texts are embedded once, so that no batch changes their embedding; sorted, batches have like lengths
        distinct = sorted(set(changed), key=lambda text: (len(text), text))

        def encode(batch: Sequence[str]) -> Any:
            found = shared(batch)
            advance(pace * len(batch))
            return found

        encode.__qualname__ = shared.encoder.asked
        file = study.path / "embeddings" / f"{name}.npy"
        written = [f"embeddings/{made}" for made in files_of(file)]
        for made in written:
            study.place.checkpoint.announce(made)
        embed(encode, distinct, file, batch_size=BATCH, dtype="float32")
        table = np.load(file)
        table = table[:, None] if table.ndim == 2 else table
        place = {text: row for row, text in enumerate(distinct)}
        at = torch.tensor([place[text] for text in changed])
        numbers = np.unique(np.linspace(0, table.shape[1] - 1, grid.layers or table.shape[1]).round().astype(int))
        if len(distinct) > 1:
            layers = [torch.from_numpy(table[:, number])[at] for number in numbers]
        else:  # all captions are equal
            layers = [torch.ones(len(changed), 1) for _ in numbers]
        prepared = _prepared(layers, shared.encoder.name, grid)
        found = {of: _scores(grid, of_images, prepared, advance) for of, of_images in images.items()}
        study.place.checkpoint.drop(*written)
        return {
            "layers": [*numbers.tolist(), *[CONCATENATED] * (len(prepared) - len(layers))],
            "of": table.shape[1],
            "width": table.shape[2],
            "distinct": len(distinct),
            "scores": found,
        }

    return make


def _scores(grid: Grid, images: list[Tensor], texts: list[Tensor], advance: Callable[[int], None]) -> dict[str, Any]:
    found = align_layers(images, texts, "mutual_knn", grid.k, relabellings=grid.relabellings, num_threads=1)
    assert found.null is not None
    advance(0)
    return {
        "mutual_knn": found.matrix,
        "unbiased_cka": [[score_or_nan(unbiased_cka, x, y) for y in texts] for x in images],
        "chance": found.null.mean,
        "threshold": found.null.threshold,
        "p": found.null.p,
    }


def _performance(encoder: TextEncoder, texts: list[str], grid: Grid) -> Callable[..., dict[str, Any]]:
    def make(advance: Callable[[int], None]) -> dict[str, Any]:
        def done(count: int) -> None:
            advance(PACE[encoder.kind] * count)

        return {
            "bits_per_byte": bits_per_byte(
                encoder, texts, device=grid.device, batch_size=BATCH, advance=done, published=grid.paper
            ),
        }

    return make


def _write_tables(
    study: Study,
    grid: Grid,
    encoders: list[TextEncoder],
    asked: list[tuple[tuple[int, str, int], TextEncoder]],
    compared: list[dict[str, Any]],
    performances: list[dict[str, Any]],
) -> None:
    rows, layers = [], []
    by_work = performances if grid.paper else [performances[encoders.index(encoder)] for _, encoder in asked]
    for ((uniqueness, kind, seed), encoder), found, performance in zip(asked, compared, by_work, strict=True):
        same = itertools.product(grid.kinds, grid.seeds) if uniqueness == 0 else [(kind, seed)]
        for of_kind, of_seed in same:
            key = {"encoder": encoder.name, "kind": of_kind, "uniqueness": uniqueness, "seed": of_seed}
            for name, scores in found["scores"].items():
                tables = {measure: np.array(scores[measure]) for measure in MEASURES}
                count = len(tables["mutual_knn"])
                numbers = [*range(count - 1), CONCATENATED] if grid.paper and count > 1 else list(range(count))
                best = np.unravel_index(tables["mutual_knn"].argmax(), tables["mutual_knn"].shape)
                rows.append(
                    {
                        **key,
                        "images": name,
                        "mutual_knn": float(tables["mutual_knn"].max()),
                        "unbiased_cka": highest_defined(tables["unbiased_cka"]),
                        "image_layer": numbers[int(best[0])],
                        "text_layer": found["layers"][best[1]],
                        "chance": scores["chance"],
                        "threshold": scores["threshold"],
                        "p": scores["p"],
                        "distinct": found["distinct"],
                        # of the captions at this uniqueness
                        **({"bits_per_byte": performance["bits_per_byte"]} if grid.paper else {}),
                    }
                )
                for i, j in np.ndindex(tables["mutual_knn"].shape):
                    values = {measure: float(tables[measure][i, j]) for measure in MEASURES}
                    place = {"image_layer": numbers[i], "text_layer": found["layers"][j]}
                    layers.append({**key, "images": name, **place, **values})
    study.write_table("alignment.parquet", rows)
    study.write_table("layers.parquet", layers)
    first = {
        encoder.name: (found, performance)
        for (_, encoder), found, performance in reversed(list(zip(asked, compared, by_work, strict=True)))
    }
    models = [
        {
            "encoder": encoder.name,
            "spec": encoder.asked,
            "layers": first[encoder.name][0]["of"],
            "width": first[encoder.name][0]["width"],
            "bits_per_byte": first[encoder.name][1]["bits_per_byte"],
        }
        for encoder in encoders
    ]
    study.write_table("models.parquet", models)


def _examples(levels: CaptionLevels, grid: Grid) -> list[dict[str, Any]]:
    """Return changed captions for the report: the first ones of median length."""
    lengths = np.array([len(text.split()) for text in levels.texts])
    some = np.argsort(np.abs(lengths - np.median(lengths) - 1), kind="stable")[:SHOWN]
    shown = [value for value in grid.uniqueness if value in (0, 10, 50, 90)] or list(grid.uniqueness[:4])
    return [
        {"uniqueness": uniqueness, "kind": kind, "captions": [changed[i] for i in some]}
        for kind in grid.kinds
        for uniqueness in shown
        for changed in [levels.changed(uniqueness, kind, grid.seeds[0])]
    ]


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]
