"""The folder of results: what a computation writes, and needs to continue after it was stopped.

k-NN graphs by blocks, sweeps, studies and the pictures of pages follow one rule:

    marked      a folder carries a mark with a digest of what made it and a list of the files written there (``marks``)
    refused     a folder that is not empty and has no such mark, before anything is touched; likewise the mark of
                another kind of folder, a file of the user's where one of ours should be, and links inside the folder
    removed     only listed files, newest first, and nothing before every check has passed
    adopted     folders that modalign 0.1.0 made, which have no mark: their files say what they are

Every file appears whole or not at all, so a process may be killed at any moment. ``Records`` reads, writes and refuses
the records beside them, which say what the work is of; it needs no mark, so that it serves single files too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalign.files.atomic import temporary_name, write_atomically
from modalign.files.locking import claimed
from modalign.files.marks import MARK, Mark
from modalign.files.settings import differences

__all__ = ["Checkpoint", "Records"]

MOST_DIFFERENCES = 3  # named in a message
MOST_NAMES = 3  # of files, in a message


@dataclass
class Records:
    """Files in a folder that say what a computation is of.

    Args:
        folder: Where the files are.
        content: What the files are of, for messages: "a sweep".
        advice: What the user may do about files that cannot be continued: "give another --out, or --fresh to start
            over".
        kept: What becomes of the files when one cannot be written, for messages.
    """

    folder: Path
    content: str
    advice: str
    kept: str = field(default="what is finished is kept, and the same call continues", kw_only=True)

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Call ``write`` on a temporary path and put the file in place as ``name``; OSError says what is kept."""
        path = self.folder / name
        try:
            write_atomically(path, write)
        except OSError as error:
            reason = error.strerror or os.strerror(error.errno or 0)
            raise OSError(error.errno, f"cannot write {path}: {reason}; {self.kept}") from error

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file of these bytes."""
        self.write(name, lambda path: path.write_bytes(content))

    def write_json(self, name: str, content: object, indent: int | None = None) -> None:
        """Write what JSON can hold."""
        self.write_bytes(name, (json.dumps(content, indent=indent) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the JSON object in a file, None if there is no such file; ValueError if it is damaged."""
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
            raise self.damaged(name, f"{type(error).__name__}: {error}") from error
        if not isinstance(content, dict):
            raise self.damaged(name, f"holds a {type(content).__name__}")
        return content

    def require_same(self, before: object, now: object) -> None:
        """Check that the settings in the record are those of this call; ValueError names up to three that differ."""
        changed = differences(before, now)
        if changed:
            rest = len(changed) - MOST_DIFFERENCES
            others = f" and {rest} more" if rest > 0 else ""
            raise ValueError(
                f"{self.folder} holds {self.content} of other settings "
                f"({'; '.join(changed[:MOST_DIFFERENCES])}{others}); {self.advice}"
            )

    def damaged(self, name: str, reason: str) -> ValueError:
        """Return the error for a file that is not what this computation wrote."""
        return ValueError(f"{self.folder / name} is damaged ({reason}); {self.advice}")


