"""``align``: every metric of two representations, with intervals and nulls. ``measurement`` computes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.alignment import preparation, sampling
from modalign.alignment.measurement import Measurement
from modalign.alignment.nulls import require_relabellings
from modalign.alignment.results import Alignment, Score
from modalign.common.checks import one_of
from modalign.files.labels import as_classes
from modalign.files.rows import indexable, open_rows
from modalign.metrics.registry import DEFAULT_METRICS, METRICS, metric_names

__all__ = ["DEFAULT_METRICS", "align"]

NULLS = ("auto", "relabelled", "none")


def align(
    x: Any,
    y: Any,
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    k: int = 10,
    *,
    metric: str = "cosine",
    prepare: str | None = None,
    groups: Any = None,
    within: Any = None,
    ids: tuple[Sequence[Any], Sequence[Any]] | None = None,
    sample: int | None = None,
    tolerance: float | None = None,
    null: str = "auto",
    relabellings: int | None = None,
    intervals: bool = True,
    size_curve: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
    max_memory: int | str | None = None,
    num_threads: int | None = None,
    progress: bool = False,
) -> Alignment:
    """How alike two representations of the same items are, by any number of metrics, and how sure that is.

    Args:
        x, y: (n, d_x) and (n, d_y), row i of both is the same item: NumPy arrays, tensors, or files as
            ``modalign.files.rows.open_rows`` takes them, which may be larger than memory.
        metrics: names of ``modalign.metrics.METRICS``, or "all" that are defined for x and y; a note names the others.
        k: neighbours of an item, for the metrics of graphs; metric: of the neighbours, as in ``modalign.knn``, those of
            information imbalance and retrieval included.
        prepare: "platonic", "emergence" or "unit_rows" for rows as those papers' code prepares them
            (``modalign.alignment.preparation``); None leaves them alone.
        groups: (n,) integers or strings, items that belong together (captions of one image): they are not each other's
            neighbours, a score of neighbours is the mean over groups of the mean within, and intervals and nulls move
            whole groups.
        within: (n,) integers or strings, classes or clusters: the null relabels within them, so that a score counts as
            alignment only beyond what the classes explain. Not together with groups.
        ids: the items' names in x and in y. Rows are paired by name, those without a partner left out; without ids
            the numbers of rows must be equal.
        sample: search the neighbours of this many items only, among all n: metrics that are means over items are
            unbiased, the others that need graphs are left out. Together with groups these must be of one size.
        tolerance: the same, until the interval of mutual_knn is at most +-tolerance wide.
        null: "auto", in closed form where one is known and by relabelling elsewhere; "relabelled" for all; "none".
        relabellings: how many; None for 200, or fewer (39 at least) where they take long, or none where even these do.
        intervals: whether there are any.
        size_curve: also the expected mutual k-NN of subsets (lists of 10 k neighbours are searched).
        confidence: of intervals, and of the threshold that calibrates a score.
        seed: of samples, blocks and relabellings. The same seed gives the same numbers.
        max_memory, num_threads, progress: as in ``modalign.knn``.

    Returns:
        ``modalign.Alignment``: print it, index it by metric, ``to_frame()``, ``save()``.

    Intervals: of all n items, from random parts of them, for the score of other n items of the population they come
        from (``modalign.alignment.intervals``); of a sample, for the score of these n items.
    Peak memory: that of ``modalign.knn`` with k (with intervals 8 k + 20) neighbours, and of the metrics; for the nulls
        of those that look at every pair 24 n^2 bytes too, up to 800 MB or max_memory.
        Files that are prepared are held whole, in float32, by what needs the graphs of all items.

    Raises:
        TypeError, ValueError: as ``modalign.knn`` and the metrics, and options that exclude each other; the metric that
            cannot be computed is named.

    Source: the nulls' of ``modalign.alignment.nulls``; the intervals' of ``modalign.alignment.intervals`` and
        ``modalign.alignment.sampling``.

    Examples:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(300, 8))
        >>> result = modalign.align(x, x[:, :5], metrics=["mutual_knn", "cka"], k=5)
        >>> score = result["mutual_knn"]
        >>> score.low < score.value < score.high, score.null.p < 1e-6, round(score.null.mean, 4)
        (True, True, 0.0167)
    """
    names = metric_names("align", metrics)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise TypeError(f"align: k must be an integer, got {k!r}")
    one_of("align", "null", null, NULLS)
    _require(groups, within, sample, tolerance, confidence, relabellings)
    n = open_rows(x).shape[0]
    groups, within = _labels("groups", groups, n), _labels("within", within, n)
    if ids is not None:
        x, y, groups, within = _paired(x, y, ids, groups, within)
    if prepare is not None:
        x, y = preparation.prepare(x, prepare), preparation.prepare(y, prepare, name="y")
    tables = [open_rows(rows, name) for rows, name in ((x, "x"), (y, "y"))]
    n = tables[0].shape[0]
    needs_k = any(METRICS[name].needs in ("lists", "graphs") for name in names)
    if needs_k and not 1 <= k < n:
        raise ValueError(f"align: k must be between 1 and {n - 1} for {n} items, got {k}")
    if tables[1].shape[0] != n:
        raise ValueError(
            f"align: x and y must hold the same items in one order, got {n} and {tables[1].shape[0]} rows; "
            "give ids=(names of x's rows, names of y's rows) to pair them by name"
        )
    sampling.require_sample("align", n, sample, tolerance, groups)
    run = Measurement(
        x, y, n, k, metric, groups, within, null, relabellings, intervals, confidence, seed, max_memory, num_threads,
        progress, metrics == "all",
    )  # fmt: skip
    if metrics == "all" and tables[0].shape[1] != tables[1].shape[1]:
        names = [name for name in names if not METRICS[name].same_width]
    if metric == "euclidean" and isinstance(metrics, (str, tuple)) and metrics in ("all", DEFAULT_METRICS):
        names.remove("cknna")
        run.notes.append("no cknna, whose kernel is the cosine or the dot product")
    lists, graphs, of_moments, of_pairs = (
        [name for name in names if METRICS[name].needs == what] for what in ("lists", "graphs", "moments", "pairs")
    )
    scores: dict[str, Score] = {}
    # all values come before the intervals and nulls, which take longer: what is not defined should be known at once
    rest = [find(some) for find, some in ((run.of_moments, of_moments), (run.of_pairs, of_pairs)) if some]
    if sample is not None or tolerance is not None:
        if graphs and isinstance(metrics, str):
            run.notes.append(f"{', '.join(graphs)} need the graphs of all items: left out for a sample")
        elif graphs and tuple(metrics) != DEFAULT_METRICS:
            raise ValueError(f"align: {', '.join(graphs)} need the graphs of all items; leave out sample and tolerance")
        if size_curve:
            raise ValueError("align: size_curve needs the graphs of all items; leave out sample and tolerance")
        if not (of_moments or of_pairs) and (within is not None or relabellings or null == "relabelled"):
            raise ValueError("align: a sample has no null: leave out within, relabellings and null='relabelled'")
        scores |= run.of_sample(lists, sample, tolerance)
    elif lists or graphs:
        rest.append(run.of_graphs([*lists, *graphs], size_curve))
    for finished in rest:
        scores |= finished()
    settings = {
        "n": n, "d_x": tables[0].shape[1], "d_y": tables[1].shape[1], "x": tables[0].name, "y": tables[1].name, "k": k,
        "metric": metric, "prepare": prepare, "groups": groups is not None, "within": within is not None,
        "sample": sample, "tolerance": tolerance, "null": null, "relabellings": relabellings,
        "confidence": confidence, "seed": seed,
    }  # fmt: skip
    ordered = tuple(scores[name] for name in names if name in scores)
    return Alignment(ordered, settings, run.facts, run.cost, run.curves, tuple(run.notes))


def _require(
    groups: Any, within: Any, sample: int | None, tolerance: float | None, confidence: float, relabellings: int | None
) -> None:  # fmt: skip
    if groups is not None and within is not None:
        raise ValueError("align: groups relabels whole groups and within inside them: give one of the two")
    if sample is not None and tolerance is not None:
        raise ValueError("align: give sample or tolerance, got both")
    if not 0 < confidence < 1:
        raise ValueError(f"align: confidence must be between 0 and 1, got {confidence}")
    require_relabellings("align", relabellings)


def _labels(name: str, labels: Any, n: int) -> Tensor | None:
    if labels is None:
        return None
    if not isinstance(labels, Tensor):
        array = np.asarray(labels)
        text = array.dtype.kind == "U" or (array.dtype.kind == "O" and all(isinstance(one, str) for one in array.flat))
        labels = torch.as_tensor(as_classes(array.tolist()) if text and array.ndim == 1 else array)
    table: Tensor = labels
    if table.dtype.is_floating_point or table.dtype.is_complex or table.dtype == torch.bool:
        raise TypeError(f"align: {name} must be integers, one for each item, got {table.dtype}")
    if tuple(table.shape) != (n,):
        raise ValueError(f"align: {name} must be ({n},), one for each item, got {tuple(table.shape)}")
    return table.long()


def _paired(
    x: Any, y: Any, ids: tuple[Sequence[Any], Sequence[Any]], groups: Any, within: Any
) -> tuple[Any, Any, Any, Any]:
    """Rows of x and y that have a name in common, in the order of x; labels are of x's rows."""
    if len(ids) != 2:
        raise ValueError(f"align: ids must be the names of x's rows and those of y's, got {len(ids)} lists")
    names = [side.tolist() if hasattr(side, "tolist") else list(side) for side in ids]
    for side, of, rows in (("x", names[0], x), ("y", names[1], y)):
        n = open_rows(rows).shape[0]
        if len(of) != n:
            raise ValueError(f"align: ids must name every row of {side}, got {len(of)} for {n} rows")
        if len(set(of)) < len(of):
            twice = Counter(of).most_common(1)[0][0]
            raise ValueError(f"align: ids must be different, got {twice!r} twice in {side}")
    place = {name: at for at, name in enumerate(names[1])}
    left = torch.tensor([at for at, name in enumerate(names[0]) if name in place], dtype=torch.int64)
    if len(left) < 4:
        raise ValueError(f"align: x and y must share at least 4 ids, got {len(left)}")
    right = torch.tensor([place[names[0][at]] for at in left.tolist()])
    labels = [None if of is None else torch.as_tensor(of)[left] for of in (groups, within)]
    return indexable(x)[left], indexable(y)[right], *labels
