"""Metrics of all pairs under many relabellings: the values of all pairs are computed once, then looked up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from modalign.common.conversion import as_array
from modalign.common.types import Array
from modalign.metrics.distances import distance_ranks
from modalign.metrics.gaussian_kernels import Gaussian, gaussians
from modalign.metrics.inputs import PairedRows
from modalign.metrics.registry import METRICS
from modalign.metrics.tiles import triangle_tiles
from modalign.neighbors.functional import knn

__all__ = ["bytes_of_tables", "relabelled_pairs"]

BLOCK = 1 << 18  # pairs that are looked up at a time


def relabelled_pairs(
    name: str, x: Array, y: Array, metric: str = "cosine", groups: Tensor | None = None
) -> Callable[[Tensor], float]:
    """Return the score of x and y[s] as a function of the permutation s.

    The score is that of the metric's function, but for what depends on the order of the rows: with more than 2,000
    rows, the width of "rbf_cka" is that of y in its first order; and among equal distances in y, the row with the
    lower index in y is the nearer.

    Args:
        name: A metric of all pairs: "rsa" or "rbf_cka" with their default options, "information_imbalance" or
            "retrieval" (recall at 1).
        x: (n, d_x), as the metric takes it.
        y: (n, d_y), row i is the same item as row i of x.
        metric: "cosine", "dot" or "euclidean", for the last two.
        groups: (n,) int64, for "retrieval".

    Returns:
        A function from a permutation s (n,) int64 to the score. Peak memory of its tables is ``bytes_of_tables``.

    Raises:
        TypeError: As the metric.
        ValueError: As the metric.

    Examples:
        >>> import numpy as np, torch
        >>> from modalign.metrics import rsa
        >>> from modalign.metrics.pair_tables import relabelled_pairs
        >>> x, y = np.random.default_rng(0).normal(size=(2, 50, 4))
        >>> s = torch.randperm(50)
        >>> abs(relabelled_pairs("rsa", x, y)(s) - rsa(x, y[s])) < 1e-12
        True
    """
    left, right = as_array(f"{name}: x", x), as_array(f"{name}: y", y)
    score: Callable[[Tensor], float] = METRICS[name].load("relabelled")(PairedRows(left, right, metric, groups))
    return score


def bytes_of_tables(name: str, n: int) -> int:
    """Return the peak memory of ``relabelled_pairs`` for n items, beside that of the metric.

    Examples:
        >>> from modalign.metrics.pair_tables import bytes_of_tables
        >>> bytes_of_tables("rsa", 1000)
        24000000
    """
    table_bytes = METRICS[name].cost.table_bytes
    assert table_bytes is not None, name
    return table_bytes(n)


def relabelled_rsa(rows: PairedRows) -> Callable[[Tensor], float]:
    """Return ``rsa`` of x and y[s] as a function of s."""
    tables = (_table_of_ranks(ranks, len(rows.x)) for ranks in distance_ranks(rows.x, rows.y))
    return partial(_sum_of_products, *tables)


def relabelled_rbf_cka(rows: PairedRows) -> Callable[[Tensor], float]:
    """Return ``rbf_cka`` of x and y[s] as a function of s."""
    tables = (_table_of_kernel(gaussian, len(rows.x)) for gaussian in gaussians(rows.x, rows.y))
    return partial(_sum_of_products, *tables)


def relabelled_information_imbalance(rows: PairedRows) -> Callable[[Tensor], float]:
    """Return ``information_imbalance`` from x to y[s] as a function of s."""
    return partial(_imbalance, _nearest(rows.x, rows.metric), _neighbor_ranks(rows.y, rows.metric))


def relabelled_retrieval(rows: PairedRows) -> Callable[[Tensor], float]:
    """Return the recall at 1 of y[s] by x as a function of s."""
    labels = torch.arange(len(rows.x)) if rows.groups is None else torch.unique(rows.groups, return_inverse=True)[1]
    return partial(_recall, _nearest(rows.y, rows.metric, queries=rows.x), labels)


def _sum_of_products(x: Tensor, y: Tensor, relabelling: Tensor) -> float:
    """Return sum_ij x_ij y_s(i)s(j) of two symmetric tables [n, n] with zeros on their diagonals, in O(n^2)."""
    n = len(x)
    step = max(1, BLOCK // n)
    total = 0.0
    for start in range(0, n, step):
        rows, columns = slice(start, start + step), slice(start, n)
        permuted = y[relabelling[rows]]
        products = permuted.gather(1, relabelling[columns].expand(len(permuted), -1)).mul_(x[rows, columns])
        # a pair above the diagonal counts for the one below it too; the square block at the start holds both
        total += 2 * float(products.sum()) - float(products[:, :step].sum())
    return total


def _imbalance(nearest: Tensor, ranks: Tensor, relabelling: Tensor) -> float:
    return 2 / len(nearest) * float(ranks[relabelling, relabelling[nearest]].double().mean())


def _recall(nearest: Tensor, labels: Tensor, relabelling: Tensor) -> float:
    """Return the mean over labels of the share of x's rows whose nearest row of y has their label."""
    place = torch.empty_like(relabelling)
    place[relabelling] = torch.arange(len(place))
    hits = (labels[place[nearest]] == labels).double()
    counts = torch.bincount(labels)
    return float((torch.bincount(labels, weights=hits) / counts).mean())


def _nearest(rows: Array, metric: str, queries: Array | None = None) -> Tensor:
    return torch.as_tensor(knn(rows, 1, queries=queries, metric=metric).indices)[:, 0].cpu()


def _neighbor_ranks(rows: Array, metric: str) -> Tensor:
    """Return the rank of item j among the neighbours of item i, from 1: [n, n] int32."""
    order = torch.as_tensor(knn(rows, len(rows) - 1, metric=metric).indices).cpu()
    ranks = torch.zeros(len(order), len(order), dtype=torch.int32)
    return ranks.scatter_(1, order, torch.arange(1, len(order), dtype=torch.int32).expand_as(order))


def _table_of_ranks(ranks: Tensor, n: int) -> Tensor:
    """Return the ranks (n (n - 1) / 2), in the order of ``triangle_tiles``, as a centred table [n, n] of length 1.

    The ranks are overwritten.
    """
    ranks -= ranks.mean()
    ranks /= ranks.norm() * 2**0.5  # each occurs twice in the table
    table = torch.zeros(n, n, dtype=torch.float64)
    start = 0
    for rows, columns in triangle_tiles(n):
        tile = table[rows, columns]
        if rows == columns:
            above = torch.ones(tile.shape, dtype=torch.bool).triu(1)
            count = len(tile) * (len(tile) - 1) // 2
            tile[above] = ranks[start : start + count]
            tile += tile.T.clone()
        else:
            count = tile.numel()
            tile.copy_(ranks[start : start + count].view(tile.shape))
            table[columns, rows] = tile.T
        start += count
    return table


def _table_of_kernel(gaussian: Gaussian, n: int) -> Tensor:
    """Return the kernel without its diagonal, centred as in HSIC_1, as a table [n, n] of length 1."""
    table = torch.empty(n, n, dtype=torch.float64)
    for rows, columns in triangle_tiles(n):
        tile = gaussian.tile(rows, columns)
        table[rows, columns], table[columns, rows] = tile, tile.T
    table.fill_diagonal_(0)
    means = table.sum(1) / (n - 2)
    table += means.sum() / (n - 1) - means
    table -= means[:, None]
    table.fill_diagonal_(0)
    table /= table.norm()
    return table
