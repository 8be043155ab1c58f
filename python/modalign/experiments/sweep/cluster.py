"""Chunks of a sweep as tasks of a Ray cluster: on other processes and machines, retried when a worker dies.

Only the driver touches the folder. A task gets the chunk, the data set and the configuration, trains on one thread in a
temporary folder, and returns its results, with the same bits as on a thread of this process. Results are kept as they
come in, so a cluster that vanishes costs the chunks it was training and no more.
"""

from __future__ import annotations

import importlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from modalign.experiments.sweep.chunks import Advance, Chunk, Control, Job, Result, train_chunk
from modalign.experiments.sweep.config import Sweep
from modalign.experiments.sweep.draws import Draws
from modalign.experiments.sweep.folder import Folder

__all__ = ["import_ray", "train_on_ray"]

RETRIES = 10  # of a chunk whose worker died
SILENCE = 15.0  # seconds without an answer after which a cluster has vanished


def train_on_ray(address: str, jobs: Sequence[Job], place: Folder, advance: Advance) -> list[Result]:
    """Train chunks on a Ray cluster.

    Args:
        address: "local" starts a cluster on this machine and ends it; "auto" or ``ray://host:port`` is one that runs.
        jobs: The chunks.
        place: Where results are kept; chunks that it holds are not trained again.
        advance: Called with the work that is finished.

    Returns:
        The results of every chunk, in order.

    Raises:
        ModuleNotFoundError: Without Ray.
        ConnectionError: If the cluster cannot be reached or vanishes.
        ValueError: If a run diverges.
    """
    results: dict[int, Result] = {}
    for i, job in enumerate(jobs):
        result = place.restore(f"{job.chunk.name}.pt", job.chunk.keys)
        if result is not None:
            results[i] = result
            advance(job.work, resumed=True)
    if len(results) < len(jobs):
        with _cluster(address) as ray:
            _train_missing(ray, address, jobs, results, place=place, advance=advance)
    return [results[i] for i in range(len(jobs))]


def _train_missing(
    ray: Any, address: str, jobs: Sequence[Job], results: dict[int, Result], *, place: Folder, advance: Advance
) -> None:
    """Train the chunks that ``results`` lacks and add them."""
    train = ray.remote(num_cpus=1, max_retries=RETRIES)(_train)
    # a data set is sent once, not with every chunk
    shared = {case: ray.put(data) for case, data in {job.chunk.case: job.data for job in jobs}.items()}
    waiting = {
        train.remote(job.chunk, shared[job.chunk.case], job.sweep): i for i, job in enumerate(jobs) if i not in results
    }
    # through ray:// the head is out of sight, and Ray's client says itself when it is gone
    head = _Head(None if address.startswith("ray://") else str(ray.get_runtime_context().gcs_address))
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=0.2)
            head.require_answer()
            for task in done:
                i = waiting.pop(task)
                results[i] = _result(ray, task, jobs[i].label)
                place.save(f"{jobs[i].chunk.name}.pt", jobs[i].chunk.keys, results[i])
                advance(jobs[i].work)
    except BaseException:
        if not head.gone:  # a cluster that has vanished cannot cancel anything
            for task in waiting:
                ray.cancel(task, force=True)
        raise


class _Head:
    """The head of the cluster, asked now and then: Ray itself waits for it for a minute, then ends the process."""

    def __init__(self, address: str | None) -> None:
        self.address, self.gone = address, False
        self._last_answer = time.monotonic()

    def require_answer(self) -> None:
        """Raise ConnectionError once nothing has answered for ``SILENCE`` seconds."""
        now = time.monotonic()
        if self.address is None or now - self._last_answer < SILENCE / 3:
            return
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            self._last_answer = now
        except OSError as error:
            if now - self._last_answer > SILENCE:
                self.gone = True
                raise ConnectionError(
                    f"the Ray cluster at {self.address} vanished; what is finished stays, run again to continue"
                ) from error


def _train(chunk: Chunk, data: Draws, sweep: Sweep) -> Result:
    """Train a chunk on a worker."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        control = Control(_ignore, threading.Event(), float("inf"))
        place = Folder(Path(folder))
        with place.claimed():
            return train_chunk(Job(chunk, data, sweep), place, control)


def _ignore(work: int, *, resumed: bool = False) -> None:
    """Take the progress of a worker, which nobody sees."""


def _result(ray: Any, task: Any, label: str) -> Result:
    try:
        result: Result = ray.get(task)
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


def import_ray() -> Any:
    """Return the package Ray; ModuleNotFoundError says what to install."""
    try:
        ray = importlib.import_module("ray")
        ray.init  # noqa: B018  a folder of that name on the path is a module, too
    except (ModuleNotFoundError, AttributeError):
        raise ModuleNotFoundError("--ray needs Ray: pip install ray") from None
    return ray


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Connect to a cluster, or start one for "local", and shut it down or disconnect when the block ends."""
    ray = import_ray()
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
