"""The random numbers of the published synthetic data of Tjandrasuwita et al. 2025, value by value.

Their generator draws from NumPy's legacy generator and from torch's, in an order that decides every value. The same
draws are made here, so that the data are those that their paper measured: one W, one set of features and one set of
networks, which all training seeds share.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.data.label_law import Counts, Features, LabelLaw, Sizes
from modalign.data.paired import TEST, TRAIN, VALIDATION

__all__ = ["SEEDS", "PublishedDraw", "layer_widths", "published_draw", "published_views"]

SEEDS = {"features": 1, "weights": 2, "networks": 0}


@dataclasses.dataclass(frozen=True)
class PublishedDraw:
    """What the published generator draws.

    Attributes:
        law: The law of the labels.
        latents: (n, shared + 2 unique) of 0 and 1: shared, unique of modality 1, unique of modality 2.
        labels: (n,).
        split: (n,) of TRAIN, VALIDATION and TEST. Rows stand in the order of these parts, shuffled inside each.
    """

    law: LabelLaw
    latents: NDArray[np.int8]
    labels: NDArray[np.int64]
    split: NDArray[np.int8]


def published_draw(
    sizes: Sizes, counts: Counts, temperature: float, *, n: int, heterogeneity: int, seeds: dict[str, int]
) -> PublishedDraw:
    """Draw features, W, samples and the split of one data set."""
    from sklearn.model_selection import train_test_split

    generator = np.random.RandomState(seeds["features"])
    shared = generator.choice(np.arange(sizes.shared), counts.redundancy, replace=False)
    first = generator.choice(np.arange(sizes.unique), counts.unique_1, replace=False)
    second = generator.choice(np.arange(sizes.unique), counts.unique_2, replace=False)
    features = Features(tuple(shared.tolist()), tuple(first.tolist()), tuple(second.tolist()))
    generator = np.random.RandomState(seeds["weights"])
    weight = generator.uniform(0, 1, (sizes.features, sizes.classes))
    law = LabelLaw.of(sizes, features, weight, temperature=temperature)

    states = [1 << sizes.shared, 1 << sizes.unique, 1 << sizes.unique]
    groups = [generator.choice(count, n, p=np.full(count, 1 / count)) for count in states]
    bits = [
        (group[:, None] >> np.arange(width)[::-1]) & 1
        for group, width in zip(groups, (sizes.shared, sizes.unique, sizes.unique), strict=True)
    ]
    cell = (groups[0] * states[1] + groups[1]) * states[2] + groups[2]
    cumulative = law.of_latents().reshape(-1, sizes.classes)[cell].cumsum(1)
    labels = (cumulative / cumulative[:, -1:] <= generator.random_sample((n, 1))).sum(1)

    for _ in range(heterogeneity + 1):  # the splits of smaller depths are drawn before
        train, held = train_test_split(np.arange(n), test_size=0.3, stratify=labels, random_state=generator)
        validation, test = train_test_split(held, test_size=0.5, stratify=labels[held], random_state=generator)
    rows = np.concatenate([train, validation, test])
    parts = [np.full(len(part), code) for part, code in ((train, TRAIN), (validation, VALIDATION), (test, TEST))]
    latents = np.concatenate(bits, 1)[rows].astype(np.int8)
    return PublishedDraw(law, latents, labels[rows].astype(np.int64), np.concatenate(parts).astype(np.int8))


def published_views(
    views: tuple[Tensor, Tensor], depth: int, *, variant: str, nonlinearity: str, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the bits (n, width) of both modalities, float32, as the published networks of a depth let them be seen.

    Networks are drawn anew for each depth, after those of smaller depths. They compute in float32, whose rounding is
    a part of published data: at depth 10 the outputs vary so little that it is a tenth of a standard deviation.
    """
    generator = torch.Generator().manual_seed(seed)
    width = views[0].shape[1]
    between = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}[nonlinearity]
    seen = list(views)
    for smaller in range(depth + 1):
        pairs = list(itertools.pairwise(layer_widths(smaller, width, variant)))
        for modality in (0, 1) if variant == "multi" else () if variant == "identity" else (1,):
            layers = [_layer(a, b, generator) for a, b in pairs]
            if smaller == depth:
                for number, (weight, bias) in enumerate(layers):
                    rows = between(seen[modality]) if number else seen[modality]
                    seen[modality] = torch.nn.functional.linear(rows, weight, bias)
    return seen[0], seen[1]


def layer_widths(depth: int, width: int, variant: str) -> list[int]:
    """Return the widths of a transform from its input to its output."""
    return [width, max(width * depth**2, width), width] if variant == "width" else [width] * (depth + 2)


def _layer(fan_in: int, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a linear layer as torch initialises one."""
    bound = math.sqrt(3) * math.sqrt(1 / 3) / math.sqrt(fan_in)
    weight = torch.empty(fan_out, fan_in).uniform_(-bound, bound, generator=generator)
    bias_bound = 1 / math.sqrt(fan_in)
    return weight, torch.empty(fan_out).uniform_(-bias_bound, bias_bound, generator=generator)
