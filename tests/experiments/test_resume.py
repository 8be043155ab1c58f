"""Sweeps that were stopped: finished work stays, the same call ends with the same numbers, other work is refused."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from experiments.small import TWO_CASES, Impatient, assert_same_bits, configuration, settings
from modalign.common.progress import Reporter
from modalign.experiments.studies.study import Study
from modalign.experiments.sweep.config import load, parse
from modalign.experiments.sweep.folder import Folder
from modalign.experiments.sweep.runner import run
from modalign.report import write


def test_a_finished_sweep_is_left_alone_and_trained_again_when_fresh(tmp_path: Path) -> None:
    sweep = configuration(strengths=[0])
    run(sweep, tmp_path)
    before = (tmp_path / "runs.parquet").stat().st_mtime_ns
    (tmp_path / "notes.txt").write_text("mine")
    run(sweep, tmp_path)
    assert (tmp_path / "runs.parquet").stat().st_mtime_ns == before
    run(sweep, tmp_path, fresh=True)
    assert (tmp_path / "runs.parquet").stat().st_mtime_ns > before
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_configuration_in_the_folder_is_refused(tmp_path: Path) -> None:
    run(configuration(strengths=[0]), tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(strengths: \[0.0\] before, \[0.0, 1.0\] now\); .*--fresh"):
        run(configuration(strengths=[0, 1]), tmp_path)
    run(configuration(strengths=[0, 1]), tmp_path, fresh=True)
    (tmp_path / "config.yaml").write_text("name: [")
    with pytest.raises(ValueError, match=r"cannot be continued \(.*not YAML.*--fresh"):
        run(configuration(strengths=[0, 1]), tmp_path)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["parts/drawing.step", "report.html", "figures/accuracy.png", "config.yaml"])
def test_a_folder_of_the_users_is_refused_and_nothing_is_touched(name: str, fresh: bool, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match=r"holds something else .* nothing was touched: give an empty or a new folder"):
        run(configuration(strengths=[0]), tmp_path, fresh=fresh)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["precious"]


def test_variables_in_the_path_of_the_folder_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    assert Folder(Path("$SCRATCH/sweep")).path == tmp_path / "sweep"


def test_files_that_the_user_added_stay(tmp_path: Path) -> None:
    sweep = configuration(strengths=[0])
    write(run(sweep, tmp_path))
    names = ["parts/drawing.step", "figures/mine.svg", "tensorboard/notes.txt", "notes.txt", ".report.html.swp"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("precious")
    write(run(configuration(strengths=[1]), tmp_path, fresh=True))
    assert [(tmp_path / name).read_text() for name in names] == ["precious"] * len(names)
    (tmp_path / "report.html").unlink()
    run(configuration(strengths=[0]), tmp_path, fresh=True)
    (tmp_path / "report.html").write_text("precious")
    with pytest.raises(ValueError, match=r"report\.html, which modalign would overwrite and did not write"):
        write(tmp_path)
    with pytest.raises(ValueError, match=r"report\.html, which modalign would overwrite and did not write"):
        run(sweep, tmp_path, fresh=True)
    assert (tmp_path / "report.html").read_text() == "precious"
    assert (tmp_path / "runs.parquet").is_file()


def test_a_folder_of_an_earlier_version_is_adopted_by_its_files(tmp_path: Path) -> None:
    sweep = configuration(training={"runs_at_once": 2})
    with pytest.raises(KeyboardInterrupt):
        run(sweep, tmp_path, workers=1, reporter=Impatient())
    (tmp_path / ".modalign").unlink()
    for name in ("notes.txt", "parts/drawing.step"):
        (tmp_path / name).write_text("precious")
    assert_same_bits(run(sweep, tmp_path), run(sweep, tmp_path.with_name("whole")))
    (tmp_path / ".modalign").unlink()
    (tmp_path / "report.html").write_text("precious")
    with pytest.raises(ValueError, match=r"holds report\.html, which modalign .* did not write"):
        run(sweep, tmp_path, fresh=True)
    (tmp_path / "report.html").unlink()
    run(sweep, tmp_path, fresh=True)
    assert (tmp_path / "parts" / "drawing.step").read_text() == "precious"


def test_the_folder_of_a_study_is_no_sweeps(tmp_path: Path) -> None:
    with Study(tmp_path, {"study": "tune"}).begun():
        pass
    with pytest.raises(ValueError, match="holds the study tune, not a sweep; give another --out"):
        run(configuration(strengths=[0]), tmp_path, fresh=True)
    with (
        pytest.raises(ValueError, match="holds the study tune, not the study align"),
        Study(tmp_path, {"study": "align"}, fresh=True).begun(),
    ):
        pass


OLD, NEW = (settings(training={"learning_rate": rate, "runs_at_once": 2}) for rate in (0.002, 0.01))


@pytest.fixture(scope="module")
def whole_of_new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(parse(NEW), tmp_path_factory.mktemp("new") / "whole")


def die_while_clearing(folder: Path, steps: int) -> int:
    """Begin the new sweep in a forked process that ends after so many removals, and return how it ended."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    removals = itertools.count(1)

    def counted(remove: Callable[..., None]) -> Callable[..., None]:
        def one(*arguments: Any, **options: Any) -> None:
            remove(*arguments, **options)
            if next(removals) == steps:
                os._exit(9)

        return one

    try:
        Path.unlink, shutil.rmtree = counted(Path.unlink), counted(shutil.rmtree)  # type: ignore[method-assign]
        run(parse(NEW), folder, fresh=True, workers=1)
    finally:
        os._exit(1)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_a_kill_while_old_results_are_cleared_mixes_nothing(steps: int, tmp_path: Path, whole_of_new: Path) -> None:
    """An old half-finished sweep is cleared for one of another learning rate: after a kill at any step the new one
    is refused or begun from nothing."""
    folder = tmp_path / "sweep"
    with pytest.raises(KeyboardInterrupt):
        run(parse(OLD), folder, workers=1, reporter=Impatient())
    assert die_while_clearing(folder, steps) == 9
    try:
        run(parse(NEW), folder)
    except ValueError as error:
        assert "--fresh" in str(error)  # noqa: PT017
        run(parse(NEW), folder, fresh=True)
    assert_same_bits(folder, whole_of_new)


