"""Metrics and losses against their published formulas, written densely in float64."""

import itertools

import numpy as np
import pytest
import torch

import modalign


def data(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 7)) + 3
    return x, np.tanh(x @ rng.normal(size=(7, 5))) + 0.3 * rng.normal(size=(n, 5))


def test_cka_is_hsic_of_centred_gram_matrices() -> None:
    x, y = data()
    center = np.eye(len(x)) - 1 / len(x)
    kernel, other = center @ x @ x.T @ center, center @ y @ y.T @ center
    expected = (kernel * other).sum() / np.sqrt((kernel**2).sum() * (other**2).sum())
    assert modalign.cka(x, y) == pytest.approx(expected, rel=1e-12)


def test_unbiased_cka_is_the_mean_over_quadruples() -> None:
    """Song et al. 2012: HSIC_1 is the U-statistic of this kernel over ordered quadruples of distinct items."""
    x, y = data(n=7)
    kernels = {"x": x @ x.T, "y": y @ y.T}

    def hsic(a: str, b: str) -> float:
        k, m = kernels[a], kernels[b]
        terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in itertools.permutations(range(len(x)), 4)]
        return float(np.mean(terms))

    expected = hsic("x", "y") / np.sqrt(hsic("x", "x") * hsic("y", "y"))
    assert modalign.unbiased_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_unbiased_cka_of_unrelated_wide_features_is_zero_where_cka_is_not() -> None:
    rng = np.random.default_rng(0)
    values = [[metric(rng.normal(size=(50, 200)), rng.normal(size=(50, 200))) for _ in range(40)]
              for metric in (modalign.cka, modalign.unbiased_cka)]  # fmt: skip
    assert np.mean(values[0]) > 0.7
    assert abs(np.mean(values[1])) < 0.01


def test_mutual_knn_as_published() -> None:
    """Huh et al. 2024: unit rows, inner product, argsort of the dense matrix without its diagonal."""
    x, y = data(n=200)
    masks = []
    for rows in (x, y):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        scores = unit @ unit.T
        np.fill_diagonal(scores, -np.inf)
        mask = np.zeros_like(scores, dtype=bool)
        np.put_along_axis(mask, np.argsort(-scores, axis=1)[:, :10], True, axis=1)
        masks.append(mask)
    expected = (masks[0] & masks[1]).sum(1).mean() / 10
    assert modalign.mutual_knn(x, y, k=10) == pytest.approx(expected, abs=1e-15)


def test_mutual_knn_of_unrelated_items_is_k_over_n_minus_1() -> None:
    rng = np.random.default_rng(0)
    values = [modalign.mutual_knn(rng.normal(size=(101, 5)), rng.normal(size=(101, 5)), k=10) for _ in range(60)]
    assert np.mean(values) == pytest.approx(0.1, abs=4 * np.std(values) / np.sqrt(60))


def test_metrics_stream_over_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    x, y = data(n=333)
    expected = modalign.cka(x, y), modalign.unbiased_cka(x, y)
    monkeypatch.setattr("modalign.metrics.sums.BLOCK_BYTES", 800)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert modalign.cka(mapped, y) == pytest.approx(expected[0], rel=1e-12)
    assert modalign.unbiased_cka(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected[1], rel=1e-12)


def test_info_nce_of_orthogonal_pairs() -> None:
    """x = y = identity: every row is one logit 1/t and n - 1 logits 0."""
    for n, t in ((2, 1.0), (5, 0.5), (11, 0.1)):
        expected = np.log(np.exp(1 / t) + n - 1) - 1 / t
        eye = torch.eye(n, dtype=torch.float64)
        assert modalign.info_nce(eye, eye, temperature=t).item() == pytest.approx(expected, rel=1e-12)


def test_learnable_temperature_is_clamped_as_clip_does() -> None:
    loss = modalign.InfoNCE(temperature=0.02, learnable=True)
    x = torch.randn(6, 4)
    loss(x, torch.randn(6, 4)).backward()
    assert loss.log_scale.grad is not None
    assert loss.log_scale.grad.abs() > 0
    with torch.no_grad():
        loss.log_scale.fill_(10.0)
    loss.zero_grad()
    value = loss(x, x)
    value.backward()
    assert loss.temperature.item() == pytest.approx(0.01)
    assert loss.log_scale.grad == 0
    torch.testing.assert_close(value.detach(), modalign.info_nce(x, x, temperature=0.01), rtol=1e-5, atol=1e-7)
    assert "learnable=True" in repr(loss)
    assert not list(modalign.InfoNCE().parameters())
