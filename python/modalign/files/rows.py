"""Rows of arrays, tensors and files, read a block at a time."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.checks import require_finite_rows
from modalign.common.conversion import as_array
from modalign.common.dtypes import name_of
from modalign.common.tensors import ADVICE, ROW_DTYPES, WIDE, require_exact
from modalign.common.types import Array
from modalign.files import arrays, columns, torch_files
from modalign.files.contract import Contents, Index, Table, as_native_tensor
from modalign.files.paths import expanded, require_data
from modalign.files.tables import is_saved_to_disk

__all__ = [
    "RowSource",
    "Rows",
    "as_source",
    "indexable",
    "layers_of",
    "open_layers",
    "open_rows",
    "read_rows",
    "selected_rows",
]

DTYPES = {**ROW_DTYPES, "int8": torch.int8}  # the dtype of rows of each dtype
READERS = {**arrays.READERS, **torch_files.READERS, **columns.READERS}
PIECE = 1 << 22  # bytes copied at once: of a mapped file no more than this is resident
GATHERED = 4096  # rows of a file that are read at once where some of them are wanted


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows of d finite numbers, in memory or in a file, read a part at a time.

    Attributes:
        name: What messages call the rows.
        shape: (n, d).
        dtype: The dtype.
        fetch: Returns rows start to stop as a tensor, a view or a copy.
        file: The file that holds the rows, or None.
        overhead: The bytes a read holds beside its result.
        part: How the name of the rows in their file ends, such as ":features".
        mapped: Returns the rows as an array or tensor that holds none of them, or None if they cannot be mapped.
        state: The size and time of change of the file when it was opened.
    """

    name: str
    shape: tuple[int, int]
    dtype: torch.dtype
    fetch: Callable[[int, int], Tensor]
    file: Path | None
    overhead: int
    part: str = ""
    mapped: Callable[[], Array] | None = None
    state: tuple[int, int] | None = None

    def read(self, start: int, stop: int, into: Tensor | None = None) -> Tensor:
        """Return rows start to stop, a contiguous copy (stop - start, d).

        Args:
            start: The first row.
            stop: The row after the last.
            into: A tensor of at least so many rows, whose first rows take the copy; None for a new one.

        Raises:
            ValueError: The rows hold NaN or inf, or the file has changed since it was opened.
        """
        if self.file is not None and _state(self.file) != self.state:
            raise ValueError(f"{self.name} has changed since it was opened; open it anew")
        block = torch.empty(stop - start, self.shape[1], dtype=self.dtype) if into is None else into[: stop - start]
        step = self._rows_a_piece()
        for first in range(start, stop, step):
            end = min(first + step, stop)
            piece = block[first - start : end - start].copy_(self.fetch(first, end))
            require_finite_rows(self.name, piece, first=first)
        return block

    def pieces(self) -> Iterator[Tensor]:
        """Yield all rows, a few MB at a time."""
        step = self._rows_a_piece()
        for start in range(0, self.shape[0], step):
            yield self.read(start, min(start + step, self.shape[0]))

    def fingerprint(self) -> dict[str, object]:
        """Return what tells these rows from others: the path, size and time of change of a file, or an array's hash."""
        common: dict[str, object] = {"shape": list(self.shape), "dtype": name_of(self.dtype)}
        if self.file is not None:
            status = self.file.stat()
            path = str(self.file.resolve()) + self.part
            when = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
            return {"kind": self.file.suffix[1:], "path": path, **when, **common}
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece.view(torch.uint8).numpy().data)
        return {"kind": "array", "sha256": digest.hexdigest(), **common}

    def _rows_a_piece(self) -> int:
        return max(1, PIECE // (self.shape[1] * self.dtype.itemsize))


# what ``open_rows`` takes: an array, a tensor, opened rows, or the path of a file
RowSource: TypeAlias = Array | Rows | str | Path


def open_rows(x: RowSource, name: str = "x") -> Rows:
    """Open the rows of ``x``; none of them is read yet.

    Args:
        x: (n, d) floats or integers, which are converted to the floating-point dtype that holds them (int8 stays): a
            NumPy array (memory-mapped ones too), a tensor on the CPU, a data frame or a list
            (``modalign.common.conversion``), ``Rows``, or the path of a file, in which ``~`` and ``$VARIABLES`` are
            replaced:

                rows.npy               rows.npz:array          an array; a compressed one is read whole, one of another
                                                               .npz once, a chunk at a time, for its checksum
                rows.safetensors:name  rows.pt:name            a tensor; rows.pt:a.b of nested dictionaries, rows.pt:3
                                                               and rows.pt:a.3 of lists
                rows.parquet:column    rows.arrow:column       a column of lists of one length; rows.feather likewise
                folder:column                                  of a Hugging Face data set that save_to_disk wrote

            The name may be left out where the file holds one 2-D array or one column of lists. Of an array
            (n, layers, d), ``rows.npy[3]`` or ``rows.pt:feats[-1]`` is one layer. Any byte order is read.
        name: What messages call an array.

    Returns:
        ``Rows``.

    Raises:
        TypeError: x is something else or of another dtype; a .pt file holds more than tensors, which could run code.
        FileNotFoundError: There is no such file.
        ValueError: x is not (n, d) with n, d >= 1; the file is not whole, of an unknown kind, a pointer of git-lfs or a
            web page; it has no such array or column.
        ModuleNotFoundError: A .safetensors file is given and the safetensors package is not installed.

    Examples:
        >>> import numpy as np
        >>> from modalign.files.rows import open_rows
        >>> open_rows(np.eye(3)).read(1, 2).tolist()
        [[0.0, 1.0, 0.0]]
    """
    if isinstance(x, Rows):
        return x
    source, layer = _layer_of(x)
    if not isinstance(source, (str, Path)):
        return _rows(_memory_table(name, source), layer)
    contents, member = _open_file(source)
    return _rows(contents.table(contents.choose(member, (2,) if layer is None else (3,))), layer)


def open_layers(x: RowSource, name: str = "x") -> list[Rows]:
    """Open every layer of (n, layers, d) as rows; an array (n, d) is one layer.

    A file of several arrays (n, d) whose names differ in a number alone holds layers too: a list of tensors in a .pt
    file, ``np.savez(path, *layers)``, or a dictionary such as {"layer_0": ..., "layer_1": ...}.

    Args:
        x: The layers, as ``open_rows`` takes them.
        name: What messages call an array.

    Returns:
        A list of ``Rows``, one a layer.

    Examples:
        >>> import numpy as np
        >>> from modalign.files.rows import open_layers
        >>> [layer.shape for layer in open_layers(np.ones((5, 3, 2)))]
        [(5, 2), (5, 2), (5, 2)]
    """
    if isinstance(x, Rows):
        return [x]
    source, layer = _layer_of(x)
    if isinstance(source, (str, Path)):
        contents, member = _open_file(source)
        if layer is None:
            return layers_of(contents, member)
        return [_rows(contents.table(contents.choose(member, (3,))), layer)]
    table = _memory_table(name, source)
    return _layers(table) if layer is None else [_rows(table, layer)]


def layers_of(contents: Contents, member: str | None) -> list[Rows]:
    """Open every layer in a file: of its one array (n, layers, d), or its arrays (n, d) that a number tells apart.

    Args:
        contents: The arrays in the file.
        member: The name of an array, or of a list or dictionary of layers; None for the only one.

    Raises:
        ValueError: The file has no such layers, or several arrays that could be them.
    """
    layers = [] if _has_one(contents, member) else contents.layers(member)
    if layers:
        return [_rows(contents.table(name), None) for name in layers]
    return _layers(contents.table(contents.choose(member, (3, 2))))


def _layers(table: Table) -> list[Rows]:
    """Return the layers of an array (n, layers, d), or the only one of (n, d)."""
    if len(table.shape) != 3:
        return [_rows(table, None)]
    return [_rows(table, number) for number in range(table.shape[1])]


def as_source(name: str, x: RowSource) -> RowSource:
    """Return opened rows and paths as they are, and everything in memory as an array or a tensor."""
    return x if isinstance(x, (str, Path, Rows)) else as_array(name, x)


def indexable(rows: RowSource) -> Array:
    """Return rows that an array of indices can index: a file is mapped where it can be, else read whole."""
    source = as_source("rows", rows)
    if isinstance(source, torch.Tensor):
        return source.cpu()
    if isinstance(source, np.ndarray):
        return source
    opened = open_rows(source)
    return opened.mapped() if opened.mapped is not None else opened.read(0, opened.shape[0])


def read_rows(source: Rows, rows: Tensor) -> Tensor:
    """Return some rows in the given order; only pieces of a file that hold one of them are read."""
    table = torch.empty(len(rows), source.shape[1], dtype=source.dtype)
    ascending = rows.sort()
    piece = ascending.values // GATHERED
    ends = torch.cat([(piece.diff() != 0).nonzero()[:, 0] + 1, torch.tensor([len(rows)])]).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        wanted = ascending.values[start:end]
        first = int(wanted[0])
        table[ascending.indices[start:end]] = source.read(first, int(wanted[-1]) + 1)[wanted - first]
    return table


def selected_rows(source: Rows, rows: Tensor) -> Rows:
    """Return some rows of a table as rows of their own, of which none is read yet."""
    return replace(
        source, shape=(len(rows), source.shape[1]), fetch=lambda a, b: read_rows(source, rows[a:b]), mapped=None
    )


def _has_one(contents: Contents, member: str | None) -> bool:
    """Return whether there is an array of the name asked for; without a name, whether one alone is (n, layers, d)."""
    if member is not None:
        return member in contents.shapes
    return sum(len(shape) == 3 for shape in contents.shapes.values()) == 1


def _layer_of(x: RowSource) -> tuple[RowSource, int | None]:
    """Split ``[layer]`` from a path; everything else stays as it is."""
    match = re.fullmatch(r"(.+)\[(-?\d+)\]", str(x), re.DOTALL) if isinstance(x, (str, Path)) else None
    return (match[1], int(match[2])) if match else (x, None)


def _memory_table(name: str, x: object) -> Table:
    """Return what is in memory as a table."""
    array = as_array(name, x)
    if isinstance(array, np.ndarray):
        return Table(name, array.shape, array.dtype.newbyteorder("=").name, _fetch_array(array))
    if array.device.type != "cpu":
        raise TypeError(f"{name} must be on the CPU, got a tensor on {array.device}; use .cpu()")
    return Table(name, tuple(array.shape), name_of(array.dtype), lambda index: array[index])


def _open_file(x: str | Path) -> tuple[Contents, str | None]:
    """Return the arrays in a file or a saved data set, and the name of the one asked for."""
    folder, _, column = str(x).partition(":")
    if is_saved_to_disk(expanded(folder)):
        return columns.saved_to_disk(expanded(folder)), column or None
    # the shortest name that ends in a known way, so that the name of a tensor or a column may hold anything
    kinds = "|".join(kind[1:] for kind in READERS)
    match = re.fullmatch(rf"(.+?\.(?:{kinds}))(?::(.+))?", str(x), re.DOTALL | re.IGNORECASE)
    if match is None:
        raise ValueError(
            f"{x} must end in {', '.join(READERS)} (all but the first with :name), or be a folder that a Hugging Face "
            "data set was saved to, got another kind of file"
        )
    path = require_data(expanded(match[1]))
    return READERS[path.suffix.lower()](path), match[2]


def _rows(table: Table, layer: int | None) -> Rows:
    """Return the rows of a table, or of one of its layers."""
    if table.dtype not in DTYPES:
        stem = re.sub(r"^(str|bytes)\d+$", r"\1", table.dtype.partition("[")[0])  # of str12, datetime64[s]
        kind = np.dtype(stem).kind if stem in np.sctypeDict else ""
        advice = ADVICE.get(kind, "convert it first")
        raise TypeError(f"{table.name} must be {', '.join(DTYPES)}, got {table.dtype}; {advice}")
    size, fetch, mapped = tuple(table.shape), _exact_fetch(table), table.mapped
    common = Rows(
        name=table.name,
        shape=(size[0], size[-1]) if size else (0, 0),
        dtype=DTYPES[table.dtype],
        fetch=lambda start, stop: fetch(slice(start, stop)),
        file=table.file,
        overhead=4 * PIECE + table.overhead,
        part=table.part,
        mapped=mapped if table.file is not None else None,
        state=_state(table.file),
    )
    if layer is None:
        if len(size) != 2 or 0 in size:
            advice = f"; a layer of (n, layers, d) is {table.name}[0]" if len(size) == 3 and 0 not in size else ""
            raise ValueError(f"{table.name} must be (n, d) with n, d >= 1, got {size}{advice}")
        return common
    if len(size) != 3 or 0 in size or not -size[1] <= layer < size[1]:
        raise ValueError(f"{table.name} must be (n, layers, d) with a layer {layer}, got {size}")
    return replace(
        common,
        name=f"{table.name}[{layer}]",
        fetch=lambda start, stop: fetch((slice(start, stop), layer)),
        part=f"{table.part}[{layer}]",
        mapped=None if mapped is None else lambda: mapped()[:, layer],
    )


def _exact_fetch(table: Table) -> Callable[[Index], Tensor]:
    """Return the function that fetches rows, which refuses 64-bit integers that float64 does not hold."""
    if table.dtype not in WIDE:
        return table.fetch

    def fetch(index: Index) -> Tensor:
        rows = table.fetch(index).double()
        require_exact(table.name, rows, (index if isinstance(index, slice) else index[0]).start or 0)
        return rows

    return fetch


def _state(file: Path | None) -> tuple[int, int] | None:
    """Return the size and the time of change of a file."""
    if file is None:
        return None
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _fetch_array(array: NDArray[Any]) -> Callable[[Index], Tensor]:
    """Return a function that copies rows of an array and lets go of the pages of a mapped file."""
    base: object = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    # a private mapping ("c") would lose what was written to it
    pages = getattr(base, "_mmap", None) if isinstance(base, np.memmap) and base.mode != "c" else None

    def fetch(index: Index) -> Tensor:
        rows = as_native_tensor(array[index])
        if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
        return rows

    return fetch
