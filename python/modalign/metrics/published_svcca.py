"""SVCCA as published programs compute it: ten components, found by a randomised decomposition."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modalign.common.checks import torch_seed, whole_number
from modalign.common.types import Array
from modalign.metrics.inputs import PairedRows
from modalign.metrics.tiles import paired_tables
from modalign.metrics.undefined import UndefinedScoreError

__all__ = ["relabelled_svcca_code", "svcca_code", "svcca_code_of_rows"]

COMPONENTS = 10
POWER_ITERATIONS = 2
RANK = 1e-10  # singular values below this share of the largest are rounding


def svcca_code(x: Array, y: Array, *, components: int = COMPONENTS, seed: int = 0) -> float:
    """Return SVCCA as the programs of Huh et al. and Tjandrasuwita et al. compute it, for comparing with their numbers.

        U_x, U_y: left singular vectors of the standardised columns, by a randomised SVD of ``components`` directions
        mean_i rho_i      rho: canonical correlations of U_x and U_y

    The randomised SVD (Halko et al. 2011, two power iterations, no oversampling) is that of ``torch.svd_lowrank``,
    which these programs call. Where the spectrum is flat it misses the leading directions, so that the score differs
    from ``svcca(components=10, standardize=True)``, which is exact, and from seed to seed: by up to 0.15 and 0.02.

    Args:
        x: (n, d_x), NumPy array or tensor, floating point.
        y: (n, d_y), row i is the same item as row i of x.
        components: The number of directions.
        seed: Seed of the random directions; the programs draw new ones in every call.

    Returns:
        A number from 0 to 1. Time is O(n d components); peak memory is that of float64 copies of x and y twice.

    Raises:
        TypeError: As ``modalign.cka``.
        ValueError: As ``modalign.cka``, for a representation with fewer directions that vary, and for n that is not
            above ``components`` + 1.

    Source:
        metrics.py of Huh et al. 2024 (arXiv:2405.07987) and align_metrics.py of Tjandrasuwita et al. 2025
        (arXiv:2502.16282).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import svcca_code
        >>> x = np.random.default_rng(0).normal(size=(50, 12))
        >>> round(svcca_code(x, x), 2), round(svcca_code(x, x[:, :11], seed=1), 2)  # x and y have other directions
        (0.92, 0.87)
    """
    left, right = _both(x, y, components, seed)
    return _mean_correlation(left, right)


def svcca_code_of_rows(rows: PairedRows, components: int = COMPONENTS) -> float:
    """Evaluate ``svcca_code`` for the registry."""
    return svcca_code(rows.x, rows.y, components=components)


def relabelled_svcca_code(rows: PairedRows, components: int = COMPONENTS) -> Callable[[Tensor], float]:
    """Return the score of x and y[s] as a function of s, from directions that are found once."""
    left, right = _both(rows.x, rows.y, components, 0)
    return lambda s: _mean_correlation(left, right[s])


def _both(x: Array, y: Array, components: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the orthonormal directions (n, components) of both sides."""
    seed = torch_seed("svcca_code", seed)
    components = whole_number("svcca_code", "components", components, least=1)
    tables = paired_tables("svcca_code", x, y, components + 2)
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        _directions(table, side, components, generator=generator) for side, table in zip("xy", tables, strict=True)
    )
    return left, right


def _directions(table: Tensor, side: str, components: int, *, generator: torch.Generator) -> Tensor:
    """Return an orthonormal basis of the centred span of the singular vectors that a randomised SVD finds."""
    rows = table.double() - table.double().mean(0)
    rows = rows / (rows.std(0) + 1e-8)
    wide = rows.shape[0] < rows.shape[1]
    matrix = rows.T if wide else rows
    if components > min(matrix.shape):
        raise _too_few(side, min(matrix.shape), components)
    start = torch.randn(matrix.shape[1], components, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    if not bool(values[-1] > RANK * values[0]):
        raise _too_few(side, int((values > RANK * values[0]).sum()), components)
    found = right.T if wide else basis @ left
    centred: Tensor = torch.linalg.qr(found - found.mean(0)).Q
    return centred


def _too_few(side: str, directions: int, components: int) -> UndefinedScoreError:
    return UndefinedScoreError(
        f"svcca_code: {side} has {directions} directions that vary, got components = {components}; take fewer"
    )


def _mean_correlation(left: Tensor, right: Tensor) -> float:
    return float(torch.linalg.svdvals(left.T @ right).mean())
