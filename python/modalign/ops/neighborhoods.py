"""The operators on two k-NN graphs: a score for every item, and the number of shared edges under relabellings.

    neighborhood_scores   a, b: [n, k] int64, distinct indices in each row, nearest first  ->  [n] float64
    relabelled_overlap    a, b and relabellings: [n] or [p, n] int64, permutations of 0 .. n - 1  ->  [] or [p] int64

"cycle_knn", "reciprocity" and ``relabelled_overlap`` follow indices from one list to another, which must lie in
0 .. n - 1. ``modalign.reference.neighborhoods`` defines every score.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.ops import _examples
from modalign.ops._refusals import not_on_cpu, wrong_dtype
from modalign.ops.dispatch import Implementation, Operation, select

__all__ = [
    "FOLLOWED",
    "NEIGHBORHOOD_SCORES",
    "RELABELLED_OVERLAP",
    "SCORES",
    "neighborhood_scores",
    "relabelled_overlap",
]

# scores that follow indices to other lists; the others compare the two lists of an item
FOLLOWED = ("cycle_knn", "reciprocity")
SCORES = ("mutual_knn", "jaccard_knn", "rank_similarity", "lcs_knn", "edit_distance_knn", *FOLLOWED)


def _operation(name: str, role: str) -> Operation:
    """Return the operation with its compiled and its reference implementation."""
    return Operation(
        name,
        (
            Implementation(
                "cpp",
                {role: f"modalign.ops._cpp:{name}"},
                lambda a, *_: not_on_cpu(a) or wrong_dtype(a, (torch.int64,)),
            ),
            Implementation(
                "reference",
                {role: f"modalign.reference.neighborhoods:{name}"},
                lambda a, *_: wrong_dtype(a, (torch.int64,)),
            ),
        ),
        _examples.two_graphs,
    )


NEIGHBORHOOD_SCORES = _operation("neighborhood_scores", "score")
RELABELLED_OVERLAP = _operation("relabelled_overlap", "count")


@torch.library.custom_op("modalign::neighborhood_scores", mutates_args=())
def neighborhood_scores(a: Tensor, b: Tensor, name: str, backend: str) -> Tensor:
    """Return the score of every item; ``name`` is one of ``SCORES``."""
    assert name in SCORES, name
    scores: Tensor = select(NEIGHBORHOOD_SCORES, "score", backend, (a, b))(a, b, name)
    return scores


@neighborhood_scores.register_fake
def _(a: Tensor, b: Tensor, name: str, backend: str) -> Tensor:
    return a.new_empty(a.shape[0], dtype=torch.float64)


@torch.library.custom_op("modalign::relabelled_overlap", mutates_args=())
def relabelled_overlap(a: Tensor, b: Tensor, relabellings: Tensor, backend: str) -> Tensor:
    """Return the number of edges (i, j) of a for which (s(i), s(j)) is an edge of b, for each relabelling s."""
    totals: Tensor = select(RELABELLED_OVERLAP, "count", backend, (a, b))(a, b, relabellings)
    return totals


@relabelled_overlap.register_fake
def _(a: Tensor, b: Tensor, relabellings: Tensor, backend: str) -> Tensor:
    return relabellings.new_empty(relabellings.shape[:-1])
