"""Arguments of the evaluators that the metric registry names: two graphs, or two tables of rows."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from modalign.common.types import Array

__all__ = ["Graphs", "PairedRows", "group_weights", "mean_over_items"]


@dataclasses.dataclass(frozen=True, eq=False)
class Graphs:
    """Two k-NN graphs of the same items, as metrics with ``needs`` "lists" or "graphs" take them.

    Attributes:
        a: (m, k) int64, the neighbours of each item in x, nearest first, distinct in each row.
        b: (m, k) int64, the same in y.
        metric: The similarity that the graphs were searched by: "cosine", "dot" or "euclidean".
        rows: The two tables (x, y), for metrics whose registry entry has ``reads_rows``; None for the others.
        candidates: The number of items that the indices refer to; None for m, the graphs of all items.
    """

    a: Tensor
    b: Tensor
    metric: str = "cosine"
    rows: tuple[Array, Array] | None = None
    candidates: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class PairedRows:
    """Two representations of the same items, as metrics with ``needs`` "pairs" take them.

    Attributes:
        x: (n, d_x), NumPy array or tensor.
        y: (n, d_y), row i is the same item as row i of x.
        metric: "cosine", "dot" or "euclidean", for metrics that search neighbours.
        groups: (n,) int64, items that belong together; None where every item stands alone.
    """

    x: Array
    y: Array
    metric: str = "cosine"
    groups: Tensor | None = None


def group_weights(groups: Tensor) -> Tensor:
    """Return the (n,) float64 weights that turn a sum over items into the mean over groups of the mean within a group.

    Examples:
        >>> import torch
        >>> from modalign.metrics.inputs import group_weights
        >>> group_weights(torch.tensor([7, 7, 9])).tolist()
        [0.25, 0.25, 0.5]
    """
    _, ids, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    weights: Tensor = 1.0 / (sizes[ids].double() * len(sizes))
    return weights


def mean_over_items(scores: Tensor | float, weights: Tensor | None = None) -> float:
    """Return the score of all items from what an evaluator returned.

    Args:
        scores: (n,) float64, a score for each item, whose mean is taken; or a number, which is returned.
        weights: (n,) float64 that sum to 1, as ``group_weights`` returns them; None for equal weights.

    Examples:
        >>> import torch
        >>> from modalign.metrics.inputs import mean_over_items
        >>> mean_over_items(torch.tensor([0.0, 1.0])), mean_over_items(0.25)
        (0.5, 0.25)
    """
    if not isinstance(scores, Tensor):
        return scores
    return float(scores.mean() if weights is None else weights @ scores)
