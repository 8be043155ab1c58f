"""The losses as modules: parameters that shard and load, and what they say in distributed training."""

import os
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import modalign
from modalign.losses.drop_ins import MultipleNegativesRankingLoss, NTXentLoss

MODULES = [modalign.InfoNCE, modalign.NTXent, modalign.SigmoidLoss]
SIZES = (5, 8)
X, Y = torch.randn(2, sum(SIZES), 6, generator=torch.Generator().manual_seed(0)).unbind()


@pytest.mark.parametrize("module", MODULES)
def test_parameters_have_a_dimension_and_old_ones_load(module: type[nn.Module]) -> None:
    loss = module(learnable=True)
    assert all(parameter.shape == (1,) for parameter in loss.parameters())
    new = {name: value + 0.5 for name, value in loss.state_dict().items()}
    old = {f"head.{name}": value.reshape(()) for name, value in new.items()}
    shapes = {name: value.shape for name, value in old.items()}
    for state, prefix in ((new, ""), (old, "head.")):
        model = module(learnable=True)
        (nn.ModuleDict({"head": model}) if prefix else model).load_state_dict(state)
        assert model.state_dict() == new
    assert {name: value.shape for name, value in old.items()} == shapes  # the user's dictionary stays as it is
    assert module().state_dict() == {}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_made_without_values_gets_its_initial_values(module: type[nn.Module]) -> None:
    with torch.device("meta"):
        loss = module(temperature=0.2, learnable=True)
    assert "learnable=True" in repr(loss)
    assert "temperature" not in repr(loss)
    loss = loss.to_empty(device="cpu")
    loss.reset_parameters()
    assert repr(loss) == repr(module(temperature=0.2, learnable=True))
    torch.testing.assert_close(loss.temperature, torch.tensor(0.2))


def test_a_choice_about_other_processes_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match=r"process_group must be 'self', 'world', .* got 'all'"):
        modalign.InfoNCE(process_group="all")
    with pytest.raises(ValueError, match="check_finite must be 'auto', True or False, got 'no'"):
        modalign.NTXent(check_finite="no")


def encoder() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(6, 4)


def learned(model: nn.Module, loss: nn.Module, rows: slice, **options: torch.Tensor) -> list[torch.Tensor]:
    """Return the loss and the gradients of encoder and loss."""
    value = loss(*model(torch.stack([X[rows], Y[rows]])), **options)
    value.backward()
    return [value.detach(), *(parameter.grad for module in (model, loss) for parameter in module.parameters())]


def ranking(x: torch.Tensor, gather_across_devices: bool) -> torch.Tensor:
    directions = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    loss = MultipleNegativesRankingLoss(nn.Identity(), 2.0, "cos_sim", gather_across_devices, directions=directions)
    return loss.compute_loss_from_embeddings([*x, x[0] - x[1]])


def of_equal_rows(gathered: bool, rows: slice) -> list[torch.Tensor]:
    """Return losses that lightly and sentence-transformers compute from the rows of all processes, and gradients."""
    results = []
    for function in (lambda x: NTXentLoss(0.3, gather_distributed=gathered)(*x), lambda x: ranking(x, gathered)):
        model = encoder()
        value = function(model(torch.stack([X[rows], Y[rows]])))
        value.backward()
        results += [value.detach(), model.weight.grad]
    return results


def _run(rank: int, address: str) -> None:
    dist.init_process_group("gloo", f"file://{address}", timedelta(seconds=60), len(SIZES), rank)
    start = sum(SIZES[:rank])
    rows = slice(start, start + SIZES[rank])
    x, y = X[rows], Y[rows]
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        for module in (modalign.InfoNCE(process_group="self"), modalign.SigmoidLoss(process_group="self")):
            module(x, y)
        assert not messages
        for _ in range(2):
            modalign.InfoNCE(learnable=True)(x, y)
        modalign.NTXent()(x, y)
        assert [str(message.message).split(":")[0] for message in messages] == ["info_nce", "nt_xent"]
        assert 'process_group="world"' in str(messages[0].message)
        assert messages[0].filename == __file__
        modalign.gather(x)
        modalign.SigmoidLoss()(x, y)  # a process that gathers rows knows about the others
        assert len(messages) == 2
    groups = torch.arange(sum(SIZES)) // 2
    options = {"groups": groups[rows], "ignore": (groups == 3)[rows], "weights": (1.0 + groups)[rows]}
    results = [
        learned(
            DistributedDataParallel(encoder()), modalign.InfoNCE(learnable=True, process_group="world"), rows, **options
        ),
        learned(DistributedDataParallel(encoder()), modalign.NTXent(process_group=dist.group.WORLD), rows),
    ]
    half = slice(4 * rank, 4 * rank + 4)
    results.append(of_equal_rows(True, half))
    for tensor in results[-1]:
        dist.all_reduce(tensor, dist.ReduceOp.SUM)
        tensor.div_(len(SIZES))
    torch.save(results, f"{address}.{rank}")
    dist.destroy_process_group()
    os._exit(0)  # see test_gathering


def test_losses_in_two_processes(tmp_path: Path) -> None:
    """They warn once if they were told nothing, and with a process group learn as one process with all rows."""
    address = str(tmp_path / "meeting")
    mp.spawn(_run, (address,), len(SIZES))
    groups = torch.arange(sum(SIZES)) // 2
    options = {"groups": groups, "ignore": groups == 3, "weights": 1.0 + groups}
    wanted = [
        learned(encoder(), modalign.InfoNCE(learnable=True), slice(None), **options),
        learned(encoder(), modalign.NTXent(), slice(None)),
        of_equal_rows(True, slice(8)),
    ]
    for rank in range(len(SIZES)):
        torch.testing.assert_close(torch.load(f"{address}.{rank}"), wanted)


class Trained(nn.Module):
    """An encoder with a loss inside, as a model that is sharded as a whole."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.encoder, self.loss = encoder(), loss

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.loss(self.encoder(x), self.encoder(y))


@pytest.mark.filterwarnings("error:.*returned a view tensor")
def test_a_sharded_model_trains_its_temperature(tmp_path: Path) -> None:
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", timedelta(seconds=60), 1, 0)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for module in MODULES:
            whole = Trained(module(learnable=True))
            wanted = whole(X, Y)
            wanted.backward()
            sharded = fully_shard(Trained(module(learnable=True)), mesh=mesh)
            assert "temperature" not in repr(sharded.loss)  # which only a collective would read
            value = sharded(X, Y)
            value.backward()
            torch.testing.assert_close(value, wanted)
            for one, other in zip(sharded.parameters(), whole.parameters(), strict=True):
                torch.testing.assert_close(one.grad.full_tensor(), other.grad)
            sharded.reshard()
            with pytest.raises(TypeError, match="log_scale must be a tensor of this process, got a sharded one"):
                sharded.loss(X, Y)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("module", MODULES)
def test_a_largest_scale_is_a_finite_number(module: type[nn.Module]) -> None:
    with pytest.raises(TypeError, match="max_scale must be a number, got 'a'"):
        module(learnable=True, max_scale="a")
    with pytest.raises(ValueError, match="max_scale must be finite, got inf"):
        module(learnable=True, max_scale=float("inf"))
