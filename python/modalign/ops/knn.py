"""k nearest neighbours: for each query row, the k gallery rows of the highest score, in float64 order.

The score is computed in float64 from the stored values, feature by feature in order (s += x_c * y_c, no fused
multiply-add), so that every backend computes the same number:

    dot        sum_c x_c y_c
    cosine     (sum_c x_c y_c) / |x| / |y|,  0 where a row is zero
    euclidean  -sum_c (x_c - y_c)^2

Equal scores are ordered by the lower index. Without queries the gallery is searched for itself, each row excluded by
its index. Rows of equal groups are no neighbours. ``search`` takes whole sets, ``merge`` a pair of blocks.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from modalign.common.dtypes import FLOATS, HALF_AND_FLOAT, accumulator
from modalign.ops import _examples
from modalign.ops._refusals import (
    interpreter_is_for_tests,
    no_hopper,
    no_triton,
    not_measured,
    not_on_cpu,
    triton_interpreted,
    wrong_dtype,
)
from modalign.ops.dispatch import Implementation, Operation, select
from modalign.ops.knn_tables import METRICS, Report, RowBlock, SearchOptions

__all__ = [
    "DTYPES",
    "KNN",
    "KNN_BLOCKS",
    "METRICS",
    "Report",
    "RowBlock",
    "SearchOptions",
    "merge",
    "merge_bytes",
    "search",
]

DTYPES = (*FLOATS, torch.int8)


def _refused_by_triton(x: Tensor, *rest: object) -> str | None:
    return no_triton(x) or wrong_dtype(x, HALF_AND_FLOAT)


KNN = Operation(
    "knn",
    (
        Implementation(
            "cuda",
            {"search": "modalign.ops._cuda:search"},
            lambda x, *_: no_hopper(x) or wrong_dtype(x, HALF_AND_FLOAT),
            not_measured,
        ),
        Implementation(
            "triton", {"search": "modalign.kernels.knn.search:search"}, _refused_by_triton, interpreter_is_for_tests
        ),
        Implementation(
            "cpp", {"search": "modalign.ops._cpp:search"}, lambda x, *_: not_on_cpu(x) or wrong_dtype(x, DTYPES)
        ),
        Implementation("reference", {"search": "modalign.reference.knn:search"}, lambda x, *_: wrong_dtype(x, DTYPES)),
    ),
    _examples.rows,
)


def _refused_by_gpu_blocks(x: Tensor, groups: Tensor | None = None) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if not (triton_interpreted() or torch.cuda.is_available()):
        return "torch sees no GPU"
    return wrong_dtype(x, HALF_AND_FLOAT)


# the blocks are in host memory; triton copies them to the GPU
KNN_BLOCKS = Operation(
    "knn_blocks",
    (
        Implementation(
            "cpp", {"merge": "modalign.ops._cpp:merge"}, lambda x, *_: not_on_cpu(x) or wrong_dtype(x, DTYPES)
        ),
        Implementation("triton", {"merge": "modalign.kernels.knn.block_pairs:merge"}, _refused_by_gpu_blocks),
        Implementation(
            "reference",
            {"merge": "modalign.reference.knn:merge"},
            lambda x, *_: not_on_cpu(x) or wrong_dtype(x, DTYPES),
        ),
    ),
    lambda _: _examples.rows("cpu"),  # the blocks are in host memory
)


def search(x: RowBlock, queries: RowBlock | None, options: SearchOptions) -> tuple[Tensor, Tensor, Report]:
    """Search a gallery for the neighbours of queries, or of its own rows.

    Args:
        x: The gallery.
        queries: Rows of x's width and dtype, with groups if x has groups; None to search x for itself.
        options: Every searching row must have ``options.k`` candidates outside its group.

    Returns:
        Indices [m, k] int64, scores [m, k] (float64 for float64 rows, else float32), and a report.
    """
    rows = None if queries is None else queries.rows
    run = select(KNN, "search", options.backend, (x.rows, rows, options.k, options.metric, x.groups))
    indices, scores, report = run(x, queries, options)
    return indices, scores.to(accumulator(x.rows.dtype)), Report(*report)


def merge(x: RowBlock, y: RowBlock | None, options: SearchOptions) -> Report:
    """Fold the pairs of rows of x with rows of y into the lists of neighbours of either, in place, in host memory.

    A pair of rows must be folded in once only. The order of a list is that of ``search``.

    Args:
        x: Rows with the lists for which y's rows are candidates.
        y: Rows of another block with the lists for which x's rows are candidates; None for the pairs of rows within x,
            where a row is no candidate of its own list.
        options: ``k`` is the length of the lists; the groups of the rows are those of the blocks.
    """
    run = select(KNN_BLOCKS, "merge", options.backend, (x.rows, x.groups))
    return Report(*run(x, y, options))


def merge_bytes(n: int, m: int, *, d: int, k: int, threads: int | None = None) -> int:
    """Return the bytes that ``merge`` of n with m rows (0: with themselves) holds at most beyond its arguments."""
    from modalign.ops import _cpp

    return _cpp.knn_bytes(n, m, d=d, k=k, threads=threads)
