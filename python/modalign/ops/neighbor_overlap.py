"""The operator neighbor_overlap: the number of neighbours that two graphs share, for every k' <= k at once.

    counts[i, r] = | {a_i0 .. a_ir} & {b_i0 .. b_ir} |

    a, b: [n, k] int64, distinct indices in each row, nearest first  ->  counts: [n, k] int32

A common neighbour counts from the larger of its two ranks on, so one merge of the two lists gives every k'.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.ops import _examples
from modalign.ops._refusals import interpreter_is_for_tests, no_cuda_module, no_triton, not_on_cpu, wrong_dtype
from modalign.ops.dispatch import Implementation, Operation, select

__all__ = ["NEIGHBOR_OVERLAP", "neighbor_overlap"]

NEIGHBOR_OVERLAP = Operation(
    "neighbor_overlap",
    (
        Implementation(
            "cuda",
            {"count": "modalign.ops._cuda:neighbor_overlap"},
            lambda a, *_: no_cuda_module(a) or wrong_dtype(a, (torch.int64,)),
        ),
        Implementation(
            "triton",
            {"count": "modalign.kernels.knn.neighbor_overlap:neighbor_overlap"},
            lambda a, *_: no_triton(a) or wrong_dtype(a, (torch.int64,)),
            interpreter_is_for_tests,
        ),
        Implementation(
            "cpp",
            {"count": "modalign.ops._cpp:neighbor_overlap"},
            lambda a, *_: not_on_cpu(a) or wrong_dtype(a, (torch.int64,)),
        ),
        Implementation(
            "reference",
            {"count": "modalign.reference.neighbor_overlap:neighbor_overlap"},
            lambda a, *_: wrong_dtype(a, (torch.int64,)),
        ),
    ),
    _examples.two_graphs,
)


@torch.library.custom_op("modalign::neighbor_overlap", mutates_args=())
def neighbor_overlap(a: Tensor, b: Tensor, backend: str) -> Tensor:
    """Return the counts of shared neighbours."""
    count = select(NEIGHBOR_OVERLAP, "count", backend, (a, b))
    counts: Tensor = count(a.contiguous(), b.contiguous())
    return counts


@neighbor_overlap.register_fake
def _(a: Tensor, b: Tensor, backend: str) -> Tensor:
    return a.new_empty(a.shape, dtype=torch.int32)
