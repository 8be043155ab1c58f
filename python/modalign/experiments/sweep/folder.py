"""The folder of a sweep: its configuration, its finished parts, and the tables that it ends with.

    .modalign                         the mark: what the folder is of, and the list of these files (``files.marks``)
    config.yaml, provenance.json      the configuration; versions, machine and commit
    parts/NAME.pt                     a finished chunk of runs
    parts/NAME.checkpoint.pt          a chunk in training, after some epoch
    runs.parquet, curves.parquet      the results; runs.parquet is written last, so a folder that has it is finished
    report.html, figures/             the report and its pictures

Every file appears whole or not at all, so a process may be killed at any moment: the configuration stays when the
folder is cleared until the new one replaces it, and each part records the configuration and data that it belongs to.
The folder of a study has settings.json in place of config.yaml, and other tables (see ``studies.study``).
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from modalign.common import provenance
from modalign.experiments.sweep.config import Sweep, dump, load
from modalign.experiments.sweep.earlier import files_of_a_study, files_of_a_sweep
from modalign.files.checkpoint import Checkpoint
from modalign.files.paths import expanded
from modalign.files.settings import differences, digest_of

__all__ = ["Folder"]

RECORDS = ("config.yaml", "provenance.json", "settings.json")  # say what the results are of
PICTURES_OF_A_SWEEP = r"accuracy|alignment|accuracy-alignment|training-\d+"
PICTURES_OF_STUDIES = (
    "alignment|alignment-heterogeneity|alignment-uniqueness|correlations|curves|depths|heat-maps|layers|pairs|"
    "performance|sensitivity|strength|thesis"
)
# regular expressions, oldest first
FILES_OF_A_SWEEP = (
    r"provenance\.json",
    r"config\.yaml",
    r"parts/case\d+-chunk\d+(?:\.checkpoint)?\.pt",
    r"curves\.parquet",
    r"runs\.parquet",
    r"report\.html",
    rf"figures/(?:{PICTURES_OF_A_SWEEP})\.(?:svg|png)",
)
FILES_OF_A_STUDY = (
    r"settings\.json",
    r"trials\.db(?:-journal)?",
    r"parts/.+\.pt",
    r"embeddings/.+\.npy(?:\.json)?",
    r"(?:alignment|best|correlations|evaluations|layers|models)\.parquet",
    r"(?:claims|examples|notes|optima)\.json",
    r"report\.html",
    rf"figures/(?:{PICTURES_OF_STUDIES})\.(?:svg|png)",
)
ADVICE = "give another --out, or --fresh to start over"
VERSIONED = ("modalign", "torch", "numpy")  # packages that a part may depend on


class Folder:
    """A results folder on disk.

    Args:
        path: The folder, which may be missing.
        study: The name of the study that is computed in it; None for a sweep.
    """

    def __init__(self, path: Path, study: str | None = None) -> None:
        self.path = expanded(path)
        self.digest = ""  # of the settings and data that the parts are of

        def earlier(folder: Path) -> Sequence[str]:
            if study is None:
                return files_of_a_sweep(folder, FILES_OF_A_SWEEP)
            return files_of_a_study(folder, FILES_OF_A_STUDY, study)

        self.checkpoint = Checkpoint(
            self.path,
            content="a sweep" if study is None else "a study",
            advice=ADVICE,
            names=FILES_OF_A_SWEEP if study is None else FILES_OF_A_STUDY,
            kind="a sweep" if study is None else f"the study {study}".rstrip(),
            earlier=earlier,
        )

    @property
    def finished(self) -> bool:
        """True if the results of a sweep are there."""
        return (self.path / "runs.parquet").is_file()

    @property
    def started(self) -> bool:
        """True if the configuration of a sweep is there."""
        return (self.path / "config.yaml").is_file()

    def claimed(self) -> contextlib.AbstractContextManager[None]:
        """Hold the folder alone until the block ends; ValueError if it is another process's, or not of this kind."""
        return self.checkpoint.claimed()

    def clear(self) -> None:
        """Remove what was written there, and nothing else, but for the records, which the new ones replace."""
        self.checkpoint.clear(keep=RECORDS)

    def require_same(self, sweep: Sweep, data: dict[str, str]) -> None:
        """Check that the sweep in this folder has the configuration ``sweep`` and was begun with the same data.

        Args:
            sweep: The configuration.
            data: Fingerprint of each case's data set, by label.

        Raises:
            ValueError: If it has another configuration or other data, or does not record them.
        """
        if not self.started:
            raise ValueError(f"{self.path} holds results without config.yaml, which says what they are of; {ADVICE}")
        try:
            before = load(self.path / "config.yaml")
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{self.path} holds a sweep that cannot be continued ({reason}); {ADVICE}") from None
        self.checkpoint.require_same(before.model_dump(mode="json"), sweep.model_dump(mode="json"))
        try:
            begun = json.loads((self.path / "provenance.json").read_text(encoding="utf-8"))["data"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"{self.path} does not say which data it is of; {ADVICE}") from None
        other = [case for case, fingerprint in data.items() if begun.get(case) != fingerprint]
        if other:
            raise ValueError(
                f"{self.path} holds a sweep of other data: rows, labels or split of {', '.join(other)} have changed "
                f"since it was begun; {ADVICE}"
            )

    def identify(self, *settings: object) -> None:
        """Set what the parts are of, as JSON has it: parts of anything else are refused."""
        self.digest = digest_of(settings)

    def begin(self, sweep: Sweep, data: dict[str, str]) -> None:
        """Write what the results are of, before there are any. data: the fingerprint of each case's data set."""
        self.checkpoint.write_json(
            "provenance.json", provenance.collect(seed=list(sweep.seeds)) | {"data": data}, indent=2
        )
        self.checkpoint.write_bytes("config.yaml", dump(sweep).encode())

    def resume(self) -> None:
        """Add to the provenance where the sweep continues: maybe another machine or commit."""
        record = json.loads((self.path / "provenance.json").read_text(encoding="utf-8"))
        self.checkpoint.write_json("provenance.json", provenance.resumed(record), indent=2)

    def save(self, name: str, runs: list[tuple[float, int]], content: Mapping[str, object]) -> None:
        """Keep a part of these runs: tensors, numbers, and lists and dictionaries of them."""
        part = {"of": self.digest, "versions": provenance.versions(*VERSIONED), "runs": runs, "content": content}
        buffer = io.BytesIO()  # a full disk is then an OSError like any other
        torch.save(part, buffer)
        self.checkpoint.write_bytes(f"parts/{name}", buffer.getvalue())

    def restore(self, name: str, runs: list[tuple[float, int]]) -> dict[str, Any] | None:
        """Return a part that was kept, None if there is none.

        Raises:
            ValueError: The part is damaged, or of other runs, settings, data or versions.
        """
        path = self.path / "parts" / name
        if not path.is_file():
            return None
        try:
            part = torch.load(path, weights_only=True)
            versions, stored = part["versions"], [tuple(run) for run in part["runs"]]
            content: dict[str, Any] = part["content"]
        except Exception as error:  # torch.load raises many kinds
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}); delete it to train its runs again"
            ) from error
        changed = differences(versions, provenance.versions(*VERSIONED))
        if changed:
            raise ValueError(f"{self.path} was begun with other versions ({'; '.join(changed)}); --fresh starts over")
        if stored != [tuple(run) for run in runs]:
            raise ValueError(f"{path} is of other runs; --fresh starts over")
        if part.get("of") != self.digest:
            raise ValueError(f"{path} is of other settings or data; --fresh starts over")
        return content

    def drop(self, name: str) -> None:
        """Remove a part, if it is there."""
        self.checkpoint.drop(f"parts/{name}")

    def finish(self, sweep: Sweep, runs: pd.DataFrame, curves: pd.DataFrame) -> None:
        """Write the tables, with the provenance and the configuration inside, and remove the parts."""
        facts = json.loads((self.path / "provenance.json").read_text(encoding="utf-8"))
        note = json.dumps({"provenance": facts, "config": sweep.model_dump(mode="json")})
        for name, table in (("curves.parquet", curves), ("runs.parquet", runs)):
            arrow = pa.Table.from_pandas(table, preserve_index=False)
            arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), b"modalign": note.encode()})
            buffer = io.BytesIO()
            pq.write_table(arrow, buffer)
            self.checkpoint.write_bytes(name, buffer.getvalue())
        self.checkpoint.drop(*(name for name in self.checkpoint.mark.files if name.startswith("parts/")))
        self.checkpoint.remove_folder("parts")
