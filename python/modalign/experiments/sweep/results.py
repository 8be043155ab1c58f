"""Results of a finished sweep, read from its folder and checked to hold every run of the configuration exactly once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from modalign.experiments.sweep.schema import (
    KEY,
    Column,
    alignment_column,
    curve_columns,
    modality_pairs,
    predictor_suffixes,
    run_columns,
)
from modalign.files.documents import read_yaml
from modalign.files.paths import expanded

__all__ = ["Case", "ModalityPair", "Predictor", "Results", "read"]

KEYS = tuple(column.name for column in KEY)
FILES = ("config.yaml", "provenance.json", "runs.parquet", "curves.parquet")
SHARES = ("accuracy_", "validation_accuracy_", "chance_")  # columns whose values lie between 0 and 1
WITHIN_GROUP = (
    "Pairs were permuted within their group, so a pair tells the encoders the group of items that carry no label: "
    "part of a gain here is labels that came in through the pairing."
)


@dataclass(frozen=True)
class Predictor:
    """A model whose accuracy a sweep records: the encoder and task head of one modality, or the fused model.

    Args:
        suffix: End of the names of its columns: "1", "2", ... or "fused".
        position: Position among the predictors of its case, from 1.
        name: Name of the modality, or "fused model".
    """

    suffix: str
    position: int
    name: str

    @property
    def fused(self) -> bool:
        """True for the model on the outputs of all encoders."""
        return self.suffix == "fused"

    def column(self, kind: str) -> str:
        """Return the name of one of its columns, such as ``accuracy_2`` for kind "accuracy"."""
        return f"{kind}_{self.suffix}"


@dataclass(frozen=True)
class ModalityPair:
    """Two modalities of a case, whose alignment a sweep measures.

    Args:
        modalities: Positions of the two modalities, from 0.
        name: The two names, joined by "and".
    """

    modalities: tuple[int, int]
    name: str

    def column(self, measure: str) -> str:
        """Return the column of an alignment measure, one of ``schema.ALIGNMENT``: ``cka``, ``cka_1_3``, ..."""
        return alignment_column(measure, self.modalities)


@dataclass(frozen=True)
class Case:
    """A case of a sweep: a data set, its modalities and the models that were trained on it.

    Args:
        label: Label in the configuration.
        modalities: Names of its modalities, two or more, all different.
        notes: Sentences that a reader of its numbers must know.
        has_fused_model: True if a model on the outputs of all encoders was trained.
    """

    label: str
    modalities: tuple[str, ...]
    notes: tuple[str, ...]
    has_fused_model: bool = False

    @property
    def predictors(self) -> tuple[Predictor, ...]:
        """The models whose accuracy is recorded: one for each modality, then the fused model."""
        suffixes = predictor_suffixes(len(self.modalities), self.has_fused_model)
        names = [*self.modalities, "fused model"]
        return tuple(
            Predictor(suffix, position, name)
            for position, (suffix, name) in enumerate(zip(suffixes, names, strict=False), 1)
        )

    @property
    def pairs(self) -> tuple[ModalityPair, ...]:
        """Every pair of modalities; that of modalities 1 and 2 is first."""
        return tuple(
            ModalityPair((i, j), f"{self.modalities[i]} and {self.modalities[j]}")
            for i, j in modality_pairs(len(self.modalities))
        )


@dataclass(frozen=True)
class Results:
    """A finished sweep: every (case, strength, seed) of the configuration is in ``runs`` exactly once.

    Args:
        name: Name of the sweep, or of its folder where the configuration gives none.
        cases: The cases in the order of the configuration.
        strengths: The strengths, rising.
        seeds: The seeds, rising.
        runs: The table of runs, see ``schema.RUNS``. Columns of a modality that a case lacks are missing values there.
        curves: The table of epochs, see ``schema.CURVES``.
        config: The configuration as YAML gives it.
        config_text: The configuration as text.
        provenance: Versions, machine, commit and seeds.
    """

    name: str
    cases: tuple[Case, ...]
    strengths: tuple[float, ...]
    seeds: tuple[int, ...]
    runs: pd.DataFrame
    curves: pd.DataFrame
    config: Mapping[str, Any]
    config_text: str
    provenance: Mapping[str, object]

    @property
    def strength_name(self) -> str:
        """Label of an axis of strengths."""
        if self.config.get("strength_kind") == "gradient_ratio":
            return "alignment strength (share of the task's gradient)"
        return "alignment strength"

    def grid(self, case: Case, column: str) -> NDArray[np.float64]:
        """Return ``column`` of one case as an array of shape (seeds, strengths)."""
        rows = self.runs[self.runs["case"] == case.label]
        table = rows.pivot(index="seed", columns="strength", values=column)
        grid: NDArray[np.float64] = table.loc[list(self.seeds), list(self.strengths)].to_numpy(dtype=np.float64)
        return grid


def read(folder: Path) -> Results:
    """Read the results in ``folder``.

    Args:
        folder: Folder of a finished sweep.

    Raises:
        ValueError: In one sentence, if the folder is missing, damaged or unfinished.
    """
    folder = expanded(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the results folder that a sweep wrote")
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent and (folder / "runs.parquet").is_file():
        raise ValueError(
            f"{folder} has no {', '.join(absent)}, though its sweep has finished; run it again with --fresh"
        )
    if absent:
        raise ValueError(f"{folder} has no {', '.join(absent)}: no sweep has finished there; run the sweep to its end")
    config_text, config = _read_config(folder / "config.yaml")
    fused = config.get("fusion", "none") != "none"
    cases = tuple(_case(entry, fused, folder / "config.yaml") for entry in config["cases"])
    runs = _read_table(folder / "runs.parquet", _columns_of_runs(cases))
    curves = _read_table(folder / "curves.parquet", _columns_of_curves(cases))
    results = Results(
        name=str(config.get("name") or folder.resolve().name),
        cases=cases,
        strengths=tuple(sorted({float(value) for value in config["strengths"]})),
        seeds=tuple(sorted({int(value) for value in config["seeds"]})),
        runs=runs,
        curves=curves,
        config=config,
        config_text=config_text,
        provenance=_read_provenance(folder / "provenance.json"),
    )
    _require_every_run_once(results, folder / "runs.parquet")
    _require_shares(results, folder / "runs.parquet")
    return results


def _read_config(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        config = read_yaml(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {_first_line(error)}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(config).__name__}")
    for key in ("cases", "strengths", "seeds"):
        if not isinstance(config.get(key), list) or not config[key]:
            raise ValueError(f"{path} must hold a list named {key} with at least one entry, got {config.get(key)!r}")
    for key in ("strengths", "seeds"):
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in config[key]):
            raise ValueError(f"{path} must hold only numbers under {key}, got {config[key]!r}")
    return text, config


def _case(entry: object, fused: bool, path: Path) -> Case:
    if not isinstance(entry, dict) or entry.get("label") is None:
        raise ValueError(f"{path} must give every case a label, got {entry!r}")
    data = entry.get("data")
    settings: dict[str, object] = data if isinstance(data, dict) else {}
    names = entry.get("modalities") or str(settings.get("pair", "")).split("-")
    if not isinstance(names, (list, tuple)) or len(names) < 2:
        names = ("modality 1", "modality 2")
    notes = (WITHIN_GROUP,) if settings.get("pairing") == "within-group" else ()
    return Case(str(entry["label"]), _distinct([str(name) for name in names]), notes, fused)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Add the number of its modality to each name that occurs more than once."""
    return tuple(f"{name} {i}" if names.count(name) > 1 else name for i, name in enumerate(names, 1))


