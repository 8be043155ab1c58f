"""Alignment scores that count: how many items come before a given one. Tiles of pairs, never n x n."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modalign.arguments import one_of
from modalign.neighbors import as_tensor, knn

__all__ = ["InformationImbalance", "Ranks", "Retrieval", "information_imbalance", "retrieval"]

METRICS = ("cosine", "dot", "euclidean")
TILE = 1 << 22  # pairs scored at once


@dataclasses.dataclass(frozen=True)
class InformationImbalance:
    """x_to_y: near 0 if near items in x are near in y, about 1 if x tells nothing about y; y_to_x likewise."""

    x_to_y: float
    y_to_x: float


def information_imbalance(x: Any, y: Any, *, metric: str = "euclidean", backend: str = "auto") -> InformationImbalance:
    """How far away in one representation the nearest neighbours of the other are.

        Delta(x -> y) = 2 / n mean_i r_y(i, j_x(i))

    j_x(i): the nearest neighbour of item i in x. r_y(i, j): the rank of j among the n - 1 other items, from 1, by their
    distance to i in y; equal ones by index. Of two that differ, the lower direction tells which holds the other's
    information.

    Args:
        x, y: (n, d_x) and (n, d_y), row i of both is the same item; NumPy or torch, floating point; n >= 3.
        metric, backend: of the neighbours, as in ``modalign.knn``.

    Peak memory: that of one ``knn``, float64 copies of x and y, and 64 MB. Time O(n^2 d) in float64.
    Raises: TypeError and ValueError as ``modalign.mutual_knn``.
    Source: Glielmo et al. 2022, doi:10.1093/pnasnexus/pgac039.

    Example:
        >>> import numpy as np
        >>> from modalign.metrics import information_imbalance
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> found = information_imbalance(x, x[:, :1])
        >>> found.x_to_y < found.y_to_x  # x holds its first column, not the other way round
        True
    """
    one_of("information_imbalance", "metric", metric, METRICS)
    tables = _pair("information_imbalance", x, y)
    n = len(tables[0])
    if n < 3:
        raise ValueError(f"information_imbalance: needs at least 3 rows, got {n}")
    nearest = [torch.as_tensor(knn(rows, 1, metric=metric, backend=backend).indices)[:, 0].cpu() for rows in tables]
    forth, back = (
        float(_ranks(rows, rows, near, metric, itself=True).double().mean()) * 2 / n
        for rows, near in ((tables[1], nearest[0]), (tables[0], nearest[1]))
    )
    return InformationImbalance(forth, back)


@dataclasses.dataclass(frozen=True, eq=False)
class Ranks:
    """Of the queries of one side: ranks (n,) int64 from 1; recall {k: share of ranks up to k}; the median and the mean
    reciprocal rank."""

    ranks: Tensor
    recall: dict[int, float]
    median: float
    reciprocal: float


@dataclasses.dataclass(frozen=True, eq=False)
class Retrieval:
    """x_to_y: rows of x look for theirs in y; y_to_x: the other way."""

    x_to_y: Ranks
    y_to_x: Ranks


def retrieval(
    x: Any, y: Any, *, k: Sequence[int] = (1, 5, 10), metric: str = "cosine", groups: Any = None
) -> Retrieval:
    """Cross-modal retrieval in one common space: at which rank a row finds its partner.

        rank_i = 1 + |{j: score(x_i, y_j) > score(x_i, y_i), or equal and j < i}|      R@k = share of rank_i <= k

    Args:
        x, y: (n, d), row i of both is the same item, from encoders into one space; NumPy or torch, floating point.
        k: of the recalls. metric: "cosine", "dot" or "euclidean" (the nearest first).
        groups: (n,) integers; every row of its own group is a partner, the best counts (captions of one image).

    Peak memory: float64 copies of x and y, and 64 MB. Time O(n^2 d) in float64.
    Raises: TypeError and ValueError as ``modalign.mutual_knn``; ValueError for widths that differ and k below 1.
    Source: the recall of Karpathy and Fei-Fei 2015 (arXiv:1412.2306).

    Example:
        >>> import numpy as np
        >>> from modalign.metrics import retrieval
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> found = retrieval(x, x + 0.01)
        >>> found.x_to_y.recall, found.y_to_x.median
        ({1: 1.0, 5: 1.0, 10: 1.0}, 1.0)
    """
    one_of("retrieval", "metric", metric, METRICS)
    tables = _pair("retrieval", x, y)
    if tables[0].shape[1] != tables[1].shape[1]:
        raise ValueError(
            f"retrieval: x and y must be of one space, got widths {tables[0].shape[1]} and {tables[1].shape[1]}"
        )
    if not k or min(k) < 1:
        raise ValueError(f"retrieval: k must be numbers from 1, got {tuple(k)}")
    labels = None if groups is None else torch.as_tensor(groups)
    if labels is not None and (labels.dtype.is_floating_point or tuple(labels.shape) != (len(tables[0]),)):
        raise ValueError(
            f"retrieval: groups must be ({len(tables[0])},) integers, got {tuple(labels.shape)} {labels.dtype}"
        )
    found = []
    for queries, gallery in (tables, tables[::-1]):
        targets = torch.arange(len(queries)) if labels is None else _best_mates(queries, gallery, labels, metric)
        ranks = _ranks(queries, gallery, targets, metric, itself=False)
        recall = {int(at): float((ranks <= at).double().mean()) for at in k}
        found.append(Ranks(ranks, recall, float(ranks.double().quantile(0.5)), float((1 / ranks.double()).mean())))
    return Retrieval(*found)


def _pair(operation: str, x: Any, y: Any) -> list[Tensor]:
    tables = [as_tensor(operation, name, rows).cpu().double() for name, rows in (("x", x), ("y", y))]
    if len(tables[0]) != len(tables[1]):
        raise ValueError(
            f"{operation}: x and y must be (n, d_x) and (n, d_y), row i of both the same item, "
            f"got {tuple(tables[0].shape)} and {tuple(tables[1].shape)}"
        )
    return tables


def _scored_rows(rows: Tensor, metric: str) -> Tensor:
    """Rows whose inner products are the scores, but for what ``_offset`` adds."""
    if metric == "cosine":
        norms = rows.norm(dim=1, keepdim=True)
        return torch.where(norms > 0, rows / norms, 0.0)
    return rows


def _exact(queries: Tensor, gallery: Tensor, metric: str) -> Tensor:
    """Scores of paired rows, by the same sums for equal rows, so that duplicates tie."""
    if metric == "euclidean":
        return -(queries - gallery).square().sum(1)
    return (queries * gallery).sum(1)


def _ranks(queries: Tensor, gallery: Tensor, targets: Tensor, metric: str, itself: bool) -> Tensor:
    """The rank of each query's target among the gallery's rows; ``itself``: the row of the query's number is none."""
    q, g = _scored_rows(queries, metric), _scored_rows(gallery, metric)
    half = g.square().sum(1) / 2 if metric == "euclidean" else None
    # products of float64 differ from sums in order by less than this times the norms
    largest = float(g.norm(dim=1).max())
    ranks = torch.empty(len(q), dtype=torch.int64)
    block = max(1, TILE // len(g))
    for start in range(0, len(q), block):
        rows = torch.arange(start, min(start + block, len(q)))
        scores = q[rows] @ g.T
        if half is not None:
            scores -= half  # (|q|^2 - |q - g|^2) / 2
        target = targets[rows]
        wanted = scores.gather(1, target[:, None])
        doubt = 1e-14 * (g.shape[1] + 4) * (q[rows].norm(dim=1, keepdim=True) * largest + largest * largest)
        if itself:
            scores[torch.arange(len(rows)), rows] = -torch.inf
        ahead = (scores > wanted + doubt).sum(1)
        unsure = (scores - wanted).abs() <= doubt
        unsure[torch.arange(len(rows)), target] = False
        at, other = unsure.nonzero(as_tuple=True)
        one = _exact(q[rows[at]], g[other], metric)
        two = _exact(q[rows[at]], g[target[at]], metric)
        before = (one > two) | ((one == two) & (other < target[at]))
        ahead.index_add_(0, at, before.long())
        ranks[rows] = ahead + 1
    return ranks


def _best_mates(queries: Tensor, gallery: Tensor, labels: Tensor, metric: str) -> Tensor:
    """For each query the row of the gallery in its group with the highest score, the lowest of equals."""
    q, g = _scored_rows(queries, metric), _scored_rows(gallery, metric)
    order = labels.argsort(stable=True)
    starts = torch.cat([torch.tensor([0]), (labels[order].diff() != 0).nonzero()[:, 0] + 1, torch.tensor([len(q)])])
    best = torch.empty(len(q), dtype=torch.int64)
    for start, end in zip(starts.tolist(), starts[1:].tolist(), strict=False):
        members = order[start:end]
        for row in members.tolist():
            scores = _exact(q[row].expand(len(members), -1), g[members], metric)
            best[row] = members[int((scores == scores.max()).nonzero()[0])]
    return best
