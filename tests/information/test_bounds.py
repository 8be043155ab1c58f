"""Values, intervals and parts lie between 0 and the entropy of the label, and parts add up, through every door."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modalign.information import batch, co_information, mutual_information, pid

PARTS = ("redundancy", "unique_1", "unique_2", "synergy")
ALL = (*PARTS, "mutual_1", "mutual_2", "mutual_12")


def separated(n: int, classes: int) -> tuple[Any, Any, Any]:
    """Return noise, a modality that decides the label, and equal classes."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    return rng.normal(size=(n, 3)), y[:, None] * 2.0 + 0.01 * rng.normal(size=(n, 3)), y


def require_bounds(result: Any, most: float) -> None:
    assert sum(getattr(result, name) for name in PARTS) == pytest.approx(result.mutual_12, abs=1e-9)
    assert result.redundancy + result.unique_1 == pytest.approx(result.mutual_1, abs=1e-9)
    assert result.redundancy + result.unique_2 == pytest.approx(result.mutual_2, abs=1e-9)
    for name in ALL:
        low, high = result.intervals[name]
        assert 0 <= low <= getattr(result, name) <= high <= most + 1e-9, name


@pytest.mark.parametrize(("n", "classes"), [(20, 2), (60, 2), (24, 3), (60, 3), (40, 8), (400, 2)])
@pytest.mark.parametrize("discretize", ["predictions", "kmeans"])
def test_nothing_exceeds_the_entropy_of_equal_classes(n: int, classes: int, discretize: str) -> None:
    x1, x2, y = separated(n, classes)
    result = pid(x1, x2, y, resamples=8, discretize=discretize)
    require_bounds(result, np.log2(classes))
    assert mutual_information(x2, y) <= np.log2(classes) + 1e-9
    assert abs(co_information(x2, x2, y)) <= np.log2(classes) + 1e-9


def test_the_coupling_stays_within_the_entropy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "STEPS", 2)
    monkeypatch.setattr(batch, "MEASURED", 2)
    x1, x2, y = separated(60, 2)
    require_bounds(pid(x1, x2, y, resamples=8, method="batch"), 1.0)


def test_values_of_unequal_classes_do_not_exceed_the_entropy_of_the_sample() -> None:
    y = (np.arange(100) < 20).astype(int)
    entropy = -0.2 * np.log2(0.2) - 0.8 * np.log2(0.8)
    result = pid(y, y, y, resamples=20)
    assert result.mutual_12 <= entropy + 1e-9
    # the label of the population may be more even than this sample of it
    assert entropy < result.intervals["redundancy"][1] < 1
