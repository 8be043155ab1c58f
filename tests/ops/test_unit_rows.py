"""unit_rows: rows of length one for every size, with derivatives, under every transform."""

import pytest
import torch
from torch import Tensor

from modalign.ops.unit_rows import unit_rows


def exact(x: Tensor) -> Tensor:
    """Return the rows divided by their norms, in float64."""
    wide = x.double()
    largest = wide.abs().amax(-1, keepdim=True)
    rows = wide / torch.where(largest > 0, largest, 1.0)
    norm = rows.norm(dim=-1, keepdim=True)
    return rows / torch.where(norm > 0, norm, 1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 15), (40, 16), (5, 1000)])
def test_rows_of_every_size_have_length_one(dtype: torch.dtype, n: int, d: int) -> None:
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max / 8
    for scale in (1.0, tiny, huge):
        x = (torch.randn(n, d, dtype=torch.float64).clamp(-4, 4) * scale).to(dtype)
        unit = unit_rows(x)
        assert unit.dtype == dtype
        assert torch.allclose(unit.double(), exact(x), rtol=0, atol=4 * torch.finfo(dtype).eps), scale


def test_a_zero_row_stays_zero_and_hands_its_gradient_on() -> None:
    x = torch.zeros(2, 20, requires_grad=True)
    unit = unit_rows(x)
    assert not unit.any()
    grad = torch.randn(2, 20)
    assert torch.equal(torch.autograd.grad(unit, x, grad)[0], grad)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_derivatives(scale: float) -> None:
    x = (torch.randn(3, 2, 33, dtype=torch.float64) * scale).requires_grad_()
    grad = torch.randn(3, 2, 33, dtype=torch.float64)
    (ours,) = torch.autograd.grad(unit_rows(x), x, grad)
    (theirs,) = torch.autograd.grad(x / x.norm(dim=-1, keepdim=True), x, grad)
    assert torch.allclose(ours * scale, theirs * scale, rtol=1e-12, atol=1e-14)
    if scale == 1.0:
        assert torch.autograd.gradcheck(unit_rows, x)
        assert torch.autograd.gradgradcheck(unit_rows, x)


def test_transforms() -> None:
    x = torch.randn(4, 5, 6)
    batched = torch.func.vmap(unit_rows, in_dims=1, out_dims=1)(x)
    assert torch.equal(batched, unit_rows(x))

    def loss(rows: Tensor) -> Tensor:
        return (unit_rows(rows) ** 3).sum()

    gradient = torch.func.vmap(torch.func.grad(loss))(x)
    y = x.clone().requires_grad_()
    assert torch.allclose(gradient, torch.autograd.grad(loss(y), y)[0], atol=1e-6)
    assert torch.equal(torch.compile(unit_rows, fullgraph=True)(x), unit_rows(x))
