"""Linear metrics against their published formulas, written densely with NumPy in float64."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from modalign.metrics.linear import (
    cca,
    centered_cmd,
    cka,
    clipped_cka,
    cmd,
    linear_r2,
    moments,
    moments_of_parts,
    procrustes,
    pwcca,
    rv,
    svcca,
    unbiased_cka,
)
from modalign.metrics.registry import METRICS

EVALUATORS = {name: metric.load("evaluate") for name, metric in METRICS.items() if metric.needs == "moments"}


def pair(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 7)) + 3
    return x, np.tanh(x @ rng.normal(size=(7, 5))) + 0.3 * rng.normal(size=(n, 5))


def centred(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(0)


def canonical(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the singular values of Q_x' Q_y."""
    return np.linalg.svd(np.linalg.qr(centred(x))[0].T @ np.linalg.qr(centred(y))[0], compute_uv=False)


def principal(rows: np.ndarray, variance: float) -> np.ndarray:
    u, s, _ = np.linalg.svd(centred(rows), full_matrices=False)
    count = int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), variance - 1e-12)) + 1
    return u[:, :count] * s[:count]


def dense_pwcca(x: np.ndarray, y: np.ndarray) -> float:
    q_x, q_y = np.linalg.qr(centred(x))[0], np.linalg.qr(centred(y))[0]
    u, rho, _ = np.linalg.svd(q_x.T @ q_y, full_matrices=False)
    weights = np.abs((q_x @ u).T @ centred(x)).sum(1)
    return float((weights * rho).sum() / weights.sum())


def dense_ridge_cca(x: np.ndarray, y: np.ndarray, ridge: float) -> float:
    """Return the square roots of the eigenvalues of S_xx^-1 S_xy S_yy^-1 S_yx."""
    x, y = centred(x), centred(y)
    s_xx, s_yy = (z.T @ z + ridge * np.square(z).sum() / z.shape[1] * np.eye(z.shape[1]) for z in (x, y))
    squares = np.linalg.eigvals(np.linalg.solve(s_yy, y.T @ x) @ np.linalg.solve(s_xx, x.T @ y))
    return float(np.sqrt(squares.real).mean())


def dense_rv2(x: np.ndarray, y: np.ndarray) -> float:
    k, m = (centred(z) @ centred(z).T for z in (x, y))
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return float((k * m).sum() / np.sqrt((k**2).sum() * (m**2).sum()))


def dense_clipped_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Return CKA from HSIC_1 of kernels without their diagonals, clipped as in the code of Tjandrasuwita et al."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        total = (a * b.T).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b).sum() / (n - 2)
        return max(float(total / (n * (n - 3))), 0.0)

    return hsic(k, m) / (np.sqrt(hsic(k, k)) * np.sqrt(hsic(m, m)))


def dense_cmd(x: np.ndarray, y: np.ndarray) -> float:
    k, m = x @ x.T, y @ y.T
    return float(1 - np.trace(k @ m) / (np.linalg.norm(k) * np.linalg.norm(m)))


def dense_r2(x: np.ndarray, y: np.ndarray) -> float:
    fit = centred(x) @ np.linalg.lstsq(centred(x), centred(y), rcond=None)[0]
    return float(np.square(fit).sum() / np.square(centred(y)).sum())


def dense_procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """Return 1 - d^2 / 2, with d from rotating one representation onto the other."""
    a, b = (centred(z) / np.linalg.norm(centred(z)) for z in (x, y))
    b = np.pad(b, ((0, 0), (0, a.shape[1] - b.shape[1])))
    u, _, v = np.linalg.svd(b.T @ a)
    return float(1 - np.linalg.norm(a - b @ u @ v) ** 2 / 2)


DENSE: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
    "cca": (cca, lambda x, y: float(canonical(x, y).mean())),
    "cca squared": (lambda x, y: cca(x, y, squared=True), lambda x, y: float(np.square(canonical(x, y)).mean())),
    "cca with a ridge": (lambda x, y: cca(x, y, ridge=0.1), lambda x, y: dense_ridge_cca(x, y, 0.1)),
    "svcca": (
        lambda x, y: svcca(x, y, variance=0.9),
        lambda x, y: float(canonical(principal(x, 0.9), principal(y, 0.9)).mean()),
    ),
    "svcca of 2": (
        lambda x, y: svcca(x, y, components=2, standardize=True),
        lambda x, y: float(canonical(*(principal(z / z.std(0), 1)[:, :2] for z in (x, y))).mean()),
    ),
    "pwcca": (pwcca, dense_pwcca),
    "pwcca symmetric": (
        lambda x, y: pwcca(x, y, symmetric=True),
        lambda x, y: (dense_pwcca(x, y) + dense_pwcca(y, x)) / 2,
    ),
    "procrustes": (procrustes, dense_procrustes),
    "rv2": (lambda x, y: rv(x, y, adjusted=True), dense_rv2),
    "clipped_cka": (clipped_cka, dense_clipped_cka),
    "cmd": (cmd, dense_cmd),
    "centered_cmd": (centered_cmd, lambda x, y: dense_cmd(centred(x), centred(y))),
    "linear_r2": (linear_r2, dense_r2),
    "linear_r2 adjusted": (
        lambda x, y: linear_r2(x, y, adjusted=True),
        lambda x, y: 1 - (1 - dense_r2(x, y)) * (len(x) - 1) / (len(x) - 1 - x.shape[1]),
    ),
}


