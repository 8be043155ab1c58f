"""A rank that makes another call, refuses its input or is gone: every rank gets an error that names it, in time."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

import modalign
from modalign.distributed import Sharding
from modalign.distributed import info_nce as sharded_info_nce
from modalign.distributed.agreement import agree

RANKS, SECONDS = 3, 6
X, Y = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)).unbind()
Call = Callable[[], Any]


def calls(rank: int) -> dict[str, Call]:
    """Return what this rank does in each case; rank 1 is the one that is different."""
    odd = rank == 1

    def info_nce(x: torch.Tensor = X, y: torch.Tensor = Y, **options: Any) -> Call:
        return lambda: modalign.info_nce(x, y, **{"process_group": "world", **options})

    return {
        "width": info_nce(X[:, :4], Y[:, :4]) if odd else info_nce(),
        "dtype": info_nce(X.double(), Y.double()) if odd else info_nce(),
        "option": info_nce(label_smoothing=0.1) if odd else info_nce(),
        "problems": info_nce(X[None].repeat(2, 1, 1), Y[None].repeat(2, 1, 1)) if odd else info_nce(X[None], Y[None]),
        "gradient": info_nce(X.clone().requires_grad_()) if odd else info_nce(),
        "wire": info_nce(X.double(), Y.double(), process_group=Sharding(wire=torch.bfloat16)),
        "groups": info_nce(groups=torch.arange(5)) if odd else info_nce(),
        "loss": (lambda: modalign.nt_xent(X, Y, process_group="world")) if odd else info_nce(),
        "refusal": info_nce(temperature=-1.0) if odd else info_nce(),
        "NaN": info_nce(X * torch.nan) if odd else info_nce(),
        "overflow": info_nce(X * 1e30, Y * 1e30, normalize=False) if odd else info_nce(normalize=False),
        "all empty": info_nce(X[:0], Y[:0]),
        "sizes": info_nce(process_group=Sharding(sizes=(5, 5, 4))),
        "few sizes": info_nce(process_group=Sharding(sizes=(5, 5))),
        "ring": info_nce(groups=torch.arange(5), positives="out", process_group=Sharding(way="ring")),
        "mesh": info_nce(process_group=init_device_mesh("cpu", (1, RANKS), mesh_dim_names=("a", "b"))),
        "torch.func": lambda: torch.func.grad(lambda x: modalign.info_nce(x, Y, process_group="world"))(X),
        "twice": _twice,
        **described(odd),
        "fine": info_nce(),
        "late": (lambda: (time.sleep(SECONDS + 2), info_nce()())[1]) if odd else info_nce(),
        "again": info_nce(),
    }


def described(odd: bool) -> dict[str, Call]:
    """Return calls of which ranks compare more than shapes and options, and those that refuse their input."""

    def loss(function: Callable[..., Any] = modalign.info_nce, x: Any = X, y: Any = Y, **options: Any) -> Call:
        return lambda: function(x, y, process_group="world", **options)

    def no_gradient() -> Any:
        with torch.set_grad_enabled(not odd):
            return modalign.info_nce(X.clone().requires_grad_(), Y, process_group="world")

    def autocast() -> Any:
        with torch.autocast("cpu", torch.bfloat16 if odd else torch.float16):
            return modalign.sigmoid_loss(X, Y, check_finite=False, process_group="world")

    sign, rows = -1.0 if odd else 1.0, slice(1 if odd else 5)
    queue, one = Y[:4] * (2.0 if odd else 1.0), torch.ones(1)
    huge = X * (1e30 if odd else 1.0)
    return {
        "no grad": no_gradient,
        "autocast": autocast,
        "check nt_xent": loss(modalign.nt_xent, check_finite=odd),
        "check sigmoid_loss": loss(modalign.sigmoid_loss, check_finite=odd),
        "temperature": loss(temperature=torch.tensor(0.5 if odd else 0.25)),
        "bias": loss(modalign.sigmoid_loss, bias=torch.tensor(-1.0 if odd else -2.0)),
        "queue": loss(queue=queue),
        "same numbers": loss(label_smoothing=0 if odd else 0.0, check_finite=1 if odd else True),
        "None": loss(x=None if odd else X, temperature=torch.tensor(0.5)),
        "teacher": loss(teacher=(X, Y) if odd else (X, Y, 0.5)),
        "negatives": loss(negatives=X if odd else X[:, None]),
        "NaN teacher": loss(teacher=(X * torch.nan if odd else X, Y, 0.5)),
        "negative temperature": loss(temperature=torch.tensor(sign)),
        "negative temperatures": loss(temperature=sign * torch.ones(5)),
        "negative scale": loss(modalign.nt_xent, temperature=torch.tensor(sign)),
        "weights": loss(weights=sign * torch.ones(5)),
        "negatives overflow": loss(x=huge, negatives=1e20 * X[:, None], normalize=False),
        "queue overflow": loss(x=huge, y=1e-10 * Y, queue=1e20 * Y, normalize=False),
        "one anchor": loss(x=X[rows], y=Y[rows], temperature=torch.full((len(X[rows]),), 0.5)),
        "one value": loss(x=X[rows], y=Y[rows], temperature=0.5),
        "no anchor": loss(x=X[: 0 if odd else 5], y=Y[: 0 if odd else 5], temperature=torch.ones(0 if odd else 5)),
        "one or each": loss(x=X[rows], y=Y[rows], temperature=one),
        "one row each": loss(x=X[:1], y=Y[:1], temperature=one),
    }


def _twice() -> torch.Tensor:
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(modalign.info_nce(x, Y, process_group="world"), x, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), x)[0]


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", timedelta(seconds=SECONDS), RANKS, rank)
    said = {}
    for name, call in calls(rank).items():
        begin = time.monotonic()
        said[name] = attempt(call)
        assert time.monotonic() - begin < SECONDS + 4, name
    dist.destroy_process_group()
    in_one_store(rank, Path(folder), said)
    save(rank, Path(folder), said)
    os._exit(0)


def save(rank: int, folder: Path, said: dict[str, str]) -> None:
    (folder / f"{rank}.json").write_text(json.dumps(said))


def attempt(call: Call) -> str:
    try:
        return f"{float(call()):.4f}"
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"


def in_one_store(rank: int, folder: Path, said: dict[str, str]) -> None:
    """Add the results of groups that use a store side by side, without a rank that ends, and after the store's end."""
    port = folder / "port"
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, RANKS, True, wait_for_workers=False)
        port.with_suffix(".new").write_text(str(store.port))
        port.with_suffix(".new").rename(port)
    else:
        while not port.exists():
            time.sleep(0.05)
        store = dist.TCPStore("127.0.0.1", int(port.read_text()), RANKS, False)
    dist.init_process_group("gloo", store=store, timeout=timedelta(seconds=SECONDS), world_size=RANKS, rank=rank)
    first, second = (dist.new_group(timeout=timedelta(seconds=SECONDS)) for _ in range(2))

    def work(name: str, group: object, after: float) -> None:
        time.sleep(after)
        said[name] = attempt(lambda: modalign.info_nce(X, Y, process_group=group))

    # rank 0 waits in the first group for the others, which wait in the second one for rank 0
    threads = [
        threading.Thread(target=work, args=("thread 1", first, rank > 0)),
        threading.Thread(target=work, args=("thread 2", second, rank == 0)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    dist.barrier()
    if rank == 2:
        save(rank, folder, said)
        sharded_info_nce.exchanged = lambda *arguments: os._exit(0)  # while the others wait for its columns
    said["lost"] = attempt(lambda: modalign.info_nce(X, Y, process_group=first))
    if rank == 0:
        time.sleep(2)  # until rank 1 has looked for lost ranks, too
    if rank == 1:  # rank 0 ends, and the store with it
        for name, group in (("no store", first), ("no store for a first call", "world")):
            said[name] = attempt(lambda group=group: modalign.info_nce(X, Y, process_group=group))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("faults")
    mp.spawn(run_rank, (str(folder),), RANKS)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize(
    ("case", "words"),
    {
        "width": "ValueError: info_nce: all ranks must make the same call, got d = 4 on rank 1 and 6 on rank 0",
        "dtype": "got dtype = torch.float64 on rank 1 and torch.float32 on rank 0",
        "option": "got label_smoothing = 0.1 on rank 1 and 0.0 on rank 0",
        "problems": "got batch = [2] on rank 1 and [1] on rank 0",
        "gradient": "got x = a gradient on rank 1 and no gradient on rank 0",
        "wire": "ValueError: info_nce: float64 rows do not travel in torch.bfloat16, which keeps three digits",
        "groups": "got groups = torch.int64 ['n'] on rank 1 and None on rank 0",
        "loss": "got function = nt_xent on rank 1 and info_nce on rank 0",
        "no grad": "got x = no gradient on rank 1 and a gradient on rank 0",
        "autocast": "got autocast = torch.bfloat16 on rank 1 and torch.float16 on rank 0",
        "check nt_xent": "nt_xent: all ranks must make the same call, got check_finite = True on rank 1 and False",
        "check sigmoid_loss": "sigmoid_loss: all ranks must make the same call, got check_finite = True on rank 1",
        "temperature": "got the values of temperature = 0.5 on rank 1 and 0.25 on rank 0",
        "bias": "got the values of bias = -1.0 on rank 1 and -2.0 on rank 0",
        "queue": "got the values of queue = checksum",
        "negatives overflow": "info_nce: the logits overflow",
        "queue overflow": "info_nce: the logits overflow",
        "one or each": "one for each anchor (one value has the shape ()), on rank 1 and torch.float32 [] on rank 0",
        "one row each": "a temperature with one element is one for each anchor or one for the batch",
        "all empty": "ValueError: info_nce: x and y must not be empty on all ranks",
        "sizes": "ValueError: info_nce: sizes must be the ranks' numbers of rows, (5, 5, 5), got (5, 5, 4)",
        "few sizes": "ValueError: info_nce: sizes must have 3 numbers, one for each rank, got 2",
        "ring": 'ValueError: info_nce: positives="out" needs the rows of all ranks; write way="gathered"',
        "mesh": "process_group must be a mesh of one dimension, got 2; choose one, such as mesh['a']",
        "torch.func": "NotImplementedError: info_nce: torch.func cannot transform a loss of several ranks",
        "twice": "NotImplementedError: losses over several ranks have no second derivatives",
    }.items(),
)
def test_every_rank_says_what_is_wrong(case: str, words: str, said: list[dict[str, str]]) -> None:
    assert [words in one[case] for one in said] == [True] * RANKS, [one[case] for one in said]


def test_the_others_hear_of_a_rank_that_refuses_its_input(said: list[dict[str, str]]) -> None:
    assert said[1]["refusal"] == "ValueError: info_nce: temperature must be positive and finite, got -1.0"
    assert said[0]["refusal"] == said[2]["refusal"]
    assert "rank 1 refused its input, so no rank goes on: info_nce: temperature" in said[0]["refusal"]
    assert said[1]["NaN"].startswith("ValueError: info_nce: x must be finite, got NaN or inf in 5 rows")
    assert "rank 1 refused its input, so no rank goes on: info_nce: x must be finite" in said[0]["NaN"]
    assert all("the logits overflow" in one["overflow"] for one in said)


@pytest.mark.parametrize(
    ("case", "words"),
    {
        "None": "TypeError: info_nce: x must be a torch tensor, got NoneType",
        "teacher": "TypeError: info_nce: teacher must be (tx, ty, teacher_temperature)",
        "negatives": "ValueError: info_nce: negatives must be (5, h, 6) for x (5, 6), got (5, 6)",
        "NaN teacher": "ValueError: info_nce: the teacher's x must be finite, got NaN or inf in 5 rows",
        "negative temperature": "ValueError: info_nce: temperature must be positive and finite, got -1",
        "negative temperatures": "ValueError: info_nce: temperature must be positive and finite, got -1",
        "negative scale": "ValueError: nt_xent: temperature must be positive and finite, got -1",
        "weights": "ValueError: info_nce: weights must be finite and not negative",
    }.items(),
)
def test_the_others_hear_of_every_refusal(case: str, words: str, said: list[dict[str, str]]) -> None:
    assert said[1][case].startswith(words)
    for rank in (0, 2):
        assert "rank 1 refused its input, so no rank goes on: " + words.partition(": ")[2] in said[rank][case]


def test_a_temperature_for_each_anchor_is_told_by_its_shape(said: list[dict[str, str]]) -> None:
    assert said[0]["one anchor"] == said[1]["one anchor"] == said[0]["one value"]
    assert float(said[0]["no anchor"]) == float(said[1]["no anchor"]) > 0


def test_equal_numbers_of_different_types_are_equal(said: list[dict[str, str]]) -> None:
    assert float(said[0]["same numbers"]) == float(said[1]["same numbers"]) > 0


def test_ranks_agree_again_after_an_error(said: list[dict[str, str]]) -> None:
    assert len({one["fine"] for one in said}) == 1
    assert float(said[0]["fine"]) > 0


def test_a_rank_that_does_not_come_is_named_in_time(said: list[dict[str, str]]) -> None:
    words = f"rank 1 did not make this call within the group's timeout of {SECONDS} s"
    assert words in said[0]["late"]
    assert words in said[2]["late"]
    assert "rank 0 waited for rank 1 until the group's timeout of 6 s and gave up" in said[1]["late"]
    assert [one["again"] for one in said] == [one["fine"] for one in said]  # ranks are in step again


class Group:
    """What the agreement asks of a process group."""

    _device_types = ()

    def __init__(self, store: Any, rank: int) -> None:
        self.store, self.number = store, rank

    def rank(self) -> int:
        return self.number

    def size(self) -> int:
        return 2

    def get_group_store(self) -> Any:
        return self.store


def test_a_group_hears_nothing_of_an_earlier_one_in_the_same_store(tmp_path: Path) -> None:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    for rows in (5, 4):
        groups = [Group(store, rank) for rank in range(2)]
        heard: list[object] = []

        def work(group: Group, rows: int = rows, heard: list[object] = heard) -> None:
            time.sleep(0.2 * group.rank())  # rank 0 must not take what rank 1 said earlier for what it says now
            heard.append([one["rows"] for one in agree("info_nce", group, {"rows": rows})])

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, groups))
        assert heard == [[rows, rows]] * 2


