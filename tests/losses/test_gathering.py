"""gather gives the loss and the gradients of one process with the whole batch."""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

import modalign
from modalign.distributed import Sharding

SIZES = (5, 8)
X, Y = torch.randn(2, sum(SIZES), 6, generator=torch.Generator().manual_seed(0)).unbind()


def encoder() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Linear(6, 4)


def loss_of(model: torch.nn.Module, rows: slice) -> torch.Tensor:
    x, y = model(torch.stack([X[rows], Y[rows]]))
    return modalign.info_nce(modalign.gather(x), modalign.gather(y), temperature=0.5)


def gradient_at_y(rows: slice, size: float, factor: float, sharding: Sharding) -> torch.Tensor:
    """Return the gradient of a small or large loss at rows of a size, which those of x make up for."""
    x, y = X[rows] / size, (X[rows] + Y[rows]).mul(size).requires_grad_()
    loss = modalign.info_nce(x, y, temperature=0.5, normalize=False, process_group=sharding)
    return torch.autograd.grad(factor * loss, y)[0]


def _train(rank: int, address: str) -> None:
    dist.init_process_group("gloo", f"file://{address}", timedelta(seconds=60), len(SIZES), rank)
    model = DistributedDataParallel(encoder())
    start = sum(SIZES[:rank])
    rows = slice(start, start + SIZES[rank])
    loss = loss_of(model, rows)
    loss.backward()
    torch.save([loss.detach(), *(parameter.grad for parameter in model.parameters())], f"{address}.{rank}")
    try:
        modalign.gather(X[:, : 3 + rank])
    except ValueError as error:
        assert "got d = 4 on rank 1 and 3 on rank 0" in str(error)  # noqa: PT017
    else:
        raise AssertionError("rows of two widths were gathered")
    try:
        modalign.gather(X if rank == 0 else [1.0])
    except (TypeError, RuntimeError) as error:
        assert "gather: x must be a tensor (n, ...), got list" in str(error)  # noqa: PT017
    else:
        raise AssertionError("no rank heard of the list")
    for group in ("world", init_device_mesh("cpu", (2,)), Sharding("world", wire=torch.bfloat16)):
        labels = modalign.gather(torch.arange(1000 * rank, 1000 * rank + 3 + rank), group)  # more digits than bfloat16
        assert labels.tolist() == [0, 1, 2, 1000, 1001, 1002, 1003]
    assert modalign.gather(X, "self") is X
    for way in ("gathered", "ring"):
        for factor, size in ((1e-8, 1.0), (1e6, 1.0), (1.0, 1e6)):  # beyond the range of float16
            half, full = (
                gradient_at_y(rows, size, factor, Sharding(way=way, wire=wire)) for wire in (torch.float16, None)
            )
            torch.testing.assert_close(half, full, rtol=2e-3, atol=2e-3 * float(full.abs().max()))
    dist.destroy_process_group()
    # DistributedDataParallel keeps gloo's threads alive, and one that drops its last tensor while the interpreter ends
    # aborts the process (pytorch#179291), so the process exits without ending the interpreter
    os._exit(0)


def test_two_processes_train_as_one(tmp_path) -> None:
    address = os.path.join(tmp_path, "meeting")
    mp.spawn(_train, (address,), len(SIZES))
    model = encoder()
    loss = loss_of(model, slice(None))
    loss.backward()
    wanted = [loss.detach(), *(parameter.grad for parameter in model.parameters())]
    for rank in range(len(SIZES)):
        torch.testing.assert_close(torch.load(f"{address}.{rank}"), wanted)


def test_one_process_has_all_rows() -> None:
    assert modalign.gather(X) is X
    with pytest.raises(TypeError, match=r"x must be a tensor \(n, \.\.\.\), got list"):
        modalign.gather([1.0])
    with pytest.raises(TypeError, match=r"x must be a tensor \(n, \.\.\.\), got one number"):
        modalign.gather(torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"gather: process_group must be .* got 3"):
        modalign.gather(X, 3)
