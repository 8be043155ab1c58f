"""``align_layers``: one metric of every pair of layers, and whether the best pair is more than chance."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modalign.alignment.graph_facts import note_pairings, record_ties
from modalign.alignment.items import Ids, Indexable, require_one_kind, shared_places, unpaired_note
from modalign.alignment.nulls import Null, sampled_null
from modalign.alignment.preparation import prepare_layers
from modalign.alignment.relabelling import random_relabellings
from modalign.alignment.results import LayerAlignment
from modalign.alignment.scoring import Record
from modalign.alignment.settings import Settings
from modalign.alignment.within_chance import number_of_pairings
from modalign.common.labels import Labels, label_tensor
from modalign.common.tensors import as_tensor
from modalign.common.types import Array
from modalign.files.rows import RowSource, indexable, open_layers, open_rows
from modalign.metrics.inputs import Graphs, group_weights, mean_over_items
from modalign.metrics.registry import METRICS, Metric
from modalign.metrics.sums import moments
from modalign.metrics.tied_graphs import TiedGraphs, graphs_of_lists
from modalign.metrics.tied_scores import NULL_DRAWS, TiedScore, best_score, metric_score
from modalign.neighbors.copies import distinct_rows
from modalign.neighbors.tie_search import Lists, TieSearch, search_lists
from modalign.ops.knn import DTYPES

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
    groups: Labels | None = None,
    within: Labels | None = None,
    ids: Ids | None = None,
    relabellings: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
    num_threads: int | None = None,
    progress: bool = False,
) -> LayerAlignment:
    """Compute one metric for every layer of x and every layer of y, and test the best pair against chance.

    The best of many pairs is high by chance already. Its null is therefore the best score of all pairs under
    relabellings that all pairs share. L_x + L_y neighbour graphs are searched, not 2 L_x L_y. Ties, groups and classes
    are those of ``modalign.align``.

    Args:
        xs: list of L_x (n, d) arrays, tensors or files; an (n, L_x, d) array or tensor; or a file of one
            (``modalign.files.rows.open_layers``). The layers of one model.
        ys: The layers of the other model, L_y of them, for the same n items.
        metric_name: str. One of ``modalign.metrics.METRICS``, except for those that look at every pair of items.
        k: int, 1 <= k <= n - 1. Number of neighbours of an item.
        metric: "cosine", "dot" or "euclidean". The similarity by which neighbours are searched.
        prepare: A name of ``modalign.alignment.preparation.PREPARATIONS``, or None. As in ``modalign.align``;
            "platonic" and "platonic_exact" clamp all layers of a model at one value.
        groups, within, ids: As in ``modalign.align``. Ids name the rows of all layers of x, and of all layers of y.
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
    require_one_kind("align_layers", groups, within)
    start, record = time.perf_counter(), Record()
    paired, labels = _paired_layers(xs, ys, _Pairing(prepare, groups, within, ids), record)
    layers = _Layers.of(metric_name, settings, paired, labels)
    searched = time.perf_counter()
    matrix = torch.tensor(layers.scores(), dtype=torch.float64)
    scored = time.perf_counter()
    place = int((-matrix if METRICS[metric_name].lower_is_closer else matrix).argmax())
    best = (place // matrix.shape[1], place % matrix.shape[1])
    possible = layers.best_of(*best)
    null = layers.null_of_best(float(matrix[best]), possible) if relabellings else None
    layers.note_best(record, best, has_null=null is not None)
    cost = {"graphs": searched - start, "scores": scored - searched, "null": time.perf_counter() - scored}
    return LayerAlignment(
        metric=metric_name,
        matrix=matrix.tolist(),
        best=best,
        null=null,
        settings=_recorded(layers),
        cost=cost,
        possible=possible,
        notes=tuple(record.notes),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Layers:
    """The layers of both models with their neighbour lists (none for metrics that need moments)."""

    name: str
    settings: Settings
    xs: list[Indexable]
    ys: list[Indexable]
    lists_x: list[Lists]
    lists_y: list[Lists]
    labels: _Labels

    @classmethod
    def of(
        cls, name: str, settings: Settings, layers: tuple[list[Indexable], list[Indexable]], labels: _Labels
    ) -> _Layers:
        """Search the lists that the metric needs."""
        lists: list[list[Lists]] = [[], []]
        if METRICS[name].needs != "moments":
            lists = [[_search(layer, settings, labels.groups) for layer in side] for side in layers]
        return cls(name, settings, xs=layers[0], ys=layers[1], lists_x=lists[0], lists_y=lists[1], labels=labels)

    @property
    def n(self) -> int:
        return len(self.xs[0])

    def scores(self) -> list[list[float]]:
        """Return the score of every pair of layers."""
        metric = METRICS[self.name]
        if metric.needs == "moments":
            evaluate = metric.load("evaluate")
            return [[float(evaluate(moments(x, y))) for y in self.ys] for x in self.xs]
        ranges = range(len(self.xs)), range(len(self.ys))
        return [[self._score(metric, self.graphs(i, j)) for j in ranges[1]] for i in ranges[0]]

    def _score(self, metric: Metric, graphs: Graphs | TiedGraphs) -> float:
        weights = self.labels.weights
        return mean_over_items(metric_score(metric, graphs, weights).items, weights)

    def graphs(self, i: int, j: int) -> Graphs | TiedGraphs:
        """Return the graphs of layer i of x and layer j of y, with their ties where neighbours tie."""
        x, y = self.lists_x[i], self.lists_y[j]
        graphs = Graphs(x.indices, y.indices, self.settings.metric, (self.xs[i], self.ys[j]))
        return graphs_of_lists(x, y, graphs, seed=self.settings.seed)

    def best_of(self, i: int, j: int) -> float:
        """Return the best score that the ties of two layers allow."""
        metric = METRICS[self.name]
        return metric.best if metric.needs == "moments" else best_score(metric, self.graphs(i, j), self.labels.weights)

    def note_best(self, record: Record, best: tuple[int, int], *, has_null: bool) -> None:
        """Note the ties of the best pair of layers, and classes within which relabellings change little."""
        metric, weights, within = METRICS[self.name], self.labels.weights, self.labels.within
        graphs = None if metric.needs == "moments" else self.graphs(*best)
        if isinstance(graphs, TiedGraphs):
            effect = TiedScore.of(metric, graphs, metric_score(metric, graphs, weights), weights)
            record_ties(record, graphs, {self.name: effect})
        if within is not None and has_null:
            numbers = [_joint_numbers(side) for side in (self.xs, self.ys)]
            note_pairings(number_of_pairings(within, numbers[0], numbers[1]), record)

    def null_of_best(self, score: float, possible: float) -> Null:
        """Return the null of the best score of all pairs, from relabellings that all pairs share.

        Where neighbours tie, the mean scores of a few drawn orders are relabelled, and compared with their own best.
        """
        metric, settings = METRICS[self.name], self.settings
        best = min if metric.lower_is_closer else max
        drawn = [best(scores) for scores in self._relabelled_scores()]
        compared = best(self._drawn_scores()) if self._has_ties else None
        return sampled_null(
            score,
            drawn,
            settings.confidence,
            best=possible,
            lower_is_closer=metric.lower_is_closer,
            within_groups=self.labels.within is not None,
            compared=compared,
        )

    @cached_property
    def _has_ties(self) -> bool:
        return any(lists.ties is not None for lists in (*self.lists_x, *self.lists_y))

    @cached_property
    def _drawn(self) -> list[tuple[list[Tensor], list[Tensor]]]:
        """The graphs of the layers of both models, in several orders of ties if there are ties."""
        if not self._has_ties:
            return [([lists.indices for lists in self.lists_x], [lists.indices for lists in self.lists_y])]
        k, seed = self.settings.k, self.settings.seed
        seeds = np.random.SeedSequence([abs(seed), seed < 0]).spawn(2 * NULL_DRAWS)
        return [
            (_ordered(self.lists_x, k, first), _ordered(self.lists_y, k, second))
            for first, second in zip(seeds[::2], seeds[1::2], strict=True)
        ]

    def _drawn_scores(self, s: Tensor | None = None) -> list[float]:
        """Return the mean score of every pair over the draws; with s, item s[i] of y is beside item i of x."""
        place = None
        if s is not None:
            place = torch.empty_like(s)
            place[s] = torch.arange(self.n)
        ys = self.ys if s is None else [y[s] for y in self.ys]
        evaluate = METRICS[self.name].load("evaluate")
        if METRICS[self.name].needs == "moments":
            return [float(evaluate(moments(x, y))) for x in self.xs for y in ys]
        every = []
        for graphs_x, graphs_y in self._drawn:
            seconds = graphs_y if s is None or place is None else [place[graph[s]] for graph in graphs_y]
            pairs = itertools.product(zip(self.xs, graphs_x, strict=True), zip(ys, seconds, strict=True))
            graphs = (Graphs(a, b, self.settings.metric, (x, y)) for (x, a), (y, b) in pairs)
            every.append([mean_over_items(evaluate(of_pair), self.labels.weights) for of_pair in graphs])
        return [sum(scores) / len(scores) for scores in zip(*every, strict=True)]

    def _relabelled_scores(self) -> Iterator[Sequence[float]]:
        """Yield the scores of all pairs under each relabelling."""
        metric, settings, labels = METRICS[self.name], self.settings, self.labels
        assert settings.relabellings is not None
        drawn = random_relabellings(
            self.n, settings.relabellings, settings.seed, within=labels.within, units=labels.groups
        )
        if metric.relabelled is None or labels.groups is not None:
            for s in drawn:
                yield self._drawn_scores(s)
            return
        relabelled, every = metric.load("relabelled"), torch.stack(list(drawn))
        draws = []
        for graphs_x, graphs_y in self._drawn:
            pairs = [Graphs(a, b, metric=settings.metric) for a in graphs_x for b in graphs_y]
            draws.append(torch.stack([relabelled(graphs)(every) for graphs in pairs]))
        yield from torch.stack(draws).mean(0).T.tolist()


def _ordered(layers: list[Lists], k: int, seed: np.random.SeedSequence) -> list[Tensor]:
    """Return the graphs of layers in a random order of ties."""
    seeds = seed.spawn(len(layers))
    return [
        lists.indices if lists.ties is None else lists.ties.draw(k, of_layer)
        for lists, of_layer in zip(layers, seeds, strict=True)
    ]


def _require_metric(name: str) -> None:
    if METRICS[name].needs == "pairs":
        taken = ", ".join(name for name, metric in METRICS.items() if metric.needs != "pairs")
        raise ValueError(f"align_layers: metric_name must be among {taken}, got {name!r}")


def _search(layer: Indexable, settings: Settings, groups: Tensor | None) -> Lists:
    """Return the neighbour lists of a layer."""
    lists = search_lists(layer, TieSearch(settings.k, groups=groups, seed=settings.seed, **settings.search))
    return dataclasses.replace(lists, indices=lists.indices.cpu())


@dataclasses.dataclass(frozen=True, eq=False)
class _Labels:
    """The labels of the items, as in ``Items``."""

    groups: Tensor | None = None
    within: Tensor | None = None

    @cached_property
    def weights(self) -> Tensor | None:
        """The weights of the items in a mean over groups; None where every item counts alike."""
        return None if self.groups is None else group_weights(self.groups)


@dataclasses.dataclass(frozen=True)
class _Pairing:
    """How the rows of the layers are paired, labelled and prepared: arguments of ``align_layers``."""

    prepare: str | None
    groups: Labels | None
    within: Labels | None
    ids: Ids | None


def _paired_layers(
    xs: LayerSource, ys: LayerSource, pairing: _Pairing, record: Record
) -> tuple[tuple[list[Indexable], list[Indexable]], _Labels]:
    """Return the layers of both models as arrays or tensors, checked to hold the same items, and the items' labels."""
    left, right = _layer_list(xs), _layer_list(ys)
    labels = {
        name: None if given is None else label_tensor(f"align_layers: {name}", given, open_rows(left[0]).shape[0])
        for name, given in (("groups", pairing.groups), ("within", pairing.within))
    }
    if pairing.ids is not None:
        places = shared_places(left[0], right[0], pairing.ids)
        _note_unpaired(record, (left[0], right[0]), len(places[0]))
        left, right = (
            [indexable(layer)[kept] for layer in side] for side, kept in zip((left, right), places, strict=True)
        )
        labels = {name: None if given is None else given[places[0]] for name, given in labels.items()}
    if pairing.prepare is not None:
        left = prepare_layers(left, pairing.prepare, name="xs")
        right = prepare_layers(right, pairing.prepare, name="ys")
    left, right = ([indexable(layer) for layer in side] for side in (left, right))
    for side, layers in (("xs", left), ("ys", right)):
        rows = [len(layer) for layer in layers]
        if set(rows) != {len(left[0])}:
            raise ValueError(f"align_layers: every layer must hold the same items, got {rows} rows in {side}")
    return (left, right), _Labels(**labels)


def _note_unpaired(record: Record, layers: tuple[RowSource, RowSource], kept: int) -> None:
    x, y = (open_rows(layer).shape[0] - kept for layer in layers)
    if x or y:
        record.note(unpaired_note((x, y)))


def _joint_numbers(layers: Sequence[Indexable]) -> Tensor:
    """Return the number of each item's rows in all layers among the distinct ones, (n,) int64."""
    numbers = [distinct_rows(as_tensor("align_layers: layers", layer, DTYPES))[0].cpu() for layer in layers]
    joint: Tensor = torch.unique(torch.stack(numbers, 1), dim=0, return_inverse=True)[1]
    return joint


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
        "groups": layers.labels.groups is not None,
        "within": layers.labels.within is not None,
        "relabellings": settings.relabellings or 0,
        "confidence": settings.confidence,
        "seed": settings.seed,
    }
