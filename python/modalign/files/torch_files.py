"""Tensors in files that torch.save wrote: one tensor, or lists and dictionaries of tensors inside each other."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalign.common.conversion import require_dense
from modalign.common.dtypes import name_of
from modalign.files.contract import Contents, Reader, Table, whole
from modalign.files.pickles import require_modest_pickle

__all__ = ["READERS"]

OBJECT = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what it refuses
LEGACY_PICKLES = 5  # at the head of a file of torch before 1.6: magic number, protocol, system, content, keys


def _pt(path: Path) -> Contents:
    with whole(path):
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _require_whole_storages(path)
        else:
            _require_modest_head(path)
    content = _load(path, mapped=zipped)
    tensors = dict(_tensors(content))
    rows = _listed_rows(content)
    if rows is not None:
        tensors = {"": rows}

    def table(member: str) -> Table:
        part = f":{member}" if member else ""
        tensor = require_dense(f"{path}{part}", tensors[member]).detach()
        return Table(
            name=f"{path}{part}",
            shape=tuple(tensor.shape),
            dtype=name_of(tensor.dtype),
            fetch=lambda index: tensor[index],
            file=path,
            part=part,
            mapped=lambda: tensor,
        )

    if not tensors:
        raise TypeError(
            f"{path} must hold tensors, got a {type(content).__name__} without one; save torch.as_tensor(x) of its "
            "arrays or lists"
        )
    return Contents(path, "tensor", {name: tuple(tensor.shape) for name, tensor in tensors.items()}, table)


def _load(path: Path, *, mapped: bool) -> Any:
    """Return the content of a file that holds tensors and containers of them alone."""
    with whole(path):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            named = OBJECT.search(str(error))
            reason = named[1] if named else str(error).splitlines()[0]
    raise TypeError(
        f"{path} must hold tensors alone, got other objects, which could run code ({reason}); save its tensors, and "
        "torch.as_tensor(x) of its arrays"
    )


def _tensors(content: object, name: str = "", inside: tuple[int, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dictionaries and lists by their paths, such as "feats.3"; "" for a tensor alone."""
    if isinstance(content, Tensor):
        yield name, content
    if id(content) in inside:
        return
    pairs: Iterable[tuple[object, object]] = ()
    if isinstance(content, (dict, list, tuple)):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in pairs:
        yield from _tensors(value, f"{name}.{key}" if name else str(key), (*inside, id(content)))


def _listed_rows(content: object) -> Tensor | None:
    """Return the table whose rows are the vectors of a list; None for anything else."""
    if not isinstance(content, (list, tuple)) or len(content) < 2:
        return None
    if not all(isinstance(row, Tensor) and row.ndim == 1 and row.shape == content[0].shape for row in content):
        return None
    return torch.stack([require_dense("row", row) for row in content])


def _require_modest_head(path: Path) -> None:
    """Check the pickles of a file of the old format."""
    with path.open("rb") as file:
        for _ in range(LEGACY_PICKLES):
            file.seek(require_modest_pickle(file))


def _require_whole_storages(path: Path) -> None:
    """Check that a file holds as many bytes for each storage as its pickle promises.

    torch maps storages without a look at their length, so that a short one would continue in the bytes that follow.
    """
    with zipfile.ZipFile(path) as archive:
        records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        program = io.BytesIO(archive.read(records["data.pkl"]))
    require_modest_pickle(program)
    reader = _StorageReader(program)
    reader.load()
    for key, size in reader.sizes.items():
        info = records[f"data/{key}"]
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its storage {key} is compressed")
        if info.file_size < size:
            raise ValueError(f"its storage {key} has {info.file_size:,} of {size:,} bytes")


class _StorageReader(pickle.Unpickler):
    """Reads which storages a file of torch has, and builds nothing else: every name in it is a stand-in."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.sizes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        storage = module in ("torch", "torch.storage") and name.endswith("Storage") and hasattr(torch, name)
        return getattr(torch, name) if storage else _StandIn

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, count = pid
        # the public name of the dtype warns that typed storages are deprecated
        size = 1 if kind is torch.UntypedStorage else kind._dtype.itemsize
        self.sizes[str(key)] = int(count) * size
        return _StandIn()


class _StandIn:
    """Something in place of any object of a pickle: takes every argument, state, item and entry."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> _StandIn:
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Take an entry of a list."""

    def extend(self, items: object) -> None:
        """Take entries of a list."""


READERS: dict[str, Reader] = dict.fromkeys((".pt", ".pth"), _pt)
