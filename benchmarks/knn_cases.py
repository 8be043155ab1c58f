"""The cases of k-NN graphs: our exact search beside exact and approximate rivals, on rows of unit length.

An exact rival must find our neighbours up to near-ties of float32. The recall of an approximate rival against our
graph, which is first checked against float64, is reported beside its time. pynndescent runs with its default settings,
hnswlib with those that reach a recall of 0.95 soonest at 200,000 x 384 (with M = 8 it stays below 0.8 there, and more
links take longer to build). A rival that is not installed is left out, and the name of the case says so.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign
from benchmarks.cases import Case

THREADS = torch.get_num_threads()
EXACT = {"faiss flat": "faiss", "scikit-learn brute": "sklearn", "torch mm + topk": "torch"}
APPROXIMATE = {"hnswlib": "hnswlib", "pynndescent": "pynndescent"}


def knn_cases() -> list[Case]:
    """Return the cases by size, metric and rivals."""
    all_exact = ("faiss flat", "scikit-learn brute", "torch mm + topk")
    return [
        _case("5,000 x 64", clustered, 5_000, 64, rivals=all_exact),
        _case("20,000 x 64, k = 100", clustered, 20_000, 64, rivals=("faiss flat",), k=100),
        _case("5,000 x 4,096", clustered, 5_000, 4_096, rivals=("faiss flat",)),
        _case("100,000 x 384", clustered, 100_000, 384, rivals=all_exact, rounds=1),
        _case("100,000 x 768", clustered, 100_000, 768, rivals=("faiss flat",), rounds=1),
        _case("100,000 x 384, normal", _normal, 100_000, 384, rivals=("faiss flat",), rounds=1),
        _case("200,000 x 384", clustered, 200_000, 384, rivals=("hnswlib", "pynndescent"), rounds=1),
        _case(
            "10,000 queries in 1,000,000 x 384",
            clustered,
            1_000_000,
            384,
            rivals=("faiss flat",),
            queries=10_000,
            rounds=1,
        ),
        _case("1,000,000 x 128", clustered, 1_000_000, 128, rivals=("pynndescent",), rounds=1),
    ]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The result of a candidate: indices [m, k], and whether they are meant to be exact."""

    indices: Any
    exact: bool = True


def _case(
    name: str,
    make: Callable[[int, int], Tensor],
    n: int,
    d: int,
    *,
    rivals: tuple[str, ...],
    k: int = 10,
    queries: int = 0,
    rounds: int | None = None,
) -> Case:
    def inputs() -> tuple[Tensor, Tensor | None]:
        rows = F.normalize(make(n + queries, d))
        return rows[:n], rows[n:] if queries else None

    def modalign_graph(x: Tensor, y: Tensor | None) -> Graph:
        return Graph(modalign.knn(x, k, queries=y, metric="dot").indices)

    installed = [rival for rival in rivals if importlib.util.find_spec((EXACT | APPROXIMATE)[rival])]
    absent = [rival for rival in rivals if rival not in installed]
    candidates: dict[str, Callable[..., Graph]] = {"modalign": modalign_graph}
    candidates |= {rival: lambda x, y, search=SEARCHES[rival]: search(x, y, k) for rival in installed}
    pairs = float(queries) * n * 2 if queries else float(n) * n
    return Case(
        f"{name} ({', '.join(absent)} not installed)" if absent else name,
        inputs,
        candidates,
        agree=_agree,
        operations=pairs * d,
        right=lambda x, y, answer: _is_exact(x, y, k, answer.indices),
        rounds=rounds,
        recall=lambda rival, answer: None if rival.exact else _overlap(rival.indices, answer.indices),
        rate="int8",
    )


def _overlap(one: Any, two: Any) -> float:
    """Return the share of the neighbours in ``two`` that are in ``one``, whose rows may contain -1 and duplicates."""
    a, b = (torch.as_tensor(np.asarray(indices)).long() for indices in (one, two))
    blocks = zip(a.split(4096), b.split(4096), strict=True)
    return sum(int((left[:, :, None] == right[:, None]).any(1).sum()) for left, right in blocks) / b.numel()


