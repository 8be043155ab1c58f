"""Tests that every page, table and conclusion shows a third modality and the fused model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modalign import report
from modalign.cli import tables
from modalign.experiments.sweep.comparison import compare
from modalign.report.pages import comparison as comparison_page
from report.studies import fused_sweep

NAMES = ("image", "audio", "text", "fused model")
SUFFIXES = ("1", "2", "3", "fused")
PAIRS = {"image and audio": "", "image and text": "_1_3", "audio and text": "_2_3"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fused_sweep(tmp_path_factory.mktemp("fused"))


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return report.write(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def figures(page: str) -> dict[str, dict[str, list[dict[str, object]]]]:
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    drawn: dict[str, dict[str, list[dict[str, object]]]] = json.loads(data[1])
    return drawn


def test_the_conclusion_names_every_model(folder: Path) -> None:
    first, second = report.conclusions(folder)
    for name in ("best strength for the fused model is 1", "best strength for text is 1", "no gain for image"):
        assert name in first
        assert name in second
    assert "audio" in first


def test_the_summary_has_a_row_for_every_model(page: str) -> None:
    table = page[page.index('<table id="summary">') : page.index("</table>")]
    assert table.count('rowspan="4"') == 2
    assert re.findall(r"</svg></span>(.*?)</span>", table) == [*NAMES, *NAMES]


def test_the_numbers_have_a_column_for_every_model_and_pair(folder: Path, page: str) -> None:
    tables = re.findall(r'<table class="numbers">.*?</table>', page, re.DOTALL)
    captions = [re.findall("<caption>(.*?)</caption>", table)[0] for table in tables]
    assert captions[:4] == ["true pairs", *(f"true pairs: {pair}" for pair in PAIRS)]
    heads = [re.findall(r'<th scope="col">(.*?)</th>', table) for table in tables]
    assert heads[0] == ["Strength", *(f"{name} accuracy, %" for name in NAMES)]
    assert heads[1] == heads[2] == heads[3] == ["Strength", "mutual k-NN", "CKA", "unbiased CKA", "SVCCA"]
    runs = pd.read_parquet(folder / "runs.parquet").query("case == 'true pairs' and strength == 1")
    columns = []
    for table in tables[:4]:
        cells = re.findall(r'<td data-column="(\w+)"[^>]*>([\d.-]+) ±', table)[-4:]
        columns += [column for column, _ in cells]
        for column, text in cells:
            scale = 100 if column.startswith("accuracy") else 1
            assert float(text) == pytest.approx(scale * runs[column].mean(), abs=0.06 if scale == 100 else 0.0006)
    measures = ("mutual_knn", "cka", "unbiased_cka", "svcca")
    pairs = [f"{measure}{ending}" for ending in PAIRS.values() for measure in measures]
    assert columns == [*(f"accuracy_{suffix}" for suffix in SUFFIXES), *pairs]


def test_every_model_and_pair_has_a_line(folder: Path, figures: dict[str, dict[str, list[dict[str, object]]]]) -> None:
    runs = pd.read_parquet(folder / "runs.parquet").query("case == 'true pairs'")
    lines = {trace["meta"]: trace for trace in figures["accuracy-0"]["data"]}
    for suffix in SUFFIXES:
        mean = runs.groupby("strength")[f"accuracy_{suffix}"].mean()
        np.testing.assert_allclose(lines[f"accuracy_{suffix}"]["y"], 100 * mean)  # type: ignore[arg-type]
        assert {f"change_{suffix}", f"best_{suffix}"} <= set(lines)
        assert {f"training-0-task_loss_{suffix}", f"training-0-validation_accuracy_{suffix}"} <= set(figures)
    lines = {trace["meta"]: trace for trace in figures["alignment-cka"]["data"]}
    for index, ending in enumerate(PAIRS.values()):
        mean = runs.groupby("strength")[f"cka{ending}"].mean()
        np.testing.assert_allclose(lines[f"cka_{index}"]["y"], mean)  # type: ignore[arg-type]


def test_each_pair_has_a_panel_of_accuracy_against_alignment(
    figures: dict[str, dict[str, list[dict[str, object]]]],
) -> None:
    shown = {"scatter-0": ("1", "2"), "scatter-0-1-3": ("1", "3"), "scatter-0-2-3": ("2", "3")}
    for name, suffixes in shown.items():
        visible = [trace["meta"] for trace in figures[name]["data"] if trace["visible"]]
        assert visible == [f"mutual_knn_{suffix}" for suffix in (*suffixes, "fused")]


def test_the_still_pictures_are_drawn(folder: Path) -> None:
    names = {path.stem for path in report.draw(folder).iterdir()}
    assert names == {"accuracy", "alignment", "accuracy-alignment", "training-1", "training-2"}


def test_a_comparison_shows_every_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentences = comparison_page.conclusions(compare(folder, folder))
    text = comparison_page.write(folder, folder, tmp_path / "c.html").read_text(encoding="utf-8")
    tables.print_differences(folder, folder)
    printed = capsys.readouterr().out
    for name in NAMES:
        assert all(name in sentence for sentence in sentences)
        assert text.count(f"<td>{name}</td>") == 2
        assert f"true pairs: {name}" in text
        assert name in printed
