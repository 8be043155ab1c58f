"""info_nce, nt_xent and sigmoid_loss: every option on every backend agrees with the loss written out in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import dense
import modalign
from losses.info_nce_options import GROUPS, IGNORED, OPTIONS, D, N, converted
from modalign.common import deterministic
from modalign.reference import info_nce as reference
from tolerances import TOLERANCE, assert_close, refuses

pytestmark = pytest.mark.usefixtures("nan_filled_memory")


def compare(
    ours: Callable[..., Tensor], written_out: Callable[..., Tensor], leaves: dict[str, Tensor], dtype: torch.dtype,
    device: str,
) -> None:  # fmt: skip
    """Compare the loss and its gradient at each leaf, of our function in ``dtype`` and of the definition in float64."""

    def results(function: Callable[..., Tensor], dtype: torch.dtype, device: str) -> list[Tensor]:
        inputs = {name: leaf.to(dtype).to(device).requires_grad_() for name, leaf in leaves.items()}
        loss = function(**inputs)
        return [
            loss.detach().cpu(),
            *(grad.cpu() for grad in torch.autograd.grad((loss * 0.37).sum(), list(inputs.values()))),
        ]

    expected = results(written_out, torch.float64, "cpu")
    for name, actual, wanted in zip(["loss", *leaves], results(ours, dtype, device), expected, strict=True):
        assert_close(actual, wanted, float(wanted.abs().max()) + 1e-300, TOLERANCE[dtype].gradient, name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_the_loss_written_out(
    loss_backend: str, device: str, option: str, reduction: str, dtype: torch.dtype
) -> None:
    settings: dict[str, Any] = {"temperature": 0.2, "reduction": reduction} | OPTIONS[option]
    x, y = torch.randn(2, N, D, dtype=torch.float64).unbind()
    leaves = {"x": x, "y": 0.5 * x + y}
    leaves |= {name: settings.pop(name) for name in ("negatives", "queue") if name in settings}
    leaves["temperature"] = torch.as_tensor(settings.pop("temperature"), dtype=torch.float64)
    inputs = {name: converted(value, dtype, device) for name, value in settings.items()}

    def ours(**leaves: Tensor) -> Tensor:
        return modalign.info_nce(**leaves, **inputs, backend=loss_backend)

    if not refuses(loss_backend, dtype, lambda: ours(**{name: leaf.to(device) for name, leaf in leaves.items()})):
        compare(ours, lambda **leaves: dense.info_nce(**leaves, **settings), leaves, dtype, device)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("settings", [{}, {"reduction": "sum"}, {"reduction": "none"}, {"normalize": False}], ids=str)
def test_nt_xent_is_the_loss_written_out(
    loss_backend: str, device: str, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    x, y = torch.randn(2, N, D, dtype=torch.float64).unbind()
    leaves = {"x": x, "y": x + 0.5 * y, "temperature": torch.tensor(0.4, dtype=torch.float64)}

    def ours(**leaves: Tensor) -> Tensor:
        return modalign.nt_xent(**leaves, **settings, backend=loss_backend)

    if not refuses(loss_backend, dtype, lambda: ours(**{name: leaf.to(device) for name, leaf in leaves.items()})):
        compare(ours, lambda **leaves: dense.nt_xent(**leaves, **settings), leaves, dtype, device)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    "settings",
    [{}, {"reduction": "none"}, {"groups": GROUPS}, {"ignore": IGNORED}, {"groups": GROUPS, "ignore": IGNORED}],
    ids=lambda settings: " ".join(settings) or "plain",
)  # fmt: skip
def test_sigmoid_loss_is_the_loss_written_out(
    loss_backend: str, device: str, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    x, y = torch.randn(2, N, D, dtype=torch.float64).unbind()
    leaves = {"x": x, "y": x + 0.5 * y, "temperature": torch.tensor(0.3), "bias": torch.tensor(-1.5)}
    leaves = {name: leaf.double() for name, leaf in leaves.items()}
    inputs = {name: converted(value, dtype, device) for name, value in settings.items()}

    def ours(**leaves: Tensor) -> Tensor:
        return modalign.sigmoid_loss(**leaves, **inputs, backend=loss_backend)

    if not refuses(loss_backend, dtype, lambda: ours(**{name: leaf.to(device) for name, leaf in leaves.items()})):
        compare(ours, lambda **leaves: dense.sigmoid_loss(**leaves, **settings), leaves, dtype, device)


@pytest.mark.parametrize("option", ["plain", "queue", "SupCon out", "margin"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(loss_backend: str, device: str, option: str, dtype: torch.dtype) -> None:
    """The loss agrees with the definition for the stored rows, but for one more rounding of normalised rows."""
    settings: dict[str, Any] = {"temperature": 0.5} | OPTIONS[option]
    x, y = (t.to(dtype) for t in torch.randn(2, N, D, dtype=torch.float64).unbind())
    inputs = {name: converted(value, dtype, device) for name, value in settings.items()}
    exact = {name: converted(converted(value, dtype, "cpu"), torch.float64, "cpu") for name, value in settings.items()}
    exact = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in exact.items()
    }
    leaf = x.to(device, copy=True).requires_grad_()
    loss = modalign.info_nce(leaf, y.to(device), **inputs, backend=loss_backend)
    loss.backward()
    twin = x.double().requires_grad_()
    wanted = dense.info_nce(twin, y.double(), **exact)
    wanted.backward()
    unit_rounding = torch.finfo(dtype).eps
    assert loss.dtype == torch.float32
    assert leaf.grad.dtype == dtype
    assert_close(loss.detach().cpu(), wanted.detach(), 1 / 0.5, unit_rounding, "loss")
    assert_close(leaf.grad.cpu(), twin.grad, float(twin.grad.abs().max()), 4 * unit_rounding, "dx")


def test_the_reference_is_the_loss_of_the_papers() -> None:
    x, y = torch.randn(2, 19, 5, dtype=torch.float64).unbind()
    loss = modalign.info_nce(x, y, temperature=0.3, normalize=False, backend="reference")
    torch.testing.assert_close(loss, reference.info_nce(x, y, 1 / 0.3), rtol=1e-13, atol=0)


def test_a_small_loss_is_right_to_the_last_digits(loss_backend: str, device: str) -> None:
    """Pairs are so close that the loss is 1e-17; a difference of log-sum-exp and positive would be 0."""
    x = torch.eye(3, device=device)
    loss = modalign.info_nce(x, x, temperature=1 / 40, backend=loss_backend)
    assert abs(loss.item() / (2 * 4.248354255291589e-18) - 1) < 1e-4


def test_a_frozen_side_changes_nothing_on_the_other(loss_backend: str, device: str) -> None:
    x, y = torch.randn(2, 31, 6, device=device).unbind()
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    modalign.info_nce(*leaves, backend=loss_backend).backward()
    for side in (0, 1):
        inputs = [x, y]
        inputs[side] = inputs[side].clone().requires_grad_()
        modalign.info_nce(*inputs, backend=loss_backend).backward()
        assert torch.equal(inputs[side].grad, leaves[side].grad)


def test_one_pair_has_loss_zero_and_no_gradient(loss_backend: str, device: str) -> None:
    x = torch.randn(1, 5, device=device, requires_grad=True)
    loss = modalign.info_nce(x, torch.randn(1, 5, device=device), backend=loss_backend)
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None
    assert float(x.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("temperature", [0.001, 0.01, 100.0])
def test_extreme_temperatures(loss_backend: str, device: str, temperature: float) -> None:
    """At 0.001 logits reach 1,000, where any shift but the maximum of the row underflows or overflows."""
    x, y = torch.randn(2, 41, 7, device=device).unbind()
    loss = modalign.info_nce(x, y, temperature=temperature, backend=loss_backend)
    wanted = modalign.info_nce(x.double().cpu(), y.double().cpu(), temperature=temperature, backend="reference")
    assert_close(loss.cpu(), wanted, 1 + 1 / temperature, TOLERANCE[torch.float32].sums, "loss")


@pytest.mark.parametrize("norm", [1e-30, 1e-3, 1e3, 1e30])
def test_normalised_loss_does_not_depend_on_the_norm(loss_backend: str, device: str, norm: float) -> None:
    x, y = torch.randn(2, 17, 6, device=device).unbind()
    torch.testing.assert_close(
        modalign.info_nce(norm * x, y, backend=loss_backend),
        modalign.info_nce(x, y, backend=loss_backend),
        rtol=1e-5,
        atol=0,
    )


def test_leading_dimensions_are_independent_problems(loss_backend: str, device: str) -> None:
    x, y = torch.randn(2, 2, 3, 11, 4, device=device).unbind()
    temperature = torch.tensor([[0.1], [0.5]], device=device)
    together = modalign.info_nce(x, y, temperature=temperature, backend=loss_backend)
    assert together.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            single = modalign.info_nce(x[i, j], y[i, j], temperature=float(temperature[i, 0]), backend=loss_backend)
            torch.testing.assert_close(together[i, j], single, rtol=1e-6, atol=1e-6)


def test_reductions(loss_backend: str, device: str) -> None:
    x, y = torch.randn(2, 2, 13, 4, device=device).unbind()
    each = modalign.info_nce(x, y, reduction="none", backend=loss_backend)
    assert each.shape == (2, 13)
    torch.testing.assert_close(modalign.info_nce(x, y, backend=loss_backend), each.mean(-1))
    torch.testing.assert_close(modalign.info_nce(x, y, reduction="sum", backend=loss_backend), each.sum(-1))


def test_duplicates_are_within_any_margin(loss_backend: str, device: str) -> None:
    """A tie counts, whatever the rounding of its two inner products."""
    x, y = torch.randn(2, 40, 24, device=device).unbind()
    y[1::2] = y[::2]
    settings = {"temperature": 0.1, "direction": "x_to_y", "reduction": "none", "backend": loss_backend}
    below, tie, above = (modalign.info_nce(x, y, margin=margin, **settings) for margin in (-1e-5, 0.0, 1e-5))
    torch.testing.assert_close(tie, above)
    assert float((tie - below).min()) > 0.01


def test_a_margin_may_leave_nothing(loss_backend: str, device: str) -> None:
    x = torch.eye(4, device=device, requires_grad=True)
    more = {"queue": x.detach()[:2], "negatives": x.detach()[:, None], "direction": "x_to_y"}
    loss, stats = modalign.info_nce(x, x.detach(), margin=-3.0, stats=True, backend=loss_backend, **more)
    assert loss.item() == stats.effective_negatives.item() == 0
    (gradient,) = torch.autograd.grad(loss + stats.x_lse.sum(), x)
    assert bool(gradient.isfinite().all())


def test_ignored_rows_may_hold_anything(loss_backend: str, device: str) -> None:
    x, y, teacher = torch.randn(3, N, D, device=device).unbind()
    ignored = IGNORED.to(device)
    negatives = torch.randn(N, 2, D, device=device)
    for call in (
        lambda x, y, t, h: modalign.info_nce(x, y, ignore=ignored, negatives=h, backend=loss_backend),
        lambda x, y, t, h: modalign.info_nce(x, y, ignore=ignored, teacher=(t, t, 0.3), backend=loss_backend),
        lambda x, y, t, h: modalign.sigmoid_loss(x, y, ignore=ignored, normalize=False, backend=loss_backend),
    ):
        tables = [x.clone().requires_grad_(), y.clone(), teacher.clone(), negatives.clone()]
        wanted = call(*tables)
        spoiled = [table.detach().clone() for table in tables]
        for table, value in zip(spoiled, (torch.nan, torch.inf, torch.nan, 3e38), strict=True):
            table[ignored] = value
        spoiled[0].requires_grad_()
        results = call(*spoiled)
        assert torch.equal(results, wanted)
        assert torch.equal(
            *(torch.autograd.grad(loss, leaf[0])[0] for loss, leaf in ((results, spoiled), (wanted, tables)))
        )


@pytest.mark.parametrize("weight", [1e-42, 1e-30, 3e38])
def test_the_size_of_the_weights_makes_no_difference(loss_backend: str, device: str, weight: float) -> None:
    x, y = torch.randn(2, N, D, device=device).unbind()
    weights = torch.full((N,), weight, device=device)
    loss = modalign.info_nce(x, y, weights=weights, backend=loss_backend)
    torch.testing.assert_close(loss, modalign.info_nce(x, y, backend=loss_backend))


def test_logits_far_above_the_first_ones_do_not_overflow() -> None:
    """Rows and columns with sums of similar size share an exponential, also beside thousands of larger entries."""
    one, two = torch.eye(2)
    x, y = two.repeat(8000, 1), one.repeat(8000, 1)
    x[12:800], y[:256] = one, -one
    results = [modalign.info_nce(x, y, temperature=0.025006, backend=backend) for backend in ("cpp", "torch")]
    torch.testing.assert_close(*results, rtol=1e-6, atol=0)


def test_second_derivatives_where_an_anchor_has_no_negatives() -> None:
    x, y = torch.randn(2, 4, 3, dtype=torch.float64).unbind()
    one_group = torch.zeros(4, dtype=torch.long)
    for options in (
        {"groups": one_group, "label_smoothing": 0.1},
        {"groups": one_group, "teacher": (y, y, 0.1)},
        {"groups": one_group, "positives": "in"},
        {"margin": -3.0, "queue": y[:1]},
    ):

        def loss(x: Tensor, y: Tensor, options: dict[str, Any] = options) -> Tensor:
            value, stats = modalign.info_nce(x, y, temperature=0.5, stats=True, **options)
            return value + stats.x_lse.sum()

        leaves = [t.clone().requires_grad_() for t in (x, y)]
        assert torch.autograd.gradgradcheck(loss, leaves), options


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_a_tensor_with_one_element_is_a_number(shape: tuple[int, ...]) -> None:
    x, y = torch.randn(2, 3, 7, 4).unbind()
    value = torch.full(shape, 0.5)
    for loss in (modalign.info_nce, modalign.nt_xent, modalign.sigmoid_loss):
        assert torch.equal(loss(x, y, temperature=value), loss(x, y, temperature=0.5))
    assert torch.equal(modalign.sigmoid_loss(x, y, bias=-value), modalign.sigmoid_loss(x, y, bias=-0.5))


def test_tensors_without_values_give_shapes() -> None:
    x, y = torch.empty(2, 3, 7, 4, device="meta").unbind()
    assert modalign.info_nce(x, y).shape == modalign.nt_xent(x, y).shape == modalign.sigmoid_loss(x, y).shape == (3,)
    with FakeTensorMode():
        x, y = torch.empty(2, 7, 4).unbind()
        more = {"weights": torch.ones(7), "ignore": torch.zeros(7).bool(), "negatives": torch.empty(7, 2, 4)}
        assert modalign.info_nce(x, y, **more).shape == ()


def test_a_bias_may_be_a_variable_of_the_compiler() -> None:
    x, y = torch.randn(2, 7, 4).unbind()
    compiled = torch.compile(modalign.sigmoid_loss, backend="eager", dynamic=True, fullgraph=True)
    torch.testing.assert_close(compiled(x, y, bias=-3.0), modalign.sigmoid_loss(x, y, bias=-3.0))


def test_non_contiguous_inputs_and_gradients(loss_backend: str, device: str) -> None:
    x = torch.randn(6, 10, device=device).T.requires_grad_()
    y = torch.randn(20, 6, device=device)[::2]
    modalign.info_nce(x, y, backend=loss_backend).expand(3).sum().backward()
    copy = x.detach().contiguous().requires_grad_()
    (3 * modalign.info_nce(copy, y.contiguous(), backend=loss_backend)).backward()
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


def test_the_same_bits_beyond_what_torch_does_in_one_piece() -> None:
    """Beyond 32,768 elements, which torch divides among its threads, the bits stay the same."""
    before = torch.get_num_threads()
    values = torch.linspace(-30, 30, 200_003)
    x, y = torch.randn(2, 17_000, 2).unbind()
    many = torch.randn(2, 37, 1001, 4)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaf = values.clone().requires_grad_()
        (slope,) = torch.autograd.grad(deterministic.softplus(leaf).sum(), leaf)
        sums = [
            deterministic.sum_rows(deterministic.softplus(table))
            for table in (values[None], values[:200_000].reshape(5, -1))
        ]
        losses = [modalign.nt_xent(x, y), *(modalign.info_nce(*many, reduction=how) for how in ("mean", "none"))]
        results.append([slope, *sums, *losses])
    torch.set_num_threads(before)
    for one, other in ((results[0], results[1]), (results[0], results[2])):
        assert all(map(torch.equal, one, other))
