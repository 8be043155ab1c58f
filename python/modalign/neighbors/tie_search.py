"""Searches that report the neighbours which tie: every member of the class of equal scores at the end of a list.

Scores are equal if the float64 scores of the definition are. Rows that repeat are searched once.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modalign.common.checks import torch_seed
from modalign.common.tensors import as_tensor
from modalign.files.rows import Rows, RowSource, indexable, open_rows, read_rows, selected_rows
from modalign.neighbors.block_size import bytes_of
from modalign.neighbors.copies import distinct_rows
from modalign.neighbors.functional import knn
from modalign.neighbors.graph import Certificate
from modalign.neighbors.ties import TiedLists
from modalign.ops.knn import DTYPES

if TYPE_CHECKING:
    from modalign.common.types import Array

__all__ = ["Lists", "TieSearch", "search_lists"]

SCORED = 1 << 22  # numbers of the pairs that are scored again at once, and entries of lists that are searched at once
MEMBERS = 1 << 26  # of the cut classes of one representation that are held
BYTES_OF_MEMBER = 40  # in the arrays of ``TiedLists`` and ``Ranks``


@dataclasses.dataclass(frozen=True)
class TieSearch:
    """How the neighbours of one representation are searched.

    Attributes:
        length: The number of neighbours of each item that lists have.
        metric: "cosine", "dot" or "euclidean".
        groups: (n,) int64 or None. Items of one group are no neighbours.
        items: (m,) int64 or None. The items whose neighbours are searched, among all; None for all of them.
        max_memory, num_threads, progress, backend: As in ``modalign.knn``.
        seed: Of the members that stand for a class that is too large to hold.
    """

    length: int
    metric: str = "cosine"
    groups: Tensor | None = None
    items: Tensor | None = None
    max_memory: int | str | None = None
    num_threads: int | None = None
    progress: bool = False
    backend: str = "auto"
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Lists:
    """The neighbours of the items of one representation.

    Attributes:
        indices: (m, length) int64, nearest first, equal scores by the lower index, as ``modalign.knn`` has them.
        certificate: How the neighbours are known.
        ties: The classes of equal scores, or None if no two neighbours in a list have equal scores.
    """

    indices: Tensor
    certificate: Certificate
    ties: TiedLists | None


def search_lists(x: RowSource, search: TieSearch) -> Lists:
    """Search the neighbours of the items of one representation, and the ties among them.

    Args:
        x: (n, d) rows, as in ``modalign.knn``.
        search: The length of the lists, and the options.

    Returns:
        ``Lists``. Peak memory is that of ``modalign.knn`` with one neighbour more. Where there are ties: 60 n bytes,
        and 40 bytes for every member of a class at the end of a list, of at most 67 million in all, or a quarter of
        ``max_memory``. A larger class is represented by a random subset of its members, four for each neighbour at
        least, which leaves expectations unbiased. Where the copies of one row fill a list, a copy of the distinct rows,
        too, unless ``x`` is a file or ``max_memory`` is given.

    Raises:
        TypeError, ValueError: As ``modalign.knn``.
    """
    numbers, first = _distinct(x, search)
    everything = _Gallery(x, search)
    n, items = len(numbers), torch.arange(len(numbers)) if search.items is None else search.items.cpu()
    repeated = 2 * len(first) <= n or int(torch.bincount(numbers).max()) > search.length
    if repeated and 1 <= search.length <= everything.fewest_candidates():
        builder = _ListBuilder(_Gallery(x, search, first), numbers, torch.unique(numbers[items]))
        builder.complete((search.length + 5) // 4)
        ties = builder.tied_lists(numbers, items)
        if not builder.holds_subsets:
            return Lists(ties.by_index(search.length), builder.gallery.certificate, ties)
        indices, _ = everything.search_items()
        return Lists(indices[:, : search.length].contiguous(), everything.certificate, ties)
    indices, scores = everything.search_items()
    lists = indices[:, : search.length].contiguous()
    # a list of a group with no candidate to spare is as long as it can be, others then end where a tie may go on
    ends_early = indices.shape[1] == search.length < everything.most_candidates()
    if not _has_ties(scores) and not ends_early:
        return Lists(lists, everything.certificate, None)
    searched, order = items.sort()
    builder = _ListBuilder(everything, torch.arange(n), searched)
    builder.add(torch.arange(len(searched)), indices.cpu()[order], scores.cpu()[order], without_itself=True)
    builder.complete(indices.shape[1])
    ties = builder.tied_lists(torch.arange(n), items)
    return Lists(lists, everything.certificate, ties if ties.has_ties() else None)


def _distinct(x: RowSource, search: TieSearch) -> tuple[Tensor, Tensor]:
    """Return the number of each item's distinct row, of rows and groups together, and the first item of each."""
    is_file = isinstance(x, (str, Path, Rows))
    numbers, first = distinct_rows(open_rows(x) if is_file else as_tensor("knn: x", x, DTYPES))
    if search.groups is None:
        return numbers.cpu(), first.cpu()
    # items of one row and one group have one list
    numbers = torch.unique(torch.stack([numbers.cpu(), search.groups.cpu()], 1), dim=0, return_inverse=True)[1]
    first = torch.full((int(numbers.max()) + 1,), len(numbers))
    return numbers, first.scatter_reduce_(0, numbers, torch.arange(len(numbers)), "amin")


