"""What is measured on a GPU: losses with their gradients, and k-NN graphs, ours beside every peer that is installed.

memeff (with stable=False, so that its gradient is that of its loss), inf-cl (one direction of the softmax: called
twice), siglip-kernel and FlashLib are rivals where they can be imported; no answer is timed before it was checked.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign

TEMPERATURE, BIAS = 0.07, -10.0
SAMPLED = 64  # rows of a graph that are compared with float64

Rivals = dict[str, Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Case:
    """make(device): the inputs. rivals: name -> function of the inputs, ours is called "modalign". agree(inputs, name,
    answer, ours): what is wrong with a rival's answer (or with ours), None if nothing. operations: additions and
    multiplications of the products that the task needs."""

    name: str
    make: Callable[[torch.device], tuple[Tensor, ...]]
    rivals: Rivals
    agree: Callable[[tuple[Tensor, ...], str, Any, Any], str | None]
    operations: float


def loss_cases(small: bool) -> list[Case]:
    """n, d, bytes of logits that may be kept, and whether rivals that store the matrix fit."""
    kept = 1 << 20 if small else 1 << 35
    sizes = [(256, 32, 0, True), (256, 32, kept, True)] if small else [
        (8192, 512, 0, True), (65536, 512, 0, False), (65536, 512, kept, False), (65536, 1024, 0, False),
        (1 << 20, 512, 0, False),
    ]  # fmt: skip
    losses = [_loss(*size, small) for size in sizes]
    return [*losses, _sigmoid(*((256, 32) if small else (65536, 768)), small)]


def knn_cases(small: bool) -> list[Case]:
    """n, d, k, queries: 0 for the graph of the rows themselves."""
    sizes = [(600, 32, 5, 0), (600, 32, 5, 100)] if small else [
        (100_000, 768, 10, 0), (100_000, 768, 100, 0), (100_000, 128, 10, 16_384), (1_000_000, 768, 10, 0),
    ]  # fmt: skip
    return [_knn(*size) for size in sizes]


# losses


def _loss(n: int, d: int, workspace: int, dense: bool, small: bool) -> Case:
    def ours(x: Tensor, y: Tensor, workspace: int = workspace, backend: str = "auto") -> Tensor:
        return modalign.info_nce(x, y, temperature=TEMPERATURE, workspace=workspace, backend=backend)

    losses: Rivals = {"modalign": ours}
    if n <= 65536:  # the floor: the same blocks through the vendor's matrix products
        losses["modalign, torch backend"] = functools.partial(ours, workspace=0, backend="torch")
    if _installed("modalign._cuda") and not (workspace or small):
        losses["modalign, cuda backend"] = functools.partial(ours, backend="cuda")
    if dense:
        losses |= {"dense torch": _dense, "torch.compile": torch.compile(_dense, dynamic=False)}
    if not small:  # their kernels want a GPU
        losses |= {name: make() for name, (package, make) in LOSS_PEERS.items() if _installed(package)}
    return Case(
        f"InfoNCE {n} x {d}" + (f", {workspace >> 20} MiB kept" if workspace else ""),
        functools.partial(_pairs, n, d),
        {name: functools.partial(_step, loss) for name, loss in losses.items()},
        functools.partial(_losses_agree, tolerance=0.2),  # rivals in bfloat16 are off by 0.1 in the loss
        8.0 * n * n * d,
    )


def _sigmoid(n: int, d: int, small: bool) -> Case:
    def ours(x: Tensor, y: Tensor) -> Tensor:
        return modalign.sigmoid_loss(x, y, temperature=TEMPERATURE, bias=BIAS)

    losses: Rivals = {"modalign": ours}
    if not small and _installed("siglip_kernel"):
        peer = importlib.import_module("siglip_kernel").fused_siglip_loss
        losses["siglip-kernel"] = lambda x, y: peer(
            F.normalize(x, dim=-1), F.normalize(y, dim=-1), x.new_tensor(TEMPERATURE, dtype=torch.float32).log(),
            x.new_tensor(BIAS, dtype=torch.float32),
        )  # fmt: skip
    if small:
        losses["dense torch"] = _dense_sigmoid
    return Case(
        f"sigmoid loss {n} x {d}", functools.partial(_pairs, n, d),
        {name: functools.partial(_step, loss) for name, loss in losses.items()},
        functools.partial(_losses_agree, tolerance=0.2), 8.0 * n * n * d,
    )  # fmt: skip


def _pairs(n: int, d: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(2, n, d, generator=generator, device=device).to(torch.bfloat16).unbind()


def _step(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    value = loss(*leaves)
    return (value.detach(), *torch.autograd.grad(value, leaves))


def _losses_agree(
    inputs: tuple[Tensor, ...], name: str, answer: tuple[Tensor, ...], ours: tuple[Tensor, ...], *, tolerance: float
) -> str | None:
    """A rival's loss, and the direction and length of its gradients."""
    if not abs(float(answer[0]) - float(ours[0])) <= tolerance:
        return f"the loss is {float(answer[0]):.4f}, ours {float(ours[0]):.4f}"
    for side, theirs, own in zip("xy", answer[1:], ours[1:], strict=True):
        one, two = theirs.float().flatten(), own.float().flatten()
        off = float((one - two).norm() / two.norm())
        if not off < 0.1:
            return f"the gradient of {side} is {off:.0%} off ours"
    return None


