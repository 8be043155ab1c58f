"""Labels of items: the one conversion of arguments that hold classes, groups, splits or names of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["Labels", "entries_of", "label_array", "label_tensor", "label_tensors", "labelled_entries", "missing_rows"]

# an array, a tensor, a list, or a column of pandas, Arrow or Polars
Labels: TypeAlias = ArrayLike | Tensor
MISSING_WORDS = ("", "nan", "NaN", "NaT", "<NA>")  # how NumPy and pandas write a missing value as text
LARGEST_WHOLE = 2**53  # of floats: beyond it neighbouring whole numbers are one float
SHOWN = 3  # rows that a message names
WANTED = "a list or an array, one entry for each item"


def entries_of(name: str, values: Any, n: int | None = None) -> NDArray[Any]:
    """Return one entry for each item as an array of text, truth values, integers or finite numbers.

    Args:
        name: What messages call the argument, such as "pid: y".
        values: (n,) or (n, 1): a list, a NumPy array (masked ones too), a tensor on any device, a column or Categorical
            of pandas, or an array of Arrow or Polars. Its entries are text, bytes in UTF-8, numbers, truth values,
            dates or intervals; the last two become text.
        n: The number of items, or None for any.

    Returns:
        (n,) array of dtype str, bool, an integer or a float.

    Raises:
        TypeError: The values are no list of labels, or mix text and numbers.
        ValueError: The shape is another one, or entries are missing: None, NaN, NA, masked or blank.

    Examples:
        >>> from modalign.common.labels import entries_of
        >>> entries_of("pid: y", ["cat", "dog"]).tolist()
        ['cat', 'dog']
    """
    array = _as_array(name, values)
    column = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if column.ndim != 1 or (n is not None and len(column) != n):
        wanted = "n" if n is None else n
        advice = "; of one-hot rows give the numbers of the classes, argmax(1)" if array.ndim == 2 else ""
        raise ValueError(f"{name} must be ({wanted},), one for each item, got {array.shape}{advice}")
    if column.dtype.kind in "OT":
        column = _of_objects(name, column)
    if column.dtype.kind == "M":
        _require_all(name, np.isnat(column))
        column = column.astype(str)
    if column.dtype.kind == "S":
        column = _decoded(name, column)
    if column.dtype.kind == "U":
        return _of_texts(name, column)
    if column.dtype.kind == "f":
        _require_all(name, np.isnan(column))
    elif column.dtype.kind not in "biu":
        raise TypeError(f"{name} must be text or whole numbers, one for each item, got {column.dtype}; convert it")
    return column


def label_array(name: str, values: Any, n: int | None = None) -> NDArray[Any]:
    """Return labels as an array of text, truth values or integers; whole numbers saved as floats become integers.

    Args:
        name: What messages call the argument, such as "pid: y".
        values: The labels, as ``entries_of`` takes them.
        n: The number of items, or None for any.

    Raises:
        TypeError: As ``entries_of``.
        ValueError: As ``entries_of``, and for numbers that are not whole.

    Examples:
        >>> from modalign.common.labels import label_array
        >>> label_array("pid: y", [0.0, 1.0]).tolist()
        [0, 1]
    """
    entries = entries_of(name, values, n)
    if entries.dtype.kind != "f":
        return entries
    if not np.isfinite(entries).all():
        raise ValueError(f"{name} must be finite, got inf in rows {np.flatnonzero(np.isinf(entries))[:SHOWN].tolist()}")
    odd = entries[entries != np.round(entries)]
    if len(odd):
        raise ValueError(
            f"{name} must be classes, got {len(np.unique(entries)):,} different numbers such as {odd[0]:.6g}; cut them "
            "into bins, such as pandas.qcut(values, 4, labels=False), or make each number a class of its own, "
            "numpy.unique(values, return_inverse=True)[1]"
        )
    if np.abs(entries).max(initial=0) > LARGEST_WHOLE:
        raise ValueError(
            f"{name} holds whole numbers beyond 2^53 as {entries.dtype}, which cannot tell them apart; give "
            "integers or text"
        )
    return entries.astype(np.int64)


def label_tensor(name: str, values: Any, n: int | None = None) -> Tensor:
    """Return labels as an int64 tensor: integers as they are, text numbered from 0 in its order.

    A tensor stays on its device; what is taken and what is refused is as for ``label_array``.

    Examples:
        >>> from modalign.common.labels import label_tensor
        >>> label_tensor("knn: groups", ["b", "a", "b"]).tolist()
        [1, 0, 1]
    """
    (tensor,) = label_tensors({name: values})
    if n is not None and len(tensor) != n:
        raise ValueError(f"{name} must be ({n},), one for each item, got {tuple(tensor.shape)}")
    return tensor


def label_tensors(labels: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return several lists of labels by name as int64 tensors, in which equal labels have equal numbers.

    Examples:
        >>> from modalign.common.labels import label_tensors
        >>> [table.tolist() for table in label_tensors({"knn: groups": ["a", "c"], "knn: query_groups": ["b", "c"]})]
        [[0, 2], [1, 2]]
    """
    if all(isinstance(values, Tensor) and _is_integer(values) for values in labels.values()):
        return tuple(values.long() for values in labels.values())
    arrays = {name: label_array(name, values) for name, values in labels.items()}
    texts = [name for name, array in arrays.items() if array.dtype.kind == "U"]
    if texts and len(texts) < len(arrays):
        others = ", ".join(name for name in arrays if name not in texts)
        raise TypeError(
            f"{', '.join(texts)} and {others} must be labels of one kind, got text and numbers; convert one"
        )
    whole = list(arrays.values())
    if texts:
        codes = np.unique(np.concatenate(whole), return_inverse=True)[1]
        whole = np.split(codes, np.cumsum([len(array) for array in whole])[:-1])
    tensors = (torch.from_numpy(array.astype(np.int64)) for array in whole)
    return tuple(
        tensor.to(values.device) if isinstance(values, Tensor) else tensor
        for tensor, values in zip(tensors, labels.values(), strict=True)
    )


