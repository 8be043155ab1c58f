"""Chunks of a sweep as tasks of a Ray cluster: on other processes and machines, retried when a worker dies.

The driver alone touches the folder. A task gets the chunk, the data set and the configuration, trains on one thread in
a folder of its own, and gives its results back; the same bits as a thread gives. What was finished is kept as it comes
in, so a cluster that vanishes costs the chunks it was training and no more.
"""

from __future__ import annotations

import importlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from modalign.data import PairedDataset
from modalign.experiments.sweep.chunks import Chunk, train_chunk, work_of
from modalign.experiments.sweep.config import Sweep
from modalign.experiments.sweep.folder import Folder

__all__ = ["train_on_ray"]

RETRIES = 10  # of a chunk whose worker died
SILENCE = 15.0  # seconds without an answer after which a cluster has vanished


def train_on_ray(
    address: str,
    sweep: Sweep,
    data: Sequence[PairedDataset],
    chunks: Sequence[Chunk],
    place: Folder,
    advance: Callable[..., None],
) -> list[dict[str, Any]]:
    """The results of every chunk in order, finished ones from ``place``; the others are kept there as they come.

    address: "local" starts a cluster on this machine and ends it; "auto" or ``ray://host:port`` is one that is there.
    Raises ModuleNotFoundError without Ray, ConnectionError for a cluster that cannot be reached or vanishes.
    """
    found: dict[int, dict[str, Any]] = {}
    for i, chunk in enumerate(chunks):
        kept = place.restore(f"{chunk.name}.pt", _runs(chunk))
        if kept is not None:
            found[i] = kept
            advance(work_of(chunk, data[chunk.case], sweep), resumed=True)
    if len(found) == len(chunks):
        return [found[i] for i in range(len(chunks))]
    with _cluster(address) as ray:
        train = ray.remote(num_cpus=1, max_retries=RETRIES)(_train)
        shared = [ray.put(pairs) for pairs in data]
        waiting = {
            train.remote(chunk, shared[chunk.case], sweep): i for i, chunk in enumerate(chunks) if i not in found
        }
        # through ray:// the head is out of sight, and Ray's client says itself when it is gone
        watch = _Watch(None if address.startswith("ray://") else str(ray.get_runtime_context().gcs_address))
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=0.2)
                watch.look()
                for task in done:
                    i = waiting.pop(task)
                    found[i] = _result(ray, task, sweep.cases[chunks[i].case].label)
                    place.save(f"{chunks[i].name}.pt", _runs(chunks[i]), found[i])
                    advance(work_of(chunks[i], data[chunks[i].case], sweep))
        except BaseException:
            if not watch.gone:  # nobody is there to be told
                for task in waiting:
                    ray.cancel(task, force=True)
            raise
    return [found[i] for i in range(len(chunks))]


class _Watch:
    """Whether the head of the cluster still answers: Ray itself waits for it for a minute, then ends the process."""

    def __init__(self, address: str | None) -> None:
        self.address, self.seen, self.gone = address, time.monotonic(), False

    def look(self) -> None:
        """ConnectionError once nothing has answered for ``SILENCE`` seconds."""
        now = time.monotonic()
        if self.address is None or now - self.seen < SILENCE / 3:
            return
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            self.seen = now
        except OSError as error:
            if now - self.seen > SILENCE:
                self.gone = True
                raise ConnectionError(
                    f"the Ray cluster at {self.address} vanished; what is finished stays, run again to continue"
                ) from error


def _train(chunk: Chunk, data: PairedDataset, sweep: Sweep) -> dict[str, Any]:
    """On a worker."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as room:
        return train_chunk(
            chunk, data, sweep, Folder(Path(room)), lambda *_, **__: None, threading.Event(), float("inf")
        )


def _result(ray: Any, task: Any, label: str) -> dict[str, Any]:
    try:
        result: dict[str, Any] = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ValueError):
            raise ValueError(f"case {label!r}: {cause}") from error
        raise
    except ray.exceptions.RayError as error:
        raise ConnectionError(
            f"the Ray cluster lost a chunk {RETRIES} times or vanished ({str(error).splitlines()[0]}); what is "
            "finished stays, run again to continue"
        ) from error
    return result


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    try:
        ray = importlib.import_module("ray")
        ray.init  # noqa: B018  a folder of that name on the path is a module, too
    except (ModuleNotFoundError, AttributeError):
        raise ModuleNotFoundError("--ray needs Ray: pip install ray") from None
    try:
        if address == "local":  # on this machine alone, whatever its network says of itself
            ray.init(
                address="local",
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                log_to_driver=False,
                logging_level="ERROR",
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConnectionError(f"no Ray cluster at {address} ({str(error).splitlines()[0]})") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _runs(chunk: Chunk) -> list[tuple[float, int]]:
    return [(run.strength, run.seed) for run in chunk.runs]
