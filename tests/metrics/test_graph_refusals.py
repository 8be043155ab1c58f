"""What metrics of neighbours refuse: rows, options, graphs and relabellings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.metrics.test_neighborhoods import METRICS, data

import modalign
from modalign.metrics.diagnostics import reciprocity
from modalign.metrics.edges import cknna, cknna_from_graphs, second_order_cosine, second_order_cosine_rows
from modalign.metrics.neighborhoods import (
    cycle_knn,
    neighborhood_scores,
    relabelled_overlap,
)


@pytest.mark.parametrize("name", METRICS)
def test_refusals_of_rows(name: str) -> None:
    x, y = data()
    for wrong in (y[:-1], y[0], [[1.0]]):
        with pytest.raises(ValueError, match=f"{name}: x and y must be \\(n, d_x\\) and \\(n, d_y\\), row i of both"):
            METRICS[name](x, wrong, 5)
    with pytest.raises(ValueError, match="k must be between 1 and 69 for 70 rows, got 70"):
        METRICS[name](x, y, 70)
    with pytest.raises(ValueError, match="must be finite"):
        METRICS[name](x, np.where(y > 1, np.nan, y), 5)


def test_refusals_of_options() -> None:
    x, y = data()
    graph = modalign.knn(x, 5)
    for call, message in (
        (lambda: cycle_knn(x, y, 5, direction="xx"), "cycle_knn: direction must be one of .*, got 'xx'"),
        (lambda: cknna(x, y, 5, variant="paper"), "cknna: variant must be one of .*, got 'paper'"),
        (lambda: cknna(x, y, 5, metric="euclidean"), "cknna: metric must be one of .*, got 'euclidean'"),
        (lambda: cknna_from_graphs(x, y, graph, graph, metric="l2"), "cknna_from_graphs: metric must be one of"),
        (lambda: neighborhood_scores("knn", graph, graph), "neighborhood_scores: name must be one of .*, got 'knn'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_refusals_where_a_denominator_vanishes() -> None:
    x, y = data()
    same = np.ones_like(x) * np.array([3.0, 1.0, 0.3, 0.7, 1.1, 5.0, 0.2])
    for pair, which in (((same, y), "x"), ((y, same), "y")):
        with pytest.raises(ValueError, match=f"cknna: in {which} every neighbour is as similar as the mean"):
            cknna(*pair, 5)
    with pytest.raises(ValueError, match="cknna: variant='code' needs at least 4 items, got 3"):
        cknna(x[:3], y[:3], 1, variant="code")
    # positive similarities without a reverse edge in x, mutual ones in y: HSIC of one sign each
    ring = torch.stack([(torch.arange(70) + 1) % 70, (torch.arange(70) + 2) % 70], 1)
    with pytest.raises(ValueError, match=r"cknna_from_graphs: HSIC\(K, K\) HSIC\(L, L\) is -.* which has no root"):
        cknna_from_graphs(np.abs(x), np.abs(y), ring, modalign.knn(np.abs(y), 2), variant="code")
    y[4] = 0
    with pytest.raises(ValueError, match="second_order_cosine: item 4 has cosine 0 in y with all its neighbours"):
        second_order_cosine(x, y, 5)


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: neighborhood_scores("lcs_knn", a, b),
        lambda a, b: relabelled_overlap(a, b, torch.arange(70)),
        lambda a, b: cknna_from_graphs(*data(), a, b),
        lambda a, b: second_order_cosine_rows(*data(), a, b),
    ],
    ids=["neighborhood_scores", "relabelled_overlap", "cknna_from_graphs", "second_order_cosine_rows"],
)
def test_refusals_of_graphs(call: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    graph = torch.as_tensor(modalign.knn(data()[0], 5).indices)
    too_high, negative = graph.clone(), graph.clone()
    too_high[3, 2], negative[3, 2] = 70, -1
    for wrong, error, message in (
        (graph.float(), TypeError, r"b must hold whole numbers, got torch.float32"),
        (graph[0], ValueError, r"b must be \(n, k\), the neighbours of each item, got \(5,\)"),
        (graph[:, :0], ValueError, "b must be .* with n, k >= 1"),
        (graph[:, :4], ValueError, "a and b must be lists of as many neighbours of the same items"),
        (too_high, ValueError, "b must hold indices from 0 to 69, got 70"),
        (negative, ValueError, "b must hold indices from 0 to 69, got -1"),
    ):
        with pytest.raises(error, match=f"{name}: {message}"):
            call(graph, wrong)
    if name != "relabelled_overlap":
        twice = graph.clone()
        twice[9, 1] = twice[9, 0]
        with pytest.raises(
            ValueError, match=f"{name}: each row of a must hold distinct indices, got one twice in row 9"
        ):
            call(twice, graph)


def test_refusals_of_lists_of_some_items() -> None:
    x, y = data()
    graph = torch.as_tensor(modalign.knn(x, 5).indices)
    some = graph[graph.max(1).values < 40][:3]
    queries = modalign.knn(x, 5, queries=x[:3])
    for call, message in (
        (lambda: neighborhood_scores("cycle_knn", some, some, candidates=70), "cycle_knn needs the lists of all items"),
        (lambda: relabelled_overlap(queries, queries, torch.arange(70)), "needs graphs .* of all n items"),
        (lambda: reciprocity(queries), "reciprocity: needs the graph of all n items, got 3 lists of 70 items"),
        (lambda: cknna_from_graphs(x, y, queries, queries), "must be the graphs of all 70 rows"),
        (lambda: second_order_cosine_rows(x, y, some, some), "rows must name the item of each of the 3 lists"),
        (lambda: second_order_cosine_rows(x, y, some, some, rows=torch.tensor([0, 1, 70])), "rows must name the item"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"rows must hold whole numbers, got torch\.float32"):
        second_order_cosine_rows(x, y, some, some, rows=torch.tensor([0.0, 1, 2]))


def test_refusals_of_relabellings() -> None:
    graph = torch.as_tensor(modalign.knn(data()[0], 5).indices)
    twice = torch.arange(70)
    twice[0] = 1
    for wrong, error, message in (
        (torch.arange(70.0), TypeError, "relabelling must hold whole numbers, got torch.float32"),
        (torch.arange(69), ValueError, "needs graphs .* and relabelling"),
        (torch.arange(0).reshape(0, 70), ValueError, "needs graphs .* and relabelling"),
        (twice, ValueError, "each relabelling must be a permutation of 0 .. 69"),
        (torch.arange(70) + 1, ValueError, "each relabelling must be a permutation of 0 .. 69"),
        (torch.arange(70) - 1, ValueError, "each relabelling must be a permutation of 0 .. 69"),
    ):
        with pytest.raises(error, match=f"relabelled_overlap: {message}"):
            relabelled_overlap(graph, graph, wrong)


def test_cknna_of_the_code_refuses_rounding() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 40, 3))
    assert abs(cknna(x, y, 39, variant="code")) < 0.5
    with pytest.raises(ValueError, match="HSIC of x with itself is rounding"):
        cknna(x + 1e5, y, 39, variant="code")
