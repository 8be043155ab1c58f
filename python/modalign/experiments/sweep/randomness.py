"""Every random choice of a run as a function of the run's seed alone, never of its strength or of the runs beside it.

So runs that share a seed start from the same weights, see the same batches and know the same labels: the difference
between two strengths is the strength.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["batch_order", "compared_pairs", "initial_seed", "label_budget", "labelled_pairs"]

STREAMS = ("order", "encoder", "head", "projection", "labels", "compared")


def batch_order(seed: int, epoch: int, n: int) -> Tensor:
    """The order in which the n training pairs of a run come in an epoch."""
    return torch.from_numpy(_generator("order", seed, epoch).permutation(n))


def initial_seed(part: str, seed: int, modality: int) -> int:
    """What to seed the initial weights of an encoder, head or projection with."""
    return int(_generator(part, seed, modality).integers(2**62))


def label_budget(labels: float | None, n: int) -> int:
    """How many of n training pairs carry a label: a number of them, a fraction of them (float), or all (None)."""
    if labels is None:
        return n
    budget = max(1, round(labels * n)) if isinstance(labels, float) else labels
    if budget > n:
        raise ValueError(f"training.labels asks for {budget} labelled pairs, but there are {n} training pairs")
    return budget


def labelled_pairs(classes: Tensor, budget: int, seed: int) -> Tensor:
    """Which training pairs carry a label, (n,) bool with ``budget`` true: each class gets its share, to within one.

    The pairs left over after rounding down go to the classes with the largest remainders, lower classes first.
    """
    rng = _generator("labels", seed)
    values = classes.numpy()
    counts = np.bincount(values)
    shares = counts * budget / len(values)
    quota = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(quota - shares, kind="stable")
    quota[by_remainder[: budget - quota.sum()]] += 1
    mask = torch.zeros(len(values), dtype=torch.bool)
    for label, wanted in enumerate(quota):
        mask[torch.from_numpy(rng.permutation(np.flatnonzero(values == label))[:wanted])] = True
    return mask


def compared_pairs(n: int, most: int) -> Tensor:
    """Which of n held-out pairs alignment is measured on: all, or a fixed random choice of ``most``, rising."""
    if n <= most:
        return torch.arange(n)
    return torch.from_numpy(np.sort(_generator("compared").permutation(n)[:most]))


def _generator(stream: str, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([STREAMS.index(stream), *numbers])
