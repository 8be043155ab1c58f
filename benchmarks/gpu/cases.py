"""What is measured on a GPU: losses with their gradients, and k-NN graphs, ours beside every peer that is installed.

memeff (with stable=False, so that its gradient is that of its loss), inf-cl (one direction of the softmax: called
twice), siglip-kernel and FlashLib are rivals where they can be imported, and so is torch: dense, compiled, and by
blocks of the vendor's matrix products. No answer is timed before it was checked.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign

TEMPERATURE, BIAS = 0.07, -10.0
SAMPLED = 64  # rows whose gradients or neighbours are compared with the definition
CLUSTER = 100  # rows near each other
BLOCK = 1 << 28  # logits of a block

Rivals = dict[str, Callable[..., Any]]
Step = tuple[Tensor, Tensor, Tensor]  # a loss, and its gradients


@dataclasses.dataclass(frozen=True)
class Case:
    """make(device): the inputs. rivals: name -> function of the inputs, ours is called "modalign". right(inputs,
    answer): what is wrong with ours, None if nothing. agree(inputs, answer, ours): the same of a rival's.

    operations: additions and multiplications of the products that the task is usually said to take. done: of the
    products that ours takes, where it is fewer.
    """

    name: str
    make: Callable[[torch.device], tuple[Tensor, ...]]
    rivals: Rivals
    right: Callable[[tuple[Tensor, ...], Any], str | None]
    agree: Callable[[tuple[Tensor, ...], Any, Any], str | None]
    operations: float
    done: float


def loss_cases(small: bool) -> list[Case]:
    """n, d, bytes of logits that may be kept, and whether rivals that store the matrix fit."""
    if small:
        return [_info_nce(256, 32, 0, True, small), _info_nce(256, 32, 1 << 20, True, small), _sigmoid(256, 32, small)]
    sizes = [
        (8192, 512, 0, True), (65536, 512, 0, False), (65536, 512, 1 << 35, False), (65536, 1024, 0, False),
        (1 << 20, 512, 0, False),
    ]  # fmt: skip
    return [*(_info_nce(*size, small) for size in sizes), _sigmoid(65536, 768, small)]


def knn_cases(small: bool) -> list[Case]:
    """n, d, k, queries: 0 for the graph of the rows themselves."""
    sizes = [(600, 32, 5, 0), (600, 32, 5, 100)] if small else [
        (100_000, 768, 10, 0), (100_000, 768, 100, 0), (100_000, 128, 10, 16_384), (1_000_000, 768, 10, 0),
    ]  # fmt: skip
    return [_knn(*size) for size in sizes]


# losses


def _info_nce(n: int, d: int, workspace: int, dense: bool, small: bool) -> Case:
    def ours(x: Tensor, y: Tensor, backend: str = "auto") -> Tensor:
        return modalign.info_nce(x, y, temperature=TEMPERATURE, workspace=workspace, backend=backend)

    rivals: Rivals = {"modalign": _stepping(ours)}
    if not workspace:  # which rivals do not have
        rivals["torch by blocks"] = _by_blocks
        if _installed("modalign._cuda") and not small:
            rivals["modalign, cuda backend"] = _stepping(functools.partial(ours, backend="cuda"))
        if dense:
            rivals["dense torch"] = _stepping(_dense)
            rivals["torch.compile"] = _stepping(torch.compile(_dense, dynamic=False))
        if not small:  # their kernels want a GPU
            rivals |= {name: _stepping(loss) for name, (package, loss) in LOSS_PEERS.items() if _installed(package)}
    kept = min(1.0, workspace / (4 * n * n))
    return Case(
        f"InfoNCE {n} x {d}" + (f", {workspace >> 20} MiB kept" if workspace else ""), functools.partial(_pairs, n, d),
        rivals, functools.partial(_is_true, _true_info_nce), _steps_agree, 8.0 * n * n * d,
        (8.0 - 2 * kept) * n * n * d,
    )  # fmt: skip


def _sigmoid(n: int, d: int, small: bool) -> Case:
    def ours(x: Tensor, y: Tensor) -> Tensor:
        return modalign.sigmoid_loss(x, y, temperature=TEMPERATURE, bias=BIAS)

    rivals: Rivals = {"modalign": _stepping(ours)}
    if small:
        rivals["dense torch"] = _stepping(_dense_sigmoid)
    elif _installed("siglip_kernel"):
        rivals["siglip-kernel"] = _stepping(_siglip_kernel)
    return Case(
        f"sigmoid loss {n} x {d}", functools.partial(_pairs, n, d), rivals,
        functools.partial(_is_true, _true_sigmoid), _steps_agree, 8.0 * n * n * d, 8.0 * n * n * d,
    )  # fmt: skip


def _pairs(n: int, d: int, device: torch.device) -> tuple[Tensor, ...]:
    """Pairs in clusters: negatives are a good part of the gradient, where unrelated rows make them a hundredth."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(rows: int) -> Tensor:
        return torch.randn(rows, d, generator=generator, device=device)

    centres = normal(max(1, n // CLUSTER))[torch.arange(n, device=device) % max(1, n // CLUSTER)]
    item = centres + normal(n) / 2
    return tuple((item + normal(n)).to(torch.bfloat16) for _ in "xy")


def _stepping(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Step]:
    def step(x: Tensor, y: Tensor) -> Step:
        leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
        value = loss(*leaves)
        dx, dy = torch.autograd.grad(value, leaves)
        return value.detach(), dx, dy

    return step


def _steps_agree(inputs: tuple[Tensor, ...], answer: Step, ours: Step) -> str | None:
    """A rival's loss, and the direction and length of its gradients. Rivals in bfloat16 are off by 0.1 in the loss."""
    if not abs(float(answer[0]) - float(ours[0])) <= 0.2:
        return f"the loss is {float(answer[0]):.4f}, ours {float(ours[0]):.4f}"
    for side, theirs, own in zip("xy", answer[1:], ours[1:], strict=True):
        one, two = theirs.float().flatten(), own.float().flatten()
        off = float((one - two).norm() / two.norm())
        if not off < 0.1:
            return f"the gradient of {side} is {off:.0%} off ours"
    return None


def _is_true(true: Callable[[Tensor, Tensor, Tensor], Step], inputs: tuple[Tensor, ...], answer: Step) -> str | None:
    """Our loss, and its gradients at some rows, against the definition on the rows rounded as ours are."""
    x, y = inputs
    drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[:SAMPLED].to(x.device)
    wanted, *gradients = true(x, y, drawn)
    if not abs(float(answer[0]) - float(wanted)) <= 1e-3:
        return f"the loss is {float(answer[0]):.5f}, that of the definition {float(wanted):.5f}"
    for side, found, gradient in zip("xy", answer[1:], gradients, strict=True):
        off = float((found[drawn].double() - gradient).norm() / gradient.norm())
        if not off < 0.02:  # weights and gradients are rounded to bfloat16
            return f"the gradient of {side} is {off:.1%} off that of the definition"
    return None


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1).to(rows.dtype)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """a b' of half-precision rows in float32, which holds their products exactly: by the vendor where it can."""
    return torch.mm(a, b.T, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float().T


def _logit_blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    step = max(1, BLOCK // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        yield rows, _products(x[rows], y).div_(TEMPERATURE)


def _log_sum_exps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of the rows and of the columns, in float64."""
    by_row, by_column = [], torch.full((len(y),), -math.inf, dtype=torch.float64, device=x.device)
    for _, logits in _logit_blocks(x, y):
        by_row.append(logits.logsumexp(1).double())
        by_column = torch.logaddexp(by_column, logits.logsumexp(0).double())
    return torch.cat(by_row), by_column


def _at_rows(weights: Tensor, others: Tensor, rows: Tensor) -> Tensor:
    """The gradient at rows before they were scaled to unit length, of weights dL/dS [rows, others]."""
    along = weights @ others.double() / TEMPERATURE
    unit = F.normalize(rows.double(), dim=1)
    return (along - unit * (unit * along).sum(1, keepdim=True)) / rows.double().norm(dim=1, keepdim=True)


def _true_info_nce(x: Tensor, y: Tensor, drawn: Tensor) -> Step:
    sides = (_unit(x), _unit(y))
    lses = _log_sum_exps(*sides)
    pairs = (sides[0].double() * sides[1].double()).sum(1) / TEMPERATURE
    loss = (lses[0] + lses[1] - 2 * pairs).mean() / 2
    gradients = []
    for rows, (own, other), (own_lse, other_lse) in ((x, sides, lses), (y, sides[::-1], lses[::-1])):
        logits = _products(own[drawn], other).double() / TEMPERATURE
        weights = (logits - own_lse[drawn, None]).exp() + (logits - other_lse).exp()
        weights[torch.arange(len(drawn), device=x.device), drawn] -= 2
        gradients.append(_at_rows(weights / (2 * len(x)), other, rows[drawn]))
    return (loss, *gradients)


def _true_sigmoid(x: Tensor, y: Tensor, drawn: Tensor) -> Step:
    sides = (_unit(x), _unit(y))
    pairs = (sides[0].double() * sides[1].double()).sum(1) / TEMPERATURE + BIAS
    loss = -pairs.sum()  # softplus(-s) = softplus(s) - s
    for _, logits in _logit_blocks(*sides):
        loss += F.softplus(logits.add_(BIAS)).sum(dtype=torch.float64)
    gradients = []
    for rows, (own, other) in ((x, sides), (y, sides[::-1])):
        weights = (_products(own[drawn], other).double() / TEMPERATURE + BIAS).sigmoid()
        weights[torch.arange(len(drawn), device=x.device), drawn] -= 1
        gradients.append(_at_rows(weights / len(x), other, rows[drawn]))
    return (loss / len(x), *gradients)


def _by_blocks(x: Tensor, y: Tensor) -> Step:
    """The floor: blocks of rows through the vendor's matrix products, what is between them by torch."""
    left, right = _unit(x), _unit(y)
    row_lse, col_lse = (lse.float() for lse in _log_sum_exps(left, right))
    along_x, along_y = torch.empty_like(x, dtype=torch.float32), torch.zeros_like(y, dtype=torch.float32)
    loss = (row_lse + col_lse).mean() / 2
    for rows, logits in _logit_blocks(left, right):
        loss -= logits.diagonal(rows.start).sum() / len(x)
        weights = (logits - row_lse[rows, None]).exp_().add_(logits.sub_(col_lse).exp_())
        weights.diagonal(rows.start).sub_(2)
        weights = weights.to(x.dtype)
        along_x[rows] = weights @ right
        along_y += weights.T @ left
    with torch.enable_grad():
        leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
        units = [F.normalize(leaf.float(), dim=-1) for leaf in leaves]
        scale = 1 / (2 * len(x) * TEMPERATURE)
        dx, dy = torch.autograd.grad(units, leaves, [along_x * scale, along_y * scale])
    return loss, dx, dy


def _dense(x: Tensor, y: Tensor) -> Tensor:
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / TEMPERATURE
    pairs = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _dense_sigmoid(x: Tensor, y: Tensor) -> Tensor:
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / TEMPERATURE + BIAS
    signs = 2 * torch.eye(len(x), dtype=logits.dtype, device=x.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(x)


def _memeff(x: Tensor, y: Tensor) -> Tensor:
    package = importlib.import_module("memeff")
    loss: Tensor = package.MemoryEfficientCLIPLoss(temperature=TEMPERATURE, stable=False)(x, y)
    return loss


def _inf_cl(x: Tensor, y: Tensor) -> Tensor:
    one_way = importlib.import_module("inf_cl").cal_flash_loss
    x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
    both: Tensor = one_way(x, y, scale=1 / TEMPERATURE).mean() + one_way(y, x, scale=1 / TEMPERATURE).mean()
    return both / 2


def _siglip_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Its temperature is the factor of the logits, given by its logarithm."""
    loss: Tensor = importlib.import_module("siglip_kernel").fused_siglip_loss(
        F.normalize(x, dim=-1), F.normalize(y, dim=-1), x.new_tensor(1 / TEMPERATURE, dtype=torch.float32).log(),
        x.new_tensor(BIAS, dtype=torch.float32),
    )  # fmt: skip
    return loss


LOSS_PEERS = {"memeff": ("memeff", _memeff), "inf-cl": ("inf_cl", _inf_cl)}


# graphs


def _knn(n: int, d: int, k: int, queries: int) -> Case:
    def make(device: torch.device) -> tuple[Tensor, ...]:
        generator = torch.Generator(device).manual_seed(0)
        centres = torch.randn(max(1, n // CLUSTER), d, generator=generator, device=device)
        near = torch.randint(len(centres), (n + queries,), generator=generator, device=device)
        rows = torch.empty(n + queries, d, dtype=torch.float16, device=device)
        for start in range(0, n + queries, 65536):
            part = centres[near[start : start + 65536]]
            part = part + torch.randn(part.shape, generator=generator, device=device)
            rows[start : start + len(part)] = F.normalize(part, dim=1)
        return (rows[:n], rows[n:]) if queries else (rows,)

    def ours(x: Tensor, q: Tensor | None = None, backend: str = "auto") -> Tensor:
        indices: Tensor = modalign.knn(x, k, queries=q, metric="dot", backend=backend).indices
        return indices

    rivals: Rivals = {"modalign": ours, "torch mm + topk": lambda x, q=None: _by_tiles(x, k, q)}
    if _installed("modalign._cuda"):
        rivals["modalign, cuda backend"] = functools.partial(ours, backend="cuda")
    if _installed("flashlib"):
        rivals["FlashLib"] = lambda x, q=None: _flashlib(x, k, q)
    what = f"{queries} queries in {n} x {d}" if queries else f"graph of {n} x {d}"
    operations = 2.0 * n * (queries or n) * d
    return Case(
        f"{what}, k = {k}", make, rivals, functools.partial(_is_exact, k=k), _graphs_agree, operations,
        operations if queries else operations / 2,  # one product serves both rows of a pair
    )  # fmt: skip


def _by_tiles(x: Tensor, k: int, queries: Tensor | None) -> Tensor:
    rows, found = x if queries is None else queries, []
    for start in range(0, len(rows), 4096):
        products = rows[start : start + 4096] @ x.T
        if queries is None:
            products[:, start : start + len(products)].fill_diagonal_(-torch.inf)
        found.append(products.topk(k).indices)
    return torch.cat(found)


def _flashlib(x: Tensor, k: int, queries: Tensor | None) -> Tensor:
    """FlashLib keeps the row itself: of k + 1 neighbours one is dropped. Unit rows: its distances order as products."""
    search = importlib.import_module("flashlib").flash_knn
    if queries is not None:
        found: Tensor = search(queries, x, k, return_distances=False).long()
        return found.reshape(-1, k)
    more = search(x, x, k + 1, return_distances=False).long().reshape(len(x), k + 1)
    itself = more == torch.arange(len(x), device=x.device)[:, None]
    itself[:, -1] |= ~itself.any(1)  # a duplicate took its place
    return more[~itself].reshape(len(x), k)


def _drawn(inputs: tuple[Tensor, ...]) -> Tensor:
    rows = inputs[-1]
    return torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:SAMPLED].to(rows.device)


def _is_exact(inputs: tuple[Tensor, ...], answer: Tensor, *, k: int) -> str | None:
    """Ours is that of float64 on a sample of rows, ties to the lower index."""
    x, rows, drawn = inputs[0], inputs[-1], _drawn(inputs)
    scores = rows[drawn].double() @ x.double().T
    if len(inputs) == 1:
        scores[torch.arange(len(drawn), device=x.device), drawn] = -torch.inf
    wanted = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    wrong = int((answer[drawn] != wanted).any(1).sum())
    return f"{wrong} of {len(drawn)} rows are not those of float64" if wrong else None


def _graphs_agree(inputs: tuple[Tensor, ...], answer: Tensor, ours: Tensor) -> str | None:
    """A rival holds 98 % of the sampled rows' neighbours."""
    drawn = _drawn(inputs)
    same = (answer[drawn][:, :, None] == ours[drawn][:, None]).any(2).double().mean()
    return None if same >= 0.98 else f"{float(same):.1%} of its neighbours are the true ones"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
