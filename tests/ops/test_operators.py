"""The operators keep torch's contracts: schema, fake, gradient, compilation; and refusals give reasons."""

import importlib
import importlib.util
import pkgutil

import pytest
import torch
from torch import Tensor

import modalign
import modalign.ops as modalign_ops
from modalign.ops import dispatch
from modalign.ops.info_nce import backward_operator, forward_operator
from modalign.ops.loss_tables import LossTables, WeightTables
from modalign.ops.neighbor_overlap import neighbor_overlap
from modalign.ops.sigmoid_loss import backward_operator as sigmoid_backward
from modalign.ops.sigmoid_loss import forward_operator as sigmoid_forward

LOSSES = {"info_nce": modalign.info_nce, "nt_xent": modalign.nt_xent, "sigmoid_loss": modalign.sigmoid_loss}


@pytest.mark.parametrize("name", ["cpp", "torch", "reference"])
@pytest.mark.parametrize("full", [False, True])
def test_opcheck_losses(name: str, full: bool) -> None:
    """Schemas, aliasing, shapes of fake tensors and tracing are right without any option and with all options."""
    x, y, scale = torch.randn(2, 5, 3), torch.randn(2, 5 - full, 3), torch.rand(2, 5) + 0.5
    ids = [torch.randint(0, 3, (2, size)) for size in (5, 5 - full)] if full else [None, None]
    caps = [torch.ones(2, size) for size in (5, 5 - full)] if full else [None, None]
    mask, workspace = ("same", 60) if full else ("diagonal", 0)
    tables = LossTables(x, y, scale, *ids, *caps, mask).flat()
    forward = (*tables, full, full, workspace, full, True, name)
    torch.library.opcheck(forward_operator, forward)
    row_lse, col_lse, positive, stored, *_ = forward_operator(*forward)
    grads = [torch.ones_like(lse) for lse in (row_lse, col_lse, positive)]
    weights = WeightTables(*grads, row_lse=row_lse, col_lse=col_lse, stored=stored).flat()
    values = (y, x) if full else (y, None)
    torch.library.opcheck(backward_operator, (*tables, *weights, *values, name))
    sigmoid = (x, y, scale, *ids, torch.zeros(2))
    torch.library.opcheck(sigmoid_forward, (*sigmoid, full, name))
    torch.library.opcheck(sigmoid_backward, (*sigmoid, row_lse, full, True, name))


def test_opcheck_graph_operators() -> None:
    torch.library.opcheck(neighbor_overlap, (torch.tensor([[1, 2]]), torch.tensor([[2, 3]]), "cpp"))


