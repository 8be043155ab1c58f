"""Arrays in files: what each kind of file holds, and how rows of it are read without the others."""

from __future__ import annotations

import contextlib
import importlib
import pickle
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.common.dtypes import name_of
from modalign.files.tables import arrow_table, saved_files

__all__ = ["READERS", "Table", "native", "saved_to_disk"]

SAFETENSORS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I8": "int8"}
ARROW = {"halffloat": "float16", "float": "float32", "double": "float64"}


@dataclass(frozen=True, eq=False)
class Table:
    """An array of two or three dimensions, wherever it lies. fetch takes an index: rows, or rows and a layer."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    fetch: Callable[[Any], Tensor]
    file: Path | None = None
    part: str = ""
    overhead: int = 0
    mapped: Callable[[], Any] | None = None


def native(array: np.ndarray[Any, Any]) -> Tensor:
    """A contiguous copy in this machine's byte order."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _npy(path: Path, member: str | None, ranks: tuple[int, ...]) -> Table:
    if member is not None:
        raise ValueError(f"{path} holds one array without a name, got {member!r}; leave :{member} out")

    def load() -> Any:
        with _whole(path, ValueError, EOFError, OSError):
            return np.load(path, mmap_mode="r")

    array = load()
    # mapped anew each time: a mapping that is gone holds no pages
    return Table(str(path), array.shape, array.dtype.name, lambda index: native(load()[index]), path, mapped=load)


def _npz(path: Path, member: str | None, ranks: tuple[int, ...]) -> Table:
    with _whole(path, ValueError, EOFError, OSError, zipfile.BadZipFile, struct.error), zipfile.ZipFile(path) as file:
        stored = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
        headers = {name: _header(file, info) for name, info in stored.items()}
    member = _member(path, "array", member, {name: header[0] for name, header in headers.items()}, ranks)
    shape, fortran, dtype = headers[member]
    name, part = f"{path}:{member}", f":{member}"
    if stored[member].compress_type == zipfile.ZIP_STORED and not dtype.hasobject:
        order: Any = "F" if fortran else "C"

        def load() -> Any:
            with _whole(path, ValueError, OSError, struct.error):
                return np.memmap(path, dtype, "r", _offset(path, stored[member]), shape, order)

        load()
        return Table(name, shape, dtype.name, lambda index: native(load()[index]), path, part, mapped=load)
    kept: list[Any] = []

    def read() -> Any:
        if not kept:
            with _whole(path, ValueError, EOFError, OSError, zipfile.BadZipFile), np.load(path) as archive:
                kept.append(archive[member])
        return kept[0]

    size = int(np.prod(shape)) * dtype.itemsize
    return Table(name, shape, dtype.name, lambda index: native(read()[index]), path, part, size, read)


def _header(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with file.open(info) as member:
        return _array_header(member)


def _array_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return tuple(shape), fortran, dtype


def _offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the numbers of a member begin: after its local header, whose length no table tells, and NumPy's."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<26xHH", file.read(30))
        file.seek(info.header_offset + 30 + name + extra)
        _array_header(file)
        return file.tell()


def _safetensors(path: Path, member: str | None, ranks: tuple[int, ...]) -> Table:
    try:
        package = importlib.import_module("safetensors")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path} needs the safetensors package: pip install safetensors") from None
    with _whole(path, package.SafetensorError, OSError), package.safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
    member = _member(path, "tensor", member, shapes, ranks)

    def fetch(index: Any) -> Tensor:
        with package.safe_open(path, framework="pt") as file:
            rows: Tensor = file.get_slice(member)[index if isinstance(index, slice) else index[0]]
        return rows if isinstance(index, slice) else rows[:, index[1]]

    dtype = SAFETENSORS.get(dtypes[member], dtypes[member])
    return Table(f"{path}:{member}", shapes[member], dtype, fetch, path, f":{member}")


