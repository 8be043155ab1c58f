"""Two sweeps side by side: paired where they can be, and refused where there is nothing to compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from experiments.small import configuration
from modalign.cli import app
from modalign.experiments.sweep.comparison import compare, settings_that_differ
from modalign.experiments.sweep.run import run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    room = tmp_path_factory.mktemp("sweeps")
    changes = {
        "first": {}, "wide": {"encoders": {"kind": "mlp", "width": 20, "depth": 2, "dim": 5}},
        "other seeds": {"seeds": [1, 4, 5, 6]},
        "other case": {"cases": [{"label": "else", "data": {"name": "synthetic", "redundancy": 8, "n": 600}}]},
    }  # fmt: skip
    return {name: run(configuration(**change), room / name) for name, change in changes.items()}


def at_best(folder: Path, strength: float) -> np.ndarray:
    runs = pd.read_parquet(folder / "runs.parquet")
    return runs[runs["strength"] == strength].sort_values("seed")["accuracy_1"].to_numpy()


def test_the_same_seeds_are_paired(folders: dict[str, Path]) -> None:
    found = compare(folders["first"], folders["wide"])
    assert [one.name for one in found] == ["modality 1", "modality 2"]
    a, b = (at_best(folders[name], best) for name, best in zip(("first", "wide"), found[0].best, strict=True))
    assert found[0].paired
    assert found[0].change.mean == pytest.approx((b - a).mean())
    assert found[0].accuracy == pytest.approx((a.mean(), b.mean()))
    assert settings_that_differ(folders["first"], folders["wide"]) == [
        f"encoders[{i}].width: 7 in the first, 20 in the second" for i in (0, 1)
    ]


def test_other_seeds_are_compared_by_their_means(folders: dict[str, Path]) -> None:
    found = compare(folders["first"], folders["other seeds"])[0]
    a, b = (at_best(folders[name], best) for name, best in zip(("first", "other seeds"), found.best, strict=True))
    assert not found.paired
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval()
    assert found.change.low is not None
    assert found.change.low <= expected.low + 1e-9  # whole degrees of freedom, rounded down: never narrower
    assert found.change.mean == pytest.approx(b.mean() - a.mean())


def test_nothing_in_common_is_said(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="no case in common; a case is known by its label"):
        compare(folders["first"], folders["other case"])


def test_the_command_prints_what_differs(folders: dict[str, Path]) -> None:
    result = CliRunner().invoke(app, ["compare", str(folders["first"]), str(folders["wide"])])
    assert result.exit_code == 0, result.output
    assert "encoders[0].width: 7 in the first, 20 in the second" in result.output
    assert "modality 2" in result.output
    assert CliRunner().invoke(app, ["compare", "nowhere", str(folders["wide"])]).exit_code == 2
