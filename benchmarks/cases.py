"""What is measured: for each case, rival ways to the same answer, on the same data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign

TEMPERATURE = 0.07


@dataclasses.dataclass(frozen=True)
class Case:
    """``rivals``: name -> function of the inputs; ours is called "modalign". ``operations``: additions and
    multiplications of the matrix products that the task needs, for a share of the machine's rate."""

    name: str
    make: Callable[[], tuple[Any, ...]]
    rivals: dict[str, Callable[..., Any]]
    agree: Callable[[Any, Any], bool]
    operations: float


def info_nce_cases() -> list[Case]:
    rivals = {"modalign": lambda x, y: _step(_modalign, x, y), "naive torch": lambda x, y: _step(_naive, x, y)}
    chunked = {"chunked torch": _chunked_step}
    cases = []
    for n, d in ((256, 32), (1024, 128), (1024, 512), (4096, 128), (4096, 512), (16384, 128)):
        cases.append(Case(f"{n} x {d}", lambda n=n, d=d: _pair(n, d), rivals | chunked, _same_step, 8.0 * n * n * d))
    problems, n, d = 64, 512, 16
    batched = {"modalign": rivals["modalign"], "loop of naive torch": _loop_of_naive, "batched torch": _batched_naive}
    cases.append(
        Case(
            f"{problems} problems of {n} x {d}",
            lambda: _pair(problems, n, d),
            batched,
            _same_step,
            8.0 * problems * n * n * d,
        )
    )
    return cases


def knn_cases() -> list[Case]:
    rivals = {"modalign": lambda x: modalign.knn(x, 10).indices, "torch mm + topk": _torch_knn}
    return [
        Case(f"{n} x {d}, k = 10", lambda n=n, d=d: (_clustered(n, d),), rivals, _same_neighbours, 1.0 * n * n * d)
        for n, d in ((5000, 64), (10000, 384), (20000, 384))
    ]


def mutual_knn_cases() -> list[Case]:
    rivals = {"modalign": lambda x, y: modalign.mutual_knn(x, y, k=10), "dense argsort and masks": _dense_mutual_knn}
    n, d = 5000, 128
    return [
        Case(
            f"{n} x {d}, k = 10",
            lambda: (_clustered(n, d), _clustered(n, d, seed=1)),
            rivals,
            lambda a, b: abs(a - b) < 1e-4,  # float32 rivals may swap near-ties
            2.0 * n * n * d,
        )
    ]


CASES = {"info_nce": info_nce_cases, "knn": knn_cases, "mutual_knn": mutual_knn_cases}


def _pair(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, *shape, generator=generator).unbind()
    return x, 0.5 * x + y


def _clustered(n: int, d: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(max(1, n // 100), d))
    labels = np.random.default_rng(7).integers(0, len(centers), n)
    return torch.from_numpy((centers[labels] + 0.7 * rng.normal(size=(n, d))).astype(np.float32))


def _modalign(x: Tensor, y: Tensor) -> Tensor:
    return modalign.info_nce(x, y, temperature=TEMPERATURE)


def _naive(x: Tensor, y: Tensor) -> Tensor:
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).mT / TEMPERATURE
    pairs = torch.arange(x.shape[-2])
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _step(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    value = loss(*leaves).sum()
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def _chunked_step(x: Tensor, y: Tensor, rows: int = 1024) -> list[Tensor]:
    """The loss and its gradients by blocks of rows, written by hand in torch: the rival that stores no n x n either."""
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    left, right = (F.normalize(leaf, dim=-1) for leaf in leaves)
    a, b, n = left.detach(), right.detach(), len(x)
    row_lse, col_lse = torch.empty(n), torch.full((n,), -torch.inf)
    for start in range(0, n, rows):
        logits = a[start : start + rows] @ b.T / TEMPERATURE
        row_lse[start : start + rows] = logits.logsumexp(1)
        col_lse = torch.logaddexp(col_lse, logits.logsumexp(0))
    da, db = torch.empty_like(a), torch.zeros_like(b)
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        logits = a[part] @ b.T / TEMPERATURE
        weights = (logits - row_lse[part, None]).exp_() + logits.sub_(col_lse).exp_()
        weights.diagonal(start).sub_(2)
        weights.div_(2 * n * TEMPERATURE)
        da[part] = weights @ b
        db += weights.T @ a[part]
    loss = ((row_lse + col_lse) / 2 - (a * b).sum(1) / TEMPERATURE).mean()
    return [loss, *torch.autograd.grad([left, right], leaves, [da, db])]


def _loop_of_naive(x: Tensor, y: Tensor) -> list[Tensor]:
    return _step(lambda x, y: torch.stack([_naive(a, b) for a, b in zip(x, y, strict=True)]), x, y)


def _batched_naive(x: Tensor, y: Tensor) -> list[Tensor]:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).mT / TEMPERATURE
        positive = logits.diagonal(dim1=-2, dim2=-1)
        return ((logits.logsumexp(-1) + logits.logsumexp(-2)) / 2 - positive).mean(-1)

    return _step(loss, x, y)


def _same_step(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max())) for a, b in zip(one, two, strict=True))


def _torch_knn(x: Tensor, k: int = 10, rows: int = 1024) -> Tensor:
    unit, found = F.normalize(x), []
    for start in range(0, len(x), rows):
        scores = unit[start : start + rows] @ unit.T
        scores.diagonal(start).fill_(-torch.inf)
        found.append(scores.topk(k).indices)
    return torch.cat(found)


def _same_neighbours(one: Tensor, two: Tensor) -> bool:
    """As sets, but for near-ties that float32 rivals may order otherwise."""
    same = (one.sort(1).values == two.sort(1).values).double().mean()
    return bool(same > 0.999)


def _dense_mutual_knn(x: Tensor, y: Tensor, k: int = 10) -> float:
    masks = []
    for rows in (x, y):
        unit = F.normalize(rows)
        scores = (unit @ unit.T).fill_diagonal_(-torch.inf)
        mask = torch.zeros_like(scores)
        masks.append(mask.scatter_(1, scores.argsort(dim=1, descending=True)[:, :k], 1.0))
    return float((masks[0] * masks[1]).sum(1).mean() / k)
