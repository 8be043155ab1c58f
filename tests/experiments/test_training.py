"""Runs that train together end where each would have ended alone."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.metrics import f1_score

from experiments.plain_training import train_alone
from experiments.small import configuration, hidden_numbers, images_and_texts, sequences_and_images, vectors
from modalign.data import TRAIN, PairedDataset
from modalign.encoders import build_encoder
from modalign.experiments.sweep import tasks
from modalign.experiments.sweep.config import Sweep
from modalign.experiments.sweep.randomness import initial_seed, labelled_pairs
from modalign.experiments.sweep.schema import curve_columns
from modalign.experiments.sweep.training import Run, Trainer

CURVES = [column.name for column in curve_columns(["1", "2"])][4:]
RUNS = [Run(strength, seed) for strength in (0.0, 0.3, 2.0) for seed in (3, 8)]


def trained(data: PairedDataset, sweep: Sweep, runs: list[Run] = RUNS, dtype: torch.dtype = torch.float64) -> Trainer:
    trainer = Trainer(data, runs, sweep, dtype=dtype)
    while not trainer.finished:
        trainer.train_epoch()
    return trainer


def user(function: str, wide: int, frozen: bool = False, **arguments: Any) -> dict[str, Any]:
    make = f"experiments.user_encoders:{function}"
    return {"kind": "module", "make": make, "arguments": arguments, "dim": wide, "frozen": frozen}


def partly_labelled(data: PairedDataset) -> PairedDataset:
    """Take the label of every third training pair away."""
    known = (torch.arange(len(data)) % 3 > 0) | (data.split > 0)
    labels_y = None if data.labels_y is None else torch.where(known, data.labels_y, -1)
    return dataclasses.replace(data, labels=torch.where(known, data.labels, -1), labels_y=labels_y, labelled=known)


CASES: dict[str, tuple[PairedDataset, dict[str, Any]]] = {
    "mlp": (vectors(), {}),
    "permuted pairs": (vectors(permuted=True), {"training": {"epochs": 2}}),
    "strength as a share of the task's gradient": (
        vectors(),
        {"strength_kind": "gradient_ratio", "projection": {"kind": "shared", "dim": 3}},
    ),
    "separate projection, clipped": (
        vectors(),
        {
            "projection": {"kind": "separate", "dim": 4},
            "encoders": [{"kind": "mlp", "width": 9, "depth": 3, "dim": 6}, {"kind": "mlp", "depth": 1, "dim": 5}],
            "training": {"clip": 0.1, "epochs": 2},
        },
    ),
    "partly labelled pairs": (partly_labelled(vectors()), {"training": {"labels": None}}),
    "partly labelled pairs and a budget": (partly_labelled(vectors()), {"training": {"labels": 0.5, "epochs": 2}}),
    "shared projection": (vectors(), {"projection": {"kind": "shared", "dim": 3}, "training": {"labels": None}}),
    "cnn and transformer": (
        images_and_texts(),
        {
            "encoders": [
                {"kind": "cnn", "width": 3, "depth": 2, "dim": 4},
                {"kind": "transformer", "width": 4, "heads": 2, "depth": 1, "dim": 4},
            ],
            "training": {"batch_size": 17, "labels": 0.7, "epochs": 2},
        },
    ),
    "cnn and bag": (
        images_and_texts(),
        {
            "encoders": [{"kind": "cnn", "width": 2, "depth": 1, "dim": 4}, {"kind": "bag", "width": 4, "dim": 4}],
            "training": {"batch_size": 20, "labels": 40, "epochs": 2},
        },
    ),
    "sequence by its mean and vit by its mean": (
        sequences_and_images(),
        {
            "encoders": [
                {"kind": "sequence", "depth": 2, "dim": 4},
                {"kind": "vit", "patch": 2, "width": 4, "depth": 1, "dim": 4},
            ],
            "training": {"batch_size": 17, "labels": 0.7, "epochs": 2, "learning_rate": 0.005},
        },
    ),
    "sequence by its cls and vit by its cls": (
        sequences_and_images(),
        {
            "encoders": [
                {"kind": "sequence", "width": 6, "heads": 3, "depth": 1, "pooling": "cls", "dim": 4},
                {"kind": "vit", "patch": 4, "width": 4, "heads": 1, "depth": 2, "pooling": "cls", "dim": 4},
            ],
            "training": {"batch_size": 17, "labels": 0.7, "epochs": 2, "clip": 0.5},
        },
    ),
    "modules of the user": (
        vectors(),
        {"encoders": [user("perceptron", 6, dim=6), user("tied", 6)], "training": {"epochs": 2}},
    ),
    "a frozen module and an mlp, by gradient ratio": (
        vectors(),
        {
            "encoders": [user("pretrained", 4, frozen=True), {"kind": "mlp", "dim": 4}],
            "training": {"epochs": 2, "clip": 0.3},
            "strength_kind": "gradient_ratio",
        },
    ),
    "frozen features and a frozen module whose weights follow the seed": (
        vectors(),
        {
            "encoders": [{"kind": "frozen"}, user("perceptron", 4, frozen=True)],
            "projection": {"kind": "separate", "dim": 3},
            "training": {"epochs": 2},
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_runs_together_equal_each_run_alone_in_float64(name: str) -> None:
    data, changes = CASES[name]
    sweep = configuration(**changes)
    together = trained(data, sweep)
    for i, run in enumerate(RUNS):
        parameters, losses, accuracies = train_alone(data, run, sweep, torch.float64)
        assert set(parameters) == set(together.parameters)
        for key, value in parameters.items():
            torch.testing.assert_close(together.parameters[key][i].detach(), value, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.curves[i, :, :3], losses, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.test_accuracy[i], accuracies, rtol=0, atol=0)


def test_a_gradient_ratio_is_the_ratio_of_gradients_at_every_step() -> None:
    data, sweep = vectors(), configuration(strength_kind="gradient_ratio")
    trainer = Trainer(data, RUNS, sweep, dtype=torch.float64)
    for rows in torch.randperm(trainer.count(TRAIN))[:120].split(40):
        columns = trainer.step(rows.expand(len(RUNS), -1))
        of_task, of_alignment, weight = columns[:, 3], columns[:, 4], columns[:, 5]
        torch.testing.assert_close(
            weight * of_alignment, torch.tensor([run.strength for run in RUNS]).double() * of_task
        )
        assert (weight[2:] / weight[2:].mean()).std() > 0.01  # one weight for all runs would not do


def test_runs_together_have_the_accuracies_of_each_run_alone_in_float32() -> None:
    data, sweep = vectors(), configuration(training={"epochs": 6})
    together = trained(data, sweep, dtype=torch.float32)
    for i, run in enumerate(RUNS):
        torch.testing.assert_close(
            together.test_accuracy[i], train_alone(data, run, sweep, torch.float32)[2], rtol=0, atol=0
        )


def steps(data: PairedDataset) -> PairedDataset:
    return dataclasses.replace(data, x=data.x.reshape(-1, 3, 2), y=data.y.reshape(-1, 3, 2))


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (vectors(), {}),
        (steps(vectors()), {"encoders": {"kind": "multibench", "dim": 4}, "training": {"epochs": 2}}),
    ],
    ids=["mlp", "with dropout"],
)
def test_the_other_runs_of_a_chunk_change_nothing(data: PairedDataset, changes: dict[str, Any]) -> None:
    sweep = configuration(**changes)
    together = trained(data, sweep)
    for i, run in enumerate(RUNS):
        single = trained(data, sweep, [run])
        torch.testing.assert_close(single.curves[0], together.curves[i], rtol=1e-9, atol=1e-9)
        for key, value in single.parameters.items():
            torch.testing.assert_close(value[0], together.parameters[key][i], rtol=1e-9, atol=1e-9)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    data, sweep = vectors(), configuration()
    first, second = (trained(data, sweep, dtype=torch.float32) for _ in range(2))
    assert torch.equal(first.curves, second.curves)
    for key, value in first.parameters.items():
        assert torch.equal(value, second.parameters[key])
    assert not torch.equal(first.curves[0], first.curves[1])  # seeds 3 and 8 at strength 0


def test_runs_of_one_seed_start_alike_whatever_their_strength() -> None:
    trainer = Trainer(vectors(), RUNS, configuration())
    for value in trainer.parameters.values():
        assert torch.equal(value[0::2], value[:1].expand_as(value[0::2]))
    weight = trainer.parameters["encoders.0.out.weight"]
    assert not torch.equal(weight[0], weight[1])


def test_trainers_built_at_once_in_several_threads_start_where_each_would_alone() -> None:
    data, sweep = vectors(), configuration(encoders={"kind": "mlp", "width": 200, "depth": 3, "dim": 5})
    expected = Trainer(data, RUNS, sweep).parameters
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _: Trainer(data, RUNS, sweep).parameters, range(12)))
    for parameters in built:
        assert all(torch.equal(value, expected[key]) for key, value in parameters.items())


def test_building_a_trainer_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    Trainer(vectors(), RUNS, configuration())
    assert torch.equal(before, torch.get_rng_state())


def test_unlabelled_pairs_do_not_matter_without_alignment_and_do_with_it() -> None:
    data, sweep = vectors(), configuration()
    train = (data.split == 0).nonzero()[:, 0]
    known = labelled_pairs(data.labels[train], 90, 3)
    assert int(known.sum()) == 90
    y = data.y.clone()
    y[train[~known]] += torch.randn(int((~known).sum()), y.shape[1], generator=torch.Generator().manual_seed(1))
    labels_y = data.labels.clone()
    labels_y[train[~known]] = 0
    other = dataclasses.replace(data, name="other", y=y, labels_y=labels_y)
    runs = [Run(0.0, 3), Run(1.0, 3)]
    before, after = trained(data, sweep, runs), trained(other, sweep, runs)
    for key, value in before.parameters.items():
        assert torch.equal(value[0], after.parameters[key][0])
    assert not torch.equal(before.parameters["encoders.0.out.weight"][1], after.parameters["encoders.0.out.weight"][1])


def test_a_projection_feels_the_alignment_term_only() -> None:
    sweep = configuration(projection={"kind": "separate", "dim": 4}, training={"weight_decay": 0.0})
    trainer = Trainer(vectors(), RUNS, sweep)
    before = trainer.parameters["projections.0.weight"].detach().clone()
    trainer.train_epoch()
    moved = (trainer.parameters["projections.0.weight"].detach() - before).abs().amax((1, 2))
    assert torch.equal(moved[:2], torch.zeros(2, dtype=torch.float64))  # strength 0
    assert bool((moved[2:] > 0).all())


def test_gradient_norms_are_those_of_the_losses_at_the_embeddings() -> None:
    data, sweep = vectors(), configuration(training={"batch_size": 1000, "epochs": 1})  # one batch of all 184 pairs
    trainer = Trainer(data, RUNS, sweep, dtype=torch.float64)
    train = data.split == 0
    expected = []
    for run in RUNS:
        z = []
        for m, inputs in enumerate((data.x, data.y)):
            encoder = build_encoder(sweep.encoders[m], inputs, initial_seed("encoder", run.seed, m)).double()
            z.append(encoder(inputs[train]).detach().requires_grad_())
        a, b = (F.normalize(e, dim=-1) for e in z)
        logits, pairs = a @ b.T / sweep.training.temperature, torch.arange(len(a))
        alignment = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        expected.append(torch.cat(torch.autograd.grad(alignment, z)).norm())
    trainer.train_epoch()
    torch.testing.assert_close(
        trainer.curves[:, 0, CURVES.index("gradient_norm_alignment")], torch.stack(expected), rtol=1e-9, atol=0
    )


def test_a_restored_trainer_ends_with_the_same_bits() -> None:
    data, sweep = vectors(), configuration(training={"epochs": 4})
    whole = trained(data, sweep, dtype=torch.float32)
    half = Trainer(data, RUNS, sweep)
    half.train_epoch()
    half.train_epoch()
    rest = Trainer(data, RUNS, sweep)
    rest.restore(half.state())
    while not rest.finished:
        rest.train_epoch()
    assert torch.equal(rest.curves, whole.curves)
    assert torch.equal(rest.test_accuracy, whole.test_accuracy)
    for key, value in whole.parameters.items():
        assert torch.equal(value, rest.parameters[key])


def test_a_run_that_diverges_is_named() -> None:
    sweep = configuration(training={"learning_rate": 1e30})
    with pytest.raises(ValueError, match=r"diverged at strength 0, seed 3, epoch 1: lower training.learning_rate"):
        trained(vectors(), sweep, dtype=torch.float32)


def test_alignment_aligns() -> None:
    """With a large strength the paired outputs come closer than without alignment."""
    trainer = trained(vectors(), configuration(training={"epochs": 20, "learning_rate": 0.01}), dtype=torch.float32)
    loss = trainer.curves[:, -1, CURVES.index("alignment_loss")].numpy()
    assert np.all(loss[4:] < loss[:2] - 0.2)


@pytest.mark.parametrize("task", ["classification", "regression", "multilabel"])
def test_every_task_is_learned_and_scored(task: str) -> None:
    data = hidden_numbers(task)
    sweep = configuration(training={"epochs": 15, "labels": None, "learning_rate": 0.02}, fusion="probe")
    trainer = trained(data, sweep, RUNS[:2])
    assert trainer.predictors == ["1", "2", "fused"]
    test = data.part(2)
    chance = tasks.chance(task, test.labels)
    assert (trainer.test_accuracy[:, -1] > chance + 0.05).all()
    with torch.no_grad():
        logits = trainer.models.heads[0](trainer.models.encoders[0].on_same(test.x.double()))
    for run, said in enumerate(logits):
        if task == "classification":
            score = float((said.argmax(1) == test.labels).double().mean())
        elif task == "regression":
            score = float(((said[:, 0] > 0) == (test.labels > 0)).double().mean())
        else:
            score = f1_score(test.labels.numpy(), (said > 0).numpy(), average="micro")
        assert float(trainer.test_accuracy[run, -1, 0]) == pytest.approx(score)


def test_a_probe_leaves_the_encoders_alone_and_a_joint_head_does_not() -> None:
    data = hidden_numbers("classification")
    ends = {}
    for fusion in ("none", "probe", "joint"):
        trainer = trained(data, configuration(fusion=fusion, training={"labels": None}), RUNS[:2])
        ends[fusion] = {name: p.detach() for name, p in trainer.parameters.items() if name.startswith("encoders")}
    for name, end in ends["none"].items():
        torch.testing.assert_close(ends["probe"][name], end, rtol=1e-9, atol=1e-12)
    assert any(not torch.allclose(ends["joint"][name], end) for name, end in ends["none"].items())


def test_a_fused_label_must_be_one() -> None:
    with pytest.raises(ValueError, match="fusion needs one label for each pair"):
        Trainer(vectors(permuted=True), RUNS[:1], configuration(fusion="probe"))


def test_three_modalities_align_by_pairs() -> None:
    """With the weights of the pairs that hold modality 3 at 0, modalities 1 and 2 train as if it were not there."""
    three, two = hidden_numbers("classification", modalities=3), hidden_numbers("classification")
    pair = configuration(pair_weights={"1-3": 0.0, "2-3": 0.0}, training={"labels": None})
    alone = trained(two, configuration(training={"labels": None}), RUNS)
    beside = trained(three, pair, RUNS)
    assert beside.predictors == ["1", "2", "3"]
    for name, end in alone.parameters.items():
        torch.testing.assert_close(beside.parameters[name], end, rtol=1e-7, atol=1e-10)
    whole = trained(three, configuration(training={"labels": None}), RUNS)
    assert not torch.allclose(whole.parameters["encoders.0.out.weight"], alone.parameters["encoders.0.out.weight"])
    embedded = whole.embed(torch.arange(20))
    assert [part.shape for part in embedded] == [(len(RUNS), 20, 5)] * 3
    with pytest.raises(ValueError, match="there is no pair 2-5; there are 1-2, 1-3, 2-3"):
        Trainer(three, RUNS, configuration(pair_weights={"2-5": 1.0}))
    encoders = [{"kind": "mlp", "width": width, "dim": 5} for width in (6, 7)]
    with pytest.raises(ValueError, match="one for all modalities or one for each of 3, got 2"):
        Trainer(three, RUNS, configuration(encoders=encoders))


@pytest.mark.parametrize(
    ("schedule", "shares"), [("constant", [1, 1, 1]), ("rising", [0, 0.5, 1]), ("falling", [1, 0.5, 0])]
)
def test_schedules_of_the_strength(schedule: str, shares: list[float]) -> None:
    trainer = trained(vectors(), configuration(strength_schedule=schedule), [Run(2.0, 3)])
    weights = trainer.curves[0, :, trainer.columns.index("alignment_weight")]
    assert weights.tolist() == pytest.approx([2 * share for share in shares])
