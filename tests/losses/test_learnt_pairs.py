"""Gradients stay accurate in every number format where pairs are learnt and the softmax and its target cancel."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign
from modalign.losses.drop_ins import MultipleNegativesRankingLoss

N, D = 64, 32
EACH = torch.arange(N)
TWINS = EACH // 2


def plain_nt_xent(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    z = torch.cat([x, y])
    logits = (z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(x)))


def plain(x: Tensor, y: Tensor, temperature: float, target: Tensor) -> Tensor:
    logits = x @ y.T / temperature
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


Losses = tuple[Callable[[Tensor, Tensor, float], Tensor], Callable[[Tensor, Tensor, float], Tensor]]
LOSSES: dict[str, Losses] = {
    "nt_xent": (
        lambda x, y, t: modalign.nt_xent(x, y, temperature=t, normalize=False),
        plain_nt_xent,
    ),
    "SupCon out, alone": (
        lambda x, y, t: modalign.info_nce(x, y, temperature=t, normalize=False, groups=EACH, positives="out"),
        lambda x, y, t: plain(x, y, t, torch.eye(N, dtype=torch.float64).to(x.dtype)),
    ),
    "smoothing": (
        lambda x, y, t: modalign.info_nce(x, y, temperature=t, normalize=False, label_smoothing=1e-4),
        lambda x, y, t: plain(x, y, t, ((1 - 1e-4) * torch.eye(N, dtype=torch.float64) + 1e-4 / N).to(x.dtype)),
    ),
    "ranking": (
        lambda x, y, t: MultipleNegativesRankingLoss(None, 1 / t, "dot_score").compute_loss_from_embeddings([x, y]),
        lambda x, y, t: F.cross_entropy(x @ y.T / t, EACH),
    ),
}  # fmt: skip


@pytest.mark.parametrize("temperature", [0.2, 0.07, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_learnt_pairs(loss: str, dtype: torch.dtype, temperature: float) -> None:
    """Gradients are as accurate as those of the loss in plain torch with sums in float32; losses go down to 1e-4."""
    ours, written_out = LOSSES[loss]
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    y = x + 0.3 * torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    stored = [F.normalize(rows, dim=-1).to(dtype) for rows in (x, y)]

    def gradient(function: Callable[[Tensor, Tensor, float], Tensor], wide: torch.dtype) -> Tensor:
        leaves = [rows.to(wide).requires_grad_() for rows in stored]
        grads = torch.autograd.grad(function(*leaves, temperature), leaves)
        return torch.cat(grads).double()

    exact = gradient(written_out, torch.float64)
    theirs = gradient(written_out, torch.float32).to(dtype).double()
    errors = [float((actual - exact).norm() / exact.norm()) for actual in (gradient(ours, dtype), theirs)]
    # one rounding of each result, and one of each weight where weights have the inputs' dtype
    assert errors[0] <= max(2 * errors[1], 2 * torch.finfo(dtype).eps), errors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_several_positives_and_teachers_of_learnt_pairs(dtype: torch.dtype) -> None:
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(0))[TWINS]
    y = x + 0.3 * torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    stored = [F.normalize(rows, dim=-1).to(dtype) for rows in (x, y)]
    teacher = stored[1]

    def gradient(wide: torch.dtype, backend: str, **options: Any) -> Tensor:
        leaves = [rows.to(wide).requires_grad_() for rows in stored]
        loss = modalign.info_nce(*leaves, temperature=0.07, normalize=False, backend=backend, **options)
        return torch.cat(torch.autograd.grad(loss, leaves)).double()

    for options in (
        lambda wide: {"groups": TWINS, "positives": "out"},
        lambda wide: {"teacher": (teacher.to(wide), teacher.to(wide), 0.07)},
    ):
        exact = gradient(torch.float64, "reference", **options(torch.float64))
        error = float((gradient(dtype, "auto", **options(dtype)) - exact).norm() / exact.norm())
        assert error <= max(2 * torch.finfo(dtype).eps, 1e-5)


def test_losses_of_learnt_pairs_are_not_negative() -> None:
    x = F.normalize(torch.randn(200, 16), dim=-1)
    each = modalign.nt_xent(x, x + 1e-3 * torch.randn(200, 16), temperature=0.01, reduction="none")
    assert float(each.min()) >= 0
    ranking = MultipleNegativesRankingLoss(None, 1000.0, directions=("query_to_doc", "doc_to_query"))
    assert float(ranking.compute_loss_from_embeddings([x, x])) >= 0


def test_autocast_leaves_the_drop_ins_their_positives() -> None:
    """Under autocast torch's vecdot would round the positives to bfloat16, beside pools in float32."""
    x = torch.randn(256, 64)
    y = x + 0.3 * torch.randn(256, 64)
    loss = MultipleNegativesRankingLoss(None)
    wanted = loss.compute_loss_from_embeddings([x, y])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss.compute_loss_from_embeddings([x, y]), wanted, rtol=1e-4, atol=0)
