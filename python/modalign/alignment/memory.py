"""The memory that ``align`` needs with the metrics, intervals and nulls asked for, so that ``max_memory`` is a bound.

The sizes are upper bounds of what each stage holds beside the arguments; ``tests/alignment/test_memory.py`` measures
them in new processes.
"""

from __future__ import annotations

from collections.abc import Sequence

from modalign.alignment.intervals import list_length
from modalign.alignment.items import Items
from modalign.alignment.settings import Settings
from modalign.metrics.registry import METRICS
from modalign.metrics.sums import BLOCK_BYTES, FEWEST_ROWS
from modalign.metrics.tiles import TILE
from modalign.neighbors.block_size import Layout, bytes_of, least_bytes

__all__ = ["bytes_left_for_tables", "require_memory", "search_limit"]

SMALL = 16_000_000  # buffers of libraries, and what every stage holds for a moment
GATHERED = 1 << 25  # bytes of a block of rows that is converted or gathered, of which two exist


def require_memory(items: Items, settings: Settings, names: Sequence[str]) -> None:
    """Check that ``max_memory`` is enough.

    Args:
        items: The rows.
        settings: The settings with the limit.
        names: The metrics to compute.

    Raises:
        ValueError: The limit is below what the call needs; the message has the number.
    """
    if settings.max_memory is None or settings.sampled:
        return
    needed, limit = _bytes_needed(items, settings, names), bytes_of(settings.max_memory)
    if limit < needed:
        raise ValueError(
            f'align: max_memory must be at least {needed} bytes ("{-(-needed // 10**6)}MB") for {", ".join(names)} of '
            f"{items.n} items, got {limit}; or ask for fewer metrics, intervals=False, null='none' or a sample"
        )


def search_limit(items: Items, settings: Settings, length: int, *, second: bool) -> int | None:
    """Return the bytes that the search of x, or the second one, of y, may hold."""
    if settings.max_memory is None:
        return None
    return bytes_of(settings.max_memory) - SMALL - (_graph_bytes(items, length) if second else 0)


def bytes_left_for_tables(items: Items, settings: Settings) -> int | None:
    """Return the bytes that tables of pairs may take, None for any number."""
    if settings.max_memory is None:
        return None
    return bytes_of(settings.max_memory) - SMALL - _rows_in_float64(items) - _tiles(items)


def _bytes_needed(items: Items, settings: Settings, names: Sequence[str]) -> int:
    """Return an upper bound of the bytes that the stages hold at most, one after the other."""
    n, k, (d_x, d_y) = items.n, settings.k, items.widths
    relabels, intervals = settings.null != "none", settings.intervals
    rows = sum(source.shape[0] * source.shape[1] * source.dtype.itemsize for source in items.sources)
    # intervals copy the rows of a part, relabelled nulls those of y
    copied = rows if intervals or relabels else 0
    stages = [0]
    if settings.names_that_need(names, "moments"):
        block = min(8 * n * (d_x + d_y), max(BLOCK_BYTES, 8 * FEWEST_ROWS * (d_x + d_y)))
        sums = 8 * (d_x * d_y + d_x * d_x + d_y * d_y)
        stages.append(6 * block + (6 + (18 if intervals else 0)) * sums + copied)
    for name in settings.names_that_need(names, "pairs"):
        pairs = METRICS[name].cost.pair_bytes * n * (n - 1) // 2
        stages.append(_rows_in_float64(items) + _tiles(items) + pairs + copied)
    if settings.names_that_need(names, "lists", "graphs"):
        length = list_length(n, k) if intervals else k
        if settings.size_curve:
            length = max(length, min(n - 1, 10 * k))
        searched = max(length, min(length + 1, n - 1))  # one neighbour more, to see whether the last one ties
        least = [least_bytes(Layout(source, None, searched, settings.num_threads)) for source in items.sources]
        lists = 16 * n * length + (16 * n * k if length > k else 0)
        reads_rows = any(METRICS[name].reads_rows for name in names)
        gathered = min(2 * GATHERED, 32 * n * max(d_x, d_y)) + 100 * n  # duplicates are looked for in blocks of rows
        stages += [
            least[0],
            least[1] + _graph_bytes(items, length),
            lists + gathered + 32 * n * k + (copied if reads_rows else 0),
            lists + (18 * n * length + 48 * n * k if intervals else 0) + (copied if reads_rows else 0),
        ]
    return SMALL + max(stages)


def _graph_bytes(items: Items, length: int) -> int:
    """Return the bytes of the graph of x, which is held while y is searched."""
    return (8 + max(4, items.sources[0].dtype.itemsize)) * items.n * length


def _rows_in_float64(items: Items) -> int:
    return 3 * 8 * items.n * sum(items.widths)


def _tiles(items: Items) -> int:
    return 10 * 8 * min(TILE, items.n) ** 2 + 8 * min(TILE, items.n) * 2 * sum(items.widths) + 64 * items.n
