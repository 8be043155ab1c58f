"""CKA of Gaussian kernels and RSA against dense NumPy and SciPy."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from modalign.metrics import cka, rbf_cka, rbf_cka_of_features, rsa, unbiased_cka


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
    monkeypatch.setattr("modalign.metrics.tiles.TILE", tile)
    x, y = pair()
    assert rbf_cka(x, y, sigma=(1.5, 0.7), unbiased=unbiased) == pytest.approx(
        dense(x, y, (1.5, 0.7), unbiased), rel=1e-10
    )
    medians = tuple(float(np.median(pdist(z))) for z in (x, y))
    assert rbf_cka(x, y, unbiased=unbiased) == pytest.approx(dense(x, y, medians, unbiased), rel=1e-10)


def test_narrow_kernels_keep_their_digits() -> None:
    """Off the diagonal all entries are near 1e-20, so K - 1 would hold nothing but rounding."""
    x, y = pair(12)
    sigmas = (float(pdist(x).min()) / 8, float(pdist(y).min()) / 8)
    assert rbf_cka(x, y, sigma=sigmas) == pytest.approx(dense(x, y, sigmas, unbiased=True), rel=1e-8)


def test_wide_kernels_give_linear_cka() -> None:
    x, y = pair()
    assert rbf_cka(x, y, sigma=1e5, unbiased=False) == pytest.approx(cka(x, y), rel=1e-8)
    assert rbf_cka(x, y, sigma=1e5) == pytest.approx(unbiased_cka(x, y), rel=1e-8)


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_rbf_cka_ignores_units_and_origin(shift: float) -> None:
    x, y = pair()
    expected = rbf_cka(x, y)
    assert rbf_cka(1e3 * (x + shift), y) == pytest.approx(expected, rel=1e-7)
    assert rbf_cka(y, x) == pytest.approx(expected, rel=1e-12)
    assert rbf_cka(1e200 * x, 1e-200 * y) == pytest.approx(expected, rel=1e-9)


def test_random_features_come_near_within_their_error() -> None:
    """A set's kernel multiplied by itself would give 0.73 for x with x at 32 features."""
    x, y = pair(200)
    for other, sigmas in ((y, (2.0, 1.5)), (x, (2.0, 2.0)), (np.random.default_rng(1).normal(size=(200, 3)), (2.0, 1))):
        exact = rbf_cka(x, other, sigma=sigmas)
        for features in (32, 128):
            estimates = [
                rbf_cka_of_features(x, other, sigma=sigmas, features=features, seed=seed) for seed in range(25)
            ]
            values, errors = (
                np.array([getattr(estimate, name) for estimate in estimates]) for name in ("value", "error")
            )
            assert np.mean(abs(values - exact) <= 3 * errors) >= 0.88
            assert 0.5 < np.sqrt(np.mean(errors**2)) / np.std(values, ddof=1) < 2
            assert abs(values.mean() - exact) < 4 * np.std(values) / 5


def test_random_features_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    x, y = pair(700)
    expected = rbf_cka_of_features(x, y, features=64)
    assert rbf_cka_of_features(x, y, features=64) == expected
    assert rbf_cka_of_features(x, y, features=64, seed=1) != expected
    assert rbf_cka_of_features(x, y, features=256).error < 0.8 * expected.error
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    estimate = rbf_cka_of_features(mapped, torch.from_numpy(y), features=64)
    assert estimate.value == pytest.approx(expected.value, rel=1e-10)


