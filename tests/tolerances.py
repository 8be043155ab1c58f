"""How close is close enough: one table, with the reason beside each number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Tolerance:
    sums: float  # a log-sum-exp or a loss, relative to 1 + the largest |x| |y| / temperature, which bounds the logits
    gradient: float  # a gradient, relative to the largest entry of its reference


# Inputs are taken as stored, so only what happens after loading counts.
TOLERANCE = {
    # a few hundred roundings of 2^-53 in sums of d <= 4,096 products and n <= 5,000 exponentials
    torch.float64: Tolerance(sums=1e-13, gradient=1e-11),
    # the same with 2^-24 = 6e-8; exp turns an absolute error of a logit (up to 40 here) into a relative one
    torch.float32: Tolerance(sums=2e-6, gradient=3e-5),
    # products of half-precision numbers are exact in float32, where sums are kept; a gradient is rounded once more when
    # it is returned: 2^-11 for float16 (and its smallest steps, 6e-8, for tiny ones), 2^-8 for bfloat16
    torch.float16: Tolerance(sums=2e-6, gradient=2**-10),
    torch.bfloat16: Tolerance(sums=2e-6, gradient=2**-7),
}


def assert_close(actual: Tensor, expected: Tensor, relative_to: float, tolerance: float, what: str) -> None:
    error = (actual.double() - expected.double()).abs()
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, wanted {tuple(expected.shape)}"
    assert bool(actual.isfinite().all()), f"{what}: not finite"
    worst = float(error.max()) / relative_to
    assert worst <= tolerance, f"{what}: off by {worst:.2e} of {relative_to:.3g}, allowed {tolerance:.0e}"


def refuses(backend: str, dtype: torch.dtype, call: Callable[[], object]) -> bool:
    """Whether the backend does not take the dtype; if so, that it says so instead of answering."""
    if not (backend == "triton" and dtype == torch.float64):
        return False
    with pytest.raises(NotImplementedError, match=r"triton: dtype torch\.float64 \(takes"):
        call()
    return True
