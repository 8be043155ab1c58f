"""Sources of chance of a statistic: the interval that each gives alone, and how often it would have to be repeated.

    repeated    Student's t over independent repetitions (seeds, heterogeneities), each with a value of its own
    reordered   a permutation of points that the null hypothesis takes as exchangeable
    stepwise    Student's t over the steps from point to point, for two curves over ordered points: neighbouring points
                that are alike, as in random walks, correlate by themselves while their differences do not
                (Granger and Newbold 1974, "Spurious regressions in econometrics")

Fewer than three repetitions, or repetitions that are all equal, say nothing about their scatter.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

__all__ = [
    "ERROR",
    "REPETITIONS",
    "Source",
    "fisher",
    "null_of_orders",
    "reordered",
    "repeated",
    "smallest_gap",
    "stepwise",
    "unit_of",
]

ERROR = 0.05  # of each end of an interval
QUANTILE = 1.645  # of the normal distribution, for such an end
REPETITIONS, POINTS = 3, 4  # the fewest that an interval can be had from
EXHAUSTIVE, PERMUTATIONS = 6, 999  # the most points whose every order is tried, and the number of orders beyond
MOST = 10_000  # repetitions beyond which no number is given
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """One source of chance of a statistic.

    Attributes:
        name: what is repeated, such as "seeds" or "depths".
        kind: "repeated", "reordered" or "stepwise".
        count: the number of repetitions or points.
        low, high: the ends of the interval that this source alone gives.
        spread: standard deviation of one repetition; of points, the width of the interval in units of that of one
            curve over as many; NaN where it is not known.
        error: of each end of the interval.
    """

    name: str
    kind: str
    count: int
    _: KW_ONLY
    low: float
    high: float
    spread: float = math.nan
    error: float = ERROR

    @property
    def fewest(self) -> int:
        """The smallest count from which an interval can be had."""
        return REPETITIONS if self.kind == "repeated" else POINTS

    @property
    def is_of_points(self) -> bool:
        """Whether the interval is one of Fisher's z."""
        return self.kind != "repeated"

    def count_for(self, distance: float, chance: float, observed: float) -> int | None:
        """Return the smallest larger count whose interval is short enough.

        Args:
            distance: what the interval must leave out, from the statistic's true value, for points in Fisher's z.
            chance: quantile of the normal distribution of the share of studies in which it does.
            observed: the same distance from the value that was measured, which the interval must leave out surely.

        Returns:
            The count to two digits; None where the spread is not known, or beyond 10,000.
        """
        counts = np.arange(max(self.fewest + 1, math.ceil(1.1 * self.count)), MOST + 1, dtype=np.float64)
        if self.kind == "repeated":
            deviations = self.spread / np.sqrt(counts)
            halves = t.ppf(1 - self.error, counts - 1) * deviations
        else:
            deviations = self.spread * np.sqrt(1.06 / (counts - 3))  # of Spearman's correlation in Fisher's z
            quantiles = t.ppf(1 - ERROR, counts - 2)
            steps = np.arctanh(quantiles / np.sqrt(quantiles**2 + counts - 2))
            halves = steps if self.kind == "stepwise" else QUANTILE * deviations
        enough = (halves + chance * deviations <= distance) & (halves <= observed)
        if not enough.any():
            return None
        first = float(counts[enough.argmax()])
        digits = 10 ** max(0, int(math.log10(first)) - 1)
        return int(math.ceil(first / digits) * digits)


def repeated(
    name: str, values: Array, *, error: float = ERROR, resolution: float | None = None, bounds: float = math.inf
) -> Source:
    """Return the source of values (repetitions,) that were drawn independently, about their mean.

    Args:
        name: what is repeated.
        values: one for each repetition.
        error: of each end of the interval.
        resolution: the smallest difference that the values could have shown, below which their scatter is not taken.
            By default the smallest difference among them, so that values which are all equal leave the interval open.
        bounds: the statistic lies between -bounds and bounds.
    """
    count = len(values)
    smallest = smallest_gap(values) if resolution is None else resolution
    if count < REPETITIONS or not smallest > 0:
        return Source(name, "repeated", count, low=-bounds, high=bounds, error=error)
    unit = unit_of(values)
    spread = max(float((values / unit).std(ddof=1)) * unit, smallest)
    centre, half = float((values / unit).mean()) * unit, _quantile(error, count - 1) * spread / math.sqrt(count)
    low, high = max(-bounds, centre - half), min(bounds, centre + half)
    return Source(name, "repeated", count, low=low, high=high, spread=spread, error=error)


