"""Training on frozen encoders: features are computed once, and weights that are not trained stay."""

from __future__ import annotations

import pytest
import torch
from tests.experiments.test_training import CURVES, RUNS, trained, user

from experiments.small import configuration, hidden_numbers, sequences_and_images, vectors
from experiments.user_encoders import Calls
from modalign.encoders import build_encoder
from modalign.experiments.sweep.training import Trainer


def test_a_frozen_module_sees_every_row_once_and_its_features_go_on() -> None:
    data = vectors()
    sweep = configuration(encoders=[user("pretrained", 4, frozen=True), {"kind": "mlp", "dim": 4}])
    trainer = Trainer(data, RUNS, sweep)
    Calls.rows = 0
    for _ in range(3):
        trainer.train_epoch()
    assert Calls.rows == len(data)
    assert not any(name.startswith("encoders.0") for name in trainer.parameters)
    expected = build_encoder(sweep.encoders[0], data.x, 0)(data.part(2).x)
    embedded = trainer.embed(torch.arange(len(expected)))[0]
    torch.testing.assert_close(embedded, expected.detach().expand(len(RUNS), -1, -1))


def test_frozen_encoders_alone_train_their_heads_and_projections() -> None:
    """A task head on frozen features is a linear probe, whatever the strength; checkpoints restore the rest."""
    data = vectors()
    changes = {"projection": {"kind": "separate", "dim": 3}, "training": {"epochs": 4, "learning_rate": 0.05}}
    sweep = configuration(encoders={"kind": "frozen"}, **changes)
    whole = trained(data, sweep, dtype=torch.float32)
    assert {name.split(".")[0] for name in whole.parameters} == {"heads", "projections"}
    assert (whole.test_accuracy[:, -1] > 0.5).all()
    assert torch.equal(whole.test_accuracy[0::2], whole.test_accuracy[:1].expand(3, -1, -1))
    alignment = whole.curves[2:, :, CURVES.index("alignment_loss")]
    assert (alignment[:, -1] < alignment[:, 0]).all()
    half = Trainer(data, RUNS, sweep)
    half.train_epoch()
    rest = Trainer(data, RUNS, sweep)
    rest.restore(half.state())
    while not rest.finished:
        rest.train_epoch()
    assert torch.equal(rest.curves, whole.curves)


def test_frozen_features_of_other_widths_need_their_own_projections() -> None:
    data = sequences_and_images()
    with pytest.raises(ValueError, match=r"projection kind none needs encoders of one dim, but they have 20 and 64; "):
        Trainer(data, RUNS, configuration(encoders={"kind": "frozen"}))
    sweep = configuration(
        encoders={"kind": "frozen"}, projection={"kind": "separate", "dim": 3}, training={"labels": 9}
    )
    assert trained(data, sweep, RUNS[:1]).finished


def test_weights_that_a_module_does_not_train_stay() -> None:
    trainer = Trainer(vectors(), RUNS, configuration(encoders=user("tied", 6)))
    before = {name: value.clone() for name, value in trainer.models.encoders[0].constants.items()}
    trainer.train_epoch()
    assert list(before) == ["module.scale"]
    assert torch.equal(trainer.models.encoders[0].constants["module.scale"], before["module.scale"])
    assert "encoders.0.module.scale" not in trainer.parameters


def test_a_joint_head_on_frozen_features_is_a_probe() -> None:
    data = hidden_numbers("multilabel", 120, 3)
    ends = [
        trained(data, configuration(encoders={"kind": "frozen"}, fusion=fusion, training={"labels": None}), RUNS[:3])
        for fusion in ("probe", "joint")
    ]
    assert ends[0].predictors == ["1", "2", "3", "fused"]
    for name, end in ends[0].parameters.items():
        assert torch.equal(ends[1].parameters[name], end)
