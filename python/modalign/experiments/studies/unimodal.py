"""Training of many separate unimodal encoders at once: one architecture, any number of data sets and seeds.

Every fit has its own data set, initial weights, batches, learning rate and weight decay; the epoch with the best
validation score, or the lowest validation loss, is kept (the first of equals). The numbers of a fit do not depend on
the fits beside it, up to the rounding of batched products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from modalign.common.checks import one_of
from modalign.data import TEST, TRAIN, VALIDATION, PairedDataset
from modalign.encoders import EncoderConfig, build_encoder, seeded_module, width_of
from modalign.experiments.sweep import tasks
from modalign.experiments.sweep.randomness import batch_order, dropout_seed, initial_seed
from modalign.experiments.sweep.stacked import Layout, Stacked, stacked_encoder
from modalign.experiments.sweep.training import inputs_of

__all__ = ["Fit", "Trained", "UnimodalTrainer", "every_layer"]

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Fit(NamedTuple):
    """One encoder to train: its data set, its seed, and its learning rate and weight decay."""

    data: int
    seed: int
    learning_rate: float
    weight_decay: float


class Trained(NamedTuple):
    """The best epoch of each fit: its parameters by name (fits, ...), its scores, and its number.

    Weights that an encoder holds without training them are among the parameters where they follow the fit's seed.
    """

    parameters: dict[str, Tensor]
    validation: Tensor  # (fits,)
    test: Tensor  # (fits,)
    epoch: Tensor  # (fits,), from 1


class UnimodalTrainer:
    """Encoder and linear head for modality ``modality``, counted from 0, of each of ``data``; AdamW.

    Losses and scores are those of the data's task (see ``tasks``).
    data: sets of one task whose inputs have one shape; parts are cut to the smallest set's sizes.
    clip: the largest gradient norm of a fit. last_batch: whether an epoch ends with a batch of the pairs that are left.
    kept_by: "score" or "loss", the validation number that chooses the epoch. Raises ValueError for a modality
    that the data does not have, and for several tasks.
    """

    def __init__(
        self,
        data: Sequence[PairedDataset],
        modality: int,
        encoder: EncoderConfig,
        *,
        batch_size: int = 512,
        clip: float | None = 8.0,
        last_batch: bool = False,
        kept_by: str = "score",
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self.config, self.modality, self.dtype, self.device = encoder, modality, dtype, torch.device(device)
        self.batch_size, self.clip = batch_size, clip
        one_of("UnimodalTrainer", "kept_by", kept_by, ("score", "loss"))
        self.last_batch, self.kept_by = last_batch, kept_by
        self.block = 4 * batch_size  # without gradients four times the rows fit
        kinds = sorted({one.task for one in data})
        if len(kinds) != 1:
            raise ValueError(f"UnimodalTrainer: data must be of one task, got {' and '.join(kinds) or 'none'}")
        most = min(len(one.modalities) for one in data)
        if not 0 <= modality < most:
            raise ValueError(f"UnimodalTrainer: modality must be from 0 to {most - 1}, got {modality}")
        self.task = kinds[0]
        self.inputs: dict[int, Tensor] = {}
        self.labels: dict[int, Tensor] = {}
        for part in (TRAIN, VALIDATION, TEST):
            # without an alignment term nothing learns from a pair without a label
            inside = [((one.split == part) & one.has_label()).nonzero()[:, 0] for one in data]
            n = min(map(len, inside))
            rows = [places[:n] for places in inside]
            pairs = list(zip(data, rows, strict=True))
            self.inputs[part] = torch.stack([inputs_of(one)[modality][of] for one, of in pairs]).to(self.device)
            labels = torch.stack([_labels(one, modality)[of] for one, of in pairs])
            self.labels[part] = labels.to(self.device, None if self.task == "classification" else dtype)
        self.outputs = max(tasks.outputs(one) for one in data)
        self.example = inputs_of(data[0])[modality]

    def train(
        self,
        fits: Sequence[Fit],
        epochs: int,
        on_epoch: Callable[[], object] = lambda: None,
        on_step: Callable[[], object] = lambda: None,
    ) -> Trained:
        """Train ``fits`` side by side. A fit that diverges keeps its best epoch so far."""
        which = torch.tensor([fit.data for fit in fits], device=self.device)
        models = _Models(self, fits)
        seeds, of_seed = _seeds(fits)
        optimizer = _AdamW(models.parameters, fits)
        n = self.inputs[TRAIN].shape[1]
        batch = min(self.batch_size, n)
        best = torch.full((len(fits),), -torch.inf, device=self.device)
        validation, test = torch.zeros_like(best), torch.zeros_like(best)
        epoch_of = torch.zeros(len(fits), dtype=torch.int64)
        kept = {name: value.detach().clone() for name, value in models.parameters.items()}
        for epoch in range(epochs):
            orders = torch.stack([batch_order(seed, epoch, n) for seed in seeds])[of_seed].to(self.device)
            for step, start in enumerate(range(0, n if self.last_batch else n - batch + 1, batch)):
                rows = orders[:, start : start + batch]
                x, labels = self.inputs[TRAIN][which[:, None], rows], self.labels[TRAIN][which[:, None], rows]
                logits = models(x, models.dropout(fits, epoch, step))
                losses = tasks.losses(self.task, logits, labels)
                # a fit's parameters affect only its own loss, so the gradient of the sum holds every fit's
                gradients = torch.autograd.grad(losses.mean(1).sum(), list(models.parameters.values()))
                optimizer.step(gradients, self.clip)
                on_step()
            score, loss = models.evaluated(VALIDATION, which)
            worth = score if self.kept_by == "score" else -loss
            better = worth > best
            if bool(better.any()):
                best, validation = torch.where(better, worth, best), torch.where(better, score, validation)
                test = torch.where(better, models.evaluated(TEST, which)[0], test)
                epoch_of[better.cpu()] = epoch + 1
                for name, value in models.parameters.items():
                    kept[name][better] = value.detach()[better]
            on_epoch()
        return Trained(kept | models.constants, validation.double().cpu(), test.double().cpu(), epoch_of)

    def scores(self, trained: Trained, fits: Sequence[Fit], part: int) -> Tensor:
        """Return the scores (fits,) of trained fits on a part of the split."""
        models = _Models(self, fits)
        with torch.no_grad():
            for name, value in models.parameters.items():
                value.copy_(trained.parameters[name])
        which = torch.tensor([fit.data for fit in fits], device=self.device)
        return models.evaluated(part, which)[0].double().cpu()


class _Models:
    """The stacked encoders and heads of ``fits``."""

    def __init__(self, trainer: UnimodalTrainer, fits: Sequence[Fit]) -> None:
        seeds, copies = _seeds(fits)
        layout = Layout(copies, trainer.dtype, trainer.device)

        def stack(make: Callable[[int], nn.Module]) -> Stacked:
            return Stacked([make(seed) for seed in seeds], layout)

        modality, config, example = trainer.modality, trainer.config, trainer.example
        self.trainer = trainer
        initial = [initial_seed("encoder", seed, modality) for seed in seeds]
        self.encoder = stacked_encoder(config, example, initial, layout)
        width = width_of(config, example)
        self.head = stack(
            lambda seed: seeded_module(lambda: nn.Linear(width, trainer.outputs), initial_seed("head", seed, modality))
        )
        self.constants = {f"encoder.{name}": value for name, value in self.encoder.constants.items()}
        self.parameters = {f"encoder.{name}": value for name, value in self.encoder.parameters.items()}
        self.parameters |= {f"head.{name}": value for name, value in self.head.parameters.items()}

    def dropout(self, fits: Sequence[Fit], epoch: int, step: int) -> list[int] | None:
        """Return the seed of each fit's dropout in a step, None for encoders without it."""
        if not self.encoder.has_dropout:
            return None
        return [dropout_seed(fit.seed, self.trainer.modality, epoch, step) for fit in fits]

    def __call__(self, x: Tensor, dropout: Sequence[int] | None = None) -> Tensor:
        logits: Tensor = self.head(self.encoder(x, dropout))
        return logits

    @torch.no_grad()
    def evaluated(self, part: int, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score and the mean loss (fits,) on a part of the split."""
        inputs, labels = self.trainer.inputs[part], self.trainer.labels[part]
        found = tasks.Score(self.trainer.task, len(which))
        loss = torch.zeros(len(which), dtype=torch.float64, device=which.device)
        finite = torch.ones(len(which), dtype=torch.bool, device=which.device)
        for start in range(0, inputs.shape[1], self.trainer.block):
            rows = slice(start, start + self.trainer.block)
            logits = self(inputs[which, rows])
            finite &= logits.isfinite().flatten(1).all(1)
            found.add(logits, labels[which, rows])
            loss += tasks.losses(self.trainer.task, logits, labels[which, rows]).double().sum(1)
        # a fit that diverged scores 0 and has no finite loss
        score = torch.where(finite, found.value().to(which.device).float(), 0.0)
        return score, torch.where(finite, loss / inputs.shape[1], torch.inf)


@torch.no_grad()
def every_layer(
    config: EncoderConfig, trained: Trained, fit: int, x: Tensor, example: Tensor | None = None
) -> list[Tensor]:
    """Return the output of every layer of one trained encoder for x (n, ...): (n, width) each.

    Layers of images and sequences are pooled over positions as the output is. example: the rows that the encoder was
    built for (``UnimodalTrainer.example``), which token ids need: their largest sets the size of the vocabulary.
    """
    module = build_encoder(config, x if example is None else example, 0)
    parameters = {
        name.removeprefix("encoder."): value[fit].cpu()
        for name, value in trained.parameters.items()
        if name.startswith("encoder.")
    }
    # weights that do not depend on the seed are those of a new module
    module.load_state_dict(module.state_dict() | parameters)
    floats = [value.dtype for value in parameters.values() if value.is_floating_point()]
    found: list[Tensor] = (module.to(floats[0]) if floats else module).every_layer(x)  # type: ignore[operator]
    return found


class _AdamW:
    """torch's AdamW with a learning rate and a weight decay for each fit, the leading dimension of every parameter."""

    def __init__(self, parameters: dict[str, Tensor], fits: Sequence[Fit]) -> None:
        self.parameters = list(parameters.values())
        self.first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = 0
        rates, decays = (
            torch.tensor([getattr(fit, name) for fit in fits], dtype=torch.float64)
            for name in ("learning_rate", "weight_decay")
        )
        self.rates = [_like(rates, parameter) for parameter in self.parameters]
        self.kept = [_like(1 - rates * decays, parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], clip: float | None) -> None:
        self.steps += 1
        found = [gradient.contiguous() for gradient in gradients]
        if clip is not None:
            norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in found]).sum(0).sqrt()
            factors = (clip / (norms + 1e-6)).clamp(max=1)
            torch._foreach_mul_(found, [_like(factors, gradient) for gradient in found])
        one, two = BETAS
        torch._foreach_mul_(self.parameters, self.kept)
        torch._foreach_lerp_(self.first, found, 1 - one)
        torch._foreach_mul_(self.second, two)
        torch._foreach_addcmul_(self.second, found, found, 1 - two)
        root = torch._foreach_sqrt(self.second)
        torch._foreach_div_(root, (1 - two**self.steps) ** 0.5)
        torch._foreach_add_(root, EPSILON)
        change = torch._foreach_div(self.first, root)
        torch._foreach_mul_(change, self.rates)
        torch._foreach_add_(self.parameters, change, alpha=-1 / (1 - one**self.steps))


def _seeds(fits: Sequence[Fit]) -> tuple[list[int], Tensor]:
    """Return the different seeds, and the index of the seed of each fit."""
    seeds = sorted({fit.seed for fit in fits})
    return seeds, torch.tensor([seeds.index(fit.seed) for fit in fits])


def _like(values: Tensor, parameter: Tensor) -> Tensor:
    return values.to(parameter).reshape(-1, *[1] * (parameter.ndim - 1))


def _labels(data: PairedDataset, modality: int) -> Tensor:
    return data.labels if modality == 0 or data.labels_y is None else data.labels_y
