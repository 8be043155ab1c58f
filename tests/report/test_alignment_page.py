"""The page of an alignment: sentences that follow the numbers, everything escaped, every figure drawn."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

import modalign
from modalign.alignment.nulls import Null
from modalign.alignment.results import Chance
from modalign.report.pages.alignment import conclusions, write


@pytest.fixture(scope="module")
def found() -> modalign.Alignment:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6))
    return modalign.align(x, np.tanh(x) + 0.3 * rng.normal(size=x.shape), k=5, size_curve=True, relabellings=19)


def with_null(found: modalign.Alignment, metric: str, p: float | None) -> modalign.Alignment:
    scores = [
        dataclasses.replace(
            score, null=None if p is None else Null("closed form", 0.1, 0.01, p, 0.12, 0.0), chance=Chance(0.1, 0)
        )
        if score.metric == metric
        else score
        for score in found.scores
    ]
    return dataclasses.replace(found, scores=tuple(scores))


def test_sentences_follow_the_numbers(found: modalign.Alignment) -> None:
    first = conclusions(found)[0]
    score = found["mutual_knn"]
    assert first.startswith(
        f"Mutual k-NN is {score.value:.3f} ({score.low:.3f} to {score.high:.3f}), above chance, whose mean is"
    )
    assert (
        "within reach of chance, whose mean is 0.100 (p = 0.2)" in conclusions(with_null(found, "mutual_knn", 0.2))[0]
    )
    assert "it was not tested against chance" in conclusions(with_null(found, "mutual_knn", None))[0]
    assert any(
        sentence.startswith("Within reach of chance: linear CKA") and "(chance 0.100)" in sentence
        for sentence in conclusions(with_null(found, "cka", 0.5))
    )
    copies = dataclasses.replace(found, facts={"duplicates": {"x": {"items": 3}, "y": {"items": 0}}})
    assert conclusions(copies)[-1].startswith("3 items of x have an exact copy")
    hubs = {"hubness": {"y": {"largest": 5000, "antihubs": 0.25}}}
    assert (
        "5,000 others, and 25% of the items are neighbours of no other item"
        in conclusions(dataclasses.replace(found, facts=hubs))[-1]
    )


def test_the_page_holds_everything(found: modalign.Alignment, tmp_path: Path) -> None:
    text = write(found, tmp_path / "a.html").read_text()
    for score in found.scores:
        assert f"{score.value:.4f}" in text
    drawn = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert set(drawn) == {"scores", "null", "k-curve", "size-curve"}
    assert all(f'id="{name}" data-figure' in text for name in drawn)
    assert drawn["k-curve"]["data"][0]["y"][-1] == pytest.approx(found["mutual_knn"].value)
    assert "http://" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)


def test_names_are_escaped(found: modalign.Alignment, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>.npy"
    named = dataclasses.replace(found, settings=found.settings | {"x": evil}, notes=(evil,))
    text = write(named, tmp_path / "a.html").read_text()
    assert evil not in text
    assert "&lt;script&gt;alert(1)" in text


def test_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 6))
    layers = modalign.align_layers([x, rng.normal(size=(150, 3))], [x[:, :4]], k=4, relabellings=19)
    text = write(layers, tmp_path / "l.html").read_text()
    assert f"layer 0 of x and layer 0 of y, counted from 0, have the highest mutual k-NN: {layers.value:.3f}." in text
    assert "That is beyond chance, by which the maximum over 2 pairs is" in text
    assert "(p ≤ 0.05)" in text
    assert "None of 19 relabellings reached the score, so p is at most 1/20" in text
    assert '"type": "heatmap"' in text
    assert "upright bars" not in text  # of a picture that this page has not
    assert "<dt>Interval</dt>" not in text


def test_the_lowest_distance_of_layers_is_the_best_and_the_brightest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 6))
    pages = {}
    for metric in ("cmd", "cka"):
        layers = modalign.align_layers([rng.normal(size=(150, 6)), x], [x[:, :4]], metric, k=4, relabellings=19)
        assert layers.best == (1, 0)
        text = write(layers, tmp_path / "l.html").read_text()
        drawn = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
        pages[metric] = repr(layers), re.sub(r"<script>.*?</script>", "", text, flags=re.S), drawn["layers"]["data"][0]
    said, page, drawing = pages["cmd"]
    assert "lowest" in said
    assert "chance of the minimum" in said
    assert "have the lowest correlation-matrix distance (lower is closer):" in page
    assert "by which the minimum over" in page
    assert "boxed: the lowest (lower is closer)" in page
    assert "lowest 0." in page  # for those who cannot see the picture
    for word in ("highest", "maximum"):
        assert word not in said + page
    colours = [colour for _, colour in pages["cka"][2]["colorscale"]]
    assert [colour for _, colour in drawing["colorscale"]] == colours[::-1]


def test_a_distance_says_which_way_is_closer_and_no_zero_is_negative(found: modalign.Alignment, tmp_path: Path) -> None:
    first = found["mutual_knn"]
    null = Null("relabelled", -0.00001, 0.01, 1 / 201, 0.0, 0.5, 200)
    scores = [dataclasses.replace(first, metric=name, value=-0.00001, null=null) for name in ("cmd", "unbiased_cka")]
    distances = dataclasses.replace(found, scores=(*scores, first))
    said = conclusions(distances)
    assert said[0].startswith("Correlation-matrix distance (lower is closer) is 0.000 (")
    assert ", below chance, whose mean is 0.000 (p ≤ 0.005)" in said[0]
    page = re.sub(r"<script>.*?</script>", "", write(distances, tmp_path / "a.html").read_text(), flags=re.S)
    assert "-0.000" not in page
    assert page.count("p ≤ 0.005: none of 200 relabellings reached the score, so p is at most 1/201") == 1
    drawn = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert "correlation-matrix distance<br>(lower is closer)" in drawn["scores"]["data"][0]["y"]
    assert "correlation-matrix distance" in drawn["null"]["data"][0]["y"]  # calibrated: higher is closer
    unreached = dataclasses.replace(scores[0], null=dataclasses.replace(null, p=0.4))
    assert "within reach of chance" in conclusions(dataclasses.replace(found, scores=(unreached,)))[0]
