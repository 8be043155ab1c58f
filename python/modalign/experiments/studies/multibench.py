"""The study of alignment and performance on real data: MultiBench, as in Tjandrasuwita et al. 2025 (arXiv:2502.16282).

Transformers as wide as the features are trained separately on each modality, over depths and seeds. For each pair of
modalities and each side of it: the encoder of the other side with the best validation score against every depth of
this one. Their alignment is the highest of all pairs of layers on held-out pairs; the table is Pearson's correlation,
over depths, of alignment and test score. Data are the files of ``modalign.data.affect`` and ``av_mnist``.

    run(data_of(PATH, "mosi", QUICK), QUICK, folder)      some ten minutes on two cores, twice that for wide features
    run(data_of(PATH, "mosi", FULL), FULL, folder)        the paper's grid, for a GPU

Under the protocol "paper" the encoders, their training, the compared rows and the statistic are those of the public
code (``multibench_published``).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from modalign.common.progress import Reporter
from modalign.data import TEST, TRAIN, PairedDataset
from modalign.encoders import EncoderConfig, SequenceConfig
from modalign.experiments.studies import multibench_published as published
from modalign.experiments.studies.claims import records
from modalign.experiments.studies.layer_pairs import Layers, compared_layers, layers_of
from modalign.experiments.studies.multibench_claims import claims, correlations
from modalign.experiments.studies.multibench_data import DATASETS, data_of, facts_of
from modalign.experiments.studies.multibench_grid import FULL, GRIDS, QUICK, Grid
from modalign.experiments.studies.registry import StudyOptions
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.studies.trials import Search, Tuned, Tuner
from modalign.experiments.studies.unimodal import Fit, Trained, UnimodalTrainer
from modalign.experiments.sweep import tasks
from modalign.experiments.sweep.randomness import compared_pairs
from modalign.experiments.sweep.training import inputs_of

__all__ = ["DATASETS", "FULL", "GRIDS", "QUICK", "Grid", "data_of", "run"]

BLOCK = 512  # sequences that go through all layers at once


def reproduce(options: StudyOptions) -> None:
    """Run the study as ``modalign reproduce multibench`` does."""
    assert options.data is not None  # the registry requires both
    assert options.dataset is not None
    grid = options.grid(GRIDS)
    run(
        data_of(options.data, options.dataset, grid),
        grid,
        options.folder,
        storage=options.storage,
        fresh=options.fresh,
        reporter=options.reporter,
        workers=options.workers,
    )


def run(
    data: PairedDataset,
    grid: Grid,
    folder: Path,
    *,
    storage: str | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
    workers: int | None = None,
) -> Path:
    """Run the study of ``grid`` and write its tables and claims into ``folder``.

    The files are models.parquet, alignment.parquet, correlations.parquet and claims.json.

    data: the data set of ``data_of``; its settings and content belong to the study. storage: URL of Optuna's storage;
    by default SQLite in the folder. workers: the number of depths trained at once (default: one for each core, or one
    for a GPU). A folder that holds a part of the same study is continued; ValueError for something else in it.
    """
    paper = grid.protocol == "paper"
    if paper and storage is not None:
        raise ValueError("multibench: storage keeps trials, and the protocol paper makes none; leave it out")
    settings = {"study": "multibench", "dataset": data.name, "data": facts_of(data), **dataclasses.asdict(grid)}
    study = Study(folder, settings, fresh=fresh)
    if workers is None and grid.device != "cpu":
        workers = 1
    search = Search(grid.trials, grid.trials_at_once, grid.learning_rates, grid.weight_decays)
    # a storage of the user's may fail, which must be known before an earlier study is cleared
    tuner = None if storage is None else Tuner(search, storage, study.key)
    with study.begun():
        if tuner is None and not paper:
            tuner = Tuner(search, study.database(), study.key)
        keys = list(itertools.product(range(len(data.modalities)), grid.depths))
        parts = [_encoders(data, grid, modality, depth, tuner=tuner) for modality, depth in keys]
        # the longest parts go first, so that no core waits for one at the end
        order = sorted(range(len(parts)), key=lambda i: -parts[i].work)
        done = study.run([parts[i] for i in order], f"{data.name}, encoders", workers=workers, reporter=reporter)
        trained = {keys[i]: found for i, found in zip(order, done, strict=True)}
        models = [row for key in keys for row in trained[key]["models"]]
        pairs = list(itertools.permutations(range(len(data.modalities)), 2))
        compared = study.run(
            [_alignment(data, grid, varying, other, trained=trained) for varying, other in pairs],
            f"{data.name}, alignment",
            workers=workers,
            reporter=reporter,
        )
        study.write_table("models.parquet", models)
        study.write_table("alignment.parquet", [row for found in compared for row in found["alignment"]])
        study.write_table("correlations.parquet", correlations(study.path))
        study.write_json("claims.json", records(claims(study.path)))
    return study.path


def _encoders(data: PairedDataset, grid: Grid, modality: int, depth: int, tuner: Tuner | None) -> Part:
    """Return the part that trains Transformers of one depth on one modality, one for each seed."""
    config, name = _config(data, modality, depth, grid.protocol), f"{data.modalities[modality]}-depth{depth}"
    epochs = grid.epochs * (grid.long if data.name == "av_mnist" else 1)
    _, length, width = inputs_of(data)[modality].shape
    steps = max(1, int((data.split == TRAIN).sum()) // grid.batch_size)
    # thousands of multiplications of one item, beside the cost of every step
    cost = 1000 + length * depth * (12 * width * width + 2 * length * width) // 1000

    def make(advance: Callable[[int], None]) -> dict[str, Any]:
        trainer = UnimodalTrainer(
            [data],
            modality,
            config,
            batch_size=grid.batch_size,
            clip=grid.clip,
            last_batch=tuner is None,
            kept_by="loss" if tuner is None and data.task == "regression" else "score",
            device=grid.device,
        )
        fits = published.fits_of(data, modality, depth, grid.seeds) if tuner is None else []
        if tuner is None:
            trained = trainer.train(fits, epochs, on_step=lambda: advance(cost))
        else:
            encoders = [Tuned(f"{name}-seed{seed}", 0, seed) for seed in grid.seeds]
            trained, fits = tuner.tuned(trainer, encoders, epochs, on_step=lambda: advance(cost))
        rows = _models(trained, fits, grid.seeds)
        if tuner is None:
            train = trainer.scores(trained, fits, TRAIN)
            rows = [{**row, "train_score": float(score)} for row, score in zip(rows, train, strict=True)]
        key = {"modality": data.modalities[modality], "depth": depth, "chance": _chance(data)}
        parameters = {part: value.cpu() for part, value in trained.parameters.items()}
        return {"models": [{**key, **row} for row in rows], "parameters": parameters}

    return Part(name, cost * steps * epochs * math.ceil(grid.trials / grid.trials_at_once), make)


def _models(trained: Trained, fits: Sequence[Fit], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows of models.parquet, one for each seed."""
    return [
        {
            "seed": seed,
            "learning_rate": fit.learning_rate,
            "weight_decay": fit.weight_decay,
            "validation_score": float(trained.validation[i]),
            "score": float(trained.test[i]),
            "best_epoch": int(trained.epoch[i]),
        }
        for i, (fit, seed) in enumerate(zip(fits, seeds, strict=True))
    ]


