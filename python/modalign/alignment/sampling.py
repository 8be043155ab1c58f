"""Mutual k-NN of sets too large to search whole: sampled queries against the full gallery, with valid intervals.

The gallery is never thinned, which would change the score, and no row is drawn twice, which would make a row its own
neighbour. The mean over sampled rows is therefore an unbiased estimate of the mean over all rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modalign.alignment.estimates import (
    LARGEST_BATCH,
    ConfidenceSequence,
    Estimate,
    difference_estimate,
    finite_population_interval,
)
from modalign.alignment.settings import SearchOptions, Settings
from modalign.alignment.size_curve import SizeCurve, size_curve
from modalign.common.types import Array
from modalign.files.rows import RowSource, open_rows
from modalign.metrics.inputs import Graphs
from modalign.metrics.registry import METRICS
from modalign.metrics.tied_graphs import TiedGraphs, graphs_of_lists
from modalign.metrics.tied_scores import DrawnScore, TiedScore, metric_score
from modalign.neighbors.tie_search import TieSearch, search_lists

if TYPE_CHECKING:
    from typing_extensions import Unpack

CHANCE_DRAWS = 20  # relabellings of a sample for the mean score by chance

__all__ = [
    "ConfidenceSequence",
    "Estimate",
    "SampleEstimates",
    "SizeCurve",
    "difference_estimate",
    "finite_population_interval",
    "graph_of_rows",
    "require_sample",
    "sample_estimates",
    "sampled_mutual_knn",
    "sampled_scores",
    "size_curve",
]


def sampled_mutual_knn(
    x: RowSource,
    y: RowSource,
    k: int = 10,
    *,
    metric: str = "cosine",
    groups: Array | None = None,
    sample: int | None = None,
    tolerance: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    max_memory: int | str | None = None,
    num_threads: int | None = None,
    progress: bool = False,
) -> Estimate:
    """Estimate the mutual k-NN of all n rows from the neighbours of a sample of them, searched among all n.

    Give exactly one of ``sample`` and ``tolerance``.

    Args:
        x: (n, d_x) array, tensor or file, as in ``modalign.knn``.
        y: (n, d_y) array, tensor or file; row i is the same item as row i of x.
        k: int, 1 <= k <= n - 1. Number of neighbours.
        metric: "cosine", "dot" or "euclidean". The similarity by which neighbours are searched.
        groups: integer array of shape (n,), or None. Items of one group are not each other's neighbours; all groups
            must have the same size.
        sample: int, 2 <= sample <= n. Number of rows, drawn without replacement; the interval is that of
            ``finite_population_interval``.
        tolerance: float in (0, 0.5). Rows are added until the half-width of the interval is at most this. The interval
            is that of a ``ConfidenceSequence``, which is valid wherever it stops.
        confidence: float in (0, 1). Level of the interval.
        seed: int, -2^63 to 2^64 - 1. Seed of the drawn rows.
        max_memory: int, str or None. As in ``modalign.knn``.
        num_threads: int or None. As in ``modalign.knn``.
        progress: bool. Whether to show a progress bar.

    Returns:
        ``Estimate``. Peak memory: that of ``modalign.knn`` for a batch of at most 20,000 queries.

    Raises:
        TypeError, ValueError: As ``modalign.knn``; ValueError also if both or neither of ``sample`` and ``tolerance``
            are given, if either is out of range, or if groups differ in size.

    Source:
        Waudby-Smith and Ramdas 2020 (arXiv:2006.04347) for the confidence sequence.

    Examples:
        >>> import numpy as np
        >>> from modalign.alignment.sampling import sampled_mutual_knn
        >>> x = np.random.default_rng(0).normal(size=(500, 8))
        >>> estimate = sampled_mutual_knn(x, x[:, :4], k=10, sample=200)
        >>> estimate.low < estimate.value < estimate.high
        True
    """
    if (sample is None) == (tolerance is None):
        raise ValueError("sampled_mutual_knn: needs either sample or tolerance, got both or neither")
    settings = Settings(
        operation="sampled_mutual_knn",
        metrics=("mutual_knn",),
        k=k,
        metric=metric,
        sample=sample,
        tolerance=tolerance,
        confidence=confidence,
        seed=seed,
        max_memory=max_memory,
        num_threads=num_threads,
        progress=progress,
    )
    require_sample(settings, open_rows(x).shape[0], groups)
    return sampled_scores(x, y, settings.metrics, settings=settings, groups=groups)["mutual_knn"]


def sampled_scores(
    x: RowSource, y: RowSource, names: Sequence[str], *, settings: Settings, groups: Array | None = None
) -> dict[str, Estimate]:
    """Estimate metrics that are means over items, all from the same sampled rows.

    Args:
        x: (n, d_x) array, tensor or file.
        y: (n, d_y) array, tensor or file; row i is the same item as row i of x.
        names: list of str. Metrics that need "lists".
        settings: The size of the sample or its tolerance, and the options of the search. The tolerance is that of
            mutual_knn, or of the first metric where mutual_knn is not among them.
        groups: As in ``sampled_mutual_knn``.

    Returns:
        The estimate of each metric, by name.
    """
    return sample_estimates(x, y, names, settings=settings, groups=groups, draws=0).estimates


@dataclasses.dataclass(eq=False)
class SampleEstimates:
    """The estimates of a sample.

    Attributes:
        estimates: The estimate of each metric, by name.
        chances: The mean score by chance of each metric, by name; empty if none was asked for.
        tied: The neighbours of the sampled items, with their ties, of the first batch; None if none tie.
        effects: What ties do to each metric, by name, in this batch; empty if none tie.
    """

    estimates: dict[str, Estimate]
    chances: dict[str, float]
    tied: TiedGraphs | None = None
    effects: dict[str, TiedScore] = dataclasses.field(default_factory=dict)

    def keep_ties(self, graphs: Graphs | TiedGraphs, scores: Mapping[str, DrawnScore]) -> None:
        """Keep the ties of the first batch that has any."""
        if self.tied is None and isinstance(graphs, TiedGraphs):
            self.tied = graphs
            self.effects = {name: TiedScore.of(METRICS[name], graphs, score) for name, score in scores.items()}


def sample_estimates(
    x: RowSource,
    y: RowSource,
    names: Sequence[str],
    *,
    settings: Settings,
    groups: Array | None = None,
    draws: int = CHANCE_DRAWS,
) -> SampleEstimates:
    """Return what ``sampled_scores`` returns, and the mean scores by chance, of ``draws`` relabellings of the sample.

    A relabelling pairs the sampled items of x with those of y in random order, and the items in the lists likewise.
    """
    n = open_rows(x).shape[0]
    chances: dict[str, list[float]] = {name: [] for name in names}
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(settings.seed))
    result = SampleEstimates({}, {})
    labels = None if groups is None else torch.as_tensor(groups)

    def scores(rows: Tensor) -> dict[str, np.ndarray]:
        search = TieSearch(settings.k, groups=labels, items=rows, seed=settings.seed, **settings.search)
        left, right = (search_lists(side, search) for side in (x, y))
        plain = Graphs(left.indices.cpu(), right.indices.cpu(), settings.metric, candidates=n)
        graphs = graphs_of_lists(left, right, plain, items=rows, seed=settings.seed)
        one = graphs if isinstance(graphs, Graphs) else graphs.draw(0)
        for _ in range(0 if any(chances.values()) else draws):
            relabelled = dataclasses.replace(one, b=_relabelled_lists(one.b, rows, n, generator))
            for name in names:
                chances[name].append(float(METRICS[name].load("evaluate")(relabelled).mean()))
        values = {name: metric_score(METRICS[name], graphs) for name in names}
        result.keep_ties(graphs, values)
        return {name: np.asarray(score.items) for name, score in values.items()}

    if settings.sample is not None:
        batches = [scores(rows) for rows in torch.split(order[: settings.sample], LARGEST_BATCH)]
        result.estimates = {
            name: finite_population_interval(
                np.concatenate([batch[name] for batch in batches]), n, settings.confidence, shares=True
            )
            for name in names
        }
        result.chances = _means(chances)
        return result
    tolerance = settings.tolerance
    assert tolerance is not None
    sequences = {name: ConfidenceSequence(n, settings.confidence, tolerance) for name in names}
    leading = sequences["mutual_knn" if "mutual_knn" in names else names[0]]
    while leading.half_width > tolerance and leading.count < n:
        rows = order[leading.count : leading.count + leading.next_batch_size()]
        for name, values in scores(rows).items():
            sequences[name].update(values)
    result.estimates = {name: sequence.estimate() for name, sequence in sequences.items()}
    result.chances = _means(chances)
    return result


def _means(scores: dict[str, list[float]]) -> dict[str, float]:
    return {name: sum(values) / len(values) for name, values in scores.items() if values}


def _relabelled_lists(lists: Tensor, rows: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return the lists of sampled items when all n items are relabelled at random, sampled ones among themselves."""
    shuffled = torch.randperm(len(rows), generator=generator)
    place = torch.empty(n, dtype=torch.int64)
    is_sampled = torch.zeros(n, dtype=torch.bool)
    is_sampled[rows] = True
    others = (~is_sampled).nonzero()[:, 0]
    place[rows[shuffled]] = rows
    place[others] = others[torch.randperm(len(others), generator=generator)]
    return place[lists[shuffled]]


