"""Arrays from what users pass: data frames, Series, Arrow, lists, tensors.

Every function that takes rows, labels or graphs in memory converts them here, so that all of them take the same things
and refuse the same things in the same words. What holds numbers without doubt is converted; where a conversion would
hide something (masked entries, missing values, zeros that are not stored, text), the error has the line to write.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.types import Array

if TYPE_CHECKING:
    import narwhals as nw
    import pyarrow as pa

__all__ = ["EXACT", "as_array", "as_numpy", "numbers_of_lists", "require_dense", "require_same_index"]

EXACT = 2**53  # float64 holds every integer below
MOST_NAMED = 3  # rows and columns in a message
WRITTEN_INDEX = ("Unnamed: 0", "__index_level_0__")  # row numbers that pandas wrote beside the columns


def as_array(name: str, value: object) -> Array:
    """Return what ``value`` holds as a NumPy array or a dense tensor, over the same memory where that is possible.

    Args:
        name: What messages call the value, such as "knn: x".
        value: An array, a tensor of any device, a data frame or a Series of pandas, polars or Arrow, a list of
            numbers, of rows or of tensors, or anything else that converts itself (``__array__``, ``__dlpack__``).
            A column of lists of one length is a table, and so is a data frame whose only column is one.

    Returns:
        An array of numbers, booleans or text, or a tensor that requires no gradient. Memory maps stay mapped.

    Raises:
        TypeError: The value is of another type, sparse, on the meta device, or holds other things than numbers.
        ValueError: Entries are masked or missing, or rows are of different lengths.

    Examples:
        >>> import pandas as pd
        >>> from modalign.common.conversion import as_array
        >>> as_array("x", pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})).tolist()
        [[1.0, 3.0], [2.0, 4.0]]
    """
    if isinstance(value, Tensor):
        return require_dense(name, value).detach()
    if isinstance(value, (np.ndarray, memoryview)):
        return _plain_array(name, np.asarray(value) if isinstance(value, memoryview) else value)
    if isinstance(value, (str, bytes, Mapping)) or value is None:
        raise _refused(name, value)
    if isinstance(value, (list, tuple)):
        return _from_rows(name, value)
    if hasattr(value, "toarray") or hasattr(value, "todense"):
        raise TypeError(_sparse(name, type(value).__name__, getattr(value, "shape", ()), ".toarray()"))
    converted = _from_table(name, value)
    if converted is not None:
        return converted
    if hasattr(value, "__array__"):
        return _plain_array(name, np.asarray(value))
    if hasattr(value, "__dlpack__"):
        return require_dense(name, torch.utils.dlpack.from_dlpack(value))
    if isinstance(value, Sequence):
        return _from_rows(name, value)
    raise _refused(name, value)


def as_numpy(name: str, value: object) -> NDArray[Any]:
    """Return what ``value`` holds as a NumPy array: ``as_array``, with a tensor copied to the CPU.

    NumPy has no bfloat16, so such numbers come back as float32, which holds them exactly.
    """
    array = as_array(name, value)
    if isinstance(array, Tensor):
        array = array.cpu().resolve_conj().resolve_neg()
        return (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    return array


def require_dense(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor that has a value for every entry; TypeError for sparse, nested, quantized and meta tensors."""
    if tensor.is_nested:
        raise TypeError(
            f"{name} must have rows of one length, got a nested tensor; write torch.nested.to_padded_tensor(x, 0.0), "
            "or stack rows of one length"
        )
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        raise TypeError(_sparse(name, f"tensor ({layout})", tuple(tensor.shape), ".to_dense()"))
    if tensor.is_quantized:
        raise TypeError(f"{name} must hold plain numbers, got a quantized tensor; write x.dequantize()")
    if tensor.device.type == "meta":
        raise TypeError(
            f"{name} must hold numbers, got a tensor on the meta device, which has a shape and no values; compute or "
            "load it on the CPU or a GPU"
        )
    if hasattr(tensor, "get_mask"):
        raise ValueError(f"{name} must have a value in every entry, got a masked tensor; write x.to_tensor(0.0)")
    return tensor


