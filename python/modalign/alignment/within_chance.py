"""Relabellings within classes: the mean of mutual k-NN under all of them, and how many differ."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["chance_within", "number_of_pairings"]


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


def number_of_pairings(within: Tensor, x: Tensor, y: Tensor) -> float:
    """Return the most pairings of different rows that relabellings within classes give; infinity where there are many.

    Of a class of c items, c! / (c_1! c_2! ..) relabellings change what stands beside a row, where c_1, c_2, .. items
    have the same row. The smaller number of those of x and y counts.

    Args:
        within: (n,) int64, the classes.
        x: (n,) int64, the numbers of the distinct rows of x.
        y: (n,) int64, those of y.

    Examples:
        >>> import torch
        >>> from modalign.alignment.within_chance import number_of_pairings
        >>> classes, rows = torch.tensor([0, 0, 0, 1, 1]), torch.arange(5)
        >>> number_of_pairings(classes, rows, rows), number_of_pairings(classes, classes, rows)
        (12.0, 1.0)
    """
    _, of_item, sizes = torch.unique(within, return_inverse=True, return_counts=True)
    every = torch.lgamma(sizes.double() + 1)
    logarithms = []
    for numbers in (x, y):
        pairs, copies = torch.unique(torch.stack([of_item, numbers]), dim=1, return_counts=True)
        logarithms.append(every.index_add(0, pairs[0], -torch.lgamma(copies.double() + 1)))
    total = float(torch.minimum(*logarithms).sum())
    return math.inf if total > 700 else round(math.exp(total), 6)
