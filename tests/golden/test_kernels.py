"""CKA of Gaussian kernels and RSA against dense NumPy and SciPy."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from modalign.metrics import rbf_cka, rbf_cka_of_features, rsa


def pair(n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6)) + 2
    return x, np.tanh(x @ rng.normal(size=(6, 4))) + 0.3 * rng.normal(size=(n, 4))


def dense(x: np.ndarray, y: np.ndarray, sigmas: tuple[float, float], unbiased: bool) -> float:
    kernels = [np.exp(-(squareform(pdist(z)) ** 2) / (2 * s * s)) for z, s in zip((x, y), sigmas, strict=True)]
    n = len(x)

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        if not unbiased:
            center = np.eye(n) - 1 / n
            return float(np.trace(k @ center @ m @ center))
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        one = np.ones(n)
        return float(
            np.trace(k @ m) + one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one
        )

    return hsic(*kernels) / np.sqrt(hsic(kernels[0], kernels[0]) * hsic(kernels[1], kernels[1]))


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("tile", [1024, 23])
def test_rbf_cka(unbiased: bool, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalign.metrics.kernels.TILE", tile)
    x, y = pair()
    assert rbf_cka(x, y, sigma=(1.5, 0.7), unbiased=unbiased) == pytest.approx(
        dense(x, y, (1.5, 0.7), unbiased), rel=1e-10
    )
    medians = tuple(float(np.sort(pdist(z))[(len(pdist(z)) - 1) // 2]) for z in (x, y))
    assert rbf_cka(x, y, unbiased=unbiased) == pytest.approx(dense(x, y, medians, unbiased), rel=1e-10)


def test_random_features_come_near_within_their_error() -> None:
    x, y = pair(400)
    exact = rbf_cka(x, y, sigma=(2.0, 1.5))
    found = [rbf_cka_of_features(x, y, sigma=(2.0, 1.5), features=512, seed=seed) for seed in range(6)]
    assert sum(abs(one.value - exact) < 3 * one.error + 0.005 for one in found) >= 5
    wide = rbf_cka_of_features(x, y, sigma=(2.0, 1.5), features=64)
    assert wide.error > np.mean([one.error for one in found])


@pytest.mark.parametrize("distance", ["correlation", "cosine", "euclidean"])
@pytest.mark.parametrize("correlation", ["spearman", "pearson"])
def test_rsa(distance: str, correlation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalign.metrics.kernels.TILE", 17)
    x, y = pair()
    one, two = (pdist(z, distance) for z in (x, y))
    expected = (stats.spearmanr if correlation == "spearman" else stats.pearsonr)(one, two)[0]
    assert rsa(x, y, distance=distance, correlation=correlation) == pytest.approx(expected, abs=1e-9)


def test_rsa_of_equal_distances_shares_ranks() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0], [5.0]])
    y = np.array([[0.0], [1.0], [1.0], [2.0], [2.0]])
    expected = stats.spearmanr(pdist(x), pdist(y))[0]
    assert rsa(x, y, distance="euclidean") == pytest.approx(expected, abs=1e-12)


def test_rsa_of_some_pairs() -> None:
    x, y = pair(300)
    assert rsa(x, y, pairs=40_000) == pytest.approx(rsa(x, y), abs=0.03)
    assert rsa(x, y, pairs=1000, seed=1) != rsa(x, y, pairs=1000, seed=2)


def test_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair(20)
    with pytest.raises(ValueError, match="sigma must be a positive number or two, got 0"):
        rbf_cka(x, y, sigma=0)
    with pytest.raises(ValueError, match="more than half of the distances of y are 0"):
        rbf_cka(x, np.ones((20, 2)))
    with pytest.raises(ValueError, match="the kernel of y does not vary"):
        rbf_cka(x, np.ones((20, 2)), sigma=1)
    with pytest.raises(ValueError, match="features must be even"):
        rbf_cka_of_features(x, y, features=5)
    y[3] = 2.0
    with pytest.raises(ValueError, match=r"needs rows that vary, got constant ones \[3\] in y"):
        rsa(x, y)
    with pytest.raises(ValueError, match="all distances of y are equal"):
        rsa(x[:4], np.eye(4), distance="euclidean")
    monkeypatch.setattr("modalign.metrics.kernels.MOST_PAIRS", 100)
    with pytest.raises(ValueError, match="190 pairs, too many to rank in memory; give pairs=1_000_000"):
        rsa(x, x)
