"""The study of when alignment emerges without an alignment loss: Tjandrasuwita et al. 2025 (arXiv:2502.16282).

Unimodal encoders are trained separately, each on one modality, over uniqueness U of the information (R = 8 - U of the
label's 8 features are shared), heterogeneity of the modalities (depth of the network in front of modality 2), depth of
the encoders, and seeds. Their layers are compared on held-out pairs; the alignment of two encoders is the highest of
all pairs of layers.

    run(QUICK, folder)      some ten minutes on two cores
    run(FULL, folder)       the paper's grid
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
from modalign.data import TEST, PairedDataset, synthetic
from modalign.encoders import MLPConfig
from modalign.experiments.studies.claims import records
from modalign.experiments.studies.emergence_claims import claims
from modalign.experiments.studies.layer_pairs import MEASURES, compared_layers, layers_of
from modalign.experiments.studies.registry import StudyOptions
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.studies.trials import Search, Tuned, Tuner
from modalign.experiments.studies.unimodal import Fit, Trained, UnimodalTrainer
from modalign.experiments.sweep.randomness import compared_pairs

__all__ = ["FULL", "MEASURES", "QUICK", "Grid", "claims", "run"]

WIDTH = 12
FEATURES = 8  # features of the label


@dataclasses.dataclass(frozen=True)
class Grid:
    """What the study trains and compares.

    ``trials`` pairs of learning rate and weight decay are tried for each encoder by Optuna, ``trials_at_once`` at once.
    ``compared`` held-out pairs are compared, with ``k`` neighbours among them.
    """

    uniqueness: tuple[int, ...] = tuple(range(9))
    heterogeneity: tuple[int, ...] = (1, 3, 5, 7, 9)
    seeds: tuple[int, ...] = (2, 22, 42)
    depths_1: tuple[int, ...] = (1,)
    depths_2: tuple[int, ...] = (1, 2, 3, 5, 8)
    n: int = 16384
    epochs_1: int = 20
    epochs_2: int = 30
    batch_size: int = 512
    clip: float = 8.0
    trials: int = 3
    trials_at_once: int = 3
    learning_rates: tuple[float, ...] = (1e-3, 5e-3, 1e-2, 5e-2)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
    compared: int = 2048
    k: int = 50
    device: str = "cpu"
    protocol: str = "default"

    def __post_init__(self) -> None:
        for name in ("uniqueness", "heterogeneity", "seeds", "depths_1", "depths_2"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or min(values) < (name.startswith("depth")):
                raise ValueError(f"emergence: {name} must hold different whole numbers, got {values}")
        if max(self.uniqueness) > FEATURES or max(*self.depths_1, *self.depths_2) > 10:
            raise ValueError("emergence: uniqueness goes from 0 to 8 and depth from 1 to 10")
        if not 1 <= self.trials_at_once <= self.trials:
            raise ValueError(f"emergence: trials_at_once must be from 1 to {self.trials}, got {self.trials_at_once}")


# a quarter of the paper's pairs and a tenth of its epochs; k is the same share of the compared pairs
QUICK = Grid()
FULL = Grid(
    heterogeneity=tuple(range(1, 11)),
    depths_1=tuple(range(1, 11)),
    depths_2=tuple(range(1, 11)),
    n=65536,
    epochs_1=50,
    epochs_2=300,
    trials=8,
    trials_at_once=4,
    compared=4096,
    k=100,
)
# the whole grid and the small one of each protocol
GRIDS = {"default": (FULL, QUICK)}


def reproduce(options: StudyOptions) -> None:
    """Run the study as ``modalign reproduce emergence`` does."""
    run(
        options.grid(GRIDS),
        options.folder,
        storage=options.storage,
        fresh=options.fresh,
        reporter=options.reporter,
        workers=options.workers,
    )


def run(
    grid: Grid,
    folder: Path,
    *,
    storage: str | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
    workers: int | None = None,
) -> Path:
    """Run the study of ``grid`` and write models.parquet, alignment.parquet and claims.json into ``folder``.

    storage: URL of Optuna's storage; by default SQLite in the folder. A folder that holds a part of the
    same study is continued. Raises ValueError for a folder with something else in it.
    """
    study = Study(folder, {"study": "emergence", **dataclasses.asdict(grid)}, fresh=fresh)
    search = Search(grid.trials, grid.trials_at_once, grid.learning_rates, grid.weight_decays)
    # a storage of the user's may fail, which must be known before an earlier study is cleared
    tuner = None if storage is None else Tuner(search, storage, study.key)
    with study.begun():
        tuner = tuner or Tuner(search, study.database(), study.key)
        first = _first_modality(grid, study, tuner, reporter, workers=workers)
        parts = [
            Part(
                f"modality2-depth{depth}-heterogeneity{heterogeneity}",
                grid.epochs_2 * math.ceil(grid.trials / grid.trials_at_once) * (2 + depth),
                _second_modality(grid, depth, heterogeneity, tuner, first=first),
            )
            for depth, heterogeneity in itertools.product(grid.depths_2, grid.heterogeneity)
        ]
        # the deepest take longest and go first, so that no core waits for one at the end
        order = sorted(range(len(parts)), key=lambda i: -parts[i].work)
        done = study.run([parts[i] for i in order], "emergence, modality 2", workers=workers, reporter=reporter)
        by_part = dict(zip(order, done, strict=True))
        second = [by_part[i] for i in range(len(parts))]
        models = [row for found in (*first.values(), *second) for row in found["models"]]
        study.write_table("models.parquet", models)
        study.write_table("alignment.parquet", [row for found in second for row in found["alignment"]])
        study.write_json("claims.json", records(claims(study.path)))
    return study.path


def _data(grid: Grid, uniqueness: int, heterogeneity: int, seed: int) -> PairedDataset:
    return synthetic(
        redundancy=FEATURES - uniqueness, n=grid.n, heterogeneity=heterogeneity, seed=seed, information=False
    )


def _first_modality(
    grid: Grid, study: Study, tuner: Tuner, reporter: Reporter | None, workers: int | None
) -> dict[int, dict[str, Any]]:
    """Train the encoders of modality 1, by depth: heterogeneity does not affect it, so one set serves all."""
    parts = []
    for depth in grid.depths_1:

        def make(advance: Callable[[int], None], depth: int = depth) -> dict[str, Any]:
            keys = list(itertools.product(grid.uniqueness, grid.seeds))
            data = [_data(grid, uniqueness, 0, seed) for uniqueness, seed in keys]
            trainer = _trainer(grid, data, 0, depth)
            encoders = _tuned(f"modality1-depth{depth}", keys)
            trained, fits = tuner.tuned(trainer, encoders, grid.epochs_1, lambda: advance(2 + depth))
            rows = _rows(1, depth, [(u, -1, seed) for u, seed in keys], trained, fits=fits)
            return {"models": rows, "parameters": trained.parameters}

        work = grid.epochs_1 * math.ceil(grid.trials / grid.trials_at_once) * (2 + depth)
        parts.append(Part(f"modality1-depth{depth}", work, make))
    found = study.run(parts, "emergence, modality 1", workers=workers, reporter=reporter)
    return dict(zip(grid.depths_1, found, strict=True))


def _second_modality(
    grid: Grid, depth: int, heterogeneity: int, tuner: Tuner, first: dict[int, dict[str, Any]]
) -> Callable[[Callable[[int], None]], dict[str, Any]]:
    def make(advance: Callable[[int], None]) -> dict[str, Any]:
        keys = list(itertools.product(grid.uniqueness, grid.seeds))
        data = [_data(grid, uniqueness, heterogeneity, seed) for uniqueness, seed in keys]
        trainer = _trainer(grid, data, 1, depth)
        name = f"modality2-depth{depth}-heterogeneity{heterogeneity}"
        trained, fits = tuner.tuned(trainer, _tuned(name, keys), grid.epochs_2, lambda: advance(2 + depth))
        models = _rows(2, depth, [(u, heterogeneity, seed) for u, seed in keys], trained, fits=fits)
        alignment = []
        for i, (uniqueness, seed) in enumerate(keys):
            advance(0)
            held = data[i].part(TEST)
            rows = compared_pairs(len(held), grid.compared)
            layers_2 = layers_of(_encoder(depth), trained, i, held.y[rows], k=grid.k)
            for depth_1, encoders in first.items():
                of_first = Trained(encoders["parameters"], *[torch.zeros(0)] * 3)
                layers_1 = layers_of(_encoder(depth_1), of_first, i, held.x[rows], k=grid.k)
                for pair in compared_layers(layers_1, layers_2):
                    alignment.append(
                        {
                            "uniqueness": uniqueness,
                            "heterogeneity": heterogeneity,
                            "seed": seed,
                            "depth_1": depth_1,
                            "depth_2": depth,
                            **pair,
                            "accuracy": models[i]["accuracy"],
                        }
                    )
        return {"models": models, "alignment": alignment}

    return make


def _tuned(name: str, keys: Sequence[tuple[int, int]]) -> list[Tuned]:
    """Return the encoders to tune, where data set i has keys[i] = (uniqueness, seed)."""
    return [Tuned(f"{name}-uniqueness{uniqueness}-seed{seed}", i, seed) for i, (uniqueness, seed) in enumerate(keys)]


def _encoder(depth: int) -> MLPConfig:
    return MLPConfig(kind="mlp", width=WIDTH, depth=depth, dim=WIDTH)


def _trainer(grid: Grid, data: Sequence[PairedDataset], modality: int, depth: int) -> UnimodalTrainer:
    return UnimodalTrainer(
        data, modality, _encoder(depth), batch_size=grid.batch_size, clip=grid.clip, device=grid.device
    )


def _rows(
    modality: int, depth: int, keys: Sequence[tuple[int, int, int]], trained: Trained, fits: Sequence[Fit]
) -> list[dict[str, Any]]:
    return [
        {
            "modality": modality,
            "depth": depth,
            "uniqueness": uniqueness,
            "heterogeneity": heterogeneity,
            "seed": seed,
            "learning_rate": fit.learning_rate,
            "weight_decay": fit.weight_decay,
            "validation_accuracy": float(trained.validation[i]),
            "accuracy": float(trained.test[i]),
            "best_epoch": int(trained.epoch[i]),
        }
        for i, ((uniqueness, heterogeneity, seed), fit) in enumerate(zip(keys, fits, strict=True))
    ]
