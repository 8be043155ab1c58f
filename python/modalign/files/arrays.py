"""Arrays and tensors in files: .npy, .npz and .safetensors."""

from __future__ import annotations

import functools
import importlib
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modalign.files.contract import Contents, Index, Reader, Table, as_native_tensor, whole

__all__ = ["READERS", "map_array", "read_array"]

SAFETENSORS = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "I8": "int8",
    "U8": "uint8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
}
VERSIONS = ((1, 0), (2, 0), (3, 0))  # of the .npy format
MOST_COMPRESSED = 1100  # times that deflate makes a file smaller at most
CHUNK = 1 << 22  # bytes of a file that are read at once


@dataclass(frozen=True)
class _Header:
    """The header of an array in the .npy format, and where its numbers begin."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int

    @property
    def order(self) -> Literal["F", "C"]:
        return "F" if self.fortran else "C"

    @property
    def bytes(self) -> int:
        """The bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    def require(self, name: str, stored: int) -> None:
        """Check that the array has plain values, all of which lie in the ``stored`` bytes of its file or member.

        Raises:
            TypeError: The array holds objects or records.
            ValueError: The header promises more than there is.
        """
        if self.dtype.hasobject:
            raise TypeError(
                f"{name} must hold numbers, got Python objects {self.shape}, which could run code as they are read; "
                "where they are arrays of one shape write them anew as np.stack(list(x)), text as x.astype(str)"
            )
        if self.dtype.names is not None or self.dtype.subdtype is not None:
            raise TypeError(
                f"{name} must hold numbers, got records of {self.dtype}; write "
                "numpy.lib.recfunctions.structured_to_unstructured(x) to a file"
            )
        if self.start + self.bytes > stored:
            raise ValueError(
                f"{name} must be whole, got {max(stored - self.start, 0):,} of the {self.bytes:,} bytes that its "
                "header promises; write or download it anew"
            )


def _npy(path: Path) -> Contents:
    with whole(path), path.open("rb") as file:
        header = _read_header(file)
    load = _mapped(path, header, header.start)
    return Contents(path, "array", {"": header.shape}, lambda _: _open(str(path), path, header, load))


def _open(name: str, path: Path, header: _Header, load: Callable[[], NDArray[Any]], part: str = "") -> Table:
    """Return a mapped array as a table."""
    if not part:
        header.require(name, path.stat().st_size)
    return Table(
        name=name,
        shape=header.shape,
        dtype=header.dtype.newbyteorder("=").name,
        fetch=lambda index: as_native_tensor(load()[index]),  # mapped anew: a mapping that is gone holds no pages
        file=path,
        part=part,
        mapped=load,
    )


def _npz(path: Path) -> Contents:
    with whole(path), zipfile.ZipFile(path) as file:
        arrays = [info for info in file.infolist() if info.filename.endswith(".npy")]
        members = {info.filename.removesuffix(".npy"): info for info in arrays}
        headers = {name: _member_header(file, info) for name, info in members.items()}
        ends = _ends(file)

    def table(member: str) -> Table:
        info, header, name = members[member], headers[member], f"{path}:{member}"
        header.require(name, info.file_size)
        if info.compress_type != zipfile.ZIP_STORED:
            if info.compress_type == zipfile.ZIP_DEFLATED and info.file_size > MOST_COMPRESSED * info.compress_size:
                header.require(name, info.compress_size)  # no deflated member unpacks to so much
            unpacked = _unpacked(path, info)
            return Table(
                name=name,
                shape=header.shape,
                dtype=header.dtype.newbyteorder("=").name,
                fetch=lambda index: as_native_tensor(unpacked()[index]),
                file=path,
                part=f":{member}",
                overhead=header.bytes,
                mapped=unpacked,
            )
        with whole(path):
            offset = _local_offset(path, info)
        header.require(name, ends[info.header_offset] - offset)
        _require_checksum(name, path, offset, info)
        return _open(name, path, header, _mapped(path, header, offset + header.start), part=f":{member}")

    return Contents(path, "array", {name: header.shape for name, header in headers.items()}, table)


