"""Null distributions: the score that two unrelated representations would have, p-values, and calibrated scores.

Under the null the items of y are relabelled at random: item i of x is paired with item s(i) of y, where s is a
permutation drawn uniformly, or uniformly within classes. Relabelling within classes keeps what they explain and
destroys the rest. The moments of some scores over all relabellings are known in closed form; other scores are computed
under a few hundred random relabellings.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from modalign.alignment.relabelling import FEWEST, kmeans_cells, random_relabellings, require_relabellings
from modalign.metrics.diagnostics import reciprocity
from modalign.metrics.tied_graphs import TiedGraphs
from modalign.neighbors.graph import Neighbors, indices_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from scipy.stats.distributions import rv_frozen

__all__ = [
    "Null",
    "cka_null",
    "cka_tail_holds",
    "kmeans_cells",
    "mutual_knn_null",
    "random_relabellings",
    "require_relabellings",
    "sampled_null",
    "tied_knn_null",
    "unbiased_cka_null",
]

# the range in which the tails of the closed forms of CKA were simulated
FEWEST_ITEMS, MOST_EXCESS = 30, 0.1

Traces = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Null:
    """The distribution of a score under the null, and the place of the score in it.

    Attributes:
        kind: str. "closed form", "relabelled" or "relabelled within classes".
        mean: float. Mean of the score under the null.
        sd: float. Standard deviation of the score under the null.
        p: float. Probability of a score at least as high under the null. From R relabellings it is
            (1 + number of relabellings that reach the score) / (R + 1) (Phipson and Smyth 2010).
        threshold: float. The score that the null exceeds with probability 1 - confidence.
        calibrated: float. max(0, (score - threshold) / (best - threshold)): 0 where chance could have given the score,
            1 for the best score there is (Groeger et al. 2026, arXiv:2602.14486).
        relabellings: int. R; 0 for a closed form.
    """

    kind: str
    mean: float
    sd: float
    p: float
    threshold: float
    calibrated: float
    relabellings: int = 0


def mutual_knn_null(a: Neighbors | Tensor, b: Neighbors | Tensor, score: float, confidence: float = 0.95) -> Null:
    """Return the null of the mutual k-NN of two graphs in closed form, without a relabelling.

    The number of shared edges T = sum_ij A_ij B_s(i)s(j) has mean n k k / (n - 1) and the variance of the quadratic
    assignment statistic of two directed graphs (Mantel 1967; Hubert 1987). For a graph with S = sum_ij A_ij,
    R = sum_ij A_ij A_ji, row sums r and column sums c::

        t1 = S   t2 = R   t3 = sum r^2 - S   t4 = sum c^2 - S   t5 = sum r c - R   t7 = S^2 - t1 - t2 - t3 - t4 - 2 t5
        E T^2 = (t1 t1' + t2 t2') / (n)_2 + (t3 t3' + t4 t4' + 2 t5 t5') / (n)_3 + t7 t7' / (n)_4

    where (n)_m = n (n-1) .. (n-m+1). Rows are dependent: a variance that takes them as independent is too small. The
    tail is that of the negative binomial distribution with this mean and variance, or of the normal distribution where
    the variance is below the mean. It is within a third of the true tail at p = 0.01 for k up to n / 10; the null of a
    denser graph is more skewed and should be drawn by relabelling.

    Args:
        a: ``modalign.Neighbors`` or int64 tensor of shape (n, k). The graph of one representation.
        b: ``modalign.Neighbors`` or int64 tensor of shape (n, k). The graph of the other.
        score: float. Mutual k-NN of the two graphs.
        confidence: float in (0, 1). Level of the threshold.

    Returns:
        ``Null``. Time O(n k log k).

    Raises:
        ValueError: If there are fewer than 4 items.
    """
    left, right = (indices_of(f"mutual_knn_null: {name}", graph).cpu() for name, graph in (("a", a), ("b", b)))
    n, k = left.shape
    if n < 4:
        raise ValueError(f"mutual_knn_null: needs at least 4 items, got {n}")
    moments = _moments_of_shared_edges(_assignment_terms(left), _assignment_terms(right), n)
    return _null_of_counts(score, moments, n * k, confidence=confidence)


def tied_knn_null(graphs: TiedGraphs, score: float, confidence: float = 0.95, *, best: float = 1.0) -> Null:
    """Return the null of the expected mutual k-NN of two graphs with ties in closed form, as ``mutual_knn_null`` does.

    The moments are those of ``mutual_knn_null`` with the probabilities w_ij of the edges in the place of A_ij, so that
    t1 = sum w_ij^2 and t2 = sum w_ij w_ji. The tail is that of a count, which holds where few edges are open.
    ``best`` is the highest expected score that the ties allow.
    """
    n, k = len(graphs.x.rows), graphs.k
    left, right = (_terms(*sums, n=n, k=k) for sums in graphs.assignment_terms())
    return _null_of_counts(score, _moments_of_shared_edges(left, right, n), n * k, confidence=confidence, best=best)


def _null_of_counts(
    score: float, moments: tuple[float, float], edges: int, *, confidence: float, best: float = 1.0
) -> Null:
    mean, variance = moments
    counts = _Counts(mean, variance)
    return _calibrate(
        score,
        kind="closed form",
        mean=mean / edges,
        sd=math.sqrt(variance) / edges,
        p=counts.probability_of_at_least(score * edges),
        threshold=counts.exceeded_with(1 - confidence) / edges,
        best=best,
    )


def cka_null(
    n: int, x: Traces, y: Traces, skewness: tuple[float, float], score: float, confidence: float = 0.95
) -> Null:
    """Return the null of linear CKA (the RV coefficient) in closed form.

    Mean and variance are those over all relabellings. With K = X X' of centred rows and b = (tr K)^2 / tr K^2::

        t = (n - 1) / ((n - 3) (n - 1 - b)) (n (n + 1) sum_i K_ii^2 / tr K^2 - (n - 1) (b + 2))
        mean = sqrt(b b') / (n - 1)
        variance = 2 (n-1-b) (n-1-b') / ((n+1) (n-1)^2 (n-2)) (1 + (n-3) t t' / (2 n (n-1)))

    (Kazi-Aoual et al. 1995; Josse et al. 2008). The tail is that of the Pearson type III distribution with this mean,
    this variance and the skewness that random rotations of many items have::

        sqrt(8) s s'      s = sum c^3 / (sum c^2)^(3/2), where c are the n - 1 eigenvalues of K less their mean

    This is the skewness of chi-square with one degree of freedom for representations of one direction, and near 0 for
    wide ones. Where ``cka_tail_holds``, the tail is within half of the true tail at p = 0.01.

    Args:
        n: int. Number of items.
        x: triple of floats. (tr K, tr K^2, sum_i K_ii^2) of one representation, as ``Moments.traces`` returns it.
        y: triple of floats. The same of the other representation.
        skewness: pair of floats. s of each representation, as ``Moments.skewness`` returns them.
        score: float. Linear CKA of the two representations.
        confidence: float in (0, 1). Level of the threshold.

    Returns:
        ``Null``.

    Raises:
        ValueError: If there are fewer than 4 items.
    """
    if n < 4:
        raise ValueError(f"cka_null: needs at least 4 items, got {n}")
    b, c = (trace * trace / square for trace, square, _ in (x, y))
    mean = math.sqrt(b * c) / (n - 1)
    free = (n - 1 - b) * (n - 1 - c)
    variance = 2 * free / ((n + 1) * (n - 1) ** 2 * (n - 2)) * (1 + _excess_variance(n, x, y))
    if not variance > 1e-30:  # one representation is the same under every relabelling
        return _calibrate(score, kind="closed form", mean=mean, sd=0.0, p=1.0, threshold=mean)
    return _pearson_null(score, mean, math.sqrt(variance), skewness=skewness, confidence=confidence)


def unbiased_cka_null(n: int, skewness: tuple[float, float], score: float, confidence: float = 0.95) -> Null:
    """Return the null of unbiased linear CKA in closed form.

    Over all relabellings its mean is 0 and its variance 2 / (n (n - 3)), whatever the representations are: the kernels
    without their diagonals are centred so that each row sums to 0, and Mantel's variance (``mutual_knn_null``) is then
    the same for all. The tail is that of ``cka_null``.

    Args:
        n: int. Number of items.
        skewness: pair of floats. As in ``cka_null``.
        score: float. Unbiased CKA of the two representations.
        confidence: float in (0, 1). Level of the threshold.

    Returns:
        ``Null``.

    Raises:
        ValueError: If there are fewer than 4 items.

    Source:
        The variance is that of Szekely and Rizzo 2013, doi:10.1016/j.jmva.2013.02.012.

    Examples:
        >>> from modalign.alignment.nulls import unbiased_cka_null
        >>> null = unbiased_cka_null(100, (0.0, 0.0), 0.03)
        >>> round(null.sd, 4), round(null.p, 3)  # a normal tail
        (0.0144, 0.018)
    """
    if n < 4:
        raise ValueError(f"unbiased_cka_null: needs at least 4 items, got {n}")
    return _pearson_null(score, 0.0, math.sqrt(2 / (n * (n - 3))), skewness=skewness, confidence=confidence)


def cka_tail_holds(n: int, x: Traces, y: Traces) -> bool:
    """Return whether the tails of ``cka_null`` and ``unbiased_cka_null`` are near the true ones.

    The tails are those of representations that are rotated at random rather than relabelled. This is as good unless
    few rows are much longer than the others in both representations (sparse or heavy-tailed features): whether those
    few meet is then most of the variance. The last term of the variance of ``cka_null`` is their contribution; it must
    be at most 0.1, and there must be at least 30 items.

    Args:
        n: int. Number of items.
        x: triple of floats. As in ``cka_null``.
        y: triple of floats. As in ``cka_null``.

    Examples:
        >>> from modalign.alignment.nulls import cka_tail_holds
        >>> cka_tail_holds(100, (100.0, 5000.0, 200.0), (100.0, 5000.0, 200.0))
        True
    """
    return n >= FEWEST_ITEMS and abs(_excess_variance(n, x, y)) <= MOST_EXCESS


def sampled_null(
    score: float,
    drawn: ArrayLike,
    confidence: float = 0.95,
    *,
    within_groups: bool = False,
    best: float = 1.0,
    lower_is_closer: bool | None = None,
    compared: float | None = None,
) -> Null:
    """Return the null from scores under R random relabellings.

    The threshold is the ceil(confidence (R + 1))-th smallest of the drawn scores and the score itself.

    Args:
        score: float. The score of the pairs as they are.
        drawn: array of shape (R,). Scores under R relabellings, R >= 19.
        confidence: float in (0, 1). Level of the threshold.
        within_groups: bool. Whether the relabellings are within classes.
        best: float. The best score there is.
        lower_is_closer: bool or None. Whether the score is a distance; None: if ``best`` is 0.
        compared: float. What the drawn scores are compared with where that is not the score, but the score of the same
            drawn orders of ties as theirs; None for the score.

    Returns:
        ``Null``.

    Raises:
        ValueError: If there are fewer than 19 relabellings, from which no p-value reaches 0.05.

    Examples:
        >>> from modalign.alignment.nulls import sampled_null
        >>> null = sampled_null(0.5, [0.01 * i for i in range(99)])
        >>> null.p, null.calibrated
        (0.5, 0.0)
    """
    scores = np.asarray(drawn, dtype=np.float64)
    r = scores.size
    if scores.ndim != 1 or r < FEWEST:
        raise ValueError(f"sampled_null: needs at least {FEWEST} relabellings, got {r}")
    sign = -1.0 if (best == 0 if lower_is_closer is None else lower_is_closer) else 1.0
    observed = score if compared is None else compared
    ordered = np.sort(sign * np.append(scores, observed))
    # equal but for rounding counts as reached
    reached = int((sign * scores >= sign * observed - 1e-12 * max(1.0, abs(observed))).sum())
    return _calibrate(
        score,
        kind="relabelled within classes" if within_groups else "relabelled",
        mean=float(scores.mean()),
        sd=float(scores.std(ddof=1)),
        p=(1 + reached) / (r + 1),
        threshold=sign * float(ordered[min(r, math.ceil(confidence * (r + 1)) - 1)]),
        relabellings=r,
        best=best,
        sign=sign,
    )


def _calibrate(
    score: float,
    *,
    kind: str,
    mean: float,
    sd: float,
    p: float,
    threshold: float,
    relabellings: int = 0,
    best: float = 1.0,
    sign: float = 1.0,
) -> Null:
    """Return the null with the score calibrated by it; the sign is -1 for a distance."""
    possible, reached = sign * (best - threshold), sign * (score - threshold)
    return Null(
        kind=kind,
        mean=mean,
        sd=sd,
        p=p,
        threshold=threshold,
        # a score from drawn orders of ties may pass the best one, which is drawn too
        calibrated=min(1.0, reached / possible) if possible > 1e-12 and reached > 0 else 0.0,
        relabellings=relabellings,
    )


def _pearson_null(score: float, mean: float, sd: float, *, skewness: tuple[float, float], confidence: float) -> Null:
    """Return a null with the tail of the Pearson type III distribution of ``cka_null``."""
    from scipy import stats

    law = stats.pearson3(math.sqrt(8) * skewness[0] * skewness[1], mean, sd)
    threshold = float(law.isf(1 - confidence))
    return _calibrate(score, kind="closed form", mean=mean, sd=sd, p=float(law.sf(score)), threshold=threshold)


def _excess_variance(n: int, x: Traces, y: Traces) -> float:
    """Return (n-3) t t' / (2 n (n-1)) of ``cka_null``."""
    excess = (n - 3) / (2 * n * (n - 1))
    for trace, square, squares in (x, y):
        b = trace * trace / square
        if n - 1 - b < 1e-9 * n:  # every direction alike: t appears only times (n - 1 - b), which is 0
            return 0.0
        excess *= (n - 1) / ((n - 3) * (n - 1 - b)) * (n * (n + 1) * squares / square - (n - 1) * (b + 2))
    return excess


_Terms = tuple[float, float, float, float, float, float]


def _assignment_terms(graph: Tensor) -> _Terms:
    """Return t1, t2, t3, t4, t5, t7 of ``mutual_knn_null`` for a graph with k edges out of every item, exactly."""
    n, k = graph.shape
    edges = n * k
    indegree = graph.reshape(-1).bincount(minlength=n)
    return _terms(edges, round(reciprocity(graph) * edges), int(indegree.square().sum()), n=n, k=k)


def _terms(squares: float, mutual: float, columns: float, *, n: int, k: int) -> _Terms:
    """Return the terms from sum A_ij^2, sum A_ij A_ji and sum c^2 of a graph whose rows all sum to k."""
    edges = n * k
    t3, t4, t5 = n * k * k - squares, columns - squares, k * edges - mutual
    return squares, mutual, t3, t4, t5, edges * edges - squares - mutual - t3 - t4 - 2 * t5


def _moments_of_shared_edges(a: _Terms, b: _Terms, n: int) -> tuple[float, float]:
    """Return mean and variance of the number of shared edges over all relabellings."""
    two, four = n * (n - 1), n * (n - 1) * (n - 2) * (n - 3)
    # one fraction of integers: the square of the mean would cancel the digits of a difference of floats
    numerator = (
        (a[0] * b[0] + a[1] * b[1]) * (n - 2) * (n - 3)
        + (a[2] * b[2] + a[3] * b[3] + 2 * a[4] * b[4]) * (n - 3)
        + a[5] * b[5]
    )
    # the terms sum to the square of the sum of all entries
    total = round(math.sqrt(sum(a) + a[4])) * round(math.sqrt(sum(b) + b[4]))
    mean = total / two
    return mean, max(0.0, (numerator * two * two - total**2 * four) / (four * two * two))


@dataclasses.dataclass(frozen=True)
class _Counts:
    """A distribution of counts with a given mean and variance."""

    mean: float
    variance: float

    def _law(self) -> rv_frozen | None:
        """Return the negative binomial distribution, the normal one where it is narrower, None for a constant."""
        from scipy import stats

        if self.variance > self.mean * (1 + 1e-9):
            r = self.mean * self.mean / (self.variance - self.mean)
            return stats.nbinom(r, self.mean / self.variance)
        return stats.norm(self.mean - 0.5, math.sqrt(self.variance)) if self.variance > 0 else None

    def probability_of_at_least(self, count: float) -> float:
        """Return the probability of a count; between counts, that of the continuous function through them."""
        from scipy.special import betainc

        law = self._law()
        if law is None:
            return 1.0 if count <= self.mean * (1 + 1e-12) else 0.0
        if abs(count - round(count)) < 1e-6 or self.variance <= self.mean * (1 + 1e-9):
            return float(law.sf(round(count, 6) - 1))
        r, p = law.args
        return float(betainc(count, r, 1 - p))

    def exceeded_with(self, probability: float) -> float:
        """Return the value that a count exceeds with this probability."""
        law = self._law()
        return self.mean if law is None else float(law.isf(probability))
