"""The info_nce kernels where the contract suite does not look: ranges, boundaries, determinism."""

import pytest
import torch
from torch import Tensor

from modalign.kernels.info_nce import info_nce_backward, info_nce_forward
from modalign.reference import info_nce as reference

HALF = (torch.float16, torch.bfloat16)


def pairs(n: int, d: int, dtype: torch.dtype, b: int = 1) -> tuple[Tensor, Tensor]:
    return tuple(torch.nn.functional.normalize(torch.randn(b, n, d), dim=-1).to(dtype) for _ in range(2))


def loss_gradients(n: int, b: int = 1) -> list[Tensor]:
    """What the mean of the symmetric loss sends back."""
    return [torch.full((b, n), 0.5 / n), torch.full((b, n), 0.5 / n), torch.full((b, n), -1.0 / n)]


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_the_same_bits_twice(dtype: torch.dtype) -> None:
    x, y = pairs(71, 20, dtype, b=2)
    scale = torch.tensor([5.0, 20.0])
    first, second = (info_nce_forward(x, y, scale) for _ in range(2))
    assert all(map(torch.equal, first, second))
    once, twice = (info_nce_backward(*loss_gradients(71, 2), x, y, scale, *first[:2]) for _ in range(2))
    assert all(map(torch.equal, once, twice))


@pytest.mark.parametrize("n", [31, 32, 33, 64, 65])
def test_exchanging_the_modalities_exchanges_the_results(n: int) -> None:
    """Around the edges of a tile; one kernel serves both sides, so the bits are the same."""
    x, y = pairs(n, 9, torch.float32)
    scale = torch.tensor([7.0])
    row_lse, col_lse, positive = info_nce_forward(x, y, scale)
    swapped = info_nce_forward(y, x, scale)
    assert torch.equal(row_lse, swapped[1])
    assert torch.equal(col_lse, swapped[0])
    assert torch.equal(positive, swapped[2])
    assert bool((row_lse >= positive).all() & (col_lse >= positive).all())


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_one_pair_has_loss_zero_and_no_gradient(dtype: torch.dtype, scale: float) -> None:
    x, y = pairs(1, 37, dtype)
    row_lse, col_lse, positive = info_nce_forward(x, y, torch.tensor([scale]))
    assert torch.equal((row_lse + col_lse) / 2 - positive, torch.zeros(1, 1))
    dx, dy = info_nce_backward(*loss_gradients(1), x, y, torch.tensor([scale]), row_lse, col_lse)
    assert float(dx.abs().max()) == 0
    assert float(dy.abs().max()) == 0


@pytest.mark.parametrize("size", [1e-4, 6e4])
def test_float16_at_the_ends_of_its_range(size: float) -> None:
    """Logits of -4e9 .. 4e9 have one-hot softmaxes; tiny inputs have flat ones. Neither may overflow or vanish."""
    x, y = (torch.where(torch.rand(1, 9, 3) < 0.5, -size, size).half() for _ in range(2))
    scale = torch.ones(1)
    got = info_nce_forward(x, y, scale)
    expected = reference.info_nce_forward(x.double(), y.double(), scale)
    for actual, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(actual.double(), wanted, rtol=3e-7, atol=3e-7)
    grads = info_nce_backward(*loss_gradients(9), x, y, scale, *got[:2])
    assert all(bool(grad.isfinite().all()) for grad in grads)


@pytest.mark.parametrize("size", [1e-25, 1e-9, 1.0, 1e9])
def test_float16_gradients_are_linear_in_what_comes_back(size: float) -> None:
    """A weight below 6e-8 would be lost in float16, one above 65,504 infinite, were they not scaled first."""
    x, y = pairs(40, 16, torch.float16)
    scale = torch.tensor([3.0])
    lse = info_nce_forward(x, y, scale)[:2]
    expected = info_nce_backward(*loss_gradients(40), x, y, scale, *lse)
    scaled = info_nce_backward(*(size * grad for grad in loss_gradients(40)), x, y, scale, *lse)
    for actual, wanted in zip(scaled, expected, strict=True):
        torch.testing.assert_close(
            actual.double() / size, wanted.double(), rtol=0, atol=2e-3 * float(wanted.abs().max())
        )


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float16, 2**-10), (torch.bfloat16, 2**-7)], ids=str)
def test_half_precision_gradients_lose_one_rounding_of_the_weights(dtype: torch.dtype, rounding: float) -> None:
    """Two half-units of the dtype, relative to the largest entry; d = 300 takes more than one block of features."""
    x, y = pairs(45, 300, dtype)
    scale = torch.tensor([10.0])
    exact = [x.double(), y.double(), scale.double()]
    lse = info_nce_forward(x, y, scale)[:2]
    expected = reference.info_nce_backward(*(g.double() for g in loss_gradients(45)), *exact, *lse)
    for actual, wanted in zip(info_nce_backward(*loss_gradients(45), x, y, scale, *lse), expected, strict=True):
        torch.testing.assert_close(actual.double(), wanted, rtol=0, atol=rounding * float(wanted.abs().max()))


def test_no_gradient_comes_from_none() -> None:
    x, y = pairs(5, 4, torch.float16)
    lse = info_nce_forward(x, y, torch.ones(1))[:2]
    dx, dy = info_nce_backward(*3 * [torch.zeros(1, 5)], x, y, torch.ones(1), *lse)
    assert torch.equal(dx, torch.zeros(1, 5, 4))
    assert torch.equal(dy, torch.zeros(1, 5, 4))


@pytest.mark.parametrize("b", [0, 1])
def test_shapes_come_back_as_they_went_in(b: int) -> None:
    """Widths are padded inside, and no problem at all is no error."""
    x, y = pairs(3, 5, torch.bfloat16, b=b)
    row_lse, col_lse, _ = info_nce_forward(x, y, torch.ones(b))
    dx, dy = info_nce_backward(*loss_gradients(3, b), x, y, torch.ones(b), row_lse, col_lse)
    assert row_lse.shape == (b, 3)
    assert dx.shape == dy.shape == (b, 3, 5)
    assert dx.dtype == torch.float32
    assert dx.is_contiguous()
