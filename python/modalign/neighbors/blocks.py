"""Exact k-NN graphs of sets larger than memory, block by block."""

from __future__ import annotations

import contextlib
import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modalign.common.interruption import Watch, watched
from modalign.common.progress import bar
from modalign.files.rows import Rows
from modalign.neighbors.groups import require_groups
from modalign.neighbors.lists import BlockLists, GraphFolder
from modalign.ops.dispatch import select
from modalign.ops.knn import KNN_BLOCKS, METRICS, Report, merge, merge_bytes

__all__ = ["bytes_of", "knn_out_of_core"]

DEFAULT_MEMORY = 4 * 10**9  # bytes
FEWEST_ROWS = 128  # a block: below it reading and writing outweigh the search


def knn_out_of_core(
    x: Rows, k: int, *, queries: Rows | None = None, metric: str = "cosine", groups: Tensor | None = None,
    query_groups: Tensor | None = None, max_memory: int | None = None, block_size: int | None = None,
    checkpoint: Path | None = None, fresh: bool = False, threads: int | None = None, progress: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Report]:  # fmt: skip
    """The k rows of ``x`` with the highest score for each query, exactly, as ``modalign.knn`` defines it, with two
    blocks of rows in memory at a time.

    Without queries every pair of blocks is visited once and serves both blocks, and one of the two stays for the next
    pair: B blocks are read about B^2 / 2 times.

    Args:
        x: n rows of width d.
        k: 1 <= k <= n, or n - 1 when x is searched for itself.
        queries: m rows of x's width and dtype, or None: every row of x looks for the others.
        metric: "cosine", "dot" or "euclidean".
        groups: (n,) int64, the group of each row of x, or None. A row's neighbours are not of its group.
        query_groups: (m,) int64, the groups of the queries; given where groups and queries are.
        max_memory: bytes held at most beyond the interpreter, torch and the arguments; 4 GB if None. The results, 16 k
            bytes a query, are a part of it. Blocks are as large as it allows.
        block_size: rows of a block, instead of what max_memory allows.
        checkpoint: a folder from which the same call continues after it was stopped, after the pair of blocks finished
            last, or None. Its blocks are kept where block_size is None.
        fresh: start over: take away the files of an earlier call in ``checkpoint``, and no others.
        threads: of the search; None: as many as torch has.
        progress: a bar on standard error, if that is a terminal.
        backend: "auto" and "cpp": the CPU; "triton": each pair of blocks is searched on the GPU, which must hold two;
            "reference": the definition.

    Returns:
        Indices (m, k) int64 and scores (m, k) float64 in falling order; equal scores by the lower index. And the report
        of the whole search: ``proved`` are the rows that no pair of blocks had to redo, at least.

    Raises:
        TypeError: k is no integer, groups are not int64.
        ValueError: k out of range, shapes that do not match, too few candidates outside a row's group, NaN or inf,
            float64 rows whose squares float64 cannot hold, a max_memory too small, a checkpoint of something else or
            damaged.
        NotImplementedError: the named backend refuses the rows, with its reason.
        OSError: a checkpoint cannot be written: what is finished is kept, and the same call continues.

    Examples:
        >>> import numpy as np
        >>> from modalign.neighbors.blocks import knn_out_of_core
        >>> from modalign.files.rows import open_rows
        >>> rows = open_rows(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
        >>> knn_out_of_core(rows, 1, block_size=2)[0].ravel().tolist()
        [1, 0, 1]
    """
    symmetric = queries is None
    rows, row_groups = (x, groups) if queries is None else (queries, query_groups)
    _require(x, rows, k, metric, symmetric, max_memory, block_size)
    if symmetric and query_groups is not None:
        raise ValueError("knn: query_groups need queries, got None")
    for name, of in (("groups", groups), ("query_groups", query_groups)):
        if of is not None and of.dtype != torch.int64:
            raise TypeError(f"knn: {name} must be int64, got {of.dtype}")
    require_groups(x.shape[0], rows.shape[0], int(k), groups, row_groups)
    select(KNN_BLOCKS, "merge", backend, torch.empty(0, x.shape[1], dtype=x.dtype), groups)
    with contextlib.ExitStack() as stack:
        folder = None
        if checkpoint is not None:
            folder = GraphFolder(Path(checkpoint))
            stack.enter_context(folder.checkpoint.claimed())
            if fresh:
                folder.checkpoint.clear()
        before = None if folder is None else folder.block_size()
        size = int(block_size or _block_size(x, rows, k, symmetric, max_memory, before, threads))
        lists = BlockLists(rows.shape[0], x.shape[0], int(k), size, symmetric)
        done = lists.done
        if folder is not None:
            settings = {"k": int(k), "metric": metric, "block_size": size, "x": x.fingerprint()}
            settings |= {"queries": None if symmetric else rows.fingerprint()}
            settings |= {"groups": _digest(groups), "query_groups": _digest(query_groups)}
            folder.begin(settings)
            folder.load(lists)

        def missing(i: int, j: int) -> list[tuple[int, int]]:
            """Which block has yet to see which, of a pair."""
            return [side for side in dict.fromkeys([(i, j), (j, i)] if symmetric else [(i, j)]) if not done[side]]

        def work(i: int, j: int) -> int:
            return len(lists.best(i)[0]) * min(size, x.shape[0] - j * size)

        pairs = partial(_pairs, *done.shape, symmetric)
        total = sum(work(i, j) for i, j in pairs())
        finished = total - sum(work(i, j) for i, j in pairs() if missing(i, j))
        shown = stack.enter_context(bar(progress))
        task = shown.add_task("knn", total=total, completed=finished)
        # allocated once: the allocator keeps what is freed between blocks
        free = [torch.empty(min(size, max(rows.shape[0], x.shape[0])), x.shape[1], dtype=x.dtype) for _ in range(2)]
        held: dict[tuple[Rows, int], Tensor] = {}

        def block(source: Rows, at: int) -> Tensor:
            return held[source, at][: source.shape[0] - at * size]

        def fold(i: int, j: int, sides: list[tuple[int, int]], watch: Watch) -> Report:
            itself = symmetric and i == j
            return merge(
                block(rows, i), None if itself else block(x, j), metric, lists.best(i) if (i, j) in sides else None,
                lists.best(j) if symmetric and not itself and (j, i) in sides else None,
                x_start=i * size, y_start=j * size,
                x_groups=None if row_groups is None else row_groups[i * size : (i + 1) * size],
                y_groups=None if groups is None or itself else groups[j * size : (j + 1) * size],
                threads=threads or torch.get_num_threads(), watch=watch, backend=backend,
            )  # fmt: skip

        for i, j in pairs():
            sides = missing(i, j)
            if not sides:
                continue
            for source, at in ((rows, i), (x, j)):
                if (source, at) not in held:
                    for key in held.keys() - {(rows, i), (x, j)}:
                        free.append(held.pop(key))
                    held[source, at] = free.pop()
                    _read(source, at * size, min((at + 1) * size, source.shape[0]), held[source, at])
            report = watched(partial(fold, i, j, sides), partial(shown.advance, task))
            lists.record(sides, report)
            if folder is not None:
                for side, _ in sides:
                    folder.save(side, lists)
            finished += work(i, j)
            shown.update(task, completed=finished)
    assert int(lists.indices.min()) >= 0  # every row has k candidates: checked above
    return lists.indices, lists.scores, lists.report()


