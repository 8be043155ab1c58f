"""A study on disk: parts of work, each kept when it is finished, so that a stopped study continues."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from pathlib import Path
from typing import Any

from modalign.common import provenance
from modalign.common.progress import Reporter
from modalign.common.threads import thread_pool
from modalign.experiments.sweep.chunks import Stopped, count_cores
from modalign.experiments.sweep.folder import Folder

__all__ = ["Part", "Study", "place_of"]


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a study.

    ``make(advance)`` does the work and returns tensors, numbers, lists and dictionaries of them. It calls
    ``advance(amount)`` as it goes, ``work`` in all; that raises when the study should stop.
    """

    name: str
    work: int
    make: Callable[[Callable[[int], None]], dict[str, Any]]


class Study:
    """A study in a folder, with its finished parts.

    settings: everything the results depend on, as JSON, and under "study" the name of the study; a folder of other
    settings is refused unless ``fresh``, one of another study always.
    sweeps: names of folders inside that hold sweeps of the study: ``fresh`` clears them too.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], *, sweeps: Sequence[str] = (), fresh: bool = False
    ) -> None:
        self.settings, self.fresh = json.loads(json.dumps(settings)), fresh
        self.place, self.sweeps = Folder(folder, str(settings.get("study", ""))), sweeps
        self.place.identify(self.settings)

    @property
    def path(self) -> Path:
        return self.place.path

    @property
    def key(self) -> str:
        """A key that separates this study from others in a shared storage, from its settings, machine and folder."""
        told = f"{self.place.digest} {platform.node()} {self.path.resolve()}"
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Hold the folder for this study. Raises ValueError if it holds anything but this study."""
        file = self.path / "settings.json"
        inner = [Folder(self.path / name) for name in self.sweeps]
        self.place.checkpoint.require_ours()
        for sweep in inner:
            sweep.checkpoint.require_ours()
        with self.place.claimed():
            if self.fresh:
                self._clear(inner)
            elif file.is_file():
                self._resume(file)
            self.place.checkpoint.begin(self.place.digest)
            if self.fresh or not file.is_file():  # the new settings replace the old ones in a single step
                self.write_json(file.name, {"settings": self.settings, "provenance": provenance.collect()})
            yield

    def _clear(self, inner: Sequence[Folder]) -> None:
        """Clear the folder and those of the sweeps inside, once it is sure that every one of them can be cleared."""
        with contextlib.ExitStack() as stack:
            sweeps = [sweep for sweep in inner if sweep.path.is_dir()]
            for sweep in sweeps:
                stack.enter_context(sweep.claimed())
            for place in (*sweeps, self.place):
                place.checkpoint.require_removable()
            for sweep in sweeps:
                sweep.checkpoint.clear()
            self.place.clear()

    def _resume(self, file: Path) -> None:
        """Record in settings.json that the study continues. Raises ValueError for another study."""
        record = self.place.checkpoint.read_json(file.name) or {}
        if "settings" not in record:
            raise self.place.checkpoint.damaged(file.name, "it holds no settings")
        self.place.checkpoint.require_same(record["settings"], self.settings)
        self.write_json(file.name, provenance.resumed(record))

    def run(
        self, parts: Sequence[Part], title: str, *, workers: int | None = None, reporter: Reporter | None = None
    ) -> list[dict[str, Any]]:
        """Return the results of every part, in order; finished parts are read.

        workers: the number of parts that run at once, each on one core (default: one for each core). It changes no
        number.
        """
        stop = threading.Event()
        shown = reporter or Reporter("none")
        shown.begin(title, sum(part.work for part in parts))

        def one(part: Part) -> dict[str, Any]:
            found = self.place.restore(f"{part.name}.pt", [])
            if found is not None:
                shown.advance(part.work, resumed=True)
                return found
            done = 0

            def advance(work: int) -> None:
                nonlocal done
                if stop.is_set():
                    raise Stopped
                done += work
                shown.advance(work)

            found = part.make(advance)
            self.place.save(f"{part.name}.pt", [], found)
            shown.advance(part.work - done)
            return found

        with shown, thread_pool(workers or count_cores()) as pool:
            futures = [pool.submit(one, part) for part in parts]
            try:
                waiting = set(futures)
                while waiting:
                    done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                    for future in done:
                        future.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def database(self) -> str:
        """Return the URL of a database of trials in the folder."""
        for name in ("trials.db", "trials.db-journal"):
            self.place.checkpoint.announce(name)
        return f"sqlite:///{self.path.resolve()}/trials.db"

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file into the folder and return its path."""
        self.place.checkpoint.write_json(name, content, indent=1)
        return self.path / name

    def write_table(self, name: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write rows as Parquet, with settings and provenance inside, and return the path."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        record = json.loads((self.path / "settings.json").read_text(encoding="utf-8"))
        table = pa.Table.from_pylist(list(rows)).replace_schema_metadata({b"modalign": json.dumps(record).encode()})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        self.place.checkpoint.write_bytes(name, buffer.getvalue())
        return self.path / name


def place_of(folder: Path) -> Folder:
    """Return the folder of a study that was begun there, as its settings name it."""
    record = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return Folder(folder, str(record["settings"].get("study", "")))
