"""Folders of studies: a killed study goes on, --fresh starts over, and nothing of anybody else is touched."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.test_studies import SMALL

from experiments.small import configuration, settings
from modalign.experiments.studies import emergence
from modalign.experiments.studies import strength as align
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.studies.trials import Search, Tuner
from modalign.experiments.sweep.runner import run as run_sweep

CHILD = """
import sys, time
from pathlib import Path
from modalign.experiments.studies.layer_pairs import MEASURES
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.sweep import run as run_sweep

def slow(i):
    def make(advance):
        for _ in range(5):
            time.sleep(0.02)
            advance(1)
        return {"square": i * i}
    return make

study = Study(Path(sys.argv[1]), {"study": "squares"})
with study.begun():
    print(sum(found["square"] for found in study.run([Part(f"part{i}", 5, slow(i)) for i in range(20)], "squares")))
"""


def test_a_killed_study_goes_on(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE)
    until = time.monotonic() + 60
    while len(list((tmp_path / "parts").glob("part*.pt") if (tmp_path / "parts").is_dir() else [])) < 3:
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("part*.pt")}
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.strip() == str(sum(i * i for i in range(20)))
    assert all((tmp_path / "parts" / name).stat().st_mtime_ns == when for name, when in kept.items())


def test_an_error_in_a_part_stops_the_study_and_what_is_finished_stays(tmp_path: Path) -> None:
    def fails(advance: Any) -> dict[str, Any]:
        raise ValueError("no such thing")

    study = Study(tmp_path, {})
    with study.begun(), pytest.raises(ValueError, match="no such thing"):
        study.run([Part("fine", 1, lambda advance: {"a": 1}), Part("not", 1, fails)], "two", workers=1)
    assert (tmp_path / "parts" / "fine.pt").is_file()


def test_fresh_starts_a_finished_study_over(tmp_path: Path) -> None:
    """Nothing of the old study lies beside the new settings, its sweeps included; the user's own files stay."""
    study = Study(tmp_path, {"size": 1})
    with study.begun():
        for name in ("claims.json", "optima.json"):
            study.write_json(name, [])
        study.write_table("best.parquet", [{"best": 1}])
        study.place.checkpoint.write_bytes("figures/thesis.svg", b"")
        for name in ("figures/mine.svg", "notes.txt"):
            (tmp_path / name).write_text("")
        run_sweep(configuration(strengths=[0]), tmp_path / "inner")
    with Study(tmp_path, {"size": 2}, sweeps=["inner"], fresh=True).begun():
        pass
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [
        ".modalign",
        "figures",
        "figures/mine.svg",
        "inner",
        "inner/.modalign",
        "notes.txt",
        "settings.json",
    ]
    assert json.loads((tmp_path / "settings.json").read_text())["settings"] == {"size": 2}


def test_fresh_takes_nothing_from_a_folder_that_is_no_study(tmp_path: Path) -> None:
    for name in ("claims.json", "embeddings/mine.npy", "strength/config.yaml", "figures/mine.svg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(ValueError, match="something else"),
        Study(tmp_path, {}, sweeps=["strength"], fresh=True).begun(),
    ):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_a_kill_while_settings_are_written_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / ".settings.json.abcd1234.json").write_text("{")
    with Study(tmp_path, {}).begun():
        assert sorted(path.name for path in tmp_path.iterdir()) == [".modalign", "settings.json"]


def test_parts_of_other_settings_are_not_taken_up(tmp_path: Path) -> None:
    parts = [Part("one", 1, lambda advance: {"a": 1})]
    study = Study(tmp_path, {"size": 1})
    with study.begun():
        study.run(parts, "old")
    record = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(record | {"settings": {"size": 2}}))
    study = Study(tmp_path, {"size": 2})
    with pytest.raises(ValueError, match=r"holds what is left of a study of other settings; .*--fresh"), study.begun():
        pass
    (tmp_path / ".modalign").unlink()  # as modalign 0.1.0 left it
    with study.begun(), pytest.raises(ValueError, match=r"one.pt is of other settings or data; --fresh starts over"):
        study.run(parts, "new")


