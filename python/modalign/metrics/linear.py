"""Alignment scores that compare kernels of rows or rotate them: CKA, RV, Procrustes and correlation-matrix distance.

They are functions of sums over rows (``sums``): one pass in float64, and nothing of size n x n. With X and Y centred,
all of them come from X'X, Y'Y, X'Y and a few sums of the squared lengths of the rows. Scores that decompose
covariances are in ``canonical``.
"""

from __future__ import annotations

import math

import torch

from modalign.files.rows import RowSource
from modalign.metrics.canonical import cca, linear_r2, pwcca, svcca
from modalign.metrics.sums import Moments, moments, moments_of_parts, relabelled
from modalign.metrics.undefined import UndefinedScoreError, does_not_vary
from modalign.metrics.variants import EPSILON, require_variant

__all__ = [
    "Moments",
    "cca",
    "centered_cmd",
    "centered_cmd_of_moments",
    "cka",
    "cka_of_moments",
    "clipped_cka",
    "clipped_cka_of_moments",
    "cmd",
    "cmd_of_moments",
    "linear_r2",
    "moments",
    "moments_of_parts",
    "procrustes",
    "procrustes_of_moments",
    "pwcca",
    "relabelled",
    "rv",
    "rv_of_moments",
    "svcca",
    "unbiased_cka",
    "unbiased_cka_of_moments",
]


def cka(x: RowSource, y: RowSource) -> float:
    """Return linear centred kernel alignment, streamed through feature space: no n x n kernel is formed.

        |X' Y|_F^2 / (|X' X|_F |Y' Y|_F)      for centred columns

    It grows with width over n for unrelated representations; ``unbiased_cka`` does not.

    Args:
        x: (n, d_x) floating point: a NumPy array (memory-mapped too), a tensor, or a file as
            ``modalign.files.rows.open_rows`` takes it.
        y: (n, d_y), row i is the same item as row i of x.

    Returns:
        A number from 0 to 1, from float64 sums. The rows are read once, in time O(n d^2). Peak memory is
        8 (d_x d_y + d_x^2 + d_y^2) bytes three times, and three times a block of rows, which has 16 MB in float64, or
        256 rows where these have more.

    Raises:
        TypeError: For other dtypes, or devices that differ.
        ValueError: For different numbers of rows, NaN or inf, float64 values whose fourth powers leave float64's
            range, or a representation that is constant.

    Source:
        Kornblith et al. 2019 (arXiv:1905.00414), equation 4.

    Examples:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(modalign.cka(x, 2 * x + 1), 12)
        1.0
    """
    return cka_of_moments(moments(x, y, "cka"))


def unbiased_cka(x: RowSource, y: RowSource, *, variant: str = "published") -> float:
    """Return linear CKA from the unbiased estimator of HSIC, whose mean is zero for unrelated rows of any width.

    With K = X X' and L = Y Y' without their diagonals,

        HSIC_1(K, L) = (tr K L + 1'K1 1'L1 / ((n-1) (n-2)) - 2 / (n-2) 1'K L1) / (n (n-3))
        CKA = HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L))

    and every term is a sum over features: nothing n x n is formed. The program of Huh et al. adds 1e-6 to the
    denominator (``variant="code"``), which lowers the score where HSIC_1 is of that size, as for unit rows with a mean
    far from 0.

    Args:
        x: (n, d_x), as in ``cka``, n >= 4.
        y: (n, d_y), row i is the same item as row i of x.
        variant: "published", the equation, or "code", with the 1e-6.

    Returns:
        A number that can be slightly negative. Time and memory are those of ``cka``.

    Raises:
        TypeError: As ``cka``.
        ValueError: As ``cka``, for another variant, and for n < 4 or an HSIC_1 of a representation with itself that is
            not positive.

    Source:
        Song et al. 2012 for the estimator; Nguyen et al. 2021 (arXiv:2010.15327) for its use in CKA; Huh et al. 2024
        (arXiv:2405.07987) for "code".

    Examples:
        >>> import numpy as np, modalign
        >>> rng = np.random.default_rng(0)
        >>> abs(modalign.unbiased_cka(rng.normal(size=(200, 50)), rng.normal(size=(200, 50)))) < 0.1
        True
    """
    return unbiased_cka_of_moments(moments(x, y, "unbiased_cka"), variant)


