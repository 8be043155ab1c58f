"""A chunk: runs of one case that train at once. How they are cut, trained with checkpoints, and measured."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modalign.data import TEST, TRAIN, PairedDataset
from modalign.experiments.sweep.config import Sweep
from modalign.experiments.sweep.folder import Folder
from modalign.experiments.sweep.randomness import compared_pairs
from modalign.experiments.sweep.schema import ALIGNMENT, alignment_column
from modalign.experiments.sweep.training import Run, Trainer, inputs_of
from modalign.metrics import cka, mutual_knn, svcca, unbiased_cka
from modalign.metrics.undefined import score_or_nan

__all__ = ["Chunk", "Stopped", "chunks_of", "cores", "cut", "runs_in_a_chunk", "train_chunk", "work_of"]


class Stopped(Exception):  # noqa: N818
    """The sweep was told to stop."""


@dataclass(frozen=True)
class Chunk:
    case: int
    number: int
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        return f"case{self.case}-chunk{self.number}"


def chunks_of(case: int, data: PairedDataset, sweep: Sweep) -> list[Chunk]:
    """The runs of a case in chunks of nearly one size: at most ``runs_at_once`` runs and about ``memory_gib``.

    The cut depends on the configuration alone, so that a resumed sweep meets the chunks it left.
    """
    runs = [Run(strength, seed) for strength in sweep.strengths for seed in sweep.seeds]
    pieces = cut(runs, runs_in_a_chunk(data, sweep))
    return [Chunk(case, number, piece) for number, piece in enumerate(pieces)]


def runs_in_a_chunk(data: PairedDataset, sweep: Sweep) -> int:
    """At most."""
    affordable = int(sweep.training.memory_gib * 2**30 / bytes_of_a_run(data, sweep))
    return max(1, min(sweep.training.runs_at_once, affordable))


def cut(runs: Sequence[Run], most: int) -> list[tuple[Run, ...]]:
    """Pieces of nearly one size and at most ``most`` runs."""
    size = math.ceil(len(runs) / math.ceil(len(runs) / most))
    return [tuple(runs[start : start + size]) for start in range(0, len(runs), size)]


def bytes_of_a_run(data: PairedDataset, sweep: Sweep) -> int:
    """About what one run takes while it trains: its batch, what a step keeps for its gradients and as much again while
    they are computed, and its parameters with their gradients and the optimiser's two moments."""
    trainer = Trainer(data, [Run(sweep.strengths[0], sweep.seeds[0])], sweep)
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is given out twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    batch = min(sweep.training.batch_size, len(trainer.labels[TRAIN][0]))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.step(torch.arange(batch, device=trainer.device)[None])
    inputs = sum(batch * x[0].numel() * x.element_size() for x in inputs_of(data))
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in trainer.parameters.values())
    return inputs + 2 * sum(storage.nbytes() for storage in kept.values()) + 4 * parameters


def cores() -> int:
    """That this process may use: so many chunks train at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work_of(chunk: Chunk, data: PairedDataset, sweep: Sweep) -> int:
    """The pairs a chunk trains on, over its runs and epochs."""
    return sweep.training.epochs * _work_of_an_epoch(chunk, data, sweep)


def train_chunk(
    chunk: Chunk,
    data: PairedDataset,
    sweep: Sweep,
    folder: Folder,
    advance: Callable[..., None],
    stop: threading.Event,
    checkpoint_seconds: float,
) -> dict[str, Any]:
    """Train a chunk, from where ``folder`` has it, to its end; return (and keep) the columns of its results."""
    runs = [(run.strength, run.seed) for run in chunk.runs]
    result = folder.restore(f"{chunk.name}.pt", runs)
    if result is not None:
        advance(work_of(chunk, data, sweep), resumed=True)
        return result

    def on_step(pairs: int) -> None:
        if stop.is_set():
            raise Stopped
        advance(pairs)

    checkpoint = f"{chunk.name}.checkpoint.pt"
    trainer = Trainer(data, chunk.runs, sweep)
    state = folder.restore(checkpoint, runs)
    if state is not None:
        trainer.restore(state)
        advance(trainer.epoch * _work_of_an_epoch(chunk, data, sweep), resumed=True)
    saved = time.monotonic()
    while not trainer.finished:
        trainer.train_epoch(on_step)
        if time.monotonic() - saved >= checkpoint_seconds and not trainer.finished:
            folder.save(checkpoint, runs, trainer.state())
            saved = time.monotonic()
    result = measure(trainer, data, sweep, stop)
    folder.save(f"{chunk.name}.pt", runs, result)
    folder.drop(checkpoint)
    return result


def measure(trainer: Trainer, data: PairedDataset, sweep: Sweep, stop: threading.Event) -> dict[str, Any]:
    """The results of trained runs: a list of numbers, one for each run, under every name of a column."""
    started = time.perf_counter()
    result: dict[str, Any] = {}
    everyone = torch.arange(len(trainer.runs))
    for i, part in enumerate(trainer.parts):
        validation = trainer.curves[:, :, trainer.columns.index(f"validation_accuracy_{part}")]
        test = trainer.test_accuracy[:, :, i]
        best = validation.argmax(1)  # the first of equals
        result[f"accuracy_{part}"] = test[everyone, best].tolist()
        result[f"validation_accuracy_{part}"] = validation[everyone, best].tolist()
        result[f"best_epoch_{part}"] = (best + 1).tolist()
        result[f"last_accuracy_{part}"] = test[:, -1].tolist()
    rows = compared_pairs(len(trainer.labels[TEST][0]), sweep.metrics.pairs)
    embedded = trainer.embed(rows)
    for i, j in trainer.pairs:
        scores: dict[str, list[float]] = {measure: [] for measure in ALIGNMENT}
        for x, y in zip(embedded[i], embedded[j], strict=True):
            if stop.is_set():
                raise Stopped
            scores["mutual_knn"].append(mutual_knn(x, y, k=sweep.metrics.k))
            scores["cka"].append(score_or_nan(cka, x, y))
            scores["unbiased_cka"].append(score_or_nan(unbiased_cka, x, y))
            scores["svcca"].append(score_or_nan(svcca, x, y))
        result |= {alignment_column(measure, (i, j)): values for measure, values in scores.items()}
    result["curves"] = trainer.curves
    seconds = (trainer.seconds + time.perf_counter() - started) / len(trainer.runs)
    result["seconds"] = [seconds] * len(trainer.runs)
    return result


def _work_of_an_epoch(chunk: Chunk, data: PairedDataset, sweep: Sweep) -> int:
    n = int((data.split == TRAIN).sum())
    batch = min(sweep.training.batch_size, n)
    return len(chunk.runs) * (n // batch) * batch
