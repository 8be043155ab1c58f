"""Alignment scores of two representations of the same items, by the field's names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modalign.neighbors import as_tensor, knn, neighbor_overlap

__all__ = ["cka", "mutual_knn", "unbiased_cka"]

BLOCK_ELEMENTS = 1 << 22  # float64 copies of a block of rows


def mutual_knn(x: Any, y: Any, k: int = 10, *, metric: str = "cosine", backend: str = "auto") -> float:
    """The mean share of the k nearest neighbours that the rows of x and the rows of y have in common.

        mean_i |N_k(x_i) & N_k(y_i)| / k

    Two unrelated representations of n items share k / (n - 1) of their neighbours in the mean.

    Args:
        x, y: (n, d_x) and (n, d_y), row i of both is the same item; NumPy (memory-mapped too) or torch, floating point.
        k: 1 <= k <= n - 1.
        metric, backend: as in ``modalign.knn``. Neighbours are exact, the row itself excluded by its id.

    Returns: a number from 0 to 1. Peak memory: that of one ``knn`` and two (n, k) graphs.
    Raises: TypeError and ValueError as ``modalign.knn``, and ValueError if the numbers of rows differ.
    Source: Huh et al. 2024 (arXiv:2405.07987), which takes the cosine of unit rows.

    Example:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> modalign.mutual_knn(x, 3 * x, k=5)
        1.0
    """
    _require_same_items("mutual_knn", x, y)
    graphs = [torch.as_tensor(knn(rows, k, metric=metric, backend=backend).indices) for rows in (x, y)]
    counts = neighbor_overlap(graphs[0], graphs[1].to(graphs[0].device), backend="auto")
    return float(counts[:, -1].double().mean()) / k


def cka(x: Any, y: Any) -> float:
    """Linear centred kernel alignment, streamed through feature space: no n x n kernel is formed.

        |X' Y|_F^2 / (|X' X|_F |Y' Y|_F)      for centred columns

    x, y: (n, d_x) and (n, d_y) as in ``mutual_knn``. Returns a number from 0 to 1, computed in float64 in two passes.
    It grows with width over n for unrelated representations; ``unbiased_cka`` does not.
    Peak memory O(d_x d_y + d_x^2 + d_y^2) and a block of rows. Time O(n d^2).
    Raises ValueError for different numbers of rows, NaN or inf, or a representation that is constant.
    Source: Kornblith et al. 2019 (arXiv:1905.00414), equation 4.

    Example:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(modalign.cka(x, 2 * x + 1), 12)
        1.0
    """
    moments = _Moments("cka", x, y)
    return _ratio("cka", moments.xy.square().sum(), moments.xx.square().sum(), moments.yy.square().sum())


def unbiased_cka(x: Any, y: Any) -> float:
    """Linear CKA from the unbiased estimator of HSIC: zero in the mean for unrelated representations of any width.

    With K = X X' and L = Y Y' without their diagonals,

        HSIC_1(K, L) = (tr K L + 1'K1 1'L1 / ((n-1) (n-2)) - 2 / (n-2) 1'K L1) / (n (n-3))
        CKA = HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L))

    and every term is a sum over features: nothing n x n is formed. It can be slightly negative.
    x, y: (n, d_x) and (n, d_y) as in ``mutual_knn``, n >= 4. Cost and memory as ``cka``.
    Raises ValueError as ``cka``, for n < 4, and where an HSIC_1 of a representation with itself is not positive.
    Source: Song et al. 2012 for the estimator; Nguyen et al. 2021 (arXiv:2010.15327) for its use in CKA.

    Example:
        >>> import numpy as np, modalign
        >>> rng = np.random.default_rng(0)
        >>> abs(modalign.unbiased_cka(rng.normal(size=(200, 50)), rng.normal(size=(200, 50)))) < 0.1
        True
    """
    moments = _Moments("unbiased_cka", x, y)
    if moments.n < 4:
        raise ValueError(f"unbiased_cka: needs at least 4 rows, got {moments.n}")
    return _ratio("unbiased_cka", moments.hsic("x", "y"), moments.hsic("x", "x"), moments.hsic("y", "y"))


class _Moments:
    """Sums over rows of centred features that linear HSIC is made of, in float64, two passes over blocks of rows.

    Centring changes neither estimator (both are invariant to it) and keeps float64's digits when the mean is large.
    """

    def __init__(self, operation: str, x: Any, y: Any) -> None:
        _require_same_items(operation, x, y)
        left, right = as_tensor(operation, "x", x), as_tensor(operation, "y", y)
        self.n = len(left)
        centers = [sum(block.sum(0) for block in _blocks(rows)) / self.n for rows in (left, right)]
        self.xx = left.new_zeros(left.shape[1], left.shape[1], dtype=torch.float64)
        self.yy = right.new_zeros(right.shape[1], right.shape[1], dtype=torch.float64)
        self.xy = left.new_zeros(left.shape[1], right.shape[1], dtype=torch.float64)
        squares: dict[str, list[Tensor]] = {"x": [], "y": []}
        block = max(1, BLOCK_ELEMENTS // max(left.shape[1], right.shape[1]))
        for a, b in zip(_blocks(left, block), _blocks(right, block), strict=True):
            a, b = a - centers[0], b - centers[1]  # noqa: PLW2901
            self.xx += a.T @ a
            self.yy += b.T @ b
            self.xy += a.T @ b
            squares["x"].append(a.square().sum(1))
            squares["y"].append(b.square().sum(1))
        self.squares = {name: torch.cat(parts) for name, parts in squares.items()}

    def hsic(self, a: str, b: str) -> Tensor:
        """HSIC_1 up to the factor 1 / (n (n - 3)), which cancels in CKA; with centred rows sum_j K_ij = -|x_i|^2."""
        product = {"xx": self.xx, "yy": self.yy, "xy": self.xy}[a + b]
        p, q, n = self.squares[a], self.squares[b], self.n
        trace = product.square().sum() - p @ q  # tr K L, diagonals removed
        return trace + p.sum() * q.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (p @ q)


def _blocks(rows: Tensor, block: int | None = None) -> list[Tensor] | Any:
    block = block or max(1, BLOCK_ELEMENTS // rows.shape[1])
    return (rows[start : start + block].double() for start in range(0, len(rows), block))


def _ratio(operation: str, cross: Tensor, left: Tensor, right: Tensor) -> float:
    for name, own in (("x", left), ("y", right)):
        if not float(own) > 0:
            raise ValueError(f"{operation}: {name} does not vary between rows, so its alignment is not defined")
    return float(cross / (left.sqrt() * right.sqrt()))


def _require_same_items(operation: str, x: Any, y: Any) -> None:
    shapes = [tuple(getattr(rows, "shape", ())) for rows in (x, y)]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][0] != shapes[1][0]:
        raise ValueError(
            f"{operation}: x and y must be (n, d_x) and (n, d_y), row i of both the same item, "
            f"got {shapes[0]} and {shapes[1]}"
        )
