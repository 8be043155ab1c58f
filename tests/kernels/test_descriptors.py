"""Tiles copied by tensor descriptors, as on GPUs from sm_90 on, give the bits of tiles read by pointers."""

import dataclasses

import pytest
import torch

from flat_losses import FlatLosses
from modalign.kernels.knn import survivors
from modalign.kernels.knn.screen import Screen
from modalign.kernels.losses import info_nce, sigmoid_loss
from modalign.kernels.shared.launch import to_operand
from modalign.kernels.shared.tiles import Tile, tile

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered")


def descriptor_tile(kernel: str, *call: object, variant: str = "full") -> Tile:
    sizes = tile(kernel, *call, variant=variant)
    if "DESCRIPTORS" not in sizes.blocks:
        return sizes
    return dataclasses.replace(sizes, blocks={**sizes.blocks, "DESCRIPTORS": 1})


@pytest.fixture(params=[torch.float32, torch.float16], ids=str)
def tables(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    """Return three problems, so that a tile reaches into the next one; the values of the last are not finite."""
    x, y = torch.randn(3, 45, 300).to(request.param), torch.randn(3, 70, 300).to(request.param)
    x[2], y[2] = torch.inf, torch.nan
    return x, y


def test_info_nce(tables: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    (x, y), scale = tables, torch.full((3, 45), 0.3)
    ids = torch.arange(45) % 7, torch.arange(70) % 7
    ids = tuple(side_ids.expand(3, -1) for side_ids in ids)

    def run() -> list[torch.Tensor]:
        forward = FlatLosses(info_nce).info_nce_forward(x, y, scale, *ids, mask="same", stats=True)
        grads = torch.rand(3, 45, generator=torch.Generator().manual_seed(0)), torch.ones(3, 70), torch.empty(3, 0)
        products = FlatLosses(info_nce).info_nce_backward(
            *grads, x, y, y, x, scale, *ids, None, None, "same", *forward[:2], forward[3], schedule="banded"
        )
        return [result[:2] for result in (*forward[:3], *forward[4:], *products)]

    by_pointers = run()
    monkeypatch.setattr(info_nce, "tile", descriptor_tile)
    assert all(bool(result.isfinite().all()) for result in by_pointers)
    assert all(map(torch.equal, run(), by_pointers))


def test_sigmoid_loss(tables: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    (x, y), scale, bias = tables, torch.full((3, 45), 0.3), torch.full((3,), -2.0)

    def run() -> list[torch.Tensor]:
        loss = FlatLosses(sigmoid_loss).sigmoid_loss_forward(x, y, scale, bias, None, None)
        grads = FlatLosses(sigmoid_loss).sigmoid_loss_backward(
            torch.ones(3, 45), x, y, scale, bias, None, None, True, True, schedule="banded"
        )
        return [result[:2] for result in (loss, *grads)]

    by_pointers = run()
    monkeypatch.setattr(sigmoid_loss, "tile", descriptor_tile)
    assert all(bool(result.isfinite().all()) for result in by_pointers)
    assert all(map(torch.equal, run(), by_pointers))


def test_survivors(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(150, 11)
    screen = Screen(x, x, "euclidean", narrow=True)
    thresholds = torch.full((150,), -20.0)
    by_pointers = survivors.find_survivors(screen, None, torch.arange(150), thresholds, 150)
    monkeypatch.setattr(survivors, "tile", descriptor_tile)
    by_descriptors = survivors.find_survivors(screen, None, torch.arange(150), thresholds, 150)
    assert torch.equal(by_descriptors[1], by_pointers[1])
    assert torch.equal(by_descriptors[0].sort(1).values, by_pointers[0].sort(1).values)
    assert bool((by_descriptors[1] > 0).any())


def test_an_operand_starts_at_a_multiple_of_16_bytes() -> None:
    memory = torch.arange(16 * 5 + 1).half()
    x = memory[1:].view(5, 16)
    assert x.data_ptr() % 16
    assert to_operand(x).data_ptr() % 16 == 0
    assert torch.equal(to_operand(x), x)
