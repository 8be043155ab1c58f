"""A user's own pairs: arrays, files of arrays, columns of tables, folders of images, texts."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.common.conversion import as_numpy
from modalign.common.labels import missing_rows
from modalign.data.arrays import pixels_of, require_finite, scaled, scaled_sequences, token_ids
from modalign.data.paired import TRAIN, PairedDataset
from modalign.data.targets import parts_of, targets_of, warn_of_gaps
from modalign.files.arrays import read_array
from modalign.files.labels import MARGIN, array_in, label_lines
from modalign.files.paths import expanded, require_data
from modalign.files.pictures import PICTURES, is_picture, note_on_order, picture_paths, pictures_in
from modalign.files.rows import indexable
from modalign.files.tables import KINDS, is_table, read_table, split_column
from modalign.files.texts import lines_of, numbers_in

__all__ = ["own"]

Array = NDArray[Any]

FILES = ("npy", "npz", "pt", "pth", "safetensors", "txt", *(kind[1:] for kind in KINDS))


def own(
    x: Any,
    y: Any,
    labels: Any = None,
    *,
    split: Any = None,
    task: str | None = None,
    names: Sequence[str] | None = None,
    missing: float | str | None = None,
    more: Sequence[Any] = (),
    modalities: Sequence[str] | None = None,
    standardise: bool = True,
    pca: int | None = None,
    size: int = 32,
    seed: int = 0,
) -> PairedDataset:
    """Return your own pairs: row i of x and row i of y belong together.

    Args:
        x, y: each an array, a tensor or a list of strings, or the path of

                file.npy      file.npz:array     an array; :array may be left out where there is one
                file.pt       file.safetensors:name    a tensor of features
                file.txt                         one string a line, or the path of a picture, or numbers
                file.parquet:column              a column of numbers, lists of numbers of one length, or strings;
                                                 likewise .csv, .tsv, .arrow and .feather
                folder                           images in sub-folders, in the order of their paths

            Floats (n, d) are features, numbers (n,) one feature, (n, length, d) sequences with zero padding on the
            left, (n, channels, height, width) images, likewise uint8 pixels; whole numbers (n, length) are token ids, 0
            for padding; strings become word ids by the words of the training texts, unless all of them are paths of
            pictures, which are read, or lists of numbers, which are taken as numbers. Two folders must hold files of
            the same names.
        labels: strings, categories, whole numbers or booleans (n,): classes, likewise floats that count classes from 0
            or 1 (0.0, 1.0, ..., in text too), with a warning. Other floats (n,): a regression. 0 and 1 (n, L):
            multilabel. An array, a list, a column, or a path as above. None where x or y is a folder: the names of its
            sub-folders. A training pair may have no label: None, NaN, NA or a blank (see ``missing``). It then enters
            the alignment term and no task loss.
        split: (n,) of "train", "validation" and "test", or 0, 1 and 2, or a path; None for 70 / 15 / 15 per cent of
            every class by the seed, and the training part for pairs without a label.
        task: "classification", "regression" or "multilabel"; None infers it from the labels.
        names: names of the classes, in the order of whole-number labels or of the columns; labels must then be from 0
            to len(names) - 1. None names classes by their labels, in order.
        missing: a value of labels that stands for none, such as -1 or "unknown"; -1 is a class or a number otherwise.
            Without it, labels that are missing are named in a warning.
        more: further modalities, each like x.
        modalities: names of x, y and more; None for "x", "y", "modality 3", ...
        standardise: centre features by the training part and scale them to mean variance 1 there, sequences to
            variance 1 of every feature. False leaves them as they are.
        pca: width to reduce features (n, d) to, or None.
        size: pixels a side of images read from folders.
        seed: fixes the split that is not given.

    Returns:
        float32, uint8 or int64 modalities and labels, in the form of ``PairedDataset``.

    Peak memory: 24 bytes for each number of one modality while it is scaled.

    Raises:
        FileNotFoundError: a path does not exist.
        TypeError: a value is not an array.
        ValueError: rows that do not match, NaN, ragged rows, labels that are out of range or missing in the validation
            or test part, whole numbers saved as floats of which nothing says whether they are classes, or a missing
            column.

    Examples:
        >>> import numpy as np
        >>> from modalign.data import own
        >>> images, texts = np.random.default_rng(0).normal(size=(2, 60, 5))
        >>> data = own(images, texts, ["cat", "dog", "bird"] * 20)
        >>> data.classes, data.x.shape
        (('bird', 'cat', 'dog'), torch.Size([60, 5]))
    """
    size, seed = whole_number("own", "size", size, least=1), whole_number("own", "seed", seed, least=0)
    inputs = [x, y, *more]
    modality_names = tuple(modalities or ("x", "y", *(f"modality {i}" for i in range(3, 3 + len(more)))))
    if len(modality_names) != len(inputs):
        raise ValueError(f"own: modalities must name x, y and each of more, {len(inputs)} in all, got {modality_names}")
    folders = [_images_in(expanded(values)) if _is_folder(values) else None for values in inputs]
    _require_same_names([files for files in folders if files is not None])
    _warn_of_order(folders, {**dict(zip(modality_names, inputs, strict=True)), "labels": labels, "split": split})
    rows = [
        pixels_of(files[1], size) if files is not None else _rows(values, name, size)
        for files, values, name in zip(folders, inputs, modality_names, strict=True)
    ]
    targets = targets_of(_label_source(labels, folders), task, names, missing)
    _require_one_row_a_pair(dict(zip((*modality_names, "labels"), (*rows, targets.labels), strict=True)))
    warn_of_gaps("own", targets, missing)
    parts = parts_of(_label_source(split), targets, seed)
    train = parts.numpy() == TRAIN
    scale = functools.partial(_modality, train=train, standardise=standardise, pca=pca)
    tables = [scale(array, name=name) for array, name in zip(rows, modality_names, strict=True)]
    arguments = {"x": x, "y": y, "labels": labels, "split": split, "more": list(more) or None}
    return PairedDataset(
        name="own",
        modalities=modality_names,
        x=tables[0],
        y=tables[1],
        more=tuple(tables[2:]),
        labels=targets.labels,
        labelled=targets.labelled,
        split=parts,
        classes=targets.classes,
        task=targets.task,
        settings={
            # paths make the data again, arrays are not settings
            **{name: str(value) for name, value in arguments.items() if isinstance(value, (str, Path))},
            "task": targets.task,
            "names": None if names is None else list(names),
            **({} if missing is None else {"missing": missing}),
            "modalities": list(modality_names),
            "standardise": standardise,
            "pca": pca,
            "size": size,
            "seed": seed,
        },
    )


def _folder_classes(folders: list[tuple[list[str], list[Path]] | None]) -> list[str]:
    """Return the classes of the pairs of the first folder of images: the names of its sub-folders."""
    for files in folders:
        if files is not None:
            return [name.split("/")[0] for name in files[0]]
    raise ValueError("own: labels must be given, unless x or y is a folder of images in sub-folders, one a class")


def _require_one_row_a_pair(tables: dict[str, Array | Tensor]) -> None:
    """Check that all tables, by name, have as many rows as the first one."""
    first, n = next((name, len(rows)) for name, rows in tables.items())
    for name, rows in tables.items():
        if len(rows) != n or n == 0:
            raise ValueError(f"own: {name} must have a row per pair, {n} as {first} has, got {len(rows)}")


def _is_folder(values: Any) -> bool:
    return isinstance(values, (str, Path)) and expanded(values).is_dir()


def _images_in(folder: Path) -> tuple[list[str], list[Path]]:
    """Return names (sub-folder/file without its ending) and paths, in the order of the names."""
    images = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in pictures_in(folder)
        if path.parent != folder
    }
    if not images:
        raise ValueError(
            f"own: {folder} must hold images in sub-folders, one a class ({', '.join(PICTURES)}); it has none"
        )
    names = sorted(images)
    return names, [images[name] for name in names]


def _warn_of_order(folders: list[tuple[list[str], list[Path]] | None], sources: dict[str, Any]) -> None:
    """Warn if a folder's files are paired with rows of something else in an order that may not be meant.

    Args:
        folders: The images of each modality that is a folder, in the order of the modalities.
        sources: What was given for each modality, for the labels and for the split.
    """
    rows = [name for name, source in sources.items() if source is not None and not _is_folder(source)]
    for files, source in zip(folders, sources.values(), strict=False):
        if files is not None and rows:
            names = files[0]
            note = note_on_order(source, names, [f"row {row} of {rows[0]}" for row in range(len(names))])
            if note is not None:
                warnings.warn(f"own: {note}", stacklevel=3)


def _require_same_names(folders: list[tuple[list[str], list[Path]]]) -> None:
    for names, _ in folders[1:]:
        unmatched = sorted(set(names) ^ set(folders[0][0]))
        if unmatched:
            raise ValueError(
                f"own: folders of pairs must hold files of the same names, {len(unmatched)} are in only one: "
                f"{', '.join(unmatched[:3])} (the first)"
            )


def _label_source(values: Any, folders: list[tuple[list[str], list[Path]] | None] | None = None) -> Any:
    """Return labels or the names of parts, read where a path is given; spaces around text in files do not count.

    Entries that are missing are None or NaN. folders: where labels that are not given come from.
    """
    if values is None:
        return None if folders is None else _folder_classes(folders)
    if not isinstance(values, (str, Path)):
        return values
    if str(values).lower().endswith(".txt"):
        return label_lines(require_data(expanded(values))) if expanded(values).is_file() else _from_file(str(values))
    match = re.fullmatch(r"(.+?\.(?:pt|pth|safetensors))(?::(.+))?", str(values), re.DOTALL | re.IGNORECASE)
    array: Any = _from_file(str(values), gaps=True) if match is None else array_in(expanded(match[1]), match[2])
    if isinstance(array, np.ndarray) and array.dtype.kind in "OU" and array.ndim == 1:
        return [value.strip(MARGIN) if isinstance(value, str) else value for value in array.tolist()]
    return array


def _rows(values: Any, name: str, size: int) -> Array | Tensor:
    """Return a modality, of which text may name pictures or hold numbers."""
    if isinstance(values, (list, tuple)) and values and all(map(_is_picture, values)):
        return pixels_of(values, size)
    _require_texts(values, name)
    array = _array(values, name)
    if isinstance(array, Tensor) or array.dtype.kind != "U" or array.ndim != 1:
        return array if isinstance(array, Tensor) else _as_features(array)
    file = _file_of(values)
    pictures = picture_paths(f"own: {name}", array.tolist(), None if file is None else file.parent)
    if pictures is not None:
        return pixels_of(pictures, size)
    numbers = numbers_in(f"own: {name}", array.tolist())
    return array if numbers is None else _as_features(_require_array(numbers, name))


def _as_features(array: Array) -> Array:
    """Return numbers (n,) as one feature (n, 1) of floats, anything else as it is."""
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        return array
    return array[:, None] if array.dtype.kind == "f" else array[:, None].astype(np.float64)


def _require_texts(values: Any, name: str) -> None:
    """Check that a list of texts has one in every row."""
    entries = values.tolist() if isinstance(values, np.ndarray) and values.dtype.hasobject else values
    if isinstance(entries, (list, tuple)) and any(isinstance(entry, str) for entry in entries):
        missing = missing_rows(entries)
        if missing:
            raise ValueError(
                f"own: {name} must have a text in every row, got none in rows {missing[:3]} (the first of "
                f"{len(missing):,}); drop these rows everywhere"
            )


def _is_picture(value: object) -> bool:
    """Return whether a value is a path, the bytes of a file, or a picture of Pillow."""
    return isinstance(value, (Path, bytes)) or is_picture(value)


def _file_of(values: Any) -> Path | None:
    """Return the file of ``FILE`` or ``FILE:COLUMN``."""
    if not isinstance(values, (str, Path)):
        return None
    split = split_column(str(values))
    return expanded(values if split is None else split[0])


def _array(values: Any, name: str) -> Array | Tensor:
    """Return rows as an array of one dtype, from an array, a list or a file."""
    if isinstance(values, (str, Path)):
        return _require_array(as_numpy(f"own: {values}", _from_file(str(values))), str(values))
    return _require_array(as_numpy(f"own: {name}", values), name)


def _require_array(array: Array, name: str) -> Array:
    if array.ndim == 0 or array.dtype.kind not in "fiubU":
        raise TypeError(
            f"own: {name} must hold numbers or strings, one a row, got {array.dtype} of shape {array.shape}"
        )
    require_finite(array, f"own: {name}")
    return array


def _from_file(spec: str, *, gaps: bool = False) -> Array:
    """Return the rows of a file; a column of a table may have missing values, as None, where ``gaps`` says so."""
    match = re.fullmatch(rf"(.+?\.({'|'.join(FILES)}))(?::(.+))?", spec, re.DOTALL | re.IGNORECASE)
    if match is None:
        folder = expanded(spec)
        if not folder.suffix and not folder.exists():
            raise FileNotFoundError(f"own: there is no file or folder {folder}")
        kinds = ".npy, .npz, .pt, .safetensors or .txt, or name a FILE.parquet:COLUMN (or of .csv, .arrow, .feather)"
        raise ValueError(f"own: {spec} must be a folder of images, or end in {kinds}")
    path, kind, member = require_data(expanded(match[1])), match[2].lower(), match[3]
    if is_table(path):
        return _column(path, member, gaps=gaps)
    if kind in ("safetensors", "pt", "pth"):
        return as_numpy(f"own: {spec}", indexable(spec))
    if kind == "txt":
        return np.array(lines_of(path))
    return read_array(path, member)


def _column(path: Path, member: str | None, *, gaps: bool = False) -> Array:
    import pyarrow

    table = read_table(path, member)
    if member is None or table.column_names.count(member) != 1:
        names = ", ".join(table.column_names)
        raise ValueError(f"own: {path} must be given as {path}:COLUMN, one of {names}; got {member}")
    column = table.column(member).combine_chunks()
    name = f"{path}:{member}"
    if column.null_count and gaps:
        return np.array(column.to_pylist(), dtype=object)
    if column.null_count:
        rows = np.flatnonzero(np.asarray(column.is_null()))[:3].tolist()
        raise ValueError(
            f"own: {name} must have a value in every row, {column.null_count} are missing, the first in rows {rows}; "
            "drop those rows everywhere"
        )
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
        return np.array(column.to_pylist(), dtype=str)
    if not hasattr(column, "flatten") or not pyarrow.types.is_nested(column.type):
        plain: Array = column.to_numpy(zero_copy_only=False)
        return plain
    rows = column.to_pylist()
    lengths = sorted({len(row) for row in rows})
    try:
        values = np.asarray(rows)
    except ValueError:
        raise ValueError(
            f"own: {name} must hold lists of one length, got {lengths[0]} to {lengths[-1]} and maybe more inside; pad "
            "them with 0"
        ) from None
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _modality(
    values: Array | Tensor, *, train: NDArray[np.bool_], name: str, standardise: bool, pca: int | None
) -> Tensor:
    array = np.asarray(values)
    if array.dtype.kind == "U" and array.ndim == 1:
        return token_ids(array.tolist(), train)
    if array.dtype == np.uint8 and array.ndim == 4:
        return torch.from_numpy(array)
    if array.dtype.kind in "iu" and array.ndim == 2:
        if array.min() < 0:
            raise ValueError(
                f"own: {name}: whole numbers are token ids from 0, got {array.min()}; make features floats"
            )
        return torch.from_numpy(array.astype(np.int64))
    if array.dtype.kind != "f" or array.ndim not in (2, 3, 4):
        raise ValueError(
            f"own: {name} must be floats (n, d), (n, length, d) or (n, channels, height, width), uint8 pixels, token "
            f"ids (n, length) or strings, got {array.shape} {array.dtype}"
        )
    if pca is not None and array.ndim == 2:
        return scaled(array, train, pca=pca, name=f"own: {name}")
    if not standardise:
        return torch.from_numpy(np.array(array, np.float32))
    if array.ndim == 3:
        return scaled_sequences(array, train, name=f"own: {name}")
    return scaled(array, train, name=f"own: {name}")
