"""Losses under torch.compile and torch.export: one graph serves every batch size; and transforms that are refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import modalign
from modalign.losses.drop_ins import ClipLoss, MultipleNegativesRankingLoss, NTXentLoss, info_nce, info_nce_loss
from modalign.losses.drop_ins.sentence_transformers import DIRECTIONS
from modalign.ops import unit_rows

D = 8
SIZES = (24, 7, 2, 8, 33, 100)  # two rows, as many as features, as the queue and the bank have


def with_rows(**options: Callable[[Tensor], Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return info_nce with options that depend on the rows."""
    return lambda x, y: modalign.info_nce(x, y, **{name: make(x) for name, make in options.items()})


def ranking(**options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    loss = MultipleNegativesRankingLoss(nn.Identity(), **options)
    return lambda x, y: loss.compute_loss_from_embeddings([x, y, y + 1])


def mates(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0]) // 2


CLIP = ClipLoss()
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "InfoNCE": modalign.InfoNCE(learnable=True),
    "NTXent": modalign.NTXent(learnable=True),
    "SigmoidLoss": modalign.SigmoidLoss(learnable=True),
    "groups": with_rows(groups=mates),
    "groups out": with_rows(groups=mates, positives=lambda _: "out", weights=lambda x: torch.ones(x.shape[0])),
    "candidates": with_rows(queue=lambda _: torch.ones(33, D), negatives=lambda x: x[:, None] + 1),
    "ignore": with_rows(ignore=lambda x: torch.arange(x.shape[0]) == 1, margin=lambda _: 0.1),
    "sigmoid groups": lambda x, y: modalign.sigmoid_loss(x, y, groups=mates(x)),
    "ClipLoss": lambda x, y: CLIP(x, y, torch.tensor(3.0)),
    "NTXentLoss": NTXentLoss(),
    "bank": NTXentLoss(memory_bank_size=(33, D)),
    "ranking": ranking(),
    "ranking in all directions": ranking(directions=DIRECTIONS, hardness_mode="all_negatives", hardness_strength=2.0),
    "info_nce of info-nce-pytorch": info_nce,
    "info_nce_loss": lambda x, y: info_nce_loss(x, y, torch.ones(33, D)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_one_graph_serves_every_batch_size(loss: str) -> None:
    torch._dynamo.reset()
    backend = CompileCounterWithBackend("eager")
    compiled = torch.compile(LOSSES[loss], fullgraph=True, backend=backend, dynamic=True)
    first = 0
    for n in SIZES:
        x, y = torch.randn(2, n, D).unbind()
        bank = LOSSES[loss].bank.clone() if loss == "bank" else None
        value = compiled(x.requires_grad_(), y)
        if bank is None:
            torch.testing.assert_close(value, LOSSES[loss](x.detach(), y), rtol=1e-5, atol=1e-6)
        else:
            torch.testing.assert_close(value, info_nce_loss(x, y, bank, temperature=0.5), rtol=1e-5, atol=1e-6)
        # a float that the compiler first takes for a variable may start the first compilation again
        first = backend.frame_count if n == SIZES[0] else first
        assert backend.frame_count == first <= 2


class Module(nn.Module):
    """A loss as a module, for torch.export."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(x, y)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "bank"])
def test_exports_with_a_dynamic_batch(loss: str) -> None:
    rows = {0: torch.export.Dim("n")}
    module = Module(LOSSES[loss])
    example = (torch.randn(9, D, requires_grad=True), torch.randn(9, D))
    program = torch.export.export(module, example, dynamic_shapes=(rows, rows)).module()
    for n in (2, 33, 2100):  # 2100: the logits exceed what is kept for the backward pass
        x, y = torch.randn(2, n, D).unbind()
        torch.testing.assert_close(program(x, y), module(x, y), rtol=1e-5, atol=1e-5)


def test_opcheck_unit_rows() -> None:
    for dtype in (torch.float64, torch.float16):
        x = torch.randn(4, 3).to(dtype).requires_grad_()
        torch.library.opcheck(unit_rows.forward_operator, (x,))
        _, size, norm = unit_rows.forward_operator(x)
        grad = torch.randn(4, 3).to(dtype).requires_grad_()
        torch.library.opcheck(unit_rows.backward_operator, (grad, x, size.detach(), norm.detach()))


FUNCTIONS = (modalign.info_nce, modalign.nt_xent, modalign.sigmoid_loss)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_forward_mode_is_refused_with_what_works(function: Callable[..., Tensor], normalize: bool) -> None:
    x, y, v = torch.randn(3, 5, 3, dtype=torch.float64).unbind()

    def loss(x: Tensor) -> Tensor:
        return function(x, y, normalize=normalize)

    for forward in (
        lambda: torch.func.jvp(loss, (x,), (v,)),
        lambda: torch.func.jacfwd(loss)(x),
        lambda: torch.func.hessian(loss)(x),
        lambda: torch.autograd.gradcheck(loss, x.clone().requires_grad_(), check_forward_ad=True),
    ):
        with pytest.raises(NotImplementedError, match=r"no forward-mode .* torch\.func\.jacrev\(torch\.func\.jacrev"):
            forward()
    hessian = torch.func.jacrev(torch.func.jacrev(loss))(x)
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(loss, x))
    _, derivative = torch.autograd.functional.jvp(loss, x, v)
    torch.testing.assert_close(derivative, (torch.func.grad(loss)(x) * v).sum())


def test_a_loss_that_is_differentiated_already_has_no_transforms() -> None:
    x, y = torch.randn(2, 5, 3).unbind()
    with pytest.raises(NotImplementedError, match="stats='gradient' differentiates at once"):
        torch.func.grad(lambda x: modalign.info_nce(x, y, stats="gradient")[0])(x)


@pytest.mark.parametrize("module", [modalign.InfoNCE, modalign.NTXent, modalign.SigmoidLoss])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_tracing_is_refused_with_what_works(module: type[nn.Module]) -> None:
    with pytest.raises(NotImplementedError, match=r"Use torch\.export\.export, with dynamic_shapes"):
        torch.jit.trace(module(), tuple(torch.randn(2, 5, 3).unbind()))
