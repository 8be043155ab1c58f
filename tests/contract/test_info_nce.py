"""info_nce: every backend, dtype and shape against the float64 definition."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import modalign
from modalign.ops.info_nce import info_nce_backward, info_nce_forward
from modalign.reference import info_nce as reference
from tolerances import TOLERANCE, assert_close

pytestmark = pytest.mark.usefixtures("nan_filled_memory")

SHAPES = [(1, 1, 1), (1, 2, 1), (2, 7, 3), (1, 37, 53), (3, 33, 65), (1, 130, 17), (1, 5, 513), (1, 3, 4096)]
LARGE = [(1, 1153, 20), (2, 259, 300)]  # several stripes, several groups of columns
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def inputs(shape: tuple[int, int, int], dtype: torch.dtype, device: str, scale: float = 3.0) -> list[Tensor]:
    """Rows so long that logits reach tens and softmaxes are neither flat nor one-hot."""
    problems, _, d = shape
    x, y = ((torch.randn(shape, dtype=torch.float64) * scale / d**0.25).to(dtype).to(device) for _ in range(2))
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    return [x, y, torch.linspace(0.5, 2.0, problems, dtype=accumulator, device=device)]


def refuses(backend: str, dtype: torch.dtype, call: Callable[[], object]) -> bool:
    """Whether the backend does not take the dtype; if so, that it says so instead of answering."""
    if not (backend == "triton" and dtype == torch.float64):
        return False
    with pytest.raises(NotImplementedError, match=r"triton: dtype torch\.float64 \(takes"):
        call()
    return True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=str)
def test_forward_agrees_with_float64(
    backend: str, device: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, y, scale = inputs(shape, dtype, device)
    if refuses(backend, dtype, lambda: info_nce_forward(x, y, scale, backend)):
        return
    expected = reference.info_nce_forward(x.double(), y.double(), scale.double())
    largest = 1 + float((x.double().norm(dim=2) * y.double().norm(dim=2)).max() * scale.max())
    names = ("row_lse", "col_lse", "positive")
    for name, actual, wanted in zip(names, info_nce_forward(x, y, scale, backend), expected, strict=True):
        assert actual.dtype == scale.dtype
        assert_close(actual, wanted, largest, TOLERANCE[dtype].sums, name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=str)
def test_backward_agrees_with_float64(
    backend: str, device: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, y, scale = inputs(shape, dtype, device)
    if refuses(backend, dtype, lambda: info_nce_forward(x, y, scale, backend)):
        return
    grads = [torch.randn(shape[:2], dtype=scale.dtype, device=device) for _ in range(3)]
    exact = [t.double() for t in (x, y, scale)]
    lse = reference.info_nce_forward(*exact)[:2]
    dx, dy = reference.info_nce_backward(*(grad.double() for grad in grads), *exact, *lse)
    dscale = (exact[0] * dx).sum((1, 2)) / exact[2]
    row_lse, col_lse, _ = info_nce_forward(x, y, scale, backend)
    actual = info_nce_backward(*grads, x, y, scale, row_lse, col_lse, backend)
    # the temperature's gradient is a sum of n d terms of either sign: its error is relative to what it sums
    summed = float((exact[0] * dx).abs().sum((1, 2)).max()) / 0.5
    for name, got, wanted, size in (
        ("dx", actual[0], dx, float(dx.abs().max())),
        ("dy", actual[1], dy, float(dy.abs().max())),
        ("dscale", actual[2], dscale, summed),
    ):
        assert_close(got, wanted, size + 1e-300, TOLERANCE[dtype].gradient, name)
    assert (actual[0].dtype, actual[2].dtype) == (dtype, scale.dtype)


def test_the_reference_is_the_loss_of_the_papers() -> None:
    x, y = torch.randn(2, 19, 5, dtype=torch.float64).unbind()
    loss = modalign.info_nce(x, y, temperature=0.3, normalize=False, backend="reference")
    torch.testing.assert_close(loss, reference.info_nce(x, y, 1 / 0.3), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_gradients_are_those_of_dense_torch(backend: str, device: str, dtype: torch.dtype) -> None:
    x, y = (torch.randn(23, 9, dtype=torch.float64) for _ in range(2))
    temperature = torch.tensor(0.2, dtype=torch.float64)

    def gradients(function, dtype: torch.dtype, device: str) -> list[Tensor]:
        leaves = [t.to(dtype).to(device).requires_grad_() for t in (x, y, temperature)]
        loss = function(*leaves)
        return [loss.detach(), *torch.autograd.grad(loss * 0.37, leaves)]

    def dense(x: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
        logits = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(y).T / temperature
        pairs = torch.arange(len(x))
        cross_entropy = torch.nn.functional.cross_entropy
        return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2

    def fused(x: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
        return modalign.info_nce(x, y, temperature=temperature, backend=backend)

    if refuses(backend, dtype, lambda: gradients(fused, dtype, device)):
        return
    expected = gradients(dense, torch.float64, "cpu")
    for what, got, wanted in zip(
        ("loss", "dx", "dy", "dtemperature"), gradients(fused, dtype, device), expected, strict=True
    ):
        assert_close(got.cpu(), wanted, float(wanted.abs().max()), TOLERANCE[dtype].gradient, what)


def test_one_pair_has_loss_zero_and_no_gradient(backend: str, device: str) -> None:
    x = torch.randn(1, 5, device=device, requires_grad=True)
    loss = modalign.info_nce(x, torch.randn(1, 5, device=device), backend=backend)
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None
    assert float(x.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("temperature", [0.001, 0.01, 100.0])
def test_extreme_temperatures(backend: str, device: str, temperature: float) -> None:
    """At 0.001 logits reach 1,000: any fixed maximum but the row's own would underflow or overflow."""
    x, y = torch.randn(2, 41, 7, device=device).unbind()
    loss = modalign.info_nce(x, y, temperature=temperature, backend=backend)
    wanted = modalign.info_nce(x.double().cpu(), y.double().cpu(), temperature=temperature, backend="reference")
    assert_close(loss.cpu(), wanted, 1 + 1 / temperature, TOLERANCE[torch.float32].sums, "loss")


