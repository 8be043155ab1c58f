"""The page in a real browser: no errors, no network, every plot drawn, the numbers those of the Parquet files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from selenium import webdriver
from selenium.webdriver.common.by import By

from modalign import report
from report.looking import DESKTOP, PHONE, Look
from report.sweeps import CASES, SEEDS, STRENGTHS, constant, write_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sweep(tmp_path_factory.mktemp("sweep"))
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def look(chromium: webdriver.Chrome, folder: Path) -> Look:
    return Look(chromium, folder / "report.html")


@pytest.fixture(scope="module")
def runs(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "runs.parquet")


def test_opens_without_errors_and_without_network(chromium: webdriver.Chrome, folder: Path) -> None:
    look = Look(chromium, folder / "report.html")
    look.open_everything()
    assert look.console() == []
    requests = look.requests()
    assert (folder / "report.html").as_uri() in requests
    assert [url for url in requests if not url.startswith("file://")] == []
    assert len(requests) == 1


def test_every_plot_is_drawn_with_its_traces(look: Look) -> None:
    look.open_everything()
    expected = json.loads(look.run("return document.getElementById('figures').textContent"))
    for name, figure in expected.items():
        shown = [trace for trace in figure["data"] if trace.get("visible", True)]
        drawn = look.run("return document.getElementById(arguments[0]).querySelectorAll('g.trace').length", name)
        assert drawn == len(shown), name
        assert look.run("return document.getElementById(arguments[0]).getBoundingClientRect().width > 150", name)
        assert not look.run("return /NaN/.test(document.getElementById(arguments[0]).innerHTML)", name)


def test_plotted_accuracy_is_that_of_the_parquet_file(look: Look, runs: pd.DataFrame) -> None:
    for number, case in enumerate(CASES):
        drawn = look.drawn(f"accuracy-{number}")
        mean = runs[runs["case"] == case].groupby("strength")[["accuracy_1", "accuracy_2"]].mean()
        for modality in (1, 2):
            np.testing.assert_allclose(drawn[f"accuracy_{modality}"]["y"], 100 * mean[f"accuracy_{modality}"])


def test_plotted_alignment_is_that_of_the_parquet_file(look: Look, runs: pd.DataFrame) -> None:
    for column in ("mutual_knn", "cka", "unbiased_cka", "svcca"):
        drawn = look.drawn(f"alignment-{column}")
        for number, case in enumerate(CASES):
            mean = runs[runs["case"] == case].groupby("strength")[column].mean()
            np.testing.assert_allclose(drawn[f"{column}_{number}"]["y"], mean)
    np.testing.assert_allclose(look.drawn("alignment-mutual_knn")["mutual_knn_chance"]["y"], 10 / 571, atol=1e-6)


def test_the_tables_are_those_of_the_parquet_file(look: Look, runs: pd.DataFrame) -> None:
    tables = look.window.find_elements(By.CSS_SELECTOR, "table.numbers")
    assert [table.find_element(By.TAG_NAME, "caption").text for table in tables] == list(CASES)
    t = stats.t.ppf(0.975, len(SEEDS) - 1)
    for table, case in zip(tables, CASES, strict=True):
        rows = table.find_elements(By.CSS_SELECTOR, "tbody tr")
        assert len(rows) == len(STRENGTHS)
        for row, strength in zip(rows, STRENGTHS, strict=True):
            assert row.find_element(By.TAG_NAME, "th").text == f"{strength:g}"
            mine = runs[(runs["case"] == case) & (runs["strength"] == strength)]
            for cell in row.find_elements(By.TAG_NAME, "td"):
                column = str(cell.get_attribute("data-column"))
                scale, digits = (100, 1) if column.startswith("accuracy") else (1, 3)
                mean, half = scale * mine[column].mean(), scale * t * stats.sem(mine[column])
                assert cell.text.replace("best", "").strip() == f"{mean:.{digits}f} ± {half:.{digits}f}"


def test_the_conclusions_are_read_first(look: Look, folder: Path) -> None:
    sentences = look.window.find_elements(By.CSS_SELECTOR, ".conclusions .sentence")
    assert [sentence.text for sentence in sentences] == report.conclusions(folder)
    assert look.run(
        "return arguments[0].getBoundingClientRect().top < document.querySelector('[data-figure]')"
        ".getBoundingClientRect().top",
        sentences[-1],
    )


def test_another_measure_moves_the_points(look: Look, runs: pd.DataFrame) -> None:
    look.run("document.querySelector('input[value=cka]').click()")
    drawn = look.drawn("scatter-0")
    assert {meta for meta, trace in drawn.items() if trace["visible"]} == {"cka_1", "cka_2"}
    mine = runs[runs["case"] == CASES[0]].sort_values(["strength", "seed"])
    np.testing.assert_allclose(drawn["cka_1"]["x"], mine["cka"])
    assert look.run("return document.querySelector('#scatter-0 .xtitle').textContent") == "CKA"
    look.run("document.querySelector('input[value=mutual_knn]').click()")


def test_light_and_dark_are_drawn_in_their_own_colours(chromium: webdriver.Chrome, folder: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        look = Look(chromium, folder / "report.html", scheme=scheme)
        ground = look.run("return getComputedStyle(document.body).backgroundColor")
        seen[scheme] = (look.drawn("accuracy-0")["accuracy_1"]["line"], ground)
        assert look.console() == []
    assert seen["light"][0].startswith("#")
    assert seen["light"][0] != seen["dark"][0]
    assert seen["light"][1] != seen["dark"][1]


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_nothing_sticks_out_sideways(chromium: webdriver.Chrome, folder: Path, size: tuple[int, int]) -> None:
    look = Look(chromium, folder / "report.html", size=size)
    look.open_everything()
    assert look.run("return document.documentElement.scrollWidth") <= size[0]
    outside = look.run(
        """return [...document.querySelectorAll('[data-figure]')].filter((place) => {
             const frame = place.closest('figure').getBoundingClientRect();
             return place.querySelector('svg').getBoundingClientRect().right > frame.right + 0.5;
           }).map((place) => place.id)"""
    )
    assert outside == []


def test_paper_is_light_and_the_screen_comes_back(chromium: webdriver.Chrome, folder: Path) -> None:
    look = Look(chromium, folder / "report.html", scheme="dark")
    dark = look.drawn("accuracy-0")["accuracy_1"]["line"]
    look.run("dispatchEvent(new Event('beforeprint'))")
    paper = look.drawn("accuracy-0")["accuracy_1"]["line"]
    look.run("dispatchEvent(new Event('afterprint'))")
    assert paper != dark
    assert look.drawn("accuracy-0")["accuracy_1"]["line"] == dark


def test_a_hostile_label_is_shown_as_it_was_written(chromium: webdriver.Chrome, tmp_path: Path) -> None:
    label = "</script><img src=x onerror=\"document.title='owned'\"> <b>&amp;"
    table = constant({0.0: [0.5, 0.6], 1.0: [0.6, 0.7]})
    write_sweep(tmp_path, table, cases=[label], strengths=[0.0, 1.0], seeds=[0, 1], epochs=2)
    look = Look(chromium, report.write(tmp_path))
    look.open_everything()
    assert look.window.title == "emoji: alignment sweep"
    assert look.window.find_element(By.CSS_SELECTOR, "#accuracy h3").text == label
    assert look.console() == []
