"""Definitions of the scores of two lists of neighbours, and of the edges that two graphs share under a relabelling.

A score takes a boolean tensor of equal entries for a block of items: ``same[i, r, q]`` says whether the entry of b_i at
rank r is that of a_i at rank q, and ``back[i, r, q]`` whether the entry at rank q of a_j is i, for j = b_ir. Ranks in
formulas count from 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 22


def neighborhood_scores(a: Tensor, b: Tensor, name: str) -> Tensor:
    """Return the score of each row of a and b ([n, k] int64, distinct in each row), [n] float64."""
    blocks = _blocks(a)
    if name in FOLLOWED:
        parts = [FOLLOWED[name](a[b[rows]] == rows[:, None, None]) for rows in blocks]
    else:
        parts = [SCORES[name](b[rows, :, None] == a[rows, None, :]) for rows in blocks]
    return torch.cat(parts)


def mutual_knn(same: Tensor) -> Tensor:
    """Return |A & B| / k."""
    return same.sum((1, 2)).double() / same.shape[1]


def jaccard_knn(same: Tensor) -> Tensor:
    """Return |A & B| / |A | B|."""
    both = same.sum((1, 2)).double()
    return both / (2 * same.shape[1] - both)


def rank_similarity(same: Tensor) -> Tensor:
    """Return the sum over common j of 2 / ((1 + |r - q|) (r + q)), over 1 + 1/2 + .. + 1/|A & B|."""
    rank = torch.arange(1, same.shape[1] + 1, dtype=torch.float64, device=same.device)
    weight = 2 / ((1 + (rank[:, None] - rank).abs()) * (rank[:, None] + rank))
    harmonic = torch.cat([rank.new_ones(1), (1 / rank).cumsum(0)])  # 0 / 1 where nothing is common
    return (same * weight).sum((1, 2)) / harmonic[same.sum((1, 2))]


def lcs_knn(same: Tensor) -> Tensor:
    """Return the longest common subsequence / k: L_rq = max(L_r-1,q, L_r,q-1, L_r-1,q-1 + [b_r = a_q])."""
    length = same.new_zeros(len(same), same.shape[1] + 1, dtype=torch.int64)
    for row in same.unbind(1):
        length[:, 1:] = torch.maximum(length[:, 1:], length[:, :-1] + row)
        length = length.cummax(1).values
    return length[:, -1].double() / same.shape[1]


def edit_distance_knn(same: Tensor) -> Tensor:
    """Return 1 - Levenshtein / k.

    D_rq = min(D_r-1,q + 1, D_r,q-1 + 1, D_r-1,q-1 + [b_r != a_q])      D_r0 = r, D_0q = q
    """
    k = same.shape[1]
    across = torch.arange(k + 1, device=same.device)
    distance = across.expand(len(same), -1)
    for row in same.unbind(1):
        step = torch.minimum(distance[:, 1:] + 1, distance[:, :-1] + ~row)
        # a step to the right costs 1, so the least cost from the left is a running minimum of cost less column
        distance = torch.cat([distance[:, :1] + 1, step], 1).sub(across).cummin(1).values + across
    return 1 - distance[:, -1].double() / k


def cycle_knn(back: Tensor) -> Tensor:
    """Return 1 where i is in A_j for some j in B_i, else 0."""
    return back.any(2).any(1).double()


def reciprocity(back: Tensor) -> Tensor:
    """Return the share of j in B_i with i in A_j."""
    return back.any(2).sum(1).double() / back.shape[1]


SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "mutual_knn": mutual_knn,
    "jaccard_knn": jaccard_knn,
    "rank_similarity": rank_similarity,
    "lcs_knn": lcs_knn,
    "edit_distance_knn": edit_distance_knn,
}
FOLLOWED: dict[str, Callable[[Tensor], Tensor]] = {"cycle_knn": cycle_knn, "reciprocity": reciprocity}


def relabelled_overlap(a: Tensor, b: Tensor, relabellings: Tensor) -> Tensor:
    """Return the number of edges (i, j) of a for which (s(i), s(j)) is an edge of b.

    Args:
        a: [n, k] int64.
        b: [n, k] int64.
        relabellings: s, [n] or [p, n] int64.

    Returns:
        [] or [p] int64.
    """
    rows = _blocks(a)
    totals = [
        torch.stack([(b[s[part], None, :] == s[a[part]][:, :, None]).sum() for part in rows]).sum()
        for s in relabellings.reshape(-1, len(a))
    ]
    return torch.stack(totals).reshape(relabellings.shape[:-1])


def _blocks(graph: Tensor) -> tuple[Tensor, ...]:
    n, k = graph.shape
    return torch.split(torch.arange(n, device=graph.device), max(1, BLOCK_ELEMENTS // (k * k)))
