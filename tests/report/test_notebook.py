"""Tests of how alignments show themselves in a notebook."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import modalign


@pytest.fixture(scope="module")
def alignment() -> modalign.Alignment:
    x, y = np.random.default_rng(0).normal(size=(2, 100, 4))
    return modalign.align(x, x + y, ["mutual_knn", "cka"], k=3, intervals=False)


@pytest.fixture(scope="module")
def layers() -> modalign.LayerAlignment:
    x, y = np.random.default_rng(0).normal(size=(2, 100, 4))
    return modalign.align_layers([x, y], [x + y], "cka", relabellings=19)


def test_a_table_of_scores(alignment: modalign.Alignment) -> None:
    html = alignment._repr_html_()
    for score in alignment.scores:
        assert f"<td>{score.value:.4f}</td>" in html
    assert "<td>linear CKA</td>" in html
    assert "<td>–</td>" in html  # no interval


def test_notes_are_escaped(alignment: modalign.Alignment) -> None:
    html = dataclasses.replace(alignment, notes=("<script>",))._repr_html_()
    assert "Note: &lt;script&gt;" in html


def test_the_best_pair_of_layers_is_bold(layers: modalign.LayerAlignment) -> None:
    html = layers._repr_html_()
    assert f"<td><strong>{layers.value:.3f}</strong></td>" in html
    assert html.count("<strong>") == 1


def test_pictures(alignment: modalign.Alignment, layers: modalign.LayerAlignment, tmp_path: Path) -> None:
    for result in (alignment, layers):
        plot = result.plot()
        assert plot._repr_svg_().startswith("<?xml")
        assert plot.save(tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
        with pytest.raises(ValueError, match=r"must end in \.svg or \.png, got .*plot\.jpg"):
            plot.save(tmp_path / "plot.jpg")
