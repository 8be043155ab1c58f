"""chunked_forward around DDP, FSDP2 and sums by hand: the gradients of one process, each reduced once in a step."""

import os
from collections import Counter
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

import modalign

X, Y = torch.randn(2, 30, 6, generator=torch.Generator().manual_seed(0)).unbind()
SIZES = {"uneven": (23, 7), "empty": (30, 0)}  # at 5 rows a chunk: 5 chunks of one rank, and 2 or none of the other
WRAPPERS = ("DDP", "DDP with buffers", "FSDP2 whole", "FSDP2 by layers", "sum of all gradients")


class Encoders(nn.Module):
    def __init__(self, *, buffers: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.image, self.text = (nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(2))
        if buffers:
            self.register_buffer("steps", torch.zeros(1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.image(x), self.text(y)


class Reductions(TorchDispatchMode):
    """Counts the collectives that reduce gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.__name__.split(".")[0]] += 1
        return function(*args, **(kwargs or {}))


def wrapped(name: str) -> tuple[nn.Module, Counter[str]]:
    """Return the encoders, and a counter of the reductions that a hook of DDP makes."""
    encoders, hooked = Encoders(buffers=name == "DDP with buffers"), Counter()
    if name.startswith("DDP"):
        model = DistributedDataParallel(encoders)

        def reduce(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
            hooked["reduced"] += 1
            mean = bucket.buffer().div_(dist.get_world_size())
            return dist.all_reduce(mean, async_op=True).get_future().then(lambda done: done.value()[0])

        model.register_comm_hook(None, reduce)
        return model, hooked
    if not name.startswith("FSDP2"):
        return encoders, hooked
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    layers = [layer for layer in encoders.modules() if isinstance(layer, nn.Linear)] if "layers" in name else []
    for module in (*layers, encoders):
        fully_shard(module, mesh=mesh)
    return encoders, hooked


def _train(rank: int, address: str) -> None:
    dist.init_process_group("gloo", f"file://{address}", timedelta(seconds=60), 2, rank)
    found = {}
    for name in WRAPPERS:
        for shares, sizes in SIZES.items():
            rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
            model, hooked = wrapped(name)
            criterion = modalign.InfoNCE(learnable=True, process_group="world")
            summed = name == "sum of all gradients"
            for _ in range(2):  # DDP divides parameters into buckets anew after the first step
                model.zero_grad()
                criterion.zero_grad()
                hooked.clear()
                with Reductions() as reductions:
                    x, y = modalign.chunked_forward(model, X[rows], Y[rows], chunk_size=5)
                    (criterion(x, y) / (2 if summed else 1)).backward()
            gradients = [parameter.grad for parameter in (*model.parameters(), *criterion.parameters())]
            for gradient in gradients if summed else []:
                dist.all_reduce(gradient)
            whole = [grad.full_tensor() if isinstance(grad, DTensor) else grad for grad in gradients]
            found[name, shares] = whole, hooked["reduced"] + reductions.counts["_reduce_scatter_base_"]
    try:
        modalign.chunked_forward(wrapped("DDP with buffers")[0], X, Y[rank:], chunk_size=5)
    except (ValueError, RuntimeError) as error:
        found["refusal"] = str(error)
    torch.save(found, f"{address}.{rank}")
    dist.barrier()
    os._exit(0)  # see test_gathering


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    address = os.path.join(tmp_path_factory.mktemp("ranks"), "meeting")
    mp.spawn(_train, (address,), 2)
    return [torch.load(f"{address}.{rank}") for rank in range(2)]


@pytest.mark.parametrize("shares", SIZES)
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_step_reduces_once_and_equals_one_process(name: str, shares: str, found: list[dict]) -> None:
    alone, criterion = Encoders(), modalign.InfoNCE(learnable=True)
    criterion(*alone(X, Y)).backward()
    wanted = [parameter.grad for parameter in (*alone.parameters(), *criterion.parameters())]
    for rank in range(2):
        gradients, reduced = found[rank][name, shares]
        torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-5)
        assert reduced == {"FSDP2 by layers": 4, "sum of all gradients": 0}.get(name, 1)


def test_the_other_rank_hears_of_wrong_inputs(found: list[dict]) -> None:
    mistake = "chunked_forward: the inputs must have one number of rows, got shapes [(30, 6), (29, 6)]"
    assert found[1]["refusal"] == mistake
    assert found[0]["refusal"] == f"chunked_forward: rank 1 refused its input, so no rank goes on: {mistake}"
