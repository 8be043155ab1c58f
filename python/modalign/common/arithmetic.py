"""The floating-point arithmetic of the calling thread.

``torch.set_flush_denormal(True)`` and libraries compiled with -ffast-math make a thread, and the threads that it starts
later, take subnormal numbers as 0. The compiled core computes in IEEE 754 arithmetic whatever they set.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

__all__ = ["flushes_subnormal_numbers", "standard_arithmetic"]

SMALLEST_NORMAL = sys.float_info.min
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def flushes_subnormal_numbers() -> bool:
    """Return whether subnormal numbers are 0 in this thread."""
    return SMALLEST_NORMAL * 0.5 == 0.0


def standard_arithmetic(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Make a function compute in IEEE 754 arithmetic in the thread that calls it."""

    @functools.wraps(function)
    def computed(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        if not flushes_subnormal_numbers():
            return function(*arguments, **options)
        torch.set_flush_denormal(False)
        try:
            return function(*arguments, **options)
        finally:
            torch.set_flush_denormal(True)

    return computed