def clipped_cka(x: RowSource, y: RowSource) -> float:
    """Return ``unbiased_cka`` with every HSIC_1 clipped at 0, as the code of Tjandrasuwita et al. computes it.

    The score is 0 where HSIC_1 is negative, or where that of a representation with itself is not positive. Half of all
    unrelated pairs score 0 and the others more, so its mean by chance is above 0. Use it to compare with that paper's
    numbers; with ``prepare="emergence"`` in ``modalign.align`` the rows are theirs too.

    Args:
        x: (n, d_x), as in ``cka``, n >= 4.
        y: (n, d_y), row i is the same item as row i of x.

    Returns:
        A number, 0 or more. Time and memory are those of ``cka``.

    Raises:
        TypeError: As ``cka``.
        ValueError: As ``cka``, and for n < 4.

    Source:
        Tjandrasuwita et al. 2025 (arXiv:2502.16282), its code.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import clipped_cka, unbiased_cka
        >>> x = np.random.default_rng(0).normal(size=(2, 50, 4))
        >>> round(unbiased_cka(*x), 3), clipped_cka(*x)
        (-0.003, 0.0)
    """
    return clipped_cka_of_moments(moments(x, y, "clipped_cka"))


def rv(x: RowSource, y: RowSource, *, adjusted: bool = False) -> float:
    """Return the RV coefficient, which is another name for linear ``cka``.

        tr(S_xy S_yx) / sqrt(tr S_xx^2 tr S_yy^2)

    Args:
        x: (n, d_x), as in ``cka``.
        y: (n, d_y), row i is the same item as row i of x.
        adjusted: Whether to return the modified coefficient RV2, the same of X X' and Y Y' without their diagonals. It
            does not grow with width, and lies between -1 and 1.

    Returns:
        A number from 0 to 1, or from -1 to 1 if adjusted. Time and memory are those of ``cka``.

    Raises:
        TypeError: As ``cka``.
        ValueError: As ``cka``.

    Source:
        Robert and Escoufier 1976; Smilde et al. 2009 for RV2.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import rv
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(rv(x, 2 * x), 12), round(rv(x, 2 * x, adjusted=True), 12)
        (1.0, 1.0)
    """
    sums = moments(x, y, "rv")
    if not adjusted:
        return cka_of_moments(sums)
    norms = [sums.square(2 * side) - sums.fourth(2 * side) if sums.varies(side) else 0.0 for side in "xy"]
    return _ratio(sums, sums.square("xy") - sums.fourth("xy"), norms)


def procrustes(x: RowSource, y: RowSource) -> float:
    """Return how well a rotation and a scale turn one representation into the other.

        |X' Y|_* / (|X|_F |Y|_F) = 1 - d^2 / 2      for centred columns, |.|_* the sum of singular values

    d is the Procrustes distance of the representations scaled to length 1, widths made equal by columns of zeros.

    Args:
        x: (n, d_x), as in ``cka``.
        y: (n, d_y), row i is the same item as row i of x.

    Returns:
        A number from 0 to 1. Time is O(n d^2 + d^3); memory is that of ``cka``.

    Raises:
        TypeError: As ``cka``.
        ValueError: As ``cka``.

    Source:
        Schonemann 1966; Williams et al. 2021 (arXiv:2110.14739); Ding et al. 2021 (arXiv:2108.01661).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import procrustes
        >>> x = np.random.default_rng(0).normal(size=(50, 2))
        >>> round(procrustes(x, 5 * x[:, ::-1] + 1), 12)
        1.0
    """
    return procrustes_of_moments(moments(x, y, "procrustes"))


def cmd(x: RowSource, y: RowSource) -> float:
    """Return the correlation-matrix distance of the Gram matrices of the rows, which are not centred.

        1 - tr(K L) / (|K|_F |L|_F) = 1 - |X' Y|_F^2 / (|X' X|_F |Y' Y|_F)      K = X X', L = Y Y'

    This is a distance, 0 for equal and 1 for orthogonal Gram matrices; the code of Tjandrasuwita et al. returns one
    minus it under this name. A mean far from 0 in both makes it small whatever else they hold; see ``centered_cmd``.

    Args:
        x: (n, d_x), as in ``cka``.
        y: (n, d_y), row i is the same item as row i of x.

    Returns:
        A number from 0 to 1. Time and memory are those of ``cka``.

    Raises:
        TypeError: As ``cka``.
        ValueError: As ``cka``, where a representation of zeros takes the place of a constant one.

    Source:
        Herdin et al. 2005; its use for Gram matrices, Tjandrasuwita et al. 2025 (arXiv:2502.16282).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import cmd
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> abs(cmd(x, 2 * x)) < 1e-12
        True
    """
    return cmd_of_moments(moments(x, y, "cmd"))


