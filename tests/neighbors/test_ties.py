"""Lists with ties against a dense definition: the weights of tied neighbours, parts of the items, and drawn orders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import modalign
from modalign.files.rows import open_rows
from modalign.neighbors import tie_search
from modalign.neighbors.copies import distinct_rows
from modalign.neighbors.tie_search import TieSearch, search_lists
from modalign.neighbors.ties import TiedLists
from modalign.reference.knn import scores

N, K, LENGTH = 90, 5, 20
Rows = NDArray[np.float64]

FAMILIES: dict[str, Callable[[np.random.Generator], Rows]] = {
    "one-hot": lambda rng: np.eye(5)[rng.integers(0, 5, N)],
    "3 bits": lambda rng: rng.integers(0, 2, (N, 3)) * 2.0 - 1,
    "8 bits": lambda rng: rng.integers(0, 2, (N, 8)) * 2.0 - 1,
    "rows of zeros": lambda rng: rng.standard_normal((N, 8)) * (rng.random((N, 1)) > 0.3),
    "bags of words": lambda rng: (rng.random((N, 20)) < 0.06) * 1.0,
    "copies": lambda rng: np.repeat(rng.standard_normal((N // 15, 4)), 15, 0)[rng.permutation(N)],
    "one copy": lambda rng: rng.standard_normal((N - 1, 4))[np.minimum(np.arange(N), N - 2)],
}


def dense_weights(x: Rows, metric: str, kept: NDArray[np.bool_] | None = None, groups: object = None) -> Rows:
    """Return the probability of each item to be among the K nearest of each, ties in random order, (n, n)."""
    table = torch.from_numpy(x)
    score = scores(table, table, metric).numpy()
    np.fill_diagonal(score, -np.inf)
    if groups is not None:
        labels = np.asarray(groups)
        score[labels[:, None] == labels] = -np.inf
    if kept is not None:
        score[:, ~kept] = -np.inf
    boundary = -np.sort(-score, axis=1)[:, K - 1 : K]
    closer, tied = score > boundary, score == boundary
    return closer + tied * ((K - closer.sum(1)) / tied.sum(1))[:, None]


def weights_of(ties: TiedLists, kept: NDArray[np.bool_] | None = None) -> Rows:
    ranks = ties.ranks(kept, K)
    table = np.zeros((len(ties.searched), int(ties.rows.max()) + 1))
    table[ranks.lists, ranks.members] = ranks.weights(K)
    weights = table[ties.lists][:, ties.rows]
    weights[np.arange(len(ties.items)), ties.items] = 0  # an item is not its own neighbour
    return weights


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_the_definition(family: str, dtype: type, metric: str) -> None:
    rng = np.random.default_rng(0)
    x = FAMILIES[family](rng).astype(dtype)
    exact, groups, kept = x.astype(np.float64), torch.from_numpy(rng.integers(0, 30, N)), rng.random(N) < 0.6
    ties = search_lists(x, TieSearch(LENGTH, metric)).ties
    assert ties is not None
    np.testing.assert_allclose(weights_of(ties), dense_weights(exact, metric), atol=1e-12)
    part, expected = weights_of(ties, kept)[kept][:, kept], dense_weights(exact, metric, kept)[kept][:, kept]
    np.testing.assert_allclose(part, expected, atol=1e-12)
    grouped = search_lists(x, TieSearch(LENGTH, metric, groups)).ties
    if grouped is not None:
        np.testing.assert_allclose(weights_of(grouped), dense_weights(exact, metric, groups=groups), atol=1e-12)
    items = torch.from_numpy(rng.permutation(N)[:25])
    some = search_lists(x, TieSearch(LENGTH, metric, items=items)).ties
    if some is not None:
        np.testing.assert_allclose(weights_of(some), dense_weights(exact, metric)[items], atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_is_that_of_a_search(family: str) -> None:
    """The lists of rows that repeat come from the ties; they are ordered by index as those of ``modalign.knn``."""
    x = FAMILIES[family](np.random.default_rng(1))
    assert np.array_equal(search_lists(x, TieSearch(LENGTH)).indices, modalign.knn(x, LENGTH).indices)
    groups = np.random.default_rng(2).integers(0, 30, N)
    grouped = search_lists(x, TieSearch(LENGTH, groups=torch.from_numpy(groups)))
    assert np.array_equal(grouped.indices, modalign.knn(x, LENGTH, groups=groups).indices)


@pytest.mark.parametrize("family", FAMILIES)
def test_drawn_lists_hold_each_item_as_often_as_its_weight_says(family: str) -> None:
    x = FAMILIES[family](np.random.default_rng(1))
    ties = search_lists(x, TieSearch(LENGTH)).ties
    assert ties is not None
    draws = [ties.draw(LENGTH, seed).numpy() for seed in range(400)]
    for drawn in draws[:20]:
        assert all(len(set(row)) == LENGTH for row in drawn)
        assert not (drawn == np.arange(N)[:, None]).any()
    often = sum(np.eye(N)[drawn[:, :K]].sum(1) for drawn in draws) / len(draws)
    assert np.abs(often - dense_weights(x, "cosine")).max() < 5 * 0.5 / np.sqrt(400)
    assert np.array_equal(draws[0], ties.draw(LENGTH, 0).numpy())


def test_without_equal_scores_there_are_no_ties() -> None:
    x = np.random.default_rng(0).normal(size=(N, 4))
    assert search_lists(x, TieSearch(LENGTH)).ties is None
    # equal in float32 is not equal
    # the cosines of some pairs differ by less than float32 tells
    rows = np.float32(np.stack([np.ones(40), np.r_[0, np.random.default_rng(0).normal(size=39) * 1e-4]], 1))
    assert search_lists(rows, TieSearch(20)).ties is None
    assert (np.diff(modalign.knn(rows, 20).scores, axis=1) == 0).any()
    near = np.float32(np.stack([np.ones(40), np.arange(1, 41) * 2.0**-14], 1))
    assert search_lists(near, TieSearch(5, "dot")).ties is None


@pytest.mark.parametrize("columns", [11, 12, 13, 47, 48])
def test_copies_of_a_zero_row_stay_in_its_list(columns: int) -> None:
    """A zero row ties with every row, itself included, and may fall off the end of its own list."""
    x = np.zeros((120, columns))
    x[:columns] = np.eye(columns)
    for length in (K, 10):
        ties = search_lists(x, TieSearch(length)).ties
        np.testing.assert_allclose(weights_of(ties), dense_weights(x, "cosine"), atol=1e-12)


def test_a_tie_beyond_the_shortest_list_is_seen() -> None:
    """An item with as many candidates as neighbours cuts all lists short."""
    x, groups = np.eye(30), np.r_[np.zeros(30 - K, dtype=int), np.arange(1, K + 1)]
    ties = search_lists(x, TieSearch(K, groups=torch.from_numpy(groups))).ties
    np.testing.assert_allclose(weights_of(ties), dense_weights(x, "cosine", groups=groups), atol=1e-12)
    normal = np.random.default_rng(0).normal(size=(30, 4))
    assert search_lists(normal, TieSearch(K, groups=torch.from_numpy(groups))).ties is None


def test_files_and_limits_on_memory_give_the_same_ties(tmp_path: Path) -> None:
    x = np.float32(FAMILIES["rows of zeros"](np.random.default_rng(2)))
    np.save(tmp_path / "x.npy", x)
    expected = weights_of(search_lists(x, TieSearch(LENGTH)).ties)
    assert [part.tolist() for part in distinct_rows(open_rows(tmp_path / "x.npy"))] == [
        part.tolist() for part in distinct_rows(torch.from_numpy(x))
    ]
    for rows, options in ((str(tmp_path / "x.npy"), {}), (x, {"max_memory": "40MB"}), (x, {"backend": "reference"})):
        assert np.array_equal(weights_of(search_lists(rows, TieSearch(LENGTH, **options)).ties), expected)


def test_a_class_too_large_to_hold_is_represented_without_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.r_[np.eye(3), np.zeros((N - 3, 3))] + 0.0
    x[3:, 0] = np.arange(1, N - 2)  # cosine 0 with two rows, 1 with the others
    monkeypatch.setattr(tie_search, "MEMBERS", 1)
    sums = []
    for seed in range(60):
        ties = search_lists(x, TieSearch(K, seed=seed)).ties
        weights = weights_of(ties)
        np.testing.assert_allclose(weights.sum(1), K)
        assert (weights > 0).sum(1).max() <= 5 * K
        sums.append(weights)
    assert np.abs(np.mean(sums, axis=0) - dense_weights(x, "cosine")).max() < 0.12


def test_a_hundred_thousand_one_hot_rows_are_five() -> None:
    rng = np.random.default_rng(0)
    ties = search_lists(np.eye(5, dtype=np.float32)[rng.integers(0, 5, 100_000)], TieSearch(10)).ties
    assert ties is not None
    assert len(ties.searched) == len(ties.members) == 5
