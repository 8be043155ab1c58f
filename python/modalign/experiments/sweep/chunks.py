"""Chunks: runs of one case that train together. They are cut, trained with checkpoints, and measured here."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from modalign.data import TEST, TRAIN, PairedDataset
from modalign.experiments.sweep.config import Sweep
from modalign.experiments.sweep.draws import Draws
from modalign.experiments.sweep.folder import Folder
from modalign.experiments.sweep.memory import runs_in_a_chunk
from modalign.experiments.sweep.randomness import compared_pairs
from modalign.experiments.sweep.schema import ALIGNMENT, alignment_column
from modalign.experiments.sweep.training import Run, Trainer
from modalign.metrics import cka, mutual_knn, svcca, unbiased_cka
from modalign.metrics.undefined import score_or_nan

__all__ = ["Advance", "Chunk", "Control", "Job", "Result", "Stopped", "chunks_of", "count_cores", "cut", "train_chunk"]

# the columns of a chunk's runs: a list with a number for each run, and under "curves" the tensor of ``Trainer.curves``
Result = dict[str, Any]


class Stopped(Exception):  # noqa: N818
    """Raised within a chunk when the sweep should stop."""


class Advance(Protocol):
    """A function that takes finished work, in pairs; ``resumed`` work was finished by an earlier process."""

    def __call__(self, work: int, *, resumed: bool = False) -> None: ...


@dataclass(frozen=True)
class Chunk:
    """Runs of one case that train together.

    Args:
        case: Position of the case in the sweep.
        number: Position of the chunk in the case.
        runs: The runs.
    """

    case: int
    number: int
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"case{self.case}-chunk{self.number}"

    @property
    def keys(self) -> list[tuple[float, int]]:
        """(strength, seed) of each run, as its files record them."""
        return [(run.strength, run.seed) for run in self.runs]


@dataclass(frozen=True)
class Job:
    """A chunk with the data of its case and the settings that it trains with."""

    chunk: Chunk
    data: Draws
    sweep: Sweep

    @property
    def label(self) -> str:
        """Label of the case."""
        return self.sweep.cases[self.chunk.case].label

    @property
    def work_of_an_epoch(self) -> int:
        """Number of pairs that the chunk trains on in an epoch, over its runs."""
        n = self.data.count(TRAIN)
        batch = min(self.sweep.training.batch_size, n)
        return len(self.chunk.runs) * (n // batch) * batch

    @property
    def work(self) -> int:
        """Number of pairs that the chunk trains on, over its runs and epochs."""
        return self.sweep.training.epochs * self.work_of_an_epoch


@dataclass(frozen=True)
class Control:
    """Progress and stopping of a chunk while it trains.

    Args:
        advance: Called with the work that is finished.
        stop: Set when the chunk should stop; ``Stopped`` is then raised after the current step.
        checkpoint_seconds: Time between checkpoints, which are written after an epoch.
    """

    advance: Advance
    stop: threading.Event
    checkpoint_seconds: float


def chunks_of(case: int, data: PairedDataset, sweep: Sweep) -> list[Chunk]:
    """Cut the runs of a case into chunks of nearly one size: at most ``runs_at_once`` runs and about ``memory_gib``.

    The cut depends on the configuration alone, so that a resumed sweep finds the same chunks.
    """
    runs = [Run(strength, seed) for strength in sweep.strengths for seed in sweep.seeds]
    pieces = cut(runs, runs_in_a_chunk(data, sweep))
    return [Chunk(case, number, piece) for number, piece in enumerate(pieces)]


def cut(runs: Sequence[Run], largest: int) -> list[tuple[Run, ...]]:
    """Cut runs into pieces of nearly one size and at most ``largest`` runs."""
    size = math.ceil(len(runs) / math.ceil(len(runs) / largest))
    return [tuple(runs[start : start + size]) for start in range(0, len(runs), size)]


def count_cores() -> int:
    """Return the number of CPU cores available to this process; one chunk trains on each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train_chunk(job: Job, folder: Folder, control: Control) -> Result:
    """Train a chunk to its end, from where ``folder`` has it.

    Returns:
        The columns of its results, which ``folder`` keeps too.

    Raises:
        Stopped: If ``control.stop`` is set.
        ValueError: If a run diverges, or a file of the chunk belongs to another sweep.
    """
    chunk = job.chunk
    result = folder.restore(f"{chunk.name}.pt", chunk.keys)
    if result is not None:
        control.advance(job.work, resumed=True)
        return result

    def on_step(pairs: int) -> None:
        if control.stop.is_set():
            raise Stopped
        control.advance(pairs)

    checkpoint = f"{chunk.name}.checkpoint.pt"
    trainer = Trainer(job.data, chunk.runs, job.sweep)
    state = folder.restore(checkpoint, chunk.keys)
    if state is not None:
        trainer.restore(state)
        control.advance(trainer.epoch * job.work_of_an_epoch, resumed=True)
    saved = time.monotonic()
    while not trainer.finished:
        trainer.train_epoch(on_step)
        if time.monotonic() - saved >= control.checkpoint_seconds and not trainer.finished:
            folder.save(checkpoint, chunk.keys, trainer.state())
            saved = time.monotonic()
    result = measure(trainer, job.sweep, control.stop)
    folder.save(f"{chunk.name}.pt", chunk.keys, result)
    folder.drop(checkpoint)
    return result


def measure(trainer: Trainer, sweep: Sweep, stop: threading.Event) -> Result:
    """Compute the results of trained runs: accuracies of each predictor, and the alignment of each pair of modalities.

    Raises:
        Stopped: If ``stop`` is set.
    """
    started = time.perf_counter()
    result: Result = {}
    every_run = torch.arange(len(trainer.runs))
    for i, predictor in enumerate(trainer.predictors):
        validation = trainer.curves[:, :, trainer.columns.index(f"validation_accuracy_{predictor}")]
        test = trainer.test_accuracy[:, :, i]
        best = validation.argmax(1)  # the first of equals
        result[f"accuracy_{predictor}"] = test[every_run, best].tolist()
        result[f"validation_accuracy_{predictor}"] = validation[every_run, best].tolist()
        result[f"best_epoch_{predictor}"] = (best + 1).tolist()
        result[f"last_accuracy_{predictor}"] = test[:, -1].tolist()
    embedded = trainer.embed(compared_pairs(trainer.count(TEST), sweep.metrics.pairs))
    for i, j in trainer.pairs:
        scores: dict[str, list[float]] = {name: [] for name in ALIGNMENT}
        for x, y in zip(embedded[i], embedded[j], strict=True):
            if stop.is_set():
                raise Stopped
            scores["mutual_knn"].append(mutual_knn(x, y, k=sweep.metrics.k))
            scores["cka"].append(score_or_nan(cka, x, y))
            scores["unbiased_cka"].append(score_or_nan(unbiased_cka, x, y))
            scores["svcca"].append(score_or_nan(svcca, x, y))
        result |= {alignment_column(name, (i, j)): values for name, values in scores.items()}
    result["curves"] = trainer.curves
    seconds = (trainer.seconds + time.perf_counter() - started) / len(trainer.runs)
    result["seconds"] = [seconds] * len(trainer.runs)
    return result
