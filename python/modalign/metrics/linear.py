"""Alignment scores that are functions of sums over rows (``sums``): one pass in float64, nothing of n x n.

With X and Y centred, all of them come from X'X, Y'Y, X'Y and a few sums of the rows' squared lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.metrics.sums import Moments, moments, moments_of_parts, relabelled

__all__ = [
    "OF_MOMENTS",
    "Moments",
    "cca",
    "centered_cmd",
    "cka",
    "clipped_cka",
    "cmd",
    "linear_r2",
    "moments",
    "moments_of_parts",
    "procrustes",
    "pwcca",
    "relabelled",
    "rv",
    "svcca",
    "unbiased_cka",
]

RANK = 1e-10  # directions of less variance than this share of the largest are rounding


def cka(x: Any, y: Any) -> float:
    """Linear centred kernel alignment, streamed through feature space: no n x n kernel is formed.

        |X' Y|_F^2 / (|X' X|_F |Y' Y|_F)      for centred columns

    x, y: (n, d_x) and (n, d_y), row i of both is the same item: NumPy (memory-mapped too), torch, or files as
    ``modalign.files.rows.open_rows`` takes them. Returns a number from 0 to 1, from float64 sums of one pass.
    It grows with width over n for unrelated representations; ``unbiased_cka`` does not.
    Peak memory: 8 (d_x d_y + d_x^2 + d_y^2) bytes three times, and a block of rows that has 16 MB in float64 (or 256
    rows, where they have more) three times. The rows are read once. Time O(n d^2).
    Raises TypeError for other dtypes or devices that differ, ValueError for different numbers of rows, NaN or inf,
    float64 values whose fourth powers leave float64, or a representation that is constant.
    Source: Kornblith et al. 2019 (arXiv:1905.00414), equation 4.

    Examples:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(modalign.cka(x, 2 * x + 1), 12)
        1.0
    """
    return cka_of_moments(moments(x, y, "cka"))


def unbiased_cka(x: Any, y: Any) -> float:
    """Linear CKA from the unbiased estimator of HSIC: zero in the mean for unrelated representations of any width.

    With K = X X' and L = Y Y' without their diagonals,

        HSIC_1(K, L) = (tr K L + 1'K1 1'L1 / ((n-1) (n-2)) - 2 / (n-2) 1'K L1) / (n (n-3))
        CKA = HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L))

    and every term is a sum over features: nothing n x n is formed. It can be slightly negative.
    x, y, cost and memory: as in ``cka``, n >= 4.
    Raises ValueError as ``cka``, for n < 4, and where an HSIC_1 of a representation with itself is not positive.
    Source: Song et al. 2012 for the estimator; Nguyen et al. 2021 (arXiv:2010.15327) for its use in CKA.

    Examples:
        >>> import numpy as np, modalign
        >>> rng = np.random.default_rng(0)
        >>> abs(modalign.unbiased_cka(rng.normal(size=(200, 50)), rng.normal(size=(200, 50)))) < 0.1
        True
    """
    return unbiased_cka_of_moments(moments(x, y, "unbiased_cka"))


def clipped_cka(x: Any, y: Any) -> float:
    """``unbiased_cka`` with every HSIC_1 at least 0, as in the code of Tjandrasuwita et al.: 0 where it is negative or
    where that of a representation with itself is not positive.

    Half of all unrelated pairs score 0 and the others more, so that it is above 0 in the mean by chance: it is here to
    compare with that paper's numbers. With ``prepare="emergence"`` in ``modalign.align`` the rows are theirs too.
    x, y, cost, memory: as in ``unbiased_cka``. Raises ValueError as ``cka``, and for n < 4.
    Source: Tjandrasuwita et al. 2025 (arXiv:2502.16282), its code.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import clipped_cka, unbiased_cka
        >>> x = np.random.default_rng(0).normal(size=(2, 50, 4))
        >>> round(unbiased_cka(*x), 3), clipped_cka(*x)
        (-0.003, 0.0)
    """
    return clipped_cka_of_moments(moments(x, y, "clipped_cka"))


def rv(x: Any, y: Any, *, adjusted: bool = False) -> float:
    """The RV coefficient, which linear ``cka`` is another name for.

        tr(S_xy S_yx) / sqrt(tr S_xx^2 tr S_yy^2)

    adjusted: the modified coefficient RV2, the same of X X' and Y Y' without their diagonals, which does not grow with
    width; from -1 to 1. x, y, cost, memory and errors: as in ``cka``.
    Source: Robert and Escoufier 1976; Smilde et al. 2009 for RV2.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import rv
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(rv(x, 2 * x), 12), round(rv(x, 2 * x, adjusted=True), 12)
        (1.0, 1.0)
    """
    found = moments(x, y, "rv")
    if not adjusted:
        return cka_of_moments(found)
    own = [found.square(2 * side) - found.fourth(2 * side) if found.varies(side) else 0.0 for side in "xy"]
    return _ratio("rv", found.square("xy") - found.fourth("xy"), *own)


def cca(x: Any, y: Any, *, ridge: float = 0.0, squared: bool = False) -> float:
    """The mean canonical correlation, over as many pairs of directions as the smaller rank.

        mean_i rho_i      rho: singular values of S_xx^(-1/2) S_xy S_yy^(-1/2)

    It is the same after any invertible linear map of either representation. Directions that hold less than 1e-10 of the
    variance of the largest, columns taken at standard deviation 1, are left out. With d_x + d_y near n it is high for
    unrelated representations: take ``svcca``, or a ridge.
    ridge: S + ridge tr(S) / d I takes the place of S_xx and S_yy; only rotations and scales change nothing then.
    squared: the mean of rho_i^2. x, y: as in ``cka``; so is memory, and 48 d^2 bytes more for the wider one.
    Time O(n d^2 + d^3). Returns a number from 0 to 1.
    Raises as ``cka``, and ValueError for a negative ridge, or where a rank is n - 1 or more without a ridge, so that
    every correlation would be 1.
    Source: Hotelling 1936; Kornblith et al. 2019 (arXiv:1905.00414), table 1; Vinod 1976 for the ridge.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import cca
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(cca(x, x @ np.array([[1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 3, 1], [1, 0, 0, 1]])), 12)
        1.0
    """
    if not 0 <= ridge < math.inf:
        raise ValueError(f"cca: ridge must be finite and not negative, got {ridge}")
    rho = _canonical(moments(x, y, "cca"), ridge)[0]
    return float((rho.square() if squared else rho).mean())


def svcca(x: Any, y: Any, *, variance: float = 0.99, components: int | None = None, standardize: bool = False) -> float:
    """``cca`` of the leading principal components of each representation.

    variance: keep the fewest components that hold this share of the variance. components: keep so many instead (the
    code of Huh et al. 2024 standardises the columns and keeps 10: components=10, standardize=True).
    standardize: divide every column by its standard deviation first; constant columns count as 0.
    x, y, cost, memory and errors: as in ``cca``; ValueError for a variance out of range, or more components than a
    representation has directions.
    Source: Raghu et al. 2017 (arXiv:1706.05806).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import svcca
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(svcca(x, 2 * x, components=2), 12)
        1.0
    """
    if not 0 < variance <= 1:
        raise ValueError(f"svcca: variance must be above 0 and at most 1, got {variance}")
    if isinstance(components, bool) or not isinstance(components, (int, np.integer, type(None))):
        raise TypeError(f"svcca: components must be an integer or None, got {components!r}")
    found = moments(x, y, "svcca")
    most = min(len(found.xx), len(found.yy))
    if components is not None and not 1 <= components <= most:
        raise ValueError(f"svcca: components must be between 1 and the smaller width {most}, got {components}")
    return svcca_of_moments(found, variance, None if components is None else int(components), standardize)


def pwcca(x: Any, y: Any, *, symmetric: bool = False) -> float:
    """Canonical correlations weighted by how much of x each canonical direction of x accounts for.

        sum_i a_i rho_i / sum_i a_i      a_i = sum_j |<h_i, x_j>|,  h_i: canonical variables of x, x_j: columns of x

    The weights are x's: it is directed, as published. symmetric: the mean of pwcca(x, y) and pwcca(y, x).
    x, y, cost, memory, errors: as in ``cca``. Returns a number from 0 to 1.
    Source: Morcos et al. 2018 (arXiv:1806.05759).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import pwcca
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(pwcca(x, 3 * x), 12)
        1.0
    """
    found = moments(x, y, "pwcca")
    return (pwcca_of_moments(found) + pwcca_of_moments(found, "y")) / 2 if symmetric else pwcca_of_moments(found)


def procrustes(x: Any, y: Any) -> float:
    """How well a rotation and a scale turn one representation into the other.

        |X' Y|_* / (|X|_F |Y|_F) = 1 - d^2 / 2      for centred columns, |.|_* the sum of singular values

    d: the Procrustes distance of the representations scaled to length 1, widths made equal by columns of zeros.
    x, y, memory and errors: as in ``cka``. Time O(n d^2 + d^3). Returns a number from 0 to 1.
    Source: Schonemann 1966; Williams et al. 2021 (arXiv:2110.14739); Ding et al. 2021 (arXiv:2108.01661).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import procrustes
        >>> x = np.random.default_rng(0).normal(size=(50, 2))
        >>> round(procrustes(x, 5 * x[:, ::-1] + 1), 12)
        1.0
    """
    return procrustes_of_moments(moments(x, y, "procrustes"))


def cmd(x: Any, y: Any) -> float:
    """The correlation-matrix distance of the Gram matrices of the rows as they are: 0 for equal ones, 1 for orthogonal.

        1 - tr(K L) / (|K|_F |L|_F) = 1 - |X' Y|_F^2 / (|X' X|_F |Y' Y|_F)      K = X X', L = Y Y', not centred

    A distance: lower is closer; the code of Tjandrasuwita et al. returns 1 less it under this name. A mean far from 0
    in both makes it small whatever else they hold: ``centered_cmd``.
    x, y, cost, memory: as in ``cka``. Raises ValueError as ``cka``, but for a representation of zeros only.
    Source: Herdin et al. 2005; its use for Gram matrices, Tjandrasuwita et al. 2025 (arXiv:2502.16282).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import cmd
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> abs(cmd(x, 2 * x)) < 1e-12
        True
    """
    return cmd_of_moments(moments(x, y, "cmd"))


def centered_cmd(x: Any, y: Any) -> float:
    """``cmd`` of centred rows: 1 - ``cka``. x, y, cost, memory, errors and source: as there.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import centered_cmd
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> abs(centered_cmd(x, 2 * x + 9)) < 1e-12
        True
    """
    return centered_cmd_of_moments(moments(x, y, "centered_cmd"))


def linear_r2(x: Any, y: Any, *, adjusted: bool = False) -> float:
    """The share of y's variance that a linear regression on x explains, on the same rows.

        R2 = |Q_x' Y|_F^2 / |Y|_F^2      for centred columns, Q_x an orthonormal basis of the columns of X

    It is directed, and grows with d_x / n for unrelated representations.
    adjusted: 1 - (1 - R2) (n - 1) / (n - 1 - rank of X), zero in the mean for unrelated ones; it can be negative.
    x, y, memory: as in ``cka``. Time O(n d^2 + d^3). Returns a number from 0 to 1.
    Raises as ``cka``, and ValueError where x's rank is n - 1 or more, so that it would be 1.
    Source: Kornblith et al. 2019 (arXiv:1905.00414), table 1, with x and y exchanged.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import linear_r2
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(linear_r2(x, x[:, :2] + x[:, 2:]), 12)
        1.0
    """
    return linear_r2_of_moments(moments(x, y, "linear_r2"), adjusted)


def _ratio(operation: str, cross: float, left: float, right: float) -> float:
    for name, own in (("x", left), ("y", right)):
        if not own > 0:
            raise ValueError(f"{operation}: {name} does not vary between rows, so its alignment is not defined")
    return cross / (math.sqrt(left) * math.sqrt(right))


def cka_of_moments(found: Moments) -> float:
    return _ratio(found.operation, found.square("xy"), *(_own(found, side, found.square) for side in ("xx", "yy")))


def _own(found: Moments, which: str, value: Callable[[str], float]) -> float:
    """value(which), 0 where the centred rows are nothing but rounding."""
    return value(which) if found.varies(which[0]) else 0.0


def unbiased_cka_of_moments(found: Moments) -> float:
    own = _own_hsic(found)
    for name, one in zip("xy", own, strict=True):
        if found.varies(name) and not one > 1e-12 * found.square(2 * name):
            raise ValueError(
                f"{found.operation}: the unbiased HSIC of {name} with itself must be positive, got one of rows about "
                "equally far apart; take more rows, or cka"
            )
    return _ratio(found.operation, found.hsic("xy"), *own)


def clipped_cka_of_moments(found: Moments) -> float:
    left, right = _own_hsic(found)
    for name in "xy":
        if not found.varies(name):
            raise ValueError(f"{found.operation}: {name} does not vary between rows, so its alignment is not defined")
    return _ratio(found.operation, max(found.hsic("xy"), 0.0), left, right) if left > 0 and right > 0 else 0.0


def _own_hsic(found: Moments) -> list[float]:
    if found.n < 4:
        raise ValueError(f"{found.operation}: needs at least 4 rows, got {found.n}")
    return [_own(found, side, found.hsic) for side in ("xx", "yy")]


def procrustes_of_moments(found: Moments) -> float:
    own = [_own(found, side, found.trace) for side in "xy"]
    return _ratio(found.operation, float(torch.linalg.svdvals(found.xy).sum()), *own)


def cmd_of_moments(found: Moments) -> float:
    squares = [float(found.raw(which).square().sum()) for which in ("xy", "xx", "yy")]
    for name, own in zip("xy", squares[1:], strict=True):
        if not own > 0:
            raise ValueError(f"{found.operation}: {name} must not be all zeros")
    return 1 - squares[0] / (math.sqrt(squares[1]) * math.sqrt(squares[2]))


def centered_cmd_of_moments(found: Moments) -> float:
    return 1 - cka_of_moments(found)


rv_of_moments = cka_of_moments


def _whitener(
    found: Moments, side: str, ridge: float = 0.0, variance: float = 1.0, components: int | None = None,
    scaled: bool = False,
) -> Tensor:  # fmt: skip
    """W [d, r] with W' S W = 1 over the leading directions of the columns, made of one length first if ``scaled``."""
    operation, covariance = found.operation, found.product(2 * side)
    if not found.varies(side):
        raise ValueError(f"{operation}: {side} does not vary between rows, so its alignment is not defined")
    scales = found.scales(side) if scaled else None
    if scales is not None:
        covariance = covariance * torch.outer(scales, scales)
    values, vectors = found.factor((side, "eigh", scaled), lambda: torch.linalg.eigh(covariance))
    values, vectors = values.flip(0), vectors.flip(1)
    rank = int((values > RANK * values[0]).sum())
    if components is not None and components > rank:
        raise ValueError(f"{operation}: {side} has {rank} directions that vary, got components = {components}")
    if components is not None:
        rank = components
    elif variance < 1:
        share = values.clamp_min(0).cumsum(0) / values.clamp_min(0).sum()
        rank = min(rank, int((share < variance - 1e-12).sum()) + 1)
    if ridge == 0 and rank >= found.n - 1:
        raise ValueError(
            f"{operation}: {side} has {rank} directions and {found.n} rows, so every correlation would be 1; take more "
            "rows, or svcca with fewer components"
        )
    added = ridge * found.trace(side) / len(covariance)
    whitener: Tensor = vectors[:, :rank] / (values[:rank] + added).sqrt()
    return whitener if scales is None else scales[:, None] * whitener


