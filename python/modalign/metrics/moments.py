"""Alignment scores from sums over rows: streamed once, in float64, nothing of n x n.

With X and Y centred, all of them come from X'X, Y'Y, X'Y and a few sums of the rows' squared lengths. ``moments`` reads
the rows once and adds these up; every metric is a function of the sums.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.arguments import FLOATS
from modalign.neighbors import as_tensor
from modalign.sources import Rows, open_rows

__all__ = [
    "OF_MOMENTS",
    "Moments",
    "cca",
    "centered_cmd",
    "cka",
    "cmd",
    "linear_r2",
    "moments",
    "moments_of_parts",
    "procrustes",
    "pwcca",
    "rv",
    "svcca",
    "unbiased_cka",
]

BLOCK_BYTES = 1 << 25  # float64 copies of a block of rows of x and y


def cka(x: Any, y: Any) -> float:
    """Linear centred kernel alignment, streamed through feature space: no n x n kernel is formed.

        |X' Y|_F^2 / (|X' X|_F |Y' Y|_F)      for centred columns

    x, y: (n, d_x) and (n, d_y), row i of both is the same item: NumPy (memory-mapped too), torch, or files as
    ``modalign.sources.open_rows`` takes them. Returns a number from 0 to 1, from float64 sums of one pass.
    It grows with width over n for unrelated representations; ``unbiased_cka`` does not.
    Peak memory: 8 (d_x d_y + d_x^2 + d_y^2) bytes three times and a block of 32 MB. Time O(n d^2).
    Raises ValueError for different numbers of rows, NaN or inf, or a representation that is constant.
    Source: Kornblith et al. 2019 (arXiv:1905.00414), equation 4.

    Example:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(modalign.cka(x, 2 * x + 1), 12)
        1.0
    """
    return _cka(moments(x, y, "cka"))


def unbiased_cka(x: Any, y: Any) -> float:
    """Linear CKA from the unbiased estimator of HSIC: zero in the mean for unrelated representations of any width.

    With K = X X' and L = Y Y' without their diagonals,

        HSIC_1(K, L) = (tr K L + 1'K1 1'L1 / ((n-1) (n-2)) - 2 / (n-2) 1'K L1) / (n (n-3))
        CKA = HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L))

    and every term is a sum over features: nothing n x n is formed. It can be slightly negative.
    x, y, cost and memory: as in ``cka``, n >= 4.
    Raises ValueError as ``cka``, for n < 4, and where an HSIC_1 of a representation with itself is not positive.
    Source: Song et al. 2012 for the estimator; Nguyen et al. 2021 (arXiv:2010.15327) for its use in CKA.

    Example:
        >>> import numpy as np, modalign
        >>> rng = np.random.default_rng(0)
        >>> abs(modalign.unbiased_cka(rng.normal(size=(200, 50)), rng.normal(size=(200, 50)))) < 0.1
        True
    """
    return _unbiased_cka(moments(x, y, "unbiased_cka"))


def rv(x: Any, y: Any, *, adjusted: bool = False) -> float:
    """The RV coefficient, which linear ``cka`` is another name for.

        tr(S_xy S_yx) / sqrt(tr S_xx^2 tr S_yy^2)

    adjusted: the modified coefficient RV2, the same of X X' and Y Y' without their diagonals, which does not grow with
    width; from -1 to 1. x, y, cost, memory and errors: as in ``cka``.
    Source: Robert and Escoufier 1976; Smilde et al. 2009 for RV2.

    Example:
        >>> import numpy as np
        >>> from modalign.metrics.moments import rv
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(rv(x, 2 * x), 12), round(rv(x, 2 * x, adjusted=True), 12)
        (1.0, 1.0)
    """
    found = moments(x, y, "rv")
    if not adjusted:
        return _cka(found)
    own = [found.square(2 * side) - found.fourth(2 * side) for side in "xy"]
    return _ratio("rv", found.square("xy") - found.fourth("xy"), *own)


def cca(x: Any, y: Any, *, squared: bool = False) -> float:
    """The mean canonical correlation, over as many pairs of directions as the smaller rank.

        mean_i rho_i      rho: singular values of S_xx^(-1/2) S_xy S_yy^(-1/2)

    Directions of less than 1e-10 of the largest variance are left out. It is the same after any invertible linear map
    of either representation. With d_x + d_y near n it is high for unrelated ones: take ``svcca``.
    squared: the mean of rho_i^2. x, y, memory: as in ``cka``. Time O(n d^2 + d^3). Returns a number from 0 to 1.
    Raises ValueError as ``cka``, and where a rank is n - 1 or more, so that every correlation would be 1.
    Source: Hotelling 1936; Kornblith et al. 2019 (arXiv:1905.00414), table 1.

    Example:
        >>> import numpy as np
        >>> from modalign.metrics.moments import cca
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(cca(x, x @ np.array([[1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 3, 1], [1, 0, 0, 1]])), 12)
        1.0
    """
    rho = _canonical("cca", moments(x, y, "cca"))[0]
    return float((rho.square() if squared else rho).mean())


def svcca(x: Any, y: Any, *, variance: float = 0.99, components: int | None = None, standardize: bool = False) -> float:
    """``cca`` of the leading principal components of each representation.

    variance: keep the fewest components that hold this share of the variance. components: keep so many instead (the
    code of Huh et al. 2024 standardises the columns and keeps 10: components=10, standardize=True).
    standardize: divide every column by its standard deviation first; constant columns stay.
    x, y, cost, memory and errors: as in ``cca``; ValueError for a variance or a number of components out of range.
    Source: Raghu et al. 2017 (arXiv:1706.05806).

    Example:
        >>> import numpy as np
        >>> from modalign.metrics.moments import svcca
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(svcca(x, 2 * x, components=2), 12)
        1.0
    """
    if not 0 < variance <= 1:
        raise ValueError(f"svcca: variance must be above 0 and at most 1, got {variance}")
    found = moments(x, y, "svcca")
    most = min(len(found.xx), len(found.yy))
    if components is not None and not 1 <= components <= most:
        raise ValueError(f"svcca: components must be between 1 and the smaller width {most}, got {components}")
    return _svcca(found, variance, components, standardize)


def pwcca(x: Any, y: Any) -> float:
    """Canonical correlations weighted by how much of x each canonical direction of x accounts for.

        sum_i a_i rho_i / sum_i a_i      a_i = sum_j |<h_i, x_j>|,  h_i: canonical variables of x, x_j: columns of x

    The weights are x's: it is not symmetric. x, y, cost, memory, errors: as in ``cca``. Returns a number from 0 to 1.
    Source: Morcos et al. 2018 (arXiv:1806.05759).

    Example:
        >>> import numpy as np
        >>> from modalign.metrics.moments import pwcca
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(pwcca(x, 3 * x), 12)
        1.0
    """
    return _pwcca(moments(x, y, "pwcca"))


def procrustes(x: Any, y: Any) -> float:
    """How well a rotation and a scale turn one representation into the other.

        |X' Y|_* / (|X|_F |Y|_F) = 1 - d^2 / 2      for centred columns, |.|_* the sum of singular values

    d: the Procrustes distance of the representations scaled to length 1, widths made equal by columns of zeros.
    x, y, memory and errors: as in ``cka``. Time O(n d^2 + d^3). Returns a number from 0 to 1.
    Source: Schonemann 1966; Williams et al. 2021 (arXiv:2110.14739); Ding et al. 2021 (arXiv:2108.01661).

    Example:
        >>> import numpy as np
        >>> from modalign.metrics.moments import procrustes
        >>> x = np.random.default_rng(0).normal(size=(50, 2))
        >>> round(procrustes(x, 5 * x[:, ::-1] + 1), 12)
        1.0
    """
    return _procrustes(moments(x, y, "procrustes"))


def cmd(x: Any, y: Any) -> float:
    """The correlation-matrix distance of the Gram matrices of the rows as they are: 0 for equal ones, 1 for orthogonal.

        1 - tr(K L) / (|K|_F |L|_F) = 1 - |X' Y|_F^2 / (|X' X|_F |Y' Y|_F)      K = X X', L = Y Y', not centred

    A distance: lower is closer. A mean far from 0 in both makes it small whatever else they hold: ``centered_cmd``.
    x, y, cost, memory: as in ``cka``. Raises ValueError as ``cka``, but for a representation of zeros only.
    Source: Herdin et al. 2005; its use for Gram matrices, Tjandrasuwita et al. 2025 (arXiv:2502.16282).

    Example:
        >>> import numpy as np
        >>> from modalign.metrics.moments import cmd
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> abs(cmd(x, 2 * x)) < 1e-12
        True
    """
    return _cmd(moments(x, y, "cmd"))


def centered_cmd(x: Any, y: Any) -> float:
    """``cmd`` of centred rows: 1 - ``cka``. x, y, cost, memory, errors and source: as there.

    Example:
        >>> import numpy as np
        >>> from modalign.metrics.moments import centered_cmd
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> abs(centered_cmd(x, 2 * x + 9)) < 1e-12
        True
    """
    return 1 - _cka(moments(x, y, "centered_cmd"))


def linear_r2(x: Any, y: Any) -> float:
    """The share of y's variance that a linear regression on x explains, on the same rows.

        |Q_x' Y|_F^2 / |Y|_F^2      for centred columns, Q_x an orthonormal basis of the columns of X

    It is not symmetric, and grows with d_x / n for unrelated representations.
    x, y, memory: as in ``cka``. Time O(n d^2 + d^3). Returns a number from 0 to 1.
    Raises ValueError as ``cka``, and where x's rank is n - 1 or more, so that it would be 1.
    Source: Kornblith et al. 2019 (arXiv:1905.00414), table 1, with x and y exchanged.

    Example:
        >>> import numpy as np
        >>> from modalign.metrics.moments import linear_r2
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(linear_r2(x, x[:, :2] + x[:, 2:]), 12)
        1.0
    """
    return _linear_r2(moments(x, y, "linear_r2"))


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Sums over n rows of u = x - a and v = y - b, which add up: a and b are near the means, the same for all parts,
    so that float64 keeps its digits when the means are large.

    sums: "u", "v", "uu" = sum u u', "uv", "vv", and with the squared lengths p = |u|^2, q = |v|^2 "p", "q", "pp", "pq",
    "qq", "pu", "pv", "qu", "qv".
    """

    n: int
    operation: str
    sums: dict[str, Tensor]
    a: Tensor
    b: Tensor

    def __add__(self, other: Moments) -> Moments:
        sums = {name: total + other.sums[name] for name, total in self.sums.items()}
        return Moments(self.n + other.n, self.operation, sums, self.a, self.b)

    @cached_property
    def xx(self) -> Tensor:
        """X'X of centred columns [d_x, d_x]; so yy and xy."""
        return self._centred("u", "u")

    @cached_property
    def yy(self) -> Tensor:
        return self._centred("v", "v")

    @cached_property
    def xy(self) -> Tensor:
        return self._centred("u", "v")

    def raw(self, which: str) -> Tensor:
        """X'X, Y'Y or X'Y of the rows as they are."""
        shift = {"x": self.a + self.sums["u"] / self.n, "y": self.b + self.sums["v"] / self.n}
        return self.product(which) + self.n * torch.outer(shift[which[0]], shift[which[1]])

    def product(self, which: str) -> Tensor:
        product: Tensor = getattr(self, which)
        return product

    def square(self, which: str) -> float:
        """tr(K L) of the centred kernels: |X'Y|_F^2 for "xy"."""
        return float(self.product(which).square().sum())

    def trace(self, side: str) -> float:
        """sum_i |x_i|^2 of centred rows."""
        return float(self.product(2 * side).diagonal().sum())

    def fourth(self, which: str) -> float:
        """sum_i |x_i|^2 |y_i|^2 of centred rows, for "xy", "xx" or "yy"."""
        (u, p), (v, q) = ({"x": ("u", "p"), "y": ("v", "q")}[side] for side in which)
        s, n = self.sums, self.n
        d, e = s[u] / n, s[v] / n
        dd, ee = d @ d, e @ e
        # (p - 2 u.d + dd) (q - 2 v.e + ee), summed
        total = s["".join(sorted(p + q))] - 2 * (e @ s[p + v]) + ee * s[p] - 2 * (d @ s[q + u]) + dd * s[q]
        total += 4 * (d @ s[u + v] @ e)
        total += n * dd * ee - 2 * ee * (d @ s[u]) - 2 * dd * (e @ s[v])
        return float(total)

    def traces(self, side: str) -> tuple[float, float, float]:
        """tr K, tr K^2 and sum_i K_ii^2 of the centred kernel, as ``modalign.significance.cka_null`` takes them."""
        return self.trace(side), self.square(2 * side), self.fourth(2 * side)

    def hsic(self, which: str) -> float:
        """HSIC_1 times n (n - 3), which cancels in CKA; with centred rows sum_j K_ij over j != i is -|x_i|^2."""
        n, fourth = self.n, self.fourth(which)
        total = self.trace(which[0]) * self.trace(which[1])
        return self.square(which) - fourth + total / ((n - 1) * (n - 2)) - 2 / (n - 2) * fourth

    def _centred(self, one: str, two: str) -> Tensor:
        s = self.sums
        return s[one + two] - torch.outer(s[one], s[two]) / self.n


