"""Properties of the sigmoid_loss kernels beyond the contract tests: schedules, small losses, determinism."""

import pytest
import torch
from torch import Tensor

from flat_losses import FlatLosses
from modalign.kernels.losses import products
from modalign.kernels.losses import sigmoid_loss as module
from modalign.reference import info_nce as definition

reference, kernels = FlatLosses(definition), FlatLosses(module)
sigmoid_loss_forward, sigmoid_loss_backward = kernels.sigmoid_loss_forward, kernels.sigmoid_loss_backward
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# relative to the largest entry: float32 sums of at most 100 terms, and one rounding of the weights
PRODUCT_ERROR = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}
# losses and slopes are sums of float32 numbers, whose logits, at most 40, have errors of a few roundings
SUM_ERROR = 5e-6
SIZES = [(1, 1, 5), (37, 53, 19), (5, 70, 40), (64, 64, 300)]


def tables(
    n: int, m: int, d: int, dtype: torch.dtype = torch.float32, *, bias: float = -1.0, ids: bool = False, b: int = 2
) -> list[Tensor | None]:
    """Return x, y, logit_scale, bias, row_id and col_id."""
    x, y = (torch.nn.functional.normalize(torch.randn(b, size, d), dim=-1).to(dtype) for size in (n, m))
    row_id, col_id = (torch.randint(-1, 4, (b, size)) for size in (n, m)) if ids else (None, None)
    return [x, y, 1 + 9 * torch.rand(b, n), torch.full((b,), bias), row_id, col_id]


def assert_near(actual: Tensor, wanted: Tensor, error: float) -> None:
    assert actual.shape == wanted.shape
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, wanted, rtol=0, atol=error * float(wanted.abs().max()) + 1e-30)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit blocks to 32 rows and 32 columns, so that small problems have several."""
    monkeypatch.setattr(products, "BAND_BYTES", 4096)
    monkeypatch.setattr(products, "BAND_ROWS", 32)
    monkeypatch.setattr(products, "ALIGNMENT", 32)


@pytest.mark.parametrize("bias", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("ids", [False, True], ids=["", "ids"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_losses_agree_with_the_reference(size: tuple[int, int, int], ids: bool, bias: float) -> None:
    call = tables(*size, bias=bias, ids=ids)
    assert_near(sigmoid_loss_forward(*call), reference.sigmoid_loss_forward(*call), SUM_ERROR)


def test_small_losses_keep_their_digits() -> None:
    """log(1 + e) is e and not 0 where 1 + e rounds to 1, so that 60 losses of 2e-9 add up."""
    x, y, scale, bias, *_ = tables(60, 60, 8)
    ids = torch.arange(120).view(1, 120).expand(2, 120)
    call = [x, y, scale / 100, bias - 19, ids[:, :60], ids[:, 60:]]
    wanted = reference.sigmoid_loss_forward(*call)
    assert float(wanted.max()) < 1e-6
    torch.testing.assert_close(sigmoid_loss_forward(*call), wanted, rtol=SUM_ERROR, atol=0)


@pytest.mark.parametrize("name", ["fused", "banded"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("ids", [False, True], ids=["", "ids"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.usefixtures("small_blocks")
def test_gradients_of_every_schedule_agree_with_the_reference(
    size: tuple[int, int, int], ids: bool, dtype: torch.dtype, name: str
) -> None:
    call = [torch.randn(2, size[0]), *tables(*size, dtype, ids=ids), True, True]
    dx, dy, slope = sigmoid_loss_backward(*call, schedule=name)
    wanted = reference.sigmoid_loss_backward(*call)
    assert_near(dx, wanted[0], PRODUCT_ERROR[dtype])
    assert_near(dy, wanted[1], PRODUCT_ERROR[dtype])
    assert_near(slope, wanted[2], SUM_ERROR)  # sums of unrounded weights


@pytest.mark.parametrize("name", ["fused", "banded"])
def test_gradients_that_are_not_needed_are_not_computed(name: str) -> None:
    call = [torch.randn(2, 33), *tables(33, 40, 9, torch.float16)]
    both = sigmoid_loss_backward(*call, True, True, schedule=name)
    for need_x, need_y in ((True, False), (False, True), (False, False)):
        dx, dy, slope = sigmoid_loss_backward(*call, need_x, need_y, schedule=name)
        torch.testing.assert_close(slope, both[2])
        assert torch.equal(dx, both[0] if need_x else both[0][:, :0])
        assert torch.equal(dy, both[1] if need_y else both[1][:, :0])


@pytest.mark.parametrize("name", ["fused", "banded"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_two_calls_give_the_same_bits(dtype: torch.dtype, name: str) -> None:
    call = [torch.randn(2, 70), *tables(70, 71, 20, dtype), True, True]
    once, twice = (sigmoid_loss_backward(*call, schedule=name) for _ in range(2))
    assert all(map(torch.equal, once, twice))
    assert torch.equal(sigmoid_loss_forward(*call[1:7]), sigmoid_loss_forward(*call[1:7]))


@pytest.mark.parametrize("name", ["fused", "banded"])
def test_an_empty_batch_is_no_error(name: str) -> None:
    call = tables(3, 4, 5, b=0)
    assert sigmoid_loss_forward(*call).shape == (0, 3)
    shapes = [grad.shape for grad in sigmoid_loss_backward(torch.zeros(0, 3), *call, True, True, schedule=name)]
    assert shapes == [(0, 3, 5), (0, 4, 5), (0, 3)]


def test_the_stored_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="sigmoid_loss_backward: schedule 'stored' needs logits"):
        sigmoid_loss_backward(torch.zeros(2, 3), *tables(3, 4, 5), True, True, schedule="stored")
