"""Alignment scores from the k nearest neighbours of every item, and what such a graph and a table look like."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from modalign.arguments import one_of, require_same_items
from modalign.graph import Neighbors
from modalign.neighbors import as_tensor, knn, neighbor_overlap
from modalign.ops.edge_products import edge_products as _edge_products
from modalign.ops.neighborhoods import neighborhood_scores as _neighborhood_scores
from modalign.ops.neighborhoods import relabelled_overlap as _relabelled_overlap

__all__ = [
    "Duplicates",
    "Hubness",
    "cknna",
    "cknna_from_graphs",
    "cycle_knn",
    "duplicates",
    "edit_distance_knn",
    "hubness",
    "jaccard_knn",
    "lcs_knn",
    "mutual_knn",
    "neighborhood_scores",
    "rank_similarity",
    "reciprocity",
    "relabelled_overlap",
    "second_order_cosine",
    "second_order_cosine_rows",
]

BLOCK_ELEMENTS = 1 << 22  # float64 copies of a block of rows
SCORES = ("mutual_knn", "jaccard_knn", "rank_similarity", "lcs_knn", "edit_distance_knn", "cycle_knn")
DIRECTIONS = ("xy", "yx", "both")
VARIANTS = ("published", "code")


def mutual_knn(
    x: Any, y: Any, k: int = 10, *, metric: str = "cosine", groups: Any = None, backend: str = "auto"
) -> float:
    """The mean share of the k nearest neighbours that the rows of x and the rows of y have in common.

        mean_i |N_k(x_i) & N_k(y_i)| / k

    Two unrelated representations of n items share k / (n - 1) of their neighbours in the mean.

    Args:
        x, y: (n, d_x) and (n, d_y), row i of both is the same item; NumPy (memory-mapped too) or torch, floating point.
        k: 1 <= k <= n - 1.
        metric, groups, backend: as in ``modalign.knn``. Neighbours are exact, the row itself excluded by its id; items
            of one group are no neighbours in either representation.

    Returns: a number from 0 to 1. Peak memory: that of one ``knn`` and two (n, k) graphs.
    Raises: TypeError and ValueError as ``modalign.knn``, and ValueError if the numbers of rows differ.
    Source: Huh et al. 2024 (arXiv:2405.07987), which takes the cosine of unit rows.

    Examples:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> modalign.mutual_knn(x, 3 * x, k=5)
        1.0
    """
    a, b = _graphs("mutual_knn", x, y, k, metric, groups, backend)
    return float(neighbor_overlap(a, b)[:, -1].double().mean()) / k


def jaccard_knn(
    x: Any, y: Any, k: int = 10, *, metric: str = "cosine", groups: Any = None, backend: str = "auto"
) -> float:
    """The mean Jaccard index of the sets of k nearest neighbours.

        mean_i |N_k(x_i) & N_k(y_i)| / |N_k(x_i) | N_k(y_i)|

    x, y, k, metric, groups, backend: as in ``mutual_knn``; so are memory and errors. Returns a number from 0 to 1.
    Source: Schumacher et al. 2021 and Hryniowski and Wong 2020, as in Klabunde et al. 2023 (arXiv:2305.06329).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.neighborhoods import jaccard_knn
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> jaccard_knn(x, 3 * x, k=5)
        1.0
    """
    return _mean_score("jaccard_knn", x, y, k, metric, groups, backend)


def rank_similarity(
    x: Any, y: Any, k: int = 10, *, metric: str = "cosine", groups: Any = None, backend: str = "auto"
) -> float:
    """How alike the ranks of the common neighbours are, near ones counting most.

        mean_i 1 / H(c_i) sum_j 2 / ((1 + |r_x(j) - r_y(j)|) (r_x(j) + r_y(j)))      H(c) = 1 + 1/2 + .. + 1/c

    The sum is over the c_i common neighbours j of item i, r their ranks from 1. An item without any counts 0; equal
    lists give 1. One common neighbour that is the first in both lists gives 1 as well: read it beside ``jaccard_knn``.

    x, y, k, metric, groups, backend: as in ``mutual_knn``; so are memory and errors. Returns a number from 0 to 1.
    Source: Wang et al. 2020 (IEEE TKDE), as in Klabunde et al. 2023 (arXiv:2305.06329).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.neighborhoods import rank_similarity
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> rank_similarity(x, 3 * x, k=5)
        1.0
    """
    return _mean_score("rank_similarity", x, y, k, metric, groups, backend)


def lcs_knn(
    x: Any,
    y: Any,
    k: int = 10,
    *,
    normalize: bool = True,
    metric: str = "cosine",
    groups: Any = None,
    backend: str = "auto",
) -> float:
    """The mean length of the longest common subsequence of the two lists of k nearest neighbours, over k.

    The lists are read best first; a subsequence may skip entries and keeps the order.

    normalize: False for the length itself, from 0 to k, which is what the code of Huh et al. returns.
    x, y, k, metric, groups, backend: as in ``mutual_knn``; so are memory and errors. Returns a number from 0 to 1.
    Source: the code of Huh et al. 2024 (arXiv:2405.07987).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.neighborhoods import lcs_knn
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> lcs_knn(x, 3 * x, k=5), lcs_knn(x, 3 * x, k=5, normalize=False)
        (1.0, 5.0)
    """
    score = _mean_score("lcs_knn", x, y, k, metric, groups, backend)
    return score if normalize else score * k


def edit_distance_knn(
    x: Any, y: Any, k: int = 10, *, metric: str = "cosine", groups: Any = None, backend: str = "auto"
) -> float:
    """One minus the mean edit distance of the two lists of k nearest neighbours, over k.

        1 - mean_i Levenshtein(N_k(x_i), N_k(y_i)) / k

    An insertion, a deletion and a substitution cost 1 each, so k turns any list into any other.

    x, y, k, metric, groups, backend: as in ``mutual_knn``; so are memory and errors. Returns a number from 0 to 1.
    Source: the code of Huh et al. 2024 (arXiv:2405.07987).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.neighborhoods import edit_distance_knn
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> edit_distance_knn(x, 3 * x, k=5)
        1.0
    """
    return _mean_score("edit_distance_knn", x, y, k, metric, groups, backend)


def cycle_knn(
    x: Any,
    y: Any,
    k: int = 10,
    *,
    direction: str = "xy",
    metric: str = "cosine",
    groups: Any = None,
    backend: str = "auto",
) -> float:
    """The share of items that are a neighbour in x of one of their neighbours in y.

        mean_i [there is j in N_k(y_i) with i in N_k(x_j)]

    It is not symmetric in x and y, and not 1 for x = y: there it is the share of items with a mutual neighbour.

    direction: "xy", the published one; "yx", with x and y exchanged; "both", the mean of the two.
    x, y, k, metric, groups, backend: as in ``mutual_knn``; so are memory and errors. Time O(n k^2) at most.
    Returns a number from 0 to 1. Raises ValueError for another direction.
    Source: the code of Huh et al. 2024 (arXiv:2405.07987), the accuracy of ``knn_x[knn_y]``.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.neighborhoods import cycle_knn
        >>> cycle_knn(np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [2.0], [3.0]]), k=1, metric="euclidean")
        0.6666666666666666
    """
    one_of("cycle_knn", "direction", direction, DIRECTIONS)
    a, b = _graphs("cycle_knn", x, y, k, metric, groups, backend)
    pairs = {"xy": [(a, b)], "yx": [(b, a)], "both": [(a, b), (b, a)]}[direction]
    scores = [float(_neighborhood_scores(*pair, "cycle_knn", "auto").mean()) for pair in pairs]
    return sum(scores) / len(scores)


def neighborhood_scores(name: str, a: Any, b: Any, *, candidates: int | None = None, backend: str = "auto") -> Tensor:
    """The score of every item, whose mean is the metric of that name.

    name: "mutual_knn", "jaccard_knn", "rank_similarity", "lcs_knn" (over k), "edit_distance_knn" or "cycle_knn", a
        being x's graph and b y's.
    a, b: ``modalign.Neighbors`` or (m, k) int64 indices, best first, distinct in each row.
    candidates: how many items the indices are of; None for that of ``Neighbors``, or m. Lists of some items among more
        have every score but "cycle_knn", which follows the lists of neighbours.
    backend: "auto", "cpp" (CPU) or "reference" (any device).

    Returns: (m,) float64. Memory: the result, O(k) a thread, and a block of rows to see that they are distinct.
    Raises: TypeError for indices that are not (m, k) int64; ValueError for another name, shapes that differ, an index
        out of range or twice in a row.

    Examples:
        >>> import torch
        >>> from modalign.metrics.neighborhoods import neighborhood_scores
        >>> a, b = torch.tensor([[1, 2], [2, 0], [0, 1]]), torch.tensor([[2, 1], [2, 0], [1, 0]])
        >>> neighborhood_scores("lcs_knn", a, b).tolist()
        [0.5, 1.0, 0.5]
    """
    one_of("neighborhood_scores", "name", name, SCORES)
    left, right, n = _pair("neighborhood_scores", a, b, candidates)
    if name == "cycle_knn" and len(left) != n:
        raise ValueError(
            f"neighborhood_scores: cycle_knn needs the lists of all items, got {len(left)} lists of {n} items"
        )
    for side, graph in (("a", left), ("b", right)):
        _require_distinct("neighborhood_scores", side, graph)
    scores: Tensor = _neighborhood_scores(left, right, name, backend)
    return scores


def relabelled_overlap(a: Any, b: Any, relabelling: Any, *, backend: str = "auto") -> Tensor:
    """How many edges two graphs share when the items of one are relabelled.

        sum_i |{j in A_i: s(j) in B_s(i)}|

    With the identity it is the sum of |A_i & B_i|; over n k it is the mutual k-NN of x with a shuffled y.

    a, b: ``modalign.Neighbors`` or (n, k) int64 indices, distinct in each row (which is not looked at here).
    relabelling: s (n,) int64, a permutation of 0 .. n - 1, or (p, n), p of them, for which b is prepared once.
    backend: as in ``neighborhood_scores``.

    Returns: int64, () or (p,). Memory 4 n k bytes. Time O(n k log k) for each relabelling.
    Raises: TypeError for indices or relabellings of other types; ValueError for shapes that differ, an index out of
        range, or what is no permutation.

    Examples:
        >>> import torch
        >>> from modalign.metrics.neighborhoods import relabelled_overlap
        >>> a = torch.tensor([[1], [0], [3], [2]])
        >>> relabelled_overlap(a, a, torch.tensor([[0, 1, 2, 3], [0, 2, 1, 3]])).tolist()
        [4, 0]
    """
    left, right, n = _pair("relabelled_overlap", a, b, None)
    s = _tensor(relabelling).to(left.device)
    if s.dtype != torch.int64:
        raise TypeError(f"relabelled_overlap: relabelling must be int64, got {s.dtype}")
    if len(left) != n or s.ndim not in (1, 2) or s.shape[-1] != n or s.numel() == 0:
        raise ValueError(
            f"relabelled_overlap: needs graphs (n, k) of all n items and relabelling (n,) or (p, n), "
            f"got {tuple(left.shape)} of {n} items and {tuple(s.shape)}"
        )
    for one in s.reshape(-1, n):
        if int(one.min()) < 0 or int(one.max()) >= n or not bool(torch.bincount(one, minlength=n).all()):
            raise ValueError(f"relabelled_overlap: each relabelling must be a permutation of 0 .. {n - 1}")
    totals: Tensor = _relabelled_overlap(left, right, s, backend)
    return totals


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
        >>> from modalign.metrics.neighborhoods import cknna
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(cknna(x, 3 * x, k=5), 12)
        1.0
    """
    _require_kernel("cknna", metric, variant)
    a, b = _graphs("cknna", x, y, k, metric, groups, backend)
    return _cknna("cknna", x, y, a, b, metric, variant)


