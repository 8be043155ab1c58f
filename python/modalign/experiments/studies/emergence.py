"""The study of when alignment emerges without an alignment loss: Tjandrasuwita et al. 2025 (arXiv:2502.16282).

Unimodal encoders are trained separately, each on one modality, over uniqueness U of the information (R = 8 - U of the
label's 8 features are shared), heterogeneity of the modalities (depth of the network in front of modality 2), depth of
the encoders, and seeds. Their layers are compared on held-out pairs; the alignment of two encoders is the highest of
all pairs of layers.

    run(QUICK, folder)      some ten minutes on two cores
    run(FULL, folder)       the paper's grid
    run(GRIDS["paper"][1], folder)     the paper's protocol, small
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from modalign.common.progress import Reporter
from modalign.data import TEST, PairedDataset
from modalign.experiments.studies.claims import records
from modalign.experiments.studies.emergence_claims import claims
from modalign.experiments.studies.emergence_grid import FULL, GRIDS, PUBLISHED, QUICK, Cell, Grid
from modalign.experiments.studies.layer_pairs import MEASURES, compared_layers, layers_of
from modalign.experiments.studies.registry import StudyOptions
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.studies.trials import Search, Tuned, Tuner
from modalign.experiments.studies.unimodal import Fit, Trained, UnimodalTrainer
from modalign.experiments.sweep.randomness import compared_pairs

__all__ = ["FULL", "GRIDS", "MEASURES", "QUICK", "Grid", "claims", "run"]

Chosen = dict[Cell, tuple[float, float]] | None
FACTORS = ("uniqueness", "heterogeneity", "temperature", "seed", "depth_1", "depth_2", "layer_1", "layer_2")
COLUMNS = (*FACTORS, *MEASURES, "accuracy")  # of alignment.parquet


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
    _require_data(grid)
    study = Study(folder, {"study": "emergence", **dataclasses.asdict(grid)}, fresh=fresh)
    search = Search(grid.trials, grid.trials_at_once, grid.learning_rates, grid.weight_decays)
    # a storage of the user's may fail, which must be known before an earlier study is cleared
    tuner = None if storage is None else Tuner(search, storage, study.key)
    with study.begun():
        tuner = tuner or Tuner(search, study.database(), study.key)
        shown: dict[str, Any] = {"workers": workers, "reporter": reporter}
        chosen = _chosen(grid, study, tuner, shown)
        keys = list(itertools.product(grid.depths_1, grid.trained_for))
        parts = [_part(_Encoders(grid, 0, *key), tuner, chosen[0]) for key in keys]
        done = _longest_first(study, parts, "emergence, modality 1", shown)
        first = dict(zip(keys, done, strict=True))
        pairs = itertools.product(grid.depths_2, grid.heterogeneity)
        parts = [_part(_Encoders(grid, 1, *pair), tuner, chosen[1], first=first) for pair in pairs]
        second = _longest_first(study, parts, "emergence, modality 2", shown)
        models = [row for found in (*first.values(), *second) for row in found["models"]]
        study.write_table("models.parquet", models)
        study.write_table("alignment.parquet", [row for found in second for row in found["alignment"]])
        study.write_json("claims.json", records(claims(study.path)))
    return study.path


def _require_data(grid: Grid) -> None:
    """Check, before anything is written, that the data of the deepest network can be drawn, and that they suffice."""
    for temperature in grid.temperatures:
        data = grid.data(Cell(temperature, grid.uniqueness[0]), max(grid.heterogeneity), grid.seeds[0])
    held = int((data.split == TEST).sum())
    if grid.compared > held:
        raise ValueError(
            f"emergence: compared must be at most {held:,}, the test pairs of n = {grid.n:,}, got {grid.compared:,}; "
            "take fewer, or a larger n"
        )


def _longest_first(study: Study, parts: Sequence[Part], title: str, shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results of the parts in their order; the longest go first, so that no core waits at the end."""
    order = sorted(range(len(parts)), key=lambda i: -parts[i].work)
    done = study.run([parts[i] for i in order], title, **shown)
    by_part = dict(zip(order, done, strict=True))
    return [by_part[i] for i in range(len(parts))]