def unit_of(values: Array) -> float:
    """Return 1, or for huge values a unit in which their squares and sums are finite."""
    largest = float(np.abs(values).max())
    return largest if largest > 1e100 else 1.0


def smallest_gap(values: Array) -> float:
    """Return the smallest difference of two of the values that are not equal up to rounding; 0 where all are equal."""
    ordered = np.sort(values, axis=None)
    gaps = np.diff(ordered)
    gaps = gaps[gaps > 1e-9 * max(abs(float(ordered[0])), abs(float(ordered[-1])))]
    return float(gaps.min()) if len(gaps) else 0.0


def reordered(name: str, value: float, null: Array, points: int, *, ranks: bool = True) -> Source:
    """Return the source of points whose orders give a correlation the values ``null``.

    The interval has the width in Fisher's z that makes it leave out 0 when the permutation test rejects.
    """
    critical = _critical(null if value >= 0 else -null)
    if critical is None or points < POINTS:
        return Source(name, "reordered", points, low=-1.0, high=1.0)
    shrunk = 1 - 1 / points if ranks else 0.999999  # a rank correlation of 1 over few points is not one over all
    half = math.atanh(shrunk * min(critical, 1.0))
    spread = half / math.atanh(shrunk * _critical_of_one(points))
    inner, outer = math.atanh(shrunk * value), math.atanh(0.999999 * value)
    ends = (inner, outer) if value >= 0 else (outer, inner)
    return Source(
        name, "reordered", points, low=math.tanh(ends[0] - half), high=math.tanh(ends[1] + half), spread=spread
    )


def stepwise(name: str, x: Array, y: Array) -> Source:
    """Return the source of the steps of two curves (points,): the correlation through the origin of their differences.

    Of two independent random walks with normal steps it has Student's t with points - 2 degrees of freedom exactly.
    """
    points = len(x)
    a, b = np.diff(x), np.diff(y)
    norm = float(np.sqrt((a @ a) * (b @ b)))
    if points < POINTS or not norm > 0:
        return Source(name, "stepwise", points, low=-1.0, high=1.0)
    quantile = _quantile(ERROR, points - 2)
    centre, half = fisher(float(a @ b) / norm), math.atanh(quantile / math.sqrt(quantile**2 + points - 2))
    return Source(name, "stepwise", points, low=math.tanh(centre - half), high=math.tanh(centre + half), spread=1.0)


def fisher(value: float) -> float:
    """Return Fisher's z of a correlation, finite for 1."""
    return math.atanh(min(0.999, max(-0.999, value)))


@functools.cache
def _quantile(error: float, freedom: int) -> float:
    """Return the quantile of Student's t that is passed in ``error``."""
    return float(t.ppf(1 - error, freedom))


@functools.cache
def _orders(points: int) -> NDArray[np.int64]:
    """Return orders of the points (orders, points), the first as they are: every one of a few, else random ones."""
    if points <= EXHAUSTIVE:
        return np.array(list(itertools.permutations(range(points))))
    rng = np.random.default_rng(0)
    drawn = rng.permuted(np.tile(np.arange(points), (PERMUTATIONS, 1)), axis=1)
    return np.concatenate([np.arange(points)[None], drawn])


@functools.cache
def _indicators(points: int) -> NDArray[np.float32]:
    """Return the orders as tables of zeros and ones (points * points, orders)."""
    table = np.zeros((len(_orders(points)), points, points), np.float32)
    table[np.arange(len(table))[:, None], np.arange(points), _orders(points)] = 1
    return np.ascontiguousarray(table.reshape(len(table), -1).T)


def null_of_orders(products: Array) -> Array:
    """Return sum_i products[c, i, order(i)] for every order of the points (cells, orders)."""
    points = products.shape[-1]
    return np.asarray(products.reshape(len(products), -1).astype(np.float32) @ _indicators(points), np.float64)


@functools.cache
def _critical_of_one(points: int) -> float:
    """Return the critical value of the rank correlation of one curve."""
    side = np.arange(points) - (points - 1) / 2
    return _critical(null_of_orders(np.outer(side, side)[None] / (side @ side))[0]) or 1.0


def _critical(null: Array) -> float | None:
    """Return the least value that at most 5 % of the permutations reach; None if none is so rare."""
    allowed = int(ERROR * len(null) + 1e-9)
    highest = np.sort(np.partition(null, len(null) - allowed - 1)[len(null) - allowed - 1 :])
    rare = highest[1:][highest[1:] > highest[0] + 1e-5]  # equal values differ by rounding in float32
    return float(rare[0]) - 1e-6 if len(rare) else None
