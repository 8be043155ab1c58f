"""Labels of rows, from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalign.files.tables import KINDS, column_of, is_saved_to_disk, lines_of, read_table

__all__ = ["as_classes", "read_labels"]


def read_labels(spec: str | Path) -> list[str]:
    """Read one label for each row, as text.

    Args:
        spec: A text file of one label a line; a .npy file of numbers or strings; ``file.npz:array``;
            ``file.parquet:column``, likewise .csv (with a header), .arrow and .feather; ``folder:column`` of a Hugging
            Face data set that save_to_disk wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not whole, it has no such array or column, or labels are missing.

    Examples:
        >>> import tempfile, pathlib
        >>> from modalign.files.labels import read_labels
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
            raise FileNotFoundError(f"there is no file {path if path.suffix in (*KINDS, '.npz') else spec}")
        if path.suffix == ".npz":
            return _npz(path, member)
        if path.suffix in KINDS or is_saved_to_disk(path):
            return [str(label) for label in column_of(read_table(path, member), file, member)]
        raise ValueError(f"{path} has no columns to name; labels are a text file of one a line, or a table's column")
    if whole.suffix == ".npy":
        try:
            array = np.load(whole, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{whole} must be a whole .npy file of labels ({str(error).splitlines()[0]})") from None
        return _from_array(array, str(whole))
    if whole.suffix in (*KINDS, ".npz"):
        raise ValueError(f"{whole} holds columns; say which holds the labels as {whole}:NAME")
    try:
        return lines_of(whole)
    except UnicodeDecodeError as error:
        raise ValueError(f"{whole} must be UTF-8 text of one label a line ({error.reason})") from None


def as_classes(labels: list[str]) -> NDArray[np.int64]:
    """Return labels (n,) as int64 numbers from 0, in the order of their names.

    Examples:
        >>> from modalign.files.labels import as_classes
        >>> as_classes(["cat", "ant", "cat"]).tolist()
        [1, 0, 1]
    """
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _from_array(array: NDArray[Any], name: str) -> list[str]:
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
