"""The number of edges that two graphs share when the items of one are relabelled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modalign.common.tensors import as_indices
from modalign.common.types import Integers
from modalign.metrics.graphs import Graph, checked_pair
from modalign.metrics.inputs import Graphs
from modalign.ops import neighborhoods as operators

__all__ = ["relabelled_mutual_knn", "relabelled_overlap"]


def relabelled_overlap(a: Graph, b: Graph, relabelling: Integers, *, backend: str = "auto") -> Tensor:
    """Return the number of edges that two graphs share when the items of one are relabelled.

        sum_i |{j in A_i: s(j) in B_s(i)}|

    With the identity it is the sum of |A_i & B_i|; over n k it is the mutual k-NN of x with a shuffled y.

    Args:
        a: (n, k) int64 indices or ``modalign.Neighbors``, distinct in each row, which is not checked here.
        b: (n, k), likewise.
        relabelling: The permutation s of 0 .. n - 1, (n,) integers; or p of them, (p, n), for which b is prepared once.
        backend: As in ``neighborhood_scores``.

    Returns:
        int64, () or (p,). Peak memory is 4 n k bytes; time is O(n k log k) for each relabelling.

    Raises:
        TypeError: For indices or relabellings of other types.
        ValueError: For shapes that differ, an index out of range, or a relabelling that is not a permutation.

    Examples:
        >>> import torch
        >>> from modalign.metrics.relabelled_graphs import relabelled_overlap
        >>> a = torch.tensor([[1], [0], [3], [2]])
        >>> relabelled_overlap(a, a, torch.tensor([[0, 1, 2, 3], [0, 2, 1, 3]])).tolist()
        [4, 0]
    """
    left, right, n = checked_pair("relabelled_overlap", a, b)
    s = as_indices("relabelled_overlap: relabelling", relabelling).to(left.device)
    if len(left) != n or s.ndim not in (1, 2) or s.shape[-1] != n or s.numel() == 0:
        raise ValueError(
            f"relabelled_overlap: needs graphs (n, k) of all n items and relabelling (n,) or (p, n), "
            f"got {tuple(left.shape)} of {n} items and {tuple(s.shape)}"
        )
    for permutation in s.reshape(-1, n):
        in_range = int(permutation.min()) >= 0 and int(permutation.max()) < n
        if not in_range or not bool(torch.bincount(permutation, minlength=n).all()):
            raise ValueError(f"relabelled_overlap: each relabelling must be a permutation of 0 .. {n - 1}")
    totals: Tensor = operators.relabelled_overlap(left, right, s, backend)
    return totals


def relabelled_mutual_knn(graphs: Graphs) -> Callable[[Tensor], Tensor]:
    """Return the function from relabellings (n,) or (p, n) of y to the mutual k-NN of each, () or (p,) float64."""

    def scores(relabellings: Tensor) -> Tensor:
        return relabelled_overlap(graphs.a, graphs.b, relabellings).double() / graphs.a.numel()

    return scores
