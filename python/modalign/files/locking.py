"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["claimed"]


@contextlib.contextmanager
def claimed(folder: Path, what: str) -> Iterator[None]:
    """Make the folder and hold it; ValueError if another process does ``what`` there already.

    The hold ends with the block, and with the process however that ends. A file system without locks keeps nobody out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process {what} in this folder; wait for it or stop it") from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)