@pytest.mark.parametrize("distance", ["correlation", "cosine", "euclidean"])
@pytest.mark.parametrize("correlation", ["spearman", "pearson"])
def test_rsa(distance: str, correlation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalign.metrics.tiles.TILE", 17)
    monkeypatch.setattr("modalign.metrics.distances.CHUNK", 17 * 17)
    x, y = pair()
    one, two = (pdist(z, distance) for z in (x, y))
    expected = (stats.spearmanr if correlation == "spearman" else stats.pearsonr)(one, two)[0]
    assert rsa(x, y, distance=distance, correlation=correlation) == pytest.approx(expected, abs=1e-9)


def test_rsa_of_equal_distances_shares_ranks() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0], [5.0]])
    y = np.array([[0.0], [1.0], [1.0], [2.0], [2.0]])
    expected = stats.spearmanr(pdist(x), pdist(y))[0]
    assert rsa(x, y, distance="euclidean") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("distance", ["correlation", "cosine"])
def test_rsa_of_distances_that_only_rounding_parts(distance: str) -> None:
    """In exact arithmetic, most cosines of a table of zeros and ones are equal to many others."""
    x = np.random.default_rng(0).integers(0, 2, size=(90, 9)).astype(float)
    x[:, 0], x[:, 1] = 0, 1
    y = np.random.default_rng(1).normal(size=(90, 5))
    expected = stats.spearmanr(pdist(x, distance).round(10), pdist(y, distance))[0]
    assert rsa(x, y, distance=distance) == pytest.approx(expected, abs=1e-12)


def test_rsa_of_near_rows_far_from_zero() -> None:
    """|a|^2 + |b|^2 - 2 <a, b> has no digit of the distances within two such clusters, half of all."""
    rng = np.random.default_rng(0)
    x = 1e5 + 1e4 * np.repeat([[-1.0], [1.0]], 25, axis=0) + 1e-3 * rng.normal(size=(50, 4))
    y = x + 1e-3 * rng.normal(size=x.shape)
    expected = stats.spearmanr(pdist(x), pdist(y))[0]
    assert rsa(x, y, distance="euclidean") == pytest.approx(expected, abs=1e-5)


def test_rsa_of_distances_that_hardly_differ() -> None:
    rng = np.random.default_rng(0)
    x, y = (1e3 * np.eye(60) + 1e-3 * rng.normal(size=(60, 60)) for _ in range(2))
    y += 0.5 * (x - 1e3 * np.eye(60))
    expected = np.corrcoef(pdist(x), pdist(y))[0, 1]
    assert rsa(x, y, distance="euclidean", correlation="pearson") == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("distance", ["correlation", "cosine", "euclidean"])
def test_rsa_ignores_units(distance: str) -> None:
    x, y = pair()
    expected = rsa(x, y, distance=distance)
    assert rsa(1e200 * x, 1e-200 * y, distance=distance) == pytest.approx(expected, abs=1e-9)
    assert rsa(torch.from_numpy(x), y, distance=distance) == expected
    half = torch.from_numpy(x).bfloat16()
    assert rsa(half, y, distance=distance) == rsa(half.double(), y, distance=distance)


def test_rsa_by_pearson_keeps_no_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair()
    expected = np.corrcoef(pdist(x, "correlation"), pdist(y, "correlation"))[0, 1]
    monkeypatch.setattr("modalign.metrics.distances.MOST_PAIRS", 100)
    assert rsa(x, y, correlation="pearson") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("correlation", ["spearman", "pearson"])