def _pt(path: Path, member: str | None, ranks: tuple[int, ...]) -> Table:
    with _whole(path, RuntimeError, EOFError, OSError, ValueError, KeyError):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            reason = str(error).splitlines()[0]
            raise TypeError(
                f"{path} must hold tensors alone, got other objects, which could run code ({reason}); save its tensors"
            ) from None
    if isinstance(content, Tensor):
        if member is not None:
            raise ValueError(f"{path} holds one tensor without a name, got {member!r}; leave :{member} out")
        return Table(str(path), tuple(content.shape), name_of(content.dtype), lambda i: content[i], path,
                      mapped=lambda: content)  # fmt: skip
    tensors = dict(_tensors(content))
    member = _member(path, "tensor", member, {name: tuple(found.shape) for name, found in tensors.items()}, ranks)
    rows = tensors[member].detach()
    return Table(f"{path}:{member}", tuple(rows.shape), name_of(rows.dtype), lambda index: rows[index], path,
                  f":{member}", mapped=lambda: rows)  # fmt: skip


def _tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, dict):
        for key, value in content.items():
            name = f"{prefix}{key}"
            yield from [(name, value)] if isinstance(value, Tensor) else _tensors(value, f"{name}.")


def _parquet(path: Path, member: str | None, ranks: tuple[int, ...]) -> Table:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    with _whole(path, ArrowException, OSError):
        file = ParquetFile(path)
    n = file.metadata.num_rows

    def first(member: str) -> Any:
        with _whole(path, ArrowException, OSError):
            return next(iter(file.iter_batches(1, columns=[member]))).column(0)[0]

    member, dtype, width = _column_of(path, member, file.schema_arrow, first if n else None)
    column = _Column(file, path, member, width)
    group = int(np.diff([0, *column.stops]).max(initial=0)) * (8 * width + 8)
    overhead = 3 * group  # a row group as pages, as lists, and a copy
    return Table(f"{path}:{member}", (n, width), dtype, column.fetch, path, f":{member}", overhead)


def _arrow(path: Path, member: str | None, ranks: tuple[int, ...]) -> Table:
    return _of_arrow([path], path, member)


def saved_to_disk(folder: Path, member: str | None) -> Table:
    """A column of a Hugging Face data set that save_to_disk wrote."""
    return _of_arrow(saved_files(folder), folder, member)


def _of_arrow(files: list[Path], path: Path, member: str | None) -> Table:
    """A column of memory-mapped Arrow files (or streams), one after the other."""
    import pyarrow as pa

    with _whole(path, pa.ArrowException, OSError):
        table = arrow_table(files)
    first = (lambda member: table.column(member)[0]) if table.num_rows else None
    member, dtype, width = _column_of(path, member, table.schema, first)
    column = table.column(member)
    name = f"{path}:{member}"

    def fetch(index: slice) -> Tensor:
        parts, at = [], index.start
        for chunk in column.slice(index.start, index.stop - index.start).chunks:
            parts.append(_numbers(name, chunk, at, width))
            at += len(chunk)
        return native(np.concatenate(parts))

    stamp = path if path.is_file() else path / "state.json"
    return Table(name, (table.num_rows, width), dtype, fetch, stamp, f":{member}")


def _column_of(path: Path, member: str | None, schema: Any, first: Callable[[str], Any] | None) -> tuple[str, str, int]:
    """The column asked for, the dtype of its numbers, and how many a row has. first: a column's first entry."""
    from pyarrow import types

    def of_lists(kind: Any) -> bool:
        return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))

    shapes = {field.name: (0, 0) if of_lists(field.type) else (0,) for field in schema}
    member = _member(path, "column", member, shapes, (2,))
    kind = schema.field(member).type
    name = f"{path}:{member}"
    if not of_lists(kind):
        raise ValueError(f"{name} must hold lists of numbers, one a row, got {kind}; name a column that does")
    fixed = types.is_fixed_size_list(kind)
    width = kind.list_size if fixed else 0
    if first is not None and not fixed:
        entry = first(member).as_py()
        if not entry:
            raise ValueError(f"{name} must hold lists of numbers, one a row, got {entry} in row 0; drop or mend it")
        width = len(entry)
    return member, ARROW.get(str(kind.value_type), str(kind.value_type)), width


