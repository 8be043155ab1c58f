"""Information imbalance and retrieval where scores tie: expectations over random orders of those that tie."""

import numpy as np
import pytest
import torch

from modalign import align
from modalign.metrics import information_imbalance, retrieval
from modalign.metrics.inputs import PairedRows
from modalign.metrics.pair_tables import relabelled_pairs
from modalign.metrics.ranks import information_imbalance_of_rows, retrieval_of_rows

NAMES = ["information_imbalance", "retrieval"]


def rows(kind: str, seed: int, n: int = 90) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "one-hot":
        return np.eye(5)[rng.integers(0, 5, n)]
    if kind == "words":
        return (rng.random((n, 20)) < 0.06) * 1.0
    return rng.normal(size=(n, 4)) * (rng.random((n, 1)) > 0.3)


KINDS = ["one-hot", "words", "zero rows"]


def orders(x: np.ndarray, y: np.ndarray, k: int, groups: np.ndarray, count: int) -> np.ndarray:
    """Return rank, hit among the first k and reciprocal rank of each query, means over random orders of ties."""
    rng, table = np.random.default_rng(5), -((x[:, None] - y) ** 2).sum(2)
    partner = groups[:, None] == groups
    sums = np.zeros((3, len(x)))
    for _ in range(count):
        noise = rng.random(table.shape)
        order = np.lexsort((noise, -table), axis=1)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, len(y) + 1)[None], axis=1)
        first = np.where(partner, ranks, len(y) + 1).min(1)
        sums += [first, first <= k, 1 / first]
    return sums / count


