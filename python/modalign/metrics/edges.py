"""Alignment scores that weigh the edges of two graphs by the similarities of their rows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from modalign.common.checks import one_of
from modalign.common.tensors import as_indices, as_tensor
from modalign.common.types import Array, Integers
from modalign.metrics.graphs import (
    Graph,
    Search,
    checked_pair,
    paired_arrays,
    require_distinct,
    row_blocks,
)
from modalign.metrics.inputs import Graphs
from modalign.metrics.tied_scores import searched_graphs, searched_score
from modalign.metrics.undefined import UndefinedScoreError
from modalign.metrics.variants import EPSILON, require_variant
from modalign.ops.edge_products import edge_products as _edge_products

__all__ = ["cknna", "cknna_from_graphs", "second_order_cosine", "second_order_cosine_rows"]


def cknna(
    x: Array,
    y: Array,
    k: int = 10,
    *,
    variant: str = "published",
    metric: str = "cosine",
    groups: Integers | None = None,
    backend: str = "auto",
) -> float:
    """Return the centred kernel alignment of the pairs that are neighbours in both representations.

        Align(K, L) = sum_ij alpha_ij (K_ij - mean_l K_il) (L_ij - mean_l L_il)
        CKNNA = Align(K, L) / sqrt(Align(K, K) Align(L, L))

    alpha_ij = 1 if j is one of the k nearest neighbours of i in both, in Align(K, K) in x alone, in Align(L, L) in y
    alone; K and L are the inner products of unit rows ("cosine") or of the rows ("dot"), and means are over all n
    items, including i. Inner products and sums are in float64 from the stored rows.

    The published program computes something else (``variant="code"``), without centring:

        HSIC(K, L) = (sum_ij K_ij L_ji + 1'K1 1'L1 / ((n-1) (n-2)) - 2 / (n-2) 1'K L1) / (n (n-3))
        CKNNA = HSIC(K, L) / (sqrt(HSIC(K, K) HSIC(L, L)) + 1e-6)

    with the kernels times alpha. A list of neighbours is not symmetric, so alpha is not, and K_ij L_ji pairs an edge
    with its reverse: pairs that are neighbours in one direction alone add nothing to the first term. HSIC is of the
    size k / n, so the 1e-6 draws the score of many items to 0: for x = y and unit rows, 1 becomes at most 0.91 at
    n / k = 100,000.

    Args:
        x: (n, d_x) rows, as in ``mutual_knn``.
        y: (n, d_y), row i is the same item as row i of x.
        k: Neighbours of each item, as in ``mutual_knn``.
        variant: "published", the first equation, or "code", the second.
        metric: "cosine" or "dot", the kernel and the similarity of the neighbours.
        groups: (n,) integers, as in ``mutual_knn``.
        backend: As in ``mutual_knn``.

    Returns:
        A number from -1 to 1; that of "code" has no bounds, and is seldom beyond these. Time beyond the search is
        O(n k d). Peak memory is that of one ``modalign.knn``, or two (n, k) graphs and 45 n k bytes (105 n k for
        "code"); and a copy of float64 rows if one has entries beyond 2^400 or below 2^-400.

    Raises:
        TypeError: As ``mutual_knn``.
        ValueError: As ``mutual_knn``, for another variant or metric, and where a denominator is 0: for a representation
            whose neighbours are all as similar as the mean ("published"), and for fewer than 4 items or products of
            HSIC below 0 ("code").

    Source:
        Huh et al. 2024 (arXiv:2405.07987), appendix A, and its code.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import cknna
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(cknna(x, 3 * x, k=5), 12)
        1.0
    """
    _require_kernel("cknna", metric, variant)
    x, y = paired_arrays("cknna", x, y)
    graphs = searched_graphs("cknna", x, y, Search(k, metric, groups, backend), rows=(x, y))
    return searched_score(graphs, lambda drawn: _cknna("cknna", drawn, variant))


def cknna_from_graphs(
    x: Array, y: Array, a: Graph, b: Graph, *, metric: str = "cosine", variant: str = "published"
) -> float:
    """Return ``cknna`` from graphs that exist already.

    Args:
        x: (n, d_x) rows, as in ``cknna``.
        y: (n, d_y), row i is the same item as row i of x.
        a: (n, k) int64 indices or ``modalign.Neighbors``, the neighbours of x's rows among themselves.
        b: (n, k), likewise of y.
        metric: "cosine" or "dot", as in ``cknna``.
        variant: "published" or "code", as in ``cknna``.

    Returns:
        A number; range and memory are those of ``cknna``.

    Raises:
        TypeError: As ``cknna``, and for graphs as ``neighborhood_scores``.
        ValueError: As ``cknna``, and for graphs as ``neighborhood_scores``.

    Examples:
        >>> import numpy as np, modalign
        >>> from modalign.metrics.edges import cknna_from_graphs
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> graph = modalign.knn(x, 5)
        >>> round(cknna_from_graphs(x, 3 * x, graph, graph), 12)
        1.0
    """
    operation = "cknna_from_graphs"
    _require_kernel(operation, metric, variant)
    x, y = paired_arrays(operation, x, y)
    left, right, n = checked_pair(operation, a, b)
    if not len(left) == n == len(x):
        raise ValueError(
            f"{operation}: a and b must be the graphs of all {len(x)} rows, got {tuple(left.shape)} of {n} items"
        )
    require_distinct(operation, left, right)
    return _cknna(operation, Graphs(left, right, metric, (x, y)), variant)


def second_order_cosine(
    x: Array,
    y: Array,
    k: int = 10,
    *,
    metric: str = "cosine",
    groups: Integers | None = None,
    backend: str = "auto",
) -> float:
    """Return how similar an item's similarities to its neighbours are in the two representations.

        mean_i cos(u_i, v_i)      u_i = (cos(x_i, x_j))_j, v_i = (cos(y_i, y_j))_j for j in N_k(x_i) | N_k(y_i)

    It is high for any two representations whose cosines are all positive: compare it with its value under relabelling.

    Args:
        x: (n, d_x) rows, as in ``cknna``.
        y: (n, d_y), row i is the same item as row i of x.
        k: Neighbours of each item, as in ``mutual_knn``.
        metric: The similarity of the neighbours, as in ``mutual_knn``. The similarities that are compared are always
            cosines, in float64 from the stored rows; a zero row has cosine 0 with every other.
        groups: (n,) integers, as in ``mutual_knn``.
        backend: As in ``mutual_knn``.

    Returns:
        A number from -1 to 1. Time beyond the search is O(n k d). Peak memory is that of one ``modalign.knn``, two
        (n, k) graphs, a block of rows, and the copy that ``cknna`` names.

    Raises:
        TypeError: As ``mutual_knn``.
        ValueError: As ``mutual_knn``, and if all cosines of an item are 0.

    Source:
        Hamilton, Leskovec and Jurafsky 2016 (arXiv:1606.02821).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import second_order_cosine
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(second_order_cosine(x, 3 * x, k=5), 12)
        1.0
    """
    x, y = paired_arrays("second_order_cosine", x, y)
    graphs = searched_graphs("second_order_cosine", x, y, Search(k, metric, groups, backend), rows=(x, y))
    return searched_score(graphs, lambda drawn: _second_order("second_order_cosine", drawn))


def second_order_cosine_rows(x: Array, y: Array, a: Graph, b: Graph, *, rows: Integers | None = None) -> Tensor:
    """Return cos(u_i, v_i) of ``second_order_cosine`` for every item, from graphs that exist already.

    Args:
        x: (n, d_x) rows, as in ``cknna``.
        y: (n, d_y), row i is the same item as row i of x.
        a: (m, k) int64 indices into x or ``modalign.Neighbors``.
        b: (m, k), likewise into y.
        rows: (m,) integers, the items whose neighbours a and b hold; None for all n of them in order.

    Returns:
        (m,) float64. Peak memory beyond it is a block of rows.

    Raises:
        TypeError: As ``second_order_cosine``, for graphs as ``neighborhood_scores``, and for rows that are no integers.
        ValueError: As ``second_order_cosine``, for graphs as ``neighborhood_scores``, and for rows that are not (m,)
            in 0 .. n - 1.

    Examples:
        >>> import numpy as np, modalign
        >>> from modalign.metrics.edges import second_order_cosine_rows
        >>> x = np.eye(3) + 1
        >>> second_order_cosine_rows(x, x, *[modalign.knn(x, 2)] * 2).round(decimals=12).tolist()
        [1.0, 1.0, 1.0]
    """
    operation = "second_order_cosine_rows"
    x, y = paired_arrays(operation, x, y)
    left, right, _ = checked_pair(operation, a, b, len(x))
    require_distinct(operation, left, right)
    items = None if rows is None else as_indices(f"{operation}: rows", rows)
    fits = items is None or (tuple(items.shape) == (len(left),) and 0 <= int(items.min()) <= int(items.max()) < len(x))
    if not fits or (items is None and len(left) != len(x)):
        raise ValueError(
            f"{operation}: rows must name the item of each of the {len(left)} lists, in 0 .. {len(x) - 1}, "
            f"got {'none' if items is None else f'{tuple(items.shape)}'}"
        )
    return _second_order(operation, Graphs(left, right, rows=(x, y)), items)


# the evaluators that the registry names


def cknna_of_graphs(graphs: Graphs, variant: str = "published") -> float:
    """Evaluate ``cknna`` from graphs."""
    assert graphs.rows is not None
    return cknna_from_graphs(*graphs.rows, graphs.a, graphs.b, metric=graphs.metric, variant=variant)


def second_order_cosine_of_graphs(graphs: Graphs) -> Tensor:
    """Evaluate ``second_order_cosine`` of every item from graphs."""
    assert graphs.rows is not None
    return second_order_cosine_rows(*graphs.rows, graphs.a, graphs.b)


def _tables(operation: str, graphs: Graphs, metric: str) -> tuple[_Table, _Table]:
    assert graphs.rows is not None
    return _Table(operation, "x", graphs.rows[0], metric), _Table(operation, "y", graphs.rows[1], metric)


def _cknna(operation: str, graphs: Graphs, variant: str) -> float:
    a, b = graphs.a, graphs.b
    if variant == "code" and len(a) < 4:
        raise ValueError(f"{operation}: variant='code' needs at least 4 items, got {len(a)}")
    x, y = _tables(operation, graphs, graphs.metric)
    left, right = (side.on_edges(graph).to(a.device) for side, graph in ((x, a), (y, b)))
    place = _places(a, b)
    common, place = place >= 0, place.clamp_(min=0)
    if variant == "code":
        norm = _hsic_norm(operation, (a, left), (b, right))
        return _hsic(a, left * common, right.gather(1, place) * common) / (norm + EPSILON)
    squares = [_centre(side, edges) for side, edges in ((x, left), (y, right))]
    cross = float((left * right.gather(1, place)).mul_(common).sum())
    return cross / (math.sqrt(squares[0]) * math.sqrt(squares[1]))


def _centre(side: _Table, edges: Tensor) -> float:
    """Subtract each item's mean similarity from its edges in place, and return the sum of their squares."""
    # a sum of d products of float64 numbers has a smaller error
    noise = 1e-15 * math.sqrt(side.table.shape[1]) * float(edges.abs().max())
    edges.sub_(side.means()[:, None].to(edges.device))
    square = float(edges.square().sum())
    if not square > edges.numel() * noise**2:
        raise UndefinedScoreError(
            f"{side.operation}: in {side.name} every neighbour is as similar as the mean, so the alignment is not "
            "defined"
        )
    return square


def _hsic_norm(operation: str, *sides: tuple[Tensor, Tensor]) -> float:
    """Return sqrt(HSIC(K, K) HSIC(L, L)) of the graphs of x and y and the similarities on their edges."""
    product = 1.0
    for name, (graph, edges) in zip("xy", sides, strict=True):
        n = len(graph)
        hsic = _hsic(graph, edges, edges)
        # the estimator is a difference of sums of squares of the similarities
        if abs(hsic) <= 1e-12 * float(edges.square().sum()) / (n * (n - 3)):
            raise ValueError(
                f"{operation}: the HSIC of {name} with itself is rounding beside its products; centre the rows, or "
                "take variant='published'"
            )
        product *= hsic
    if product < 0:
        raise ValueError(
            f"{operation}: HSIC(K, K) HSIC(L, L) is {product:.3g}, which has no root; take variant='published'"
        )
    return math.sqrt(product)


def _hsic(graph: Tensor, left: Tensor, right: Tensor) -> float:
    """Return the unbiased estimate of HSIC of two n x n matrices that are 0 outside the edges of a graph.

    Args:
        graph: (n, k) int64.
        left: (n, k) float64, the values of the first matrix on the edges.
        right: (n, k) float64, those of the second.
    """
    n, k = graph.shape
    items = torch.arange(n, device=graph.device)[:, None]
    codes, order = (items * n + graph).reshape(-1).sort()
    reversed_codes = (graph * n + items).reshape(-1)
    place = torch.searchsorted(codes, reversed_codes).clamp_(max=n * k - 1)
    reverse = right.reshape(-1)[order[place]] * (codes[place] == reversed_codes)
    into = left.new_zeros(n).index_add_(0, graph.reshape(-1), left.reshape(-1))
    trace, product = left.reshape(-1) @ reverse, into @ right.sum(1)
    total = trace + left.sum() * right.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * product
    return float(total) / (n * (n - 3))


def _second_order(operation: str, graphs: Graphs, items: Tensor | None = None) -> Tensor:
    """Return the second-order cosines of the items whose neighbours the graphs hold, all in order if None."""
    a, b = graphs.a, graphs.b
    x, y = _tables(operation, graphs, "cosine")
    items = torch.arange(len(a)) if items is None else items
    scores = []
    for block in row_blocks(len(a), 2 * a.shape[1] * max(x.table.shape[1], y.table.shape[1])):
        union = torch.cat([a[block], b[block]], 1)
        once = torch.cat([torch.ones_like(a[block], dtype=torch.bool), _places(b[block], a[block]) < 0], 1)
        u, v = (side.products(items[block], union).to(a.device) * once for side in (x, y))
        scale = u.square().sum(1).sqrt() * v.square().sum(1).sqrt()
        if not bool((scale > 0).all()):
            row = int((scale <= 0).nonzero()[0])
            side = "x" if not bool(u[row].any()) else "y"
            raise UndefinedScoreError(
                f"{operation}: item {int(items[block][row])} has cosine 0 in {side} with all its neighbours, so it has "
                "no second-order cosine; leave out such items: rows of zeros and rows that share no feature with others"
            )
        scores.append((u * v).sum(1) / scale)
    return torch.cat(scores)


class _Table:
    """Similarities of the rows of a table in float64: inner products, or cosines, which are 0 for a zero row."""

    def __init__(self, operation: str, name: str, array: Array, metric: str) -> None:
        self.operation, self.name = operation, name
        self.table = as_tensor(f"{operation}: {name}", array)
        n, d = self.table.shape
        self.weights = self.table.new_ones(n, dtype=torch.float64)
        if metric == "cosine":
            self.table = _within_range(self.table)
            norms = torch.cat([self.table[block].double().square().sum(1).sqrt() for block in row_blocks(n, d)])
            self.weights = torch.where(norms > 0, 1 / norms, 0.0)

    def products(self, items: Tensor, others: Tensor) -> Tensor:
        """Return the similarities (m, k) of items (m,) with others (m, k)."""
        items, others = items.to(self.table.device), others.to(self.table.device)
        values: Tensor = _edge_products(self.table, items, others, "auto")
        return self._finite(values.mul_(self.weights[others]).mul_(self.weights[items][:, None]))

    def on_edges(self, graph: Tensor) -> Tensor:
        """Return the similarities on the edges of a graph of all items, (n, k)."""
        return self.products(torch.arange(len(graph)), graph)

    def means(self) -> Tensor:
        """Return the mean similarity of every row with all rows, (n,)."""
        n, d = self.table.shape
        centre = self.table.new_zeros(d, dtype=torch.float64)
        for block in _cached_blocks(n, d):
            centre += self.weights[block] @ self.table[block].double()
        centre /= n
        parts = [self.table[block].double() @ centre for block in _cached_blocks(n, d)]
        return self._finite(torch.cat(parts).mul_(self.weights))

    def _finite(self, values: Tensor) -> Tensor:
        if not bool(values.isfinite().all()):
            raise ValueError(f"{self.operation}: inner products of {self.name} overflow float64; scale its rows down")
        return values


def _within_range(table: Tensor) -> Tensor:
    """Return float64 rows times powers of two if squares would overflow or vanish; no cosine changes."""
    if table.dtype != torch.float64:
        return table
    largest = torch.cat([table[block].abs().amax(1, keepdim=True) for block in row_blocks(*table.shape)])
    exponents = torch.frexp(largest).exponent
    return torch.ldexp(table, -exponents) if int(exponents.abs().max()) > 400 else table


def _cached_blocks(n: int, width: int) -> Iterator[slice]:
    """Yield blocks of rows that stay in a cache from one operation to the next."""
    return row_blocks(n, 4 * width)


def _places(a: Tensor, b: Tensor) -> Tensor:
    """Return the position of each entry of a row of a [n, k] in the same row of b [n, k], -1 where it is absent."""
    places = torch.empty_like(a)
    for rows in row_blocks(len(a), 4 * a.shape[1]):
        ids, order = b[rows].sort(dim=1)
        spot = torch.searchsorted(ids, a[rows]).clamp_(max=a.shape[1] - 1)
        places[rows] = torch.where(ids.gather(1, spot) == a[rows], order.gather(1, spot), -1)
    return places


def _require_kernel(operation: str, metric: str, variant: str) -> None:
    require_variant(operation, variant)
    one_of(operation, "metric", metric, ("cosine", "dot"))
