"""Statistics of a study with intervals that hold every source of chance, the basis of its verdicts.

A table of a study has draws (seeds: the data and the training are drawn anew), points (depths, uniqueness, models,
pairs) and sometimes units (heterogeneities, modalities) whose tables have the same points. Each source can make a
correlation by itself, so the interval is the widest of those that the sources give:

    points   a permutation of the points, the same in every draw and unit, exact where the points are exchangeable;
             the interval has the width in Fisher's z that makes it leave out 0 when the permutation test rejects
    draws    Student's t over the draws, where there are rows that were drawn independently
    units    Student's t over the units

Every interval is of 90 %: each of its ends is wrong in 5 %. It holds its estimate. Where a source leaves nothing to
tell (three points, one draw), it is -1 to 1. ``benchmarks/verdicts.py`` simulates how often that is right.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, t

__all__ = [
    "Measured",
    "grid_correlation",
    "mean_over_draws",
    "median_correlation",
    "pearson",
    "pooled_correlation",
    "spearman",
    "trend",
]

ERROR = 0.05  # of each end of an interval
EXHAUSTIVE, PERMUTATIONS = 6, 999  # the most points whose every order is tried, and the number of orders beyond
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A statistic with its 90 % interval.

    Attributes:
        value: the statistic; NaN where nothing can be measured, as the correlation of a constant.
        low, high: the ends of its interval, each wrong in 5 %.
        half: half the width of the interval, of a correlation in Fisher's z: finite even where the interval tells
            nothing, for an estimate of the runs that it would take.
        runs: the number of models behind it.
        design: what was measured, as the record of the rules' characteristics names it.
        correlation: whether the statistic lies between -1 and 1.
    """

    value: float
    low: float
    high: float
    half: float
    runs: int
    design: str
    correlation: bool = True


def pearson(x: Array, y: Array) -> float:
    """Return Pearson's correlation; 0 where one side is constant."""
    a, b = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def spearman(x: Array, y: Array) -> float:
    """Return Spearman's rank correlation, ties by their mean rank; 0 where one side is constant."""
    return pearson(rankdata(x), rankdata(y))


def trend(x: Sequence[float], values: Array) -> Measured:
    """Return Spearman's correlation of x (points,) with the mean over draws of values (draws, points)."""
    draws, points = values.shape
    design = f"trend {draws}x{points}"
    if not np.isfinite(values).all():
        return _nothing(values.size, design)
    mean = values.mean(0)
    ranks = [_unit(rankdata(np.asarray(side, np.float64).round(12))) for side in (x, mean)]
    if any(side is None for side in ranks):
        return _nothing(values.size, design)
    at, heights = np.asarray(ranks[0]), np.asarray(ranks[1])
    place = _unit(np.asarray(x, np.float64))
    spread = float(np.linalg.norm(mean - mean.mean()))
    # their mean is Pearson's correlation of x with the mean curve; a ratio of each draw's own would not be normal
    slopes = (values - values.mean(1, keepdims=True)) @ np.asarray(place) / spread
    return _correlation(
        float(at @ heights), _null(np.outer(at, heights)[None])[0], points, [slopes], runs=values.size, design=design
    )


def median_correlation(x: Array, y: Array) -> Measured:
    """Return the median over draws and units of Spearman's correlations over points, of x and y (draws, units, points).

    A cell in which one side is constant has no correlation and is left out.
    """
    x, y = np.broadcast_arrays(x, y)
    draws, units, points = y.shape
    design = f"median {draws}x{units}x{points}"
    ranks = [rankdata(side.round(12), axis=-1) - (points + 1) / 2 for side in (x, y)]
    norms = np.sqrt((ranks[0] ** 2).sum(-1) * (ranks[1] ** 2).sum(-1))
    known = (norms > 0) & np.isfinite(x + y).all(-1)
    if not known.any() or points < 2:
        return _nothing(y.size, design)
    x, y = (np.where(known[..., None], side, 0.0) for side in (x, y))
    a, b = ranks[0] / np.where(known, norms, 1)[..., None], ranks[1]
    cells = np.where(known, (a * b).sum(-1), np.nan)
    null = np.median(_null(np.einsum("...i,...j->...ij", a, b)[known]), 0)
    slopes = _slopes(x, y)
    sources = [slopes.mean(1), slopes.mean(0)] if units > 1 else [slopes.mean(1)]
    return _correlation(float(np.nanmedian(cells)), null, points, sources, runs=y.size, design=design)


def pooled_correlation(x: Array, y: Array, *, ranks: bool = False, runs: int | None = None) -> Measured:
    """Return the mean over tables of Pearson's (Spearman's) correlation over all entries of x and y.

    x, y: (rows, points) or (tables, rows, points). The entries of a point belong together and are permuted with it, so
    that they are no more than one point where they say the same. ranks: Spearman's. runs: the number of models behind
    the entries; by default as many.
    """
    x, y = np.broadcast_arrays(x, y)
    design = f"pooled {'x'.join(map(str, y.shape))}"
    tables = list(zip(np.reshape(x, (-1, *y.shape[-2:])), np.reshape(y, (-1, *y.shape[-2:])), strict=True))
    products = []
    for sides in tables:
        units = [_unit(rankdata(side.round(12)).reshape(side.shape) if ranks else side) for side in sides]
        if any(unit is None for unit in units):
            return _nothing(runs or y.size, design)
        products.append(np.asarray(units[0]).T @ np.asarray(units[1]))
    product = np.mean(products, 0)
    null = _null(product[None])[0]
    value, points = float(np.trace(product)), y.shape[-1]
    return _correlation(value, null, points, [], runs=runs or y.size, design=design, ranks=ranks)