def _columns_of_runs(cases: Sequence[Case]) -> list[Column]:
    columns = {
        column.name: column
        for case in cases
        for column in run_columns(
            [predictor.suffix for predictor in case.predictors], [pair.modalities for pair in case.pairs]
        )
    }
    return list(columns.values())


def _columns_of_curves(cases: Sequence[Case]) -> list[Column]:
    columns = {
        column.name: column
        for case in cases
        for column in curve_columns([predictor.suffix for predictor in case.predictors])
    }
    return list(columns.values())


def _read_table(path: Path, columns: Sequence[Column]) -> pd.DataFrame:
    try:
        table: pd.DataFrame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these two kinds
        raise ValueError(f"{path} is damaged: {_first_line(error)}; run the sweep again with --fresh") from error
    required = [column for column in columns if column.required]
    absent = [column.name for column in required if column.name not in table.columns]
    if absent:
        raise ValueError(
            f"{path} lacks the columns {', '.join(absent)}; it must hold "
            f"{', '.join(column.name for column in required)}"
        )
    wrong = [
        column.name
        for column in required
        if column.dtype != "text" and not pd.api.types.is_numeric_dtype(table[column.name])
    ]
    if wrong:
        raise ValueError(f"{path} must hold numbers in {', '.join(wrong)}, got {table[wrong[0]].dtype} in {wrong[0]}")
    typed: pd.DataFrame = table.astype({"case": str, "strength": np.float64})
    return typed


def _require_every_run_once(results: Results, path: Path) -> None:
    expected = pd.MultiIndex.from_product(
        [[case.label for case in results.cases], results.strengths, results.seeds], names=KEYS
    )
    if not expected.is_unique:
        raise ValueError(f"{path.with_name('config.yaml')} must give every case a label of its own")
    present = pd.MultiIndex.from_frame(results.runs[list(KEYS)])
    for excess, fault in (
        (present[present.duplicated()], "twice"),
        (present.difference(expected), "that config.yaml lacks"),
    ):
        if len(excess):
            raise ValueError(
                f"{path} holds {len(excess)} runs {fault}, first {_run(excess[0])}: one of them is damaged"
            )
    absent = expected.difference(present)
    if len(absent):
        raise ValueError(
            f"{path} holds {len(present)} of {len(expected)} runs, first missing {_run(absent[0])}: "
            "the sweep has not finished; run it again to resume it"
        )


def _require_shares(results: Results, path: Path) -> None:
    """Check that accuracies and chance levels lie between 0 and 1 wherever a case has them."""
    for case in results.cases:
        rows = results.runs[results.runs["case"] == case.label]
        for column in (f"{kind}{predictor.suffix}" for kind in SHARES for predictor in case.predictors):
            bad = rows[~rows[column].between(0, 1)]
            if len(bad):
                first = bad.iloc[0]
                raise ValueError(
                    f"{path} must hold {column} between 0 and 1, "
                    f"got {first[column]} for {_run((first['case'], first['strength'], first['seed']))}"
                )


def _run(key: tuple[str, float, int]) -> str:
    case, strength, seed = key
    return f"(case {case!r}, strength {strength:g}, seed {seed})"


def _read_provenance(path: Path) -> dict[str, object]:
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {_first_line(error)}") from error
    if not isinstance(provenance, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(provenance).__name__}")
    return provenance


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