def require_sample(settings: Settings, n: int, groups: Array | None = None) -> None:
    """Check that the size or the tolerance of a sample is in range, and that groups have one size.

    The mean over items is then the mean over groups of the mean within each.
    """
    operation, sample, tolerance = settings.operation, settings.sample, settings.tolerance
    if sample is not None and not 2 <= sample <= n:
        raise ValueError(f"{operation}: sample must be between 2 and the {n} rows, got {sample}")
    if tolerance is not None and not 0 < tolerance < 0.5:
        raise ValueError(f"{operation}: tolerance must be between 0 and 0.5, got {tolerance}")
    if groups is None or not settings.sampled:
        return
    sizes = torch.unique(torch.as_tensor(groups), return_counts=True)[1]
    if int(sizes.min()) < int(sizes.max()):
        raise ValueError(
            f"{operation}: sampled items need groups of one size, got {int(sizes.min())} to {int(sizes.max())} items; "
            "leave out sample and tolerance"
        )


def graph_of_rows(
    x: RowSource, rows: Tensor, k: int, *, groups: Array | None = None, **options: Unpack[SearchOptions]
) -> Tensor:
    """Search the neighbours of some rows of x among all rows, each row itself excluded by its index.

    Args:
        x: (n, d) array, tensor or file, as in ``modalign.knn``.
        rows: int64 tensor of shape (m,). The rows whose neighbours are searched.
        k: int. Number of neighbours.
        groups: integer array of shape (n,), or None. As in ``modalign.knn``.
        **options: ``metric``, ``max_memory``, ``num_threads`` and ``progress`` of ``modalign.knn``.

    Returns:
        int64 tensor of shape (m, k).
    """
    labels = None if groups is None else torch.as_tensor(groups)
    return search_lists(x, TieSearch(k, groups=labels, items=rows, **options)).indices
