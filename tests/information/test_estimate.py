"""Information from samples against exact values: gates, the papers' synthetic data, and invariances."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

from modalign.data import synthetic
from modalign.information import batch, co_information, mutual_information, pid, regime

PARTS = ("redundancy", "unique_1", "unique_2", "synergy")
BITS = np.array([[a, b] for a in (0, 1) for b in (0, 1)] * 2500)  # every pair as often as any other
A, B = BITS.T
GATES: dict[str, tuple[Any, Any, Any, tuple[float, ...]]] = {
    "copy": (A, A, A, (1, 0, 0, 0)),
    "unique": (A, B, A, (0, 1, 0, 0)),
    "xor": (A, B, A ^ B, (0, 0, 0, 1)),
    "and": (A, B, A & B, (0.3113, 0, 0, 0.5)),
    "both": (A, B, 2 * A + B, (0, 1, 1, 0)),
}


def parts(result: Any) -> list[float]:
    return [getattr(result, name) for name in PARTS]


@pytest.mark.parametrize("gate", GATES)
def test_gates(gate: str) -> None:
    x1, x2, y, exact = GATES[gate]
    assert parts(pid(x1, x2, y, resamples=0)) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("gate", GATES)
def test_gates_behind_noise(gate: str) -> None:
    """Both bits are seen in noisy columns, and classifiers have to find them."""
    x1, x2, y, exact = GATES[gate]
    rng = np.random.default_rng(0)
    seen = [np.stack([x, -x], 1) + 0.05 * rng.normal(size=(len(x), 2)) for x in (x1, x2)]
    result = pid(seen[0][:3000], seen[1][:3000], y[:3000], resamples=10)
    assert parts(result) == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize(("redundancy", "off"), [(0, 0.12), (4, 0.2), (8, 0.25)])
def test_the_papers_data_within_the_stated_error(redundancy: int, off: float) -> None:
    data = synthetic(redundancy=redundancy, n=7000, heterogeneity=0)
    result = pid(data.x.numpy(), data.y.numpy(), data.labels.numpy(), resamples=10)
    assert data.information is not None
    assert parts(result) == pytest.approx(parts(data.information), abs=off)
    assert result.redundancy + result.unique_1 == pytest.approx(result.mutual_1)
    assert sum(parts(result)) == pytest.approx(result.mutual_12)
    assert all(low <= getattr(result, name) <= high for name, (low, high) in result.intervals.items())
    assert "redundancy" in str(result)


def test_the_bias_of_small_tables_is_taken_off() -> None:
    """The label is independent, and each of 64 cells has 20 items."""
    rng = np.random.default_rng(0)
    raw, corrected = [], []
    for _ in range(5):
        x1, x2, y = rng.integers(0, 4, (3, 1280))
        raw.append(pid(x1, x2, y, resamples=0).mutual_12)
        corrected.append(pid(x1, x2, y, resamples=40).mutual_12)
    assert np.mean(corrected) < 0.5 * np.mean(raw)


@pytest.mark.parametrize(("n", "classes"), [(300, 2), (500, 10), (300, 50)])
def test_noise_tells_nothing_however_many_classes(n: int, classes: int) -> None:
    """The mean over data sets is 0, and 95 % of the intervals hold 0: of 16 parts, 3 may miss it by chance."""
    result = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        result.append(pid(*rng.normal(size=(2, n, 3)), np.arange(n) % classes, resamples=20, seed=seed))
    assert np.mean([parts(one) for one in result], 0) == pytest.approx(0, abs=0.04)
    assert sum(one.intervals[name][0] > 0 for one in result for name in PARTS) <= 3
    # clusters cannot tell one of 50 classes from another, and it is said
    assert all(any("bits; give more items" in note for note in one.notes) == (classes == 50) for one in result)


def test_codes_of_noise_cover_nothing_at_their_level() -> None:
    """With 3 items a cell or more, about 1 interval of 40 excludes 0 on its lower side."""
    result = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        result.append(pid(*rng.integers(0, 5, (2, 150)), rng.integers(0, 2, 150), resamples=40, seed=seed))
    assert sum(one.intervals["mutual_12"][0] > 0 for one in result) <= 4
    assert np.mean([one.mutual_12 for one in result]) < 0.03  # 0.12 without correction
    assert not any(one.notes for one in result)


def test_tables_that_are_not_filled_are_named() -> None:
    """With 1,000 items in 3,600 pairs of values, nothing says whether a pair has its label by chance."""
    rng = np.random.default_rng(0)
    x1, x2, y = rng.integers(0, 60, 1000), rng.integers(0, 60, 1000), rng.integers(0, 2, 1000)
    result = pid(x1, x2, y, resamples=5)
    assert result.synergy < 0.05
    assert result.intervals["synergy"] == pytest.approx((0, 1), abs=0.01)
    (note,) = result.notes
    assert re.search(r"^1,000 items are too few for \d+ codes of x1 and x2 x 2 classes \(wanted: 2 a cell", note)
    assert f"note: {note}" in str(result)
    assert mutual_information(np.arange(1000), y) == pytest.approx(0, abs=1e-9)


def test_values_that_tell_the_class_are_known() -> None:
    x = np.random.default_rng(0).integers(0, 20, 1000)
    result = pid(x, x, x, resamples=5)
    assert result.redundancy == pytest.approx(np.log2(20), abs=0.05)


def test_booleans_are_codes_and_labels() -> None:
    as_booleans = pid(A[:400] > 0, B[:400] > 0, A[:400] * B[:400] > 0, resamples=0)
    assert parts(as_booleans) == parts(pid(A[:400], B[:400], A[:400] * B[:400], resamples=0))


@pytest.mark.parametrize("n", [10, 12, 24, 60])
def test_few_items_are_taken_quietly(n: int) -> None:
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = pid(*rng.normal(size=(2, n, 3)), np.arange(n) % 2, resamples=5)
    assert sum(parts(result)) == pytest.approx(result.mutual_12)


def test_a_part_reaches_as_low_as_what_it_is_part_of() -> None:
    rng = np.random.default_rng(1)
    result = pid(*rng.integers(0, 3, (2, 60)), rng.integers(0, 2, 60), resamples=20)
    low = {name: interval[0] for name, interval in result.intervals.items()}
    assert low["unique_1"] <= low["mutual_1"]
    assert low["unique_2"] <= low["mutual_2"]
    assert low["redundancy"] <= min(low["mutual_1"], low["mutual_2"])
    assert low["synergy"] <= low["mutual_12"]


def test_exchanging_modalities_exchanges_what_is_unique() -> None:
    data = synthetic(redundancy=4, n=2000, heterogeneity=0)
    x, y, labels = data.x.numpy(), data.y.numpy(), data.labels.numpy()
    one, two = pid(x, y, labels, resamples=0), pid(y, x, labels, resamples=0)
    assert (one.unique_1, one.unique_2) == pytest.approx((two.unique_2, two.unique_1), abs=1e-6)
    renamed = pid(x, y, 3 - labels, resamples=0)
    assert renamed.redundancy == pytest.approx(one.redundancy, abs=0.1)
    assert parts(pid(x, y, labels, resamples=0)) == parts(one)  # the same bits


def test_kmeans_finds_what_is_unique() -> None:
    rng = np.random.default_rng(0)
    seen = [np.stack([x, -x], 1)[:2000] + 0.1 * rng.normal(size=(2000, 2)) for x in (A, B)]
    result = pid(*seen, A[:2000], resamples=5, discretize="kmeans", clusters=4)
    assert parts(result) == pytest.approx([0, 1, 0, 0], abs=0.06)


@pytest.mark.parametrize("gate", ["and", "unique"])
def test_intervals_of_the_coupling_hold_the_exact_parts(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coupling is trained little; the intervals hold what it misses of the best coupling."""
    monkeypatch.setattr(batch, "STEPS", 20)
    monkeypatch.setattr(batch, "MEASURED", 3)
    x1, x2, y, exact = GATES[gate]
    rng = np.random.default_rng(0)
    seen = [np.stack([x, -x], 1)[:1000] + 0.05 * rng.normal(size=(1000, 2)) for x in (x1, x2)]
    result = pid(*seen, y[:1000], resamples=20, method="batch")
    assert parts(result) == pytest.approx(exact, abs=0.35)
    assert sum(parts(result)) == pytest.approx(result.mutual_12)
    for name, part in zip(PARTS, exact, strict=True):
        low, high = result.intervals[name]
        assert low - 0.01 <= part <= high + 0.01, name
    assert not any("marginals" in note for note in result.notes)
    monkeypatch.setattr(batch, "FIT", -1.0)
    assert any("marginals are off by" in note for note in pid(*seen, y[:1000], resamples=2, method="batch").notes)


