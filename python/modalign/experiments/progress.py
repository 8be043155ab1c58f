"""What a sweep says while it runs: a bar with the time left on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from modalign.common.progress import SECONDS_BETWEEN_LINES, in_words

__all__ = ["Reporter"]


class Reporter:
    """Counts work, in pairs trained on, and shows how much is left. Its methods may be called from any thread.

    style: "bar", "lines", "none", or "auto": a bar if standard error is a terminal, else lines.
    """

    def __init__(self, style: str = "auto") -> None:
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.style = ("bar" if self.console.is_terminal else "lines") if style == "auto" else style
        self.lock = threading.Lock()
        self.total, self.done, self.skipped = 0, 0, 0
        self.started = self.spoke = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        left = (TextColumn("·"), TimeRemainingColumn(), TextColumn("left"))
        self.bar = Progress(*columns, *left, console=self.console) if self.style == "bar" else None

    def __enter__(self) -> Reporter:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, name: str, total: int) -> None:
        """Work of size ``total`` begins now."""
        self.name, self.total, self.done, self.skipped = name, total, 0, 0
        self.started = self.spoke = time.monotonic()
        self.task = self.bar.add_task(name, total=total) if self.bar is not None else None

    def advance(self, work: int, *, resumed: bool = False) -> None:
        """So much more is done; ``resumed`` work took no time now and says nothing about the speed."""
        with self.lock:
            self.done += work
            self.skipped += work if resumed else 0
            if self.bar is not None and self.task is not None:
                self.bar.update(self.task, completed=self.done)
            elif self.style == "lines" and time.monotonic() - self.spoke >= SECONDS_BETWEEN_LINES:
                self.spoke = time.monotonic()
                self.console.print(f"{self.name}: {self.done / self.total:.0%} done, {self._left()} left")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.style != "none":
            self.console.print(text, markup=False)

    def _left(self) -> str:
        trained = self.done - self.skipped
        passed = time.monotonic() - self.started
        return in_words((self.total - self.done) * passed / trained if trained else None)
