"""Labels and names of rows, from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["as_classes", "read_labels"]

TABLES = (".parquet", ".csv", ".arrow", ".feather")


def read_labels(spec: str | Path) -> list[str]:
    """One label for each row, as text.

    spec: a text file of one label a line; a .npy of numbers or strings; ``file.npz:array``; ``file.parquet:column``,
        likewise .csv (with a header), .arrow and .feather; ``folder:column`` of a saved Hugging Face data set.
    Raises FileNotFoundError for no such file, ValueError for a file or a column that is not there or not whole, or for
    labels that are missing.

    Example:
        >>> import tempfile, pathlib
        >>> from modalign.labels import read_labels
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "labels.txt"
        >>> _ = file.write_text("cat" + chr(10) + "dog")
        >>> read_labels(file)
        ['cat', 'dog']
    """
    whole = Path(spec)
    if not whole.is_file():
        file, _, member = str(spec).rpartition(":")
        path = Path(file)
        if not file or not path.exists():
            raise FileNotFoundError(f"there is no file {path if path.suffix in (*TABLES, '.npz') else spec}")
        if (path / "state.json").is_file():
            return _column(_saved_to_disk(path), file, member)
        if path.suffix == ".npz":
            return _npz(path, member)
        if path.suffix in TABLES:
            return _column(_table(path), file, member)
        raise ValueError(f"{path} has no columns to name; labels are a text file of one a line, or a table's column")
    if whole.suffix == ".npy":
        try:
            array = np.load(whole, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{whole} must be a whole .npy file of labels ({str(error).splitlines()[0]})") from None
        return _from_array(array, str(whole))
    if whole.suffix in (*TABLES, ".npz"):
        raise ValueError(f"{whole} holds columns; say which holds the labels as {whole}:NAME")
    try:
        return whole.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{whole} must be UTF-8 text of one label a line ({error.reason})") from None


def as_classes(labels: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Labels as whole numbers from 0, in the order of their names.

    Example:
        >>> from modalign.labels import as_classes
        >>> as_classes(["cat", "ant", "cat"]).tolist()
        [1, 0, 1]
    """
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _from_array(array: Any, name: str) -> list[str]:
    if (
        array.ndim != 1
        or array.dtype.kind not in "iubUSf"
        or (array.dtype.kind == "f" and not np.isfinite(array).all())
    ):
        raise ValueError(f"{name} must hold one label a row, got {array.dtype} of shape {array.shape}")
    return [label.decode() if isinstance(label, bytes) else str(label) for label in array.tolist()]


def _npz(path: Path, member: str) -> list[str]:
    with np.load(path, allow_pickle=False) as archive:
        if member not in archive.files:
            raise ValueError(f"{path} has no array {member!r}; it holds {', '.join(archive.files)}")
        return _from_array(archive[member], f"{path}:{member}")


def _table(path: Path) -> Any:
    import pyarrow as pa

    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(path)
        if path.suffix == ".csv":
            from pyarrow import csv

            return csv.read_csv(path)
        return _stream(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path} must be a whole {path.suffix} file ({str(error).splitlines()[0]})") from None


def _saved_to_disk(folder: Path) -> Any:
    import json

    import pyarrow as pa

    files = json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]
    return pa.concat_tables([_stream(folder / file["filename"]) for file in files])


def _stream(path: Path) -> Any:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


def _column(table: Any, path: str, member: str) -> list[str]:
    if member not in table.column_names:
        raise ValueError(f"{path} has no column {member!r}; it holds {', '.join(table.column_names)}")
    values = table.column(member).to_pylist()
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise ValueError(f"{path}:{member} must hold a label for each row, got none in rows {missing[:3]} (the first)")
    return [str(value) for value in values]
