"""PairedDataset, the form of every data set: paired samples of two or more modalities, labels and a fixed split."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.common.labels import Labels, label_array
from modalign.common.names import suggestion
from modalign.information import Information

__all__ = ["TASKS", "TEST", "TRAIN", "VALIDATION", "PairedDataset", "require_trainable", "split_of"]

TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
# task: dtype and rank of its labels
TASKS = {"classification": (torch.int64, 1), "regression": (torch.float32, 1), "multilabel": (torch.float32, 2)}
# 14 : 3 : 3, as evenly spread as whole slots allow
PATTERN = np.array([0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 2, 0, 0], np.int8)


@dataclass(frozen=True)
class PairedDataset:
    """n pairs: row i of ``x`` and row i of ``y`` belong together, and so do rows i of further modalities in ``more``.

    A modality is float32 features (n, d), a float32 sequence (n, length, d) with zero padding on the left, pixels
    (n, channels, height, width), uint8 or float32, or int64 token ids (n, length), where 0 is padding.

        task                labels                 classes
        "classification"    (n,) int64             one name for each class, labels from 0
        "regression"        (n,) float32           none needed
        "multilabel"        (n, L) float32, 0/1    one name for each of the L labels

    A training pair may have no label: ``labelled`` is then False, and the label -1 in a classification, NaN otherwise.
    ``labels`` are those of the modality-1 items. Where pairs were permuted, ``labels_y`` are those of the modality-2
    items; None means that they are the same. ``groups`` and ``groups_y`` are a finer grouping, if any.
    Raises ValueError where rows, modalities or labels do not fit together; ``require_trainable`` asks for more.

    Examples:
        >>> import torch
        >>> from modalign.data import PairedDataset, split_of
        >>> x, labels = torch.randn(20, 3), torch.arange(20) % 2
        >>> data = PairedDataset("mine", ("left", "right"), x, -x, labels, split_of(labels), ("even", "odd"))
        >>> len(data), data.task
        (20, 'classification')
    """

    name: str
    modalities: tuple[str, ...]
    x: Tensor  # (n, ...)
    y: Tensor  # (n, ...)
    labels: Tensor
    split: Tensor  # (n,) int8: TRAIN, VALIDATION or TEST
    classes: tuple[str, ...]
    labels_y: Tensor | None = None  # like labels
    groups: Tensor | None = None  # (n,) int64
    groups_y: Tensor | None = None  # (n,) int64
    information: Information | None = None  # exact, where the distribution is known
    settings: dict[str, object] = field(default_factory=dict)  # the arguments that made it
    task: str = "classification"
    more: tuple[Tensor, ...] = ()  # modalities 3, 4, ...: (n, ...)
    labelled: Tensor | None = None  # (n,) bool: whether a pair has a label; None if every pair has one

    def __post_init__(self) -> None:
        named = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        named |= {f"more[{i}]": values for i, values in enumerate(self.more)}
        for name, value in named.items():
            if isinstance(value, Tensor) and len(value) != len(self.x):
                raise ValueError(f"PairedDataset: {name} must have a row per pair, {len(self.x)}, got {len(value)}")
        object.__setattr__(self, "settings", {name: _native(value) for name, value in self.settings.items()})
        if len(self.modalities) != 2 + len(self.more):
            raise ValueError(
                f"PairedDataset: modalities must name x, y and each of more, {2 + len(self.more)} in all, "
                f"got {self.modalities}"
            )
        if self.task not in TASKS:
            hint = suggestion(self.task, TASKS)
            raise ValueError(f"PairedDataset: task must be one of {', '.join(TASKS)}, got {self.task!r}{hint}")
        known = self.has_label()
        if not bool(known[self.split != TRAIN].all()):
            raise ValueError(
                "PairedDataset: pairs of the validation and test part must have a label, which their scores need; put "
                "pairs without one into the training part"
            )
        for name in ("labels", "labels_y"):
            labels = getattr(self, name)
            if labels is not None:
                _require_labels(name, labels[known], self.task, len(self.classes))
                _require_empty(name, labels[~known], self.task)

    def __len__(self) -> int:
        return len(self.x)

    def has_label(self) -> Tensor:
        """Return whether each pair has a label, (n,) bool."""
        return torch.ones(len(self.labels), dtype=torch.bool) if self.labelled is None else self.labelled

    def fingerprint(self) -> str:
        """A digest of the values in 16 letters: data sets that share it have the same rows, labels and split."""
        digest = hashlib.sha256()
        tensors = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        tensors |= {f"more[{i}]": values for i, values in enumerate(self.more)}
        for name, values in tensors.items():
            if isinstance(values, Tensor):
                digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
                digest.update(values.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def part(self, which: int) -> PairedDataset:
        """Return the pairs of one part of the split: TRAIN, VALIDATION or TEST."""
        if which not in PARTS:
            raise ValueError(f"part: which must be one of {PARTS}, got {which!r}")
        return self._rows(self.split == which)

    def _rows(self, rows: Tensor) -> PairedDataset:
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        kept = {name: value[rows] for name, value in values.items() if isinstance(value, Tensor)}
        return PairedDataset(**(values | kept | {"more": tuple(value[rows] for value in self.more)}))

    def sample(self, items: int) -> PairedDataset:
        """Return at most ``items`` pairs of each part of the split, a fixed random choice of them in their order."""
        kept = []
        for part in PARTS:
            rows = (self.split == part).nonzero()[:, 0]
            # the stream that picks the pairs which studies compare
            order = np.random.default_rng([5]).permutation(len(rows))[:items]
            kept.append(rows[np.sort(order)] if len(rows) > items else rows)
        return self._rows(torch.cat(kept))

    def pair(self, i: int, j: int) -> PairedDataset:
        """Return modalities i and j, counted from 0, as a data set of two.

        Its labels are those of modality i's items. The information stays with (0, 1) alone: it is that of x and y.
        Raises ValueError for a modality that does not exist, or for i = j.
        """
        inputs = (self.x, self.y, *self.more)
        if not (0 <= i < len(inputs) and 0 <= j < len(inputs)) or i == j:
            raise ValueError(f"pair: i and j must be two of the modalities 0 to {len(inputs) - 1}, got {i} and {j}")
        labels = [self.labels_y if k == 1 and self.labels_y is not None else self.labels for k in (i, j)]
        groups = [self.groups_y if k == 1 and self.groups_y is not None else self.groups for k in (i, j)]
        return dataclasses.replace(
            self,
            modalities=(self.modalities[i], self.modalities[j]),
            x=inputs[i],
            y=inputs[j],
            labels=labels[0],
            labels_y=labels[1] if labels[1] is not labels[0] else None,
            groups=groups[0],
            groups_y=groups[1] if groups[1] is not groups[0] else None,
            information=self.information if (i, j) == (0, 1) else None,
            more=(),
        )


def _require_labels(name: str, labels: Tensor, task: str, classes: int) -> None:
    wanted, ndim = TASKS[task]
    if labels.dtype != wanted or labels.ndim != ndim:
        shape = "(n,)" if ndim == 1 else "(n, L)"
        raise ValueError(
            f"PairedDataset: {name} of a {task} task must be {shape} {wanted}, got {tuple(labels.shape)} {labels.dtype}"
        )
    if task == "multilabel":
        if labels.shape[1] != classes:
            raise ValueError(f"PairedDataset: {name} must have a column per class, {classes}, got {labels.shape[1]}")
        if not bool(((labels == 0) | (labels == 1)).all()):
            raise ValueError(f"PairedDataset: {name} of a multilabel task must be 0 or 1, got other numbers")
    elif not bool(labels.isfinite().all()):
        raise ValueError(f"PairedDataset: {name} must be finite, got NaN or inf; drop or mend those rows")
    elif task == "classification" and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"PairedDataset: {name} must be from 0 to {classes - 1}, one of the {classes} classes, got "
            f"{int(labels.min())} to {int(labels.max())}"
        )


def _require_empty(name: str, labels: Tensor, task: str) -> None:
    """Check the labels of pairs that have none: whoever reads them by mistake must not take them for classes."""
    if not bool((labels == -1 if task == "classification" else labels.isnan()).all()):
        empty = "-1" if task == "classification" else "NaN"
        raise ValueError(f"PairedDataset: {name} must be {empty} where labelled is False, got other values")


def require_trainable(data: PairedDataset) -> None:
    """Check that a classifier or a regression can be trained and tested on a data set.

    Every class that occurs must have 2 labelled items in the training part, and there must be 2 classes; every label of
    a multilabel task must occur there and be absent there; labels of a regression must differ there.
    Raises ValueError with what is missing. Memory O(n).

    Examples:
        >>> from modalign.data import emoji, require_trainable
        >>> require_trainable(emoji())
    """
    known = data.has_label()
    train = (data.split == TRAIN)[known]
    for name, given in (("labels", data.labels), ("labels_y", data.labels_y)):
        if given is None:
            continue
        labels = given[known]
        trained = labels[train]
        if data.task == "classification":
            counts, all_counts = (values.bincount(minlength=len(data.classes)) for values in (trained, labels))
            rare = [i for i, count in enumerate(counts.tolist()) if count < 2 and all_counts[i]]
            if rare:
                said = ", ".join(f"{data.classes[i]!r} has {int(counts[i])}" for i in rare[:3])
                raise ValueError(
                    f"require_trainable: every class of {name} must have at least 2 items in the training part; "
                    f"{said}: drop or merge such classes"
                )
            if int((counts > 0).sum()) < 2:
                raise ValueError(f"require_trainable: {name} must have at least 2 classes in the training part, got 1")
        elif data.task == "multilabel":
            share = trained.mean(0) if len(trained) else torch.zeros(labels.shape[1])
            constant = [data.classes[i] for i, value in enumerate(share.tolist()) if value in (0, 1)]
            if constant:
                raise ValueError(
                    f"require_trainable: every label must be 1 for some training items and 0 for others; "
                    f"{', '.join(map(repr, constant[:3]))} is not: drop it"
                )
        elif not len(trained) or bool((trained == trained[0]).all()):
            raise ValueError(f"require_trainable: {name} must differ among the training items, got one value for all")


def _native(value: object) -> object:
    """Return a setting as files hold it: a number of NumPy becomes one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def split_of(strata: Labels, *, seed: int = 0) -> Tensor:
    """Return a fixed split of 70 / 15 / 15 per cent, as near to it in every stratum as whole items allow.

    strata: (n,) labels, one class or group per item. Returns (n,) int8 of TRAIN, VALIDATION and TEST.
    The same strata and seed give the same split on every machine. The remainder of a stratum that does not divide
    is carried on to the next one, so that the totals are right to within an item or two whatever the strata.

    Examples:
        >>> import numpy as np
        >>> from modalign.data import split_of
        >>> np.bincount(split_of(np.arange(1000) % 10)).tolist()
        [700, 150, 150]
    """
    values = label_array("split_of: strata", strata)
    seed = whole_number("split_of", "seed", seed, least=0)
    shuffled = np.random.default_rng(seed).permutation(len(values))
    # items in order of their stratum, shuffled inside each, take the slots of one pattern in turn
    order = shuffled[np.argsort(values[shuffled], kind="stable")]
    split = np.empty(len(values), np.int8)
    split[order] = np.resize(PATTERN, len(values))
    return torch.from_numpy(split)
