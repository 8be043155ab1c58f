"""CKA of Gaussian kernels: exactly, in tiles that are never n x n, or from random features for any number of rows."""

from __future__ import annotations

import dataclasses
import math
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import torch_seed, whole_number
from modalign.common.types import Array
from modalign.metrics.inputs import PairedRows
from modalign.metrics.tiles import paired_tables, scaled_down, triangle_tiles
from modalign.metrics.undefined import UndefinedScoreError

__all__ = ["Approximate", "Gaussian", "gaussians", "rbf_cka", "rbf_cka_of_features", "rbf_cka_of_rows"]

SAMPLE = 2000  # rows whose distances give the width of a kernel
LEAST = 1e-11  # an HSIC below this share of the sum it is a difference of is rounding

Tables: TypeAlias = tuple[Tensor, Tensor]
Widths: TypeAlias = float | tuple[float, float] | None


def rbf_cka(x: Array, y: Array, *, sigma: Widths = None, unbiased: bool = True, seed: int = 0) -> float:
    """Return the CKA of Gaussian kernels, computed exactly.

        K_ij = exp(-|x_i - x_j|^2 / (2 s^2))      HSIC and CKA of K and L as in ``cka`` and ``unbiased_cka``

    For a wide kernel it tends to linear CKA.

    Args:
        x: (n, d_x), NumPy array or tensor, floating point, n >= 4.
        y: (n, d_y), row i is the same item as row i of x.
        sigma: The width s in units of the rows; two numbers for x and y; or None for the median distance between rows
            of each, of at most 2,000 rows that ``seed`` draws.
        unbiased: Whether to use the estimator of Song et al. 2012, which leaves the diagonals out, or the biased one.
        seed: Seed of the rows that give the widths.

    Returns:
        The CKA; the unbiased one can be slightly negative. Time is O(n^2 d): a tile above the diagonal serves both
        halves. Peak memory is that of float64 copies of x and y twice, and tiles of 1,024 x 1,024; for larger n see
        ``rbf_cka_of_features``.

    Raises:
        TypeError: As ``modalign.cka``.
        ValueError: As ``modalign.cka``, and for a sigma that is not positive or a kernel that does not vary.

    Source:
        Kornblith et al. 2019 (arXiv:1905.00414), section 3.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import rbf_cka
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> round(rbf_cka(x, 3 * x), 12)
        1.0
    """
    seed = torch_seed("rbf_cka", seed)
    tables = paired_tables("rbf_cka", x, y, 4)
    n = len(tables[0])
    sigmas = _sigmas("rbf_cka", tables, sigma, seed)
    sides = [Gaussian(table, s) for table, s in zip(tables, sigmas, strict=True)]
    sums = torch.zeros(2, n, dtype=torch.float64)
    traces = torch.zeros(3, dtype=torch.float64)
    for rows, columns in triangle_tiles(n):
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

    norms = [hsic(traces[1 + side], side, side) for side in (0, 1)]
    for side, name in enumerate("xy"):
        if not norms[side] > LEAST * float(traces[1 + side]):
            raise UndefinedScoreError(f"rbf_cka: the kernel of {name} does not vary, so its alignment is not defined")
    return hsic(traces[0], 0, 1) / (math.sqrt(norms[0]) * math.sqrt(norms[1]))


def rbf_cka_of_rows(rows: PairedRows) -> float:
    """Evaluate ``rbf_cka`` for the registry."""
    return rbf_cka(rows.x, rows.y)


class Gaussian:
    """The Gaussian kernel of a table's rows, tile by tile.

    Where the kernel is nearly 1 everywhere and would lose its digits, the tiles hold the kernel less 1, which has the
    same HSIC.
    """

    def __init__(self, table: Tensor, sigma: float) -> None:
        rows = table.double() / sigma
        self.rows = rows - rows.mean(0)  # distances do not change, and lose fewer digits
        self.squares = self.rows.square().sum(1)
        self.wide = float(self.squares.mean()) < 1

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """Return the kernel of some rows with others, float64."""
        tile = self.squares[rows, None] + self.squares[columns]
        tile.sub_(self.rows[rows] @ self.rows[columns].T, alpha=2)
        if rows == columns:
            tile.fill_diagonal_(0)
        tile.clamp_min_(0).mul_(-0.5)
        return tile.expm1_() if self.wide else tile.exp_()


