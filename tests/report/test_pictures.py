"""The pictures beside the pages: the page's numbers, the same bytes each time, and nothing of the user's touched."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kiwisolver
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from modalign import report
from modalign.cli import app
from modalign.experiments import advice as advise
from modalign.experiments.sweep.comparison import compare
from modalign.experiments.sweep.findings import findings
from modalign.experiments.sweep.folder import Folder
from modalign.experiments.sweep.results import read
from modalign.report.figures import Sheet, draw_sheet, stills
from modalign.report.figures.accuracy import accuracy_figures
from modalign.report.pages import alignment as alignment_page
from modalign.report.pages import comparison as comparison_page
from report.studies import advice, alignments
from report.sweeps import constant, write_sweep

FORMULA = "permuted $\\bad$ & <b>"
TABLE = constant({0.0: [0.5, 0.6, 0.55], 0.3: [0.62, 0.7, 0.66], 1.0: [0.4, 0.5, 0.47]})
SMALL: dict[str, Any] = {"strengths": [0.0, 0.3, 1.0], "seeds": [0, 1, 2], "epochs": 3}
OF_A_SWEEP = ("accuracy", "accuracy-alignment", "alignment", "training-1", "training-2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = write_sweep(tmp_path_factory.mktemp("sweep"), TABLE, cases=["true pairs", FORMULA], **SMALL)
    report.draw(place)
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def test_a_sweep_has_every_picture_twice_and_the_same_bytes_again(folder: Path) -> None:
    found = contents(folder / "figures")
    assert set(found) == {f"{name}.{suffix}" for name in OF_A_SWEEP for suffix in ("svg", "png")}
    for seed in range(3):
        # the layout's solver meets its variables in the order of their addresses
        variables = [kiwisolver.Variable() for _ in range(100_000)]
        random.Random(seed).shuffle(variables)
        del variables[: 50_000 + 10_000 * seed]
        report.draw(folder)
        again = contents(folder / "figures")
        assert [name for name in found if found[name] != again[name]] == []
    for name in OF_A_SWEEP:
        assert b"<svg" in found[f"{name}.svg"]
        with Image.open(folder / "figures" / f"{name}.png") as image:
            assert image.width == 2100
            assert np.asarray(image.convert("L")).std() > 5


def test_a_picture_holds_the_numbers_of_the_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = stills.canvas

    @contextlib.contextmanager
    def watched(*arguments: Any, **options: Any) -> Iterator[Any]:
        with real(*arguments, **options) as drawing:
            yield drawing
            seen.append(np.array(drawing.axes).reshape(3, 2))

    monkeypatch.setattr(stills, "canvas", watched)
    results = read(folder)
    panels = accuracy_figures(results, findings(results))
    draw_sheet(Sheet("a", "b", "c", panels, columns=2))
    (axes,) = seen
    assert axes.shape == (3, 2)
    for column, panel in enumerate(panels):
        for row, axis in enumerate(("y", "y2", "y3")):
            wanted = [t for t in panel.data if t.get("yaxis", "y") == axis and "lines" in t["mode"] and "fill" not in t]
            lines = axes[row, column].get_lines()
            # the line of zero comes last
            assert len(lines) == len(wanted) + (axis == "y2")
            for line, trace in zip(lines, wanted, strict=False):
                np.testing.assert_allclose(line.get_xdata(), trace["x"])
                np.testing.assert_allclose(line.get_ydata(), trace["y"])
        assert axes[0, column].get_title("left") == f"{results.cases[column].label}\ntest accuracy, %"
        assert [text.get_text() for text in axes[2, column].get_xticklabels()] == ["0", "0.3", "1"]


def test_one_strength_one_seed_and_a_measure_without_values_are_drawn(tmp_path: Path) -> None:
    place = write_sweep(tmp_path, constant({0.0: [0.5]}), cases=["c"], strengths=[0.0], seeds=[7], epochs=1)
    runs = pd.read_parquet(place / "runs.parquet")
    runs.assign(svcca=np.nan).to_parquet(place / "runs.parquet", index=False)
    assert len(list(report.draw(place).iterdir())) == 2 * 4


def test_fresh_takes_the_pictures_away_and_nothing_of_the_users(folder: Path, tmp_path: Path) -> None:
    place = shutil.copytree(folder, tmp_path / "sweep")
    (place / "figures" / "accuracy.tex").write_text("mine")
    (place / "figures" / "mine.svg").write_text("mine")
    Folder(place).clear()
    assert set(contents(place / "figures")) == {"accuracy.tex", "mine.svg"}
    shutil.rmtree(place / "figures")
    report.draw(shutil.copytree(folder, tmp_path / "other"))
    Folder(tmp_path / "other").clear()
    assert not (tmp_path / "other" / "figures").exists()


def test_an_alignment_has_its_pictures_beside_the_page(tmp_path: Path) -> None:
    whole, layers = alignments()
    place = alignment_page.draw(whole, tmp_path / "a.html")
    assert place == tmp_path / "a-figures"
    assert {path.stem for path in place.iterdir()} == {".modalign", "scores", "null", "k-curve", "size-curve"}
    (place / "mine.png").write_text("mine")
    again = contents(place)
    alignment_page.draw(whole, tmp_path / "a.html")
    assert contents(place) == again
    alignment_page.draw(layers, tmp_path / "a.html")
    assert {path.stem for path in place.iterdir()} == {".modalign", "layers", "mine"}
    (place / ".modalign").unlink()
    with pytest.raises(ValueError, match=r"holds something else .*, not the pictures of a page"):
        alignment_page.draw(whole, tmp_path / "a.html")
    (place / "mine.png").unlink()
    alignment_page.draw(whole, tmp_path / "a.html")  # pairs of the names of modalign 0.1.0 and nothing else
    assert "layers" not in {path.stem for path in place.iterdir()}
    unsure = dataclasses.replace(whole, scores=tuple(dataclasses.replace(s, null=None) for s in whole.scores))
    assert "null" not in {path.stem for path in alignment_page.draw(unsure, tmp_path / "b.html").iterdir()}


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    better = constant({0.0: [0.5, 0.6, 0.55], 0.3: [0.72, 0.81, 0.76], 1.0: [0.4, 0.5, 0.47]})
    return write_sweep(tmp_path_factory.mktemp("second"), better, cases=["true pairs"], **SMALL)


def test_a_comparison_says_what_the_numbers_say(folder: Path, second: Path) -> None:
    (sentence,) = comparison_page.conclusions(compare(folder, second))
    assert sentence == (
        "true pairs: image is better in the second, +10.3 points [8.9, 11.8], best strength 0.3 in both; "
        "text is better in the second, +10.3 points [8.9, 11.8], best strength 0.3 in both."
    )
    (other,) = comparison_page.conclusions(compare(second, folder))
    assert "image is worse in the second, -10.3 points [-11.8, -8.9]" in other
    assert "no difference is shown for image (+0.0 points" in comparison_page.conclusions(compare(folder, folder))[1]


def test_compare_writes_a_page_with_its_pictures(folder: Path, second: Path, tmp_path: Path) -> None:
    page = tmp_path / "compared.html"
    result = CliRunner().invoke(app, ["compare", str(folder), str(second), "--out", str(page)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"report: {page}"
    assert "image is better in the second" in page.read_text()
    assert set(contents(tmp_path / "compared-figures")) == {".modalign", "curves.svg", "curves.png"}
    refused = CliRunner().invoke(app, ["compare", str(folder), str(second), "--out", "page.pdf"])
    assert refused.exit_code == 2
    assert refused.stderr == "modalign: --out must end in .html, got page.pdf\n"


def test_advise_writes_a_page_with_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advise, "advise", lambda *arguments, **options: advice())
    for name in ("x", "y"):
        np.save(tmp_path / f"{name}.npy", np.zeros((4, 2), np.float32))
    (tmp_path / "labels.txt").write_text("a\nb\na\nb\n")
    page = tmp_path / "advice.html"
    command = ["advise", *(str(tmp_path / name) for name in ("x.npy", "y.npy", "labels.txt")), "--out"]
    result = CliRunner().invoke(app, [*command, str(page)])
    assert result.exit_code == 0, result.output
    text = page.read_text()
    for said in (*advice().sentences(), advise.trust().replace("`", "")):
        assert said in text.replace("&#39;", "'")
    pictures = {path.stem for path in (tmp_path / "advice-figures").iterdir()}
    assert pictures == {".modalign", "information", "neighbours"}
    assert CliRunner().invoke(app, [*command, "advice.txt"]).exit_code == 2
