"""Paths that users write: ``~`` and ``$VARIABLES`` in them, and files that hold something else than data."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["expanded", "require_data", "require_file"]

POINTERS = {  # how a file begins -> what it is, and what to do
    b"version https://git-lfs.github.com/spec": ("a pointer of git-lfs, not the data; run git lfs pull in its folder"),
    b"/annex/objects/": "a pointer of git-annex, not the data; run git annex get in its folder",
    b"../.git/annex/objects/": "a pointer of git-annex, not the data; run git annex get in its folder",
}
PAGE = re.compile(rb"\s*(?:<!doctype html|<html|<\?xml[^>]*\?>\s*<(?:!doctype html|html|error))", re.IGNORECASE)
WINDOW = 512  # bytes that are looked at


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` and ``$VARIABLES`` replaced, unless there is a file or folder of exactly that name.

    Raises:
        ValueError: The environment has no variable of that name, or the system no such user.

    Examples:
        >>> import os
        >>> from modalign.files.paths import expanded
        >>> os.environ["SCRATCH"] = "/scratch/me"
        >>> str(expanded("$SCRATCH/rows.npy"))
        '/scratch/me/rows.npy'
    """
    text = os.fspath(path)
    if not text.startswith("~") and "$" not in text:
        return Path(path)
    if os.path.lexists(text) or "\0" in text:
        return Path(path)
    replaced = os.path.expandvars(text)
    unknown = re.search(r"\$(\w+|\{[^}]*\})", replaced)
    if unknown:
        raise ValueError(f"{text} cannot be expanded: the environment has no variable {unknown[1].strip('{}')}")
    home = os.path.expanduser(replaced)
    if home.startswith("~"):
        raise ValueError(f"{text} cannot be expanded: there is no user {home.split('/', 1)[0][1:]!r}")
    return Path(home)


def require_file(path: Path) -> Path:
    """Return a path if there is a file; FileNotFoundError says where relative paths begin, IsADirectoryError a folder.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: There is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} must be a file, got a folder")
    if not path.is_file():
        where = "" if path.is_absolute() else f"; paths begin at {Path.cwd()}"
        raise FileNotFoundError(f"there is no file {path}{where}")
    return path


def require_data(path: Path) -> Path:
    """Return the path of a file of data; ValueError if it is empty, a pointer of git-lfs, or a page of a web site.

    Raises:
        ValueError: The file holds no data; the message says what it is and what to do.
        FileNotFoundError, IsADirectoryError: As ``require_file``.
    """
    with require_file(path).open("rb") as file:
        start = file.read(WINDOW)
    if not start:
        raise ValueError(f"{path} must hold data, got an empty file; write or download it anew")
    for begin, advice in POINTERS.items():
        if start.startswith(begin):
            raise ValueError(f"{path} is {advice}")
    if PAGE.match(start):
        raise ValueError(
            f"{path} is a page of a web site (HTML), not the data: the download was answered by a login or an error; "
            "download it anew"
        )
    return path
