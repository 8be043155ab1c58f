"""Statistics that reports state: intervals over seeds, the best strength, the trend of accuracy.

Accuracies come as arrays of shape (seeds, strengths): row i is one seed at every strength, so that two columns are
paired by seed. Nothing here corrects for the number of intervals looked at. Quantiles and intervals are SciPy's.
"""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = [
    "Estimate",
    "Trend",
    "best_column",
    "best_column_range",
    "mean_difference",
    "mean_interval",
    "paired_gain",
    "trend",
]

LEVEL = 0.95  # of every interval in a report
FLAT = 0.01  # of accuracy: a curve whose changes are surely smaller is flat
Trend = Literal["rises", "peaks between", "falls", "flat", "undecided"]


class Estimate(NamedTuple):
    """A mean and its interval; ``low`` and ``high`` are None where a single value gives no interval."""

    mean: float
    low: float | None
    high: float | None

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval, None without one."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def positive(self) -> bool:
        """True if the whole interval lies above 0."""
        return self.low is not None and self.low > 0

    @property
    def negative(self) -> bool:
        """True if the whole interval lies below 0."""
        return self.high is not None and self.high < 0


def mean_interval(values: ArrayLike) -> Estimate:
    """Return the mean of independent values and its 95 % Student-t interval, mean +- t sqrt(variance / count).

    Args:
        values: (n,) at least one value. One value has no interval.

    Raises:
        ValueError: If ``values`` is empty or has another shape.

    Examples:
        >>> from modalign.experiments.sweep.statistics import mean_interval
        >>> estimate = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> [round(value, 3) for value in estimate]
        [3.0, 1.037, 4.963]
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size:
        raise ValueError(f"mean_interval wants a list of at least one value, got shape {sample.shape}")
    mean = float(sample.mean())
    if sample.size < 2:
        return Estimate(mean, None, None)
    half = float(stats.t.ppf((1 + LEVEL) / 2, sample.size - 1) * stats.sem(sample))
    return Estimate(mean, mean - half, mean + half)


def paired_gain(after: ArrayLike, before: ArrayLike) -> Estimate:
    """Return the mean of ``after - before`` over seeds and its 95 % Student-t interval.

    Args:
        after: (seeds,) values.
        before: (seeds,) values; entry i of both is the same seed.

    Raises:
        ValueError: If the shapes differ.
    """
    first, second = np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired_gain wants one value for each seed in both, got shapes {first.shape}, {second.shape}")
    return mean_interval(first - second)


def mean_difference(after: ArrayLike, before: ArrayLike) -> Estimate:
    """Return the mean of ``after`` less that of ``before``, of unpaired samples, and Welch's 95 % interval.

    The interval is that of ``scipy.stats.ttest_ind(after, before, equal_var=False)``. A sample of one value gives no
    interval; two samples without any variance give an interval of width 0.

    Args:
        after: (n,) values.
        before: (m,) values.

    Examples:
        >>> from modalign.experiments.sweep.statistics import mean_difference
        >>> [round(value, 3) for value in mean_difference([3.0, 4.0, 5.0], [1.0, 2.0])]
        [2.5, 0.012, 4.988]
    """
    first, second = np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64)
    mean = float(first.mean() - second.mean())
    if min(first.size, second.size) < 2:
        return Estimate(mean, None, None)
    if not (first.var() or second.var()):
        return Estimate(mean, mean, mean)
    with warnings.catch_warnings():  # of a constant sample, whose variance of 0 is meant
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(LEVEL)
    return Estimate(mean, float(interval.low), float(interval.high))


def best_column(validation: NDArray[np.float64]) -> int:
    """Return the column whose mean over the rows is highest; the first one when several are equal."""
    return int(_first_highest(validation.mean(axis=0)))


def best_column_range(
    validation: NDArray[np.float64], *, resamples: int = 10_000, seed: int = 0
) -> tuple[int, int] | None:
    """Return the 2.5 % and 97.5 % points of the best column when the rows are drawn again with replacement.

    Both ends are columns that were chosen: the lower end is rounded down and the upper end up, which
    ``scipy.stats.bootstrap`` does not offer.

    Args:
        validation: (rows, columns) accuracies.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        The two columns; None for a single row.
    """
    rows = len(validation)
    if rows < 2:
        return None
    counts = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    best = _first_highest(counts @ validation / rows)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(best, tail, method="lower"), np.quantile(best, 1 - tail, method="higher")
    return int(low), int(high)


def _first_highest(means: NDArray[np.float64]) -> NDArray[np.intp]:
    # rounded, so that columns that are equal in exact arithmetic stay tied whatever the order of the sum
    return np.asarray(means.round(12).argmax(axis=-1))


def trend(gain: Estimate, end: Estimate, drop: Estimate) -> Trend | None:
    """Return the shape of accuracy against strength, from three paired differences; the first rule that holds decides.

    1. peaks between: the best is above the baseline and the strongest is below the best
    2. rises: the best or the strongest is above the baseline
    3. falls: the strongest is below the baseline
    4. flat: the intervals of the first two lie within 1 point of accuracy of 0
    5. undecided: none of these, so that these seeds do not tell

    A difference counts when its interval excludes 0.

    Args:
        gain: Best strength less baseline.
        end: Strongest less baseline.
        drop: Strongest less best.

    Returns:
        The shape; None for one seed, which gives no interval.
    """
    if gain.low is None:
        return None
    if gain.positive and drop.negative:
        return "peaks between"
    if gain.positive or end.positive:
        return "rises"
    if end.negative:
        return "falls"
    return "flat" if all(_within(change) for change in (gain, end)) else "undecided"


def _within(change: Estimate) -> bool:
    """Return whether a change is surely smaller than a point."""
    return change.low is not None and change.high is not None and change.low > -FLAT and change.high < FLAT