def _ends(file: zipfile.ZipFile) -> dict[int, int]:
    """Return where each member must end, by where it begins: at the next one, or where the table of members begins."""
    starts = sorted({info.header_offset for info in file.infolist()})
    return dict(zip(starts, [*starts[1:], file.start_dir], strict=True))


def _mapped(path: Path, header: _Header, offset: int) -> Callable[[], NDArray[Any]]:
    def load() -> NDArray[Any]:
        if not header.bytes:
            return np.empty(header.shape, header.dtype)  # no system maps nothing
        with whole(path):
            return np.memmap(path, header.dtype, "r", offset=offset, shape=header.shape, order=header.order)

    return load


def _unpacked(path: Path, info: zipfile.ZipInfo) -> Callable[[], NDArray[Any]]:
    """Return a function that unpacks a compressed array when it is first called, and keeps it."""
    kept: list[NDArray[Any]] = []

    def load() -> NDArray[Any]:
        if not kept:
            with whole(path), zipfile.ZipFile(path) as file, file.open(info) as member:
                kept.append(np.lib.format.read_array(member, allow_pickle=False))
        return kept[0]

    return load


def _member_header(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Header:
    with file.open(info) as member:
        return _read_header(member)


def _read_header(file: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(file)
    if version not in VERSIONS:
        raise ValueError(f"version {version} of the format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError(f"shape {shape}")
    return _Header(tuple(shape), fortran, dtype, file.tell())


def _local_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin: after its local header, whose length no table holds."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        signature, name, extra = struct.unpack("<4s22xHH", file.read(30))
    if signature != b"PK\x03\x04":
        raise ValueError(f"no member begins at byte {info.header_offset}")
    return int(info.header_offset + 30 + name + extra)


def _require_checksum(name: str, path: Path, offset: int, info: zipfile.ZipInfo) -> None:
    """Check the bytes of a stored member, which a mapping would take as they are, against the archive's checksum."""
    status = path.stat()
    if _checksum(path, offset, info.file_size, (status.st_size, status.st_mtime_ns)) != info.CRC:
        raise ValueError(
            f"{name} is damaged: its bytes do not have the CRC-32 that {path.name} records for them; write or download "
            "it anew"
        )


@functools.lru_cache(maxsize=1024)
def _checksum(path: Path, start: int, size: int, state: tuple[int, int]) -> int:
    """Return the CRC-32 of ``size`` bytes of a file, read once in a process while the ``state`` of the file lasts."""
    checksum = 0
    with path.open("rb") as file:
        file.seek(start)
        while size > 0 and (chunk := file.read(min(size, CHUNK))):
            checksum, size = zlib.crc32(chunk, checksum), size - len(chunk)
    return checksum


def _safetensors(path: Path) -> Contents:
    try:
        package = importlib.import_module("safetensors")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path} needs the safetensors package: pip install safetensors") from None
    with whole(path), package.safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}

    def table(member: str) -> Table:
        def fetch(index: Index) -> Tensor:
            with whole(path), package.safe_open(path, framework="pt") as file:
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

    return Contents(path, "tensor", shapes, table)


def read_array(path: Path, member: str | None = None) -> NDArray[Any]:
    """Return an array of a .npy or .npz file whole; arguments and errors are those of ``map_array``."""
    return np.array(map_array(path, member))


def map_array(path: Path, member: str | None = None) -> NDArray[Any]:
    """Return an array of a .npy or .npz file, mapped where it is not compressed: numbers or text of any dimensions.

    An array of an .npz is read once when it is opened, a chunk at a time, and compared with the checksum that the file
    holds: at the speed of the disk, and without a copy in memory.

    Args:
        path: The file.
        member: The array of an .npz; None for the only one.

    Raises:
        TypeError: It holds objects or records.
        ValueError: The file is not whole or damaged, it has no such array, or several and none is named.
    """
    contents = READERS[path.suffix.lower()](path)
    table = contents.table(contents.choose(member, ()))
    assert table.mapped is not None
    array = table.mapped()
    assert isinstance(array, np.ndarray)
    return array


READERS: dict[str, Reader] = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}
