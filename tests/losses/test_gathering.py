"""gather gives the loss and the gradients of one process with the whole batch."""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import modalign

SIZES = (5, 8)
X, Y = torch.randn(2, sum(SIZES), 6, generator=torch.Generator().manual_seed(0)).unbind()


def encoder() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Linear(6, 4)


def loss_of(model: torch.nn.Module, rows: slice) -> torch.Tensor:
    x, y = model(torch.stack([X[rows], Y[rows]]))
    return modalign.info_nce(modalign.gather(x), modalign.gather(y), temperature=0.5)


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
        assert "one shape and dtype" in str(error)  # noqa: PT017
    else:
        raise AssertionError("rows of two widths were gathered")
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
