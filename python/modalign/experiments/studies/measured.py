"""Statistics of a study with intervals that hold every source of chance, the basis of its verdicts.

A table of a study has seeds (the data and the training are drawn anew), points (depths, uniqueness, models, pairs) and
sometimes units (heterogeneities, encoders) whose tables have the same points. Each source can make a correlation by
itself, so the interval is the widest of those that the sources give (``repetition``): Student's t over seeds and over
units, which holds however smooth each one's curve is, and a permutation of the points. Two curves that were both
measured over ordered points also have to correlate in their steps from point to point.

Every interval is of 90 %: each of its ends is wrong in 5 %. It holds its estimate. Where a source leaves nothing to
tell (three points, two seeds), it is -1 to 1. ``benchmarks/verdicts.py`` simulates how often that is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from modalign.experiments.studies.repetition import (
    ERROR,
    Source,
    null_of_orders,
    reordered,
    repeated,
    stepwise,
    unit_of,
)

__all__ = [
    "STATISTICS",
    "Measured",
    "curve_correlation",
    "grid_correlation",
    "mean_over_draws",
    "median_correlation",
    "pearson",
    "pooled_correlation",
    "pooled_trend",
    "spearman",
    "trend",
]

# what a design of the record of characteristics begins with, and the axes of its size
STATISTICS = {
    "trend": "Spearman's correlation of a factor with the mean curve over seeds: seeds x points",
    "median": "the median of Spearman's correlations over points: seeds x units x points",
    "models": "the mean of Spearman's correlations of all entries of tables over a factor: "
    "seeds x tables x units x points",
    "pooled": "the correlation of all entries of two tables over points without an order: (tables x) rows x points",
    "curves": "Pearson's correlation of two mean curves over ordered points: seeds x points",
    "entries": "Pearson's correlation of all entries of two sets of curves over ordered points: seeds x points",
    "grid": "Spearman's correlation of rows less columns with a mean table: seeds x rows x columns",
    "mean": "a mean over seeds: seeds (x units)",
}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A statistic with its 90 % interval.

    Attributes:
        value: the statistic; NaN where nothing can be measured, as the correlation of a constant.
        low, high: the ends of its interval, each wrong in 5 %; infinite where that end is open.
        design: what was measured, as the record of the rules' characteristics names it.
        correlation: whether the statistic lies between -1 and 1.
        sources: the sources of chance, whose widest interval it is.
    """

    value: float
    low: float
    high: float
    design: str
    correlation: bool = True
    sources: tuple[Source, ...] = ()


def pearson(x: Array, y: Array) -> float:
    """Return Pearson's correlation; 0 where one side is constant."""
    a, b = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def spearman(x: Array, y: Array) -> float:
    """Return Spearman's rank correlation, ties by their mean rank; 0 where one side is constant."""
    return pearson(rankdata(x), rankdata(y))


def trend(x: Sequence[float], values: Array, *, over: str = "points") -> Measured:
    """Return Spearman's correlation of a factor x (points,) with the mean over seeds of values (seeds, points).

    x is a factor that was set, such as uniqueness, and ``over`` its name in the plural.
    """
    design = f"trend {_size(values)}"
    if not _measurable(values):
        return _nothing(design)
    values = _tamed(values)
    mean, place = values.mean(0), _unit(np.asarray(x, np.float64))
    ranks = [_unit(_ranks(np.asarray(side, np.float64))) for side in (x, mean)]
    if place is None or any(side is None for side in ranks):
        return _nothing(design)
    at, heights = np.asarray(ranks[0]), np.asarray(ranks[1])
    value = float(at @ heights)
    sources = [
        reordered(over, value, null_of_orders(np.outer(at, heights)[None])[0], len(mean)),
        _of_slopes("seeds", _shares(values, place)),
    ]
    return _correlation(value, sources, design)


def median_correlation(x: Array, y: Array, *, over: str = "points", units: str = "units") -> Measured:
    """Return the median over seeds and units of Spearman's correlations over points, of x and y (seeds, units, points).

    A cell in which one side is constant has no correlation and is left out. over, units: names in the plural.
    """
    x, y = np.broadcast_arrays(x, y)
    points, design = y.shape[2], f"median {_size(y)}"
    ranks = [rankdata(side.round(12), axis=-1) - (points + 1) / 2 for side in (x, y)]
    norms = np.sqrt((ranks[0] ** 2).sum(-1) * (ranks[1] ** 2).sum(-1))
    known = (norms > 0) & np.isfinite(x).all(-1) & np.isfinite(y).all(-1)
    if not known.any() or points < 2:
        return _nothing(design)
    x, y = (_tamed(np.where(known[..., None], side, 0.0)) for side in (x, y))
    a, b = ranks[0] / np.where(known, norms, 1)[..., None], ranks[1]
    value = float(np.nanmedian(np.where(known, (a * b).sum(-1), np.nan)))
    null = np.median(null_of_orders(np.einsum("...i,...j->...ij", a, b)[known]), 0)
    slopes = _slopes(x, y)
    sources = [
        reordered(over, value, null, points),
        _of_slopes("seeds", slopes.mean(1)),
        _of_slopes(units, slopes.mean(0)),
    ]
    return _correlation(value, sources, design)