def require_same_index(operation: str, x: object, y: object) -> None:
    """Check that two pandas tables of the same items have one index; rows are paired by position, not by index."""
    if not all(type(table).__module__.partition(".")[0] == "pandas" for table in (x, y)):
        return
    left, right = x.index, y.index  # type: ignore[attr-defined]
    if len(left) == len(right) and not left.equals(right):
        row = next((row for row, pair in enumerate(zip(left, right, strict=True)) if pair[0] != pair[1]), 0)
        raise ValueError(
            f"{operation}: x and y must list the same items in one order, got the indexes {left[row]!r} and "
            f"{right[row]!r} in row {row}; write y.loc[x.index], or x.to_numpy() and y.to_numpy() to pair rows by "
            "position"
        )


def numbers_of_lists(name: str, lists: pa.Array, first: int, width: int) -> NDArray[Any]:
    """Return the numbers (rows, width) of an Arrow array of lists.

    Args:
        name: What messages call it.
        lists: Lists, fixed-size lists or large lists of numbers.
        first: The number of its first row, from which messages count.
        width: The length that every list must have.

    Raises:
        ValueError: A row or a number is missing, a list has another length, or the array is damaged.
    """

    def require(valid: NDArray[np.bool_], wanted: str) -> None:
        if not valid.all():
            bad = (np.flatnonzero(~valid)[:MOST_NAMED] + first).tolist()
            raise ValueError(f"{name} must hold {wanted} in rows {bad} (the first); drop or mend them")

    require(~np.asarray(lists.is_null()), "no nulls, got nulls")
    if hasattr(lists, "value_lengths"):
        equal: NDArray[np.bool_] = np.asarray(lists.value_lengths()) == width
        require(equal, f"lists of one length, {width} as in row 0, got others")
    values = lists.flatten()
    if values.null_count:
        nulls: NDArray[np.bool_] = np.asarray(values.is_null()).reshape(-1, width).max(axis=1)
        require(~nulls, "no nulls, got nulls")
    numbers: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(-1, width)
    return numbers


def _refused(name: str, value: object) -> TypeError:
    """Return the error for a value that is no array of any kind."""
    if isinstance(value, Mapping):
        keys = ", ".join(repr(key) for key in list(value)[:MOST_NAMED]) or "nothing"
        return TypeError(f"{name} must be one array, got a {type(value).__name__} of {keys}; pass one of its entries")
    if isinstance(value, Iterator):
        return TypeError(f"{name} must be an array, got a {type(value).__name__}; write np.stack(list(x))")
    return TypeError(
        f"{name} must be a NumPy array, a torch tensor, a data frame or a list of rows, got {type(value).__name__}"
    )


def _sparse(name: str, kind: str, shape: Sequence[int], method: str) -> str:
    size = f" ({np.prod(shape, dtype=object):,} numbers)" if len(shape) else ""
    return f"{name} must be dense, got a sparse {kind}, whose zeros are not stored; write x{method}{size}"


def _plain_array(name: str, array: NDArray[Any]) -> Array:
    """Return an array without a mask and without objects."""
    mask = getattr(array, "mask", None)
    if isinstance(mask, (np.ndarray, np.bool_)):
        masked = int(np.sum(np.broadcast_to(mask, array.shape)))
        if masked:
            rows = np.flatnonzero(np.broadcast_to(mask, array.shape).reshape(len(array), -1).any(1))
            raise ValueError(
                f"{name} must have a value in every entry, got {masked:,} masked in {_places('row', rows)}; write "
                "x.filled(value) with a value that means something, or leave these rows out of every argument: "
                "x[~np.ma.getmaskarray(x).any(axis=1)].data"
            )
        array = np.asarray(getattr(array, "data", array)) if isinstance(array, np.ma.MaskedArray) else np.asarray(array)
    elif not isinstance(array, np.memmap):
        array = np.asarray(array)  # np.matrix and other subclasses
    if array.dtype.names is not None:
        raise TypeError(
            f"{name} must hold numbers, got records of {', '.join(array.dtype.names)}; write "
            "numpy.lib.recfunctions.structured_to_unstructured(x)"
        )
    return _from_objects(name, array) if array.dtype.hasobject else array