def leaves(n: int = 4) -> list[Tensor]:
    x, y = (torch.randn(2, n, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return [x, y, torch.tensor([0.4, 0.9], dtype=torch.float64, requires_grad=True)]


@pytest.mark.parametrize("name", ["cpp", "torch", "reference"])
@pytest.mark.parametrize("loss", LOSSES)
def test_first_and_second_derivatives(loss: str, name: str) -> None:
    def each(x: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
        value: Tensor = LOSSES[loss](x, y, temperature=temperature, reduction="none", backend=name)
        return value

    assert torch.autograd.gradcheck(each, leaves())
    assert torch.autograd.gradgradcheck(each, leaves())


@pytest.mark.parametrize(
    "settings",
    [
        {"groups": torch.tensor([0, 1, 1, 2, 0]), "positives": "out"},
        {"groups": torch.tensor([0, 1, 1, 2, 0]), "positives": "in"},
        {"ignore": torch.tensor([False, True, False, False, False]), "label_smoothing": 0.2, "direction": "x_to_y"},
        {"margin": 0.3},
        {"teacher": (torch.ones(2, 5, 2).double().cumsum(1), torch.ones(2, 5, 2).double().cumsum(2), 0.5)},
        {"queue": torch.ones(3, 3).double().cumsum(0)},
    ],
    ids="-".join,
)
def test_second_derivatives_of_the_options(settings: dict) -> None:
    def each(x: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
        loss: Tensor = modalign.info_nce(x, y, temperature=temperature, reduction="none", **settings)
        return loss

    assert torch.autograd.gradcheck(each, leaves(5))
    assert torch.autograd.gradgradcheck(each, leaves(5))


def test_third_derivatives() -> None:
    x, y, _ = leaves(5)

    def slope(x: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(modalign.info_nce(x, y.detach(), temperature=0.5).sum(), x, create_graph=True)
        return grad.square().sum()

    assert torch.autograd.gradgradcheck(slope, [x])


def test_what_is_differentiated_already_refuses_a_second_time() -> None:
    x, y, _ = leaves()
    loss, _ = modalign.info_nce(x, y, stats="gradient")
    (grad,) = torch.autograd.grad(loss.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("loss", LOSSES)
def test_torch_func(loss: str) -> None:
    function = LOSSES[loss]
    x, y = torch.randn(2, 3, 7, 5).unbind()
    torch.testing.assert_close(torch.func.vmap(function)(x, y), function(x, y))
    torch.testing.assert_close(
        torch.func.vmap(function, (0, None))(x, y[0]), torch.stack([function(one, y[0]) for one in x])
    )
    leaf = x.clone().requires_grad_()
    function(leaf, y).sum().backward()
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(function))(x, y), leaf.grad)

    def steepness(x: Tensor) -> Tensor:
        return torch.func.grad(function)(x, y[0]).square().sum()

    twin = x[0].clone().requires_grad_()
    (grad,) = torch.autograd.grad(function(twin, y[0]), twin, create_graph=True)
    torch.testing.assert_close(torch.func.grad(steepness)(x[0]), torch.autograd.grad(grad.square().sum(), twin)[0])


def test_vmap_over_temperatures() -> None:
    x, y = torch.randn(2, 9, 4).unbind()
    temperatures = torch.tensor([0.1, 0.2, 0.7])
    together = torch.func.vmap(lambda temperature: modalign.info_nce(x, y, temperature=temperature))(temperatures)
    torch.testing.assert_close(
        together, torch.stack([modalign.info_nce(x, y, temperature=float(t)) for t in temperatures])
    )


# that the graph is one is seen without the C++ that inductor makes of it, which takes long
@pytest.mark.parametrize("loss", LOSSES)
def test_compiles_as_one_graph(loss: str) -> None:
    function = LOSSES[loss]

    @torch.compile(fullgraph=True, backend="inductor" if loss == "info_nce" else "aot_eager")
    def compiled(x: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
        return function(2 * x, y, temperature=temperature, normalize=False) + x.sum()

    leaves = [torch.randn(9, 4, requires_grad=True), torch.randn(9, 4), torch.tensor(0.3, requires_grad=True)]
    value = compiled(*leaves)
    grads = torch.autograd.grad(value, [leaves[0], leaves[2]])
    eager = function(2 * leaves[0], leaves[1], temperature=leaves[2], normalize=False) + leaves[0].sum()
    torch.testing.assert_close(value, eager)
    torch.testing.assert_close(grads, torch.autograd.grad(eager, [leaves[0], leaves[2]]))


def test_the_options_compile_as_one_graph() -> None:
    groups, ignore = torch.arange(9) // 2, torch.arange(9) == 4
    settings = {"groups": groups, "ignore": ignore, "label_smoothing": 0.1, "weights": torch.rand(9)}

    def loss(x: Tensor, y: Tensor) -> Tensor:
        value, stats = modalign.info_nce(x, y, stats=True, **settings)
        return value + stats.x_lse[:4].sum() + stats.entropy

    x, y = torch.randn(2, 9, 4).unbind()
    torch.testing.assert_close(torch.compile(loss, fullgraph=True, backend="aot_eager")(x, y), loss(x, y))


def test_autocast_computes_in_its_dtype() -> None:
    """Rows are normalised in float32 and multiplied in bfloat16; gradients have the dtypes of the inputs."""
    x, y = torch.randn(64, 16, requires_grad=True), torch.randn(64, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = modalign.info_nce(x, y.bfloat16())
        assert modalign.info_nce(x.double(), y.double()).dtype == torch.float64
    assert loss.dtype == torch.float32
    loss.backward()
    assert x.grad.dtype == y.grad.dtype == torch.float32
    unit = [torch.nn.functional.normalize(t) for t in (x, y.bfloat16().float())]
    rounded = modalign.info_nce(*(t.bfloat16() for t in unit), normalize=False)
    torch.testing.assert_close(loss, rounded, rtol=1e-5, atol=1e-5)


def test_a_backend_that_refuses_says_why_and_so_does_every_other() -> None:
    x = torch.randn(3, 2, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match=r"triton: dtype torch\.float64"):
        modalign.info_nce(x, x, backend="triton")
    with pytest.raises(NotImplementedError, match=r"cpp: the call names backend='triton'"):
        modalign.info_nce(x, x, backend="triton")
    with pytest.raises(ValueError, match=r"backend must be one of \('auto', .*'cpp'.*, got 'cuBLAS'"):
        modalign.info_nce(x, x, backend="cuBLAS")


def test_auto_never_picks_the_interpreter() -> None:
    x = torch.randn(3, 2)
    choice = modalign.explain("info_nce", x, x)
    assert choice.backend == "cpp"
    assert "never chosen by itself" in choice.refusals["triton"]
    assert modalign.explain("info_nce", x, x, backend="triton").backend == "triton"


def test_every_operation_has_a_reference_that_takes_what_others_refuse() -> None:
    for operation in map(dispatch.load_operation, dispatch.OPERATIONS):
        assert operation.implementations[-1].name == "reference"
        for implementation in operation.implementations:
            if implementation.name == "cuda" and importlib.util.find_spec("modalign._cuda") is None:
                continue  # compiled only on request; tests/cuda_module.sh builds it
            for role in implementation.functions:
                assert callable(implementation.load(role))


def test_explain_names_what_it_knows() -> None:
    with pytest.raises(
        ValueError,
        match=r"one of \['edge_products', 'info_nce', .*'sigmoid_loss'\], got 'nce'",
    ):
        modalign.explain("nce", torch.ones(2, 2))


def test_the_list_of_operations_is_whole() -> None:
    """The list has every table of implementations in modalign.ops under its name."""
    listed = {name: dispatch.load_operation(name) for name in dispatch.OPERATIONS}
    assert [operation.name for operation in listed.values()] == list(listed)
    for module in pkgutil.iter_modules(modalign_ops.__path__, "modalign.ops."):
        if module.name != "modalign.ops._cuda":  # compiled only on request
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, dispatch.Operation):
                    assert value is listed[value.name]


def test_doctor_lists_every_operation_and_what_it_runs_on() -> None:
    text = modalign.doctor()
    for name in dispatch.OPERATIONS:
        assert f"\n{name}(" in text
    for word in ("torch ", "instruction sets", "avx512" if "avx512" in text else "portable"):
        assert word in text
