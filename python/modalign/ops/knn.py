"""The knn operator: for each query row, the k gallery rows of the highest score, in float64 order.

The score is computed in float64 from the stored values, feature by feature in order (s += x_c * y_c, no fused
multiply-add), so that it is one number whatever computes it:

    dot        sum_c x_c y_c
    cosine     (sum_c x_c y_c) / |x| / |y|,  0 where a row is zero
    euclidean  -sum_c (x_c - y_c)^2

Equal scores are ordered by the lower index. Without queries the gallery is searched for itself, each row excluded by
its id. x: [n, d], queries: [m, d] or None; returns indices [m, k] int64 and scores [m, k] (float64 for float64 inputs,
else float32). Rows of equal groups, int64 numbers, are no neighbours.
"""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modalign.common.dtypes import FLOATS, HALF_AND_FLOAT, accumulator
from modalign.common.interruption import Watch
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

__all__ = ["DTYPES", "KNN", "KNN_BLOCKS", "METRICS", "Best", "Report", "knn", "merge", "merge_bytes", "search"]

METRICS = ("cosine", "dot", "euclidean")
DTYPES = (*FLOATS, torch.int8)


def _refused_by_triton(x: Tensor, *rest: object) -> str | None:
    return no_triton(x) or wrong_dtype(x, HALF_AND_FLOAT)


KNN = Operation(
    "knn",
    (
        Implementation(
            "cuda",
            {"search": "modalign.ops._cuda:knn"},
            lambda x, *_: no_hopper(x) or wrong_dtype(x, HALF_AND_FLOAT),
            not_measured,
        ),
        Implementation(
            "triton", {"search": "modalign.kernels.knn.search:knn"}, _refused_by_triton, interpreter_is_for_tests
        ),
        Implementation(
            "cpp", {"search": "modalign.ops._cpp:knn"}, lambda x, *_: not_on_cpu(x) or wrong_dtype(x, DTYPES)
        ),
        Implementation("reference", {"search": "modalign.reference.knn:knn"}, lambda x, *_: wrong_dtype(x, DTYPES)),
    ),
)


def _refused_by_gpu_blocks(x: Tensor, groups: Tensor | None = None) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if not (triton_interpreted() or torch.cuda.is_available()):
        return "torch sees no GPU"
    return wrong_dtype(x, HALF_AND_FLOAT)


# of blocks in the host's memory; triton takes them to the GPU
KNN_BLOCKS = Operation(
    "knn_blocks",
    (
        Implementation(
            "cpp", {"merge": "modalign.ops._cpp:knn_merge"}, lambda x, *_: not_on_cpu(x) or wrong_dtype(x, DTYPES)
        ),
        Implementation("triton", {"merge": "modalign.kernels.knn.block_pairs:merge"}, _refused_by_gpu_blocks),
        Implementation(
            "reference",
            {"merge": "modalign.reference.knn:merge"},
            lambda x, *_: not_on_cpu(x) or wrong_dtype(x, DTYPES),
        ),
    ),
)

Best = tuple[Tensor, Tensor]  # indices [rows, k] int64 and scores [rows, k] float64, best first; -1, -inf where empty


class Report(NamedTuple):
    """What the screen was, how many searching rows it proved, how many it left to float64 alone or to a second screen,
    and how many pairs of rows float64 decided."""

    screen: str
    proved: int
    redone: int
    scored: int


def search(
    x: Tensor, queries: Tensor | None, k: int, metric: str, *, groups: Tensor | None = None,
    query_groups: Tensor | None = None, backend: str = "auto", threads: int | None = None, watch: Watch | None = None,
) -> tuple[Tensor, Tensor, Report]:  # fmt: skip
    """Indices, scores, and what it took. Every row must have k candidates outside its group."""
    run = select(KNN, "search", backend, x, queries, k, metric, groups)
    more: dict[str, Any] = {} if groups is None else {"groups": groups, "query_groups": query_groups}
    if run.__module__ == "modalign.ops._cpp":
        more |= {"threads": threads, "watch": watch}
    indices, scores, *report = run(x, queries, k, metric, **more)
    return indices, scores.to(accumulator(x.dtype)), Report(*(report[0] if report else ("none", 0, len(indices), 0)))


def merge(
    x: Tensor, y: Tensor | None, metric: str, x_best: Best | None, y_best: Best | None, *,
    x_start: int = 0, y_start: int = 0, x_groups: Tensor | None = None, y_groups: Tensor | None = None,
    threads: int | None = None, watch: Watch | None = None, backend: str = "auto",
) -> Report:  # fmt: skip
    """Fold the pairs of rows of x with rows of y into the lists of best neighbours of either, in place, in the host's
    memory.
    x: [n, d], the rows x_start, x_start + 1, .. of a set; y: [m, d], likewise, or None: x with itself, each row left
    out of its own list. x_best: lists of x's rows, for which y's rows are candidates; y_best the reverse; None for a
    side that wants none. Candidates are numbered from x_start and y_start. Rows of equal groups [n], [m] int64 are no
    neighbours. A pair must be folded in once only. The order is that of ``knn``.
    """
    run = select(KNN_BLOCKS, "merge", backend, x, x_groups)
    return Report(
        *run(
            x, y, metric, x_best, y_best, x_start=x_start, y_start=y_start, x_groups=x_groups, y_groups=y_groups,
            threads=threads, watch=watch,
        )
    )  # fmt: skip


def merge_bytes(n: int, m: int, d: int, k: int, threads: int | None = None) -> int:
    """What ``merge`` of n with m rows (0: with itself) holds at most beyond its arguments."""
    from modalign.ops import _cpp

    return _cpp.knn_bytes(n, m, d, k, threads)


@torch.library.custom_op("modalign::knn", mutates_args=())
def knn(x: Tensor, queries: Tensor | None, k: int, metric: str, backend: str) -> tuple[Tensor, Tensor]:
    indices, scores, _ = search(x, queries, k, metric, backend=backend)
    return indices, scores


@knn.register_fake
def _(x: Tensor, queries: Tensor | None, k: int, metric: str, backend: str) -> tuple[Tensor, Tensor]:
    shape = (len(x if queries is None else queries), k)
    return x.new_empty(shape, dtype=torch.int64), x.new_empty(shape, dtype=accumulator(x.dtype))
