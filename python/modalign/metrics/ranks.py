"""Alignment scores that count how many items come before a given one, in tiles of pairs that are never n x n.

Items with equal scores tie: every score is its expectation over random orders of those that tie, in closed form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from modalign.common.checks import one_of, whole_number
from modalign.common.labels import Labels, label_tensor
from modalign.common.types import Array
from modalign.metrics.graphs import row_blocks
from modalign.metrics.inputs import PairedRows, group_weights, mean_over_items
from modalign.metrics.nearest_classes import ItemPlaces, NearestNeighbors, nearest_neighbors
from modalign.metrics.tiled_scores import Places, TiledScores
from modalign.metrics.tiles import paired_tables
from modalign.neighbors.copies import distinct_rows

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
    their distance to i in y. Items at equal distances tie, and the value is its expectation over independent random
    orders of ties in x and in y::

        Delta(x -> y) = 2 / n mean_i mean_{j in J_x(i)} (c_y(i, j) + (t_y(i, j) + 1) / 2)

    J_x(i) are the items that tie for the nearest in x, c_y(i, j) is the number of items nearer to i in y than j, and
    t_y(i, j) the number of items as near as j, itself included. Without ties the smallest value, that of equal
    representations, is 2 / n; with ties it is larger. Where the two directions differ, the lower one starts from the
    representation that holds the other's information.

    Args:
        x: (n, d_x), NumPy array or tensor, floating point, n >= 3.
        y: (n, d_y), row i is the same item as row i of x.
        metric: "euclidean", "cosine" or "dot", which orders the neighbours.
        backend: The backend of the search of neighbours, as in ``modalign.knn``; the ranks are counted on the CPU.

    Returns:
        Both directions. Time is O(n^2 d) in float64: a tile above the diagonal serves its rows and its columns; for
        items whose nearest neighbours tie, O(n^2 (d + log n)) once more. Peak memory is that of one ``modalign.knn``,
        8 n bytes a few times, and tiles of 1,024 x 1,024 with their rows; where the nearest neighbours tie, also
        1,000 n bytes and a copy of both tables.

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
    nearest = [
        nearest_neighbors(given if side.tables[0] is table else side.tables[0], metric, backend=backend)
        for given, table, side in zip((x, y), tables, scores, strict=True)
    ]
    places = [ItemPlaces(table, metric) for table in tables] if any(len(side.open) for side in nearest) else []
    forth, back = (
        float(_expected_ranks(scores[second], nearest[first], places, first).mean()) * 2 / n
        for first, second in ((0, 1), (1, 0))
    )
    return InformationImbalance(forth, back)


def _expected_ranks(scores: TiledScores, nearest: NearestNeighbors, places: Sequence[ItemPlaces], first: int) -> Tensor:
    """Return the expected rank of the nearest neighbour of each item, (n,) float64.

    Args:
        scores: The scores of the side that ranks.
        nearest: The nearest neighbours of the other side.
        places: The places of all items by both sides, where the nearest of some tie.
        first: The number of the side whose nearest neighbours these are.
    """
    ranks = torch.empty(len(nearest.indices), dtype=torch.float64)
    if len(nearest.open) < len(ranks):
        ranks[:] = scores.places([nearest.indices])[0].mean_ranks
    if len(nearest.open):
        ranks[nearest.open] = places[first].mean_over_nearest(places[1 - first], nearest.open)
    return ranks


@dataclasses.dataclass(frozen=True, eq=False)
class Ranks:
    """The ranks at which the queries of one side find their partners.

    Attributes:
        ranks: (n,) float64, from 1; one for each item of the side with the queries: the mean over the orders of ties.
        recall: For each k, the share of ranks up to k, expected over the orders of ties.
        median: The median of ``ranks``.
        reciprocal: The mean reciprocal rank, expected over the orders of ties.
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

        rank_i = 1 + c_i = 1 + |{j: score(x_i, y_j) > score(x_i, y_i)}|      R@k = share of rank_i <= k

    The scores are those of ``modalign.knn``: in float64, from sums in the order of the features. Rows with equal scores
    tie, and all numbers are expectations over random orders of ties: with t_i rows of the partner's score, itself
    included, the rank is c_i + (t_i + 1) / 2 and the partner is among the first k with probability
    min(max((k - c_i) / t_i, 0), 1). Where several rows of a group tie for the best partner, the first of them counts.

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
    tables = _tables_of_one_space(x, y)
    if not isinstance(k, (Sequence, np.ndarray)) or isinstance(k, str):
        raise TypeError(f"retrieval: k must be a sequence of integers, got {k!r}")
    cutoffs = [whole_number("retrieval", "each k", rank) for rank in k]
    if not cutoffs or min(cutoffs) < 1:
        raise ValueError(f"retrieval: k must be numbers from 1, got {tuple(cutoffs)}")
    one_of("retrieval", "candidates", candidates, CANDIDATES)
    sides = _partners(tables, metric, groups, candidates)
    return Retrieval(*(_summary(side, cutoffs) for side in sides))