def _canonical(found: Moments, ridge: float = 0.0, of: str = "x") -> tuple[Tensor, Tensor]:
    """The canonical correlations, and what turns the columns of x (or y) into the canonical variables."""
    # columns of one length: canonical variables do not depend on them, but which directions are rounding does
    left, right = (_whitener(found, side, ridge, scaled=not ridge) for side in "xy")
    u, rho, v = found.factor(
        ("xy", "svd", ridge), lambda: torch.linalg.svd(left.T @ found.xy @ right, full_matrices=False)
    )
    return rho, left @ u if of == "x" else right @ v.T


def cca_of_moments(found: Moments) -> float:
    return float(_canonical(found)[0].mean())


def svcca_of_moments(
    found: Moments, variance: float = 0.99, components: int | None = None, standardize: bool = False
) -> float:
    left, right = (_whitener(found, side, 0.0, variance, components, standardize) for side in "xy")
    return float(torch.linalg.svdvals(left.T @ found.xy @ right).mean())


def pwcca_of_moments(found: Moments, of: str = "x") -> float:
    rho, variables = _canonical(found, of=of)
    weights = (variables.T @ found.product(2 * of)).abs().sum(1)
    return float(weights @ rho / weights.sum())


def linear_r2_of_moments(found: Moments, adjusted: bool = False) -> float:
    left = _whitener(found, "x", scaled=True)
    if not found.varies("y"):
        raise ValueError(f"{found.operation}: y does not vary between rows, so its alignment is not defined")
    share = float((left.T @ found.xy).square().sum()) / found.trace("y")
    return 1 - (1 - share) * (found.n - 1) / (found.n - 1 - left.shape[1]) if adjusted else share


OF_MOMENTS: dict[str, Callable[[Moments], float]] = {
    "cka": cka_of_moments,
    "unbiased_cka": unbiased_cka_of_moments,
    "clipped_cka": clipped_cka_of_moments,
    "cca": cca_of_moments,
    "svcca": svcca_of_moments,
    "pwcca": pwcca_of_moments,
    "procrustes": procrustes_of_moments,
    "rv": cka_of_moments,
    "cmd": cmd_of_moments,
    "centered_cmd": centered_cmd_of_moments,
    "linear_r2": linear_r2_of_moments,
}
