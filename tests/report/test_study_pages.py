"""Pages of studies of any settings: figures that their tables allow, and the paper's numbers where they may stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from modalign.experiments.sweep.folder import Folder
from modalign.report import html
from report.studies import emergence_study, vision_language_study


def figures_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    figures: dict[str, Any] = json.loads(found[1])
    return figures


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the SVG and PNG files, which take most of the time of a page."""

    def write(place: Folder, page: str, pictures: object) -> Path:
        return html.write_text(place.path / "report.html", page)

    monkeypatch.setattr("modalign.report.figures.stills.draw_sheet", lambda sheet: None)
    monkeypatch.setattr(html, "write_report", write)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("levels", "sentence", "sheets"),
    [
        ({"uniqueness": [1]}, "At U = 1 unbiased CKA is", {"heterogeneity", "correlations"}),
        ({"heterogeneity": [3]}, "Unbiased CKA is", {"uniqueness", "correlations"}),
        ({"depths": [2], "seeds": [2]}, "Unbiased CKA is", {"uniqueness", "heterogeneity"}),
    ],
)
def test_a_page_of_emergence_has_the_figures_that_its_settings_allow(
    levels: dict[str, Any], sentence: str, sheets: set[str], tmp_path: Path
) -> None:
    text = emergence_study(tmp_path, **levels).read_text(encoding="utf-8")
    assert sentence in text
    figures = figures_of(text)
    assert {name.rpartition("-")[0] for name in figures} == {"heat-map", "performance", "deepest"} | sheets
    assert all(figure["data"] for figure in figures.values())
    assert "1 seeds" not in text


def test_a_page_of_one_pair_of_encoders_is_drawn(tmp_path: Path) -> None:
    page = emergence_study(tmp_path, uniqueness=[1], heterogeneity=[3], depths=[2], seeds=[2])
    text = page.read_text(encoding="utf-8")
    assert "The study has too few runs or too few values of its settings to judge a claim of the paper." in text
    assert "1 pair of encoders trained independently, 1 seed, 1,500 items" in text
    assert "Unbiased CKA is 0.7" in text
    assert "<h3>Performance against alignment, U = 1</h3>" in text
    assert {path.stem for path in (tmp_path / "figures").glob("*.svg")} == {"heat-maps", "performance", "deepest"}


@pytest.mark.usefixtures("no_pictures")
def test_figures_show_five_values_of_uniqueness_at_most(tmp_path: Path) -> None:
    text = emergence_study(tmp_path, uniqueness=range(9), heterogeneity=[1], depths=[1, 2]).read_text(encoding="utf-8")
    panels = figures_of(text)
    for name in ("heat-map", "performance", "deepest"):
        assert [panel for panel in panels if panel.startswith(name)] == [f"{name}-{u}" for u in (0, 2, 4, 6, 8)]


@pytest.mark.usefixtures("no_pictures")
def test_the_papers_statistics_stand_only_beside_unchanged_settings(tmp_path: Path) -> None:
    seeds, size = (2, 22, 42), {"n": 65536, "compared": 512, "k": 100}
    whole: dict[str, Any] = {"uniqueness": range(9), "heterogeneity": [1], "seeds": seeds, "protocol": "paper", **size}
    beside = emergence_study(tmp_path / "a", **whole).read_text(encoding="utf-8")
    assert ">-0.929<" in beside
    assert "Changed by you" not in beside
    alone = emergence_study(tmp_path / "b", **{**whole, "n": 512}).read_text(encoding="utf-8")
    assert ">-0.929<" not in alone
    assert "Changed by you: n = 512 (the paper: 65536)." in alone
    assert "step by step" not in alone


@pytest.mark.usefixtures("no_pictures")
def test_the_papers_ends_are_drawn_only_for_its_own_captions(tmp_path: Path) -> None:
    def draws_the_paper(name: str, *kinds: str, **settings: object) -> bool:
        text = vision_language_study(tmp_path / name, kinds, **settings).read_text(encoding="utf-8")
        heights = [trace["y"] for figure in figures_of(text).values() for trace in figure["data"]]
        assert ("paper, DINOv2 and LLMs" in text) == ([0.159, 0.062] in heights)
        return [0.159, 0.062] in heights

    assert draws_the_paper("given", "given", protocol="paper")
    assert not draws_the_paper("emoji", "deleted", protocol="paper")
    assert not draws_the_paper("fewer", "given", items=128)
    assert not draws_the_paper("neighbours", "given", k=5)


@pytest.mark.usefixtures("no_pictures")
def test_a_page_of_one_uniqueness_says_what_is_there(tmp_path: Path) -> None:
    text = vision_language_study(tmp_path, ["deleted"], levels=[10]).read_text(encoding="utf-8")
    assert re.search(
        r"the highest mutual k-NN is 0\.1\d\d \(\w+ and \w+\) at U = 10 %, where chance gives 0\.010", text
    )
