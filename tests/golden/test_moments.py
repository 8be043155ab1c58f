"""Metrics of moments on cases worked out densely from their published formulas, with NumPy in float64."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from modalign.metrics.moments import (
    OF_MOMENTS,
    cca,
    centered_cmd,
    cka,
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


def pair(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 7)) + 3
    return x, np.tanh(x @ rng.normal(size=(7, 5))) + 0.3 * rng.normal(size=(n, 5))


def centred(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(0)


def canonical(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Singular values of Q_x' Q_y."""
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


def dense_rv2(x: np.ndarray, y: np.ndarray) -> float:
    k, m = (centred(z) @ centred(z).T for z in (x, y))
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return float((k * m).sum() / np.sqrt((k**2).sum() * (m**2).sum()))


def dense_cmd(x: np.ndarray, y: np.ndarray) -> float:
    k, m = x @ x.T, y @ y.T
    return float(1 - np.trace(k @ m) / (np.linalg.norm(k) * np.linalg.norm(m)))


def dense_r2(x: np.ndarray, y: np.ndarray) -> float:
    fit = centred(x) @ np.linalg.lstsq(centred(x), centred(y), rcond=None)[0]
    return float(np.square(fit).sum() / np.square(centred(y)).sum())


def dense_procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """1 - d^2 / 2, d by rotating one onto the other."""
    a, b = (centred(z) / np.linalg.norm(centred(z)) for z in (x, y))
    b = np.pad(b, ((0, 0), (0, a.shape[1] - b.shape[1])))
    u, _, v = np.linalg.svd(b.T @ a)
    return float(1 - np.linalg.norm(a - b @ u @ v) ** 2 / 2)


DENSE: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
    "cca": (cca, lambda x, y: float(canonical(x, y).mean())),
    "cca squared": (lambda x, y: cca(x, y, squared=True), lambda x, y: float(np.square(canonical(x, y)).mean())),
    "svcca": (
        lambda x, y: svcca(x, y, variance=0.9),
        lambda x, y: float(canonical(principal(x, 0.9), principal(y, 0.9)).mean()),
    ),
    "svcca of 2": (
        lambda x, y: svcca(x, y, components=2, standardize=True),
        lambda x, y: float(canonical(*(principal(z / z.std(0), 1)[:, :2] for z in (x, y))).mean()),
    ),
    "pwcca": (pwcca, dense_pwcca),
    "procrustes": (procrustes, dense_procrustes),
    "rv2": (lambda x, y: rv(x, y, adjusted=True), dense_rv2),
    "cmd": (cmd, dense_cmd),
    "centered_cmd": (centered_cmd, lambda x, y: dense_cmd(centred(x), centred(y))),
    "linear_r2": (linear_r2, dense_r2),
}


@pytest.mark.parametrize("name", DENSE)
def test_as_published(name: str) -> None:
    ours, dense = DENSE[name]
    assert ours(*pair()) == pytest.approx(dense(*pair()), rel=1e-10)


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
    for name, metric in OF_MOMENTS.items():
        assert metric(whole) == pytest.approx(metric(moments(x, y)), rel=1e-9), name
        some = pieces[2] + pieces[5]
        kept = (parts == 2) | (parts == 5)
        assert metric(some) == pytest.approx(metric(moments(x[kept.numpy()], y[kept.numpy()])), rel=1e-8), name


def test_one_pass_keeps_the_digits_of_rows_far_from_zero() -> None:
    """Mean / sd = 10^6: sums of squares about zero would lose twelve digits."""
    x, y = pair(500)
    for metric in (cka, unbiased_cka, cca, linear_r2):
        assert metric(x + 1e6, y - 1e6) == pytest.approx(metric(x, y), rel=1e-7)


def test_fourth_moments() -> None:
    x, y = pair()
    found = moments(x, y)
    p, q = (np.square(centred(z)).sum(1) for z in (x, y))
    for which, expected in (("xy", p @ q), ("xx", p @ p), ("yy", q @ q)):
        assert found.fourth(which) == pytest.approx(expected, rel=1e-10)
    assert found.traces("x") == pytest.approx((p.sum(), np.square(centred(x).T @ centred(x)).sum(), p @ p))


def test_files_and_half_precision(tmp_path: Path) -> None:
    x, y = (rows.astype(np.float16) for rows in pair(300))
    for name, rows in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", rows)
    expected = cka(x.astype(np.float64), y.astype(np.float64))
    assert cka(str(tmp_path / "x.npy"), tmp_path / "y.npy") == expected
    assert cka(np.load(tmp_path / "x.npy", mmap_mode="r"), torch.from_numpy(y)) == expected


def test_memory_of_a_large_file(tmp_path: Path) -> None:
    """400,000 x 64 in float16 are 51 MB a file and 410 MB in float64; a block of 32 MB and its parts are held."""
    rng = np.random.default_rng(0)
    for name in "xy":
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((400_000, 64), dtype=np.float32).astype(np.float16))
    script = f"""
import re, sys
from pathlib import Path
from modalign.metrics import cka
import numpy as np
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
cka(np.eye(50), np.eye(50) + np.arange(50))
base = peak()
cka("{tmp_path}/x.npy", "{tmp_path}/y.npy")
print(peak() - base)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 220  # the mapped files themselves may count: 102 MB


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
    with pytest.raises(TypeError, match="x must be a NumPy array or a torch tensor, got list"):
        cka([[1.0]], y)
