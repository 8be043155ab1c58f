"""Finished sweeps as runs of TensorBoard and of Weights & Biases: every run, every epoch, every result."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from experiments.small import configuration, settings
from modalign.cli import app
from modalign.experiments.sweep.runner import run
from modalign.experiments.sweep.trackers import log_runs, require_tracker
from modalign.files.marks import Mark


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(configuration(strengths=[0, 1]), tmp_path_factory.mktemp("sweep") / "tiny")


def scalars(path: Path) -> dict[tuple[str, int], float]:
    """Read the scalars of an event file, whose records hold a length, its checksum, the event and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    content, offset, values = path.read_bytes(), 0, {}
    while offset < len(content):
        (length,) = struct.unpack_from("<Q", content, offset)
        event = Event.FromString(content[offset + 12 : offset + 12 + length])
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                values[value.tag, event.step] = value.simple_value
        offset += length + 16
    return values


def test_tensorboard_has_every_number(folder: Path) -> None:
    place = log_runs(folder, "tensorboard")
    assert place == folder / "tensorboard"
    runs, curves = (pd.read_parquet(folder / f"{name}.parquet") for name in ("runs", "curves"))
    assert len(list(place.iterdir())) == len(runs) == 4
    for row in runs.to_dict("records"):
        (file,) = (place / f"{row['case']}, strength {row['strength']}, seed {row['seed']}").iterdir()
        logged = scalars(file)
        assert logged["result/accuracy_1", 0] == pytest.approx(row["accuracy_1"], rel=1e-6)
        assert logged["result/mutual_knn", 0] == pytest.approx(row["mutual_knn"], rel=1e-6)
        curve = curves[(curves["strength"] == row["strength"]) & (curves["seed"] == row["seed"])]
        names = [name for name in curve.columns if name not in ("case", "strength", "seed", "epoch")]
        assert names
        for epoch, values in zip(curve["epoch"], curve[names].to_dict("records"), strict=True):
            for name, value in values.items():
                assert logged[f"curve/{name}", epoch] == pytest.approx(value, rel=1e-6)


def test_logging_again_replaces_the_earlier_log(folder: Path) -> None:
    """Files that the user added stay, and one in place of an event file is refused."""

    def files() -> set[Path]:
        return {path for path in (folder / "tensorboard").rglob("*") if path.is_file()}

    log_runs(folder, "tensorboard")
    before = files()
    (folder / "tensorboard" / "notes.txt").write_text("mine")
    log_runs(folder, "tensorboard")
    assert len(files()) == len(before) + 1
    assert {str(path.relative_to(folder)) for path in files()} - set(Mark.read(folder).files) == {
        "tensorboard/notes.txt"
    }


def test_wandb_offline(folder: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (pip install 'modalign[log]')")
    place = log_runs(folder, "wandb")
    kept = list(place.glob("wandb/offline-run-*/*.wandb"))
    assert len(kept) == 4
    assert all(file.stat().st_size > 500 for file in kept)


def test_the_command_line_logs_a_sweep_and_a_finished_one(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(settings(strengths=[0, 1], seeds=[3])))

    def call(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    out = tmp_path / "out"
    result = call("sweep", config, "--out", out, "--quiet", "--log", "tensorboard")
    assert result.exit_code == 0, result.output
    assert f"tensorboard: {out / 'tensorboard'}" in result.stdout
    assert call("report", out, "--log", "tensorboard").exit_code == 0
    assert len([path for path in (out / "tensorboard").rglob("*") if path.is_file()]) == 2


def test_mistakes_are_named_before_anything_trains(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(settings()))
    result = CliRunner().invoke(app, ["sweep", str(config), "--out", str(tmp_path / "out"), "--log", "mlflow"])
    assert result.exit_code == 2
    assert "--log must be tensorboard or wandb, got mlflow" in result.stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="holds no finished sweep to log"):
        log_runs(tmp_path, "tensorboard")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--log wandb needs wandb \(pip install 'modalign\[log\]'\)"):
        require_tracker("wandb")
