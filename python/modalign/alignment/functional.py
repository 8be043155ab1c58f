"""``align``: any number of alignment metrics of two representations, with intervals and nulls."""

from __future__ import annotations

from collections.abc import Sequence

from modalign.alignment.graph_facts import note_few_pairings
from modalign.alignment.graph_scores import GraphScores
from modalign.alignment.items import Ids, Items, paired_items, unpaired_note
from modalign.alignment.memory import require_memory
from modalign.alignment.moment_scores import MomentScores
from modalign.alignment.pair_scores import PairScores
from modalign.alignment.results import Alignment, Score
from modalign.alignment.sample_scores import sample_scores
from modalign.alignment.sampling import require_sample
from modalign.alignment.scoring import Record, Scoring
from modalign.alignment.settings import Settings
from modalign.common.labels import Labels
from modalign.files.rows import RowSource
from modalign.metrics.registry import DEFAULT_METRICS, METRICS

__all__ = ["DEFAULT_METRICS", "align"]


def align(
    x: RowSource,
    y: RowSource,
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    k: int = 10,
    *,
    metric: str = "cosine",
    prepare: str | None = None,
    groups: Labels | None = None,
    within: Labels | None = None,
    ids: Ids | None = None,
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
    """Measure how similar two representations of the same items are, and how certain the measurement is.

    Every metric gets its score, a confidence interval, the score that two unrelated representations would have (the
    null), a p-value, and a score calibrated by the null: 0 where chance could have given it, 1 for the best there is.

    Neighbours with equal float64 similarities tie. A score of neighbours is its expectation over independent random
    orders of ties in x and in y, so it does not depend on the order of the items, and rows that repeat are not evidence
    of alignment. It has a closed form for mutual_knn; for other metrics it is the mean over 8 to 64 drawn orders, whose
    errors are in ``facts["ties"]``. Two random orders of the same ties differ, so x with itself has a score below 1:
    ``Score.best`` is the most that the ties allow, and calibrated scores are relative to it.

    Args:
        x: (n, d_x) array, tensor, data frame or file. One representation; files are those that
            ``modalign.files.rows.open_rows`` takes and may be larger than memory.
        y: (n, d_y) array, tensor, data frame or file. The other representation; row i is the same item as row i of x.
        metrics: str or list of str. Names of ``modalign.metrics.METRICS``, or "all" for every metric that is defined
            for x and y, but the "_code" variants; a note names the others.
        k: int, 1 <= k <= n - 1. Number of neighbours of an item, for metrics that compare neighbours.
        metric: "cosine", "dot" or "euclidean". The similarity by which neighbours are searched, as in ``modalign.knn``,
            those of information imbalance and retrieval included.
        prepare: "platonic", "platonic_exact", "emergence", "unit_rows" or None. Prepares the rows as the code of a
            paper does (``modalign.alignment.preparation``); None leaves them as they are. With "_unnorm" after the
            name, rows are clamped but keep their lengths.
        groups: (n,) labels (text, whole numbers, categories), or None. Items that belong together, such as the captions
            of one image: they are not each other's neighbours, a score of neighbours is the mean over groups of the
            mean within a group, and intervals and nulls move whole groups.
        within: (n,) labels, or None. Classes or clusters within which the null relabels, so that a score counts as
            alignment only beyond what the classes explain. Excludes ``groups``.
        ids: pair of lists of n_x and n_y names, or None. Names of the rows of x and of y: rows are paired by name, and
            those without a partner are left out, with a note. Without ids, x and y must have equally many rows.
        sample: int, 2 <= sample <= n, or None. Searches the neighbours of this many items only, among all n. Metrics
            that are means over items are then unbiased; metrics that need the neighbours of all items are left out.
            Groups must be of one size.
        tolerance: float in (0, 0.5), or None. Sample items, as ``sample`` does, until the half-width of the interval of
            mutual_knn is at most this.
        null: "auto", "relabelled" or "none". The null in closed form where one is known and by random relabelling
            elsewhere; by relabelling for all metrics; or no null.
        relabellings: int >= 19, or None. Number of random relabellings; None for 200, for fewer (at least 39) where
            these would take too long, and for no null where even 39 would: the score then stands beside its mean by
            chance alone, exact where it is known, else over the few relabellings whose number is printed.
        intervals: bool. Whether to compute confidence intervals.
        size_curve: bool. Whether to compute the expected mutual k-NN of subsets of the items too; lists of 10 k
            neighbours are searched.
        confidence: float in (0, 1). Level of the intervals, and of the threshold that calibrates a score.
        seed: int, -2^63 to 2^64 - 1. Seed of samples, splits and relabellings. The same seed gives the same numbers.
        max_memory: int, str such as "8GB", or None. Limit of the memory beyond the arguments; a call that needs more is
            refused with the number. For a sample it is the limit of the searches, as in ``modalign.knn``.
        num_threads: int or None. Number of threads of the searches; None for all cores.
        progress: bool. Whether to show a progress bar.

    Returns:
        ``modalign.Alignment``: print it, index it by metric, or call ``to_frame()``, ``plot()`` or ``save()``.

        An interval of all n items is for the score of other items of the same population, from random parts of these
        (``modalign.alignment.intervals``). An interval of a sample is for the score of these n items.

        Peak memory is that of ``modalign.knn`` with k neighbours (8 k + 20 with intervals) and of the metrics; where
        neighbours tie, also that of ``modalign.neighbors.tie_search.search_lists``. Nulls of
        metrics of all pairs take another 24 n^2 bytes, up to 800 MB or ``max_memory``. Files that are prepared are held
        whole, in float32, by metrics that need the neighbours of all items.

    Raises:
        TypeError, ValueError: As ``modalign.knn`` and the metrics; the message names the metric that is not defined.
            ValueError also if settings exclude each other.

    Source:
        Those of ``modalign.alignment.nulls``, ``modalign.alignment.intervals`` and ``modalign.alignment.sampling``.

    Examples:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(300, 8))
        >>> result = modalign.align(x, x[:, :5], metrics=["mutual_knn", "cka"], k=5)
        >>> score = result["mutual_knn"]
        >>> score.low < score.value < score.high, score.null.p < 1e-6, round(score.null.mean, 4)
        (True, True, 0.0167)
    """
    settings = Settings(
        operation="align",
        metrics=metrics,
        k=k,
        metric=metric,
        prepare=prepare,
        sample=sample,
        tolerance=tolerance,
        null=null,
        relabellings=relabellings,
        intervals=intervals,
        size_curve=size_curve,
        confidence=confidence,
        seed=seed,
        max_memory=max_memory,
        num_threads=num_threads,
        progress=progress,
    )
    items = paired_items(x, y, groups=groups, within=within, ids=ids, preparation=prepare)
    return _measure(items, settings)


def _measure(items: Items, settings: Settings) -> Alignment:
    """Compute the scores of each kind of need and put them together in the order asked for."""
    record = Record()
    if any(items.unpaired):
        record.note(unpaired_note(items.unpaired))
    _require_neighbors(items, settings)
    names = _defined_names(items, settings, record)
    require_memory(items, settings, names)
    if settings.null != "none":
        note_few_pairings(items, record)
    moments, pairs = settings.names_that_need(names, "moments"), settings.names_that_need(names, "pairs")
    neighbors = settings.names_that_need(names, "lists", "graphs")
    # all values come before the intervals and nulls, which take longer: what is not defined should be known at once
    scorings: list[Scoring] = []
    if moments:
        scorings.append(MomentScores(items, settings, record, moments))
    if pairs:
        scorings.append(PairScores(items, settings, record, pairs))
    scores: dict[str, Score] = {}
    if settings.sampled:
        lists = _names_of_a_sample(items, settings, record, names)
        scores |= sample_scores(items, settings, record, lists)
    elif neighbors:
        scorings.append(GraphScores(items, settings, record, neighbors))
    for scoring in scorings:
        scores |= scoring.finish()
    if not scores:
        raise ValueError(f"align: none of the metrics is defined for x and y: {'; '.join(record.notes)}")
    return Alignment(
        scores=tuple(scores[name] for name in names if name in scores),
        settings=_recorded(items, settings),
        facts=record.facts,
        cost=record.cost,
        curves=record.curves,
        notes=tuple(record.notes),
    )


def _require_neighbors(items: Items, settings: Settings) -> None:
    """Check the number of neighbours and the sample against the number of items."""
    n, k = items.n, settings.k
    if settings.names_that_need(settings.names, "lists", "graphs") and not 1 <= k < n:
        raise ValueError(f"align: k must be between 1 and {n - 1} for {n} items, got {k}")
    if settings.names_that_need(settings.names, "lists", "graphs"):
        most = items.fewest_candidates
        if k > most:
            raise ValueError(
                f"align: k must be at most {most}, as the largest of the groups leaves no more of the {n} items for "
                f"neighbours, got {k}"
            )
        if settings.size_curve and k == most:
            raise ValueError(f"align: size_curve needs k below the {most} items that may be neighbours, got {k}")
    require_sample(settings, n, items.groups)


def _defined_names(items: Items, settings: Settings, record: Record) -> list[str]:
    """Return the metrics to compute: of "all" and of the default ones, those that the rows and settings allow."""
    names, (d_x, d_y) = settings.names, items.widths
    if settings.asks_for_all and d_x != d_y:
        for name in [name for name in names if METRICS[name].same_width]:
            names.remove(name)
            record.note(f"no {name}, which needs x and y of one width, got {d_x} and {d_y}")
    if settings.asks_for_usual:
        for name in [name for name in names if settings.metric not in METRICS[name].similarities]:
            names.remove(name)
            taken = " or ".join(map(repr, METRICS[name].similarities))
            record.note(f"no {name}, which takes metric={taken}")
    return names


def _names_of_a_sample(items: Items, settings: Settings, record: Record, names: list[str]) -> list[str]:
    """Return the metrics that a sample of the items has; refuse settings that it cannot have."""
    graphs = settings.names_that_need(names, "graphs")
    need = f"{', '.join(graphs)} {'needs' if len(graphs) == 1 else 'need'} the graphs of all items"
    if graphs and (settings.asks_for_all or tuple(settings.metrics) == DEFAULT_METRICS):
        record.note(f"{need}: left out for a sample")
    elif graphs:
        raise ValueError(f"align: {need}; leave out sample and tolerance")
    if settings.size_curve:
        raise ValueError("align: size_curve needs the graphs of all items; leave out sample and tolerance")
    relabels = items.within is not None or settings.relabellings is not None or settings.null == "relabelled"
    if relabels and not settings.names_that_need(names, "moments", "pairs"):
        raise ValueError("align: a sample has no null: leave out within, relabellings and null='relabelled'")
    return settings.names_that_need(names, "lists")


def _recorded(items: Items, settings: Settings) -> dict[str, object]:
    """Return the settings as ``Alignment.settings`` holds them."""
    (d_x, d_y), (x, y) = items.widths, items.sources
    return {
        "n": items.n,
        "d_x": d_x,
        "d_y": d_y,
        "x": x.name,
        "y": y.name,
        "k": settings.k,
        "metric": settings.metric,
        "prepare": settings.prepare,
        "groups": items.groups is not None,
        "within": items.within is not None,
        "sample": settings.sample,
        "tolerance": settings.tolerance,
        "null": settings.null,
        "relabellings": settings.relabellings,
        "confidence": settings.confidence,
        "seed": settings.seed,
    }