@pytest.mark.parametrize("name", DENSE)
def test_as_published(name: str) -> None:
    ours, dense = DENSE[name]
    assert ours(*pair()) == pytest.approx(dense(*pair()), rel=1e-10)


def test_clipped_cka_is_the_unbiased_or_zero() -> None:
    rng = np.random.default_rng(0)
    pairs = [rng.normal(size=(2, 40, 5)) for _ in range(20)]
    values = [unbiased_cka(*rows) for rows in pairs]
    assert min(values) < 0 < max(values)
    assert [clipped_cka(*rows) for rows in pairs] == [max(value, 0.0) for value in values]
    assert [dense_clipped_cka(*rows) for rows in pairs] == pytest.approx([max(value, 0.0) for value in values])
    equally_far = np.eye(20)
    assert clipped_cka(equally_far, rng.normal(size=(20, 3))) == 0


@pytest.mark.parametrize("metric", [cka, unbiased_cka, cca, svcca, pwcca, procrustes, rv, centered_cmd, linear_r2])
def test_a_rotation_a_shift_and_a_scale_change_nothing(metric: Callable[..., float]) -> None:
    x, y = pair()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    changed = metric(3 * x + 5, y)
    assert changed == pytest.approx(metric(x, y), rel=1e-9)
    if metric is not pwcca:  # whose weights are sums over features
        assert metric(x @ rotation, y) == pytest.approx(metric(x, y), rel=1e-9)


def test_cca_does_not_change_under_an_invertible_map() -> None:
    x, y = pair()
    mixing = np.random.default_rng(2).normal(size=(7, 7))
    assert cca(x @ mixing, y) == pytest.approx(cca(x, y), rel=1e-8)


def test_directed_metrics_are() -> None:
    x, y = pair()
    assert linear_r2(x, y) != pytest.approx(linear_r2(y, x), abs=0.01)
    assert pwcca(x, y) != pytest.approx(pwcca(y, x), abs=1e-4)


def test_parts_add_up() -> None:
    x, y = pair(200)
    parts = torch.arange(200) % 7
    pieces = moments_of_parts(x, y, parts)
    whole = sum(pieces[1:], start=pieces[0])
    for name, metric in EVALUATORS.items():
        assert metric(whole) == pytest.approx(metric(moments(x, y)), rel=1e-9), name
        some = pieces[2] + pieces[5]
        kept = (parts == 2) | (parts == 5)
        assert metric(some) == pytest.approx(metric(moments(x[kept.numpy()], y[kept.numpy()])), rel=1e-8), name


def test_large_activations_of_one_feature_are_no_loss_of_rank() -> None:
    """A column of 10^6 times the others' size leaves them 10^-12 of its variance."""
    x, y = pair()
    large = x * np.array([1e6, 1, 1, 1, 1, 1, 1])
    for metric in (cca, linear_r2):
        assert metric(large, y) == pytest.approx(metric(x, y), rel=1e-8)
    assert pwcca(y, large) == pytest.approx(pwcca(y, x), rel=1e-8)


def test_constant_columns_stay_constant() -> None:
    """The sum of n times 0.1 over n is not 0.1: the difference must not be scaled up to a feature."""
    x, y = pair()
    padded = np.column_stack([np.full(len(x), 0.1), x, np.full(len(x), 1e5 / 3)])
    for metric in (cca, pwcca, linear_r2, lambda a, b: svcca(a, b, variance=1, standardize=True)):
        assert metric(padded, y) == pytest.approx(metric(x, y), rel=1e-9)


def test_unrelated_representations_score_zero_where_corrected() -> None:
    rng = np.random.default_rng(0)
    corrected: list[Callable[..., float]] = [
        unbiased_cka, lambda x, y: rv(x, y, adjusted=True), lambda x, y: linear_r2(x, y, adjusted=True)
    ]  # fmt: skip
    values = [
        [metric(*rows) for metric in corrected]
        for rows in ((rng.normal(size=(60, 20)), rng.normal(size=(60, 20))) for _ in range(40))
    ]
    assert np.abs(np.mean(values, axis=0)).max() < 0.02
    x, y = rng.normal(size=(60, 20)), rng.normal(size=(60, 20))
    assert min(cka(x, y), linear_r2(x, y)) > 0.2


