"""Metrics of neighbours against their published formulas, written densely with NumPy in float64."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import modalign
from modalign.metrics import graphs
from modalign.metrics.diagnostics import Duplicates, duplicates
from modalign.metrics.edges import cknna, cknna_from_graphs, second_order_cosine, second_order_cosine_rows
from modalign.metrics.neighborhoods import (
    cycle_knn,
    edit_distance_knn,
    jaccard_knn,
    lcs_knn,
    mutual_knn,
    neighborhood_scores,
    rank_similarity,
    relabelled_overlap,
)

LISTS: dict[str, Callable[..., float]] = {
    "mutual_knn": mutual_knn,
    "jaccard_knn": jaccard_knn,
    "rank_similarity": rank_similarity,
    "lcs_knn": lcs_knn,
    "edit_distance_knn": edit_distance_knn,
    "cycle_knn": cycle_knn,
}
METRICS = {**LISTS, "cknna": cknna, "second_order_cosine": second_order_cosine}
Array = np.ndarray[Any, Any]


def data(n: int = 70, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 7)) + 0.5
    return x, np.tanh(x @ rng.normal(size=(7, 5))) + 0.2 * rng.normal(size=(n, 5))


def kernel(x: Array, metric: str = "cosine") -> Array:
    x = np.asarray(x, dtype=np.float64)
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


def lists(scores: Array, k: int) -> Array:
    """Return the argsort of the dense matrix without its diagonal."""
    scores = scores.copy()
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def mask(graph: Array, n: int) -> Array:
    table = np.zeros((n, n))
    np.put_along_axis(table, graph, 1.0, axis=1)
    return table


def common(x: Array, y: Array, k: int) -> tuple[Array, Array]:
    return lists(kernel(x), k), lists(kernel(y), k)


@pytest.mark.parametrize("k", [1, 6, 69])
def test_shares_of_neighbours(k: int) -> None:
    x, y = data()
    a, b = (mask(graph, len(x)) for graph in common(x, y, k))
    both, either = (a * b).sum(1), np.maximum(a, b).sum(1)
    assert mutual_knn(x, y, k) == pytest.approx((both / k).mean(), abs=1e-15)
    assert jaccard_knn(x, y, k) == pytest.approx((both / either).mean(), abs=1e-15)


@pytest.mark.parametrize("k", [1, 6, 69])
def test_rank_similarity_as_in_the_survey(k: int) -> None:
    x, y = data()
    ranks = []
    for graph in common(x, y, k):
        table = np.full((len(x), len(x)), np.inf)
        np.put_along_axis(table, graph, np.arange(1.0, k + 1)[None], axis=1)
        ranks.append(table)
    r, s = ranks
    both = np.isfinite(r) & np.isfinite(s)
    r, s = np.where(both, r, 1), np.where(both, s, 1)
    sums = np.where(both, 2 / ((1 + np.abs(r - s)) * (r + s)), 0).sum(1)
    harmonic = np.array([sum(1 / (i + 1) for i in range(c)) or 1.0 for c in both.sum(1)])
    assert rank_similarity(x, y, k) == pytest.approx((sums / harmonic).mean(), rel=1e-13)


def test_cycle_knn_is_the_accuracy_of_composed_lists() -> None:
    """Huh et al. 2024: compute_knn_accuracy(knn_A[knn_B])."""
    x, y = data()
    a, b = common(x, y, 4)
    items = np.arange(len(x))[:, None, None]
    there = (a[b] == items).reshape(len(x), -1).max(1).mean()
    back = (b[a] == items).reshape(len(x), -1).max(1).mean()
    assert there != back
    assert cycle_knn(x, y, 4) == pytest.approx(there, abs=1e-15)
    assert cycle_knn(x, y, 4, direction="yx") == pytest.approx(back, abs=1e-15)
    assert cycle_knn(x, y, 4, direction="both") == pytest.approx((there + back) / 2, abs=1e-15)


def test_lcs_and_edit_distance_by_recursion_over_prefixes() -> None:
    x, y = data()
    k = 6
    a, b = common(x, y, k)
    length, distance = np.zeros((2, len(x), k + 1, k + 1))
    distance[:, :, 0] = distance[:, 0, :] = np.arange(k + 1)
    for i in range(1, k + 1):
        for j in range(1, k + 1):
            same = a[:, i - 1] == b[:, j - 1]
            skip = np.maximum(length[:, i - 1, j], length[:, i, j - 1])
            length[:, i, j] = np.where(same, length[:, i - 1, j - 1] + 1, skip)
            change = np.minimum(distance[:, i - 1, j], distance[:, i, j - 1]) + 1
            distance[:, i, j] = np.minimum(change, distance[:, i - 1, j - 1] + ~same)
    assert lcs_knn(x, y, k, normalize=False) == pytest.approx(length[:, k, k].mean(), rel=1e-14)
    assert lcs_knn(x, y, k) == pytest.approx(length[:, k, k].mean() / k, rel=1e-14)
    assert edit_distance_knn(x, y, k) == pytest.approx(1 - distance[:, k, k].mean() / k, rel=1e-14)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("k", [1, 5, 69])
def test_cknna_is_the_equation(k: int, metric: str) -> None:
    """Huh et al. 2024, appendix A."""
    x, y = data()
    n = len(x)
    kernels = [kernel(rows, metric) for rows in (x, y)]
    masks = [mask(lists(values, k), n) for values in kernels]
    centred = [values - values.mean(1, keepdims=True) for values in kernels]

    def align(i: int, j: int) -> float:
        return float((masks[i] * masks[j] * centred[i] * centred[j]).sum())

    expected = align(0, 1) / np.sqrt(align(0, 0) * align(1, 1))
    assert cknna(x, y, k, metric=metric) == pytest.approx(expected, rel=1e-11)
    assert cknna(y, x, k, metric=metric) == pytest.approx(expected, rel=1e-11)


def published_code(x: Array, y: Array, k: int) -> float:
    """The published program computes the unbiased HSIC of kernels times the masks, which are not symmetric."""
    n = len(x)
    kernels = [kernel(rows) for rows in (x, y)]
    masks = [mask(lists(values, k), n) for values in kernels]

    def hsic(i: int, j: int) -> float:
        shared = masks[i] * masks[j]
        one, two = shared * kernels[i], shared * kernels[j]
        np.fill_diagonal(one, 0)
        np.fill_diagonal(two, 0)
        total = (one * two.T).sum() + one.sum() * two.sum() / ((n - 1) * (n - 2)) - 2 * (one @ two).sum() / (n - 2)
        return float(total / (n * (n - 3)))

    return hsic(0, 1) / (np.sqrt(hsic(0, 0) * hsic(1, 1)) + 1e-6)


@pytest.mark.parametrize("k", [2, 5, 69])
def test_cknna_as_coded(k: int) -> None:
    x, y = data()
    expected = published_code(x, y, k)
    assert cknna(x, y, k, variant="code") == pytest.approx(expected, rel=1e-10)
    assert cknna(x, y, k) != pytest.approx(expected, rel=1e-2)


def test_cknna_of_one_representation_and_what_a_constant_in_the_code_makes_of_it() -> None:
    x = data(400)[0]
    assert cknna(x, 2 * x, 3) == pytest.approx(1, abs=1e-12)
    coded = cknna(x, 2 * x, 3, variant="code")
    assert coded == pytest.approx(published_code(x, x, 3), rel=1e-10)
    assert coded < 1 - 1e-5


def test_cknna_takes_the_similarities_of_the_stored_rows_in_float64() -> None:
    x, y = (rows.astype(np.float32) for rows in data(200))
    graphs = [modalign.knn(rows, 5) for rows in (x, y)]
    expected = cknna_from_graphs(x.astype(np.float64), y.astype(np.float64), *graphs)
    assert cknna_from_graphs(x, y, *graphs) == pytest.approx(expected, rel=1e-13)
    assert cknna(x, y, 5) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("k", [1, 5, 69])
def test_second_order_cosine_over_the_union(k: int) -> None:
    x, y = data()
    either = np.maximum(*(mask(graph, len(x)) for graph in common(x, y, k)))
    u, v = kernel(x) * either, kernel(y) * either
    each = (u * v).sum(1) / np.sqrt((u**2).sum(1) * (v**2).sum(1))
    graphs = [modalign.knn(rows, k) for rows in (x, y)]
    np.testing.assert_allclose(second_order_cosine_rows(x, y, *graphs), each, rtol=1e-12)
    assert second_order_cosine(x, y, k) == pytest.approx(each.mean(), rel=1e-12)
    some = torch.tensor([5, 0, 33])
    result = second_order_cosine_rows(x, y, *(graph.indices[some] for graph in graphs), rows=some)
    np.testing.assert_allclose(result, each[some], rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_rotations_scales_and_a_common_order_change_nothing(name: str) -> None:
    x, y = data()
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    order = rng.permutation(len(x))
    expected = METRICS[name](x, y, 5)
    assert 0 < expected < 1
    assert METRICS[name](x @ turn, 3 * y, 5) == pytest.approx(expected, rel=1e-10)
    assert METRICS[name](x[order], y[order], 5) == pytest.approx(expected, rel=1e-10)
    if name != "cycle_knn":
        assert METRICS[name](y, x, 5) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", METRICS)
def test_what_holds_the_rows_is_of_no_matter(name: str, tmp_path: Any) -> None:
    x, y = (rows.astype(np.float16) for rows in data())
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = METRICS[name](x.astype(np.float64), y.astype(np.float64), 5)
    assert METRICS[name](mapped, torch.from_numpy(y), 5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_items_of_a_group_are_no_neighbours(name: str) -> None:
    x, y = data(80)
    groups = np.arange(80) // 2
    twins = [
        np.repeat(rows[:40], 2, axis=0) + 1e-3 * np.random.default_rng(2).normal(size=rows.shape) for rows in (x, y)
    ]
    alone, apart = METRICS[name](*twins, 1), METRICS[name](*twins, 1, groups=groups)
    assert apart < alone - 0.01
    if name in LISTS:
        a, b = (modalign.knn(rows, 1, groups=groups) for rows in twins)
        assert apart == pytest.approx(float(neighborhood_scores(name, a, b).mean()), rel=1e-14)


@pytest.mark.parametrize("name", LISTS)
def test_scores_of_items_have_the_metric_as_their_mean(name: str) -> None:
    x, y = data()
    graphs = [modalign.knn(rows, 5) for rows in (x, y)]
    scores = neighborhood_scores(name, *graphs)
    assert scores.dtype == torch.float64
    assert float(scores.mean()) == pytest.approx(LISTS[name](x, y, 5), rel=1e-14)
    assert torch.equal(neighborhood_scores(name, *(torch.as_tensor(graph.indices) for graph in graphs)), scores)
    if name != "cycle_knn":
        some = [graph.indices[10:20] for graph in graphs]
        assert torch.equal(neighborhood_scores(name, *some, candidates=70), scores[10:20])


def test_relabelling_the_rows_of_y_counts_as_relabelled() -> None:
    x, y = data()
    a, b = (modalign.knn(rows, 5) for rows in (x, y))
    s = torch.randperm(70)
    shared = relabelled_overlap(a, b, torch.stack([torch.arange(70), s]))
    assert shared.dtype == torch.int64
    assert (shared / 350).tolist() == pytest.approx([mutual_knn(x, y, 5), mutual_knn(x, y[s.numpy()], 5)], rel=1e-6)


def test_float64_rows_whose_squares_overflow() -> None:
    x, y = data()
    size = np.repeat([1e-300, 1.0, 1e300], [20, 30, 20])[:, None]
    for metric in (cknna, second_order_cosine):
        assert metric(x * size, y * 1e-310, 5) == pytest.approx(metric(x, y, 5), rel=1e-9)
    graph = modalign.knn(x, 5)
    with pytest.raises(
        ValueError, match="cknna_from_graphs: inner products of x overflow float64; scale its rows down"
    ):
        cknna_from_graphs(x * 1e200, y, graph, graph, metric="dot")


@pytest.mark.parametrize("name", METRICS)
def test_blocks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data()
    rows = np.repeat(x, 2, axis=0)
    expected = METRICS[name](x, y, 5)
    monkeypatch.setattr(graphs, "BLOCK_ELEMENTS", 100)
    assert METRICS[name](x, y, 5) == pytest.approx(expected, rel=1e-13)
    assert duplicates(rows) == Duplicates(140, 70, 2)
    graph = torch.as_tensor(modalign.knn(x, 5).indices)
    twice = graph.clone()
    twice[33, 4] = twice[33, 0]
    with pytest.raises(ValueError, match="each row of b must hold distinct indices, got one twice in row 33"):
        neighborhood_scores("mutual_knn", graph, twice)


MEMORY = """
import json, pathlib, re
import torch
from modalign.metrics import graphs
from modalign.metrics.edges import *
from modalign.metrics.diagnostics import *
from modalign.metrics.neighborhoods import *
from modalign.neighbors import copies
graphs.BLOCK_ELEMENTS = copies.BLOCK_ELEMENTS = 1 << 16
torch.set_num_threads(1)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
def call(n, of):
    x, y = torch.randn(n, 8), torch.randn(n, 8)
    steps = (1 + torch.randperm(n // 3)[:5] for _ in "ab")
    a, b = ((torch.arange(n)[:, None] + torch.cat([step, -step])) % n for step in steps)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    base = peak()
    of(x, y, a, b)
    return (peak() - base) / a.numel()
calls = {
    "rank_similarity": lambda x, y, a, b: neighborhood_scores("rank_similarity", a, b),
    "second_order_cosine": lambda x, y, a, b: second_order_cosine_rows(x, y, a, b),
    "graph": lambda x, y, a, b: (reciprocity(a), hubness(a)),
    "relabelled_overlap": lambda x, y, a, b: relabelled_overlap(a, b, torch.arange(len(a))),
    "duplicates": lambda x, y, a, b: (duplicates(x), duplicates(x[:1].expand_as(x))),
    "cknna": lambda x, y, a, b: cknna_from_graphs(x, y, a, b),
    "code": lambda x, y, a, b: cknna_from_graphs(x, y, a, b, variant="code"),
}
for of in calls.values():
    call(2000, of)
# the kernel may count freed pages late, and a little memory then hides among them
found = {name: call(100_000, of) for name, of in calls.items()}
found["rank_similarity"] = max(call(100_000, calls["rank_similarity"]) for _ in range(3))
print(json.dumps(found))
"""


def test_memory_grows_with_edges() -> None:
    """Count bytes for each of a million edges, 10 an item; freed memory is returned at once, so the peak is needed."""
    at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    run = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=300, env=at_once
    )
    result = json.loads(run.stdout)
    # the last two hold the edges' values; a block of rows is about 5 bytes an edge here, an item's number 0.8
    limits = {
        "rank_similarity": 1.5,
        "second_order_cosine": 8,
        "graph": 3.5,
        "relabelled_overlap": 5.5,
        "duplicates": 8,
        "cknna": 45,
        "code": 105,
    }
    assert result.keys() == limits.keys()
    assert all(0.3 < result[name] < limits[name] for name in limits), result


@pytest.mark.parametrize("name", LISTS)
def test_a_score_is_a_float_for_every_kind_of_integer(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    scores = [LISTS[name](x, x[:, :2], k) for k in (3, np.int64(3), torch.tensor(3))]
    assert [type(score) for score in scores] == [float] * 3
    assert len(set(scores)) == 1
