"""Alignment scores from the k nearest neighbours of every item, by their ids and ranks alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from modalign.common.checks import one_of
from modalign.metrics.graphs import graphs_of, pair_of, require_distinct, tensor_of
from modalign.metrics.inputs import Graphs
from modalign.neighbors.functional import neighbor_overlap
from modalign.ops.neighborhoods import neighborhood_scores as _neighborhood_scores
from modalign.ops.neighborhoods import relabelled_overlap as _relabelled_overlap

__all__ = [
    "cycle_knn",
    "edit_distance_knn",
    "jaccard_knn",
    "lcs_knn",
    "mutual_knn",
    "neighborhood_scores",
    "rank_similarity",
    "relabelled_overlap",
]

SCORES = ("mutual_knn", "jaccard_knn", "rank_similarity", "lcs_knn", "edit_distance_knn", "cycle_knn")  # of operator
DIRECTIONS = ("xy", "yx", "both")


def mutual_knn(
    x: Any, y: Any, k: int = 10, *, metric: str = "cosine", groups: Any = None, backend: str = "auto"
) -> float:
    """The mean share of the k nearest neighbours that the rows of x and the rows of y have in common.

        mean_i |N_k(x_i) & N_k(y_i)| / k

    Two unrelated representations of n items share k / (n - 1) of their neighbours in the mean.

    Args:
        x, y: (n, d_x) and (n, d_y), row i of both is the same item; NumPy (memory-mapped too), torch, or files as
            ``modalign.knn`` takes them.
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
    a, b = graphs_of("mutual_knn", x, y, k, metric, groups, backend)
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
    a, b = graphs_of("cycle_knn", x, y, k, metric, groups, backend)
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
    left, right, n = pair_of("neighborhood_scores", a, b, candidates)
    if name == "cycle_knn" and len(left) != n:
        raise ValueError(
            f"neighborhood_scores: cycle_knn needs the lists of all items, got {len(left)} lists of {n} items"
        )
    for side, graph in (("a", left), ("b", right)):
        require_distinct("neighborhood_scores", side, graph)
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
    left, right, n = pair_of("relabelled_overlap", a, b, None)
    s = tensor_of(relabelling).to(left.device)
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


def _item_scores(name: str, graphs: Graphs) -> Tensor:
    return neighborhood_scores(name, graphs.a, graphs.b, candidates=graphs.candidates)


# the evaluators that the registry names: the score of every item
mutual_knn_of_graphs = partial(_item_scores, "mutual_knn")
jaccard_knn_of_graphs = partial(_item_scores, "jaccard_knn")
rank_similarity_of_graphs = partial(_item_scores, "rank_similarity")
lcs_knn_of_graphs = partial(_item_scores, "lcs_knn")
edit_distance_knn_of_graphs = partial(_item_scores, "edit_distance_knn")
cycle_knn_of_graphs = partial(_item_scores, "cycle_knn")


def relabelled_mutual_knn(graphs: Graphs) -> Callable[[Tensor], Tensor]:
    """Return the function from relabellings (n,) or (p, n) of y to the mutual k-NN of each, () or (p,) float64."""

    def scores(relabellings: Tensor) -> Tensor:
        return relabelled_overlap(graphs.a, graphs.b, relabellings).double() / graphs.a.numel()

    return scores


def _mean_score(name: str, x: Any, y: Any, k: int, metric: str, groups: Any, backend: str) -> float:
    a, b = graphs_of(name, x, y, k, metric, groups, backend)
    return float(_neighborhood_scores(a, b, name, "auto").mean())
