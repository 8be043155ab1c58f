"""Neighbour lists in which a tie is a tie: the classes of equal scores, and lists that order them at random.

``modalign.knn`` orders equal scores by the lower index, so that a graph is the same everywhere. The order of the items
says nothing about them, though, and two graphs that are both ordered by it agree where rows tie. A score of lists is
therefore its expectation over random orders of tied neighbours. That needs all members of the class of equal scores
that holds the k-th neighbour, not only those that the list has room for.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Floats", "Integers", "Ranks", "TiedLists"]

Integers: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

PLACES = 1 << 19  # of lists that are drawn at once


@dataclasses.dataclass(frozen=True, eq=False)
class Ranks:
    """The place of every neighbour in the lists: how many come before it, and how many tie with it.

    An entry is a distinct row in the list of another. Entries of a list follow each other, nearest first.

    Attributes:
        starts: (q + 1,) the first entry of each list, and the end of the last.
        members: (e,) the distinct row of each entry.
        copies: (e,) the number of items that have this row and may be neighbours.
        before: (e,) the number of items with a higher score.
        tied: (e,) the number of items with this score.
    """

    starts: Integers
    members: Integers
    copies: Integers
    before: Integers
    tied: Integers

    def weights(self, k: float) -> Floats:
        """Return the probability of each entry's items to be among the k nearest, ties in random order, (e,).

        1 for an item before the class that holds the k-th, (k - before) / tied in this class. Between two whole numbers
        of neighbours it is interpolated.
        """
        return np.clip((k - self.before) / self.tied, 0.0, 1.0)

    @cached_property
    def lists(self) -> Integers:
        """The list of each entry, (e,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


@dataclasses.dataclass(frozen=True, eq=False)
class TiedLists:
    """Lists of the distinct rows of n items, down to the last member of the class that holds the last neighbour.

    Attributes:
        length: The number of neighbours that every list has at least, copies counted.
        rows: (n,) the distinct row of each item.
        searched: (q,) the distinct rows that have a list, rising.
        starts: (q + 1,) the first entry of each list, and the end of the last.
        members: (e,) the distinct row of each entry, nearest first.
        classes: (e,) numbers that rise with every new score within a list.
        items: (m,) the items whose neighbours were searched.
    """

    length: int
    rows: Integers
    searched: Integers
    starts: Integers
    members: Integers
    classes: Integers
    items: Integers

    @cached_property
    def lists(self) -> Integers:
        """The list of each searched item, (m,)."""
        return np.searchsorted(self.searched, self.rows[self.items])

    @cached_property
    def _list_of_entry(self) -> Integers:
        return np.repeat(np.arange(len(self.searched)), np.diff(self.starts))

    @cached_property
    def _by_row(self) -> tuple[Integers, Integers]:
        """The items ordered by their rows, and the first place of each row in this order."""
        order = np.argsort(self.rows, kind="stable")
        return order, np.searchsorted(self.rows[order], np.arange(int(self.rows.max()) + 2))

    @classmethod
    def without_ties(cls, indices: Tensor, n: int, items: Tensor | None = None) -> TiedLists:
        """Return the lists (m, length) of ``items`` among n, no two of which have equal scores."""
        m, length = indices.shape
        searched = np.arange(n) if items is None else items.numpy()
        order = np.argsort(searched)
        return cls(
            length,
            np.arange(n),
            searched[order],
            starts=np.arange(m + 1) * length,
            members=indices.numpy()[order].reshape(-1),
            classes=np.tile(np.arange(length), m),
            items=searched,
        )

    def ranks(self, kept: NDArray[np.bool_] | None = None, k: int | None = None) -> Ranks:
        """Return the place of every neighbour that may be among the k nearest, of any number for None.

        Args:
            kept: (n,) bool, the items of a part, which alone are neighbours; None for all items.
            k: The number of neighbours.
        """
        present = self.rows if kept is None else self.rows[kept]
        counts = np.bincount(present, minlength=int(self.rows.max()) + 1)
        # an item is not its own neighbour
        lists = self._list_of_entry
        copies = counts[self.members] - (self.members == self.searched[lists])
        is_left = copies > 0
        members, copies, classes, lists = (part[is_left] for part in (self.members, copies, self.classes, lists))
        starts = np.searchsorted(lists, np.arange(len(self.searched) + 1))
        if not len(members):
            return Ranks(starts, members, copies, before=copies, tied=copies)
        total = np.concatenate([[0], np.cumsum(copies)])
        is_first = np.ones(len(members), dtype=bool)
        is_first[1:] = (lists[1:] != lists[:-1]) | (classes[1:] != classes[:-1])
        first = np.flatnonzero(is_first)
        ends = np.append(first[1:], len(members))
        of_class = np.cumsum(is_first) - 1
        before = (total[first] - total[starts[lists[first]]])[of_class]
        tied = (total[ends] - total[first])[of_class]
        if k is not None:
            near = before < k
            members, copies, before, tied, lists = (part[near] for part in (members, copies, before, tied, lists))
            starts = np.searchsorted(lists, np.arange(len(self.searched) + 1))
        return Ranks(starts, members, copies, before=before, tied=tied)

    def has_ties(self) -> bool:
        """Return whether two neighbours in a list have equal scores."""
        tied: bool = bool((self.ranks().tied > 1).any())
        return tied

    def draw(self, length: int, seed: int | np.random.SeedSequence) -> Tensor:
        """Return lists (m, length) of items, int64, in which tied neighbours are in random order, drawn for each item.

        Memory: the result, and a block of rows.
        """
        ranks, rng = self.ranks(), np.random.default_rng(seed)
        ends = np.cumsum(ranks.copies)
        starts = np.concatenate([[0], ends])[ranks.starts[:-1]]
        drawn = np.empty((len(self.items), length), dtype=np.int64)
        step = max(1, PLACES // length)
        for first in range(0, len(self.items), step):
            block = slice(first, first + step)
            lists = self.lists[block]
            base = starts[lists][:, None]
            entries = np.searchsorted(ends, base + np.arange(length), side="right")
            before, tied = ranks.before[entries], ranks.tied[entries]
            places = _random_order(before, tied, rng)
            entries = np.searchsorted(ends, base + places, side="right")
            offsets = base + places - (ends[entries] - ranks.copies[entries])
            drawn[block] = self._items_at(self.items[block], ranks.members[entries], offsets)
        return torch.from_numpy(drawn)

    def by_index(self, length: int) -> Tensor:
        """Return lists (m, length) of items, int64, in which tied neighbours are ordered by their index."""
        order, starts = self._by_row
        # one more than is needed of each row, as the searching item is left out
        sizes = np.minimum(np.diff(starts)[self.members], length + 1)
        first = starts[self.members]
        places = np.repeat(first - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
        items, lists, classes = order[places], np.repeat(self._list_of_entry, sizes), np.repeat(self.classes, sizes)
        ranked = np.lexsort((items, classes, lists))
        heads = np.searchsorted(lists[ranked], np.arange(len(self.searched)))
        nearest = np.empty((len(self.items), length), dtype=np.int64)
        step = max(1, PLACES // length)
        for start in range(0, len(self.items), step):
            block = slice(start, start + step)
            wanted = np.minimum(heads[self.lists[block]][:, None] + np.arange(length + 1), len(ranked) - 1)
            found = items[ranked[wanted]]
            is_itself = found == self.items[block][:, None]
            is_itself[~is_itself.any(1), -1] = True
            nearest[block] = found[~is_itself].reshape(-1, length)
        return torch.from_numpy(nearest)

    def _items_at(self, searching: Integers, rows: Integers, offsets: Integers) -> Integers:
        """Return the item at an offset among those of a row, the searching item itself left out."""
        order, starts = self._by_row
        places = starts[rows] + offsets
        own = np.empty(len(order), dtype=np.int64)
        own[order] = np.arange(len(order))
        is_own_row = rows == self.rows[searching][:, None]
        items: Integers = order[places + (is_own_row & (places >= own[searching][:, None]))]
        return items


def _random_order(before: Integers, tied: Integers, rng: np.random.Generator) -> Integers:
    """Return the first places of lists whose tied entries are in random order, (m, length).

    Args:
        before: (m, length) for each place, the number of items before its class.
        tied: (m, length) the number of items in its class.
        rng: The random numbers.
    """
    m, length = before.shape
    places = np.tile(np.arange(length), (m, 1))
    first, size = before[:, -1], tied[:, -1]
    cut = np.flatnonzero(first + size > length)
    if len(cut):
        # a random subset of the last class (Floyd 1987)
        first, size, chosen = first[cut], size[cut], places[cut]
        for place in range(int(first.min()), length):
            last = size - length + place  # offset in the class
            offset = np.minimum((rng.random(len(cut)) * (last + 1)).astype(np.int64), last)
            is_taken = (chosen[:, :place] == (first + offset)[:, None]).any(1)
            chosen[:, place] = np.where(place < first, place, first + np.where(is_taken, last, offset))
        places[cut] = chosen
    if (tied > 1).any():
        places = np.take_along_axis(places, np.argsort(before + rng.random((m, length)), axis=1), 1)
    return places
