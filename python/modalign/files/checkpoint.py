"""The resumable folder: what a computation that was stopped needs to continue.

k-NN graphs by blocks, embeddings, sweeps and studies keep their work in files of two kinds:

    a record    says what the work is of (rows, settings, versions); it is written first and removed last
    parts       hold finished work

Every file appears whole or not at all, so a process may be killed at any moment. What the record and the parts contain
is up to each computation; claiming the folder, writing, clearing and refusing other settings are the same for all.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalign.files.atomic import temporary_name, write_atomically
from modalign.files.locking import claimed
from modalign.files.settings import differences

__all__ = ["Checkpoint"]

MOST_DIFFERENCES = 3  # named in a message


@dataclass(frozen=True)
class Checkpoint:
    """The files of one computation in a folder, which may hold other files too.

    Attributes:
        folder: Where the files are. It is made when it is claimed.
        parts: Regular expressions for the names of the parts and results.
        records: Regular expressions for the names of the records, which ``clear`` removes last and in this order, so
            that no part lies there without them.
        content: What the files are of, for messages: "a sweep".
        advice: What the user may do about a folder that cannot be continued: "give another --out, or --fresh to start
            over".
        folders: Names of folders inside that hold parts and nothing else.

    Raises:
        ValueError: There is a file where the folder should be.

    Examples:
        >>> import pathlib, tempfile
        >>> from modalign.files.checkpoint import Checkpoint
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> sums = Checkpoint(folder, (r"part-[0-9]+\\.json",), (r"record\\.json",), "sums", "give another folder")
        >>> with sums.claimed():
        ...     sums.write_json("record.json", {"n": 3})
        ...     sums.write_json("part-1.json", [1, 2])
        >>> sums.read_json("record.json")
        {'n': 3}
        >>> [file.name for file in sums.files()]
        ['part-1.json', 'record.json']
    """

    folder: Path
    parts: tuple[str, ...]
    records: tuple[str, ...]
    content: str
    advice: str
    folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} must be a folder for {self.content}, got a file; give another place")

    def claimed(self) -> contextlib.AbstractContextManager[None]:
        """Make the folder and hold it alone until the block ends; ValueError if another process holds it."""
        return claimed(self.folder, f"computes {self.content}")

    def files(self) -> list[Path]:
        """Return the parts and then the records in the folder, those too that a killed process left half-written."""
        return self._matching(_with_temporaries((*self.parts, *self.records)))

    def remove_leftovers(self) -> None:
        """Remove files that a killed process left half-written. The folder must be claimed."""
        for file in self._matching([temporary_name(name) for name in (*self.parts, *self.records)]):
            file.unlink()

    def clear(self, *, keep: str = "") -> None:
        """Remove the files of the computation and no others: parts first, records last; not the one called ``keep``."""
        for patterns, folders in ((self.parts, self.folders), (self.records, ())):
            for file in self._matching(_with_temporaries(patterns)):
                if file.name != keep:
                    file.unlink()
            for folder in folders:
                if (self.folder / folder).is_dir():
                    shutil.rmtree(self.folder / folder)

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Call ``write`` on a temporary path and put the file in place as ``name``; OSError says what is kept."""
        path = self.folder / name
        try:
            write_atomically(path, write)
        except OSError as error:
            reason = error.strerror or os.strerror(error.errno or 0)
            raise OSError(
                error.errno, f"cannot write {path}: {reason}; what is finished is kept, and the same call continues"
            ) from error

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
        except ValueError as error:  # no JSON, or no UTF-8
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

    def _matching(self, patterns: Sequence[str]) -> list[Path]:
        """Return the files whose names match, in the order of the patterns."""
        files = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        return [file for pattern in patterns for file in files if re.fullmatch(pattern, file.name) and file.is_file()]


def _with_temporaries(names: Sequence[str]) -> list[str]:
    return [pattern for name in names for pattern in (temporary_name(name), name)]
