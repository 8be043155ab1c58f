"""A folder that one process at a time may hold."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["claimed"]


@contextlib.contextmanager
def claimed(folder: Path, activity: str) -> Iterator[None]:
    """Make the folder and hold it until the block ends, or the process does. A file system without locks admits all.

    Args:
        folder: The folder to hold.
        activity: What a process does while it holds the folder, for the message: "computes a sweep".

    Raises:
        ValueError: Another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process {activity} in this folder; wait for it or stop it") from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)