def _agree(rival: Graph, answer: Graph) -> bool:
    return not rival.exact or _overlap(rival.indices, answer.indices) > 0.999


def _is_exact(x: Tensor, queries: Tensor | None, k: int, indices: Tensor, sample: int = 200) -> bool:
    """Return whether a sample of the rows has the neighbours of float64, up to ties within its rounding."""
    rows = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))[:sample]
    scores = (x if queries is None else queries)[rows].double() @ x.double().T
    if queries is None:
        scores.scatter_(1, rows[:, None], -torch.inf)
    best = scores.topk(k)
    distinct = (indices[rows].sort(dim=1).values.diff(dim=1) > 0).all()
    return bool(distinct and (scores.gather(1, indices[rows]) >= best.values - 1e-12).all())


def _without_self(indices: np.ndarray, k: int) -> np.ndarray:
    """Drop the row itself from its k + 1 neighbours, or the last one where the row is not among them."""
    dropped = indices == np.arange(len(indices))[:, None]
    dropped[~dropped.any(1), -1] = True
    return indices[~dropped].reshape(len(indices), k)


def _faiss(x: Tensor, queries: Tensor | None, k: int) -> Graph:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x.numpy())
    if queries is not None:
        return Graph(index.search(queries.numpy(), k)[1])
    return Graph(_without_self(index.search(x.numpy(), k + 1)[1], k))


def _sklearn(x: Tensor, queries: Tensor | None, k: int) -> Graph:
    from sklearn.neighbors import NearestNeighbors

    # the nearest rows of unit length are those of the highest product
    search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="euclidean").fit(x.numpy())
    return Graph(search.kneighbors(None if queries is None else queries.numpy(), return_distance=False))


def _torch(x: Tensor, queries: Tensor | None, k: int, rows: int = 1024) -> Graph:
    parts = []
    searching = x if queries is None else queries
    for start in range(0, len(searching), rows):
        scores = searching[start : start + rows] @ x.T
        if queries is None:
            scores.diagonal(start).fill_(-torch.inf)
        parts.append(scores.topk(k).indices)
    return Graph(torch.cat(parts))


def _hnswlib(x: Tensor, queries: Tensor | None, k: int) -> Graph:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=x.shape[1])
    index.init_index(max_elements=len(x), M=12, ef_construction=80, random_seed=0)
    index.add_items(x.numpy(), num_threads=THREADS)
    index.set_ef(40)
    if queries is not None:
        return Graph(index.knn_query(queries.numpy(), k, num_threads=THREADS)[0].astype(np.int64), exact=False)
    indices = index.knn_query(x.numpy(), k + 1, num_threads=THREADS)[0].astype(np.int64)
    return Graph(_without_self(indices, k), exact=False)


def _pynndescent(x: Tensor, queries: Tensor | None, k: int) -> Graph:
    import pynndescent

    assert queries is None
    index = pynndescent.NNDescent(x.numpy(), metric="cosine", n_neighbors=k + 5, random_state=0, n_jobs=THREADS)
    indices = index.neighbor_graph[0].astype(np.int64)
    return Graph(_without_self(indices[:, : k + 1], k), exact=False)


SEARCHES = {
    "faiss flat": _faiss,
    "scikit-learn brute": _sklearn,
    "torch mm + topk": _torch,
    "hnswlib": _hnswlib,
    "pynndescent": _pynndescent,
}


def clustered(n: int, d: int, seed: int = 0) -> Tensor:
    """Return rows in clusters of about 100, made in blocks so that a million rows need no float64 copy."""
    centers = np.random.default_rng(seed).normal(size=(max(1, n // 100), d)).astype(np.float32)
    labels = np.random.default_rng(7).integers(0, len(centers), n)
    noise = np.random.default_rng(seed + 1).standard_normal(size=(n, d), dtype=np.float32)
    noise *= np.float32(0.7)
    for start in range(0, n, 1 << 16):
        noise[start : start + (1 << 16)] += centers[labels[start : start + (1 << 16)]]
    return torch.from_numpy(noise)


def _normal(n: int, d: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(size=(n, d), dtype=np.float32))
