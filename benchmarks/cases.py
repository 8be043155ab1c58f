"""The cases of the losses, and the class of a case: candidates that compute the same result from the same data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign

TEMPERATURE = 0.07


@dataclasses.dataclass(frozen=True)
class Case:
    """A task and the candidates that compute it.

    Attributes:
        name: the name of the case in tables and records.
        make: returns the inputs.
        rivals: functions of the inputs by name; ours is "modalign".
        agree: called as agree(result, ours), returns whether a rival's result agrees with ours.
        operations: additions and multiplications of the matrix products that the task needs, for the share of the
            machine's matrix rate; 0 for none.
        right: called as right(*inputs, result), returns whether our result is correct, for cases whose rivals are
            missing or too coarse to show it.
        rounds: the number of rounds, for cases that take minutes; None for as many as the time allows, at least 3.
        recall: called as recall(result, ours), returns the recall of an approximate rival, or None.
        rate: the number format of the matrix rate that the share is relative to.
    """

    name: str
    make: Callable[[], tuple[Any, ...]]
    rivals: dict[str, Callable[..., Any]]
    agree: Callable[[Any, Any], bool]
    operations: float
    right: Callable[..., bool] = lambda *_: True
    rounds: int | None = None
    recall: Callable[..., float | None] = lambda *_: None
    rate: str = "float32"


def first_rows(inputs: tuple[Any, ...]) -> list[Any]:
    """Return the first rows of the inputs; a call on them loads and compiles what is not to be measured."""
    return [None if tensor is None else tensor[..., :128, :] for tensor in inputs]


def info_nce_cases() -> list[Case]:
    """Return cases of info_nce with gradients; where 24 GB would not hold the matrix, no rival stores it."""
    modalign_step = {"modalign": lambda x, y: _step(_modalign, x, y)}
    dense = {"naive torch": lambda x, y: _step(_naive, x, y), "torch.compile": lambda x, y: _step(_compiled(), x, y)}
    chunked = {
        f"chunked torch, {rows} rows": lambda x, y, rows=rows: _chunked_step(x, y, rows) for rows in (256, 1024, 4096)
    }
    cases = []
    for n, d in ((256, 32), (1024, 128), (1024, 512), (4096, 128), (4096, 512), (16384, 128), (16384, 512)):
        rivals = modalign_step | dense | chunked
        make, operations = functools.partial(_pair, n, d), 8.0 * n * n * d
        cases.append(Case(f"{n} x {d}", make, rivals, agree=_steps_agree, operations=operations))
    n, d = 16384, 512
    stored = {"modalign": lambda x, y: _step(functools.partial(_modalign, workspace=2**30), x, y)}
    stored |= {"naive torch": dense["naive torch"], "modalign, nothing kept": modalign_step["modalign"]}
    make, operations = functools.partial(_pair, n, d), 8.0 * n * n * d
    cases.append(Case(f"{n} x {d}, 1 GB kept", make, stored, agree=_steps_agree, operations=operations))
    half = {
        "modalign": modalign_step["modalign"],
        "naive torch": dense["naive torch"],
        "modalign, float32": _in_float32,
    }
    cases.append(
        Case(
            f"{n} x {d}, bfloat16",
            lambda n=n, d=d: tuple(t.bfloat16() for t in _pair(n, d)),
            half,
            agree=_steps_roughly_agree,
            operations=8.0 * n * n * d,
            right=_has_exact_loss,
            rate="bfloat16",
        )
    )
    problems, n, d = 64, 512, 16
    batched = {
        "modalign": modalign_step["modalign"],
        "loop of naive torch": _loop_of_naive,
        "batched torch": _batched_naive,
    }
    cases.append(
        Case(
            f"{problems} problems of {n} x {d}",
            lambda problems=problems, n=n, d=d: _pair(problems, n, d),
            batched,
            agree=_steps_agree,
            operations=8.0 * problems * n * n * d,
        )
    )
    n, d = 131072, 128
    cases.append(
        Case(
            f"{n} x {d}",
            lambda n=n, d=d: _pair(n, d),
            modalign_step,
            agree=_steps_agree,
            operations=8.0 * n * n * d,
            right=_has_exact_loss,
            rounds=1,
        )
    )
    return cases


def other_loss_cases() -> list[Case]:
    """Return cases of nt_xent, whose matrix is symmetric, and of sigmoid_loss."""
    n, d = 4096, 128
    return [
        Case(
            f"nt_xent, {n} x {d}",
            lambda: _pair(n, d),
            {"modalign": lambda x, y: _step(modalign.nt_xent, x, y), "naive torch": lambda x, y: _step(_nt_xent, x, y)},
            agree=_steps_agree,
            operations=4.0 * (2 * n) ** 2 * d,
        ),
        Case(
            f"sigmoid_loss, {n} x {d}",
            lambda: _pair(n, d),
            {
                "modalign": lambda x, y: _step(modalign.sigmoid_loss, x, y),
                "naive torch": lambda x, y: _step(_sigmoid_loss, x, y),
            },
            agree=_steps_agree,
            operations=8.0 * n * n * d,
        ),
    ]


def _pair(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, *shape, generator=generator).unbind()
    return x, 0.5 * x + y


def _modalign(x: Tensor, y: Tensor, workspace: int | None = None) -> Tensor:
    loss: Tensor = modalign.info_nce(x, y, temperature=TEMPERATURE, workspace=workspace)
    return loss


@functools.cache
def _compiled() -> Callable[[Tensor, Tensor], Tensor]:
    return torch.compile(_naive, dynamic=False)


def _nt_xent(x: Tensor, y: Tensor, temperature: float = 0.5) -> Tensor:
    z = F.normalize(torch.cat([x, y]), dim=-1)
    logits = (z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(x)))


def _sigmoid_loss(x: Tensor, y: Tensor, temperature: float = 0.1, bias: float = -10.0) -> Tensor:
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / temperature + bias
    return -F.logsigmoid((2 * torch.eye(len(x)) - 1) * logits).sum() / len(x)


def _in_float32(x: Tensor, y: Tensor) -> list[Tensor]:
    return _step(_modalign, x.float(), y.float())


def _has_exact_loss(x: Tensor, y: Tensor, result: list[Tensor]) -> bool:
    """Return whether the loss is within 1e-4 of that of float64."""
    return abs(float(result[0]) - _exact_loss(x, y)) < 1e-4


def _exact_loss(x: Tensor, y: Tensor, rows: int = 512) -> float:
    """Return the loss in float64, by blocks of rows."""
    left, right = (F.normalize(t.double(), dim=-1) for t in (x, y))
    n = len(left)
    total, columns = 0.0, torch.full((n,), -torch.inf, dtype=torch.float64)
    for start in range(0, n, rows):
        logits = left[start : start + rows] @ right.T / TEMPERATURE
        total += float((logits.logsumexp(1) / 2 - logits.diagonal(start)[: len(logits)]).sum())
        columns = torch.logaddexp(columns, logits.logsumexp(0))
    return (total + float(columns.sum()) / 2) / n


def _naive(x: Tensor, y: Tensor) -> Tensor:
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).mT / TEMPERATURE
    pairs = torch.arange(x.shape[-2])
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _step(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_(), y.detach().requires_grad_()]  # not copied, because memory is measured too
    value = loss(*leaves).sum()
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def _chunked_step(x: Tensor, y: Tensor, rows: int) -> list[Tensor]:
    """Return the loss and its gradients by blocks of rows in torch: a rival that does not store the matrix either."""
    leaves = [x.detach().requires_grad_(), y.detach().requires_grad_()]  # not copied, because memory is measured too
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


def _steps_agree(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max())) for a, b in zip(one, two, strict=True))


def _steps_roughly_agree(one: list[Tensor], two: list[Tensor]) -> bool:
    """Compare coarsely: naive torch in bfloat16 is off by 0.1 in the loss."""
    pairs = [(a.float(), b.float()) for a, b in zip(one, two, strict=True)]
    return all(torch.allclose(a, b, rtol=0.05, atol=0.05 * float(b.abs().max())) for a, b in pairs)
