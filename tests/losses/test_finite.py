"""check_finite: NaN and inf raise an error, or pass through losses and gradients so that a scaler skips the step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modalign
from modalign import _core
from modalign.losses.drop_ins import ClipLoss, MultipleNegativesRankingLoss, NTXentLoss, info_nce_loss

N, D = 12, 8
CALLS: dict[str, Callable[..., Tensor]] = {
    "info_nce": modalign.info_nce,
    "x_to_y": lambda x, y, **more: modalign.info_nce(x, y, direction="x_to_y", **more),
    "groups": lambda x, y, **more: modalign.info_nce(
        x, y, groups=torch.arange(N) // 2, positives="out", label_smoothing=0.1, **more
    ),
    "candidates": lambda x, y, **more: modalign.info_nce(x, y, queue=y[:3], negatives=y[:, None], **more),
    "teacher": lambda x, y, **more: modalign.info_nce(x, y, teacher=(y, x, 0.5), margin=None, **more),
    "nt_xent": modalign.nt_xent,
    "sigmoid_loss": modalign.sigmoid_loss,
}
DROP_INS: dict[str, Callable[..., Tensor]] = {
    "ClipLoss": lambda x, y: ClipLoss()(x, y, 3.0),
    "NTXentLoss": NTXentLoss(),
    "bank": NTXentLoss(memory_bank_size=(5, D)),
    "ranking": lambda x, y: MultipleNegativesRankingLoss(nn.Identity()).compute_loss_from_embeddings([x, y]),
    "info_nce_loss": lambda x, y: info_nce_loss(x, y, y.flip(0)),
    "paired": lambda x, y: info_nce_loss(x, x, y[:, None], negative_mode="paired"),
}


def spoiled(value: float, dtype: torch.dtype, side: str) -> list[Tensor]:
    x, y = torch.randn(2, N, D).unbind()
    (x if side == "x" else y)[7, 3] = value
    return [x.to(dtype).requires_grad_(), y.to(dtype).requires_grad_()]


@pytest.mark.parametrize("isa", _core.isa_levels())
@pytest.mark.parametrize("loss", [*CALLS, *DROP_INS])
def test_float16_passes_nan_and_inf_on(loss: str, isa: str) -> None:
    before = _core.isa()
    _core.use_isa(isa)
    for value in (torch.nan, torch.inf, -torch.inf):
        for side in ("x", "y"):
            x, y = spoiled(value, torch.float16, side)
            result = (CALLS | DROP_INS)[loss](x, y)
            result.backward()
            assert not result.isfinite()
            assert not bool(x.grad.isfinite().all())
    _core.use_isa(before)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("backend", ["cpp", "torch", "reference"])
@pytest.mark.parametrize("loss", ["info_nce", "nt_xent", "sigmoid_loss"])
def test_no_loss_of_a_problem_with_nan_is_a_number(loss: str, backend: str, normalize: bool) -> None:
    """In plain torch NaN reaches every loss of its problem and no other problem."""
    options = {"normalize": normalize, "backend": backend, "check_finite": False}
    x, y = torch.randn(2, 3, N, D).unbind()
    y[1, 7, 3] = torch.nan
    x, y = x.requires_grad_(), y.requires_grad_()
    CALLS[loss](x, y, **options).nansum().backward()
    result = CALLS[loss](x, y, reduction="none", **options)
    result.sum().backward()
    finite = torch.tensor([True, False, True])
    assert result.isfinite().all(1).equal(finite)
    assert result.isnan().any(1).equal(~finite)
    for leaf in (x, y):
        assert leaf.grad.isfinite().flatten(1).all(1).equal(finite)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("loss", [*CALLS, *DROP_INS])
def test_other_dtypes_raise_on_the_cpu(loss: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="must be finite, got NaN or inf"):
        (CALLS | DROP_INS)[loss](*spoiled(torch.inf, dtype, "y"))


@pytest.mark.parametrize("loss", CALLS)
def test_the_choice_may_be_named(loss: str) -> None:
    with pytest.raises(ValueError, match="must be finite, got NaN or inf"):
        CALLS[loss](*spoiled(torch.inf, torch.float16, "x"), check_finite=True)
    assert not CALLS[loss](*spoiled(torch.inf, torch.float32, "x"), check_finite=False).isfinite()
    with pytest.raises(ValueError, match="check_finite must be 'auto', True or False, got 'never'"):
        CALLS[loss](*spoiled(0.0, torch.float32, "x"), check_finite="never")


def test_logits_out_of_range_follow_the_choice() -> None:
    x = torch.full((3, 2), 1e30)
    with pytest.raises(ValueError, match=r"logits overflow torch\.float32"):
        modalign.info_nce(x, x, normalize=False)
    assert not modalign.info_nce(x, x, normalize=False, check_finite=False).isfinite()


def test_a_temperature_that_is_not_positive_raises_in_float16_too() -> None:
    x = torch.randn(4, 3).half()
    with pytest.raises(ValueError, match=r"temperature must be positive and finite, got -1"):
        modalign.info_nce(x, x, temperature=torch.tensor(-1.0))


@pytest.mark.parametrize("loss", [modalign.InfoNCE, modalign.NTXent, modalign.SigmoidLoss])
def test_a_gradient_scaler_skips_the_step(loss: type[nn.Module]) -> None:
    torch.manual_seed(0)
    encoder, criterion = nn.Linear(6, D), loss(learnable=True)
    parameters = [*encoder.parameters(), *criterion.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = [parameter.detach().clone() for parameter in parameters]

    def step(rows: Tensor) -> Any:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            value = criterion(encoder(rows), encoder(rows + 0.1))
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        return value

    rows = torch.randn(N, 6)
    assert not step(1e6 * rows).isfinite()  # beyond float16
    assert scaler.get_scale() == 512.0
    assert all(map(torch.equal, parameters, before))
    assert step(rows).isfinite()
    assert scaler.get_scale() == 512.0
    assert not any(map(torch.equal, parameters, before))


def test_rows_that_are_not_finite_stay_out_of_the_memory_bank() -> None:
    loss = NTXentLoss(memory_bank_size=(5, D))
    x, y = spoiled(torch.nan, torch.float16, "y")
    loss(x[5:9], y[5:9])
    assert bool(loss.memory_bank.bank.isfinite().all())
    assert loss.memory_bank.bank_ptr.tolist() == [4]
