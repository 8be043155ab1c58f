"""Scores of two representations whose neighbours tie: expectations over independent random orders of tied neighbours.

The overlap of two lists is linear in each of them, so its expectation is a sum of products of probabilities, in closed
form. Other scores are means over drawn orders, with the error of the mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.types import Array
from modalign.metrics.inputs import Graphs, mean_over_items
from modalign.neighbors.ties import Integers, Ranks, TiedLists

__all__ = ["DrawnScore", "TiedGraphs", "drawn_score", "number_of_draws"]

Floats: TypeAlias = NDArray[np.float64]
Booleans: TypeAlias = NDArray[np.bool_]

EXPANDED = 1 << 20  # pairs of items that are looked up at once
DRAWN_LISTS = 1 << 15  # of all draws together, where items are few
FEWEST_DRAWS, MOST_DRAWS = 8, 64


def number_of_draws(items: int) -> int:
    """Return the number of orders over which a score without a closed form is averaged: from 8 to 64."""
    return max(FEWEST_DRAWS, min(MOST_DRAWS, DRAWN_LISTS // items))


@dataclasses.dataclass(frozen=True, eq=False)
class TiedGraphs:
    """The neighbours of the same items in two representations, with their ties.

    Attributes:
        x: The lists of one representation.
        y: Those of the other, of the same items.
        k: Neighbours of each item.
        metric: The similarity that the graphs were searched by.
        rows: The two tables (x, y), for metrics whose registry entry has ``reads_rows``; None for the others.
        seed: The seed of drawn orders.
    """

    x: TiedLists
    y: TiedLists
    k: int
    metric: str = "cosine"
    rows: tuple[Array, Array] | None = None
    seed: int = 0

    def shares(
        self, ranks: Sequence[int] | None = None, *, kept: Tensor | None = None, relabelling: Tensor | None = None
    ) -> Tensor:
        """Return the expected share of common neighbours of each item.

            S_i(k) = 1 / k sum_j w_ij v_ij

        w_ij is the probability that item j is among the k nearest of item i in x, v_ij in y (``Ranks.weights``).

        Args:
            ranks: Numbers of neighbours up to ``k``; None for ``k`` alone.
            kept: (n,) bool, the items of a part, which alone are neighbours; None for all.
            relabelling: (n,) a permutation s; item i of x is paired with item s(i) of y. None for i itself.

        Returns:
            (m, len(ranks)) float64, a row for each searched item, or for each that is kept.
        """
        ks = [self.k] if ranks is None else list(ranks)
        mask = None if kept is None else kept.numpy()
        sides = self._sides if mask is None else (_Side.of(self.x, mask, self.k), _Side.of(self.y, mask, self.k))
        s = None if relabelling is None else relabelling.numpy()
        overlap = _expected_overlap(_Pairing.of(self.x, self.y, mask, s), sides, ks)
        return torch.from_numpy(overlap / np.asarray(ks, dtype=np.float64))

    @cached_property
    def _sides(self) -> tuple[_Side, _Side]:
        return _Side.of(self.x, None, self.k), _Side.of(self.y, None, self.k)

    def self_shares(self) -> tuple[Tensor, Tensor]:
        """Return the expected share of common neighbours of each item in two random orders of x, and in two of y, (m,).

        By the inequality of Cauchy and Schwarz the mean of ``shares`` is at most the root of the product of their means.
        """
        squares = []
        for lists, side in zip((self.x, self.y), self._sides, strict=True):
            weights = side.ranks.weights(self.k)
            of_list = np.bincount(side.ranks.lists, side.ranks.copies * weights**2, minlength=len(lists.searched))
            squares.append(torch.from_numpy(of_list[lists.lists] / self.k))
        return squares[0], squares[1]

    def tied_share(self) -> float:
        """Return the share of the edges of x or of y, whichever is larger, that a random order decides."""
        shares = []
        for lists, side in zip((self.x, self.y), self._sides, strict=True):
            weights = side.ranks.weights(self.k)
            open_weight = side.ranks.copies * weights * (weights < 1)
            of_list = np.bincount(side.ranks.lists, open_weight, minlength=len(lists.searched))
            shares.append(float(of_list[lists.lists].mean()) / self.k)
        return max(shares)

    def draw(self, number: int, length: int | None = None) -> Graphs:
        """Return the graphs of one random order of each representation; numbers from 0 tell the draws apart."""
        of_x, of_y = np.random.SeedSequence([abs(self.seed), self.seed < 0, number]).spawn(2)
        size = self.k if length is None else length
        a, b = self.x.draw(size, of_x), self.y.draw(size, of_y)
        n = len(self.x.rows)
        return Graphs(a, b, metric=self.metric, rows=self.rows, candidates=None if len(a) == n else n)


@dataclasses.dataclass(frozen=True)
class DrawnScore:
    """A score from random orders of tied neighbours.

    Attributes:
        items: (m,) float64, the mean score of each item over the draws; or the mean score, where it is no mean over
            items.
        error: The standard error of the score that comes from the number of draws; 0 for a closed form.
        draws: The number of draws; 0 for a closed form.
    """

    items: Tensor | float
    error: float = 0.0
    draws: int = 0


def drawn_score(
    evaluate: Callable[[Graphs], Tensor | float], draws: Sequence[Graphs], weights: Tensor | None = None
) -> DrawnScore:
    """Return the mean of a score over draws.

    Args:
        evaluate: As a metric's evaluator in the registry.
        draws: The drawn graphs, at least two.
        weights: The weights of the items in a mean over groups, or None.
    """
    values = [evaluate(graphs) for graphs in draws]
    means = [mean_over_items(value, weights) for value in values]
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means))
    first = values[0]
    if isinstance(first, Tensor):
        return DrawnScore(torch.stack([torch.as_tensor(value) for value in values]).mean(0), error, len(draws))
    return DrawnScore(float(np.mean(means)), error, len(draws))


@dataclasses.dataclass(frozen=True, eq=False)
class _Side:
    """The ranks of one representation, and the place of every (list, member) among them.

    ``codes`` are list times ``width`` plus member, rising; ``order`` is the entry of each.
    """

    ranks: Ranks
    width: int
    codes: Integers
    order: Integers
    own: Integers

    @classmethod
    def of(cls, lists: TiedLists, kept: Booleans | None, k: int) -> _Side:
        ranks, width = lists.ranks(kept, k), int(lists.rows.max()) + 1
        codes = ranks.lists * width + ranks.members
        order = np.argsort(codes, kind="stable")
        side = cls(ranks, width, codes[order], order, lists.searched)
        return side

    def find(self, lists: Integers, members: Integers) -> Integers:
        """Return the entry of each member in the list beside it, -1 where it is not there."""
        if not len(self.codes):
            return np.full(len(lists), -1)
        wanted = lists * self.width + members
        place = np.minimum(np.searchsorted(self.codes, wanted), len(self.codes) - 1)
        return np.where(self.codes[place] == wanted, self.order[place], -1)


@dataclasses.dataclass(frozen=True, eq=False)
class _Pairing:
    """Which lists belong to the same items, and which distinct rows.

    Attributes:
        lists: Two arrays (t,), the different pairs of lists that items have.
        kind: (m,) the pair of lists of each item.
        rows: Two arrays (p,), the different pairs of distinct rows that items have, ordered by the first.
        counts: (p,) the number of items with each pair.
    """

    lists: tuple[Integers, Integers]
    kind: Integers
    rows: tuple[Integers, Integers]
    counts: Integers

    @classmethod
    def of(cls, x: TiedLists, y: TiedLists, kept: Booleans | None, s: Integers | None) -> _Pairing:
        rows_x, rows_y = x.rows, y.rows if s is None else y.rows[s]
        lists_x, lists_y = x.lists, y.lists if s is None else y.lists[s]
        if kept is not None:
            rows_x, rows_y = rows_x[kept], rows_y[kept]
            searched = kept[x.items]
            lists_x, lists_y = lists_x[searched], lists_y[searched]
        first, second, _, counts = _unique_pairs(rows_x, rows_y)
        left, right, kind, _ = _unique_pairs(lists_x, lists_y)
        return cls((left, right), kind, (first, second), counts)


def _unique_pairs(a: Integers, b: Integers) -> tuple[Integers, Integers, Integers, Integers]:
    """Return the distinct pairs, ordered, the number of each pair among them, and how often each occurs."""
    width = int(b.max()) + 1
    codes, inverse, counts = np.unique(a * width + b, return_inverse=True, return_counts=True)
    return codes // width, codes % width, inverse.reshape(-1), counts


def _expected_overlap(pairing: _Pairing, sides: tuple[_Side, _Side], ks: list[int]) -> Floats:
    """Return the expected number of common neighbours of each item for each k, (m, len(ks))."""
    total = np.zeros((len(pairing.lists[0]), len(ks)))
    weights = [np.stack([side.ranks.weights(k) for k in ks], 1) for side in sides]
    groups = [_Targets.of(pairing, side) for side in (0, 1)]
    sizes = [targets.sizes(side.ranks) for targets, side in zip(groups, sides, strict=True)]
    from_second = sizes[1][pairing.lists[1]] < sizes[0][pairing.lists[0]]
    for first, which in ((0, np.flatnonzero(~from_second)), (1, np.flatnonzero(from_second))):
        second = 1 - first
        needed = sizes[first][pairing.lists[first][which]]
        for block in _blocks(which, needed):
            kinds, entries, targets = groups[first].expand(pairing.lists[first][block], sides[first].ranks)
            found = sides[second].find(pairing.lists[second][block][kinds], pairing.rows[second][targets])
            hit = found >= 0
            kinds, entries, targets, found = kinds[hit], entries[hit], targets[hit], found[hit]
            products = weights[first][entries] * weights[second][found] * pairing.counts[targets][:, None]
            for column in range(len(ks)):
                total[block, column] += np.bincount(kinds, products[:, column], minlength=len(block))
    # an item is not its own neighbour, but is among the items of its rows
    own = [side.find(lists, side.own[lists]) for side, lists in zip(sides, pairing.lists, strict=True)]
    both = np.flatnonzero((own[0] >= 0) & (own[1] >= 0))
    total[both] -= weights[0][own[0][both]] * weights[1][own[1][both]]
    return total[pairing.kind]


def _blocks(which: Integers, sizes: Integers) -> Iterator[Integers]:
    """Yield parts of ``which`` whose sizes sum to about ``EXPANDED``."""
    if not len(which):
        return
    number = np.cumsum(sizes) // EXPANDED
    cuts = np.flatnonzero(np.diff(number)) + 1
    yield from np.split(which, cuts)


@dataclasses.dataclass(frozen=True, eq=False)
class _Targets:
    """The pairs of rows of a pairing by their first or their second row.

    ``starts`` (width + 1,) are places in ``order``, which holds the pairs of each row one after the other.
    """

    order: Integers
    starts: Integers

    @classmethod
    def of(cls, pairing: _Pairing, side: int) -> _Targets:
        rows = pairing.rows[side]
        order = np.argsort(rows, kind="stable")
        return cls(order, np.searchsorted(rows[order], np.arange(int(rows.max()) + 2)))

    def _ends(self, members: Integers) -> tuple[Integers, Integers]:
        last = len(self.starts) - 1
        return self.starts[np.minimum(members, last)], self.starts[np.minimum(members + 1, last)]

    def sizes(self, ranks: Ranks) -> Integers:
        """Return the number of pairs that each list reaches."""
        first, end = self._ends(ranks.members)
        total = np.concatenate([[0], np.cumsum(end - first)])
        return total[ranks.starts[1:]] - total[ranks.starts[:-1]]

    def expand(self, lists: Integers, ranks: Ranks) -> tuple[Integers, Integers, Integers]:
        """Return all (number of the list, entry of its ranks, pair of rows with the entry's row)."""
        kinds, entries = _ranges(ranks.starts[lists], ranks.starts[lists + 1])
        first, end = self._ends(ranks.members[entries])
        which, places = _ranges(first, end)
        return kinds[which], entries[which], self.order[places]


def _ranges(starts: Integers, ends: Integers) -> tuple[Integers, Integers]:
    """Return the numbers of the ranges and the integers in them, one range after the other."""
    sizes = ends - starts
    which = np.repeat(np.arange(len(starts)), sizes)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + starts[which]
