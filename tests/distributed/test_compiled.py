"""Model and sharded loss compile to one graph, and no operator on the way reads a value on the host."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import modalign
from modalign.distributed import Sharding

Found = dict[str, list[list[Tensor]]]
SIZES = (5, 7)
SETTINGS = {
    "gathered": Sharding(way="gathered"),
    "ring": Sharding(way="ring"),
    "sizes that are given": Sharding(way="gathered", sizes=SIZES, check="never"),
}


def step(model: nn.Module, x: Tensor, y: Tensor, sharding: Sharding) -> Tensor:
    left, right = model(x), model(y)
    losses = [
        modalign.info_nce(left, right, temperature=0.3, process_group=sharding),
        modalign.nt_xent(left, right, process_group=sharding),
        modalign.sigmoid_loss(left, right, process_group=sharding),
    ]
    return torch.stack(losses).sum()


def results(model: nn.Module, call: Callable[[], Tensor]) -> list[Tensor]:
    model.zero_grad()
    loss = call()
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


def run_rank(rank: int, address: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{address}", timedelta(seconds=120), len(SIZES), rank)
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    x, y = torch.randn(2, SIZES[rank], 6, generator=torch.Generator().manual_seed(rank))
    found = {}
    for name, sharding in SETTINGS.items():
        torch._dynamo.reset()
        compiled = torch.compile(step, fullgraph=True)  # raises where the graph breaks
        wanted = results(model, lambda sharding=sharding: step(model, x, y, sharding))
        got = [results(model, lambda call=compiled, s=sharding: call(model, x, y, s)) for _ in range(2)]
        found[name] = [wanted, *got]
    torch.save((found, words(rank)), f"{address}.{rank}")
    os._exit(0)


def words(rank: int) -> dict[str, object]:
    """Return what compiled calls say and return where ranks change their numbers of rows, or differ."""
    seen: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        seen.append(sum("modalign.agree" in str(node.target) for node in graph.graph.nodes))
        return aot_eager(graph, inputs)

    aot_eager = torch._dynamo.lookup_backend("aot_eager")

    def attempt(call: Callable[..., Tensor], n: int, *more: object, dtype: torch.dtype = torch.float32) -> object:
        x = (10 * torch.rand(n, 4, generator=torch.Generator().manual_seed(rank))).to(dtype)
        try:
            return float(call(x, 11 - x, *more))
        except Exception as error:  # torch's own errors hold the words of ours
            return str(error)

    def loss(x: Tensor, y: Tensor, sharding: object = "world", times: float = 1.0) -> Tensor:
        return times * modalign.info_nce(x, y, process_group=sharding)

    def compiled(**options: object) -> Callable[..., Tensor]:
        torch._dynamo.reset()
        return torch.compile(loss, **{"fullgraph": True, "backend": backend, **options})

    said: dict[str, object] = {}
    call = compiled()
    said["sizes"] = [(attempt(call, n), attempt(loss, n)) for n in (5 + rank, 4, 6 - rank, 4)]
    said["a rank alone compiles again"] = (attempt(call, 4, "world", 1.0 + rank), (1 + rank) * attempt(loss, 4))
    said["one changes"] = attempt(call, 4 + 3 * rank)
    said["alone after an error"] = (attempt(call, 4, "world", 3.0 - 2 * rank), (3 - 2 * rank) * attempt(loss, 4))
    call = compiled(dynamic=False)
    gathered = Sharding(way="gathered")
    both_change = [attempt(call, n, gathered) for n in (4 + rank, 5 - rank)]
    other = torch.compile(lambda x, y: loss(x, y, gathered), fullgraph=True, backend=backend)
    said["another function"] = attempt(other, 4), attempt(loss, 4)
    said["both change"] = [*both_change, attempt(call, 4, gathered)]
    for name, call in (("refusal", compiled()), ("refusal of a graph that may break", compiled(fullgraph=False))):
        said[name] = attempt(call, 4, dtype=torch.int64 if rank else torch.float32), attempt(call, 4)
    said["eager"] = attempt(compiled() if rank else loss, 4)
    seen.clear()
    for sharding in (Sharding(), Sharding(sizes="even"), Sharding(sizes="even", check="first")):
        attempt(compiled(), 4, sharding)
    said["comparisons"] = seen
    return said


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Found, dict[str, Any]]]:
    address = str(tmp_path_factory.mktemp("compiled") / "meeting")
    mp.spawn(run_rank, (address,), len(SIZES))
    return [torch.load(Path(f"{address}.{rank}")) for rank in range(len(SIZES))]


@pytest.fixture(scope="module")
def found(both: list[tuple[Found, dict[str, Any]]]) -> list[Found]:
    return [one[0] for one in both]


@pytest.fixture(scope="module")
def said(both: list[tuple[Found, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [one[1] for one in both]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_compiled_step_is_one_graph_and_returns_what_eager_does(name: str, found: list[Found]) -> None:
    for rank in found:
        wanted, first, second = rank[name]
        torch.testing.assert_close(first, wanted)
        torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert len({float(rank[name][0][0]) for rank in found}) == 1  # the same bits on every rank


def test_numbers_of_rows_are_compiled_anew_on_every_rank_at_once(said: list[dict[str, Any]]) -> None:
    for one in said:
        assert [pair[0] for pair in one["sizes"]] == pytest.approx([pair[1] for pair in one["sizes"]])
    assert len({value for one in said for value, _ in one["sizes"]}) == 3  # of four batches, two are equal


def test_compilations_need_not_happen_on_all_ranks_for_equal_reasons(said: list[dict[str, Any]]) -> None:
    for one in said:
        for name in ("a rank alone compiles again", "alone after an error", "another function"):
            got, wanted = one[name]
            assert got == pytest.approx(wanted)


def test_no_graph_computes_with_the_sizes_of_another_batch(said: list[dict[str, Any]]) -> None:
    for one in said:
        assert "the ranks have (4, 7) rows, but rank 0 has compiled this call for (4, 4)" in one["one changes"]
        assert [isinstance(value, float) for value in one["both change"]] == [True, True, False]
        assert "the ranks have (4, 4) rows, but rank 0 has compiled this call for (4, 5)" in one["both change"][2]


def test_compiled_calls_tell_the_other_ranks_what_is_wrong(said: list[dict[str, Any]]) -> None:
    for name in ("refusal", "refusal of a graph that may break"):
        (told, first), (refused, second) = (one[name] for one in said)
        assert "rank 1 refused its input, so no rank goes on: info_nce: x must be float16" in told
        assert "x must be float16, bfloat16, float32 or float64, got torch.int64" in refused
        assert first == second == said[0]["sizes"][1][0]  # the next call is one of both again
    assert all("got compiled = yes on rank 1 and no on rank 0" in one["eager"] for one in said)


def test_a_graph_compares_calls_unless_it_is_told_not_to(said: list[dict[str, Any]]) -> None:
    assert [one["comparisons"] for one in said] == 2 * [[1, 1, 0]]


def test_no_operator_reads_a_value_on_the_host(tmp_path: Path) -> None:
    """A fake tensor has no values to read; the operators' fakes stand for them."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", timedelta(seconds=60), 1, 0)
    try:
        with FakeTensorMode() as mode:
            for way in ("gathered", "ring"):
                x, y = (mode.from_tensor(torch.randn(6, 4)).requires_grad_() for _ in range(2))
                sharding = Sharding(way=way, sizes=(6,), check="never")
                for loss in (modalign.info_nce, modalign.nt_xent, modalign.sigmoid_loss):
                    loss(x, y, process_group=sharding).backward()
                assert x.grad.shape == y.grad.shape == (6, 4)
    finally:
        dist.destroy_process_group()
