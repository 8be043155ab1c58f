"""A long search seen from outside: a bar while it runs, and an end to it at Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

import torch

from modalign.ops.knn import Watch

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["bar", "watched"]

Result = TypeVar("Result")
SECONDS_BETWEEN_LOOKS = 0.1


def bar(shown: bool) -> Progress:
    """A bar with the time that is left, on standard error; silent unless ``shown`` and a terminal is there."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal))


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
