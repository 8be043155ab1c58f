"""Scores of metrics that compare the nearest neighbours of the items in both representations.

Each representation is searched once, with lists a little longer than k: the graphs of random parts of the items, the
curve over sizes and the relabelled graphs come from these lists. Where neighbours tie, a score is its expectation over
random orders of tied neighbours: in closed form where the metric has one, else the mean over drawn orders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from modalign.alignment.graph_facts import graph_facts, record_ties
from modalign.alignment.intervals import SPLITS, PartScore, list_length, within_part
from modalign.alignment.items import Items
from modalign.alignment.memory import search_limit
from modalign.alignment.nulls import Null
from modalign.alignment.scoring import Interval, Record, Scoring
from modalign.alignment.settings import Settings
from modalign.alignment.size_curve import mean_curve, size_curve
from modalign.alignment.within_chance import chance_within
from modalign.metrics.inputs import Graphs, group_weights, mean_over_items
from modalign.metrics.registry import METRICS
from modalign.metrics.tied_graphs import TiedGraphs, graphs_of_lists
from modalign.metrics.tied_scores import NULL_DRAWS, TiedScore, metric_score
from modalign.neighbors.functional import neighbor_overlap
from modalign.neighbors.tie_search import Lists, TieSearch, search_lists

__all__ = ["GraphScores"]

SIZE_CURVE_LISTS = 10  # entries of a list for each neighbour, for the curve over sizes


class GraphScores(Scoring):
    """The scores of metrics that need "lists" or "graphs"."""

    def __init__(self, items: Items, settings: Settings, record: Record, names: Iterable[str]) -> None:
        super().__init__(items, settings, record)
        n, k = items.n, settings.k
        self.length = list_length(n, k) if self.has_intervals() else k
        if settings.size_curve:
            self.length = max(self.length, min(n - 1, SIZE_CURVE_LISTS * k))
        self.length = min(self.length, items.fewest_candidates)
        lists = self._search()
        self.lists = lists[0].indices, lists[1].indices
        a, b = (graph[:, :k].contiguous() for graph in self.lists)
        self.graphs = Graphs(a, b, metric=settings.metric)
        with self.record.timed("facts"):
            graph_facts(items, settings, record, self.graphs)
        tied = graphs_of_lists(*lists, self._with_rows(names), seed=settings.seed)
        self.tied = tied if isinstance(tied, TiedGraphs) else None
        if self.tied is None:
            graphs = self._with_rows(names)
            self.values = self.evaluate(names, lambda name: _score(name, graphs, items.weights))
        else:
            self.draws = [self.tied.draw(number) for number in range(NULL_DRAWS)]
            effects: dict[str, TiedScore] = {}
            self.values = self.evaluate(names, lambda name: self._expected_score(name, effects))
            self.best = {name: effect.best for name, effect in effects.items()}
            self.errors = {name: effect.error for name, effect in effects.items() if effect.draws}
            record_ties(record, self.tied, effects)
        self._record_curves()

    def _search(self) -> tuple[Lists, Lists]:
        """Return the neighbour lists of both representations."""
        with self.record.timed("graphs"):
            found = []
            for second, rows in enumerate((self.items.x, self.items.y)):
                search = self.settings.search
                search["max_memory"] = search_limit(self.items, self.settings, self.length, second=bool(second))
                seed = self.settings.seed ^ second  # differs between x and y
                lists = search_lists(rows, TieSearch(self.length, groups=self.items.groups, seed=seed, **search))
                found.append(dataclasses.replace(lists, indices=lists.indices.cpu()))
        self.record.facts["graphs"] = {side: str(lists.certificate) for side, lists in zip("xy", found, strict=True)}
        return found[0], found[1]

    # ties

    def _expected_score(self, name: str, effects: dict[str, TiedScore]) -> float:
        """Return the expectation of a score over orders of ties, and keep what the ties do to it."""
        assert self.tied is not None
        metric, weights = METRICS[name], self.items.weights
        score = metric_score(metric, self.tied, weights)
        effects[name] = TiedScore.of(metric, self.tied, score, weights)
        return mean_over_items(score.items, weights)

    def cost_of(self, name: str, *, again: bool = False) -> float:
        drawn = self.tied is not None and METRICS[name].expected is None
        return super().cost_of(name, again=again) * (NULL_DRAWS if drawn else 1)

    # curves

    def _record_curves(self) -> None:
        """Record mutual k-NN for every number of neighbours up to k, and the curve over sizes if asked for."""
        k, items, curves = self.settings.k, self.items, self.record.curves
        ranks = list(range(1, k + 1))
        if self.tied is not None:
            shares = self.tied.shares(ranks)
        else:
            shares = neighbor_overlap(self.graphs.a, self.graphs.b).double() / torch.arange(1, k + 1)
        means = shares.mean(0) if items.weights is None else items.weights @ shares
        curves["k"] = {"k": ranks, "value": means.tolist(), "chance": self._chance_by_rank(ranks)}
        if self.settings.size_curve:
            with self.record.timed("size curve"):
                every = [size_curve(*lists, k, confidence=self.settings.confidence) for lists in self._long_lists()]
                curve = mean_curve(every)
                # the last size is that of all items, whose score is known
                for column in (curve.values, curve.low, curve.high):
                    column[-1] = means[-1].item()
                curves["size"] = dataclasses.asdict(curve)

    def _chance_by_rank(self, ranks: list[int]) -> list[float]:
        """Return the mean of mutual k-NN under the relabellings of the null, for every number of neighbours."""
        if self.items.within is None:
            return [self.items.chance_of_mutual_knn(rank) for rank in ranks]
        graphs = [self.graphs] if self.tied is None else self.draws
        means = [chance_within(graph.a, graph.b, self.items.within) for graph in graphs]
        return torch.stack(means).mean(0).tolist()

    def _long_lists(self, draws: int = NULL_DRAWS) -> list[tuple[Tensor, Tensor]]:
        """Return the lists that are longer than k, with ties in the order of several draws where there are ties."""
        if self.tied is None:
            return [self.lists]
        drawn = [self.tied.draw(number, self.length) for number in range(draws)]
        return [(graphs.a, graphs.b) for graphs in drawn]

    # intervals and nulls

    def intervals(self) -> dict[str, Interval]:
        names = self.affordable(self.values, sum(SPLITS.values()), "interval")
        if not names:
            return {}
        rows, groups, tied = self._with_rows(names).rows, self.items.groups, self.tied
        needs_draws = tied is not None and any(METRICS[name].expected is None for name in names)
        long_lists = self._long_lists(2) if tied is None or needs_draws else []

        def evaluate_part(names: list[str], kept: Tensor) -> dict[str, PartScore]:
            part_rows = None if rows is None else (rows[0][kept], rows[1][kept])
            weights = None if groups is None else group_weights(groups[kept])
            k, graphs = self._neighbors_in_part(kept), []
            for lists in long_lists:
                a, b = (within_part(graph, kept, k) for graph in lists)
                graphs.append(Graphs(a, b, self.settings.metric, part_rows))

            def score(name: str) -> PartScore:
                if tied is None:
                    return _score(name, graphs[0], weights)
                if METRICS[name].expected is None:
                    return _score(name, graphs[0], weights), _score(name, graphs[1], weights)
                value = mean_over_items(METRICS[name].load("expected")(tied, kept=kept), weights)
                return value, value

            return self.evaluate_part(names, score)

        return self.split_intervals(names, evaluate_part)

    def _neighbors_in_part(self, kept: Tensor) -> int:
        """Return the number of neighbours of an item in a part of the items.

        Where neighbours tie, a part has as large a part of the neighbours: k of them may be all of a class of equal
        rows in half of the items, and few of it in all. The score of halves would be another one.
        """
        k = self.settings.k
        return k if self.tied is None else max(1, round(k * float(kept.double().mean())))

    def nulls(self) -> dict[str, Null]:
        nulls = self.closed_form_nulls(self.graphs if self.tied is None else self.tied)
        names = [name for name in self.values if name not in nulls]
        rows, weights, tied = self._with_rows(names).rows, self.items.weights, self.tied
        every = [self.graphs] if tied is None else self.draws
        drawn = [name for name in names if tied is not None and METRICS[name].expected is None]

        def evaluate_relabelled(names: list[str], s: Tensor) -> dict[str, float]:
            place = torch.empty_like(s)
            place[s] = torch.arange(self.items.n)
            second = None if rows is None else (rows[0], rows[1][s])
            needed = every if tied is None or drawn else []
            relabelled = [dataclasses.replace(graphs, b=place[graphs.b[s]], rows=second) for graphs in needed]

            def score(name: str) -> float:
                if tied is not None and METRICS[name].expected is not None:
                    return mean_over_items(METRICS[name].load("expected")(tied, relabelling=s), weights)
                return sum(_score(name, graphs, weights) for graphs in relabelled) / len(relabelled)

            return self.evaluate_relabelling(names, score)

        compared = {name: sum(_score(name, graphs, weights) for graphs in every) / len(every) for name in drawn}
        return nulls | self.relabelled_nulls(names, evaluate_relabelled, compared=compared)

    def _with_rows(self, names: Iterable[str]) -> Graphs:
        """Return the graphs, with the rows if one of the metrics reads them."""
        reads_rows = any(METRICS[name].reads_rows for name in names)
        return dataclasses.replace(self.graphs, rows=self.items.rows if reads_rows else None)


def _score(name: str, graphs: Graphs, weights: Tensor | None) -> float:
    return mean_over_items(METRICS[name].load("evaluate")(graphs), weights)
