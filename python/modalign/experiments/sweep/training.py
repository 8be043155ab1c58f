"""Training of all the runs of a chunk in one loop: parameters, batches and losses have a leading dimension of runs.

    loss_r = sum_m task_m + weight_r * sum_ij w_ij * info_nce(z_i, z_j),    z_m = projection_m(encoder_m(x_m))

The weight is the run's strength or, with strength_kind gradient_ratio, strength * |task's gradient| / |alignment's
gradient|, both at the encoders' outputs and anew at every step; a schedule lets it rise or fall over the epochs.

task_m is the loss of modality m's own head on the labelled pairs of the batch (see ``tasks``). Every pair feeds the
alignment term. A fusion head sees the outputs of all encoders; as a probe its loss does not reach them. Runs never mix,
so each ends where it would have ended alone, up to the rounding of batched products.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modalign.data import TEST, TRAIN, VALIDATION, PairedDataset
from modalign.encoders import seeded_module, width_of
from modalign.experiments.sweep import tasks
from modalign.experiments.sweep.config import Sweep, encoders_of, pairs_of, require_comparable
from modalign.experiments.sweep.draws import Draws, labelled_rows, stacked_tables
from modalign.experiments.sweep.randomness import (
    batch_order,
    dropout_seed,
    initial_seed,
)
from modalign.experiments.sweep.schema import KEY, curve_columns, predictor_suffixes
from modalign.experiments.sweep.stacked import Fixed, Layout, Stacked, stacked_encoder
from modalign.losses.functional import info_nce

__all__ = ["Run", "Trainer", "inputs_of"]


class Run(NamedTuple):
    """A training run of a case: its strength and its seed."""

    strength: float
    seed: int


class Models:
    """The stacked networks of all runs.

    Attributes:
        encoders: One for each modality.
        heads: A task head for each modality, then the fusion head where there is one.
        projections: One for each modality, one for all, or none.
    """

    def __init__(
        self, data: PairedDataset, runs: Sequence[Run], sweep: Sweep, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        seeds = sorted({run.seed for run in runs})
        layout = Layout(torch.tensor([seeds.index(run.seed) for run in runs]), dtype, device)
        inputs = inputs_of(data)
        configs = encoders_of(sweep, len(inputs))
        dims, outputs = [width_of(*pair) for pair in zip(configs, inputs, strict=True)], tasks.outputs(data)
        require_comparable(sweep.projection, dims)
        modalities = range(len(inputs))

        def linear(part: str, modality: int, features: int, width: int) -> Stacked:
            modules = [
                seeded_module(lambda: nn.Linear(features, width), initial_seed(part, seed, modality)) for seed in seeds
            ]
            return Stacked(modules, layout)

        self.encoders = [
            stacked_encoder(configs[m], inputs[m], [initial_seed("encoder", seed, m) for seed in seeds], layout)
            for m in modalities
        ]
        self.heads = [linear("head", m, dims[m], outputs) for m in modalities]
        if sweep.fusion != "none":
            self.heads.append(linear("head", len(inputs), sum(dims), outputs))
        self.projections: list[Stacked] = []
        width = sweep.projection.dim
        if width is not None:
            projected = (0,) if sweep.projection.kind == "shared" else modalities
            self.projections = [linear("projection", m, dims[m], width) for m in projected]

    def project(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        """Return the projected embeddings, which the alignment term compares."""
        if not self.projections:
            return list(embeddings)
        return [self.projections[m % len(self.projections)](embedding) for m, embedding in enumerate(embeddings)]

    def parameters(self) -> dict[str, Tensor]:
        """Return every trained tensor (runs, ...) by name, in a fixed order."""
        return {
            f"{part}.{number}.{name}": parameter
            for part in ("encoders", "heads", "projections")
            for number, module in enumerate(getattr(self, part))
            for name, parameter in module.parameters.items()
        }


class Trainer:
    """Training of ``runs`` on one data set, or on a data set of each seed's own, an epoch at a time.

    ``state`` and ``restore`` carry the training across processes: a restored trainer continues with the same bits.

    Args:
        data: The data set, or the draws of a case.
        runs: The runs.
        sweep: The configuration.
        dtype: Of parameters and inputs; tests train in float64.

    Attributes:
        predictors: Suffixes of the predictors, see ``schema``: those of the modalities, then "fused" if there is one.
        pairs: Weight of each pair of modalities in the alignment term.
        columns: Names of what is recorded of an epoch.
        curves: (runs, epochs, columns) float64; epochs that have not come are 0.
        test_accuracy: (runs, epochs, predictors) float64.
    """

    def __init__(
        self, data: PairedDataset | Draws, runs: Sequence[Run], sweep: Sweep, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.runs, self.settings = list(runs), sweep.training
        self.device = torch.device(sweep.training.device)
        self.seeds = sorted({run.seed for run in runs})
        self.seed_of_run = torch.tensor([self.seeds.index(run.seed) for run in runs], device=self.device)
        draws = data if isinstance(data, Draws) else Draws({None: data})
        sets, data = draws.used(self.seeds), draws.first
        self._counts = {part: draws.count(part) for part in (TRAIN, VALIDATION, TEST)}
        self.models = Models(data, runs, sweep, dtype=dtype, device=self.device)
        self.inputs, self.labels = stacked_tables(sets, self._counts, self.device, dtype)
        self.task, self.fusion, self.schedule = data.task, sweep.fusion, sweep.strength_schedule
        self.predictors = predictor_suffixes(len(data.modalities), sweep.fusion != "none")
        # without the key and the epoch
        self.columns = [column.name for column in curve_columns(self.predictors)[len(KEY) + 1 :]]
        self.pairs = pairs_of(sweep, len(data.modalities))
        if sweep.fusion != "none" and data.labels_y is not None:
            raise ValueError(
                "fusion needs one label for each pair, but the two items of some pairs have different ones"
            )
        labelled = [
            labelled_rows(draws.of(seed), self._counts[TRAIN], sweep.training.labels, seed) for seed in self.seeds
        ]
        self.labelled = torch.stack(labelled).to(self.device)
        self.by_gradient = sweep.strength_kind == "gradient_ratio"
        self.strengths = torch.tensor([run.strength for run in runs], dtype=dtype, device=self.device)
        self.parameters = self.models.parameters()
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        # without gradients four times the rows fit where a batch fits with them
        self.block = 4 * self.settings.batch_size
        self.epoch, self.step_of_epoch, self.seconds = 0, 0, 0.0
        epochs = self.settings.epochs
        self.curves = torch.zeros(len(runs), epochs, len(self.columns), dtype=torch.float64)
        self.test_accuracy = torch.zeros(len(runs), epochs, len(self.predictors), dtype=torch.float64)

    @property
    def finished(self) -> bool:
        """True after the last epoch."""
        return self.epoch == self.settings.epochs

    def train_epoch(self, on_step: Callable[[int], None] = lambda pairs: None) -> None:
        """Train one epoch, in batches of one size (a shorter last one is left out), and record its accuracies.

        Args:
            on_step: Called after each step with the number of pairs it trained on, over all runs.

        Raises:
            ValueError: If a run diverges.
        """
        started = time.perf_counter()
        self._cache_frozen_features()
        n = self._counts[TRAIN]
        batch = min(self.settings.batch_size, n)
        orders = torch.stack([batch_order(seed, self.epoch, n) for seed in self.seeds])
        orders = orders.to(self.device)[self.seed_of_run]
        losses = len(self.predictors) + 3  # with gradient norms: everything that a step returns except the weight
        sums = torch.zeros(len(self.runs), losses + 1, dtype=torch.float64, device=self.device)
        for self.step_of_epoch, start in enumerate(range(0, n - batch + 1, batch)):
            sums += self.step(orders[:, start : start + batch])
            on_step(len(self.runs) * batch)
        means = (sums / (n // batch)).cpu()
        self.curves[:, self.epoch, :losses], self.curves[:, self.epoch, -1] = means[:, :-1], means[:, -1]
        self.curves[:, self.epoch, losses:-1] = self.accuracy(VALIDATION)
        self.test_accuracy[:, self.epoch] = self.accuracy(TEST)
        self.epoch += 1
        self.seconds += time.perf_counter() - started

    def step(self, rows: Tensor) -> Tensor:
        """Take one optimiser step of every run.

        Args:
            rows: (runs, batch) int64, the training pairs of each run.

        Returns:
            (runs, columns) float64: task losses, alignment loss, norms of both gradients, weight of the alignment term.
        """
        outputs = [self._encoded(m, self._rows_of(x, rows)) for m, x in enumerate(self.inputs[TRAIN])]
        # both losses meet at the encoders' outputs: their gradients are taken there apart, then go on together
        embeddings = [output.detach().requires_grad_() for output in outputs]
        losses, task = self._task_gradients(embeddings, rows)
        alignment_loss, alignment = self._alignment_gradients(embeddings)

        norms = _norms(task.embeddings), _norms(alignment.embeddings)
        weights = self.strengths * self._share_of_strength()
        if self.by_gradient:  # nothing pulls where the alignment term is flat
            weights = torch.where(norms[1] > 0, weights * norms[0] / norms[1], 0.0)
        combined = [t + _scaled(a, weights) for t, a in zip(task.embeddings, alignment.embeddings, strict=True)]
        encoders = _parameters(self.models.encoders)
        trained = [i for i, output in enumerate(outputs) if output.requires_grad]  # no frozen encoder
        gradients: list[Tensor] = []
        if trained:
            gradients += torch.autograd.grad([outputs[i] for i in trained], encoders, [combined[i] for i in trained])
        gradients += task.parameters
        gradients += [_scaled(gradient, weights) for gradient in alignment.parameters]
        self._update([*encoders, *_parameters(self.models.heads), *_parameters(self.models.projections)], gradients)
        columns = [*losses, alignment_loss, *norms, weights]
        return torch.stack([column.detach().double() for column in columns], 1)

    def _encoded(self, modality: int, x: Tensor) -> Tensor:
        """Return the outputs (runs, batch, dim) of a modality's encoders in the present step of training."""
        encode = self.models.encoders[modality]
        if not encode.has_dropout:
            return encode(x)
        return encode(x, [dropout_seed(run.seed, modality, self.epoch, self.step_of_epoch) for run in self.runs])

    def _task_gradients(self, embeddings: list[Tensor], rows: Tensor) -> tuple[list[Tensor], _Gradients]:
        """Return the task loss (runs,) of each head on the labelled pairs of the batch, and their gradients."""
        labels = [self._rows_of(labels, rows) for labels in self.labels[TRAIN]]
        weight = self.labelled[self.seed_of_run[:, None], rows].to(embeddings[0].dtype)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
        inputs = list(embeddings)
        if self.fusion != "none":
            together = torch.cat(embeddings, 2)
            inputs.append(together if self.fusion == "joint" else together.detach())
            labels.append(labels[0])
        losses = [
            (tasks.losses(self.task, head(z), y) * weight).sum(1)
            for head, z, y in zip(self.models.heads, inputs, labels, strict=True)
        ]
        return losses, _gradients(torch.stack(losses).sum(0), embeddings, _parameters(self.models.heads))

    def _alignment_gradients(self, embeddings: list[Tensor]) -> tuple[Tensor, _Gradients]:
        """Return the alignment loss (runs,) before it is weighted, and its gradients."""
        try:
            projected = self.models.project(embeddings)
            losses = [
                share * info_nce(projected[i], projected[j], temperature=self.settings.temperature)
                for (i, j), share in self.pairs.items()
            ]
            loss = torch.stack(losses).sum(0)
        except ValueError:
            self._require_finite(*embeddings)
            raise
        return loss, _gradients(loss, embeddings, _parameters(self.models.projections))

    def _update(self, parameters: Sequence[Tensor], gradients: list[Tensor]) -> None:
        """Clip the gradients of each run and let the optimiser step."""
        if self.settings.clip is not None:
            factors = (self.settings.clip / (_norms(gradients) + 1e-6)).clamp(max=1)
            gradients = [_scaled(gradient, factors) for gradient in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            # the fused optimiser reads memory in order, whatever the strides (torch 2.13)
            parameter.grad = gradient.contiguous()
        self.optimizer.step()

    def _cache_frozen_features(self) -> None:
        """Replace the inputs of each frozen encoder by its features of every row, computed once."""
        for m, encoder in enumerate(self.models.encoders):
            if isinstance(encoder, Fixed) and encoder.is_worth_caching:
                for part in (TRAIN, VALIDATION, TEST):
                    sets = self.inputs[part][m]
                    features = [encoder.features(block) for block in torch.split(sets.flatten(0, 1), self.block)]
                    self.inputs[part][m] = torch.cat(features).reshape(*sets.shape[:2], -1)
                self.models.encoders[m] = encoder.without_modules()

    def _share_of_strength(self) -> float:
        """Return the share of the strength that the schedule gives this epoch."""
        if self.schedule == "constant":
            return 1.0
        done = self.epoch / max(self.settings.epochs - 1, 1)
        return done if self.schedule == "rising" else 1 - done

    @torch.no_grad()
    def accuracy(self, part: int) -> Tensor:
        """Return the score (runs, predictors) of each head on the pairs of a part of the split, see ``tasks.Score``."""
        scores = [tasks.Score(self.task, len(self.runs)) for _ in self.predictors]
        inputs, labels = self.inputs[part], self.labels[part]
        for start in range(0, self._counts[part], self.block):
            rows = slice(start, start + self.block)
            embeddings = [self._embedded(m, x[:, rows]) for m, x in enumerate(inputs)]
            targets = [values[0, rows] if len(values) == 1 else values[self.seed_of_run, rows] for values in labels]
            if self.fusion != "none":
                embeddings.append(torch.cat(embeddings, 2))
                targets.append(targets[0])
            for score, head, z, y in zip(scores, self.models.heads, embeddings, targets, strict=True):
                logits = head(z)
                self._require_finite(logits)
                score.add(logits, y)
        return torch.stack([score.value() for score in scores], 1).cpu()

    @torch.no_grad()
    def embed(self, rows: Tensor) -> list[Tensor]:
        """Return the embeddings of the test pairs ``rows`` by each modality's encoders, (runs, len(rows), dim) each."""
        return [
            torch.cat([self._embedded(m, block) for block in torch.split(inputs[:, rows], self.block, 1)], 1).cpu()
            for m, inputs in enumerate(self.inputs[TEST])
        ]

    def count(self, part: int) -> int:
        """Return the number of pairs of a part of the split."""
        return self._counts[part]

    def _rows_of(self, sets: Tensor, rows: Tensor) -> Tensor:
        """Return the rows (runs, batch) of each run's data set from all of them (sets, n, ...)."""
        return sets[0][rows] if len(sets) == 1 else sets[self.seed_of_run[:, None], rows]

    def _embedded(self, modality: int, block: Tensor) -> Tensor:
        """Return the outputs (runs, n, dim) of a modality's encoders for a block of rows (sets, n, ...)."""
        encode = self.models.encoders[modality]
        return encode.on_same(block[0]) if len(block) == 1 else encode(block[self.seed_of_run])

    def state(self) -> dict[str, object]:
        """Return everything that the remaining epochs depend on, as tensors and numbers."""
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "parameters": {name: parameter.detach() for name, parameter in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "curves": self.curves,
            "test_accuracy": self.test_accuracy,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the result of ``state`` for the same runs and settings."""
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curves, self.test_accuracy = state["curves"], state["test_accuracy"]

    def _require_finite(self, *tensors: Tensor) -> None:
        finite = torch.stack([tensor.isfinite().flatten(1).all(1) for tensor in tensors]).all(0)
        if not bool(finite.all()):
            run = self.runs[int((~finite).nonzero()[0, 0])]
            raise ValueError(
                f"training diverged at strength {run.strength:g}, seed {run.seed}, epoch {self.epoch + 1}: "
                "lower training.learning_rate or the strength, or set training.clip"
            )


class _Gradients(NamedTuple):
    embeddings: list[Tensor]
    parameters: list[Tensor]


def _gradients(losses: Tensor, embeddings: Sequence[Tensor], parameters: Sequence[Tensor]) -> _Gradients:
    """Return the gradients of each run's loss.

    No run's loss depends on another run's tensors, so the gradient of the sum holds those of all runs.
    """
    gradients = list(torch.autograd.grad(losses.sum(), [*embeddings, *parameters]))
    return _Gradients(gradients[: len(embeddings)], gradients[len(embeddings) :])


def _parameters(modules: Sequence[Stacked | Fixed]) -> list[Tensor]:
    return [parameter for module in modules for parameter in module.parameters.values()]


def _scaled(gradient: Tensor, factors: Tensor) -> Tensor:
    """Return a gradient (runs, ...) times each run's factor."""
    return gradient * factors.reshape(-1, *[1] * (gradient.ndim - 1))


def _norms(gradients: Sequence[Tensor]) -> Tensor:
    """Return for each run the Euclidean norm of several tensors (runs, ...) taken as one vector."""
    return torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()


def inputs_of(data: PairedDataset) -> list[Tensor]:
    """Return the inputs of all modalities, (n, ...) each."""
    return [data.x, data.y, *data.more]
