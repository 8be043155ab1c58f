"""Representational similarity analysis: the correlation of pairwise distances, in tiles that are never n x n."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from modalign.common.checks import one_of, torch_seed, whole_number
from modalign.common.types import Array
from modalign.metrics.inputs import PairedRows
from modalign.metrics.tiles import paired_tables, scaled_down, triangle_tiles
from modalign.metrics.undefined import UndefinedScoreError

__all__ = ["distance_ranks", "rsa", "rsa_of_rows"]

DISTANCES, CORRELATIONS = ("correlation", "cosine", "euclidean"), ("spearman", "pearson")
MOST_PAIRS = 60_000_000  # ranked in memory: about 11,000 rows
CHUNK = 1 << 20  # distances that are drawn, correlated or replaced by ranks at a time
GATHERED = 1 << 20  # values of the rows whose distances are computed pair by pair at a time
TIED = 1e-12  # distances that differ by less than this share of the largest are equal

Distances: TypeAlias = Iterator[tuple[Tensor, Tensor]]  # of the same pairs in x and in y, chunk by chunk


def rsa(
    x: Array,
    y: Array,
    *,
    distance: str = "correlation",
    correlation: str = "spearman",
    pairs: int | None = None,
    seed: int = 0,
) -> float:
    """Return the correlation of all pairwise distances of two representations (representational similarity analysis).

    Args:
        x: (n, d_x), NumPy array or tensor, floating point, n >= 3.
        y: (n, d_y), row i is the same item as row i of x.
        distance: "correlation" (1 - Pearson's over the features), "cosine" (1 - cosine) or "euclidean".
        correlation: "spearman" or "pearson". Spearman's gives equal distances their mean rank; distances count as equal
            if they differ by less than 1e-12 of the largest, and correlations and cosines if they differ by less than
            1e-15 sqrt(d), because rounding alone parts them by that much.
        pairs: The number M of random pairs of different items to use in place of all n (n - 1) / 2, drawn with
            replacement; the value is within about 2 / sqrt(M) of that of all pairs. None for all.
        seed: Seed of the random pairs.

    Returns:
        The correlation, from -1 to 1. Time is O(n^2 d + n^2 log n). Peak memory is that of float64 copies of x and y,
        twice while they are made, and tiles; Spearman's takes 48 bytes a pair too, and is refused beyond 60,000,000
        pairs (about 11,000 rows).

    Raises:
        TypeError: As ``modalign.cka``, and for a number of pairs that is not an integer.
        ValueError: As ``modalign.cka``, and for a row without direction where the distance needs one, for distances
            that are all equal, and for too many pairs.

    Source:
        Kriegeskorte, Mur and Bandettini 2008, doi:10.3389/neuro.06.004.2008.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import rsa
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(rsa(x, 3 * x, distance="euclidean"), 12)
        1.0
    """
    one_of("rsa", "distance", distance, DISTANCES)
    one_of("rsa", "correlation", correlation, CORRELATIONS)
    seed = torch_seed("rsa", seed)
    if pairs is not None:
        pairs = whole_number("rsa", "pairs", pairs, least=3)
    tables = paired_tables("rsa", x, y, 3)
    n = len(tables[0])
    count = n * (n - 1) // 2 if pairs is None else pairs
    if correlation == "spearman" and count > MOST_PAIRS:
        came = f"{n:,} rows have {count:,} pairs" if pairs is None else f"pairs is {count:,}"
        raise ValueError(f"rsa: {came}, too many to rank in memory; give pairs=1_000_000")
    sides = _sides(tables, distance)
    chunks = _all_distances(sides) if pairs is None else _sampled_distances(sides, pairs, seed)
    roundings = [side.rounding for side in sides]
    if correlation == "spearman":
        ranks = _ranked(chunks, count, roundings)
        chunks = ((ranks[0, at : at + CHUNK], ranks[1, at : at + CHUNK]) for at in range(0, count, CHUNK))
        roundings = [0.0, 0.0]
    return _correlation(chunks, roundings)


def rsa_of_rows(rows: PairedRows) -> float:
    """Evaluate ``rsa`` for the registry."""
    return rsa(rows.x, rows.y)


def distance_ranks(x: Array, y: Array) -> Tensor:
    """Return the ranks that ``rsa`` correlates by default: (2, n (n - 1) / 2) float64.

    The pairs are those above the diagonal, in the order of ``triangle_tiles``.
    """
    sides = _sides(paired_tables("rsa", x, y, 3), "correlation")
    n = len(sides[0].table)
    return _ranked(_all_distances(sides), n * (n - 1) // 2, [side.rounding for side in sides])


@dataclasses.dataclass(frozen=True, eq=False)
class _Side:
    """One representation, prepared so that its distance is 1 - <u, v>, or |u - v| where it is Euclidean.

    Attributes:
        name: "x" or "y", for error messages.
        table: (n, d) float64.
        distance: One of ``DISTANCES``.
    """

    name: str
    table: Tensor
    distance: str

    @property
    def rounding(self) -> float:
        """Bound on the rounding error of 1 - <u, v>; 0 for lengths, whose error is a share of their own size."""
        return 0.0 if self.distance == "euclidean" else 1e-15 * math.sqrt(self.table.shape[1])

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the distances (m,) of rows ``left`` and rows ``right``, computed pair by pair."""
        step = max(1, GATHERED // self.table.shape[1])
        values = torch.empty(len(left), dtype=torch.float64)
        for start in range(0, len(left), step):
            u, v = self.table[left[start : start + step]], self.table[right[start : start + step]]
            length = self.distance == "euclidean"
            values[start : start + step] = (u - v).norm(dim=1) if length else 1 - (u * v).sum(1)
        return values

    def tile(self, rows: slice, columns: slice, squares: Tensor) -> Tensor:
        """Return the distances of some rows to others; ``squares`` are the squared lengths of all rows."""
        tile = self.table[rows] @ self.table[columns].T
        if self.distance != "euclidean":
            return 1 - tile
        lengths = squares[rows, None] + squares[columns]
        tile = torch.sub(lengths, tile, alpha=2)
        # differences of products lose the digits of short distances, which are computed again
        near = (tile < 0.05 * lengths).nonzero(as_tuple=True)
        tile.clamp_min_(0).sqrt_()
        tile[near] = self.between(near[0] + rows.start, near[1] + columns.start)
        return tile


def _sides(tables: tuple[Tensor, Tensor], distance: str) -> list[_Side]:
    return [_Side(name, _prepared(table, name, distance), distance) for name, table in zip("xy", tables, strict=True)]


def _prepared(table: Tensor, name: str, distance: str) -> Tensor:
    """Return centred rows for Euclidean distances, and rows of length 1 for the others."""
    rows = table.double()
    if distance == "euclidean":
        rows = scaled_down(rows, torch.frexp(rows.abs().max()).exponent)
        return rows - rows.mean(0)
    rows = scaled_down(rows, torch.frexp(rows.abs().amax(1, keepdim=True)).exponent)
    lengths = rows.norm(dim=1, keepdim=True)
    if distance == "correlation":
        rows = rows - rows.mean(1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    bad = (norms <= 1e-14 * lengths).nonzero()[:, 0]
    if len(bad):
        wanted = "rows that vary, got constant ones" if distance == "correlation" else "rows, got zero ones"
        raise ValueError(f"rsa: distance={distance!r} needs {wanted} {bad[:3].tolist()} in {name}")
    unit: Tensor = rows / norms
    return unit


def _sampled_distances(sides: list[_Side], pairs: int, seed: int) -> Distances:
    """Yield the distances of random pairs of different items."""
    generator = torch.Generator().manual_seed(seed)
    n = len(sides[0].table)
    for start in range(0, pairs, CHUNK):
        size = min(CHUNK, pairs - start)
        left = torch.randint(n, (size,), generator=generator)
        right = (left + torch.randint(1, n, (size,), generator=generator)) % n
        yield sides[0].between(left, right), sides[1].between(left, right)


def _all_distances(sides: list[_Side]) -> Distances:
    """Yield the distances of the pairs above the diagonal, tile by tile."""
    squares = [side.table.square().sum(1) for side in sides]
    for rows, columns in triangle_tiles(len(sides[0].table)):
        chunk = []
        for side, square in zip(sides, squares, strict=True):
            tile = side.tile(rows, columns, square)
            above = torch.ones(tile.shape, dtype=torch.bool).triu(1) if rows == columns else None
            chunk.append(tile.flatten() if above is None else tile[above])
        yield chunk[0], chunk[1]


def _ranked(chunks: Distances, count: int, roundings: list[float]) -> Tensor:
    """Return the ranks of all ``count`` distances in x and in y, (2, count) float64."""
    ranks = torch.empty(2, count, dtype=torch.float64)
    start = 0
    for left, right in chunks:
        stop = start + len(left)
        ranks[0, start:stop], ranks[1, start:stop] = left, right
        start = stop
    for values, rounding in zip(ranks, roundings, strict=True):
        _replace_by_ranks(values, rounding)
    return ranks


def _replace_by_ranks(values: Tensor, rounding: float) -> None:
    """Overwrite values by their ranks from 1, equal ones by their mean rank."""
    ordered, order = values.sort()
    starts = torch.ones(len(values) + 1, dtype=torch.bool)
    torch.gt(ordered[1:] - ordered[:-1], max(TIED * float(values.abs().max()), rounding), out=starts[1:-1])
    del ordered
    bounds = starts.nonzero()[:, 0]
    for start in range(0, len(bounds) - 1, CHUNK):
        part = bounds[start : start + CHUNK + 1]
        middles = (part[:-1] + part[1:] + 1).double() / 2
        values[order[part[0] : part[-1]]] = middles.repeat_interleave(part.diff())


def _correlation(chunks: Distances, roundings: list[float]) -> float:
    """Return Pearson's correlation, from sums of differences from the means of the first chunk.

    Args:
        chunks: The values of x and y, chunk by chunk.
        roundings: Bounds on the rounding errors of the values of x and of y.
    """
    count, shifts = 0, torch.zeros(2, 1, dtype=torch.float64)
    sums, products, largest = (torch.zeros(shape, dtype=torch.float64) for shape in ((2,), (2, 2), (2,)))
    for chunk in chunks:
        both = torch.stack(chunk)
        largest = torch.maximum(largest, both.abs().amax(1))
        if count == 0:
            shifts = both.mean(1, keepdim=True)
        both -= shifts
        sums += both.sum(1)
        products += both @ both.T
        count += both.shape[1]
    products -= sums[:, None] * sums / count
    squares = products.diagonal().tolist()
    for name, square, size, rounding in zip("xy", squares, largest.tolist(), roundings, strict=True):
        if not square > count * max(TIED * size, rounding) ** 2:
            raise UndefinedScoreError(f"rsa: all distances of {name} are equal, so their correlation is not defined")
    return float(products[0, 1] / products[0, 0].sqrt() / products[1, 1].sqrt())
