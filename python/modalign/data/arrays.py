"""Conversion of raw data to the inputs of encoders: centred and scaled features, token ids, pixels.

Every statistic (mean, components, scale, vocabulary) is computed from the training rows only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.common.names import suggestion
from modalign.files.pictures import open_picture

__all__ = [
    "pixels_of",
    "require_finite",
    "require_one_of",
    "require_two_or_more",
    "scaled",
    "scaled_sequences",
    "token_ids",
    "vocabulary",
]

VOCABULARY = 2048  # the largest number of words, with padding and the unknown word
UNKNOWN = 1


def scaled(
    values: ArrayLike,
    train: NDArray[np.bool_],
    *,
    pca: int | None = None,
    columns: bool = False,
    name: str = "features",
) -> Tensor:
    """Return features (n, ...) centred and scaled so that the mean variance of the training rows is 1, as float32.

    pca: width to reduce flattened features to, by the principal components of the training rows. A component's sign is
    that of its largest loading, positive, so that it does not depend on the solver.
    columns: first give every feature variance 1 (a constant one becomes 0), for features of different units.
    train: (n,) bool. Raises ValueError for a pca out of range, or training rows that are all the same.
    Float64 inside: peak memory three float64 copies of the values, and d^2 for pca.

    Examples:
        >>> import numpy as np
        >>> from modalign.data.arrays import scaled
        >>> scaled([[1.0], [3.0], [9.0]], np.array([True, True, False])).flatten().tolist()
        [-1.0, 1.0, 7.0]
    """
    array = np.array(values, np.float64)
    array -= array[train].mean(0)
    if columns:
        deviation = array[train].std(0)
        array /= np.where(deviation > 0, deviation, 1)
        array *= deviation > 0
    if pca is not None:
        array = array.reshape(len(array), -1)
        most = min(int(train.sum()) - 1, array.shape[1])
        pca = whole_number(name, "pca", pca)
        if not 1 <= pca <= most:
            raise ValueError(
                f"{name}: pca must be from 1 to {most} components here, or None for no reduction, got {pca}"
            )
        axes = np.linalg.eigh(array[train].T @ array[train])[1][:, ::-1][:, :pca]
        axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(pca)])
        array = array @ axes
    scale = float(np.sqrt(array[train].var(0).mean()))
    if not scale > 0:
        raise ValueError(f"{name}: the training rows are all the same; an encoder has nothing to learn from them")
    return torch.from_numpy((array / scale).astype(np.float32))


def scaled_sequences(values: ArrayLike, train: NDArray[np.bool_], *, name: str = "sequences") -> Tensor:
    """Return sequences (n, length, d) standardised to mean 0 and variance 1 over the frames of the training rows.

    Zero frames before the first that is not zero are padding: they are not counted and stay 0. A feature that is
    constant in training becomes 0. Raises ValueError if the training rows hold no frame. Float64 inside, one copy.

    Examples:
        >>> import numpy as np
        >>> from modalign.data.arrays import scaled_sequences
        >>> scaled_sequences([[[0.0], [1.0], [3.0]]], np.array([True])).flatten().tolist()
        [0.0, -1.0, 1.0]
    """
    array = np.array(values, np.float64)
    frames = np.logical_or.accumulate((array != 0).any(2), axis=1)
    known = array[train][frames[train]]
    if not len(known):
        raise ValueError(f"{name}: the training rows hold padding alone, nothing to standardise by")
    deviation = known.std(0)
    # a difference in the last digits of equal numbers is no variance
    varies = deviation > 1e-12 * np.abs(known).max(0)
    array = np.where(frames[:, :, None] & varies, (array - known.mean(0)) / np.where(varies, deviation, 1), 0)
    return torch.from_numpy(array.astype(np.float32))


def vocabulary(texts: Sequence[str]) -> list[str]:
    """Return the words by falling number of texts they occur in, then by alphabet, after padding and the unknown word.

    Words are runs of letters and digits, in lower case; at most 2,048 entries.

    Examples:
        >>> from modalign.data.arrays import vocabulary
        >>> vocabulary(["A red fox", "a red hen"])
        ['', '?', 'a', 'red', 'fox', 'hen']
    """
    count = Counter(word for text in texts for word in set(_words(text)))
    return ["", "?", *sorted(count, key=lambda word: (-count[word], word))][:VOCABULARY]


def token_ids(texts: Sequence[str], train: NDArray[np.bool_]) -> Tensor:
    """Return word ids (n, length) int64 by the vocabulary of the training texts: 0 is padding, 1 an unknown word."""
    known = vocabulary([text for text, inside in zip(texts, train.tolist(), strict=True) if inside])
    ids = {word: i for i, word in enumerate(known) if i > UNKNOWN}
    words = [_words(text) for text in texts]
    tokens = torch.zeros(len(texts), max([1, *map(len, words)]), dtype=torch.int64)
    for row, text in zip(tokens, words, strict=True):
        row[: len(text)] = torch.tensor([ids.get(word, UNKNOWN) for word in text], dtype=torch.int64)
    return tokens


def pixels_of(paths: Sequence[Any], size: int = 32) -> Tensor:
    """Read images as (n, 3, size, size) uint8, resized to fit and centred on white. Memory: the result and one image.

    paths: paths, the bytes of files, or pictures of Pillow, opened as ``modalign.files.pictures.open_picture`` does.
    Raises ValueError with the path of a file that is not an image.
    """
    from PIL import Image

    pixels = np.full((len(paths), size, size, 3), 255, np.uint8)
    for number, (row, path) in enumerate(zip(pixels, paths, strict=True)):
        image = open_picture(path, str(path) if isinstance(path, Path) else f"image {number}", "RGBA")
        width, height = (max(1, round(side * size / max(image.size))) for side in image.size)
        # the alpha channel weighs colours, so that transparent pixels leave no dark rim
        small = image.convert("RGBa").resize((width, height), Image.Resampling.BOX).convert("RGBA")
        canvas = Image.new("RGBA", (size, size), "white")
        canvas.alpha_composite(small, ((size - width) // 2, (size - height) // 2))
        row[:] = np.asarray(canvas.convert("RGB"))
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def require_finite(values: NDArray[Any], name: str) -> None:
    """Raise ValueError with the first rows of a float array (n, ...) that hold NaN or inf."""
    if values.dtype.kind != "f":
        return
    bad = [row for row, value in enumerate(values) if not np.isfinite(value).all()]
    if bad:
        raise ValueError(f"{name} must be finite, got NaN or inf in rows {bad[:3]} (the first); drop or mend them")


def require_one_of(name: str, value: Any, known: Any) -> None:
    """Raise ValueError unless a setting, named ``function: setting``, has one of the known values."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}{suggestion(value, known)}")


def require_two_or_more(name: str, modalities: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError unless modalities are two or more of those known, each once."""
    if isinstance(modalities, str) or len(modalities) < 2 or len(set(modalities)) < len(modalities):
        raise ValueError(f"{name}: modalities must be two or more of {', '.join(known)}, each once, got {modalities!r}")
    for modality in modalities:
        require_one_of(f"{name}: modalities", modality, known)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
