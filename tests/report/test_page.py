"""The page as text: nothing is loaded, what users wrote is escaped, the numbers are those of the Parquet file."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import yaml
from scipy import stats

from modalign import report
from report.sweeps import CASES, SEEDS, STRENGTHS, constant, write_sweep

HOSTILE = '</script><img src=x onerror="alert(1)"> & <b>bold</b> {{ 7 * 7 }} <a href="javascript:alert(1)">x</a>'


class Page(HTMLParser):
    """Tags with their attributes, and the text inside each element that carries an id."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def figures(self) -> dict[str, Any]:
        found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', self.source, re.DOTALL)
        assert found is not None
        figures: dict[str, Any] = json.loads(found[1])
        return figures

    def trace(self, figure: str, meta: str) -> dict[str, Any]:
        (only,) = [trace for trace in self.figures()[figure]["data"] if trace["meta"] == meta]
        return dict(only)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(report.write(folder))


def test_write_returns_the_path_and_leaves_nothing_else(folder: Path, page: Page) -> None:
    assert {path.name for path in folder.iterdir()} == {
        ".modalign",
        "report.html",
        "config.yaml",
        "provenance.json",
        "runs.parquet",
        "curves.parquet",
    }


def test_a_second_report_is_the_same_to_the_byte(folder: Path, page: Page) -> None:
    assert report.write(folder).read_text(encoding="utf-8") == page.source


def test_the_page_loads_nothing(page: Page) -> None:
    assert not [tag for tag, _ in page.tags if tag in {"link", "iframe", "object", "embed", "base", "img"}]
    assert not [attributes for _, attributes in page.tags if "src" in attributes or "srcset" in attributes]
    policy = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy
    assert str(policy[0]).startswith("default-src 'none'")
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_conclusions_stand_in_the_page(folder: Path, page: Page) -> None:
    shown = re.findall(r'<span class="sentence">(.*?)</span>', page.source)
    assert [html.unescape(re.sub(r"</?b>", "", text)) for text in shown] == report.conclusions(folder)
    assert page.source.index('class="sentence"') < page.source.index("data-figure")


def test_every_figure_is_one_that_plotly_accepts_and_has_a_place(page: Page) -> None:
    figures = page.figures()
    names = {f"accuracy-{i}" for i in range(3)} | {f"scatter-{i}" for i in range(3)}
    names |= {f"alignment-{column}" for column in ("mutual_knn", "cka", "unbiased_cka", "svcca")}
    assert names < set(figures)
    assert len(figures) == len(names) + 3 * 7  # the training curves of each case
    places = [attributes["id"] for tag, attributes in page.tags if "data-figure" in attributes]
    assert sorted(map(str, places)) == sorted(figures)
    for figure in figures.values():
        assert figure["data"]
        go.Figure(data=figure["data"], layout=figure["layout"])  # raises for a name or a value it does not know


def test_every_colour_a_figure_names_is_defined_for_both_schemes(page: Page) -> None:
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", json.dumps(page.figures())))
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert used
    for name in used:
        assert len(re.findall(rf"{name}:", style)) == 2, name


@pytest.mark.parametrize("modality", [1, 2])
@pytest.mark.parametrize("number", range(3))
def test_accuracy_lines_and_bands_are_those_of_the_runs(folder: Path, page: Page, number: int, modality: int) -> None:
    runs = pd.read_parquet(folder / "runs.parquet").query("case == @CASES[@number]")
    grid = 100 * runs.pivot(index="seed", columns="strength", values=f"accuracy_{modality}").to_numpy()
    for kind, values in (("accuracy", grid), ("change", grid - grid[:, :1])):
        mean, half = values.mean(axis=0), stats.t.ppf(0.975, len(SEEDS) - 1) * stats.sem(values, axis=0)
        line = page.trace(f"accuracy-{number}", f"{kind}_{modality}")
        assert line["x"] == list(range(len(STRENGTHS)))
        np.testing.assert_allclose(line["y"], mean, atol=1e-9)
        np.testing.assert_allclose([h for _, h in line["customdata"]], half, atol=1e-9)
        outline = page.trace(f"accuracy-{number}", f"{kind}_{modality}_band")
        np.testing.assert_allclose(outline["y"], [*(mean + half), *(mean - half)[::-1]], atol=1e-9)
    validation = runs.groupby("strength")[f"validation_accuracy_{modality}"].mean()
    best = page.trace(f"accuracy-{number}", f"best_accuracy_{modality}")
    assert best["x"] == [STRENGTHS.index(float(validation.idxmax()))]


def test_a_band_stays_where_accuracies_can_be(tmp_path: Path) -> None:
    # half-widths of 12.7 points around 99 and 1 per cent
    write_sweep(tmp_path, constant({0.0: [1.0, 0.98], 1.0: [0.0, 0.02]}), cases=["c"], strengths=[0.0, 1.0],
                seeds=[0, 1], epochs=1)  # fmt: skip
    outline = Page(report.write(tmp_path)).trace("accuracy-0", "accuracy_1_band")["y"]
    np.testing.assert_allclose(outline, [100.0, 13.7062, 0.0, 86.2938], atol=1e-3)


def test_every_run_is_a_point(folder: Path, page: Page) -> None:
    runs = pd.read_parquet(folder / "runs.parquet").sort_values(["strength", "seed"])
    for number, case in enumerate(CASES):
        mine = runs[runs["case"] == case]
        for column in ("mutual_knn", "cka", "unbiased_cka", "svcca"):
            for modality in (1, 2):
                points = page.trace(f"scatter-{number}", f"{column}_{modality}")
                np.testing.assert_allclose(points["x"], mine[column])
                np.testing.assert_allclose(points["y"], 100 * mine[f"accuracy_{modality}"])


