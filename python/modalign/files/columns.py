"""Columns of lists of numbers in files: Parquet, Arrow, and data sets that Hugging Face's save_to_disk wrote."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.conversion import numbers_of_lists
from modalign.files.contract import Contents, Index, Reader, Table, as_native_tensor, whole
from modalign.files.tables import arrow_table, saved_files

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

__all__ = ["READERS", "saved_to_disk"]

ARROW = {"halffloat": "float16", "float": "float32", "double": "float64"}


def _parquet(path: Path) -> Contents:
    from pyarrow.parquet import ParquetFile

    with whole(path):
        file = ParquetFile(path)
        n, schema = file.metadata.num_rows, file.schema_arrow

    def first(member: str) -> pa.Scalar:
        with whole(path):
            return next(iter(file.iter_batches(1, columns=[member]))).column(0)[0]

    def table(member: str) -> Table:
        dtype, width = _dtype_and_width(f"{path}:{member}", schema.field(member).type, n, lambda: first(member))
        column = _ParquetColumn(file, path, member, width)
        group = int(np.diff([0, *column.stops]).max(initial=0)) * (8 * width + 8)
        return Table(
            name=f"{path}:{member}",
            shape=(n, width),
            dtype=dtype,
            fetch=column.fetch,
            file=path,
            part=f":{member}",
            overhead=3 * group,  # a row group as pages, as lists, and a copy
        )

    return _columns(path, schema, n, table)


def _arrow(path: Path) -> Contents:
    return _read_arrow([path], path)


def saved_to_disk(folder: Path) -> Contents:
    """Return the columns of a Hugging Face data set that save_to_disk wrote."""
    return _read_arrow(saved_files(folder), folder)


def _read_arrow(files: list[Path], path: Path) -> Contents:
    """Return the columns of memory-mapped Arrow files (or streams), one after the other."""
    with whole(path):
        table = arrow_table(files)

    def open_column(member: str) -> Table:
        column, name = table.column(member), f"{path}:{member}"
        with whole(path):
            column.validate()
            column.slice(0, 1).validate(full=True)  # Arrow ends the process over an offset beyond its numbers
            first = column[0] if table.num_rows else None
        dtype, width = _dtype_and_width(name, column.type, table.num_rows, lambda: first)

        def fetch(index: Index) -> Tensor:
            assert isinstance(index, slice)  # a column has no layers
            parts, start = [], index.start
            for chunk in column.slice(index.start, index.stop - index.start).chunks:
                with whole(path):
                    chunk.validate(full=True)  # offsets of a damaged file may point anywhere
                parts.append(numbers_of_lists(name, chunk, start, width))
                start += len(chunk)
            return as_native_tensor(np.concatenate(parts))

        return Table(
            name=name,
            shape=(table.num_rows, width),
            dtype=dtype,
            fetch=fetch,
            file=path if path.is_file() else path / "state.json",
            part=f":{member}",
        )

    return _columns(path, table.schema, table.num_rows, open_column)


def _columns(path: Path, schema: pa.Schema, n: int, table: Callable[[str], Table]) -> Contents:
    """Return the columns as arrays: those of lists have two dimensions."""
    with whole(path):
        shapes = {field.name: (n, 0) if _holds_lists(field.type) else (n,) for field in schema}
    return Contents(path, "column", shapes, table)


def _holds_lists(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _dtype_and_width(name: str, kind: pa.DataType, n: int, first: Callable[[], pa.Scalar]) -> tuple[str, int]:
    """Return the dtype of the numbers of a column of lists, and how many a row has; ``first`` returns its first row."""
    from pyarrow import types

    if not _holds_lists(kind):
        raise ValueError(f"{name} must hold lists of numbers, one a row, got {kind}; name a column that does")
    dtype = ARROW.get(str(kind.value_type), str(kind.value_type))
    if types.is_fixed_size_list(kind) or not n:
        return dtype, kind.list_size if types.is_fixed_size_list(kind) else 0
    entry = first().as_py()
    if not entry:
        raise ValueError(f"{name} must hold lists of numbers, one a row, got {entry} in row 0; drop or mend it")
    return dtype, len(entry)


class _ParquetColumn:
    """A column of lists of one width, of which the row group read last is kept."""

    def __init__(self, file: ParquetFile, path: Path, member: str, width: int) -> None:
        self.file, self.path, self.member, self.width = file, path, member, width
        groups = range(file.metadata.num_row_groups)
        self.stops = list(accumulate(file.metadata.row_group(group).num_rows for group in groups))
        self.group, self.rows = -1, np.empty((0, width))

    def fetch(self, index: Index) -> Tensor:
        """Return the rows of a slice."""
        assert isinstance(index, slice)  # a column has no layers
        parts, start, stop = [], index.start, index.stop
        while start < stop:
            group = bisect_right(self.stops, start)
            first, end = self.stops[group - 1] if group else 0, min(stop, self.stops[group])
            parts.append(self._read(group, first)[start - first : end - first])
            start = end
        return as_native_tensor(np.concatenate(parts))

    def _read(self, group: int, first: int) -> NDArray[Any]:
        if group != self.group:
            self.group, self.rows = -1, self.rows[:0].copy()  # two row groups are never held
            with whole(self.path):
                chunks = self.file.read_row_group(group, columns=[self.member]).column(0).chunks
            parts: list[NDArray[Any]] = []
            name = f"{self.path}:{self.member}"
            for chunk in chunks:
                parts.append(numbers_of_lists(name, chunk, first + sum(len(part) for part in parts), self.width))
            self.group, self.rows = group, np.concatenate(parts) if len(parts) > 1 else parts[0]
        return self.rows


READERS: dict[str, Reader] = {".parquet": _parquet, ".arrow": _arrow, ".feather": _arrow}
