"""What a reader of files returns: the arrays in a file, and each of them as it lies there."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.types import Array

__all__ = ["Contents", "Index", "Reader", "Table", "as_native_tensor", "whole"]

Index: TypeAlias = slice | tuple[slice, int]  # rows, or rows of one layer

MOST_NAMES = 8  # in a message
UNREADABLE = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.EMFILE, errno.ESTALE)  # not the file's fault


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


@dataclass(frozen=True, eq=False)
class Contents:
    """The arrays in a file, none of which is read yet.

    Attributes:
        path: The file.
        kind: What the file calls its arrays, for messages: "array", "tensor" or "column".
        shapes: The shape of each array by its name; the only array of a file without names has the name "".
        table: Opens the array of a name.
    """

    path: Path
    kind: str
    shapes: Mapping[str, tuple[int, ...]]
    table: Callable[[str], Table]

    def choose(self, member: str | None, ranks: Sequence[int]) -> str:
        """Return the name asked for, or that of the only array of a fitting rank.

        Args:
            member: The name that the caller gave, or None.
            ranks: The numbers of dimensions that fit, the best first.

        Raises:
            ValueError: There is no such array, or not exactly one that fits.
        """
        if "" in self.shapes:
            if member is not None:
                raise ValueError(
                    f"{self.path} holds one {self.kind} without a name, got {member!r}; leave :{member} out"
                )
            return ""
        if member is None:
            if len(self.shapes) == 1:
                return next(iter(self.shapes))
            for rank in ranks:
                fitting = [name for name, shape in self.shapes.items() if len(shape) == rank]
                if len(fitting) == 1:
                    return fitting[0]
            layers = "; align_layers takes all of its layers" if self.layers(None) else ""
            raise ValueError(
                f"{self.path} must hold one {self.kind} of rows, or the call must name one as {self.path}:{self.kind}; "
                f"it holds {self.names}{layers}"
            )
        if member not in self.shapes:
            raise ValueError(f"{self.path} has no {self.kind} {member!r}; it holds {self.names}")
        return member

    @property
    def names(self) -> str:
        """The names of the arrays, for messages."""
        listed = list(self.shapes)
        rest = f" and {len(listed) - MOST_NAMES:,} more" if len(listed) > MOST_NAMES else ""
        return f"{', '.join(listed[:MOST_NAMES])}{rest}" if listed else "none"

    def layers(self, member: str | None) -> list[str]:
        """Return the names of arrays (n, d) of the same n rows that differ only in a number, in the order of it.

        Lists of tensors have such names ("0", "1"), and so do dictionaries such as {"layer_3": ..., "layer_12": ...}.

        Args:
            member: The list or dictionary that holds them, or None for any.

        Returns:
            The names, none if there are several such groups, or fewer than two of any name.
        """
        groups: dict[tuple[str, str], dict[int, str]] = {}
        for name, shape in self.shapes.items():
            match = re.fullmatch(r"(.*?)(\d+)(\D*)", name, re.DOTALL)
            if match and len(shape) == 2 and (member is None or name.startswith(f"{member}.")):
                groups.setdefault((match[1], match[3]), {})[int(match[2])] = name
        fitting = [
            names
            for names in groups.values()
            if len(names) > (member is None) and len({self.shapes[name][0] for name in names.values()}) == 1
        ]
        return [fitting[0][number] for number in sorted(fitting[0])] if len(fitting) == 1 else []


def as_native_tensor(array: NDArray[Any]) -> Tensor:
    """Return a contiguous copy in this machine's byte order."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


Reader: TypeAlias = Callable[[Path], Contents]


@contextlib.contextmanager
def whole(path: Path) -> Iterator[None]:
    """Raise a ValueError that says the file is damaged for whatever a library raises over one.

    Libraries raise almost anything over a damaged file (KeyError, RecursionError, zlib.error, SystemError, ...). Files
    that cannot be opened raise OSError as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno in UNREADABLE:
            raise
        raise _damaged(path, error) from error
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return ValueError(
        f"{path} must be a whole {path.suffix} file, got one cut short or of another kind ({reason}); write it anew"
    )
