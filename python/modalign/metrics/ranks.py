"""Alignment scores that count how many items come before a given one, in tiles of pairs that are never n x n."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import one_of, whole_number
from modalign.common.labels import Labels, label_tensor
from modalign.common.types import Array
from modalign.metrics.graphs import row_blocks
from modalign.metrics.inputs import PairedRows, group_weights, mean_over_items
from modalign.metrics.tiled_scores import TiledScores
from modalign.metrics.tiles import paired_tables
from modalign.neighbors.functional import knn

__all__ = ["InformationImbalance", "Ranks", "Retrieval", "information_imbalance", "retrieval"]

METRICS = ("cosine", "dot", "euclidean")
CANDIDATES = ("items", "rows")


@dataclasses.dataclass(frozen=True)
class InformationImbalance:
    """The information imbalances of two representations, in both directions.

    Attributes:
        x_to_y: Near 0 if near items in x are near in y, about 1 if x says nothing about y.
        y_to_x: The same with x and y exchanged.
    """

    x_to_y: float
    y_to_x: float


def information_imbalance(
    x: Array, y: Array, *, metric: str = "euclidean", backend: str = "auto"
) -> InformationImbalance:
    """Return how far away in one representation the nearest neighbours of the other are.

        Delta(x -> y) = 2 / n mean_i r_y(i, j_x(i))

    j_x(i) is the nearest neighbour of item i in x, and r_y(i, j) the rank of j among the n - 1 other items, from 1, by
    their distance to i in y. Equal distances are ordered by index, as in ``modalign.knn``, so the smallest value, that
    of equal representations, is 2 / n. Where the two directions differ, the lower one starts from the representation
    that holds the other's information.

    Args:
        x: (n, d_x), NumPy array or tensor, floating point, n >= 3.
        y: (n, d_y), row i is the same item as row i of x.
        metric: "euclidean", "cosine" or "dot", which orders the neighbours.
        backend: The backend of the search of neighbours, as in ``modalign.knn``; the ranks are counted on the CPU.

    Returns:
        Both directions. Time is O(n^2 d) in float64: a tile above the diagonal serves its rows and its columns. Peak
        memory is that of one ``modalign.knn``, 8 n bytes a few times, and tiles of 1,024 x 1,024 with their rows.

    Raises:
        TypeError: As ``modalign.mutual_knn``.
        ValueError: As ``modalign.mutual_knn``, and for n < 3.

    Source:
        Glielmo et al. 2022, doi:10.1093/pnasnexus/pgac039.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import information_imbalance
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> result = information_imbalance(x, x[:, :1])
        >>> result.x_to_y < result.y_to_x  # x holds its first column, not the other way round
        True
    """
    one_of("information_imbalance", "metric", metric, METRICS)
    tables = paired_tables("information_imbalance", x, y, 3)
    n = len(tables[0])
    scores = [TiledScores([table], metric) for table in tables]
    nearest = []
    for given, table, side in zip((x, y), tables, scores, strict=True):
        rows = given if side.tables[0] is table else side.tables[0]
        nearest.append(torch.as_tensor(knn(rows, 1, metric=metric, backend=backend).indices)[:, 0].cpu())
    forth, back = (
        float(side.ranks([targets])[0].double().mean()) * 2 / n
        for side, targets in zip(scores[::-1], nearest, strict=True)
    )
    return InformationImbalance(forth, back)


@dataclasses.dataclass(frozen=True, eq=False)
class Ranks:
    """The ranks at which the queries of one side find their partners.

    Attributes:
        ranks: (n,) int64, from 1; one for each item of the side with the queries.
        recall: For each k, the share of ranks up to k.
        median: The median rank.
        reciprocal: The mean reciprocal rank.
    """

    ranks: Tensor
    recall: dict[int, float]
    median: float
    reciprocal: float


@dataclasses.dataclass(frozen=True, eq=False)
class Retrieval:
    """Cross-modal retrieval in both directions.

    Attributes:
        x_to_y: Rows of x search for their partners in y.
        y_to_x: Rows of y search for their partners in x.
    """

    x_to_y: Ranks
    y_to_x: Ranks


def retrieval(
    x: Array,
    y: Array,
    *,
    k: Sequence[int] = (1, 5, 10),
    metric: str = "cosine",
    groups: Labels | None = None,
    candidates: str = "items",
) -> Retrieval:
    """Return the ranks at which rows find their partners across modalities, in one common space.

        rank_i = 1 + |{j: score(x_i, y_j) > score(x_i, y_i), or equal and j < i}|      R@k = share of rank_i <= k

    The scores are those of ``modalign.knn``: in float64, from sums in the order of the features.

    Args:
        x: (n, d), NumPy array or tensor, floating point, from an encoder into the common space; n >= 2.
        y: (n, d), row i is the same item as row i of x.
        k: The ranks of the recalls.
        metric: "cosine", "dot" or "euclidean" (the nearest first).
        groups: (n,) integers; every row of its group is a partner of a row, and the best one counts (captions of one
            image).
        candidates: "items" or "rows", for groups. "items" is the protocol of COCO and Flickr30k: where all rows of a
            group are equal on one side, they are one item there (an image, repeated for each of its captions), which
            searches once and is counted once before others. With "rows", it searches and is counted once for each row.

    Returns:
        Ranks, recalls, median and mean reciprocal rank in both directions, over the items of each side in the order of
        their first rows. Time is O(n^2 d) in float64: a tile serves
        both directions. Peak memory is 8 n bytes a few times, and tiles of 1,024 x 1,024 with their rows.

    Raises:
        TypeError: As ``modalign.mutual_knn``, and for a k that is not an integer.
        ValueError: As ``modalign.mutual_knn``, and for widths that differ, n < 2 or a k below 1.

    Source:
        The recall of Karpathy and Fei-Fei 2015 (arXiv:1412.2306).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import retrieval
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> result = retrieval(x, x + 0.01)
        >>> result.x_to_y.recall, result.y_to_x.median
        ({1: 1.0, 5: 1.0, 10: 1.0}, 1.0)
        >>> images = x.repeat(5, axis=0)  # five captions for each image
        >>> captions = images + np.random.default_rng(1).normal(size=(500, 8))
        >>> result = retrieval(images, captions, groups=np.arange(500) // 5)
        >>> len(result.x_to_y.ranks), len(result.y_to_x.ranks)
        (100, 500)
    """
    one_of("retrieval", "metric", metric, METRICS)
    tables = paired_tables("retrieval", x, y)
    n = len(tables[0])
    if tables[0].shape[1] != tables[1].shape[1]:
        raise ValueError(
            f"retrieval: x and y must be of one space, got widths {tables[0].shape[1]} and {tables[1].shape[1]}"
        )
    if n < 2:
        raise ValueError(f"retrieval: needs at least 2 rows, got {n}")
    if not isinstance(k, (Sequence, np.ndarray)) or isinstance(k, str):
        raise TypeError(f"retrieval: k must be a sequence of integers, got {k!r}")
    cutoffs = [whole_number("retrieval", "each k", rank) for rank in k]
    if not cutoffs or min(cutoffs) < 1:
        raise ValueError(f"retrieval: k must be numbers from 1, got {tuple(cutoffs)}")
    one_of("retrieval", "candidates", candidates, CANDIDATES)
    if groups is None:
        scores, targets = TiledScores(list(tables), metric), [torch.arange(n)] * 2
    else:
        labels = torch.unique(label_tensor("retrieval: groups", groups, n).cpu(), return_inverse=True)[1]
        kept = [_items(table, labels) if candidates == "items" else torch.arange(n) for table in tables]
        scores = TiledScores([table[rows] for table, rows in zip(tables, kept, strict=True)], metric)
        targets = [scores.best_partners(side, [labels[rows] for rows in kept]) for side in (0, 1)]
    return Retrieval(*(_summary(ranks, cutoffs) for ranks in scores.ranks(targets)))


def _items(table: Tensor, labels: Tensor) -> Tensor:
    """Return the rows that stand for items: the first row of each group whose rows are equal, and all other rows."""
    order = labels.argsort(stable=True)
    same_group = labels[order].diff() == 0
    equal = torch.cat([(table[order[rows]][1:] == table[order[rows]][:-1]).all(1) for rows in _overlapping(table)])
    differing = torch.zeros(int(labels.max()) + 1, dtype=torch.bool)
    differing[labels[order[1:]][same_group & ~equal]] = True
    repeated = torch.zeros_like(labels, dtype=torch.bool)
    repeated[order[1:]] = same_group
    kept: Tensor = (~repeated | differing[labels]).nonzero()[:, 0]
    return kept


def _overlapping(table: Tensor) -> Iterator[slice]:
    """Yield slices of the rows in blocks, each with the first row of the next block."""
    return (slice(rows.start, rows.stop + 1) for rows in row_blocks(len(table) - 1, table.shape[1]))


def _summary(ranks: Tensor, k: Sequence[int]) -> Ranks:
    recall = {int(r): float((ranks <= r).double().mean()) for r in k}
    return Ranks(ranks, recall, float(np.median(ranks.numpy())), float((1 / ranks.double()).mean()))


# the evaluators that the registry names


def information_imbalance_of_rows(rows: PairedRows) -> float:
    """Evaluate ``information_imbalance`` from x to y."""
    if rows.groups is not None:
        raise ValueError("information_imbalance: takes no groups, whose items are not each other's neighbours")
    return information_imbalance(rows.x, rows.y, metric=rows.metric).x_to_y


def retrieval_of_rows(rows: PairedRows) -> float:
    """Evaluate the recall at 1 of ``retrieval`` from x to y; with groups, the mean over groups of the mean within."""
    result = retrieval(rows.x, rows.y, k=(1,), metric=rows.metric, groups=rows.groups, candidates="rows")
    ranks = result.x_to_y.ranks
    weights = None if rows.groups is None else group_weights(rows.groups)
    return mean_over_items((ranks == 1).double(), weights)
