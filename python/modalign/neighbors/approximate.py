"""Approximate k-NN graphs by pynndescent, with their recall measured against exact neighbours."""

from __future__ import annotations

import dataclasses
import importlib
import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.ops.knn import RowBlock, SearchOptions, search

__all__ = ["Recall", "approximate_knn"]

SAMPLE = 1000  # rows whose exact neighbours are looked up
LEVEL = 1.959964  # standard normal quantile of a 95 % interval
MORE = 5  # neighbours asked for beyond k: itself, and what is lost to duplicates
BLOCK_ELEMENTS = 1 << 24  # numbers gathered at once


@dataclasses.dataclass(frozen=True)
class Recall:
    """The share of the true k nearest neighbours that an approximate graph holds, and its 95 % interval.

    It is the mean over ``sample`` rows drawn without replacement. The interval is Wilson's for a proportion among so
    many: conservative, since the recall of a row lies between 0 and 1 and so varies by p (1 - p) at most, and honest
    where every sampled row is perfect.
    """

    estimate: float
    low: float
    high: float
    sample: int

    def __str__(self) -> str:
        return f"{self.estimate:.3f} (95 % interval {self.low:.3f} to {self.high:.3f}, from {self.sample:,} rows)"


def approximate_knn(
    x: Tensor, k: int, *, queries: Tensor | None = None, metric: str = "cosine", seed: int = 0,
    threads: int | None = None,
) -> tuple[Tensor, Tensor, Recall]:  # fmt: skip
    """Most of the k nearest neighbours of each row, found by pynndescent's nearest-neighbour descent.

    x, queries, metric ("cosine" or "euclidean"): as in ``modalign.knn``; in float32 for the library. Scores are exact,
    in float64 from the stored rows, and order the neighbours; a row is not its own neighbour. Rows for which the
    library finds fewer than k are searched exactly. The same seed gives the same graph for one number of threads, of
    which there are no more than numba has. Queries unlike the rows of x are found worse: the recall tells.

    Returns: indices (m, k) int64, scores (m, k) float64, and the recall, from min(1,000, m) rows.
    Peak memory: float32 copies of the rows and what pynndescent holds, about 100 (k + 5) bytes a row.
    Raises: ModuleNotFoundError without pynndescent; NotImplementedError for rows on another device, and for metric
    "dot": the inner product is no distance, so that a neighbour's neighbour need not be near, and pynndescent's
    "inner_product" (its "dot" is for unit rows) tells no products below 0 apart.
    Source: Dong et al. 2011, doi:10.1145/1963405.1963487.
    """
    if metric == "dot":
        raise NotImplementedError(
            "knn: exact=False takes no metric 'dot': the inner product is no distance, which pynndescent's descent "
            "relies on; use exact=True, or unit rows and metric='cosine'"
        )
    if x.device.type != "cpu":
        raise NotImplementedError(f"knn: exact=False searches on the CPU, got rows on {x.device}")
    try:
        library: Any = importlib.import_module("pynndescent")
        numba: Any = importlib.import_module("numba")
    except ModuleNotFoundError:
        raise ModuleNotFoundError("knn: exact=False needs pynndescent: pip install pynndescent") from None
    itself = queries is None
    rows = x if queries is None else queries
    gallery, searching = _in_float32(x, rows)
    with warnings.catch_warnings():  # of rows with too few neighbours: they are searched exactly
        warnings.filterwarnings("ignore", "Failed to correctly find n_neighbors")
        index = library.NNDescent(
            gallery, metric=metric, n_neighbors=min(len(x), k + MORE), random_state=seed,
            n_jobs=min(threads or torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS),
        )  # fmt: skip
    if itself:
        found = torch.from_numpy(index.neighbor_graph[0]).long()
    else:
        index.prepare()
        found = torch.from_numpy(index.query(searching, k=min(len(x), k + MORE))[0]).long()
    indices, scores = _best(x, rows, found, k, metric, itself)
    short = (indices < 0).any(1).nonzero()[:, 0]
    if len(short):
        indices[short], scores[short] = _exact(x, rows, short, k, metric, itself, threads)
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(len(rows), generator=generator)[:SAMPLE].sort().values
    _, best = _exact(x, rows, sample, k, metric, itself, threads)
    # an equally good neighbour is as right as the one of the lower index
    right = (scores[sample] >= best[:, -1:]).double().mean()
    return indices, scores, wilson(float(right), len(sample))


