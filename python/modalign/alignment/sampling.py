"""Mutual k-NN of sets too large to search whole: sampled queries against the full gallery, with honest intervals.

The gallery is never thinned, which would change what is measured, and no row is drawn twice, which would make a row its
own neighbour. So the mean over sampled rows is unbiased for the mean over all rows, whatever the rows are.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.files.rows import Rows, open_rows
from modalign.metrics.inputs import Graphs
from modalign.metrics.registry import METRICS
from modalign.neighbors.functional import knn
from modalign.neighbors.graph import indices_of

__all__ = [
    "ConfidenceSequence",
    "Estimate",
    "SizeCurve",
    "difference_estimate",
    "finite_population_interval",
    "graph_of_rows",
    "require_sample",
    "sampled_mutual_knn",
    "sampled_scores",
    "size_curve",
]

FIRST, LARGEST = 1000, 20_000  # rows of a batch: the gallery is read once for each
PIECE = 4096  # rows of a file read at once to take some of them


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over ``population`` rows, from ``sample`` of them. method: "all rows", "finite population",
    "confidence sequence" or "difference"; low and high bound the mean over all rows."""

    value: float
    low: float
    high: float
    sample: int
    population: int
    method: str

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return (
            f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f}, {self.sample:,} of {self.population:,} rows, "
            f"{self.method})"
        )


