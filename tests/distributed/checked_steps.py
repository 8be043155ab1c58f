"""Training steps with the known mistakes of losses over several ranks, and right ones, for the tests of the check."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy, dropout, normalize
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

import modalign

DATA = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(3))
LOADS = itertools.count()
Result = tuple[Tensor, nn.Module] | tuple[Tensor, nn.Module, Tensor]


class Pair(nn.Module):
    """Two encoders and a temperature."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(6, 5), nn.Dropout(p), nn.GELU(), nn.Linear(5, 4))
        self.text = nn.Linear(6, 4)
        self.log_scale = nn.Parameter(torch.tensor([1.0]))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return normalize(self.image(images)), normalize(self.text(texts)), self.log_scale.exp()


def ranks() -> tuple[int, int]:
    return dist.get_rank(), dist.get_world_size()


def shard(table: Tensor = DATA, dim: int = 1) -> Tensor:
    rank, count = ranks()
    return table.tensor_split(count, dim)[rank]


def clip(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    logits, targets = scale * x @ y.T, torch.arange(len(x))
    return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2


def gathered(table: Tensor) -> Tensor:
    """Gather rows as OpenCLIP does without ``gather_with_grad``: only those of this rank keep their gradient."""
    rank, count = ranks()
    parts = [torch.empty_like(table) for _ in range(count)]
    dist.all_gather(parts, table.detach())
    parts[rank] = table
    return torch.cat(parts)


def trained(
    loss: Callable[..., Tensor], model: nn.Module | None = None, data: Tensor | None = None, factor: float = 1.0
) -> Result:
    """Run a step under DistributedDataParallel."""
    wrapped = DistributedDataParallel(Pair() if model is None else model)
    value = loss(*wrapped(*(shard() if data is None else data))) * factor
    value.backward()
    return value, wrapped


def of_all_rows(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return clip(modalign.gather(x), modalign.gather(y), scale)


def sharded(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return modalign.info_nce(x, y, temperature=1 / scale, process_group="world")


# right


def right_sharded() -> Result:
    return trained(sharded)


def right_gathered() -> Result:
    return trained(of_all_rows)


def right_dropout() -> Result:
    return trained(of_all_rows, Pair(0.5))


def right_two_views() -> Result:
    """Both views of each item pass through dropout in one call, all first views before the second ones."""
    both = shard().flatten(0, 1)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)))
    x, y = model(both).chunk(2)
    loss = modalign.nt_xent(x, y, process_group="world")
    loss.backward()
    return loss, model


def right_fully_shard() -> Result:
    model = Pair()
    fully_shard(model.image)
    fully_shard(model)
    loss = sharded(*model(*shard()))
    loss.backward()
    return loss, model


def right_with_inputs(images: Tensor, texts: Tensor) -> Result:
    return trained(sharded, Pair(0.5), data=torch.stack([images, texts]))


# mistakes


def gather_without_gradient() -> Result:
    return trained(lambda x, y, scale: clip(gathered(x), gathered(y), scale))


def summed_instead_of_averaged() -> Result:
    model = Pair()
    loss = of_all_rows(*model(*shard()))
    loss.backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
    return loss, model


def temperature_counted_often() -> Result:
    model = Pair()
    scale = model.log_scale
    del model.log_scale
    model.log_scale = torch.zeros(1)
    wrapped = DistributedDataParallel(model)
    x, y, _ = wrapped(*shard())
    loss = of_all_rows(x, y, scale.exp())
    loss.backward()
    dist.all_reduce(scale.grad)
    criterion = nn.Module()
    criterion.log_scale = scale
    return loss, {"model": wrapped, "loss": criterion}


def loss_scaled_by_ranks() -> Result:
    return trained(of_all_rows, factor=ranks()[1])


def padded_sampler() -> Result:
    rank, count = ranks()
    rows = torch.tensor(list(DistributedSampler(range(7), count, rank, shuffle=False)))
    return *trained(of_all_rows, data=DATA[:, rows]), rows


def other_order_of_pairs() -> Result:
    """The rows of one side are gathered with this rank's first, those of the other in the order of the ranks."""

    def loss(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        rank, _ = ranks()
        return clip(modalign.gather(x).roll(-rank * len(x), 0), modalign.gather(y), scale)

    return trained(loss)


def other_order_of_shards() -> Result:
    """The last rank takes the first items, and the weights of the items are in the order of the items."""
    rank, count = ranks()
    rows = torch.arange(8).tensor_split(count)[count - 1 - rank]
    weights = shard(torch.arange(1.0, 9.0), 0)
    model = DistributedDataParallel(Pair())
    x, y, scale = model(*DATA[:, rows])
    loss = modalign.info_nce(x, y, temperature=1 / scale, weights=weights, process_group="world")
    loss.backward()
    return loss, model, rows


def negatives_of_the_rank() -> Result:
    return trained(lambda x, y, scale: modalign.info_nce(x, y, temperature=1 / scale, process_group="self"))


def batch_norm_of_the_rank() -> Result:
    model = DistributedDataParallel(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.1)))
    loss = modalign.info_nce(*model(shard().flatten(0, 1)).chunk(2), process_group="world")
    loss.backward()
    return loss, model


def mean_of_uneven_shards() -> Result:
    """Seven items: 4 on one rank and 3 on the other, whose means of own anchors count alike."""
    rank, count = ranks()
    data = DATA[:, torch.arange(7).tensor_split(count)[rank]]

    def loss(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        logits = scale * x @ modalign.gather(y).T
        return cross_entropy(logits, torch.arange(len(x)) + (0 if rank == 0 else 4))

    return trained(loss, Pair(0.5), data=data)


def parameter_without_gradient() -> Result:
    model = Pair()
    model.unused = nn.Linear(2, 2)
    return trained(of_all_rows, model)


def loss_without_gradient() -> Result:
    return trained(of_all_rows, factor=0.0)


def gradients_not_reduced() -> Result:
    model = Pair()
    loss = of_all_rows(*model(*shard()))
    loss.backward()
    return loss, model


def weights_of_the_rank() -> Result:
    torch.manual_seed(dist.get_rank() + 1)
    model = Pair()
    loss = sharded(*model(*shard()))
    loss.backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad, dist.ReduceOp.SUM)
        parameter.grad /= dist.get_world_size()
    return loss, model


# what cannot be compared


def another_at_each_call() -> Result:
    noise = torch.rand(8, 6, generator=torch.Generator().manual_seed(next(LOADS)))
    return trained(of_all_rows, data=shard(DATA + noise))


def draws_that_do_not_divide() -> Result:
    noise = torch.rand(2, dist.get_world_size(), 6)
    return trained(of_all_rows, data=shard() + noise[:, :1])


def fails_on_rank_1() -> Result:
    if dist.get_rank() == 1:
        raise KeyError("no such caption")
    return trained(of_all_rows)


def waits_on_rank_1() -> Result:
    if dist.get_rank() == 1:
        time.sleep(3600)
    return trained(of_all_rows)


def ends_in_one_process() -> Result:
    if dist.get_world_size() == 1:
        print("out of memory")
        os._exit(9)
    return trained(of_all_rows)


def functional_dropout() -> Result:
    return trained(lambda x, y, scale: of_all_rows(dropout(x, 0.3), y, scale))
