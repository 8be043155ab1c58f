"""The Triton kernels at sizes that only a GPU is fast enough for: several bands, and thresholds from a sample."""

from collections.abc import Callable

import pytest
import torch

import modalign
from flat_losses import FlatLosses
from modalign.kernels.losses import info_nce as kernels
from modalign.kernels.losses import products
from modalign.kernels.shared.tiles import interpreted
from modalign.reference import info_nce as definition
from neighbors.searching import knn
from tolerances import TOLERANCE, assert_close

reference = FlatLosses(definition)
DEVICE = "cuda"
N, D = 3000, 512  # sizes of the losses
GALLERY, K = 40_000, 10

pytestmark = pytest.mark.skipif(
    interpreted() or not torch.cuda.is_available(), reason="needs a GPU (make gpu): the interpreter would take hours"
)


@pytest.mark.parametrize("mask", ["none", "diagonal", "same"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_losses_of_several_bands_on_the_device(mask: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    n, d = N, D
    monkeypatch.setattr(kernels, "BAND_BYTES", 1 << 18)
    monkeypatch.setattr(products, "BAND_ROWS", n // 3)
    x, y = (torch.randn(1, n, d, device=DEVICE) / d**0.25).to(dtype), torch.randn(1, n, d, device=DEVICE).to(dtype)
    scale = torch.linspace(1, 4, n, device=DEVICE)[None] / d**0.5
    ids = torch.arange(n, device=DEVICE)[None] // 3 if mask == "same" else None
    options = (ids, ids, None, None, mask)
    exact = (x.double(), y.double(), scale.double(), *options)
    wanted = reference.info_nce_forward(*exact, True, False, 0)
    results = FlatLosses(kernels).info_nce_forward(x, y, scale, *options, True, False, 0)
    largest = 1 + float(wanted[0].abs().max() + wanted[1].abs().max())
    for name, actual, expected in zip(("row_lse", "col_lse", "positive"), results, wanted, strict=False):
        assert_close(actual, expected, largest, TOLERANCE[dtype].sums, name)
    grads = [torch.randn(1, n, device=DEVICE) for _ in range(3)]
    wanted = reference.info_nce_backward(
        *(grad.double() for grad in grads), *exact[:2], exact[1], exact[0], *exact[2:], *wanted[:2], wanted[3]
    )
    for schedule in ("fused", "banded"):
        gradients = FlatLosses(kernels).info_nce_backward(
            *grads, x, y, y, x, scale, *options, results[0], results[1], results[3], schedule=schedule
        )
        for name, actual, expected in zip(("dx", "dy"), gradients, wanted, strict=True):
            assert_close(
                actual, expected, float(expected.abs().max()), TOLERANCE[dtype].gradient, f"{name}, {schedule}"
            )


@pytest.mark.parametrize("metric", ["dot", "cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_graphs_of_large_galleries_on_the_device(dtype: torch.dtype, metric: str) -> None:
    x = torch.randn(GALLERY, 96, device=DEVICE).to(dtype)
    queries = torch.randn(500, 96, device=DEVICE).to(dtype)
    for rows, query_table in ((x, None), (queries, queries)):
        indices = knn(x, query_table, K, metric, "triton")[0]
        sample = torch.randperm(len(rows), device=DEVICE)[:500]
        one, two = rows[sample].double(), x.double()
        if metric == "euclidean":
            scores = 2 * one @ two.T - two.square().sum(1)
        else:
            scores = one @ two.T / (two.norm(dim=1) if metric == "cosine" else 1)
        if query_table is None:
            scores[torch.arange(len(sample), device=DEVICE), sample] = -torch.inf
        assert torch.equal(indices[sample], scores.topk(K).indices)


@pytest.mark.parametrize("loss", [modalign.info_nce, modalign.sigmoid_loss], ids=lambda loss: loss.__name__)
def test_losses_on_the_device_agree_with_the_definition(loss: Callable[..., torch.Tensor]) -> None:
    x = torch.randn(N, D, device=DEVICE)
    y = x + torch.randn(N, D, device=DEVICE)
    results = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        leaves = [table.to(dtype).requires_grad_() for table in (x, y)]
        value = loss(*leaves, temperature=0.07, backend=backend)
        results.append((value.detach(), *torch.autograd.grad(value, leaves)))
    for name, actual, wanted in zip(("loss", "dx", "dy"), *results, strict=True):
        assert_close(actual, wanted, float(wanted.abs().max()), 1e-4, name)
