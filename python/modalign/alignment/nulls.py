"""What a score would be if the two representations had nothing to do with each other: nulls, p-values, calibration.

Under the null the items of y are relabelled at random: item i of x is paired with item s(i) of y, for a permutation s
drawn uniformly, or uniformly within groups, which leaves what the groups explain and takes the rest.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.files.rows import open_rows
from modalign.metrics.diagnostics import reciprocity
from modalign.neighbors.graph import indices_of

__all__ = [
    "Null",
    "cka_null",
    "cka_tail_holds",
    "kmeans_cells",
    "mutual_knn_null",
    "random_relabellings",
    "require_relabellings",
    "sampled_null",
    "unbiased_cka_null",
    "within_groups_mean",
]

FITTED = 100_000  # rows that k-means learns its centres from
FEWEST = 19  # relabellings: below it no p-value reaches 0.05
FEWEST_ITEMS, MOST_EXCESS = 30, 0.1  # what the tails of CKA's closed forms were simulated for


@dataclasses.dataclass(frozen=True)
class Null:
    """A score beside what chance gives.

    kind: "closed form", "relabelled" or "relabelled within groups". mean, sd: of the score under the null.
    p: the probability of a score at least as high under the null; from R relabellings (1 + how many reach it) / (R + 1)
    (Phipson and Smyth 2010). threshold: the score that chance exceeds with probability 1 - confidence.
    calibrated: max(0, (score - threshold) / (best - threshold)): 0 where chance could have given the score, 1 for the
    best score there is (Groeger et al. 2026, arXiv:2602.14486). relabellings: R, 0 for a closed form.
    """

    kind: str
    mean: float
    sd: float
    p: float
    threshold: float
    calibrated: float
    relabellings: int = 0


def mutual_knn_null(a: Any, b: Any, score: float, confidence: float = 0.95) -> Null:
    """The null of mutual k-NN of two graphs, without relabelling once.

    T = sum_ij A_ij B_s(i)s(j), the shared edges, has mean n k k / (n - 1) and the variance of the quadratic assignment
    statistic of two digraphs (Mantel 1967; Hubert 1987): with a graph's S = sum_ij A_ij, R = sum_ij A_ij A_ji, row sums
    r and column sums c,

        t1 = S   t2 = R   t3 = sum r^2 - S   t4 = sum c^2 - S   t5 = sum r c - R   t7 = S^2 - t1 - t2 - t3 - t4 - 2 t5
        E T^2 = (t1 t1' + t2 t2') / (n)_2 + (t3 t3' + t4 t4' + 2 t5 t5') / (n)_3 + t7 t7' / (n)_4

    and (n)_m = n (n-1) .. (n-m+1). Rows are dependent: taking them as independent makes the variance too small. The
    tail is that of the negative binomial with this mean and variance, or the normal where the variance is the smaller;
    it is within a third of the true one at p = 0.01 for k up to n / 10. Denser graphs are more skewed: relabel them.

    a, b: ``modalign.Neighbors`` or (n, k) int64 indices. score: their mutual k-NN. O(n k log k).
    Raises ValueError for fewer than 4 items.
    """
    left, right = (indices_of(graph) for graph in (a, b))
    n, k = left.shape
    if n < 4:
        raise ValueError(f"mutual_knn_null: needs at least 4 items, got {n}")
    mean, variance = _moments_of_shared(_terms(left), _terms(right), n)
    tail = _Tail(mean, variance)
    edges = n * k
    return _null("closed form", score, mean / edges, math.sqrt(variance) / edges, tail.above(round(score * edges)),
                 tail.exceeded_with(1 - confidence) / edges)  # fmt: skip


def cka_null(
    n: int, x: tuple[float, float, float], y: tuple[float, float, float], skewness: tuple[float, float], score: float,
    confidence: float = 0.95,
) -> Null:  # fmt: skip
    """The null of linear CKA (the RV coefficient) in closed form: its mean and variance over all relabellings.

    With K = X X' of centred rows, b = (tr K)^2 / tr K^2 and

        t = (n - 1) / ((n - 3) (n - 1 - b)) (n (n + 1) sum_i K_ii^2 / tr K^2 - (n - 1) (b + 2))
        mean = sqrt(b b') / (n - 1)
        variance = 2 (n-1-b) (n-1-b') / ((n+1) (n-1)^2 (n-2)) (1 + (n-3) t t' / (2 n (n-1)))

    (Kazi-Aoual et al. 1995; Josse et al. 2008). The tail is that of the Pearson type III distribution with this mean,
    this variance and the skewness that random rotations of many items have,

        sqrt(8) s s'      s = sum c^3 / (sum c^2)^(3/2), c: the n - 1 eigenvalues of K less their mean

    which is that of chi-square with one degree of freedom for representations of one direction, and near 0 for wide
    ones. Where ``cka_tail_holds`` it is within half of the true tail at p = 0.01.

    x, y: (tr K, tr K^2, sum_i K_ii^2) of each representation. skewness: s and s', as ``Moments.skewness`` has them.
    Raises ValueError for fewer than 4 items.
    """
    if n < 4:
        raise ValueError(f"cka_null: needs at least 4 items, got {n}")
    b, c = (trace * trace / square for trace, square, _ in (x, y))
    mean = math.sqrt(b * c) / (n - 1)
    free = (n - 1 - b) * (n - 1 - c)
    variance = 2 * free / ((n + 1) * (n - 1) ** 2 * (n - 2)) * (1 + _excess(n, x, y))
    if not variance > 1e-30:  # one representation is the same under every relabelling
        return _null("closed form", score, mean, 0.0, 1.0, mean)
    return _skewed_null(score, mean, math.sqrt(variance), skewness, confidence)


def _skewed_null(score: float, mean: float, sd: float, skewness: tuple[float, float], confidence: float) -> Null:
    from scipy import stats

    tail = stats.pearson3(math.sqrt(8) * skewness[0] * skewness[1], mean, sd)
    return _null("closed form", score, mean, sd, float(tail.sf(score)), float(tail.isf(1 - confidence)))


def cka_tail_holds(n: int, x: tuple[float, float, float], y: tuple[float, float, float]) -> bool:
    """Whether the tails of ``cka_null`` and ``unbiased_cka_null`` are near the true ones.

    They are those of representations that are rotated at random rather than relabelled, which is as good unless few
    rows are much longer than the others in both (sparse or heavy-tailed features): that these meet by chance is then
    most of the variance. The last term of ``cka_null``'s variance is what they add, and must be at most 0.1; and there
    must be 30 items.

    x, y: as in ``cka_null``.

    Examples:
        >>> from modalign.alignment.nulls import cka_tail_holds
        >>> cka_tail_holds(100, (100.0, 5000.0, 200.0), (100.0, 5000.0, 200.0))
        True
    """
    return n >= FEWEST_ITEMS and abs(_excess(n, x, y)) <= MOST_EXCESS


def unbiased_cka_null(n: int, skewness: tuple[float, float], score: float, confidence: float = 0.95) -> Null:
    """The null of unbiased linear CKA in closed form.

    Over all relabellings its mean is 0 and its variance 2 / (n (n - 3)), for any two representations: the kernels
    without their diagonals are centred so that each row sums to 0, and Mantel's variance (``mutual_knn_null``) is then
    the same for all. The tail, and skewness: as in ``cka_null``. Raises ValueError for fewer than 4 items.
    Source: the variance as in Szekely and Rizzo 2013, doi:10.1016/j.jmva.2013.02.012.

    Examples:
        >>> from modalign.alignment.nulls import unbiased_cka_null
        >>> null = unbiased_cka_null(100, (0.0, 0.0), 0.03)
        >>> round(null.sd, 4), round(null.p, 3)  # a normal tail
        (0.0144, 0.018)
    """
    if n < 4:
        raise ValueError(f"unbiased_cka_null: needs at least 4 items, got {n}")
    return _skewed_null(score, 0.0, math.sqrt(2 / (n * (n - 3))), skewness, confidence)


def sampled_null(
    score: float, drawn: Any, confidence: float = 0.95, within_groups: bool = False, best: float = 1.0
) -> Null:
    """The null from scores under R relabellings.

    threshold is the ceil(confidence (R + 1))-th smallest of the drawn scores and the score itself.
    best: the score of two equal representations; 0 for a distance, of which a lower one is higher alignment.
    Raises ValueError for fewer than 19 relabellings, from which no p-value reaches 0.05.

    Examples:
        >>> from modalign.alignment.nulls import sampled_null
        >>> null = sampled_null(0.5, [0.01 * i for i in range(99)])
        >>> null.p, null.calibrated
        (0.5, 0.0)
    """
    scores = np.asarray(drawn, dtype=np.float64)
    if scores.ndim != 1 or len(scores) < FEWEST:
        raise ValueError(f"sampled_null: needs at least {FEWEST} relabellings, got {scores.size}")
    r = len(scores)
    sign = -1.0 if best == 0 else 1.0
    ordered = np.sort(sign * np.append(scores, score))
    threshold = sign * float(ordered[min(r, math.ceil(confidence * (r + 1)) - 1)])
    # equal but for rounding counts as reached
    p = (1 + int((sign * scores >= sign * score - 1e-12 * max(1.0, abs(score))).sum())) / (r + 1)
    kind = "relabelled within groups" if within_groups else "relabelled"
    return _null(kind, score, float(scores.mean()), float(scores.std(ddof=1)), p, threshold, r, best)


def require_relabellings(operation: str, count: int | None) -> None:
    """At least 19, or None."""
    if count is not None and count < FEWEST:
        raise ValueError(f"{operation}: relabellings must be at least {FEWEST}, got {count}; or no null")


def random_relabellings(
    n: int, count: int, seed: int = 0, *, within: Tensor | None = None, units: Tensor | None = None
) -> Iterator[Tensor]:
    """``count`` random permutations of 0 .. n - 1, int64.

    within: (n,) labels; each item goes to the place of one of its own label.
    units: (n,) labels of what belongs together (captions of one image): the items of a unit go to those of another unit
        of as many items, in random order. Raises ValueError for both.

    Examples:
        >>> import torch
        >>> from modalign.alignment.nulls import random_relabellings
        >>> labels = torch.tensor([0, 1, 0, 1, 1])
        >>> all(torch.equal(labels[s], labels) for s in random_relabellings(5, 10, within=labels))
        True
    """
    if within is not None and units is not None:
        raise ValueError("random_relabellings: takes within or units, got both")
    generator = torch.Generator().manual_seed(seed)

    def shuffled(labels: Tensor) -> Tensor:
        """The items label by label, in random order within each."""
        order = torch.randperm(n, generator=generator)
        return order[labels[order].argsort(stable=True)]

    if units is not None:
        ids, sizes = torch.unique(units, return_inverse=True, return_counts=True)[1:]
    for _ in range(count):
        relabelled = torch.empty(n, dtype=torch.int64)
        if within is not None:
            relabelled[within.argsort(stable=True)] = shuffled(within)
        elif units is not None:
            # units in random order, those of one size together; items in random order within their unit
            place = torch.empty_like(sizes)
            mixed = torch.randperm(len(sizes), generator=generator)
            place[mixed[sizes[mixed].argsort(stable=True)]] = torch.arange(len(sizes))
            fixed = torch.empty_like(sizes)
            fixed[sizes.argsort(stable=True)] = torch.arange(len(sizes))
            relabelled[fixed[ids].argsort(stable=True)] = shuffled(place[ids])
        else:
            relabelled = torch.randperm(n, generator=generator)
        yield relabelled


def kmeans_cells(x: Any, count: int, *, seed: int = 0) -> Tensor:
    """Clusters to relabel within where there are no classes: what remains is alignment finer than the cells.

    The rows, divided by their norms, go to the nearest of ``count`` centres, which k-means finds on at most 100,000 of
    them, drawn by the seed. The null of few cells is close to the plain one; cells of 20 to 100 items ask for much.

    x: (n, d) rows as ``modalign.files.rows.open_rows`` takes them. Returns: (n,) int64, a cell for each row.
    Peak memory: the rows that are fitted, in float32, and a block. Time O(n d count).
    Raises: TypeError for a count that is no integer; ValueError for one below 2 or above n / 2, and for rows that
        are not finite.
    Source: scikit-learn's MiniBatchKMeans.

    Examples:
        >>> import numpy as np
        >>> from modalign.alignment.nulls import kmeans_cells
        >>> x = np.repeat(np.eye(3), 10, axis=0)
        >>> len(set(kmeans_cells(x, 3).tolist()))
        3
    """
    from sklearn.cluster import MiniBatchKMeans

    rows = open_rows(x)
    n, d = rows.shape
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"kmeans_cells: count must be an integer, got {count!r}")
    if not 2 <= count <= n // 2:
        raise ValueError(f"kmeans_cells: count must be from 2 to half of the {n} rows, got {count}")
    block = max(1, (1 << 24) // d)
    starts = range(0, n, block)
    kept = torch.zeros(n, dtype=torch.bool)
    kept[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:FITTED]] = True

    def unit_rows(start: int) -> Tensor:
        return torch.nn.functional.normalize(rows.read(start, min(n, start + block)).double()).float()

    fitted = torch.cat([unit_rows(start)[kept[start : start + block]] for start in starts])
    means = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=max(1024, 4 * count)).fit(fitted.numpy())
    cells = [torch.from_numpy(means.predict(unit_rows(start).numpy())).long() for start in starts]
    return torch.cat(cells)


def within_groups_mean(a: Any, b: Any, groups: Tensor) -> float:
    """The mean of mutual k-NN over all relabellings within groups, exactly: what the groups alone explain.

        sum_st A_st B_st / N_st / (n k)      A_st: edges of a from group s to group t; N_st: ordered pairs of two items

    a, b: ``modalign.Neighbors`` or (n, k) int64 indices; groups: (n,) integers. O(n k log).

    Examples:
        >>> import torch
        >>> from modalign.alignment.nulls import within_groups_mean
        >>> graph = torch.tensor([[1], [0], [3], [2]])
        >>> within_groups_mean(graph, graph, torch.tensor([0, 0, 1, 1]))
        1.0
    """
    left, right = (indices_of(graph) for graph in (a, b))
    _, ids, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    codes, counts = zip(*(_edges_between(graph, ids, len(sizes)) for graph in (left, right)), strict=True)
    shared, mine, theirs = np.intersect1d(codes[0], codes[1], assume_unique=True, return_indices=True)
    s, t = np.divmod(shared, len(sizes))
    size = sizes.double().numpy()
    pairs = size[s] * (size[t] - (s == t))
    return float((counts[0][mine] * (counts[1][theirs] / pairs)).sum()) / left.numel()


def _edges_between(graph: Tensor, ids: Tensor, groups: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    codes, counts = torch.unique(ids[:, None] * groups + ids[graph], return_counts=True)
    return codes.numpy(), counts.double().numpy()


def _null(
    kind: str, score: float, mean: float, sd: float, p: float, threshold: float, relabellings: int = 0,
    best: float = 1.0,
) -> Null:  # fmt: skip
    sign = -1.0 if best == 0 else 1.0
    room, gained = sign * (best - threshold), sign * (score - threshold)
    calibrated = gained / room if room > 1e-12 and gained > 0 else 0.0
    return Null(kind, mean, sd, p, threshold, calibrated, relabellings)


_Terms = tuple[int, int, int, int, int, int]


def _terms(graph: Tensor) -> _Terms:
    """t1, t2, t3, t4, t5, t7 of a digraph with k edges out of every item, as exact integers."""
    n, k = graph.shape
    edges = n * k
    into = torch.bincount(graph.reshape(-1), minlength=n)
    both_ways = round(reciprocity(graph) * edges)
    t3, t4, t5 = n * k * k - edges, int(into.square().sum()) - edges, k * edges - both_ways
    return edges, both_ways, t3, t4, t5, edges * edges - edges - both_ways - t3 - t4 - 2 * t5


def _moments_of_shared(a: _Terms, b: _Terms, n: int) -> tuple[float, float]:
    two, three, four = n * (n - 1), n * (n - 1) * (n - 2), n * (n - 1) * (n - 2) * (n - 3)
    # one fraction of integers: the square of the mean would cancel the digits of a difference of floats
    numerator = (
        (a[0] * b[0] + a[1] * b[1]) * (n - 2) * (n - 3)
        + (a[2] * b[2] + a[3] * b[3] + 2 * a[4] * b[4]) * (n - 3)
        + a[5] * b[5]
    )
    assert three * (n - 3) == four
    mean = a[0] * b[0] / two
    return mean, max(0.0, (numerator * two * two - (a[0] * b[0]) ** 2 * four) / (four * two * two))


def _excess(n: int, x: tuple[float, float, float], y: tuple[float, float, float]) -> float:
    """(n-3) t t' / (2 n (n-1)) of ``cka_null``."""
    found = (n - 3) / (2 * n * (n - 1))
    for trace, square, squares in (x, y):
        b = trace * trace / square
        if n - 1 - b < 1e-9 * n:  # every direction alike: t appears only times (n - 1 - b), which is 0
            return 0.0
        found *= (n - 1) / ((n - 3) * (n - 1 - b)) * (n * (n + 1) * squares / square - (n - 1) * (b + 2))
    return found


@dataclasses.dataclass(frozen=True)
class _Tail:
    """A distribution of counts with a given mean and variance."""

    mean: float
    variance: float

    def _distribution(self) -> Any:
        from scipy import stats

        if self.variance > self.mean * (1 + 1e-9):
            r = self.mean * self.mean / (self.variance - self.mean)
            return stats.nbinom(r, self.mean / self.variance)
        return stats.norm(self.mean - 0.5, math.sqrt(self.variance)) if self.variance > 0 else None

    def above(self, count: int) -> float:
        """The probability of at least ``count``."""
        law = self._distribution()
        if law is None:
            return 1.0 if count <= self.mean else 0.0
        return float(law.sf(count - 1))

    def exceeded_with(self, probability: float) -> float:
        law = self._distribution()
        return self.mean if law is None else float(law.isf(probability))
