"""Options of knn and forms of its graph: groups, int8, threads, interruption, SciPy, UMAP and PyTorch Geometric."""

import itertools
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch

import modalign
from modalign import _core
from modalign.common.interruption import watched
from modalign.ops.knn import RowBlock, SearchOptions, merge, search
from modalign.reference import knn as reference


def rows(n: int = 60, d: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backend", ["cpp", "triton", "reference"])
@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_rows_of_one_group_are_no_neighbours(backend: str, device: str, metric: str) -> None:
    x, groups = rows(200), torch.arange(200) // 4 - 7
    scores = reference.scores(x, x, metric).masked_fill(groups[:, None] == groups, -torch.inf)
    expected = scores.sort(dim=1, descending=True, stable=True).indices[:, :5]
    gallery, gallery_groups = x.to(device), groups.to(device)
    result = modalign.knn(gallery, 5, groups=gallery_groups, metric=metric, backend=backend)
    assert torch.equal(result.indices.cpu(), expected)
    queries, query_groups = rows(30, seed=1), torch.arange(30) % 3
    scores = reference.scores(queries, x, metric).masked_fill(query_groups[:, None] == groups, -torch.inf)
    expected = scores.sort(dim=1, descending=True, stable=True).indices[:, :5]
    result = modalign.knn(
        gallery,
        5,
        queries=queries.to(device),
        groups=gallery_groups,
        query_groups=query_groups.to(device),
        metric=metric,
        backend=backend,
    )
    assert torch.equal(result.indices.cpu(), expected)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_int8_rows_are_the_numbers_they_hold(metric: str) -> None:
    x = (30 * rows(300, 20)).clamp(-128, 127).to(torch.int8)
    assert torch.equal(modalign.knn(x, 7, metric=metric).indices, modalign.knn(x.double(), 7, metric=metric).indices)
    assert np.array_equal(modalign.knn(x.numpy(), 7, metric=metric).indices, modalign.knn(x, 7, metric=metric).indices)


def test_the_number_of_threads_is_the_callers() -> None:
    x = rows(1500, 20)
    graphs = [modalign.knn(x, 5, num_threads=threads).indices for threads in (1, 2, 5)]
    assert all(torch.equal(graph, graphs[0]) for graph in graphs)


def test_blocks_folded_in_any_order_give_the_same_lists() -> None:
    x, k = rows(900, 12), 6
    expected = modalign.knn(x, k)
    for cuts in ([0, 300, 600, 900], [0, 17, 20, 850, 900]):
        indices, scores = torch.full((900, k), -1), torch.full((900, k), -torch.inf, dtype=torch.float64)
        parts = [slice(*cut) for cut in itertools.pairwise(cuts)]
        for a, b in reversed(list(itertools.combinations_with_replacement(parts, 2))):
            left, right = (RowBlock(x[part], start=part.start, best=(indices[part], scores[part])) for part in (a, b))
            merge(left, None if a == b else right, SearchOptions(k))
        assert torch.equal(indices, expected.indices)
        assert torch.equal(scores.float(), expected.scores)


def test_the_certificate_says_what_decided() -> None:
    x = rows(3000, 32)
    for screen in _core.screens():
        _core.use_screen(screen)
        try:
            certificate = modalign.knn(x, 5).certificate
        finally:
            _core.use_screen("auto")
        assert certificate.screen == screen
        assert (certificate.proved, certificate.redone, certificate.recall) == (3000, 0, None)
        assert 3000 * 5 <= certificate.scored < 3000 * 300
        assert f"3,000 rows proved by the {screen} screen" in str(certificate)
    # no screen can exclude any of equal rows
    assert modalign.knn(torch.ones(500, 3), 5).certificate.redone == 500
    assert modalign.knn(rows(9), 2, backend="reference").certificate.screen == "none"


def test_a_search_can_be_stopped() -> None:
    """An exception in the waiting thread, such as Ctrl-C raises, ends the search early."""
    x = rows(30000, 200)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    start = time.perf_counter()
    search(RowBlock(x), None, SearchOptions(5))
    whole = time.perf_counter() - start
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        watched(lambda watch: search(RowBlock(x), None, SearchOptions(5, watch=watch)), interrupt)
    assert time.perf_counter() - start < 0.7 * whole + 0.3
    assert threading.active_count() == before


def test_progress_counts_every_pair_of_rows() -> None:
    x, seen = rows(2500, 16), []
    watched(lambda watch: search(RowBlock(x), None, SearchOptions(5, watch=watch)), seen.append)
    watched(lambda watch: search(RowBlock(x), RowBlock(x[:100]), SearchOptions(5, watch=watch)), seen.append)
    assert 0 < sum(seen) <= 2500 * 2500 + 2500 * 100


def test_scipy_and_scikit_learn_take_the_graph() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    x, labels = rows(120).double(), np.arange(120) % 4
    graph = modalign.knn(x, 8, metric="euclidean")
    csr = graph.to_scipy("distance")
    assert csr.shape == (120, 120)
    assert np.array_equal(csr.indices.reshape(120, 9)[:, 1:], graph.indices)
    distances = torch.cdist(x, x).gather(1, graph.indices)
    assert torch.allclose(graph.distances, distances, atol=1e-6)
    queries = rows(20, seed=2).double()
    among = modalign.knn(x, 8, queries=queries, metric="euclidean").to_scipy("distance")
    ours = KNeighborsClassifier(5, metric="precomputed").fit(csr, labels).predict(among)
    theirs = KNeighborsClassifier(5).fit(x.numpy(), labels).predict(queries.numpy())
    assert np.array_equal(ours, theirs)


def test_umap_and_pytorch_geometric_take_the_graph() -> None:
    x = rows(40)
    graph = modalign.knn(x, 3)
    indices, distances = graph.to_umap()
    assert indices.shape == distances.shape == (40, 4)
    assert np.array_equal(indices[:, 0], np.arange(40))
    assert not distances[:, 0].any()
    assert (np.diff(distances, axis=1) >= 0).all()
    edges = graph.edge_index()
    assert edges.shape == (2, 120)
    assert edges[:, :3].tolist() == [graph.indices[0].tolist(), [0, 0, 0]]
    with pytest.raises(ValueError, match="one set searched for itself"):
        modalign.knn(x, 3, queries=x[:5]).to_umap()
    with pytest.raises(ValueError, match="a dot product is no distance"):
        _ = modalign.knn(x, 3, metric="dot").distances
    with pytest.raises(ValueError, match="values must be one of"):
        graph.to_scipy("weights")


X = rows(12)


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (ValueError, "knn: groups must be classes", {"groups": torch.rand(12)}),
        (ValueError, r"groups must be \(12,\), one for each row, got \(3,\)", {"groups": [1, 2, 3]}),
        (ValueError, "fewer for 10 rows, the first", {"groups": [0] * 10 + [1, 2]}),
        (ValueError, "query_groups needs groups", {"query_groups": [0] * 12}),
        (ValueError, "go together", {"groups": [*range(12)], "queries": X[:2]}),
        (ValueError, "num_threads must be at least 1, got 0", {"num_threads": 0}),
        (TypeError, "num_threads must be an integer, got 1.5", {"num_threads": 1.5}),
        (ValueError, "block_size must be at least 1", {"block_size": 0}),
        (ValueError, "fresh=True starts a checkpoint over", {"fresh": True}),
        (ValueError, "excludes max_memory", {"exact": False, "max_memory": "1GB"}),
        (ValueError, "exact=False takes no groups", {"exact": False, "groups": [*range(12)]}),
    ],
)
def test_bad_input(error: type[Exception], message: str, settings: dict) -> None:
    with pytest.raises(error, match=message):
        partial(modalign.knn, X, 4)(**settings)


def test_rows_of_zeros_do_not_hide_how_small_the_others_are() -> None:
    x = np.random.default_rng(0).normal(size=(6, 3))
    zeros = np.zeros((1, 3))
    for metric in ("dot", "euclidean"):
        wanted = modalign.knn(np.vstack([x, zeros]), 3, metric=metric).indices
        result = modalign.knn(np.vstack([x * 2.0**-600, zeros]), 3, metric=metric).indices
        np.testing.assert_array_equal(result, wanted)
