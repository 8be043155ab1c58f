"""Alignment scores that weigh the edges of two graphs by the similarities of their rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from modalign.common.checks import one_of
from modalign.metrics.graphs import graphs_of, pair_of, require_distinct, row_blocks, same_items, tensor_of
from modalign.metrics.inputs import Graphs
from modalign.neighbors.functional import as_tensor
from modalign.ops.edge_products import edge_products as _edge_products

__all__ = ["cknna", "cknna_from_graphs", "second_order_cosine", "second_order_cosine_rows"]

VARIANTS = ("published", "code")


def cknna(
    x: Any,
    y: Any,
    k: int = 10,
    *,
    variant: str = "published",
    metric: str = "cosine",
    groups: Any = None,
    backend: str = "auto",
) -> float:
    """Centred kernel alignment of the pairs that are neighbours in both representations.

        Align(K, L) = sum_ij alpha_ij (K_ij - mean_l K_il) (L_ij - mean_l L_il)
        CKNNA = Align(K, L) / sqrt(Align(K, K) Align(L, L))

    alpha_ij = 1 if j is one of the k nearest neighbours of i in both, in Align(K, K) in x alone, in Align(L, L) in y
    alone; K and L are the inner products of unit rows ("cosine") or of the rows ("dot"), and means are over all n
    items, i too.

    variant: "published", the equation; or "code", what the published program computes in its place, without centring:

            HSIC(K, L) = (sum_ij K_ij L_ji + 1'K1 1'L1 / ((n-1) (n-2)) - 2 / (n-2) 1'K L1) / (n (n-3))
            CKNNA = HSIC(K, L) / (sqrt(HSIC(K, K) HSIC(L, L)) + 1e-6)

        with the kernels times alpha. A list of neighbours is not symmetric, so alpha is not, and K_ij L_ji pairs an
        edge with its reverse: pairs that are neighbours in one direction alone add nothing to the first term. HSIC is
        of the size k / n, so the 1e-6 draws the score of many items to 0: 1 for x = y and unit rows becomes 0.91 at
        most at n / k = 100,000.
    x, y, k, metric ("cosine" or "dot"), groups, backend: as in ``mutual_knn``; so are errors.

    Returns: a number from -1 to 1 ("code": within no bounds, seldom beyond these). Peak memory: that of one ``knn``, or
        two (n, k) graphs and 45 n k bytes, 105 n k for "code"; and a copy of float64 rows if one has entries beyond
        2^400 or below 2^-400. Time beyond ``knn``: O(n k d). Inner products and sums
        are in float64 from the stored rows.
    Raises: ValueError for another variant or metric, and where a denominator is 0: in a representation whose neighbours
        are all as similar as the mean ("published"), and fewer than 4 items or products of HSIC below 0 ("code").
    Source: Huh et al. 2024 (arXiv:2405.07987), appendix A, and its code.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.edges import cknna
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(cknna(x, 3 * x, k=5), 12)
        1.0
    """
    _require_kernel("cknna", metric, variant)
    a, b = graphs_of("cknna", x, y, k, metric, groups, backend)
    return _cknna("cknna", x, y, a, b, metric, variant)


def cknna_from_graphs(x: Any, y: Any, a: Any, b: Any, *, metric: str = "cosine", variant: str = "published") -> float:
    """``cknna`` from graphs that are there already.

    a, b: ``modalign.Neighbors`` or (n, k) int64 indices of x's and y's rows among themselves.
    x, y, metric, variant, memory and errors: as in ``cknna``; TypeError and ValueError for graphs as in
    ``neighborhood_scores``.

    Examples:
        >>> import numpy as np, modalign
        >>> from modalign.metrics.edges import cknna_from_graphs
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> graph = modalign.knn(x, 5)
        >>> round(cknna_from_graphs(x, 3 * x, graph, graph), 12)
        1.0
    """
    _require_kernel("cknna_from_graphs", metric, variant)
    same_items("cknna_from_graphs", x, y)
    left, right, n = pair_of("cknna_from_graphs", a, b, None)
    if not len(left) == n == len(x):
        raise ValueError(
            f"cknna_from_graphs: a and b must be the graphs of all {len(x)} rows, got {tuple(left.shape)} of {n} items"
        )
    for side, graph in (("a", left), ("b", right)):
        require_distinct("cknna_from_graphs", side, graph)
    return _cknna("cknna_from_graphs", x, y, left, right, metric, variant)


def second_order_cosine(
    x: Any, y: Any, k: int = 10, *, metric: str = "cosine", groups: Any = None, backend: str = "auto"
) -> float:
    """How alike an item's similarities to its neighbours are in the two representations.

        mean_i cos(u_i, v_i)      u_i = (cos(x_i, x_j))_j, v_i = (cos(y_i, y_j))_j for j in N_k(x_i) | N_k(y_i)

    It is high for any two representations whose cosines are all positive: compare it with its value under relabelling.

    x, y, k, groups, backend: as in ``mutual_knn``. metric: of the neighbours; the similarities are cosines always, in
    float64 from the stored rows. A zero row has cosine 0 with every other.

    Returns: a number from -1 to 1. Peak memory: that of one ``knn``, two (n, k) graphs, a block of rows
        and the copy that ``cknna`` names. Time beyond ``knn``: O(n k d).
    Raises: as ``mutual_knn``, and ValueError if all cosines of an item are 0.
    Source: Hamilton, Leskovec and Jurafsky 2016 (arXiv:1606.02821).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.edges import second_order_cosine
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(second_order_cosine(x, 3 * x, k=5), 12)
        1.0
    """
    a, b = graphs_of("second_order_cosine", x, y, k, metric, groups, backend)
    return float(_second_order("second_order_cosine", x, y, a, b, None).mean())


def second_order_cosine_rows(x: Any, y: Any, a: Any, b: Any, *, rows: Any = None) -> Tensor:
    """cos(u_i, v_i) of ``second_order_cosine`` for every item, from graphs that are there already.

    a, b: ``modalign.Neighbors`` or (m, k) int64 indices into x and y. rows: (m,) int64, the items whose lists they are;
    None for all n of them in order.

    Returns: (m,) float64. Memory: a block of rows beyond that.
    Raises: as ``second_order_cosine``; TypeError and ValueError for graphs as in ``neighborhood_scores``, and for rows
        that are not (m,) int64 in 0 .. n - 1.

    Examples:
        >>> import numpy as np, modalign
        >>> from modalign.metrics.edges import second_order_cosine_rows
        >>> x = np.eye(3) + 1
        >>> second_order_cosine_rows(x, x, *[modalign.knn(x, 2)] * 2).round(decimals=12).tolist()
        [1.0, 1.0, 1.0]
    """
    operation = "second_order_cosine_rows"
    same_items(operation, x, y)
    left, right, _ = pair_of(operation, a, b, len(x))
    for side, graph in (("a", left), ("b", right)):
        require_distinct(operation, side, graph)
    items = None if rows is None else tensor_of(rows)
    if items is not None and items.dtype != torch.int64:
        raise TypeError(f"{operation}: rows must be int64, got {items.dtype}")
    fits = items is None or (tuple(items.shape) == (len(left),) and 0 <= int(items.min()) <= int(items.max()) < len(x))
    if not fits or (items is None and len(left) != len(x)):
        raise ValueError(
            f"{operation}: rows must name the item of each of the {len(left)} lists, in 0 .. {len(x) - 1}, "
            f"got {'none' if items is None else f'{tuple(items.shape)}'}"
        )
    return _second_order(operation, x, y, left, right, items)


def cknna_of_graphs(graphs: Graphs) -> float:
    """Evaluate ``cknna`` for the registry."""
    assert graphs.rows is not None
    return cknna_from_graphs(*graphs.rows, graphs.a, graphs.b, metric=graphs.metric)


def second_order_cosine_of_graphs(graphs: Graphs) -> Tensor:
    """Evaluate ``second_order_cosine`` of every item for the registry."""
    assert graphs.rows is not None
    return second_order_cosine_rows(*graphs.rows, graphs.a, graphs.b)


def _cknna(operation: str, x: Any, y: Any, a: Tensor, b: Tensor, metric: str, variant: str) -> float:
    n = len(a)
    if variant == "code" and n < 4:
        raise ValueError(f"{operation}: variant='code' needs at least 4 items, got {n}")
    sides = [_Rows(operation, name, rows, metric) for name, rows in (("x", x), ("y", y))]
    left, right = (side.on_edges(graph).to(a.device) for side, graph in zip(sides, (a, b), strict=True))
    place = _places(a, b)
    both, place = place >= 0, place.clamp_(min=0)
    if variant == "code":
        own = 1.0
        for name, graph, edges in (("x", a, left), ("y", b, right)):
            hsic = _hsic(graph, edges, edges)
            # the estimator is a difference of sums of squares of the products
            if abs(hsic) <= 1e-12 * float(edges.square().sum()) / (n * (n - 3)):
                raise ValueError(
                    f"{operation}: the HSIC of {name} with itself is rounding beside its products; centre the rows, or "
                    "take variant='published'"
                )
            own *= hsic
        if own < 0:
            raise ValueError(
                f"{operation}: HSIC(K, K) HSIC(L, L) is {own:.3g}, which has no root; take variant='published'"
            )
        return _hsic(a, left * both, right.gather(1, place) * both) / (math.sqrt(own) + 1e-6)
    squares = []
    for name, side, edges in (("x", sides[0], left), ("y", sides[1], right)):
        # a sum of d products of float64 numbers is wrong by less
        noise = 1e-15 * math.sqrt(side.table.shape[1]) * float(edges.abs().max())
        edges.sub_(side.means()[:, None].to(edges.device))
        square = float(edges.square().sum())
        if not square > n * a.shape[1] * noise**2:
            raise ValueError(
                f"{operation}: in {name} every neighbour is as similar as the mean, so the alignment is not defined"
            )
        squares.append(square)
    cross = float((left * right.gather(1, place)).mul_(both).sum())
    return cross / (math.sqrt(squares[0]) * math.sqrt(squares[1]))


def _hsic(graph: Tensor, left: Tensor, right: Tensor) -> float:
    """The unbiased estimator of HSIC of two n x n matrices that are 0 but for their values on the edges of a graph."""
    n, k = graph.shape
    items = torch.arange(n, device=graph.device)[:, None]
    codes, order = (items * n + graph).reshape(-1).sort()
    back = (graph * n + items).reshape(-1)
    place = torch.searchsorted(codes, back).clamp_(max=n * k - 1)
    reverse = right.reshape(-1)[order[place]] * (codes[place] == back)
    into = left.new_zeros(n).index_add_(0, graph.reshape(-1), left.reshape(-1))
    trace, product = left.reshape(-1) @ reverse, into @ right.sum(1)
    total = trace + left.sum() * right.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * product
    return float(total) / (n * (n - 3))


def _second_order(operation: str, x: Any, y: Any, a: Tensor, b: Tensor, items: Tensor | None) -> Tensor:
    sides = [_Rows(operation, name, rows, "cosine") for name, rows in (("x", x), ("y", y))]
    items = torch.arange(len(a)) if items is None else items
    scores = []
    for block in row_blocks(len(a), 2 * a.shape[1] * max(side.table.shape[1] for side in sides)):
        union = torch.cat([a[block], b[block]], 1)
        once = torch.cat([torch.ones_like(a[block], dtype=torch.bool), _places(b[block], a[block]) < 0], 1)
        u, v = (side.products(items[block], union).to(a.device) * once for side in sides)
        scale = u.square().sum(1).sqrt() * v.square().sum(1).sqrt()
        if not bool((scale > 0).all()):
            row = int((scale <= 0).nonzero()[0])
            raise ValueError(
                f"{operation}: item {int(items[block][row])} has cosine 0 with all its neighbours in x or in y, "
                f"so it has no second-order cosine; leave out zero rows"
            )
        scores.append((u * v).sum(1) / scale)
    return torch.cat(scores)


class _Rows:
    """Inner products of stored rows in float64, over their norms for the cosine: 0 where a row is zero."""

    def __init__(self, operation: str, name: str, array: Any, metric: str) -> None:
        self.operation, self.name = operation, name
        self.table = as_tensor(operation, name, array)
        n, d = self.table.shape
        self.weights = self.table.new_ones(n, dtype=torch.float64)
        if metric == "cosine":
            self.table = _without_overflow(self.table)
            norms = torch.cat([self.table[block].double().square().sum(1).sqrt() for block in row_blocks(n, d)])
            self.weights = torch.where(norms > 0, 1 / norms, 0.0)

    def products(self, items: Tensor, others: Tensor) -> Tensor:
        """Of item i with others [i, :]: [m], [m, k] to [m, k]."""
        items, others = items.to(self.table.device), others.to(self.table.device)
        values: Tensor = _edge_products(self.table, items, others, "auto")
        return self._finite(values.mul_(self.weights[others]).mul_(self.weights[items][:, None]))

    def on_edges(self, graph: Tensor) -> Tensor:
        return self.products(torch.arange(len(graph)), graph)

    def means(self) -> Tensor:
        """Of every row's products with all rows."""
        n, d = self.table.shape
        center = self.table.new_zeros(d, dtype=torch.float64)
        for block in _small(n, d):
            center += self.weights[block] @ self.table[block].double()
        center /= n
        parts = [self.table[block].double() @ center for block in _small(n, d)]
        return self._finite(torch.cat(parts).mul_(self.weights))

    def _finite(self, values: Tensor) -> Tensor:
        if not bool(values.isfinite().all()):
            raise ValueError(f"{self.operation}: inner products of {self.name} overflow float64; scale its rows down")
        return values


def _without_overflow(table: Tensor) -> Tensor:
    """Rows whose squares would overflow or vanish, all times powers of two of their own, which changes no cosine."""
    if table.dtype != torch.float64:
        return table
    largest = torch.cat([table[block].abs().amax(1, keepdim=True) for block in row_blocks(*table.shape)])
    exponents = torch.frexp(largest).exponent
    return torch.ldexp(table, -exponents) if int(exponents.abs().max()) > 400 else table


def _small(n: int, width: int) -> Iterator[slice]:
    """Blocks that stay in a cache from one operation to the next."""
    return row_blocks(n, 4 * width)


def _places(a: Tensor, b: Tensor) -> Tensor:
    """Where each entry of a's row stands in b's row, -1: nowhere. a, b: [n, k]."""
    places = torch.empty_like(a)
    for rows in row_blocks(len(a), 4 * a.shape[1]):
        ids, order = b[rows].sort(dim=1)
        spot = torch.searchsorted(ids, a[rows]).clamp_(max=a.shape[1] - 1)
        places[rows] = torch.where(ids.gather(1, spot) == a[rows], order.gather(1, spot), -1)
    return places


def _require_kernel(operation: str, metric: str, variant: str) -> None:
    one_of(operation, "variant", variant, VARIANTS)
    one_of(operation, "metric", metric, ("cosine", "dot"))
