"""The data of a case: one set for all runs, or one that is drawn anew for every seed of the runs.

A case whose data have the seed ``each`` draws a data set of its own for every seed, so that the data and the training
differ between seeds, and intervals over seeds hold both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modalign.data import TEST, TRAIN, VALIDATION, PairedDataset
from modalign.experiments.sweep import tasks
from modalign.experiments.sweep.randomness import label_budget, labelled_pairs

__all__ = ["EACH", "Draws", "labelled_rows", "stacked_tables"]

EACH = "each"  # the seed of data that are drawn anew


@dataclass(frozen=True)
class Draws:
    """The data of a case.

    Args:
        sets: The data set of each seed of the runs, or of the key None for all seeds.
    """

    sets: Mapping[int | None, PairedDataset]

    @property
    def first(self) -> PairedDataset:
        """The first data set; the others have its modalities and task, and its sizes but for a few pairs."""
        return next(iter(self.sets.values()))

    def of(self, seed: int) -> PairedDataset:
        """Return the data set of a seed of the runs."""
        return self.sets[seed] if seed in self.sets else self.sets[None]

    def used(self, seeds: Sequence[int]) -> list[PairedDataset]:
        """Return the data sets of these seeds, or the only one."""
        return [self.sets[None]] if None in self.sets else [self.sets[seed] for seed in seeds]

    def count(self, part: int) -> int:
        """Return the number of pairs of a part of the split, that of the smallest data set."""
        return min(int((pairs.split == part).sum()) for pairs in self.sets.values())

    def fingerprint(self) -> str:
        """Return the fingerprint of the data."""
        each = [pairs.fingerprint() for pairs in self.sets.values()]
        return each[0] if None in self.sets else hashlib.sha256(" ".join(each).encode()).hexdigest()


def stacked_tables(
    sets: Sequence[PairedDataset], counts: Mapping[int, int], device: torch.device, dtype: torch.dtype
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Return inputs and labels of all data sets as lists [part of the split][modality] of tensors (sets, n, ...).

    counts: n of each part, whose first pairs are taken. Labels that are missing are 0.
    """
    tables = [_by_split(data, counts, dtype) for data in sets]

    def together(parts: Sequence[list[list[Tensor]]]) -> list[list[Tensor]]:
        return [
            [torch.stack([one[part][m] for one in parts]).to(device) for m in range(len(parts[0][part]))]
            for part in range(len(counts))
        ]

    inputs, labels = (together([table[side] for table in tables]) for side in (0, 1))
    return inputs, labels


def _by_split(
    data: PairedDataset, counts: Mapping[int, int], dtype: torch.dtype
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Return the first inputs and labels as lists [part of the split][modality]; labels that are missing are 0."""
    inputs = [data.x, data.y, *data.more]
    labels = [data.labels_y if m == 1 and data.labels_y is not None else data.labels for m in range(len(inputs))]
    labels = [values.clone() for values in labels] if data.labelled is not None else labels
    if data.labelled is not None:
        for values in labels:
            values[~data.labelled] = 0
    if data.task != "classification":
        labels = [values.to(dtype) for values in labels]
    parts = [(data.split == part, counts[part]) for part in (TRAIN, VALIDATION, TEST)]
    return (
        [[x[part][:count] for x in inputs] for part, count in parts],
        [[y[part][:count] for y in labels] for part, count in parts],
    )


def labelled_rows(data: PairedDataset, count: int, labels: float | None, seed: int) -> Tensor:
    """Return which of the first training pairs (count,) carry a label in the runs of a seed."""
    training = data.split == TRAIN
    known = data.has_label()[training][:count]
    classes = tasks.strata(data)[training][:count][known]
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[known] = labelled_pairs(classes, label_budget(labels, int(known.sum())), seed)
    return chosen