class _Gallery:
    """The rows of all items, or their distinct rows, and searches among them."""

    def __init__(self, x: RowSource, search: TieSearch, rows: Tensor | None = None) -> None:
        self.all_rows, self.options = x, search
        opened, groups = open_rows(x), search.groups
        # a file, or a limit on memory, is searched block by block
        in_memory = search.max_memory is None and not isinstance(x, (str, Path, Rows))
        self.source: RowSource = x
        self.groups = groups
        if rows is not None:
            self.source = _take(x, rows) if in_memory else selected_rows(opened, rows)
            self.groups = None if groups is None else groups[rows]
        self.n = opened.shape[0] if rows is None else len(rows)
        self.certificates: list[Certificate] = []

    @property
    def certificate(self) -> Certificate:
        """How the lists of the first search are known."""
        assert self.certificates
        return self.certificates[0]

    def fewest_candidates(self) -> int:
        """Return the number of candidates of the searched item that has the fewest."""
        return int(self._candidates_of_items().min())

    def most_candidates(self) -> int:
        """Return the number of candidates of the searched item that has the most."""
        return int(self._candidates_of_items().max())

    def _candidates_of_items(self) -> Tensor:
        searching = self.groups
        if self.groups is not None and self.options.items is not None:
            searching = self.groups[self.options.items]
        return self.candidates(searching)

    def search_items(self) -> tuple[Tensor, Tensor]:
        """Return the lists of the items among each other, with one neighbour more where there is one."""
        length, items = self.options.length, self.options.items
        if length >= 1:  # knn refuses others, with the number that was asked for
            length = min(length + 1, max(length, self.fewest_candidates()))
        if items is None:
            return self._search(length)
        if self.groups is not None:
            return self._search(length, items)
        # one neighbour too many: the item finds itself, unless as many of its copies come before it
        indices, scores = self._search(length + 1, items)
        is_itself = indices == items.to(indices.device)[:, None]
        is_itself[~is_itself.any(1), -1] = True
        indices, scores = (part[~is_itself].reshape(len(items), length) for part in (indices, scores))
        return indices, scores

    def candidates(self, groups: Tensor | None) -> Tensor:
        """Return the number of rows that are not of a group, for each of ``groups``; of other rows without groups."""
        if groups is None or self.groups is None:
            return torch.tensor([self.n - 1])
        values, counts = torch.unique(self.groups, return_counts=True)
        place = torch.searchsorted(values, groups).clamp_(max=len(values) - 1)
        others: Tensor = self.n - counts[place] * (values[place] == groups)
        return others

    def search_rows(self, length: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lists of some rows; without groups a row is in its own list."""
        indices, scores = self._search(length, rows)
        return indices.cpu(), scores.cpu()

    def _search(self, length: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return indices, and scores in falling order that are equal where the scores of the definition are."""
        options = self.options
        queries = None if rows is None else self.read(rows)
        graph = knn(
            self.source,
            length,
            queries=queries,
            metric=options.metric,
            groups=self.groups,
            query_groups=None if rows is None or self.groups is None else self.groups[rows],
            max_memory=options.max_memory,
            num_threads=options.num_threads,
            progress=options.progress,
            backend=options.backend,
        )
        indices, scores = torch.as_tensor(graph.indices), torch.as_tensor(graph.scores)
        if scores.dtype != torch.float64 and _has_ties(scores):
            scores = self._exact(indices.cpu(), scores.cpu(), rows)
        self.certificates.append(graph.certificate)
        return indices, scores

    def read(self, rows: Tensor) -> Array:
        """Return some rows of the gallery."""
        if isinstance(self.source, (str, Path, Rows)):
            return read_rows(open_rows(self.source), rows)
        return _take(self.source, rows)

    def _exact(self, indices: Tensor, scores: Tensor, rows: Tensor | None) -> Tensor:
        """Return scores in float64, those computed again that are equal to the next or the last one in float32."""
        equal = scores[:, 1:] == scores[:, :-1]
        again = torch.zeros_like(scores, dtype=torch.bool)
        again[:, 1:] |= equal
        again[:, :-1] |= equal
        exact = scores.double()
        lists, ranks = again.nonzero(as_tuple=True)
        searching = lists if rows is None else rows[lists]
        found = indices[lists, ranks]
        step = max(1, SCORED // open_rows(self.all_rows).shape[1])
        for start in range(0, len(lists), step):
            part = slice(start, start + step)
            left, right = (torch.as_tensor(self.read(side[part])).cpu() for side in (searching, found))
            exact[lists[part], ranks[part]] = _scores(left, right, self.options.metric)
        return exact


def _take(x: RowSource, rows: Tensor) -> Array:
    """Return some rows of what is in memory, where it is."""
    if isinstance(x, Tensor):
        return x[rows.to(x.device)]
    table = indexable(x)
    return table[rows] if isinstance(table, Tensor) else table[rows.numpy()]


def _scores(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """Return the float64 scores (p,) of the rows of x (p, d) with those of y, as ``modalign.ops.knn`` defines them."""
    total, squares_x, squares_y = (torch.zeros(len(x), dtype=torch.float64) for _ in range(3))
    for a, b in zip(x.double().unbind(1), y.double().unbind(1), strict=True):
        if metric == "euclidean":
            difference = a - b
            total -= difference * difference
        else:
            total += a * b
        if metric == "cosine":
            squares_x += a * a
            squares_y += b * b
    if metric == "cosine":
        total = total * _inverse_roots(squares_x) * _inverse_roots(squares_y)
    return total


def _inverse_roots(squares: Tensor) -> Tensor:
    # math.sqrt is correctly rounded, as IEEE 754 wants; torch.sqrt on the CPU may be off by one place
    inverse = [1 / math.sqrt(square) if square > 0 else 0.0 for square in squares.tolist()]
    return torch.tensor(inverse, dtype=torch.float64)


def _has_ties(scores: Tensor) -> bool:
    return bool((scores[:, 1:] == scores[:, :-1]).any())


class _ListBuilder:
    """Collects lists of distinct rows that reach down to the last member of their last class."""

    def __init__(self, gallery: _Gallery, rows: Tensor, searched: Tensor) -> None:
        self.gallery, self.searched = gallery, searched
        self.counts = torch.bincount(rows, minlength=gallery.n)
        self.missing = torch.ones(len(searched), dtype=torch.bool)
        if gallery.groups is None:
            self.candidates = torch.full((len(searched),), gallery.n)
        else:
            self.candidates = gallery.candidates(gallery.groups[searched])
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []  # list, member and class of entries
        limit = gallery.options.max_memory
        members = MEMBERS if limit is None else bytes_of(limit) // (4 * BYTES_OF_MEMBER)
        self.most = max(4 * gallery.options.length, members // len(searched))
        self.holds_subsets = False  # of classes that are too large to hold
        self.generator = torch.Generator().manual_seed(torch_seed("knn", gallery.options.seed))

    def complete(self, length: int) -> None:
        """Search the lists that are missing, each time four times as far."""
        while bool(self.missing.any()):
            length = 4 * length
            missing = self.missing.nonzero()[:, 0]
            for wanted in torch.split(missing, max(1, SCORED // min(length, self.gallery.n))):
                # lists of the length of the shortest of the block
                for k in torch.unique(self.candidates[wanted].clamp(max=length)).tolist():
                    which = wanted[self.candidates[wanted].clamp(max=length) == k]
                    self.add(which, *self.gallery.search_rows(k, self.searched[which]))

    def add(self, which: Tensor, indices: Tensor, scores: Tensor, *, without_itself: bool = False) -> None:
        """Keep those lists that reach far enough; without groups a row is among its candidates, or left out."""
        is_new = torch.ones_like(indices, dtype=torch.bool)
        is_new[:, 1:] = scores[:, 1:] != scores[:, :-1]
        classes = is_new.cumsum(1) - 1
        copies = self.counts[indices]
        if self.gallery.groups is None:
            copies = copies - (indices == self.searched[which][:, None]).long()
        total = copies.cumsum(1)
        first = torch.where(is_new, torch.arange(indices.shape[1]), 0).cummax(1).values  # of its class
        before = (total - copies).gather(1, first)
        length = self.gallery.options.length
        candidates = self.candidates[which] - (1 if without_itself and self.gallery.groups is None else 0)
        reaches = (before[:, -1] >= length) | (indices.shape[1] >= candidates)
        kept = (before < length) & (copies > 0) & reaches[:, None]
        lists, ranks = kept.nonzero(as_tuple=True)
        lists, ranks = self._few_enough(lists, ranks, classes)
        self.parts.append((which[lists], indices[lists, ranks], classes[lists, ranks]))
        self.missing[which[reaches]] = False

    def _few_enough(self, lists: Tensor, ranks: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Keep a random subset of the members of a class that is too large to hold."""
        codes = lists * classes.shape[1] + classes[lists, ranks]
        _, place, sizes = torch.unique_consecutive(codes, return_inverse=True, return_counts=True)
        if not len(sizes) or int(sizes.max()) <= self.most:
            return lists, ranks
        self.holds_subsets = True
        order = torch.argsort(torch.rand(len(codes), generator=self.generator))
        order = order[place[order].argsort(stable=True)]
        rank = torch.arange(len(codes)) - (sizes.cumsum(0) - sizes)[place[order]]
        kept = order[rank < self.most].sort().values
        return lists[kept], ranks[kept]

    def tied_lists(self, rows: Tensor, items: Tensor) -> TiedLists:
        """Return the collected lists for items (m,) with these rows (n,)."""
        lists, members, classes = (torch.cat(parts) for parts in zip(*self.parts, strict=True))
        order = lists.argsort(stable=True)
        starts = torch.searchsorted(lists[order], torch.arange(len(self.searched) + 1))
        return TiedLists(
            self.gallery.options.length,
            rows.numpy(),
            self.searched.numpy(),
            starts=starts.numpy(),
            members=members[order].numpy(),
            classes=classes[order].numpy(),
            items=items.numpy(),
        )
