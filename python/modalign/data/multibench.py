"""Data sets of MultiBench (Liang et al. 2021, arXiv:2107.07502), read from the files that its authors distribute.

``av_mnist`` reads AV-MNIST, ``mm_imdb`` MM-IMDb; ``modalign.data.speech_files`` reads the sets of speakers.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.data.arrays import require_finite, require_one_of, require_two_or_more, scaled
from modalign.data.paired import PARTS, TEST, TRAIN, VALIDATION, PairedDataset, split_of
from modalign.files import arrays as array_files
from modalign.files.arrays import map_array, read_array
from modalign.files.paths import expanded, require_data

__all__ = ["av_mnist", "mm_imdb"]

Array = NDArray[Any]

PATCH = 4  # pixels a side of an image token
IMDB_MODALITIES = {"image": "vgg_features", "text": "features"}
IMDB_PARTS = (15552, 2608, 7799)  # films in the parts of the published split, in this order in the file


def av_mnist(
    folder: str | Path,
    *,
    features: str = "flat",
    audio_pool: int = 1,
    coefficients: bool | None = None,
    standardise: bool | str = True,
    items: int | None = None,
) -> PairedDataset:
    """Return pictures of digits and spectrograms of spoken digits, 10 classes: MultiBench's AV-MNIST.

    folder holds image/{train,test}_data.npy (60000 and 10000, 784), audio/{train,test}_data.npy (.., 112, 112) and
    {train,test}_labels.npy; sizes are read from the files. The last twelfth of the training files is validation.

    Args:
        features: "flat", rows of 784 and 112 * 112; "tokens", sequences: an image of 28 x 28 is 49 tokens of its 4 x 4
            patches, and a row of the audio is a token (MFCC files of (.., 20, 36) so give 20 tokens of 36).
        audio_pool: average windows of so many rows and columns of the audio, for less memory (4 gives 28 x 28).
        coefficients: whether the rows of the audio are coefficients of different size, such as MFCC, of which each is
            standardised on its own; None for audio that is not square, as a spectrogram is.
        items: at most so many pairs of each part, a fixed random choice; None for all.
        standardise: "multibench" divides pixels by 255 and does no more to them, as the code of Tjandrasuwita et al.

    Returns: float32; of each modality, or each coefficient, one mean and one variance of the training part become 0
        and 1.
    Memory: 4 bytes a number, 3.7 GB for all of it at audio_pool = 1, 0.5 GB at 4, and a read block of 1,024 rows.
    Raises FileNotFoundError, and ValueError for files of other shapes or labels.
    Source: Vielzeuf et al. 2018 (arXiv:1808.07275). Licence: the audio is TIDIGITS with noise of ESC-50; check
    theirs and MNIST's for your use.

    Examples:
        >>> from modalign.data import av_mnist
        >>> av_mnist("avmnist", features="tokens", audio_pool=4)  # doctest: +SKIP
    """
    require_one_of("av_mnist: features", features, ("flat", "tokens"))
    require_one_of("av_mnist: standardise", standardise, (True, "multibench"))
    root = expanded(folder)
    labels = [_digits_of(root / f"{part}_labels.npy") for part in ("train", "test")]
    sizes = [len(values) for values in labels]
    trained = sizes[0] - sizes[0] // 12
    if trained == sizes[0]:
        raise ValueError(f"av_mnist: the training files must have 12 rows or more to validate on, got {sizes[0]}")
    split = np.repeat(np.array([TRAIN, VALIDATION, TEST], np.int8), [trained, sizes[0] - trained, sizes[1]])
    inputs, shapes = [], {}
    for modality in ("image", "audio"):
        files = [_mapped(root / modality / f"{part}_data.npy", "av_mnist") for part in ("train", "test")]
        for values, n in zip(files, sizes, strict=True):
            wanted = values.ndim in (2, 3) if modality == "image" else values.ndim == 3
            if len(values) != n or not wanted or values.shape[1:] != files[0].shape[1:]:
                raise ValueError(
                    f"av_mnist: {modality} must be {n} rows of {'(784,)' if modality == 'image' else '(112, 112)'}, as "
                    f"many as labels and alike in training and test, got {values.shape}"
                )
        shapes[modality] = files[0].shape[1:]
        inputs.append(_blocks(files, modality, features, audio_pool if modality == "audio" else 1))
    square = shapes["audio"][0] == shapes["audio"][1]
    coefficients = not square if coefficients is None else coefficients
    rows = shapes["audio"][0] // audio_pool
    image = _standardised(inputs[0], trained) if standardise is True else _pixels(inputs[0])
    audio = _by_coefficient(inputs[1], trained, rows) if coefficients else _standardised(inputs[1], trained)
    data = PairedDataset(
        name="av_mnist",
        modalities=("image", "audio"),
        x=image,
        y=audio,
        labels=torch.from_numpy(np.concatenate(labels).astype(np.int64)),
        split=torch.from_numpy(split),
        classes=tuple(str(digit) for digit in range(10)),
        settings={
            "folder": str(folder),
            "features": features,
            "audio_pool": audio_pool,
            # folders of results that were made before these settings go on
            **({} if square and not coefficients else {"coefficients": coefficients}),
            **({} if standardise is True else {"standardise": standardise}),
            **({} if items is None else {"items": items}),
        },
    )
    return data if items is None else data.sample(whole_number("av_mnist", "items", items, least=1))


def mm_imdb(
    path: str | Path, modalities: Sequence[str] = ("image", "text"), *, pca: int | None = None, seed: int = 0
) -> PairedDataset:
    """Return features of the posters and plots of films, with one or more of 23 genres: MM-IMDb.

    Args:
        path: MultiBench's multimodal_imdb.hdf5 (read by h5py), or a .npz, of the arrays ``vgg_features`` (n, 4096) of
            the poster, ``features`` (n, 300) of the plot and ``genres`` (n, 23) of 0 and 1; a .npz may name its genres
            in ``classes``.
        modalities: ("image", "text"), or in the other order.
        pca: width to reduce each to, or None.
        seed: fixes the split (70 / 15 / 15 per cent) of a file that does not hold all 25,959 films; those are split as
            published, 15,552, 2,608 and 7,799 in the order of the file.

    Returns: float32 features, centred by the training part and of mean variance 1 there, and multilabel labels.
    Memory: 24 bytes a number, 2.5 GB for all posters. Raises FileNotFoundError, ModuleNotFoundError without h5py, and
    ValueError for arrays that are not there, do not fit, or hold NaN.
    Source: Arevalo et al. 2017 (arXiv:1702.01992). Licence: research use; check IMDb's terms.

    Examples:
        >>> from modalign.data import mm_imdb
        >>> mm_imdb("multimodal_imdb.hdf5")  # doctest: +SKIP
    """
    seed = whole_number("mm_imdb", "seed", seed, least=0)
    require_two_or_more("mm_imdb", modalities, tuple(IMDB_MODALITIES))
    arrays = _imdb_arrays(expanded(path))
    genres = arrays["genres"]
    if genres.ndim != 2 or not np.isin(genres, (0, 1)).all():
        raise ValueError(f"mm_imdb: genres must be (n, genres) of 0 and 1, got {genres.shape} {genres.dtype}")
    n = len(genres)
    names = arrays.get("classes", np.array([f"genre {i}" for i in range(genres.shape[1])]))
    if n == sum(IMDB_PARTS):
        split = torch.from_numpy(np.repeat(np.array(list(PARTS), np.int8), IMDB_PARTS))
    else:
        split = split_of(np.zeros(n, np.int64), seed=seed)
    train = split.numpy() == TRAIN
    inputs = []
    for modality in modalities:
        values = arrays[IMDB_MODALITIES[modality]]
        if values.ndim != 2 or len(values) != n or values.dtype.kind != "f":
            raise ValueError(
                f"mm_imdb: {IMDB_MODALITIES[modality]} must be ({n}, d) floats, a row per film, got {values.shape} "
                f"{values.dtype}"
            )
        require_finite(values, f"mm_imdb: {IMDB_MODALITIES[modality]}")
        inputs.append(scaled(values, train, pca=pca, name="mm_imdb"))
    return PairedDataset(
        name="mm_imdb",
        modalities=tuple(modalities),
        x=inputs[0],
        y=inputs[1],
        labels=torch.from_numpy(genres.astype(np.float32)),
        split=split,
        classes=tuple(str(name) for name in names),
        task="multilabel",
        settings={"path": str(path), "modalities": list(modalities), "pca": pca, "seed": seed},
    )


def _mapped(path: Path, name: str) -> Array:
    if not path.is_file():
        raise FileNotFoundError(f"{name}: there is no file {path}")
    array: Array = map_array(require_data(path))
    if array.size == 0:
        raise ValueError(f"{name}: {path} must hold rows, it is empty")
    return array


def _digits_of(path: Path) -> Array:
    values = _mapped(path, "av_mnist")
    whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool((values == np.round(values)).all()))
    if values.ndim != 1 or not whole or not 0 <= values.min() <= values.max() <= 9:
        raise ValueError(
            f"av_mnist: {path.name} must hold one digit a row, got {values.shape} {values.dtype} from {values.min()} "
            f"to {values.max()}"
        )
    return values


def _blocks(files: list[Array], modality: str, features: str, pool: int) -> Array:
    """Return the audio pooled and cut into tokens, float32, 1,024 rows at a time."""
    return np.concatenate(
        [
            _tokens(_pooled(np.asarray(values[start : start + 1024], np.float32), pool), modality, features)
            for values in files
            for start in range(0, len(values), 1024)
        ]
    )


def _pooled(values: Array, pool: int) -> Array:
    if pool == 1:
        return values
    n, rows, columns = values.shape
    if pool < 1 or rows % pool or columns % pool:
        raise ValueError(f"av_mnist: audio_pool must divide {rows} and {columns}, got {pool}")
    pooled: Array = values.reshape(n, rows // pool, pool, columns // pool, pool).mean((2, 4))
    return pooled


def _tokens(values: Array, modality: str, features: str) -> Array:
    n = len(values)
    if features == "flat":
        return values.reshape(n, -1)
    if modality == "audio":
        return values
    side = round(float(np.sqrt(values[0].size)))
    if side * side != values[0].size or side % PATCH:
        raise ValueError(
            f"av_mnist: image tokens are {PATCH} x {PATCH} patches of a square image, got {values[0].size} pixels"
        )
    grid = values.reshape(n, side // PATCH, PATCH, side // PATCH, PATCH).swapaxes(2, 3)
    cut: Array = grid.reshape(n, -1, PATCH * PATCH)
    return cut


def _standardised(values: Array, trained: int) -> Tensor:
    require_finite(values, "av_mnist")
    mean = float(values[:trained].mean(dtype=np.float64))
    # in rows, so that no second copy is made
    square = sum(float(np.square(row - mean, dtype=np.float64).mean()) for row in values[:trained]) / trained
    if not square > 0:
        raise ValueError("av_mnist: the training rows are all the same; an encoder has nothing to learn from them")
    values -= mean
    values /= np.sqrt(square)
    return torch.from_numpy(values)


def _pixels(values: Array) -> Tensor:
    require_finite(values, "av_mnist")
    return torch.from_numpy(values / np.float32(255))


def _by_coefficient(values: Array, trained: int, rows: int) -> Tensor:
    """Return audio (n, ...) of ``rows`` coefficients an item, each with mean 0 and variance 1 in the training rows.

    A coefficient that is constant in training becomes 0.
    """
    require_finite(values, "av_mnist")
    table = values.reshape(len(values), rows, -1)
    mean = table[:trained].mean((0, 2), dtype=np.float64)
    deviation = table[:trained].std((0, 2), dtype=np.float64)
    varies = deviation > 1e-6 * np.abs(table[:trained]).max((0, 2))
    if not varies.any():
        raise ValueError("av_mnist: the training rows are all the same; an encoder has nothing to learn from them")
    table -= mean[:, None].astype(np.float32)
    table *= (varies / np.where(varies, deviation, 1))[:, None].astype(np.float32)
    return torch.from_numpy(values)


def _imdb_arrays(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise FileNotFoundError(f"mm_imdb: there is no file {path}")
    wanted = (*IMDB_MODALITIES.values(), "genres")
    if path.suffix.lower() == ".npz":
        held = array_files.READERS[".npz"](require_data(path)).shapes
        arrays = {name: read_array(path, name) for name in (*wanted, "classes") if name in held}
    else:
        try:
            h5py = importlib.import_module("h5py")
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"mm_imdb: {path} needs the h5py package: pip install h5py, or 'modalign[files]'"
            ) from None
        try:
            with h5py.File(path, "r") as file:
                arrays = {name: np.asarray(file[name]) for name in wanted if name in file}
        except OSError as error:
            raise ValueError(f"mm_imdb: {path} must be a whole HDF5 file ({error}); fetch it anew") from None
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(f"mm_imdb: {path} must hold {', '.join(wanted)}; it has no {', '.join(missing)}")
    return arrays
