"""Types that the signatures of many rooms share."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy.typing as npt
from torch import Tensor

__all__ = ["Array"]

# a NumPy array, memory-mapped ones included, or a tensor
Array: TypeAlias = Tensor | npt.NDArray[Any]
