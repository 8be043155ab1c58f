"""Alignment scores from the directions that two representations share: CCA, SVCCA, PWCCA and linear regression.

They are functions of sums over rows (``sums``), whose covariances are decomposed: one pass over the rows, then O(d^3).
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.files.rows import RowSource
from modalign.metrics.sums import Moments, moments
from modalign.metrics.undefined import UndefinedScoreError, does_not_vary

__all__ = [
    "cca",
    "cca_of_moments",
    "linear_r2",
    "linear_r2_of_moments",
    "pwcca",
    "pwcca_of_moments",
    "svcca",
    "svcca_of_moments",
]

TIED = 1e-7  # correlations that differ by less are equal: rounding turns their directions
RANK = 1e-10  # directions of less variance than this share of the largest are rounding


def cca(x: RowSource, y: RowSource, *, ridge: float = 0.0, squared: bool = False) -> float:
    """Return the mean canonical correlation, over as many pairs of directions as the smaller rank.

        mean_i rho_i      rho: singular values of S_xx^(-1/2) S_xy S_yy^(-1/2)

    It is the same after any invertible linear map of either representation. Directions that hold less than 1e-10 of the
    variance of the largest, with columns scaled to standard deviation 1, are left out. With d_x + d_y near n it is high
    for unrelated representations: use ``svcca``, or a ridge.

    Args:
        x: (n, d_x), as in ``cka``.
        y: (n, d_y), row i is the same item as row i of x.
        ridge: S + ridge tr(S) / d I replaces S_xx and S_yy; the score is then the same only after rotations and scales.
        squared: Whether to return the mean of rho_i^2.

    Returns:
        A number from 0 to 1. Time is O(n d^2 + d^3); memory is that of ``cka``, and 48 d^2 bytes more for the wider
        representation.

    Raises:
        TypeError: As ``cka``.
        ValueError: As ``cka``, and for a negative ridge, or a rank of n - 1 or more without a ridge, for which every
            correlation would be 1.

    Source:
        Hotelling 1936; Kornblith et al. 2019 (arXiv:1905.00414), table 1; Vinod 1976 for the ridge.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import cca
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(cca(x, x @ np.array([[1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 3, 1], [1, 0, 0, 1]])), 12)
        1.0
    """
    if not 0 <= ridge < math.inf:
        raise ValueError(f"cca: ridge must be finite and not negative, got {ridge}")
    rho = _canonical(moments(x, y, "cca"), ridge)[0]
    return float((rho.square() if squared else rho).mean())


def svcca(
    x: RowSource, y: RowSource, *, variance: float = 0.99, components: int | None = None, standardize: bool = False
) -> float:
    """Return ``cca`` of the leading principal components of each representation.

    The code of Huh et al. 2024 standardises the columns and keeps 10 components: components=10, standardize=True. It
    finds them by a randomised decomposition (``torch.svd_lowrank``), whose components hold less of the variance, so
    that its scores differ from these, which are exact, and from call to call: 0.455 where this is 0.475.
    ``svcca_code`` computes those scores.

    Args:
        x: (n, d_x), as in ``cka``.
        y: (n, d_y), row i is the same item as row i of x.
        variance: The share of the variance to keep; the fewest components that hold it are kept.
        components: The number of components to keep in place of a share of the variance.
        standardize: Whether to divide every column by its standard deviation first; constant columns count as 0.

    Returns:
        A number from 0 to 1. Time and memory are those of ``cca``.

    Raises:
        TypeError: As ``cca``, and for a number of components that is not an integer.
        ValueError: As ``cca``, and for a variance out of range, or more components than a representation has
            directions.

    Source:
        Raghu et al. 2017 (arXiv:1706.05806).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import svcca
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(svcca(x, 2 * x, components=2), 12)
        1.0
    """
    if not 0 < variance <= 1:
        raise ValueError(f"svcca: variance must be above 0 and at most 1, got {variance}")
    if components is not None:
        components = whole_number("svcca", "components", components)
    sums = moments(x, y, "svcca")
    most = min(len(sums.xx), len(sums.yy))
    if components is not None and not 1 <= components <= most:
        raise ValueError(f"svcca: components must be between 1 and the smaller width {most}, got {components}")
    return _svcca(sums, _Directions(variance=variance, components=components, scaled=standardize))


def pwcca(x: RowSource, y: RowSource, *, symmetric: bool = False) -> float:
    """Return canonical correlations weighted by how much of x each canonical direction of x accounts for.

        sum_i a_i rho_i / sum_i a_i      a_i = sum_j |<h_i, x_j>|,  h_i: canonical variables of x, x_j: columns of x

    The weights are those of x, so the score is directed, as published. Directions of equal correlation may be turned
    among themselves, which changes their weights. So the score is not defined where some correlations are equal and
    others are not: with d_x + d_y >= n + 1, for instance, d_x + d_y - n + 1 correlations are 1 whatever the rows hold.

    Args:
        x: (n, d_x), as in ``cka``.
        y: (n, d_y), row i is the same item as row i of x.
        symmetric: Whether to return the mean of pwcca(x, y) and pwcca(y, x).

    Returns:
        A number from 0 to 1. Time and memory are those of ``cca``.

    Raises:
        TypeError: As ``cca``.
        ValueError: As ``cca``, and where some canonical correlations are equal and others are not.

    Source:
        Morcos et al. 2018 (arXiv:1806.05759).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import pwcca
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(pwcca(x, 3 * x), 12)
        1.0
    """
    sums = moments(x, y, "pwcca")
    return (pwcca_of_moments(sums) + pwcca_of_moments(sums, "y")) / 2 if symmetric else pwcca_of_moments(sums)


def linear_r2(x: RowSource, y: RowSource, *, adjusted: bool = False) -> float:
    """Return the share of y's variance that a linear regression on x explains, on the same rows.

        R2 = |Q_x' Y|_F^2 / |Y|_F^2      for centred columns, Q_x an orthonormal basis of the columns of X

    It is directed, and grows with d_x / n for unrelated representations.

    Args:
        x: (n, d_x), as in ``cka``.
        y: (n, d_y), row i is the same item as row i of x.
        adjusted: Whether to return 1 - (1 - R2) (n - 1) / (n - 1 - rank of X), whose mean is zero for unrelated
            representations and which can be negative.

    Returns:
        A number from 0 to 1, or at most 1 if adjusted. Time is O(n d^2 + d^3); memory is that of ``cka``.

    Raises:
        TypeError: As ``cka``.
        ValueError: As ``cka``, and where the rank of X is n - 1 or more, for which R2 would be 1.

    Source:
        Kornblith et al. 2019 (arXiv:1905.00414), table 1, with x and y exchanged.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import linear_r2
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(linear_r2(x, x[:, :2] + x[:, 2:]), 12)
        1.0
    """
    return linear_r2_of_moments(moments(x, y, "linear_r2"), adjusted)


@dataclasses.dataclass(frozen=True)
class _Directions:
    """The principal directions of a representation that are kept.

    Attributes:
        ridge: Share of the mean variance that is added to every variance.
        variance: The share of the variance to keep.
        components: The number of directions to keep, in place of a share.
        scaled: Whether columns are scaled to one length first.
    """

    ridge: float = 0.0
    variance: float = 1.0
    components: int | None = None
    scaled: bool = False


def cca_of_moments(sums: Moments) -> float:
    """Evaluate ``cca`` from sums."""
    return float(_canonical(sums)[0].mean())


def svcca_of_moments(sums: Moments) -> float:
    """Evaluate ``svcca`` from sums."""
    return _svcca(sums, _Directions(variance=0.99))


def pwcca_of_moments(sums: Moments, side: str = "x") -> float:
    """Evaluate ``pwcca`` from sums, with the weights of one side."""
    rho, variables = _canonical(sums, side=side)
    _require_distinct(sums, rho, side)
    weights = (variables.T @ sums.product(2 * side)).abs().sum(1)
    return float(weights @ rho / weights.sum())


def linear_r2_of_moments(sums: Moments, adjusted: bool = False) -> float:
    """Evaluate ``linear_r2`` from sums."""
    left = _whitener(sums, "x", _Directions(scaled=True))
    if not sums.varies("y"):
        raise does_not_vary(sums.operation, "y")
    share = float((left.T @ sums.xy).square().sum()) / sums.trace("y")
    return 1 - (1 - share) * (sums.n - 1) / (sums.n - 1 - left.shape[1]) if adjusted else share


def linear_r2_by_chance(sums: Moments) -> float:
    """Return the mean of ``linear_r2`` over all relabellings: rank of X / (n - 1)."""
    return _whitener(sums, "x", _Directions(scaled=True)).shape[1] / (sums.n - 1)


def _svcca(sums: Moments, kept: _Directions) -> float:
    left, right = (_whitener(sums, side, kept) for side in "xy")
    return float(torch.linalg.svdvals(left.T @ sums.xy @ right).mean())


def _canonical(sums: Moments, ridge: float = 0.0, side: str = "x") -> tuple[Tensor, Tensor]:
    """Return the canonical correlations, and the matrix from the columns of a side to its canonical variables."""
    # with columns of one length: canonical variables do not depend on it, but which directions are rounding does
    left, right = (_whitener(sums, name, _Directions(ridge=ridge, scaled=not ridge)) for name in "xy")
    u, rho, v = sums.factor(
        ("xy", "svd", ridge), lambda: torch.linalg.svd(left.T @ sums.xy @ right, full_matrices=False)
    )
    return rho, left @ u if side == "x" else right @ v.T


def _require_distinct(sums: Moments, rho: Tensor, side: str) -> None:
    """Raise an error if the canonical variables of a side are not determined, although their weights count."""
    tied = (rho.diff().abs() <= TIED).nonzero()[:, 0]
    # a direction without a counterpart may be turned with those of correlation 0
    rank = _whitener(sums, side, _Directions(scaled=True)).shape[1]
    if rank > len(rho) and bool(rho[-1] <= TIED):
        tied = torch.cat([tied, torch.tensor([len(rho) - 1])])
    if len(tied) and bool(rho[0] - rho[-1] > TIED):
        value = rho[int(tied[0])]
        count = int((rho - value).abs().le(TIED).sum())
        raise UndefinedScoreError(
            f"{sums.operation}: needs canonical correlations that differ, got {count} of {float(value):.6g} beside "
            "others, whose weights are not determined; take more rows than both widths together, or svcca or cca"
        )


def _whitener(sums: Moments, side: str, kept: _Directions) -> Tensor:
    """Return W [d, r] with W' S W = 1 over the kept directions of a side."""
    operation, covariance = sums.operation, sums.product(2 * side)
    if not sums.varies(side):
        raise does_not_vary(operation, side)
    scales = sums.scales(side) if kept.scaled else None
    if scales is not None:
        covariance = covariance * torch.outer(scales, scales)
    values, vectors = sums.factor((side, "eigh", kept.scaled), lambda: torch.linalg.eigh(covariance))
    values, vectors = values.flip(0), vectors.flip(1)
    rank = int((values > RANK * values[0]).sum())
    if kept.components is not None and kept.components > rank:
        raise ValueError(f"{operation}: {side} has {rank} directions that vary, got components = {kept.components}")
    if kept.components is not None:
        rank = kept.components
    elif kept.variance < 1:
        share = values.clamp_min(0).cumsum(0) / values.clamp_min(0).sum()
        rank = min(rank, int((share < kept.variance - 1e-12).sum()) + 1)
    rounding = RANK * values[0]
    if rank < len(values) and values[rank] > rounding and values[rank - 1] - values[rank] <= rounding:
        raise UndefinedScoreError(
            f"{operation}: the components {rank} and {rank + 1} of {side} hold equal variance, so that {rank} leading "
            "ones are not determined; keep more or fewer of them"
        )
    if kept.ridge == 0 and rank >= sums.n - 1:
        raise ValueError(
            f"{operation}: {side} has {rank} directions and {sums.n} rows, so every correlation would be 1; take more "
            "rows, or svcca with fewer components"
        )
    added = kept.ridge * sums.trace(side) / len(covariance)
    whitener: Tensor = vectors[:, :rank] / (values[:rank] + added).sqrt()
    return whitener if scales is None else scales[:, None] * whitener
