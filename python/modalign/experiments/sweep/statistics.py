"""The few statistics a report states, each in its plain form: intervals over seeds, the best strength, the trend.

Accuracies come as arrays of shape (seeds, strengths): row i is one seed at every strength, so that two columns are
paired by seed. Nothing here corrects for the number of intervals looked at.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Estimate",
    "Trend",
    "best_column",
    "best_column_range",
    "mean_interval",
    "paired_gain",
    "student_t",
    "trend",
]

LEVEL = 0.95  # every interval of a report
Trend = Literal["rises", "peaks between", "falls", "flat"]


class Estimate(NamedTuple):
    """A mean and its interval; ``low`` and ``high`` are None where one value gives no interval."""

    mean: float
    low: float | None
    high: float | None

    @property
    def half_width(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def positive(self) -> bool:
        """The whole interval lies above 0."""
        return self.low is not None and self.low > 0

    @property
    def negative(self) -> bool:
        """The whole interval lies below 0."""
        return self.high is not None and self.high < 0


def student_t(freedom: int, level: float = LEVEL) -> float:
    """The t with P(-t <= T <= t) = level for Student's T with ``freedom`` degrees of freedom.

    With t = sqrt(freedom) tan(a) the probability is a finite sum in sin(a) and cos(a) (Abramowitz and Stegun 26.7.3
    and 26.7.4); it grows with a, so halving [0, pi / 2] finds a.
    """
    if freedom < 1 or not 0 < level < 1:
        raise ValueError(f"student_t wants freedom >= 1 and 0 < level < 1, got {freedom} and {level}")
    low, high = 0.0, math.pi / 2
    while (angle := (low + high) / 2) not in (low, high):
        low, high = (angle, high) if _inside(angle, freedom) < level else (low, angle)
    return math.sqrt(freedom) * math.tan(angle)


def _inside(angle: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(angle))."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for power in range(2 + odd, freedom - 1, 2):
        term *= math.cos(angle) ** 2 * (power - 1) / power
        total += term
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total


def mean_interval(values: ArrayLike) -> Estimate:
    """Mean of independent values and its 95 % Student-t interval: mean +- t sqrt(variance / count)."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size:
        raise ValueError(f"mean_interval wants a list of at least one value, got shape {sample.shape}")
    mean = float(sample.mean())
    if sample.size < 2:
        return Estimate(mean, None, None)
    half = student_t(sample.size - 1) * float(sample.std(ddof=1)) / math.sqrt(sample.size)
    return Estimate(mean, mean - half, mean + half)


def paired_gain(after: ArrayLike, before: ArrayLike) -> Estimate:
    """Mean of ``after - before`` over seeds with its 95 % Student-t interval; entry i of both is the same seed."""
    first, second = np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired_gain wants one value for each seed in both, got shapes {first.shape}, {second.shape}")
    return mean_interval(first - second)


def best_column(validation: NDArray[np.float64]) -> int:
    """The column whose mean over the rows is highest; the first one when several are equal."""
    return int(_first_highest(validation.mean(axis=0)))


def best_column_range(
    validation: NDArray[np.float64], *, resamples: int = 10_000, seed: int = 0
) -> tuple[int, int] | None:
    """The 2.5 % and 97.5 % points of the best column when the rows are drawn again with replacement.

    Both ends are columns that were chosen: the lower end is rounded down and the upper end up. None for one row.
    """
    rows = len(validation)
    if rows < 2:
        return None
    drawn = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    chosen = _first_highest(drawn @ validation / rows)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(chosen, tail, method="lower"), np.quantile(chosen, 1 - tail, method="higher")
    return int(low), int(high)


def _first_highest(means: NDArray[np.float64]) -> NDArray[np.intp]:
    # rounded, so that columns that are equal in exact arithmetic stay tied whatever the order of the sum
    return np.asarray(means.round(12).argmax(axis=-1))


def trend(gain: Estimate, end: Estimate, drop: Estimate) -> Trend | None:
    """What accuracy does as the strength grows, from three paired differences; the first rule that holds decides.

    gain: best strength minus baseline; end: strongest minus baseline; drop: strongest minus best. An interval counts
    when it excludes 0.

    1. peaks between: the best is above the baseline and the strongest is below the best
    2. rises: the best or the strongest is above the baseline
    3. falls: the strongest is below the baseline
    4. flat: none of these; nothing can be told from so many seeds

    None where there is one seed, so no interval.
    """
    if gain.low is None:
        return None
    if gain.positive and drop.negative:
        return "peaks between"
    if gain.positive or end.positive:
        return "rises"
    return "falls" if end.negative else "flat"