class _Encoders:
    """The encoders of one depth for one modality and heterogeneity: one for each cell and seed."""

    def __init__(self, grid: Grid, modality: int, depth: int, heterogeneity: int) -> None:
        self.grid, self.modality, self.depth, self.heterogeneity = grid, modality, depth, heterogeneity
        self.keys = list(itertools.product(grid.cells(), grid.seeds))
        self.epochs = (grid.epochs_1, grid.epochs_2)[modality]
        # in steps of training, of any one of the trials that run at once
        self.trials = math.ceil(grid.trials / grid.trials_at_once) if grid.tuning == "each" else 1
        name = f"modality{modality + 1}-depth{depth}"
        self.name = name if grid.trained_for == (0,) and modality == 0 else f"{name}-heterogeneity{heterogeneity}"

    def data(self) -> tuple[list[PairedDataset], list[int]]:
        """Return the data sets, and the number of the data set of each key."""
        grid = self.grid
        if grid.paper:  # seeds share the data
            sets = [grid.data(cell, self.heterogeneity, 0) for cell in grid.cells()]
            return sets, [i // len(grid.seeds) for i in range(len(self.keys))]
        return [grid.data(cell, self.heterogeneity, seed) for cell, seed in self.keys], list(range(len(self.keys)))

    def trainer(self, sets: Sequence[PairedDataset]) -> UnimodalTrainer:
        grid = self.grid
        encoder = grid.encoder(self.depth)
        return UnimodalTrainer(
            sets, self.modality, encoder, batch_size=grid.batch_size, clip=grid.clip, device=grid.device
        )

    def train(
        self,
        sets: Sequence[PairedDataset],
        of: Sequence[int],
        *,
        tuner: Tuner,
        chosen: Chosen,
        on_epoch: Callable[[], object],
    ) -> tuple[Trained, list[Fit]]:
        """Return the trained encoders, tuned each or with the settings of their cell."""
        seeds = [self.grid.training_seed(seed, self.heterogeneity, self.depth) for _, seed in self.keys]
        if chosen is None:
            titles = [self.name + _cell_name(cell, self.grid) + f"-seed{seed}" for cell, seed in self.keys]
            encoders = [Tuned(*found) for found in zip(titles, of, seeds, strict=True)]
            return tuner.tuned(self.trainer(sets), encoders, self.epochs, on_epoch)
        fits = [Fit(i, seed, *chosen[cell]) for i, seed, (cell, _) in zip(of, seeds, self.keys, strict=True)]
        return self.trainer(sets).train(fits, self.epochs, on_epoch), fits


def _part(
    encoders: _Encoders, tuner: Tuner, chosen: Chosen, *, first: dict[tuple[int, int], Any] | None = None
) -> Part:
    """Return the part that trains the encoders and, for modality 2, aligns them with those of modality 1."""

    def make(advance: Callable[[int], None]) -> dict[str, Any]:
        sets, of = encoders.data()
        trained, fits = encoders.train(
            sets, of, tuner=tuner, chosen=chosen, on_epoch=lambda: advance(2 + encoders.depth)
        )
        models = _rows(encoders, trained, fits)
        if first is None:
            return {"models": models, "parameters": trained.parameters}
        alignment = []
        for i in range(len(encoders.keys)):
            advance(0)
            found = _aligned(encoders, trained, i, sets[of[i]], first=first)
            alignment += [models[i] | pair for pair in found]
        return {"models": models, "alignment": [{name: row[name] for name in COLUMNS} for row in alignment]}

    return Part(encoders.name, encoders.epochs * encoders.trials * (2 + encoders.depth), make)


def _aligned(
    encoders: _Encoders, trained: Trained, fit: int, data: PairedDataset, *, first: dict[tuple[int, int], Any]
) -> list[dict[str, Any]]:
    """Return the alignment of one encoder of modality 2 with those of modality 1, for every pair of layers."""
    grid, held = encoders.grid, data.part(TEST)
    rows = torch.arange(len(held))[: grid.compared] if grid.paper else compared_pairs(len(held), grid.compared)
    layers_2 = layers_of(grid.encoder(encoders.depth), trained, fit, held.y[rows], k=grid.k)
    of_first = encoders.heterogeneity if encoders.heterogeneity in grid.trained_for else 0
    found = []
    for depth_1 in grid.depths_1:
        other = Trained(first[depth_1, of_first]["parameters"], *[torch.zeros(0)] * 3)
        layers_1 = layers_of(grid.encoder(depth_1), other, fit, held.x[rows], k=grid.k)
        for pair in compared_layers(layers_1, layers_2, published=grid.paper):
            found.append({"depth_1": depth_1, "depth_2": encoders.depth, **pair})
    return found


def _chosen(grid: Grid, study: Study, tuner: Tuner, shown: dict[str, Any]) -> tuple[Chosen, Chosen]:
    """Return learning rate and weight decay by cell for both modalities; None where every encoder is tuned."""
    if grid.tuning == "each":
        return None, None
    if grid.tuning == "published":
        first, second = ({cell: PUBLISHED[8 - cell.uniqueness][side] for cell in grid.cells()} for side in (0, 1))
        return first, second
    parts = [_tuning(grid, modality, tuner) for modality in (0, 1)]
    found = study.run(parts, "emergence, tuning", **shown)
    one, two = (dict(zip(grid.cells(), map(tuple, part["settings"]), strict=True)) for part in found)
    return one, two


def _tuning(grid: Grid, modality: int, tuner: Tuner) -> Part:
    """Return the part that tunes for each cell, by the mean score of several depths and heterogeneities, one seed."""
    pairs = [(depth, d) for d in range(1, 5) for depth in (d - 1, d) if depth]
    if modality == 0 and grid.trained_for == (0,):
        pairs = [(depth, 0) for depth in range(1, 5)]
    epochs = (grid.epochs_1, grid.epochs_2)[modality]
    work = epochs * grid.trials * sum(2 + depth for depth, _ in pairs)

    def make(advance: Callable[[int], None]) -> dict[str, Any]:
        one_seed = dataclasses.replace(grid, seeds=grid.seeds[:1])
        models, shares = [], []
        for depth, heterogeneity in pairs:
            encoders = _Encoders(one_seed, modality, depth, heterogeneity)
            models.append(encoders.trainer(encoders.data()[0]))
            shares.append((2 + depth, grid.training_seed(grid.seeds[0], heterogeneity, depth)))
        titles = [f"modality{modality + 1}" + _cell_name(cell, grid) for cell in grid.cells()]

        def scores(rates: list[tuple[float, float]]) -> list[float]:
            total = torch.zeros(len(titles), dtype=torch.float64)
            for trainer, (share, seed) in zip(models, shares, strict=True):
                fits = [Fit(i, seed, *rate) for i, rate in enumerate(rates)]
                total += trainer.train(fits, epochs, functools.partial(advance, share)).validation
            mean: list[float] = (total / len(models)).tolist()
            return mean

        return {"settings": tuner.together(titles, scores)}

    return Part(f"tuning-modality{modality + 1}", work, make)


def _cell_name(cell: Cell, grid: Grid) -> str:
    level = f"-temperature{cell.temperature}" if len(grid.temperatures) > 1 else ""
    return f"{level}-uniqueness{cell.uniqueness}"


def _rows(encoders: _Encoders, trained: Trained, fits: Sequence[Fit]) -> list[dict[str, Any]]:
    shown = -1 if encoders.modality == 0 and encoders.heterogeneity == 0 else encoders.heterogeneity
    return [
        {
            "modality": encoders.modality + 1,
            "depth": encoders.depth,
            "uniqueness": cell.uniqueness,
            "heterogeneity": shown,
            "temperature": cell.temperature,
            "seed": seed,
            "learning_rate": fit.learning_rate,
            "weight_decay": fit.weight_decay,
            "validation_accuracy": float(trained.validation[i]),
            "accuracy": float(trained.test[i]),
            "best_epoch": int(trained.epoch[i]),
        }
        for i, ((cell, seed), fit) in enumerate(zip(encoders.keys, fits, strict=True))
    ]
