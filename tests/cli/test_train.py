"""The command line: what it prints, writes and refuses."""

from __future__ import annotations

import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import modalign
from experiments.small import settings
from modalign.cli import app, train

MAIN = [sys.executable, "-c", "from modalign.cli import main; main()"]


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """What a user's mistake is answered with: exit code 2, one line, no traceback."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("modalign: ")
    return str(lines[0])


def written(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(settings(**changes)))
    return path


def test_version_and_help() -> None:
    assert call("--version").stdout == f"modalign {modalign.__version__}\n"
    text = call("--help").stdout
    for command in ("sweep", "report", "mutual-knn", "doctor", "demo"):
        assert command in text
        assert "modalign" in call(command, "--help").stdout
    assert "modalign sweep my.yaml" in text


def test_doctor_says_which_backends_run() -> None:
    text = call("doctor").stdout
    for operation in ("info_nce", "knn", "neighbor_overlap"):
        assert re.search(rf"^{operation}\(.*\): cpp$", text, re.M)


def test_a_sweep_ends_with_conclusions_and_a_report(tmp_path: Path) -> None:
    config, out = written(tmp_path / "tiny.yaml"), tmp_path / "out"
    result = call("sweep", config, "--out", out, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.splitlines()[-1] == f"report: {out / 'report.html'}"
    assert "R = 8" in result.stdout
    assert (out / "report.html").read_text().startswith("<!")
    assert {path.name for path in (out / "figures").glob("*.svg")} == {
        "accuracy.svg", "alignment.svg", "accuracy-alignment.svg", "training-1.svg",
    }  # fmt: skip
    assert len(pd.read_parquet(out / "runs.parquet")) == 6
    again = call("sweep", config, "--out", out, "--lines")
    assert again.exit_code == 0
    assert again.stdout == result.stdout
    assert "holds this sweep, finished" in again.stderr
    assert call("report", out).stdout == result.stdout


def test_results_go_to_a_folder_of_the_name_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("sweep", written(tmp_path / "tiny.yaml", strengths=[0]), "--quiet").exit_code == 0
    assert (tmp_path / "results" / "tiny" / "report.html").is_file()


def test_fresh_replaces_other_settings(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("sweep", written(tmp_path / "a.yaml", strengths=[0]), "--out", out, "--quiet").exit_code == 0
    other = written(tmp_path / "b.yaml", strengths=[1])
    assert "strengths: [0.0] before, [1.0] now" in refused("sweep", other, "--out", out)
    assert call("sweep", other, "--out", out, "--fresh", "--quiet").exit_code == 0
    assert set(pd.read_parquet(out / "runs.parquet")["strength"]) == {1.0}


def test_mistakes_in_a_configuration_are_one_line(tmp_path: Path) -> None:
    assert "there is no such file" in refused("sweep", tmp_path / "absent.yaml")
    config = written(tmp_path / "a.yaml", training={"epoch": 3})
    assert refused("sweep", config) == f"modalign: {config}: training.epoch: unknown key; did you mean epochs?"
    assert "strengths[1]: should be at least 0, got -1" in refused("sweep", written(config, strengths=[0, -1]))
    assert "no data set 'emojis'" in refused(
        "sweep", written(config, cases=[{"label": "a", "data": {"name": "emojis"}}])
    )
    config.write_text("")
    assert "is empty" in refused("sweep", config)


def test_tuning_against_a_grid_that_ends_early_is_refused_before_it_trains(tmp_path: Path) -> None:
    config, grid = written(tmp_path / "tiny.yaml", strengths=[0, 1]), tmp_path / "grid"
    assert call("sweep", config, "--out", grid, "--quiet").exit_code == 0
    said = refused("tune", config, "--against", grid, "--out", tmp_path / "tuned")
    assert said.endswith("to 4, got strengths from 0 to 1; search with --highest 1, or name another sweep")
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all/trials.db"])
def test_a_storage_that_fails_is_one_line(url: str, tmp_path: Path) -> None:
    said = refused("reproduce", "emergence", "--storage", url, "--out", tmp_path / "out", "--quiet")
    assert said.startswith("modalign: Optuna's storage failed (")
    assert said.endswith("or give another --storage")


def test_a_report_needs_a_finished_sweep(tmp_path: Path) -> None:
    assert "not a folder" in refused("report", tmp_path / "absent")
    assert "no sweep has finished there" in refused("report", tmp_path)


@pytest.fixture
def embeddings(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(203, 9)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", x @ rng.normal(size=(9, 5)).astype(np.float32))
    return tmp_path / "x.npy", tmp_path / "y.npy"


def test_mutual_knn_of_two_files(embeddings: tuple[Path, Path]) -> None:
    x, y = embeddings
    value = modalign.mutual_knn(np.load(x), np.load(y), k=7)
    expected = f"mutual k-NN {value:.4f} (chance {7 / 202:.4f}), n = 203, k = 7\n"
    assert call("mutual-knn", x, y, "--k", 7).stdout == expected
    assert call("mutual-knn", x, x).stdout.startswith("mutual k-NN 1.0000 (chance 0.0495)")


def test_unusable_embeddings_are_one_line(embeddings: tuple[Path, Path], tmp_path: Path) -> None:
    x, y = embeddings
    bad = tmp_path / "bad.npy"
    assert "there is no file" in refused("mutual-knn", x, bad)
    bad.write_bytes(x.read_bytes()[:500])
    assert "bad.npy must be whole, got" in refused("mutual-knn", bad, y)
    bad.write_bytes(b"")
    assert "bad.npy must hold data, got an empty file" in refused("mutual-knn", bad, y)
    bad.write_bytes(pickle.dumps([1, 2]))
    assert "bad.npy must be a whole .npy file" in refused("mutual-knn", bad, y)
    np.savez(tmp_path / "two.npz", a=np.load(x), b=np.ones((203, 2)))
    assert "two.npz:array; it holds a, b" in refused("mutual-knn", tmp_path / "two.npz", y)
    assert call("mutual-knn", f"{tmp_path}/two.npz:a", x).stdout.startswith("mutual k-NN 1.0000")
    np.save(bad, np.ones(4))
    assert "bad.npy must be (n, d)" in refused("mutual-knn", bad, y)
    np.save(bad, np.load(x)[:-1])
    assert "(202, 9) and (203, 5)" in refused("mutual-knn", bad, y)
    np.save(bad, np.full((203, 2), np.nan))
    assert "must be finite" in refused("mutual-knn", bad, y)
    np.save(bad, np.ones((203, 2), dtype=bool))
    assert "got bool; write x.astype(np.float32)" in refused("mutual-knn", bad, y)
    for k in (0, 203, -1):
        assert f"k must be between 1 and 202 for 203 rows, got {k}" in refused("mutual-knn", x, y, "--k", k)


def test_data_lists_every_set() -> None:
    listed, plain = call("data", "list"), call("data")
    assert listed.exit_code == 0
    assert listed.stdout == plain.stdout
    assert "synthetic" in listed.stdout
    assert "data takes list or nothing, got get" in refused("data", "get")


def test_a_mistake_can_show_where_it_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALIGN_TRACEBACK", "1")
    assert isinstance(call("sweep", "absent.yaml").exception, ValueError)


def test_the_demo_runs_both_sweeps_and_names_their_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emoji = [{"label": "true pairs", "data": {"name": "emoji", "pair": "image-text"}}]
    written(tmp_path / "synthetic.yaml", name="synthetic")
    written(tmp_path / "emoji.yaml", name="emoji", cases=emoji)
    monkeypatch.setattr(train, "CONFIGS", tmp_path)
    result = call("demo", "--out", tmp_path / "demo", "--quiet")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-3:] == ["reports:", *(f"  {tmp_path}/demo/{name}/report.html" for name in ("synthetic", "emoji"))]
    scores = {tuple(line.split()[:2]): float(line.split()[2]) for line in lines if "chance 0" in line}
    assert scores["image-text", "true"] > scores["image-text", "within-group"] > scores["image-text", "random"]


def test_ctrl_c_says_how_to_go_on_and_the_next_call_does(tmp_path: Path) -> None:
    """A real process, as a user starts it."""
    config, out = written(tmp_path / "a.yaml", training={"epochs": 20000}), tmp_path / "out"
    child = subprocess.Popen(
        [*MAIN, "sweep", str(config), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background ignores the interrupt, and a child would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    until = time.monotonic() + 60
    while not (out / "config.yaml").exists():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert stdout == ""
    assert (
        stderr.strip().splitlines()[-1] == f"stopped; `modalign sweep {config} --out {out}` continues where it stopped"
    )
    assert "Traceback" not in stderr


def test_a_value_of_the_labels_is_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    codes = np.arange(120) % 4 - 1
    for name, rows in (("x", np.random.default_rng(0).normal(size=(120, 4))), ("labels", codes)):
        np.save(f"{name}.npy", rows)
    case = {"label": "mine", "data": {"name": "own", "x": "x.npy", "y": "x.npy", "labels": "labels.npy"}}
    config = written(tmp_path / "mine.yaml", cases=[case], training={"labels": None, "epochs": 1})
    result = call("sweep", config, "--out", "mine", "--missing", "-1")
    assert result.exit_code == 0, result.output
    assert "30 of 93 training pairs have no label; they enter the alignment term alone" in result.output
    assert yaml.safe_load(Path("mine/config.yaml").read_text())["cases"][0]["data"]["missing"] == "-1"
    assert pd.read_parquet("mine/runs.parquet")["chance_1"].iloc[0] < 0.4  # of three classes, not four
    emoji = written(tmp_path / "other.yaml")
    assert "--missing -1 changes nothing: no case of" in refused("sweep", emoji, "--missing", "-1")
