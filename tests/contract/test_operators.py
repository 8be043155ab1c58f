"""What the operators promise torch: schema, fake, gradient, compilation; and what the dispatcher says of a refusal."""

import importlib.util

import pytest
import torch
from torch import Tensor

import modalign
from modalign import backends
from modalign.ops.info_nce import info_nce_backward, info_nce_forward
from modalign.ops.knn import knn
from modalign.ops.neighbor_overlap import neighbor_overlap


def test_opcheck_info_nce() -> None:
    x, y = (torch.randn(2, 5, 3, requires_grad=True) for _ in range(2))
    scale = torch.tensor([1.0, 2.0], requires_grad=True)
    torch.library.opcheck(info_nce_forward, (x, y, scale, "cpp"))
    lse = info_nce_forward(x, y, scale, "cpp")
    plain = [t.detach() for t in (lse[0], lse[1], lse[2], x, y, scale, lse[0], lse[1])]
    torch.library.opcheck(info_nce_backward, (*plain, "cpp"))


def test_opcheck_graph_operators() -> None:
    torch.library.opcheck(knn, (torch.randn(6, 3), None, 2, "cosine", "cpp"))
    torch.library.opcheck(knn, (torch.randn(6, 3), torch.randn(4, 3), 2, "dot", "cpp"))
    torch.library.opcheck(neighbor_overlap, (torch.tensor([[1, 2]]), torch.tensor([[2, 3]]), "cpp"))


@pytest.mark.parametrize("name", ["cpp", "reference"])
def test_gradcheck(name: str) -> None:
    x, y = (torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    temperature = torch.tensor([0.4, 0.9], dtype=torch.float64, requires_grad=True)

    def loss(x: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
        return modalign.info_nce(x, y, temperature=temperature, reduction="none", backend=name)

    assert torch.autograd.gradcheck(loss, (x, y, temperature))
    assert torch.autograd.gradcheck(lambda *leaves: info_nce_forward(*leaves, name), (x, y, temperature))


def test_compiles_as_one_graph() -> None:
    @torch.compile(fullgraph=True)
    def compiled(x: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
        return modalign.info_nce(2 * x, y, temperature=temperature) + x.sum()

    leaves = [torch.randn(9, 4, requires_grad=True), torch.randn(9, 4), torch.tensor(0.3, requires_grad=True)]
    loss = compiled(*leaves)
    grads = torch.autograd.grad(loss, [leaves[0], leaves[2]])
    eager = modalign.info_nce(2 * leaves[0], leaves[1], temperature=leaves[2]) + leaves[0].sum()
    torch.testing.assert_close(loss, eager)
    torch.testing.assert_close(grads, torch.autograd.grad(eager, [leaves[0], leaves[2]]))


def test_a_backend_that_refuses_says_why_and_so_does_every_other() -> None:
    x = torch.randn(3, 2, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match=r"triton: dtype torch\.float64"):
        modalign.info_nce(x, x, backend="triton")
    with pytest.raises(NotImplementedError, match=r"cpp: backend='triton' was asked for"):
        modalign.info_nce(x, x, backend="triton")
    with pytest.raises(ValueError, match=r"backend must be 'auto' or one of .*'cpp'.*, got 'cuBLAS'"):
        modalign.info_nce(x, x, backend="cuBLAS")


def test_auto_never_picks_the_interpreter() -> None:
    x = torch.randn(3, 2)
    choice = modalign.explain("info_nce", x, x)
    assert choice.backend == "cpp"
    assert "never chosen by itself" in choice.refusals["triton"]
    assert modalign.explain("info_nce", x, x, backend="triton").backend == "triton"


def test_every_operation_has_a_reference_that_takes_what_others_refuse() -> None:
    for operation in backends.operations.values():
        assert operation.implementations[-1].name == "reference"
        for implementation in operation.implementations:
            if implementation.name == "cuda" and importlib.util.find_spec("modalign._cuda") is None:
                continue  # compiled only on request; tests/cuda_module.sh builds it
            for role in implementation.functions:
                assert callable(implementation.load(role))


def test_explain_names_what_it_knows() -> None:
    with pytest.raises(ValueError, match=r"one of \['info_nce', 'knn', 'neighbor_overlap'\], got 'nce'"):
        modalign.explain("nce", torch.ones(2, 2))


def test_doctor_speaks_of_every_operation() -> None:
    text = modalign.doctor()
    for word in (
        "info_nce(",
        "knn(",
        "neighbor_overlap(",
        "torch ",
        "instruction sets",
        "avx512" if "avx512" in text else "portable",
    ):
        assert word in text
