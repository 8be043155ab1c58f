"""Tests of the help texts: fast, and with the names of the registries."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from modalign.cli import app
from modalign.data.registry import DATA_SETS
from modalign.experiments.studies.registry import STUDIES
from modalign.metrics.registry import METRICS

COMMANDS = ("", "align", "reproduce", "sweep", "tune", "data", "advise", "embed", "mutual-knn", "compare", "demo")


def help_of(command: str) -> str:
    result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "400"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_text_is_whole_on_a_terminal_of_80_columns(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "80"})
    assert "…" not in result.output


@pytest.mark.parametrize("command", ["", "align", "reproduce"])
def test_a_help_text_does_not_import_torch(command: str) -> None:
    code = (
        "import sys\n"
        "from modalign.cli import app\n"
        "try:\n"
        f"    app({[*command.split(), '--help']!r})\n"
        "finally:\n"
        "    slow = {'torch', 'pandas', 'plotly', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "    assert not slow, slow\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Usage: " in run.stdout


def test_help_texts_name_what_the_registries_hold() -> None:
    for command, registry in (("align", METRICS), ("reproduce", STUDIES), ("data", DATA_SETS)):
        text = help_of(command)
        assert all(name in text for name in registry), command


def test_an_option_of_some_studies_names_them() -> None:
    text = help_of("reproduce")
    for study in STUDIES.values():
        for option in study.options:
            line = next(line for line in text.splitlines() if f"│ --{option} " in line)
            assert study.name in line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_described_in_a_sentence(command: str) -> None:
    from typer.main import get_command

    group = get_command(app)
    selected = group.commands[command] if command else group  # type: ignore[attr-defined]
    for parameter in selected.params:
        text = getattr(parameter, "help", None)
        if parameter.name not in ("install_completion", "show_completion", "help"):
            assert text, parameter.name
            assert text.endswith("."), text
            assert text[0].isupper() or text.partition(":")[0].split(", ")[0] in STUDIES, text
