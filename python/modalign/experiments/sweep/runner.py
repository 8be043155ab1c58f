"""Runs a sweep: every case at every strength and seed, into a folder, continuing whatever is there already."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from modalign.common.progress import Reporter
from modalign.data import TEST, PairedDataset
from modalign.experiments.sweep import tasks
from modalign.experiments.sweep.cases import notes_on, prepared
from modalign.experiments.sweep.chunks import Chunk, chunks_of, cores, train_chunk, work_of
from modalign.experiments.sweep.cluster import train_on_ray
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
    """Train every run of ``sweep`` and write runs.parquet and curves.parquet into ``folder``; returns the folder.

    A folder that holds part of the same sweep is continued and ends with the same numbers as if it had never stopped; a
    finished one is left as it is. fresh: forget what is there. workers: chunks of runs that train at once, each on one
    core (default: one for each core); it changes no number. checkpoint_seconds: how much work a kill may cost.
    ray: the address of a Ray cluster that trains the chunks instead, "local" for one on this machine.
    Raises ValueError for settings the data cannot meet, a folder that holds a sweep of other settings or data, a run
    that diverges; OSError where the disk is full: what is finished stays, and the next call continues.
    """
    place = Folder(folder)
    sweep, data = prepared(sweep)
    with _one_thread():  # before anything is written: what the encoders cannot take is said here
        chunks = [chunk for i, pairs in enumerate(data) for chunk in chunks_of(i, pairs, sweep)]
    fingerprints = {case.label: pairs.fingerprint() for case, pairs in zip(sweep.cases, data, strict=True)}
    with place.claimed():
        if fresh:
            place.clear()
        place.remove_leftovers()
        if place.started or place.finished:
            place.require_same(sweep, fingerprints)
        place.identify(sweep.model_dump(mode="json"), fingerprints)
        reporter = reporter or Reporter("none")
        if place.finished:
            reporter.say(f"{folder} holds this sweep, finished; --fresh would train it again")
            return place.path
        for note in notes_on(sweep, data):
            reporter.say(f"note: {note}")
        if place.started:
            place.resume()
        else:
            place.begin(sweep, fingerprints)
        with _one_thread():
            if ray is None:
                _train(sweep, data, chunks, place, reporter, workers, checkpoint_seconds)
            else:
                with reporter:
                    reporter.begin(sweep.name, sum(work_of(chunk, data[chunk.case], sweep) for chunk in chunks))
                    results = train_on_ray(ray, sweep, data, chunks, place, reporter.advance)
                place.finish(sweep, *_tables(sweep, data, chunks, results))
    return place.path


def _train(
    sweep: Sweep,
    data: Sequence[PairedDataset],
    chunks: Sequence[Chunk],
    place: Folder,
    reporter: Reporter,
    workers: int | None,
    seconds: float,
) -> None:
    if workers is None:
        workers = cores() if sweep.training.device == "cpu" else 1
    stop = threading.Event()
    with (
        reporter,
        ThreadPoolExecutor(min(workers, len(chunks)), initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        reporter.begin(sweep.name, sum(work_of(chunk, data[chunk.case], sweep) for chunk in chunks))
        futures = [
            pool.submit(
                _train_chunk,
                sweep.cases[chunk.case].label,
                chunk,
                data[chunk.case],
                sweep,
                place,
                reporter.advance,
                stop,
                seconds,
            )
            for chunk in chunks
        ]
        try:
            results = _results(futures)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    place.finish(sweep, *_tables(sweep, data, chunks, results))


def _train_chunk(label: str, *arguments: Any) -> dict[str, Any]:
    try:
        return train_chunk(*arguments)
    except ValueError as error:
        raise ValueError(f"case {label!r}: {error}") from error


def _results(futures: list[Future[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of all chunks in their order, or the first error as soon as it happens; ready for Ctrl-C meanwhile."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    return [future.result() for future in futures]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Chunks train side by side, each on one core: small operations gain nothing from more, and on a busy machine they
    wait for their other half. It also makes the numbers independent of how many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tables(
    sweep: Sweep, data: Sequence[PairedDataset], chunks: Sequence[Chunk], results: Sequence[dict[str, Any]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    runs: list[dict[str, Any]] = []
    curves: list[pd.DataFrame] = []
    for chunk, result in zip(chunks, results, strict=True):
        pairs = data[chunk.case]
        compared = min(int((pairs.split == TEST).sum()), sweep.metrics.pairs)
        parts = predictor_suffixes(len(pairs.modalities), sweep.fusion != "none")
        names = [column.name for column in run_columns(parts, modality_pairs(len(pairs.modalities)))]
        curve_names = [column.name for column in curve_columns(parts)]
        constant = {f"chance_{part}": _chance(pairs, part) for part in parts}
        constant["mutual_knn_chance"] = sweep.metrics.k / (compared - 1)
        for i, run in enumerate(chunk.runs):
            key = {"case": sweep.cases[chunk.case].label, "strength": run.strength, "seed": run.seed}
            measured = {name: values[i] for name, values in result.items() if name != "curves"}
            row = key | measured | constant
            runs.append({name: row[name] for name in names})
            curve = pd.DataFrame(result["curves"][i].numpy(), columns=curve_names[len(key) + 1 :])
            curves.append(pd.DataFrame({**key, "epoch": range(1, len(curve) + 1)}).join(curve))
    return pd.DataFrame(runs), pd.concat(curves, ignore_index=True)


def _chance(pairs: PairedDataset, part: str) -> float:
    """Of the test pairs: the score of the best answer that is always the same."""
    labels = pairs.labels_y if part == "2" and pairs.labels_y is not None else pairs.labels
    return tasks.chance(pairs.task, labels[pairs.split == TEST])
