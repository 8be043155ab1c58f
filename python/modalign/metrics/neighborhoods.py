"""Alignment scores from the k nearest neighbours of every item, by their indices and ranks alone."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modalign.common.checks import one_of
from modalign.common.types import Integers
from modalign.files.rows import RowSource
from modalign.metrics.graphs import Graph, Search, checked_pair, require_distinct
from modalign.metrics.inputs import Graphs
from modalign.metrics.relabelled_graphs import relabelled_overlap
from modalign.metrics.tied_graphs import TiedGraphs, expected_shares
from modalign.metrics.tied_scores import searched_graphs, searched_score
from modalign.neighbors.functional import neighbor_overlap
from modalign.ops import neighborhoods as operators

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

SCORES = tuple(name for name in operators.SCORES if name != "reciprocity")  # reciprocity is of one graph
DIRECTIONS = ("xy", "yx", "both")


def mutual_knn(
    x: RowSource,
    y: RowSource,
    k: int = 10,
    *,
    metric: str = "cosine",
    groups: Integers | None = None,
    backend: str = "auto",
) -> float:
    """Return the mean share of the k nearest neighbours that the rows of x and the rows of y have in common.

        mean_i |N_k(x_i) & N_k(y_i)| / k

    Two unrelated representations of n items share k / (n - 1) of their neighbours in the mean. Neighbours of equal
    float64 similarity are in random order: the score is its expectation over independent orders in x and in y, and does
    not depend on the order of the items. With ties, the score of x with itself is below 1.

    Args:
        x: (n, d_x) rows: a NumPy array (memory-mapped too), a tensor, or a file as ``modalign.knn`` takes it.
        y: (n, d_y), row i is the same item as row i of x.
        k: Neighbours of each item, 1 <= k <= n - 1. They are exact, and the item itself is excluded by its index.
        metric: "cosine", "dot" or "euclidean", as in ``modalign.knn``.
        groups: (n,) integers; items of one group are not neighbours in either representation.
        backend: "auto" or the name of a backend, as in ``modalign.knn``.

    Returns:
        A number from 0 to 1. Peak memory is that of one ``modalign.knn`` and two (n, k) graphs.

    Raises:
        TypeError: As ``modalign.knn``.
        ValueError: As ``modalign.knn``, and if the numbers of rows differ.

    Source:
        Huh et al. 2024 (arXiv:2405.07987), which takes the cosine of unit rows.

    Examples:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> modalign.mutual_knn(x, 3 * x, k=5)
        1.0
    """
    search = Search(k, metric, groups, backend)
    graphs = searched_graphs("mutual_knn", x, y, search)
    if isinstance(graphs, TiedGraphs):
        return float(expected_shares(graphs).mean())
    return float(neighbor_overlap(graphs.a, graphs.b)[:, -1].double().mean()) / search.k


def jaccard_knn(
    x: RowSource,
    y: RowSource,
    k: int = 10,
    *,
    metric: str = "cosine",
    groups: Integers | None = None,
    backend: str = "auto",
) -> float:
    """Return the mean Jaccard index of the sets of k nearest neighbours.

        mean_i |N_k(x_i) & N_k(y_i)| / |N_k(x_i) | N_k(y_i)|

    Args:
        x: (n, d_x) rows, as in ``mutual_knn``.
        y: (n, d_y), row i is the same item as row i of x.
        k: Neighbours of each item, as in ``mutual_knn``.
        metric: The similarity of the rows, as in ``mutual_knn``.
        groups: (n,) integers, as in ``mutual_knn``.
        backend: As in ``mutual_knn``.

    Returns:
        A number from 0 to 1. Memory is that of ``mutual_knn``.

    Raises:
        TypeError, ValueError: As ``mutual_knn``.

    Source:
        Schumacher et al. 2021 and Hryniowski and Wong 2020, as in Klabunde et al. 2023 (arXiv:2305.06329).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import jaccard_knn
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> jaccard_knn(x, 3 * x, k=5)
        1.0
    """
    return _mean_score("jaccard_knn", x, y, Search(k, metric, groups, backend))


def rank_similarity(
    x: RowSource,
    y: RowSource,
    k: int = 10,
    *,
    metric: str = "cosine",
    groups: Integers | None = None,
    backend: str = "auto",
) -> float:
    """Return how similar the ranks of the common neighbours are, where the nearest count most.

        mean_i 1 / H(c_i) sum_j 2 / ((1 + |r_x(j) - r_y(j)|) (r_x(j) + r_y(j)))      H(c) = 1 + 1/2 + .. + 1/c

    The sum is over the c_i common neighbours j of item i, and r are their ranks from 1. An item without any counts 0;
    equal lists give 1. A single common neighbour that is the first in both lists gives 1 as well, so read this score
    beside ``jaccard_knn``.

    Args:
        x: (n, d_x) rows, as in ``mutual_knn``.
        y: (n, d_y), row i is the same item as row i of x.
        k: Neighbours of each item, as in ``mutual_knn``.
        metric: The similarity of the rows, as in ``mutual_knn``.
        groups: (n,) integers, as in ``mutual_knn``.
        backend: As in ``mutual_knn``.

    Returns:
        A number from 0 to 1. Memory is that of ``mutual_knn``.

    Raises:
        TypeError, ValueError: As ``mutual_knn``.

    Source:
        Wang et al. 2020 (IEEE TKDE), as in Klabunde et al. 2023 (arXiv:2305.06329).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import rank_similarity
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> rank_similarity(x, 3 * x, k=5)
        1.0
    """
    return _mean_score("rank_similarity", x, y, Search(k, metric, groups, backend))


def lcs_knn(
    x: RowSource,
    y: RowSource,
    k: int = 10,
    *,
    normalize: bool = True,
    metric: str = "cosine",
    groups: Integers | None = None,
    backend: str = "auto",
) -> float:
    """Return the mean length of the longest common subsequence of the two lists of k nearest neighbours, over k.

    The lists are read from the nearest neighbour on; a subsequence may skip entries and keeps the order.

    Args:
        x: (n, d_x) rows, as in ``mutual_knn``.
        y: (n, d_y), row i is the same item as row i of x.
        k: Neighbours of each item, as in ``mutual_knn``.
        normalize: Whether to divide by k. The code of Huh et al. returns the length itself, from 0 to k.
        metric: The similarity of the rows, as in ``mutual_knn``.
        groups: (n,) integers, as in ``mutual_knn``.
        backend: As in ``mutual_knn``.

    Returns:
        A number from 0 to 1, or to k. Memory is that of ``mutual_knn``.

    Raises:
        TypeError, ValueError: As ``mutual_knn``.

    Source:
        The code of Huh et al. 2024 (arXiv:2405.07987).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import lcs_knn
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> lcs_knn(x, 3 * x, k=5), lcs_knn(x, 3 * x, k=5, normalize=False)
        (1.0, 5.0)
    """
    score = _mean_score("lcs_knn", x, y, Search(k, metric, groups, backend))
    return score if normalize else score * k


def edit_distance_knn(
    x: RowSource,
    y: RowSource,
    k: int = 10,
    *,
    metric: str = "cosine",
    groups: Integers | None = None,
    backend: str = "auto",
) -> float:
    """Return one minus the mean edit distance of the two lists of k nearest neighbours, over k.

        1 - mean_i Levenshtein(N_k(x_i), N_k(y_i)) / k

    An insertion, a deletion and a substitution cost 1 each, so k edits turn any list into any other.

    Args:
        x: (n, d_x) rows, as in ``mutual_knn``.
        y: (n, d_y), row i is the same item as row i of x.
        k: Neighbours of each item, as in ``mutual_knn``.
        metric: The similarity of the rows, as in ``mutual_knn``.
        groups: (n,) integers, as in ``mutual_knn``.
        backend: As in ``mutual_knn``.

    Returns:
        A number from 0 to 1. Memory is that of ``mutual_knn``.

    Raises:
        TypeError, ValueError: As ``mutual_knn``.

    Source:
        The code of Huh et al. 2024 (arXiv:2405.07987).

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import edit_distance_knn
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> edit_distance_knn(x, 3 * x, k=5)
        1.0
    """
    return _mean_score("edit_distance_knn", x, y, Search(k, metric, groups, backend))


def cycle_knn(
    x: RowSource,
    y: RowSource,
    k: int = 10,
    *,
    direction: str = "xy",
    metric: str = "cosine",
    groups: Integers | None = None,
    backend: str = "auto",
) -> float:
    """Return the share of items that are a neighbour in x of one of their neighbours in y.

        mean_i [there is j in N_k(y_i) with i in N_k(x_j)]

    It is not symmetric in x and y, and not 1 for x = y: there it is the share of items with a mutual neighbour.

    Args:
        x: (n, d_x) rows, as in ``mutual_knn``.
        y: (n, d_y), row i is the same item as row i of x.
        k: Neighbours of each item, as in ``mutual_knn``.
        direction: "xy", the published one; "yx", with x and y exchanged; "both", the mean of the two.
        metric: The similarity of the rows, as in ``mutual_knn``.
        groups: (n,) integers, as in ``mutual_knn``.
        backend: As in ``mutual_knn``.

    Returns:
        A number from 0 to 1. Memory is that of ``mutual_knn``; time is O(n k^2) at most, beyond the search.

    Raises:
        TypeError: As ``mutual_knn``.
        ValueError: As ``mutual_knn``, and for another direction.

    Source:
        The code of Huh et al. 2024 (arXiv:2405.07987), the accuracy of ``knn_x[knn_y]``.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics import cycle_knn
        >>> cycle_knn(np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [2.0], [3.0]]), k=1, metric="euclidean")
        0.6666666666666666
    """
    one_of("cycle_knn", "direction", direction, DIRECTIONS)

    def evaluate(graphs: Graphs) -> Tensor:
        a, b = graphs.a, graphs.b
        pairs = {"xy": [(a, b)], "yx": [(b, a)], "both": [(a, b), (b, a)]}[direction]
        scores = [operators.neighborhood_scores(*pair, "cycle_knn", "auto") for pair in pairs]
        return torch.stack(scores).mean(0)

    return searched_score(searched_graphs("cycle_knn", x, y, Search(k, metric, groups, backend)), evaluate)


def neighborhood_scores(
    name: str, a: Graph, b: Graph, *, candidates: int | None = None, backend: str = "auto"
) -> Tensor:
    """Return the score of every item, whose mean is the metric of that name.

    Args:
        name: "mutual_knn", "jaccard_knn", "rank_similarity", "lcs_knn" (over k), "edit_distance_knn" or "cycle_knn".
        a: (m, k) int64 indices or ``modalign.Neighbors``, the graph of x, nearest first and distinct in each row.
        b: (m, k), the graph of y.
        candidates: The number of items that the indices refer to; None for that of ``Neighbors``, or m. Lists of some
            items among more have every score but "cycle_knn", which follows the lists of neighbours.
        backend: "auto", "cpp" (CPU) or "reference" (any device).

    Returns:
        (m,) float64. Peak memory beyond it is O(k) a thread, and a block of rows for the check that they are distinct.

    Raises:
        TypeError: For indices that are not integers.
        ValueError: For another name, shapes that differ, or an index that is out of range or twice in a row.

    Examples:
        >>> import torch
        >>> from modalign.metrics.neighborhoods import neighborhood_scores
        >>> a, b = torch.tensor([[1, 2], [2, 0], [0, 1]]), torch.tensor([[2, 1], [2, 0], [1, 0]])
        >>> neighborhood_scores("lcs_knn", a, b).tolist()
        [0.5, 1.0, 0.5]
    """
    one_of("neighborhood_scores", "name", name, SCORES)
    left, right, n = checked_pair("neighborhood_scores", a, b, candidates)
    if name == "cycle_knn" and len(left) != n:
        raise ValueError(
            f"neighborhood_scores: cycle_knn needs the lists of all items, got {len(left)} lists of {n} items"
        )
    require_distinct("neighborhood_scores", left, right)
    scores: Tensor = operators.neighborhood_scores(left, right, name, backend)
    return scores


def _mean_score(name: str, x: RowSource, y: RowSource, search: Search) -> float:
    graphs = searched_graphs(name, x, y, search)
    return searched_score(graphs, lambda drawn: operators.neighborhood_scores(drawn.a, drawn.b, name, "auto"))


def _item_scores(name: str, graphs: Graphs) -> Tensor:
    return neighborhood_scores(name, graphs.a, graphs.b, candidates=graphs.candidates)


# the evaluators that the registry names: the score of every item
mutual_knn_of_graphs = partial(_item_scores, "mutual_knn")
jaccard_knn_of_graphs = partial(_item_scores, "jaccard_knn")
rank_similarity_of_graphs = partial(_item_scores, "rank_similarity")
lcs_knn_of_graphs = partial(_item_scores, "lcs_knn")
edit_distance_knn_of_graphs = partial(_item_scores, "edit_distance_knn")
cycle_knn_of_graphs = partial(_item_scores, "cycle_knn")
