"""Mistakes on the command line end in one line that says what to do, on every terminal and in every command."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from modalign.cli import app
from modalign.cli.streams import encode_everything
from modalign.data.registry import DATA_SETS
from modalign.metrics.registry import METRICS


def refused(*arguments: object, code: int = 2) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for name in "xy":
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(60, 4)))
    return [tmp_path / "x.npy", tmp_path / "y.npy"]


def test_python_m_modalign_is_the_command_and_an_ascii_pipe_is_no_error(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    command = [sys.executable, "-m", "modalign", "data", "list"]
    run = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert b"synthetic" in run.stdout
    run.stdout.decode("ascii")
    run = subprocess.run([*command[:3], "mutual-knn", "é.npy", "é.npy"], capture_output=True, env=environment)
    assert rb"there is no file \xe9.npy" in run.stderr
    run.stderr.decode("ascii")


def test_what_a_stream_cannot_encode_is_written_in_plain_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    encode_everything()
    print("0.1 → 0.2 ± −0.3 größe 中 \udcff")
    out.flush()
    assert out.buffer.getvalue() == rb"0.1 -> 0.2 +/- -0.3 gr\xf6\xdfe \u4e2d \udcff" + b"\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["align", "x.npy", "y.npy", "--metrics", "mutual-knn"], "did you mean mutual_knn?"),
        (["align", "x.npy", "y.npy", "--metric", "euclidian"], "got 'euclidian'; did you mean euclidean?"),
        (["align", "x.npy", "y.npy", "--metric", "cka", "--metrics", "rsa"], "both name metrics; give one"),
        (["align", "x.npy", "y.npy", "--metric", "dot,cosine"], "--metric takes one similarity"),
        (["align", "absent.npy", "y.npy"], "absent.npy"),
        (["align", "x.npy", "y.npy", "--out", "a.docx"], "--out must end in"),
        (["align", "x.npy", "y.npy", "--out", "folder.html"], "folder.html is a folder; give a file as --out"),
        (["align", "x.npy", "y.npy", "--k", "0"], "k"),
        (["align", "x.npy", "y.npy", "--layers", "--sample", "9"], "--layers takes one metric"),
        (
            ["align", "x.npy", "short.npy"],
            "got 60 and 50 rows; give the names of both files' rows to pair them by name: --ids",
        ),
        (["align", "x.npy", "y.npy", "--within", "kmean:5"], "there is no file kmean:5; did you mean kmeans:5?"),
        (["align", "x.npy", "y.npy", "--within", "t.csv:5"], "there is no file t.csv"),
        (["mutual-knn", "x.npy", "folder.html"], "folder.html"),
        (["embed", "nothing", "x.npy", "--out", "e.npy"], "x.npy must be UTF-8 text"),
        (["embed", "python:math:sqrt", "texts.txt", "--out", "x.npy"], "was not written by embed"),
        (["embed", "python:math:sqrt", "texts.txt", "--out", "x.npy", "--fresh"], "was not written by embed"),
        (["advise", "x.npy", "y.npy", "absent.txt"], "absent.txt"),
        (["sweep", "absent.yaml"], "absent.yaml"),
        (["sweep", "folder.html"], "folder.html"),
        (["sweep", "x.npy"], "x.npy"),
        (["tune", "absent.yaml"], "absent.yaml"),
        (["report", "folder.html"], "folder.html"),
        (["compare", "folder.html", "x.npy"], "folder.html"),
        (["data", "lst"], "data takes list or nothing, got lst"),
        (["reproduce", "emergense"], "did you mean emergence?"),
        (["reproduce", "align", "--out", "x.npy"], "x.npy"),
        (["demo", "--out", "x.npy"], "x.npy"),
        (["swep"], "sweep"),
        (["--import", "absent.py", "data"], "--import: there is no file absent.py (in "),
        (["--import", "absent_module", "data"], "--import absent_module failed (ModuleNotFoundError"),
        (["--import", "broken.py", "data"], "--import broken.py failed (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_mistake_is_one_line_without_a_traceback(
    arguments: list[str], message: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    np.save(tmp_path / "short.npy", np.load(files[0])[:50])
    (tmp_path / "broken.py").write_text("1 / 0\n")
    before = {path: path.read_bytes() for path in files}
    assert message in refused(*arguments)
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RuntimeError("can't start new thread"), 2, "the system gives this process no more threads; raise the limit"),
        (MemoryError(), 2, "there is not enough memory"),
        (KeyError("odd"), 1, "unexpected KeyError: 'odd'; MODALIGN_TRACEBACK=1 shows where"),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, f"x: No such file or directory (in {os.getcwd()})"),
        (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied"),
    ],
)
def test_every_error_is_one_line(
    error: Exception, code: int, message: str, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("modalign.metrics.neighborhoods.mutual_knn", fails)
    assert refused("mutual-knn", *files, code=code).startswith(f"modalign: {message}")


def test_metric_names_metrics_and_similarities(files: list[Path]) -> None:
    def printed(*options: str) -> str:
        command = ["align", *map(str, files), "--k", "3", "--null", "none", "--no-intervals", *options, "--quiet"]
        result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        return result.stdout

    assert printed("--metric", "cka") == printed("--metrics", "cka")
    both = printed("--metric", "mutual_knn, cka", "--metric", "dot")
    assert both == printed("--metrics", "mutual_knn,cka", "--metric", "dot")
    assert "k = 3, dot" in both


REGISTRATION = """
import dataclasses
from modalign.data.registry import DATA_SETS, register as register_data
from modalign.metrics.registry import METRICS, register

def halved(x, y):
    return 0.5

def halved_of_moments(sums):
    return 0.5

functions = {"score": "my_registration:halved", "evaluate": "my_registration:halved_of_moments", "closed_form": None}
register(dataclasses.replace(METRICS["cka"], name="halved", title="a half", **functions))
register_data(dataclasses.replace(DATA_SETS["synthetic"], name="my_data"))
"""


@pytest.mark.parametrize("name", ["my_registration.py", "my_registration"])
def test_import_registers_metrics_and_data_sets(
    name: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_registration.py").write_text(REGISTRATION)
    try:
        command = ["--import", name, "align", *map(str, files), "--metric", "halved", "--k", "3", "--quiet"]
        result = CliRunner().invoke(app, [*command, "--relabellings", "19"], env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        assert "0.5000" in result.stdout
        assert "my_data" in CliRunner().invoke(app, ["--import", name, "data"], env={"COLUMNS": "200"}).stdout
    finally:
        METRICS.pop("halved", None)
        DATA_SETS.pop("my_data", None)
        sys.modules.pop("my_registration", None)
