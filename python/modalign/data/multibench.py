"""Data sets of MultiBench (Liang et al. 2021, arXiv:2107.07502), read from the files that its authors distribute.

``affect`` reads CMU-MOSI, CMU-MOSEI, UR-FUNNY and MUStARD, ``av_mnist`` AV-MNIST, ``mm_imdb`` MM-IMDb.
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
from modalign.data.arrays import require_finite, require_one_of, require_two_or_more, scaled, scaled_sequences
from modalign.data.paired import PARTS, TEST, TRAIN, VALIDATION, PairedDataset, split_of
from modalign.data.pickles import read_plain_pickle
from modalign.files import arrays as array_files
from modalign.files.arrays import map_array, read_array
from modalign.files.paths import expanded, require_data

__all__ = ["affect", "av_mnist", "mm_imdb"]

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
PATCH = 4  # pixels a side of an image token
IMDB_MODALITIES = {"image": "vgg_features", "text": "features"}
IMDB_PARTS = (15552, 2608, 7799)  # films in the parts of the published split, in this order in the file


def affect(
    path: str | Path,
    dataset: str = "mosi",
    modalities: Sequence[str] = ("vision", "text"),
    *,
    standardise: bool = True,
) -> PairedDataset:
    """Return videos of speakers as sequences of 50 steps (faces, voice, words) from one of MultiBench's affect pickles.

    The file is a dict train/valid/test -> dict vision (N, 50, Dv), audio (N, 50, Da), text (N, 50, 300), labels, id,
    padded with zeros on the left. Reading it runs no code in it (``read_plain_pickle``). As in
    MultiBench, items without any text are dropped, and -inf in audio becomes 0. The split is that of the file.

    Args:
        path: mosi_raw.pkl, mosei_senti_data.pkl, humor.pkl or sarcasm.pkl, or another file of this form.
        dataset: "mosi" and "mosei", regression of sentiment from -3 to 3; "humor" (UR-FUNNY, labels 0 and 1) and
            "sarcasm" (MUStARD, labels -1 and 1), classes 0 and 1.
        modalities: two or three of "vision", "audio" and "text".
        standardise: mean 0 and variance 1 of every feature over the training frames; padding stays 0.

    Returns: float32 (n, 50, d) for each modality. Memory: the file twice, and 24 bytes a number of one modality.
    Raises FileNotFoundError, and ValueError for a file of another form, with code, or with NaN.
    Licence: that of each corpus; ask its authors. Source: github.com/pliang279/MultiBench.

    Examples:
        >>> from modalign.data import affect
        >>> affect("mosi_raw.pkl", "mosi", ("vision", "audio", "text")).pair(0, 2)  # doctest: +SKIP
    """
    require_one_of("affect: dataset", dataset, AFFECT)
    require_two_or_more("affect", modalities, AFFECT_MODALITIES)
    table = read_plain_pickle(path)
    missing = [part for part in AFFECT_PARTS if not isinstance(table, dict) or not isinstance(table.get(part), dict)]
    if missing:
        raise ValueError(
            f"affect: {path} must be a dict of train, valid and test dicts, it has no {', '.join(missing)}"
        )
    read: dict[str, list[Array]] = {name: [] for name in (*modalities, "labels", "split")}
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
        read["split"].append(np.full(int(spoken.sum()), which, np.int8))
    split = np.concatenate(read["split"])
    inputs = [_joined(read[name], f"affect: {path}: {name}") for name in modalities]
    if standardise:
        tensors = [scaled_sequences(values, split == TRAIN, name="affect") for values in inputs]
    else:
        tensors = [torch.from_numpy(values.astype(np.float32)) for values in inputs]
    task, classes = AFFECT[dataset]
    return PairedDataset(
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
        },
    )


def av_mnist(folder: str | Path, *, features: str = "flat", audio_pool: int = 1) -> PairedDataset:
    """Return pictures of digits and spectrograms of spoken digits, 10 classes: MultiBench's AV-MNIST.

    folder holds image/{train,test}_data.npy (60000 and 10000, 784), audio/{train,test}_data.npy (.., 112, 112) and
    {train,test}_labels.npy; sizes are read from the files. The last twelfth of the training files is validation.

    Args:
        features: "flat", rows of 784 and 112 * 112; "tokens", sequences: an image of 28 x 28 is 49 tokens of its 4 x 4
            patches, and a row of the audio is a token (MFCC files of (.., 20, 36) so give 20 tokens of 36).
        audio_pool: average windows of so many rows and columns of the audio, for less memory (4 gives 28 x 28).

    Returns: float32; of each modality one mean and one variance of the training part become 0 and 1.
    Memory: 4 bytes a number, 3.7 GB for all of it at audio_pool = 1, 0.5 GB at 4, and a read block of 1,024 rows.
    Raises FileNotFoundError, and ValueError for files of other shapes or labels.
    Source: Vielzeuf et al. 2018 (arXiv:1808.07275). Licence: the audio is TIDIGITS with noise of ESC-50; check
    theirs and MNIST's for your use.

    Examples:
        >>> from modalign.data import av_mnist
        >>> av_mnist("avmnist", features="tokens", audio_pool=4)  # doctest: +SKIP
    """
    require_one_of("av_mnist: features", features, ("flat", "tokens"))
    root = expanded(folder)
    labels = [_mapped(root / f"{part}_labels.npy", "av_mnist") for part in ("train", "test")]
    sizes = [len(values) for values in labels]
    for values, part in zip(labels, ("train", "test"), strict=True):
        whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool((values == np.round(values)).all()))
        if values.ndim != 1 or not whole or not 0 <= values.min() <= values.max() <= 9:
            raise ValueError(
                f"av_mnist: {part}_labels.npy must hold one digit a row, got {values.shape} {values.dtype} from "
                f"{values.min()} to {values.max()}"
            )
    trained = sizes[0] - sizes[0] // 12
    if trained == sizes[0]:
        raise ValueError(f"av_mnist: the training files must have 12 rows or more to validate on, got {sizes[0]}")
    split = np.repeat(np.array([TRAIN, VALIDATION, TEST], np.int8), [trained, sizes[0] - trained, sizes[1]])
    inputs = []
    for modality in ("image", "audio"):
        files = [_mapped(root / modality / f"{part}_data.npy", "av_mnist") for part in ("train", "test")]
        for values, n in zip(files, sizes, strict=True):
            wanted = values.ndim in (2, 3) if modality == "image" else values.ndim == 3
            if len(values) != n or not wanted or values.shape[1:] != files[0].shape[1:]:
                raise ValueError(
                    f"av_mnist: {modality} must be {n} rows of {'(784,)' if modality == 'image' else '(112, 112)'}, as "
                    f"many as labels and alike in training and test, got {values.shape}"
                )
        inputs.append(_blocks(files, modality, features, audio_pool if modality == "audio" else 1))
    return PairedDataset(
        name="av_mnist",
        modalities=("image", "audio"),
        x=_standardised(inputs[0], trained),
        y=_standardised(inputs[1], trained),
        labels=torch.from_numpy(np.concatenate(labels).astype(np.int64)),
        split=torch.from_numpy(split),
        classes=tuple(str(digit) for digit in range(10)),
        settings={"folder": str(folder), "features": features, "audio_pool": audio_pool},
    )


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


def _affect_labels(labels: Array, dataset: str, here: str) -> Tensor:
    if AFFECT[dataset][0] == "regression":
        return torch.from_numpy(labels.astype(np.float32))
    known = (-1, 1) if dataset == "sarcasm" else (0, 1)
    if not np.isin(labels, known).all():
        raise ValueError(f"{here}: labels of {dataset} must be {known[0]} or {known[1]}, got {np.unique(labels)[:5]}")
    return torch.from_numpy((labels == 1).astype(np.int64))


def _mapped(path: Path, name: str) -> Array:
    if not path.is_file():
        raise FileNotFoundError(f"{name}: there is no file {path}")
    array: Array = map_array(require_data(path))
    if array.size == 0:
        raise ValueError(f"{name}: {path} must hold rows, it is empty")
    return array


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
            raise ModuleNotFoundError(f"mm_imdb: {path} needs the h5py package: pip install h5py") from None
        try:
            with h5py.File(path, "r") as file:
                arrays = {name: np.asarray(file[name]) for name in wanted if name in file}
        except OSError as error:
            raise ValueError(f"mm_imdb: {path} must be a whole HDF5 file ({error}); fetch it anew") from None
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(f"mm_imdb: {path} must hold {', '.join(wanted)}; it has no {', '.join(missing)}")
    return arrays
