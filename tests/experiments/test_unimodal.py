"""Encoders trained apart: every kind, task and modality side by side as alone, and their layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import TypeAdapter
from sklearn.metrics import f1_score
from torch import Tensor, nn

from experiments.small import hidden_numbers, images_and_texts, sequences_and_images, vectors
from modalign.data import PairedDataset
from modalign.encoders import EncoderConfig, build_encoder, seeded_module, width_of
from modalign.experiments.studies.unimodal import Fit, UnimodalTrainer, every_layer
from modalign.experiments.sweep.randomness import batch_order, initial_seed
from modalign.experiments.sweep.training import inputs_of

USERS = "experiments.user_encoders"
FITS = [Fit(0, 3, 0.01, 0.0), Fit(0, 3, 0.03, 0.1), Fit(0, 9, 0.02, 0.01)]


def config(**settings: Any) -> EncoderConfig:
    parsed: EncoderConfig = TypeAdapter(EncoderConfig).validate_python(settings)
    return parsed


def loss_of(task: str, said: Tensor, true: Tensor) -> Tensor:
    if task == "classification":
        return F.cross_entropy(said, true)
    if task == "regression":
        return F.l1_loss(said[:, 0], true)
    return F.binary_cross_entropy_with_logits(said, true)


def score_of(task: str, said: Tensor, true: Tensor) -> float:
    if task == "classification":
        return float((said.argmax(1) == true).double().mean())
    if task == "regression":
        return float(((said[:, 0] > 0) == (true > 0)).double().mean())
    return float(f1_score(true.numpy(), (said > 0).numpy(), average="micro"))


def alone(
    data: PairedDataset, modality: int, encoder: EncoderConfig, fit: Fit, epochs: int, *, published: bool = False
) -> tuple[Any, ...]:
    """One fit in plain PyTorch: validation and test score of its best epoch, that epoch, and its encoder then.

    published: the last batch is the rest of the pairs, and the epoch of the lowest validation loss is kept.
    """
    inputs = inputs_of(data)[modality]
    module = build_encoder(encoder, inputs, initial_seed("encoder", fit.seed, modality)).double()
    outputs = 1 if data.task == "regression" else len(data.classes)
    width = width_of(encoder, inputs)
    head = seeded_module(lambda: nn.Linear(width, outputs), initial_seed("head", fit.seed, modality)).double()
    parameters = [p for p in (*module.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=fit.learning_rate, weight_decay=fit.weight_decay)
    labels = data.labels_y if modality == 1 and data.labels_y is not None else data.labels
    labels = labels if data.task == "classification" else labels.double()
    x, y = inputs[data.split == 0], labels[data.split == 0]
    best: tuple[Any, ...] = ()
    highest = -float("inf")
    for epoch in range(epochs):
        order = batch_order(fit.seed, epoch, len(x))
        for start in range(0, len(x) if published else len(x) - 15, 16):
            rows = order[start : start + 16]
            optimizer.zero_grad()
            loss_of(data.task, head(module(x[rows]).double()), y[rows]).backward()
            nn.utils.clip_grad_norm_(parameters, 0.5)
            optimizer.step()
        with torch.no_grad():
            said = head(module(inputs).double())
            scores = [score_of(data.task, said[data.split == p], labels[data.split == p]) for p in (1, 2)]
            held = data.split == 1
            worth = -float(loss_of(data.task, said[held], labels[held])) if published else scores[0]
            if worth > highest:
                highest = worth
                best = (*scores, epoch + 1, module(inputs))
    return best


CASES: dict[str, tuple[PairedDataset, int, EncoderConfig]] = {
    "cnn": (images_and_texts(), 0, config(kind="cnn", width=3, depth=2, dim=4)),
    "transformer": (images_and_texts(), 1, config(kind="transformer", width=4, depth=1, dim=4)),
    "bag": (images_and_texts(), 1, config(kind="bag", width=4, depth=1, dim=4)),
    "sequence": (sequences_and_images(), 0, config(kind="sequence", depth=2, dim=4, pooling="cls")),
    "vit": (sequences_and_images(), 1, config(kind="vit", width=4, depth=1, dim=4)),
    "frozen": (vectors(90), 1, config(kind="frozen")),
    "module": (vectors(90), 0, config(kind="module", make=f"{USERS}:tied", dim=6)),
    "a frozen module": (vectors(90), 0, config(kind="module", make=f"{USERS}:pretrained", dim=4, frozen=True)),
    "a random frozen module": (vectors(90), 0, config(kind="module", make=f"{USERS}:perceptron", dim=4, frozen=True)),
    "regression": (hidden_numbers("regression", 120), 1, config(kind="mlp", width=5, dim=4)),
    "multilabel": (hidden_numbers("multilabel", 120), 0, config(kind="mlp", width=5, dim=4)),
    "modality 3": (hidden_numbers("regression", 120, 3), 2, config(kind="mlp", width=5, dim=4)),
}


@pytest.mark.parametrize("name", ["regression", "sequence"])
def test_the_last_batch_and_the_lowest_loss_are_those_of_plain_training(name: str) -> None:
    data, modality, encoder = CASES[name]
    trainer = UnimodalTrainer(
        [data], modality, encoder, batch_size=16, clip=0.5, last_batch=True, kept_by="loss", dtype=torch.float64
    )
    trained = trainer.train(FITS, 4)
    for i, fit in enumerate(FITS):
        validation, test, epoch, _ = alone(data, modality, encoder, fit, 4, published=True)
        assert (float(trained.validation[i]), float(trained.test[i])) == pytest.approx((validation, test))
        assert int(trained.epoch[i]) == epoch
    for part, expected in ((1, trained.validation), (2, trained.test)):
        torch.testing.assert_close(trainer.scores(trained, FITS, part), expected, check_dtype=False)
    with pytest.raises(ValueError, match="kept_by must be one of"):
        UnimodalTrainer([data], modality, encoder, kept_by="accuracy")


@pytest.mark.parametrize("name", CASES)
def test_fits_side_by_side_end_as_alone_and_show_their_layers(name: str) -> None:
    data, modality, encoder = CASES[name]
    trainer = UnimodalTrainer([data], modality, encoder, batch_size=16, clip=0.5, dtype=torch.float64)
    trained = trainer.train(FITS, 3)
    inputs = inputs_of(data)[modality]
    for i, fit in enumerate(FITS):
        validation, test, epoch, out = alone(data, modality, encoder, fit, 3)
        assert float(trained.validation[i]) == pytest.approx(validation)
        assert float(trained.test[i]) == pytest.approx(test)
        assert int(trained.epoch[i]) == epoch
        layers = every_layer(encoder, trained, i, inputs[:20], trainer.example)
        torch.testing.assert_close(layers[-1], out[:20].to(layers[-1].dtype), rtol=1e-6, atol=1e-6)
        assert all(layer.ndim == 2 and len(layer) == 20 for layer in layers)


def test_data_that_cannot_be_trained_on_is_refused() -> None:
    mlp = config(kind="mlp", dim=4)
    with pytest.raises(ValueError, match="data must be of one task, got classification and regression"):
        UnimodalTrainer([vectors(), hidden_numbers("regression")], 0, mlp)
    with pytest.raises(ValueError, match="modality must be from 0 to 1, got 2"):
        UnimodalTrainer([vectors()], 2, mlp)
