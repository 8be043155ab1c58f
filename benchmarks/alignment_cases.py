"""The cases of alignment: mutual k-NN and layer pairs beside the programs that are commonly used for them."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign
from benchmarks.cases import Case
from benchmarks.knn_cases import SEARCHES, clustered

K = 10


def alignment_cases() -> list[Case]:
    """Return the cases by size."""
    return [
        _mutual("5,000 x 128", 5_000, 128, {"dense argsort and masks": _dense}),
        _mutual("10,000 x 384", 10_000, 384, {"dense argsort and masks": _dense}),
        _layers("13 x 13 layers of 20,000 x 384", 20_000, 384, 13),
        _mutual("200,000 x 384", 200_000, 384, {"faiss and NumPy sets": _faiss_and_sets}, rounds=1),
    ]


def _mutual(name: str, n: int, d: int, rivals: dict[str, Any], rounds: int | None = None) -> Case:
    installed = {rival: call for rival, call in rivals.items() if call is not _faiss_and_sets or _installed("faiss")}
    ours = {"modalign": lambda x, y: modalign.mutual_knn(x, y, K)}
    return Case(
        name if len(installed) == len(rivals) else f"{name} (faiss not installed)",
        lambda: (clustered(n, d), clustered(n, d, seed=1)),
        ours | installed,
        agree=lambda a, b: abs(a - b) < 1e-4,  # float32 rivals may swap near-ties
        operations=2.0 * n * n * d,
        rounds=rounds,
        rate="int8",
    )


def _layers(name: str, n: int, d: int, count: int) -> Case:
    """Return a case of all pairs of layers; each layer adds noise to the one before."""

    def make() -> tuple[Tensor, Tensor]:
        sides = []
        for seed in (0, 1):
            rows, layers = clustered(n, d, seed), []
            for layer in range(count):
                layers.append(rows)
                rows = rows + 0.3 * torch.randn(n, d, generator=torch.Generator().manual_seed(layer))
            sides.append(torch.stack(layers))
        return sides[0], sides[1]

    def ours(xs: Tensor, ys: Tensor) -> np.ndarray[Any, Any]:
        return np.array(modalign.align_layers(list(xs), list(ys), k=K, relabellings=0).matrix)

    def pair_by_pair(xs: Tensor, ys: Tensor) -> np.ndarray[Any, Any]:
        return np.array([[modalign.mutual_knn(x, y, K) for y in ys] for x in xs])

    return Case(
        name,
        make,
        {"modalign": ours, "every pair by itself": pair_by_pair},
        agree=lambda a, b: bool(np.abs(a - b).max() < 1e-12),
        operations=2.0 * count * n * n * d,
        rounds=1,
        rate="int8",
    )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _dense(x: Tensor, y: Tensor) -> float:
    """Return mutual k-NN as the published code does: the whole matrix, sorted, and two masks."""
    masks = []
    for rows in (x, y):
        unit = F.normalize(rows)
        scores = (unit @ unit.T).fill_diagonal_(-torch.inf)
        mask = torch.zeros_like(scores)
        masks.append(mask.scatter_(1, scores.argsort(dim=1, descending=True)[:, :K], 1.0))
    return float((masks[0] * masks[1]).sum(1).mean() / K)


def _faiss_and_sets(x: Tensor, y: Tensor) -> float:
    graphs = [SEARCHES["faiss flat"](F.normalize(rows), None, K).indices for rows in (x, y)]
    shared = [len(np.intersect1d(a, b, assume_unique=True)) for a, b in zip(*graphs, strict=True)]
    return float(np.mean(shared)) / K
