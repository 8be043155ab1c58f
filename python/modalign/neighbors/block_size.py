"""The number of rows in a block that a limit on memory allows."""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_right
from numbers import Integral

from modalign.files.rows import Rows
from modalign.ops.knn import merge_bytes

__all__ = ["Layout", "bytes_of", "choose_block_size", "least_bytes"]

DEFAULT_MEMORY = 4 * 10**9  # bytes
FEWEST_ROWS = 128  # in a block: below it reading and writing take longer than the search


@dataclasses.dataclass(frozen=True)
class Layout:
    """The sizes of a search by blocks.

    Attributes:
        gallery: The candidates.
        queries: The searching rows, None if the gallery searches itself.
        k: The number of neighbours.
        threads: The number of threads of the search, None for as many as torch has.
    """

    gallery: Rows
    queries: Rows | None
    k: int
    threads: int | None

    @property
    def searching(self) -> Rows:
        """The searching rows."""
        return self.gallery if self.queries is None else self.queries

    def bytes_needed(self, size: int) -> int:
        """Return the bytes that a search with blocks of ``size`` rows holds at most beyond its arguments."""
        (n, d), m = self.gallery.shape, self.searching.shape[0]
        first, second = min(size, m), min(size, n)
        if self.queries is None and size >= n:
            second = 0  # one block, with itself
        results = 16 * m * self.k
        reading = sum(source.overhead for source in {self.gallery, self.searching})
        blocks = (first + second) * d * self.gallery.dtype.itemsize
        return results + reading + blocks + merge_bytes(first, second, d=d, k=self.k, threads=self.threads)


def choose_block_size(layout: Layout, max_memory: int | None, previous: int | None) -> int:
    """Return the largest block size that fits into memory.

    Args:
        layout: The sizes of the search.
        max_memory: Bytes; None for 4 GB.
        previous: The block size of the call that is continued, which is kept if it fits, or None.

    Raises:
        ValueError: Not even blocks of 128 rows fit; the message names the least memory that would do.
    """
    n = max(layout.gallery.shape[0], layout.searching.shape[0])
    least, memory = min(FEWEST_ROWS, n), DEFAULT_MEMORY if max_memory is None else max_memory
    if previous is not None and (max_memory is None or layout.bytes_needed(previous) <= memory):
        return previous
    fitting = bisect_right(range(least, n + 1), memory, key=lambda size: layout.bytes_needed(_even(n, size)))
    if not fitting:
        needed = least_bytes(layout)
        raise ValueError(
            f'knn: max_memory must be at least {needed} bytes ("{-(-needed // 10**6)}MB"), for results of '
            f"{layout.searching.shape[0]} rows and blocks of {least} rows of width {layout.gallery.shape[1]}, "
            f"got {memory}"
        )
    return _even(n, least + fitting - 1)


def least_bytes(layout: Layout) -> int:
    """Return the least memory that ``choose_block_size`` takes."""
    n = max(layout.gallery.shape[0], layout.searching.shape[0])
    return layout.bytes_needed(_even(n, min(FEWEST_ROWS, n)))


def _even(n: int, size: int) -> int:
    """Return the size of as many blocks of n rows, all of about one size."""
    return -(-n // -(-n // size))


def bytes_of(size: int | str, name: str = "a size") -> int:
    """Return a number of bytes, from a number or from "500MB", "8 GB" (powers of 1000) or "8GiB" (powers of 1024).

    Args:
        size: The number or the text.
        name: What messages call it, such as "knn: max_memory".

    Raises:
        TypeError: The size is neither an integer nor a string.
        ValueError: The string is no size, or the size is below one byte.

    Examples:
        >>> from modalign.neighbors import bytes_of
        >>> bytes_of("1.5GB"), bytes_of("2KiB")
        (1500000000, 2048)
    """
    if isinstance(size, bool) or not isinstance(size, (Integral, str)):
        raise TypeError(f'{name} must be bytes or a string such as "8GB", got {size!r}')
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt]?)(i?)b)?\s*", str(size), re.IGNORECASE)
    if match is None:
        raise ValueError(
            f'{name} must be a number of B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, like "8GB", got {size!r}'
        )
    prefix = " kmgt".index((match[2] or " ").lower())
    count = int(float(match[1]) * (1024 if match[3] else 1000) ** prefix)
    if count < 1:
        raise ValueError(f"{name} must be at least one byte, got {size!r}")
    return count
