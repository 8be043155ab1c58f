"""Intervals for scores of items that are a sample of a population: how much random parts of the items differ.

A bootstrap draws items twice, and an item's copy becomes its nearest neighbour. Leaving out a few items (the jackknife)
makes no copies, but a score of neighbours is no smooth function of its items and the interval comes out up to twice as
wide as it should be. Two halves are independent samples: their difference tells the variance at n / 2 without bias.
Lists a little longer than k hold the graphs of the parts, so that nothing is searched again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["SPLITS", "balanced_halves", "list_length", "population_interval", "random_parts", "within_part"]

SPLITS = {2: 100, 4: 40}  # how often items are split into so many parts
FREEDOM = (
    60  # degrees of freedom that a variance from so many splits is worth: coverage is simulated by `make validate`
)


def population_interval(
    value: float,
    halves: list[list[float]],
    quarters: list[list[float]] | None,
    confidence: float = 0.95,
    freedom: int = FREEDOM,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """The interval of a score of n items, from its values on both halves and on the four quarters of random splits.

    With V_m the mean variance between parts of m items, V_n is V_(n/2) / 2 where the variance goes with 1 / n, and the
    trend from quarters to halves corrects for what does not (neighbours come nearer as n grows):

        value +- t sqrt(A_2 min(3/2, max(1/2, A_2 / A_4)))      A_p = V_(n/p) / p      t: Student's of ``freedom``

    halves: (splits, 2); quarters: (splits, 4), or None for a smooth score of means, whose variance goes with 1 / n.
    within: what the score cannot leave; the interval ends there.

    Examples:
        >>> from modalign.alignment.intervals import population_interval
        >>> low, high = population_interval(0.5, [[0.4, 0.6]] * 30, [[0.3, 0.5, 0.5, 0.7]] * 30)
        >>> round((high - low) / 2, 4)  # t (0.975; 60) sqrt(0.01 min(3/2, 0.01 / (0.08 / 12)))
        0.245
    """
    from scipy import stats

    if not 0 < confidence < 1:
        raise ValueError(f"population_interval: confidence must be between 0 and 1, got {confidence}")
    a_2 = float(np.var(halves, axis=1, ddof=1).mean()) / 2
    a_4 = a_2 if quarters is None else float(np.var(quarters, axis=1, ddof=1).mean()) / 4
    trend = min(1.5, max(0.5, a_2 / a_4)) if a_4 > 0 else 1.0
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(a_2 * trend)
    return max(within[0], value - half), min(within[1], value + half)


def random_parts(
    n: int, parts: int, seed: int = 0, groups: Tensor | None = None, repeats: int | None = None
) -> Iterator[Tensor]:
    """(n,) the part of each item, ``repeats`` times: parts of one size but for one; items of a group share theirs.

    repeats: None for ``SPLITS[parts]``.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(n) if groups is None else torch.unique(groups, return_inverse=True)[1]
    units = int(ids.max()) + 1
    for _ in range(SPLITS[parts] if repeats is None else repeats):
        yield (torch.randperm(units, generator=generator) % parts)[ids]


def balanced_halves(pieces: int) -> Iterator[Tensor]:
    """(pieces,) bool, which of them are in the first half, ``pieces`` - 1 times, any two together as often as any other
    two: the variance between halves has then all the degrees of freedom that so many pieces have.

    pieces: a power of two. Source: balanced repeated replication, McCarthy 1969, from the rows of a Hadamard matrix.

    Examples:
        >>> from modalign.alignment.intervals import balanced_halves
        >>> [half.int().tolist() for half in balanced_halves(4)]
        [[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]]
    """
    from scipy.linalg import hadamard

    return (torch.from_numpy(row > 0) for row in hadamard(pieces)[1:])


def list_length(n: int, k: int) -> int:
    """How long lists must be so that k of a random quarter are left in nearly all of them."""
    return min(n - 1, 8 * k + 20)


def within_part(indices: Tensor, kept: Tensor, k: int) -> Tensor:
    """The graph [m, k] of the m items that ``kept`` (n,) bool tells, among themselves, numbered from 0.

    A list with fewer than k of them is filled up with items that are not in it, lowest first."""
    items = kept.nonzero()[:, 0]
    number = torch.cumsum(kept, 0) - 1
    lists = indices[items]
    here = kept[lists]
    rank = here.cumsum(1)
    found = rank[:, -1]
    short = (found < k).nonzero()[:, 0]
    graph = torch.empty(len(items), k, dtype=torch.int64)
    whole = found >= k
    graph[whole] = number[lists[whole][(here & (rank <= k))[whole]]].reshape(-1, k)
    for row in short.tolist():
        near = number[lists[row][here[row]]].tolist()
        graph[row] = torch.tensor((near + _others(row, near, k))[:k])
    return graph


def _others(row: int, near: list[int], k: int) -> list[int]:
    taken = {row, *near}
    return [item for item in range(k + len(taken)) if item not in taken]