def cknna_from_graphs(x: Any, y: Any, a: Any, b: Any, *, metric: str = "cosine", variant: str = "published") -> float:
    """``cknna`` from graphs that are there already.

    a, b: ``modalign.Neighbors`` or (n, k) int64 indices of x's and y's rows among themselves.
    x, y, metric, variant, memory and errors: as in ``cknna``; TypeError and ValueError for graphs as in
    ``neighborhood_scores``.

    Examples:
        >>> import numpy as np, modalign
        >>> from modalign.metrics.neighborhoods import cknna_from_graphs
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> graph = modalign.knn(x, 5)
        >>> round(cknna_from_graphs(x, 3 * x, graph, graph), 12)
        1.0
    """
    _require_kernel("cknna_from_graphs", metric, variant)
    _require_same_items("cknna_from_graphs", x, y)
    left, right, n = _pair("cknna_from_graphs", a, b, None)
    if not len(left) == n == len(x):
        raise ValueError(
            f"cknna_from_graphs: a and b must be the graphs of all {len(x)} rows, got {tuple(left.shape)} of {n} items"
        )
    for side, graph in (("a", left), ("b", right)):
        _require_distinct("cknna_from_graphs", side, graph)
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
        >>> from modalign.metrics.neighborhoods import second_order_cosine
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(second_order_cosine(x, 3 * x, k=5), 12)
        1.0
    """
    a, b = _graphs("second_order_cosine", x, y, k, metric, groups, backend)
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
        >>> from modalign.metrics.neighborhoods import second_order_cosine_rows
        >>> x = np.eye(3) + 1
        >>> second_order_cosine_rows(x, x, *[modalign.knn(x, 2)] * 2).round(decimals=12).tolist()
        [1.0, 1.0, 1.0]
    """
    operation = "second_order_cosine_rows"
    _require_same_items(operation, x, y)
    left, right, _ = _pair(operation, a, b, len(x))
    for side, graph in (("a", left), ("b", right)):
        _require_distinct(operation, side, graph)
    items = None if rows is None else _tensor(rows)
    if items is not None and items.dtype != torch.int64:
        raise TypeError(f"{operation}: rows must be int64, got {items.dtype}")
    fits = items is None or (tuple(items.shape) == (len(left),) and 0 <= int(items.min()) <= int(items.max()) < len(x))
    if not fits or (items is None and len(left) != len(x)):
        raise ValueError(
            f"{operation}: rows must name the item of each of the {len(left)} lists, in 0 .. {len(x) - 1}, "
            f"got {'none' if items is None else f'{tuple(items.shape)}'}"
        )
    return _second_order(operation, x, y, left, right, items)


