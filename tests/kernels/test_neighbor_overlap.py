"""The neighbor_overlap kernel at sizes around the edges of its tiles."""

import pytest
import torch

from modalign.kernels.knn.neighbor_overlap import neighbor_overlap
from modalign.reference import neighbor_overlap as reference


def lists(n: int, k: int, size: int) -> torch.Tensor:
    return torch.stack([torch.randperm(size)[:k] for _ in range(n)])


@pytest.mark.parametrize("k", [1, 15, 16, 17, 33, 70])
@pytest.mark.parametrize("n", [1, 65])
def test_agrees_with_the_definition(n: int, k: int) -> None:
    a, b = lists(n, k, 2 * k), lists(n, k, 2 * k)
    assert torch.equal(neighbor_overlap(a, b), reference.neighbor_overlap(a, b))


def test_a_graph_shares_all_neighbours_with_itself_and_none_with_a_disjoint_graph() -> None:
    a = lists(9, 20, 50)
    assert torch.equal(neighbor_overlap(a, a), torch.arange(1, 21, dtype=torch.int32).expand(9, 20))
    assert torch.equal(neighbor_overlap(a, a + 50), torch.zeros(9, 20, dtype=torch.int32))


def test_ids_beyond_32_bits_are_distinguished() -> None:
    a = torch.tensor([[1, 2 + (1 << 40)]])
    b = torch.tensor([[1 + (1 << 32), 2 + (1 << 40)]])
    assert neighbor_overlap(a, b).tolist() == [[0, 1]]


def test_no_rows() -> None:
    assert neighbor_overlap(torch.empty(0, 3, dtype=torch.int64), torch.empty(0, 3, dtype=torch.int64)).shape == (0, 3)
