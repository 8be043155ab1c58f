"""Estimates of a mean over a finite population, from a sample drawn without replacement.

Two intervals are available: ``finite_population_interval`` for a sample of a size fixed beforehand, and
``ConfidenceSequence`` for a sample that grows until its interval is narrow enough.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["LARGEST_BATCH", "ConfidenceSequence", "Estimate", "difference_estimate", "finite_population_interval"]

SMALLEST_BATCH, LARGEST_BATCH = 1000, 20_000  # rows; the whole gallery is read once for each batch


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An estimated mean over a population of rows, with its interval.

    Attributes:
        value: float. The estimate.
        low: float. The lower end of the confidence interval of the mean over all rows.
        high: float. The upper end.
        sample: int. Number of sampled rows.
        population: int. Number of all rows.
        method: str. "all rows", "finite population", "confidence sequence" or "difference".
    """

    value: float
    low: float
    high: float
    sample: int
    population: int
    method: str

    @property
    def half_width(self) -> float:
        """Half of the width of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        interval = f"{self.low:.4f} to {self.high:.4f}"
        return f"{self.value:.4f} ({interval}, {self.sample:,} of {self.population:,} rows, {self.method})"


def finite_population_interval(
    values: ArrayLike, population: int, confidence: float = 0.95, shares: bool = False
) -> Estimate:
    """Estimate the mean of ``population`` numbers from n of them, drawn without replacement.

    The interval is, with the sample variance s^2 (of n - 1 degrees of freedom)::

        mean +- z sqrt((1 - n / population) s^2 / n)

    With ``shares``, the numbers lie in [0, 1] and their variance is c m (1 - m) for a mean m. The interval is then
    Wilson's: all m with::

        |mean - m| <= z sqrt((1 - n / population) c m (1 - m) / n)        c = s^2 / (mean (1 - mean)), at least 1 / n

    and c = 1 where all numbers are 0, or all are 1. It agrees with the first interval for large n, stays in [0, 1], and
    has a positive width where few or none of the numbers differ from 0.

    Args:
        values: array of shape (n,), 2 <= n <= population. The sampled numbers.
        population: int. Number of all numbers.
        confidence: float in (0, 1). Level of the interval.
        shares: bool. Whether the numbers are shares, from 0 to 1.

    Returns:
        ``Estimate``.

    Raises:
        ValueError: If there are fewer than 2 or more than ``population`` values, if ``confidence`` is not between 0 and
            1, or if shares are not in [0, 1].

    Source:
        Cochran 1977, Sampling Techniques, section 2.6; Wilson 1927, doi:10.2307/2276774.

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
    z = _normal_quantile(confidence) * math.sqrt(1 - n / population)
    if shares:
        if sample.min() < 0 or sample.max() > 1:
            span = f"{sample.min()} to {sample.max()}"
            raise ValueError(f"finite_population_interval: shares must lie in [0, 1], got {span}")
        low, high = _wilson(mean, variance, n, z)
    else:
        half_width = z * math.sqrt(variance / n)
        low, high = mean - half_width, mean + half_width
    method = "all rows" if n == population else "finite population"
    return Estimate(value=mean, low=low, high=high, sample=n, population=population, method=method)


def _wilson(mean: float, variance: float, n: int, z: float) -> tuple[float, float]:
    """Return Wilson's interval of a mean of shares.

    SciPy's (``binomtest(...).proportion_ci``) takes whole counts of zeros and ones; shares lie anywhere between, and
    their variance is smaller.
    """
    spread = mean * (1 - mean)
    w = z * z * (max(variance / spread, 1 / n) if spread > 0 else 1.0) / n
    centre, half_width = (mean + w / 2) / (1 + w), math.sqrt(w * spread + w * w / 4) / (1 + w)
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def _normal_quantile(confidence: float) -> float:
    from scipy import stats

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    return float(stats.norm.ppf((1 + confidence) / 2))


