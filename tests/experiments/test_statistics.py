"""Statistics of a report against SciPy, values worked out by hand, exact enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from modalign.experiments.sweep.statistics import (
    Estimate,
    best_column,
    best_column_range,
    mean_difference,
    mean_interval,
    paired_gain,
    trend,
)

UP, DOWN, NEITHER = Estimate(0.02, 0.01, 0.03), Estimate(-0.02, -0.03, -0.01), Estimate(0.01, -0.01, 0.03)
NONE = Estimate(0.0, 0.0, 0.0)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 31])
def test_mean_interval_is_that_of_scipy(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(values) == pytest.approx((values.mean(), expected.low, expected.high), rel=1e-12)


def test_mean_difference_has_the_interval_of_welch() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=5), rng.normal(1, 3, 3)
    expected = stats.ttest_ind(after, before, equal_var=False).confidence_interval()
    _, low, high = mean_difference(after, before)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert (low, high) == pytest.approx((0.255, 6.889), abs=5e-4)


def test_mean_difference_without_variance_or_of_one_value() -> None:
    assert mean_difference([0.5, 0.5], [0.25, 0.25, 0.25]) == (0.25, 0.25, 0.25)
    assert mean_difference([0.5, 0.5], [0.25]) == (0.25, None, None)
    one_varies = mean_difference([0.5, 0.5], [0.2, 0.3])
    assert one_varies.low is not None
    assert one_varies.low < one_varies.mean == pytest.approx(0.25)


def test_mean_interval_by_hand() -> None:
    # mean 3, variance 10 / 4, t(4) = 2.776445
    estimate = mean_interval([1, 2, 3, 4, 5])
    half = 2.776445 * math.sqrt(2.5 / 5)
    assert estimate == pytest.approx((3, 3 - half, 3 + half), rel=1e-6)
    assert estimate.half_width == pytest.approx(half, rel=1e-6)


def test_one_value_gives_no_interval() -> None:
    estimate = mean_interval([0.7])
    assert estimate == (0.7, None, None)
    assert estimate.half_width is None
    assert not estimate.positive
    assert not estimate.negative


@pytest.mark.parametrize("values", [[], [[0.1, 0.2]]])
def test_mean_interval_wants_a_list(values: list[object]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval(values)


def test_an_amount_that_a_seed_adds_to_both_strengths_cancels() -> None:
    before = np.array([0.5, 0.6, 0.9, 0.2])
    assert paired_gain(before + 0.03, before) == pytest.approx((0.03, 0.03, 0.03))
    assert paired_gain(before, before) == (0, 0, 0)


def test_paired_gain_wants_the_same_seeds() -> None:
    with pytest.raises(ValueError, match=r"\(3,\), \(2,\)"):
        paired_gain([1, 2, 3], [1, 2])


def test_the_paired_interval_covers_the_true_gain_in_95_of_100() -> None:
    rng = np.random.default_rng(7)
    trials, seeds, gain = 4000, 5, 0.02
    level = rng.normal(0.7, 0.05, (trials, seeds))
    before = level + rng.normal(0, 0.01, (trials, seeds))
    after = level + gain + rng.normal(0, 0.01, (trials, seeds))
    covered = 0
    for a, b in zip(after, before, strict=True):
        _, low, high = paired_gain(a, b)
        assert low is not None
        assert high is not None
        covered += low <= gain <= high
    # four standard errors of a share of 0.95 among the trials
    assert covered / trials == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / trials))


def test_the_best_strength_has_the_highest_mean_over_seeds() -> None:
    # the second column wins most seeds, the third the mean
    assert best_column(np.array([[0.1, 0.5, 0.4], [0.1, 0.5, 0.4], [0.1, 0.2, 0.9]])) == 2


def test_of_equal_strengths_the_smallest_is_best() -> None:
    row = [0.1 + 0.2, 0.3, 0.3]  # 0.1 + 0.2 is not 0.3 in binary
    assert best_column(np.array([row, row, row])) == 0
    assert best_column_range(np.array([row, row, row])) == (0, 0)


def test_the_range_of_the_best_strength_agrees_with_every_possible_resample() -> None:
    validation = np.random.default_rng(3).random((4, 7))
    chosen = sorted(best_column(validation[list(rows)]) for rows in itertools.product(range(4), repeat=4))
    low, high = chosen[int(0.025 * len(chosen))], chosen[math.ceil(0.975 * len(chosen))]
    assert best_column_range(validation, resamples=40_000) == (low, high)


def test_the_range_is_one_strength_when_every_seed_agrees() -> None:
    assert best_column_range(np.array([[0.1, 0.9, 0.3]] * 3) + np.array([[0.0], [0.05], [0.1]])) == (1, 1)


def test_the_range_spans_the_best_strengths_of_two_seeds() -> None:
    # a quarter of the resamples are the first seed twice, a quarter the second twice
    assert best_column_range(np.array([[0.9, 0.5, 0.1], [0.1, 0.5, 0.91]])) == (0, 2)


def test_one_seed_gives_no_range() -> None:
    assert best_column_range(np.array([[0.1, 0.9]])) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 9))
def test_the_range_holds_for_a_shift_of_each_seed_and_repeats(seed: int, seeds: int, strengths: int) -> None:
    rng = np.random.default_rng(seed)
    validation = rng.random((seeds, strengths)).round(3)
    columns = best_column_range(validation, resamples=500)
    assert columns is not None
    assert columns == best_column_range(validation, resamples=500)
    # the same amount on a whole row changes no comparison of columns
    assert columns == best_column_range(validation + rng.integers(0, 4, (seeds, 1)), resamples=500)
    assert 0 <= columns[0] <= columns[1] < strengths


@pytest.mark.parametrize(
    ("gain", "end", "drop", "expected"),
    [
        (UP, UP, NEITHER, "rises"),
        (UP, UP, NONE, "rises"),  # the strongest is the best
        (NEITHER, UP, NEITHER, "rises"),
        (UP, NEITHER, DOWN, "peaks between"),
        (UP, DOWN, DOWN, "peaks between"),
        (UP, UP, DOWN, "peaks between"),
        (NONE, DOWN, DOWN, "falls"),  # the baseline is the best
        (NEITHER, DOWN, DOWN, "falls"),
        (NEITHER, NEITHER, NEITHER, "undecided"),  # the intervals hold changes of more than a point
        (NEITHER, NEITHER, DOWN, "undecided"),
        (Estimate(0.001, -0.004, 0.006), Estimate(0.0, -0.009, 0.009), NEITHER, "flat"),
        (Estimate(0.001, -0.004, 0.006), Estimate(0.0, -0.011, 0.009), NEITHER, "undecided"),
        (NONE, NONE, NONE, "flat"),
        (Estimate(0.5, None, None), Estimate(0.5, None, None), Estimate(0.0, None, None), None),
    ],
)
def test_trend_by_the_written_rules(gain: Estimate, end: Estimate, drop: Estimate, expected: str | None) -> None:
    assert trend(gain, end, drop) == expected