def sampled_mutual_knn(
    x: Any,
    y: Any,
    k: int = 10,
    *,
    metric: str = "cosine",
    groups: Any = None,
    sample: int | None = None,
    tolerance: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    max_memory: int | str | None = None,
    num_threads: int | None = None,
    progress: bool = False,
) -> Estimate:
    """Mutual k-NN of all n rows from the neighbours of a sample of them, found among all n.

    sample: this many rows, drawn without replacement; the interval is ``finite_population_interval``.
    tolerance: rows are added until the interval is at most +-tolerance wide. It is a ``ConfidenceSequence``, which
        holds however long one looks and wherever one stops. Exactly one of sample and tolerance must be given.
    x, y: as in ``modalign.knn``, files too. metric, groups (of one size), max_memory, num_threads, progress: as there.
    confidence: of the interval. seed: of the draw.

    Returns: ``Estimate``. Peak memory: that of ``modalign.knn`` for a batch of at most 20,000 queries.
    Raises: as ``modalign.knn``, and ValueError for both or neither of sample and tolerance, or either out of range.
    Source: Waudby-Smith and Ramdas 2020 (arXiv:2006.04347) for the sequence.

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
    require_sample("sampled_mutual_knn", open_rows(x).shape[0], sample, tolerance, groups)
    return sampled_scores(
        x, y, ["mutual_knn"], k, metric=metric, groups=groups, sample=sample, tolerance=tolerance,
        confidence=confidence, seed=seed, max_memory=max_memory, num_threads=num_threads, progress=progress,
    )["mutual_knn"]  # fmt: skip


def sampled_scores(
    x: Any, y: Any, names: list[str], k: int, *, sample: int | None, tolerance: float | None, confidence: float,
    seed: int, **options: Any,
) -> dict[str, Estimate]:  # fmt: skip
    """``sampled_mutual_knn`` of any metrics that are means over items, from the same rows. The tolerance is that of
    mutual_knn, or of the first. options: those of ``graph_of_rows``."""
    n = open_rows(x).shape[0]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))

    def values(rows: Tensor) -> dict[str, Any]:
        a, b = (graph_of_rows(side, rows, k, **options) for side in (x, y))
        graphs = Graphs(a, b, candidates=n)
        return {name: METRICS[name].load("evaluate")(graphs).numpy() for name in names}

    if sample is not None:
        batches = [values(rows) for rows in torch.split(order[:sample], LARGEST)]
        return {
            name: finite_population_interval(np.concatenate([batch[name] for batch in batches]), n, confidence, True)
            for name in names
        }
    assert tolerance is not None
    sequences = {name: ConfidenceSequence(n, confidence, tolerance) for name in names}
    first = sequences["mutual_knn" if "mutual_knn" in names else names[0]]
    while first.half_width > tolerance and first.count < n:
        for name, found in values(order[first.count : first.count + first.more()]).items():
            sequences[name].update(found)
    return {name: sequence.estimate() for name, sequence in sequences.items()}


def require_sample(
    operation: str, n: int, sample: int | None, tolerance: float | None, groups: Any = None
) -> None:  # fmt: skip
    """Sizes in range; and groups of one size, for the mean over items to be that over groups of the mean within."""
    if sample is not None and not 2 <= sample <= n:
        raise ValueError(f"{operation}: sample must be between 2 and the {n} rows, got {sample}")
    if tolerance is not None and not 0 < tolerance < 0.5:
        raise ValueError(f"{operation}: tolerance must be between 0 and 0.5, got {tolerance}")
    if groups is None or (sample is None and tolerance is None):
        return
    sizes = torch.unique(torch.as_tensor(groups), return_counts=True)[1]
    if int(sizes.min()) < int(sizes.max()):
        raise ValueError(
            f"{operation}: sampled items need groups of one size, got {int(sizes.min())} to {int(sizes.max())} items; "
            "leave out sample and tolerance"
        )


def graph_of_rows(x: Any, rows: Tensor, k: int, *, groups: Any = None, **options: Any) -> Tensor:
    """(len(rows), k) int64: the neighbours of some rows of x among all of them, themselves excluded by id.

    x, groups: as in ``modalign.knn``; so are the options metric, max_memory, num_threads and progress.
    """
    own = None if groups is None else torch.as_tensor(groups)
    # without groups one neighbour more: the row finds itself, unless k + 1 of its duplicates come before it
    more = 1 if own is None else 0
    found = knn(
        x, k + more, queries=_take(open_rows(x), rows), groups=own, query_groups=None if own is None else own[rows],
        **options,
    )  # fmt: skip
    indices = torch.as_tensor(found.indices)
    if not more:
        return indices
    itself = indices == rows[:, None]
    itself[~itself.any(1), -1] = True
    return indices[~itself].reshape(len(rows), k)


def _take(source: Rows, rows: Tensor) -> Tensor:
    """Some rows, in their order; the file is read in pieces that hold some of them."""
    table = torch.empty(len(rows), source.shape[1], dtype=source.dtype)
    ascending = rows.sort()
    piece = ascending.values // PIECE
    ends = torch.cat([(piece.diff() != 0).nonzero()[:, 0] + 1, torch.tensor([len(rows)])]).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        wanted = ascending.values[start:end]
        first = int(wanted[0])
        table[ascending.indices[start:end]] = source.read(first, int(wanted[-1]) + 1)[wanted - first]
    return table


def finite_population_interval(
    values: Any, population: int, confidence: float = 0.95, shares: bool = False
) -> Estimate:
    """The mean of ``population`` numbers from n of them drawn without replacement:

        mean +- z sqrt((1 - n / population) s^2 / n)        s^2 with n - 1

    shares: the numbers are from 0 to 1, and their variance c mean (1 - mean). The interval is then Wilson's, all m with

        |mean - m| <= z sqrt((1 - n / population) c m (1 - m) / n)        c = s^2 / (mean (1 - mean)), at least 1 / n

    and c = 1 where all numbers are 0, or 1: it is as good for many, stays in [0, 1], and has a width where few or none
    of the numbers differ from 0.

    values: (n,). Source: Cochran 1977, Sampling Techniques, section 2.6; Wilson 1927, doi:10.2307/2276774.

    Examples:
        >>> from modalign.alignment.sampling import finite_population_interval
        >>> finite_population_interval([0.0, 1.0, 1.0, 0.0], population=4).half_width
        0.0
    """
    sample = np.asarray(values, dtype=np.float64)
    n, mean = len(sample), float(sample.mean())
    if not 2 <= n <= population:
        raise ValueError(f"finite_population_interval: needs 2 to {population} values, got {n}")
    variance = float(sample.var(ddof=1))
    method = "all rows" if n == population else "finite population"
    z = _normal_quantile(confidence) * math.sqrt(1 - n / population)
    if not shares:
        half = z * math.sqrt(variance / n)
        return Estimate(mean, mean - half, mean + half, n, population, method)
    if sample.min() < 0 or sample.max() > 1:
        raise ValueError(f"finite_population_interval: shares must lie in [0, 1], got {sample.min()} to {sample.max()}")
    spread = mean * (1 - mean)
    w = z * z * (max(variance / spread, 1 / n) if spread > 0 else 1.0) / n
    middle, half = (mean + w / 2) / (1 + w), math.sqrt(w * spread + w * w / 4) / (1 + w)
    return Estimate(mean, max(0.0, middle - half), min(1.0, middle + half), n, population, method)


class ConfidenceSequence:
    """An interval for the mean of N numbers in [0, 1], drawn without replacement, that holds at every moment at once.

    With probability at least ``confidence`` no interval of the sequence misses the mean: one may look after every
    number and stop when it is narrow enough. For numbers X_1, X_2, .. and weights l_i that depend on the past alone,

        sum_i l_i (X_i + S_i / (N-i+1)) +- (log(2 / alpha) + sum_i (X_i - m_i)^2 psi(l_i))
        ------------------------------------------------------------------------------------     S_i = X_1 + .. + X_i-1
                           sum_i l_i (1 + (i-1) / (N-i+1))

    m_i the mean before X_i, psi(l) = -log(1 - l) - l, and the interval is the intersection of all so far. The weights
    are those that are best at the moment when the half-width reaches ``tolerance``.
    Source: Waudby-Smith and Ramdas 2020 (arXiv:2006.04347), theorem 3.2.
    """

    def __init__(self, population: int, confidence: float = 0.95, tolerance: float = 0.005) -> None:
        if not 0 < confidence < 1:
            raise ValueError(f"ConfidenceSequence: confidence must be between 0 and 1, got {confidence}")
        self.population, self.tolerance = population, tolerance
        self.budget = math.log(2 / (1 - confidence))
        self.count, self.total, self.low, self.high = 0, 0.0, 0.0, 1.0
        self._squares = 0.25  # a first guess of the variance, as of one number
        self._center = self._weight = self._spread = 0.0

    @property
    def mean(self) -> float:
        return self.total / max(1, self.count)

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def variance(self) -> float:
        return self._squares / (self.count + 1)

    def update(self, values: Any) -> None:
        """Numbers in the order in which they were drawn."""
        for value in np.asarray(values, dtype=np.float64).tolist():
            if not 0 <= value <= 1:
                raise ValueError(f"ConfidenceSequence: numbers must lie in [0, 1], got {value}")
            self._add(value)

    def _add(self, value: float) -> None:
        left = self.population - self.count
        if left < 1:
            raise ValueError(f"ConfidenceSequence: all {self.population} numbers were seen already")
        weight = min(0.5, self._best_weight())
        guess = (0.5 + self.total) / (self.count + 1)
        self._center += weight * (value + self.total / left)
        self._weight += weight * (1 + self.count / left)
        self._spread += (value - guess) ** 2 * (-math.log1p(-weight) - weight)
        self.count += 1
        self.total += value
        self._squares += (value - (0.5 + self.total) / (self.count + 1)) ** 2
        middle, half = self._center / self._weight, (self.budget + self._spread) / self._weight
        self.low, self.high = max(self.low, middle - half), min(self.high, middle + half)
        if self.count == self.population:
            self.low = self.high = self.mean

    def _best_weight(self) -> float:
        return math.sqrt(2 * self.budget / (self.variance * max(1, self._needed())))

    def _needed(self) -> float:
        """How many numbers the tolerance takes if the variance is what it seems: half-width
        (budget / l + n v l / 2) / n at l = sqrt(2 budget / (n v)), and a third-order term."""
        v, t = self.variance, self.tolerance
        return 2 * self.budget * v / (t * t) + 4 * self.budget / (3 * t)

    def more(self) -> int:
        """How many numbers to add before looking again: about those that are missing, in batches of a sensible size."""
        needed = self._needed()
        total = math.ceil(needed / (1 + needed / self.population))
        return min(self.population - self.count, LARGEST, max(FIRST, total - self.count))

    def estimate(self) -> Estimate:
        """The mean of what was seen, and the interval."""
        method = "all rows" if self.count == self.population else "confidence sequence"
        return Estimate(self.mean, self.low, self.high, self.count, self.population, method)


def difference_estimate(approximate: Any, exact: Any, population: int, confidence: float = 0.95) -> Estimate:
    """The mean of exact shares over all rows, from approximate ones of all rows and exact ones of a few:

        mean over all of approximate + mean over the sample of (exact - approximate)

    unbiased for an approximate index of any recall, and the narrower the better the index.

    approximate: (population,) shares of neighbours by the approximate graphs. exact: {row: share} or (rows, shares) of
    rows drawn without replacement.

    Examples:
        >>> from modalign.alignment.sampling import difference_estimate
        >>> round(difference_estimate([0.4, 0.2, 0.3, 0.1], ([0, 2], [0.5, 0.4]), population=4).value, 6)
        0.35
    """
    every = np.asarray(approximate, dtype=np.float64)
    rows, shares = (np.asarray(part) for part in exact)
    if every.shape != (population,) or rows.shape != shares.shape or len(set(rows.tolist())) != len(rows):
        raise ValueError(
            f"difference_estimate: needs approximate ({population},) and exact (rows, shares) of distinct rows, "
            f"got {every.shape}, {rows.shape} and {shares.shape}"
        )
    change = finite_population_interval(shares - every[rows], population, confidence)
    mean = float(every.mean())
    return Estimate(mean + change.value, mean + change.low, mean + change.high, len(rows), population, "difference")


@dataclasses.dataclass(frozen=True)
class SizeCurve:
    """Expected mutual k-NN of random subsets. sizes: their expected numbers of items; k: neighbours at each; values;
    errors: what the end of the lists can hide at most: the value lies in [value, value + error]; low, high: for
    sampled rows the interval of the value over all rows, otherwise the value."""

    sizes: list[int]
    k: list[int]
    values: list[float]
    errors: list[float]
    low: list[float]
    high: list[float]


def size_curve(
    a: Any, b: Any, k: int, *, population: int | None = None, sizes: list[int] | None = None,
    fixed_fraction: bool = False, confidence: float = 0.95,
) -> SizeCurve:  # fmt: skip
    """How mutual k-NN depends on the number of items, from one pair of graphs with longer lists.

    In a subset that keeps every other item with probability p, the item at rank r_a of one list and r_b of the other is
    among the k nearest of both if fewer than k are kept before it in either. With c items before it in both lists, u in
    the first alone and v in the second alone,

        P = p sum_s<k B(s; c) F(k-1-s; u) F(k-1-s; v)      B, F: binomial probability and distribution with p

    and the value is the mean over rows of sum P / k, over the items that the lists share: no subset is drawn.

    Args:
        a, b: ``modalign.Neighbors`` or (m, K) int64, K > k: all rows, or a sample of them, of n items.
        k: neighbours at n items. population: n; None if the graphs hold all rows.
        sizes: of the subsets, k < size <= n; None for those that lists of K reach: errors below 0.001.
        fixed_fraction: k shrinks with the subset, k(m) = round(k m / n), at least 1.
        confidence: of the interval over the rows that were not sampled.

    Returns: ``SizeCurve``. O(m K^2) time in blocks.
    Raises ValueError for sizes out of range and lists that are not longer than k.

    Examples:
        >>> import numpy as np, modalign
        >>> from modalign.alignment.sampling import size_curve
        >>> x = np.random.default_rng(0).normal(size=(200, 6))
        >>> graphs = [modalign.knn(rows, 60) for rows in (x, x[:, :4])]
        >>> curve = size_curve(*graphs, k=10, sizes=[50, 200])
        >>> abs(curve.values[1] - modalign.mutual_knn(x, x[:, :4], k=10)) < 1e-12, curve.values[0] > curve.values[1]
        (True, True)
    """
    left, right = (indices_of(graph) for graph in (a, b))
    m, length = left.shape
    n = m if population is None else population
    if right.shape != left.shape or not 1 <= k < length:
        raise ValueError(
            f"size_curve: the lists must have one shape and be longer than k = {k}, "
            f"got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    if sizes is None:
        sizes = [
            size for size in _round_sizes(n)
            if size == n or (size > k and _beyond(n, size, _k_at(k, size, n, fixed_fraction), length) < 1e-3)
        ]  # fmt: skip
    for size in sizes:
        if not k < size <= n:
            raise ValueError(f"size_curve: sizes must be above k = {k} and at most {n}, got {size}")
    thinned = [_Thinned(n, size, _k_at(k, size, n, fixed_fraction), length) for size in sizes]
    expected = torch.zeros(len(sizes), m, dtype=torch.float64)
    block = max(1, (1 << 24) // length**2)
    for start in range(0, m, block):
        row, before = _shared(left[start : start + block], right[start : start + block])
        distinct, which = torch.unique(before, dim=0, return_inverse=True)
        for at, thin in enumerate(thinned):
            expected[at].index_add_(0, row + start, thin.probability(distinct)[which])
    curve = SizeCurve(list(sizes), [thin.k for thin in thinned], [], [], [], [])
    for size, thin, rows in zip(sizes, thinned, expected, strict=True):
        estimate = finite_population_interval((rows / thin.k).numpy(), n, confidence, True)
        curve.values.append(estimate.value)
        curve.low.append(estimate.low)
        curve.high.append(estimate.high)
        curve.errors.append(0.0 if size == n else _beyond(n, size, thin.k, length))
    return curve


def _round_sizes(n: int) -> list[int]:
    """n and the 1, 2, 5 x 10^i below it."""
    steps = [digit * 10**power for power in range(1, 12) for digit in (1, 2, 5)]
    return [step for step in steps if step < n] + [n]


def _k_at(k: int, size: int, n: int, fixed_fraction: bool) -> int:
    return max(1, round(k * size / n)) if fixed_fraction else k


def _beyond(n: int, size: int, k: int, length: int) -> float:
    """The probability that a list of ``length`` keeps fewer than k, so that its thinned form is not whole."""
    from scipy import stats

    return float(stats.binom.cdf(k - 1, length, (size - 1) / (n - 1)))


def _shared(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """For every item that both lists of a row hold: the row, and (c, u, v) as ``size_curve`` has them."""
    order = right.argsort(dim=1)
    ids = right.gather(1, order)
    place = torch.searchsorted(ids, left).clamp_(max=ids.shape[1] - 1)
    there = ids.gather(1, place) == left
    rank = torch.where(there, order.gather(1, place), ids.shape[1])  # in the second list
    row, first = there.nonzero(as_tuple=True)
    second = rank[row, first]
    # items before it in the first list that also come before it in the second
    earlier = torch.arange(left.shape[1]) < first[:, None]
    both = ((rank[row] < second[:, None]) & earlier).sum(1)
    return row, torch.stack([both, first - both, second - both], 1)


class _Thinned:
    """A random subset of expected size ``size`` of n items, and tables of what is kept of the first entries."""

    def __init__(self, n: int, size: int, k: int, length: int) -> None:
        from scipy import stats

        self.k, self.p = k, (size - 1) / (n - 1)
        counts, kept = np.arange(length)[:, None], np.arange(k)
        self.exactly = torch.from_numpy(stats.binom.pmf(kept, counts, self.p))
        self.at_most = torch.from_numpy(stats.binom.cdf(kept, counts, self.p))

    def probability(self, before: Tensor) -> Tensor:
        c, u, v = before.unbind(1)
        last = self.at_most.flip(1)  # column s: at most k - 1 - s
        return self.p * (self.exactly[c] * last[u] * last[v]).sum(1)


def _normal_quantile(confidence: float) -> float:
    from scipy import stats

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    return float(stats.norm.ppf((1 + confidence) / 2))