def pooled_correlation(x: Array, y: Array, *, ranks: bool = False, over: str = "points") -> Measured:
    """Return the mean over tables of Pearson's (Spearman's) correlation over all entries of x and y.

    x, y: (rows, points) or (tables, rows, points), of points that have no order, such as models or pairs of modalities:
    each is independent of the others. The entries of a point belong together and are permuted with it, so that they are
    no more than one point where they say the same. ranks: Spearman's. over: the name of the points in the plural.
    """
    x, y = np.broadcast_arrays(x, y)
    design, product = f"pooled {_size(y)}", _product(x, y, ranks=ranks)
    if product is None:
        return _nothing(design)
    value = float(np.trace(product))
    return _correlation(
        value, [reordered(over, value, null_of_orders(product[None])[0], y.shape[-1], ranks=ranks)], design
    )


def pooled_trend(x: Sequence[float], values: Array, *, over: str = "points", units: str = "units") -> Measured:
    """Return the mean over tables of Spearman's correlation of a factor with all entries of the mean over seeds.

    x: (points,) a factor that was set; values: (seeds, tables, units, points). over, units: names in the plural.
    """
    design, place = f"models {_size(values)}", _unit(np.asarray(x, np.float64))
    if not _measurable(values) or place is None:
        return _nothing(design)
    values = _tamed(values)
    mean = values.mean(0)
    product = _product(np.broadcast_to(np.asarray(x, np.float64), mean.shape), mean, ranks=True)
    curves = values.mean(1)  # of seeds and units
    if product is None or _unit(curves.mean((0, 1))) is None:
        return _nothing(design)
    value = float(np.trace(product))
    sources = [
        reordered(over, value, null_of_orders(product[None])[0], values.shape[-1]),
        _of_slopes("seeds", _shares(curves.mean(1), place)),
        _of_slopes(units, _shares(curves.mean(0), place)),
    ]
    return _correlation(value, sources, design)


def curve_correlation(x: Array, y: Array, *, entries: bool = False, over: str = "points") -> Measured:
    """Return Pearson's correlation over ordered points of the mean curves over seeds of x and y (seeds, points).

    Both were measured, so that curves which are merely smooth over the points correlate; their steps do not.
    entries: of all entries rather than of the means. over: the name of the points in the plural.
    """
    design = f"{'entries' if entries else 'curves'} {_size(y)}"
    if not (_measurable(x) and _measurable(y)):
        return _nothing(design)
    x, y = _tamed(x), _tamed(y)
    curves = [side.mean(0, keepdims=True) for side in (x, y)]
    product = _product(*(side[None] for side in ((x, y) if entries else curves)), ranks=False)
    if product is None or any(np.ptp(side) < 1e-12 for side in curves):
        return _nothing(design)
    value = float(np.trace(product))
    sources = [
        reordered(over, value, null_of_orders(product[None])[0], y.shape[1], ranks=False),
        stepwise(over, curves[0][0], curves[1][0]),
        _of_slopes("seeds", _slopes(x[:, None], y[:, None])[:, 0]),
    ]
    return _correlation(value, sources, design)


def grid_correlation(
    rows: Sequence[float], columns: Sequence[float], values: Array, *, names: tuple[str, str] = ("rows", "columns")
) -> Measured:
    """Return Spearman's correlation of row - column with the mean over seeds of values (seeds, rows, columns).

    Rows alone and columns alone must both be better than their permutations: a table that only its columns explain
    does not follow the difference. names: of the rows and the columns in the plural.
    """
    design = f"grid {_size(values)}"
    if not _measurable(values):
        return _nothing(design)
    values = _tamed(values)
    difference = np.subtract.outer(np.asarray(rows, np.float64), np.asarray(columns, np.float64))
    mean = values.mean(0)
    at, heights = (_unit(_ranks(side)) for side in (difference, mean))
    place = _unit(difference)
    if at is None or heights is None or place is None:
        return _nothing(design)
    value = float((at * heights).sum())
    sides = zip(names, (at @ heights.T, at.T @ heights), strict=True)
    # each side's permutation moves fewer points than the table has, whose number says how far the value shrinks
    sources = [reordered(name, value, null_of_orders(product[None])[0], len(product)) for name, product in sides]
    flat = values.reshape(len(values), -1)
    return _correlation(value, [*sources, _of_slopes("seeds", _shares(flat, place.ravel()))], design)


