"""Tests of preparation: rows are those of the published recipes, in memory and in files."""

from pathlib import Path

import numpy as np
import pytest
import torch

import modalign
from modalign.alignment import preparation
from modalign.alignment.preparation import PREPARATIONS, prepare, prepare_layers
from modalign.files.rows import Rows

N, D = 200, 24


def rows(dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Return rows with a few outlying features, as the layers of language models have them, and a zero row."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(N, D))
    table[:, 3] *= 50
    table[5] = 0
    return table.astype(dtype)


def unit(table: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    return np.divide(table, lengths, out=np.zeros_like(table), where=lengths > 0)


def recipe(how: str, layers: list[np.ndarray], q: float = 0.95) -> list[np.ndarray]:
    """Return the layers prepared by the published recipes in NumPy: clamped, then divided by their norms or not."""
    wide = [layer.astype(np.float64) for layer in layers]
    bounds = [np.inf] * len(wide)
    rule, every = how.removesuffix("_unnorm"), np.abs(np.concatenate(wide, 1))
    if rule == "platonic":
        bounds = [np.quantile(every, q, axis=1).mean()] * len(wide)
    elif rule == "platonic_exact":
        bounds = [np.sort(every, axis=None)[int(q * every.size)]] * len(wide)
    elif rule == "emergence":
        bounds = [np.sort(np.abs(layer), axis=None)[int(q * layer.size)] for layer in wide]
    clamped = [layer.clip(-bound, bound) for layer, bound in zip(wide, bounds, strict=True)]
    return clamped if how.endswith("_unnorm") else [unit(layer) for layer in clamped]


@pytest.mark.parametrize("how", PREPARATIONS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_recipe(how: str, dtype: str) -> None:
    result = prepare(rows(dtype), how)
    assert isinstance(result, np.ndarray)
    assert result.dtype == (np.float64 if dtype == "float64" else np.float32)
    np.testing.assert_allclose(result, recipe(how, [rows(dtype)])[0], rtol=1e-12 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("how", PREPARATIONS)
def test_layers(how: str) -> None:
    layers = [rows(), 3 * rows(seed=1)]
    for result, wanted in zip(prepare_layers(layers, how), recipe(how, layers), strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8])
@pytest.mark.parametrize("place", [0, 1, 7, N * D // 2, N * D - 1])
def test_a_value_is_found_at_its_place(dtype: torch.dtype, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "BLOCK", 7 * D)
    table = torch.from_numpy(rows()).clamp(-127, 127).to(dtype)
    table[0, 0] = -0.0
    wanted = table.abs().flatten().double().sort().values[place]
    assert preparation._value_at([preparation.open_rows(half) for half in table.split(N // 2)], place) == wanted


@pytest.mark.parametrize("how", PREPARATIONS)
def test_files_are_prepared_as_they_are_read(how: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows())
    expected = prepare(rows(), how)
    for x in (tmp_path / "rows.npy", np.load(tmp_path / "rows.npy", mmap_mode="r")):
        result = prepare(x, how)
        assert isinstance(result, Rows)
        assert np.array_equal(result.read(0, N).numpy(), expected)
        assert np.array_equal(result.read(17, 40).numpy(), expected[17:40])
        assert np.array_equal(modalign.knn(result, 5).indices, modalign.knn(expected, 5).indices)
    tensor = prepare(torch.from_numpy(rows()), how)
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.numpy(), expected)


def test_prepared_rows_are_told_from_others(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows())
    layers = [tmp_path / "rows.npy", 3 * rows(seed=1)]  # the rules differ for the layers of a model
    paths = {str(prepare_layers(layers, how)[0].fingerprint()["path"]) for how in PREPARATIONS}
    assert len(paths) == len(PREPARATIONS)


def test_rows_of_any_size() -> None:
    table = rows("float64")
    for scale in (1e-300, 1e300):
        np.testing.assert_allclose(prepare(table * scale, "unit_rows"), prepare(table, "unit_rows"), rtol=1e-12)


@pytest.mark.parametrize("how", PREPARATIONS)
def test_align_measures_prepared_rows(how: str, tmp_path: Path) -> None:
    tables = [rows(), rows()[:, ::2] + np.float32(0.3) * rows(seed=1)[:, ::2]]
    names = ["mutual_knn", "clipped_cka", "cmd"]
    expected = modalign.align(*(prepare(table, how) for table in tables), names, k=5)
    result = modalign.align(*tables, names, k=5, prepare=how)
    assert [score.value for score in result.scores] == [score.value for score in expected.scores]
    assert result.settings["prepare"] == how
    for name, table in zip("xy", tables, strict=True):
        np.save(tmp_path / f"{name}.npy", table)
    paths = [str(tmp_path / f"{name}.npy") for name in "xy"]
    mapped = modalign.align(*paths, names, k=5, prepare=how)
    assert [score.value for score in mapped.scores] == pytest.approx([score.value for score in expected.scores])
    sampled = modalign.align(*paths, ["mutual_knn"], k=5, prepare=how, sample=N)
    assert sampled["mutual_knn"].value == pytest.approx(expected["mutual_knn"].value)
    layers = modalign.align_layers([tables[0]], [tables[1]], k=5, prepare=how, relabellings=0)
    assert layers.matrix == [[expected["mutual_knn"].value]]


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"how must be one of .*, got 'whiten'"):
        prepare(rows(), "whiten")
    with pytest.raises(ValueError, match="quantile must be above 0 and at most 1, got 0"):
        prepare(rows(), "platonic", quantile=0)
    sparse = np.zeros((N, D))
    sparse[:, 0] = 1
    for how in ("platonic", "platonic_exact", "emergence", "emergence_unnorm"):
        with pytest.raises(ValueError, match=r"0\.95 of the absolute values of y are 0"):
            prepare(sparse, how, quantile=0.95, name="y")
    for bad in (np.nan, np.inf):
        table = rows()
        table[7, 2] = bad
        np.save(tmp_path / "bad.npy", table)
        for how in PREPARATIONS:
            with pytest.raises(ValueError, match=r"y must be finite, got NaN or inf in rows \[7\]"):
                prepare(table, how, name="y")
            with pytest.raises(ValueError, match=r"bad.npy must be finite, got NaN or inf in rows \[7\]"):
                modalign.align(tmp_path / "bad.npy", rows(), prepare=how)
    with pytest.raises(ValueError, match=r"every layer must hold the same items, got \[200, 199\] rows"):
        prepare_layers([rows(), rows()[:-1]], "platonic")
