"""Verdicts on tables whose answer is known: they can fail, succeed and stay open."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from modalign.experiments.studies.claims import Claim, every
from modalign.experiments.studies.measured import (
    Measured,
    curve_correlation,
    grid_correlation,
    mean_over_draws,
    median_correlation,
    pooled_correlation,
    pooled_trend,
    spearman,
    trend,
)


def claim(rule: str, value: float, low: float | None, high: float | None, **facts: Any) -> Claim:
    return Claim("a", "b", rule, value=value, low=low, high=high, **facts)


@pytest.mark.parametrize(
    ("rule", "facts", "value", "low", "high", "verdict"),
    [
        ("strong", {"paper": -0.9}, -0.8, -0.95, -0.5, "reproduced"),
        ("strong", {"paper": -0.9}, -0.3, -0.5, -0.1, "partly"),  # clear, but less than half as strong
        ("strong", {"paper": -0.9}, -0.8, -1.0, 0.1, "undecided"),
        ("strong", {"paper": 0.9}, -0.8, -1.0, -0.5, "not"),
        ("strong", {"paper": 0.9}, 0.1, -0.2, 0.4, "not"),  # half of the paper's is left out
        ("strong", {"paper": 0.9}, math.nan, -1.0, 1.0, "undecided"),
        ("sign", {"side": -1}, -0.2, -0.3, -0.1, "reproduced"),
        ("sign", {}, 0.0, -0.2, 0.2, "not"),
        ("sign", {}, 0.0, -0.4, 0.4, "undecided"),
        ("none", {"paper": 0.0}, 0.1, -0.1, 0.25, "reproduced"),
        ("none", {"paper": 0.0}, 0.1, -0.2, 0.4, "undecided"),  # within 0.3 of 0, but not surely
        ("none", {"paper": 0.0}, 0.6, 0.4, 0.9, "not"),
        ("above", {"bound": 0.5, "paper": 0.9}, 0.8, 0.6, 1.0, "reproduced"),
        ("above", {"bound": 0.5, "paper": 0.9}, 0.6, 0.4, 0.8, "undecided"),
        ("below", {"bound": 0.1, "paper": 0.0}, 0.2, 0.15, 0.25, "not"),
        ("holds", {}, 1.0, None, None, "reproduced"),
        ("holds", {}, 0.6, None, None, "partly"),
        ("holds", {}, 0.4, None, None, "not"),
    ],
)
def test_verdicts(rule: str, facts: dict[str, Any], value: float, low: Any, high: Any, verdict: str) -> None:
    assert claim(rule, value, low, high, **facts).verdict == verdict


def test_a_claim_with_parts_is_that_of_all_of_them() -> None:
    good, bad, late = (claim("sign", 0.5, low, high) for low, high in ((0.3, 0.7), (-0.7, -0.3), (-0.1, 0.8)))
    verdicts = {
        "reproduced": (good, good), "partly": (good, bad), "not": (bad, late), "undecided": (good, late),
    }  # fmt: skip
    for verdict, parts in verdicts.items():
        assert every("a", "b", parts).verdict == verdict
    assert every("a", "all", (good, late)).low == -0.1  # the number is that of the weakest part
    assert [part["verdict"] for part in every("a", "all", (good, bad)).record()["parts"]] == ["reproduced", "not"]


def test_correlations_are_those_of_scipy_and_hold_themselves() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 40))
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert spearman(x, np.ones(40)) == 0
    for points in (3, 5, 9):
        values = rng.normal(size=(3, 4, points))
        several = [
            trend(range(points), values[:, 0]),
            median_correlation(values[:, :, ::-1], values),
            pooled_correlation(values[0], values[1]),
            curve_correlation(values[0], values[1]),
            curve_correlation(values[0], values[1], entries=True),
            pooled_trend(range(points), values[:, None]),
            grid_correlation(range(4), range(points), values),
        ]
        assert all(-1 <= one.low <= one.value <= one.high <= 1 for one in several)
    assert several[0].value == pytest.approx(spearmanr(range(9), values[:, 0].mean(0)).statistic)
    for pooled in (several[2], several[4]):
        assert pooled.value == pytest.approx(np.corrcoef(values[0].ravel(), values[1].ravel())[0, 1])
    assert several[3].value == pytest.approx(np.corrcoef(values[0].mean(0), values[1].mean(0))[0, 1])
    entries = np.broadcast_to(np.arange(9), (4, 9)).ravel()
    assert several[5].value == pytest.approx(spearmanr(entries, values.mean(0).ravel()).statistic)


def test_three_points_one_draw_and_a_constant_tell_nothing() -> None:
    falling = -np.arange(9.0)
    three, alone, constant = (
        trend(range(3), np.tile(falling[:3], (3, 1))), trend(range(9), falling[None]), trend(range(9), np.ones((3, 9))),
    )  # fmt: skip
    assert (three.low, three.high) == (-1, 1)
    assert (alone.low, alone.high) == (-1, 1)
    assert math.isnan(constant.value)
    for ours in (three, alone, constant):
        assert Claim.measured("a", "b", "strong", ours, paper=-0.9).verdict == "undecided"
    for ours in (median_correlation(np.arange(5.0), np.ones((3, 2, 5))), pooled_correlation(*np.ones((2, 1, 5)))):
        assert Claim.measured("a", "b", "none", ours, paper=0.0).verdict == "undecided"
    assert mean_over_draws(np.array([0.3])).high == math.inf


def _noise(kind: str, rng: np.random.Generator, draws: int, points: int) -> np.ndarray[Any, Any]:
    """Return noise of each run, of each point (the same in every draw) or of each draw (smooth over the points)."""
    runs = rng.normal(size=(draws, points))
    if kind == "points":
        return 0.3 * runs + rng.normal(size=points)
    return runs if kind == "runs" else 0.3 * runs + rng.normal(size=(draws, points)).cumsum(1) / np.sqrt(points / 2)


@pytest.mark.parametrize("kind", ["runs", "points", "draws"])
def test_noise_is_reproduced_in_one_of_twenty_at_the_most(kind: str) -> None:
    rng = np.random.default_rng(3)
    ours = [trend(range(8), _noise(kind, rng, 3, 8)) for _ in range(300)]
    wrong = [Claim.measured("a", "b", "strong", one, paper=-0.9).verdict == "reproduced" for one in ours]
    assert np.mean(wrong) <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / 300)
    reversed_ = [trend(range(8), np.arange(8) + _noise(kind, rng, 3, 8)) for _ in range(60)]
    verdicts = [Claim.measured("a", "b", "strong", one, paper=-0.9).verdict for one in reversed_]
    assert verdicts.count("reproduced") == 0
    assert verdicts.count("not") >= 50


def test_what_the_paper_says_is_reproduced_in_four_of_five() -> None:
    rng = np.random.default_rng(4)
    x = (np.arange(8) - 3.5) / np.arange(8).std()
    noise = math.sqrt(1 - 0.929**2)
    ours = [
        trend(range(8), -0.929 * x + noise * (0.7 * rng.normal(size=8) + 1.2 * rng.normal(size=(3, 8))))
        for _ in range(100)
    ]
    assert (
        np.mean([Claim.measured("a", "b", "strong", one, paper=-0.929).verdict == "reproduced" for one in ours]) > 0.8
    )


def test_no_relation_needs_an_interval_within_the_margin() -> None:
    """A few runs of noise stay open, many show that there is nothing, and a relation is found."""
    rng = np.random.default_rng(5)
    few, many = (
        [median_correlation(*rng.normal(size=(2, 3, units, points))) for _ in range(40)]
        for units, points in ((5, 5), (10, 10))
    )

    def verdicts(several: list[Measured]) -> list[str]:
        return [Claim.measured("a", "b", "none", ours, paper=0.0).verdict for ours in several]

    assert verdicts(few).count("undecided") >= 36
    assert verdicts(many).count("reproduced") >= 24
    related = [median_correlation(np.arange(10.0), np.arange(10) + rng.normal(size=(3, 10, 10))) for _ in range(20)]
    assert verdicts(related).count("reproduced") == 0


def test_a_grid_that_only_its_columns_explain_does_not_follow_the_difference() -> None:
    rng = np.random.default_rng(6)
    columns = [grid_correlation(range(5), range(5), 0.3 * rng.normal(size=(3, 5, 5)) - np.arange(5)) for _ in range(60)]
    assert np.mean([one.low > 0 for one in columns]) <= 0.15
    both = np.subtract.outer(np.arange(5.0), np.arange(5.0))
    assert grid_correlation(range(5), range(5), both + 0.3 * rng.normal(size=(3, 5, 5))).low > 0
