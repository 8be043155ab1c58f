"""The drop-in losses agree with the libraries on 2 and 4 processes, and with one process for uneven batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.losses.test_drop_ins import GOLDEN, OURS, compare

from losses import make_drop_ins
from losses.drop_in_facts import ROWS
from losses.drop_in_ranks import run_on_ranks

SHARED = [(case, results) for case, results in GOLDEN if "sizes" in case]
SIZES = ([3, 5], [4, 0, 1, 2])


def uneven_cases() -> list[dict[str, Any]]:
    """Return cases of ranks with as many rows as SIZES says.

    A loss of a rank's own rows has the share of its rows in the batch, so that the sum over ranks is the loss of all.
    """
    cases = []
    for sizes in SIZES:
        for case, _ in SHARED:
            options = case["options"]
            one_step = "steps" not in case and case["dtype"] == "float64" and len(case["sizes"]) == len(sizes)
            if not one_step or options.get("gather_with_grad") is False:
                continue
            own = options.get("local_loss", case["loss"] != "ClipLoss")
            shares = [size / sum(sizes) if own else 1 / len(sizes) for size in sizes]
            cases.append({**case, "sizes": sizes, "shares": shares})
    return cases


def name(case: dict[str, Any]) -> str:
    options = ",".join(str(value) for value in case["options"].values() if value is not True)
    return f"{case['loss']}-{case['columns']}-{options}-{case['dtype']}-{','.join(map(str, case['sizes']))}"


UNEVEN = uneven_cases()


@pytest.fixture(scope="module")
def ranks() -> tuple[list[list[np.ndarray]], list[dict[str, Any]]]:
    return run_on_ranks([*(case for case, _ in SHARED), *UNEVEN], "ours", "losses.drop_in_facts:facts")


@pytest.fixture(scope="module")
def results(ranks: tuple[list[list[np.ndarray]], list[dict[str, Any]]]) -> list[list[np.ndarray]]:
    return ranks[0]


@pytest.fixture(scope="module", params=[0, 1], ids=["rank 0", "rank 1"])
def facts(request: pytest.FixtureRequest, ranks: tuple[list[list[np.ndarray]], list[dict[str, Any]]]) -> dict[str, Any]:
    return {"rank": request.param, **ranks[1][request.param]}


def by_rank(case: dict[str, Any], arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
    each = len(arrays) // len(case["sizes"])
    return [arrays[start : start + each] for start in range(0, len(arrays), each)]


@pytest.mark.parametrize("number", range(len(SHARED)), ids=[name(case) for case, _ in SHARED])
def test_gives_the_values_and_gradients_of_the_library_on_every_rank(
    number: int, results: list[list[np.ndarray]]
) -> None:
    case, expected = SHARED[number]
    for ours, theirs in zip(by_rank(case, results[number]), by_rank(case, expected), strict=True):
        compare(case, ours, theirs)


@pytest.mark.parametrize("number", range(len(UNEVEN)), ids=[name(case) for case in UNEVEN])
def test_uneven_ranks_have_the_loss_and_the_gradients_of_one_process(
    number: int, results: list[list[np.ndarray]]
) -> None:
    case = UNEVEN[number]
    ranks = by_rank(case, results[len(SHARED) + number])
    columns = case["columns"]
    loss = sum(share * rank[0] for share, rank in zip(case["shares"], ranks, strict=True))
    rows = [np.concatenate([rank[1 + column] for rank in ranks]) for column in range(columns)]
    numbers = [sum(rank[1 + columns + extra] for rank in ranks) for extra in range(len(ranks[0]) - columns - 1)]
    gathering = ("local_loss", "gather_with_grad", "cache_labels", "dist_impl")
    options = {key: value for key, value in case["options"].items() if key not in gathering}
    alone = {key: value for key, value in case.items() if key not in ("sizes", "shares")}
    whole = make_drop_ins.run({**alone, "options": options, "n": sum(case["sizes"])}, OURS)
    compare(case, [loss, *rows, *numbers], whole)


# ---- facts of two ranks


def test_a_rank_computes_its_share_of_the_loss(facts: dict[str, Any]) -> None:
    """FLOPs over n N d: two for S, two for S again, and two for each product with rows."""
    assert facts["work"] == {
        "ClipLoss(False, False)": 8,
        "ClipLoss(False, True)": 8,
        "ClipLoss(True, False)": 12,
        "ClipLoss(True, True)": 8,
        "NTXentLoss": 16,
        "MultipleNegativesRankingLoss1": 8,
        "MultipleNegativesRankingLoss2": 8,
    }


def test_the_logits_give_the_loss_and_its_gradients(facts: dict[str, Any]) -> None:
    for by_loss, by_logits in facts["logits"].values():
        torch.testing.assert_close(by_loss, by_logits)


def test_labels_are_those_of_the_rank(facts: dict[str, Any]) -> None:
    first = ROWS * facts["rank"]
    for (local, _), labels in facts["labels"].items():
        assert labels == list(range(first, first + ROWS) if local else range(2 * ROWS))


def test_losses_compile_without_a_break(facts: dict[str, Any]) -> None:
    for eager, compiled in facts["compiled"].values():
        torch.testing.assert_close(eager, compiled)


def test_a_scale_may_be_a_number(facts: dict[str, Any]) -> None:
    assert len(facts["numbers"]) == 5
    for number, tensor in facts["numbers"]:
        torch.testing.assert_close(number, tensor, rtol=1e-14, atol=0)


def test_autocast_casts_the_features(facts: dict[str, Any]) -> None:
    assert len(facts["autocast"]) == 5
    assert all(cast.equal(given) for cast, given in facts["autocast"])


def test_mistakes_are_named_on_every_rank(facts: dict[str, Any]) -> None:
    rank = facts["rank"]
    assert facts["refusals"] == [
        f"ClipLoss: rank and world_size must be those of the process group, {rank} and 2, got {rank} and 3",
        f"SigLipLoss: rank and world_size must be those of the process group, {rank} and 2, got {1 - rank} and 2",
        "ClipLoss: features must be (n, d), got (1, 6, 4)",
        f"ClipLoss: rank and world_size must be those of the process group, {rank} and 2, got {rank} and 1",
        "ClipLoss: all ranks must make the same call, got gather_with_grad = True on rank 1 and False on rank 0",
        "NTXentLoss: all ranks must make the same call, got temperature = 1.5 on rank 1 and 0.5 on rank 0",
        "NTXentLoss: all ranks must make the same call, got memory_bank_size = (21, 4) on rank 1 and (20, 4) on rank 0",
        "NTXentLoss: all ranks must make the same call, got out0_requires_grad = False on rank 1 and True on rank 0",
        "MultipleNegativesRankingLoss: all ranks must make the same call, got scale = 21.0 on rank 1 and 20.0 on "
        "rank 0",
    ]


def test_a_loss_of_one_of_several_processes_says_how_to_have_all_rows(facts: dict[str, Any]) -> None:
    remedies = {
        "ClipLoss": "rank= and world_size=",
        "SigLipLoss": "rank= and world_size=",
        "NTXentLoss": "gather_distributed=True",
        "MultipleNegativesRankingLoss": "gather_across_devices=True",
        "info_nce_loss": 'modalign.info_nce(..., direction="x_to_y", process_group="world")',
    }
    *warned, silent = facts["warnings"]
    for words, (name, remedy) in zip(warned, remedies.items(), strict=True):
        assert words.startswith(f"{name}: this process is one of 2, and the loss has its rows alone.")
        assert f"Write {remedy} for the loss of the rows of all processes" in words
    assert silent == ""


def test_a_copy_of_a_module_has_the_same_group(facts: dict[str, Any]) -> None:
    *same, refusal = facts["copies"]
    assert same == [True, True, True]
    assert "a process group belongs to its process and cannot be pickled" in refusal


def test_every_rank_hears_of_an_overflow(facts: dict[str, Any]) -> None:
    assert all(words.startswith("MultipleNegativesRankingLoss: the logits overflow") for words in facts["overflow"])


def test_the_other_rank_hears_of_a_mistake(facts: dict[str, Any]) -> None:
    mistakes = (
        "ClipLoss: logit_scale must be positive and finite, got -1.0",
        "SigLipLoss: logit_bias must have one element, got shape (4, 4)",
        "MultipleNegativesRankingLoss: the columns must be two or more of one shape (n, d), not empty, "
        "got shapes [(6, 4), (5, 4)]",
        "NTXentLoss: out0 and out1 must have one shape (n, d), not empty, got (6, 4) and (6, 3)",
        "ClipLoss: rank and world_size must be those of the process group, 1 and 2, got 0 and 2",
    )
    for mistake, words in zip(mistakes, facts["hearsay"], strict=True):
        heard = words.partition("rank 1 refused its input, so no rank goes on: ")[2]
        assert (words if facts["rank"] == 1 else heard) == mistake
