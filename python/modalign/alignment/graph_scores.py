"""Scores of metrics that compare the nearest neighbours of the items in both representations.

Each representation is searched once, with lists a little longer than k: the graphs of random parts of the items, the
curve over sizes and the relabelled graphs come from these lists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from modalign.alignment.intervals import SPLITS, list_length, within_part
from modalign.alignment.items import Items
from modalign.alignment.memory import search_limit
from modalign.alignment.nulls import Null
from modalign.alignment.scoring import Interval, Record, Scoring
from modalign.alignment.settings import Settings
from modalign.alignment.size_curve import size_curve
from modalign.metrics.diagnostics import duplicates, hubness, reciprocity, zero_rows
from modalign.metrics.inputs import Graphs, group_weights, mean_over_items
from modalign.metrics.registry import METRICS
from modalign.neighbors.functional import knn, neighbor_overlap

__all__ = ["GraphScores"]

SIZE_CURVE_LISTS = 10  # entries of a list for each neighbour, for the curve over sizes
MANY_DUPLICATES = 0.01  # share of the items, above which a note says so


class GraphScores(Scoring):
    """The scores of metrics that need "lists" or "graphs"."""

    def __init__(self, items: Items, settings: Settings, record: Record, names: Iterable[str]) -> None:
        super().__init__(items, settings, record)
        n, k = items.n, settings.k
        length = list_length(n, k) if self.has_intervals() else k
        if settings.size_curve:
            length = max(length, min(n - 1, SIZE_CURVE_LISTS * k))
        self.lists = self._search(length)
        a, b = (graph[:, :k].contiguous() for graph in self.lists)
        self.graphs = Graphs(a, b, metric=settings.metric)
        self._record_facts()
        self._record_curves()
        graphs = self._with_rows(names)
        self.values = self.evaluate(names, lambda name: _score(name, graphs, items.weights))

    def _search(self, length: int) -> tuple[Tensor, Tensor]:
        """Return the neighbour lists of both representations."""
        with self.record.timed("graphs"):
            graphs = []
            for second, rows in enumerate((self.items.x, self.items.y)):
                search = self.settings.search
                search["max_memory"] = search_limit(self.items, self.settings, length, second=bool(second))
                graphs.append(knn(rows, length, groups=self.items.groups, **search))
        self.record.facts["graphs"] = {side: str(graph.certificate) for side, graph in zip("xy", graphs, strict=True)}
        a, b = (torch.as_tensor(graph.indices).cpu() for graph in graphs)
        return a, b

    def _record_facts(self) -> None:
        facts = self.record.facts
        graphs, rows = {"x": self.graphs.a, "y": self.graphs.b}, dict(zip("xy", self.items.rows, strict=True))
        with self.record.timed("facts"):
            facts["reciprocity"] = {side: reciprocity(graph) for side, graph in graphs.items()}
            facts["hubness"] = {side: dataclasses.asdict(hubness(graph)) for side, graph in graphs.items()}
            copies = {side: duplicates(table) for side, table in rows.items()}
            zeros = {side: zero_rows(table) for side, table in rows.items()}
        facts["duplicates"] = {side: dataclasses.asdict(counts) for side, counts in copies.items()}
        facts["zero_rows"] = zeros
        for side, counts in copies.items():
            if counts.items > MANY_DUPLICATES * self.items.n:
                self.record.note(
                    f"{counts.items:,} items of {side} have an exact copy; they hold {counts.groups:,} distinct rows, "
                    "and neighbours among copies are chosen by index"
                )
        for side, count in zeros.items():
            if count and self.settings.metric == "cosine":
                self.record.note(
                    f"{count:,} rows of {side} are all zero and have no direction (failed embeddings?). Zero rows in "
                    "the same places of x and y look like alignment; leave them out"
                )

    def _record_curves(self) -> None:
        """Record mutual k-NN for every number of neighbours up to k, and the curve over sizes if asked for."""
        k, weights, curves = self.settings.k, self.items.weights, self.record.curves
        counts = neighbor_overlap(self.graphs.a, self.graphs.b).double()
        shares = counts.mean(0) if weights is None else weights @ counts
        shares /= torch.arange(1, k + 1)
        ranks = list(range(1, k + 1))
        chance = [self.items.chance_of_mutual_knn(rank) for rank in ranks]
        curves["k"] = {"k": ranks, "value": shares.tolist(), "chance": chance}
        if self.settings.size_curve:
            with self.record.timed("size curve"):
                curves["size"] = dataclasses.asdict(size_curve(*self.lists, k, confidence=self.settings.confidence))

    def intervals(self) -> dict[str, Interval]:
        names = self.affordable(self.values, sum(SPLITS.values()), "interval")
        if not names:
            return {}
        rows = self._with_rows(names).rows
        groups, k = self.items.groups, self.settings.k

        def evaluate_part(names: list[str], kept: Tensor) -> dict[str, float]:
            a, b = (within_part(graph, kept, k) for graph in self.lists)
            part_rows = None if rows is None else (rows[0][kept], rows[1][kept])
            graphs = Graphs(a, b, metric=self.settings.metric, rows=part_rows)
            weights = None if groups is None else group_weights(groups[kept])
            return self.evaluate_part(names, lambda name: _score(name, graphs, weights))

        return self.split_intervals(names, evaluate_part)

    def nulls(self) -> dict[str, Null]:
        nulls = self.closed_form_nulls(self.graphs)
        names = [name for name in self.values if name not in nulls]
        rows, weights = self._with_rows(names).rows, self.items.weights

        def evaluate_relabelled(names: list[str], s: Tensor) -> dict[str, float]:
            place = torch.empty_like(s)
            place[s] = torch.arange(self.items.n)
            graphs = dataclasses.replace(
                self.graphs, b=place[self.graphs.b[s]], rows=None if rows is None else (rows[0], rows[1][s])
            )
            return self.evaluate(names, lambda name: _score(name, graphs, weights))

        return nulls | self.relabelled_nulls(names, evaluate_relabelled)

    def _with_rows(self, names: Iterable[str]) -> Graphs:
        """Return the graphs, with the rows if one of the metrics reads them."""
        reads_rows = any(METRICS[name].reads_rows for name in names)
        return dataclasses.replace(self.graphs, rows=self.items.rows if reads_rows else None)


def _score(name: str, graphs: Graphs, weights: Tensor | None) -> float:
    return mean_over_items(METRICS[name].load("evaluate")(graphs), weights)
