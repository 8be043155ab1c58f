"""Types that the signatures of many rooms share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy.typing as npt
from torch import Tensor

__all__ = ["Array", "Integers"]

# a NumPy array, memory-mapped ones included, or a tensor
Array: TypeAlias = Tensor | npt.NDArray[Any]
# labels of items: integers as an array, a tensor or a list
Integers: TypeAlias = Array | Sequence[int]
