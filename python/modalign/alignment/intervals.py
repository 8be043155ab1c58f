"""Confidence intervals for scores of items that are a sample of a population.

The interval of a score comes from how much the score differs between random parts of the items:

- A bootstrap would draw items twice, and the copy of an item becomes its nearest neighbour.
- The jackknife (leaving out a few items) makes no copies, but a score of neighbours is not a smooth function of its
  items, and the interval comes out up to twice as wide as it should be.
- Two halves are independent samples: the difference between their scores estimates the variance at n / 2 items
  without bias.

Lists of neighbours that are a little longer than k contain the k nearest neighbours within each part, so the graphs of
the parts need no new search.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import torch_seed

__all__ = [
    "SPLITS",
    "PartScore",
    "balanced_halves",
    "list_length",
    "population_interval",
    "random_parts",
    "within_part",
]

# a score of a part of the items; two, of two drawn orders of ties, where neighbours tie
PartScore: TypeAlias = float | tuple[float, float]

# number of parts -> number of random splits into so many parts
SPLITS = {2: 100, 4: 40}
# degrees of freedom of a variance from these splits; `make validate` simulates the coverage
FREEDOM = 60


def population_interval(
    value: float,
    halves: Sequence[Sequence[PartScore]],
    quarters: Sequence[Sequence[PartScore]] | None,
    confidence: float = 0.95,
    freedom: int = FREEDOM,
    within: tuple[float, float] = (-math.inf, math.inf),
    error: float = 0.0,
) -> tuple[float, float]:
    """Return the confidence interval of a score of n items, from its values on halves and quarters of the items.

    Let V_m be the mean variance of the score between parts of m items. Where the variance falls as 1 / n, the variance
    at n items is V_(n/2) / 2. Neighbours come closer as n grows, so the variance of a score of neighbours deviates from
    1 / n; the change from quarters to halves corrects for that::

        value +- t sqrt(A_2 min(3/2, max(1/2, A_2 / A_4)))      A_p = V_(n/p) / p

    where t is the quantile of Student's t with ``freedom`` degrees of freedom.

    Args:
        value: float. The score of all n items.
        halves: list of shape (splits, 2). Scores of the two halves of each random split; or (splits, 2, 2), scores of
            two drawn orders of ties for each half. What the orders add to the variance is then left out: it is not in
            the covariance of two draws.
        quarters: list of shape (splits, 4), or None. Scores of the four quarters of each random split; None for a
            smooth function of means, whose variance falls as 1 / n.
        confidence: float in (0, 1). Level of the interval.
        freedom: int. Degrees of freedom of the estimated variance.
        within: pair of floats. The range of the score; the interval is cut off there.
        error: float. A standard error of the value that comes in addition, of the drawn orders of ties.

    Returns:
        The two ends of the interval.

    Raises:
        ValueError: If ``confidence`` is not between 0 and 1.

    Examples:
        >>> from modalign.alignment.intervals import population_interval
        >>> low, high = population_interval(0.5, [[0.4, 0.6]] * 30, [[0.3, 0.5, 0.5, 0.7]] * 30)
        >>> round((high - low) / 2, 4)  # t (0.975; 60) sqrt(0.01 min(3/2, 0.01 / (0.08 / 12)))
        0.245
    """
    from scipy import stats

    if not 0 < confidence < 1:
        raise ValueError(f"population_interval: confidence must be between 0 and 1, got {confidence}")
    a_2 = _variance_between(halves) / 2
    a_4 = a_2 if quarters is None else _variance_between(quarters) / 4
    trend = min(1.5, max(0.5, a_2 / a_4)) if a_4 > 0 else 1.0
    half_width = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(a_2 * trend + error**2)
    return max(within[0], value - half_width), min(within[1], value + half_width)


def _variance_between(parts: Sequence[Sequence[PartScore]]) -> float:
    """Return the mean variance between parts, or covariance of two draws, but at least a hundredth of the variance."""
    scores = np.asarray(parts, dtype=np.float64)
    if scores.ndim == 2:
        return float(np.mean(np.var(scores, axis=1, ddof=1)))
    deviations = scores - scores.mean(1, keepdims=True)
    covariance, variance = deviations.prod(2).sum(1).mean(), (deviations**2).mean(2).sum(1).mean()
    between: float = max(float(covariance), 0.01 * float(variance)) / (scores.shape[1] - 1)
    return between


def random_parts(
    n: int, parts: int, seed: int = 0, groups: Tensor | None = None, repeats: int | None = None
) -> Iterator[Tensor]:
    """Yield random splits of n items into parts of equal size (up to one item).

    Args:
        n: int. Number of items.
        parts: int. Number of parts.
        seed: int. Seed of the splits.
        groups: integer tensor of shape (n,), or None. Items of one group stay in one part; parts then hold equally many
            groups.
        repeats: int or None. Number of splits; None for ``SPLITS[parts]``.

    Yields:
        int64 tensor of shape (n,), the part of each item, from 0.
    """
    generator = torch.Generator().manual_seed(torch_seed("random_parts", seed))
    ids = torch.arange(n) if groups is None else torch.unique(groups, return_inverse=True)[1]
    units = int(ids.max()) + 1
    for _ in range(SPLITS[parts] if repeats is None else repeats):
        yield (torch.randperm(units, generator=generator) % parts)[ids]


def balanced_halves(pieces: int) -> Iterator[Tensor]:
    """Return ``pieces`` - 1 ways to halve the pieces, in which every two pieces are together equally often.

    The variance between such halves has all the degrees of freedom that so many pieces have.

    Args:
        pieces: int, a power of two. Number of pieces.

    Returns:
        Iterator of bool tensors of shape (pieces,), true for the pieces of the first half.

    Source:
        Balanced repeated replication, McCarthy 1969, from the rows of a Hadamard matrix.

    Examples:
        >>> from modalign.alignment.intervals import balanced_halves
        >>> [half.int().tolist() for half in balanced_halves(4)]
        [[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]]
    """
    from scipy.linalg import hadamard

    return (torch.from_numpy(row > 0) for row in hadamard(pieces)[1:])


def list_length(n: int, k: int) -> int:
    """Return the length of neighbour lists in which nearly every item keeps k neighbours within a random quarter."""
    return min(n - 1, 8 * k + 20)


def within_part(indices: Tensor, kept: Tensor, k: int) -> Tensor:
    """Return the k-nearest-neighbour graph of some of the items among themselves, from longer lists of all items.

    A list that holds fewer than k of the kept items is filled up with other kept items, lowest index first.

    Args:
        indices: int64 tensor of shape (n, K), K > k. Neighbours of all items, nearest first.
        kept: bool tensor of shape (n,). True for the m items of the part.
        k: int. Number of neighbours.

    Returns:
        int64 tensor of shape (m, k); the items of the part are numbered from 0 in their order.
    """
    items = kept.nonzero()[:, 0]
    number = torch.cumsum(kept, 0) - 1
    lists = indices[items]
    is_kept = kept[lists]
    rank = is_kept.cumsum(1)
    count = rank[:, -1]
    long_enough = count >= k
    graph = torch.empty(len(items), k, dtype=torch.int64)
    graph[long_enough] = number[lists[long_enough][(is_kept & (rank <= k))[long_enough]]].reshape(-1, k)
    for row in (~long_enough).nonzero()[:, 0].tolist():
        neighbors = number[lists[row][is_kept[row]]].tolist()
        graph[row] = torch.tensor((neighbors + _lowest_others(row, neighbors, k))[:k])
    return graph


def _lowest_others(row: int, neighbors: list[int], k: int) -> list[int]:
    """Return the lowest items other than ``row`` and its ``neighbors``, at least k of them."""
    taken = {row, *neighbors}
    return [item for item in range(k + len(taken)) if item not in taken]
