"""Scores of two representations whose neighbours may tie: expectations over random orders of tied neighbours.

The overlap of lists has a closed form (``modalign.metrics.tied_graphs``); other scores are means over drawn orders,
with the error of the mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from modalign.common.labels import label_tensor
from modalign.common.types import Array
from modalign.files.rows import RowSource
from modalign.metrics.graphs import Search, paired_rows
from modalign.metrics.inputs import Graphs, mean_over_items
from modalign.metrics.registry import Metric
from modalign.metrics.tied_graphs import TiedGraphs, graphs_of_lists
from modalign.neighbors.tie_search import TieSearch, search_lists

__all__ = [
    "NULL_DRAWS",
    "DrawnScore",
    "TiedScore",
    "best_score",
    "drawn_score",
    "metric_score",
    "number_of_draws",
    "searched_graphs",
    "searched_score",
]

NULL_DRAWS = 4  # orders of ties whose mean score is relabelled: a relabelled score costs as many evaluations

DRAWN_LISTS = 1 << 15  # of all draws together, where items are few
FEWEST_DRAWS, MOST_DRAWS = 8, 64


def number_of_draws(items: int) -> int:
    """Return the number of orders over which a score without a closed form is averaged: from 8 to 64."""
    return max(FEWEST_DRAWS, min(MOST_DRAWS, DRAWN_LISTS // items))


def searched_graphs(
    operation: str, x: RowSource, y: RowSource, search: Search, rows: tuple[Array, Array] | None = None
) -> Graphs | TiedGraphs:
    """Search the neighbours in x and in y, and return their graphs, or the graphs with their ties where there are any.

    Args:
        operation: The name of the calling function, with which error messages begin.
        x: (n, d_x) rows, as in ``modalign.knn``.
        y: (n, d_y) rows.
        search: The options of the search.
        rows: Both tables, for scores that read them.
    """
    groups = None if search.groups is None else label_tensor("knn: groups", search.groups)
    options = TieSearch(search.k, search.metric, groups, backend=search.backend)
    lists = [search_lists(side, options) for side in paired_rows(operation, x, y)]
    return graphs_of_lists(lists[0], lists[1], Graphs(lists[0].indices, lists[1].indices, search.metric, rows))


def searched_score(graphs: Graphs | TiedGraphs, evaluate: Callable[[Graphs], Tensor | float]) -> float:
    """Return the score of graphs, or its mean over drawn orders of ties."""
    if isinstance(graphs, Graphs):
        return mean_over_items(evaluate(graphs))
    draws = [graphs.draw(number) for number in range(number_of_draws(len(graphs.x.items)))]
    return mean_over_items(drawn_score(evaluate, draws).items)


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


@dataclasses.dataclass(frozen=True)
class TiedScore:
    """What ties do to the score of a metric.

    Attributes:
        error: As in ``DrawnScore``.
        draws: As in ``DrawnScore``.
        best: The best score that the ties allow.
    """

    error: float
    draws: int
    best: float

    @classmethod
    def of(
        cls, metric: Metric, graphs: Graphs | TiedGraphs, score: DrawnScore, weights: Tensor | None = None
    ) -> TiedScore:
        """Return it for a score that ``metric_score`` returned for the graphs."""
        return cls(score.error, score.draws, best_score(metric, graphs, weights))


def metric_score(metric: Metric, graphs: Graphs | TiedGraphs, weights: Tensor | None = None) -> DrawnScore:
    """Return the score of a metric that needs "lists" or "graphs"; where there are ties, its expectation over orders.

    Args:
        metric: The entry in the registry.
        graphs: The graphs, with their ties where neighbours tie.
        weights: The weights of the items in a mean over groups, or None.
    """
    if isinstance(graphs, Graphs):
        return DrawnScore(metric.load("evaluate")(graphs))
    if metric.expected is not None:
        return DrawnScore(metric.load("expected")(graphs))
    draws = [graphs.draw(number) for number in range(number_of_draws(len(graphs.x.items)))]
    return drawn_score(metric.load("evaluate"), draws, weights)


def best_score(metric: Metric, graphs: Graphs | TiedGraphs, weights: Tensor | None = None) -> float:
    """Return the best score that the ties allow: that of two equal graphs, or less, as two random orders differ.

    The score of a representation with itself, in two independent orders of its ties, is its best; of two
    representations it is the geometric mean of theirs. For the share of common neighbours this is a bound; the other
    scores are drawn with the random numbers of ``metric_score``, so that equal representations have their best score.
    """
    if isinstance(graphs, Graphs):
        return metric.best
    if metric.expected is not None:
        x, y = (mean_over_items(shares, weights) for shares in graphs.self_shares())
        return x if x == y else math.sqrt(x * y)
    evaluate, numbers = metric.load("evaluate"), range(number_of_draws(len(graphs.x.items)))
    means = []
    for side in (0, 1):
        draws = [graphs.draw_with_itself(side, number) for number in numbers]
        means.append(mean_over_items(drawn_score(evaluate, draws, weights).items, weights))
    if means[0] == means[1]:
        return means[0]
    return math.sqrt(means[0] * means[1]) if min(means) > 0 else metric.best
