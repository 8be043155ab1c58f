"""A sweep on disk: the same numbers however it is cut, interrupted and resumed."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from experiments.small import TINY, configuration, settings, vectors
from modalign.common.progress import Reporter
from modalign.data import synthetic
from modalign.experiments.sweep.chunks import chunks_of
from modalign.experiments.sweep.config import Sweep, load, parse
from modalign.experiments.sweep.memory import bytes_of_a_run
from modalign.experiments.sweep.runner import run
from modalign.experiments.sweep.schema import curve_columns, modality_pairs, run_columns
from modalign.report import write

CURVES = [column.name for column in curve_columns(["1", "2"])][4:]
TWO_CASES = [*TINY["cases"], {"label": "linear", "data": {**TINY["cases"][0]["data"], "heterogeneity": 0, "n": 500}}]


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_parquet(folder / "runs.parquet").drop(columns="seconds"), pd.read_parquet(folder / "curves.parquet")


def assert_same_bits(one: Path, other: Path) -> None:
    for a, b in zip(tables(one), tables(other), strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True)


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
            mine = curves[
                (curves["case"] == row.case) & (curves["strength"] == row.strength) & (curves["seed"] == row.seed)
            ]
            validation = mine[f"validation_accuracy_{m}"].to_numpy()
            assert getattr(row, f"best_epoch_{m}") == int(validation.argmax()) + 1
            assert getattr(row, f"validation_accuracy_{m}") == validation.max()


def test_files_tell_where_they_come_from(finished: tuple[Sweep, Path]) -> None:
    sweep, folder = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.yaml", "curves.parquet", "provenance.json", "runs.parquet",
    ]  # fmt: skip
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


def test_what_a_run_needs_is_counted_alike_every_time() -> None:
    """Whatever addresses tensors get meanwhile: the cut into chunks, which a resume must meet, follows from it."""
    data, others = vectors(), []
    need = set()
    for size in range(40):
        need.add(bytes_of_a_run(data, configuration(projection={"kind": "separate", "dim": 4})))
        others.append(torch.empty(1000 * size + 1))
    assert len(need) == 1


def test_pairs_in_training_and_test_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in "xy":
        np.save(tmp_path / f"{name}.npy", np.repeat(rng.normal(size=(4, 4)), 25, 0).astype(np.float32))
    np.save(tmp_path / "labels.npy", np.arange(100) // 25 % 2)
    own = {"name": "own", **{part: str(tmp_path / f"{part}.npy") for part in ("x", "y", "labels")}}
    case = {"label": "mine", "data": own}
    sweep = configuration(cases=[case], training={"labels": None}, metrics={"k": 2}, strengths=[0])
    run(sweep, tmp_path / "out", reporter=Reporter("lines"))
    assert "case 'mine': 15 of 15 test pairs are training pairs, too" in capsys.readouterr().err


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


KILLED_CLEARING = """
import os, shutil, sys, yaml
from pathlib import Path
from modalign.experiments.sweep.config import parse
from modalign.experiments.sweep import run

left = int(sys.argv[3])
def counted(remove):
    def one(*arguments, **options):
        global left
        remove(*arguments, **options)
        left -= 1
        if left == 0:
            os._exit(9)
    return one

Path.unlink, shutil.rmtree = counted(Path.unlink), counted(shutil.rmtree)
run(parse(yaml.safe_load(sys.argv[1])), Path(sys.argv[2]), fresh=True, workers=1)
"""


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_a_kill_while_old_results_are_cleared_mixes_nothing(steps: int, tmp_path: Path) -> None:
    """An old half-finished sweep is cleared for one of another learning rate: after a kill at any step the new one
    is refused or begun from nothing."""
    old, new = (settings(training={"learning_rate": rate, "runs_at_once": 2}) for rate in (0.002, 0.01))
    folder = tmp_path / "sweep"
    with pytest.raises(KeyboardInterrupt):
        run(parse(old), folder, workers=1, reporter=Impatient())
    arguments = [sys.executable, "-c", KILLED_CLEARING, yaml.safe_dump(new), str(folder), str(steps)]
    assert subprocess.run(arguments).returncode == 9
    try:
        run(parse(new), folder)
    except ValueError as error:
        assert "--fresh" in str(error)  # noqa: PT017
        run(parse(new), folder, fresh=True)
    assert_same_bits(folder, run(parse(new), tmp_path / "whole"))


def test_results_and_parts_of_another_sweep_are_not_taken_up(tmp_path: Path) -> None:
    """As they lie there after an older version was killed while it cleared the folder."""
    old, new = (configuration(training={"learning_rate": rate, "runs_at_once": 2}) for rate in (0.002, 0.01))
    with pytest.raises(KeyboardInterrupt):
        run(old, tmp_path / "parts", workers=1, reporter=Impatient())
    (tmp_path / "parts" / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"chunk\d.pt is of other settings or data; --fresh starts over"):
        run(new, tmp_path / "parts")
    run(old, tmp_path / "results")
    (tmp_path / "results" / "config.yaml").unlink()
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
    assert last.endswith(
        "case0-chunk0.checkpoint.pt: File too large; what is finished is kept, and the same call continues"
    )
    left = [path.name for path in (tmp_path / "full").rglob("*") if path.is_file()]
    assert sorted(left) == ["config.yaml", "provenance.json"]  # no half-written file
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
    sweep = configuration(strengths=[0])
    run(sweep, tmp_path)
    (tmp_path / "runs.parquet").unlink()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "case0-chunk0.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(ValueError, match=r"case0-chunk0.pt is damaged \(.*; delete it to train its runs again"):
        run(sweep, tmp_path)


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


class Impatient(Reporter):
    """Stops the sweep in its second half, between two checkpoints, as Ctrl-C would."""

    def __init__(self) -> None:
        super().__init__("none")

    def advance(self, work: int, *, resumed: bool = False) -> None:
        super().advance(work, resumed=resumed)
        if self.done > 0.7 * self.total:
            raise KeyboardInterrupt


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


def test_a_module_that_cannot_be_used_is_refused_before_training(tmp_path: Path) -> None:
    wrong = {"kind": "module", "make": "experiments.user_encoders:of_kind", "arguments": {"kind": "centres"}, "dim": 4}
    with pytest.raises(ValueError, match="changes with the rows beside it"):
        run(configuration(encoders=wrong), tmp_path / "results")
    assert not (tmp_path / "results").exists()
