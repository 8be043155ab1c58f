"""The vision-language study by the paper's protocol: concatenated layers, and captions by uniqueness from files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from modalign.cli import app
from modalign.data import emoji, emoji_texts
from modalign.experiments.studies import vision_language
from modalign.experiments.studies.caption_changes import changed_captions
from modalign.experiments.studies.caption_levels import read_captions
from modalign.report.pages import vision_language as page

PAPER = dataclasses.replace(vision_language.GRIDS["paper"][1], relabellings=19, k=5)
TEXTS = emoji_texts(tags=True)[:60]
LEVELS = (10, 50, 100)


def published(file: Path) -> Path:
    """Write captions in the form of the published data.json, images in another order."""
    captions = {level: changed_captions(TEXTS, level, "replaced") for level in LEVELS}
    entries = [
        {
            f"Index - {i}": {
                "sentences": {f"Caption {c} - {level}%": captions[level][i] for c, level in enumerate(LEVELS)}
            }
        }
        for i in reversed(range(60))
    ]
    file.write_text(json.dumps(entries), encoding="utf-8")
    return file


def layers(seed: int, count: int, width: int) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=(60, width))).float() for _ in range(count)]


def test_all_layers_concatenated_score_as_in_the_published_code() -> None:
    """Its compute_score (commit 15f606f) finds 0.403333 for these rows, by the concatenations of both sides."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(60, 6))
    x, y = (
        [base @ rng.normal(size=(6, width)) + s * rng.normal(size=(60, width)) for s in noise]
        for width, noise in ((8, (3.0, 2.5, 2.0)), (10, (4.0, 3.0, 2.5, 2.0)))
    )
    sides = [[torch.from_numpy(rows).float() for rows in side] for side in (x, y)]
    grid = dataclasses.replace(PAPER, k=10)
    scores = vision_language._scores(grid, *(vision_language._prepared(s, "x", grid) for s in sides), lambda _: None)
    matrix = np.array(scores["mutual_knn"])
    assert matrix.shape == (4, 5)
    assert matrix.max() == matrix[-1, -1] == pytest.approx(0.4033333361148834, abs=1e-7)
    grid = dataclasses.replace(grid, protocol="default")
    assert len(vision_language._prepared(sides[0], "x", grid)) == 3


def test_captions_of_the_published_file_and_of_text_files_are_read_by_level(tmp_path: Path) -> None:
    published(tmp_path / "data.json")
    levels = read_captions(tmp_path)
    assert tuple(levels.given) == LEVELS
    assert levels.changed(50, "given", 0) == changed_captions(TEXTS, 50, "replaced")
    folder = tmp_path / "texts"
    folder.mkdir()
    for level in LEVELS:
        (folder / f"{level}.txt").write_text("\n".join(levels.given[level]), encoding="utf-8")
    assert read_captions(folder) == read_captions(tmp_path / "data.json") == levels
    assert levels.of([2, 0]).given[10] == [levels.given[10][2], levels.given[10][0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "expected a list of"),
        ('{"Index - 0": 3}', "expected a list of"),
        ('[{"Index - 0": {"sentences": {"Caption 1": "a"}}}]', "expected a list of"),
        ('[{"Index - 1": {"sentences": {"Caption 1 - 10%": "a"}}}]', "image 0 has no caption at 10 %"),
        ('[{"Index - 0": {"sentences": {"Caption 1 - 10%": " "}}}]', r"caption 0 \(from 0\) at 10 % has no words"),
        ("[]", "there are no captions by uniqueness; the folder must hold data.json"),
        (
            json.dumps([{f"Index - {i}": {"sentences": {"- 1%": "x"} | ({} if i else {"- 2%": "y"})}} for i in (0, 1)]),
            "every uniqueness must have as many captions, got 2 at 1 % and 1 at 2 %",
        ),
    ],
)  # fmt: skip
def test_captions_of_another_form_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path)


def test_the_study_of_given_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions are compared as they are, at the levels that the file has, and the page says what was run."""
    monkeypatch.setitem(vision_language.GRIDS, "paper", (PAPER, PAPER))
    np.save(tmp_path / "images.npy", emoji("image-image", pca=None).x[:60, :64].numpy())
    published(tmp_path / "data.json")
    out = tmp_path / "out"
    files = ["--images", str(tmp_path / "images.npy"), "--captions", str(tmp_path), "--encoder", "tfidf"]
    command = ["reproduce", "vision-language", "--protocol", "paper", "--quiet", "--out", str(out)]
    result = CliRunner().invoke(app, [*command, *files])
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(out / "alignment.parquet")
    assert sorted(table["uniqueness"].unique()) == list(LEVELS)
    assert set(table["kind"]) == {"given"}
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "protocol: paper" in text
    assert "captions as given" in text


def test_layers_of_files_are_scored_with_their_concatenation(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", torch.stack(layers(0, 2, 12), 1).numpy())
    (tmp_path / "captions.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    grid = dataclasses.replace(PAPER, uniqueness=(10, 50, 100), kinds=("deleted",), seeds=(0,))
    folder = vision_language.run(
        grid, tmp_path / "out", images=[tmp_path / "images.npy"], captions=tmp_path / "captions.txt", encoders=["tfidf"]
    )
    table = pd.read_parquet(folder / "layers.parquet")
    assert sorted(table["image_layer"].unique()) == [-1, 0, 1]
    assert table["text_layer"].unique().tolist() == [0]
    best = pd.read_parquet(folder / "alignment.parquet").set_index("uniqueness")["mutual_knn"]
    assert best.to_dict() == table.groupby("uniqueness")["mutual_knn"].max().to_dict()
    page.write(folder)


def test_given_captions_need_a_folder(tmp_path: Path) -> None:
    grid = dataclasses.replace(PAPER, kinds=("given",), seeds=(0,))
    with pytest.raises(ValueError, match="captions of kind given come from a folder that --captions names, got none"):
        vision_language.run(grid, tmp_path / "out", encoders=["tfidf"])
