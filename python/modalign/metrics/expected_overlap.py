"""The expected number of common neighbours of every item, where tied neighbours are in independent random orders.

Item j is among the k nearest of item i with probability w_ij in one representation and v_ij in the other
(``modalign.neighbors.ties.Ranks.weights``), and the expected number of common neighbours is sum_j w_ij v_ij. Lists hold
distinct rows, so the sum goes over pairs of distinct rows that items have: from the entries of the shorter list to the
pairs with their rows, and from there to the entries of the other list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from modalign.neighbors.ties import Floats, Integers, Ranks, TiedLists

__all__ = ["Pairing", "Side", "expected_overlap", "joint"]

Booleans: TypeAlias = NDArray[np.bool_]

EXPANDED = 1 << 20  # pairs of items that are looked up at once


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """The ranks of one representation, and the place of every (list, member) among them.

    ``codes`` are list times ``width`` plus member, rising; ``order`` is the entry of each.
    """

    ranks: Ranks
    width: int
    codes: Integers
    order: Integers
    own: Integers

    @classmethod
    def of(cls, lists: TiedLists, kept: Booleans | None, k: int) -> Side:
        ranks, width = lists.ranks(kept, k), int(lists.rows.max()) + 1
        codes = ranks.lists * width + ranks.members
        order = np.argsort(codes, kind="stable")
        return cls(ranks, width, codes[order], order, lists.searched)

    def weights(self, ks: tuple[float, ...]) -> Floats:
        """Return the weight of each entry for each k, (e, len(ks))."""
        if ks not in self._weights:
            self._weights[ks] = np.stack([self.ranks.weights(k) for k in ks], 1)
        return self._weights[ks]

    @cached_property
    def _weights(self) -> dict[tuple[float, ...], Floats]:
        return {}

    def find(self, lists: Integers, members: Integers) -> Integers:
        """Return the entry of each member in the list beside it, -1 where it is not there."""
        if not len(self.codes):
            return np.full(len(lists), -1)
        wanted = lists * self.width + members
        place = np.minimum(np.searchsorted(self.codes, wanted), len(self.codes) - 1)
        return np.where(self.codes[place] == wanted, self.order[place], -1)


@dataclasses.dataclass(frozen=True, eq=False)
class Pairing:
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
    def of(cls, x: TiedLists, y: TiedLists, kept: Booleans | None, s: Integers | None) -> Pairing:
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


def joint(w: Floats, v: Floats, k: float) -> Floats:
    """Return w v, rounded to multiples of a power of two small enough that sums up to k + 1 are exact.

    So an expected number of common neighbours does not depend on the order of its terms, nor on which side is x.
    """
    step = 2.0 ** (np.ceil(np.log2(k + 2)) - 52)
    products: Floats = np.rint(w * v / step) * step
    return products


def expected_overlap(pairing: Pairing, sides: tuple[Side, Side], ks: list[float]) -> Floats:
    """Return the expected number of common neighbours of each item for each k, (m, len(ks))."""
    total = np.zeros((len(pairing.lists[0]), len(ks)))
    weights = [side.weights(tuple(ks)) for side in sides]
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
            products = joint(weights[first][entries], weights[second][found], max(ks))
            products *= pairing.counts[targets][:, None]
            for column in range(len(ks)):
                total[block, column] += np.bincount(kinds, products[:, column], minlength=len(block))
    # an item is not its own neighbour, but is among the items of its rows
    own = [side.find(lists, side.own[lists]) for side, lists in zip(sides, pairing.lists, strict=True)]
    both = np.flatnonzero((own[0] >= 0) & (own[1] >= 0))
    total[both] -= joint(weights[0][own[0][both]], weights[1][own[1][both]], max(ks))
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
    def of(cls, pairing: Pairing, side: int) -> _Targets:
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
        sizes: Integers = total[ranks.starts[1:]] - total[ranks.starts[:-1]]
        return sizes

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
