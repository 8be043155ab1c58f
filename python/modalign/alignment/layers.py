"""``align_layers``: one metric of every pair of layers, and whether the highest is more than chance."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalign.alignment.nulls import random_relabellings, require_relabellings, sampled_null
from modalign.alignment.preparation import prepare_layers
from modalign.alignment.results import LayerAlignment
from modalign.files.rows import indexable, open_layers
from modalign.metrics.inputs import Graphs, mean_over_items
from modalign.metrics.registry import METRICS, metric_names
from modalign.metrics.sums import moments
from modalign.neighbors.functional import knn

__all__ = ["align_layers"]


def align_layers(
    xs: Sequence[Any],
    ys: Sequence[Any],
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
    """One metric for every layer of x and every layer of y, and whether the highest is more than chance.

    L_x + L_y graphs are searched, not 2 L_x L_y. The maximum over many pairs is high by chance already; its null is the
    maximum under relabellings that all pairs share.

    Args:
        xs, ys: the layers: lists of (n, d) representations of the same n items, (n, L, d) arrays, or files of them
            (``modalign.files.rows.open_layers``).
        metric_name: of ``modalign.metrics.METRICS``, but those that look at every pair.
        k, metric, prepare, num_threads, progress: as in ``modalign.align``.
        relabellings: at least 19, or 0 for no null. confidence: of its threshold. seed: of its draw.

    Returns: ``modalign.LayerAlignment``. Peak memory: that of one ``modalign.knn`` and L_x + L_y graphs of n k indices.
    Raises: TypeError and ValueError as ``modalign.knn``; ValueError for layers of different numbers of rows.

    Examples:
        >>> import numpy as np, modalign
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(200, 8))
        >>> found = modalign.align_layers([x, rng.normal(size=(200, 8))], [rng.normal(size=(200, 4)), x[:, :6]], k=5)
        >>> found.best, found.null.p
        ((0, 1), 0.004975124378109453)
    """
    needs = METRICS[metric_names("align_layers", metric_name)[0]].needs
    if needs == "pairs":
        taken = ", ".join(name for name, one in METRICS.items() if one.needs != "pairs")
        raise ValueError(f"align_layers: metric_name must be among {taken}, got {metric_name!r}")
    require_relabellings("align_layers", relabellings or None)
    if not 0 < confidence < 1:
        raise ValueError(f"align_layers: confidence must be between 0 and 1, got {confidence}")
    left, right = _layers(xs), _layers(ys)
    if prepare is not None:
        left, right = prepare_layers(left, prepare, name="xs"), prepare_layers(right, prepare, name="ys")
    left, right = ([indexable(layer) for layer in side] for side in (left, right))
    n = len(left[0])
    for side, layers in (("xs", left), ("ys", right)):
        if {len(layer) for layer in layers} != {n}:
            rows = [len(layer) for layer in layers]
            raise ValueError(f"align_layers: every layer must hold the same items, got {rows} rows in {side}")
    start = time.perf_counter()
    graphs: list[list[Tensor]] = [[], []]
    if needs != "moments":
        for layers, into in zip((left, right), graphs, strict=True):
            for layer in layers:
                found = knn(layer, k, metric=metric, num_threads=num_threads, progress=progress)
                into.append(torch.as_tensor(found.indices).cpu())
    searched = time.perf_counter()
    matrix = torch.tensor(
        [
            [_of_layers(metric_name, metric, (x, y), (graphs[0][i : i + 1], graphs[1][j : j + 1]))
             for j, y in enumerate(right)]
            for i, x in enumerate(left)
        ],
        dtype=torch.float64,
    )  # fmt: skip
    scored = time.perf_counter()
    lower_is_better = METRICS[metric_name].best == 0
    place = int((-matrix if lower_is_better else matrix).argmax())
    best = (place // matrix.shape[1], place % matrix.shape[1])
    null = None
    if relabellings:
        highest = _highest(metric_name, metric, left, right, graphs, relabellings, seed)
        null = sampled_null(float(matrix[best]), highest, confidence, best=METRICS[metric_name].best)
    cost = {"graphs": searched - start, "scores": scored - searched, "null": time.perf_counter() - scored}
    settings = {
        "n": n, "k": k, "metric": metric, "prepare": prepare, "relabellings": relabellings, "confidence": confidence,
        "seed": seed,
    }  # fmt: skip
    return LayerAlignment(metric_name, matrix.tolist(), best, null, settings, cost)


def _of_layers(name: str, metric: str, rows: tuple[Any, Any], graphs: tuple[list[Tensor], list[Tensor]]) -> float:
    evaluate = METRICS[name].load("evaluate")
    if METRICS[name].needs == "moments":
        return float(evaluate(moments(*rows)))
    return mean_over_items(evaluate(Graphs(graphs[0][0], graphs[1][0], metric, rows)))


def _highest(
    name: str, metric: str, left: list[Any], right: list[Any], graphs: list[list[Tensor]], count: int, seed: int
) -> list[float]:
    """The best score of all pairs of layers under each relabelling."""
    n = len(left[0])
    best = min if METRICS[name].lower_is_closer else max
    if METRICS[name].needs != "moments" and METRICS[name].relabelled is not None:
        relabelled_scores = METRICS[name].load("relabelled")
        every = torch.stack(list(random_relabellings(n, count, seed)))
        scores = [relabelled_scores(Graphs(a, b, metric))(every).tolist() for a in graphs[0] for b in graphs[1]]
        return [best(values) for values in zip(*scores, strict=True)]
    drawn = []
    for s in random_relabellings(n, count, seed):
        back = torch.empty_like(s)
        back[s] = torch.arange(n)
        relabelled = [back[graph[s]] for graph in graphs[1]]
        drawn.append(best(
            _of_layers(name, metric, (x, y[s]), (graphs[0][i : i + 1], relabelled[j : j + 1]))
            for i, x in enumerate(left) for j, y in enumerate(right)
        ))  # fmt: skip
    return drawn


def _layers(side: Any) -> list[Any]:
    if isinstance(side, (str, Path)):
        return list(open_layers(side))
    if hasattr(side, "ndim") and not isinstance(side, (list, tuple)):
        if side.ndim != 3:
            raise ValueError(f"align_layers: layers must be a list or an array (n, L, d), got {tuple(side.shape)}")
        return [side[:, layer] for layer in range(side.shape[1])]
    if not len(side):
        raise ValueError("align_layers: needs at least one layer of each")
    return list(side)
