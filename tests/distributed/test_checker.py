"""The check finds every known mistake of losses over several ranks, by the right factor, and no mistake in right steps.

Two ranks run all steps. What the ranks are compared with runs here, in a group of one rank, except in the cases that
start a process of their own as users do.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import modalign.distributed
from distributed import checked_steps
from modalign.distributed.__main__ import main
from modalign.distributed.checker import require_comparable
from modalign.distributed.comparing import StepOnRanks, compare, usual_tolerance
from modalign.distributed.draws import Draws, parts_of, unequal_draws
from modalign.distributed.findings import Finding, Measured, parameter_finding, power_of_ranks
from modalign.distributed.single_process import _step_from, run_alone, run_twice
from modalign.distributed.stepping import place_of, run_step
from modalign.distributed.watched import Watch

RIGHT = ["right_sharded", "right_gathered", "right_dropout", "right_two_views", "right_fully_shard"]
WRONG = [
    *("gather_without_gradient", "summed_instead_of_averaged", "temperature_counted_often", "loss_scaled_by_ranks"),
    *("padded_sampler", "other_order_of_pairs", "other_order_of_shards", "negatives_of_the_rank"),
    *("mean_of_uneven_shards", "parameter_without_gradient"),
    *("gradients_not_reduced", "weights_of_the_rank", "draws_that_do_not_divide", "batch_norm_of_the_rank"),
]
RANKS = 2
BATCH = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(1)).unbind()
Answers = dict[str, Any]


def _compare(name: str, folder: str) -> Answers:
    """Compare a step with what ran in the process of the tests."""
    watch = Watch(dist.group.WORLD, 60)
    single = json.loads(Path(folder, name, "single.json").read_text())
    ranks = StepOnRanks(watch, getattr(checked_steps, name), (), 0)
    result = compare(ranks, single, str(Path(folder, name)), usual_tolerance(single))
    kinds = {finding.name: [finding.kind, finding.factor] for finding in (result.loss, *result.parameters)}
    return {"ok": result.ok, "text": str(result), "kinds": kinds}


def _error(step: Any, inputs: Any = None, **options: Any) -> str:
    try:
        return str(modalign.distributed.check(step, inputs, **options))
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _rank(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(RANKS), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    answers: Answers = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["distributed.checked_steps:gather_without_gradient", "--backend", "gloo", "--timeout", "100"])
    answers["command"] = {"code": code, "text": printed.getvalue()}
    answers |= {name: _compare(name, folder) for name in RIGHT + WRONG}
    with pytest.raises(RuntimeError, match="every gradient is zero, on the ranks and in one process"):
        _compare("loss_without_gradient", folder)
    answers["inputs"] = _error(checked_steps.right_with_inputs, BATCH, timeout=100)
    answers["other inputs"] = _error(checked_steps.right_with_inputs, tuple(table + rank for table in BATCH))
    answers["two lengths"] = _error(checked_steps.right_with_inputs, (BATCH[0], BATCH[1][1:]))
    answers["other steps"] = _error(f"distributed.checked_steps:step_{rank}")
    ranks = StepOnRanks(Watch(dist.group.WORLD, 2), checked_steps.fails_on_rank_1, (), 0)
    for step in (checked_steps.fails_on_rank_1, checked_steps.waits_on_rank_1):  # the last one spoils the group
        ranks.step = step
        with pytest.raises(RuntimeError) as caught:
            ranks.run()
        answers[step.__name__] = str(caught.value)
    Path(folder, f"answers.{rank}").write_text(json.dumps(answers))
    os._exit(0)  # gloo's threads may abort a process that ends its interpreter


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", timeout=timedelta(seconds=30), store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, alone: None) -> list[Answers]:
    folder = tmp_path_factory.mktemp("check")
    for name in [*RIGHT, *WRONG, "loss_without_gradient"]:
        (folder / name).mkdir()
        found = run_twice(getattr(checked_steps, name), (), str(folder / name), seed=0)
        (folder / name / "single.json").write_text(json.dumps(found))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mp.spawn(_rank, (str(folder), port), RANKS)
    return [json.loads((folder / f"answers.{rank}").read_text()) for rank in range(RANKS)]


def test_all_ranks_have_the_same_answers(answers: list[Answers]) -> None:
    differing = {name for name in answers[0] if answers[0][name] != answers[1][name]}
    assert differing == {"command"}  # which rank 0 prints


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_step_is_all_fine(name: str, answers: list[Answers]) -> None:
    assert answers[0][name]["text"].startswith("all fine: 2 ranks have the loss and")
    assert answers[0][name]["ok"]


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_not_fine(name: str, answers: list[Answers]) -> None:
    print(answers[0][name]["text"])
    assert not answers[0][name]["ok"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "gather_without_gradient",
            "image.0.weight, image.0.bias, image.3.weight and 3 more: 2.00 x too small: the rows ",
        ),
        ("gather_without_gradient", "take part without their gradient: gather with gradient"),
        ("gather_without_gradient", "log_scale: equal"),
        ("summed_instead_of_averaged", "and 4 more: 2.00 x too large: the gradients of the ranks are added up"),
        ("temperature_counted_often", "loss.log_scale: 2.00 x too large: every rank has its whole gradient"),
        (
            "temperature_counted_often",
            "model.image.0.weight, model.image.0.bias, model.image.3.weight and 3 more: equal",
        ),
        ("loss_scaled_by_ranks", "loss: 2.00 x too large (4."),
        ("loss_scaled_by_ranks", "and 4 more: 2.00 x too large: divide the loss by the number of ranks"),
        ("padded_sampler", "rows: items 0 are used more often than in one process (on ranks 0, 1)"),
        ("other_order_of_pairs", "the loss is right on rank 0 and wrong on rank 1: look for rows, targets or groups"),
        ("other_order_of_shards", "the first that differs is item 4 on rank 0, where one process has 0"),
        ("negatives_of_the_rank", "each rank has a loss of its own: look for negatives of the rank's own rows alone"),
        ("mean_of_uneven_shards", "and for means over uneven shards that are averaged"),
        ("parameter_without_gradient", "unused.weight and 1 more got no gradient, which keeps Distributed"),
        ("parameter_without_gradient", "pass find_unused_parameters=True"),
        ("gradients_not_reduced", "another one on each rank: their mean over ranks is right; wrap the module"),
        ("weights_of_the_rank", "note: image.0.weight has other values on rank 1 than in one process"),
        ("batch_norm_of_the_rank", "note: batch norm of a rank's own rows is another function"),
        ("batch_norm_of_the_rank", "note: random draws are divided among the ranks by their shapes"),
        ("draws_that_do_not_divide", "rand draws (2, 2, 6) on rank 0 and (2, 1, 6) in one process"),
    ],
)
def test_a_mistake_is_named(name: str, line: str, answers: list[Answers]) -> None:
    assert line in answers[0][name]["text"]


def test_a_single_number_is_no_multiple_by_chance(answers: list[Answers]) -> None:
    assert answers[0]["negatives_of_the_rank"]["kinds"]["log_scale"][0] == "different"
    kind, factor = answers[0]["temperature_counted_often"]["kinds"]["loss.log_scale"]
    assert kind == "multiple"
    assert factor == pytest.approx(2, rel=1e-4)


def test_the_command_prints_on_rank_0_and_ends_with_code_1(answers: list[Answers]) -> None:
    assert [one["command"]["code"] for one in answers] == [1, 1]
    assert answers[0]["command"]["text"].startswith("2 ranks differ from one process: 6 of 7 gradients\n  loss: equal")
    assert not answers[1]["command"]["text"]
    page = (Path(__file__).parents[2] / "docs" / "checking-ranks.md").read_text(encoding="utf-8")
    assert answers[0]["command"]["text"] in page


def test_what_is_not_finite_or_not_deterministic_is_not_compared(tmp_path: Path, alone: None) -> None:
    def step() -> checked_steps.Result:
        model = checked_steps.Pair()
        loss = model(*checked_steps.DATA)[0].sum() * torch.inf
        loss.backward()
        return loss, model

    with pytest.raises(RuntimeError, match="the loss or a gradient is NaN or inf in one process"):
        require_comparable(run_twice(step, (), str(tmp_path), seed=0)["deviation"], 1e-3)
    with pytest.raises(RuntimeError, match=r"not deterministic: two runs in one process differ by 2.0%"):
        require_comparable(0.02, 1e-3)


def test_ranks_divide_inputs(answers: list[Answers]) -> None:
    assert answers[0]["inputs"].startswith("all fine: 2 ranks")
    assert "got inputs = " in answers[0]["other inputs"]
    assert "tensors with one number of rows, got [6, 7] rows" in answers[0]["two lengths"]
    assert (
        "got step = distributed.checked_steps:step_1 on rank 1 and distributed.checked_steps:step_0 on rank 0"
        in answers[0]["other steps"]
    )


def test_a_rank_that_fails_or_hangs_is_an_error_on_every_rank(answers: list[Answers]) -> None:
    assert answers[0]["fails_on_rank_1"] == "check: the step failed on rank 1: KeyError: 'no such caption'"
    late = answers[0]["waits_on_rank_1"]
    assert late.startswith("check: the step did not finish within 2 s: rank 0 is at checked_steps.py:")
    assert "rank 1 is at checked_steps.py" in late
    assert "time.sleep(3600). All ranks must make the same collective calls; timeout= allows more time" in late


class HalfAGroup:
    """A group of two ranks, of which rank 1 has ended."""

    def __init__(self) -> None:
        self.store = dist.HashStore()

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 2

    def get_group_store(self) -> dist.Store:
        return self.store


def test_a_rank_that_has_ended_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalign.distributed.watched.PATIENCE", 0.2)
    watch = Watch(HalfAGroup(), 0.2)
    with pytest.raises(RuntimeError, match=r"the step did not finish within 0.2 s: rank 1 has ended. All ranks must"):
        watch.everyone("the step", lambda: 3)
    with pytest.raises(RuntimeError, match=r"failed on rank 0: KeyError: 'connection closed' \(rank 1 has ended\)"):
        watch.everyone("the step", lambda: {}["connection closed"])


def test_two_runs_of_a_step_that_differ_are_seen(alone: None, tmp_path: Path) -> None:
    assert run_twice(checked_steps.another_at_each_call, (), str(tmp_path), seed=0)["deviation"] > 0.1
    assert run_twice(checked_steps.right_dropout, (), str(tmp_path), seed=0)["deviation"] == 0


def test_one_process_that_ends_is_an_error_with_its_last_words(alone: None, tmp_path: Path) -> None:
    place = ("distributed.checked_steps", "ends_in_one_process")
    with pytest.raises(RuntimeError, match="the step in one process ended with code 9:\n  out of memory"):
        run_alone(place, (), str(tmp_path), seed=0, timeout=100)


def test_a_script_is_imported_without_its_guarded_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("__main__", "__mp_main__"):
        monkeypatch.setitem(sys.modules, name, sys.modules["__main__"])
    script = tmp_path / "train.py"
    script.write_text("def step():\n    return 3\n\nif __name__ == '__main__':\n    1 / 0\n")
    assert _step_from(str(script), "step")() == 3
    script.write_text("1 / 0\n")
    with pytest.raises(ValueError, match=r"train.py fails where it is imported \(ZeroDivisionError: .* put what the"):
        _step_from(str(script), "step")


def test_the_tolerance_is_that_of_the_lowest_precision() -> None:
    def step(dtype: torch.dtype, half: bool) -> tuple[torch.Tensor, torch.nn.Module]:
        module = torch.nn.Linear(3, 2, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = module(torch.ones(4, 3, dtype=dtype)).sum()
        loss.backward()
        return loss, module

    outcomes = [
        run_step(step, arguments, seed=0).described()
        for arguments in ((torch.float64, False), (torch.float32, False), (torch.float32, True))
    ]
    assert [usual_tolerance(outcome) for outcome in outcomes] == [1e-6, 1e-3, 5e-2]


def test_what_cannot_be_checked_is_refused(alone: None) -> None:
    check = modalign.distributed.check
    with pytest.raises(RuntimeError, match="at least 2 ranks, got 1; run it under torchrun"):
        check("distributed.checked_steps:right_sharded")
    with pytest.raises(ValueError, match="timeout must be positive, got 0"):
        check("distributed.checked_steps:right_sharded", timeout=0)
    with pytest.raises(ValueError, match=r'must be "module:function", .* got \'train.py:step\''):
        place_of("train.py:step")
    with pytest.raises(ValueError, match="must be a function at the top of a module, which another process can import"):
        place_of(lambda: None)
    with pytest.raises(TypeError, match=r"must be a function or .* got int"):
        place_of(3)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.ones(()), r"must return \(loss, module\) or \(loss, module, rows\), got Tensor"),
        ((torch.ones(()), 3), r"must return a torch.nn.Module or a dict of them, got int"),
        ((torch.ones(2), torch.nn.Linear(1, 1)), r"must return a loss of one number, got shape \(2,\)"),
        ((torch.ones(()), torch.nn.Linear(1, 1)), r"must call loss.backward\(\), got a module without any gradient"),
    ],
)
def test_a_step_must_return_a_loss_and_a_trained_module(result: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        run_step(lambda: result, (), seed=0)


DRAWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "dropout": lambda x: torch.nn.functional.dropout(x, 0.5),
    "alpha_dropout": lambda x: torch.nn.functional.alpha_dropout(x, 0.5, training=True),
    "dropout1d": lambda x: torch.nn.functional.dropout1d(x, 0.5),
    "transposed": lambda x: torch.nn.functional.dropout(x.transpose(0, 2).contiguous().transpose(0, 2), 0.5),
    "attention": lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
    "native": lambda x: torch.native_dropout(x, 0.5, True)[0],
    "noise": lambda x: x + torch.randn_like(x),
    "weights": lambda x: x @ torch.randn(5, 5),
    "stochastic depth": lambda x: x * torch.rand(len(x), 1, 1).bernoulli_(0.5),
    "checkpoint": lambda x: torch.utils.checkpoint.checkpoint(
        lambda y: torch.nn.functional.dropout(y, 0.5), x, use_reentrant=False
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_of_ranks_are_parts_of_those_of_one_process(name: str) -> None:
    x = torch.randn(5, 6, 5)
    shards = x.split([3, 1, 1])

    def draw(rows: torch.Tensor, parts: Any = ()) -> tuple[torch.Tensor, list[Any]]:
        rows = rows.clone().requires_grad_()
        torch.manual_seed(4)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), Draws(parts) as draws:
            out = DRAWS[name](rows)
            out.sum().backward()
        return torch.stack([out.detach(), rows.grad]), draws.found

    whole, wanted = draw(x)
    ranks = [draw(shard)[1] for shard in shards]
    assert unequal_draws(ranks, wanted) is None
    both = [draw(shard, parts_of(ranks, wanted, rank, 1)) for rank, shard in enumerate(shards)]
    torch.testing.assert_close(torch.cat([part for part, _ in both], 1), whole)
    assert all(found == wanted for _, found in both)


def test_zero_but_for_rounding_is_equal() -> None:
    noise = Measured(norm=1e-8, single=1e-8, factor=-0.1, residual=1, error=1.1, spread=2, numbers=9)
    assert parameter_finding("key.bias", noise, 1.0, 1e-3).kind == "equal"
    assert parameter_finding("key.bias", noise, 1e-6, 1e-3).kind == "unreduced"
    small = Measured(norm=2e-8, single=1e-8, factor=2, residual=1e-5, error=1, spread=0, numbers=9)
    assert parameter_finding("key.bias", small, 1.0, 1e-3).kind == "multiple"


def test_factors_that_are_powers_of_the_number_of_ranks() -> None:
    assert [power_of_ranks(factor, 8) for factor in (8.01, 0.125, 64.0, 1 / 64, 1.0, 4.0)] == [1, -1, 2, -2, None, None]
    assert str(Finding("a", "multiple", 0.125)) == "a: 8.00 x too small"
    assert str(Finding("a", "multiple", 8.0)) == "a: 8.00 x too large"
    assert str(Finding("a", "multiple", -1.0)) == "a: -1.00 x that of one process"
