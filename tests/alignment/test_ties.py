"""Nulls, intervals, samples, layers and notes where neighbours tie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.neighbors.test_ties import FAMILIES, N

import modalign
from modalign import align
from modalign.alignment import intervals
from modalign.alignment.results import Score
from modalign.alignment.within_chance import chance_within
from modalign.metrics import METRICS

LISTS = [name for name, metric in METRICS.items() if metric.needs in ("lists", "graphs") and not metric.options]


def two(family: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return FAMILIES[family](rng), FAMILIES[family](rng)


@pytest.mark.parametrize("family", ["one-hot", "3 bits", "rows of zeros"])
def test_independent_rows_that_repeat_are_not_aligned(family: str) -> None:
    """By index, ties made every seed significant; 1,000 seeds a family are in benchmarks/ties.py."""
    p = [
        align(*two(family, seed), ["mutual_knn"], k=5, intervals=False, relabellings=19)["mutual_knn"].null.p
        for seed in range(30)
    ]
    assert np.mean(np.array(p) <= 0.1) < 0.35  # 0.1 is right; a share of 0.35 has a probability of 2e-4
    assert 0.3 < np.mean(p) < 0.7


def test_every_score_of_lists_has_the_level_of_its_null() -> None:
    cheap = [name for name in LISTS if not METRICS[name].reads_rows]
    reached = dict.fromkeys(cheap, 0)
    for seed in range(12):
        result = align(*two("3 bits", seed), cheap, k=5, intervals=False, relabellings=19, null="relabelled")
        for name in cheap:
            reached[name] += result[name].null.p <= 0.2
    # 2 of 12 are right; 8 have a probability of 6e-4
    assert max(reached.values()) <= 7, reached


def test_x_against_itself_is_calibrated_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for parts in (2, 4):
        monkeypatch.setitem(intervals.SPLITS, parts, 10)
    x, _ = two("one-hot", 0)
    result = align(x, x, LISTS, k=4)
    for name in LISTS:
        score = result[name]
        assert score.null.calibrated == 1, name
        assert score.value == score.best, name
        if score.low is not None:  # some are not defined for parts in which all neighbours are copies
            assert score.low <= score.value <= score.high
        assert score.null.p <= 0.005
    assert result["mutual_knn"].value < 0.5
    assert result.facts["ties"]["items"] == {"x": 1.0, "y": 1.0}
    assert set(result.facts["ties"]["errors"]) == set(LISTS) - {"mutual_knn"}
    text = repr(result)
    assert "expectation over random orders" in text
    assert "mutual_knn can be 0.2" in text


def test_a_few_ties_keep_the_closed_form() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 400, 6))
    x[7], y[11] = x[3], y[2]
    result = align(x, y, ["mutual_knn"], k=5, intervals=False)
    assert result["mutual_knn"].null.kind == "closed form"
    plain = modalign.alignment.nulls.mutual_knn_null(modalign.knn(x, 5), modalign.knn(y, 5), result["mutual_knn"].value)
    assert result["mutual_knn"].null.mean == pytest.approx(plain.mean, rel=1e-12)
    assert result["mutual_knn"].null.sd == pytest.approx(plain.sd, rel=0.01)
    assert result["mutual_knn"].null.p == pytest.approx(plain.p, rel=0.1)


def test_the_closed_form_has_the_moments_of_relabelling() -> None:
    x, y = two("3 bits", 1)
    from modalign.alignment.nulls import tied_knn_null
    from modalign.metrics.graphs import Search
    from modalign.metrics.tied_graphs import expected_shares
    from modalign.metrics.tied_scores import searched_graphs

    graphs = searched_graphs("test", x, y, Search(5, "cosine", None, "auto"))
    rng = torch.Generator().manual_seed(0)
    drawn = [float(expected_shares(graphs, relabelling=torch.randperm(N, generator=rng)).mean()) for _ in range(2000)]
    null = tied_knn_null(graphs, 0.1)
    assert np.mean(drawn) == pytest.approx(null.mean, abs=4 * null.sd / np.sqrt(2000))
    assert np.std(drawn) == pytest.approx(null.sd, rel=0.1)


def test_samples_and_layers_have_the_same_score() -> None:
    x, y = two("bags of words", 2)
    expected = align(x, y, ["mutual_knn", "jaccard_knn"], k=4, intervals=False, null="none")
    sampled = align(x, y, ["mutual_knn", "jaccard_knn"], k=4, sample=N)
    assert sampled["mutual_knn"].value == pytest.approx(expected["mutual_knn"].value)
    assert sampled["jaccard_knn"].value == pytest.approx(expected["jaccard_knn"].value, rel=0.1)
    layers = modalign.align_layers([x, y], [y, x], k=4, relabellings=39)
    assert layers.matrix[0][0] == pytest.approx(expected["mutual_knn"].value)
    assert layers.best in {(0, 1), (1, 0)}
    assert layers.null.p == 1 / 40
    assert layers.possible < 1
    assert layers.null.calibrated == pytest.approx(1, rel=1e-12)


def test_unrelated_layers_with_ties_are_not_aligned() -> None:
    p = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        xs, ys = ([FAMILIES["one-hot"](rng) for _ in range(2)] for _ in "ab")
        p.append(modalign.align_layers(xs, ys, k=4, relabellings=19).null.p)
    assert np.mean(np.array(p) <= 0.2) < 0.5  # 0.2 is right; a share of 0.5 has a probability of 1e-4


def test_pairs_that_repeat_jointly_are_named() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 200, 5))
    once = align(x, y, ["mutual_knn"], k=4, intervals=False)
    assert not any("repeat" in note for note in once.notes)
    twice = np.repeat(np.arange(200), 2)
    result = align(x[twice], y[twice], ["mutual_knn"], k=4, intervals=False)
    (note,) = [note for note in result.notes if "repeat another item in x and in y at once" in note]
    line = note[note.index("groups=") :].partition(". If")[0]
    groups = eval(line.removeprefix("groups="), {"np": np, "x": x[twice], "y": y[twice]})
    grouped = align(x[twice], y[twice], ["mutual_knn"], k=4, groups=groups, intervals=False)
    assert not any("repeat" in note for note in grouped.notes)
    assert result["mutual_knn"].null.p < 0.01  # the copy of an item is its neighbour in both
    assert grouped["mutual_knn"].null.p > 0.01
    assert not any("repeat" in note for note in align(*two("one-hot", 0), ["mutual_knn"], k=4, intervals=False).notes)


def test_a_metric_that_a_relabelling_leaves_undefined_has_no_null() -> None:
    rng = np.random.default_rng(1)
    topics = rng.dirichlet(np.ones(60) * 0.05, 8)
    labels = rng.integers(0, 8, 300)
    x, y = (np.stack([rng.multinomial(rng.integers(1, 8), topics[label]) for label in labels]) for _ in "xy")
    result = align(x, y, "all", k=5, intervals=False, relabellings=19)
    assert result["mutual_knn"].null.p == 0.05
    for score in result.scores:
        assert score.null is not None or any(f"no null for {score.metric}" in note for note in result.notes)


def test_rounding_passes_no_range() -> None:
    x = np.random.default_rng(0).normal(size=(200, 12))
    result = align(x, x, ["cca", "cka", "svcca", "procrustes", "linear_r2"], null="none")
    assert all(score.low <= score.value <= score.high <= 1 for score in result.scores)


@pytest.mark.parametrize("bits", [3, 5])
def test_intervals_are_as_wide_as_scores_scatter(bits: int) -> None:
    """With k neighbours in parts as in all items, the first would be twice as wide and the second a quarter too narrow.

    1,000 seeds a family are in benchmarks/ties.py.
    """

    def rows(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 2, (2, 300, bits)) * 2.0 - 1

    def score(seed: int, **options: Any) -> Score:
        return align(*rows(seed), ["mutual_knn"], k=10, null="none", **options)["mutual_knn"]

    scatter = np.std([score(seed, intervals=False).value for seed in range(100)], ddof=1)
    scores = [score(seed) for seed in range(4)]
    width = np.mean([(one.high - one.low) / 2 for one in scores]) / 1.96
    assert 0.85 < width / scatter < 1.4


def test_the_curve_has_the_chance_of_the_table() -> None:
    rng = np.random.default_rng(4)
    classes = rng.integers(0, 4, 200)
    x, y = (np.eye(4)[classes] * 3 + rng.normal(size=(200, 4)) for _ in "ab")
    result = align(x, y, ["mutual_knn"], k=6, within=classes, intervals=False, relabellings=400)
    null = result["mutual_knn"].null
    assert result.curves["k"]["chance"][-1] == pytest.approx(null.mean, abs=4 * null.sd / 20)
    assert result.curves["k"]["chance"][-1] > 1.5 * 6 / 199
    a, b = (torch.from_numpy(modalign.knn(rows, 6).indices) for rows in (x, y))
    everywhere = chance_within(a, b, torch.zeros(200, dtype=torch.int64))
    np.testing.assert_allclose(everywhere, np.arange(1, 7) / 199)
