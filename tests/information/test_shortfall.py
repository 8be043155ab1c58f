"""What codes hold less than modalities: the inequalities behind the intervals, sharpened tables, and found models."""

from __future__ import annotations

import numpy as np
import pytest

from modalign.information import pid, pid_of_joint
from modalign.information.shortfall import sharpened, shortfalls, widened_by_shortfalls
from modalign.information.tables import mutual_nats

PARTS = ("redundancy", "unique_1", "unique_2", "synergy", "mutual_1", "mutual_2", "mutual_12")


@pytest.mark.parametrize("seed", range(8))
def test_parts_of_modalities_lie_where_those_of_their_codes_allow(seed: int) -> None:
    """Both modalities are coded at random; the losses are known exactly, and so is where the parts may lie."""
    rng = np.random.default_rng(seed)
    joint = rng.dirichlet(np.full(4 * 4 * 3, 0.3)).reshape(4, 4, 3)
    coded = np.zeros((2, 2, 3))
    codes = [rng.permutation([0, 0, 1, 1]) for _ in range(2)]
    np.add.at(coded, (codes[0][:, None], codes[1][None]), joint)
    exact, known = pid_of_joint(joint), pid_of_joint(coded)
    short = np.array([getattr(exact, name) - getattr(known, name) for name in ("mutual_1", "mutual_2", "mutual_12")])
    values = {name: getattr(known, name) for name in PARTS}
    intervals = {name: (value, value) for name, value in values.items()}
    for name, (low, high) in widened_by_shortfalls(intervals, short, values, 2.0).items():
        assert low - 1e-6 <= getattr(exact, name) <= high + 1e-6, name


def test_sharpened_tables_tell_so_much_more_of_the_same_classes() -> None:
    table = np.array([[40.0, 20, 10], [15, 30, 15], [10, 20, 40]])
    result = sharpened(table, 0.1)
    assert mutual_nats(result) - mutual_nats(table) == pytest.approx(0.1 * np.log(2), abs=1e-6)
    assert result.sum(0) == pytest.approx(table.sum(0))
    assert sharpened(table, 0.0) is table
    independent = np.outer([1.0, 2, 3], [2.0, 1, 1])
    assert mutual_nats(sharpened(independent, 0.5)) == pytest.approx(0, abs=1e-9)


def test_codes_of_the_user_fall_short_of_nothing_and_nothing_exceeds_the_entropy() -> None:
    table = np.array([[45.0, 5], [5, 45]])
    bits = mutual_nats(table) / np.log(2)
    assert shortfalls([table, table, table], [None, 0.1, 3.0], 1.0) == pytest.approx([0, 0, 1 - bits])


def signs(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two modalities whose label is the "and" of the signs of their first columns."""
    x1, x2 = np.random.default_rng(seed).normal(size=(2, n, d))
    return x1, x2, ((x1[:, 0] > 0) & (x2[:, 0] > 0)).astype(int)


@pytest.mark.parametrize("d", [1, 8])
def test_thresholds_that_no_linear_model_finds_are_found(d: int) -> None:
    """Exact: redundancy .311, synergy .5; linear models and networks found two thirds of them."""
    result = pid(*signs(2000, d, seed=0), resamples=20)
    assert result.redundancy == pytest.approx(0.311, abs=0.04)
    assert result.synergy == pytest.approx(0.5, abs=0.06)
    assert all(
        low <= exact <= high
        for (low, high), exact in zip(
            (result.intervals["redundancy"], result.intervals["synergy"]), (0.3113, 0.5), strict=True
        )
    )
    assert all("linear" not in model for model in result.models)
    assert sum("may tell less than the features by" in note and result.models[0] in note for note in result.notes) == 1
    assert all(bits >= 0 for bits in result.shortfall)


def test_codes_have_no_model() -> None:
    x1, x2 = np.random.default_rng(0).integers(0, 2, (2, 400))
    result = pid(x1, x2, x1 & x2, resamples=5)
    assert result.models == ("codes", "codes", "codes")
    assert result.shortfall == (0, 0, 0)
    assert result.notes == ()