def gaussians(x: Array, y: Array, seed: int = 0) -> tuple[Gaussian, Gaussian]:
    """Return the kernels of x and y that ``rbf_cka`` compares by default."""
    tables = paired_tables("rbf_cka", x, y, 4)
    left, right = _sigmas("rbf_cka", tables, None, seed)
    return Gaussian(tables[0], left), Gaussian(tables[1], right)


@dataclasses.dataclass(frozen=True)
class Approximate:
    """An estimate and its standard error.

    Attributes:
        value: The estimate.
        error: Its standard error.
    """

    value: float
    error: float


def rbf_cka_of_features(
    x: Array, y: Array, *, sigma: Widths = None, features: int = 256, repeats: int = 8, seed: int = 0
) -> Approximate:
    """Estimate the unbiased ``rbf_cka`` of any number of rows from random features, with its standard error.

        phi(x) = sqrt(2 / D) (cos W x, sin W x), rows of W normal with variance 1 / s^2:  E <phi(x_i), phi(x_j)> = K_ij

    ``repeats`` independent sets of features are drawn for each kernel, and every product is of two different sets:

        CKA = mean_ab HSIC(K_a, L_b) / sqrt(mean_{a != b} HSIC(K_a, K_b) mean_{a != b} HSIC(L_a, L_b))

    so that each mean is unbiased: the square of one set's kernel would count its noise as alignment with itself.

    Args:
        x: (n, d_x), as in ``rbf_cka``.
        y: (n, d_y), as in ``rbf_cka``.
        sigma: The widths, as in ``rbf_cka``.
        features: The number D of features in a set, even.
        repeats: The number of sets, at least 3.
        seed: Seed of the features, and of the rows that give the widths.

    Returns:
        The estimate. Its error is the jackknife's over the sets; it measures the noise of the features alone and falls
        as 1 / sqrt(repeats D). Time is O(n (repeats D)^2); peak memory is 8 (repeats D)^2 bytes four times, and blocks
        of 16 MB: x and y are read in blocks.

    Raises:
        TypeError: As ``rbf_cka``, and for numbers of features or sets that are not integers.
        ValueError: As ``rbf_cka``, and for too few features to tell a kernel from noise.

    Source:
        Rahimi and Recht 2007, "Random features for large-scale kernel machines"; Song et al. 2012 for HSIC.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import rbf_cka, rbf_cka_of_features
        >>> x = np.random.default_rng(0).normal(size=(300, 4))
        >>> estimate = rbf_cka_of_features(x, x[:, :2])
        >>> abs(estimate.value - rbf_cka(x, x[:, :2])) < 4 * estimate.error
        True
    """
    tables = paired_tables("rbf_cka_of_features", x, y, 4)
    features = whole_number("rbf_cka_of_features", "features", features)
    repeats = whole_number("rbf_cka_of_features", "repeats", repeats, least=3)
    seed = torch_seed("rbf_cka_of_features", seed)
    if features < 2 or features % 2:
        raise ValueError(f"rbf_cka_of_features: features must be even and at least 2, got {features}")
    sigmas = _sigmas("rbf_cka_of_features", tables, sigma, seed)
    generator = torch.Generator().manual_seed(seed)
    frequencies = [
        torch.randn(table.shape[1], repeats * features // 2, generator=generator, dtype=torch.float64)
        for table in tables
    ]
    hsic = _hsic_of_features(tables, sigmas, frequencies, repeats)
    value = _ratio_of_sets(hsic, torch.arange(repeats))
    without_one = [_ratio_of_sets(hsic, torch.arange(repeats) != left_out) for left_out in range(repeats)]
    if value is None or None in without_one:
        raise ValueError(
            f"rbf_cka_of_features: {repeats} sets of {features} features cannot tell the kernels of x and y from "
            "kernels that do not vary; give more features, or another sigma"
        )
    error = math.sqrt((repeats - 1) * float(np.var(np.array(without_one, dtype=np.float64))))
    return Approximate(value, error)


def _hsic_of_features(tables: Tables, sigmas: list[float], frequencies: list[Tensor], sets: int) -> Tensor:
    """Return HSIC_1 times n (n - 3) of the kernels of every two sets: [3, sets, sets] for xx, yy and xy."""
    n, width = len(tables[0]), frequencies[0].shape[1]
    size = 2 * width // sets
    # only differences of rows count, and these keep their digits near a centre
    centers = [table[:SAMPLE].double().mean(0) for table in tables]
    products = torch.zeros(3, 2 * width, 2 * width, dtype=torch.float64)
    sums = torch.zeros(2, 2 * width, dtype=torch.float64)
    step = max(64, (1 << 20) // width)
    for start in range(0, n, step):
        features = []
        for table, center, sigma, weight in zip(tables, centers, sigmas, frequencies, strict=True):
            angles = ((table[start : start + step].double() - center) / sigma) @ weight
            waves = torch.stack([angles.cos(), angles.sin()], 2)  # a set's cosines and sines side by side
            features.append(waves.flatten(1) * math.sqrt(2 / size))
        u, v = features
        sums += torch.stack([u.sum(0), v.sum(0)])
        for product, (left, right) in zip(products, ((u, u), (v, v), (u, v)), strict=True):
            product.addmm_(left.T, right)
    sums = sums.reshape(2, sets, size)
    values = []
    for product, left, right in zip(products, sums[[0, 1, 0]], sums[[0, 1, 1]], strict=True):
        blocks = product.reshape(sets, size, sets, size)
        # every K_ii is 1 and is left out
        trace = blocks.square().sum((1, 3)) - n
        ones = [side.square().sum(1) for side in (left, right)]
        mixed = torch.einsum("ap,apbq,bq->ab", left, blocks, right) - ones[0][:, None] - ones[1] + n
        totals = (ones[0] - n)[:, None] * (ones[1] - n)
        value = trace + totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * mixed
        values.append(torch.where(value.abs() > LEAST * trace.abs(), value, 0.0))
    return torch.stack(values)


def _ratio_of_sets(hsic: Tensor, kept: Tensor) -> float | None:
    """Return the CKA of the kept sets, or None where an HSIC of a kernel with itself is not positive."""
    xx, yy, xy = (table[kept][:, kept] for table in hsic)
    different = ~torch.eye(len(xy), dtype=torch.bool)
    left, right = float(xx[different].mean()), float(yy[different].mean())
    return float(xy.mean()) / (math.sqrt(left) * math.sqrt(right)) if left > 0 and right > 0 else None


def _sigmas(operation: str, tables: Tables, sigma: Widths, seed: int) -> list[float]:
    """Return the widths of the two kernels: those given, or the median distances of sampled rows."""
    if sigma is not None:
        given = list(sigma) if isinstance(sigma, (tuple, list)) else [sigma, sigma]
        numbers = all(isinstance(s, (int, float, np.integer, np.floating)) and not isinstance(s, bool) for s in given)
        if len(given) != 2 or not numbers or not all(0 < s < math.inf for s in given):
            raise ValueError(f"{operation}: sigma must be a positive number or two, got {sigma!r}")
        return [float(s) for s in given]
    sample = torch.randperm(len(tables[0]), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    medians = []
    for table, name in zip(tables, "xy", strict=True):
        rows = table[sample].double()
        exponent = torch.frexp(rows.abs().max()).exponent
        median = float(np.median(torch.pdist(scaled_down(rows, exponent)).numpy()))  # torch's is the lower middle one
        if not median > 0:
            raise ValueError(f"{operation}: more than half of the distances of {name} are 0; give sigma")
        medians.append(math.ldexp(median, int(exponent)))
    return medians