@dataclass
class Checkpoint(Records):
    """The files of one computation in a folder of its own, to which the user may add files.

    Args:
        folder: Where the files are. It is made when it is claimed.
        content: What the files are of, for messages: "a sweep".
        advice: What the user may do about a folder that cannot be continued.
        names: Regular expressions for the paths of the files below the folder, oldest first, with a slash only between
            a folder and a name. Files that have such a name and are not listed are refused; files of other names may
            be written, too.
        kind: What the mark calls the folder; ``content`` by default.
        option: How the caller names the folder, for messages: "--out".
        earlier: Returns the paths of the files that modalign 0.1.0 left in a folder without a mark, oldest first, and
            none for any other folder.

    Raises:
        ValueError: There is a file where the folder should be.

    Examples:
        >>> import pathlib, tempfile
        >>> from modalign.files.checkpoint import Checkpoint
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> sums = Checkpoint(folder, "sums", "give another folder", (r"record\\.json", r"part-[0-9]+\\.json"))
        >>> with sums.claimed():
        ...     sums.begin("81f0")
        ...     sums.write_json("record.json", {"n": 3})
        ...     sums.write_json("part-1.json", [1, 2])
        >>> sums.read_json("record.json")
        {'n': 3}
        >>> [file.name for file in sums.files()]
        ['record.json', 'part-1.json']
    """

    names: tuple[str, ...] = ()
    kind: str = ""
    option: str = "--out"
    earlier: Callable[[Path], Sequence[str]] | None = None
    _mark: Mark | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.kind = self.kind or self.content
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} must be a folder for {self.content}, got a file; give another place")
        if self.folder.is_symlink() and not self.folder.exists():
            raise ValueError(f"{self.folder} must be a folder for {self.content}, got a link to nothing")

    @property
    def mark(self) -> Mark:
        """The mark of the folder, checked when it is first read."""
        if self._mark is None:
            self._mark = self._checked_mark()
        return self._mark

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder, hold it alone until the block ends, and check that it is empty or of this kind.

        Files that a killed process left half-written are removed.

        Raises:
            ValueError: Another process holds the folder, or the folder must not be written to.
        """
        self.require_ours()  # before a folder is made
        with claimed(self.folder, f"computes {self.content}"):
            self.require_ours()
            for file in self._leftovers():
                file.unlink()
            yield

    def require_ours(self) -> None:
        """Check that the folder is missing, empty or of this kind; ValueError otherwise. Nothing is touched."""
        self._mark = self._checked_mark()

    def begin(self, digest: str) -> None:
        """Say what the files that follow are of.

        Args:
            digest: A digest of the settings and data.

        Raises:
            ValueError: The folder holds files of other settings or data.
        """
        held = self.mark.existing()
        if held and self.mark.digest not in (None, digest):
            raise ValueError(f"{self.folder} holds what is left of {self.content} of other settings; {self.advice}")
        if self.mark.digest != digest:
            self.mark.restart(digest, held)

    def files(self) -> list[Path]:
        """Return the listed files that are there, oldest first."""
        return [self.folder / name for name in self.mark.existing()]

    def clear(self, *, keep: Iterable[str] = ()) -> None:
        """Remove the listed files and no others, newest first, and folders inside that are then empty.

        Args:
            keep: Listed files that stay.

        Raises:
            ValueError: A file cannot be removed. Nothing is removed then.
        """
        self.require_removable()
        keep = set(keep)
        existing = self.mark.existing()
        for name in reversed(existing):
            if name not in keep:
                (self.folder / name).unlink(missing_ok=True)
        self.mark.restart(None, [name for name in existing if name in keep])
        folders = {parent for name in existing for parent in Path(name).parents} - {Path()}
        for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
            self.remove_folder(str(folder))

    def require_removable(self) -> None:
        """Check that every listed file can be removed; ValueError names one that cannot."""
        for name in self.mark.existing():
            path = self.folder / name
            if not path.lstat().st_mode & 0o222 or not os.access(path.parent, os.W_OK | os.X_OK):
                raise ValueError(
                    f"{path} is read-only, so {self.content} cannot be started over; nothing was removed: make it "
                    f"writable, or give another {self.option}"
                )

    def drop(self, *names: str) -> None:
        """Remove listed files, those that are there, and take them off the list."""
        listed = [name for name in names if name in self.mark]
        for name in listed:
            (self.folder / name).unlink(missing_ok=True)
        self.mark.discard(listed)

    def remove_folder(self, name: str) -> None:
        """Remove a folder inside if it is empty; something of the user's may be in it."""
        with contextlib.suppress(OSError):
            (self.folder / name).rmdir()

    def announce(self, name: str) -> None:
        """List a file that something else writes, such as a database; ValueError if it is the user's."""
        self.require_free(name)
        self.mark.add(name)

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Call ``write`` on a temporary path, list the file and put it in place as ``name``.

        Raises:
            ValueError: There is a file of the user's of that name.
            OSError: The file cannot be written; the message says what is kept.
        """
        self.require_free(name)

        def listed(path: Path) -> None:
            write(path)
            self.mark.add(name)

        super().write(name, listed)

    def _checked_mark(self) -> Mark:
        """Return the mark of a folder that may be written to, or say why it may not."""
        mark = Mark.read(self.folder)
        if mark is None:
            earlier = self.earlier(self.folder) if self.earlier is not None and self.folder.is_dir() else ()
            mark = Mark(self.folder, self.kind, files=earlier)
            if not earlier:
                self._require_empty()
        elif mark.kind != self.kind:
            raise ValueError(f"{self.folder} holds {mark.kind}, not {self.kind}; give another {self.option}")
        for name in mark.files:
            self._require_plain(name)
        for folder in {pattern.rpartition("/")[0] for pattern in self.names} - {""}:
            self._require_real_folder(self.folder / folder)
        leftovers = {str(path.relative_to(self.folder)) for path in self._leftovers()}
        foreign = [name for name in self._matching(self.names) if name not in mark and name not in leftovers]
        if foreign:
            raise ValueError(
                f"{self.folder} holds {_listing(foreign)}, which modalign would overwrite and did not write; nothing "
                f"was touched: move {'it' if len(foreign) == 1 else 'them'} away, or give another {self.option}"
            )
        return mark

    def _require_empty(self) -> None:
        leftovers = set(self._leftovers())
        others = sorted(path.name for path in self._entries() if path not in leftovers)
        if others:
            raise ValueError(
                f"{self.folder} holds something else ({_listing(others)}), not {self.content}; nothing was touched: "
                f"give an empty or a new folder as {self.option}"
            )

    def require_free(self, name: str) -> None:
        """Check that a file may be written: it is listed, or there is none."""
        self._require_plain(name)
        if name not in self.mark and os.path.lexists(self.folder / name):
            raise ValueError(
                f"{self.folder / name} was not written by modalign, and is kept; move it away and run the same again"
            )

    def _require_plain(self, name: str) -> None:
        """Check that a path below the folder leads through no link, to a regular file or to nothing."""
        *parents, _ = Path(name).parts
        folder = self.folder
        for part in parents:
            folder = folder / part
            self._require_real_folder(folder)
        path = self.folder / name
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError(
                f"{path} must be a file that modalign wrote, got a "
                f"{'link' if path.is_symlink() else 'folder' if path.is_dir() else 'special file'}; nothing was "
                f"touched: move it away, or give another {self.option}"
            )

    def _require_real_folder(self, folder: Path) -> None:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ValueError(
                f"{folder} must be a folder, got a {'link' if folder.is_symlink() else 'file'}; nothing was touched: "
                f"move it away, or give another {self.option}"
            )

    def _leftovers(self) -> list[Path]:
        """Return files that a killed process left half-written."""
        temporaries = [temporary_name(re.escape(MARK))]
        for pattern in self.names:
            folder, slash, name = pattern.rpartition("/")
            temporaries.append(f"{folder}{slash}{temporary_name(name)}")
        return [self.folder / name for name in self._matching(temporaries)]

    def _matching(self, patterns: Sequence[str]) -> list[str]:
        """Return the paths of files below the folder that match, in the order of the patterns."""
        entries: dict[str, list[str]] = {}
        paths = []
        for pattern in patterns:
            inside = pattern.rpartition("/")[0]
            if inside not in entries:
                entries[inside] = sorted(
                    f"{inside}/{path.name}".lstrip("/") for path in self._entries(inside) if path.is_file()
                )
            paths += [name for name in entries[inside] if re.fullmatch(pattern, name)]
        return paths

    def _entries(self, inside: str = "") -> list[Path]:
        folder = self.folder / inside
        return list(folder.iterdir()) if folder.is_dir() else []


def _listing(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
