"""Where the rows of a set come from: arrays, tensors and files, read a block at a time."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import mmap
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Rows", "indexable", "open_rows"]

DTYPES = {
    "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64,
    "int8": torch.int8,
}  # fmt: skip
SAFETENSORS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I8": "int8"}
ARROW = {"halffloat": "float16", "float": "float32", "double": "float64"}
KINDS = (".npy", ".safetensors", ".parquet")
PIECE = 1 << 22  # bytes copied at once: so much of a mapped file is resident, not a block


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows of d finite numbers in memory or in a file, of which only what is read is held.

    fetch: rows start to stop as a tensor, a view or a copy. overhead: the bytes a read holds beside its result.
    """

    name: str
    shape: tuple[int, int]
    dtype: torch.dtype
    fetch: Callable[[int, int], Tensor]
    file: Path | None
    overhead: int

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
            path = str(self.file.resolve()) + self.name.removeprefix(str(self.file))
            when = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
            return {"kind": self.file.suffix[1:], "path": path, **when, **common}
        digest = hashlib.sha256()
        step = self._rows_a_piece()
        for start in range(0, self.shape[0], step):
            digest.update(self.read(start, min(start + step, self.shape[0])).view(torch.uint8).numpy().data)
        return {"kind": "array", "sha256": digest.hexdigest(), **common}

    def _rows_a_piece(self) -> int:
        return max(1, PIECE // (self.shape[1] * self.dtype.itemsize))


def open_rows(x: Any, name: str = "x") -> Rows:
    """The rows of ``x``, none of them read yet.

    x: a NumPy array (memory-mapped too), a torch tensor on the CPU, or the path of a file: ``rows.npy``;
        ``rows.safetensors:tensor``; ``rows.parquet:column``, a column of lists of one length. The name may be left out
        where the file holds one 2-D tensor or one column of lists. float16, bfloat16, float32, float64 or int8, in any
        byte order. Rows pass through.
    name: what errors call an array.

    Raises:
        TypeError: something else, or another dtype.
        FileNotFoundError: no such file.
        ValueError: not (n, d) with n, d >= 1; a file that is not whole or of an unknown kind; no such tensor or column.
        ModuleNotFoundError: a .safetensors file without the safetensors package.

    Example:
        >>> import numpy as np
        >>> from modalign.sources import open_rows
        >>> open_rows(np.eye(3)).read(1, 2).tolist()
        [[0.0, 1.0, 0.0]]
    """
    if isinstance(x, Rows):
        return x
    if isinstance(x, np.ndarray):
        return _rows(name, x.shape, x.dtype.name, _fetch_array(x))
    if isinstance(x, torch.Tensor):
        if x.device.type != "cpu" or x.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor on the CPU, got {x.layout} on {x.device}; use .cpu()")
        rows = x.detach()
        return _rows(name, x.shape, str(x.dtype).removeprefix("torch."), lambda start, stop: rows[start:stop])
    if not isinstance(x, (str, Path)):
        raise TypeError(f"{name} must be a NumPy array, a torch tensor or the path of a file, got {type(x).__name__}")
    # the shortest name that ends in a known way, so that a tensor's or a column's may hold anything
    match = re.fullmatch(r"(.+?\.(?:npy|safetensors|parquet))(?::(.+))?", str(x), re.DOTALL)
    if match is None:
        raise ValueError(f"{x} must end in {', '.join(KINDS)} (the last two with :name), got another kind of file")
    path, member = Path(match[1]), match[2]
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return {".npy": _npy, ".safetensors": _safetensors, ".parquet": _parquet}[path.suffix](path, member)


def indexable(rows: Any) -> Any:
    """What items can index: an array, a tensor on the CPU; a .npy file is mapped, another file is read whole."""
    if isinstance(rows, torch.Tensor):
        return rows.detach().cpu()
    if isinstance(rows, np.ndarray):
        return rows
    source = open_rows(rows)
    if source.file is not None and source.file.suffix == ".npy":
        return np.load(source.file, mmap_mode="r", allow_pickle=False)
    return source.read(0, source.shape[0])


def _rows(
    name: str, shape: Iterable[int], dtype: str, fetch: Callable[[int, int], Tensor], file: Path | None = None,
    overhead: int = 0,
) -> Rows:  # fmt: skip
    if dtype not in DTYPES:
        raise TypeError(f"{name} must be {', '.join(DTYPES)}, got {dtype}; convert it first")
    size = tuple(shape)
    if len(size) != 2 or 0 in size:
        raise ValueError(f"{name} must be (n, d) with n, d >= 1, got {size}")
    return Rows(name, (size[0], size[1]), DTYPES[dtype], fetch, file, 4 * PIECE + overhead)


def _native(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _fetch_array(array: np.ndarray[Any, Any]) -> Callable[[int, int], Tensor]:
    mapped: Any = array
    while isinstance(mapped, np.ndarray) and not isinstance(mapped, np.memmap):
        mapped = mapped.base
    # a private mapping ("c") would lose what was written to it
    pages = getattr(mapped, "_mmap", None) if isinstance(mapped, np.memmap) and mapped.mode != "c" else None

    def fetch(start: int, stop: int) -> Tensor:
        rows = _native(array[start:stop])
        if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
        return rows

    return fetch


def _npy(path: Path, member: str | None) -> Rows:
    if member is not None:
        raise ValueError(f"{path} holds one array without a name, got {member!r}; leave :{member} out")

    def load() -> Any:
        with _whole(path, ValueError, EOFError, OSError):
            return np.load(path, mmap_mode="r")

    array = load()
    # mapped anew each time: a mapping that is gone holds no pages
    return _rows(str(path), array.shape, array.dtype.name, lambda start, stop: _native(load()[start:stop]), path)


def _safetensors(path: Path, member: str | None) -> Rows:
    try:
        package = importlib.import_module("safetensors")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path} needs the safetensors package: pip install safetensors") from None
    with _whole(path, package.SafetensorError, OSError), package.safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
    member = _member(path, "tensor", member, shapes, [name for name, shape in shapes.items() if len(shape) == 2])

    def fetch(start: int, stop: int) -> Tensor:
        with package.safe_open(path, framework="pt") as file:
            rows: Tensor = file.get_slice(member)[start:stop]
        return rows

    return _rows(f"{path}:{member}", shapes[member], SAFETENSORS.get(dtypes[member], dtypes[member]), fetch, path)


def _parquet(path: Path, member: str | None) -> Rows:
    from pyarrow import ArrowException, types
    from pyarrow.parquet import ParquetFile

    with _whole(path, ArrowException, OSError):
        file = ParquetFile(path)
    schema = file.schema_arrow

    def of_lists(kind: Any) -> bool:
        return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))

    member = _member(path, "column", member, schema.names, [field.name for field in schema if of_lists(field.type)])
    kind = schema.field(member).type
    name = f"{path}:{member}"
    if not of_lists(kind):
        raise ValueError(f"{name} must hold lists of numbers, one a row, got {kind}; name a column that does")
    dtype = ARROW.get(str(kind.value_type), str(kind.value_type))
    fixed, n = types.is_fixed_size_list(kind), file.metadata.num_rows
    width = kind.list_size if fixed else 0
    if n and not fixed:
        with _whole(path, ArrowException, OSError):
            first = next(iter(file.iter_batches(1, columns=[member]))).column(0)[0].as_py()
        if not first:
            raise ValueError(f"{name} must hold lists of numbers, one a row, got {first} in row 0; drop or mend it")
        width = len(first)
    column = _Column(file, path, member, width)
    group = int(np.diff([0, *column.stops]).max(initial=0)) * (8 * width + 8)
    return _rows(name, (n, width), dtype, column.fetch, path, 3 * group)  # a row group as pages, as lists, and a copy