def test_mutual_and_co_information() -> None:
    rng = np.random.default_rng(0)
    x = A[:2000, None] + 0.1 * rng.normal(size=(2000, 3))
    assert mutual_information(x, A[:2000]) == pytest.approx(1, abs=0.01)
    assert mutual_information(rng.normal(size=(2000, 3)), A[:2000]) < 0.02
    assert co_information(A, B, A ^ B) == pytest.approx(-1, abs=0.01)
    assert co_information(x, x, A[:2000]) == pytest.approx(1, abs=0.02)


def spiked(
    k2: float, gx: float, gy: float, eta: float, gxj: float, gyj: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rotations of one signal of strength k2 among noise and one nuisance of covariance eta."""
    n, rng = 4000, np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    shared = rng.normal(size=n)
    sides = []
    for noise, own, other in ((gx, gxj, gyj), (gy, gyj, gxj)):
        common = np.sqrt(eta * np.sqrt(own / other))
        signal = np.sqrt(k2) * (2 * y - 1) + np.sqrt(noise) * rng.normal(size=n)
        nuisance = common * shared + np.sqrt(own - common**2) * rng.normal(size=n)
        columns = np.stack([signal, nuisance, 0.3 * rng.normal(size=n)], 1)
        sides.append(columns @ np.linalg.qr(rng.normal(size=(3, 3)))[0])
    return sides[0], sides[1], y


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("both", (1, 0.2, 0.2, 0.1, 1, 1)),
        ("neither", (1, 1, 1, 0.95, 1, 1)),
        ("align only", (1, 0.5, 0.5, 1.2, 1, 4)),
        ("predict only", (2, 2, 2, 0.4, 0.5, 0.5)),
    ],
)
def test_four_regimes(name: str, model: tuple[float, ...]) -> None:
    k2, gx, gy, eta, gxj, gyj = model
    result = regime(*spiked(*model))
    assert result.name == name
    assert result.rho[0] == pytest.approx(k2 / np.sqrt((k2 + gx) * (k2 + gy)), abs=0.05)
    assert max(result.nu) == pytest.approx(eta / np.sqrt(gxj * gyj), abs=0.05)
    assert (result.aligns, result.predicts) == (name in ("both", "align only"), name in ("both", "predict only"))


X = np.random.default_rng(0).normal(size=(60, 3))
Y = np.arange(60) % 3
NAN = np.where(np.arange(180).reshape(60, 3) == 7, np.nan, X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, X, Y + 0.5), "y must be classes, got 3 different numbers such as 0.5; cut them into bins"),
        ((X, X, np.zeros(60, int)), "at least 2 classes, got 1"),
        (
            (X, X, np.where(np.arange(60) == 0, 9, Y)),
            "at least 5 items, got 1 of 4 with fewer, such as 9 with 1",
        ),
        ((X[:50], X, Y), r"x1 must have a row for each label, 60, got \(50, 3\)"),
        ((X, X[..., None], Y), r"x2 must be \(n, d\) numbers"),
        ((NAN, X, Y), r"x1 must be finite, got NaN or inf in rows \[2\]"),
        ((X, np.ones((60, 2)), Y), "x2 never changes"),
    ],
)
def test_mistakes_are_named(arguments: tuple[Any, ...], message: str) -> None:
    for function in (pid, regime):
        with pytest.raises(ValueError, match=f"{function.__name__}: .*{message}"):
            function(*arguments)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "exact"},
        {"discretize": "bins"},
        {"resamples": 1},
        {"confidence": 1},
        {"clusters": 0},
        {"clusters": -1},
    ],
)
def test_options_that_do_not_exist_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pid: "):
        pid(X, X, Y, **options)


def test_intervals_reach_what_balanced_labels_would_tell() -> None:
    y = np.repeat([0, 1], [45, 55])  # of a balanced label, whose 0.993 bits here are not the most it can tell
    result = pid(y, y, y, resamples=20)
    assert result.intervals["redundancy"][1] >= 1.0 - 1e-12
