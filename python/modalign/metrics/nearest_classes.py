"""The items that tie for the nearest neighbour, and the places of all items in the ranking by each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from modalign.common.tensors import as_tensor
from modalign.common.types import Array
from modalign.metrics.tiled_scores import Places, within_range
from modalign.neighbors.copies import distinct_rows
from modalign.neighbors.functional import knn

__all__ = ["ItemPlaces", "NearestNeighbors", "nearest_neighbors"]

PLACES, FEWEST_ROWS = 1 << 17, 8  # of rankings that are held at once, of so many rows at least


@dataclasses.dataclass(frozen=True, eq=False)
class NearestNeighbors:
    """The nearest neighbour of each item.

    Attributes:
        indices: (n,) int64, the nearest neighbour, that of the lowest index where several tie.
        open: int64, the items whose two nearest neighbours have equal scores in the precision of the search; all items
            where most rows repeat, which are then not searched.
    """

    indices: Tensor
    open: Tensor


def nearest_neighbors(
    rows: Array, metric: str, *, queries: Array | None = None, backend: str = "auto"
) -> NearestNeighbors:
    """Search the nearest neighbour of each row among the other rows, or of each query among the rows."""
    n = len(rows)
    if queries is None and 2 * len(distinct_rows(as_tensor("knn: x", rows))[1]) <= n:
        return NearestNeighbors(torch.arange(n), torch.arange(n))
    graph = knn(rows, 2, queries=queries, metric=metric, backend=backend)
    indices, scores = torch.as_tensor(graph.indices).cpu(), torch.as_tensor(graph.scores).cpu()
    return NearestNeighbors(indices[:, 0].clone(), (scores[:, 0] == scores[:, 1]).nonzero()[:, 0])


class ItemPlaces:
    """The places of the items of one table in the ranking by each of them, or by the rows of another table.

    Rows that repeat are scored once.

    Args:
        table: (n, d) the items that are ranked.
        metric: "cosine", "dot" or "euclidean".
        queries: (m, d) the rows that rank; None for the items themselves, each of which is left out of its own ranking.
    """

    def __init__(self, table: Tensor, metric: str, queries: Tensor | None = None) -> None:
        self.itself = queries is None
        self.rows, kept = distinct_rows(table)
        tables = [table[kept] if len(kept) < len(table) else table]
        self.queries = self.rows
        if queries is not None:
            self.queries, kept = distinct_rows(queries)
            tables.insert(0, queries[kept] if len(kept) < len(queries) else queries)
        self.tables = [rows.double() for rows in within_range(tables, metric)]
        self.metric = metric
        self.counts = torch.bincount(self.rows)

    def of(self, items: Tensor) -> Places:
        """Return the places (m, n) of all items in the rankings by some; an item's own place means nothing."""
        places = self.of_rows(self.queries[items])
        return Places(places.closer[:, self.rows], places.tied[:, self.rows])

    def of_rows(self, rows: Tensor) -> Places:
        """Return the places of all distinct rows in the rankings by some distinct rows of the queries."""
        # scores in float64 are equal where those of the definition are
        graph = knn(self.tables[-1], len(self.counts), queries=self.tables[0][rows], metric=self.metric)
        order, scores = torch.as_tensor(graph.indices), torch.as_tensor(graph.scores)
        of_class = torch.zeros_like(order)
        of_class[:, 1:] = (scores[:, 1:] != scores[:, :-1]).cumsum(1)
        items = self.counts[order] - (order == rows[:, None]).long() if self.itself else self.counts[order]
        sizes = torch.zeros_like(order).scatter_add_(1, of_class, items)
        closer, tied = (
            torch.empty_like(order).scatter_(1, order, part.gather(1, of_class))
            for part in (sizes.cumsum(1) - sizes, sizes)
        )
        return Places(closer, tied)

    def of_partners(self) -> Places:
        """Return the place of each item in the ranking by the query of the same number, (n,)."""
        closer, tied = torch.empty_like(self.rows), torch.empty_like(self.rows)
        counts = torch.bincount(self.queries)
        items = torch.split(self.queries.argsort(stable=True), counts.tolist())
        for block in self.blocks(torch.arange(len(counts))):
            places = self.of_rows(block)
            for number, query in enumerate(block.tolist()):
                closer[items[query]] = places.closer[number, self.rows[items[query]]]
                tied[items[query]] = places.tied[number, self.rows[items[query]]]
        return Places(closer, tied)

    def are_nearest(self, items: Tensor) -> Tensor:
        """Return which items tie for the nearest to each of some, (m, n) bool."""
        places = self.of_rows(self.queries[items])
        nearest = (places.closer == 0)[:, self.rows]
        if self.itself:
            nearest[torch.arange(len(items)), items] = False
        return nearest

    def blocks(self, items: Tensor) -> Iterator[Tensor]:
        """Yield the items in blocks whose places are held at once."""
        return iter(torch.split(items, max(FEWEST_ROWS, PLACES // len(self.rows))))

    def mean_over_nearest(self, other: ItemPlaces, items: Tensor) -> Tensor:
        """Return the mean rank, in another table, of the items that tie for the nearest in this one, (m,) float64."""
        pairs = torch.stack([self.rows[items], other.rows[items]], 1)
        distinct, of_item = torch.unique(pairs, dim=0, return_inverse=True)
        # items of equal rows in both tables have one mean
        first = torch.empty(len(distinct), dtype=torch.int64)
        first[of_item] = items
        means = []
        for block in self.blocks(first):
            nearest = self.are_nearest(block)
            ranks = other.of(block).mean_ranks
            means.append(ranks.mul_(nearest).sum(1) / nearest.sum(1))
        return torch.cat(means)[of_item]

    def nearest_sizes(self, items: Tensor) -> Tensor:
        """Return the number of items that tie for the nearest to each of some, (m,) int64."""
        distinct, of_item = torch.unique(self.queries[items], return_inverse=True)
        sizes = []
        for rows in self.blocks(distinct):
            items_of_rows = self.counts.expand(len(rows), -1)
            if self.itself:
                items_of_rows = items_of_rows.scatter_add(1, rows[:, None], -torch.ones_like(rows[:, None]))
            sizes.append(((self.of_rows(rows).closer == 0) * items_of_rows).sum(1))
        return torch.cat(sizes)[of_item]