def moments(x: Any, y: Any, operation: str = "moments") -> Moments:
    """The sums that every metric of this file is a function of, from one pass over the rows.

    x, y, memory and errors: as in ``cka``. operation: what errors begin with.

    Example:
        >>> import numpy as np
        >>> from modalign.metrics.moments import OF_MOMENTS, moments
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> found = moments(x, 2 * x)
        >>> [round(OF_MOMENTS[name](found), 12) for name in ("cka", "cca", "linear_r2")]
        [1.0, 1.0, 1.0]
    """
    return moments_of_parts(x, y, None, operation)[0]


def moments_of_parts(x: Any, y: Any, parts: Tensor | None, operation: str = "moments") -> list[Moments]:
    """The sums of each part of the rows, from one pass; added up they are ``moments``. parts: (n,) from 0."""
    left, right = (_reader(operation, name, rows) for name, rows in (("x", x), ("y", y)))
    if left.n != right.n:
        raise ValueError(
            f"{operation}: x and y must be (n, d_x) and (n, d_y), row i of both the same item, "
            f"got {(left.n, left.d)} and {(right.n, right.d)}"
        )
    count = 1 if parts is None else int(parts.max()) + 1
    block = max(1, BLOCK_BYTES // (8 * (left.d + right.d)))
    first = [rows.read(0, min(block, rows.n)).mean(0) for rows in (left, right)]
    found: list[Moments | None] = [None] * count
    for start in range(0, left.n, block):
        stop = min(start + block, left.n)
        u, v = (rows.read(start, stop) - shift for rows, shift in zip((left, right), first, strict=True))
        labels = None if parts is None else parts[start:stop]
        for part in range(count):
            some = _sums(*((u, v) if labels is None else (u[labels == part], v[labels == part])))
            rows_here = stop - start if labels is None else int((labels == part).sum())
            one = Moments(rows_here, operation, some, *first)
            before = found[part]
            found[part] = one if before is None else before + one
    return [part for part in found if part is not None]


def _sums(u: Tensor, v: Tensor) -> dict[str, Tensor]:
    p, q = u.square().sum(1), v.square().sum(1)
    return {
        "u": u.sum(0), "v": v.sum(0), "uu": u.T @ u, "uv": u.T @ v, "vv": v.T @ v,
        "p": p.sum(), "q": q.sum(), "pp": p @ p, "pq": p @ q, "qq": q @ q,
        "pu": p @ u, "pv": p @ v, "qu": q @ u, "qv": q @ v,
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Reader:
    n: int
    d: int
    read: Callable[[int, int], Tensor]


def _reader(operation: str, name: str, rows: Any) -> _Reader:
    """Rows as float64 blocks. Files and memory maps are looked at once only, arrays are checked first."""
    if not isinstance(rows, (str, Path, Rows, np.memmap)):
        table = as_tensor(operation, name, rows)
        return _Reader(len(table), table.shape[1], lambda start, stop: table[start:stop].double())
    source = open_rows(rows, name)
    if source.dtype not in FLOATS:
        raise TypeError(f"{operation}: {name} must be floating point, got {source.dtype}")
    return _Reader(*source.shape, lambda start, stop: source.read(start, stop).double())


def _ratio(operation: str, cross: float, left: float, right: float) -> float:
    for name, own in (("x", left), ("y", right)):
        if not own > 0:
            raise ValueError(f"{operation}: {name} does not vary between rows, so its alignment is not defined")
    return cross / (math.sqrt(left) * math.sqrt(right))


def _cka(found: Moments) -> float:
    return _ratio(found.operation, found.square("xy"), *(_own(found, side) for side in "xy"))


def _own(found: Moments, side: str) -> float:
    """tr K^2, 0 where the centred rows are nothing but rounding."""
    near, n = (found.a, "p") if side == "x" else (found.b, "q"), found.n
    scale = float(near[0].square().sum()) * n + float(found.sums[near[1]])
    return found.square(2 * side) if found.trace(side) > 1e-28 * scale else 0.0


def _unbiased_cka(found: Moments) -> float:
    if found.n < 4:
        raise ValueError(f"{found.operation}: needs at least 4 rows, got {found.n}")
    own = [found.hsic(2 * side) if _own(found, side) else 0.0 for side in "xy"]
    return _ratio(found.operation, found.hsic("xy"), *own)


def _procrustes(found: Moments) -> float:
    own = [found.trace(side) if _own(found, side) else 0.0 for side in "xy"]
    return _ratio(found.operation, float(torch.linalg.svdvals(found.xy).sum()), *own)


def _cmd(found: Moments) -> float:
    squares = [float(found.raw(which).square().sum()) for which in ("xy", "xx", "yy")]
    for name, own in zip("xy", squares[1:], strict=True):
        if not own > 0:
            raise ValueError(f"{found.operation}: {name} must not be all zeros")
    return 1 - squares[0] / (math.sqrt(squares[1]) * math.sqrt(squares[2]))


def _whitener(
    operation: str, name: str, found: Moments, covariance: Tensor, varies: bool, variance: float = 1.0,
    components: int | None = None,
) -> Tensor:  # fmt: skip
    """W [d, r] with W' S W = 1 over the leading directions."""
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0), vectors.flip(1)
    if not varies:
        raise ValueError(f"{operation}: {name} does not vary between rows, so its alignment is not defined")
    rank = int((values > 1e-10 * values[0]).sum())
    if components is not None:
        rank = min(rank, components)
    elif variance < 1:
        share = values.clamp_min(0).cumsum(0) / values.clamp_min(0).sum()
        rank = min(rank, int((share < variance - 1e-12).sum()) + 1)
    if rank >= found.n - 1:
        raise ValueError(
            f"{operation}: {name} has {rank} directions and {found.n} rows, so every correlation would be 1; take more "
            "rows, or svcca with fewer components"
        )
    whitener: Tensor = vectors[:, :rank] / values[:rank].sqrt()
    return whitener


def _canonical(
    operation: str, found: Moments, variance: float = 1.0, components: int | None = None, standardize: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The canonical correlations, and of x the whitener and the directions in it."""
    xx, yy, xy = found.xx, found.yy, found.xy
    varies = [_own(found, side) > 0 for side in "xy"]
    if standardize:
        x_scale, y_scale = (
            torch.where(own.diagonal() > 0, own.diagonal().clamp_min(0).rsqrt(), 1.0) for own in (xx, yy)
        )
        xx, yy = xx * torch.outer(x_scale, x_scale), yy * torch.outer(y_scale, y_scale)
        xy = xy * torch.outer(x_scale, y_scale)
    left = _whitener(operation, "x", found, xx, varies[0], variance, components)
    right = _whitener(operation, "y", found, yy, varies[1], variance, components)
    u, rho, _ = torch.linalg.svd(left.T @ xy @ right, full_matrices=False)
    return rho, left, u


def _svcca(found: Moments, variance: float = 0.99, components: int | None = None, standardize: bool = False) -> float:
    return float(_canonical(found.operation, found, variance, components, standardize)[0].mean())


def _pwcca(found: Moments) -> float:
    rho, left, u = _canonical(found.operation, found)
    weights = (u.T @ left.T @ found.xx).abs().sum(1)
    return float(weights @ rho / weights.sum())


def _linear_r2(found: Moments) -> float:
    left = _whitener(found.operation, "x", found, found.xx, _own(found, "x") > 0)
    if not _own(found, "y"):
        raise ValueError(f"{found.operation}: y does not vary between rows, so its alignment is not defined")
    return float((left.T @ found.xy).square().sum()) / found.trace("y")


OF_MOMENTS: dict[str, Callable[[Moments], float]] = {
    "cka": _cka,
    "unbiased_cka": _unbiased_cka,
    "cca": lambda found: float(_canonical(found.operation, found)[0].mean()),
    "svcca": _svcca,
    "pwcca": _pwcca,
    "procrustes": _procrustes,
    "rv": _cka,
    "cmd": _cmd,
    "centered_cmd": lambda found: 1 - _cka(found),
    "linear_r2": _linear_r2,
}
