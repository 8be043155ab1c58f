"""The study of alignment and performance on real data: MultiBench, as in Tjandrasuwita et al. 2025 (arXiv:2502.16282).

Transformers as wide as the features are trained separately on each modality, over depths and seeds. For each pair of
modalities and each side of it: the encoder of the other side with the best validation score against every depth of
this one. Their alignment is the highest of all pairs of layers on held-out pairs; the table is Pearson's correlation,
over depths, of alignment and test score. Data are the files of ``modalign.data.affect`` and ``av_mnist``.

    run(data_of(PATH, "mosi", QUICK), QUICK, folder)      some ten minutes on two cores, twice that for wide features
    run(data_of(PATH, "mosi", FULL), FULL, folder)        the paper's grid, for a GPU
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.common.names import suggestion
from modalign.common.progress import Reporter
from modalign.data import TEST, TRAIN, VALIDATION, PairedDataset, affect, av_mnist, require_trainable
from modalign.encoders import SequenceConfig
from modalign.experiments.studies.claims import records
from modalign.experiments.studies.layer_pairs import Layers, compared_layers, layers_of
from modalign.experiments.studies.multibench_claims import claims, correlations
from modalign.experiments.studies.registry import StudyOptions
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.studies.trials import Search, Tuned, Tuner
from modalign.experiments.studies.unimodal import Trained, UnimodalTrainer
from modalign.experiments.sweep import tasks
from modalign.experiments.sweep.randomness import compared_pairs
from modalign.experiments.sweep.training import inputs_of
from modalign.files.paths import expanded

__all__ = ["DATASETS", "FULL", "QUICK", "Grid", "data_of", "run"]

# the usual name of the file of each affect data set
AFFECT_FILES = {"mosi": "mosi_raw.pkl", "mosei": "mosei_senti_data.pkl", "humor": "humor.pkl", "sarcasm": "sarcasm.pkl"}
DATASETS = (*AFFECT_FILES, "av_mnist")
SPECTROGRAM, POOL = (112, 112), 4
BLOCK = 512  # sequences that go through all layers at once


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is trained. items: pairs of each part at most, a fixed random choice; steps: of an affect sequence, the last
    ones; None for all. trials: pairs of learning rate and weight decay tried for each encoder, so many at once.
    compared: held-out pairs that are compared; k: neighbours among them. long: how many times the epochs AV-MNIST has.
    """

    depths: tuple[int, ...] = (1, 2, 3, 4, 5)
    seeds: tuple[int, ...] = (2, 22)
    items: int | None = 512
    steps: int | None = 20
    epochs: int = 6
    long: int = 2
    batch_size: int = 64
    clip: float = 8.0
    trials: int = 2
    trials_at_once: int = 2
    learning_rates: tuple[float, ...] = (1e-3, 5e-4)
    weight_decays: tuple[float, ...] = (0.0, 0.1, 0.01, 1e-3, 1e-4)
    compared: int = 512
    k: int = 10
    device: str = "cpu"
    protocol: str = "default"

    def __post_init__(self) -> None:
        for name, fewest in (("depths", 3), ("seeds", 1)):
            values = getattr(self, name)
            if len(values) < fewest or len(set(values)) < len(values) or min(values) < (name == "depths"):
                raise ValueError(f"multibench: {name} must hold {fewest} or more different whole numbers, got {values}")
        if max(self.depths) > 10:
            raise ValueError(f"multibench: depths go from 1 to 10, got {max(self.depths)}")
        if not 1 <= self.trials_at_once <= self.trials:
            raise ValueError(f"multibench: trials_at_once must be from 1 to {self.trials}, got {self.trials_at_once}")


QUICK = Grid()
FULL = Grid(
    depths=tuple(range(1, 11)),
    seeds=(2, 22, 42),
    items=None,
    steps=None,
    epochs=50,
    trials=8,
    learning_rates=(1e-3, 5e-4, 1e-4, 5e-5, 1e-5),
    compared=4096,
)
# the whole grid and the small one of each protocol
GRIDS = {"default": (FULL, QUICK)}


def data_of(path: str | Path, dataset: str, grid: Grid) -> PairedDataset:
    """Return the data set, cut as ``grid`` says, from its file or from the folder that holds it under its usual name.

    Affect sets have vision, audio and text; the spectrograms of AV-MNIST are averaged over 4 x 4 (28 tokens of 28),
    files of MFCC tokens are taken as they are. Raises FileNotFoundError for a missing file, and ValueError for one of
    another form or one that is too small.
    """
    if dataset not in DATASETS:
        hint = suggestion(dataset, DATASETS)
        raise ValueError(f"multibench: dataset must be one of {', '.join(DATASETS)}, got {dataset!r}{hint}")
    place = expanded(path)
    if dataset == "av_mnist":
        if not place.is_dir():
            raise ValueError(f"multibench: av_mnist needs the folder with image/, audio/ and labels, got {place}")
        audio = place / "audio" / "train_data.npy"
        shape = np.load(audio, mmap_mode="r", allow_pickle=False).shape[1:] if audio.is_file() else ()
        data = av_mnist(place, features="tokens", audio_pool=POOL if shape == SPECTROGRAM else 1)
    else:
        if place.is_dir():
            place = place / AFFECT_FILES[dataset]
        data = affect(place, dataset, ("vision", "audio", "text"))
        if grid.steps is not None:  # padding is on the left
            data = _with(data, [x[:, -grid.steps :] for x in inputs_of(data)])
    if grid.items is not None:
        data = _some(data, grid.items)
    require_trainable(data)
    held = min(int((data.split == TEST).sum()), grid.compared)
    if not grid.k < held:
        raise ValueError(f"multibench: k must be less than the number of test pairs compared, got {grid.k} for {held}")
    return data


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
    settings = {"study": "multibench", "dataset": data.name, "data": _facts(data), **dataclasses.asdict(grid)}
    study = Study(folder, settings, fresh=fresh)
    if workers is None and grid.device != "cpu":
        workers = 1
    search = Search(grid.trials, grid.trials_at_once, grid.learning_rates, grid.weight_decays)
    # a storage of the user's may fail, which must be known before an earlier study is cleared
    tuner = None if storage is None else Tuner(search, storage, study.key)
    with study.begun():
        tuner = tuner or Tuner(search, study.database(), study.key)
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


