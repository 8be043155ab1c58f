"""Alignment scores that count: how many items come before a given one. Tiles of pairs, never n x n."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import one_of, require_same_items
from modalign.metrics.inputs import PairedRows, group_weights, mean_over_items
from modalign.neighbors.functional import as_tensor, knn

__all__ = ["InformationImbalance", "Ranks", "Retrieval", "information_imbalance", "retrieval"]

METRICS = ("cosine", "dot", "euclidean")
TILE = 1024  # rows of a tile
GATHERED = 1 << 20  # values of the pairs that are scored one by one at a time


@dataclasses.dataclass(frozen=True)
class InformationImbalance:
    """x_to_y: near 0 if near items in x are near in y, about 1 if x tells nothing about y; y_to_x likewise."""

    x_to_y: float
    y_to_x: float


def information_imbalance(x: Any, y: Any, *, metric: str = "euclidean", backend: str = "auto") -> InformationImbalance:
    """How far away in one representation the nearest neighbours of the other are.

        Delta(x -> y) = 2 / n mean_i r_y(i, j_x(i))

    j_x(i): the nearest neighbour of item i in x. r_y(i, j): the rank of j among the n - 1 other items, from 1, by their
    distance to i in y; equal ones by index: the order of ``modalign.knn``, so the least value, of equal
    representations, is 2 / n. Of two that differ, the lower direction tells which holds the other's information.

    Args:
        x, y: (n, d_x) and (n, d_y), row i of both is the same item; NumPy or torch, floating point; n >= 3.
        metric, backend: of the neighbours, as in ``modalign.knn``. The ranks are counted on the CPU.

    Peak memory: that of one ``knn``, 8 n bytes a few times, and tiles of 1,024 x 1,024 with the rows they are of.
    Time O(n^2 d) in float64, a tile above the diagonal serving its rows and its columns.
    Raises: TypeError and ValueError as ``modalign.mutual_knn``.
    Source: Glielmo et al. 2022, doi:10.1093/pnasnexus/pgac039.

    Examples:
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
    scores = [_Scores([table], metric) for table in tables]
    nearest = []
    for given, table, own in zip((x, y), tables, scores, strict=True):
        rows = given if own.tables[0] is table else own.tables[0]
        nearest.append(torch.as_tensor(knn(rows, 1, metric=metric, backend=backend).indices)[:, 0].cpu())
    forth, back = (
        float(own.ranks([near])[0].double().mean()) * 2 / n for own, near in zip(scores[::-1], nearest, strict=True)
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

    The scores are those of ``modalign.knn``: in float64, from sums in the order of the features.

    Args:
        x, y: (n, d), row i of both is the same item, from encoders into one space; NumPy or torch, floating point;
            n >= 2.
        k: of the recalls. metric: "cosine", "dot" or "euclidean" (the nearest first).
        groups: (n,) integers; every row of its own group is a partner, the best counts (captions of one image). Ranks
            count rows: an image that is there once for each of its captions comes before another as often.

    Peak memory: 8 n bytes a few times, and tiles of 1,024 x 1,024 with the rows they are of.
    Time O(n^2 d) in float64, a tile serving both directions.
    Raises: TypeError and ValueError as ``modalign.mutual_knn``; ValueError for widths that differ and k below 1,
        TypeError for a k that is no integer.
    Source: the recall of Karpathy and Fei-Fei 2015 (arXiv:1412.2306).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import retrieval
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> found = retrieval(x, x + 0.01)
        >>> found.x_to_y.recall, found.y_to_x.median
        ({1: 1.0, 5: 1.0, 10: 1.0}, 1.0)
    """
    one_of("retrieval", "metric", metric, METRICS)
    tables = _pair("retrieval", x, y)
    n = len(tables[0])
    if tables[0].shape[1] != tables[1].shape[1]:
        raise ValueError(
            f"retrieval: x and y must be of one space, got widths {tables[0].shape[1]} and {tables[1].shape[1]}"
        )
    if n < 2:
        raise ValueError(f"retrieval: needs at least 2 rows, got {n}")
    if not isinstance(k, Sequence) or any(isinstance(at, bool) or not isinstance(at, (int, np.integer)) for at in k):
        raise TypeError(f"retrieval: k must be a sequence of integers, got {k!r}")
    if not k or min(k) < 1:
        raise ValueError(f"retrieval: k must be numbers from 1, got {tuple(k)}")
    scores = _Scores(tables, metric)
    if groups is None:
        targets = [torch.arange(n)] * 2
    else:
        given = groups if isinstance(groups, torch.Tensor) else np.asarray(groups)
        kind = given.dtype if isinstance(given, np.ndarray) else given.cpu().numpy().dtype
        if kind.kind not in "iu" or tuple(given.shape) != (n,):
            raise ValueError(f"retrieval: groups must be ({n},) integers, got {tuple(given.shape)} {kind}")
        labels = torch.as_tensor(given).long().cpu()
        targets = [scores.best_mates(side, labels) for side in (0, 1)]
    found = []
    for ranks in scores.ranks(targets):
        recall = {int(at): float((ranks <= at).double().mean()) for at in k}
        found.append(Ranks(ranks, recall, float(np.median(ranks.numpy())), float((1 / ranks.double()).mean())))
    return Retrieval(*found)


def information_imbalance_of_rows(rows: PairedRows) -> float:
    """Evaluate ``information_imbalance`` from x to y for the registry."""
    if rows.groups is not None:
        raise ValueError("information_imbalance: takes no groups, whose items are not each other's neighbours")
    return information_imbalance(rows.x, rows.y, metric=rows.metric).x_to_y


def retrieval_of_rows(rows: PairedRows) -> float:
    """Evaluate the recall at 1 of ``retrieval`` from x to y for the registry; with groups, the mean over groups."""
    ranks = retrieval(rows.x, rows.y, k=(1,), metric=rows.metric, groups=rows.groups).x_to_y.ranks
    weights = None if rows.groups is None else group_weights(rows.groups)
    return mean_over_items((ranks == 1).double(), weights)


def _pair(operation: str, x: Any, y: Any) -> list[Tensor]:
    tables = [as_tensor(operation, name, rows).cpu() for name, rows in (("x", x), ("y", y))]
    require_same_items(operation, tuple(tables[0].shape), tuple(tables[1].shape))
    return tables


class _Scores:
    """Scores of the rows of one table with those of another, or of one with itself, where a row is no match of itself.

    A tile of products tells the order of two scores that differ by more than its rounding may; those it cannot tell
    are scored as ``modalign.knn`` does, so that equal ones are equal.
    """

    def __init__(self, tables: list[Tensor], metric: str) -> None:
        self.itself = len(tables) == 1
        self.metric = metric
        self.tables = _in_range(tables, metric)
        # of distances, which do not change, and lose fewer digits
        self.centre = self.tables[0][:TILE].double().mean(0) if metric == "euclidean" else None
        self.inverse = [_inverse_norms(table) for table in self.tables] if metric == "cosine" else []
        self.norms = [torch.cat([self._rows(side, rows).norm(dim=1) for rows in _blocks(len(table))])
                      for side, table in enumerate(self.tables)]  # fmt: skip
        if self.itself:
            self.tables, self.norms, self.inverse = self.tables * 2, self.norms * 2, self.inverse * 2
        # of a product and of a sum in order, d roundings each of 2^-53, twice
        self.rounding = (self.tables[0].shape[1] + 8) * 2.0**-51
        self.widest = [float(norms.max()) if norms.max() < 64 * norms.mean() else None for norms in self.norms]

    def ranks(self, targets: list[Tensor]) -> list[Tensor]:
        """The rank of each row's target among the rows of the other table, for each side."""
        n = len(self.tables[0])
        wanted = [self._exact(side, torch.arange(n), target) for side, target in enumerate(targets)]
        ahead = [torch.zeros(n, dtype=torch.int64) for _ in targets]
        blocks = list(_blocks(n))
        for i, rows in enumerate(blocks):
            left = self._rows(0, rows)
            for columns in blocks[i:] if self.itself else blocks:
                tile = self._tile(left, rows, columns)
                self._count(tile, 0, rows, columns, targets[0], wanted[0], ahead[0])
                if not self.itself:
                    self._count(tile.T, 1, columns, rows, targets[1], wanted[1], ahead[1])
                elif rows != columns:
                    self._count(tile.T, 0, columns, rows, targets[0], wanted[0], ahead[0])
        return [counts + 1 for counts in ahead]

    def best_mates(self, side: int, labels: Tensor) -> Tensor:
        """For each row of a side that of the other in its group with the highest score, the lowest of equals."""
        best = torch.arange(len(labels))
        sizes = torch.unique(labels, return_counts=True)[1].tolist()
        for group in torch.split(labels.argsort(stable=True), sizes):
            for rows in torch.split(group, TILE) if len(group) > 1 else ():
                highest = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
                for mates in torch.split(group, TILE):  # of rising index: a later one must be better
                    scores, found = self._best_of(side, rows, mates)
                    better = scores > highest
                    highest[better], best[rows[better]] = scores[better], found[better]
        return best

    def _best_of(self, side: int, rows: Tensor, mates: Tensor) -> tuple[Tensor, Tensor]:
        tile = self._rows(side, rows) @ self._rows(1 - side, mates).T
        if self.metric == "euclidean":
            tile -= self.norms[1 - side][mates].square() / 2
        doubt = self._doubt(side, rows, mates)
        at, other = (tile + doubt >= (tile - doubt).amax(1, keepdim=True)).nonzero(as_tuple=True)
        scores, other = self._exact(side, rows[at], mates[other]), mates[other]
        highest = torch.full((len(rows),), -torch.inf, dtype=torch.float64).scatter_reduce_(0, at, scores, "amax")
        first = scores == highest[at]
        found = torch.full_like(rows, len(self.tables[0])).scatter_reduce_(0, at[first], other[first], "amin")
        return highest, found

    def _count(
        self, tile: Tensor, side: int, rows: slice, columns: slice, targets: Tensor, wanted: Tensor, ahead: Tensor
    ) -> None:
        """Adds to ``ahead[rows]`` how many of the columns come before the targets."""
        target, score = targets[rows], wanted[rows]
        scale = 0.5 if self.metric == "euclidean" else 1.0
        doubt = self._doubt(side, rows, columns) + self._doubt_of_pairs(side, rows, target)[:, None]
        middle = (scale * score)[:, None]
        before = tile > middle + doubt
        unsure = (tile >= middle - doubt) ^ before
        if self.itself and rows == columns:
            before.fill_diagonal_(False)
            unsure.fill_diagonal_(False)
        ahead[rows] += before.count_nonzero(1)
        here = ((target >= columns.start) & (target < columns.stop)).nonzero()[:, 0]
        unsure[here, target[here] - columns.start] = False
        at, other = unsure.nonzero(as_tuple=True)
        if len(at):
            other = other + columns.start
            one, two = self._exact(side, at + rows.start, other), score[at]
            ahead[rows].index_add_(0, at, ((one > two) | ((one == two) & (other < target[at]))).long())

    def _tile(self, left: Tensor, rows: slice, columns: slice) -> Tensor:
        """Products, or -|a - b|^2 / 2."""
        tile = left @ self._rows(1, columns).T
        if self.metric == "euclidean":
            tile -= self.norms[0][rows].square()[:, None] / 2
            tile -= self.norms[1][columns].square() / 2
        return tile

    def _doubt(self, side: int, rows: slice | Tensor, columns: slice | Tensor) -> Tensor:
        """What a tile's entries may be off, broadcast: of all columns alike unless some are much longer."""
        one, widest = self.norms[side][rows][:, None], self.widest[1 - side]
        two = self.norms[1 - side][columns] if widest is None else torch.tensor(widest, dtype=torch.float64)
        return self.rounding * (one.square() + two.square() if self.metric == "euclidean" else one * two)

    def _doubt_of_pairs(self, side: int, rows: slice, others: Tensor) -> Tensor:
        one, two = self.norms[side][rows], self.norms[1 - side][others]
        return self.rounding * (one.square() + two.square() if self.metric == "euclidean" else one * two)

    def _rows(self, side: int, rows: slice | Tensor) -> Tensor:
        table = self.tables[side][rows].double()
        if self.centre is not None:
            return table - self.centre
        return table * self.inverse[side][rows, None] if self.inverse else table

    def _exact(self, side: int, rows: Tensor, others: Tensor) -> Tensor:
        """The scores of pairs as ``modalign.knn`` has them."""
        scores = torch.empty(len(rows), dtype=torch.float64)
        for part in _blocks(len(rows), max(1, GATHERED // self.tables[0].shape[1])):
            a, b = self.tables[side][rows[part]].double(), self.tables[1 - side][others[part]].double()
            if self.metric == "euclidean":
                scores[part] = -_in_order((a - b).square_())
            else:
                scores[part] = _in_order(a * b)
        if self.inverse:
            scores = scores * self.inverse[side][rows] * self.inverse[1 - side][others]
        return scores


def _in_order(terms: Tensor) -> Tensor:
    """Sums of rows [m, d] from the first term to the last."""
    return terms.cumsum(1)[:, -1]


def _inverse_norms(table: Tensor) -> Tensor:
    squares = torch.cat([_in_order(table[rows].double().square()) for rows in _blocks(len(table))])
    # NumPy's root is correctly rounded, torch's may not be
    inverse = torch.from_numpy(1 / np.sqrt(squares.clamp_min(torch.finfo(torch.float64).tiny).numpy()))
    return torch.where(squares > 0, inverse, 0.0)


def _in_range(tables: list[Tensor], metric: str) -> list[Tensor]:
    """Tables whose squares stay within float64: where they would not, rows times powers of two, which change no order.
    Each row has its own for the cosine, each table for products; one serves all for distances."""
    largest = [torch.cat([table[rows].double().abs().amax(1) for rows in _blocks(len(table))]) for table in tables]
    if all(bool(((sizes == 0) | ((sizes > 2.0**-400) & (sizes < 2.0**400))).all()) for sizes in largest):
        return list(tables)
    exponents = [torch.frexp(sizes).exponent[:, None] for sizes in largest]
    if metric != "cosine":
        own_most = [int(torch.where(sizes > 0, own[:, 0], -2000).max())
                    for sizes, own in zip(largest, exponents, strict=True)]  # fmt: skip
        most = [max(own_most)] * len(tables) if metric == "euclidean" else own_most
        exponents = [torch.full_like(own, each) for own, each in zip(exponents, most, strict=True)]
    # in two steps: 2^1074 is no float64
    return [table.double().ldexp(-(own // 2)).ldexp(own // 2 - own)
            for table, own in zip(tables, exponents, strict=True)]  # fmt: skip


def _blocks(n: int, size: int | None = None) -> Iterator[slice]:
    step = TILE if size is None else size
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
