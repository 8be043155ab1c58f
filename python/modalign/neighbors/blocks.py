"""Exact k-NN graphs of sets larger than memory, block by block."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from modalign.common.arithmetic import standard_arithmetic
from modalign.common.checks import whole_number
from modalign.common.interruption import Watch, watched
from modalign.common.progress import bar
from modalign.files.rows import Rows
from modalign.neighbors.block_size import Layout, bytes_of, choose_block_size
from modalign.neighbors.candidates import require_candidates
from modalign.neighbors.lists import BlockLists, GraphFolder, Side, digest_of_rows
from modalign.neighbors.rows_in_range import Scale, find_scale
from modalign.ops.dispatch import select
from modalign.ops.knn import KNN_BLOCKS, Report, RowBlock, SearchOptions, merge

__all__ = ["BlockOptions", "Source", "bytes_of", "knn_out_of_core", "search_blocks"]

SECONDS_BETWEEN_SAVES = 15.0  # of lists, and at least one pair of blocks


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """The options of a search by blocks, as ``modalign.knn`` documents them.

    Raises:
        TypeError: ``block_size`` or ``max_memory`` is no integer.
        ValueError: ``block_size`` is below 1, or ``fresh`` has no checkpoint to start over.
    """

    max_memory: int | None = None
    block_size: int | None = None
    checkpoint: Path | None = None
    fresh: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        for name, least in (("max_memory", None), ("block_size", 1)):
            number = getattr(self, name)
            if number is not None:
                object.__setattr__(self, name, whole_number("knn", name, number, least=least))
        if self.fresh and self.checkpoint is None:
            raise ValueError("knn: fresh=True starts a checkpoint over: name its folder with checkpoint")

    @property
    def given(self) -> list[str]:
        """The names of the options that ask for a search by blocks."""
        return [name for name in ("max_memory", "block_size", "checkpoint") if getattr(self, name) is not None]


@dataclasses.dataclass(frozen=True)
class Source:
    """A gallery or queries: rows, and their groups [n] int64 or None."""

    rows: Rows
    groups: Tensor | None = None


@standard_arithmetic
def knn_out_of_core(
    x: Rows,
    k: int,
    *,
    queries: Rows | None = None,
    metric: str = "cosine",
    groups: Tensor | None = None,
    query_groups: Tensor | None = None,
    max_memory: int | None = None,
    block_size: int | None = None,
    checkpoint: Path | None = None,
    fresh: bool = False,
    threads: int | None = None,
    progress: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Report]:
    """Find the k rows of ``x`` with the highest score for each query, exactly, with two blocks of rows in memory.

    The neighbours and scores are those of ``modalign.knn``, which calls this function for files and wherever a limit on
    memory or a checkpoint is given.

    Args:
        x: (n, d) rows.
        k: The number of neighbours, from 1 to n, or to n - 1 when x is searched for itself.
        queries: (m, d) rows of x's dtype, or None: every row of x searches for the others.
        metric: "cosine", "dot" or "euclidean".
        groups: (n,) int64 or None, the group of each row of x. A row's neighbours are not of its group.
        query_groups: (m,) int64, the groups of the queries; given where groups and queries are.
        max_memory: The bytes held at most beyond the interpreter, torch and the arguments; None for 4 GB. The results,
            16 k bytes a query, are a part of it. Blocks are as large as it allows.
        block_size: The number of rows in a block, instead of what ``max_memory`` allows.
        checkpoint: A folder from which the same call continues, or None. The lists are written to it every 15 seconds,
            or after each pair of blocks where one takes longer. Every block of rows that it depends on is read once
            more then, and compared by a digest. Its block size is kept where ``block_size`` is None.
        fresh: Whether to start over: remove the files of an earlier call in ``checkpoint``, and no others.
        threads: The number of threads of the search, None for as many as torch has.
        progress: Whether to show progress on standard error.
        backend: "auto" and "cpp" for the CPU, "triton" to search each pair of blocks on the GPU, which must hold two
            blocks, "reference" for the definition.

    Returns:
        Indices (m, k) int64, scores (m, k) float64 in falling order (equal scores by the lower index), and the report
        of the whole search, whose ``proved`` counts at least the rows that no pair of blocks had to redo.

    Raises:
        TypeError: k is no integer, or groups are not int64.
        ValueError: k is out of range, shapes do not match, a row has too few candidates outside its group, rows hold
            NaN or inf, ``max_memory`` is too small, or the checkpoint is damaged or of other settings.
        NotImplementedError: The named backend refuses the rows; the message has its reason.
        OSError: A checkpoint cannot be written. What is finished is kept, and the same call continues.

    Examples:
        >>> import numpy as np
        >>> from modalign.files.rows import open_rows
        >>> from modalign.neighbors import knn_out_of_core
        >>> rows = open_rows(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
        >>> knn_out_of_core(rows, 1, block_size=2)[0].ravel().tolist()
        [1, 0, 1]
    """
    if queries is None and query_groups is not None:
        raise ValueError("knn: query_groups need queries, got None")
    options = SearchOptions(k, metric=metric, backend=backend, threads=threads)
    blocks = BlockOptions(
        max_memory=max_memory, block_size=block_size, checkpoint=checkpoint, fresh=fresh, progress=progress
    )
    searching = None if queries is None else Source(queries, query_groups)
    return search_blocks(Source(x, groups), searching, options, blocks)


def search_blocks(
    x: Source, queries: Source | None, options: SearchOptions, blocks: BlockOptions
) -> tuple[Tensor, Tensor, Report]:
    """Search as ``knn_out_of_core`` does.

    Without queries every pair of blocks is visited once and serves both blocks, and one of the two stays in memory for
    the next pair: B blocks are read about B^2 / 2 times. Float64 rows are read once more, to find their range.
    """
    rows = (x if queries is None else queries).rows
    require_candidates(x, queries, options.k)
    # before anything is written
    no_rows = torch.empty(0, x.rows.shape[1], dtype=x.rows.dtype)
    select(KNN_BLOCKS, "merge", options.backend, (no_rows, x.groups))
    layout = Layout(x.rows, None if queries is None else rows, options.k, options.threads)
    with contextlib.ExitStack() as stack:
        folder = None
        if blocks.checkpoint is not None:
            folder = GraphFolder(Path(blocks.checkpoint))
            stack.enter_context(folder.checkpoint.claimed())
        previous = None if folder is None or blocks.fresh else folder.block_size()
        size = blocks.block_size or choose_block_size(layout, blocks.max_memory, previous)
        lists = BlockLists(rows.shape[0], x.rows.shape[0], k=layout.k, size=size, symmetric=queries is None)
        if rows is x.rows:
            lists.candidate_digests = lists.row_digests
        scale = _find_scale(x, queries, options.metric)
        if folder is not None:
            if blocks.fresh:  # after all that can be refused
                folder.checkpoint.clear()
            folder.begin(_settings(x, queries, options, size=size, scale=scale))
            folder.load(lists)
        search = _BlockSearch(x, queries, options, lists=lists, scale=scale, folder=folder)
        search.run(progress=blocks.progress)
    assert int(lists.indices.min()) >= 0  # every row has k candidates: checked above
    return lists.indices, lists.scores if scale is None else scale.restore(lists.scores), lists.report()


class _BlockSearch:
    """The traversal of the pairs of blocks, of which two are in memory."""

    def __init__(
        self,
        x: Source,
        queries: Source | None,
        options: SearchOptions,
        *,
        lists: BlockLists,
        scale: Scale | None,
        folder: GraphFolder | None,
    ) -> None:
        self.gallery, self.searching = x, x if queries is None else queries
        # torch is asked here: in a new thread of a forked child it may not answer
        self.options = dataclasses.replace(options, threads=options.threads or torch.get_num_threads())
        self.lists, self.scale, self.folder = lists, scale, folder
        self.unsaved: set[int] = set()
        largest = min(lists.size, max(x.rows.shape[0], self.searching.rows.shape[0]))
        # allocated once: the allocator keeps what is freed between blocks
        self.buffers = [torch.empty(largest, x.rows.shape[1], dtype=x.rows.dtype) for _ in range(2)]
        self.held: dict[tuple[Rows, int], Tensor] = {}
        self.saved_at = time.monotonic()

    def run(self, *, progress: bool) -> None:
        """Visit every pair of blocks that the lists lack, and keep the lists in the folder of a checkpoint."""
        self._require_rows_of_checkpoint()
        work = {pair: self._count_pairs(*pair) for pair in self._pairs()}
        finished = sum(count for pair, count in work.items() if not self._missing(*pair))
        with bar(progress) as shown:
            task = shown.add_task("knn", total=sum(work.values()), completed=finished)
            for pair, count in work.items():
                sides = self._missing(*pair)
                if not sides:
                    continue
                blocks = self._load(*pair, sides)
                try:
                    report = watched(partial(self._merge, *blocks), partial(shown.advance, task))
                except BaseException:
                    self._save(self.unsaved - {i for i, _ in sides})  # the lists of these are half merged
                    raise
                self.lists.record(sides, report)
                self.unsaved |= {i for i, _ in sides}
                if time.monotonic() - self.saved_at >= SECONDS_BETWEEN_SAVES:
                    self._save(self.unsaved)
                finished += count
                shown.update(task, completed=finished)
        self._save(self.unsaved)

    def _save(self, blocks: set[int]) -> None:
        """Write the lists of some blocks to the folder of the checkpoint, if there is one."""
        if self.folder is not None and blocks:
            self.folder.save(blocks, self.lists)
        self.unsaved, self.saved_at = self.unsaved - blocks, time.monotonic()

    def _require_rows_of_checkpoint(self) -> None:
        """Raise ValueError if rows that a checkpoint's lists depend on are not those that are read now."""
        tables = {self.gallery.rows: self.lists.candidate_digests, self.searching.rows: self.lists.row_digests}
        for rows, digests in tables.items():
            for i in digests.any(1).nonzero()[0].tolist():
                self._read(rows, i, self.buffers[0])

    def _pairs(self) -> Iterator[tuple[int, int]]:
        """Yield every pair of blocks once; in a self-search, every unordered pair.

        The first stays while the second runs forth and back, so that the blocks in memory at the end of a run are those
        that the next run begins with.
        """
        rows, candidates = self.lists.done.shape
        for i in range(rows):
            partners = range(i if self.lists.symmetric else 0, candidates)
            yield from ((i, j) for j in (partners if i % 2 == 0 else reversed(partners)))

    def _missing(self, i: int, j: int) -> list[Side]:
        """Return the sides of a pair that are not folded in yet: (searching block, block of candidates)."""
        sides = dict.fromkeys([(i, j), (j, i)] if self.lists.symmetric else [(i, j)])
        return [side for side in sides if not self.lists.done[side]]

    def _count_pairs(self, i: int, j: int) -> int:
        """Return the number of pairs of rows in a pair of blocks."""
        size, n, m = self.lists.size, self.gallery.rows.shape[0], self.searching.rows.shape[0]
        return min(size, m - i * size) * min(size, n - j * size)

    def _load(self, i: int, j: int, sides: list[Side]) -> tuple[RowBlock, RowBlock | None]:
        """Read the blocks of a pair that are not in memory."""
        keys = (self.searching.rows, i), (self.gallery.rows, j)
        for key in keys:
            if key not in self.held:
                for other in self.held.keys() - set(keys):
                    self.buffers.append(self.held.pop(other))
                self.held[key] = self._read(*key, self.buffers.pop())
        first = self._block(self.searching, i, wanted=(i, j) in sides)
        if self.lists.symmetric and i == j:
            return first, None
        return first, self._block(self.gallery, j, wanted=self.lists.symmetric and (j, i) in sides)

    def _read(self, rows: Rows, i: int, buffer: Tensor) -> Tensor:
        start, stop = i * self.lists.size, min((i + 1) * self.lists.size, rows.shape[0])
        block = rows.read(start, stop, buffer)
        if self.folder is not None:
            digests = self.lists.row_digests if rows is self.searching.rows else self.lists.candidate_digests
            digest = digest_of_rows(block)
            if digests[i].any() and (digests[i] != digest).any():
                raise ValueError(
                    f"{rows.name}: rows {start} to {stop - 1} are not those that the lists in "
                    f"{self.folder.checkpoint.folder} were made from; {self.folder.checkpoint.advice}"
                )
            digests[i] = digest
        if self.scale is not None:
            self.scale.apply(block)
        return buffer

    def _block(self, source: Source, i: int, *, wanted: bool) -> RowBlock:
        """Return block i of a source, with its lists if they are wanted."""
        start, stop = i * self.lists.size, (i + 1) * self.lists.size
        return RowBlock(
            self.held[source.rows, i][: source.rows.shape[0] - start],
            None if source.groups is None else source.groups[start:stop],
            start=start,
            best=self.lists.best(i) if wanted else None,
        )

    def _merge(self, x: RowBlock, y: RowBlock | None, watch: Watch) -> Report:
        return merge(x, y, dataclasses.replace(self.options, watch=watch))


def _find_scale(x: Source, queries: Source | None, metric: str) -> Scale | None:
    if x.rows.dtype != torch.float64:
        return None
    tables = [x.rows] if queries is None else [x.rows, queries.rows]
    return find_scale((piece for rows in tables for piece in rows.pieces()), metric)


def _settings(
    x: Source, queries: Source | None, options: SearchOptions, *, size: int, scale: Scale | None
) -> dict[str, object]:
    """Return what a checkpoint's lists depend on."""
    settings: dict[str, object] = {
        "k": options.k,
        "metric": options.metric,
        "block_size": size,
        "x": x.rows.fingerprint(),
        "queries": None if queries is None else queries.rows.fingerprint(),
        "groups": _digest(x.groups),
        "query_groups": None if queries is None else _digest(queries.groups),
    }
    if scale is not None:
        settings["scale"] = "each row" if scale.exponent is None else scale.exponent
    return settings


def _digest(groups: Tensor | None) -> str | None:
    return None if groups is None else hashlib.sha256(groups.contiguous().numpy().data).hexdigest()