def test_rsa_of_some_pairs(correlation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair(300)
    whole = rsa(x, y, correlation=correlation)
    estimates = [rsa(x, y, correlation=correlation, pairs=4000, seed=seed) for seed in range(30)]
    assert np.mean(estimates) == pytest.approx(whole, abs=4 * np.std(estimates) / np.sqrt(30))
    assert 0 < np.std(estimates) < 2 / np.sqrt(4000)
    monkeypatch.setattr("modalign.metrics.distances.GATHERED", 100)
    assert rsa(x, y, correlation=correlation, pairs=4000, seed=3) == pytest.approx(estimates[3], rel=1e-12)


def test_memory_is_of_tiles() -> None:
    script = """
import json, pathlib, re
import numpy as np
from modalign.metrics import rbf_cka, rbf_cka_of_features, rsa
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
def run(x):
    rbf_cka(x, x, sigma=2.0), rsa(x, x, correlation="pearson"), rbf_cka_of_features(x, x, sigma=2.0, features=64)
    rsa(x, x, pairs=50_000)
x = np.random.default_rng(0).normal(size=(8000, 8)).astype(np.float32)
run(x[:99])
base = peak()
run(x)
print(json.dumps(peak() - base))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(run.stdout) < 190  # 130 MB; one matrix alone has 488


def test_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair(20)
    with pytest.raises(ValueError, match="sigma must be a positive number or two, got 0"):
        rbf_cka(x, y, sigma=0)
    with pytest.raises(ValueError, match="more than half of the distances of y are 0"):
        rbf_cka(x, np.ones((20, 2)))
    with pytest.raises(ValueError, match="the kernel of y does not vary"):
        rbf_cka(x, np.ones((20, 2)), sigma=1)
    for sigma in (-1.0, float("nan"), float("inf"), (1.0, 2.0, 3.0), "median", True):
        with pytest.raises(ValueError, match="rbf_cka: sigma must be a positive number or two, got"):
            rbf_cka(x, y, sigma=sigma)
    with pytest.raises(ValueError, match="rbf_cka: needs at least 4 rows, got 3"):
        rbf_cka(x[:3], y[:3])
    with pytest.raises(ValueError, match=r"rbf_cka: x and y must be .* got \(20, 6\) and \(19, 4\)"):
        rbf_cka(x, y[:19])
    with pytest.raises(ValueError, match="features must be even"):
        rbf_cka_of_features(x, y, features=5)
    with pytest.raises(ValueError, match="repeats must be at least 3, got 2"):
        rbf_cka_of_features(x, y, repeats=2)
    with pytest.raises(TypeError, match=r"features must be an integer, got 64\.0"):
        rbf_cka_of_features(x, y, features=64.0)
    with pytest.raises(ValueError, match="cannot tell the kernels of x and y from kernels that do not vary"):
        rbf_cka_of_features(x, np.ones((20, 2)), sigma=1.0)
    for pairs, kind, words in ((2, ValueError, "at least 3, got 2"), (9.0, TypeError, r"an integer, got 9\.0")):
        with pytest.raises(kind, match=f"rsa: pairs must be {words}"):
            rsa(x, y, pairs=pairs)
    with pytest.raises(ValueError, match=r"distance='cosine' needs rows, got zero ones \[0, 1, 2\] in x"):
        rsa(0 * x, y, distance="cosine")
    y[3] = 2.0
    with pytest.raises(ValueError, match=r"needs rows that vary, got constant ones \[3\] in y"):
        rsa(x, y)
    with pytest.raises(ValueError, match="all distances of y are equal"):
        rsa(x[:4], np.eye(4), distance="euclidean")
    monkeypatch.setattr("modalign.metrics.distances.MOST_PAIRS", 100)
    with pytest.raises(ValueError, match="190 pairs, too many to rank in memory; give pairs=1_000_000"):
        rsa(x, x)
    with pytest.raises(ValueError, match="rsa: pairs is 101, too many to rank in memory"):
        rsa(x, x, pairs=101)


def test_distances_that_differ_by_rounding_are_equal() -> None:
    rng = np.random.default_rng(0)
    other = rng.normal(size=(30, 5))
    collinear = rng.uniform(0.5, 2, (30, 1)) * rng.normal(size=4)
    ordered = np.sort(rng.normal(size=(30, 2)), 1)  # two features correlate with 1 or -1
    for correlation in ("spearman", "pearson"):
        with pytest.raises(ValueError, match="all distances of x are equal"):
            rsa(collinear, other, distance="cosine", correlation=correlation)
        with pytest.raises(ValueError, match="all distances of y are equal"):
            rsa(other, ordered, correlation=correlation)
