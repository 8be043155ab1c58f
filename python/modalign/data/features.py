"""Frozen features of two encoders for the same items, in the files of the platonic-representation code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.common.labels import Labels, label_array, labelled_entries
from modalign.data.arrays import scaled
from modalign.data.paired import TRAIN, PairedDataset
from modalign.data.targets import Targets, parts_of, warn_of_gaps
from modalign.files import torch_files
from modalign.files.paths import expanded, require_data
from modalign.files.rows import layers_of

__all__ = ["platonic"]


def platonic(
    x_path: str | Path,
    y_path: str | Path,
    *,
    layer_1: int = -1,
    layer_2: int = -1,
    labels: Labels | None = None,
    classes: Sequence[str] | None = None,
    missing: float | str | None = None,
    modalities: Sequence[str] = ("vision", "language"),
    pca: int | None = None,
    seed: int = 0,
) -> PairedDataset:
    """Return one layer of each of two encoders, from .pt files of features such as those of WIT.

    A file is a dict whose ``feats`` is (n, layers, d), (n, d) of one layer, or a list of such layers, in any floating
    dtype; its other entries (``num_params``, ``mask``, ``loss``, ``bpb``) are not used. Loaded with weights_only=True:
    no code runs.

    Args:
        x_path, y_path: paths of files of the same n items in the same order.
        layer_1, layer_2: from 0, or from the end by negative numbers.
        labels: (n,) whole numbers from 0, or text, whose classes are in its order. WIT has none: without them all items
            are of one class, enough to align and to measure alignment, and ``require_trainable`` refuses to train a
            classifier.
        classes: names of the classes.
        missing: a value of labels that stands for none, such as -1. Items without a label (None, NaN and blanks, too)
            are in the training part and enter the alignment term alone.
        modalities: names of the two modalities.
        pca: width to reduce each to, or None.
        seed: fixes the split, 70 / 15 / 15 per cent of every class.

    Returns: float32, centred by the training part and of mean variance 1 there.
    Raises FileNotFoundError, TypeError for a file of more than tensors, and ValueError for one of another form, a layer
    it has not, another n, or NaN.
    Memory: both files (mapped), and 24 bytes a number of one layer.
    Source: Huh et al. 2024 (arXiv:2405.07987), github.com/minyoungg/platonic-rep.

    Examples:
        >>> from modalign.data import platonic
        >>> platonic("wit/dinov2.pt", "wit/llama.pt", layer_2=12)  # doctest: +SKIP
    """
    seed = whole_number("platonic", "seed", seed, least=0)
    layer_1, layer_2 = whole_number("platonic", "layer_1", layer_1), whole_number("platonic", "layer_2", layer_2)
    first, second = _layer(expanded(x_path), layer_1, "layer_1"), _layer(expanded(y_path), layer_2, "layer_2")
    n = len(first)
    if len(second) != n:
        raise ValueError(f"platonic: both files must be of the same items, got {n} and {len(second)}")
    targets = Targets(torch.zeros(n, dtype=torch.int64), tuple(classes or ("unlabelled",)), "classification")
    if labels is not None:
        targets = _targets(labels, n, classes, missing)
        warn_of_gaps("platonic", targets, missing)
    split = parts_of(None, targets, seed)
    train = split.numpy() == TRAIN
    return PairedDataset(
        name="platonic",
        modalities=tuple(modalities),
        x=scaled(first.numpy(), train, pca=pca, name="platonic"),
        y=scaled(second.numpy(), train, pca=pca, name="platonic"),
        labels=targets.labels,
        labelled=targets.labelled,
        split=split,
        classes=targets.classes,
        settings={
            "x_path": str(x_path),
            "y_path": str(y_path),
            "layer_1": layer_1,
            "layer_2": layer_2,
            "labels": None if labels is None else targets.labels.tolist(),
            "classes": None if labels is None else list(targets.classes),
            **({} if targets.labelled is None else {"missing": -1}),
            "modalities": list(modalities),
            "pca": pca,
            "seed": seed,
        },
    )


def _targets(values: Labels, n: int, classes: Sequence[str] | None, missing: float | str | None) -> Targets:
    """Return the classes of the items, of which some may have none."""
    entries, known = labelled_entries("platonic: labels", values, missing)
    if len(known) != n:
        raise ValueError(f"platonic: labels must be ({n},), one for each item, got ({len(known)},)")
    numbers = label_array("platonic: labels", entries)
    if numbers.dtype.kind == "U":
        names, numbers = np.unique(numbers, return_inverse=True)
        classes = names.tolist() if classes is None else classes
    if classes is None:
        classes = [str(i) for i in range(int(numbers.max()) + 1)]
    return Targets(torch.from_numpy(numbers.astype(np.int64)), tuple(classes), "classification").spread(known)


def _layer(path: Path, layer: int, name: str) -> Tensor:
    layers = layers_of(torch_files.READERS[".pt"](require_data(path)), "feats")
    if not -len(layers) <= layer < len(layers):
        raise ValueError(
            f"platonic: {name} must be from 0 to {len(layers) - 1}, or negative from the end, got {layer} for {path}"
        )
    rows = layers[layer]
    return rows.read(0, rows.shape[0]).float()
