"""CMU-MOSI, CMU-MOSEI, UR-FUNNY and MUStARD, read from the pickles that MultiBench's authors distribute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.data.arrays import require_finite, require_one_of, require_two_or_more, scaled_sequences
from modalign.data.paired import TEST, TRAIN, VALIDATION, PairedDataset
from modalign.data.pickles import read_plain_pickle

__all__ = ["affect"]

Array = NDArray[Any]

# task and names of the classes; the widths of the features are read from the file
AFFECT = {
    "mosi": ("regression", ()),
    "mosei": ("regression", ()),
    "humor": ("classification", ("not funny", "funny")),
    "sarcasm": ("classification", ("not sarcastic", "sarcastic")),
}
AFFECT_MODALITIES = ("vision", "audio", "text")
AFFECT_PARTS = {"train": TRAIN, "valid": VALIDATION, "test": TEST}


def affect(
    path: str | Path,
    dataset: str = "mosi",
    modalities: Sequence[str] = ("vision", "text"),
    *,
    standardise: bool | str = True,
    steps: int | None = None,
    items: int | None = None,
) -> PairedDataset:
    """Return videos of speakers as sequences of 50 steps (faces, voice, words) from one of MultiBench's affect pickles.

    The file is a dict train/valid/test -> dict vision (N, 50, Dv), audio (N, 50, Da), text (N, 50, 300), labels, id,
    padded with zeros on the left. Reading it runs no code in it (``read_plain_pickle``). As in
    MultiBench, items without any text are dropped, and -inf in audio becomes 0. The split is that of the file.

    Args:
        path: mosi_data.pkl or mosi_raw.pkl, mosei_senti_data.pkl, humor.pkl, sarcasm.pkl, or another file of this form.
        dataset: "mosi" and "mosei", regression of sentiment from -3 to 3; "humor" (UR-FUNNY, labels 0 and 1) and
            "sarcasm" (MUStARD, labels -1 and 1), classes 0 and 1.
        modalities: two or three of "vision", "audio" and "text".
        standardise: True gives every feature mean 0 and variance 1 over the training frames; padding stays 0. False
            leaves the values of the file. "multibench" does as the code of Tjandrasuwita et al.: vision and audio get
            mean 0 and variance 1 over all steps of the training part, padding included, the text stays as it is, and
            the steps before the first word become padding in every modality.
        steps: how many of the last steps to keep, of sequences that were standardised whole; None for all.
        items: at most so many pairs of each part, a fixed random choice; None for all.

    Returns: float32 (n, 50, d) for each modality. Memory: the file twice, and 24 bytes a number of one modality.
    Raises FileNotFoundError, and ValueError for a file of another form, with code, or with NaN.
    Licence: that of each corpus; ask its authors. Source: github.com/pliang279/MultiBench.

    Examples:
        >>> from modalign.data import affect
        >>> affect("mosi_raw.pkl", "mosi", ("vision", "audio", "text")).pair(0, 2)  # doctest: +SKIP
    """
    require_one_of("affect: dataset", dataset, AFFECT)
    require_two_or_more("affect", modalities, AFFECT_MODALITIES)
    require_one_of("affect: standardise", standardise, (True, False, "multibench"))
    table = read_plain_pickle(path)
    missing = [part for part in AFFECT_PARTS if not isinstance(table, dict) or not isinstance(table.get(part), dict)]
    if missing:
        raise ValueError(
            f"affect: {path} must be a dict of train, valid and test dicts, it has no {', '.join(missing)}"
        )
    read = _parts_of(table, modalities, str(path))
    split = np.concatenate(read["split"])
    inputs = [_joined(read[name], f"affect: {path}: {name}") for name in modalities]
    tensors = [
        _standardised(name, values, standardise, train=split == TRAIN, begun=read["begun"])
        for name, values in zip(modalities, inputs, strict=True)
    ]
    if steps is not None:  # padding is on the left
        steps = whole_number("affect", "steps", steps, least=1)
        tensors = [x[:, -steps:].contiguous() for x in tensors]
    task, classes = AFFECT[dataset]
    cuts = {name: value for name, value in (("steps", steps), ("items", items)) if value is not None}
    data = PairedDataset(
        name=dataset,
        modalities=tuple(modalities),
        x=tensors[0],
        y=tensors[1],
        more=tuple(tensors[2:]),
        labels=_affect_labels(np.concatenate(read["labels"]), dataset, f"affect: {path}"),
        split=torch.from_numpy(split),
        classes=classes,
        task=task,
        settings={
            "path": str(path),
            "dataset": dataset,
            "modalities": list(modalities),
            "standardise": standardise,
            **cuts,
        },
    )
    return data if items is None else data.sample(whole_number("affect", "items", items, least=1))


def _member(part: dict[str, Any], name: str, here: str) -> Any:
    if name not in part:
        raise ValueError(f"{here} must have {name}, it has {', '.join(map(str, part)) or 'nothing'}")
    return part[name]


def _sequence(part: dict[str, Any], name: str, here: str) -> Array:
    values = np.asarray(_member(part, name, here))
    if values.ndim != 3 or values.dtype.kind not in "fiu":
        raise ValueError(f"{here}: {name} must be (N, length, d) numbers, got {values.shape} {values.dtype}")
    if values.dtype.kind == "f" and name == "audio":
        values = np.where(np.isneginf(values), 0, values)
    require_finite(values, f"{here}: {name}")
    return values


def _joined(parts: list[Array], name: str) -> Array:
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"{name} must have one length and width in train, valid and test, got {sorted(shapes)}")
    return np.concatenate(parts)


def _parts_of(table: dict[str, Any], modalities: Sequence[str], path: str) -> dict[str, list[Array]]:
    """Return modalities, labels, split and where speech has begun, an array for each part of the file."""
    read: dict[str, list[Array]] = {name: [] for name in (*modalities, "labels", "split", "begun")}
    for part, which in AFFECT_PARTS.items():
        here = f"affect: {path}: {part}"
        text = _sequence(table[part], "text", here)
        spoken = (text != 0).any((1, 2))
        for name in modalities:
            values = text if name == "text" else _sequence(table[part], name, here)
            if len(values) != len(text):
                raise ValueError(f"{here} has {len(values)} rows of {name} and {len(text)} of text; they must be pairs")
            read[name].append(values[spoken])
        labels = np.asarray(_member(table[part], "labels", here))
        if labels.size != len(text) or labels.dtype.kind not in "iufb":
            raise ValueError(f"{here}: labels must be one number a row, {len(text)}, got {labels.shape} {labels.dtype}")
        require_finite(labels.reshape(-1), f"{here}: labels")
        read["labels"].append(labels.reshape(-1)[spoken])
        read["begun"].append(np.logical_or.accumulate((text[spoken] != 0).any(2), axis=1))
        read["split"].append(np.full(int(spoken.sum()), which, np.int8))
    return read


def _standardised(name: str, values: Array, how: bool | str, *, train: NDArray[np.bool_], begun: list[Array]) -> Tensor:
    """Return one modality as ``affect`` standardises it.

    ``begun`` holds (n, length) bool for each part of the file: True from the first word on.
    """
    if how == "multibench":
        return _over_all_steps(name, values, begun=_joined(begun, "affect: text"), train=train)
    if how:
        return scaled_sequences(values, train, name="affect")
    return torch.from_numpy(values.astype(np.float32))


def _over_all_steps(name: str, values: Array, *, begun: NDArray[np.bool_], train: NDArray[np.bool_]) -> Tensor:
    """Return vision or audio (n, length, d) standardised over all training steps, text as it is; 0 before ``begun``.

    A feature that is constant in training becomes 0.
    """
    if values.shape[1] != begun.shape[1]:
        raise ValueError(
            f'affect: standardise="multibench" needs {name} and text of one length, got {values.shape[1]} and '
            f"{begun.shape[1]} steps"
        )
    array = values.astype(np.float64)
    if name != "text":
        mean, deviation = array[train].mean((0, 1)), array[train].std((0, 1))
        varies = deviation > 1e-12 * np.abs(array[train]).max((0, 1))
        array = np.where(varies, (array - mean) / np.where(varies, deviation, 1), 0)
    return torch.from_numpy(np.where(begun[:, :, None], array, 0).astype(np.float32))


def _affect_labels(labels: Array, dataset: str, here: str) -> Tensor:
    if AFFECT[dataset][0] == "regression":
        return torch.from_numpy(labels.astype(np.float32))
    known = (-1, 1) if dataset == "sarcasm" else (0, 1)
    if not np.isin(labels, known).all():
        raise ValueError(f"{here}: labels of {dataset} must be {known[0]} or {known[1]}, got {np.unique(labels)[:5]}")
    return torch.from_numpy((labels == 1).astype(np.int64))