def _alignment(
    data: PairedDataset, grid: Grid, varying: int, other: int, trained: dict[tuple[int, int], dict[str, Any]]
) -> Part:
    """Return the part that compares every depth of one modality with the best encoder of another.

    The best encoder is that of the same seed or, under the paper's protocol, that of all seeds.
    """
    name = f"{data.modalities[varying]}-beside-{data.modalities[other]}"
    paper = grid.protocol == "paper"
    parts = published.PARTS if paper else {"test": TEST}
    models = {depth: trained[other, depth]["models"] for depth in grid.depths}

    def make(advance: Callable[[int], None]) -> dict[str, Any]:
        alignment = []
        for part, number in parts.items():
            layers = _layers_on(data, grid, number, trained)
            for i, seed in enumerate(grid.seeds):
                best, of_seed = published.best_model(models, grid.seeds) if paper else (_best(models, i), i)
                beside = layers(other, best, of_seed)
                for depth in grid.depths:
                    model = trained[varying, depth]["models"][i]
                    key = {
                        "part": part,
                        "varying": data.modalities[varying],
                        "other": data.modalities[other],
                        "seed": seed,
                        "depth": depth,
                        "seed_other": grid.seeds[of_seed],
                        "depth_other": best,
                        "score": model["score" if number == TEST else "train_score"],
                    }
                    alignment += [{**key, **pair} for pair in compared_layers(layers(varying, depth, i), beside)]
                    advance(1)
        return {"alignment": alignment}

    return Part(name, len(parts) * len(grid.seeds) * len(grid.depths), make)


def _layers_on(
    data: PairedDataset, grid: Grid, part: int, trained: dict[tuple[int, int], dict[str, Any]]
) -> Callable[[int, int, int], Layers]:
    """Return a function that gives, on a part of the split, the layers of an encoder by modality, depth and seed."""
    held = data.part(part)
    paper = grid.protocol == "paper"
    rows = published.compared_rows(data, part, grid.compared) if paper else compared_pairs(len(held), grid.compared)
    inputs = [x[rows] for x in inputs_of(held)]
    quantile = published.QUANTILE if paper else 1.0

    def layers(modality: int, depth: int, i: int) -> Layers:
        encoder = Trained(trained[modality, depth]["parameters"], *[torch.zeros(0)] * 3)
        config = _config(data, modality, depth, grid.protocol)
        return layers_of(config, encoder, i, inputs[modality], k=grid.k, block=BLOCK, quantile=quantile)

    return layers


def _best(models: dict[int, Sequence[dict[str, Any]]], i: int) -> int:
    """Return the depth of the best encoder of one seed by validation score, the shallowest of equals."""
    return max(models, key=lambda depth: (models[depth][i]["validation_score"], -depth))


def _config(data: PairedDataset, modality: int, depth: int, protocol: str = "default") -> EncoderConfig:
    if protocol == "paper":
        return published.encoder_of(data, modality, depth)
    width = inputs_of(data)[modality].shape[2]
    return SequenceConfig(
        kind="sequence", depth=depth, heads=1, pooling="mean" if data.task == "regression" else "cls", dim=width
    )


def _chance(data: PairedDataset) -> float:
    return tasks.chance(data.task, data.labels[data.split == TEST])