def _dense(x: Tensor, y: Tensor) -> Tensor:
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / TEMPERATURE
    pairs = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _dense_sigmoid(x: Tensor, y: Tensor) -> Tensor:
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / TEMPERATURE + BIAS
    signs = 2 * torch.eye(len(x), dtype=logits.dtype, device=x.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(x)


def _memeff() -> Callable[[Tensor, Tensor], Tensor]:
    loss: Callable[[Tensor, Tensor], Tensor] = importlib.import_module("memeff").MemoryEfficientCLIPLoss(
        temperature=TEMPERATURE, stable=False
    )
    return loss


def _inf_cl() -> Callable[[Tensor, Tensor], Tensor]:
    one_way = importlib.import_module("inf_cl").cal_flash_loss

    def loss(x: Tensor, y: Tensor) -> Tensor:
        x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
        both: Tensor = one_way(x, y, scale=1 / TEMPERATURE).mean() + one_way(y, x, scale=1 / TEMPERATURE).mean()
        return both / 2

    return loss


LOSS_PEERS = {"memeff": ("memeff", _memeff), "inf-cl": ("inf_cl", _inf_cl)}


# graphs


def _knn(n: int, d: int, k: int, queries: int) -> Case:
    def make(device: torch.device) -> tuple[Tensor, ...]:
        generator = torch.Generator(device).manual_seed(0)
        centres = torch.randn(max(1, n // 100), d, generator=generator, device=device)
        near = torch.randint(len(centres), (n + queries,), generator=generator, device=device)
        rows = torch.empty(n + queries, d, dtype=torch.float16, device=device)
        for start in range(0, n + queries, 65536):
            part = centres[near[start : start + 65536]]
            part = part + torch.randn(part.shape, generator=generator, device=device)
            rows[start : start + len(part)] = F.normalize(part, dim=1)
        return (rows[:n], rows[n:]) if queries else (rows,)

    rivals: Rivals = {
        "modalign": lambda x, q=None: modalign.knn(x, k, queries=q, metric="dot").indices,
        "torch mm + topk": lambda x, q=None: _by_tiles(x, k, q),
    }
    if _installed("modalign._cuda"):
        rivals["modalign, cuda backend"] = lambda x, q=None: (
            modalign.knn(x, k, queries=q, metric="dot", backend="cuda").indices
        )
    if _installed("flashlib"):
        search = importlib.import_module("flashlib").flash_knn
        rivals["FlashLib"] = lambda x, q=None: _without_itself(search, x, k, q)
    what = f"{queries} queries in {n} x {d}" if queries else f"graph of {n} x {d}"
    pairs = n * (queries or n)
    return Case(f"{what}, k = {k}", make, rivals, functools.partial(_graphs_agree, k=k), 2.0 * pairs * d)


def _by_tiles(x: Tensor, k: int, queries: Tensor | None) -> Tensor:
    rows, found = x if queries is None else queries, []
    for start in range(0, len(rows), 4096):
        products = rows[start : start + 4096] @ x.T
        if queries is None:
            products[:, start : start + len(products)].fill_diagonal_(-torch.inf)
        found.append(products.topk(k).indices)
    return torch.cat(found)


def _without_itself(search: Callable[..., Any], x: Tensor, k: int, queries: Tensor | None) -> Tensor:
    """FlashLib keeps the row itself: of k + 1 neighbours one is dropped. Unit rows: its distances order as products."""
    if queries is not None:
        found: Tensor = search(queries, x, k, return_distances=False).long()
        return found.reshape(-1, k)
    more = search(x, x, k + 1, return_distances=False).long().reshape(len(x), k + 1)
    itself = more == torch.arange(len(x), device=x.device)[:, None]
    itself[:, -1] |= ~itself.any(1)  # a duplicate took its place
    return more[~itself].reshape(len(x), k)


def _graphs_agree(inputs: tuple[Tensor, ...], name: str, answer: Tensor, ours: Tensor, *, k: int) -> str | None:
    """Ours is that of float64 on a sample of rows, ties to the lower index; a rival holds 98 % of it."""
    x = inputs[0]
    rows = x if len(inputs) == 1 else inputs[1]
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:SAMPLED].to(x.device)
    if name == "modalign":
        scores = rows[drawn].double() @ x.double().T
        if len(inputs) == 1:
            scores[torch.arange(len(drawn), device=x.device), drawn] = -torch.inf
        wanted = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
        wrong = int((ours[drawn] != wanted).any(1).sum())
        return f"{wrong} of {len(drawn)} rows are not those of float64" if wrong else None
    if name.startswith("modalign"):
        wrong = int((answer != ours).any(1).sum())
        return f"{wrong} rows are not those of the other backend" if wrong else None
    same = (answer[drawn][:, :, None] == ours[drawn][:, None]).any(2).double().mean()
    return None if same >= 0.98 else f"{float(same):.1%} of its neighbours are the true ones"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
