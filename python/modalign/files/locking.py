"""A folder or a file that one process at a time may hold."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["claimed", "claimed_file"]


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
    with _locked(folder, os.O_RDONLY, f"{folder}: another process {activity} in this folder"):
        yield


@contextlib.contextmanager
def claimed_file(path: Path, activity: str) -> Iterator[None]:
    """Make the file if it is missing and hold it as ``claimed`` holds a folder; remove it if it is empty at the end.

    Args:
        path: The file, whose folder is made too.
        activity: What a process does while it holds the file, for the message: "writes x.npy".

    Raises:
        ValueError: Another process holds the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, os.O_RDWR | os.O_CREAT, f"{path.parent}: another process {activity}"):
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):  # it may have been renamed
                if path.stat().st_size == 0:
                    path.unlink()


@contextlib.contextmanager
def _locked(path: Path, flags: int, held: str) -> Iterator[None]:
    handle = os.open(path, flags, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{held}; wait for it or stop it") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
