"""Results and findings of sweeps with a third modality and a fused model, and the table of columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.small import configuration, hidden_numbers
from modalign.data import PairedDataset
from modalign.experiments.sweep import cases
from modalign.experiments.sweep.comparison import compare
from modalign.experiments.sweep.findings import findings
from modalign.experiments.sweep.results import read
from modalign.experiments.sweep.runner import run
from modalign.experiments.sweep.schema import (
    CURVES,
    RUNS,
    columns_table,
    curve_columns,
    modality_pairs,
    predictor_suffixes,
    run_columns,
)
from modalign.report import conclusions, draw, write

DATA_SETS = {
    "three views": hidden_numbers("classification", modalities=3),
    "two views": hidden_numbers("classification"),
}


class Catalogue:
    """Stands in for the registry of data sets."""

    @staticmethod
    def load(name: str) -> PairedDataset:
        return DATA_SETS[name]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished sweeps of three views and of two views, both with a fused model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "data_sets", Catalogue)
        return [
            run(
                configuration(
                    cases=[{"label": name, "data": {"name": name}} for name in DATA_SETS],
                    fusion="probe",
                    training={"labels": None, "learning_rate": rate, "epochs": 2},
                    seeds=[3, 8, 9],
                ),
                tmp_path_factory.mktemp("sweep") / f"rate {rate}",
            )
            for rate in (0.002, 0.02)
        ]


def test_a_sweep_of_three_modalities_has_every_predictor_and_pair(folders: list[Path]) -> None:
    three, two = read(folders[0]).cases
    assert [predictor.name for predictor in three.predictors] == ["view 1", "view 2", "view 3", "fused model"]
    assert [predictor.name for predictor in two.predictors] == ["view 1", "view 2", "fused model"]
    columns = ["accuracy_1", "accuracy_2", "accuracy_3", "accuracy_fused"]
    assert [predictor.column("accuracy") for predictor in three.predictors] == columns
    assert [pair.column("cka") for pair in three.pairs] == ["cka", "cka_1_3", "cka_2_3"]
    assert [pair.name for pair in three.pairs] == ["view 1 and view 2", "view 1 and view 3", "view 2 and view 3"]
    assert [pair.column("cka") for pair in two.pairs] == ["cka"]


def test_every_predictor_has_its_numbers_in_the_grids(folders: list[Path]) -> None:
    results, runs = read(folders[0]), pd.read_parquet(folders[0] / "runs.parquet")
    for case in results.cases:
        for predictor in case.predictors:
            grid = results.grid(case, predictor.column("accuracy"))
            assert grid.shape == (3, 3)
            rows = runs[(runs["case"] == case.label) & (runs["strength"] == 0.3)].sort_values("seed")
            np.testing.assert_array_equal(grid[:, 1], rows[predictor.column("accuracy")])


def test_findings_and_comparisons_hold_every_predictor(folders: list[Path]) -> None:
    names = {
        "three views": ["view 1", "view 2", "view 3", "fused model"],
        "two views": ["view 1", "view 2", "fused model"],
    }
    expected = [(case, name, number) for case in names for number, name in enumerate(names[case], 1)]
    results = read(folders[1])
    of_sweep = findings(results)
    assert [(finding.case.label, finding.name, finding.modality) for finding in of_sweep] == expected
    for finding in of_sweep:
        test = results.grid(finding.case, finding.predictor.column("accuracy"))
        best = results.strengths.index(finding.best)
        assert finding.gain.mean == pytest.approx((test[:, best] - test[:, 0]).mean())
    differences = compare(folders[0], folders[1])
    assert [(item.case, item.name, item.modality) for item in differences] == expected


def test_reports_name_every_modality_and_the_fused_model(folders: list[Path]) -> None:
    three, two = conclusions(folders[0])
    assert all(name in three for name in ("view 1", "view 2", "view 3", "fused model"))
    assert "fused model" in two
    page = write(folders[0]).read_text(encoding="utf-8")
    assert "view 3 accuracy, %" in page
    assert draw(folders[0]).is_dir()


@pytest.mark.parametrize("damage", ["accuracy_3", "accuracy_fused", "svcca_2_3"])
def test_a_lost_column_of_a_third_modality_is_named(damage: str, folders: list[Path], tmp_path: Path) -> None:
    for path in folders[0].iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    pd.read_parquet(tmp_path / "runs.parquet").drop(columns=damage).to_parquet(tmp_path / "runs.parquet")
    with pytest.raises(ValueError, match=f"lacks the columns {damage}; it must hold"):
        read(tmp_path)


def test_the_tables_have_the_columns_of_the_schema(folders: list[Path]) -> None:
    suffixes, pairs = predictor_suffixes(3, fused=True), modality_pairs(3)
    expected = {"runs": run_columns(suffixes, pairs), "curves": curve_columns(suffixes)}
    kinds = {"text": "O", "int64": "i", "float64": "f"}
    for name, columns in expected.items():
        table = pd.read_parquet(folders[0] / f"{name}.parquet")
        assert list(table.columns) == [column.name for column in columns]
        whole = table[table["case"] == "three views"].dropna(axis="columns").infer_objects()
        for column in columns:
            if column.name in whole and not column.name.startswith("best_epoch"):  # no epoch 3 where there is no view 3
                assert whole[column.name].dtype.kind == kinds[column.dtype], column.name


@pytest.mark.parametrize("name", ["RUNS", "CURVES"])
def test_the_page_shows_the_columns(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    table = page.partition(f"<!-- columns_table({name}) -->\n")[2].partition("\n<!-- end -->")[0]
    assert table == columns_table({"RUNS": RUNS, "CURVES": CURVES}[name])
