"""A long call in another thread, whose progress is shown and which Ctrl-C ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from modalign.common.threads import is_forked

__all__ = ["Watch", "watched"]

Result = TypeVar("Result")
SECONDS_BETWEEN_CALLS = 0.1


class Watch(NamedTuple):
    """How a search is followed and stopped from another thread.

    Attributes:
        done: (1,) int64, the number of pairs of rows finished so far.
        stop: (1,) int64; the search gives up when it is not 0, and leaves its lists incomplete.
    """

    done: Tensor
    stop: Tensor


def _started(thread: ThreadPoolExecutor, run: Callable[[Watch], Result], watch: Watch) -> Future[Result] | None:
    """Call ``run(watch)`` in the thread; return None if the system gives no thread."""
    try:
        return thread.submit(run, watch)
    except RuntimeError:
        return None


def watched(run: Callable[[Watch], Result], advance: Callable[[int], object]) -> Result:
    """Call ``run(watch)`` in another thread and return its result.

    A forked child, and a process to which the system gives no thread, call it in this thread; Ctrl-C then waits for it.

    Args:
        run: The computation, which writes to ``watch.done`` and reads ``watch.stop``.
        advance: Called every tenth of a second with the work done since the last call.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed. The computation has been stopped and has ended.
    """
    watch = Watch(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    seen = 0
    with ThreadPoolExecutor(1) as thread:
        future = None if is_forked() else _started(thread, run, watch)
        if future is None:
            result = run(watch)
            advance(int(watch.done))
            return result
        try:
            while not future.done():
                wait([future], SECONDS_BETWEEN_CALLS)
                done = int(watch.done)
                advance(done - seen)
                seen = done
        except BaseException:
            watch.stop.fill_(1)
            raise
        return future.result()
