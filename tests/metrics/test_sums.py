"""Sums over the rows: one pass, any block, any dtype, parts and relabelled rows."""

import numpy as np
import pytest
import torch
from tests.metrics.test_linear import EVALUATORS, centred, pair

from modalign.files.rows import Rows
from modalign.metrics.linear import (
    cca,
    cka,
    linear_r2,
    moments,
    moments_of_parts,
    procrustes,
    relabelled,
    unbiased_cka,
)
from modalign.metrics.sums import BLOCK_BYTES


def two_passes(x: np.ndarray, y: np.ndarray, kind: type) -> float:
    """Return CKA of rows that are centred first."""
    a, b = (rows.astype(kind) - rows.astype(kind).mean(0) for rows in (x, y))
    squares = [np.square(one.T @ two).sum() for one, two in ((a, b), (a, a), (b, b))]
    return float(squares[0] / np.sqrt(squares[1] * squares[2]))


def test_one_pass_is_as_good_as_two_for_rows_far_from_zero() -> None:
    """Mean / sd = 10^6: sums of squares about zero would lose twelve digits."""
    x, y = pair(500)
    x, y = x + 1e6, y - 1e6
    exact = two_passes(x, y, np.longdouble)
    assert abs(two_passes(x, y, np.float64) / exact - 1) < 1e-13
    assert abs(cka(x, y) / exact - 1) < 1e-13
    about_zero = np.square(x.T @ y - len(x) * np.outer(x.mean(0), y.mean(0))).sum()
    assert abs(about_zero / np.square(centred(x).T @ centred(y)).sum() - 1) > 1e-6
    shifted = x - x.mean(0), y - y.mean(0)
    for metric in (unbiased_cka, cca, linear_r2, procrustes):
        assert metric(x, y) == pytest.approx(metric(*shifted), rel=1e-9)


def test_a_first_block_unlike_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 256 of 5,000 rows lie 10^6 standard deviations from the others."""
    monkeypatch.setattr("modalign.metrics.sums.BLOCK_BYTES", 1)
    x, y = pair(5_000)
    x[:256] += 1e6
    assert abs(cka(x, y) / two_passes(x, y, np.longdouble) - 1) < 1e-12
    p, q = (np.square(centred(rows)).sum(1) for rows in (x, y))
    for which, expected in (("xy", p @ q), ("xx", p @ p)):
        assert moments(x, y).fourth(which) == pytest.approx(expected, rel=1e-11)


def test_fourth_moments() -> None:
    x, y = pair()
    sums = moments(x, y)
    p, q = (np.square(centred(z)).sum(1) for z in (x, y))
    for which, expected in (("xy", p @ q), ("xx", p @ p), ("yy", q @ q)):
        assert sums.fourth(which) == pytest.approx(expected, rel=1e-10)
    assert sums.traces("x") == pytest.approx((p.sum(), np.square(centred(x).T @ centred(x)).sum(), p @ p))


def test_rows_are_read_once() -> None:
    n, d = 50_000, 64
    table = torch.randn(n, d)
    fetched = []

    def fetch(start: int, stop: int) -> torch.Tensor:
        fetched.append(stop - start)
        return table[start:stop]

    assert 0.999 < cka(Rows("x", (n, d), torch.float32, fetch, None, 0), table) <= 1 + 1e-12
    assert n < sum(fetched) <= n + BLOCK_BYTES // (16 * d)  # and the first block again, after its mean


def test_a_constant_part_is_refused() -> None:
    x, y = pair(40)
    x[:10] = x[0]
    constant, other = moments_of_parts(x, y, (np.arange(40) >= 10).astype(int))
    assert 0 < EVALUATORS["cka"](other) < 1
    with pytest.raises(ValueError, match="x does not vary"):
        EVALUATORS["cka"](constant)


def test_mistakes_of_parts() -> None:
    x, y = pair(20)
    with pytest.raises(ValueError, match="only parts of one pass add up"):
        moments(x, y) + moments(x + 1, y)
    with pytest.raises(ValueError, match=r"moments: parts must be \(20,\) integers from 0, got \(19,\)"):
        moments_of_parts(x, y, np.zeros(19, dtype=int))
    with pytest.raises(ValueError, match="or some below 0"):
        moments_of_parts(x, y, np.arange(20) - 1)
    with pytest.raises(TypeError, match="parts must be integers, the part of each row, got torch"):
        moments_of_parts(x, y, np.zeros(20))


@pytest.mark.parametrize("name", EVALUATORS)
def test_sums_of_rows_paired_anew_are_those_of_the_new_pairs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalign.metrics.sums.FEWEST_ROWS", 16)
    monkeypatch.setattr("modalign.metrics.sums.BLOCK_BYTES", 1)
    x, y = pair()
    order = np.random.default_rng(1).permutation(len(y))
    sums = moments(x, y)
    before = EVALUATORS[name](sums)  # decompositions are made, and those of both sides together must not be kept
    anew = EVALUATORS[name](relabelled(sums, x, y[order]))
    assert anew == pytest.approx(EVALUATORS[name](moments(x, y[order])), rel=1e-10, abs=1e-12)
    assert abs(anew - before) > 1e-3
