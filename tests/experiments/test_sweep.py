"""A sweep on disk: its tables and files, its chunks, and what is refused before anything trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from experiments.small import TINY, TWO_CASES, assert_same_bits, configuration, tables, vectors
from modalign.common.progress import Reporter
from modalign.data import synthetic
from modalign.experiments.sweep.chunks import chunks_of
from modalign.experiments.sweep.config import Sweep, load
from modalign.experiments.sweep.memory import bytes_of_a_run
from modalign.experiments.sweep.runner import run
from modalign.experiments.sweep.schema import curve_columns, modality_pairs, run_columns

CURVES = [column.name for column in curve_columns(["1", "2"])][4:]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Path]:
    sweep = configuration(cases=TWO_CASES, training={"runs_at_once": 4})
    return sweep, run(sweep, tmp_path_factory.mktemp("sweep"), workers=2)


def test_the_tables_hold_every_run_and_epoch(finished: tuple[Sweep, Path]) -> None:
    _, folder = finished
    runs, curves = pd.read_parquet(folder / "runs.parquet"), pd.read_parquet(folder / "curves.parquet")
    assert list(runs.columns) == [column.name for column in run_columns(["1", "2"], modality_pairs(2))]
    assert tuple(curves.columns) == ("case", "strength", "seed", "epoch", *CURVES)
    keys = pd.MultiIndex.from_product([["R = 8", "linear"], [0, 0.3, 2], [3, 8]])
    assert list(zip(runs["case"], runs["strength"], runs["seed"], strict=True)) == list(keys)
    assert len(curves) == 3 * len(runs)
    assert runs["strength"].dtype == np.float64
    assert runs["seed"].dtype == np.int64
    assert runs.notna().all().all()
    assert curves.notna().all().all()
    assert (runs["seconds"] > 0).all()
    chance = {"R = 8": 5 / 89, "linear": 5 / 74}  # k / (n - 1) for 15 % of 600 and of 500 pairs
    np.testing.assert_allclose(runs["mutual_knn_chance"], runs["case"].map(chance))


def test_accuracies_are_those_of_the_best_validation_epoch(finished: tuple[Sweep, Path]) -> None:
    runs, curves = (pd.read_parquet(finished[1] / f"{name}.parquet") for name in ("runs", "curves"))
    for m in (1, 2):
        for row in runs.itertuples():
            curve = curves[
                (curves["case"] == row.case) & (curves["strength"] == row.strength) & (curves["seed"] == row.seed)
            ]
            validation = curve[f"validation_accuracy_{m}"].to_numpy()
            assert getattr(row, f"best_epoch_{m}") == int(validation.argmax()) + 1
            assert getattr(row, f"validation_accuracy_{m}") == validation.max()


def test_files_tell_where_they_come_from(finished: tuple[Sweep, Path]) -> None:
    sweep, folder = finished
    files = [".modalign", "config.yaml", "curves.parquet", "provenance.json", "runs.parquet"]
    assert sorted(path.name for path in folder.iterdir()) == files
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    assert resolved["cases"][0]["data"] == {"name": "synthetic", **synthetic(redundancy=8, n=600).settings}
    assert resolved["cases"][0]["modalities"] == ["modality 1", "modality 2"]
    assert load(folder / "config.yaml").training == sweep.training
    facts = json.loads((folder / "provenance.json").read_text())
    assert facts["seed"] == [3, 8]
    for name in ("runs.parquet", "curves.parquet"):
        note = json.loads(pq.read_schema(folder / name).metadata[b"modalign"])
        assert note == {"provenance": facts, "config": resolved}


def test_chunks_and_workers_do_not_change_results(finished: tuple[Sweep, Path], tmp_path: Path) -> None:
    _, folder = finished
    sweep = configuration(cases=TWO_CASES, training={"runs_at_once": 4})
    assert_same_bits(folder, run(sweep, tmp_path / "one worker", workers=1))
    # an accuracy is a count, which rounding may tip
    measured = [name for name in CURVES if not name.startswith("validation")]
    for runs_at_once in (1, 32):
        sweep = configuration(cases=TWO_CASES, training={"runs_at_once": runs_at_once})
        curves = tables(run(sweep, tmp_path / f"cut {runs_at_once}"))[1]
        pd.testing.assert_frame_equal(curves[measured], tables(folder)[1][measured], rtol=1e-3, atol=1e-5)


def test_memory_cuts_runs_into_chunks_of_nearly_one_size() -> None:
    data = vectors()
    sweep = configuration(seeds=7)  # 21 runs
    need = bytes_of_a_run(data, sweep)
    assert 10_000 < need < 10_000_000
    sizes = {
        runs: [
            len(c.runs)
            for c in chunks_of(0, data, configuration(seeds=7, training={"memory_gib": runs * need / 2**30}))
        ]
        for runs in (0.5, 5.5, 10.5, 100.0)
    }
    assert sizes == {0.5: [1] * 21, 5.5: [5, 5, 5, 5, 1], 10.5: [7, 7, 7], 100.0: [21]}
    chunks = chunks_of(0, data, configuration(seeds=7, training={"runs_at_once": 4}))
    assert [run for chunk in chunks for run in chunk.runs] == [(s, seed) for s in (0, 0.3, 2) for seed in range(7)]


def test_the_memory_of_a_run_is_the_same_at_every_call() -> None:
    """The addresses that tensors get change nothing: the cut into chunks, which a resume must meet, follows from it."""
    data, others = vectors(), []
    need = set()
    for size in range(40):
        need.add(bytes_of_a_run(data, configuration(projection={"kind": "separate", "dim": 4})))
        others.append(torch.empty(1000 * size + 1))
    assert len(need) == 1


def test_a_note_says_which_test_pairs_are_training_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in "xy":
        np.save(tmp_path / f"{name}.npy", np.repeat(rng.normal(size=(4, 4)), 25, 0).astype(np.float32))
    np.save(tmp_path / "labels.npy", np.arange(100) // 25 % 2)
    own = {"name": "own", **{part: str(tmp_path / f"{part}.npy") for part in ("x", "y", "labels")}}
    case = {"label": "mine", "data": own}
    sweep = configuration(cases=[case], training={"labels": None}, metrics={"k": 2}, strengths=[0])
    run(sweep, tmp_path / "out", reporter=Reporter("lines"))
    assert "case 'mine': 15 of 15 test pairs are training pairs, too" in capsys.readouterr().err


MISMATCHES: list[tuple[dict[str, Any], str]] = [
    ({"metrics": {"k": 90}}, r"metrics.k must be less than the number of test pairs compared, got 90 for the 90"),
    ({"metrics": {"pairs": 5}}, r"metrics.k must be less than the number of test pairs compared, got 5 for the 5"),
    ({"training": {"labels": 421}}, r"case 'R = 8': training.labels asks for 421 labelled pairs, but there are 420"),
    ({"cases": [{"label": "a", "data": {"name": "emojis"}}]}, r"cases\[0\].data \(a\): load: no data set 'emojis'"),
    ({"cases": [{"label": "a", "data": {"name": "synthetic", "redundncy": 1}}]}, r"cases\[0\].data \(a\): .*redundncy"),
    (
        {"cases": [{"label": "a", "data": {"name": "synthetic", "redundancy": 9}}]},
        r"cases\[0\].data \(a\): .*redundancy",
    ),
    (
        {"cases": [{**TINY["cases"][0], "modalities": ["one", "one"]}]},
        "case 'R = 8': modalities must be 2 different names, for modality 1, modality 2, got one, one",
    ),
    (
        {"cases": [{**TINY["cases"][0], "modalities": ["one", "two", "three"]}]},
        "modalities must be 2 different names, .* got one, two, three",
    ),
    ({"encoders": {"kind": "cnn"}}, r"cnn encoder: the input must be images .*, got \(600, 12\)"),
    ({"encoders": {"kind": "bag"}}, r"bag encoder: the input must be token ids .* got \(600, 12\) torch.float32"),
]


@pytest.mark.parametrize(("change", "message"), MISMATCHES)
def test_settings_the_data_cannot_meet_are_refused_before_training(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run(configuration(**change), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_class_of_one_member_is_refused_before_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "xy":
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(60, 4)).astype(np.float32))
    own = {"name": "own", **{part: str(tmp_path / f"{part}.npy") for part in "xy"}}
    case = {"label": "mine", "data": {**own, "labels": ["odd", *("left", "right") * 29, "left"]}}
    with pytest.raises(
        ValueError, match=r"case 'mine': every class of labels must have at least 2 items .*; 'odd' has 1: drop or"
    ):
        run(configuration(cases=[case], training={"labels": None}, metrics={"k": 2}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_labels_that_do_not_differ_in_training_are_refused(task: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    split = np.arange(60) % 5 % 3
    labels = {"classification": (split > 0) * (1 + np.arange(60) % 2), "regression": split * rng.random(60)}[task]
    for name, values in {"x": rng.normal(size=(60, 4)), "y": rng.normal(size=(60, 4)), "split": split}.items():
        np.save(tmp_path / f"{name}.npy", values.astype(np.int64 if name == "split" else np.float32))
    np.save(tmp_path / "labels.npy", labels.astype(np.int64 if task == "classification" else np.float32))
    own = {
        "name": "own",
        "task": task,
        **{part: str(tmp_path / f"{part}.npy") for part in ("x", "y", "labels", "split")},
    }
    sweep = configuration(cases=[{"label": "mine", "data": own}], training={"labels": None}, metrics={"k": 2})
    with pytest.raises(ValueError, match=r"case 'mine': .* training (part|items)"):
        run(sweep, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_diverges_stops_the_sweep_and_names_its_case(tmp_path: Path) -> None:
    sweep = configuration(cases=TWO_CASES, training={"learning_rate": 1e30})
    with pytest.raises(ValueError, match=r"case '(R = 8|linear)': training diverged at strength 0, seed 3"):
        run(sweep, tmp_path)


def test_a_module_that_cannot_be_used_is_refused_before_training(tmp_path: Path) -> None:
    wrong = {"kind": "module", "make": "experiments.user_encoders:of_kind", "arguments": {"kind": "centres"}, "dim": 4}
    with pytest.raises(ValueError, match="changes with the rows beside it"):
        run(configuration(encoders=wrong), tmp_path / "results")
    assert not (tmp_path / "results").exists()
