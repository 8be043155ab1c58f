"""A progress bar on a terminal, or lines of progress in a log, while a long computation runs."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

__all__ = ["bar", "in_words"]

SECONDS_BETWEEN_LINES = 15.0


def bar(shown: bool) -> Progress:
    """How much is done and the time that is left, on standard error: a bar on a terminal, elsewhere a line every 15
    seconds. Silent unless ``shown``."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if shown and not console.is_terminal:
        return _Lines(console)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not shown)


class _Lines(Progress):
    """For logs. Work that takes less than a line's time says nothing."""

    def __init__(self, console: Console) -> None:
        super().__init__(console=console, disable=True)
        self.spoke = time.monotonic()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        if time.monotonic() - self.spoke >= SECONDS_BETWEEN_LINES:
            self.spoke = time.monotonic()
            task = self.tasks[task_id]
            left = task.time_remaining
            self.console.print(f"{task.description}: {task.percentage:.0f} % done, {in_words(left)} left", markup=False)


def in_words(seconds: float | None) -> str:
    """A time to wait.

    Examples:
        >>> from modalign.common.progress import in_words
        >>> in_words(75.2), in_words(754.0), in_words(None)
        ('about 75 s', 'about 13 min', 'unknown time')
    """
    if seconds is None:
        return "unknown time"
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"