def test_files_and_half_precision(tmp_path: Path) -> None:
    x, y = (rows.astype(np.float16) for rows in pair(300))
    for name, rows in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", rows)
    expected = cka(x.astype(np.float64), y.astype(np.float64))
    assert cka(str(tmp_path / "x.npy"), tmp_path / "y.npy") == expected
    assert cka(np.load(tmp_path / "x.npy", mmap_mode="r"), torch.from_numpy(y)) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_types_are_the_values_they_hold(dtype: torch.dtype) -> None:
    x, y = (torch.from_numpy(rows).to(dtype) for rows in pair(100))
    wide = x.double(), y.double()
    for name, metric in EVALUATORS.items():
        assert metric(moments(x, y)) == metric(moments(*wide)), name


def test_inputs_stay_as_they_were(tmp_path: Path) -> None:
    x, y = pair()
    kept = x.copy(), y.copy()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r+")
    cka(x, torch.from_numpy(y))
    cka(mapped, y)
    assert np.array_equal(x, kept[0])
    assert np.array_equal(y, kept[1])
    assert np.array_equal(mapped, kept[0])


@pytest.mark.parametrize("opened", ['"{}"', 'np.load("{}", mmap_mode="r")'])
def test_memory_of_a_large_file(tmp_path: Path, opened: str) -> None:
    """300,000 x 64 in float16 are 38 MB, x and y together 307 MB in float64; three blocks of 16 MB are held.

    Freed memory goes back at once, so that the peak is what was alive and not how the heap was cut up.
    """
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.random((300_000, 64), dtype=np.float32).astype(np.float16))
    rows = opened.format(tmp_path / "x.npy")
    script = f"""
import re
from pathlib import Path
from modalign.metrics import cka
import numpy as np
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
cka(np.eye(50), np.eye(50) + np.arange(50))
base = peak()
cka({rows}, {rows})
print(peak() - base)
"""
    at_once = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    run = subprocess.run([sys.executable, "-c", script], env=at_once, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 3 * 16  # 28 MB; the file, were it held, would come to 38 more


def test_mistakes() -> None:
    x, y = pair(20)
    with pytest.raises(ValueError, match=r"cca: x and y must be .* got \(20, 7\) and \(10, 5\)"):
        cca(x, y[:10])
    with pytest.raises(ValueError, match="linear_r2: y does not vary"):
        linear_r2(x, np.ones((20, 3)))
    with pytest.raises(ValueError, match="procrustes: x does not vary"):
        procrustes(np.full((20, 3), 0.1), y)
    with pytest.raises(ValueError, match="x has 7 directions and 8 rows, so every correlation would be 1"):
        cca(x[:8], y[:8])
    with pytest.raises(ValueError, match="variance must be above 0"):
        svcca(x, y, variance=0)
    with pytest.raises(ValueError, match="between 1 and the smaller width 5, got 6"):
        svcca(x, y, components=6)
    with pytest.raises(ValueError, match="x must not be all zeros"):
        cmd(np.zeros((20, 2)), y)
    with pytest.raises(TypeError, match=r"x must be a NumPy array, a torch tensor.* or a list of rows, got set"):
        cka({1.0}, y)
    with pytest.raises(TypeError, match=r"svcca: components must be an integer, got 2\.5"):
        svcca(x, y, components=2.5)
    with pytest.raises(ValueError, match="svcca: x has 1 directions that vary, got components = 3"):
        svcca(np.repeat(x[:, :1], 7, axis=1), y, components=3)
    with pytest.raises(ValueError, match=r"cca: ridge must be finite and not negative, got -1"):
        cca(x, y, ridge=-1)
    with pytest.raises(ValueError, match="unbiased_cka: needs at least 4 rows, got 3"):
        unbiased_cka(x[:3], y[:3])
    with pytest.raises(ValueError, match=r"cka: y must be finite, got NaN or inf in rows \[3\]"):
        cka(x, np.where(np.arange(20)[:, None] == 3, np.nan, y))
    with pytest.raises(ValueError, match="rv: x does not vary"):
        rv(np.full((20, 3), 0.1), y, adjusted=True)
    with pytest.raises(ValueError, match="the unbiased HSIC of x with itself must be positive, got one of rows about"):
        unbiased_cka(np.eye(20), y)


@pytest.mark.parametrize("metric", EVALUATORS)
def test_one_row_no_row_of_a_part_and_extreme_sizes_are_refused(metric: str) -> None:
    x, y = pair(40)
    of = EVALUATORS[metric]
    _, empty, last = moments_of_parts(x, y, np.where(np.arange(40) == 7, 2, 0))
    with pytest.raises(ValueError, match="moments: "):
        of(empty)
    if metric != "cmd":  # of rows as they are
        with pytest.raises(ValueError, match="moments: "):
            of(last)
    with pytest.raises(ValueError, match="x is so large that its fourth powers overflow float64; scale the rows down"):
        of(moments(x * 1e90, y))
    with pytest.raises(ValueError, match="y is so small that its fourth powers vanish in float64; scale the rows up"):
        of(moments(x, y * 1e-90))
