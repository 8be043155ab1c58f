"""A reader of pickle files of plain data that runs no code in them.

A pickle is a program, and a forged dtype can make NumPy's own constructors read any address. So no name in the file
reaches a real function: the few names that arrays need resolve to stand-ins, which only collect shapes, dtypes and
bytes, and the arrays are built from those afterwards.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from modalign.files.paths import expanded, require_data
from modalign.files.pickles import require_modest_pickle

__all__ = ["read_plain_pickle"]

NUMBERS = re.compile(r"[<>=|]?(?:[biufc]\d{1,2}|\?)")  # what a dtype may be written as
TEXTS = re.compile(r"[<>=|]?[SU]\d{1,9}")
PLAIN = (str, bytes, int, float, bool, type(None))

# errors that a damaged or malicious file can raise
DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


def read_plain_pickle(path: str | Path) -> Any:
    """Return the contents of a pickle file of dict, list, tuple, str, bytes, int, float, bool, None and NumPy arrays.

    Arrays may be of numbers, of text, or of plain objects; files of Python 2 and of every NumPy are read. Memory: twice
    the file. Raises FileNotFoundError for no file, ValueError for a file that is cut short, for one that asks for more
    memory than it holds or has no end, and for one that holds anything else, which is named: nothing in the file is
    imported or called.

    Examples:
        >>> import pickle, tempfile, pathlib
        >>> from modalign.data.pickles import read_plain_pickle
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "a.pkl"
        >>> _ = file.write_bytes(pickle.dumps({"a": [1, 2.5]}))
        >>> read_plain_pickle(file)
        {'a': [1, 2.5]}
    """
    place = require_data(expanded(path))
    with place.open("rb") as file:
        try:
            require_modest_pickle(file)
            loaded = _Unpickler(file).load()
            return _plain(loaded)
        except _RefusedError as error:
            raise ValueError(
                f"{place} holds {error}, and only dict, list, tuple, text, numbers and NumPy arrays are read: a pickle "
                "of anything else could run code; write the data anew as arrays"
            ) from None
        except DAMAGED as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{place} must be a whole pickle file, got one that cannot be read ({reason})") from None


class _RefusedError(Exception):
    """Raised with the name of an object that a file holds and must not."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote the bytes of arrays as text

    def find_class(self, module: str, name: str) -> Any:
        # numpy.core became numpy._core in NumPy 2
        stand_in = STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if stand_in is None:
            raise _RefusedError(f"{module}.{name}")
        return stand_in

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("a reference to something outside the file")


class _StandIn:
    """A callable in place of a NumPy name: it has no attributes that a file could set."""

    __slots__ = ("_make",)

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("a change of a function")


class _Dtype:
    __slots__ = ("spec",)

    def __init__(self, spec: Any, *_: Any) -> None:
        if not isinstance(spec, str) or not (
            NUMBERS.fullmatch(spec) or TEXTS.fullmatch(spec) or spec in ("O", "O8", "|O")
        ):
            raise _RefusedError(f"an array of dtype {spec!r}")
        self.spec = spec

    def __setstate__(self, state: Any) -> None:
        order, subarray, fields = state[1], state[2], state[3]
        if order not in ("<", ">", "=", "|") or subarray is not None or fields is not None:
            raise _RefusedError("an array of records")
        self.spec = order + self.spec.lstrip("<>=|")

    @property
    def objects(self) -> bool:
        return self.spec.lstrip("<>=|").startswith("O")


class _Array:
    __slots__ = ("data", "dtype", "fortran", "shape")

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def array(self) -> Any:
        shape = tuple(self.shape)
        if not isinstance(self.dtype, _Dtype) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise _RefusedError("an array without shape and dtype")
        if self.dtype.objects:
            if not isinstance(self.data, list):
                raise _RefusedError("an array of objects that are not listed")
            flat = np.empty(len(self.data), object)
            for i, item in enumerate(self.data):  # one by one: NumPy would spread a list out
                flat[i] = _plain(item)
        else:
            data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
            if not isinstance(data, (bytes, bytearray)):
                raise _RefusedError("an array that is not made of bytes")
            flat = np.frombuffer(data, np.dtype(self.dtype.spec)).copy()
        return flat.reshape(shape, order="F" if self.fortran else "C")


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not NDARRAY:
        raise _RefusedError("an array of a class of its own")
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _scalar(dtype: Any, data: Any = b"") -> Any:
    array = _from_buffer(data, dtype, (1,), "C").array()
    return array[0].item()


def _latin1(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusedError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    if arguments:
        raise _RefusedError("bytes made of something else")
    return b""


NDARRAY = _StandIn(lambda *_: _Array())
STAND_INS = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): _StandIn(_Dtype),
    ("numpy.core.multiarray", "_reconstruct"): _StandIn(_reconstruct),
    ("numpy.core.multiarray", "scalar"): _StandIn(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _StandIn(_from_buffer),
    ("_codecs", "encode"): _StandIn(_latin1),
    ("__builtin__", "bytes"): _StandIn(_no_bytes),  # how the early protocols write none
}


def _plain(value: Any) -> Any:
    """Return ``value`` with arrays in place of stand-ins; refuse anything that is not plain."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is _Array:
        return value.array()
    if kind is dict:
        return {_plain(key): _plain(item) for key, item in value.items()}
    if kind in (list, tuple):
        return kind(_plain(item) for item in value)
    raise _RefusedError(f"a {kind.__name__.strip('_')}")
