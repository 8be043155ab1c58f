"""Work that all ranks do at once, watched: a rank that fails or hangs is an error on every rank, never a hang.

The work runs in a thread of its own. A collective that waits for a lost rank cannot be interrupted; the thread that
watches it can raise. Ranks tell each other how they fare through the store of their group.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["Watch", "current_gpu"]

PAUSE = 0.05  # seconds between two looks
PATIENCE = 3.0  # seconds to wait for the word of a rank that may have ended
_numbers = itertools.count()  # of the checks of this process, which are equal on all ranks


class Watch:
    """The ranks of a group that work side by side.

    Args:
        group: The group.
        timeout: Seconds that a piece of work may take.
    """

    def __init__(self, group: dist.ProcessGroup, timeout: float) -> None:
        # a connection of its own: another thread may wait in the group's for long
        store: Any = group.get_group_store()
        prefixed: Any = vars(dist)["PrefixStore"]
        self.store = prefixed(f"modalign/check/{next(_numbers)}", store.clone())
        self.rank, self.count, self.timeout = group.rank(), group.size(), timeout
        self._pieces = itertools.count()

    def everyone(self, title: str, work: Callable[[], Any], *, only: int | None = None) -> list[Any]:
        """Do a piece of work on every rank, and return the results of all, in their order.

        Args:
            title: What is done, for messages: "the step".
            work: The work; its result must be JSON.
            only: The one rank that works while the others wait; None for all.

        Raises:
            RuntimeError: The work failed on another rank, or a rank did not finish within the timeout.
            Exception: What the work of this rank raised, where its message begins with "check: ".
        """
        idle = only is not None and only != self.rank
        worker = _Worker(title, self.rank, (lambda: None) if idle else work)
        number = next(self._pieces)
        # a rank that works alone keeps the time itself, and says what took so long
        limit = self.timeout + (0 if only is None else PATIENCE)
        try:
            outcomes = self._outcomes(worker, number, time.monotonic() + limit)
            ended = self._leave(number, all("result" in outcome for outcome in outcomes.values()))
        except dist.DistError as error:
            raise RuntimeError(f"check: {title} was given up by another rank, which has ended") from error
        if worker.error is not None and str(worker.error).startswith("check: "):
            raise worker.error
        failures = [outcome["failure"] for _, outcome in sorted(outcomes.items()) if "failure" in outcome]
        if failures:
            raise RuntimeError(failures[0] + (f" (rank {ended[0]} has ended)" if ended else "")) from worker.error
        late = {rank: outcomes[rank]["late"] if rank in outcomes else "has ended" for rank in range(self.count)}
        if any(late.values()):
            places = "; ".join(f"rank {rank} {place}" for rank, place in late.items() if place)
            raise RuntimeError(
                f"check: {title} did not finish within {self.timeout:g} s: {places}. All ranks must make the same "
                "collective calls; timeout= allows more time"
            )
        return [outcomes[rank]["result"] for rank in range(self.count)]

    def _outcomes(self, worker: _Worker, number: int, deadline: float) -> dict[int, dict[str, Any]]:
        """Tell the others how this rank fares, and return the outcomes of all, or those until one is a failure."""
        told, outcomes = False, dict[int, dict[str, Any]]()
        while len(outcomes) < self.count and time.monotonic() < deadline + PATIENCE:
            if not told and (not worker.is_alive() or time.monotonic() > deadline):
                told = True
                self.store.set(f"{number}/{self.rank}", json.dumps(worker.outcome()))
            for rank in range(self.count):
                if rank not in outcomes and self.store.check([f"{number}/{rank}"]):
                    outcomes[rank] = json.loads(self.store.get(f"{number}/{rank}"))
            if any("failure" in outcome for outcome in outcomes.values()):
                break
            time.sleep(PAUSE)
        return outcomes

    def _leave(self, number: int, succeeded: bool) -> list[int]:
        """Say that this rank has read the outcomes, and return the ranks that do not say so: they have ended.

        Rank 0, with which the store may end, leaves last. After a success the others need not wait.
        """
        self.store.set(f"{number}/left/{self.rank}", "")
        staying = list(range(self.count)) if self.rank == 0 or not succeeded else []
        end = time.monotonic() + PATIENCE
        while staying and time.monotonic() < end:
            staying = [rank for rank in staying if not self.store.check([f"{number}/left/{rank}"])]
            time.sleep(PAUSE if staying else 0)
        if self.rank == 0 and not succeeded:
            time.sleep(4 * PAUSE)
        return staying


def current_gpu() -> int | None:
    """Return the number of the GPU that this thread uses, None where it uses none."""
    cuda: Any = torch.cuda
    return cuda.current_device() if cuda.is_initialized() else None


class _Worker(threading.Thread):
    """A thread that works with the settings of the thread that made it."""

    def __init__(self, title: str, rank: int, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.title, self.rank, self.work = title, rank, work
        self.threads = torch.get_num_threads()
        self.device = current_gpu()
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            torch.set_num_threads(self.threads)
            if self.device is not None:
                torch.cuda.set_device(self.device)
            self.result = self.work()
        except BaseException as error:  # the user's step may raise anything; the watching thread raises it again
            self.error = error

    def outcome(self) -> dict[str, Any]:
        """Return what the other ranks are told: a result, a failure, or where the work is; "late" is None in time."""
        if self.is_alive():
            return {"late": self._place()}
        if self.error is None:
            return {"result": self.result, "late": None}
        text = str(self.error)
        if not text.startswith("check: "):
            text = f"check: {self.title} failed on rank {self.rank}: {type(self.error).__name__}: {text}"
        return {"failure": text}

    def _place(self) -> str:
        """Return the line of the user's code where the work is."""
        frame = sys._current_frames().get(self.ident or 0)
        calls = traceback.extract_stack(frame)
        users = [call for call in calls if not re.search(r"[/\\](torch|modalign|threading\.py)\b", call.filename)]
        place = (users or calls)[-1]
        return f"is at {os.path.basename(place.filename)}:{place.lineno}, {place.line}"
