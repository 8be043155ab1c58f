"""Rows as finite floating-point tensors, and neighbours as int64 tensors, of whatever holds them without doubt."""

from __future__ import annotations

import warnings
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.checks import require_finite_rows
from modalign.common.conversion import EXACT, as_array
from modalign.common.dtypes import FLOATS, name_of
from modalign.common.types import Array

__all__ = ["ROW_DTYPES", "as_indices", "as_rows", "as_tensor", "require_exact"]

# the dtype in which rows of each dtype are computed with, which holds their numbers exactly
ROW_DTYPES = MappingProxyType(
    {name_of(dtype): dtype for dtype in FLOATS}
    | {"int8": torch.float32, "uint8": torch.float32, "int16": torch.float32, "uint16": torch.float32}
    | {"int32": torch.float64, "uint32": torch.float64, "int64": torch.float64, "uint64": torch.float64}
)
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
WIDE = ("int64", "uint64")  # dtypes with integers beyond it
PIECE = 1 << 22  # numbers that are checked at once
ADVICE = {  # by NumPy's kind of a dtype
    "b": "write x.astype(np.float32) if 0 and 1 are meant",
    "c": "write np.hstack([x.real, x.imag]), or take one of the two",
    "U": "write x.astype(np.float64) if it holds numbers as text",
    "S": "write x.astype(np.float64) if it holds numbers as text",
    "M": "write x.astype(np.int64) if times are features",
    "m": "write x.astype(np.int64) if times are features",
    "f": "write x.astype(np.float64)",
}


def as_tensor(name: str, value: object, dtypes: tuple[torch.dtype, ...] = FLOATS) -> Tensor:
    """Return a finite (n, d) tensor over the memory of ``value`` where that is possible.

    Args:
        name: What messages call it, such as "knn: x".
        value: What ``modalign.common.conversion.as_array`` takes. Integers become the floating-point dtype that holds
            them exactly.
        dtypes: The dtypes that stay as they are.

    Raises:
        TypeError: The value is no table of numbers, or of another dtype.
        ValueError: It is not (n, d) with n, d >= 1, it holds NaN or inf, or integers that float64 does not hold.
    """
    tensor = as_rows(name, as_array(name, value), dtypes)
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise ValueError(f"{name} must be (n, d) with n, d >= 1, got {tuple(tensor.shape)}")
    step = max(1, PIECE // tensor.shape[1])
    for start in range(0, len(tensor), step):
        require_finite_rows(name, tensor[start : start + step], first=start)
    return tensor


def as_rows(name: str, array: Array, dtypes: tuple[torch.dtype, ...] = FLOATS) -> Tensor:
    """Return an array of numbers as a tensor of one of ``dtypes``, or of the floating-point dtype that holds them."""
    own = name_of(array.dtype) if isinstance(array, Tensor) else array.dtype.newbyteorder("=").name
    kept = {name_of(dtype): dtype for dtype in dtypes}
    if own not in kept and own not in ROW_DTYPES:
        *names, last = kept
        kind = "" if isinstance(array, Tensor) else array.dtype.kind
        cast = "float()" if isinstance(array, Tensor) else "astype(np.float32)"
        advice = ADVICE.get(kind, f"write x.{cast} if its numbers are features")
        raise TypeError(f"{name} must be {', '.join(names)}, {last} or integers, got {array.dtype}; {advice}")
    tensor = array if isinstance(array, Tensor) else _over_memory(array)
    if own in kept:
        return tensor
    converted = tensor.to(ROW_DTYPES[own])
    if own in WIDE:
        require_exact(name, converted)
    return converted


def require_exact(name: str, rows: Tensor, first: int = 0) -> None:
    """Check that 64-bit integers, here as float64 rows [n, ...], are among those that float64 holds exactly."""
    wide = (rows.abs() >= EXACT).reshape(len(rows), -1).any(1)
    if bool(wide.any()):
        bad = (wide.nonzero()[:3, 0] + first).tolist()
        raise ValueError(
            f"{name} must hold integers below 2^53, which float64 holds exactly, got larger ones in rows {bad} (the "
            "first); write x.astype(np.float64) if rounding does no harm"
        )


def as_indices(name: str, value: object) -> Tensor:
    """Return whole numbers of any dtype, such as the neighbours of a graph, as an int64 tensor.

    Raises:
        TypeError: The value is no array of whole numbers; of a SciPy graph, the message has the line to write.
        ValueError: A number is beyond int64, or the largest of its dtype, with which libraries mark what is missing.

    Examples:
        >>> import numpy as np
        >>> from modalign.common.tensors import as_indices
        >>> as_indices("graph", np.array([[1, 2]], np.uint32))
        tensor([[1, 2]])
    """
    if hasattr(value, "indptr") and hasattr(value, "indices"):
        raise TypeError(
            f"{name} must be (n, k) indices, nearest first, got a sparse graph, which has no order; for one of "
            "distances with k entries a row write np.take_along_axis(g.indices.reshape(n, k), "
            "g.data.reshape(n, k).argsort(1, kind='stable'), 1)"
        )
    array = as_array(name, value)
    own = name_of(array.dtype) if isinstance(array, Tensor) else array.dtype.newbyteorder("=").name
    if own not in INTEGERS:
        raise TypeError(f"{name} must hold whole numbers, got {array.dtype}; write x.astype(np.int64) if it does")
    if isinstance(array, Tensor) and array.dtype not in (torch.uint32, torch.uint64):
        return array.long()
    unsigned = array.cpu().numpy() if isinstance(array, Tensor) else array
    largest = int(unsigned.max(initial=0))
    if unsigned.dtype.itemsize >= 4 and largest == np.iinfo(unsigned.dtype).max:
        raise ValueError(
            f"{name} holds {largest}, the largest {unsigned.dtype}, with which libraries mark a neighbour that is "
            "missing; leave out such rows, or search with more candidates"
        )
    indices = _over_memory(np.ascontiguousarray(unsigned, dtype=np.int64))
    return indices.to(array.device) if isinstance(array, Tensor) else indices


def _over_memory(array: NDArray[np.generic]) -> Tensor:
    """Return a tensor over the memory of an array, which is copied only if its order or byte order is another one."""
    if array.dtype.name == "bfloat16":
        return _over_memory(array.view(np.uint16)).view(torch.bfloat16)
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    with warnings.catch_warnings():  # a memory map may be read-only: nothing here writes to its inputs
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(plain)
