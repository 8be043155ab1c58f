"""Hundreds of sets made to break the bound of a screen: one wrong neighbour fails the test.

MODALIGN_FUZZ=5000 pytest tests/neighbors/test_knn_fuzz.py        sets of each family (default 40)
"""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from modalign import _core
from modalign.kernels.knn import search as kernels
from modalign.ops.knn import METRICS
from modalign.reference import knn as reference
from neighbors.searching import knn

COUNT = int(os.environ.get("MODALIGN_FUZZ", "40"))
Rng = np.random.Generator


def scales(rng: Rng, n: int, decades: float) -> np.ndarray:
    return 10.0 ** rng.uniform(-decades, decades, size=(n, 1))


def integers(rng: Rng, n: int, d: int) -> np.ndarray:
    return rng.integers(-2, 3, size=(n, d)).astype(float)


FAMILIES: dict[str, Callable[[Rng, int, int], np.ndarray]] = {
    "normal": lambda rng, n, d: rng.normal(size=(n, d)),
    "near ties within rounding": lambda rng, n, d: (
        rng.normal(size=d) + 2.0 ** -rng.integers(8, 30) * rng.normal(size=(n, d))
    ),
    "duplicates": lambda rng, n, d: rng.normal(size=(max(1, n // 6), d))[rng.integers(0, max(1, n // 6), n)],
    "duplicates but for one bit": lambda rng, n, d: np.nextafter(
        np.float32(1) * rng.normal(size=(1, d)).astype(np.float32), np.float32(rng.choice([-9, 9], size=(n, d)))
    ),
    "integers, full of ties": integers,
    "large common mean": lambda rng, n, d: rng.normal(size=(n, d)) + 10.0 ** rng.uniform(1, 6),
    "one huge row": lambda rng, n, d: rng.normal(size=(n, d)) * np.where(np.arange(n) == n // 2, 1e15, 1)[:, None],
    "norms of many sizes": lambda rng, n, d: rng.normal(size=(n, d)) * scales(rng, n, 12),
    "denormals": lambda rng, n, d: rng.normal(size=(n, d)) * 1e-40,
    "zero rows": lambda rng, n, d: rng.normal(size=(n, d)) * rng.integers(0, 2, size=(n, 1)),
    "one huge feature": lambda rng, n, d: rng.normal(size=(n, d)) * np.where(np.arange(d) == 0, 1e4, 1),
    "one feature a row": lambda rng, n, d: np.eye(d)[rng.integers(0, d, n)] * scales(rng, n, 2),
    "two opposite rows": lambda rng, n, d: rng.normal(size=(1, d)) * rng.choice([-1, 1], size=(n, 1)),
    "clusters": lambda rng, n, d: rng.normal(size=(3, d))[rng.integers(0, 3, n)] + 1e-3 * rng.normal(size=(n, d)),
    "heavy tails": lambda rng, n, d: np.clip(rng.standard_cauchy(size=(n, d)), -1e15, 1e15),
    "at the steps of int8": lambda rng, n, d: (
        rng.integers(-127, 128, size=(n, d)) + rng.choice([-0.5, 0, 0.5], size=(n, d))
    ),
    "at the steps of int16": lambda rng, n, d: (
        rng.integers(-32767, 32768, size=(n, d)) + rng.choice([-0.5, 0, 0.5], size=(n, d))
    ),
    # all entries of a row are rounded the same way, which makes its int16 code as long as a code can be
    "one value a row": lambda rng, n, d: rng.choice([-1, 1], size=(n, 1)) * scales(rng, n, 0.01) * np.ones(d),
}
# made for the integer codes of the compiled core's screens; Triton's codes are float16
OF_INTEGER_CODES = ("at the steps of int8", "at the steps of int16", "one value a row")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = _core.isa()
    yield
    _core.use_screen("auto")
    _core.use_isa(before)


def everywhere() -> Iterator[str]:
    """Switch to every instruction set with each of its screens, and yield their names."""
    for isa in _core.isa_levels():
        _core.use_isa(isa)
        for screen in _core.screens():
            _core.use_screen(screen)
            yield f"{isa}, {screen}"
        _core.use_screen("auto")


@pytest.mark.parametrize("family", FAMILIES)
def test_neighbours_are_exact(family: str) -> None:
    for seed in range(COUNT):
        rng = np.random.default_rng(seed)
        n, d, m = int(rng.integers(2, 150)), int(rng.choice([1, 2, 3, 7, 16, 33, 64, 100])), int(rng.integers(0, 40))
        dtype = [torch.float32, torch.float32, torch.float64, torch.bfloat16][seed % 4]
        rows = torch.from_numpy(FAMILIES[family](rng, n + m, d)).to(dtype)
        x, queries = rows[:n], rows[n:] if m and seed % 3 == 0 else None
        k = int(rng.integers(1, n if queries is None else n + 1))
        for metric in METRICS:
            expected = reference.knn(x, queries, k, metric)
            for where in everywhere():
                result = knn(x, queries, k, metric, "cpp")
                case = f"{family}, seed {seed}, {metric}, {dtype}, {where}"
                assert torch.equal(result[0], expected[0]), case
                assert torch.equal(result[1], expected[1].to(result[1].dtype)), case


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in OF_INTEGER_CODES])
def test_survivors_of_a_threshold_are_exact(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small galleries are searched like large ones, with so little room that many rows are searched again by lists."""
    monkeypatch.setattr(kernels, "LARGE", 66)
    monkeypatch.setattr(kernels, "ROOM", 1)
    for seed in range(max(1, COUNT // 40)):
        rng = np.random.default_rng(seed)
        n, d, k = int(rng.integers(66, 76)), int(rng.choice([1, 3, 16, 33])), int(rng.integers(1, 4))
        x = torch.from_numpy(FAMILIES[family](rng, n, d)).to([torch.float32, torch.bfloat16][(seed + len(family)) % 2])
        for metric in METRICS:
            assert kernels._Search(x, None, k, metric).room
            expected = reference.knn(x, None, k, metric)
            result = kernels.knn(x, None, k, metric)
            assert torch.equal(result[0], expected[0]), f"{family}, seed {seed}, {metric}"
            assert torch.equal(result[1], expected[1]), f"{family}, seed {seed}, {metric}"


@pytest.mark.parametrize("largest", [127, 32767])
def test_integers_alone_would_be_wrong(largest: int) -> None:
    """Rounding to int8 or int16 alone would change neighbours: the families are hard enough to need the bound."""
    rng = np.random.default_rng(0)
    x = FAMILIES["near ties within rounding"](rng, 60, 16).astype(np.float32)
    codes = np.round(x / np.abs(x).max(1, keepdims=True) * largest)
    by_codes = torch.from_numpy(codes @ codes.T).fill_diagonal_(-torch.inf).topk(5).indices
    exact = reference.knn(torch.from_numpy(x), None, 5, "cosine")[0]
    assert not torch.equal(by_codes.sort(1).values, exact.sort(1).values)


def test_many_blocks() -> None:
    """The galleries have several stripes on both sides, and their lists fill up and are thinned."""
    rng = np.random.default_rng(1)
    for family in ("clusters", "integers, full of ties", "norms of many sizes"):
        rows = torch.from_numpy(FAMILIES[family](rng, 2600, 20)).float()
        for x, queries in ((rows, None), (rows[:2000], rows[2000:])):
            expected = reference.knn(x, queries, 12, "cosine")[0]
            for where in everywhere():
                assert torch.equal(knn(x, queries, 12, "cosine", "cpp")[0], expected), f"{family}, {where}"


def test_thousands_of_features() -> None:
    """Sums of int16 products fit int32 for any number of features."""
    rng = np.random.default_rng(2)
    for family in ("one value a row", "two opposite rows", "near ties within rounding", "one huge feature"):
        rows = torch.from_numpy(FAMILIES[family](rng, 60, 5001)).float()
        for metric in METRICS:
            expected = reference.knn(rows, None, 7, metric)[0]
            for where in everywhere():
                assert torch.equal(knn(rows, None, 7, metric, "cpp")[0], expected), f"{family}, {metric}, {where}"