def mean_over_draws(
    values: Array, *, error: float = ERROR, resolution: float | None = None, units: str = "units"
) -> Measured:
    """Return the mean of values (seeds,) or (seeds, units) with its interval, Student's t over each of the two.

    error: of each end of the interval. resolution: the smallest difference that the values could have shown; by default
    the smallest among them, so that values which are all equal leave the interval open. units: their name.
    """
    design = f"mean {_size(values)}"
    if not _measurable(values):
        return _nothing(design, correlation=False)
    unit = unit_of(values)
    table = values.reshape(len(values), -1) / unit
    sources = [repeated("seeds", table.mean(1) * unit, error=error, resolution=resolution)]
    if table.shape[1] > 1:
        sources.append(repeated(units, table.mean(0) * unit, error=error, resolution=resolution))
    value = float(table.mean()) * unit
    low, high = (end(getattr(source, name) for source in sources) for end, name in ((min, "low"), (max, "high")))
    return Measured(value, low, high, design=design, correlation=False, sources=tuple(sources))


def _size(values: Array) -> str:
    return "x".join(map(str, values.shape))


def _measurable(values: Array) -> bool:
    return values.size > 0 and bool(np.isfinite(values).all())


def _tamed(values: Array) -> Array:
    """Return values whose squares are finite: huge ones in another unit, which no correlation depends on."""
    unit = unit_of(values)
    return values if unit == 1 else values / unit


def _ranks(side: Array) -> Array:
    """Return the ranks over all entries; what differs by rounding is tied."""
    ranks: Array = rankdata(side.round(12)).reshape(side.shape)
    return ranks


def _unit(side: Array) -> Array | None:
    """Return a table less its mean, of length 1; None where it is constant or holds a value that is not a number."""
    centred = side - side.mean()
    norm = float(np.linalg.norm(centred))
    return centred / norm if norm > 1e-12 and math.isfinite(norm) else None


def _product(x: Array, y: Array, *, ranks: bool) -> Array | None:
    """Return the mean over tables of the products of x's points with y's (points, points); None of a constant table.

    The trace is the mean correlation over all entries, and a permutation of the columns that of permuted points.
    """
    products = []
    for sides in zip(np.reshape(x, (-1, *y.shape[-2:])), np.reshape(y, (-1, *y.shape[-2:])), strict=True):
        units = [_unit(_ranks(side) if ranks else _tamed(side)) for side in sides]
        if any(unit is None for unit in units):
            return None
        products.append(np.asarray(units[0]).T @ np.asarray(units[1]))
    product: Array = np.mean(products, 0)
    return product


def _slopes(x: Array, y: Array) -> Array:
    """Return the covariances over points of x and y (draws, units, points), in units of both sides' mean deviations.

    Their mean is near the mean correlation. Where every draw has a smooth curve of its own, correlations are near 1 or
    -1, while these are normal.
    """
    a, b = (side - side.mean(-1, keepdims=True) for side in (x, y))
    scale = math.sqrt(float((a * a).sum(-1).mean() * (b * b).sum(-1).mean()))
    slopes: Array = (a * b).sum(-1) / (scale or 1.0)
    return slopes


def _shares(values: Array, place: Array) -> Array:
    """Return each repetition's part of Pearson's correlation of a factor with the mean curve of (repetitions, points).

    place: the factor, centred and of length 1. Their mean is that correlation; a ratio of each curve's own would not be
    normal.
    """
    mean = values.mean(0)
    shares: Array = (values - values.mean(1, keepdims=True)) @ place / float(np.linalg.norm(mean - mean.mean()))
    return shares


def _of_slopes(name: str, slopes: Array) -> Source:
    return repeated(name, slopes, bounds=1.0)


def _correlation(value: float, sources: Sequence[Source], design: str) -> Measured:
    """Return a correlation with the widest of the intervals of its sources."""
    value = min(1.0, max(-1.0, value))
    low = max(-1.0, min(value, *(source.low for source in sources)))
    high = min(1.0, max(value, *(source.high for source in sources)))
    return Measured(value, low, high, design=design, sources=tuple(sources))


def _nothing(design: str, *, correlation: bool = True) -> Measured:
    """Return what is measured where nothing can be."""
    bound = 1.0 if correlation else math.inf
    return Measured(math.nan, -bound, bound, design=design, correlation=correlation)