def centered_cmd(x: RowSource, y: RowSource) -> float:
    """Return ``cmd`` of centred rows, which is 1 - ``cka``.

    Args:
        x: (n, d_x), as in ``cka``.
        y: (n, d_y), row i is the same item as row i of x.

    Returns:
        A number from 0 to 1. Time and memory are those of ``cka``.

    Raises:
        TypeError: As ``cka``.
        ValueError: As ``cka``.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import centered_cmd
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> abs(centered_cmd(x, 2 * x + 9)) < 1e-12
        True
    """
    return centered_cmd_of_moments(moments(x, y, "centered_cmd"))


# the evaluators that the registry names: scores from sums that exist already


def cka_of_moments(sums: Moments) -> float:
    """Evaluate ``cka`` from sums."""
    return _ratio(sums, sums.square("xy"), [sums.square(2 * side) if sums.varies(side) else 0.0 for side in "xy"])


rv_of_moments = cka_of_moments


def unbiased_cka_of_moments(sums: Moments, variant: str = "published") -> float:
    """Evaluate ``unbiased_cka`` from sums."""
    require_variant(sums.operation, variant)
    norms = _hsic_norms(sums)
    for name, norm in zip("xy", norms, strict=True):
        if sums.varies(name) and not norm > 1e-12 * sums.square(2 * name):
            raise UndefinedScoreError(
                f"{sums.operation}: the unbiased HSIC of {name} with itself must be positive, got one of rows about "
                "equally far apart; take more rows, or cka"
            )
    added = EPSILON * sums.n * (sums.n - 3) if variant == "code" else 0.0  # hsic() is n (n - 3) times HSIC_1
    return _ratio(sums, sums.hsic("xy"), norms, added=added)


def clipped_cka_of_moments(sums: Moments) -> float:
    """Evaluate ``clipped_cka`` from sums."""
    norms = _hsic_norms(sums)
    for name in "xy":
        if not sums.varies(name):
            raise does_not_vary(sums.operation, name)
    return _ratio(sums, max(sums.hsic("xy"), 0.0), norms) if all(norm > 0 for norm in norms) else 0.0


def procrustes_of_moments(sums: Moments) -> float:
    """Evaluate ``procrustes`` from sums."""
    norms = [sums.trace(side) if sums.varies(side) else 0.0 for side in "xy"]
    return _ratio(sums, float(torch.linalg.svdvals(sums.xy).sum()), norms)


def cmd_of_moments(sums: Moments) -> float:
    """Evaluate ``cmd`` from sums."""
    cross, *norms = [float(sums.raw(sides).square().sum()) for sides in ("xy", "xx", "yy")]
    for name, norm in zip("xy", norms, strict=True):
        if not norm > 0:
            raise UndefinedScoreError(f"{sums.operation}: {name} must not be all zeros")
    return 1 - cross / (math.sqrt(norms[0]) * math.sqrt(norms[1]))


def centered_cmd_of_moments(sums: Moments) -> float:
    """Evaluate ``centered_cmd`` from sums."""
    return 1 - cka_of_moments(sums)


def _ratio(sums: Moments, cross: float, norms: list[float], *, added: float = 0.0) -> float:
    """Return cross / (sqrt(norms of x and y) + added); the norms must be positive."""
    for name, norm in zip("xy", norms, strict=True):
        if not norm > 0:
            raise does_not_vary(sums.operation, name)
    return cross / (math.sqrt(norms[0]) * math.sqrt(norms[1]) + added)


def _hsic_norms(sums: Moments) -> list[float]:
    """Return HSIC_1 of x and of y with themselves; 0 where centred rows are nothing but rounding."""
    if sums.n < 4:
        raise ValueError(f"{sums.operation}: needs at least 4 rows, got {sums.n}")
    return [sums.hsic(2 * side) if sums.varies(side) else 0.0 for side in "xy"]