def test_an_align_study_killed_after_fresh_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was finished with other settings is started over and stopped in its second sweep."""

    def plan(rate: float) -> align.Plan:
        sweep = settings(strengths=[0], seeds=[3], training={"epochs": 1, "learning_rate": rate})
        return align.Plan(sweep, sweep, {"width 24": sweep})

    left = 3

    def some(*arguments: Any, **options: Any) -> Path:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return run_sweep(*arguments, **options)

    monkeypatch.setattr(align, "run_sweep", some)
    monkeypatch.setattr(align, "_best", lambda *_: [{"best": 1}])
    monkeypatch.setattr(align, "claims", lambda _: [])
    align.run(plan(0.002), tmp_path)
    left = 1
    with pytest.raises(KeyboardInterrupt):
        align.run(plan(0.01), tmp_path, fresh=True)
    assert not (tmp_path / "claims.json").exists()
    left = 3
    align.run(plan(0.01), tmp_path)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with (
        pytest.raises(ValueError, match=r"holds something else \(thesis\.tex\), .*give an empty or a new folder"),
        Study(tmp_path, {}).begun(),
    ):
        pass
    (tmp_path / "thesis.tex").unlink()
    with Study(tmp_path, {}).begun():
        pass
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is damaged \(.*\); .*--fresh"), Study(tmp_path, {}).begun():
        pass


def test_nothing_is_removed_where_the_storage_or_ray_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Study(tmp_path / "study", {"study": "emergence", **dataclasses.asdict(SMALL)}).begun():
        (tmp_path / "study" / "notes.txt").touch()
    before = (tmp_path / "study" / "settings.json").stat().st_mtime_ns
    with pytest.raises(Exception, match="URL"):
        emergence.run(SMALL, tmp_path / "study", storage="nonsense", fresh=True)
    assert (tmp_path / "study" / "settings.json").stat().st_mtime_ns == before
    run_sweep(configuration(strengths=[0]), tmp_path / "sweep")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match="pip install ray"):
        run_sweep(configuration(strengths=[1]), tmp_path / "sweep", fresh=True, ray="local")
    assert (tmp_path / "sweep" / "runs.parquet").is_file()


def test_nothing_of_a_study_is_removed_where_one_of_its_sweeps_cannot_be(tmp_path: Path) -> None:
    study = Study(tmp_path, {"size": 1}, sweeps=["inner"])
    with study.begun():
        study.write_json("claims.json", [])
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "thesis.tex").touch()
    with (
        pytest.raises(ValueError, match=r"inner holds something else \(thesis\.tex\)"),
        Study(tmp_path, {"size": 2}, sweeps=["inner"], fresh=True).begun(),
    ):
        pass
    assert (tmp_path / "claims.json").exists()


def test_each_resume_of_a_study_is_on_record(tmp_path: Path) -> None:
    for _ in range(3):
        with Study(tmp_path, {"size": 1}).begun():
            pass
    facts = json.loads((tmp_path / "settings.json").read_text())
    assert set(facts) == {"settings", "provenance", "resumed"}
    assert [set(record) for record in facts["resumed"]] == 2 * [set(facts["provenance"])]


def test_two_studies_on_one_storage_leave_each_others_trials_alone(tmp_path: Path) -> None:
    """Their encoders have the same title."""
    url = f"sqlite:///{tmp_path}/trials.db"
    search = Search(1, 1, (0.01,), (0.0,))
    mine, other = (Study(tmp_path / name, {"data": name}) for name in ("mosi", "mosei"))
    with mine.begun(), other.begun():
        studies = [Tuner(search, url, one.key).study("text-depth1-seed0", 0) for one in (mine, other)]
        for study in studies:
            study.tell(study.ask(), 0.5)
    assert [len(study.trials) for study in studies] == [1, 1]
    tuner = Tuner(search, url, mine.key)
    tuner.study("text-depth1-seed0", 0)  # the same study anew
    with pytest.raises(ValueError, match="trials of this study have vanished from Optuna's storage"), tuner._writing():
        studies[0].ask()
