"""Labels and splits of a user's own pairs: the task that labels say, classes and their names, parts by name."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.labels import is_value, label_array, labelled_entries
from modalign.data.arrays import require_finite, require_one_of
from modalign.data.paired import PARTS, TASKS, TRAIN, split_of
from modalign.files.texts import numbers_in

__all__ = ["Targets", "parts_of", "targets_of", "warn_of_gaps"]

WANTED = {
    "classification": "(n,) strings or whole numbers",
    "regression": "(n,) numbers",
    "multilabel": "(n, L) of 0 and 1",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """The labels of pairs in the form of their task.

    Attributes:
        labels: (n,) int64 classes, (n,) float32 numbers, or (n, L) float32 of 0 and 1.
        classes: The names of the classes or of the labels.
        task: "classification", "regression" or "multilabel".
        labelled: (n,) bool, whether a pair has a label; None if every pair has one. Labels that are not there are -1 in
            a classification and NaN otherwise.
    """

    labels: Tensor
    classes: tuple[str, ...]
    task: str
    labelled: Tensor | None = None

    def spread(self, known: NDArray[np.bool_]) -> Targets:
        """Return the targets of all pairs, where these are those of the pairs that are known."""
        if known.all():
            return self
        empty = -1 if self.task == "classification" else float("nan")
        labels = torch.full((len(known), *self.labels.shape[1:]), empty, dtype=self.labels.dtype)
        labels[torch.from_numpy(known)] = self.labels
        return Targets(labels, self.classes, self.task, torch.from_numpy(known))


def targets_of(
    values: Any, task: str | None, names: Sequence[str] | None, missing: float | str | None = None
) -> Targets:
    """Return the labels of ``own`` in the form of their task.

    Args:
        values: (n,) labels of any kind that ``labelled_entries`` takes, or (n, L) numbers, of which a row of NaN is
            missing.
        task: The task, or None to infer it: text, whole numbers and truth values are classes, other numbers a
            regression, (n, L) of 0 and 1 several labels. Text that writes whole numbers as floats ("1.0") counts as
            those floats; "1" and "007" are text.
        names: The names of classes or labels, or None.
        missing: A value that stands for a missing label, or None.

    Raises:
        TypeError: As ``labelled_entries``.
        ValueError: All labels are missing, or they do not fit the task; or they are whole numbers that are saved as
            floats but do not count classes from 0 or 1, or numbers that are saved as text, and no task says what they
            are.
    """
    if task is not None:
        require_one_of("own: task", task, TASKS)
    several = _several(values)
    if several is not None and task in (None, "multilabel"):
        return _multilabel(several, names, missing)
    labels, known = labelled_entries("own: labels", values, missing)
    return _targets(labels, task, names).spread(known)


def _targets(labels: NDArray[Any], task: str | None, names: Sequence[str] | None) -> Targets:
    """Return the targets of pairs that all have one label."""
    if labels.dtype.kind == "U" and not set(labels.tolist()) <= set(names or ()):
        labels = _floats_as_numbers(labels)
    if task is None:
        task = _inferred_task(labels)
    if task == "multilabel":
        raise _misfit(task, labels)
    if task == "regression":
        return Targets(_numbers(labels), tuple(names or ()), task)
    classes = label_array("own: labels", labels)
    if names is None:
        distinct, index = np.unique(classes, return_inverse=True)
        return Targets(torch.from_numpy(index.astype(np.int64)), tuple(str(value) for value in distinct), task)
    return Targets(_among_names(classes, names), tuple(names), task)


def parts_of(split: Any, targets: Targets, seed: int) -> Tensor:
    """Return the part of each pair, (n,) int8: those given by name or number, or drawn by the seed for None.

    Pairs without a label belong to the training part; ValueError for a split that says otherwise.
    """
    n = len(targets.labels)
    if split is None:
        strata = targets.labels if targets.task == "classification" else torch.zeros(n, dtype=torch.int64)
        if targets.labelled is None:
            return split_of(strata, seed=seed)
        drawn = torch.full((n,), TRAIN, dtype=torch.int8)
        drawn[targets.labelled] = split_of(strata[targets.labelled], seed=seed)
        return drawn
    numbers = {name: part for part, name in PARTS.items()} | {str(part): part for part in PARTS}
    given = [str(entry) for entry in label_array("own: split", split).tolist()]
    odd = [entry for entry in dict.fromkeys(given) if entry not in numbers][:3]
    if odd or len(given) != n:
        raise ValueError(
            f"own: split must be ({n},) of {', '.join(PARTS.values())} or 0, 1, 2, got shape ({len(given)},)"
            + (f" with {', '.join(odd)}" if odd else "")
        )
    parts = np.array([numbers[entry] for entry in given], dtype=np.int8)
    if not (parts == TRAIN).any():
        raise ValueError("own: split must leave pairs to train on, got none")
    if targets.labelled is not None:
        unscored = np.flatnonzero((parts != TRAIN) & ~targets.labelled.numpy())
        if len(unscored):
            raise ValueError(
                f"own: pairs of the validation and test part must have a label, which their scores need; got none in "
                f"rows {unscored[:3].tolist()} (the first of {len(unscored):,}): put these rows into the training "
                "part or drop them"
            )
    return torch.from_numpy(parts)


def warn_of_gaps(name: str, targets: Targets, missing: float | str | None) -> None:
    """Warn of pairs without a label, which may be a mistake where no value was said to be missing."""
    if missing is None and targets.labelled is not None:
        gaps = int((~targets.labelled).sum())
        warnings.warn(
            f"{name}: {gaps:,} of {len(targets.labels):,} pairs have no label: they train the alignment term alone",
            stacklevel=3,
        )


def _several(values: Any) -> NDArray[Any] | None:
    """Return (n, L) values as an array, None for one label a pair; one column counts as several if it is 0 and 1."""
    if isinstance(values, (list, tuple)) and not (values and isinstance(values[0], (list, tuple, np.ndarray, Tensor))):
        return None
    if not hasattr(values, "shape") and not isinstance(values, (list, tuple)):
        return None
    if isinstance(values, Tensor):
        values = values.detach().cpu().float() if values.is_floating_point() else values.detach().cpu()
    try:
        array = np.asarray(values)
    except (ValueError, TypeError):
        return None
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        return None
    return array if array.shape[1] > 1 or bool(np.isin(array, (0, 1)).all()) else None


def _multilabel(array: NDArray[Any], names: Sequence[str] | None, missing: float | str | None) -> Targets:
    gaps = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, np.bool_)
    if missing is not None:
        gaps |= np.isin(array, [value for value in np.unique(array) if is_value(value, missing)])
    known = np.asarray(~gaps.all(1), np.bool_)
    if not known.any():
        raise ValueError(f"own: labels must be given for some pairs, got none in any of {len(array):,} rows")
    require_finite(array[known], "own: labels")
    if not np.isin(array[known], (0, 1)).all():
        raise ValueError("own: labels of a multilabel task must be 0 or 1, all of a row or none, got others")
    called = tuple(names or (f"label {i}" for i in range(array.shape[1])))
    return Targets(torch.from_numpy(array[known].astype(np.float32)), called, "multilabel").spread(known)


def _floats_as_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    """Return text that writes whole numbers with a point or an exponent as these numbers; other text as it is."""
    if all(text.strip().lstrip("+-").isdecimal() for text in labels.tolist()):
        return labels
    try:
        numbers: NDArray[Any] = labels.astype(np.float64)
    except ValueError:
        return labels
    return numbers if bool((np.isfinite(numbers) & (numbers == np.round(numbers))).all()) else labels


def _inferred_task(labels: NDArray[Any]) -> str:
    """Return the task that labels say, with a warning where classes were saved as floats."""
    choice = "say task: classification (a class for each number) or task: regression"
    if labels.dtype.kind == "U":
        numbers = numbers_in("own: labels", labels.tolist())
        if numbers is not None and numbers.dtype.kind == "f" and bool((numbers != np.round(numbers)).any()):
            raise ValueError(f"own: labels hold numbers as text, such as {labels[0]!s}; {choice}")
        return "classification"
    if labels.dtype.kind != "f":
        return "classification"
    if not bool((labels == np.round(labels)).all()):
        return "regression"
    values, counts = np.unique(labels, return_counts=True)
    low, high = float(values[0]), float(values[-1])
    if low not in (0, 1) or len(values) != high - low + 1 or len(values) < 2 or counts.min() < 2:
        raise ValueError(f"own: labels are whole numbers saved as floats, {low:g} to {high:g}; {choice}")
    warnings.warn(
        f"own: labels are whole numbers saved as floats, {low:g} to {high:g}: taken as {len(values)} classes; say "
        "task: regression if they are numbers to predict, or task: classification to leave out this warning",
        stacklevel=5,
    )
    return "classification"


def _numbers(labels: NDArray[Any]) -> Tensor:
    """Return the targets of a regression, which may be written as text."""
    numbers = numbers_in("own: labels", labels.tolist()) if labels.dtype.kind == "U" else labels
    if numbers is None or numbers.ndim != 1 or numbers.dtype.kind == "b":
        raise _misfit("regression", labels)
    require_finite(numbers, "own: labels")
    return torch.from_numpy(numbers.astype(np.float32))


def _among_names(classes: NDArray[Any], names: Sequence[str]) -> Tensor:
    """Return the places of classes among their names."""
    if classes.dtype.kind == "U":
        unknown = sorted(set(classes.tolist()) - set(names))
        if unknown:
            raise ValueError(f"own: labels must be among names, {', '.join(names)}; got {', '.join(unknown[:3])}")
        place = {name: number for number, name in enumerate(names)}
        classes = np.array([place[value] for value in classes.tolist()])
    classes = classes.astype(np.int64)
    if not 0 <= classes.min() <= classes.max() < len(names):
        raise ValueError(
            f"own: labels must be from 0 to {len(names) - 1}, one of the {len(names)} names, got {classes.min()} to "
            f"{classes.max()}"
        )
    return torch.from_numpy(classes)


def _misfit(task: str, labels: NDArray[Any]) -> ValueError:
    return ValueError(f"own: labels of a {task} task must be {WANTED[task]}, got {labels.shape} {labels.dtype}")
