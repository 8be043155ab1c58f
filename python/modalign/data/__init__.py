"""Paired data sets: ``synthetic`` with exact information, real ones, your ``own``; ``load`` by name, ``catalogue``."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from modalign.data.catalogue import Entry, catalogue
from modalign.data.digits import digit_bits, digits, mfeat
from modalign.data.emoji import emoji, emoji_texts, emoji_vocabulary
from modalign.data.features import platonic
from modalign.data.multibench import affect, av_mnist, mm_imdb
from modalign.data.own import own
from modalign.data.paired import TEST, TRAIN, VALIDATION, PairedDataset, require_trainable, split_of
from modalign.data.pictures import openclipart, openclipart_items, tuxpaint, tuxpaint_items
from modalign.data.synthetic import synthetic

__all__ = [
    "DATASETS",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Entry",
    "PairedDataset",
    "affect",
    "av_mnist",
    "catalogue",
    "digit_bits",
    "digits",
    "emoji",
    "emoji_texts",
    "emoji_vocabulary",
    "load",
    "mfeat",
    "mm_imdb",
    "openclipart",
    "openclipart_items",
    "own",
    "platonic",
    "require_trainable",
    "split_of",
    "synthetic",
    "tuxpaint",
    "tuxpaint_items",
]

DATASETS: dict[str, Callable[..., PairedDataset]] = {
    "synthetic": synthetic,
    "emoji": emoji,
    "digits": digits,
    "digit_bits": digit_bits,
    "mfeat": mfeat,
    "openclipart": openclipart,
    "tuxpaint": tuxpaint,
    "affect": affect,
    "av_mnist": av_mnist,
    "mm_imdb": mm_imdb,
    "platonic": platonic,
    "own": own,
}


def load(name: str, **settings: object) -> PairedDataset:
    """A data set by its name and settings, as a configuration file has them.

    Raises ValueError for a name or a setting that does not exist or is missing, with the list of those that do.

    Examples:
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
    missing = [key for key, value in known.items() if value.default is value.empty and key not in settings]
    if missing:
        raise ValueError(f"load: {name} needs {', '.join(missing)}")
    return DATASETS[name](**settings)
