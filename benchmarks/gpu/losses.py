"""The losses that are measured on a GPU, with their gradients, and their rivals.

The rivals are torch (dense, compiled, and by blocks of the vendor's matrix products) and, where they are installed,
memeff (with stable=False, so that its gradient is that of its loss), inf-cl (one direction of the softmax, so it is
called twice) and siglip-kernel.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign
from benchmarks.gpu.cases import CLUSTER, Case, Rivals, is_installed, sample_rows
from modalign.distributed import Sharding

__all__ = ["TEMPERATURE", "loss_cases"]

TEMPERATURE, BIAS = 0.07, -10.0
BLOCK_LOGITS = 1 << 28  # logits computed at a time

Step = tuple[Tensor, Tensor, Tensor]  # a loss and its gradients


def loss_cases(small: bool) -> list[Case]:
    """Return the cases of the losses, with their gradients; ``small`` ones for a machine without a GPU."""
    if small:
        return [_info_nce(256, 32, dense=True), _info_nce(256, 32, dense=True, workspace=1 << 20), _sigmoid(256, 32)]
    return [
        _info_nce(8192, 512, dense=True, on_gpu=True),
        _info_nce(65536, 512, on_gpu=True),
        _info_nce(65536, 512, workspace=1 << 35, on_gpu=True),
        _info_nce(65536, 1024, on_gpu=True),
        _info_nce(1 << 20, 512, on_gpu=True),
        _sigmoid(65536, 768, on_gpu=True),
    ]


def _info_nce(n: int, d: int, *, dense: bool = False, workspace: int = 0, on_gpu: bool = False) -> Case:
    """Return a case of info_nce on n pairs of d features.

    Args:
        n: the number of pairs.
        d: the number of features.
        dense: whether rivals that store the n x n matrix fit in memory.
        workspace: bytes of logits that our call may store; rivals have no such option and are not measured with it.
        on_gpu: whether rivals whose kernels need a GPU are measured.
    """

    def modalign_loss(x: Tensor, y: Tensor, backend: str = "auto") -> Tensor:
        return modalign.info_nce(x, y, temperature=TEMPERATURE, workspace=workspace, backend=backend)

    def sharded_loss(x: Tensor, y: Tensor) -> Tensor:
        sharding = Sharding("world", sizes="even", check="first")
        return modalign.info_nce(x, y, temperature=TEMPERATURE, process_group=sharding)

    rivals: Rivals = {"modalign": _with_gradients(modalign_loss)}
    if not workspace:
        rivals["modalign, as the only rank"] = _with_gradients(sharded_loss)
        rivals["torch by blocks"] = _by_blocks
        if is_installed("modalign._cuda") and on_gpu:
            rivals["modalign, cuda backend"] = _with_gradients(functools.partial(modalign_loss, backend="cuda"))
        if dense:
            rivals["dense torch"] = _with_gradients(_dense)
            rivals["torch.compile"] = _with_gradients(torch.compile(_dense, dynamic=False))
        if on_gpu:
            peers = {name: loss for name, (package, loss) in LOSS_PEERS.items() if is_installed(package)}
            rivals |= {name: _with_gradients(loss) for name, loss in peers.items()}
    stored = min(1.0, workspace / (4 * n * n))
    return Case(
        f"InfoNCE {n} x {d}" + (f", {workspace >> 20} MiB kept" if workspace else ""),
        functools.partial(_pairs, n, d),
        rivals,
        find_error=functools.partial(_step_error, _true_info_nce),
        find_difference=_step_difference,
        operations=8.0 * n * n * d,
        done=(8.0 - 2 * stored) * n * n * d,
    )


def _sigmoid(n: int, d: int, *, on_gpu: bool = False) -> Case:
    """Return a case of sigmoid_loss on n pairs of d features."""

    def modalign_loss(x: Tensor, y: Tensor) -> Tensor:
        return modalign.sigmoid_loss(x, y, temperature=TEMPERATURE, bias=BIAS)

    rivals: Rivals = {"modalign": _with_gradients(modalign_loss)}
    if not on_gpu:
        rivals["dense torch"] = _with_gradients(_dense_sigmoid)
    elif is_installed("siglip_kernel"):
        rivals["siglip-kernel"] = _with_gradients(_siglip_kernel)
    return Case(
        f"sigmoid loss {n} x {d}",
        functools.partial(_pairs, n, d),
        rivals,
        find_error=functools.partial(_step_error, _true_sigmoid),
        find_difference=_step_difference,
        operations=8.0 * n * n * d,
        done=8.0 * n * n * d,
    )


def _pairs(n: int, d: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return pairs in clusters, whose negatives matter: with unrelated rows they are a hundredth of the gradient."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(rows: int) -> Tensor:
        return torch.randn(rows, d, generator=generator, device=device)

    centres = normal(max(1, n // CLUSTER))[torch.arange(n, device=device) % max(1, n // CLUSTER)]
    item = centres + normal(n) / 2
    return tuple((item + normal(n)).to(torch.bfloat16) for _ in "xy")


def _with_gradients(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Step]:
    """Return a function that computes the loss and its gradients."""

    def step(x: Tensor, y: Tensor) -> Step:
        leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
        value = loss(*leaves)
        dx, dy = torch.autograd.grad(value, leaves)
        return value.detach(), dx, dy

    return step


def _step_difference(inputs: tuple[Tensor, ...], result: Step, ours: Step) -> str | None:
    """Compare the loss of a rival and its gradients with ours; rivals in bfloat16 are off by 0.1 in the loss."""
    if not abs(float(result[0]) - float(ours[0])) <= 0.2:
        return f"the loss is {float(result[0]):.4f}, ours {float(ours[0]):.4f}"
    for side, theirs, wanted in zip("xy", result[1:], ours[1:], strict=True):
        error = float((theirs.float() - wanted.float()).norm() / wanted.float().norm())
        if not error < 0.1:
            return f"the gradient of {side} is {error:.0%} off ours"
    return None


def _step_error(
    definition: Callable[[Tensor, Tensor, Tensor], Step], inputs: tuple[Tensor, ...], result: Step
) -> str | None:
    """Compare our loss, and its gradients at a sample of rows, with the definition on rows rounded as ours are."""
    x, y = inputs
    sample = sample_rows(x)
    wanted, *gradients = definition(x, y, sample)
    if not abs(float(result[0]) - float(wanted)) <= 1e-3:
        return f"the loss is {float(result[0]):.5f}, that of the definition {float(wanted):.5f}"
    for side, gradient, wanted_gradient in zip("xy", result[1:], gradients, strict=True):
        error = float((gradient[sample].double() - wanted_gradient).norm() / wanted_gradient.norm())
        if not error < 0.02:  # weights and gradients are rounded to bfloat16
            return f"the gradient of {side} is {error:.1%} off that of the definition"
    return None


def _unit(rows: Tensor) -> Tensor:
    """Return the rows at unit length, in their dtype."""
    return F.normalize(rows.float(), dim=-1).to(rows.dtype)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return a b' of half-precision rows in float32, by the vendor's matrix product on a GPU."""
    return torch.mm(a, b.T, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float().T


def _logit_blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of rows and their logits, about BLOCK_LOGITS at a time."""
    step = max(1, BLOCK_LOGITS // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        yield rows, _products(x[rows], y).div_(TEMPERATURE)


def _log_sum_exps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exps of the rows and of the columns in float64."""
    by_row, by_column = [], torch.full((len(y),), -math.inf, dtype=torch.float64, device=x.device)
    for _, logits in _logit_blocks(x, y):
        by_row.append(logits.logsumexp(1).double())
        by_column = torch.logaddexp(by_column, logits.logsumexp(0).double())
    return torch.cat(by_row), by_column


def _row_gradients(weights: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Return the gradients of rows before they are scaled to unit length, from weights dL/dS [rows, columns]."""
    unit_gradient = weights @ columns.double() / TEMPERATURE
    unit = F.normalize(rows.double(), dim=1)
    radial = unit * (unit * unit_gradient).sum(1, keepdim=True)
    return (unit_gradient - radial) / rows.double().norm(dim=1, keepdim=True)


def _true_info_nce(x: Tensor, y: Tensor, sample: Tensor) -> Step:
    """Return info_nce's loss and its gradients at a sample of rows, in float64."""
    sides = (_unit(x), _unit(y))
    lses = _log_sum_exps(*sides)
    pairs = (sides[0].double() * sides[1].double()).sum(1) / TEMPERATURE
    loss = (lses[0] + lses[1] - 2 * pairs).mean() / 2
    gradients = []
    for rows, (left, right), (left_lse, right_lse) in ((x, sides, lses), (y, sides[::-1], lses[::-1])):
        logits = _products(left[sample], right).double() / TEMPERATURE
        weights = (logits - left_lse[sample, None]).exp() + (logits - right_lse).exp()
        weights[torch.arange(len(sample), device=x.device), sample] -= 2
        gradients.append(_row_gradients(weights / (2 * len(x)), right, rows[sample]))
    return (loss, *gradients)


def _true_sigmoid(x: Tensor, y: Tensor, sample: Tensor) -> Step:
    """Return sigmoid_loss and its gradients at a sample of rows, in float64."""
    sides = (_unit(x), _unit(y))
    pairs = (sides[0].double() * sides[1].double()).sum(1) / TEMPERATURE + BIAS
    loss = -pairs.sum()  # softplus(-s) = softplus(s) - s
    for _, logits in _logit_blocks(*sides):
        loss += F.softplus(logits.add_(BIAS)).sum(dtype=torch.float64)
    gradients = []
    for rows, (left, right) in ((x, sides), (y, sides[::-1])):
        weights = (_products(left[sample], right).double() / TEMPERATURE + BIAS).sigmoid()
        weights[torch.arange(len(sample), device=x.device), sample] -= 1
        gradients.append(_row_gradients(weights / len(x), right, rows[sample]))
    return (loss / len(x), *gradients)


def _by_blocks(x: Tensor, y: Tensor) -> Step:
    """Return the loss and its gradients by blocks of rows, with the vendor's matrix products and torch between them."""
    left, right = _unit(x), _unit(y)
    row_lse, col_lse = (lse.float() for lse in _log_sum_exps(left, right))
    unit_dx, unit_dy = torch.empty_like(x, dtype=torch.float32), torch.zeros_like(y, dtype=torch.float32)
    loss = (row_lse + col_lse).mean() / 2
    for rows, logits in _logit_blocks(left, right):
        loss -= logits.diagonal(rows.start).sum() / len(x)
        weights = (logits - row_lse[rows, None]).exp_().add_(logits.sub_(col_lse).exp_())
        weights.diagonal(rows.start).sub_(2)
        weights = weights.to(x.dtype)
        unit_dx[rows] = weights @ right
        unit_dy += weights.T @ left
    with torch.enable_grad():
        leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
        units = [F.normalize(leaf.float(), dim=-1) for leaf in leaves]
        scale = 1 / (2 * len(x) * TEMPERATURE)
        dx, dy = torch.autograd.grad(units, leaves, [unit_dx * scale, unit_dy * scale])
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
    """Call siglip-kernel, whose temperature is the logarithm of the factor of the logits."""
    fused_loss = importlib.import_module("siglip_kernel").fused_siglip_loss
    log_scale = x.new_tensor(1 / TEMPERATURE, dtype=torch.float32).log()
    bias = x.new_tensor(BIAS, dtype=torch.float32)
    loss: Tensor = fused_loss(F.normalize(x, dim=-1), F.normalize(y, dim=-1), log_scale, bias)
    return loss


LOSS_PEERS = {"memeff": ("memeff", _memeff), "inf-cl": ("inf_cl", _inf_cl)}
