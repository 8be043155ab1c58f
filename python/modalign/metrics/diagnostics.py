"""Properties of one graph or one table that distort alignment scores: reciprocity, hubs, duplicates and zero rows."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from modalign.common.tensors import as_tensor
from modalign.common.types import Array
from modalign.metrics.graphs import Graph, checked_graph, row_blocks
from modalign.neighbors.copies import distinct_rows
from modalign.ops.knn import DTYPES
from modalign.ops.neighborhoods import neighborhood_scores as _neighborhood_scores

__all__ = ["Duplicates", "Hubness", "count_copies", "duplicates", "hubness", "reciprocity", "zero_rows"]


def reciprocity(graph: Graph) -> float:
    """Return the share of edges whose reverse is an edge too.

        sum_i |{j in N_i: i in N_j}| / (n k)

    Args:
        graph: (n, k) int64 indices of n items among themselves or ``modalign.Neighbors``, distinct in each row, which
            is not checked here.

    Returns:
        A number from 0 to 1. Time is O(n k^2) at most; memory is O(k) a thread and 8 n bytes.

    Raises:
        TypeError: For indices that are not integers.
        ValueError: For an index out of range, or the graph of some items only.

    Examples:
        >>> import torch
        >>> from modalign.metrics import reciprocity
        >>> reciprocity(torch.tensor([[1], [0], [0], [2]]))
        0.5
    """
    indices, n = checked_graph("reciprocity", "graph", graph, None)
    if len(indices) != n:
        raise ValueError(f"reciprocity: needs the graph of all n items, got {len(indices)} lists of {n} items")
    return float(_neighborhood_scores(indices, indices, "reciprocity", "auto").mean())


@dataclasses.dataclass(frozen=True)
class Hubness:
    """Measures of how unevenly items occur in the lists of others.

    Attributes:
        skewness: The skewness of N_k, the number of lists that an item is in; 0 if all are in as many.
        largest: The largest N_k.
        antihubs: The share of items that are in no list.
    """

    skewness: float
    largest: int
    antihubs: float


def hubness(graph: Graph) -> Hubness:
    """Measure whether a few items are neighbours of most others.

        skewness = mean_j (N_k(j) - mean)^3 / sd^3      N_k(j) = |{i: j in N_k(i)}|

    Args:
        graph: (m, k) int64 indices or ``modalign.Neighbors``. An index that is twice in a row is not noticed.

    Returns:
        The skewness, the largest N_k and the share of antihubs. Time is O(n k); memory is about 30 n bytes.

    Raises:
        TypeError: For indices that are not integers.
        ValueError: For an index out of range.

    Source:
        Radovanovic, Nanopoulos and Ivanovic 2010, JMLR 11.

    Examples:
        >>> import torch
        >>> from modalign.metrics import hubness
        >>> hubness(torch.tensor([[1, 2], [2, 0], [0, 1], [0, 1]]))
        Hubness(skewness=-0.816496580927726, largest=3, antihubs=0.25)
    """
    indices, n = checked_graph("hubness", "graph", graph, None)
    counts = torch.bincount(indices.reshape(-1), minlength=n)
    spread = counts.double() - indices.numel() / n
    variance = float(spread.square().mean())
    skewness = float(spread.pow(3).mean()) / variance**1.5 if int(counts.min()) < int(counts.max()) else 0.0
    return Hubness(skewness, int(counts.max()), float((counts == 0).double().mean()))


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Rows that are equal to another row.

    Attributes:
        items: The number of such rows.
        groups: The number of different rows among them.
        largest: The number of copies of the most frequent row; 1 where no row occurs twice.
    """

    items: int
    groups: int
    largest: int


def zero_rows(x: Array) -> int:
    """Return the number of rows of x (n, d) that hold only zeros and so have no direction.

    Peak memory is a block of rows.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.diagnostics import zero_rows
        >>> zero_rows(np.array([[1.0, 0.0], [0.0, -0.0]]))
        1
    """
    table = as_tensor("zero_rows: x", x, DTYPES)
    return sum(int((table[block] == 0).all(1).sum()) for block in row_blocks(len(table), table.shape[1]))


def duplicates(x: Array) -> Duplicates:
    """Count the rows that have an exact copy: the same numbers, where 0 and -0 are the same.

    Rows with the same hash are compared number by number, so the counts are exact.

    Args:
        x: (n, d), as in ``modalign.knn``.

    Returns:
        The counts. Time is O(n d + n log n); memory is about 60 n bytes and a block of rows.

    Raises:
        TypeError: As ``modalign.knn``.
        ValueError: As ``modalign.knn``.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import duplicates
        >>> duplicates(np.array([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, -0.0]]))
        Duplicates(items=3, groups=1, largest=3)
    """
    table = as_tensor("duplicates: x", x, DTYPES)
    return count_copies(distinct_rows(table)[0])


def count_copies(numbers: Tensor) -> Duplicates:
    """Count the rows that have a copy, from the number of each row's distinct row."""
    copies = torch.bincount(numbers)
    copies = copies[copies > 1]
    return Duplicates(int(copies.sum()), len(copies), int(copies.max()) if len(copies) else 1)
