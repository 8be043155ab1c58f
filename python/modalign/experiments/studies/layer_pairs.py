"""Alignment of every layer of one trained encoder with every layer of another, on the same held-out items."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import ArrayLike
from torch import Tensor

from modalign.alignment.preparation import prepare
from modalign.encoders import EncoderConfig
from modalign.experiments.studies.unimodal import Trained, every_layer
from modalign.metrics import clipped_cka, svcca, svcca_code, unbiased_cka
from modalign.metrics.undefined import score_or_nan
from modalign.neighbors.functional import knn, neighbor_overlap

__all__ = ["MEASURES", "Layers", "compared_layers", "highest_defined", "layers_of"]

MEASURES = ("unbiased_cka", "mutual_knn", "svcca")
SCORES: dict[str, Callable[..., float]] = {"unbiased_cka": unbiased_cka, "svcca": svcca}
PUBLISHED_SCORES: dict[str, Callable[..., float]] = {"unbiased_cka": clipped_cka, "svcca": svcca_code}
# for every layer, its rows scaled to unit length and their k-NN graph
Layers = list[tuple[Tensor, Tensor]]


def layers_of(
    config: EncoderConfig,
    trained: Trained,
    fit: int,
    x: Tensor,
    k: int,
    *,
    block: int = 4096,
    quantile: float = 1.0,
) -> Layers:
    """Return the layers of one trained encoder for the items x (n, ...), computed ``block`` items at a time.

    quantile: rows are clamped at this quantile of a layer's absolute values before they are scaled to unit length, as
    ``modalign.alignment.preparation.prepare`` does for "emergence"; 1 clamps nothing.
    """
    blocks = [every_layer(config, trained, fit, rows, example=x) for rows in torch.split(x, block)]
    layers = [torch.cat(parts).double() for parts in zip(*blocks, strict=True)]
    layers = [prepare(rows, "emergence", quantile=quantile) if quantile < 1 else F.normalize(rows) for rows in layers]
    return [(rows, torch.as_tensor(knn(rows, min(k, len(rows) - 1)).indices)) for rows in layers]


def compared_layers(one: Layers, two: Layers, *, published: bool = False) -> Sequence[dict[str, Any]]:
    """Return a row for every pair of layers: layer_1 and layer_2, counted from 1, and every measure.

    published: whether unbiased CKA is clipped at 0 and SVCCA is ``svcca_code``, as in the published code.
    """
    scores = PUBLISHED_SCORES if published else SCORES
    return [
        {"layer_1": i + 1, "layer_2": j + 1, **_compared(x, y, scores)}
        for (i, x), (j, y) in itertools.product(enumerate(one), enumerate(two))
    ]


def _compared(
    one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor], scores: Mapping[str, Callable[..., float]]
) -> dict[str, float]:
    (x, graph_x), (y, graph_y) = one, two
    k = graph_x.shape[1]
    found = {"mutual_knn": float(neighbor_overlap(graph_x, graph_y)[:, -1].double().mean()) / k}
    for name, score in scores.items():
        found[name] = score_or_nan(score, x, y)
    return found


def highest_defined(values: ArrayLike) -> float:
    """Return the highest of the scores of pairs of layers, or 0 where no pair has a score: nothing is aligned there.

    A pair has no score (NaN) where one of its layers gives all items the same.

    Examples:
        >>> from modalign.experiments.studies.layer_pairs import highest_defined
        >>> highest_defined([float("nan"), -0.1]), highest_defined([float("nan")])
        (-0.1, 0.0)
    """
    scores = np.asarray(values, np.float64)
    defined = scores[~np.isnan(scores)]
    return float(defined.max()) if defined.size else 0.0