def test_groups_in_two_threads_do_not_wait_for_each_other(said: list[dict[str, str]]) -> None:
    assert {one[name] for one in said for name in ("thread 1", "thread 2")} == {said[0]["fine"]}


def test_the_end_of_the_store_is_named(said: list[dict[str, str]]) -> None:
    words = "RuntimeError: info_nce: the store of the process group does not answer"
    assert said[1]["no store"].startswith(words)
    assert said[1]["no store for a first call"].startswith(words)


def test_a_rank_that_ends_within_a_call_is_named(said: list[dict[str, str]]) -> None:
    words = "RuntimeError: rows did not travel: no answer within 2 s from rank 2; a rank has ended, and others may wait"
    assert [one["lost"].startswith(words) for one in said[:2]] == [True, True]


def test_without_a_process_group_the_message_says_how_to_start_one() -> None:
    with pytest.raises(RuntimeError, match=r"needs torch.distributed.init_process_group\(\) first"):
        modalign.info_nce(X, Y, process_group="world")
    with pytest.raises(TypeError, match=r"process_group must be 'self', 'world', .* got 3"):
        modalign.nt_xent(X, Y, process_group=3)


def test_a_sharding_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ValueError, match="way must be"):
        Sharding(way="star")
    for group in ("self", "all", None, 1):
        with pytest.raises(TypeError, match=f"Sharding: group must be 'world', a torch.distributed .* got {group!r}"):
            Sharding(group)
    with pytest.raises(ValueError, match="this rank is not in the process group"):
        Sharding(dist.GroupMember.NON_GROUP_MEMBER)
    with pytest.raises(ValueError, match="info_nce: this rank is not in the process group"):
        modalign.info_nce(X, Y, process_group=dist.GroupMember.NON_GROUP_MEMBER)
    with pytest.raises(TypeError, match=r"sizes must be 'exchange', 'even' or a sequence .* got 6"):
        Sharding(sizes=6)
    with pytest.raises(ValueError, match=r"or None for the dtype of the rows, got torch.float32"):
        Sharding(wire=torch.float32)
