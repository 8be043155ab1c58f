"""A study in a file of its own is found on the command line and in the table of the docs."""

import importlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modalign.cli import app
from modalign.experiments.studies import emergence, registry

TOY = """
import json

def run(options):
    options.folder.mkdir(parents=True, exist_ok=True)
    claim = {"source": "toy", "text": "two is more than one", "rule": "holds", "paper": None, "value": 1.0, "low": None,
             "high": None, "verdict": "reproduced"}
    (options.folder / "claims.json").write_text(json.dumps([claim]))
"""


def test_a_study_in_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_study.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.STUDIES, "toy", registry.StudyEntry("toy", "whether two is more", "toy_study:run"))
    result = CliRunner().invoke(app, ["reproduce", "toy", "--out", str(tmp_path / "out"), "--quiet"])
    assert result.exit_code == 0, result.output
    assert "two is more than one" in result.output
    assert json.loads((tmp_path / "out" / "claims.json").read_text())[0]["verdict"] == "reproduced"
    assert "| `toy` | whether two is more | default | none |" in registry.studies_table()


def test_options_of_other_studies_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", "align", "--storage", "sqlite://", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "--storage is not an option of align; it is one of emergence, multibench" in result.output


def test_a_study_refuses_a_protocol_that_it_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_study.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.STUDIES, "toy", registry.StudyEntry("toy", "whether two is more", "toy_study:run"))
    result = CliRunner().invoke(app, ["reproduce", "toy", "--protocol", "paper", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "reproduce toy has no protocol paper" in " ".join(result.output.split())
    with pytest.raises(ValueError, match="got 'papers'; did you mean paper"):
        registry.StudyOptions(tmp_path, protocol="papers")


@pytest.mark.parametrize("study", [study for study in registry.STUDIES.values() if study.name != "align"])
def test_a_study_has_a_grid_for_each_of_its_protocols(study: registry.StudyEntry, tmp_path: Path) -> None:
    grids = importlib.import_module(study.function.partition(":")[0]).GRIDS
    assert tuple(grids) == study.protocols
    for protocol in study.protocols:
        for full in (True, False):
            grid = registry.StudyOptions(tmp_path, full=full, protocol=protocol).grid(grids)
            assert grid.protocol == protocol


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="there is a study 'align' already"):
        registry.register(registry.STUDIES["align"])


def test_settings_of_a_grid_are_taken_by_name_and_checked(tmp_path: Path) -> None:
    options = registry.StudyOptions(tmp_path, setting={"seeds": [2, 22], "variant": "width", "epochs_1": 3})
    grid = options.grid(emergence.GRIDS)
    assert (grid.seeds, grid.variant, grid.epochs_1) == ((2, 22), "width", 3)
    for setting, message in (
        ({"seed": 2}, "setting must be one of uniqueness, .*, got 'seed'; did you mean seeds"),
        ({"epochs_1": "many"}, "emergence: epochs_1 must be a whole number of at least 1, got many"),
        ({"seeds": [2, 2]}, r"emergence: seeds must be a list of 1 or more different whole .*, got \[2, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            registry.StudyOptions(tmp_path, setting=setting).grid(emergence.GRIDS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "seeds",
            "--setting must be NAME=VALUE, such as seeds=[2,22], or help alone, which lists the settings, got 'seeds'",
        ),
        ("seeds=[2", "--setting seeds: the value must be a number, a word or a list, got '[2'"),
        ("sed=2", "did you mean seeds"),
    ],
)
def test_settings_on_the_command_line_are_checked(given: str, message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", "emergence", "--setting", given, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