def reciprocity(graph: Any) -> float:
    """The share of edges whose reverse is an edge too.

        sum_i |{j in N_i: i in N_j}| / (n k)

    graph: ``modalign.Neighbors`` or (n, k) int64 indices of n items among themselves, distinct in each row (which is
    not looked at here). Returns a number from 0 to 1. O(n k^2) at most, O(k) memory a thread and 8 n bytes.
    Raises TypeError and ValueError as ``relabelled_overlap``.

    Examples:
        >>> import torch
        >>> from modalign.metrics.neighborhoods import reciprocity
        >>> reciprocity(torch.tensor([[1], [0], [0], [2]]))
        0.5
    """
    indices, n = _graph("reciprocity", "graph", graph, None)
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
        >>> from modalign.metrics.neighborhoods import hubness
        >>> hubness(torch.tensor([[1, 2], [2, 0], [0, 1], [0, 1]]))
        Hubness(skewness=-0.816496580927726, largest=3, antihubs=0.25)
    """
    indices, n = _graph("hubness", "graph", graph, None)
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


def duplicates(x: Any) -> Duplicates:
    """How many rows have an exact copy: the same numbers, 0 and -0 being the same.

    x: (n, d) as in ``mutual_knn``. Rows of one hash are compared number by number, so that nothing is guessed.
    O(n d + n log n) time, some 60 n bytes and a block of rows. Raises TypeError and ValueError as ``modalign.knn``.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.neighborhoods import duplicates
        >>> duplicates(np.array([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, -0.0]]))
        Duplicates(items=3, groups=1, largest=3)
    """
    table = as_tensor("duplicates", "x", x)
    hashes = torch.cat([_hashes(table[block]) for block in _slices(len(table), 2 * table.shape[1])])
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
        for some in many.nonzero()[:, 0].split(max(1, BLOCK_ELEMENTS // (2 * table.shape[1]))):
            equal[some] = (table[left[some]] == table[left[first[some]]]).all(1)
        sizes.append(torch.bincount(bucket[equal], minlength=len(values)))
        hashes, left = hashes[many & ~equal], left[many & ~equal]
    found = torch.cat(sizes) if sizes else table.new_zeros(0, dtype=torch.int64)
    found = found[found > 1]
    return Duplicates(int(found.sum()), len(found), int(found.max()) if len(found) else 1)


def _hashes(rows: Tensor) -> Tensor:
    """Equal rows have equal hashes: the bits, in words, times odd numbers, modulo 2^64."""
    words = (rows + 0).contiguous().view(torch.int16 if rows.itemsize == 2 else torch.int32)  # -0 + 0 is 0
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**63), 2**63 - 1, (words.shape[1],), generator=generator) | 1
    return (words * factors.to(rows.device)).sum(1)


def _mean_score(name: str, x: Any, y: Any, k: int, metric: str, groups: Any, backend: str) -> float:
    a, b = _graphs(name, x, y, k, metric, groups, backend)
    return float(_neighborhood_scores(a, b, name, "auto").mean())


def _graphs(
    operation: str, x: Any, y: Any, k: int, metric: str, groups: Any, backend: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    _require_same_items(operation, x, y)
    a, b = (torch.as_tensor(knn(rows, k, metric=metric, groups=groups, backend=backend).indices) for rows in (x, y))
    return a, b.to(a.device)


def _cknna(operation: str, x: Any, y: Any, a: Tensor, b: Tensor, metric: str, variant: str) -> float:
    n = len(a)
    if variant == "code" and n < 4:
        raise ValueError(f"{operation}: variant='code' needs at least 4 items, got {n}")
    sides = [_Rows(operation, name, rows, metric) for name, rows in (("x", x), ("y", y))]
    left, right = (side.on_edges(graph).to(a.device) for side, graph in zip(sides, (a, b), strict=True))
    place = _places(a, b)
    both, place = place >= 0, place.clamp_(min=0)
    if variant == "code":
        own = _hsic(a, left, left) * _hsic(b, right, right)
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
    for block in _slices(len(a), 2 * a.shape[1] * max(side.table.shape[1] for side in sides)):
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
            norms = torch.cat([self.table[block].double().square().sum(1).sqrt() for block in _slices(n, d)])
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
    largest = torch.cat([table[block].abs().amax(1, keepdim=True) for block in _slices(*table.shape)])
    exponents = torch.frexp(largest).exponent
    return torch.ldexp(table, -exponents) if int(exponents.abs().max()) > 400 else table


def _small(n: int, width: int) -> Iterator[slice]:
    """Blocks that stay in a cache from one operation to the next."""
    return _slices(n, 4 * width)


def _slices(n: int, width: int) -> Iterator[slice]:
    """Blocks of rows of ``width`` numbers."""
    block = max(1, BLOCK_ELEMENTS // width)
    return (slice(start, start + block) for start in range(0, n, block))


def _places(a: Tensor, b: Tensor) -> Tensor:
    """Where each entry of a's row stands in b's row, -1: nowhere. a, b: [n, k]."""
    places = torch.empty_like(a)
    for rows in _slices(len(a), 4 * a.shape[1]):
        ids, order = b[rows].sort(dim=1)
        spot = torch.searchsorted(ids, a[rows]).clamp_(max=a.shape[1] - 1)
        places[rows] = torch.where(ids.gather(1, spot) == a[rows], order.gather(1, spot), -1)
    return places


def _tensor(array: Any) -> Tensor:
    with warnings.catch_warnings():  # of a read-only array: nothing here writes to its inputs
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.as_tensor(array)


def _graph(operation: str, name: str, graph: Any, candidates: int | None) -> tuple[Tensor, int]:
    """Its indices, and how many items they are of."""
    known = graph.candidates if isinstance(graph, Neighbors) else None
    indices = _tensor(graph.indices if isinstance(graph, Neighbors) else graph)
    if indices.dtype != torch.int64 or indices.ndim != 2:
        raise TypeError(f"{operation}: {name} must be (n, k) int64, got {tuple(indices.shape)} {indices.dtype}")
    if indices.numel() == 0:
        raise ValueError(f"{operation}: {name} must be (n, k) with n, k >= 1, got {tuple(indices.shape)}")
    n = candidates if candidates is not None else known if known is not None else len(indices)
    least, most = int(indices.min()), int(indices.max())
    if least < 0 or most >= n:
        raise ValueError(f"{operation}: {name} must hold indices from 0 to {n - 1}, got {least if least < 0 else most}")
    return indices, n


def _pair(operation: str, a: Any, b: Any, candidates: int | None) -> tuple[Tensor, Tensor, int]:
    (left, n), (right, m) = (_graph(operation, name, graph, candidates) for name, graph in (("a", a), ("b", b)))
    if left.shape != right.shape or n != m:
        raise ValueError(
            f"{operation}: a and b must be lists of as many neighbours of the same items, "
            f"got {tuple(left.shape)} of {n} items and {tuple(right.shape)} of {m}"
        )
    return left, right.to(left.device), n


def _require_distinct(operation: str, name: str, graph: Tensor) -> None:
    for rows in _slices(len(graph), 4 * graph.shape[1]):
        twice = (graph[rows].sort(dim=1).values.diff(dim=1) == 0).any(1)
        if bool(twice.any()):
            row = rows.start + int(twice.nonzero()[0])
            raise ValueError(f"{operation}: each row of {name} must hold distinct indices, got one twice in row {row}")


def _require_kernel(operation: str, metric: str, variant: str) -> None:
    one_of(operation, "variant", variant, VARIANTS)
    one_of(operation, "metric", metric, ("cosine", "dot"))


def _require_same_items(operation: str, x: Any, y: Any) -> None:
    require_same_items(operation, *(tuple(getattr(rows, "shape", ())) for rows in (x, y)))
