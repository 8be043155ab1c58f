"""knn(exact=False): pynndescent's graph with exact scores, and a measured recall that agrees with the true one."""

import os
import warnings
from types import SimpleNamespace

import numpy as np
import pynndescent as library
import pytest
import torch

import modalign
from modalign.neighbors import approximate
from modalign.neighbors.approximate import approximate_knn, wilson


def clustered(n: int = 1500, d: int = 16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(30, d, generator=generator)
    return centers[torch.arange(n) % 30] + 0.5 * torch.randn(n, d, generator=generator)


def test_recall_is_what_a_full_comparison_finds() -> None:
    x, metric = clustered(), "euclidean"
    exact, result = modalign.knn(x, 10, metric=metric), modalign.knn(x, 10, metric=metric, exact=False)
    recall = result.certificate.recall
    true = modalign.neighbor_overlap(exact.indices, result.indices)[:, -1].double().mean() / 10
    assert recall.low <= true <= recall.high
    assert recall.estimate > 0.9
    assert recall.sample == 1000
    assert (recall.low, recall.high) != (recall.estimate, recall.estimate)
    assert str(result.certificate).startswith("approximate, by pynndescent: recall ")
    same = exact.indices == result.indices
    assert torch.equal(exact.scores[same], result.scores[same])
    assert bool((result.scores.diff(dim=1) <= 0).all())


def test_a_poor_graph_gets_a_poor_recall() -> None:
    """The measured recall of a graph of random neighbours is low."""
    x = clustered()

    class Random:
        def __init__(self, data, n_neighbors: int, **_: object) -> None:
            generator = torch.Generator().manual_seed(0)
            self.neighbor_graph = (torch.randint(len(data), (len(data), n_neighbors), generator=generator).numpy(), 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "NNDescent", Random)
        _, _, recall = approximate_knn(x, 5)
    assert recall.high < 0.2


def test_duplicates_and_the_row_itself() -> None:
    x = clustered(400).repeat(3, 1)  # every row three times
    indices, scores, _ = approximate_knn(x, 6)
    rows = torch.arange(len(x))[:, None]
    assert not (indices == rows).any()
    assert bool((indices.sort(dim=1).values.diff(dim=1) > 0).all()), "a neighbour twice"
    assert bool((scores[:, 0] > 1 - 1e-9).all())


@pytest.mark.skipif("MODALIGN_SLOW" not in os.environ, reason="compiles for a minute: set MODALIGN_SLOW=1")
def test_queries() -> None:
    x = clustered(450)
    x, queries = x[:400], x[400:]
    indices, scores, recall = approximate_knn(x, 6, queries=queries)
    assert indices.shape == scores.shape == (50, 6)
    assert recall.sample == 50
    assert recall.estimate > 0.9


def test_the_same_seed_gives_the_same_graph() -> None:
    x = clustered(800)
    graphs = [modalign.knn(x, 5, exact=False, seed=seed, num_threads=1).indices for seed in (3, 3)]
    assert torch.equal(*graphs)


def test_wilson() -> None:
    everything = wilson(1.0, 100)
    assert everything.high == 1.0
    assert 0.96 < everything.low < 0.97
    half = wilson(0.5, 100)
    assert (round(half.low, 3), round(half.high, 3)) == (0.404, 0.596)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8])
def test_scores_are_those_of_the_exact_search(dtype: torch.dtype) -> None:
    x = (20 * clustered()).to(dtype)
    exact, result = modalign.knn(x, 10), modalign.knn(x, 10, exact=False)
    same = exact.indices == result.indices
    assert same.double().mean() > 0.9
    assert torch.equal(exact.scores[same], result.scores[same])


def test_more_threads_than_cores_are_as_many_as_there_are() -> None:
    x = clustered()
    assert torch.equal(*(approximate_knn(x, 5, seed=3, threads=1000)[0] for _ in range(2)))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("exponent", [-330, -100, 100, 330])
def test_a_power_of_two_changes_no_neighbour(exponent: int, metric: str) -> None:
    x = clustered().double()
    plain, scaled = (approximate_knn(rows, 5, metric=metric)[0] for rows in (x, x * 2.0**exponent))
    assert torch.equal(plain, scaled)


def test_rows_that_the_library_gives_up_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clustered(200)
    graph = torch.full((200, 10), -1).numpy()
    monkeypatch.setattr(library, "NNDescent", lambda *_, **__: SimpleNamespace(neighbor_graph=(graph, None)))
    indices, _, recall = approximate_knn(x, 5)
    assert torch.equal(indices, modalign.knn(x, 5).indices)
    assert recall.estimate == 1


def test_few_rows_need_no_advice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        indices, _, _ = approximate_knn(clustered(12), 11)
    assert torch.equal(indices, modalign.knn(clustered(12), 11).indices)


def test_an_equally_good_neighbour_is_found() -> None:
    recall = approximate_knn(clustered(1).repeat(300, 1), 5)[2]
    assert (recall.estimate, recall.sample) == (1, 300)


def test_a_share_lies_in_its_interval() -> None:
    for sample in range(1, 1001):
        for share in (0.0, 1 / sample, 1.0):
            recall = wilson(share, sample)
            assert 0 <= recall.low <= share <= recall.high <= 1


def test_another_device_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="on the CPU, got rows on meta"):
        approximate_knn(clustered().to("meta"), 5)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotImplementedError, match="no distance"):
        modalign.knn(clustered(), 5, metric="dot", exact=False)
    monkeypatch.setitem(__import__("sys").modules, "pynndescent", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pynndescent"):
        modalign.knn(clustered(), 5, exact=False)


def test_the_first_search_says_once_that_it_compiles(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    approximate._announce_compilation.cache_clear()
    monkeypatch.setattr(approximate, "_Search", None)  # compiling takes long
    for progress, lines in ((False, 0), (True, 1), (True, 0)):
        with pytest.raises(TypeError, match="not callable"):
            modalign.knn(np.eye(40), 3, exact=False, progress=progress)
        assert capsys.readouterr().err.count("compiling pynndescent's search") == lines
