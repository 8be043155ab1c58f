"""The knn operator: for each query row, the k gallery rows of the highest score, in float64 order.

The score is computed in float64 from the stored values, feature by feature in order (s += x_c * y_c, no fused
multiply-add), so that it is one number whatever computes it:

    dot        sum_c x_c y_c
    cosine     (sum_c x_c y_c) / |x| / |y|,  0 where a row is zero
    euclidean  -sum_c (x_c - y_c)^2

Equal scores are ordered by the lower index. Without queries the gallery is searched for itself, each row excluded by
its id. x: [n, d], queries: [m, d] or None; returns indices [m, k] int64 and scores [m, k] (float64 for float64 inputs,
else float32).
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.backends import Implementation, Operation, select
from modalign.ops._refusals import FLOATS, HALF_AND_FLOAT, interpreter_is_for_tests, no_triton, not_on_cpu, wrong_dtype
from modalign.ops.info_nce import accumulator

__all__ = ["KNN", "METRICS", "knn"]

METRICS = ("cosine", "dot", "euclidean")

KNN = Operation(
    "knn",
    (
        Implementation(
            "triton",
            {"search": "modalign.kernels.knn:knn"},
            lambda x, *_: no_triton(x) or wrong_dtype(x, HALF_AND_FLOAT),
            interpreter_is_for_tests,
        ),
        Implementation(
            "cpp", {"search": "modalign.ops._cpp:knn"}, lambda x, *_: not_on_cpu(x) or wrong_dtype(x, FLOATS)
        ),
        Implementation("reference", {"search": "modalign.reference.knn:knn"}, lambda x, *_: wrong_dtype(x, FLOATS)),
    ),
)


@torch.library.custom_op("modalign::knn", mutates_args=())
def knn(x: Tensor, queries: Tensor | None, k: int, metric: str, backend: str) -> tuple[Tensor, Tensor]:
    search = select(KNN, "search", backend, x, queries, k, metric)
    indices, scores = search(x, queries, k, metric)
    return indices, scores.to(accumulator(x.dtype))


@knn.register_fake
def _(x: Tensor, queries: Tensor | None, k: int, metric: str, backend: str) -> tuple[Tensor, Tensor]:
    shape = (len(x if queries is None else queries), k)
    return x.new_empty(shape, dtype=torch.int64), x.new_empty(shape, dtype=accumulator(x.dtype))
