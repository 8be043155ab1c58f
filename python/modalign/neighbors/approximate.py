"""Approximate k-NN graphs by pynndescent, with a recall measured against exact neighbours."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import math
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.progress import say
from modalign.ops.knn import RowBlock, SearchOptions, search

__all__ = ["Recall", "approximate_knn", "wilson"]

SAMPLE = 1000  # rows whose exact neighbours are compared
QUANTILE = 1.959964  # of the standard normal, for a 95 % interval
EXTRA = 5  # neighbours requested beyond k: the row itself, and duplicates in a list
BLOCK_ELEMENTS = 1 << 24  # numbers gathered at once


@dataclasses.dataclass(frozen=True)
class Recall:
    """The share of the true k nearest neighbours that an approximate graph holds, and its 95 % interval.

    The share is the mean over rows drawn without replacement. The interval is Wilson's for a proportion of that many
    trials. It is conservative, since the recall of a row lies between 0 and 1 and so varies by p (1 - p) at most, and
    it is not empty where every sampled row is perfect.

    Attributes:
        estimate: The share.
        low: The lower end of the interval.
        high: The upper end.
        sample: The number of rows drawn.
    """

    estimate: float
    low: float
    high: float
    sample: int

    def __str__(self) -> str:
        return f"{self.estimate:.3f} (95 % interval {self.low:.3f} to {self.high:.3f}, from {self.sample:,} rows)"


def approximate_knn(
    x: Tensor,
    k: int,
    *,
    queries: Tensor | None = None,
    metric: str = "cosine",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor, Recall]:
    """Find most of the k nearest neighbours of each row by pynndescent's nearest-neighbour descent.

    The library sees the rows in float32. Scores are exact, in float64 from the stored rows, and order the neighbours; a
    row is not its own neighbour. Rows for which the library finds fewer than k neighbours are searched exactly. Queries
    unlike the rows of x have a lower recall.

    Args:
        x: (n, d) gallery on the CPU, as in ``modalign.knn``.
        k: The number of neighbours.
        queries: (m, d) of x's dtype, or None: every row of x searches for the others.
        metric: "cosine" or "euclidean".
        seed: The seed. One seed gives one graph for one number of threads.
        threads: The number of threads, at most as many as numba has; None for as many as torch has.
        progress: Whether to say that the library compiles its search, when it first does; a terminal is always told.

    Returns:
        Indices (m, k) int64, scores (m, k) float64, and the recall, from min(1,000, m) rows. Peak memory: float32
        copies of the rows and what pynndescent holds, about 100 (k + 5) bytes a row.

    Raises:
        ModuleNotFoundError: pynndescent is not installed.
        NotImplementedError: The rows are on another device, or the metric is "dot". An inner product is no distance, so
            a neighbour's neighbour need not be near; pynndescent's "inner_product" (its "dot" is for unit rows) does
            not tell products below 0 apart.

    Source: Dong et al. 2011, doi:10.1145/1963405.1963487.
    """
    if metric == "dot":
        raise NotImplementedError(
            "knn: exact=False takes no metric 'dot': the inner product is no distance, which pynndescent's descent "
            "relies on; use exact=True, or unit rows and metric='cosine'"
        )
    if x.device.type != "cpu":
        raise NotImplementedError(f"knn: exact=False searches on the CPU, got rows on {x.device}")
    _announce_compilation(progress)
    search = _Search(x, queries, k, metric=metric, threads=threads)
    indices, scores = search.best(search.descend(seed))
    short = (indices < 0).any(1).nonzero()[:, 0]
    if len(short):
        indices[short], scores[short] = search.exact(short)
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(len(search.rows), generator=generator)[:SAMPLE].sort().values
    _, best = search.exact(sample)
    # an equally good neighbour is as right as the one of the lower index
    share = (scores[sample] >= best[:, -1:]).double().mean()
    return indices, scores, wilson(float(share), len(sample))


@functools.cache
def _announce_compilation(shown: bool) -> None:
    """Say why the first search of a process takes long; a search without the library ends in an error before."""
    if importlib.util.find_spec("pynndescent") is not None:
        say("knn: compiling pynndescent's search, which takes up to minutes the first time", shown=shown)


def wilson(share: float, sample: int) -> Recall:
    """Return a share of ``sample`` trials with Wilson's interval."""
    z2 = QUANTILE * QUANTILE / sample
    middle = (share + z2 / 2) / (1 + z2)
    half = QUANTILE / (1 + z2) * math.sqrt(share * (1 - share) / sample + z2 / (4 * sample))
    # the bounds meet the share at 0 and 1, where rounding would leave it outside
    return Recall(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)), sample)


