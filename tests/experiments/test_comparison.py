"""Comparison of two sweeps: paired where they have the same seeds, Welch's interval elsewhere."""

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
from modalign.experiments.sweep.runner import run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sweeps")
    changes = {
        "first": {},
        "wide": {"encoders": {"kind": "mlp", "width": 20, "depth": 2, "dim": 5}},
        "other seeds": {"seeds": [1, 4, 5, 6]},
        "other case": {"cases": [{"label": "else", "data": {"name": "synthetic", "redundancy": 8, "n": 600}}]},
    }
    return {name: run(configuration(**change), root / name) for name, change in changes.items()}


def at_best(folder: Path, strength: float) -> np.ndarray:
    runs = pd.read_parquet(folder / "runs.parquet")
    return runs[runs["strength"] == strength].sort_values("seed")["accuracy_1"].to_numpy()


def test_the_same_seeds_are_paired(folders: dict[str, Path]) -> None:
    differences = compare(folders["first"], folders["wide"])
    assert [item.name for item in differences] == ["modality 1", "modality 2"]
    first = differences[0]
    a, b = (at_best(folders[name], best) for name, best in zip(("first", "wide"), first.best, strict=True))
    assert first.paired
    assert first.change.mean == pytest.approx((b - a).mean())
    assert first.accuracy == pytest.approx((a.mean(), b.mean()))
    assert settings_that_differ(folders["first"], folders["wide"]) == [
        f"encoders[{i}].width: 7 in the first, 20 in the second" for i in (0, 1)
    ]


def test_other_seeds_have_the_interval_of_welch(folders: dict[str, Path]) -> None:
    difference = compare(folders["first"], folders["other seeds"])[0]
    a, b = (at_best(folders[name], best) for name, best in zip(("first", "other seeds"), difference.best, strict=True))
    assert not difference.paired
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval()
    assert difference.change == pytest.approx((b.mean() - a.mean(), expected.low, expected.high))


def test_sweeps_without_a_case_in_common_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="no case in common; a case is known by its label"):
        compare(folders["first"], folders["other case"])


def test_the_command_prints_the_differences(folders: dict[str, Path]) -> None:
    result = CliRunner().invoke(app, ["compare", str(folders["first"]), str(folders["wide"])])
    assert result.exit_code == 0, result.output
    assert "encoders[0].width: 7 in the first, 20 in the second" in result.output
    assert "modality 2" in result.output
    assert CliRunner().invoke(app, ["compare", "nowhere", str(folders["wide"])]).exit_code == 2
