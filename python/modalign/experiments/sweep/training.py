"""Trains every run of a case in one loop: parameters, batches and losses carry a leading dimension of runs.

    loss_r = sum_m task_m + weight_r * sum_ij w_ij * info_nce(z_i, z_j),    z_m = projection_m(encoder_m(x_m))

The weight is the run's strength, or, with strength_kind gradient_ratio, strength * |task's gradient| / |alignment's
gradient|, both at the encoders' outputs and anew at every step; a schedule lets it rise or fall over the epochs.

task_m: the loss of modality m's own head on the labelled pairs of the batch (see ``tasks``). Every pair feeds the
alignment term. A fusion head sees the outputs of all encoders; as a probe its loss does not reach them. Runs never mix,
so each ends where it would have ended alone, up to the rounding of batched products.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modalign.data import TEST, TRAIN, VALIDATION, PairedDataset
from modalign.encoders import seeded_module, width_of
from modalign.experiments.sweep import tasks
from modalign.experiments.sweep.config import Sweep, encoders_of, pairs_of, require_comparable
from modalign.experiments.sweep.randomness import batch_order, initial_seed, label_budget, labelled_pairs
from modalign.experiments.sweep.schema import KEY, curve_columns, predictor_suffixes
from modalign.experiments.sweep.stacked import Fixed, Stacked, stacked_encoder
from modalign.losses.functional import info_nce

__all__ = ["Run", "Trainer"]


class Run(NamedTuple):
    strength: float
    seed: int


class Models:
    """The stacked networks of all runs: for each modality an encoder, a task head and a projection (or none), and a
    fusion head for all (or none)."""

    def __init__(
        self, data: PairedDataset, runs: Sequence[Run], sweep: Sweep, dtype: torch.dtype, device: torch.device
    ) -> None:
        seeds = sorted({run.seed for run in runs})
        which = torch.tensor([seeds.index(run.seed) for run in runs])
        inputs = inputs_of(data)
        configs = encoders_of(sweep, len(inputs))
        dims, outputs = [width_of(*pair) for pair in zip(configs, inputs, strict=True)], tasks.outputs(data)
        require_comparable(sweep.projection, dims)
        everyone = range(len(inputs))
        width, shared = sweep.projection.dim, sweep.projection.kind == "shared"

        def stack(part: str, modality: int, make: Callable[[int], nn.Module]) -> Stacked:
            return Stacked([make(initial_seed(part, seed, modality)) for seed in seeds], which, dtype, device)

        def linear(part: str, modality: int, of: int, width: int) -> Stacked:
            return stack(part, modality, lambda seed: seeded_module(lambda: nn.Linear(of, width), seed))

        self.encoders = [
            stacked_encoder(
                configs[m], inputs[m], [initial_seed("encoder", seed, m) for seed in seeds], which, dtype, device
            )
            for m in everyone
        ]
        self.heads = [linear("head", m, dims[m], outputs) for m in everyone]
        if sweep.fusion != "none":
            self.heads.append(linear("head", len(inputs), sum(dims), outputs))
        self.projections: list[Stacked] = []
        if width is not None:
            self.projections = [linear("projection", m, dims[m], width) for m in ((0,) if shared else everyone)]

    def project(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        """What the alignment term compares."""
        if not self.projections:
            return list(embeddings)
        return [self.projections[m % len(self.projections)](embedding) for m, embedding in enumerate(embeddings)]

    def parameters(self) -> dict[str, Tensor]:
        """Every trained tensor (runs, ...) by name, in a fixed order."""
        return {
            f"{part}.{number}.{name}": parameter
            for part in ("encoders", "heads", "projections")
            for number, module in enumerate(getattr(self, part))
            for name, parameter in module.parameters.items()
        }


class Trainer:
    """The training of ``runs`` on one data set, an epoch at a time.

    parts: what has a task head. After epoch e: ``curves[:, e]`` (runs, len(columns)), ``test_accuracy[:, e]`` (runs,
    len(parts)). ``state`` and ``restore`` carry the training across processes: a restored trainer continues with the
    same bits.
    """

    def __init__(
        self, data: PairedDataset, runs: Sequence[Run], sweep: Sweep, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.runs, self.settings = list(runs), sweep.training
        self.device = torch.device(sweep.training.device)
        self.models = Models(data, runs, sweep, dtype, self.device)
        self.inputs, self.labels = _by_split(data, self.device, dtype)
        self.task, self.fusion, self.schedule = data.task, sweep.fusion, sweep.strength_schedule
        self.parts = predictor_suffixes(len(data.modalities), sweep.fusion != "none")
        self.columns = [column.name for column in curve_columns(self.parts)[len(KEY) + 1 :]]  # without key and epoch
        self.pairs = pairs_of(sweep, len(data.modalities))
        if sweep.fusion != "none" and data.labels_y is not None:
            raise ValueError(
                "fusion needs one label for each pair, but the two items of some pairs have different ones"
            )
        n = len(self.labels[TRAIN][0])
        self.seeds = sorted({run.seed for run in runs})
        self.which_seed = torch.tensor([self.seeds.index(run.seed) for run in runs], device=self.device)
        budget = label_budget(sweep.training.labels, n)
        classes = tasks.strata(data)[data.split == TRAIN]
        self.labelled = torch.stack([labelled_pairs(classes, budget, seed) for seed in self.seeds]).to(self.device)
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
        self.epoch, self.seconds = 0, 0.0
        self.curves = torch.zeros(len(runs), self.settings.epochs, len(self.columns), dtype=torch.float64)
        self.test_accuracy = torch.zeros(len(runs), self.settings.epochs, len(self.parts), dtype=torch.float64)

    @property
    def finished(self) -> bool:
        return self.epoch == self.settings.epochs

    def train_epoch(self, on_step: Callable[[int], None] = lambda pairs: None) -> None:
        """One pass over the training pairs, in batches of one size (a shorter last one is left out), then accuracies.

        ``on_step`` is told how many pairs, over all runs, each step took. ValueError when a run diverges.
        """
        started = time.perf_counter()
        self._know_frozen()
        n = len(self.labels[TRAIN][0])
        batch = min(self.settings.batch_size, n)
        orders = torch.stack([batch_order(seed, self.epoch, n) for seed in self.seeds])
        orders = orders.to(self.device)[self.which_seed]
        losses = len(self.parts) + 3  # and gradient norms: what a step gives, but for the weight
        sums = torch.zeros(len(self.runs), losses + 1, dtype=torch.float64, device=self.device)
        for start in range(0, n - batch + 1, batch):
            sums += self.step(orders[:, start : start + batch])
            on_step(len(self.runs) * batch)
        means = (sums / (n // batch)).cpu()
        self.curves[:, self.epoch, :losses], self.curves[:, self.epoch, -1] = means[:, :-1], means[:, -1]
        self.curves[:, self.epoch, losses:-1] = self.accuracy(VALIDATION)
        self.test_accuracy[:, self.epoch] = self.accuracy(TEST)
        self.epoch += 1
        self.seconds += time.perf_counter() - started

    def step(self, rows: Tensor) -> Tensor:
        """One step of every run on its pairs ``rows`` (runs, batch); returns losses, gradient norms and the weight."""
        batch = [x[rows] for x in self.inputs[TRAIN]]
        labels = [labels[rows] for labels in self.labels[TRAIN]]
        outputs = [encode(x) for encode, x in zip(self.models.encoders, batch, strict=True)]
        # both losses meet at the encoders' outputs: their gradients are taken there apart, then go on together
        embeddings = [output.detach().requires_grad_() for output in outputs]

        weight = self.labelled[self.which_seed[:, None], rows].to(outputs[0].dtype)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
        seen = list(embeddings)
        if self.fusion != "none":
            together = torch.cat(embeddings, 2)
            seen.append(together if self.fusion == "joint" else together.detach())
            labels.append(labels[0])
        losses = [
            (tasks.losses(self.task, head(z), y) * weight).sum(1)
            for head, z, y in zip(self.models.heads, seen, labels, strict=True)
        ]
        heads = [p for head in self.models.heads for p in head.parameters.values()]
        task = _gradients(torch.stack(losses).sum(0), embeddings, heads)

        try:
            projected = self.models.project(embeddings)
            alignment_loss = torch.stack([
                share * info_nce(projected[i], projected[j], temperature=self.settings.temperature)
                for (i, j), share in self.pairs.items()
            ]).sum(0)  # fmt: skip
        except ValueError:
            self._require_finite(*embeddings)
            raise
        projections = [p for projection in self.models.projections for p in projection.parameters.values()]
        alignment = _gradients(alignment_loss, embeddings, projections)

        encoders = [p for encoder in self.models.encoders for p in encoder.parameters.values()]
        norms = _norms(task.embeddings), _norms(alignment.embeddings)
        weights = self.strengths * self._share_of_strength()
        if self.by_gradient:  # nothing pulls where the alignment term is flat
            weights = torch.where(norms[1] > 0, weights * norms[0] / norms[1], 0.0)
        combined = [t + _scaled(a, weights) for t, a in zip(task.embeddings, alignment.embeddings, strict=True)]
        felt = [i for i, output in enumerate(outputs) if output.requires_grad]  # a frozen encoder feels nothing
        gradients: list[Tensor] = []
        if felt:
            gradients += torch.autograd.grad([outputs[i] for i in felt], encoders, [combined[i] for i in felt])
        gradients += task.parameters
        gradients += [_scaled(gradient, weights) for gradient in alignment.parameters]
        if self.settings.clip is not None:
            factors = (self.settings.clip / (_norms(gradients) + 1e-6)).clamp(max=1)
            gradients = [_scaled(gradient, factors) for gradient in gradients]
        for parameter, gradient in zip((*encoders, *heads, *projections), gradients, strict=True):
            # the fused optimiser reads memory in order, whatever the strides (torch 2.13)
            parameter.grad = gradient.contiguous()
        self.optimizer.step()
        columns = [*losses, alignment_loss, *norms, weights]
        return torch.stack([column.detach().double() for column in columns], 1)

    def _know_frozen(self) -> None:
        """What a frozen encoder makes of every row, once: from then on its features are the inputs."""
        for m, encoder in enumerate(self.models.encoders):
            if isinstance(encoder, Fixed) and encoder.costly:
                for part in (TRAIN, VALIDATION, TEST):
                    blocks = torch.split(self.inputs[part][m], self.block)
                    self.inputs[part][m] = torch.cat([encoder.features(block) for block in blocks])
                self.models.encoders[m] = encoder.known()

    def _share_of_strength(self) -> float:
        """Of the strength, in this epoch of a schedule."""
        if self.schedule == "constant":
            return 1.0
        done = self.epoch / max(self.settings.epochs - 1, 1)
        return done if self.schedule == "rising" else 1 - done

    @torch.no_grad()
    def accuracy(self, part: int) -> Tensor:
        """The score of each head on a part's pairs, (runs, heads): see ``tasks.score``."""
        scores = [tasks.Score(self.task, len(self.runs)) for _ in self.parts]
        inputs, labels = self.inputs[part], self.labels[part]
        for start in range(0, len(inputs[0]), self.block):
            rows = slice(start, start + self.block)
            seen = [encode.on_same(x[rows]) for encode, x in zip(self.models.encoders, inputs, strict=True)]
            wanted = [some[rows] for some in labels]
            if self.fusion != "none":
                seen.append(torch.cat(seen, 2))
                wanted.append(wanted[0])
            for score, head, z, y in zip(scores, self.models.heads, seen, wanted, strict=True):
                logits = head(z)
                self._require_finite(logits)
                score.add(logits, y)
        return torch.stack([score.value() for score in scores], 1).cpu()

    @torch.no_grad()
    def embed(self, rows: Tensor) -> list[Tensor]:
        """What each modality's encoders make of the test pairs ``rows``: tensors (runs, len(rows), dim)."""
        return [
            torch.cat([encode.on_same(block) for block in torch.split(inputs[rows], self.block)], 1).cpu()
            for encode, inputs in zip(self.models.encoders, self.inputs[TEST], strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """Everything the rest of the training depends on, as tensors and numbers."""
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "parameters": {name: parameter.detach() for name, parameter in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "curves": self.curves,
            "test_accuracy": self.test_accuracy,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` returned for the same runs and settings."""
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
    """Of each run's loss; no run's loss depends on another run's tensors, so the sum's gradient holds them all."""
    found = list(torch.autograd.grad(losses.sum(), [*embeddings, *parameters]))
    return _Gradients(found[: len(embeddings)], found[len(embeddings) :])


def _scaled(gradient: Tensor, factors: Tensor) -> Tensor:
    """A gradient (runs, ...) times each run's factor."""
    return gradient * factors.reshape(-1, *[1] * (gradient.ndim - 1))


def _norms(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm, for each run, of several tensors (runs, ...) taken as one vector."""
    return torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()


def inputs_of(data: PairedDataset) -> list[Tensor]:
    return [data.x, data.y, *data.more]


def _by_split(
    data: PairedDataset, device: torch.device, dtype: torch.dtype
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Inputs and labels, [split][modality]."""
    inputs = inputs_of(data)
    labels = [data.labels_y if m == 1 and data.labels_y is not None else data.labels for m in range(len(inputs))]
    if data.task != "classification":
        labels = [some.to(dtype) for some in labels]
    parts = [data.split == part for part in (TRAIN, VALIDATION, TEST)]
    return (
        [[x[part].to(device) for x in inputs] for part in parts],
        [[y[part].to(device) for y in labels] for part in parts],
    )
