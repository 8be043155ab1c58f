"""Progress of long work on standard error: a bar on a terminal, a line every 15 seconds in a log, or nothing.

``bar`` serves a single computation; ``Reporter`` serves experiments, whose parts run in several threads, may have been
finished by an earlier process, and leave notes.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from modalign.common.threads import startable_threads

__all__ = ["Reporter", "bar", "in_words", "say"]

SECONDS_BETWEEN_LINES = 15.0


def bar(shown: bool) -> Progress:
    """Return a display of progress for a ``with`` block: a bar on a terminal, elsewhere a line every 15 seconds.

    Args:
        shown: False for a display that prints nothing.
    """
    console = _standard_error()
    if shown and not console.is_terminal:
        return _Lines(console)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # a thread draws the bar, if there is one to be had
    return Progress(*columns, console=console, disable=not shown, auto_refresh=shown and startable_threads(1) > 0)


def say(text: str, *, shown: bool) -> None:
    """Print a line on standard error if ``shown`` is set or a terminal shows it; a log stays quiet otherwise."""
    console = _standard_error()
    if shown or console.is_terminal:
        console.print(text, markup=False)


class Reporter:
    """Progress of an experiment. Its methods may be called from any thread.

    Args:
        style: "bar", "lines", "none", or "auto" for a bar if standard error is a terminal, else lines.

    Attributes:
        total: Amount of work, in pairs trained on.
        done: Amount that is finished.
        skipped: Amount that an earlier process had finished; it says nothing about the speed.
    """

    def __init__(self, style: str = "auto") -> None:
        self._console = _standard_error()
        self._style = ("bar" if self._console.is_terminal else "lines") if style == "auto" else style
        self._lock = threading.Lock()
        self.total, self.done, self.skipped = 0, 0, 0
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if self._style == "bar":
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            remaining = (TextColumn("·"), TimeRemainingColumn(), TextColumn("left"))
            self._bar = Progress(*columns, *remaining, console=self._console, auto_refresh=startable_threads(1) > 0)

    def __enter__(self) -> Reporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, name: str, total: int) -> None:
        """Begin a piece of work of size ``total``, called ``name`` in what is printed."""
        self.name, self.total, self.done, self.skipped = name, total, 0, 0
        self._started = self._last_line = time.monotonic()
        self._task = self._bar.add_task(name, total=total) if self._bar is not None else None

    def advance(self, work: int, *, resumed: bool = False) -> None:
        """Add ``work`` to what is done; ``resumed`` work was finished by an earlier process."""
        with self._lock:
            self.done += work
            self.skipped += work if resumed else 0
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=self.done)
            elif self._style == "lines" and _line_is_due(self._last_line):
                self._last_line = time.monotonic()
                self._console.print(_line(self.name, self.done / self.total, self._seconds_left()), markup=False)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._style != "none":
            self._console.print(text, markup=False)

    def _seconds_left(self) -> float | None:
        worked = self.done - self.skipped
        passed = time.monotonic() - self._started
        return (self.total - self.done) * passed / worked if worked else None


class _Lines(Progress):
    """A display for logs. Work that takes less time than lies between two lines prints nothing."""

    def __init__(self, console: Console) -> None:
        super().__init__(console=console, disable=True)
        self._last_line = time.monotonic()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        if _line_is_due(self._last_line):
            self._last_line = time.monotonic()
            task = self.tasks[task_id]
            self.console.print(_line(task.description, task.percentage / 100, task.time_remaining), markup=False)


def in_words(seconds: float | None) -> str:
    """Return a time to wait in words.

    Args:
        seconds: The time, None if it is not known.

    Examples:
        >>> from modalign.common.progress import in_words
        >>> in_words(75.2), in_words(754.0), in_words(None)
        ('about 75 s', 'about 13 min', 'unknown time')
    """
    if seconds is None:
        return "unknown time"
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"


def _line(name: str, share: float, seconds: float | None) -> str:
    return f"{name}: {100 * share:.0f} % done, {in_words(seconds)} left"


def _line_is_due(last: float) -> bool:
    return time.monotonic() - last >= SECONDS_BETWEEN_LINES


def _standard_error() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False)
