"""Features of any size, codes in any dtype, and few items: what ``pid`` takes, and what it says of it."""

from __future__ import annotations

import numpy as np
import pytest

from modalign.information import mutual_information, pid

Data = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def signs() -> Data:
    """Return modalities of which the first decides the label by one sign."""
    rng = np.random.default_rng(0)
    x1, x2 = rng.normal(size=(300, 2)), rng.normal(size=(300, 2))
    return x1, x2, (x1[:, 0] > 0).astype(int)


@pytest.mark.parametrize("scale", [1e307, 1e160, 1e-300])
def test_the_unit_of_features_changes_nothing(signs: Data, scale: float) -> None:
    x1, _, y = signs
    assert mutual_information(x1 * scale, y) == mutual_information(x1, y)


def test_whole_numbers_are_codes_in_any_dtype(signs: Data) -> None:
    x1, x2, y = signs
    one, two = x1[:, 0] > 0, x2[:, 0] > 0
    results = [pid(one.astype(kind), two.astype(kind), y, resamples=5) for kind in (bool, int, np.float32)]
    assert results[0] == results[1] == results[2]
    with pytest.raises(ValueError, match=r"got \(300,\) float64; write x\[:, None\] for one feature"):
        pid(x1[:, 0], x2, y)


def test_independent_codes_tell_nothing_and_never_less() -> None:
    rng = np.random.default_rng(0)
    told = [mutual_information(*rng.integers(0, 2, (2, 60)), seed=seed) for seed in range(20)]
    assert min(told) >= 0


def test_without_samples_the_intervals_hold_the_shortfall_alone(signs: Data) -> None:
    x1, x2, y = signs
    codes = pid(x1[:, 0] > 0, x2[:, 0] > 0, y, resamples=0)
    for name, (low, high) in codes.intervals.items():
        assert [low, high] == pytest.approx([getattr(codes, name)] * 2, abs=1e-12)


def test_a_note_says_that_items_are_few(signs: Data) -> None:
    x1, x2, y = signs
    few = pid(x1[:40], x2[:40], y[:40], resamples=5)
    assert sum(note.startswith("40 items are few for models to learn from") for note in few.notes) == 1
    assert not any("are few" in note for note in pid(x1, x2, y, resamples=5).notes)
