"""The error of a score that is not defined for the rows given, and the missing value that takes its place in tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

__all__ = ["UndefinedScoreError", "does_not_vary", "score_or_nan"]

_Rows = TypeVar("_Rows")


class UndefinedScoreError(ValueError):
    """Raised where a score is not defined: one side gives all items the same, so that there is nothing to align."""


def does_not_vary(operation: str, name: str) -> UndefinedScoreError:
    """Return the error for rows that are all the same."""
    return UndefinedScoreError(f"{operation}: {name} does not vary between rows, so its alignment is not defined")


def score_or_nan(score: Callable[[_Rows, _Rows], float], x: _Rows, y: _Rows) -> float:
    """Return ``score(x, y)``, or NaN where it is not defined; other errors are raised.

    Examples:
        >>> import numpy as np, modalign
        >>> from modalign.metrics.undefined import score_or_nan
        >>> x = np.random.default_rng(0).normal(size=(50, 3))
        >>> score_or_nan(modalign.cka, x, np.ones_like(x))
        nan
    """
    try:
        return score(x, y)
    except UndefinedScoreError:
        return math.nan