def test_results_and_parts_of_another_sweep_are_not_taken_up(tmp_path: Path) -> None:
    """A folder as modalign 0.1.0 left it that was killed while it cleared the folder."""
    old, new = (configuration(training={"learning_rate": rate, "runs_at_once": 2}) for rate in (0.002, 0.01))
    with pytest.raises(KeyboardInterrupt):
        run(old, tmp_path / "parts", workers=1, reporter=Impatient())
    for name in ("config.yaml", ".modalign"):
        (tmp_path / "parts" / name).unlink()
    with pytest.raises(ValueError, match=r"chunk\d.pt is of other settings or data; --fresh starts over"):
        run(new, tmp_path / "parts")
    run(old, tmp_path / "results")
    for name in ("config.yaml", ".modalign"):
        (tmp_path / "results" / name).unlink()
    with pytest.raises(ValueError, match=r"holds results without config.yaml, .*--fresh"):
        run(new, tmp_path / "results")
    run(new, tmp_path / "results", fresh=True)


def test_other_data_in_the_folder_is_refused(tmp_path: Path) -> None:
    """A sweep of files goes on only while they hold what it was begun with."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    for name in "xy":
        np.save(tmp_path / f"{name}.npy", (rng.normal(size=(60, 4)) + labels[:, None]).astype(np.float32))
    np.save(tmp_path / "labels.npy", labels)
    own = {"name": "own", **{part: str(tmp_path / f"{part}.npy") for part in ("x", "y", "labels")}}
    sweep = configuration(
        cases=[{"label": "mine", "data": own}], training={"labels": None}, metrics={"k": 2}, strengths=[0]
    )
    run(sweep, tmp_path / "out")
    run(sweep, tmp_path / "out")
    np.save(tmp_path / "labels.npy", rng.permutation(labels))
    with pytest.raises(ValueError, match=r"other data: rows, labels or split of mine have changed .*--fresh"):
        run(sweep, tmp_path / "out")
    run(sweep, tmp_path / "out", fresh=True)
    (tmp_path / "out" / "provenance.json").unlink()
    with pytest.raises(ValueError, match=r"does not say which data it is of; .*--fresh"):
        run(sweep, tmp_path / "out")
    np.save(tmp_path / "labels.npy", np.zeros(60, dtype=np.int64))
    with pytest.raises(
        ValueError, match="case 'mine': labels must have at least 2 classes in the training part, got 1"
    ):
        run(sweep, tmp_path / "one")


LONG = settings(cases=TWO_CASES, training={"epochs": 40, "runs_at_once": 3})


CHILD = """
import sys, yaml
from pathlib import Path
from modalign.experiments.sweep.config import parse
from modalign.experiments.sweep import run
run(parse(yaml.safe_load(sys.argv[1])), Path(sys.argv[2]), workers=1, checkpoint_seconds=0.0)
"""


def start(folder: Path, content: dict[str, Any] = LONG) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CHILD, yaml.safe_dump(content), str(folder)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def test_a_killed_sweep_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """Killed twice, at whatever moment: in the first chunk, and in a later one."""
    folder = tmp_path / "killed"
    for part in ("case0-chunk0.checkpoint.pt", "case1-chunk0.checkpoint.pt"):
        child = start(folder)
        until = time.monotonic() + 60
        while not (folder / "parts" / part).exists():
            assert child.poll() is None, child.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.002)
        time.sleep(0.03)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert not (folder / "runs.parquet").exists()
    parts = {path.name for path in (folder / "parts").iterdir() if path.suffix == ".pt" and path.name[0] != "."}
    assert {"case0-chunk0.pt", "case0-chunk1.pt"} <= parts
    sweep = configuration(**{key: LONG[key] for key in ("cases", "training")})
    reporter = Reporter("none")
    run(sweep, folder, reporter=reporter)
    assert reporter.total > reporter.skipped > reporter.total / 2
    assert reporter.done == reporter.total
    assert not (folder / "parts").exists()
    assert_same_bits(folder, run(sweep, tmp_path / "whole"))


def test_each_resume_is_on_record(tmp_path: Path) -> None:
    sweep = configuration(training={"runs_at_once": 2})
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(sweep, tmp_path, workers=1, reporter=Impatient())
    run(sweep, tmp_path)
    run(sweep, tmp_path)  # finished: nothing goes on
    facts = json.loads((tmp_path / "provenance.json").read_text())
    assert len(facts["resumed"]) == 2
    assert all(set(record) == set(facts) - {"resumed", "data"} for record in facts["resumed"])
    assert json.loads(pq.read_schema(tmp_path / "runs.parquet").metadata[b"modalign"])["provenance"] == facts
    assert "resumed" in write(tmp_path).read_text()


def test_two_sweeps_do_not_share_a_folder(tmp_path: Path) -> None:
    child = start(tmp_path)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "parts").exists():
            assert child.poll() is None, child.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.002)
        with pytest.raises(ValueError, match="another process computes a sweep in this folder"):
            run(configuration(**{key: LONG[key] for key in ("cases", "training")}), tmp_path)
    finally:
        child.kill()
        child.communicate()


def test_a_full_disk_is_one_error_and_what_is_finished_stays(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: small results fit under it, a checkpoint does not."""
    wide = settings(
        training={"epochs": 2, "runs_at_once": 2}, encoders={"kind": "mlp", "width": 300, "depth": 3, "dim": 5}
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    arguments = [sys.executable, "-c", CHILD, yaml.safe_dump(wide), str(tmp_path / "full")]
    child = subprocess.run(arguments, stderr=subprocess.PIPE, text=True, preexec_fn=limit)
    assert child.returncode == 1
    last = child.stderr.strip().splitlines()[-1]
    assert last.startswith("OSError: [Errno 27] cannot write ")
    assert "case0-chunk0.checkpoint.pt: File too large" in last
    assert last.endswith("; what is finished is kept, and the same call continues")
    left = [path.name for path in (tmp_path / "full").rglob("*") if path.is_file()]
    assert sorted(left) == [".modalign", "config.yaml", "provenance.json"]  # no half-written file
    sweep = configuration(**{key: wide[key] for key in ("encoders", "training")})
    assert_same_bits(run(sweep, tmp_path / "full"), run(sweep, tmp_path / "whole"))


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file must be a folder for a sweep, got a file; give another place"):
        run(configuration(), tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        run(configuration(), tmp_path / "file" / "results")
    assert (tmp_path / "file").read_text() == "mine"


def test_damaged_parts_are_named(tmp_path: Path) -> None:
    sweep = configuration(training={"runs_at_once": 2})
    with pytest.raises(KeyboardInterrupt):
        run(sweep, tmp_path, workers=1, reporter=Impatient())
    (tmp_path / "parts" / "case0-chunk0.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(ValueError, match=r"case0-chunk0.pt is damaged \(.*; delete it to train its runs again"):
        run(sweep, tmp_path)


ENCODERS: dict[str, list[dict[str, Any]]] = {
    "modules": [
        {"kind": "module", "make": "experiments.user_encoders:perceptron", "arguments": {"width": 9}, "dim": 4},
        {"kind": "module", "make": "experiments.user_encoders:pretrained", "dim": 4, "frozen": True},
    ],
    "frozen": [{"kind": "frozen"}, {"kind": "mlp", "dim": 12}],
}


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "modules": ({"arguments": {"width": 8}}, r"encoders\[0\].arguments.width: 9 before, 8 now"),
    "frozen": ({"dim": 12}, r"encoders\[0\].dim: null before, 12 now"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_sweep_of_modules_and_frozen_features_is_stopped_and_goes_on(name: str, tmp_path: Path) -> None:
    sweep = configuration(encoders=ENCODERS[name], training={"runs_at_once": 3})
    with pytest.raises(KeyboardInterrupt):
        run(sweep, tmp_path / "stopped", workers=1, checkpoint_seconds=0.0, reporter=Impatient())
    assert len(list((tmp_path / "stopped" / "parts").glob("*.pt"))) == 2  # a finished chunk and a checkpoint
    run(sweep, tmp_path / "stopped", workers=1)
    assert_same_bits(tmp_path / "stopped", run(sweep, tmp_path / "whole"))
    assert load(tmp_path / "whole" / "config.yaml").encoders == sweep.encoders
    change, said = CHANGES[name]
    other = configuration(encoders=[{**ENCODERS[name][0], **change}, ENCODERS[name][1]], training={"runs_at_once": 3})
    with pytest.raises(ValueError, match=said):
        run(other, tmp_path / "whole")
