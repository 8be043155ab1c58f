"""The mean of mutual k-NN under relabellings within classes, for every number of neighbours, without a relabelling."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["chance_within"]


def chance_within(a: Tensor, b: Tensor, within: Tensor) -> Tensor:
    """Return the mean of mutual k-NN over all relabellings of y within classes, for 1 to k neighbours.

        sum_cd E_cd F_cd / P_cd / (n k)

    E_cd is the number of edges of a from items of class c to items of class d, F_cd that of b, and P_cd the number of
    pairs of different items of these classes.

    Args:
        a: (n, k) int64, the graph of one representation, nearest first.
        b: (n, k), that of the other.
        within: (n,) int64, the classes.

    Returns:
        (k,) float64.

    Examples:
        >>> import torch
        >>> from modalign.alignment.within_chance import chance_within
        >>> graph = torch.tensor([[1, 2], [0, 3], [3, 0], [2, 1]])
        >>> chance_within(graph, graph, torch.tensor([0, 0, 1, 1])).tolist()
        [1.0, 0.75]
    """
    n, k = a.shape
    _, classes, sizes = torch.unique(within, return_inverse=True, return_counts=True)
    codes = [classes[:, None] * len(sizes) + classes[graph] for graph in (a, b)]
    pairs, numbers = torch.unique(torch.stack(codes), return_inverse=True)
    ranks = torch.arange(k).expand(n, k).reshape(-1)
    edges = [
        torch.bincount(of_graph.reshape(-1) * k + ranks, minlength=len(pairs) * k).reshape(-1, k).cumsum(1).double()
        for of_graph in numbers
    ]
    first, second = sizes[pairs // len(sizes)], sizes[pairs % len(sizes)]
    possible = first * (second - (pairs // len(sizes) == pairs % len(sizes)).long())
    means: Tensor = (edges[0] * edges[1] / possible[:, None].clamp(min=1)).sum(0) / (n * torch.arange(1, k + 1))
    return means
