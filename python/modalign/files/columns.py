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

from modalign.files.contract import Index, Reader, Request, Table, as_native_tensor, whole
from modalign.files.tables import arrow_table, saved_files

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

__all__ = ["READERS", "saved_to_disk"]

ARROW = {"halffloat": "float16", "float": "float32", "double": "float64"}


def _parquet(request: Request) -> Table:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    path = request.path
    with whole(path, (ArrowException, OSError)):
        file = ParquetFile(path)
    n = file.metadata.num_rows

    def first(member: str) -> pa.Scalar:
        with whole(path, (ArrowException, OSError)):
            return next(iter(file.iter_batches(1, columns=[member]))).column(0)[0]

    member, dtype, width = _choose_column(request, file.schema_arrow, first if n else None)
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


def _arrow(request: Request) -> Table:
    return _read_arrow([request.path], request)


def saved_to_disk(folder: Path, member: str | None) -> Table:
    """Return a column of a Hugging Face data set that save_to_disk wrote."""
    return _read_arrow(saved_files(folder), Request(folder, member, (2,)))


def _read_arrow(files: list[Path], request: Request) -> Table:
    """Return a column of memory-mapped Arrow files (or streams), one after the other."""
    import pyarrow as pa

    path = request.path
    with whole(path, (pa.ArrowException, OSError)):
        table = arrow_table(files)
    first = (lambda member: table.column(member)[0]) if table.num_rows else None
    member, dtype, width = _choose_column(request, table.schema, first)
    column = table.column(member)
    name = f"{path}:{member}"

    def fetch(index: Index) -> Tensor:
        assert isinstance(index, slice)  # a column has no layers
        parts, start = [], index.start
        for chunk in column.slice(index.start, index.stop - index.start).chunks:
            parts.append(_numbers(name, chunk, start, width))
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


def _choose_column(
    request: Request, schema: pa.Schema, first: Callable[[str], pa.Scalar] | None
) -> tuple[str, str, int]:
    """Return the name of a column of lists, the dtype of its numbers, and how many a row has.

    Args:
        request: The column asked for.
        schema: The columns of the file.
        first: Returns the first entry of a column; None for a file without rows.
    """
    from pyarrow import types

    def holds_lists(kind: pa.DataType) -> bool:
        return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))

    shapes = {field.name: (0, 0) if holds_lists(field.type) else (0,) for field in schema}
    member = Request(request.path, request.member, (2,)).choose("column", shapes)
    kind = schema.field(member).type
    name = f"{request.path}:{member}"
    if not holds_lists(kind):
        raise ValueError(f"{name} must hold lists of numbers, one a row, got {kind}; name a column that does")
    fixed = types.is_fixed_size_list(kind)
    width = kind.list_size if fixed else 0
    if first is not None and not fixed:
        entry = first(member).as_py()
        if not entry:
            raise ValueError(f"{name} must hold lists of numbers, one a row, got {entry} in row 0; drop or mend it")
        width = len(entry)
    return member, ARROW.get(str(kind.value_type), str(kind.value_type)), width


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
        from pyarrow import ArrowException

        if group != self.group:
            self.group, self.rows = -1, self.rows[:0].copy()  # two row groups are never held
            with whole(self.path, (ArrowException, OSError)):
                chunks = self.file.read_row_group(group, columns=[self.member]).column(0).chunks
            parts: list[NDArray[Any]] = []
            name = f"{self.path}:{self.member}"
            for chunk in chunks:
                parts.append(_numbers(name, chunk, first + sum(len(part) for part in parts), self.width))
            self.group, self.rows = group, np.concatenate(parts) if len(parts) > 1 else parts[0]
        return self.rows


def _numbers(name: str, chunk: pa.Array, first: int, width: int) -> NDArray[Any]:
    """Return the numbers (rows, width) of a piece of a column, which begins with row ``first``."""

    def require(valid: NDArray[np.bool_], wanted: str) -> None:
        if not valid.all():
            bad = (np.flatnonzero(~valid)[:3] + first).tolist()
            raise ValueError(f"{name} must hold {wanted} in rows {bad} (the first); drop or mend them")

    require(~np.asarray(chunk.is_null()), "no nulls, got nulls")
    if hasattr(chunk, "value_lengths"):
        equal: NDArray[np.bool_] = np.asarray(chunk.value_lengths()) == width
        require(equal, f"lists of one length, {width} as in row 0, got others")
    values = chunk.flatten()
    if values.null_count:
        nulls: NDArray[np.bool_] = np.asarray(values.is_null()).reshape(-1, width).max(axis=1)
        require(~nulls, "no nulls, got nulls")
    numbers: NDArray[Any] = values.to_numpy().reshape(-1, width)
    return numbers


READERS: dict[str, Reader] = {".parquet": _parquet, ".arrow": _arrow, ".feather": _arrow}
