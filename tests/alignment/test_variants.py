"""Variants that published programs compute are reached from ``align``, ``align_layers`` and the command line."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import modalign
from modalign.alignment.preparation import prepare
from modalign.cli import app
from modalign.metrics import cknna, cmd, unbiased_cka
from modalign.metrics.registry import METRICS, metric_names


def rows(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rows with a mean far from 0, whose HSIC is small."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6)) + 5
    y = x[:, :4] + rng.normal(size=(n, 4))
    return tuple(side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y))


def dense_unbiased_cka(x: np.ndarray, y: np.ndarray, added: float) -> float:
    """Return unbiased CKA of n x n kernels, by the equation of Song et al., with a number added to the denominator."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        total = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
        return float(total / (n * (n - 3)))

    k, m = (side @ side.T * (1 - np.eye(len(side))) for side in (x, y))
    return hsic(k, m) / (np.sqrt(hsic(k, k) * hsic(m, m)) + added)


def test_the_code_of_unbiased_cka_adds_to_the_denominator() -> None:
    x, y = rows()
    coded = unbiased_cka(x, y, variant="code")
    assert coded == pytest.approx(dense_unbiased_cka(x, y, 1e-6), rel=1e-9)
    assert unbiased_cka(x, y) == pytest.approx(dense_unbiased_cka(x, y, 0), rel=1e-9)
    assert coded < unbiased_cka(x, y) - 1e-4
    with pytest.raises(ValueError, match=r"unbiased_cka: variant must be one of .*, got 'paper'"):
        unbiased_cka(x, y, variant="paper")
    with pytest.raises(ValueError, match="x does not vary"):
        unbiased_cka(np.ones_like(x), y, variant="code")


@pytest.mark.parametrize("name", ["cknna_code", "unbiased_cka_code"])
def test_a_variant_has_a_name_everywhere(name: str, tmp_path: Path) -> None:
    x, y = rows()
    expected = {"cknna_code": lambda: cknna(x, y, 5, variant="code")}.get(
        name, lambda: unbiased_cka(x, y, variant="code")
    )()
    score = modalign.align(x, y, [name], k=5, relabellings=19)[name]
    assert score.value == pytest.approx(expected, rel=1e-9)
    assert score.null is not None
    assert modalign.align_layers([x], [y], name, k=5, relabellings=0).matrix[0][0] == pytest.approx(expected, rel=1e-9)
    for side, table in zip("xy", (x, y), strict=True):
        np.save(tmp_path / f"{side}.npy", table)
    files = [str(tmp_path / f"{side}.npy") for side in "xy"]
    result = CliRunner().invoke(app, ["align", *files, "--metrics", name, "--k", "5", "--null", "none", "--quiet"])
    assert f"{expected:.4f}" in result.output, result.output


def test_all_metrics_leave_variants_out() -> None:
    assert not [name for name in metric_names("align", "all") if METRICS[name].options]


def test_clamped_rows_keep_their_lengths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_t(3, size=(2, 60, 6))
    clamped = prepare(x, "emergence_unnorm"), prepare(y, "emergence_unnorm")
    assert np.abs(clamped[0]).max() == np.sort(np.abs(x), axis=None)[int(0.95 * x.size)]
    value = modalign.align(x, y, ["cmd"], prepare="emergence_unnorm")["cmd"].value
    assert value == cmd(*clamped)
    assert abs(value - modalign.align(x, y, ["cmd"], prepare="emergence")["cmd"].value) > 1e-3
    assert modalign.align_layers([x], [y], "cmd", prepare="emergence_unnorm", relabellings=0).matrix == [[value]]
    for side, table in zip("xy", (x, y), strict=True):
        np.save(tmp_path / f"{side}.npy", table)
    files = [str(tmp_path / f"{side}.npy") for side in "xy"]
    command = ["align", *files, "--metrics", "cmd", "--prepare", "emergence_unnorm", "--null", "none", "--quiet"]
    assert f"{value:.4f}" in CliRunner().invoke(app, command).output