class _Column:
    """A column of lists of one width; of its row groups the one read last is kept."""

    def __init__(self, file: Any, path: Path, member: str, width: int) -> None:
        self.file, self.path, self.member, self.width = file, path, member, width
        groups = range(file.metadata.num_row_groups)
        self.stops = list(accumulate(file.metadata.row_group(group).num_rows for group in groups))
        self.group, self.rows = -1, np.empty((0, width))

    def fetch(self, start: int, stop: int) -> Tensor:
        parts = []
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
            for chunk in chunks:
                parts.append(self._numbers(chunk, first + sum(len(part) for part in parts)))
            self.group, self.rows = group, np.concatenate(parts) if len(parts) > 1 else parts[0]
        return self.rows

    def _numbers(self, chunk: Any, first: int) -> np.ndarray[Any, Any]:
        self._require(~np.asarray(chunk.is_null()), first, "no nulls, got nulls")
        if hasattr(chunk, "value_lengths"):
            lengths = np.asarray(chunk.value_lengths())
            self._require(lengths == self.width, first, f"lists of one length, {self.width} as in row 0, got others")
        values = chunk.flatten()
        if values.null_count:
            self._require(~np.asarray(values.is_null()).reshape(-1, self.width).any(1), first, "no nulls, got nulls")
        numbers: np.ndarray[Any, Any] = values.to_numpy().reshape(-1, self.width)
        return numbers

    def _require(self, fine: Any, first: int, wanted: str) -> None:
        if not fine.all():
            bad = (np.flatnonzero(~fine)[:3] + first).tolist()
            raise ValueError(
                f"{self.path}:{self.member} must hold {wanted} in rows {bad} (the first); drop or mend them"
            )


def _member(path: Path, kind: str, member: str | None, names: Iterable[str], fitting: list[str]) -> str:
    """The tensor or column asked for, or the only one that fits."""
    there = ", ".join(names) or "none"
    if member is None and len(fitting) == 1:
        return fitting[0]
    if member is None:
        raise ValueError(f"{path} must hold one {kind} of rows, or say which as {path}:{kind}; it holds {there}")
    if member not in names:
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