def wilson(share: float, sample: int) -> Recall:
    """Wilson's interval for a share of ``sample``."""
    z2 = LEVEL * LEVEL / sample
    middle = (share + z2 / 2) / (1 + z2)
    half = LEVEL / (1 + z2) * math.sqrt(share * (1 - share) / sample + z2 / (4 * sample))
    # the bounds meet the share at 0 and 1, where rounding would leave it outside
    return Recall(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)), sample)


def _in_float32(x: Tensor, rows: Tensor) -> list[Any]:
    """Arrays for the library: where float32 would lose their squares, times a power of two, which keeps the order."""
    largest = max(abs(float(bound)) for table in (x, rows) for bound in table.aminmax())
    if largest == 0 or 2.0**-30 < largest < 2.0**30:
        return [x.float().numpy(), rows.float().numpy()]
    scale = 2.0 ** -max(math.frexp(largest)[1], -1000)
    return [(table.double() * scale).float().numpy() for table in (x, rows)]


def _exact(
    x: Tensor, rows: Tensor, which: Tensor, k: int, metric: str, itself: bool, threads: int | None
) -> tuple[Tensor, Tensor]:
    """Exact neighbours of some rows; groups keep a row of x from being its own."""
    ids = torch.arange(len(x)) if itself else None
    queries = RowBlock(rows[which], which if itself else None)
    indices, _, _ = search(RowBlock(x, ids), queries, SearchOptions(k, metric=metric, threads=threads))
    return indices, _scores(x, rows[which], indices, metric)


def _best(x: Tensor, rows: Tensor, found: Tensor, k: int, metric: str, itself: bool) -> tuple[Tensor, Tensor]:
    """The k best of the candidates found, each once and none of them the row itself; -1 where there are fewer."""
    found = found.sort(dim=1).values
    found[:, 1:].masked_fill_(found[:, 1:] == found[:, :-1], -1)
    if itself:
        found.masked_fill_(found == torch.arange(len(found))[:, None], -1)
    scores = _scores(x, rows, found.clamp_min(0), metric).masked_fill_(found < 0, -torch.inf)
    # -1 sorts before all ids, but its score comes last
    order = scores.sort(dim=1, descending=True, stable=True)
    return found.gather(1, order.indices[:, :k]), order.values[:, :k].contiguous()


def _scores(x: Tensor, rows: Tensor, indices: Tensor, metric: str) -> Tensor:
    """The score that knn defines, of each row with its candidates [m, c], in float64 in the order of the features."""
    scores = torch.zeros(indices.shape, dtype=torch.float64)
    step = max(1, BLOCK_ELEMENTS // (indices.shape[1] * x.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        own, others, total = rows[part].double(), x[indices[part]].double(), scores[part]
        for c in range(x.shape[1]):
            if metric == "euclidean":
                difference = own[:, None, c] - others[..., c]
                total -= difference * difference
            else:
                total += own[:, None, c] * others[..., c]
    if metric == "cosine":
        scores = scores * _inverse_norms(rows)[:, None] * _inverse_norms(x)[indices]
    return scores


def _inverse_norms(rows: Tensor) -> Tensor:
    """1 / |x_i|, 0 for a zero row, as knn defines it. NumPy's square root is correctly rounded; torch's may not be."""
    squares = torch.zeros(len(rows), dtype=torch.float64)
    for column in rows.unbind(1):
        squares += column.double() * column.double()
    norms = np.sqrt(squares.numpy())
    return torch.from_numpy(np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0))
