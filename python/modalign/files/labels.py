"""Labels of rows, from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalign.common.labels import entries_of
from modalign.common.types import Array
from modalign.files.paths import expanded, require_data
from modalign.files.rows import READERS
from modalign.files.tables import column_of, is_saved_to_disk, is_table, split_column
from modalign.files.texts import lines_of

__all__ = ["ARRAYS", "MARGIN", "array_in", "as_classes", "label_lines", "read_labels"]

# how pandas and R write a missing value into a text file; cells of tables have quotes for text that reads so
MISSING = frozenset(
    ("", "#N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "n/a", "nan", "null")
)
ARRAYS = (".npy", ".npz", ".pt", ".pth", ".safetensors")  # files of arrays and tensors
MARGIN = " \t\u00a0\ufeff"  # around a label in a text file; other separators belong to it


def read_labels(spec: str | Path) -> list[str]:
    """Read one label for each row, as text.

    Args:
        spec: A text file of one label a line; a .npy file of numbers or strings; ``file.npz:array``; ``file.pt`` or
            ``file.safetensors:name`` of a tensor;
            ``file.parquet:column``, likewise .csv and .tsv (with a header), .arrow and .feather; ``folder:column`` of a
            Hugging Face data set that save_to_disk wrote. Text is UTF-8, or UTF-16 with a mark; spaces around a label
            and blank lines at the end do not count. Whole numbers that are saved as floats are read as 0, 1, 2.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not whole, it has no such array or column, or labels are missing: blank, null, NaN, or
            NA or null in a text file (a CSV cell ``"NA"`` in quotes is a label).

    Examples:
        >>> import tempfile, pathlib
        >>> from modalign.files.labels import read_labels
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "labels.txt"
        >>> _ = file.write_text("cat" + chr(10) + "dog")
        >>> read_labels(file)
        ['cat', 'dog']
    """
    whole = expanded(spec)
    if not whole.is_file():
        return _read_member(str(spec))
    kind = require_data(whole).suffix.lower()
    if kind in ARRAYS and kind != ".npz":
        return _texts(str(whole), array_in(whole))
    if kind == ".npz" or is_table(whole):
        raise ValueError(f"{whole} holds columns; say which holds the labels as {whole}:NAME")
    return _texts(str(whole), label_lines(whole))


def label_lines(path: Path) -> list[str | None]:
    """Return the label of each line of a text file, None for a line that is blank or NA, nan or null.

    Spaces around a label and blank lines at the end do not count.

    Examples:
        >>> import tempfile, pathlib
        >>> from modalign.files.labels import label_lines
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "labels.txt"
        >>> _ = file.write_text("cat" + chr(10) + "NA" + chr(10))
        >>> label_lines(file)
        ['cat', None]
    """
    lines = [line.strip(MARGIN) for line in lines_of(path)]
    while lines and not lines[-1]:
        lines.pop()
    return [None if line in MISSING else line for line in lines]


def as_classes(labels: Sequence[str]) -> NDArray[np.int64]:
    """Return labels (n,) as int64 numbers from 0, in the order of their names.

    Examples:
        >>> from modalign.files.labels import as_classes
        >>> as_classes(["cat", "ant", "cat"]).tolist()
        [1, 0, 1]
    """
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def array_in(path: Path, member: str | None = None) -> Array:
    """Return the array or tensor in a file whose ending is one of ``ARRAYS``; errors are those of its reader."""
    contents = READERS[path.suffix.lower()](require_data(path))
    table = contents.table(contents.choose(member, ()))
    assert table.mapped is not None
    return table.mapped()


def _read_member(spec: str) -> list[str]:
    """Read the labels of ``file:array`` or ``file:column``."""
    file, member = split_column(spec) or spec.rpartition(":")[::2]
    path = expanded(file)
    if not file or not path.exists():
        known = is_table(path) or path.suffix.lower() in ARRAYS
        raise FileNotFoundError(f"there is no file {path if known else spec}")
    if path.suffix.lower() in ARRAYS:
        return _texts(spec, array_in(path, member))
    if is_table(path) or is_saved_to_disk(path):
        return _texts(spec, [_stripped(entry) for entry in column_of(path, member, cells="labels")])
    raise ValueError(f"{path} has no columns to name; labels are a text file of one a line, or a table's column")


def _texts(name: str, values: Any) -> list[str]:
    """Return labels as text, checked to be one for each row."""
    try:
        entries = entries_of(name, values)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if (
        entries.dtype.kind == "f"
        and bool((entries == np.round(entries)).all())
        and np.abs(entries).max(initial=0) < 2**53
    ):
        entries = entries.astype(np.int64)
    return [str(entry) for entry in entries.tolist()]


def _stripped(entry: object) -> object:
    return entry.strip(MARGIN) if isinstance(entry, str) else entry
