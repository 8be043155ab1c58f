"""A whole sweep: every case at every strength and seed, into a folder, continuing whatever is there already."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path

import pandas as pd
import torch

from modalign.common.progress import Reporter
from modalign.common.threads import thread_pool
from modalign.data import TEST, PairedDataset
from modalign.experiments.sweep import tasks
from modalign.experiments.sweep.cases import notes_on, prepared
from modalign.experiments.sweep.chunks import Control, Job, Result, chunks_of, count_cores, train_chunk
from modalign.experiments.sweep.cluster import import_ray, train_on_ray
from modalign.experiments.sweep.config import Sweep
from modalign.experiments.sweep.folder import Folder
from modalign.experiments.sweep.schema import curve_columns, modality_pairs, predictor_suffixes, run_columns

__all__ = ["run"]


def run(
    sweep: Sweep,
    folder: Path,
    *,
    fresh: bool = False,
    reporter: Reporter | None = None,
    workers: int | None = None,
    checkpoint_seconds: float = 10.0,
    ray: str | None = None,
) -> Path:
    """Train every run of ``sweep`` and write runs.parquet and curves.parquet into ``folder``.

    A folder that holds part of the same sweep is continued and ends with the same numbers as if it had never stopped; a
    finished one is left as it is.

    Args:
        sweep: The configuration.
        folder: Where the results are written.
        fresh: Forget what the folder holds of an earlier sweep.
        reporter: Shows progress and notes.
        workers: Chunks of runs that train at once, each on one core; by default one for each core. It changes no
            number.
        checkpoint_seconds: Time between checkpoints, and so the largest amount of work that a kill costs, in seconds.
        ray: Address of a Ray cluster that trains the chunks instead, "local" for one on this machine.

    Returns:
        The folder.

    Raises:
        ValueError: If the data cannot meet the settings, the folder holds files that no sweep wrote, or a sweep of
            other settings or data, or a run diverges.
        OSError: If the disk is full. What is finished stays, and the next call continues.
    """
    place = Folder(folder)
    sweep, data = prepared(sweep)
    with _single_thread():  # before anything is written: encoders refuse here inputs that they cannot take
        jobs = [
            Job(chunk, draws, sweep) for case, draws in enumerate(data) for chunk in chunks_of(case, draws.first, sweep)
        ]
    fingerprints = {case.label: draws.fingerprint() for case, draws in zip(sweep.cases, data, strict=True)}
    if ray is not None:
        import_ray()  # before anything is cleared
    place.identify(sweep.model_dump(mode="json"), fingerprints)
    with place.claimed():
        if fresh:
            place.clear()
        elif place.started or place.finished:
            place.require_same(sweep, fingerprints)
        place.checkpoint.begin(place.digest)
        reporter = reporter or Reporter("none")
        if place.finished:
            reporter.say(f"{folder} holds this sweep, finished; --fresh would train it again")
            return place.path
        for note in notes_on(sweep, data):
            reporter.say(f"note: {note}")
        if place.started and not fresh:
            place.resume()
        else:
            place.begin(sweep, fingerprints)
        with _single_thread(), reporter:
            reporter.begin(sweep.name, sum(job.work for job in jobs))
            if ray is None:
                if workers is None:
                    workers = count_cores() if sweep.training.device == "cpu" else 1
                control = Control(reporter.advance, threading.Event(), checkpoint_seconds)
                results = _train_on_threads(jobs, place, control, workers)
            else:
                results = train_on_ray(ray, jobs, place, reporter.advance)
            place.finish(sweep, *_tables(jobs, results))
    return place.path


def _train_on_threads(jobs: Sequence[Job], place: Folder, control: Control, workers: int) -> list[Result]:
    """Return the results of all chunks in order."""
    workers = min(workers, len(jobs))
    with thread_pool(workers) as pool:
        futures = [pool.submit(_train, job, place, control) for job in jobs]
        try:
            return _collect(futures)
        except BaseException:
            control.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _train(job: Job, place: Folder, control: Control) -> Result:
    try:
        return train_chunk(job, place, control)
    except ValueError as error:
        raise ValueError(f"case {job.label!r}: {error}") from error


def _collect(futures: list[Future[Result]]) -> list[Result]:
    """Return the results in order, or raise the first error as soon as it happens; Ctrl-C is heard meanwhile."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    return [future.result() for future in futures]


@contextlib.contextmanager
def _single_thread() -> Iterator[None]:
    """Let torch use one thread until the block ends.

    Chunks train side by side, each on one core: small operations gain nothing from more threads, and on a busy machine
    they wait for each other. It also makes the numbers independent of the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tables(jobs: Sequence[Job], results: Sequence[Result]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of runs and of epochs, with the columns of ``schema``."""
    runs: list[dict[str, object]] = []
    curves: list[pd.DataFrame] = []
    for job, result in zip(jobs, results, strict=True):
        modalities, sweep = len(job.data.first.modalities), job.sweep
        suffixes = predictor_suffixes(modalities, sweep.fusion != "none")
        names = [column.name for column in run_columns(suffixes, modality_pairs(modalities))]
        curve_names = [column.name for column in curve_columns(suffixes)]
        compared = min(job.data.count(TEST), sweep.metrics.pairs)
        for i, run in enumerate(job.chunk.runs):
            key = {"case": job.label, "strength": run.strength, "seed": run.seed}
            measured = {name: values[i] for name, values in result.items() if name != "curves"}
            chance = {f"chance_{suffix}": _chance(job.data.of(run.seed), suffix) for suffix in suffixes}
            row = {**key, **measured, **chance, "mutual_knn_chance": sweep.metrics.k / (compared - 1)}
            runs.append({name: row[name] for name in names})
            curve = pd.DataFrame(result["curves"][i].numpy(), columns=curve_names[len(key) + 1 :])
            curves.append(pd.DataFrame({**key, "epoch": range(1, len(curve) + 1)}).join(curve))
    return pd.DataFrame(runs), pd.concat(curves, ignore_index=True)


def _chance(data: PairedDataset, suffix: str) -> float:
    """Return the score on the test pairs of the best constant prediction."""
    labels = data.labels_y if suffix == "2" and data.labels_y is not None else data.labels
    return tasks.chance(data.task, labels[data.split == TEST])