def _encoders(data: PairedDataset, grid: Grid, modality: int, depth: int, tuner: Tuner) -> Part:
    """Return the part that trains Transformers of one depth on one modality, one for each seed."""
    config, name = _config(data, modality, depth), f"{data.modalities[modality]}-depth{depth}"
    epochs = grid.epochs * (grid.long if data.name == "av_mnist" else 1)
    _, length, width = inputs_of(data)[modality].shape
    steps = max(1, int((data.split == TRAIN).sum()) // grid.batch_size)
    # thousands of multiplications of one item, beside the cost of every step
    cost = 1000 + length * depth * (12 * width * width + 2 * length * width) // 1000

    def make(advance: Callable[[int], None]) -> dict[str, Any]:
        trainer = UnimodalTrainer(
            [data], modality, config, batch_size=grid.batch_size, clip=grid.clip, device=grid.device
        )
        encoders = [Tuned(f"{name}-seed{seed}", 0, seed) for seed in grid.seeds]
        trained, fits = tuner.tuned(trainer, encoders, epochs, on_step=lambda: advance(cost))
        rows = [
            {
                "modality": data.modalities[modality],
                "depth": depth,
                "seed": fit.seed,
                "learning_rate": fit.learning_rate,
                "weight_decay": fit.weight_decay,
                "validation_score": float(trained.validation[i]),
                "score": float(trained.test[i]),
                "best_epoch": int(trained.epoch[i]),
                "chance": _chance(data),
            }
            for i, fit in enumerate(fits)
        ]
        parameters = {part: value.cpu() for part, value in trained.parameters.items()}
        return {"models": rows, "parameters": parameters}

    return Part(name, cost * steps * epochs * math.ceil(grid.trials / grid.trials_at_once), make)


def _alignment(
    data: PairedDataset, grid: Grid, varying: int, other: int, trained: dict[tuple[int, int], dict[str, Any]]
) -> Part:
    """Return the part that compares every depth of one modality with the best encoder of another, seed by seed."""
    name = f"{data.modalities[varying]}-beside-{data.modalities[other]}"

    def make(advance: Callable[[int], None]) -> dict[str, Any]:
        held = data.part(TEST)
        rows = compared_pairs(len(held), grid.compared)
        inputs = [x[rows] for x in inputs_of(held)]

        def layers(modality: int, depth: int, i: int) -> Layers:
            found = Trained(trained[modality, depth]["parameters"], *[torch.zeros(0)] * 3)
            return layers_of(_config(data, modality, depth), found, i, inputs[modality], k=grid.k, block=BLOCK)

        alignment = []
        for i, seed in enumerate(grid.seeds):
            scores = [trained[other, depth]["models"][i]["validation_score"] for depth in grid.depths]
            best = grid.depths[int(np.argmax(scores))]  # the shallowest of equals
            beside = layers(other, best, i)
            for depth in grid.depths:
                key = {
                    "varying": data.modalities[varying],
                    "other": data.modalities[other],
                    "seed": seed,
                    "depth": depth,
                    "depth_other": best,
                    "score": trained[varying, depth]["models"][i]["score"],
                }
                alignment += [{**key, **pair} for pair in compared_layers(layers(varying, depth, i), beside)]
                advance(1)
        return {"alignment": alignment}

    return Part(name, len(grid.seeds) * len(grid.depths), make)


def _config(data: PairedDataset, modality: int, depth: int) -> SequenceConfig:
    width = inputs_of(data)[modality].shape[2]
    return SequenceConfig(
        kind="sequence", depth=depth, heads=1, pooling="mean" if data.task == "regression" else "cls", dim=width
    )


def _chance(data: PairedDataset) -> float:
    return tasks.chance(data.task, data.labels[data.split == TEST])


def _with(data: PairedDataset, inputs: Sequence[Tensor]) -> PairedDataset:
    x, y, *more = (x.contiguous() for x in inputs)
    return dataclasses.replace(data, x=x, y=y, more=tuple(more))


def _some(data: PairedDataset, most: int) -> PairedDataset:
    rows = torch.cat(
        [
            (inside := (data.split == part).nonzero()[:, 0])[compared_pairs(len(inside), most)]
            for part in (TRAIN, VALIDATION, TEST)
        ]
    )
    return dataclasses.replace(
        data,
        x=data.x[rows],
        y=data.y[rows],
        more=tuple(x[rows] for x in data.more),
        labels=data.labels[rows],
        split=data.split[rows],
    )


def _facts(data: PairedDataset) -> dict[str, Any]:
    """Return the facts that identify the data: sizes, and the fingerprint of every number."""
    return {
        "modalities": {name: list(x.shape[1:]) for name, x in zip(data.modalities, inputs_of(data), strict=True)},
        "pairs": [int((data.split == part).sum()) for part in (TRAIN, VALIDATION, TEST)],
        "fingerprint": data.fingerprint(),
    }
