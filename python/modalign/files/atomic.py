"""Files that appear whole or not at all, and the sentence for those that cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["named_write_errors", "reserve", "temporary_name", "write_atomically"]

ATTEMPTS = 100  # names that are tried for a temporary file
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, no quota, a limit on the size of files


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a temporary file beside ``path``, then rename it: readers see the old file or the new one.

    Raises:
        OSError: The file cannot be written; the error names it and the bytes, and the old one is as it was.
    """
    with named_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder, which a file cannot replace", str(path))
        temporary = _make_temporary(path)
        try:
            with named_write_errors(path, temporary):
                write(temporary)
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def reserve(path: Path, size: int, target: Path) -> None:
    """Make a file ``size`` bytes long, all of them stored, so that no later write to them finds the disk full.

    Args:
        path: The file.
        size: Its bytes.
        target: The file that it becomes, which errors name.

    Raises:
        OSError: There is no room for them; no file is left.
    """
    with named_write_errors(target, size=size):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(handle)


@contextlib.contextmanager
def named_write_errors(path: Path, temporary: Path | None = None, size: int | None = None) -> Iterator[None]:
    """Let an OSError name the file that the caller asked for, and the bytes where they are too many.

    Args:
        path: The file that the caller asked for.
        temporary: The file that is written in its place, whose bytes so far the message has.
        size: The bytes that the file takes, if they are known.
    """
    try:
        yield
    except OSError as error:
        code = error.errno if error.errno is not None else _code_in(str(error))
        reason = error.strerror or (os.strerror(code) if code else str(error))
        if code in FULL and (temporary is not None or size is not None):
            written = temporary.stat().st_size if temporary is not None and temporary.exists() else 0
            wanted = f"it takes {size:,} bytes" if size is not None else f"{written:,} bytes of it were written"
            free = shutil.disk_usage(path.parent).free
            reason = f"{reason} ({wanted}, {free:,} are free); free some, or write it elsewhere"
        raise OSError(code, reason, str(path)) from error


def _code_in(message: str) -> int | None:
    """Return the error number that Arrow writes into its messages."""
    for code in FULL:
        if f"errno {code}]" in message or os.strerror(code) in message:
            return code
    return None


def _make_temporary(path: Path) -> Path:
    """Make an empty file beside ``path`` with the permissions of a new file, as the system's umask has them."""
    for _ in range(ATTEMPTS):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return temporary
    raise FileExistsError(errno.EEXIST, "no name is free for a temporary file", str(path))


def temporary_name(name: str) -> str:
    """Return a regular expression for the temporary files of ``write_atomically``, which a killed process leaves.

    Args:
        name: A regular expression for the name of the file that is written.

    Examples:
        >>> import re
        >>> from modalign.files.atomic import temporary_name
        >>> bool(re.fullmatch(temporary_name(r"part-[0-9]\\.npz"), ".part-3.npz.k3_x9ab0.npz"))
        True
        >>> bool(re.fullmatch(temporary_name(r"report\\.html"), ".report.html.swp"))  # an editor's
        False
    """
    return rf"\.(?:{name})\.[a-z0-9_]{{8}}(?:\.[\w-]+)?"
