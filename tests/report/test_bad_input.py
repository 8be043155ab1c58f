"""Folders that are no finished sweep: one clear sentence each, and no report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from modalign import report
from report.sweeps import constant, write_sweep


def runs(change: Callable[[pd.DataFrame], pd.DataFrame], file: str = "runs.parquet") -> Callable[[Path], object]:
    return lambda folder: change(pd.read_parquet(folder / file)).to_parquet(folder / file, index=False)


def config(**changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))

    return edit


def truncate(folder: Path) -> None:
    path = folder / "runs.parquet"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


CASE = {"label": "c", "data": {"name": "synthetic"}}
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no runs": (lambda folder: (folder / "runs.parquet").unlink(), r"has no runs.parquet: no sweep has finished there"),
    "no curves": (lambda folder: (folder / "curves.parquet").unlink(), r"no curves.parquet, though .*--fresh"),
    "cut short": (truncate, r"runs.parquet is damaged: .*run the sweep again"),
    "not Parquet": (lambda folder: (folder / "curves.parquet").write_text("hello"), r"curves.parquet is damaged"),
    "lost column": (
        runs(lambda t: t.drop(columns=["cka", "seconds"])),
        r"lacks the columns cka, seconds; it must hold",
    ),
    "lost curve": (
        runs(lambda t: t.drop(columns="epoch"), "curves.parquet"),
        r"curves.parquet lacks the columns epoch",
    ),
    "text for numbers": (runs(lambda t: t.assign(accuracy_1="high")), r"must hold numbers in accuracy_1, got"),
    "unfinished": (
        runs(lambda t: t.iloc[:-1]),
        r"holds 3 of 4 runs, first missing \(case 'c', strength 1, seed 1\).*resume",
    ),
    "no rows": (runs(lambda t: t.iloc[:0]), r"holds 0 of 4 runs"),
    "run twice": (
        runs(lambda t: pd.concat([t, t.iloc[:1]])),
        r"holds 1 runs twice, first \(case 'c', strength 0, seed 0\)",
    ),
    "foreign run": (runs(lambda t: t.assign(seed=t["seed"] + 5)), r"holds 4 runs that config.yaml lacks"),
    "NaN": (runs(lambda t: t.assign(accuracy_2=np.nan)), r"accuracy_2 between 0 and 1, got nan for \(case 'c'"),
    "percent": (runs(lambda t: t.assign(validation_accuracy_1=61.0)), r"between 0 and 1, got 61.0"),
    "not YAML": (lambda folder: (folder / "config.yaml").write_text("a: [1"), r"config.yaml cannot be read as YAML"),
    "not a mapping": (lambda folder: (folder / "config.yaml").write_text("7"), r"must hold a mapping, got int"),
    "no strengths": (config(strengths=None), r"must hold a list named strengths with at least one entry, got None"),
    "named strengths": (config(strengths=["high"]), r"must hold only numbers under strengths, got \['high'\]"),
    "no label": (config(cases=[{"data": {}}]), r"must give every case a label"),
    "label twice": (config(cases=[CASE, CASE]), r"must give every case a label of its own"),
    "not JSON": (
        lambda folder: (folder / "provenance.json").write_text("{"),
        r"provenance.json cannot be read as JSON",
    ),
    "a list": (lambda folder: (folder / "provenance.json").write_text("[]"), r"must hold a mapping, got list"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_unfinished_sweep_is_one_clear_sentence(tmp_path: Path, damage: str) -> None:
    folder = write_sweep(tmp_path / "sweep", constant({0.0: [0.5, 0.6], 1.0: [0.6, 0.7]}), cases=["c"],
                         strengths=[0.0, 1.0], seeds=[0, 1], epochs=2)  # fmt: skip
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(ValueError, match=message) as caught:
        report.write(folder)
    assert "\n" not in str(caught.value)
    assert not list(folder.glob("*report.html*"))
    with pytest.raises(ValueError, match=message):
        report.conclusions(folder)


def test_no_folder_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere is not a folder; give the results folder that a sweep wrote"):
        report.write(tmp_path / "nowhere")


def test_an_older_report_outlives_a_failure(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("older")
    with pytest.raises(ValueError, match=r"has no config.yaml, provenance.json, runs.parquet, curves.parquet"):
        report.write(tmp_path)
    assert (tmp_path / "report.html").read_text() == "older"
