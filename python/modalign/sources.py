"""Where the rows of a set come from: arrays, tensors and files, read a block at a time."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import mmap
import pickle
import re
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

from modalign.tables import arrow_table, is_saved_to_disk, saved_files

__all__ = ["Rows", "indexable", "open_layers", "open_rows"]

DTYPES = {
    "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64,
    "int8": torch.int8,
}  # fmt: skip
SAFETENSORS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I8": "int8"}
ARROW = {"halffloat": "float16", "float": "float32", "double": "float64"}
PIECE = 1 << 22  # bytes copied at once: so much of a mapped file is resident, not a block


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows of d finite numbers in memory or in a file, of which only what is read is held.

    fetch: rows start to stop as a tensor, a view or a copy. overhead: the bytes a read holds beside its result.
    part: what of the file, as its name ends. mapped: the rows as an array or tensor that holds none of them, if any.
    """

    name: str
    shape: tuple[int, int]
    dtype: torch.dtype
    fetch: Callable[[int, int], Tensor]
    file: Path | None
    overhead: int
    part: str = ""
    mapped: Callable[[], Any] | None = None

    def read(self, start: int, stop: int, into: Tensor | None = None) -> Tensor:
        """Rows start to stop, a contiguous copy (stop - start, d), in the first rows of ``into`` if it is given.

        Raises ValueError if they hold NaN or inf.
        """
        block = torch.empty(stop - start, self.shape[1], dtype=self.dtype) if into is None else into[: stop - start]
        step = self._rows_a_piece()
        for at in range(start, stop, step):
            end = min(at + step, stop)
            piece = block[at - start : end - start].copy_(self.fetch(at, end))
            finite = piece.isfinite()
            if not bool(finite.all()):
                bad = ((~finite.all(1)).nonzero()[:, 0] + at).tolist()
                raise ValueError(
                    f"{self.name} must be finite, got NaN or inf in rows {bad[:3]} (the first); drop or mend them"
                )
        return block

    def fingerprint(self) -> dict[str, Any]:
        """What tells these rows from others: a file's path, size and time of change, an array's hash. JSON's types."""
        common = {"shape": list(self.shape), "dtype": str(self.dtype).removeprefix("torch.")}
        if self.file is not None:
            status = self.file.stat()
            path = str(self.file.resolve()) + self.part
            when = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
            return {"kind": self.file.suffix[1:], "path": path, **when, **common}
        digest = hashlib.sha256()
        step = self._rows_a_piece()
        for start in range(0, self.shape[0], step):
            digest.update(self.read(start, min(start + step, self.shape[0])).view(torch.uint8).numpy().data)
        return {"kind": "array", "sha256": digest.hexdigest(), **common}

    def _rows_a_piece(self) -> int:
        return max(1, PIECE // (self.shape[1] * self.dtype.itemsize))


@dataclass(frozen=True, eq=False)
class _Table:
    """An array of two or three dimensions, wherever it lies. fetch takes an index: rows, or rows and a layer."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    fetch: Callable[[Any], Tensor]
    file: Path | None = None
    part: str = ""
    overhead: int = 0
    mapped: Callable[[], Any] | None = None


def open_rows(x: Any, name: str = "x") -> Rows:
    """The rows of ``x``, none of them read yet.

    x: a NumPy array (memory-mapped too), a torch tensor on the CPU, or the path of a file:

        rows.npy               rows.npz:array          an array; a compressed member is read whole
        rows.safetensors:name  rows.pt:name            a tensor; rows.pt:a.b of nested dictionaries
        rows.parquet:column    rows.arrow:column       a column of lists of one length; rows.feather likewise
        folder:column                                  of a Hugging Face data set that save_to_disk wrote

        The name may be left out where the file holds one 2-D array or one column of lists. Of an array (n, layers, d),
        ``rows.npy[3]`` or ``rows.pt:feats[-1]`` is one layer. float16, bfloat16, float32, float64 or int8, in any byte
        order. Rows pass through.
    name: what errors call an array.

    Raises:
        TypeError: something else, or another dtype; a .pt file of more than tensors, which could run code.
        FileNotFoundError: no such file.
        ValueError: not (n, d) with n, d >= 1; a file that is not whole or of an unknown kind; no such array or column.
        ModuleNotFoundError: a .safetensors file without the safetensors package.

    Examples:
        >>> import numpy as np
        >>> from modalign.sources import open_rows
        >>> open_rows(np.eye(3)).read(1, 2).tolist()
        [[0.0, 1.0, 0.0]]
    """
    if isinstance(x, Rows):
        return x
    spec, layer = _layer_of(x)
    return _rows(_table(spec, name, (2,) if layer is None else (3,)), layer)


def open_layers(x: Any, name: str = "x") -> list[Rows]:
    """Every layer of (n, layers, d) as rows; what is (n, d) is one layer. x as ``open_rows`` takes it.

    Examples:
        >>> import numpy as np
        >>> from modalign.sources import open_layers
        >>> [layer.shape for layer in open_layers(np.ones((5, 3, 2)))]
        [(5, 2), (5, 2), (5, 2)]
    """
    if isinstance(x, Rows):
        return [x]
    spec, layer = _layer_of(x)
    table = _table(spec, name, (3, 2) if layer is None else (3,))
    if layer is not None or len(table.shape) != 3:
        return [_rows(table, layer)]
    return [_rows(table, number) for number in range(table.shape[1])]


def indexable(rows: Any) -> Any:
    """What items can index: an array, a tensor on the CPU; a file is mapped where it can be, or read whole."""
    if isinstance(rows, torch.Tensor):
        return rows.detach().cpu()
    if isinstance(rows, np.ndarray):
        return rows
    source = open_rows(rows)
    return source.mapped() if source.mapped is not None else source.read(0, source.shape[0])


def _layer_of(x: Any) -> tuple[Any, int | None]:
    """A path without its ``[layer]``, and the layer; everything else as it is."""
    match = re.fullmatch(r"(.+)\[(-?\d+)\]", str(x), re.DOTALL) if isinstance(x, (str, Path)) else None
    return (match[1], int(match[2])) if match else (x, None)


def _table(x: Any, name: str, ranks: tuple[int, ...]) -> _Table:
    """ranks: how many dimensions are wanted where a file holds several arrays, the best first."""
    if isinstance(x, np.ndarray):
        return _Table(name, x.shape, x.dtype.name, _fetch_array(x), mapped=lambda: x)
    if isinstance(x, torch.Tensor):
        if x.device.type != "cpu" or x.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor on the CPU, got {x.layout} on {x.device}; use .cpu()")
        rows = x.detach()
        return _Table(name, tuple(x.shape), _named(x.dtype), lambda index: rows[index], mapped=lambda: rows)
    if not isinstance(x, (str, Path)):
        raise TypeError(f"{name} must be a NumPy array, a torch tensor or the path of a file, got {type(x).__name__}")
    folder, _, column = str(x).partition(":")
    if is_saved_to_disk(folder):
        return _of_arrow(saved_files(Path(folder)), Path(folder), column or None)
    # the shortest name that ends in a known way, so that a tensor's or a column's may hold anything
    kinds = "|".join(kind[1:] for kind in READERS)
    match = re.fullmatch(rf"(.+?\.(?:{kinds}))(?::(.+))?", str(x), re.DOTALL)
    if match is None:
        raise ValueError(
            f"{x} must end in {', '.join(READERS)} (all but the first with :name), or be a folder that a Hugging Face "
            "data set was saved to, got another kind of file"
        )
    path = Path(match[1])
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return READERS[path.suffix](path, match[2], ranks)


def _rows(table: _Table, layer: int | None) -> Rows:
    if table.dtype not in DTYPES:
        raise TypeError(f"{table.name} must be {', '.join(DTYPES)}, got {table.dtype}; convert it first")
    size, part, fetch, mapped = tuple(table.shape), table.part, table.fetch, table.mapped
    if layer is None:
        if len(size) != 2 or 0 in size:
            advice = f"; a layer of (n, layers, d) is {table.name}[0]" if len(size) == 3 and 0 not in size else ""
            raise ValueError(f"{table.name} must be (n, d) with n, d >= 1, got {size}{advice}")
        return Rows(
            table.name, (size[0], size[1]), DTYPES[table.dtype], lambda start, stop: fetch(slice(start, stop)),
            table.file, 4 * PIECE + table.overhead, part, mapped if table.file is not None else None,
        )  # fmt: skip
    if len(size) != 3 or 0 in size or not -size[1] <= layer < size[1]:
        raise ValueError(f"{table.name} must be (n, layers, d) with a layer {layer}, got {size}")
    return Rows(
        f"{table.name}[{layer}]", (size[0], size[2]), DTYPES[table.dtype],
        lambda start, stop: fetch((slice(start, stop), layer)), table.file, 4 * PIECE + table.overhead,
        f"{part}[{layer}]", None if mapped is None else lambda: mapped()[:, layer],
    )  # fmt: skip


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _native(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _fetch_array(array: np.ndarray[Any, Any]) -> Callable[[Any], Tensor]:
    mapped: Any = array
    while isinstance(mapped, np.ndarray) and not isinstance(mapped, np.memmap):
        mapped = mapped.base
    # a private mapping ("c") would lose what was written to it
    pages = getattr(mapped, "_mmap", None) if isinstance(mapped, np.memmap) and mapped.mode != "c" else None

    def fetch(index: Any) -> Tensor:
        rows = _native(array[index])
        if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
        return rows

    return fetch


def _npy(path: Path, member: str | None, ranks: tuple[int, ...]) -> _Table:
    if member is not None:
        raise ValueError(f"{path} holds one array without a name, got {member!r}; leave :{member} out")

    def load() -> Any:
        with _whole(path, ValueError, EOFError, OSError):
            return np.load(path, mmap_mode="r")

    array = load()
    # mapped anew each time: a mapping that is gone holds no pages
    return _Table(str(path), array.shape, array.dtype.name, lambda index: _native(load()[index]), path, mapped=load)


def _npz(path: Path, member: str | None, ranks: tuple[int, ...]) -> _Table:
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
        return _Table(name, shape, dtype.name, lambda index: _native(load()[index]), path, part, mapped=load)
    kept: list[Any] = []

    def read() -> Any:
        if not kept:
            with _whole(path, ValueError, EOFError, OSError, zipfile.BadZipFile), np.load(path) as archive:
                kept.append(archive[member])
        return kept[0]

    size = int(np.prod(shape)) * dtype.itemsize
    return _Table(name, shape, dtype.name, lambda index: _native(read()[index]), path, part, size, read)


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


def _safetensors(path: Path, member: str | None, ranks: tuple[int, ...]) -> _Table:
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
    return _Table(f"{path}:{member}", shapes[member], dtype, fetch, path, f":{member}")


def _pt(path: Path, member: str | None, ranks: tuple[int, ...]) -> _Table:
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
        return _Table(str(path), tuple(content.shape), _named(content.dtype), lambda i: content[i], path,
                      mapped=lambda: content)  # fmt: skip
    tensors = dict(_tensors(content))
    member = _member(path, "tensor", member, {name: tuple(found.shape) for name, found in tensors.items()}, ranks)
    rows = tensors[member].detach()
    return _Table(f"{path}:{member}", tuple(rows.shape), _named(rows.dtype), lambda index: rows[index], path,
                  f":{member}", mapped=lambda: rows)  # fmt: skip


def _tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, dict):
        for key, value in content.items():
            name = f"{prefix}{key}"
            yield from [(name, value)] if isinstance(value, Tensor) else _tensors(value, f"{name}.")


def _parquet(path: Path, member: str | None, ranks: tuple[int, ...]) -> _Table:
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
    return _Table(f"{path}:{member}", (n, width), dtype, column.fetch, path, f":{member}", overhead)


def _arrow(path: Path, member: str | None, ranks: tuple[int, ...]) -> _Table:
    return _of_arrow([path], path, member)


def _of_arrow(files: list[Path], path: Path, member: str | None) -> _Table:
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
        return _native(np.concatenate(parts))

    stamp = path if path.is_file() else path / "state.json"
    return _Table(name, (table.num_rows, width), dtype, fetch, stamp, f":{member}")


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
        return _native(np.concatenate(parts))

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


READERS: dict[str, Callable[[Path, str | None, tuple[int, ...]], _Table]] = {
    ".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".pt": _pt, ".pth": _pt, ".parquet": _parquet,
    ".arrow": _arrow, ".feather": _arrow,
}  # fmt: skip


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
