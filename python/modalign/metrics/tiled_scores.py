"""Scores of every pair of rows as ``modalign.knn`` defines them, and the places in rankings that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from modalign.metrics.tiles import TILE, row_slices, scaled_down
from modalign.neighbors.rows_in_range import are_in_range

__all__ = ["Places", "TiledScores", "within_range"]

GATHERED = 1 << 20  # values of the rows whose scores are computed pair by pair at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Places:
    """Places in rankings by falling score, where equal scores tie.

    Attributes:
        closer: int64, the number of items with a higher score.
        tied: int64, of the same shape, the number of items with the same score, the ranked one included.
    """

    closer: Tensor
    tied: Tensor

    @property
    def mean_ranks(self) -> Tensor:
        """The mean rank, from 1, over all orders of the items that tie, float64."""
        return self.closer.double() + (self.tied.double() + 1) / 2

    def among_first(self, k: int) -> Tensor:
        """Return the probability of a rank up to k, with the items that tie in random order, float64."""
        return ((k - self.closer).double() / self.tied).clamp_(0.0, 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class _Targets:
    """The targets of the rows of one side, and how many rows of the other side come before them.

    Attributes:
        side: 0 or 1, the table that the rows are of.
        indices: (n,) int64, the target of each row, in the other table.
        scores: (n,) float64, the score of each row with its target.
        places: The places of the targets, to whose counts tiles add.
    """

    side: int
    indices: Tensor
    scores: Tensor
    places: Places


class TiledScores:
    """Scores of the rows of one table with those of another, or of one with itself, where no row matches itself.

    A tile of products tells the order of two scores that differ by more than its rounding may. Scores that it cannot
    order are computed pair by pair as in ``modalign.knn``, so that equal ones are equal.

    Args:
        tables: The two tables, [n, d] each; or the one whose rows are scored among themselves.
        metric: "cosine", "dot" or "euclidean".
    """

    def __init__(self, tables: list[Tensor], metric: str) -> None:
        self.itself = len(tables) == 1
        self.metric = metric
        self.tables = within_range(tables, metric)
        # distances do not depend on the origin, and lose fewer digits near it
        self.centre = self.tables[0][:TILE].double().mean(0) if metric == "euclidean" else None
        self.inverse = [_inverse_norms(table) for table in self.tables] if metric == "cosine" else []
        self.norms = [
            torch.cat([self._rows(side, rows).norm(dim=1) for rows in row_slices(len(table))])
            for side, table in enumerate(self.tables)
        ]
        if self.itself:
            self.tables, self.norms, self.inverse = self.tables * 2, self.norms * 2, self.inverse * 2
        # rounding of a product and of a sum in order: d roundings each of 2^-53, twice
        self.rounding = (self.tables[0].shape[1] + 8) * 2.0**-51
        self.widest = [float(norms.max()) if norms.max() < 64 * norms.mean() else None for norms in self.norms]

    def places(self, targets: list[Tensor]) -> list[Places]:
        """Return for each side the place of each row's target among the rows of the other table."""
        sides = [
            _Targets(
                side,
                indices,
                self._exact(side, torch.arange(len(indices)), indices),
                Places(torch.zeros_like(indices), torch.ones_like(indices)),
            )
            for side, indices in enumerate(targets)
        ]
        row_tiles, column_tiles = (list(row_slices(len(table))) for table in self.tables)
        for i, rows in enumerate(row_tiles):
            left = self._rows(0, rows)
            for columns in column_tiles[i:] if self.itself else column_tiles:
                tile = self._tile(left, rows, columns)
                self._count(tile, sides[0], rows, columns)
                if not self.itself:
                    self._count(tile.T, sides[1], columns, rows)
                elif rows != columns:
                    self._count(tile.T, sides[0], columns, rows)
        return [side.places for side in sides]

    def best_partners(self, side: int, labels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return for each row of a side the row of the other in its group with the highest score, the first of equals.

        Args:
            side: 0 or 1.
            labels: The groups of the rows of both tables, int64; the same groups occur in both.

        Returns:
            The rows, and the number of rows of the group with the same score.
        """
        groups, partners_of = (
            torch.split(table.argsort(stable=True), torch.unique(table, return_counts=True)[1].tolist())
            for table in (labels[side], labels[1 - side])
        )
        best, equal = torch.empty_like(labels[side]), torch.ones_like(labels[side])
        for group, others in zip(groups, partners_of, strict=True):
            best[group] = others[0]
            for rows in torch.split(group, TILE) if len(others) > 1 else ():
                highest = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
                for partners in torch.split(others, TILE):  # of rising index: a later one must be better
                    scores, indices, count = self._best_of(side, rows, partners)
                    better, same = scores > highest, scores == highest
                    highest[better], best[rows[better]] = scores[better], indices[better]
                    equal[rows[better]] = count[better]
                    equal[rows[same]] += count[same]
        return best, equal

    def _best_of(self, side: int, rows: Tensor, partners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the highest score of each row with some partners, the first partner that has it, and how many do."""
        tile = self._rows(side, rows) @ self._rows(1 - side, partners).T
        if self.metric == "euclidean":
            tile -= self.norms[1 - side][partners].square() / 2
        error = self._error(side, rows, partners)
        place, other = (tile + error >= (tile - error).amax(1, keepdim=True)).nonzero(as_tuple=True)
        scores, other = self._exact(side, rows[place], partners[other]), partners[other]
        highest = torch.full((len(rows),), -torch.inf, dtype=torch.float64).scatter_reduce_(0, place, scores, "amax")
        first = scores == highest[place]
        indices = torch.full_like(rows, len(self.tables[1 - side])).scatter_reduce_(
            0, place[first], other[first], "amin"
        )
        return highest, indices, torch.bincount(place[first], minlength=len(rows))

    def _count(self, tile: Tensor, targets: _Targets, rows: slice, columns: slice) -> None:
        """Add to the places of the targets of ``rows`` the columns that come before the targets or tie with them."""
        side, indices, scores = targets.side, targets.indices[rows], targets.scores[rows]
        scale = 0.5 if self.metric == "euclidean" else 1.0
        error = self._error(side, rows, columns) + self._error_of_pairs(side, rows, indices)[:, None]
        middle = (scale * scores)[:, None]
        before = tile > middle + error
        unsure = (tile >= middle - error) ^ before
        if self.itself and rows == columns:
            before.fill_diagonal_(False)
            unsure.fill_diagonal_(False)
        closer, tied = targets.places.closer[rows], targets.places.tied[rows]
        closer += before.count_nonzero(1)
        inside = ((indices >= columns.start) & (indices < columns.stop)).nonzero()[:, 0]
        unsure[inside, indices[inside] - columns.start] = False
        place, other = unsure.nonzero(as_tuple=True)
        if len(place):
            other = other + columns.start
            score, wanted = self._exact(side, place + rows.start, other), scores[place]
            closer.index_add_(0, place, (score > wanted).long())
            tied.index_add_(0, place, (score == wanted).long())

    def _tile(self, left: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return products of rows and columns, or -|a - b|^2 / 2 for Euclidean distances."""
        tile = left @ self._rows(1, columns).T
        if self.metric == "euclidean":
            tile -= self.norms[0][rows].square()[:, None] / 2
            tile -= self.norms[1][columns].square() / 2
        return tile

    def _error(self, side: int, rows: slice | Tensor, columns: slice | Tensor) -> Tensor:
        """Return a bound on the error of a tile's entries, the same for all columns unless some are much longer."""
        left, widest = self.norms[side][rows][:, None], self.widest[1 - side]
        right = self.norms[1 - side][columns] if widest is None else torch.tensor(widest, dtype=torch.float64)
        return self._error_of_lengths(left, right)

    def _error_of_pairs(self, side: int, rows: slice, others: Tensor) -> Tensor:
        return self._error_of_lengths(self.norms[side][rows], self.norms[1 - side][others])

    def _error_of_lengths(self, left: Tensor, right: Tensor) -> Tensor:
        return self.rounding * (left.square() + right.square() if self.metric == "euclidean" else left * right)

    def _rows(self, side: int, rows: slice | Tensor) -> Tensor:
        table = self.tables[side][rows].double()
        if self.centre is not None:
            return table - self.centre
        return table * self.inverse[side][rows, None] if self.inverse else table

    def _exact(self, side: int, rows: Tensor, others: Tensor) -> Tensor:
        """Return the scores of pairs as ``modalign.knn`` computes them."""
        scores = torch.empty(len(rows), dtype=torch.float64)
        for part in row_slices(len(rows), max(1, GATHERED // self.tables[0].shape[1])):
            a, b = self.tables[side][rows[part]].double(), self.tables[1 - side][others[part]].double()
            if self.metric == "euclidean":
                scores[part] = -_sum_in_order((a - b).square_())
            else:
                scores[part] = _sum_in_order(a * b)
        if self.inverse:
            scores = scores * self.inverse[side][rows] * self.inverse[1 - side][others]
        return scores


def _sum_in_order(terms: Tensor) -> Tensor:
    """Return the sums of rows [m, d], added from the first term to the last."""
    return terms.cumsum(1)[:, -1]


def _inverse_norms(table: Tensor) -> Tensor:
    squares = torch.cat([_sum_in_order(table[rows].double().square()) for rows in row_slices(len(table))])
    # NumPy's root is correctly rounded, torch's may not be
    inverse = torch.from_numpy(1 / np.sqrt(squares.clamp_min(torch.finfo(torch.float64).tiny).numpy()))
    return torch.where(squares > 0, inverse, 0.0)


def within_range(tables: list[Tensor], metric: str) -> list[Tensor]:
    """Return tables whose squares stay within float64, if need be after scaling rows by powers of two.

    The scales change no order: each row has its own for the cosine, each table one for products, and both tables share
    one for distances.
    """
    largest = [torch.cat([table[rows].double().abs().amax(1) for rows in row_slices(len(table))]) for table in tables]
    if all(map(are_in_range, largest)):
        return list(tables)
    exponents = [torch.frexp(sizes).exponent[:, None] for sizes in largest]
    if metric != "cosine":
        highest = [
            int(torch.where(sizes > 0, powers[:, 0], -2000).max())
            for sizes, powers in zip(largest, exponents, strict=True)
        ]
        shared = [max(highest)] * len(tables) if metric == "euclidean" else highest
        exponents = [torch.full_like(powers, power) for powers, power in zip(exponents, shared, strict=True)]
    return [scaled_down(table.double(), powers) for table, powers in zip(tables, exponents, strict=True)]