class ConfidenceSequence:
    """Intervals for the mean of N numbers in [0, 1], drawn without replacement, that all hold at once.

    With probability at least ``confidence`` no interval of the sequence misses the mean: one may look after every
    number and stop as soon as the interval is narrow enough. For numbers X_1, X_2, .. and weights l_i that depend on
    the past alone, the interval after each number is::

        sum_i l_i (X_i + S_i / (N-i+1)) +- (log(2 / alpha) + sum_i (X_i - m_i)^2 psi(l_i))
        ------------------------------------------------------------------------------------     S_i = X_1 + .. + X_i-1
                           sum_i l_i (1 + (i-1) / (N-i+1))

    where m_i is the mean before X_i and psi(l) = -log(1 - l) - l. The sequence is the intersection of all intervals so
    far. The weights are those that make the interval narrowest when its half-width reaches ``tolerance``.

    Args:
        population: int. N, the number of all numbers.
        confidence: float in (0, 1). Level of the intervals.
        tolerance: float. The half-width for which the weights are chosen.

    Attributes:
        count: int. The number of numbers so far.
        low: float. The lower end of the interval.
        high: float. The upper end.

    Raises:
        ValueError: If ``confidence`` is not between 0 and 1.

    Source:
        Waudby-Smith and Ramdas 2020 (arXiv:2006.04347), theorem 3.2.

    Examples:
        >>> from modalign.alignment.sampling import ConfidenceSequence
        >>> sequence = ConfidenceSequence(population=4)
        >>> sequence.update([0.0, 1.0, 1.0, 0.0])
        >>> sequence.low, sequence.high  # all numbers are known
        (0.5, 0.5)
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
        """The mean of the numbers so far."""
        return self.total / max(1, self.count)

    @property
    def half_width(self) -> float:
        """Half of the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def variance(self) -> float:
        """The estimated variance of the numbers."""
        return self._squares / (self.count + 1)

    def update(self, values: ArrayLike) -> None:
        """Add numbers in the order in which they were drawn.

        Args:
            values: array of shape (m,). Numbers in [0, 1].

        Raises:
            ValueError: If a number is outside [0, 1], or all N numbers were added before.
        """
        numbers: Iterable[float] = np.asarray(values, dtype=np.float64).tolist()
        for value in numbers:
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
        centre, half_width = self._center / self._weight, (self.budget + self._spread) / self._weight
        self.low, self.high = max(self.low, centre - half_width), min(self.high, centre + half_width)
        if self.count == self.population:
            self.low = self.high = self.mean

    def _best_weight(self) -> float:
        return math.sqrt(2 * self.budget / (self.variance * max(1, self._needed())))

    def _needed(self) -> float:
        """Return how many numbers the tolerance needs at the estimated variance v.

        The half-width is (budget / l + n v l / 2) / n at l = sqrt(2 budget / (n v)), plus a third-order term.
        """
        v, t = self.variance, self.tolerance
        return 2 * self.budget * v / (t * t) + 4 * self.budget / (3 * t)

    def next_batch_size(self) -> int:
        """Return how many numbers to draw before looking again: about those still needed, from 1,000 to 20,000."""
        needed = self._needed()
        total = math.ceil(needed / (1 + needed / self.population))
        return min(self.population - self.count, LARGEST_BATCH, max(SMALLEST_BATCH, total - self.count))

    def estimate(self) -> Estimate:
        """Return the mean of the numbers so far, and the interval."""
        method = "all rows" if self.count == self.population else "confidence sequence"
        return Estimate(
            value=self.mean,
            low=self.low,
            high=self.high,
            sample=self.count,
            population=self.population,
            method=method,
        )


def difference_estimate(
    approximate: ArrayLike, exact: tuple[ArrayLike, ArrayLike], population: int, confidence: float = 0.95
) -> Estimate:
    """Estimate the mean of exact shares over all rows, from approximate shares of all rows and exact ones of a few.

    The estimate is::

        mean over all rows of approximate + mean over the sample of (exact - approximate)

    It is unbiased for an approximate index of any recall, and the better the index, the narrower the interval.

    Args:
        approximate: array of shape (population,). Shares of common neighbours in the approximate graphs.
        exact: pair of arrays of shape (n,), the rows drawn without replacement and their exact shares.
        population: int. Number of all rows.
        confidence: float in (0, 1). Level of the interval.

    Returns:
        ``Estimate`` with the method "difference".

    Raises:
        ValueError: If the shapes differ from those above, a row appears twice, or a number is out of the range of
            ``finite_population_interval``.

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
    return Estimate(
        value=mean + change.value,
        low=mean + change.low,
        high=mean + change.high,
        sample=len(rows),
        population=population,
        method="difference",
    )