class _Column:
    """A column of lists of one width; of its row groups the one read last is kept."""

    def __init__(self, file: Any, path: Path, member: str, width: int) -> None:
        self.file, self.path, self.member, self.width = file, path, member, width
        groups = range(file.metadata.num_row_groups)
        self.stops = list(accumulate(file.metadata.row_group(group).num_rows for group in groups))
        self.group, self.rows = -1, np.empty((0, width))

    def fetch(self, index: slice) -> Tensor:
        parts, start, stop = [], index.start, index.stop
        while start < stop:
            group = bisect_right(self.stops, start)
            first, end = self.stops[group - 1] if group else 0, min(stop, self.stops[group])
            parts.append(self._read(group, first)[start - first : end - first])
            start = end
        return native(np.concatenate(parts))

    def _read(self, group: int, first: int) -> np.ndarray[Any, Any]:
        from pyarrow import ArrowException

        if group != self.group:
            self.group, self.rows = -1, self.rows[:0].copy()  # two row groups are never held
            with _whole(self.path, ArrowException, OSError):
                chunks = self.file.read_row_group(group, columns=[self.member]).column(0).chunks
            parts: list[np.ndarray[Any, Any]] = []
            name = f"{self.path}:{self.member}"
            for chunk in chunks:
                parts.append(_numbers(name, chunk, first + sum(len(part) for part in parts), self.width))
            self.group, self.rows = group, np.concatenate(parts) if len(parts) > 1 else parts[0]
        return self.rows


def _numbers(name: str, chunk: Any, first: int, width: int) -> np.ndarray[Any, Any]:
    """The numbers of a column's piece, (rows, width); ``first`` is its first row."""

    def require(fine: Any, wanted: str) -> None:
        if not fine.all():
            bad = (np.flatnonzero(~fine)[:3] + first).tolist()
            raise ValueError(f"{name} must hold {wanted} in rows {bad} (the first); drop or mend them")

    require(~np.asarray(chunk.is_null()), "no nulls, got nulls")
    if hasattr(chunk, "value_lengths"):
        lengths = np.asarray(chunk.value_lengths())
        require(lengths == width, f"lists of one length, {width} as in row 0, got others")
    values = chunk.flatten()
    if values.null_count:
        require(~np.asarray(values.is_null()).reshape(-1, width).any(1), "no nulls, got nulls")
    numbers: np.ndarray[Any, Any] = values.to_numpy().reshape(-1, width)
    return numbers


def _member(
    path: Path, kind: str, member: str | None, shapes: Mapping[str, tuple[int, ...]], ranks: tuple[int, ...]
) -> str:
    """The array, tensor or column asked for, or the only one with so many dimensions."""
    there = ", ".join(shapes) or "none"
    if member is None:
        for rank in ranks:
            fitting = [name for name, shape in shapes.items() if len(shape) == rank]
            if len(fitting) == 1:
                return fitting[0]
        raise ValueError(f"{path} must hold one {kind} of rows, or say which as {path}:{kind}; it holds {there}")
    if member not in shapes:
        raise ValueError(f"{path} has no {kind} {member!r}; it holds {there}")
    return member


@contextlib.contextmanager
def _whole(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Its library's errors about a file that is damaged, in our words."""
    try:
        yield
    except errors as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} must be a whole {path.suffix} file, got one cut short or of another kind ({reason}); write it anew"
        ) from error


READERS: dict[str, Callable[[Path, str | None, tuple[int, ...]], Table]] = {
    ".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".pt": _pt, ".pth": _pt, ".parquet": _parquet,
    ".arrow": _arrow, ".feather": _arrow,
}  # fmt: skip
