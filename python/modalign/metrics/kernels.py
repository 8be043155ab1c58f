"""Alignment of kernel and distance matrices that are formed in tiles, never n x n, or replaced by random features."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.arguments import one_of
from modalign.metrics.moments import OF_MOMENTS, moments
from modalign.neighbors import as_tensor
from modalign.sources import Rows

__all__ = ["Approximate", "rbf_cka", "rbf_cka_of_features", "rsa"]

TILE = 1024  # rows of a tile
SAMPLE = 2000  # rows whose distances give the width of a kernel
DISTANCES, CORRELATIONS = ("correlation", "cosine", "euclidean"), ("spearman", "pearson")
MOST_PAIRS = 60_000_000  # ranked in memory: about 11,000 rows


def rbf_cka(
    x: Any, y: Any, *, sigma: float | tuple[float, float] | None = None, unbiased: bool = True, seed: int = 0
) -> float:
    """CKA of Gaussian kernels, exactly.

        K_ij = exp(-|x_i - x_j|^2 / (2 s^2))      HSIC and CKA of K and L as in ``cka`` and ``unbiased_cka``

    Args:
        x, y: (n, d_x) and (n, d_y), row i of both is the same item; NumPy or torch, floating point.
        sigma: s, in units of the rows; two numbers for x and y; None for the median distance between rows of each, of
            at most 2,000 that ``seed`` draws.
        unbiased: the estimator of Song et al. 2012, without the diagonals; False for the biased one.

    Peak memory: float64 copies of x and y, and tiles of 1,024 x 1,024. Time O(n^2 d); see ``rbf_cka_of_features``.
    Raises: TypeError and ValueError as ``modalign.cka``; ValueError for a sigma that is not positive.
    Source: Kornblith et al. 2019 (arXiv:1905.00414), section 3.

    Example:
        >>> import numpy as np
        >>> from modalign.metrics import rbf_cka
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> round(rbf_cka(x, 3 * x), 12)
        1.0
    """
    tables = _pair("rbf_cka", x, y)
    n = len(tables[0])
    if n < 4:
        raise ValueError(f"rbf_cka: needs at least 4 rows, got {n}")
    scales = [1 / (2 * s * s) for s in _sigmas("rbf_cka", tables, sigma, seed)]
    cross = own = other = torch.zeros((), dtype=torch.float64)
    sums = torch.zeros(2, n, dtype=torch.float64)
    for rows, columns in _tiles(n):
        k, m = (
            torch.cdist(table[rows], table[columns]).square_().mul_(-scale).exp_()
            for table, scale in zip(tables, scales, strict=True)
        )
        twice = 1.0 if rows == columns else 2.0
        if unbiased and rows == columns:
            k.fill_diagonal_(0)
            m.fill_diagonal_(0)
        cross, own, other = cross + twice * (k * m).sum(), own + twice * (k * k).sum(), other + twice * (m * m).sum()
        for side, kernel in enumerate((k, m)):
            sums[side, rows] += kernel.sum(1)
            if rows != columns:
                sums[side, columns] += kernel.sum(0)
    totals, mixed = sums.sum(1), sums @ sums.T

    def hsic(trace: Tensor, a: int, b: int) -> float:
        if unbiased:
            inner = totals[a] * totals[b] / ((n - 1) * (n - 2)) - 2 / (n - 2) * mixed[a, b]
        else:
            inner = totals[a] * totals[b] / n**2 - 2 / n * mixed[a, b]
        return float(trace + inner)

    squares = [hsic(own, 0, 0), hsic(other, 1, 1)]
    for name, square in zip("xy", squares, strict=True):
        if not square > 1e-12 * n:
            raise ValueError(f"rbf_cka: the kernel of {name} does not vary, so its alignment is not defined")
    return hsic(cross, 0, 1) / math.sqrt(squares[0] * squares[1])


@dataclasses.dataclass(frozen=True)
class Approximate:
    """A value and its standard error."""

    value: float
    error: float


def rbf_cka_of_features(
    x: Any, y: Any, *, sigma: float | tuple[float, float] | None = None, features: int = 1024, repeats: int = 8,
    seed: int = 0,
) -> Approximate:  # fmt: skip
    """``rbf_cka`` of any number of rows, from random features of the kernels.

        phi(x) = sqrt(2 / D) (cos W x, sin W x), rows of W normal with variance 1 / s^2:  E <phi(x_i), phi(x_j)> = K_ij

    ``repeats`` sets of features are drawn; the value is the mean of their unbiased CKAs, the error its standard error
    over the sets. x, y, sigma: as in ``rbf_cka``. features: D, an even number. Time O(repeats n D^2), streamed.
    Raises: as ``rbf_cka``. Source: Rahimi and Recht 2007.

    Example:
        >>> import numpy as np
        >>> from modalign.metrics import rbf_cka, rbf_cka_of_features
        >>> x = np.random.default_rng(0).normal(size=(300, 4))
        >>> found = rbf_cka_of_features(x, x[:, :2], features=256)
        >>> abs(found.value - rbf_cka(x, x[:, :2])) < 5 * found.error + 0.02
        True
    """
    tables = _pair("rbf_cka_of_features", x, y)
    if features < 2 or features % 2 or repeats < 2:
        raise ValueError(
            f"rbf_cka_of_features: features must be even and repeats at least 2, got {features} and {repeats}"
        )
    sigmas = _sigmas("rbf_cka_of_features", tables, sigma, seed)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(repeats):
        left, right = (_mapped(table, s, features, generator) for table, s in zip(tables, sigmas, strict=True))
        values.append(OF_MOMENTS["unbiased_cka"](moments(left, right, "rbf_cka_of_features")))
    return Approximate(float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(repeats))


def _mapped(table: Tensor, sigma: float, features: int, generator: torch.Generator) -> Rows:
    weights = torch.randn(table.shape[1], features // 2, generator=generator, dtype=torch.float64) / sigma

    def fetch(start: int, stop: int) -> Tensor:
        angles = table[start:stop] @ weights
        return torch.cat([angles.cos(), angles.sin()], 1) * math.sqrt(2 / features)

    return Rows("features", (len(table), features), torch.float64, fetch, None, 0)


def rsa(
    x: Any, y: Any, *, distance: str = "correlation", correlation: str = "spearman", pairs: int | None = None,
    seed: int = 0,
) -> float:  # fmt: skip
    """Representational similarity analysis: the correlation of all pairwise distances of the two representations.

    Args:
        x, y: (n, d_x) and (n, d_y), row i of both is the same item; NumPy or torch, floating point; n >= 3.
        distance: "correlation" (1 - Pearson's over the features), "cosine" (1 - cosine) or "euclidean".
        correlation: "spearman", of ranks, equal ones at their mean; or "pearson".
        pairs: so many random pairs of different items instead of all n (n - 1) / 2, drawn by ``seed`` with replacement.

    Peak memory: float64 copies of x and y; for all pairs 24 bytes each, which is refused beyond 60,000,000 of them.
    Raises: TypeError and ValueError as ``modalign.cka``; ValueError for a row without direction where the distance
        needs one, distances that are all equal, and too many pairs.
    Source: Kriegeskorte, Mur and Bandettini 2008, doi:10.3389/neuro.06.004.2008.

    Example:
        >>> import numpy as np
        >>> from modalign.metrics import rsa
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(rsa(x, 3 * x, distance="euclidean"), 12)
        1.0
    """
    one_of("rsa", "distance", distance, DISTANCES)
    one_of("rsa", "correlation", correlation, CORRELATIONS)
    tables = _pair("rsa", x, y)
    n = len(tables[0])
    if n < 3:
        raise ValueError(f"rsa: needs at least 3 rows, got {n}")
    count = n * (n - 1) // 2
    if pairs is None and count > MOST_PAIRS:
        raise ValueError(f"rsa: {n:,} rows have {count:,} pairs, too many to rank in memory; give pairs=1_000_000")
    if pairs is not None and pairs < 3:
        raise ValueError(f"rsa: pairs must be at least 3, got {pairs}")
    directed = [_directed(table, name, distance) for table, name in zip(tables, "xy", strict=True)]
    if pairs is None:
        vectors = [torch.cat(list(_distances(table, distance))) for table in directed]
    else:
        generator = torch.Generator().manual_seed(seed)
        one = torch.randint(n, (pairs,), generator=generator)
        two = (one + torch.randint(1, n, (pairs,), generator=generator)) % n
        vectors = [_between(table, one, two, distance) for table in directed]
    if correlation == "spearman":
        from scipy.stats import rankdata

        vectors = [torch.from_numpy(rankdata(vector.numpy())) for vector in vectors]
    centred = [vector - vector.mean() for vector in vectors]
    norms = [float(vector.norm()) for vector in centred]
    for name, norm, vector in zip("xy", norms, vectors, strict=True):
        if not norm > 1e-12 * float(vector.norm()):
            raise ValueError(f"rsa: all distances of {name} are equal, so their correlation is not defined")
    return float(centred[0] @ centred[1]) / (norms[0] * norms[1])


def _directed(table: Tensor, name: str, distance: str) -> Tensor:
    if distance == "euclidean":
        return table
    rows = table - table.mean(1, keepdim=True) if distance == "correlation" else table
    norms = rows.norm(dim=1, keepdim=True)
    bad = (norms[:, 0] <= 1e-14 * table.norm(dim=1)).nonzero()[:, 0]
    if len(bad):
        raise ValueError(
            f"rsa: distance={distance!r} needs rows that vary, got constant ones {bad[:3].tolist()} in {name}"
        )
    unit: Tensor = rows / norms
    return unit


def _between(table: Tensor, one: Tensor, two: Tensor, distance: str) -> Tensor:
    if distance == "euclidean":
        return (table[one] - table[two]).norm(dim=1)
    distances: Tensor = 1 - (table[one] * table[two]).sum(1)
    return distances


def _distances(table: Tensor, distance: str) -> Iterator[Tensor]:
    """The upper triangle, row by row of tiles."""
    n = len(table)
    for start in range(0, n, TILE):
        rows = table[start : start + TILE]
        if distance == "euclidean":  # not by products, which would part equal distances
            tile = torch.cdist(rows, table[start:], compute_mode="donot_use_mm_for_euclid_dist")
        else:
            tile = 1 - rows @ table[start:].T
        above = torch.ones(tile.shape, dtype=torch.bool).triu(1)
        yield tile[above]


def _tiles(n: int) -> Iterator[tuple[slice, slice]]:
    """Those on the diagonal and above."""
    starts = range(0, n, TILE)
    return ((slice(i, i + TILE), slice(j, j + TILE)) for i in starts for j in starts if j >= i)


def _sigmas(operation: str, tables: list[Tensor], sigma: float | tuple[float, float] | None, seed: int) -> list[float]:
    if sigma is not None:
        given = [float(s) for s in (sigma if isinstance(sigma, tuple) else (sigma, sigma))]
        if len(given) != 2 or not all(0 < s < math.inf for s in given):
            raise ValueError(f"{operation}: sigma must be a positive number or two, got {sigma}")
        return given
    rows = torch.randperm(len(tables[0]), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    medians = [float(torch.pdist(table[rows]).median()) for table in tables]
    for name, median in zip("xy", medians, strict=True):
        if not median > 0:
            raise ValueError(f"{operation}: more than half of the distances of {name} are 0; give sigma")
    return medians


def _pair(operation: str, x: Any, y: Any) -> list[Tensor]:
    tables = [as_tensor(operation, name, rows).cpu().double() for name, rows in (("x", x), ("y", y))]
    if len(tables[0]) != len(tables[1]):
        raise ValueError(
            f"{operation}: x and y must be (n, d_x) and (n, d_y), row i of both the same item, "
            f"got {tuple(tables[0].shape)} and {tuple(tables[1].shape)}"
        )
    return [table - table.mean(0) for table in tables] if operation != "rsa" else tables
