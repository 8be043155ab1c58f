"""Tests of nulls: closed forms against relabelling, p-values, calibration, relabelling within and of groups."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modalign
from modalign import align
from modalign.alignment.nulls import (
    Null,
    cka_null,
    cka_tail_holds,
    kmeans_cells,
    mutual_knn_null,
    random_relabellings,
    sampled_null,
    unbiased_cka_null,
)
from modalign.metrics import Moments, unbiased_cka
from modalign.metrics.linear import moments, relabelled
from modalign.metrics.neighborhoods import relabelled_overlap
from modalign.metrics.registry import METRICS


def graphs(n: int, k: int, seed: int = 0) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.as_tensor(modalign.knn(rng.gamma(1.0, size=(n, d)), k).indices) for d in (6, 3)]


def shares(a: torch.Tensor, b: torch.Tensor, count: int, **options: torch.Tensor) -> torch.Tensor:
    drawn = torch.stack(list(random_relabellings(len(a), count, 1, **options)))
    return relabelled_overlap(a, b, drawn).double() / a.numel()


@pytest.mark.parametrize(("n", "k"), [(6, 1), (6, 2), (7, 3), (6, 5)])
def test_mean_and_sd_are_those_of_all_relabellings(n: int, k: int) -> None:
    a, b = graphs(n, k)
    every = torch.tensor(list(itertools.permutations(range(n))))
    scores = relabelled_overlap(a, b, every).double() / (n * k)
    null = mutual_knn_null(a, b, 0.5)
    assert null.mean == pytest.approx(float(scores.mean()), abs=1e-12)
    assert null.sd == pytest.approx(float(scores.std(correction=0)), abs=1e-9)


@pytest.mark.parametrize(("n", "k"), [(300, 8), (80, 1), (200, 20)])
def test_the_tail_is_that_of_relabelling(n: int, k: int) -> None:
    a, b = graphs(n, k)
    scores = shares(a, b, 4000)
    for level in (0.9, 0.99):
        score = float(scores.quantile(level))
        reached = float((scores >= score - 1e-12).double().mean())
        null = mutual_knn_null(a, b, score)
        assert null.p == pytest.approx(reached, rel=0.35)
        assert (null.calibrated > 0) == (score > null.threshold)


def test_independent_rows_would_be_too_sure() -> None:
    """Shared hubs make rows dependent, so the sum of hypergeometric variances is too small."""
    rng = np.random.default_rng(0)
    hubs = [torch.as_tensor(modalign.knn(rng.lognormal(sigma=1.5, size=(400, 30)), 8, metric="dot").indices)
            for _ in range(2)]  # fmt: skip
    n, k = hubs[0].shape
    p = k / (n - 1)
    independent = np.sqrt(k * p * (1 - p) * (n - 1 - k) / (n - 2) / n) / k
    assert mutual_knn_null(*hubs, 0.1).sd > 1.5 * independent


def test_cka_mean_and_sd_are_those_of_all_relabellings() -> None:
    rng = np.random.default_rng(0)
    n = 7
    x, y = (rng.gamma(1.0, size=(n, d)) for d in (3, 2))
    x, y = x - x.mean(0), y - y.mean(0)
    scores = []
    for s in itertools.permutations(range(n)):
        cross = np.square(x.T @ y[list(s)]).sum()
        scores.append(cross / np.sqrt(np.square(x.T @ x).sum() * np.square(y.T @ y).sum()))
    traces = [(np.square(z).sum(), np.square(z.T @ z).sum(), np.square(np.square(z).sum(1)).sum()) for z in (x, y)]
    null = cka_null(n, *traces, (0.5, 0.5), score=0.9)
    assert null.mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert null.sd == pytest.approx(np.std(scores), rel=1e-9)
    assert null.p < 0.01


def test_cka_of_what_relabelling_does_not_change() -> None:
    n = 6
    square = np.eye(n) - 1 / n  # every direction alike
    traces = (np.trace(square), np.square(square).sum(), np.square(np.diag(square)).sum())
    null = cka_null(n, traces, traces, (0.0, 0.0), score=1.0)
    assert (null.sd, null.p, null.calibrated) == (0.0, 1.0, 0.0)


def test_unbiased_cka_has_one_mean_and_sd_for_all() -> None:
    rng = np.random.default_rng(1)
    n = 6
    for d_x, d_y in ((1, 1), (3, 2), (9, 4)):
        x, y = (rng.gamma(1.0, size=(n, d)) for d in (d_x, d_y))
        scores = [unbiased_cka(x, y[list(s)]) for s in itertools.permutations(range(n))]
        null = unbiased_cka_null(n, (0.0, 0.0), score=0.9)
        assert np.mean(scores) == pytest.approx(0, abs=1e-12)
        assert null.sd == pytest.approx(np.std(scores), rel=1e-9)


def scores_under_relabelling(x: np.ndarray, y: np.ndarray, count: int) -> tuple[Moments, dict[str, np.ndarray]]:
    whole = moments(x, y)
    shuffled = [relabelled(whole, x, y[s.numpy()]) for s in random_relabellings(len(x), count)]
    return whole, {
        name: np.array([METRICS[name].load("evaluate")(sums) for sums in shuffled]) for name in ("cka", "unbiased_cka")
    }


def test_tails_of_cka() -> None:
    """The tails hold for spectra from one direction to many equal ones.

    A gamma distribution is wrong by a factor of four at p = 0.002.
    """
    rng = np.random.default_rng(0)
    lengths = np.r_[8, np.ones(39)]
    for scales in (np.ones(1), np.ones(50), lengths):
        x, y = rng.normal(size=(2, 60, len(scales))) * scales
        whole, drawn = scores_under_relabelling(x, y, 4000)
        traces, skewness = (whole.traces("x"), whole.traces("y")), (whole.skewness("x"), whole.skewness("y"))
        assert cka_tail_holds(60, *traces)
        for p, least, most in ((0.05, 0.04, 0.065), (0.01, 0.006, 0.015), (0.002, 0.0003, 0.005)):
            thresholds = {
                "cka": cka_null(60, *traces, skewness, 0.0, 1 - p).threshold,
                "unbiased_cka": unbiased_cka_null(60, skewness, 0.0, 1 - p).threshold,
            }
            for name, threshold in thresholds.items():
                assert least <= (drawn[name] > threshold).mean() <= most, (len(scales), name, p)


def test_where_few_rows_are_long_the_tails_do_not_hold() -> None:
    rng = np.random.default_rng(0)
    sparse = [(rng.permutation(200) < 10).astype(float)[:, None] for _ in range(2)]
    outlier = rng.normal(size=(100, 4))
    outlier[0] *= 50
    for x, y in (sparse, (outlier, outlier), rng.standard_cauchy(size=(2, 300, 2)), rng.normal(size=(2, 20, 2))):
        whole = moments(x, y)
        assert not cka_tail_holds(len(x), whole.traces("x"), whole.traces("y"))
        null = align(x, y, ["cka"], k=3, intervals=False, relabellings=19)["cka"].null
        assert null.kind == "relabelled"


def test_no_score_below_chance_is_calibrated_above_it() -> None:
    for best in (1.0, 0.0):
        for score in (0.001, 0.5, 0.999):
            null = sampled_null(score, np.linspace(1.05, 1.2, 39) if best else np.linspace(-0.2, -0.1, 39), best=best)
            assert null.calibrated == 0.0
    x, y = np.random.default_rng(1).normal(size=(2, 6, 1))
    null = align(x, y, ["mutual_knn"], k=1, confidence=0.999)["mutual_knn"].null
    assert 0 <= null.calibrated <= 1


def test_p_of_relabelling() -> None:
    drawn = [0.1 * i for i in range(1, 20)]
    assert sampled_null(5.0, drawn).p == 1 / 20
    assert sampled_null(0.1, drawn).p == 1.0
    lower = sampled_null(0.05, [0.5 + 0.01 * i for i in range(19)], best=0.0)  # a distance
    assert lower.p == 1 / 20
    assert lower.calibrated == pytest.approx((0.05 - lower.threshold) / (0 - lower.threshold))
    with pytest.raises(ValueError, match="at least 19 relabellings, got 5"):
        sampled_null(0.5, drawn[:5])


def mean_within_groups(a: torch.Tensor, b: torch.Tensor, groups: torch.Tensor) -> float:
    """Return the mean of mutual k-NN over all relabellings within groups.

    An edge of a from group s to group t meets each of the N_st ordered pairs of two such items equally often.
    """
    count = int(groups.max()) + 1
    codes = [(groups[:, None] * count + groups[graph]).flatten() for graph in (a, b)]
    edges = [torch.bincount(code, minlength=count**2).double() for code in codes]
    sizes = torch.bincount(groups, minlength=count).double()
    pairs = (torch.outer(sizes, sizes) - torch.diag(sizes)).flatten()
    return float((edges[0] * edges[1] / pairs).sum()) / a.numel()


def test_relabelling_within_groups_has_the_mean_of_all_such_relabellings() -> None:
    a, b = graphs(120, 6)
    groups = torch.arange(120) % 7
    scores = shares(a, b, 4000, within=groups)
    assert mean_within_groups(a, b, groups) == pytest.approx(float(scores.mean()), abs=4 * float(scores.std()) / 63)
    assert mean_within_groups(a, b, torch.zeros(120, dtype=torch.int64)) == pytest.approx(6 / 119, rel=1e-12)


def test_units_move_whole() -> None:
    units = torch.tensor([3, 3, 1, 1, 0, 0, 7, 7, 7, 2, 2, 2])
    seen = set()
    for s in random_relabellings(12, 200, 0, units=units):
        assert sorted(s.tolist()) == list(range(12))
        for unit in (0, 1, 2, 3, 7):
            place = units[s[units == unit]]
            assert len(set(place.tolist())) == 1
            seen.add((unit, int(place[0])))
    assert seen == {(a, b) for same in ((0, 1, 3), (2, 7)) for a in same for b in same}
    with pytest.raises(ValueError, match="within or units, got both"):
        next(random_relabellings(12, 1, within=units, units=units))


def test_fewer_than_four_items() -> None:
    graph = torch.tensor([[1], [2], [0]])
    with pytest.raises(ValueError, match="at least 4 items, got 3"):
        mutual_knn_null(graph, graph, 1.0)
    with pytest.raises(ValueError, match="at least 4 items, got 3"):
        cka_null(3, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0), 1.0)
    with pytest.raises(ValueError, match="at least 4 items, got 3"):
        unbiased_cka_null(3, (0.0, 0.0), 1.0)


def test_null_is_a_record() -> None:
    null = mutual_knn_null(*graphs(50, 5), 0.9)
    assert null == Null(null.kind, null.mean, null.sd, null.p, null.threshold, null.calibrated, 0)
    assert null.p < 1e-12
    assert 0.85 < null.calibrated < 0.9


def test_cells_are_the_clusters_and_take_their_share_of_the_alignment() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(400) % 8
    centers = torch.randn(8, 12, generator=generator)
    x, y = (centers[truth] + 0.1 * torch.randn(400, 12, generator=generator) for _ in range(2))
    cells = kmeans_cells(x, 8)
    assert torch.equal(cells, kmeans_cells(x, 8))
    pairs = torch.stack([cells, truth]).unique(dim=1)
    assert pairs.shape == (2, 8)  # one cell a cluster, and one cluster a cell
    plain = modalign.align(x, y, ["mutual_knn"], null="relabelled", relabellings=99)["mutual_knn"].null
    inside = modalign.align(x, y, ["mutual_knn"], within=cells, relabellings=99)["mutual_knn"].null
    assert plain is not None
    assert inside is not None
    assert (plain.p, inside.p > 0.01) == (0.01, True)
    assert inside.mean > 4 * plain.mean


def test_cells_are_the_same_from_memory_and_from_a_file(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    assert torch.equal(kmeans_cells(x, 12, seed=3), kmeans_cells(tmp_path / "x.npy", 12, seed=3))


@pytest.mark.parametrize(
    ("count", "error", "message"),
    [
        (1, ValueError, "from 2 to half of the 10 rows, got 1"),
        (6, ValueError, "from 2 to half of the 10 rows, got 6"),
        (2.0, TypeError, "an integer, got 2.0"),
    ],
)
def test_cells_refuse(count: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"kmeans_cells: count must be {message}"):
        kmeans_cells(torch.randn(10, 3), count)
    with pytest.raises(ValueError, match="must be finite, got NaN or inf in rows"):
        kmeans_cells(torch.full((10, 3), float("nan")), 3)
