"""The folder of a sweep: its configuration, what is finished of it, and the tables it ends as.

    config.yaml, provenance.json      what was asked for, and of which machine and versions
    parts/NAME.pt                     a finished chunk of runs
    parts/NAME.checkpoint.pt          a chunk in training, after some epoch
    runs.parquet, curves.parquet      the results; runs.parquet is written last and says that the sweep is finished
    report.html, figures/             the report and its pictures

Every file appears whole or not at all, so a process may be killed at any moment: config.yaml is the last to go when the
folder is cleared, and a part says which configuration and data it is of. A study's folder has settings.json for
config.yaml, and tables and verdicts of its own (see ``study``).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from modalign.common import provenance
from modalign.experiments.sweep.config import Sweep, differences, dump, load
from modalign.files.atomic import write_atomically
from modalign.files.locking import claimed

__all__ = ["Folder"]

RESULTS = ("runs.parquet", "curves.parquet", "report.html")
FIGURES = ("accuracy", "alignment", "accuracy-alignment", "training-[0-9]*")  # in figures/, as SVG and PNG
STUDY_RESULTS = (
    "claims.json", "optima.json", "notes.json", "examples.json", "best.parquet", "evaluations.parquet",
    "models.parquet", "alignment.parquet", "correlations.parquet", "layers.parquet",
    "trials.db-journal", "trials.db",
)  # fmt: skip
ASKED = ("provenance.json", "config.yaml")  # what the rest is of, in the order in which it goes


class Folder:
    """A results folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.of = ""  # the digest of what the parts are of
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is not a folder; give another place for the results")

    @property
    def finished(self) -> bool:
        return (self.path / "runs.parquet").is_file()

    @property
    def started(self) -> bool:
        return (self.path / "config.yaml").is_file()

    def claimed(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else runs a sweep in this folder meanwhile; ValueError if somebody does already."""
        return claimed(self.path, "runs a sweep")

    def clear(self, *, keep: str = "") -> None:
        """Take away what a sweep or a study leaves, and nothing else: results first, what they are of last.

        keep: one file that stays.
        """
        self.sweep_up()
        study = self._holds_a_study()
        for name in (*RESULTS, *(STUDY_RESULTS if study else ())):
            (self.path / name).unlink(missing_ok=True)
        for name in ("parts", *(("embeddings",) if study else ())):
            if (self.path / name).is_dir():
                shutil.rmtree(self.path / name)
        self._clear_figures(("*",) if study else FIGURES)
        for name in (*ASKED, *(("settings.json",) if study else ())):
            if name != keep:
                (self.path / name).unlink(missing_ok=True)

    def _holds_a_study(self) -> bool:
        """Rather than a file of the user's that is called settings.json, too."""
        try:
            return "settings" in json.loads((self.path / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            return False

    def _clear_figures(self, names: tuple[str, ...]) -> None:
        figures = self.path / "figures"
        for name in names:
            for suffix in ("svg", "png"):
                for path in figures.glob(f"{name}.{suffix}"):
                    path.unlink()
        _remove_if_empty(figures)

    def sweep_up(self) -> None:
        """Take away files that a killed process left half-written; for who has claimed the folder."""
        for name in (*RESULTS, *STUDY_RESULTS, *ASKED, "settings.json"):
            for path in self.path.glob(f".{name}.????????{Path(name).suffix}"):
                path.unlink()

    def require_same(self, sweep: Sweep, data: dict[str, str]) -> None:
        """ValueError unless the sweep in this folder has the configuration ``sweep`` and was begun with ``data``."""
        advice = "give another --out, or --fresh to start over"
        if not self.started:
            raise ValueError(f"{self.path} holds results without config.yaml, which says what they are of; {advice}")
        try:
            before = load(self.path / "config.yaml")
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{self.path} holds a sweep that cannot be continued ({reason}); {advice}") from None
        changed = differences(before, sweep)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise ValueError(f"{self.path} holds a sweep of other settings ({'; '.join(changed[:3])}{more}); {advice}")
        try:
            begun = json.loads((self.path / "provenance.json").read_text(encoding="utf-8"))["data"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"{self.path} does not say which data it is of; {advice}") from None
        other = [case for case, fingerprint in data.items() if begun.get(case) != fingerprint]
        if other:
            raise ValueError(
                f"{self.path} holds a sweep of other data: rows, labels or split of {', '.join(other)} have changed "
                f"since it was begun; {advice}"
            )

    def know(self, *settings: Any) -> None:
        """What the parts are of, as JSON: parts of anything else are refused."""
        plain = json.loads(json.dumps(settings))  # every key is text then, and can be sorted
        self.of = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]

    def begin(self, sweep: Sweep, data: dict[str, str]) -> None:
        """Write what the results are of, before there are any. data: the fingerprint of each case's."""
        facts = json.dumps(provenance.collect(seed=list(sweep.seeds)) | {"data": data}, indent=2) + "\n"
        _write(self.path / "provenance.json", facts.encode())
        _write(self.path / "config.yaml", dump(sweep).encode())

    def resume(self) -> None:
        """Add to the provenance where the sweep goes on: maybe another machine or commit."""
        path = self.path / "provenance.json"
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts["resumed"] = [*facts.get("resumed", []), provenance.collect()]
        _write(path, (json.dumps(facts, indent=2) + "\n").encode())

    def save(self, name: str, runs: list[tuple[float, int]], content: dict[str, Any]) -> None:
        """Keep a part. ``content``: tensors and numbers, ``runs``: what it is of."""
        buffer = io.BytesIO()  # a full disk is then an OSError like any other
        torch.save({"of": self.of, "versions": _versions(), "runs": runs, "content": content}, buffer)
        _write(self.path / "parts" / name, buffer.getvalue())

    def restore(self, name: str, runs: list[tuple[float, int]]) -> dict[str, Any] | None:
        """A part that was kept, None if there is none.

        ValueError if it is damaged, or of other runs, settings, data or versions.
        """
        path = self.path / "parts" / name
        if not path.is_file():
            return None
        try:
            part = torch.load(path, weights_only=True)
            versions, kept, content = part["versions"], [tuple(run) for run in part["runs"]], part["content"]
        except Exception as error:  # torch.load raises many kinds
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}); delete it to train its runs again"
            ) from error
        if versions != _versions():
            changed = [f"{name} {versions.get(name)} before, {now} now" for name, now in _versions().items()
                       if versions.get(name) != now]  # fmt: skip
            raise ValueError(f"{self.path} was begun with other versions ({'; '.join(changed)}); --fresh starts over")
        if kept != [tuple(run) for run in runs]:
            raise ValueError(f"{path} is of other runs; --fresh starts over")
        if part.get("of") != self.of:
            raise ValueError(f"{path} is of other settings or data; --fresh starts over")
        found: dict[str, Any] = content
        return found

    def drop(self, name: str) -> None:
        (self.path / "parts" / name).unlink(missing_ok=True)

    def finish(self, sweep: Sweep, runs: pd.DataFrame, curves: pd.DataFrame) -> None:
        """Write the tables, with the provenance and the configuration inside, and let go of the parts."""
        facts = json.loads((self.path / "provenance.json").read_text(encoding="utf-8"))
        note = json.dumps({"provenance": facts, "config": sweep.model_dump(mode="json")})
        for name, table in (("curves.parquet", curves), ("runs.parquet", runs)):
            arrow = pa.Table.from_pandas(table, preserve_index=False)
            arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), b"modalign": note.encode()})
            buffer = io.BytesIO()
            pq.write_table(arrow, buffer)
            _write(self.path / name, buffer.getvalue())
        shutil.rmtree(self.path / "parts", ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not there, or something of the user's is in it
        folder.rmdir()


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {path}: {os.strerror(error.errno or 0)}; what is finished stays"
        ) from error


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("modalign", "torch", "numpy")}