def missing_rows(entries: Iterable[object]) -> list[int]:
    """Return the numbers of the entries that are None, NaN, NA, NaT or masked.

    Examples:
        >>> from modalign.common.labels import missing_rows
        >>> missing_rows(["a fox", None, "", float("nan")])
        [1, 3]
    """
    return [row for row, entry in enumerate(entries) if _is_missing(entry)]


def labelled_entries(
    name: str, values: Any, missing: float | str | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the labels that are given, and which of the n items have one.

    Args:
        name: What messages call the argument, such as "own: labels".
        values: (n,) or (n, 1) labels of any kind that ``entries_of`` takes, where None, NaN, NA, NaT, masked and blank
            entries are missing.
        missing: A value that stands for a missing label too, such as -1 or "unknown"; a number is found in text that
            writes it. None for no such value.

    Returns:
        The labels that are given, as ``entries_of`` returns them, and (n,) bool.

    Raises:
        TypeError, ValueError: As ``entries_of``; ValueError also if no item has a label.

    Examples:
        >>> from modalign.common.labels import labelled_entries
        >>> labels, known = labelled_entries("own: labels", ["cat", None, "?"], missing="?")
        >>> labels.tolist(), known.tolist()
        (['cat'], [True, False, False])
    """
    array = _as_array(name, values)
    column = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if column.ndim != 1:
        return entries_of(name, values), np.ones(len(column), np.bool_)  # which says what the shape should be
    known = np.array([not _is_gap(entry, missing) for entry in column.tolist()], np.bool_)
    if len(known) and not known.any():
        raise ValueError(f"{name} must be given for some items, got none in any of {len(known):,} rows")
    return entries_of(name, column[known]), known


def is_value(entry: object, value: float | str) -> bool:
    """Return whether an entry is a value, where text that writes a number is that number.

    Examples:
        >>> from modalign.common.labels import is_value
        >>> is_value("-1.0", -1), is_value("cat", -1), is_value("?", "?")
        (True, False, True)
    """
    text = entry.decode(errors="replace") if isinstance(entry, bytes) else entry
    if isinstance(text, str) != isinstance(value, str):
        try:
            return float(text) == float(value)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            return False
    return bool(text == value)


def _is_gap(entry: object, missing: float | str | None) -> bool:
    """Return whether an entry of labels is missing."""
    text = entry.decode(errors="replace") if isinstance(entry, bytes) else entry
    blank = isinstance(text, str) and text.removeprefix("\ufeff").strip() in MISSING_WORDS
    return blank or _is_missing(entry) or (missing is not None and is_value(entry, missing))


def _is_integer(values: Tensor) -> bool:
    """Return whether a tensor holds (n,) integers or truth values, which need no look at its entries."""
    plain = values.layout == torch.strided and not values.is_meta and values.ndim == 1
    return plain and not values.dtype.is_floating_point and not values.dtype.is_complex


def _as_array(name: str, values: Any) -> NDArray[Any]:
    """Return values as an array of any shape, with Python objects in it where entries may be missing."""
    kind = type(values)
    if isinstance(values, (str, bytes, Path)):
        raise TypeError(
            f"{name} must be {WANTED}, got {str(values)!r}; a file is read by modalign.files.labels.read_labels"
        )
    if values is None or isinstance(values, (Mapping, AbstractSet)):
        raise TypeError(f"{name} must be {WANTED}, got {kind.__name__}")
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_meta:
            raise TypeError(f"{name} must be a dense tensor, got {values.layout} on {values.device}; use .to_dense()")
        dense = values.detach().cpu()
        return (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()
    if isinstance(values, np.ma.MaskedArray):
        entries = values.data.astype(object)
        entries[np.ma.getmaskarray(values)] = None
        return entries
    if kind.__module__.partition(".")[0] == "pyarrow" and hasattr(values, "to_pylist"):
        values = values.to_pylist()
    try:
        array = np.asarray(values)
        if not isinstance(values, np.ndarray) and array.dtype.kind in "US":
            array = np.array(values, dtype=object)  # NumPy writes None and numbers beside text as text
    except (ValueError, TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TypeError(f"{name} must be {WANTED}, got {kind.__name__} ({reason})") from None
    if array.ndim == 0:
        raise TypeError(f"{name} must be {WANTED}, got {kind.__name__}")
    return array


def _of_objects(name: str, column: NDArray[Any]) -> NDArray[Any]:
    """Return Python objects as an array of text, bytes or numbers."""
    entries = column.tolist()
    _require_all(name, np.isin(np.arange(len(entries)), missing_rows(entries)))
    kinds = set(map(type, entries))
    if all(issubclass(kind, str) for kind in kinds):
        return np.array(entries, dtype=str)
    if all(issubclass(kind, bytes) for kind in kinds):
        return np.array(entries, dtype=bytes)
    if all(issubclass(kind, (bool, int, float, np.bool_, np.number, Decimal)) for kind in kinds):
        numbers = np.array([float(entry) if isinstance(entry, Decimal) else entry for entry in entries])
        if numbers.dtype.kind == "O":
            raise TypeError(f"{name} must be whole numbers of 64 bits or text, got larger ones; give them as text")
        return numbers
    # dates, and the intervals of pandas.cut
    if all(kind.__module__.partition(".")[0] in ("pandas", "datetime") for kind in kinds):
        return np.array([str(entry) for entry in entries])
    described = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(f"{name} must be all text or all numbers, one for each item, got {described}; convert them")


def _decoded(name: str, column: NDArray[Any]) -> NDArray[Any]:
    try:
        return np.char.decode(column, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} must be text, got bytes that are no UTF-8 ({error.reason}); decode them") from None


def _of_texts(name: str, column: NDArray[Any]) -> NDArray[Any]:
    """Return text without the byte-order mark that a file read as plain UTF-8 begins with."""
    texts = column.astype(str)
    if len(texts) and texts[0].startswith("\ufeff"):
        texts[0] = texts[0].lstrip("\ufeff")
    _require_all(name, np.isin(np.char.strip(texts), MISSING_WORDS))
    return texts


def _is_missing(value: object) -> bool:
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _require_all(name: str, missing: NDArray[np.bool_]) -> None:
    """Check that no entry is missing."""
    if missing.any():
        rows = np.flatnonzero(missing)
        raise ValueError(
            f"{name} must be given for every item, got none (None, NaN, NA or blank) in rows {rows[:SHOWN].tolist()} "
            f"(the first of {len(rows):,}); drop these rows everywhere, or give them a label of their own such as "
            "'unknown'"
        )