def _from_objects(name: str, array: NDArray[Any]) -> Array:
    """Return an array of objects that are all numbers, all text, or all rows of one length as one of those."""
    values = array.ravel().tolist()
    if all(isinstance(value, str) for value in values):
        return array.astype(str)
    if all(isinstance(value, Real) for value in values):
        return _from_numbers(name, array, values)
    if array.ndim == 1 and all(isinstance(value, (np.ndarray, Tensor, list, tuple)) for value in values):
        return _from_rows(name, values)
    place, odd = next((place, value) for place, value in enumerate(values) if not isinstance(value, Real))
    row = place // max(1, array.size // max(1, len(array)))
    raise TypeError(
        f"{name} must hold numbers, got an array of objects with {_shown(odd)} in row {row}; make it one of numbers, "
        "such as np.stack(list(x)) of equal rows, or x.astype(np.float32)"
    )


def _from_numbers(name: str, array: NDArray[Any], values: Sequence[Any]) -> NDArray[Any]:
    """Return an array of Python's numbers as one of NumPy's, if NumPy has a dtype for them."""
    with contextlib.suppress(OverflowError):
        numbers: NDArray[Any] = np.asarray(array.tolist())
        if not numbers.dtype.hasobject:
            return numbers
    width = max(1, array.size // max(1, len(array)))
    beyond = {place // width for place, value in enumerate(values) if abs(value) >= EXACT}
    if beyond:
        raise ValueError(
            f"{name} must hold integers below 2^53, which float64 holds exactly, got larger ones in "
            f"{_places('row', sorted(beyond))}; scale them down, or write np.asarray(x, dtype=np.float64) if rounding "
            "does no harm"
        )
    kinds = sorted({type(value).__name__ for value in values})
    raise TypeError(
        f"{name} must hold numbers that NumPy has a dtype for, got {', '.join(kinds[:MOST_NAMED])}; write "
        "np.asarray(x, dtype=np.float64)"
    )


def _from_rows(name: str, rows: Sequence[Any]) -> Array:
    """Return a list of numbers, of rows or of tensors as one array, or as one tensor for tensors."""
    if not len(rows):
        raise ValueError(f"{name} must hold at least one row, got an empty {type(rows).__name__}")
    first = rows[0]
    if isinstance(first, Tensor):
        odd = [row for row, value in enumerate(rows) if not isinstance(value, Tensor) or value.shape != first.shape]
        if odd:
            raise ValueError(
                f"{name} must be tensors of one shape, {tuple(first.shape)} as in row 0, got others in "
                f"{_places('row', odd)}; write torch.stack of equal rows"
            )
        return torch.stack([require_dense(name, row) for row in rows]).detach()
    if any(isinstance(row, np.ma.MaskedArray) or row is np.ma.masked for row in rows):
        return _plain_array(name, np.ma.stack([np.ma.asarray(row) for row in rows]))
    if hasattr(first, "toarray"):
        raise TypeError(_sparse(name, type(first).__name__, (), ".toarray() for each x"))
    try:
        array = np.asarray(rows)
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        shapes = [np.shape(row) for row in rows]
        odd = [row for row, shape in enumerate(shapes) if shape != shapes[0]]
        raise ValueError(
            f"{name} must have rows of one length, {shapes[0]} as row 0 has, got others in {_places('row', odd)}; pad "
            "or drop them, then np.stack(rows)"
        ) from None
    if not array.dtype.hasobject:
        return array
    if array.ndim > 1 or all(isinstance(value, (str, Real)) for value in rows):
        return _from_objects(name, array)
    odd = [row for row, value in enumerate(rows) if not isinstance(value, Real)]
    kinds = sorted({type(rows[row]).__name__ for row in odd})
    raise TypeError(
        f"{name} must hold numbers or equal rows of numbers, got {', '.join(kinds[:MOST_NAMED])} in "
        f"{_places('row', odd)}; write np.asarray(x, dtype=np.float32) once all are numbers"
    )


def _from_table(name: str, value: object) -> Array | None:
    """Return a data frame or a Series of any library that narwhals knows as an array, None for anything else."""
    import narwhals as nw

    if type(value).__module__.partition(".")[0] == "pyarrow":
        value = _arrow_table(value)
    try:
        table = nw.from_native(value, allow_series=True, pass_through=True)
        if isinstance(table, nw.LazyFrame):
            raise TypeError(f"{name} must hold numbers, got a query that is not computed; write x.collect()")
        if isinstance(table, nw.DataFrame):
            return _from_frame(name, table)
        return _from_series(name, table) if isinstance(table, nw.Series) else None
    except nw.exceptions.NarwhalsError as error:
        reason = str(error).splitlines()[0]
        raise TypeError(f"{name} cannot be read as columns of numbers ({reason}); write x.to_numpy()") from None


def _arrow_table(value: Any) -> object:
    """Return an Arrow array or batch as the column or table that narwhals takes."""
    import pyarrow as pa

    if isinstance(value, pa.Array):
        return pa.chunked_array([value])
    return pa.Table.from_batches([value]) if isinstance(value, pa.RecordBatch) else value


def _from_frame(name: str, frame: nw.DataFrame[Any]) -> Array:
    columns = list(frame.iter_columns())
    if not columns or not len(frame):
        raise ValueError(f"{name} must hold rows and columns, got a table of {len(frame)} rows, {len(columns)} columns")
    if len(columns) == 1 and not columns[0].dtype.is_numeric():
        return _from_series(name, columns[0])
    booleans = all(str(column.dtype) == "Boolean" for column in columns)
    others = [column for column in columns if not (_is_numeric(column) or booleans)]
    if others:
        held = ", ".join(f"{column.name!r} ({column.dtype})" for column in others[:MOST_NAMED])
        refused = {column.name for column in others}
        numeric = [repr(column.name) for column in columns if column.name not in refused]
        listed = ", ".join(numeric[:MOST_NAMED]) + (", ..." if len(numeric) > MOST_NAMED else "")
        raise TypeError(
            f"{name} must have columns of numbers alone, got {held}{_rest(len(others))}; write "
            f"x[[{listed or 'names of columns of numbers'}]].to_numpy()"
        )
    if columns[0].name in WRITTEN_INDEX:
        raise ValueError(
            f"{name} has the column {columns[0].name!r}, the row numbers that pandas wrote to the file; drop it, or "
            "write x.to_numpy() if it is a feature"
        )
    arrays = [_from_series(f"{name}[{column.name!r}]", column) for column in columns]
    if len({array.dtype for array in arrays}) == 1:
        whole = frame.to_numpy()
        if whole.dtype == arrays[0].dtype:
            return whole
    return np.stack(arrays, axis=1)


def _from_series(name: str, series: nw.Series[Any]) -> Array:
    missing = np.flatnonzero(series.is_null().to_numpy())
    if len(missing):
        raise ValueError(
            f"{name} must have a value in every row, got none in {_places('row', missing)}; drop or fill them"
        )
    kind = str(series.dtype)
    if kind.startswith(("List", "Array")):
        lists = series.to_arrow()
        return numbers_of_lists(name, lists, 0, len(lists[0]) if len(lists) else 0)
    if kind == "Object":
        return _from_objects(name, np.asarray(series.to_numpy(), dtype=object))
    if kind == "String" or kind.startswith(("Categorical", "Enum")):
        return np.asarray(series.to_list())
    if not (_is_numeric(series) or kind == "Boolean"):
        raise TypeError(f"{name} must hold numbers, got {kind}; write x.to_numpy() of a column of numbers")
    return series.to_numpy()


def _is_numeric(series: nw.Series[Any]) -> bool:
    return bool(series.dtype.is_numeric()) and not str(series.dtype).startswith("Decimal")


def _places(noun: str, places: Iterable[int]) -> str:
    """Return "row 3" or "rows [1, 2, 3] (the first)"."""
    listed = [int(place) for place in places]
    return f"{noun} {listed[0]}" if len(listed) == 1 else f"{noun}s {listed[:MOST_NAMED]} (the first)"


def _rest(count: int) -> str:
    return f" and {count - MOST_NAMED:,} more" if count > MOST_NAMED else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
