"""Checks of the labels and features that users pass, which return them as codes from 0 and as float64 tables."""

from __future__ import annotations

from typing import TypeAlias, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modalign.common.conversion import as_numpy
from modalign.common.labels import Labels, label_array

__all__ = ["FOLDS", "Array", "Codes", "Side", "checked_features", "checked_labels", "is_codes"]

Array: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.int64]
Side: TypeAlias = Array | Codes  # a modality: (n, d) float64, or (n,) codes from 0

FOLDS = 5  # of cross-fitting; every class needs an item in each
USUAL_EXPONENT = 300  # of 2: models standardise features, and squares up to 2^600 times items stay in range


def is_codes(side: Side) -> TypeGuard[Codes]:
    """Return whether a modality consists of codes, one for each item."""
    return side.ndim == 1


def checked_labels(operation: str, y: Labels, name: str = "y") -> Codes:
    """Return the classes of the items as (n,) codes from 0, in the order of the labels.

    Args:
        operation: The name of the calling function, with which error messages begin.
        y: (n,) labels, as ``modalign.common.labels.label_array`` takes them.
        name: The name of the argument, for error messages.

    Raises:
        TypeError: For what is no list of labels, or text beside numbers.
        ValueError: For another shape, missing labels, numbers that are not whole, fewer than 2 classes, or a class with
            fewer than 5 items.
    """
    names, codes, counts = np.unique(label_array(f"{operation}: {name}", y), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise ValueError(f"{operation}: {name} must hold at least 2 classes, got {len(counts)}")
    if counts.min() < FOLDS:
        small = f"{int((counts < FOLDS).sum()):,} of {len(counts):,} with fewer, such as {names[counts.argmin()]!s}"
        raise ValueError(
            f"{operation}: every class must have at least {FOLDS} items, got {small} with {counts.min()}; merge or "
            "drop them, or cut numbers into bins, such as pandas.qcut(values, 4, labels=False)"
        )
    return codes.astype(np.int64)


def checked_features(operation: str, name: str, x: ArrayLike, n: int) -> Side:
    """Return a modality as (n,) codes from 0, or as an (n, d) float64 table.

    Args:
        operation: The name of the calling function, with which error messages begin.
        name: The name of the argument, for error messages.
        x: (n,) whole numbers (floats too), booleans or text, or (n, d) numbers.
        n: The number of labels.

    Raises:
        ValueError: For another shape, NaN or inf, or features that never change.
    """
    values = as_numpy(f"{operation}: {name}", x)
    if values.ndim == 0 or len(values) != n:
        raise ValueError(f"{operation}: {name} must have a row for each label, {n}, got {values.shape}")
    whole = values.dtype.kind == "f" and bool(np.isfinite(values).all() and (values == np.floor(values)).all())
    if values.ndim == 1 and (values.dtype.kind in "biuU" or whole):
        codes = label_array(f"{operation}: {name}", values)
        return np.unique(codes, return_inverse=True)[1].astype(np.int64)
    if values.ndim != 2 or values.shape[1] == 0 or values.dtype.kind == "c":
        raise ValueError(
            f"{operation}: {name} must be (n, d) numbers or (n,) whole numbers, got {values.shape} {values.dtype}; "
            "write x[:, None] for one feature"
        )
    try:
        table = values.astype(np.float64)
    except ValueError:
        raise ValueError(f"{operation}: {name} must hold numbers, got text such as {values.flat[0]!s:.40}") from None
    if not np.isfinite(table).all():
        bad = np.flatnonzero(~np.isfinite(table).all(1))[:3].tolist()
        raise ValueError(f"{operation}: {name} must be finite, got NaN or inf in rows {bad} (the first)")
    if (table == table[0]).all():
        raise ValueError(f"{operation}: {name} never changes, so it tells nothing about the label")
    return _of_usual_size(table)


def _of_usual_size(table: Array) -> Array:
    """Return a table whose squares are in the range of float64; columns where they are not are moved by powers of 2."""
    _, exponents = np.frexp(np.abs(table).max(0))
    shifts = np.where(np.abs(exponents) > USUAL_EXPONENT, -exponents, 0)
    return np.ldexp(table, shifts) if shifts.any() else table