class _Search:
    """The rows of an approximate search and its options."""

    def __init__(self, x: Tensor, queries: Tensor | None, k: int, *, metric: str, threads: int | None) -> None:
        self.x, self.rows, self.self_search = x, x if queries is None else queries, queries is None
        self.k, self.metric, self.threads = k, metric, threads

    def descend(self, seed: int) -> Tensor:
        """Return the candidates [m, k + 5] that pynndescent finds; -1 where there is none."""
        try:
            library = importlib.import_module("pynndescent")
            numba = importlib.import_module("numba")
        except ModuleNotFoundError:
            raise ModuleNotFoundError("knn: exact=False needs pynndescent: pip install pynndescent") from None
        gallery, searching = _as_float32(self.x, self.rows)
        count = min(len(self.x), self.k + EXTRA)
        with warnings.catch_warnings():  # rows with too few neighbours are searched exactly
            warnings.filterwarnings("ignore", "Failed to correctly find n_neighbors")
            index = library.NNDescent(
                gallery,
                metric=self.metric,
                n_neighbors=count,
                random_state=seed,
                n_jobs=min(self.threads or torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS),
            )
        if self.self_search:
            return torch.from_numpy(index.neighbor_graph[0]).long()
        index.prepare()
        return torch.from_numpy(index.query(searching, k=count)[0]).long()

    def exact(self, selected: Tensor) -> tuple[Tensor, Tensor]:
        """Return the exact neighbours and scores of the rows ``selected``."""
        # groups of one row keep a row of x from being its own neighbour
        gallery = RowBlock(self.x, torch.arange(len(self.x)) if self.self_search else None)
        queries = RowBlock(self.rows[selected], selected if self.self_search else None)
        indices, _, _ = search(gallery, queries, SearchOptions(self.k, metric=self.metric, threads=self.threads))
        return indices, self.scores(self.rows[selected], indices)

    def best(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the k best candidates, each once and none of them the row itself; -1 where there are fewer."""
        candidates = candidates.sort(dim=1).values
        candidates[:, 1:].masked_fill_(candidates[:, 1:] == candidates[:, :-1], -1)
        if self.self_search:
            candidates.masked_fill_(candidates == torch.arange(len(candidates))[:, None], -1)
        scores = self.scores(self.rows, candidates.clamp_min(0)).masked_fill_(candidates < 0, -torch.inf)
        # -1 sorts before all ids, but its score comes last
        order = scores.sort(dim=1, descending=True, stable=True)
        return candidates.gather(1, order.indices[:, : self.k]), order.values[:, : self.k].contiguous()

    def scores(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Return the scores of rows with their candidates [m, c], as knn defines them."""
        scores = torch.zeros(candidates.shape, dtype=torch.float64)
        step = max(1, BLOCK_ELEMENTS // (candidates.shape[1] * self.x.shape[1]))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            left, right, total = rows[part].double(), self.x[candidates[part]].double(), scores[part]
            for c in range(self.x.shape[1]):
                if self.metric == "euclidean":
                    difference = left[:, None, c] - right[..., c]
                    total -= difference * difference
                else:
                    total += left[:, None, c] * right[..., c]
        if self.metric == "cosine":
            scores = scores * _inverse_norms(rows)[:, None] * _inverse_norms(self.x)[candidates]
        return scores


def _as_float32(x: Tensor, rows: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return arrays for the library, scaled by one power of two where float32 would lose the squares of the rows."""
    largest = max(abs(float(bound)) for table in (x, rows) for bound in table.aminmax())
    scale = 1.0 if largest == 0 or 2.0**-30 < largest < 2.0**30 else 2.0 ** -max(math.frexp(largest)[1], -1000)
    left, right = (table if scale == 1 else table.double() * scale for table in (x, rows))
    return left.float().numpy(), right.float().numpy()


def _inverse_norms(rows: Tensor) -> Tensor:
    """Return 1 / |x_i|, 0 for a zero row, as knn defines it."""
    squares = torch.zeros(len(rows), dtype=torch.float64)
    for column in rows.unbind(1):
        squares += column.double() * column.double()
    norms = np.sqrt(squares.numpy())  # correctly rounded; torch's square root may not be
    return torch.from_numpy(np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0))
