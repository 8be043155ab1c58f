"""Alignment of kernel and distance matrices that are formed in tiles, never n x n, or replaced by random features."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import one_of, require_same_items
from modalign.metrics.inputs import PairedRows
from modalign.neighbors.functional import as_tensor

__all__ = ["Approximate", "rbf_cka", "rbf_cka_of_features", "rsa"]

TILE = 1024  # rows of a tile
SAMPLE = 2000  # rows whose distances give the width of a kernel
DISTANCES, CORRELATIONS = ("correlation", "cosine", "euclidean"), ("spearman", "pearson")
MOST_PAIRS = 60_000_000  # ranked in memory: about 11,000 rows
GATHERED = 1 << 20  # values of the pairs whose distances are taken one by one at a time
LEAST = 1e-11  # of an HSIC beside the sum it is left of: less is rounding
TIED = 1e-12  # distances nearer to each other than this share of the largest are equal


def rbf_cka(
    x: Any, y: Any, *, sigma: float | tuple[float, float] | None = None, unbiased: bool = True, seed: int = 0
) -> float:
    """CKA of Gaussian kernels, exactly.

        K_ij = exp(-|x_i - x_j|^2 / (2 s^2))      HSIC and CKA of K and L as in ``cka`` and ``unbiased_cka``

    For a wide kernel it tends to linear CKA.

    Args:
        x, y: (n, d_x) and (n, d_y), row i of both is the same item; NumPy or torch, floating point; n >= 4.
        sigma: s, in units of the rows; two numbers for x and y; None for the median distance between rows of each, of
            at most 2,000 that ``seed`` draws.
        unbiased: the estimator of Song et al. 2012, without the diagonals; False for the biased one.

    Peak memory: float64 copies of x and y twice, and tiles of 1,024 x 1,024. Time O(n^2 d), a tile above the diagonal
    serving both halves; see ``rbf_cka_of_features``.
    Raises: TypeError and ValueError as ``modalign.cka``; ValueError for a sigma that is not positive, and for kernels
        that do not vary.
    Source: Kornblith et al. 2019 (arXiv:1905.00414), section 3.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import rbf_cka
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> round(rbf_cka(x, 3 * x), 12)
        1.0
    """
    tables = _pair("rbf_cka", x, y, 4)
    n = len(tables[0])
    sigmas = _sigmas("rbf_cka", tables, sigma, seed)
    sides = [Gaussian(table, s) for table, s in zip(tables, sigmas, strict=True)]
    sums = torch.zeros(2, n, dtype=torch.float64)
    traces = torch.zeros(3, dtype=torch.float64)
    for rows, columns in tiles(n):
        kernels = []
        for side, gaussian in enumerate(sides):
            tile = gaussian.tile(rows, columns)
            if unbiased and rows == columns:
                tile.fill_diagonal_(0)
            kernels.append(tile)
            sums[side, rows] += tile.sum(1)
            if rows != columns:
                sums[side, columns] += tile.sum(0)
        k, m = kernels
        traces += (1 if rows == columns else 2) * torch.stack([(k * m).sum(), k.square_().sum(), m.square_().sum()])
    totals, mixed = sums.sum(1), sums @ sums.T

    def hsic(trace: Tensor, a: int, b: int) -> float:
        if unbiased:
            return float(trace + totals[a] * totals[b] / ((n - 1) * (n - 2)) - 2 / (n - 2) * mixed[a, b])
        return float(trace + totals[a] * totals[b] / n**2 - 2 / n * mixed[a, b])

    own = [hsic(traces[1 + side], side, side) for side in (0, 1)]
    for side, name in enumerate("xy"):
        if not own[side] > LEAST * float(traces[1 + side]):
            raise ValueError(f"rbf_cka: the kernel of {name} does not vary, so its alignment is not defined")
    return hsic(traces[0], 0, 1) / (math.sqrt(own[0]) * math.sqrt(own[1]))


def rbf_cka_of_rows(rows: PairedRows) -> float:
    """Evaluate ``rbf_cka`` for the registry."""
    return rbf_cka(rows.x, rows.y)


class Gaussian:
    """The kernel of a table's rows, tile by tile; or the kernel less 1, which has the same HSIC, where it is nearly 1
    everywhere and would lose its digits."""

    def __init__(self, table: Tensor, sigma: float) -> None:
        self.rows = _centred(table, sigma)
        self.squares = self.rows.square().sum(1)
        self.wide = float(self.squares.mean()) < 1

    def tile(self, rows: slice, columns: slice) -> Tensor:
        tile = self.squares[rows, None] + self.squares[columns]
        tile.sub_(self.rows[rows] @ self.rows[columns].T, alpha=2)
        if rows == columns:
            tile.fill_diagonal_(0)
        tile.clamp_min_(0).mul_(-0.5)
        return tile.expm1_() if self.wide else tile.exp_()


def gaussians(x: Any, y: Any, seed: int = 0) -> list[Gaussian]:
    """The kernels of ``rbf_cka`` with the widths it has by default."""
    tables = _pair("rbf_cka", x, y, 4)
    return [Gaussian(table, s) for table, s in zip(tables, _sigmas("rbf_cka", tables, None, seed), strict=True)]


@dataclasses.dataclass(frozen=True)
class Approximate:
    """A value and its standard error."""

    value: float
    error: float


def rbf_cka_of_features(
    x: Any, y: Any, *, sigma: float | tuple[float, float] | None = None, features: int = 256, repeats: int = 8,
    seed: int = 0,
) -> Approximate:  # fmt: skip
    """The unbiased ``rbf_cka`` of any number of rows, from random features of the kernels, with its standard error.

        phi(x) = sqrt(2 / D) (cos W x, sin W x), rows of W normal with variance 1 / s^2:  E <phi(x_i), phi(x_j)> = K_ij

    ``repeats`` independent sets of features are drawn for each kernel. Sets are only put together with others,

        CKA = mean_ab HSIC(K_a, L_b) / sqrt(mean_{a != b} HSIC(K_a, K_b) mean_{a != b} HSIC(L_a, L_b)),

    so that each mean is unbiased: the square of one set's kernel would count its noise as alignment with itself. The
    error is that of the jackknife over the sets; it is of the features alone and falls as 1 / sqrt(repeats D).

    Args:
        x, y, sigma: as in ``rbf_cka``.
        features: D, even. repeats: 3 sets or more. seed: of the features and of the rows that give the widths.

    Peak memory: 8 (repeats D)^2 bytes four times, and blocks of 16 MB; x and y are read in blocks.
    Time O(n (repeats D)^2).
    Raises: as ``rbf_cka``; ValueError for too few features to tell a kernel from noise.
    Source: Rahimi and Recht 2007, "Random features for large-scale kernel machines"; Song et al. 2012 for HSIC.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import rbf_cka, rbf_cka_of_features
        >>> x = np.random.default_rng(0).normal(size=(300, 4))
        >>> found = rbf_cka_of_features(x, x[:, :2])
        >>> abs(found.value - rbf_cka(x, x[:, :2])) < 4 * found.error
        True
    """
    tables = _pair("rbf_cka_of_features", x, y, 4)
    for name, number, least in (("features", features, 2), ("repeats", repeats, 3)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"rbf_cka_of_features: {name} must be an integer, got {number!r}")
        if number < least or (name == "features" and number % 2):
            wanted = "even and at least 2" if name == "features" else "at least 3"
            raise ValueError(f"rbf_cka_of_features: {name} must be {wanted}, got {number}")
    sigmas = _sigmas("rbf_cka_of_features", tables, sigma, seed)
    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.randn(table.shape[1], repeats * features // 2, generator=generator, dtype=torch.float64)
        for table in tables
    ]
    hsic = _hsic_of_features(tables, sigmas, weights, int(repeats))
    value = _ratio_of_sets(hsic, torch.arange(repeats))
    without = [_ratio_of_sets(hsic, torch.arange(repeats) != one) for one in range(repeats)]
    if value is None or None in without:
        raise ValueError(
            f"rbf_cka_of_features: {repeats} sets of {features} features cannot tell the kernels of x and y from "
            "kernels that do not vary; give more features, or another sigma"
        )
    error = math.sqrt((repeats - 1) * float(np.var(np.array(without, dtype=np.float64))))
    return Approximate(value, error)


def _hsic_of_features(tables: list[Tensor], sigmas: list[float], weights: list[Tensor], sets: int) -> Tensor:
    """HSIC_1, times n (n - 3), of the kernels of each two sets: [3, sets, sets] for x with x, y with y, x with y."""
    n, width = len(tables[0]), weights[0].shape[1]
    size = 2 * width // sets
    # differences are all that counts, and keep their digits near the rows
    centres = [table[:SAMPLE].double().mean(0) for table in tables]
    products = torch.zeros(3, 2 * width, 2 * width, dtype=torch.float64)
    sums = torch.zeros(2, 2 * width, dtype=torch.float64)
    step = max(64, (1 << 20) // width)
    for start in range(0, n, step):
        both = []
        for table, centre, sigma, weight in zip(tables, centres, sigmas, weights, strict=True):
            angles = ((table[start : start + step].double() - centre) / sigma) @ weight
            waves = torch.stack([angles.cos(), angles.sin()], 2)  # a set's cosines and sines side by side
            both.append(waves.flatten(1) * math.sqrt(2 / size))
        one, two = both
        sums += torch.stack([one.sum(0), two.sum(0)])
        for product, (left, right) in zip(products, ((one, one), (two, two), (one, two)), strict=True):
            product.addmm_(left.T, right)
    sums = sums.reshape(2, sets, size)
    found = []
    for product, left, right in zip(products, sums[[0, 1, 0]], sums[[0, 1, 1]], strict=True):
        blocks = product.reshape(sets, size, sets, size)
        # every K_ii is 1 and is left out
        trace = blocks.square().sum((1, 3)) - n
        ones = [side.square().sum(1) for side in (left, right)]
        mixed = torch.einsum("ap,apbq,bq->ab", left, blocks, right) - ones[0][:, None] - ones[1] + n
        totals = (ones[0] - n)[:, None] * (ones[1] - n)
        value = trace + totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * mixed
        found.append(torch.where(value.abs() > LEAST * trace.abs(), value, 0.0))
    return torch.stack(found)


def _ratio_of_sets(hsic: Tensor, kept: Tensor) -> float | None:
    """CKA of some of the sets, or None where an HSIC of a kernel with itself is not positive."""
    of_x, of_y, cross = (table[kept][:, kept] for table in hsic)
    others = ~torch.eye(len(cross), dtype=torch.bool)
    own = float(of_x[others].mean()), float(of_y[others].mean())
    return float(cross.mean()) / (math.sqrt(own[0]) * math.sqrt(own[1])) if own[0] > 0 and own[1] > 0 else None


def rsa(
    x: Any, y: Any, *, distance: str = "correlation", correlation: str = "spearman", pairs: int | None = None,
    seed: int = 0,
) -> float:  # fmt: skip
    """Representational similarity analysis: the correlation of all pairwise distances of the two representations.

    Args:
        x, y: (n, d_x) and (n, d_y), row i of both is the same item; NumPy or torch, floating point; n >= 3.
        distance: "correlation" (1 - Pearson's over the features), "cosine" (1 - cosine) or "euclidean".
        correlation: "spearman", of ranks, equal ones at their mean, where distances that differ by less than 1e-12 of
            the largest are equal (rounding parts them), and correlations and cosines that differ by less than
            1e-15 sqrt(d); or "pearson".
        pairs: so many random pairs of different items instead of all n (n - 1) / 2, drawn by ``seed`` with replacement.
            Of M pairs, the value is within about 2 / sqrt(M) of that of all.

    Peak memory: float64 copies of x and y, twice while they are made, and tiles; for ranks 48 bytes a pair too, which
    is refused beyond 60,000,000 of them (about 11,000 rows). Time O(n^2 d + n^2 log n).
    Raises: TypeError and ValueError as ``modalign.cka``; ValueError for a row without direction where the distance
        needs one, distances that are all equal, and too many pairs.
    Source: Kriegeskorte, Mur and Bandettini 2008, doi:10.3389/neuro.06.004.2008.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import rsa
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(rsa(x, 3 * x, distance="euclidean"), 12)
        1.0
    """
    one_of("rsa", "distance", distance, DISTANCES)
    one_of("rsa", "correlation", correlation, CORRELATIONS)
    if pairs is not None and (isinstance(pairs, bool) or not isinstance(pairs, (int, np.integer))):
        raise TypeError(f"rsa: pairs must be an integer or None, got {pairs!r}")
    if pairs is not None and pairs < 3:
        raise ValueError(f"rsa: pairs must be at least 3, got {pairs}")
    tables = _pair("rsa", x, y, 3)
    n = len(tables[0])
    count = n * (n - 1) // 2 if pairs is None else int(pairs)
    if correlation == "spearman" and count > MOST_PAIRS:
        came = f"{n:,} rows have {count:,} pairs" if pairs is None else f"pairs is {count:,}"
        raise ValueError(f"rsa: {came}, too many to rank in memory; give pairs=1_000_000")
    rows = [_directed(table, name, distance) for table, name in zip(tables, "xy", strict=True)]
    parts = _all_distances(rows, distance) if pairs is None else _distances_of_pairs(rows, distance, int(pairs), seed)
    doubts = [_doubt(table, distance) for table in rows]
    if correlation == "spearman":
        ranks = _ranked(parts, count, doubts)
        parts = ((ranks[0, start : start + TILE * TILE], ranks[1, start : start + TILE * TILE])
                 for start in range(0, count, TILE * TILE))  # fmt: skip
        doubts = [0.0, 0.0]
    return _correlation(parts, doubts)


def rsa_of_rows(rows: PairedRows) -> float:
    """Evaluate ``rsa`` for the registry."""
    return rsa(rows.x, rows.y)


def distance_ranks(x: Any, y: Any) -> Tensor:
    """(2, n (n - 1) / 2): the ranks that ``rsa`` correlates by default, of the pairs above the diagonal in the order of
    ``tiles``."""
    tables = _pair("rsa", x, y, 3)
    n = len(tables[0])
    rows = [_directed(table, name, "correlation") for table, name in zip(tables, "xy", strict=True)]
    return _ranked(
        _all_distances(rows, "correlation"), n * (n - 1) // 2, [_doubt(table, "correlation") for table in rows]
    )


def _doubt(table: Tensor, distance: str) -> float:
    """What 1 - <u, v> may be off by: a length, which is not the difference of larger numbers, only by its own share."""
    return 0.0 if distance == "euclidean" else 1e-15 * math.sqrt(table.shape[1])


def _ranked(parts: Iterator[tuple[Tensor, Tensor]], count: int, doubts: list[float]) -> Tensor:
    ranks = torch.empty(2, count, dtype=torch.float64)
    at = 0
    for one, two in parts:
        ranks[0, at : at + len(one)], ranks[1, at : at + len(one)] = one, two
        at += len(one)
    for vector, doubt in zip(ranks, doubts, strict=True):
        _rank(vector, doubt)
    return ranks


def _correlation(parts: Iterator[tuple[Tensor, Tensor]], doubts: list[float]) -> float:
    """Pearson's, from sums of what is left after the first part's means. doubts: what numbers may be off by."""
    count, shifts = 0, torch.zeros(2, 1, dtype=torch.float64)
    sums, products, largest = (torch.zeros(shape, dtype=torch.float64) for shape in ((2,), (2, 2), (2,)))
    for part in parts:
        both = torch.stack(part)
        largest = torch.maximum(largest, both.abs().amax(1))
        if count == 0:
            shifts = both.mean(1, keepdim=True)
        both -= shifts
        sums += both.sum(1)
        products += both @ both.T
        count += both.shape[1]
    products -= sums[:, None] * sums / count
    for name, square, size, doubt in zip("xy", products.diagonal().tolist(), largest.tolist(), doubts, strict=True):
        if not square > count * max(TIED * size, doubt) ** 2:
            raise ValueError(f"rsa: all distances of {name} are equal, so their correlation is not defined")
    found = products[0, 1] / products[0, 0].sqrt() / products[1, 1].sqrt()
    return float(found)


def _rank(values: Tensor, doubt: float) -> None:
    """Ranks from 1 in the place of the values, equal ones at their mean."""
    ordered, order = values.sort()
    starts = torch.ones(len(values) + 1, dtype=torch.bool)
    torch.gt(ordered[1:] - ordered[:-1], max(TIED * float(values.abs().max()), doubt), out=starts[1:-1])
    del ordered
    bounds = starts.nonzero()[:, 0]
    for start in range(0, len(bounds) - 1, TILE * TILE):
        part = bounds[start : start + TILE * TILE + 1]
        middles = (part[:-1] + part[1:] + 1).double() / 2
        values[order[part[0] : part[-1]]] = middles.repeat_interleave(part.diff())


def _directed(table: Tensor, name: str, distance: str) -> Tensor:
    """Rows of which the distance is 1 less a product, or centred rows."""
    rows = table.double()
    if distance == "euclidean":
        return _centred(_scaled(rows, rows.abs().max()), 1.0)
    rows = _scaled(rows, rows.abs().amax(1, keepdim=True))
    norms = rows.norm(dim=1, keepdim=True)
    if distance == "correlation":
        rows = rows - rows.mean(1, keepdim=True)
    left = rows.norm(dim=1, keepdim=True)
    bad = (left <= 1e-14 * norms).nonzero()[:, 0]
    if len(bad):
        wanted = "rows that vary, got constant ones" if distance == "correlation" else "rows, got zero ones"
        raise ValueError(f"rsa: distance={distance!r} needs {wanted} {bad[:3].tolist()} in {name}")
    unit: Tensor = rows / left
    return unit


def _between(table: Tensor, one: Tensor, two: Tensor, distance: str) -> Tensor:
    step = max(1, GATHERED // table.shape[1])
    found = torch.empty(len(one), dtype=torch.float64)
    for start in range(0, len(one), step):
        a, b = table[one[start : start + step]], table[two[start : start + step]]
        found[start : start + step] = (a - b).norm(dim=1) if distance == "euclidean" else 1 - (a * b).sum(1)
    return found


def _distances_of_pairs(
    tables: list[Tensor], distance: str, pairs: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    n = len(tables[0])
    for start in range(0, pairs, TILE * TILE):
        size = min(TILE * TILE, pairs - start)
        one = torch.randint(n, (size,), generator=generator)
        two = (one + torch.randint(1, n, (size,), generator=generator)) % n
        yield _between(tables[0], one, two, distance), _between(tables[1], one, two, distance)


def _all_distances(tables: list[Tensor], distance: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Of the pairs above the diagonal, tile by tile."""
    squares = [table.square().sum(1) for table in tables]
    for rows, columns in tiles(len(tables[0])):
        found = []
        for table, square in zip(tables, squares, strict=True):
            tile = table[rows] @ table[columns].T
            if distance == "euclidean":
                lengths = square[rows, None] + square[columns]
                tile = torch.sub(lengths, tile, alpha=2)
                # products lose the digits of what is near
                one, two = (tile < 0.05 * lengths).nonzero(as_tuple=True)
                tile.clamp_min_(0).sqrt_()
                tile[one, two] = _between(table, one + rows.start, two + columns.start, distance)
            else:
                tile = 1 - tile
            found.append(tile[torch.ones(tile.shape, dtype=torch.bool).triu(1)] if rows == columns else tile.flatten())
        yield found[0], found[1]


def tiles(n: int) -> Iterator[tuple[slice, slice]]:
    """Those on the diagonal and above."""
    blocks = [slice(start, min(start + TILE, n)) for start in range(0, n, TILE)]
    return ((rows, columns) for i, rows in enumerate(blocks) for columns in blocks[i:])


def _sigmas(operation: str, tables: list[Tensor], sigma: float | tuple[float, float] | None, seed: int) -> list[float]:
    if sigma is not None:
        given = list(sigma) if isinstance(sigma, (tuple, list)) else [sigma, sigma]
        numbers = all(isinstance(s, (int, float, np.integer, np.floating)) and not isinstance(s, bool) for s in given)
        if len(given) != 2 or not numbers or not all(0 < s < math.inf for s in given):
            raise ValueError(f"{operation}: sigma must be a positive number or two, got {sigma!r}")
        return [float(s) for s in given]
    drawn = torch.randperm(len(tables[0]), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    medians = []
    for table, name in zip(tables, "xy", strict=True):
        rows = table[drawn].double()
        largest = rows.abs().max()
        median = float(torch.pdist(_scaled(rows, largest)).median())
        if not median > 0:
            raise ValueError(f"{operation}: more than half of the distances of {name} are 0; give sigma")
        medians.append(math.ldexp(median, int(torch.frexp(largest).exponent)))
    return medians


def _scaled(rows: Tensor, largest: Tensor) -> Tensor:
    """Rows over the power of two above their largest value, whose squares stay within float64."""
    exponents = torch.frexp(largest).exponent
    # in two steps: 2^1074 is no float64
    return rows.ldexp(-(exponents // 2)).ldexp(exponents // 2 - exponents)


def _centred(table: Tensor, sigma: float) -> Tensor:
    """(x - mean) / sigma in float64; distances do not change, and lose fewer digits."""
    rows = table.double() / sigma
    return rows - rows.mean(0)


def _pair(operation: str, x: Any, y: Any, least: int) -> list[Tensor]:
    tables = [as_tensor(operation, name, rows).cpu() for name, rows in (("x", x), ("y", y))]
    require_same_items(operation, tuple(tables[0].shape), tuple(tables[1].shape))
    if len(tables[0]) < least:
        raise ValueError(f"{operation}: needs at least {least} rows, got {len(tables[0])}")
    return tables
