"""Notes on ties, samples of rows that tie, classes that leave nothing to relabel, and metrics that are not defined."""

import numpy as np
import pytest

from modalign import align
from modalign.alignment.nulls import kmeans_cells


def signs(seed: int, n: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (n, 3)) * 2.0 - 1


def test_a_sample_says_what_ties_allow() -> None:
    x = signs(0)
    options = {"metrics": ["mutual_knn", "jaccard_knn"], "k": 8}
    every, sample = align(x, x, intervals=False, null="none", **options), align(x, x, sample=150, **options)
    for name in options["metrics"]:
        assert every[name].best == pytest.approx(sample[name].best, rel=0.03)
        assert sample[name].value == pytest.approx(sample[name].best, rel=1e-12)
    ties = [note for note in every.notes if "tie" in note]
    assert len(ties) == 3
    of_sample = [note for note in sample.notes if "tie" in note]
    assert [note[:12] for note in ties] == [note[:12] for note in of_sample]
    assert sample.facts["ties"]["items"] == {"x": 1.0, "y": 1.0}
    assert sample.facts["ties"]["draws"] == 64
    random = align(*np.random.default_rng(0).normal(size=(2, 200, 3)), ["mutual_knn"], sample=100)
    assert random["mutual_knn"].best == 1
    assert "ties" not in random.facts


def test_only_closed_forms_are_called_bounds() -> None:
    notes = align(signs(0), signs(1), ["mutual_knn", "lcs_knn"], k=8, intervals=False, null="none").notes
    assert any(note.startswith("mutual_knn can be 0.3") and "at most" in note for note in notes)
    assert any(note.startswith("lcs_knn of x or y with itself is ") for note in notes)


def test_classes_that_leave_nothing_to_relabel_are_named() -> None:
    rng = np.random.default_rng(0)
    labels, y = rng.integers(0, 4, 100), rng.normal(size=(100, 3))
    options = {"metrics": ["mutual_knn"], "k": 5, "intervals": False, "relabellings": 19}
    result = align(np.eye(4)[labels], y, within=labels, **options)
    assert result["mutual_knn"].null.p == 1
    assert any("relabelling within the classes of within changes nothing" in note for note in result.notes)
    cells = kmeans_cells(signs(0, 100), 40)
    result = align(signs(0, 100), y, within=cells, **options)
    assert any("relabelling within the classes of within changes nothing" in note for note in result.notes)
    pairs = np.r_[np.zeros(3, dtype=int), np.arange(1, 98)]  # one class of three items, others of one
    result = align(rng.normal(size=(100, 3)), y, within=pairs, **options)
    assert any("6 different pairings" in note and "less than 0.17" in note for note in result.notes)
    result = align(rng.normal(size=(100, 3)), y, within=labels, **options)
    assert not any("within" in note for note in result.notes)


def test_one_undefined_metric_leaves_the_others() -> None:
    x = np.kron(np.eye(20), np.ones((3, 1)))
    x[:6] = 0.0
    x[0, 0] = 1.0  # shares no feature with others
    result = align(x, x, ["mutual_knn", "second_order_cosine"], k=2, intervals=False, null="none")
    assert [score.metric for score in result.scores] == ["mutual_knn"]
    assert any("no second_order_cosine" in note and "has cosine 0 in x" in note for note in result.notes)
    with pytest.raises(ValueError, match="rows that share no feature with others"):
        align(x, x, ["second_order_cosine"], k=2, intervals=False, null="none")
    with pytest.raises(ValueError, match=r"none of the metrics is defined for x and y: no cka: .* does not vary"):
        align(np.ones((30, 3)), x[:30, :4], ["cka", "rv"], k=2, null="none")
