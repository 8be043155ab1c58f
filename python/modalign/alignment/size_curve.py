"""How mutual k-NN depends on the number of items: its expected value in random subsets, from one pair of graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from modalign.alignment.estimates import finite_population_interval
from modalign.neighbors.graph import Neighbors, indices_of

__all__ = ["SizeCurve", "mean_curve", "size_curve"]

LARGEST_ERROR = 1e-3  # of a size that is chosen where none are given


@dataclasses.dataclass(frozen=True)
class SizeCurve:
    """The expected mutual k-NN of random subsets.

    Attributes:
        sizes: list of int. Expected numbers of items in the subsets.
        k: list of int. Number of neighbours at each size.
        values: list of float. The expected score at each size.
        errors: list of float. Bounds on what the end of the lists hides: the score lies in [value, value + error].
        low: list of float. For sampled rows, the lower end of the interval of the value over all rows; otherwise the
            value.
        high: list of float. The upper end.
    """

    sizes: list[int]
    k: list[int]
    values: list[float]
    errors: list[float]
    low: list[float]
    high: list[float]


def size_curve(
    a: Neighbors | Tensor,
    b: Neighbors | Tensor,
    k: int,
    *,
    population: int | None = None,
    sizes: list[int] | None = None,
    fixed_fraction: bool = False,
    confidence: float = 0.95,
) -> SizeCurve:
    """Return the expected mutual k-NN of random subsets, from graphs with lists longer than k.

    Consider a subset that keeps every other item with probability p. An item at rank r_a of one list and r_b of the
    other is among the k nearest of both if fewer than k items before it are kept in either list. With c items before it
    in both lists, u in the first list alone and v in the second alone, this has the probability::

        P = p sum_s<k B(s; c) F(k-1-s; u) F(k-1-s; v)      B, F: binomial probability and distribution with p

    The value is the mean over rows of sum P / k, over the items that the two lists share. No subset is drawn.

    Args:
        a: ``modalign.Neighbors`` or int64 tensor of shape (m, K), K > k. The neighbours, in one representation, of all
            n items or of m sampled ones, among all n.
        b: ``modalign.Neighbors`` or int64 tensor of shape (m, K). The neighbours of the same items in the other.
        k: int. Number of neighbours at n items.
        population: int or None. n; None if the graphs hold the lists of all items.
        sizes: list of int, or None. Expected sizes of the subsets, k < size <= n; None for those that lists of K reach
            with an error below 0.001.
        fixed_fraction: bool. Whether k shrinks with the subset: k(m) = round(k m / n), at least 1.
        confidence: float in (0, 1). Level of the interval over the rows that were not sampled.

    Returns:
        ``SizeCurve``. Time O(m K^2), in blocks.

    Raises:
        ValueError: If a size is out of range, the shapes differ, or the lists are not longer than k.

    Examples:
        >>> import numpy as np, modalign
        >>> from modalign.alignment.sampling import size_curve
        >>> x = np.random.default_rng(0).normal(size=(200, 6))
        >>> graphs = [modalign.knn(rows, 60) for rows in (x, x[:, :4])]
        >>> curve = size_curve(*graphs, k=10, sizes=[50, 200])
        >>> abs(curve.values[1] - modalign.mutual_knn(x, x[:, :4], k=10)) < 1e-12, curve.values[0] > curve.values[1]
        (True, True)
    """
    left, right = (indices_of(f"size_curve: {name}", graph).cpu() for name, graph in (("a", a), ("b", b)))
    m, length = left.shape
    n = m if population is None else population
    if right.shape != left.shape or not 1 <= k < length:
        raise ValueError(
            f"size_curve: the lists must have one shape and be longer than k = {k}, "
            f"got {tuple(left.shape)} and {tuple(right.shape)}"
        )

    def neighbors_at(size: int) -> int:
        return max(1, round(k * size / n)) if fixed_fraction else k

    if sizes is None:
        sizes = [
            size
            for size in _round_sizes(n)
            if size == n or (size > k and _error(n, size, neighbors_at(size), length) < LARGEST_ERROR)
        ]
    for size in sizes:
        if not k < size <= n:
            raise ValueError(f"size_curve: sizes must be above k = {k} and at most {n}, got {size}")
    subsets = [_Subset(n, size, neighbors_at(size), length) for size in sizes]
    curve = SizeCurve(list(sizes), [subset.k for subset in subsets], values=[], errors=[], low=[], high=[])
    for size, subset, shared in zip(sizes, subsets, _expected_overlaps(left, right, subsets), strict=True):
        estimate = finite_population_interval((shared / subset.k).numpy(), n, confidence, shares=True)
        curve.values.append(estimate.value)
        curve.low.append(estimate.low)
        curve.high.append(estimate.high)
        curve.errors.append(0.0 if size == n else _error(n, size, subset.k, length))
    return curve


def mean_curve(curves: Sequence[SizeCurve]) -> SizeCurve:
    """Return the mean of curves of the same sizes, from several orders of tied neighbours."""
    columns = {
        name: np.mean([getattr(curve, name) for curve in curves], axis=0).tolist()
        for name in ("values", "errors", "low", "high")
    }
    return dataclasses.replace(curves[0], **columns)


class _Subset:
    """A random subset of expected size ``size`` of n items, with tables of how many of the first entries it keeps."""

    def __init__(self, n: int, size: int, k: int, length: int) -> None:
        from scipy import stats

        self.k, self.p = k, (size - 1) / (n - 1)
        counts, kept = np.arange(length)[:, None], np.arange(k)
        self.exactly = torch.from_numpy(stats.binom.pmf(kept, counts, self.p))
        self.at_most = torch.from_numpy(stats.binom.cdf(kept, counts, self.p))

    def probability(self, before: Tensor) -> Tensor:
        """Return P of ``size_curve`` for each row (c, u, v) of ``before``."""
        c, u, v = before.unbind(1)
        last = self.at_most.flip(1)  # column s: at most k - 1 - s
        return self.p * (self.exactly[c] * last[u] * last[v]).sum(1)


def _expected_overlaps(left: Tensor, right: Tensor, subsets: list[_Subset]) -> Tensor:
    """Return the expected number of common neighbours of each row in each subset, [subsets, m]."""
    m, length = left.shape
    expected = torch.zeros(len(subsets), m, dtype=torch.float64)
    block = max(1, (1 << 24) // length**2)
    for start in range(0, m, block):
        row, before = _shared_items(left[start : start + block], right[start : start + block])
        distinct, inverse = torch.unique(before, dim=0, return_inverse=True)
        for subset, overlap in zip(subsets, expected, strict=True):
            overlap.index_add_(0, row + start, subset.probability(distinct)[inverse])
    return expected


def _shared_items(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for every item that both lists of a row hold, the row and (c, u, v) of ``size_curve``."""
    order = right.argsort(dim=1)
    ids = right.gather(1, order)
    place = torch.searchsorted(ids, left).clamp_(max=ids.shape[1] - 1)
    shared = ids.gather(1, place) == left
    rank = torch.where(shared, order.gather(1, place), ids.shape[1])  # in the second list
    row, first = shared.nonzero(as_tuple=True)
    second = rank[row, first]
    # items before it in the first list that also come before it in the second
    earlier = torch.arange(left.shape[1]) < first[:, None]
    both = ((rank[row] < second[:, None]) & earlier).sum(1)
    return row, torch.stack([both, first - both, second - both], 1)


def _round_sizes(n: int) -> list[int]:
    """Return n and the numbers 1, 2, 5 x 10^i below it."""
    steps = [digit * 10**power for power in range(1, 12) for digit in (1, 2, 5)]
    return [step for step in steps if step < n] + [n]


def _error(n: int, size: int, k: int, length: int) -> float:
    """Return the probability that a subset keeps fewer than k entries of a list of ``length``."""
    from scipy import stats

    return float(stats.binom.cdf(k - 1, length, (size - 1) / (n - 1)))