@pytest.mark.parametrize("grouped", [False, True])
def test_retrieval_is_the_mean_over_random_orders_of_ties(grouped: bool) -> None:
    x, y = rows("one-hot", 0, 40), rows("one-hot", 1, 40)
    groups = np.arange(40) // 4 if grouped else np.arange(40)
    result = retrieval(x, y, k=(6,), metric="euclidean", groups=groups, candidates="rows").x_to_y
    rank, hit, reciprocal = orders(x, y, 6, groups, 4000)
    assert result.ranks.numpy() == pytest.approx(rank, abs=0.8)
    assert result.ranks.mean() == pytest.approx(rank.mean(), abs=0.1)
    assert result.recall[6] == pytest.approx(hit.mean(), abs=0.005)
    assert result.reciprocal == pytest.approx(reciprocal.mean(), abs=0.005)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_the_order_of_the_items_changes_nothing(kind: str, metric: str) -> None:
    x, y, s = rows(kind, 0), rows(kind, 1), np.random.default_rng(2).permutation(90)
    here, there = (information_imbalance(x[i], y[i], metric=metric) for i in (np.arange(90), s))
    assert here.x_to_y == pytest.approx(there.x_to_y, rel=1e-13)
    here, there = (retrieval(x[i], y[i], metric=metric).x_to_y for i in (np.arange(90), s))
    assert here.ranks[s].tolist() == pytest.approx(there.ranks.tolist())
    assert here.recall == pytest.approx(there.recall)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_relabelled_scores_are_those_of_relabelled_rows(kind: str, metric: str) -> None:
    x, y, s = rows(kind, 0), rows(kind, 1), torch.randperm(90, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(90) // 3
    relabelled = PairedRows(x, y[s], metric)
    values = [relabelled_pairs(name, x, y, metric)(s) for name in NAMES]
    expected = [information_imbalance_of_rows(relabelled), retrieval_of_rows(relabelled)]
    assert values == pytest.approx(expected, rel=1e-12)
    in_groups = retrieval_of_rows(PairedRows(x, y[s], metric, groups))
    assert relabelled_pairs("retrieval", x, y, metric, groups)(s) == pytest.approx(in_groups, rel=1e-12)


def test_tables_that_would_be_too_large_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, s = rows("words", 0), rows("words", 1), torch.randperm(90, generator=torch.Generator().manual_seed(0))
    expected = align(x, y, ["retrieval"], k=5, intervals=False, relabellings=19)["retrieval"]
    for name in ("CODES", "CODES_OF_ITEM"):
        monkeypatch.setattr(f"modalign.metrics.pair_tables.{name}", 1)
    assert relabelled_pairs("retrieval", x, y)(s) == retrieval_of_rows(PairedRows(x, y[s]))
    null = align(x, y, ["retrieval"], k=5, intervals=False, relabellings=19)["retrieval"].null
    assert expected.null is not None
    assert null is not None
    assert (null.p, null.mean) == (expected.null.p, pytest.approx(expected.null.mean))


def test_independent_rows_that_tie_are_not_aligned() -> None:
    """Ties by index gave p = 0.05 in each of these draws of one-hot rows."""
    small = dict.fromkeys(NAMES, 0)
    for seed in range(20):
        result = align(rows("one-hot", seed), rows("one-hot", 99 + seed), NAMES, k=5, intervals=False, relabellings=19)
        for name in NAMES:
            null = result[name].null
            assert null is not None
            small[name] += null.p <= 0.05
    assert max(small.values()) <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_x_with_itself_reaches_the_best_that_ties_allow(kind: str) -> None:
    x, y = rows(kind, 0), rows(kind, 1)
    result = align(x, x, NAMES, k=5, intervals=False, relabellings=19)
    for name in NAMES:
        score = result[name]
        assert score.value == score.best
        assert score.null is not None
        assert score.null.calibrated == 1
        assert any(f"{name} is its expectation" in note and f"{score.best:.2g}" in note for note in result.notes)
    between = align(x, y, NAMES, k=5, intervals=False, null="none")
    assert between["information_imbalance"].value >= between["information_imbalance"].best > 2 / 90
    assert between["retrieval"].value <= between["retrieval"].best < 1


def test_without_ties_the_best_scores_are_those_of_the_registry() -> None:
    x = np.random.default_rng(0).normal(size=(90, 4))
    result = align(x, x, NAMES, k=5, intervals=False, null="none")
    assert [result[name].best for name in NAMES] == [0.0, 1.0]
    assert not result.notes


def test_scores_that_are_equal_in_float32_alone_do_not_tie() -> None:
    """Two rows at 1 and 1 + 2^-30 from a third have cosines whose float32 roundings are equal."""
    near = np.array([[1.0, 0.0], [1.0, 2.0**-13], [1.0, -(2.0**-13) * (1 + 2.0**-20)], [0.0, 1.0], [-1.0, 0.3]])
    x = near.astype(np.float32)
    y = np.random.default_rng(0).normal(size=(5, 2))
    exact = information_imbalance(x.astype(np.float64), y, metric="cosine")
    assert information_imbalance(x, y, metric="cosine") == exact


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_rows_that_repeat_are_scored_once(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows("one-hot", 0) + rows("one-hot", 7), rows("one-hot", 1)
    once = retrieval(x, y, metric=metric)
    assert information_imbalance(x, y, metric=metric).x_to_y == pytest.approx(1, abs=0.1)
    large = [rows("one-hot", seed, 50_000) for seed in (0, 1)]  # would take minutes pair by pair
    assert information_imbalance(*large, metric=metric).x_to_y == pytest.approx(1, abs=0.01)
    assert retrieval(*large, metric=metric).x_to_y.recall[1] == pytest.approx(1 / 50_000, rel=0.02)
    monkeypatch.setattr("modalign.metrics.ranks.distinct_rows", lambda table: (None, range(len(table))))
    pairwise = retrieval(x, y, metric=metric)
    assert torch.equal(once.x_to_y.ranks, pairwise.x_to_y.ranks)
    assert torch.equal(once.y_to_x.ranks, pairwise.y_to_x.ranks)


def test_without_ties_ranks_are_whole_and_shares_exact() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 80, 4))
    result = retrieval(x, y, metric="euclidean").x_to_y
    whole = result.ranks.long()
    assert torch.equal(whole.double(), result.ranks)
    assert result.recall == {k: float((whole <= k).double().mean()) for k in (1, 5, 10)}
    assert result.reciprocal == float((1 / whole.double()).mean())
    far = np.linalg.norm(y[:, None] - y, axis=2)
    near = np.linalg.norm(x[:, None] - x, axis=2) + 9e9 * np.eye(80)
    ranks = torch.tensor([(far[i] < far[i, j]).sum() for i, j in enumerate(near.argmin(1))])
    assert information_imbalance(x, y).x_to_y == float(ranks.double().mean()) * 2 / 80
