"""Tolerances by dtype, each with its reason, and the comparisons that use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Largest allowed errors of a dtype."""

    sums: float  # a log-sum-exp or a loss, relative to 1 + the largest |x| |y| / temperature, which bounds the logits
    gradient: float  # a gradient, relative to the largest entry of its reference


# The reference takes the same stored inputs, so that only errors after loading them count.
TOLERANCE = {
    # a few hundred roundings of 2^-53 in sums of d <= 4,096 products and n <= 5,000 exponentials
    torch.float64: Tolerance(sums=1e-13, gradient=1e-11),
    # the same with 2^-24 = 6e-8; exp turns an absolute error of a logit (at most 40 here) into a relative error
    torch.float32: Tolerance(sums=2e-6, gradient=3e-5),
    # products of half-precision numbers are exact in float32, where sums are kept; a gradient is rounded once more when
    # it is returned: 2^-11 for float16 (and its smallest steps, 6e-8, for tiny ones), 2^-8 for bfloat16
    torch.float16: Tolerance(sums=2e-6, gradient=2**-10),
    torch.bfloat16: Tolerance(sums=2e-6, gradient=2**-7),
}


def assert_close(actual: Tensor, expected: Tensor, relative_to: float, tolerance: float, name: str) -> None:
    """Check that ``actual`` is finite, has the shape of ``expected``, and differs by at most the tolerance."""
    error = (actual.double() - expected.double()).abs()
    assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    assert bool(actual.isfinite().all()), f"{name}: not finite"
    worst = float(error.max()) / relative_to
    assert worst <= tolerance, f"{name}: error {worst:.2e} relative to {relative_to:.3g}, allowed {tolerance:.0e}"


def refuses(backend: str, dtype: torch.dtype, call: Callable[[], object]) -> bool:
    """Return whether the backend does not support the dtype, after checking that the call then raises the error."""
    if not (backend == "triton" and dtype == torch.float64):
        return False
    with pytest.raises(NotImplementedError, match=r"triton: dtype torch\.float64 \(takes"):
        call()
    return True
