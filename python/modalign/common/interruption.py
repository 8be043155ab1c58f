"""A long computation run in another thread, so that its progress is seen and Ctrl-C ends it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

__all__ = ["Watch", "watched"]

Result = TypeVar("Result")
SECONDS_BETWEEN_LOOKS = 0.1


class Watch(NamedTuple):
    """How a search is followed and stopped from another thread: int64 tensors of one number, the pairs of rows dealt
    with so far, and anything but 0 to give up, which leaves the lists incomplete."""

    done: Tensor
    stop: Tensor


def watched(run: Callable[[Watch], Result], advance: Callable[[int], object]) -> Result:
    """``run(watch)`` in another thread; ``advance(work)`` is called with what it did meanwhile. Signals arrive: at
    KeyboardInterrupt the search is told to stop and waited for."""
    watch = Watch(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    seen = 0
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(run, watch)
        try:
            while not future.done():
                wait([future], SECONDS_BETWEEN_LOOKS)
                done = int(watch.done)
                advance(done - seen)
                seen = done
        except BaseException:
            watch.stop.fill_(1)
            raise
        return future.result()