def test_training_curves_are_means_over_seeds(folder: Path, page: Page) -> None:
    curves = pd.read_parquet(folder / "curves.parquet")
    mean = curves.groupby(["case", "strength", "epoch"])["alignment_loss"].mean()
    lines = page.figures()["training-1-alignment_loss"]["data"]
    assert len(lines) == len(STRENGTHS)
    for line, strength in zip(lines, STRENGTHS, strict=True):
        assert line["x"] == list(range(20))
        np.testing.assert_allclose(line["y"], mean.loc[CASES[1], strength], rtol=1e-5)


def test_long_training_is_thinned_but_keeps_both_ends(tmp_path: Path) -> None:
    write_sweep(tmp_path, constant({0.0: [0.5, 0.6]}), cases=["c"], strengths=[0.0], seeds=[0, 1], epochs=1001)
    (line,) = Page(report.write(tmp_path)).figures()["training-0-task_loss_1"]["data"]
    assert len(line["x"]) == 150
    assert (line["x"][0], line["x"][-1]) == (0, 1000)


def test_what_users_wrote_is_text(tmp_path: Path) -> None:
    write_sweep(tmp_path, constant({0.0: [0.5, 0.6], 1.0: [0.6, 0.7]}), cases=[HOSTILE, "b"], strengths=[0, 1],
                seeds=[0, 1], pair="<i>-<u>")  # fmt: skip
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"name": HOSTILE, "note": HOSTILE}))
    (tmp_path / "provenance.json").write_text(json.dumps({"modalign_commit": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}}))
    page = Page(report.write(tmp_path))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [1 for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not [1 for _, attributes in page.tags if (attributes.get("href") or "").startswith("javascript")]
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert "{{ 7 * 7 }}" in page.source
    # Plotly reads tags in its texts, so none may reach it
    traces = [trace for name in ("alignment-cka", "accuracy-0", "scatter-0") for trace in page.figures()[name]["data"]]
    texts = [trace["hovertemplate"] for trace in traces if "hovertemplate" in trace]
    assert any("&lt;b&gt;bold" in text for text in texts)
    assert all(set(re.findall(r"<[^>]*>", text)) == {"<extra>", "</extra>"} for text in texts)


def test_an_alignment_score_that_is_not_defined_is_a_gap(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    runs = pd.read_parquet(tmp_path / "runs.parquet")
    runs.loc[(runs["strength"] == 3) & (runs["case"] == CASES[0]) & (runs["seed"] == 2), "cka"] = np.nan
    runs.to_parquet(tmp_path / "runs.parquet")
    page = Page(report.write(tmp_path))
    assert page.trace("alignment-cka", "cka_0")["y"][-1] is None
    assert len(page.trace("alignment-cka", "cka_0_band")["y"]) == 2 * (len(STRENGTHS) - 1)
    assert '<td data-column="cka">–</td>' in page.source
    assert "nan" not in re.findall(r"<table.*</table>", page.source, re.DOTALL)[0].lower()


@pytest.mark.parametrize(("strengths", "seeds"), [([0.0], [0]), ([0.5], [0, 1, 2]), ([0.5, 2.0], [3])])
def test_the_smallest_sweeps_have_a_page(tmp_path: Path, strengths: list[float], seeds: list[int]) -> None:
    table = {strength: [0.5 + 0.01 * i for i in seeds] for strength in strengths}
    write_sweep(tmp_path, constant(table), cases=["c"], strengths=strengths, seeds=seeds, epochs=1)
    page = Page(report.write(tmp_path))
    text = page.source[page.source.index("<main>") : page.source.index("</main>")]
    assert ("One seed." in text) == (len(seeds) == 1)
    assert ("has no strength 0" in text) == (strengths[0] != 0)
    assert ("±" in re.findall(r'<table class="numbers">.*?</table>', text, re.DOTALL)[0]) == (len(seeds) > 1)


def test_many_strengths_label_some_of_their_ticks(tmp_path: Path) -> None:
    strengths = [round(0.1 * i, 1) for i in range(41)]
    write_sweep(tmp_path, constant({s: [0.5, 0.6] for s in strengths}), cases=["c"], strengths=strengths, seeds=[0, 1],
                epochs=1)  # fmt: skip
    axis = Page(report.write(tmp_path)).figures()["accuracy-0"]["layout"]["xaxis"]
    assert axis["ticktext"] == ["0", "0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4"]
    assert axis["tickvals"] == list(range(0, 41, 5))


def test_configuration_and_provenance_are_there(folder: Path, page: Page) -> None:
    config = html.unescape(re.findall(r'<pre id="config">(.*?)</pre>', page.source, re.DOTALL)[0])
    assert yaml.safe_load(config) == yaml.safe_load((folder / "config.yaml").read_text())
    provenance = re.findall(r'<dl id="provenance">(.*?)</dl>', page.source, re.DOTALL)[0]
    for text in ("0123456789abcdef", "torch 2.13.0", "cores 2", "modalign sweep emoji.yaml", "0, 1, 2, 3, 4"):
        assert text in provenance
    assert "1 min 52 s, summed over 90 runs" in provenance  # 90 x 1.25 s


def test_pairs_permuted_within_a_group_come_with_their_caution(page: Page) -> None:
    assert page.source.count("labels that came in through the pairing") == 2  # by the conclusion, by the plot
