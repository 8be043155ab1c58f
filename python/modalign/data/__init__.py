"""Paired data sets: ``synthetic`` with exact information, ``emoji`` embedded and real, ``load`` by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from modalign.data.emoji import emoji, emoji_texts, emoji_vocabulary
from modalign.data.paired import TEST, TRAIN, VALIDATION, PairedDataset, split_of
from modalign.data.synthetic import synthetic

__all__ = [
    "DATASETS",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "PairedDataset",
    "emoji",
    "emoji_texts",
    "emoji_vocabulary",
    "load",
    "split_of",
    "synthetic",
]

DATASETS: dict[str, Callable[..., PairedDataset]] = {"synthetic": synthetic, "emoji": emoji}


def load(name: str, **settings: object) -> PairedDataset:
    """A data set by its name and settings, as a configuration file has them.

    Raises ValueError for a name or a setting that does not exist, with the list of those that do.

    Example:
        >>> from modalign.data import load
        >>> load("synthetic", redundancy=8, n=100).name
        'synthetic'
    """
    if name not in DATASETS:
        raise ValueError(f"load: no data set {name!r}; there are {', '.join(DATASETS)}")
    known = inspect.signature(DATASETS[name]).parameters
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise ValueError(f"load: {name} has no setting {', '.join(map(repr, unknown))}; it has {', '.join(known)}")
    return DATASETS[name](**settings)