def grid_correlation(rows: Sequence[float], columns: Sequence[float], values: Array) -> Measured:
    """Return Spearman's correlation of row - column with the mean over draws of values (draws, rows, columns).

    Rows alone and columns alone must both be better than their permutations: a table that only its columns explain
    does not follow the difference.
    """
    design = f"grid {'x'.join(map(str, values.shape))}"
    if not np.isfinite(values).all():
        return _nothing(values.size, design)
    difference = np.subtract.outer(np.asarray(rows, np.float64), np.asarray(columns, np.float64))
    mean = values.mean(0)
    at, heights = (_unit(rankdata(side.round(12)).reshape(mean.shape)) for side in (difference, mean))
    place = _unit(difference)
    if at is None or heights is None or place is None:
        return _nothing(values.size, design)
    spread = float(np.linalg.norm(mean - mean.mean()))
    slopes = ((values - values.mean((1, 2), keepdims=True)) * place).sum((1, 2)) / spread
    nulls = [_null((at @ heights.T)[None])[0], _null((at.T @ heights)[None])[0]]
    value, fewest = float((at * heights).sum()), min(mean.shape)
    by_side = [_correlation(value, null, fewest, [slopes], runs=values.size, design=design) for null in nulls]
    return max(by_side, key=lambda one: one.half)


def mean_over_draws(values: Array, *, runs: int | None = None, error: float = ERROR) -> Measured:
    """Return the mean of values (draws,) or (draws, units) with its interval, Student's t over each of the two.

    runs: the number of models behind the values; by default as many. error: of each end of the interval.
    """
    table = values.reshape(len(values), -1)
    name, count = f"mean {'x'.join(map(str, values.shape))}", runs or table.size
    value = float(table.mean())
    if not math.isfinite(value):
        return _nothing(count, name, correlation=False)
    sources = [table.mean(1), *([table.mean(0)] if table.shape[1] > 1 else [])]
    widths = [_t_width(source, error) for source in sources]
    half = max(widths)
    known = [width for width in widths if math.isfinite(width)]
    finite = max(known) if known else abs(value)
    return Measured(value, value - half, value + half, half=finite, runs=count, design=name, correlation=False)


def _unit(side: Array) -> Array | None:
    """Return a table less its mean, of length 1; None where it is constant or holds a value that is not a number."""
    centred = side - side.mean()
    norm = float(np.linalg.norm(centred))
    return centred / norm if norm > 1e-12 and math.isfinite(norm) else None


def _slopes(x: Array, y: Array) -> Array:
    """Return the covariances over points of x and y (draws, units, points), in units of both sides' mean deviations.

    Their mean is near the mean correlation. Where every draw has a smooth curve of its own, correlations are near 1 or
    -1, while these are normal.
    """
    a, b = (side - side.mean(-1, keepdims=True) for side in (x, y))
    scale = math.sqrt(float((a * a).sum(-1).mean() * (b * b).sum(-1).mean()))  # above 0: some cell is not constant
    slopes: Array = (a * b).sum(-1) / scale
    return slopes


def _t_width(values: Array, error: float = ERROR) -> float:
    """Return the half-width of the interval of a mean of independent values; infinite for one of them."""
    count = len(values)
    if count < 2:
        return math.inf
    return float(t.ppf(1 - error, count - 1) * values.std(ddof=1) / math.sqrt(count))


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


def _null(products: Array) -> Array:
    """Return sum_i products[c, i, order(i)] for every order of the points (cells, orders)."""
    points = products.shape[-1]
    return np.asarray(products.reshape(len(products), -1).astype(np.float32) @ _indicators(points), np.float64)


def _correlation(
    value: float, null: Array, points: int, sources: Sequence[Array], *, runs: int, design: str, ranks: bool = True
) -> Measured:
    """Return a correlation with the widest of the intervals of its points, draws and units."""
    value = min(1.0, max(-1.0, value))
    shrunk = 1 - 1 / points if ranks else 0.999999  # a rank correlation of 1 over few points is not one over all
    critical = _critical(null if value >= 0 else -null)
    half = math.inf if critical is None else math.atanh(shrunk * min(critical, 1.0))
    inner, outer = math.atanh(shrunk * value), math.atanh(0.999999 * value)
    ends = (inner, outer) if value >= 0 else (outer, inner)
    low, high = math.tanh(ends[0] - half), math.tanh(ends[1] + half)
    finite = half if math.isfinite(half) else 1.645 * math.sqrt(1.06 / max(points - 2, 1))
    for source in sources:
        width, centre = _t_width(source), float(source.mean()) if len(source) else value
        low, high = min(low, centre - width), max(high, centre + width)
        if math.isfinite(width):
            finite = max(finite, width)
    low, high = max(-1.0, min(low, value)), min(1.0, max(high, value))
    return Measured(value, low, high, half=finite, runs=runs, design=design)


def _critical(null: Array) -> float | None:
    """Return the least value that at most 5 % of the permutations reach; None if none is so rare."""
    allowed = int(ERROR * len(null) + 1e-9)
    highest = np.sort(np.partition(null, len(null) - allowed - 1)[len(null) - allowed - 1 :])
    rare = highest[1:][highest[1:] > highest[0] + 1e-5]  # equal values differ by rounding in float32
    return float(rare[0]) - 1e-6 if len(rare) else None


def _nothing(runs: int, design: str, *, correlation: bool = True) -> Measured:
    """Return what is measured where nothing can be."""
    bound = 1.0 if correlation else math.inf
    return Measured(math.nan, -bound, bound, half=math.nan, runs=runs, design=design, correlation=correlation)
