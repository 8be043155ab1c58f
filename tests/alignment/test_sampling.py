"""Tests of sampled mutual k-NN: the searched rows, coverage of intervals, where a sequence stops, the size curve."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import modalign
from modalign.alignment.sampling import (
    ConfidenceSequence,
    difference_estimate,
    finite_population_interval,
    graph_of_rows,
    sampled_mutual_knn,
    size_curve,
)


def pair(n: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n // 50, 12))[rng.integers(0, n // 50, n)] + 0.7 * rng.normal(size=(n, 12))
    return x.astype(np.float32), (x @ rng.normal(size=(12, 9)) + 2 * rng.normal(size=(n, 9))).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"max_memory": "40MB"}])
def test_rows_have_the_neighbours_of_the_whole_graph(options: dict[str, str]) -> None:
    x, _ = pair()
    rows = torch.randperm(len(x))[:100]
    assert torch.equal(graph_of_rows(x, rows, 10, **options), torch.as_tensor(modalign.knn(x, 10).indices)[rows])
    groups = torch.arange(len(x)) // 3
    result = graph_of_rows(x, rows, 10, groups=groups, **options)
    assert torch.equal(result, torch.as_tensor(modalign.knn(x, 10, groups=groups).indices)[rows])


def test_a_row_among_more_copies_than_neighbours() -> None:
    x = np.repeat(pair(60)[0][:20], 30, axis=0)
    rows = torch.arange(0, 600, 7)
    assert torch.equal(graph_of_rows(x, rows, 10), torch.as_tensor(modalign.knn(x, 10).indices)[rows])


def test_files(tmp_path: Path) -> None:
    x, y = pair()
    for name, rows in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", rows)
    files = [str(tmp_path / f"{name}.npy") for name in "xy"]
    assert sampled_mutual_knn(*files, sample=200) == sampled_mutual_knn(x, y, sample=200)


def test_all_rows_are_exact() -> None:
    x, y = pair(400)
    estimate = sampled_mutual_knn(x, y, sample=400)
    assert estimate.value == pytest.approx(modalign.mutual_knn(x, y), abs=1e-12)
    assert (estimate.half_width, estimate.method) == (0.0, "all rows")
    narrow = sampled_mutual_knn(x, y, tolerance=0.0001)
    assert narrow.value == pytest.approx(estimate.value, abs=1e-12)
    assert (narrow.low, narrow.high, narrow.sample) == (narrow.value, narrow.value, 400)


def test_it_stops_when_the_interval_is_narrow_enough() -> None:
    x, y = pair(4000)
    estimate = sampled_mutual_knn(x, y, tolerance=0.02)
    assert estimate.half_width <= 0.02
    assert estimate.sample < 2500
    assert estimate.low <= modalign.mutual_knn(x, y) <= estimate.high
    assert "confidence sequence" in str(estimate)


def test_shares_have_an_interval_where_few_or_none_differ() -> None:
    rng = np.random.default_rng(0)
    rare = np.where(rng.random(5000) < 0.01, 0.1, 0.0)
    for n, least in ((30, 0.94), (100, 0.88), (1000, 0.92)):
        estimates = [finite_population_interval(rng.permutation(rare)[:n], 5000, shares=True) for _ in range(400)]
        assert all(0 <= drawn.low <= drawn.value <= drawn.high <= 1 and drawn.low < drawn.high for drawn in estimates)
        assert np.mean([drawn.low <= rare.mean() <= drawn.high for drawn in estimates]) >= least, n
    many = rng.beta(2, 3, 5000)
    normal, wilson = (finite_population_interval(many[:2000], 5000, shares=shares) for shares in (False, True))
    assert (wilson.low, wilson.high) == pytest.approx((normal.low, normal.high), abs=5e-5)
    assert finite_population_interval(rare, 5000, shares=True).half_width == pytest.approx(0, abs=1e-15)
    with pytest.raises(ValueError, match=r"shares must lie in \[0, 1\], got -0.5"):
        finite_population_interval([-0.5, 0.5], 5, shares=True)


def test_finite_population_interval() -> None:
    values = np.arange(10.0)
    estimate = finite_population_interval(values[:5], 10)
    assert estimate.half_width == pytest.approx(1.959964 * math.sqrt(0.5 * 2.5 / 5), rel=1e-6)


def test_the_sequence_covers_at_every_moment() -> None:
    rng = np.random.default_rng(0)
    population = rng.binomial(10, 0.15, size=400) / 10
    missed = 0
    for _ in range(200):
        sequence = ConfidenceSequence(400, tolerance=0.03)
        for value in rng.permutation(population):
            sequence.update([value])
            missed += not sequence.low - 1e-12 <= population.mean() <= sequence.high + 1e-12
            if missed:
                break
    assert missed <= 10
    assert sequence.low == sequence.high == pytest.approx(population.mean())


def test_difference_estimate_is_unbiased_for_a_bad_index() -> None:
    """Over all samples of two rows, the estimate has the exact mean and the variance of the formula."""
    exact, approximate = np.array([0.5, 0.2, 0.9, 0.4, 0.0]), np.array([0.1, 0.2, 0.3, 0.0, 0.0])
    estimates = [
        difference_estimate(approximate, (list(rows), exact[list(rows)]), 5).value
        for rows in itertools.combinations(range(5), 2)
    ]
    assert np.mean(estimates) == pytest.approx(exact.mean())
    assert np.var(estimates) == pytest.approx(0.6 * np.var(exact - approximate, ddof=1) / 2)
    with pytest.raises(ValueError, match="distinct rows"):
        difference_estimate(approximate, ([1, 1], [0.5, 0.5]), 5)


def test_size_curve_is_the_mean_over_all_subsets() -> None:
    """The value is the mean over all subsets of 9 items, each weighted by the probability that it is kept."""
    rng = np.random.default_rng(1)
    n, k = 9, 2
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(n, 2))
    full = [torch.as_tensor(modalign.knn(rows, n - 1).indices).tolist() for rows in (x, y)]
    p = 5 / (n - 1)  # expected size 6: an item and 5 others
    expected = 0.0
    for item in range(n):
        others = [other for other in range(n) if other != item]
        for kept in itertools.chain.from_iterable(itertools.combinations(others, r) for r in range(n)):
            weight = p ** len(kept) * (1 - p) ** (n - 1 - len(kept))
            neighbors = [set([other for other in graph[item] if other in kept][:k]) for graph in full]
            expected += weight * len(neighbors[0] & neighbors[1]) / k / n
    curve = size_curve(*map(torch.tensor, full), k=k, sizes=[6])
    assert curve.values[0] == pytest.approx(expected, abs=1e-12)


def test_size_curve_beside_subsets() -> None:
    x, y = pair(600)
    graphs = [modalign.knn(rows, 100) for rows in (x, y)]
    curve = size_curve(*graphs, k=5, sizes=[150, 600])
    drawn = [np.random.default_rng(seed).permutation(600)[:150] for seed in range(150)]
    result = [modalign.mutual_knn(x[rows], y[rows], k=5) for rows in drawn]
    assert curve.values[0] == pytest.approx(np.mean(result), abs=4 * np.std(result) / 12)
    assert curve.values[1] == pytest.approx(modalign.mutual_knn(x, y, k=5))
    assert curve.errors[1] == 0
    assert size_curve(*graphs, k=5, sizes=[150, 600], fixed_fraction=True).k == [1, 5]
    sampled = size_curve(*(graph.indices[:200] for graph in graphs), k=5, population=600, sizes=[150])
    assert sampled.low[0] < sampled.values[0] < sampled.high[0]


def test_mistakes() -> None:
    x, y = pair(100)
    with pytest.raises(ValueError, match="either sample or tolerance"):
        sampled_mutual_knn(x, y)
    with pytest.raises(ValueError, match="between 2 and the 100 rows, got 101"):
        sampled_mutual_knn(x, y, sample=101)
    with pytest.raises(ValueError, match=r"between 0 and 0\.5, got 0"):
        sampled_mutual_knn(x, y, tolerance=0)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got 1.5"):
        ConfidenceSequence(10).update([1.5])
    with pytest.raises(ValueError, match="longer than k = 10"):
        size_curve(modalign.knn(x, 10), modalign.knn(y, 10), k=10)
    with pytest.raises(ValueError, match="above k = 5 and at most 100, got 101"):
        size_curve(modalign.knn(x, 10), modalign.knn(y, 10), k=5, sizes=[101])
