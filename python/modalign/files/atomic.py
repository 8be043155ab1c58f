"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["temporary_name", "write_atomically"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a temporary file beside ``path``, then rename it: readers see the old file or the new one.

    Raises:
        OSError: The file cannot be written; the old one is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:  # name the file that the caller asked for, not the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from None
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
