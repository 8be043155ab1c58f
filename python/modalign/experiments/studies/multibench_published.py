"""The protocol of the public code of Tjandrasuwita et al. on the data of MultiBench, where it differs from ours.

encoder        the Transformer of their code (``encoders.published``)
training       the learning rates and weight decays that they publish for each data set, no search; batches to the
               last pair; regression models kept by the validation loss; a seed for each depth
alignment      the rows of a layer clamped at the 0.95-quantile of its absolute values, then scaled to unit length;
               the first 4,096 test pairs, and 4,096 training pairs
statistic      one encoder of each modality, the best by validation score over depths and seeds; Pearson's r of
               alignment with it and score over all (depth, seed) points, on test and on training pairs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.data import TEST, TRAIN, PairedDataset
from modalign.encoders import MultiBenchConfig
from modalign.experiments.studies.unimodal import Fit
from modalign.experiments.sweep.randomness import compared_pairs
from modalign.experiments.sweep.training import inputs_of

__all__ = ["PARTS", "QUANTILE", "best_model", "compared_rows", "encoder_of", "fits_of", "has_published_widths"]

PARTS = {"test": TEST, "train": TRAIN}  # where the correlation is measured, the paper's table first
QUANTILE = 0.95
# learning rate and weight decay of each modality, from the files hyp/ of the public code
SETTINGS: dict[str, dict[str, tuple[float, float]]] = {
    "mosi": {"vision": (1e-3, 0.01), "audio": (1e-3, 0.01), "text": (1e-4, 0.01)},
    "mosei": {"vision": (5e-5, 0.1), "audio": (1e-4, 0.0), "text": (1e-5, 0.0)},
    "humor": {"vision": (1e-5, 0.01), "audio": (5e-4, 0.001), "text": (5e-5, 0.0)},
    "sarcasm": {"vision": (5e-4, 0.0), "audio": (5e-4, 0.1), "text": (1e-4, 0.1)},
    "av_mnist": {"image": (1e-3, 0.0), "audio": (1e-3, 1e-4)},
}
# features of a step
WIDTHS: dict[str, dict[str, int]] = {
    "mosi": {"vision": 20, "audio": 5, "text": 300},
    "mosei": {"vision": 35, "audio": 74, "text": 300},
    "humor": {"vision": 371, "audio": 81, "text": 300},
    "sarcasm": {"vision": 371, "audio": 81, "text": 300},
    "av_mnist": {"image": 16, "audio": 36},
}


def encoder_of(data: PairedDataset, modality: int, depth: int) -> MultiBenchConfig:
    """Return the configuration of an encoder of the public code."""
    return MultiBenchConfig(
        kind="multibench",
        depth=depth,
        pooling="mean" if data.task == "regression" else "cls",
        padding=data.name != "av_mnist",
        dim=inputs_of(data)[modality].shape[2],
    )


def fits_of(data: PairedDataset, modality: int, depth: int, seeds: Sequence[int]) -> list[Fit]:
    """Return the trainings of one depth: one for each seed, with the published settings.

    As in the public code, a training's seed is seed + 1 + depth.
    """
    settings = SETTINGS[data.name][data.modalities[modality]]
    return [Fit(0, seed + 1 + depth, *settings) for seed in seeds]


def compared_rows(data: PairedDataset, part: int, most: int) -> Tensor:
    """Return the pairs of a part that are compared: the first ones of the test part, random ones in training."""
    n = int((data.split == part).sum())
    return torch.arange(min(n, most)) if part == TEST else compared_pairs(n, most)


def best_model(models: Mapping[int, Sequence[Mapping[str, Any]]], seeds: Sequence[int]) -> tuple[int, int]:
    """Return the depth and the number of the seed of the best encoder by validation score, the first of equals.

    models: the rows of each depth, one for each seed.
    """
    depths = list(models)
    scores = np.array([[models[depth][i]["validation_score"] for depth in depths] for i in range(len(seeds))])
    i, place = np.unravel_index(int(scores.argmax()), scores.shape)
    return depths[int(place)], int(i)


def has_published_widths(settings: Mapping[str, Any]) -> bool:
    """Return whether a study, by its settings, followed the paper's protocol on features of the paper's widths."""
    if settings["protocol"] != "paper":
        return False
    widths = {name: shape[-1] for name, shape in settings["data"]["modalities"].items()}
    return widths == WIDTHS[settings["dataset"]]