@pytest.mark.parametrize("norm", [1e-30, 1e-3, 1e3, 1e30])
def test_normalised_loss_does_not_depend_on_the_norm(backend: str, device: str, norm: float) -> None:
    x, y = torch.randn(2, 17, 6, device=device).unbind()
    torch.testing.assert_close(
        modalign.info_nce(norm * x, y, backend=backend), modalign.info_nce(x, y, backend=backend), rtol=1e-5, atol=0
    )


def test_leading_dimensions_are_independent_problems(backend: str, device: str) -> None:
    x, y = torch.randn(2, 2, 3, 11, 4, device=device).unbind()
    temperature = torch.tensor([[0.1], [0.5]], device=device)
    together = modalign.info_nce(x, y, temperature=temperature, backend=backend)
    assert together.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = modalign.info_nce(x[i, j], y[i, j], temperature=float(temperature[i, 0]), backend=backend)
            torch.testing.assert_close(together[i, j], alone, rtol=1e-6, atol=1e-6)


def test_reductions(backend: str, device: str) -> None:
    x, y = torch.randn(2, 2, 13, 4, device=device).unbind()
    each = modalign.info_nce(x, y, reduction="none", backend=backend)
    assert each.shape == (2, 13)
    torch.testing.assert_close(modalign.info_nce(x, y, backend=backend), each.mean(-1))
    torch.testing.assert_close(modalign.info_nce(x, y, reduction="sum", backend=backend), each.sum(-1))


def test_non_contiguous_inputs_and_gradients(backend: str, device: str) -> None:
    x = torch.randn(6, 10, device=device).T.requires_grad_()
    y = torch.randn(20, 6, device=device)[::2]
    modalign.info_nce(x, y, backend=backend).expand(3).sum().backward()
    copy = x.detach().contiguous().requires_grad_()
    (3 * modalign.info_nce(copy, y.contiguous(), backend=backend)).backward()
    torch.testing.assert_close(x.grad, copy.grad)


@pytest.mark.parametrize("n", [50, 1700])
def test_the_same_bits_for_every_number_of_threads(n: int) -> None:
    x, y = torch.randn(2, n, 24).unbind()
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        leaf = x.clone().requires_grad_()
        loss = modalign.info_nce(leaf, y, backend="cpp", reduction="none")
        loss.sum().backward()
        results.append((loss.detach(), leaf.grad))
    torch.set_num_threads(before)
    for loss, grad in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(grad, results[0][1])