@dataclasses.dataclass(frozen=True, eq=False)
class _Partners:
    """The places of the best partners of the queries of one side.

    Attributes:
        places: The place of the best partner of each query.
        equal: (n,) int64, the number of its partners that have the best one's score.
    """

    places: Places
    equal: Tensor

    def mean_ranks(self) -> Tensor:
        """Return the expected rank of the first partner, (n,) float64."""
        closer, tied = self.places.closer.double(), self.places.tied.double()
        return closer + (tied + 1) / (self.equal + 1)

    def among_first(self, k: int) -> Tensor:
        """Return the probability that a partner is among the first k, (n,) float64."""
        hits = self.places.among_first(k)
        several = (self.equal > 1).nonzero()[:, 0]
        if len(several):
            # all partners come after the m first of those that tie
            closer, tied, equal = (part[several] for part in (self.places.closer, self.places.tied, self.equal))
            first = torch.minimum((k - closer).clamp(min=0), tied)
            missed = stats.hypergeom.pmf(0, tied.numpy(), equal.numpy(), first.numpy())
            hits[several] = 1 - torch.from_numpy(missed)
        return hits

    def reciprocal_ranks(self) -> Tensor:
        """Return the expected reciprocal rank of the first partner, (n,) float64."""
        closer, tied = self.places.closer.double(), self.places.tied.double()
        inverse = 1 / (closer + 1)
        one = (self.equal == 1) & (self.places.tied > 1)
        harmonic = special.digamma((closer + tied + 1)[one].numpy()) - special.digamma((closer + 1)[one].numpy())
        inverse[one] = torch.from_numpy(harmonic) / tied[one]
        several = ((self.equal > 1) & (self.equal < self.places.tied)).nonzero()[:, 0]
        if len(several):
            keys = torch.stack([self.places.closer, self.places.tied, self.equal], 1)[several]
            distinct, of_query = torch.unique(keys, dim=0, return_inverse=True)
            means = torch.tensor([_mean_reciprocal(*key) for key in distinct.tolist()], dtype=torch.float64)
            inverse[several] = means[of_query]
        return inverse


def _mean_reciprocal(closer: int, tied: int, equal: int) -> float:
    """Return the mean of 1 / rank of the first of some equal partners among the rows that tie in random order."""
    ranks = np.arange(1, tied - equal + 2)
    after = stats.hypergeom.pmf(0, tied, equal, ranks - 1)  # no partner before
    is_partner = equal / (tied - ranks + 1)
    return float((after * is_partner / (closer + ranks)).sum())


def _partners(
    tables: tuple[Tensor, Tensor], metric: str, groups: Labels | None, candidates: str
) -> tuple[_Partners, _Partners]:
    """Return the places of the partners of the rows, or items, of both sides."""
    n = len(tables[0])
    if groups is None:
        if all(2 * len(distinct_rows(table)[1]) <= n for table in tables):
            first, second = (ItemPlaces(tables[1 - side], metric, tables[side]).of_partners() for side in (0, 1))
        else:
            first, second = TiledScores(list(tables), metric).places([torch.arange(n)] * 2)
        alone = torch.ones(n, dtype=torch.int64)
        return _Partners(first, alone), _Partners(second, alone)
    labels = torch.unique(label_tensor("retrieval: groups", groups, n).cpu(), return_inverse=True)[1]
    kept = [_items(table, labels) if candidates == "items" else torch.arange(n) for table in tables]
    scores = TiledScores([table[rows] for table, rows in zip(tables, kept, strict=True)], metric)
    best = [scores.best_partners(side, [labels[rows] for rows in kept]) for side in (0, 1)]
    first, second = scores.places([targets for targets, _ in best])
    return _Partners(first, best[0][1]), _Partners(second, best[1][1])


def _tables_of_one_space(x: Array, y: Array) -> tuple[Tensor, Tensor]:
    tables = paired_tables("retrieval", x, y, 2)
    if tables[0].shape[1] != tables[1].shape[1]:
        raise ValueError(
            f"retrieval: x and y must be of one space, got widths {tables[0].shape[1]} and {tables[1].shape[1]}"
        )
    return tables


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


def _summary(partners: _Partners, k: Sequence[int]) -> Ranks:
    ranks = partners.mean_ranks()
    recall = {int(r): float(partners.among_first(r).mean()) for r in k}
    return Ranks(ranks, recall, float(np.median(ranks.numpy())), float(partners.reciprocal_ranks().mean()))


# the evaluators that the registry names


def information_imbalance_of_rows(rows: PairedRows) -> float:
    """Evaluate ``information_imbalance`` from x to y."""
    if rows.groups is not None:
        raise ValueError("information_imbalance: takes no groups, whose items are not each other's neighbours")
    return information_imbalance(rows.x, rows.y, metric=rows.metric).x_to_y


def retrieval_of_rows(rows: PairedRows) -> float:
    """Evaluate the recall at 1 of ``retrieval`` from x to y; with groups, the mean over groups of the mean within."""
    tables = _tables_of_one_space(rows.x, rows.y)
    queries = _partners(tables, rows.metric, rows.groups, "rows")[0]
    weights = None if rows.groups is None else group_weights(rows.groups)
    return mean_over_items(queries.among_first(1), weights)


def best_information_imbalance(rows: PairedRows) -> float:
    """Return the lowest value that ties allow: the higher of those of x and y with themselves; 0 without ties."""
    lowest = 0.0
    for table in paired_tables("information_imbalance", rows.x, rows.y, 3):
        side = nearest_neighbors(TiledScores([table], rows.metric).tables[0], rows.metric)
        if len(side.open):
            sizes = torch.ones(len(table), dtype=torch.float64)
            sizes[side.open] = ItemPlaces(table, rows.metric).nearest_sizes(side.open).double()
            lowest = max(lowest, float(((sizes + 1) / 2).mean()) * 2 / len(table))
    return lowest


def best_retrieval(rows: PairedRows) -> float:
    """Return the lower of the recalls of x and y with themselves where rows repeat; 1 elsewhere, and for "dot".

    By inner products a row need not be the best match of itself.
    """
    if rows.metric == "dot":
        return 1.0
    best = [1.0]
    for table in _tables_of_one_space(rows.x, rows.y):
        if len(distinct_rows(table)[1]) < len(table):
            best.append(retrieval_of_rows(dataclasses.replace(rows, x=table, y=table)))
    return min(best)
