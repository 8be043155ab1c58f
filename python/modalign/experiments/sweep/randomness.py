"""Every random choice of a run as a function of the run's seed alone, never of its strength or of the runs beside it.

So runs that share a seed start from the same weights, see the same batches and have the same labels: the difference
between two strengths is the strength.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["batch_order", "compared_pairs", "dropout_seed", "initial_seed", "label_budget", "labelled_pairs"]

STREAMS = ("order", "encoder", "head", "projection", "labels", "compared", "dropout")


def batch_order(seed: int, epoch: int, n: int) -> Tensor:
    """Return the order (n,) int64 of a run's n training pairs in an epoch."""
    return torch.from_numpy(_generator("order", seed, epoch).permutation(n))


def initial_seed(part: str, seed: int, modality: int) -> int:
    """Return the seed of the initial weights of an encoder, head or projection.

    Args:
        part: "encoder", "head" or "projection".
        seed: Seed of the run.
        modality: Number of the modality, from 0.
    """
    return int(_generator(part, seed, modality).integers(2**62))


def dropout_seed(seed: int, modality: int, epoch: int, step: int) -> int:
    """Return the seed of the dropout of a run's encoder in one step of training."""
    place = (seed, modality, epoch, step)
    return int(_generator("dropout", *place).integers(2**62))


def label_budget(labels: float | None, n: int) -> int:
    """Return the number of training pairs that carry a label.

    Args:
        labels: A number of pairs (int), a fraction of them (float), or None for all.
        n: Number of training pairs that have a label in the data.

    Raises:
        ValueError: If there are fewer such pairs.

    Examples:
        >>> from modalign.experiments.sweep.randomness import label_budget
        >>> label_budget(0.25, 200), label_budget(30, 200), label_budget(None, 200)
        (50, 30, 200)
    """
    if labels is None:
        return n
    budget = max(1, round(labels * n)) if isinstance(labels, float) else labels
    if budget > n:
        raise ValueError(
            f"training.labels asks for {budget} labelled pairs, but there are {n} training pairs with a label"
        )
    return budget


def labelled_pairs(classes: Tensor, budget: int, seed: int) -> Tensor:
    """Choose the training pairs that carry a label: each class gets its share of them, to within one.

    The pairs left over after rounding down go to the classes with the largest remainders, lower classes first.

    Args:
        classes: (n,) int64 class of each training pair.
        budget: Number of pairs to choose.
        seed: Seed of the run.

    Returns:
        (n,) bool with ``budget`` true.
    """
    rng = _generator("labels", seed)
    values = classes.numpy()
    counts = np.bincount(values)
    shares = counts * budget / len(values)
    quota = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(quota - shares, kind="stable")
    quota[by_remainder[: budget - quota.sum()]] += 1
    mask = torch.zeros(len(values), dtype=torch.bool)
    for label, count in enumerate(quota):
        mask[torch.from_numpy(rng.permutation(np.flatnonzero(values == label))[:count])] = True
    return mask


def compared_pairs(n: int, largest: int) -> Tensor:
    """Choose the test pairs that alignment is measured on, rising: all n, or a fixed random choice of ``largest``."""
    if n <= largest:
        return torch.arange(n)
    return torch.from_numpy(np.sort(_generator("compared").permutation(n)[:largest]))


def _generator(stream: str, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([STREAMS.index(stream), *numbers])
