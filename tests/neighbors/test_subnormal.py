"""Neighbours are those of the stored values where the process takes subnormal numbers as 0."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import modalign
from modalign.metrics import retrieval, rsa

SCALES = [(np.float32, 1e-40), (np.float16, 3e-7), (np.float64, 1e-310), (np.float64, 1e-160), (np.float32, 1.0)]


@contextmanager
def flushed() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        assert np.float32(1e-40) * np.float32(1) == 0
        yield
        assert np.float32(1e-40) * np.float32(1) == 0  # as it was
    finally:
        torch.set_flush_denormal(False)


def rows(dtype: type, scale: float, n: int = 200, d: int = 8) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(n, d)) * scale).astype(dtype)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_the_neighbours_are_those_of_the_stored_values(dtype: type, scale: float, metric: str, tmp_path: Path) -> None:
    x = rows(dtype, scale)
    np.save(tmp_path / "x.npy", x)
    expected, among = (modalign.knn(x, 4, queries=queries, metric=metric) for queries in (None, x[:20]))
    with flushed():
        graphs = [
            modalign.knn(x, 4, metric=metric),
            modalign.knn(x, 4, metric=metric, block_size=60),
            modalign.knn(tmp_path / "x.npy", 4, metric=metric, num_threads=1),
        ]
        queries = modalign.knn(x, 4, queries=x[:20], metric=metric)
    for graph in graphs:
        assert np.array_equal(graph.indices, expected.indices)
        assert graph.scores.tobytes() == expected.scores.tobytes()
    assert np.array_equal(queries.indices, among.indices)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_subnormal_float64_rows_have_the_neighbours_of_their_multiples(metric: str) -> None:
    x = (np.random.default_rng(0).integers(-50, 50, size=(300, 3)) * 5e-324).astype(np.float64)
    expected = modalign.knn(np.ldexp(np.ldexp(x, 600), 474), 5, metric=metric)
    assert np.array_equal(modalign.knn(x, 5, metric=metric).indices, expected.indices)
    wide = np.tile(x[:40], (1, 12_000))  # a row is more than torch leaves to one thread
    expected = modalign.knn(wide * 2.0**600, 5, metric=metric)
    assert np.array_equal(modalign.knn(wide, 5, metric=metric).indices, expected.indices)


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1e-40), (np.float64, 1e-310), (torch.bfloat16, 1e-39)])
def test_metrics_refuse_subnormal_numbers_that_the_process_takes_as_0(dtype: type, scale: float) -> None:
    x = rows(np.float64, scale)
    x = torch.from_numpy(x).to(dtype) if isinstance(dtype, torch.dtype) else x.astype(dtype)
    message = r"x holds numbers below .* in rows \[0, 1, 2\] .* call torch.set_flush_denormal\(False\)"
    with flushed():
        for score in (modalign.cka, rsa, retrieval):
            with pytest.raises(ValueError, match=message):
                score(x, x)
        with pytest.raises(ValueError, match=message):
            modalign.align(x, x, ["cka"])
    assert modalign.cka(rows(np.float16, 3e-7), rows(np.float16, 3e-7)) == pytest.approx(1)


def test_metrics_take_normal_numbers_in_such_a_process() -> None:
    x, half = rows(np.float32, 1.0), rows(np.float16, 3e-7)
    expected = modalign.cka(x, half)
    with flushed():
        assert modalign.cka(x, half) == pytest.approx(expected, rel=1e-12)
