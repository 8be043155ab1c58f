"""The public functions of neighbours: contracts, checks of the arguments, and docstrings. ``ops`` computes them."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalign.common.arithmetic import standard_arithmetic
from modalign.common.checks import LARGEST_SEED, whole_number
from modalign.common.conversion import as_array
from modalign.common.dtypes import accumulator
from modalign.common.interruption import Watch, watched
from modalign.common.labels import Labels, label_tensor, label_tensors
from modalign.common.progress import bar
from modalign.common.tensors import as_tensor
from modalign.common.types import Array
from modalign.files.paths import expanded
from modalign.files.rows import Rows, RowSource, open_rows
from modalign.neighbors.approximate import approximate_knn
from modalign.neighbors.block_size import bytes_of
from modalign.neighbors.blocks import BlockOptions, Source, search_blocks
from modalign.neighbors.candidates import require_candidates
from modalign.neighbors.graph import Certificate, Neighbors, indices_of
from modalign.neighbors.rows_in_range import Scale, find_scale
from modalign.ops.knn import DTYPES, Report, RowBlock, SearchOptions, search
from modalign.ops.neighbor_overlap import neighbor_overlap as _neighbor_overlap

__all__ = ["knn", "neighbor_overlap"]


@standard_arithmetic
def knn(
    x: RowSource,
    k: int,
    *,
    queries: RowSource | None = None,
    metric: str = "cosine",
    groups: Labels | None = None,
    query_groups: Labels | None = None,
    exact: bool = True,
    max_memory: int | str | None = None,
    block_size: int | None = None,
    checkpoint: str | Path | None = None,
    fresh: bool = False,
    num_threads: int | None = None,
    progress: bool = False,
    seed: int = 0,
    backend: str = "auto",
) -> Neighbors:
    """Find the k rows of ``x`` with the highest score for each query, exactly.

    The score is the float64 score of the stored values, its sum taken in the order of the features:

        cosine      <q, x_j> / |q| |x_j|, and 0 for a zero row
        dot         <q, x_j>
        euclidean   -|q - x_j|^2

    Equal scores are ordered by the lower index. Low precision is used only to discard rows that a proved error bound
    excludes, so every backend, block size, thread count and machine returns the same indices.

    Args:
        x: (n, d) float16, bfloat16, float32, float64 or integers (int8 as they are, others as the floating-point dtype
            that holds them). The gallery: a NumPy array (memory-mapped ones too), a tensor, a data frame of numbers, a
            list of rows, or the path of a file that may be larger than memory: "rows.npy", "rows.safetensors:tensor",
            "rows.parquet:column". ``modalign.files.rows.open_rows`` lists the files; what it returns is taken too.
        k: int from 1 to n, or to n - 1 when x is searched for itself. The number of neighbours of a row.
        queries: (m, d) of x's dtype, or None. The rows that search. None: every row of x searches for the others; a row
            is excluded from its own list by its index, so a duplicate of a row is its neighbour.
        metric: "cosine", "dot" or "euclidean".
        groups: (n,) labels (whole numbers, text or categories), or None. The group of each row of x: rows of a query's
            group are not its neighbours (captions of one image, frames of one film).
        query_groups: (m,) labels, or None. The groups of the queries; needed where queries and groups are given.
        exact: bool. False for an approximate search by pynndescent (``pip install pynndescent``), whose recall is
            measured; see ``modalign.neighbors.approximate_knn``.
        max_memory: int of bytes, a string such as "8GB", or None. Search block by block and hold at most this much
            beyond the arguments. A file is always searched this way, in 4 GB by default.
        block_size: int or None. The number of rows in a block, instead of what ``max_memory`` allows.
        checkpoint: path or None. A folder where a search by blocks keeps what is finished. If the search is killed, at
            any moment, the same call continues it.
        fresh: bool. Remove what an earlier search left in ``checkpoint`` and start over.
        num_threads: int or None. The number of threads of a search on the CPU; None for as many as torch has.
        progress: bool. Show progress on standard error: a bar on a terminal, lines in a log.
        seed: int, 0 to 2^32 - 1. The seed of an approximate search.
        backend: "auto" or a name; ``modalign.explain("knn", x)`` lists them. A search by blocks runs on the CPU, or
            with "triton" on the GPU, block by block, for files and rows larger than its memory. "cuda" screens large
            galleries by a compiled kernel, on GPUs of compute capability 9.0.

    Returns:
        ``modalign.Neighbors`` with indices (m, k) int64, scores (m, k) in falling order (float64 for float64 rows, else
        float32) and a certificate that says how the neighbours are known. NumPy arrays for a NumPy array or a file,
        tensors for a tensor.

        Peak memory beyond arguments and results, on the CPU: at most 4 d bytes a row (d where the int8 screen serves,
        2 d for int16), 8 max(64, 2 k + 32) + 100 bytes a query, and 10 MB; never O(n m). With ``max_memory`` no more
        than that.

    Raises:
        TypeError: x or queries is no array of these dtypes, or an option is of another type.
        ValueError: k is out of range; shapes do not match; rows hold NaN or inf (the first are named); a query has
            fewer than k candidates outside its group; options exclude each other; ``max_memory`` is too small (the
            message names the least that would do); the checkpoint is damaged or of other settings.
        OSError: A file or a checkpoint cannot be read or written.
        NotImplementedError: The named backend refuses the call; the message has its reason.

    Source: the neighbour sets of mutual k-NN, Huh et al. 2024 (arXiv:2405.07987).

    Examples:
        >>> import numpy as np, modalign
        >>> x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> modalign.knn(x, k=1).indices.ravel().tolist()
        [1, 0, 1]
        >>> modalign.knn(x, k=1, groups=[0, 0, 1]).indices.ravel().tolist()
        [2, 2, 1]
    """
    options = SearchOptions(k, metric=metric, backend=backend, threads=num_threads)
    blocks = BlockOptions(
        max_memory=None if max_memory is None else bytes_of(max_memory, "knn: max_memory"),
        block_size=block_size,
        checkpoint=None if checkpoint is None else expanded(checkpoint),
        fresh=fresh,
        progress=progress,
    )
    if query_groups is not None and groups is None:
        raise ValueError("knn: query_groups needs groups")
    if not exact and blocks.given:
        raise ValueError(f"knn: exact=False holds everything in memory: it excludes {', '.join(blocks.given)}")
    seed = whole_number("knn", "seed", seed, least=0, most=LARGEST_SEED)
    if not exact and groups is not None:
        raise ValueError("knn: exact=False takes no groups")
    row_groups, searching_groups = _group_labels(groups, query_groups)
    if not isinstance(x, (str, Path, Rows)):
        x = as_array("knn: x", x)
    if blocks.given or isinstance(x, (str, Path, Rows)):
        if queries is None and query_groups is not None:
            raise ValueError("knn: query_groups need queries, got None")
        source = Source(open_rows(x), row_groups)
        searching = None if queries is None else Source(open_rows(queries, "queries"), searching_groups)
        indices, scores, report = search_blocks(source, searching, options, blocks)
        scores, certificate = scores.to(accumulator(source.rows.dtype)), Certificate(*report)
        candidates = source.rows.shape[0]
    else:
        gallery = RowBlock(as_tensor("knn: x", x, DTYPES), row_groups)
        rows = None if queries is None else RowBlock(as_tensor("knn: queries", queries, DTYPES), searching_groups)
        require_candidates(gallery, rows, options.k)
        search_rows = _search_exactly if exact else partial(_search_approximately, seed=seed)
        scale = _find_scale(gallery, rows, metric)
        if scale is not None:
            gallery, rows = _scaled(gallery, scale), None if rows is None else _scaled(rows, scale)
        indices, scores, certificate = search_rows(gallery, rows, options, progress=progress)
        scores = scores if scale is None else scale.restore(scores)
        scores, candidates = scores.to(accumulator(gallery.rows.dtype)), len(gallery.rows)
    if not bool(scores.isfinite().all()):
        raise ValueError(f"knn: the {metric} scores overflow {scores.dtype}; scale the rows down or use float64")
    graph = Neighbors(indices, scores, metric, candidates, certificate=certificate, queries=queries is not None)
    return graph if isinstance(x, torch.Tensor) else graph.as_numpy()


def _group_labels(groups: Labels | None, query_groups: Labels | None) -> tuple[Tensor | None, Tensor | None]:
    """Return both groups as int64 tensors, numbered alike."""
    if groups is None or query_groups is None:
        return None if groups is None else label_tensor("knn: groups", groups), None
    row_groups, searching_groups = label_tensors({"knn: groups": groups, "knn: query_groups": query_groups})
    return row_groups, searching_groups


def _find_scale(x: RowBlock, queries: RowBlock | None, metric: str) -> Scale | None:
    if x.rows.dtype != torch.float64:
        return None
    return find_scale((block.rows for block in (x, queries) if block is not None), metric)


def _scaled(block: RowBlock, scale: Scale) -> RowBlock:
    return dataclasses.replace(block, rows=scale.apply(block.rows.clone()))


def _search_exactly(
    x: RowBlock, queries: RowBlock | None, options: SearchOptions, *, progress: bool
) -> tuple[Tensor, Tensor, Certificate]:
    if x.rows.device.type != "cpu":
        indices, scores, report = search(x, queries, options)
        return indices, scores, Certificate(*report)

    # torch is asked here: in a new thread of a forked child it may not answer
    threads = options.threads or torch.get_num_threads()

    def run(watch: Watch) -> tuple[Tensor, Tensor, Report]:
        return search(x, queries, dataclasses.replace(options, threads=threads, watch=watch))

    with bar(progress) as shown:
        task = shown.add_task("knn", total=len(x.rows) * len((x if queries is None else queries).rows))
        indices, scores, report = watched(run, partial(shown.advance, task))
    return indices, scores, Certificate(*report)


def _search_approximately(
    x: RowBlock, queries: RowBlock | None, options: SearchOptions, *, seed: int, progress: bool
) -> tuple[Tensor, Tensor, Certificate]:
    rows = None if queries is None else queries.rows
    indices, scores, recall = approximate_knn(
        x.rows, options.k, queries=rows, metric=options.metric, seed=seed, threads=options.threads, progress=progress
    )
    return indices, scores, Certificate("pynndescent", 0, 0, 0, recall=recall)


def neighbor_overlap(a: Neighbors | Array, b: Neighbors | Array, *, backend: str = "auto") -> Any:
    """Count the neighbours that two k-NN graphs share, for every k' <= k from one merge of the lists.

        counts[i, r] = | {a_i0 .. a_ir} & {b_i0 .. b_ir} |

    Args:
        a: ``Neighbors``, or (n, k) integers, nearest first and distinct in each row.
        b: The graph to compare with, of the same shape.
        backend: "auto" or a name; ``modalign.explain("neighbor_overlap", a, b)`` lists them.

    Returns:
        Counts (n, k) int32, a tensor if a holds tensors, else a NumPy array. Memory: the result and O(k) a thread.

    Raises:
        TypeError: The indices are not integers.
        ValueError: The shapes differ, a row repeats an index, or an index is missing: below 0, or the largest integer.

    Examples:
        >>> import torch, modalign
        >>> modalign.neighbor_overlap(torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 4]])).tolist()
        [[0, 2, 2]]
    """
    left, right = (indices_of(f"neighbor_overlap: {name}", graph) for name, graph in (("a", a), ("b", b)))
    for name, graph in (("a", left), ("b", right)):
        if bool((graph.sort(dim=1).values.diff(dim=1) == 0).any()):
            raise ValueError(f"neighbor_overlap: each row of {name} must hold distinct indices, got a repeated one")
        if graph.numel() and int(graph.min()) < 0:
            raise ValueError(f"neighbor_overlap: indices of {name} must be 0 or more, got {int(graph.min())}")
    if left.shape != right.shape or left.numel() == 0:
        raise ValueError(
            "neighbor_overlap: a and b must have one shape (n, k) with n, k >= 1, "
            f"got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    counts = _neighbor_overlap(left, right, backend)
    return counts if isinstance(a.indices if isinstance(a, Neighbors) else a, torch.Tensor) else counts.numpy()
