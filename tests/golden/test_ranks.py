"""Information imbalance and retrieval against dense NumPy, with ties, duplicates and groups."""

import numpy as np
import pytest

from modalign.metrics import information_imbalance, retrieval


def scores(x: np.ndarray, y: np.ndarray, metric: str) -> np.ndarray:
    if metric == "euclidean":
        return -np.square(x[:, None] - y[None]).sum(2)
    if metric == "cosine":
        x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return x @ y.T


def places(table: np.ndarray) -> np.ndarray:
    """Rank from 1 of every column in its row, equal ones by index."""
    order = np.argsort(-table, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, table.shape[1] + 1)[None], axis=1)
    return ranks


def dense_imbalance(x: np.ndarray, y: np.ndarray, metric: str) -> float:
    near, far = (scores(z, z, metric) for z in (x, y))
    for table in (near, far):
        np.fill_diagonal(table, -np.inf)
    rows = np.arange(len(x))
    return float(2 / len(x) * places(far)[rows, near.argmax(1)].mean())


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_information_imbalance(metric: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(150, 4)), rng.normal(size=(150, 3))
    y[:, 0] = x[:, 0]
    found = information_imbalance(x, y, metric=metric)
    assert found.x_to_y == pytest.approx(dense_imbalance(x, y, metric), abs=1e-12)
    assert found.y_to_x == pytest.approx(dense_imbalance(y, x, metric), abs=1e-12)


def test_unrelated_items_are_in_the_middle() -> None:
    rng = np.random.default_rng(1)
    found = information_imbalance(rng.normal(size=(500, 4)), rng.normal(size=(500, 4)))
    assert found.x_to_y == pytest.approx(1, abs=0.1)


def test_duplicates_are_ranked_by_index() -> None:
    x = np.repeat(np.random.default_rng(0).integers(0, 9, size=(20, 3)).astype(float), 3, axis=0)
    for metric in ("euclidean", "dot"):
        found = information_imbalance(x, x[::-1].copy(), metric=metric)
        assert found.x_to_y == pytest.approx(dense_imbalance(x, x[::-1], metric), abs=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_retrieval(metric: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6))
    y = x + 0.8 * rng.normal(size=x.shape)
    y[10:13] = y[10]
    found = retrieval(x, y, metric=metric)
    for side, table in ((found.x_to_y, scores(x, y, metric)), (found.y_to_x, scores(y, x, metric))):
        if metric != "cosine":  # NumPy's cosines of equal rows may differ in the last digit
            assert side.ranks.tolist() == np.diagonal(places(table)).tolist()
        expected = np.diagonal(places(table))
        assert side.recall[5] == pytest.approx((expected <= 5).mean(), abs=0.02)
        assert side.median == pytest.approx(np.median(expected), abs=1)
    assert found.x_to_y.reciprocal == pytest.approx((1 / found.x_to_y.ranks.double()).mean())


def test_the_best_of_a_group_counts() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 5))
    y = x + 0.9 * rng.normal(size=x.shape)
    groups = np.arange(90) // 3
    table = scores(x, y, "dot")
    expected = [min(places(table)[i][j] for j in range(90) if groups[j] == groups[i]) for i in range(90)]
    assert retrieval(x, y, metric="dot", groups=groups).x_to_y.ranks.tolist() == expected


def test_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 4)), rng.normal(size=(100, 4))
    whole = retrieval(x, y).x_to_y.ranks
    monkeypatch.setattr("modalign.metrics.ranks.TILE", 700)
    assert retrieval(x, y).x_to_y.ranks.equal(whole)


def test_mistakes() -> None:
    x = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(ValueError, match="one space, got widths 3 and 2"):
        retrieval(x, x[:, :2])
    with pytest.raises(ValueError, match=r"k must be numbers from 1, got \(0,\)"):
        retrieval(x, x, k=(0,))
    with pytest.raises(ValueError, match=r"groups must be \(10,\) integers"):
        retrieval(x, x, groups=np.arange(9))
    with pytest.raises(ValueError, match="at least 3 rows, got 2"):
        information_imbalance(x[:2], x[:2])
    with pytest.raises(ValueError, match=r"got \(10, 3\) and \(9, 3\)"):
        information_imbalance(x, x[:9])
    with pytest.raises(ValueError, match="metric must be one of"):
        retrieval(x, x, metric="l1")
