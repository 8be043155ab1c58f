"""What a reader of files takes and returns: the array that is asked for, and the array as it lies in its file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.types import Array

__all__ = ["Index", "Reader", "Request", "Table", "as_native_tensor", "whole"]

Index: TypeAlias = slice | tuple[slice, int]  # rows, or rows of one layer


@dataclass(frozen=True, eq=False)
class Table:
    """An array of two or three dimensions, in memory or in a file.

    Attributes:
        name: What messages call it.
        shape: (n, d) or (n, layers, d).
        dtype: The name of the dtype.
        fetch: Returns rows, or rows of a layer.
        file: The file whose size and time of change tell whether the array has changed, or None.
        part: How the name of the array in its file ends, such as ":features".
        overhead: The bytes a read holds beside its result.
        mapped: Returns the array without holding its rows, or None if it cannot be mapped.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    fetch: Callable[[Index], Tensor]
    file: Path | None = None
    part: str = ""
    overhead: int = 0
    mapped: Callable[[], Array] | None = None


@dataclass(frozen=True)
class Request:
    """An array that a caller asks for.

    Attributes:
        path: The file.
        member: The name of the array in the file, None if the caller gave none.
        ranks: The numbers of dimensions that fit, the best first, to choose an array where no name is given.
    """

    path: Path
    member: str | None
    ranks: tuple[int, ...]

    def choose(self, kind: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Return the name asked for, or that of the only array of a fitting rank.

        Args:
            kind: What the file calls its arrays, for messages: "array", "tensor" or "column".
            shapes: The arrays in the file.

        Raises:
            ValueError: There is no such array, or not exactly one that fits.
        """
        names = ", ".join(shapes) or "none"
        if self.member is None:
            for rank in self.ranks:
                fitting = [name for name, shape in shapes.items() if len(shape) == rank]
                if len(fitting) == 1:
                    return fitting[0]
            raise ValueError(
                f"{self.path} must hold one {kind} of rows, or the call must name one as {self.path}:{kind}; "
                f"it holds {names}"
            )
        if self.member not in shapes:
            raise ValueError(f"{self.path} has no {kind} {self.member!r}; it holds {names}")
        return self.member

    def refuse_name(self, kind: str) -> None:
        """Check that no name is given for a file that holds a single array without one."""
        if self.member is not None:
            raise ValueError(
                f"{self.path} holds one {kind} without a name, got {self.member!r}; leave :{self.member} out"
            )


def as_native_tensor(array: NDArray[Any]) -> Tensor:
    """Return a contiguous copy in this machine's byte order."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


Reader: TypeAlias = Callable[[Request], Table]


@contextlib.contextmanager
def whole(path: Path, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raise a ValueError that says the file is damaged for the errors that its library raises then."""
    try:
        yield
    except errors as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} must be a whole {path.suffix} file, got one cut short or of another kind ({reason}); write it anew"
        ) from error
