"""The closed-form nulls that the metric registry names, each with the condition under which it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modalign.alignment.nulls import Null, cka_null, cka_tail_holds, mutual_knn_null, tied_knn_null, unbiased_cka_null
from modalign.metrics.inputs import Graphs
from modalign.metrics.sums import Moments
from modalign.metrics.tied_graphs import TiedGraphs

__all__ = ["CLOSED_FORMS"]

FEW_TIED = 0.05  # share of the edges that random orders of ties decide, below which it was simulated
SPARSE = 10  # items for each neighbour, above which the tail of mutual k-NN was simulated


def _shared_edges(graphs: Graphs | TiedGraphs, score: float, confidence: float, best: float) -> Null | None:
    if isinstance(graphs, TiedGraphs):
        holds = len(graphs.x.rows) >= SPARSE * graphs.k and graphs.tied_share() <= FEW_TIED
        return tied_knn_null(graphs, score, confidence, best=best) if holds else None
    n, k = graphs.a.shape
    return mutual_knn_null(graphs.a, graphs.b, score, confidence) if n >= SPARSE * k else None


def _cka(moments: Moments, score: float, confidence: float, best: float) -> Null | None:
    x, y = moments.traces("x"), moments.traces("y")
    if not cka_tail_holds(moments.n, x, y):
        return None
    skewness = moments.skewness("x"), moments.skewness("y")
    return cka_null(moments.n, x, y, skewness, score=score, confidence=confidence)


def _unbiased_cka(moments: Moments, score: float, confidence: float, best: float) -> Null | None:
    if not cka_tail_holds(moments.n, moments.traces("x"), moments.traces("y")):
        return None
    skewness = moments.skewness("x"), moments.skewness("y")
    return unbiased_cka_null(moments.n, skewness, score, confidence)


# Name in the registry -> function of the inputs of the metric's evaluator, the score, the confidence and the best score
# there is. It returns None where the tail is not near the true one; the null is then drawn by relabelling.
CLOSED_FORMS: dict[str, Callable[[Any, float, float, float], Null | None]] = {
    "shared_edges": _shared_edges,
    "cka": _cka,
    "unbiased_cka": _unbiased_cka,
}
