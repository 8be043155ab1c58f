"""Paired samples of two modalities: what every data set of the package is, and how it is split."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from modalign.information import Information

__all__ = ["TEST", "TRAIN", "VALIDATION", "PairedDataset", "split_of"]

TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
# 14 : 3 : 3, as evenly spread as whole slots allow
PATTERN = np.array([0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 2, 0, 0], np.int8)


@dataclass(frozen=True)
class PairedDataset:
    """n pairs: row i of ``x`` and row i of ``y`` belong together.

    ``labels`` are the classes of the modality-1 items. Where pairs were permuted, ``labels_y`` are those of the
    modality-2 items; None means that they are the same. ``groups`` and ``groups_y`` are a finer grouping, if any.
    """

    name: str
    modalities: tuple[str, str]
    x: Tensor  # (n, ...) float32 features, uint8 pixels (n, 3, 32, 32) or int64 token ids (n, length), 0 is padding
    y: Tensor  # (n, ...)
    labels: Tensor  # (n,) int64
    split: Tensor  # (n,) int8: TRAIN, VALIDATION or TEST
    classes: tuple[str, ...]
    labels_y: Tensor | None = None  # (n,) int64
    groups: Tensor | None = None  # (n,) int64
    groups_y: Tensor | None = None  # (n,) int64
    information: Information | None = None  # exact, where the distribution is known
    settings: dict[str, object] = field(default_factory=dict)  # the arguments that made it

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor) and len(value) != len(self.x):
                raise ValueError(
                    f"PairedDataset: {item.name} must have a row per pair, {len(self.x)}, got {len(value)}"
                )

    def __len__(self) -> int:
        return len(self.x)

    def part(self, which: int) -> PairedDataset:
        """The pairs of one part of the split: TRAIN, VALIDATION or TEST."""
        if which not in PARTS:
            raise ValueError(f"part: which must be one of {PARTS}, got {which!r}")
        rows = self.split == which
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        kept = {name: value[rows] for name, value in values.items() if isinstance(value, Tensor)}
        return PairedDataset(**(values | kept))


def split_of(strata: ArrayLike, *, seed: int = 0) -> Tensor:
    """A fixed split of 70 / 15 / 15 per cent, in every stratum as near to that as whole items allow.

    strata: (n,) whole numbers, one class or group per item. Returns (n,) int8 of TRAIN, VALIDATION and TEST.
    The same strata and seed give the same split on every machine. What is left over when a stratum does not divide is
    carried on to the next one, so that the totals are right to within an item or two whatever the strata.

    Example:
        >>> import numpy as np
        >>> from modalign.data import split_of
        >>> np.bincount(split_of(np.arange(1000) % 10)).tolist()
        [700, 150, 150]
    """
    values = np.asarray(strata)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"split_of: strata must be (n,) whole numbers, got shape {values.shape} of {values.dtype}")
    shuffled = np.random.default_rng(seed).permutation(len(values))
    # items in order of their stratum, shuffled inside each, take the slots of one pattern in turn
    order = shuffled[np.argsort(values[shuffled], kind="stable")]
    split = np.empty(len(values), np.int8)
    split[order] = np.resize(PATTERN, len(values))
    return torch.from_numpy(split)
