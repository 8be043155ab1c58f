"""Arrays and tensors in files: .npy, .npz, .safetensors and .pt."""

from __future__ import annotations

import importlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.dtypes import name_of
from modalign.files.contract import Index, Reader, Request, Table, as_native_tensor, whole

__all__ = ["READERS"]

SAFETENSORS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I8": "int8"}


def _npy(request: Request) -> Table:
    request.refuse_name("array")
    path = request.path

    def load() -> NDArray[Any]:
        with whole(path, (ValueError, EOFError, OSError)):
            array: NDArray[Any] = np.load(path, mmap_mode="r")
            return array

    array = load()
    return Table(
        name=str(path),
        shape=array.shape,
        dtype=array.dtype.name,
        fetch=lambda index: as_native_tensor(load()[index]),  # mapped anew: a mapping that is gone holds no pages
        file=path,
        mapped=load,
    )


def _npz(request: Request) -> Table:
    path = request.path
    with whole(path, (ValueError, EOFError, OSError, zipfile.BadZipFile, struct.error)), zipfile.ZipFile(path) as file:
        stored = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
        headers = {name: _header(file, info) for name, info in stored.items()}
    member = request.choose("array", {name: header.shape for name, header in headers.items()})
    header = headers[member]
    mappable = stored[member].compress_type == zipfile.ZIP_STORED and not header.dtype.hasobject
    load = _mapped_member(path, stored[member], header) if mappable else _unpacked_member(path, member)
    return Table(
        name=f"{path}:{member}",
        shape=header.shape,
        dtype=header.dtype.name,
        fetch=lambda index: as_native_tensor(load()[index]),
        file=path,
        part=f":{member}",
        overhead=0 if mappable else int(np.prod(header.shape)) * header.dtype.itemsize,
        mapped=load,
    )


def _mapped_member(path: Path, info: zipfile.ZipInfo, header: _Header) -> Callable[[], NDArray[Any]]:
    order: Literal["F", "C"] = "F" if header.fortran else "C"

    def load() -> NDArray[Any]:
        with whole(path, (ValueError, OSError, struct.error)):
            offset = _offset(path, info)
            return np.memmap(path, header.dtype, "r", offset=offset, shape=header.shape, order=order)

    load()
    return load


def _unpacked_member(path: Path, member: str) -> Callable[[], NDArray[Any]]:
    """Return a function that unpacks a compressed array when it is first called, and keeps it."""
    kept: list[NDArray[Any]] = []

    def load() -> NDArray[Any]:
        if not kept:
            with whole(path, (ValueError, EOFError, OSError, zipfile.BadZipFile)), np.load(path) as archive:
                kept.append(archive[member])
        return kept[0]

    return load


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def _header(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Header:
    with file.open(info) as member:
        return _array_header(member)


def _array_header(file: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return _Header(tuple(shape), fortran, dtype)


def _offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where the numbers of a member begin: after its local header, whose length no table holds, and NumPy's."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<26xHH", file.read(30))
        file.seek(info.header_offset + 30 + name + extra)
        _array_header(file)
        return file.tell()


def _safetensors(request: Request) -> Table:
    path = request.path
    try:
        package = importlib.import_module("safetensors")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path} needs the safetensors package: pip install safetensors") from None
    with whole(path, (package.SafetensorError, OSError)), package.safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
    member = request.choose("tensor", shapes)

    def fetch(index: Index) -> Tensor:
        with package.safe_open(path, framework="pt") as file:
            rows: Tensor = file.get_slice(member)[index if isinstance(index, slice) else index[0]]
        return rows if isinstance(index, slice) else rows[:, index[1]]

    return Table(
        name=f"{path}:{member}",
        shape=shapes[member],
        dtype=SAFETENSORS.get(dtypes[member], dtypes[member]),
        fetch=fetch,
        file=path,
        part=f":{member}",
    )


def _pt(request: Request) -> Table:
    path = request.path
    with whole(path, (RuntimeError, EOFError, OSError, ValueError, KeyError)):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            reason = str(error).splitlines()[0]
            raise TypeError(
                f"{path} must hold tensors alone, got other objects, which could run code ({reason}); save its tensors"
            ) from None
    if isinstance(content, Tensor):
        request.refuse_name("tensor")
        rows, part = content.detach(), ""
    else:
        tensors = dict(_tensors(content))
        member = request.choose("tensor", {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        rows, part = tensors[member].detach(), f":{member}"
    return Table(
        name=f"{path}{part}",
        shape=tuple(rows.shape),
        dtype=name_of(rows.dtype),
        fetch=lambda index: rows[index],
        file=path,
        part=part,
        mapped=lambda: rows,
    )


def _tensors(content: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dictionaries by their paths."""
    if isinstance(content, dict):
        for key, value in content.items():
            name = f"{prefix}{key}"
            yield from [(name, value)] if isinstance(value, Tensor) else _tensors(value, f"{name}.")


READERS: dict[str, Reader] = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".pt": _pt, ".pth": _pt}
