"""The k-NN graphs that are measured on a GPU, and their rivals: torch and, where it is installed, FlashLib."""

from __future__ import annotations

import functools
import importlib

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign
from benchmarks.gpu.cases import CLUSTER, Case, Rivals, is_installed, sample_rows

__all__ = ["knn_cases"]


def knn_cases(small: bool) -> list[Case]:
    """Return the cases of k-NN graphs and searches; ``small`` ones for a machine without a GPU."""
    if small:
        return [_knn(600, 32, 5), _knn(600, 32, 5, queries=100)]
    return [
        _knn(100_000, 768, 10),
        _knn(100_000, 768, 100),
        _knn(100_000, 128, 10, queries=16_384),
        _knn(1_000_000, 768, 10),
    ]


def _knn(n: int, d: int, k: int, *, queries: int = 0) -> Case:
    """Return a case of the graph of n rows, or of a search of queries in them."""

    def make(device: torch.device) -> tuple[Tensor, ...]:
        generator = torch.Generator(device).manual_seed(0)
        centers = torch.randn(max(1, n // CLUSTER), d, generator=generator, device=device)
        labels = torch.randint(len(centers), (n + queries,), generator=generator, device=device)
        rows = torch.empty(n + queries, d, dtype=torch.float16, device=device)
        for start in range(0, n + queries, 65536):
            part = centers[labels[start : start + 65536]]
            part = part + torch.randn(part.shape, generator=generator, device=device)
            rows[start : start + len(part)] = F.normalize(part, dim=1)
        return (rows[:n], rows[n:]) if queries else (rows,)

    def modalign_graph(x: Tensor, q: Tensor | None = None, backend: str = "auto") -> Tensor:
        indices: Tensor = modalign.knn(x, k, queries=q, metric="dot", backend=backend).indices
        return indices

    rivals: Rivals = {"modalign": modalign_graph, "torch mm + topk": lambda x, q=None: _by_tiles(x, k, q)}
    if is_installed("modalign._cuda"):
        rivals["modalign, cuda backend"] = functools.partial(modalign_graph, backend="cuda")
    if is_installed("flashlib"):
        rivals["FlashLib"] = lambda x, q=None: _flashlib(x, k, q)
    task = f"{queries} queries in {n} x {d}" if queries else f"graph of {n} x {d}"
    operations = 2.0 * n * (queries or n) * d
    return Case(
        f"{task}, k = {k}",
        make,
        rivals,
        find_error=functools.partial(_graph_error, k=k),
        find_difference=_graph_difference,
        operations=operations,
        done=operations if queries else operations / 2,  # one product serves both rows of a pair
    )


def _by_tiles(x: Tensor, k: int, queries: Tensor | None) -> Tensor:
    """Return neighbours by torch's matrix product and topk, 4,096 rows at a time."""
    rows, indices = x if queries is None else queries, []
    for start in range(0, len(rows), 4096):
        products = rows[start : start + 4096] @ x.T
        if queries is None:
            products[:, start : start + len(products)].fill_diagonal_(-torch.inf)
        indices.append(products.topk(k).indices)
    return torch.cat(indices)


def _flashlib(x: Tensor, k: int, queries: Tensor | None) -> Tensor:
    """Return neighbours by FlashLib.

    FlashLib does not exclude the row itself, so one of k + 1 neighbours is dropped. Distances of unit rows have the
    order of their products.
    """
    search = importlib.import_module("flashlib").flash_knn
    if queries is not None:
        indices: Tensor = search(queries, x, k, return_distances=False).long()
        return indices.reshape(-1, k)
    indices = search(x, x, k + 1, return_distances=False).long().reshape(len(x), k + 1)
    is_self = indices == torch.arange(len(x), device=x.device)[:, None]
    is_self[:, -1] |= ~is_self.any(1)  # a duplicate may have taken the place of the row
    return indices[~is_self].reshape(len(x), k)


def _graph_error(inputs: tuple[Tensor, ...], result: Tensor, *, k: int) -> str | None:
    """Compare our neighbours of a sample of rows with those of float64, ties to the lower index."""
    x, rows = inputs[0], inputs[-1]
    sample = sample_rows(rows)
    scores = rows[sample].double() @ x.double().T
    if len(inputs) == 1:
        scores[torch.arange(len(sample), device=x.device), sample] = -torch.inf
    wanted = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    wrong = int((result[sample] != wanted).any(1).sum())
    return f"{wrong} of {len(sample)} rows are not those of float64" if wrong else None


def _graph_difference(inputs: tuple[Tensor, ...], result: Tensor, ours: Tensor) -> str | None:
    """Check that a rival finds at least 98 % of the neighbours of a sample of rows."""
    sample = sample_rows(inputs[-1])
    share = (result[sample][:, :, None] == ours[sample][:, None]).any(2).double().mean()
    return None if share >= 0.98 else f"{float(share):.1%} of its neighbours are the true ones"
