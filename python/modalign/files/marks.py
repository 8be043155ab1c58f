"""The mark of a folder that modalign fills: the file ``.modalign``, which says what it is of and lists its files.

The first line is a JSON object; each line after it adds a file to the list (``+ "parts/one.pt"``) or takes one off
(``- "parts/one.pt"``). A file is listed before it gets its name, so that a process may be killed at any moment, and a
last line that a kill cut short is ignored. Only listed files are ever replaced or removed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from modalign.files.atomic import write_atomically

__all__ = ["MARK", "Mark"]

MARK = ".modalign"  # the name of the file
FORMAT = 1
LONGEST = 1 << 24  # bytes of a mark


class Mark:
    """The mark of a folder, which appears on disk when the first file is listed.

    Args:
        folder (Path): The folder.
        kind (str): What the folder holds: "a sweep".
        digest (str): A digest of the settings and data that made the files; None if it is not known.
        files (iterable of str): Paths below the folder, oldest first.

    Examples:
        >>> import pathlib, tempfile
        >>> from modalign.files.marks import Mark
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> mark = Mark(folder, "a sum", "81f0")
        >>> mark.add("parts/1.json")
        >>> Mark.read(folder).files
        ['parts/1.json']
    """

    def __init__(self, folder: Path, kind: str, digest: str | None = None, files: Iterable[str] = ()) -> None:
        self.folder, self.kind, self.digest = folder, kind, digest
        self._files = dict.fromkeys(files)
        self._stored = False
        self._lock = threading.Lock()

    @classmethod
    def read(cls, folder: Path) -> Mark | None:
        """Return the mark of a folder, None if it has none.

        Raises:
            ValueError: The mark is damaged, no regular file, or of a later version.
        """
        path = folder / MARK
        if not os.path.lexists(path):
            return None
        try:
            if path.is_symlink() or not path.is_file() or path.stat().st_size > LONGEST:
                raise ValueError("it is a link, no file, or too long")
            first, *rest = path.read_bytes().decode("utf-8").split("\n")
            header = json.loads(first)
            made = header["format"], header["modalign"]
            mark = cls(folder, str(header["kind"]), header["digest"])
            if made[0] == FORMAT:
                mark._replay(rest[:-1])  # the last line is empty, or was cut short by a kill
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}: {error}); nothing was changed: give another folder, or "
                "delete the file if modalign made this folder and its files may be replaced"
            ) from None
        if made[0] != FORMAT:
            raise ValueError(f"{path} must be of format {FORMAT}, got {made[0]!r} of modalign {made[1]}")
        mark._stored = True
        return mark

    @property
    def files(self) -> list[str]:
        """The listed files, oldest first."""
        return list(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def existing(self) -> list[str]:
        """Return the listed files that are there, oldest first."""
        return [name for name in self._files if os.path.lexists(self.folder / name)]

    def add(self, name: str) -> None:
        """List a file, durably; OSError if the mark cannot be written, which is then as it was."""
        with self._lock:
            if name in self._files and self._stored:
                return
            _require_below(name)
            if not self._stored:
                self._store(self.digest, [*self._files, name])
            else:
                self._append(f"+ {json.dumps(name)}\n")
            self._files[name] = None

    def discard(self, names: Iterable[str]) -> None:
        """Take files off the list."""
        with self._lock:
            gone = [name for name in names if name in self._files]
            if gone and self._stored:
                self._append("".join(f"- {json.dumps(name)}\n" for name in gone))
            for name in gone:
                del self._files[name]

    def restart(self, digest: str | None, files: Iterable[str] = ()) -> None:
        """Write the mark anew, in one step, with these files of the old ones."""
        with self._lock:
            self._store(digest, list(files))

    def _store(self, digest: str | None, files: list[str]) -> None:
        version = importlib.metadata.version("modalign")
        header = {"modalign": version, "format": FORMAT, "kind": self.kind, "digest": digest}
        lines = [json.dumps(header), *(f"+ {json.dumps(name)}" for name in files)]
        write_atomically(self.folder / MARK, lambda path: path.write_text("\n".join(lines) + "\n", encoding="utf-8"))
        self.digest, self._files, self._stored = digest, dict.fromkeys(files), True

    def _append(self, text: str) -> None:
        with self._opened() as (handle, size):
            content = text.encode()
            try:
                if os.write(handle, content) < len(content):
                    raise OSError(28, os.strerror(28), str(self.folder / MARK))  # a disk that has just become full
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)
                raise

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[int, int]]:
        """Open the mark for appending after its last whole line; yield the handle and the length."""
        handle = os.open(self.folder / MARK, os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                text = os.pread(handle, size, 0)
                size = text.rfind(b"\n") + 1
                os.ftruncate(handle, size)
            yield handle, size
        finally:
            os.close(handle)

    def _replay(self, lines: Iterable[str]) -> None:
        """Apply the lines after the first."""
        for line in lines:
            name = json.loads(line[2:])
            _require_below(name)
            if line[:2] == "+ ":
                self._files[name] = None
            elif line[:2] == "- ":
                self._files.pop(name, None)
            else:
                raise ValueError(f"a line begins with {line[:2]!r}")


def _require_below(name: str) -> None:
    """Check that ``name`` is a plain path below the folder, so that no list reaches files elsewhere."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or parts == (MARK,):
        raise ValueError(f"lists {name!r}")
