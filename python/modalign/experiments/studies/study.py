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
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from modalign.common import provenance
from modalign.common.progress import Reporter
from modalign.experiments.sweep.chunks import Stopped, count_cores
from modalign.experiments.sweep.folder import Folder

__all__ = ["Part", "Study"]


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

    settings: everything the results depend on, as JSON; a folder of other settings is refused unless ``fresh``.
    sweeps: names of folders inside that hold sweeps of the study: ``fresh`` clears them too.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], *, sweeps: Sequence[str] = (), fresh: bool = False
    ) -> None:
        self.place, self.sweeps = Folder(folder, "a study"), sweeps
        self.settings, self.fresh = json.loads(json.dumps(settings)), fresh

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
        """Hold the folder for this study. Raises ValueError if it holds a study of other settings."""
        with self.place.claimed():
            file = self.path / "settings.json"
            self.place.remove_leftovers()
            ours = (
                file.is_file()
            )  # files that remain after clearing are then an older study's, and the new one replaces them
            if self.fresh:
                for name in self.sweeps if ours else ():
                    Folder(self.path / name).clear()
                self.place.clear(keep=file.name)  # the new settings replace it in a single step
            elif ours:
                self._resume(file)
            if not ours and any(self.path.iterdir()):
                raise ValueError(f"{self.path} holds something else; give an empty or a new folder as --out")
            if self.fresh or not ours:
                self.write_json(file.name, {"settings": self.settings, "provenance": provenance.collect()})
            self.place.identify(self.settings)
            yield

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

        with (
            shown,
            ThreadPoolExecutor(workers or count_cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
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
