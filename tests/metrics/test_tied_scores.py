"""Scores with ties: expectations against dense sums, the same number however the items are ordered, exact levels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tests.neighbors.test_ties import FAMILIES, K, N, dense_weights

import modalign
from modalign.metrics import METRICS
from modalign.metrics.graphs import Search
from modalign.metrics.tied_graphs import TiedGraphs, expected_shares
from modalign.metrics.tied_scores import best_score, metric_score, searched_graphs

PAIRS = list(itertools.combinations_with_replacement(FAMILIES, 2))


def tied_graphs(x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> TiedGraphs:
    graphs = searched_graphs("test", x, y, Search(K, "cosine", groups, "auto"))
    assert isinstance(graphs, TiedGraphs)
    return graphs


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_shares_are_sums_of_products_of_weights(first: str, second: str) -> None:
    rng = np.random.default_rng(3)
    x, y = FAMILIES[first](rng), FAMILIES[second](rng)
    graphs, s = tied_graphs(x, y), rng.permutation(N)
    a, b = dense_weights(x, "cosine"), dense_weights(y, "cosine")
    np.testing.assert_allclose(expected_shares(graphs), (a * b).sum(1) / K, atol=1e-12)
    relabelled = expected_shares(graphs, relabelling=torch.from_numpy(s))
    np.testing.assert_allclose(relabelled, (a * b[np.ix_(s, s)]).sum(1) / K, atol=1e-12)
    np.testing.assert_allclose(graphs.self_shares()[0], (a * a).sum(1) / K, atol=1e-12)
    terms = [(w * w).sum() for w in (a, b)], [(w * w.T).sum() for w in (a, b)], [(w.sum(0) ** 2).sum() for w in (a, b)]
    np.testing.assert_allclose(np.transpose(graphs.assignment_terms()), terms, rtol=1e-12)
    groups = rng.integers(0, 30, N)
    grouped = tied_graphs(x, y, groups)
    a, b = (dense_weights(rows, "cosine", groups=groups) for rows in (x, y))
    np.testing.assert_allclose(expected_shares(grouped), (a * b).sum(1) / K, atol=1e-12)


def test_the_curve_over_neighbours_ends_in_the_score() -> None:
    rng = np.random.default_rng(0)
    graphs = tied_graphs(FAMILIES["3 bits"](rng), FAMILIES["8 bits"](rng))
    curve = graphs.shares(range(1, K + 1))
    assert torch.equal(curve[:, -1], expected_shares(graphs))
    assert curve.shape == (N, K)


@pytest.mark.parametrize("family", ["3 bits", "bags of words"])
def test_a_score_does_not_depend_on_the_order_of_the_items(family: str) -> None:
    rng = np.random.default_rng(4)
    x, y = FAMILIES[family](rng), FAMILIES["one-hot"](rng)
    value = modalign.mutual_knn(x, y, k=K)
    for _ in range(3):
        s = rng.permutation(N)
        assert modalign.mutual_knn(x[s], y[s], k=K) == pytest.approx(value, abs=1e-12)
    for name in ("jaccard_knn", "rank_similarity", "lcs_knn", "edit_distance_knn", "cycle_knn", "cknna"):
        graphs = searched_graphs("test", x, y, Search(K, "cosine", None, "auto"), rows=(x, y))
        score = metric_score(METRICS[name], graphs)
        others = [METRICS[name].load("score")(x[s], y[s], K) for s in (rng.permutation(N) for _ in range(2))]
        value = float(torch.as_tensor(score.items).mean())
        assert score.draws == 64
        assert np.abs(np.array(others) - value).max() < 6 * score.error + 1e-12


def test_the_best_score_of_ties_is_that_of_x_with_itself() -> None:
    x = FAMILIES["one-hot"](np.random.default_rng(5))
    graphs = tied_graphs(x, x)
    assert best_score(METRICS["mutual_knn"], graphs) == pytest.approx(modalign.mutual_knn(x, x, k=K))
    assert modalign.mutual_knn(x, x, k=K) < 0.5
    jaccard = best_score(METRICS["jaccard_knn"], graphs)
    assert jaccard == pytest.approx(modalign.metrics.jaccard_knn(x, x, K), rel=0.1)


def test_without_ties_scores_are_those_of_the_graphs() -> None:
    x, y = np.random.default_rng(6).normal(size=(2, N, 4))
    graphs = searched_graphs("test", x, y, Search(K, "cosine", None, "auto"))
    a, b = modalign.knn(x, K).indices, modalign.knn(y, K).indices
    assert isinstance(graphs, modalign.metrics.inputs.Graphs)
    assert torch.equal(graphs.a, torch.from_numpy(a))
    assert modalign.mutual_knn(x, y, k=K) == modalign.neighbor_overlap(a, b)[:, -1].mean() / K
