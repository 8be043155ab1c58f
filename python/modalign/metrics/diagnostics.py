"""What one graph and one table look like: reciprocity, hubs, duplicates."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from modalign.metrics.graphs import graph_of, row_blocks
from modalign.neighbors.functional import as_tensor
from modalign.ops.knn import DTYPES
from modalign.ops.neighborhoods import neighborhood_scores as _neighborhood_scores

__all__ = ["Duplicates", "Hubness", "duplicates", "hubness", "reciprocity", "zero_rows"]

WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int32}  # by the bytes of a number


def reciprocity(graph: Any) -> float:
    """The share of edges whose reverse is an edge too.

        sum_i |{j in N_i: i in N_j}| / (n k)

    graph: ``modalign.Neighbors`` or (n, k) int64 indices of n items among themselves, distinct in each row (which is
    not looked at here). Returns a number from 0 to 1. O(n k^2) at most, O(k) memory a thread and 8 n bytes.
    Raises TypeError and ValueError as ``relabelled_overlap``.

    Examples:
        >>> import torch
        >>> from modalign.metrics.diagnostics import reciprocity
        >>> reciprocity(torch.tensor([[1], [0], [0], [2]]))
        0.5
    """
    indices, n = graph_of("reciprocity", "graph", graph, None)
    if len(indices) != n:
        raise ValueError(f"reciprocity: needs the graph of all n items, got {len(indices)} lists of {n} items")
    return float(_neighborhood_scores(indices, indices, "reciprocity", "auto").mean())


@dataclasses.dataclass(frozen=True)
class Hubness:
    """How unevenly items occur in the lists of others.

    skewness: of N_k, the number of lists an item is in; 0 if all are in as many. largest: the largest N_k.
    antihubs: the share of items that are in no list.
    """

    skewness: float
    largest: int
    antihubs: float


def hubness(graph: Any) -> Hubness:
    """Whether a few items are everybody's neighbours.

        skewness = mean_j (N_k(j) - mean)^3 / sd^3      N_k(j) = |{i: j in N_k(i)}|

    graph: ``modalign.Neighbors`` or (n, k) int64 indices. O(n k), some 30 n bytes.
    Raises TypeError and ValueError for graphs as ``neighborhood_scores``, but does not see an index that is twice in a
    row. Source: Radovanovic, Nanopoulos and Ivanovic 2010, JMLR 11.

    Examples:
        >>> import torch
        >>> from modalign.metrics.diagnostics import hubness
        >>> hubness(torch.tensor([[1, 2], [2, 0], [0, 1], [0, 1]]))
        Hubness(skewness=-0.816496580927726, largest=3, antihubs=0.25)
    """
    indices, n = graph_of("hubness", "graph", graph, None)
    counts = torch.bincount(indices.reshape(-1), minlength=n)
    spread = counts.double() - indices.numel() / n
    variance = float(spread.square().mean())
    skewness = float(spread.pow(3).mean()) / variance**1.5 if int(counts.min()) < int(counts.max()) else 0.0
    return Hubness(skewness, int(counts.max()), float((counts == 0).double().mean()))


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Rows that are equal to another. items: how many; groups: of how many different rows; largest: how many times the
    most frequent row is there, 1 where none is there twice."""

    items: int
    groups: int
    largest: int


def zero_rows(x: Any) -> int:
    """How many rows of x (n, d) hold nothing but 0: they have no direction. Peak memory: a block of rows.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.diagnostics import zero_rows
        >>> zero_rows(np.array([[1.0, 0.0], [0.0, -0.0]]))
        1
    """
    table = as_tensor("zero_rows", "x", x, DTYPES)
    return sum(int((table[block] == 0).all(1).sum()) for block in row_blocks(len(table), table.shape[1]))


def duplicates(x: Any) -> Duplicates:
    """How many rows have an exact copy: the same numbers, 0 and -0 being the same.

    x: (n, d) as in ``modalign.knn``. Rows of one hash are compared number by number, so that nothing is guessed.
    O(n d + n log n) time, some 60 n bytes and a block of rows. Raises TypeError and ValueError as ``modalign.knn``.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.diagnostics import duplicates
        >>> duplicates(np.array([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, -0.0]]))
        Duplicates(items=3, groups=1, largest=3)
    """
    table = as_tensor("duplicates", "x", x, DTYPES)
    hashes = torch.cat([_hashes(table[block]) for block in row_blocks(len(table), 2 * table.shape[1])])
    order = hashes.argsort(stable=True)
    # what is left: rows that share a hash and were not found equal to one looked at before
    hashes, left = hashes[order], order
    sizes: list[Tensor] = []
    while True:
        values, bucket, count = torch.unique_consecutive(hashes, return_inverse=True, return_counts=True)
        many = count[bucket] > 1
        if not bool(many.any()):
            break
        first = (count.cumsum(0) - count)[bucket]
        equal = torch.zeros_like(many)
        shared = many.nonzero()[:, 0]
        for block in row_blocks(len(shared), 2 * table.shape[1]):
            some = shared[block]
            equal[some] = (table[left[some]] == table[left[first[some]]]).all(1)
        sizes.append(torch.bincount(bucket[equal], minlength=len(values)))
        hashes, left = hashes[many & ~equal], left[many & ~equal]
    found = torch.cat(sizes) if sizes else table.new_zeros(0, dtype=torch.int64)
    found = found[found > 1]
    return Duplicates(int(found.sum()), len(found), int(found.max()) if len(found) else 1)


def _hashes(rows: Tensor) -> Tensor:
    """Equal rows have equal hashes: the bits, in words, times odd numbers, modulo 2^64."""
    words = (rows + 0).contiguous().view(WORDS[rows.itemsize])  # -0 + 0 is 0
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**63), 2**63 - 1, (words.shape[1],), generator=generator) | 1
    return (words * factors.to(rows.device)).sum(1)
