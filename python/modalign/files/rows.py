"""Where the rows of a set come from: arrays, tensors and files, read a block at a time."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import require_finite_rows
from modalign.common.dtypes import name_of
from modalign.common.types import Array
from modalign.files.arrays import READERS, Table, native, saved_to_disk
from modalign.files.tables import is_saved_to_disk

__all__ = ["RowSource", "Rows", "indexable", "open_layers", "open_rows"]

DTYPES = {
    "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64,
    "int8": torch.int8,
}  # fmt: skip
PIECE = 1 << 22  # bytes copied at once: so much of a mapped file is resident, not a block


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows of d finite numbers in memory or in a file, of which only what is read is held.

    fetch: rows start to stop as a tensor, a view or a copy. overhead: the bytes a read holds beside its result.
    part: what of the file, as its name ends. mapped: the rows as an array or tensor that holds none of them, if any.
    state: size and time of change of the file when it was opened.
    """

    name: str
    shape: tuple[int, int]
    dtype: torch.dtype
    fetch: Callable[[int, int], Tensor]
    file: Path | None
    overhead: int
    part: str = ""
    mapped: Callable[[], Any] | None = None
    state: tuple[int, int] | None = None

    def read(self, start: int, stop: int, into: Tensor | None = None) -> Tensor:
        """Rows start to stop, a contiguous copy (stop - start, d), in the first rows of ``into`` if it is given.

        Raises ValueError if they hold NaN or inf, or the file has changed since it was opened.
        """
        if self.file is not None and _state(self.file) != self.state:
            raise ValueError(f"{self.name} has changed since it was opened; open it anew")
        block = torch.empty(stop - start, self.shape[1], dtype=self.dtype) if into is None else into[: stop - start]
        step = self._rows_a_piece()
        for at in range(start, stop, step):
            end = min(at + step, stop)
            piece = block[at - start : end - start].copy_(self.fetch(at, end))
            require_finite_rows(self.name, piece, first=at)
        return block

    def fingerprint(self) -> dict[str, Any]:
        """What tells these rows from others: a file's path, size and time of change, an array's hash. JSON's types."""
        common = {"shape": list(self.shape), "dtype": name_of(self.dtype)}
        if self.file is not None:
            status = self.file.stat()
            path = str(self.file.resolve()) + self.part
            when = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
            return {"kind": self.file.suffix[1:], "path": path, **when, **common}
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece.view(torch.uint8).numpy().data)
        return {"kind": "array", "sha256": digest.hexdigest(), **common}

    def pieces(self) -> Iterator[Tensor]:
        """Yield all rows, a few MB at a time."""
        step = self._rows_a_piece()
        for start in range(0, self.shape[0], step):
            yield self.read(start, min(start + step, self.shape[0]))

    def _rows_a_piece(self) -> int:
        return max(1, PIECE // (self.shape[1] * self.dtype.itemsize))


# what ``open_rows`` takes: an array, a tensor, opened rows, or the path of a file
RowSource: TypeAlias = Array | Rows | str | Path


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
        >>> from modalign.files.rows import open_rows
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
        >>> from modalign.files.rows import open_layers
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


def _table(x: Any, name: str, ranks: tuple[int, ...]) -> Table:
    """ranks: how many dimensions are wanted where a file holds several arrays, the best first."""
    if isinstance(x, np.ndarray):
        return Table(name, x.shape, x.dtype.name, _fetch_array(x), mapped=lambda: x)
    if isinstance(x, torch.Tensor):
        if x.device.type != "cpu" or x.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor on the CPU, got {x.layout} on {x.device}; use .cpu()")
        rows = x.detach()
        return Table(name, tuple(x.shape), name_of(x.dtype), lambda index: rows[index], mapped=lambda: rows)
    if not isinstance(x, (str, Path)):
        raise TypeError(f"{name} must be a NumPy array, a torch tensor or the path of a file, got {type(x).__name__}")
    folder, _, column = str(x).partition(":")
    if is_saved_to_disk(folder):
        return saved_to_disk(Path(folder), column or None)
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


def _rows(table: Table, layer: int | None) -> Rows:
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
            _state(table.file),
        )  # fmt: skip
    if len(size) != 3 or 0 in size or not -size[1] <= layer < size[1]:
        raise ValueError(f"{table.name} must be (n, layers, d) with a layer {layer}, got {size}")
    return Rows(
        f"{table.name}[{layer}]", (size[0], size[2]), DTYPES[table.dtype],
        lambda start, stop: fetch((slice(start, stop), layer)), table.file, 4 * PIECE + table.overhead,
        f"{part}[{layer}]", None if mapped is None else lambda: mapped()[:, layer], _state(table.file),
    )  # fmt: skip


def _state(file: Path | None) -> tuple[int, int] | None:
    if file is None:
        return None
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _fetch_array(array: np.ndarray[Any, Any]) -> Callable[[Any], Tensor]:
    mapped: Any = array
    while isinstance(mapped, np.ndarray) and not isinstance(mapped, np.memmap):
        mapped = mapped.base
    # a private mapping ("c") would lose what was written to it
    pages = getattr(mapped, "_mmap", None) if isinstance(mapped, np.memmap) and mapped.mode != "c" else None

    def fetch(index: Any) -> Tensor:
        rows = native(array[index])
        if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
        return rows

    return fetch
