"""``align_layers``: one metric of every pair of layers, and whether the best pair is more than chance."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from modalign.alignment.items import Indexable
from modalign.alignment.nulls import Null, sampled_null
from modalign.alignment.preparation import prepare_layers
from modalign.alignment.relabelling import random_relabellings
from modalign.alignment.results import LayerAlignment
from modalign.alignment.settings import Settings
from modalign.common.types import Array
from modalign.files.rows import RowSource, indexable, open_layers
from modalign.metrics.inputs import Graphs, mean_over_items
from modalign.metrics.registry import METRICS
from modalign.metrics.sums import moments
from modalign.neighbors.functional import knn

__all__ = ["LayerSource", "align_layers"]

# a list of layers, one (n, L, d) array or tensor, or the path of a file
LayerSource: TypeAlias = Sequence[RowSource] | Array | str | Path


def align_layers(
    xs: LayerSource,
    ys: LayerSource,
    metric_name: str = "mutual_knn",
    k: int = 10,
    *,
    metric: str = "cosine",
    prepare: str | None = None,
    relabellings: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
    num_threads: int | None = None,
    progress: bool = False,
) -> LayerAlignment:
    """Compute one metric for every layer of x and every layer of y, and test the best pair against chance.

    The best of many pairs is high by chance already. Its null is therefore the best score of all pairs under
    relabellings that all pairs share. L_x + L_y neighbour graphs are searched, not 2 L_x L_y.

    Args:
        xs: list of L_x (n, d) arrays, tensors or files; an (n, L_x, d) array or tensor; or a file of one
            (``modalign.files.rows.open_layers``). The layers of one model.
        ys: The layers of the other model, L_y of them, for the same n items.
        metric_name: str. One of ``modalign.metrics.METRICS``, except for those that look at every pair of items.
        k: int, 1 <= k <= n - 1. Number of neighbours of an item.
        metric: "cosine", "dot" or "euclidean". The similarity by which neighbours are searched.
        prepare: A name of ``modalign.alignment.preparation.PREPARATIONS``, or None. As in ``modalign.align``;
            "platonic" and "platonic_exact" clamp all layers of a model at one value.
        relabellings: int. Number of random relabellings, at least 19; 0 for no null.
        confidence: float in (0, 1). Level of the threshold that calibrates the score.
        seed: int, -2^63 to 2^64 - 1. Seed of the relabellings.
        num_threads: int or None. Number of threads of the searches; None for all cores.
        progress: bool. Whether to show a progress bar.

    Returns:
        ``modalign.LayerAlignment``. Peak memory: that of one ``modalign.knn``, and L_x + L_y graphs of n k indices.

    Raises:
        TypeError, ValueError: As ``modalign.knn``; ValueError also if layers have different numbers of rows.

    Examples:
        >>> import numpy as np, modalign
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(200, 8))
        >>> result = modalign.align_layers([x, rng.normal(size=(200, 8))], [rng.normal(size=(200, 4)), x[:, :6]], k=5)
        >>> result.best, result.null.p
        ((0, 1), 0.004975124378109453)
    """
    settings = Settings(
        operation="align_layers",
        metrics=(metric_name,),
        k=k,
        metric=metric,
        prepare=prepare,
        null="relabelled" if relabellings else "none",
        relabellings=relabellings or None,
        confidence=confidence,
        seed=seed,
        num_threads=num_threads,
        progress=progress,
    )
    _require_metric(metric_name)
    start = time.perf_counter()
    layers = _Layers.of(metric_name, settings, _paired_layers(xs, ys, prepare))
    searched = time.perf_counter()
    matrix = torch.tensor(layers.scores(), dtype=torch.float64)
    scored = time.perf_counter()
    place = int((-matrix if METRICS[metric_name].lower_is_closer else matrix).argmax())
    best = (place // matrix.shape[1], place % matrix.shape[1])
    null = layers.null_of_best(float(matrix[best])) if relabellings else None
    cost = {"graphs": searched - start, "scores": scored - searched, "null": time.perf_counter() - scored}
    return LayerAlignment(
        metric=metric_name,
        matrix=matrix.tolist(),
        best=best,
        null=null,
        settings=_recorded(layers),
        cost=cost,
    )


@dataclasses.dataclass(frozen=True)
class _Layers:
    """The layers of both models with their neighbour graphs (none for metrics that need moments)."""

    name: str
    settings: Settings
    xs: list[Indexable]
    ys: list[Indexable]
    graphs_x: list[Tensor]
    graphs_y: list[Tensor]

    @classmethod
    def of(cls, name: str, settings: Settings, layers: tuple[list[Indexable], list[Indexable]]) -> _Layers:
        """Search the graphs that the metric needs."""
        graphs: list[list[Tensor]] = [[], []]
        if METRICS[name].needs != "moments":
            graphs = [[_search(layer, settings) for layer in side] for side in layers]
        return cls(name, settings, *layers, *graphs)

    @property
    def n(self) -> int:
        return len(self.xs[0])

    def scores(self, s: Tensor | None = None) -> list[list[float]]:
        """Return the score of every pair of layers, with item s[i] of y beside item i of x where s is given."""
        ys, graphs_y = self.ys, self.graphs_y
        if s is not None:
            place = torch.empty_like(s)
            place[s] = torch.arange(self.n)
            ys, graphs_y = [y[s] for y in ys], [place[graph[s]] for graph in graphs_y]
        evaluate = METRICS[self.name].load("evaluate")
        if METRICS[self.name].needs == "moments":
            return [[float(evaluate(moments(x, y))) for y in ys] for x in self.xs]
        return [
            [
                mean_over_items(evaluate(Graphs(a, b, metric=self.settings.metric, rows=(x, y))))
                for y, b in zip(ys, graphs_y, strict=True)
            ]
            for x, a in zip(self.xs, self.graphs_x, strict=True)
        ]

    def null_of_best(self, score: float) -> Null:
        """Return the null of the best score of all pairs, from relabellings that all pairs share."""
        metric, settings = METRICS[self.name], self.settings
        best = min if metric.lower_is_closer else max
        drawn = [best(scores) for scores in self._relabelled_scores()]
        return sampled_null(score, drawn, settings.confidence, best=metric.best)

    def _relabelled_scores(self) -> Iterator[Sequence[float]]:
        """Yield the scores of all pairs under each relabelling."""
        metric, settings = METRICS[self.name], self.settings
        assert settings.relabellings is not None
        drawn = random_relabellings(self.n, settings.relabellings, settings.seed)
        if metric.relabelled is None:
            for s in drawn:
                yield [score for row in self.scores(s) for score in row]
            return
        relabelled, every = metric.load("relabelled"), torch.stack(list(drawn))
        pairs = [Graphs(a, b, metric=settings.metric) for a in self.graphs_x for b in self.graphs_y]
        yield from zip(*(relabelled(graphs)(every).tolist() for graphs in pairs), strict=True)


def _require_metric(name: str) -> None:
    if METRICS[name].needs == "pairs":
        taken = ", ".join(name for name, metric in METRICS.items() if metric.needs != "pairs")
        raise ValueError(f"align_layers: metric_name must be among {taken}, got {name!r}")


def _search(layer: Indexable, settings: Settings) -> Tensor:
    """Return the neighbour graph of a layer, [n, k]."""
    return torch.as_tensor(knn(layer, settings.k, **settings.search).indices).cpu()


def _paired_layers(xs: LayerSource, ys: LayerSource, prepare: str | None) -> tuple[list[Indexable], list[Indexable]]:
    """Return the layers of both models as arrays or tensors, checked to hold the same items."""
    left, right = _layer_list(xs), _layer_list(ys)
    if prepare is not None:
        left, right = prepare_layers(left, prepare, name="xs"), prepare_layers(right, prepare, name="ys")
    left, right = ([indexable(layer) for layer in side] for side in (left, right))
    for side, layers in (("xs", left), ("ys", right)):
        rows = [len(layer) for layer in layers]
        if set(rows) != {len(left[0])}:
            raise ValueError(f"align_layers: every layer must hold the same items, got {rows} rows in {side}")
    return left, right


def _layer_list(layers: Any) -> list[Indexable]:
    """Return the layers of one model as a list."""
    if isinstance(layers, (str, Path)):
        return list(open_layers(layers))
    if hasattr(layers, "ndim") and not isinstance(layers, (list, tuple)):
        if layers.ndim != 3:
            raise ValueError(f"align_layers: layers must be a list or an array (n, L, d), got {tuple(layers.shape)}")
        return [layers[:, number] for number in range(layers.shape[1])]
    if not len(layers):
        raise ValueError("align_layers: needs at least one layer of each")
    return list(layers)


def _recorded(layers: _Layers) -> dict[str, object]:
    """Return the settings as ``LayerAlignment.settings`` holds them."""
    settings = layers.settings
    return {
        "n": layers.n,
        "k": settings.k,
        "metric": settings.metric,
        "prepare": settings.prepare,
        "relabellings": settings.relabellings or 0,
        "confidence": settings.confidence,
        "seed": settings.seed,
    }
