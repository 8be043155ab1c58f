"""Reads a finished sweep folder and checks it, so that everything after can rely on a full grid of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

__all__ = ["Case", "Results", "read"]

KEYS = ("case", "strength", "seed")
ACCURACY = ("accuracy_1", "accuracy_2", "validation_accuracy_1", "validation_accuracy_2", "chance_1", "chance_2")
ALIGNMENT = ("mutual_knn", "cka", "unbiased_cka", "svcca")
CURVES = (
    "task_loss_1",
    "task_loss_2",
    "alignment_loss",
    "gradient_norm_task",
    "gradient_norm_alignment",
    "validation_accuracy_1",
    "validation_accuracy_2",
)
WITHIN_GROUP = (
    "Pairs were permuted within their group, so a pair tells the encoders the group of items that carry no label: "
    "part of a gain here is labels that came in through the pairing."
)


@dataclass(frozen=True)
class Case:
    """One data set of the sweep: its label, what to call its two modalities, and what a reader must know of it."""

    label: str
    modalities: tuple[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """A finished sweep: every (case, strength, seed) of the configuration is in ``runs`` exactly once."""

    name: str
    cases: tuple[Case, ...]
    strengths: tuple[float, ...]  # rising
    seeds: tuple[int, ...]  # rising
    runs: pd.DataFrame
    curves: pd.DataFrame
    config: Mapping[str, Any]
    config_text: str
    provenance: Mapping[str, Any]

    @property
    def strength_name(self) -> str:
        """What the strengths are, for an axis."""
        if self.config.get("strength_kind") == "gradient_ratio":
            return "alignment strength (share of the task's gradient)"
        return "alignment strength"

    def grid(self, case: Case, column: str) -> NDArray[np.float64]:
        """``column`` of one case as an array of shape (seeds, strengths)."""
        mine = self.runs[self.runs["case"] == case.label]
        table = mine.pivot(index="seed", columns="strength", values=column)
        grid: NDArray[np.float64] = table.loc[list(self.seeds), list(self.strengths)].to_numpy(dtype=np.float64)
        return grid


def read(folder: Path) -> Results:
    """The results in ``folder``; ValueError with one sentence when it is no finished, undamaged sweep."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the results folder that a sweep wrote")
    absent = [name for name in ("config.yaml", "provenance.json", "runs.parquet", "curves.parquet")
              if not (folder / name).is_file()]  # fmt: skip
    if absent and (folder / "runs.parquet").is_file():
        raise ValueError(
            f"{folder} has no {', '.join(absent)}, though its sweep has finished; run it again with --fresh"
        )
    if absent:
        raise ValueError(f"{folder} has no {', '.join(absent)}: no sweep has finished there; run the sweep to its end")
    config_text, config = _config(folder / "config.yaml")
    runs = _table(folder / "runs.parquet", (*KEYS, *ACCURACY, *ALIGNMENT, "mutual_knn_chance", "seconds"))
    curves = _table(folder / "curves.parquet", (*KEYS, "epoch", *CURVES))
    cases = tuple(_case(entry, folder / "config.yaml") for entry in config["cases"])
    strengths = tuple(sorted({float(value) for value in config["strengths"]}))
    seeds = tuple(sorted({int(value) for value in config["seeds"]}))
    _check_grid(runs, cases, strengths, seeds, folder / "runs.parquet")
    return Results(
        name=str(config.get("name") or folder.resolve().name),
        cases=cases,
        strengths=strengths,
        seeds=seeds,
        runs=runs,
        curves=curves,
        config=config,
        config_text=config_text,
        provenance=_provenance(folder / "provenance.json"),
    )


def _config(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
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


def _case(entry: object, path: Path) -> Case:
    if not isinstance(entry, dict) or entry.get("label") is None:
        raise ValueError(f"{path} must give every case a label, got {entry!r}")
    data = entry.get("data")
    settings: dict[str, Any] = data if isinstance(data, dict) else {}
    names = entry.get("modalities") or str(settings.get("pair", "")).split("-")
    if not isinstance(names, (list, tuple)) or len(names) != 2:
        names = ("modality 1", "modality 2")
    first, second = (str(name) for name in names)
    if first == second:
        first, second = f"{first} 1", f"{second} 2"
    notes = (WITHIN_GROUP,) if settings.get("pairing") == "within-group" else ()
    return Case(str(entry["label"]), (first, second), notes)


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table: pd.DataFrame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these two kinds
        raise ValueError(f"{path} is damaged: {_first_line(error)}; run the sweep again with --fresh") from error
    absent = [name for name in columns if name not in table.columns]
    if absent:
        raise ValueError(f"{path} lacks the columns {', '.join(absent)}; it must hold {', '.join(columns)}")
    wrong = [name for name in columns if name != "case" and not pd.api.types.is_numeric_dtype(table[name])]
    if wrong:
        raise ValueError(f"{path} must hold numbers in {', '.join(wrong)}, got {table[wrong[0]].dtype} in {wrong[0]}")
    typed: pd.DataFrame = table.astype({"case": str, "strength": np.float64})
    return typed


def _check_grid(
    runs: pd.DataFrame, cases: tuple[Case, ...], strengths: tuple[float, ...], seeds: tuple[int, ...], path: Path
) -> None:
    wanted = pd.MultiIndex.from_product([[case.label for case in cases], strengths, seeds], names=KEYS)
    found = pd.MultiIndex.from_frame(runs[list(KEYS)])
    if not wanted.is_unique:
        raise ValueError(f"{path.with_name('config.yaml')} must give every case a label of its own")
    for excess, what in ((found[found.duplicated()], "twice"), (found.difference(wanted), "that config.yaml lacks")):
        if len(excess):
            raise ValueError(f"{path} holds {len(excess)} runs {what}, first {_run(excess[0])}: one of them is damaged")
    absent = wanted.difference(found)
    if len(absent):
        raise ValueError(
            f"{path} holds {len(found)} of {len(wanted)} runs, first missing {_run(absent[0])}: "
            "the sweep has not finished; run it again to resume it"
        )
    for column in ACCURACY:
        bad = runs[~runs[column].between(0, 1)]
        if len(bad):
            first = bad.iloc[0]
            raise ValueError(
                f"{path} must hold {column} between 0 and 1, "
                f"got {first[column]} for {_run((first['case'], first['strength'], first['seed']))}"
            )


def _run(key: Any) -> str:
    case, strength, seed = key
    return f"(case {case!r}, strength {strength:g}, seed {seed})"


def _provenance(path: Path) -> dict[str, Any]:
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {_first_line(error)}") from error
    if not isinstance(provenance, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(provenance).__name__}")
    return provenance


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
