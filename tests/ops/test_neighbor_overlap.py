"""The operator neighbor_overlap counts shared neighbours for every k' <= k."""

import numpy as np
import pytest
import torch
from torch import Tensor

import modalign
from modalign.ops.neighbor_overlap import neighbor_overlap
from modalign.reference import neighbor_overlap as reference

pytestmark = pytest.mark.usefixtures("nan_filled_memory")


def graph(n: int, k: int, ids: int) -> Tensor:
    return torch.stack([torch.randperm(ids)[:k] for _ in range(n)])


@pytest.mark.parametrize(
    ("n", "k", "ids"), [(1, 1, 1), (5, 3, 4), (33, 10, 15), (7, 64, 70), (700, 5, 12), (3, 200, 220)]
)
def test_counts_are_those_of_the_definition(backend: str, device: str, n: int, k: int, ids: int) -> None:
    a, b = graph(n, k, ids), graph(n, k, ids)
    actual = neighbor_overlap(a.to(device), b.to(device), backend)
    assert torch.equal(actual.cpu(), reference.neighbor_overlap(a, b))
    sets = [[len({*p[: r + 1]} & {*q[: r + 1]}) for r in range(k)] for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    assert actual.tolist() == sets


def test_ids_beyond_32_bits(backend: str, device: str) -> None:
    a = torch.tensor([[2**40, 1, 2**33]], device=device)
    b = torch.tensor([[2**33, 2**40 + 1, 1]], device=device)
    assert neighbor_overlap(a, b, backend).tolist() == [[0, 0, 2]]


def test_a_graph_shares_everything_with_itself(backend: str, device: str) -> None:
    a = graph(20, 6, 30).to(device)
    assert torch.equal(neighbor_overlap(a, a, backend).cpu(), torch.arange(1, 7, dtype=torch.int32).expand(20, 6))


def test_numpy_in_numpy_out() -> None:
    counts = modalign.neighbor_overlap(np.array([[1, 2]]), np.array([[2, 3]]))
    assert isinstance(counts, np.ndarray)
    assert counts.tolist() == [[0, 1]]


def test_graphs_as_they_come() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4))
    graph = modalign.knn(x, 3)
    wanted = modalign.neighbor_overlap(graph.indices, graph.indices)
    np.testing.assert_array_equal(modalign.neighbor_overlap(graph, graph), wanted)
    np.testing.assert_array_equal(modalign.neighbor_overlap(graph.indices[::-1], graph.indices[::-1]), wanted)
    padded = graph.indices.copy()
    padded[4, 2] = -1
    with pytest.raises(ValueError, match="indices of a must be 0 or more, got -1"):
        modalign.neighbor_overlap(padded, graph)
    with pytest.raises(ValueError, match="num_threads must be at most 4096, got 2147483648"):
        modalign.knn(x, 3, num_threads=2**31)
