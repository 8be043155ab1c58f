"""Metrics of all pairs under many relabellings: the values of all pairs are computed once, then looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from modalign.common.conversion import as_array
from modalign.common.types import Array
from modalign.metrics.distances import distance_ranks
from modalign.metrics.gaussian_kernels import Gaussian, gaussians
from modalign.metrics.inputs import PairedRows
from modalign.metrics.nearest_classes import ItemPlaces, nearest_neighbors
from modalign.metrics.registry import METRICS
from modalign.metrics.tiles import paired_tables, triangle_tiles

__all__ = ["bytes_of_tables", "relabelled_pairs"]

BLOCK = 1 << 18  # pairs that are looked up at a time
CODES, CODES_OF_ITEM = 1 << 16, 16  # the most pairs of rows, and of partners, that are held: so many, and of each item


def relabelled_pairs(
    name: str, x: Array, y: Array, metric: str = "cosine", groups: Tensor | None = None
) -> Callable[[Tensor], float]:
    """Return the score of x and y[s] as a function of the permutation s.

    The score is that of the metric's function, but for what depends on the order of the rows: with more than 2,000
    rows, the width of "rbf_cka" is that of y in its first order.

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
    rows = PairedRows(left, right, metric, groups)
    score: Callable[[Tensor], float] | None = METRICS[name].load("relabelled")(rows)
    if score is not None:
        return score
    evaluate = METRICS[name].load("evaluate")
    return lambda s: float(evaluate(dataclasses.replace(rows, y=right[s])))


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
    x, y = paired_tables("information_imbalance", rows.x, rows.y)
    near = _NearestPairs.among(x, rows.metric)
    return partial(_imbalance, near, _doubled_ranks(y, rows.metric))


def relabelled_retrieval(rows: PairedRows) -> Callable[[Tensor], float] | None:
    """Return the recall at 1 of y[s] by x as a function of s; None where the tables would be too large."""
    n = len(rows.x)
    labels = torch.arange(n) if rows.groups is None else torch.unique(rows.groups, return_inverse=True)[1]
    nearest = nearest_neighbors(rows.y, rows.metric, queries=rows.x)
    if not len(nearest.open):
        return partial(_recall, nearest.indices, labels)
    x, y = paired_tables("retrieval", rows.x, rows.y)
    return _tied_recall(ItemPlaces(y, rows.metric, x), labels)


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


@dataclasses.dataclass(frozen=True, eq=False)
class _NearestPairs:
    """The pairs of an item and each of those that tie for its nearest neighbour, in the order of the items.

    Attributes:
        items: (p,) int64.
        nearest: (p,) int64.
        sizes: (n,) int64, the number of pairs of each item.
    """

    items: Tensor
    nearest: Tensor
    sizes: Tensor

    @classmethod
    def among(cls, table: Tensor, metric: str) -> _NearestPairs:
        """Search the pairs of the items of one table."""
        n = len(table)
        nearest = nearest_neighbors(table, metric)
        if not len(nearest.open):
            return cls(torch.arange(n), nearest.indices, torch.ones(n, dtype=torch.int64))
        places = ItemPlaces(table, metric)
        pairs = []
        for block in places.blocks(torch.arange(n)):
            items, others = places.are_nearest(block).nonzero(as_tuple=True)
            pairs.append(torch.stack([block[items], others]))
        items, others = torch.cat(pairs, 1)
        return cls(items, others, torch.bincount(items, minlength=n))


def _imbalance(near: _NearestPairs, doubled: Tensor, relabelling: Tensor) -> float:
    """Return the value from pairs of nearest items in x and the table of twice the expected ranks in y."""
    n = len(near.sizes)
    sums = torch.zeros(n, dtype=torch.int64)
    for start in range(0, len(near.items), BLOCK):
        items, others = (part[start : start + BLOCK] for part in (near.items, near.nearest))
        ranks = doubled[relabelling[items], relabelling[others]]
        sums.index_add_(0, items, ranks.long())
    return 2 / n * float((sums / (2 * near.sizes).double()).mean())


def _doubled_ranks(table: Tensor, metric: str) -> Tensor:
    """Return twice the expected rank of item j among the neighbours of item i, from 1: [n, n] int32."""
    n = len(table)
    doubled = torch.empty(n, n, dtype=torch.int32)
    places = ItemPlaces(table, metric)
    for block in places.blocks(torch.arange(n)):
        doubled[block] = (2 * places.of(block).mean_ranks).int()
    return doubled


def _tied_recall(places: ItemPlaces, labels: Tensor) -> Callable[[Tensor], float] | None:
    """Return the expected recall as a function of a relabelling, from the rows of y that tie for the nearest to x's.

    A query and its partner are looked up among the pairs of distinct rows, of which there must be few enough.
    """
    width, most = len(places.counts), CODES + CODES_OF_ITEM * len(labels)
    queries = torch.arange(int(places.queries.max()) + 1)
    codes, held = [], 0
    for block in places.blocks(queries):
        query, row = (places.of_rows(block).closer == 0).nonzero(as_tuple=True)
        codes.append(block[query] * width + row)
        held += len(query)
        if held > most:
            return None
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    # every pair of a query and a partner of its group
    partners = counts[labels]
    if int(partners.sum()) > most:
        return None
    items = torch.repeat_interleave(torch.arange(len(labels)), partners)
    within = torch.arange(len(items)) - torch.repeat_interleave(partners.cumsum(0) - partners, partners)
    others = order[(counts.cumsum(0) - counts)[labels][items] + within]
    nearest = torch.cat(codes).sort().values
    shares = 1 / places.nearest_sizes(torch.arange(len(labels))).double()
    weights = shares / counts[labels] / len(counts)

    def recall(relabelling: Tensor) -> float:
        wanted = places.queries[items] * width + places.rows[relabelling[others]]
        found = nearest[torch.searchsorted(nearest, wanted).clamp_(max=len(nearest) - 1)] == wanted
        return float(weights[items[found]].sum())

    return recall


def _recall(nearest: Tensor, labels: Tensor, relabelling: Tensor) -> float:
    """Return the mean over labels of the share of x's rows whose nearest row of y has their label."""
    place = torch.empty_like(relabelling)
    place[relabelling] = torch.arange(len(place))
    hits = (labels[place[nearest]] == labels).double()
    counts = torch.bincount(labels)
    return float((torch.bincount(labels, weights=hits) / counts).mean())


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
