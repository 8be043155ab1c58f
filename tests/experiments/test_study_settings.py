"""Settings of studies: what they may be, what is refused before anything is written, and where they are listed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from modalign.cli import app
from modalign.common.names import resolve
from modalign.data.generated import NONLINEARITIES, VARIANTS
from modalign.experiments.studies import emergence, emergence_grid, multibench_grid, vision_language_grid
from modalign.experiments.studies.caption_changes import KINDS
from modalign.experiments.studies.caption_levels import GIVEN
from modalign.experiments.studies.registry import STUDIES
from modalign.experiments.studies.settings import changed, require_device, setting_names, settings_table

QUICK = emergence_grid.QUICK
WITH_SETTINGS = {name: resolve(study.grids) for name, study in STUDIES.items() if study.grids is not None}
REFUSED: list[tuple[str, str]] = [
    ("learning_rates=[-1]", "learning_rates must be a list of 1 or more different numbers above 0, at most 1"),
    ("learning_rates=[1e300]", "different numbers above 0, at most 1, such as [0.001, 0.005, 0.01], got [1e+300]"),
    ("temperatures=[0.0001]", "the classes cannot be made equally probable at so small a temperature"),
    ("learning_rates=[]", "learning_rates must be a list of 1 or more"),
    ("weight_decays=[-1]", "weight_decays must be a list of 1 or more different numbers from 0 to 1"),
    ("clip=-1", "clip must be a number above 0, got -1"),
    ("clip=.inf", "clip must be a number above 0, got inf"),
    ("epochs_1=0", "epochs_1 must be a whole number of at least 1, got 0"),
    ("batch_size=0", "batch_size must be a whole number of at least 1, got 0"),
    ("batch_size=2.5", "batch_size must be a whole number of at least 1, got 2.5"),
    ("compared=1", "compared must be a whole number of at least 4, got 1"),
    ("compared=100000", "compared must be at most 2,458, the test pairs of n = 16,384, got 100,000"),
    ("k=2048", "k must be less than compared, the pairs compared, got k=2048 and compared=2048"),
    ("uniqueness=[true]", "uniqueness must be a list of 1 or more different whole numbers from 0 to 8"),
    ("seeds=[1000000000000000000000000]", "seeds must be a list of 1 or more different whole numbers from 0 to"),
    ("variant=broad", "variant must be one of uni, multi, width, identity, got broad"),
    ("protocol=paper", "setting protocol: use --protocol"),
    ("device=cuda", "setting device: use --device"),
    ("heterogeneity=[101]", "heterogeneity must be a list of 1 or more different whole numbers from 0 to 100"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_a_bad_value_is_refused_in_one_line_before_anything_is_written(
    given: str, message: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["reproduce", "emergence", "--setting", given, "--out", str(out)])
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not out.exists()


def test_numbers_are_written_as_users_write_them() -> None:
    from modalign.cli.studies import _settings

    found = _settings(["learning_rates=[1e-3, 5e-2]", "clip=2", "variant=width", "items=null"])
    assert found == {"learning_rates": [0.001, 0.05], "clip": 2, "variant": "width", "items": None}
    grid = changed(QUICK, {"learning_rates": [0.001, 0.05], "clip": 2})
    assert (grid.learning_rates, grid.clip, type(grid.clip)) == ((0.001, 0.05), 2.0, float)


def test_a_setting_is_given_once(tmp_path: Path) -> None:
    command = ["reproduce", "emergence", "--setting", "k=5", "--setting", "k=6", "--out", str(tmp_path / "out")]
    assert "--setting k is there twice" in CliRunner().invoke(app, command).output


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("--device must be cpu, cuda or cuda:0, cuda:1 ..., got gpu")):
        require_device("--device", "gpu")
    with pytest.raises(ValueError, match=r"device must be cpu, cuda or cuda:0, cuda:1 \.\.\., got gpu"):
        emergence.Grid(device="gpu")
    with pytest.raises(ValueError, match=r"--device cuda:99: torch sees .* here; leave it out"):
        require_device("--device", "cuda:99")


@pytest.mark.parametrize("study", WITH_SETTINGS)
def test_help_lists_every_setting_of_a_study(study: str) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["reproduce", study, "--setting", "help"])
    assert result.exit_code == 0, result.output
    kind = type(WITH_SETTINGS[study]["default"][0])
    assert all(re.search(rf"^│ {name} ", result.output, re.M) for name in setting_names(kind))


def test_a_study_without_settings_says_what_to_do_instead() -> None:
    output = CliRunner().invoke(app, ["reproduce", "align", "--setting", "n=100"]).output
    assert "change a copy of the config.yaml" in output
    assert f"it is one of {', '.join(WITH_SETTINGS)}" in output
    assert [name for name, study in STUDIES.items() if "setting" in study.options] == list(WITH_SETTINGS)


@pytest.mark.parametrize("study", WITH_SETTINGS)
def test_the_docs_have_every_setting(study: str) -> None:
    """The table is the output of ``settings_table(resolve(STUDIES[study].grids))``."""
    text = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    table = text.split(f"<!-- settings_table({study}) -->\n")[1].split("\n<!-- end -->")[0]
    assert table == settings_table(WITH_SETTINGS[study])


def test_the_words_that_a_setting_takes_are_those_of_what_it_sets() -> None:
    assert get_args(emergence_grid.Variant) == VARIANTS
    assert get_args(emergence_grid.Nonlinearity) == tuple(NONLINEARITIES)
    assert changed(vision_language_grid.QUICK, {"kinds": [*KINDS, GIVEN]}).kinds == (*KINDS, GIVEN)
    with pytest.raises(ValueError, match="words of deleted, replaced, given"):
        changed(vision_language_grid.QUICK, {"kinds": ["added"]})


def test_every_default_passes_its_own_check() -> None:
    for kind in (emergence_grid.Grid, multibench_grid.Grid, vision_language_grid.Grid):
        settings: dict[str, Any] = {name: getattr(kind(), name) for name in setting_names(kind)}
        assert changed(kind(), settings) == kind()
