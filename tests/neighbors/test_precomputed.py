"""Libraries that take a graph in the place of rows give what they give for the rows."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN
from sklearn.manifold import TSNE, Isomap, SpectralEmbedding
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer, LocalOutlierFactor, NearestNeighbors
from sklearn.pipeline import make_pipeline

import modalign

rng = np.random.default_rng(0)
X = rng.normal(size=(80, 5))
LABELS = rng.integers(0, 3, 80)
K = 10
GRAPH = modalign.knn(X, K, metric="euclidean")
PRECOMPUTED = {"metric": "precomputed"}

ESTIMATORS: dict[str, Callable[[Any, bool], Any]] = {
    "NearestNeighbors": lambda rows, graph: (
        NearestNeighbors(n_neighbors=5, **PRECOMPUTED if graph else {}).fit(rows).kneighbors()[1]
    ),
    "NearestNeighbors, all of the graph": lambda rows, graph: (
        NearestNeighbors(n_neighbors=K, **PRECOMPUTED if graph else {}).fit(rows).kneighbors()[1]
    ),
    "kneighbors_graph": lambda rows, graph: (
        NearestNeighbors(n_neighbors=5, **PRECOMPUTED if graph else {}).fit(rows).kneighbors_graph().toarray()
    ),
    "LocalOutlierFactor": lambda rows, graph: (
        LocalOutlierFactor(n_neighbors=5, **PRECOMPUTED if graph else {}).fit(rows).negative_outlier_factor_
    ),
    "Isomap": lambda rows, graph: Isomap(n_neighbors=5, **PRECOMPUTED if graph else {}).fit(rows).dist_matrix_,
    "SpectralEmbedding": lambda rows, graph: (
        SpectralEmbedding(n_neighbors=5, affinity="precomputed_nearest_neighbors" if graph else "nearest_neighbors")
        .fit(rows)
        .affinity_matrix_.toarray()
    ),
    "TSNE": lambda rows, graph: (
        TSNE(perplexity=3, init="random", random_state=0, max_iter=250, **PRECOMPUTED if graph else {})
        .fit(rows)
        .embedding_
    ),
    "DBSCAN": lambda rows, graph: DBSCAN(eps=1.2, min_samples=4, **PRECOMPUTED if graph else {}).fit_predict(rows),
    "KNeighborsClassifier": lambda rows, graph: (
        KNeighborsClassifier(5, **PRECOMPUTED if graph else {}).fit(rows, LABELS).predict(rows)
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learn_computes_the_same_from_the_graph_as_from_the_rows(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of components that are not connected
        ours, theirs = (
            ESTIMATORS[name](rows, graph) for rows, graph in ((GRAPH.to_scipy("distance"), True), (X, False))
        )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_graph_is_that_of_scikit_learns_transformer() -> None:
    ours = GRAPH.to_scipy("distance")
    theirs = KNeighborsTransformer(n_neighbors=K, mode="distance").fit_transform(X)
    assert np.array_equal(ours.indptr, theirs.indptr)
    assert np.array_equal(ours.indices, theirs.indices)
    np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-6)
    isomap = make_pipeline(KNeighborsTransformer(n_neighbors=K, mode="distance"), Isomap(n_neighbors=5, **PRECOMPUTED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = isomap.fit(X)[1].dist_matrix_
        np.testing.assert_allclose(Isomap(n_neighbors=5, **PRECOMPUTED).fit(ours).dist_matrix_, expected)


def test_leaving_itself_out_predicts_each_item_by_the_others() -> None:
    graph = GRAPH.to_scipy("distance", itself=False)
    predicted = KNeighborsClassifier(5, metric="precomputed").fit(graph, LABELS).predict(graph)
    votes = np.array([np.bincount(LABELS[row[:5]], minlength=3) for row in GRAPH.indices])
    assert np.array_equal(predicted, votes.argmax(1))


@pytest.mark.parametrize(
    ("values", "itself", "own"),
    [
        ("distance", None, 0.0),
        ("distance", True, 0.0),
        ("distance", False, None),
        ("connectivity", None, None),
        ("connectivity", True, 1.0),
        ("score", None, None),
        ("score", True, 1.0),
    ],
)
def test_every_row_is_its_own_first_neighbour_where_asked_for(values: str, itself: bool | None, own: float) -> None:
    matrix = modalign.knn(X, 3).to_scipy(values, itself=itself)
    if own is None:
        assert (matrix.getnnz(axis=1) == 3).all()
        assert (matrix.indices.reshape(80, 3) != np.arange(80)[:, None]).all()
    else:
        assert (matrix.getnnz(axis=1) == 4).all()
        assert np.array_equal(matrix.indices.reshape(80, 4)[:, 0], np.arange(80))
        assert (matrix.data.reshape(80, 4)[:, 0] == own).all()


def test_queries_are_not_their_own_neighbours() -> None:
    queries = rng.normal(size=(80, 5))  # as many as there are rows
    graph = modalign.knn(X, 3, queries=queries, metric="euclidean")
    assert (graph.to_scipy("distance").getnnz(axis=1) == 3).all()
    for call in (lambda: graph.to_scipy("distance", itself=True), graph.to_umap):
        with pytest.raises(ValueError, match="needs the graph of one set searched for itself, got one of queries"):
            call()


def test_products_have_no_distance_and_no_score_with_themselves() -> None:
    graph = modalign.knn(torch.from_numpy(X), 3, metric="dot")
    with pytest.raises(ValueError, match="use values='connectivity', or metric='cosine'"):
        graph.to_scipy("score", itself=True)
    with pytest.raises(ValueError, match="a dot product is no distance"):
        graph.to_scipy("distance")
    assert graph.to_scipy("connectivity", itself=True).nnz == 320
