"""Integers of NumPy and torch are seeds and counts as Python's are, at every door; truth values and floats are not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modalign
from modalign.alignment.nulls import kmeans_cells, random_relabellings
from modalign.alignment.sampling import sampled_mutual_knn
from modalign.common.checks import whole_number
from modalign.metrics import rbf_cka, rbf_cka_of_features, retrieval, rsa, svcca

X = np.random.default_rng(0).normal(size=(60, 6))
ONE_METRIC = {"intervals": False, "null": "none"}


@pytest.mark.parametrize("three", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_an_integer_of_any_library_is_a_whole_number(three: object) -> None:
    assert type(whole_number("f", "n", three)) is int
    assert whole_number("f", "n", three, least=3, most=3) == 3


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), 3.0, np.float64(3), "3", None, np.array([3, 4])])
def test_truth_values_and_floats_are_no_whole_numbers(value: object) -> None:
    with pytest.raises(TypeError, match="f: n must be an integer, got"):
        whole_number("f", "n", value)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [({"least": 4}, "at least 4"), ({"most": 2}, "at most 2"), ({"least": 0, "most": 2}, "at most 2")],
)
def test_a_whole_number_out_of_range_names_the_range(bounds: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"f: n must be {message}, got 3"):
        whole_number("f", "n", 3, **bounds)


def saved(result: Any, folder: Path) -> dict[str, Any]:
    """Return what the file of a result holds, but for what a second run cannot share."""
    path = folder / "result.json"
    result.save(path)
    content: dict[str, Any] = json.loads(path.read_text())
    return {name: content[name] for name in ("settings",)}


DOORS: dict[str, Callable[[Callable[[int], Any]], Any]] = {
    "align": lambda n: modalign.align(
        X, X, ["cka", "mutual_knn"], k=n(5), seed=n(3), relabellings=n(19), null="relabelled", intervals=False
    ),
    "align of a sample": lambda n: modalign.align(X, X, ["mutual_knn"], k=5, sample=n(50), seed=n(3)),
    "align_layers": lambda n: modalign.align_layers([X], [X], k=n(5), relabellings=n(19), seed=n(3)),
    "sampled_mutual_knn": lambda n: sampled_mutual_knn(X, X, k=n(5), sample=n(50), seed=n(3)),
    "kmeans_cells": lambda n: kmeans_cells(X, n(5), seed=n(3)),
    "random_relabellings": lambda n: list(random_relabellings(n(5), n(2), n(3))),
    "knn": lambda n: modalign.knn(X, n(5), block_size=n(20), max_memory=n(10**8), num_threads=n(1)).indices,
    "rsa": lambda n: rsa(X, X, pairs=n(50), seed=n(3)),
    "rbf_cka": lambda n: rbf_cka(X, X, seed=n(3)),
    "rbf_cka_of_features": lambda n: rbf_cka_of_features(X, X, features=n(32), repeats=n(3), seed=n(3)),
    "svcca": lambda n: svcca(X, X, components=n(3)),
    "retrieval": lambda n: retrieval(X, X, k=(n(1), n(5))).x_to_y.recall,
    "synthetic": lambda n: modalign.data.synthetic(redundancy=n(8), n=n(40), seed=n(3), information=False),
    "digits": lambda n: modalign.data.digits(n(2), seed=n(3), pca=n(4)),
    "digit_bits": lambda n: modalign.data.digit_bits(redundancy=n(1), n=n(100), seed=n(3)),
    "split_of": lambda n: modalign.data.split_of(np.arange(40) % 2, seed=n(3)),
    "chunked_forward": lambda n: modalign.chunked_forward(lambda rows: rows, torch.ones(4, 2), chunk_size=n(2)),
}


@pytest.mark.parametrize("door", DOORS)
def test_numpy_integers_are_taken_where_python_integers_are(door: str, tmp_path: Path) -> None:
    expected, result = DOORS[door](int), DOORS[door](np.int64)
    if hasattr(result, "save"):
        assert saved(result, tmp_path) == saved(expected, tmp_path)
    elif hasattr(result, "fingerprint"):
        assert result.fingerprint() == expected.fingerprint()
        assert json.dumps(result.settings) == json.dumps(expected.settings)
    else:
        assert str(result) == str(expected)


@pytest.mark.parametrize("door", DOORS)
def test_truth_values_are_refused_before_the_work(door: str) -> None:
    with pytest.raises(TypeError, match="must be an integer"):
        DOORS[door](lambda _: True)  # type: ignore[arg-type, return-value]