def bytes_of(size: int | str) -> int:
    """Bytes, from a number of them or "500MB", "8 GB" (powers of 1000) or "8GiB" (powers of 1024).

    Raises TypeError for neither a number nor a string, ValueError for one that is no size or below one byte.

    Examples:
        >>> from modalign.neighbors.blocks import bytes_of
        >>> bytes_of("1.5GB"), bytes_of("2KiB")
        (1500000000, 2048)
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer, str)):
        raise TypeError(f'a size must be bytes or a string such as "8GB", got {size!r}')
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt]?)(i?)b)?\s*", str(size), re.IGNORECASE)
    if match is None:
        raise ValueError(
            f'a size must be a number of B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, like "8GB", got {size!r}'
        )
    prefix = " kmgt".index((match[2] or " ").lower())
    bytes_ = int(float(match[1]) * (1024 if match[3] else 1000) ** prefix)
    if bytes_ < 1:
        raise ValueError(f"a size must be at least one byte, got {size!r}")
    return bytes_


def _require(
    x: Rows, rows: Rows, k: int, metric: str, symmetric: bool, max_memory: int | None, block_size: int | None
) -> None:  # fmt: skip
    if metric not in METRICS:
        raise ValueError(f"knn: metric must be one of {METRICS}, got {metric!r}")
    if rows.shape[1] != x.shape[1] or rows.dtype != x.dtype:
        raise ValueError(
            f"knn: queries must have the width and dtype of x, got {rows.shape} {rows.dtype} for {x.shape} {x.dtype}"
        )
    for name, number in (("k", k), ("max_memory", max_memory), ("block_size", block_size)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer, type(None))) or k is None:
            raise TypeError(f"knn: {name} must be an integer, got {number!r}")
    most = x.shape[0] - symmetric
    if not 1 <= k <= most:
        raise ValueError(f"knn: k must be between 1 and {most} for {x.shape[0]} rows, got {k}")
    if block_size is not None and block_size < 1:
        raise ValueError(f"knn: block_size must be at least 1, got {block_size}")


def _block_size(
    x: Rows, rows: Rows, k: int, symmetric: bool, max_memory: int | None, before: int | None, threads: int | None
) -> int:  # fmt: skip
    """The rows of a block that max_memory allows; those of an earlier call if they are allowed too."""
    n, d = max(x.shape[0], rows.shape[0]), x.shape[1]

    def needed(size: int) -> int:
        first, second = min(size, rows.shape[0]), min(size, x.shape[0])
        if symmetric and size >= n:
            second = 0  # one block with itself
        blocks = (first + second) * d * x.dtype.itemsize + merge_bytes(first, second, d, k, threads)
        return 16 * rows.shape[0] * k + sum(source.overhead for source in {x, rows}) + blocks

    def even(size: int) -> int:
        """Blocks of about one size, no more of them."""
        return -(-n // -(-n // size))

    least, memory = min(FEWEST_ROWS, n), DEFAULT_MEMORY if max_memory is None else max_memory
    if before is not None and (max_memory is None or needed(before) <= memory):
        return before
    fitting = bisect_right(range(least, n + 1), memory, key=lambda size: needed(even(size)))
    if not fitting:
        raise ValueError(
            f"knn: max_memory must be at least {needed(even(least))} bytes, for results of {rows.shape[0]} rows and "
            f"blocks of {least} rows of width {d}, got {memory}"
        )
    return even(least + fitting - 1)


def _pairs(rows: int, candidates: int, symmetric: bool) -> Iterator[tuple[int, int]]:
    """Every pair of blocks once, or every unordered pair. The first stays while the second runs forth and back, so that
    the blocks in memory at the end of a run are what the next begins with."""
    for i in range(rows):
        partners = range(i if symmetric else 0, candidates)
        yield from ((i, j) for j in (partners if i % 2 == 0 else reversed(partners)))


def _read(source: Rows, start: int, stop: int, into: Tensor) -> None:
    block = source.read(start, stop, into)
    if block.dtype == torch.float64:
        low, high = block.aminmax(dim=1)
        largest = torch.maximum(-low, high)
        bad = ((largest != 0) & ((largest < 2.0**-400) | (largest > 2.0**400))).nonzero()[:, 0] + start
        if len(bad):
            raise ValueError(
                f"knn: the squares of {source.name} must fit into float64, got rows {bad[:3].tolist()} (the first) "
                "with their largest value outside 2**-400 .. 2**400; scale the rows"
            )


def _digest(groups: Tensor | None) -> str | None:
    return None if groups is None else hashlib.sha256(groups.contiguous().numpy().data).hexdigest()
