"""Sentences for tables whose answer is known before any statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from modalign.report import conclusions
from report.sweeps import STRENGTHS, constant, write_sweep

LEVELS = (0.60, 0.64, 0.62)  # one for each seed, the same at every strength
RISE = {0.0: 0.0, 0.5: 0.03, 1.0: 0.05}
FALL = {0.0: 0.0, 0.5: -0.02, 1.0: -0.10}
PEAK = {0.0: 0.0, 0.5: 0.04, 1.0: -0.02}
FLAT = {0.0: 0.0, 0.5: 0.0, 1.0: 0.0}
# seeds do not move alike, by as much: in the gain, t(2) sd / sqrt(3) = 4.3027 x 0.1 / 1.7321 = 0.248 points
WOBBLE = (-0.001, 0.0, 0.001)


def sentence(
    folder: Path, first: Mapping[float, float], second: Mapping[float, float], seeds: Sequence[int] = (0, 1, 2)
) -> str:
    """The conclusion for two modalities whose accuracies change as said, in validation and test alike."""

    def accuracies(case: str, modality: int, strength: float) -> tuple[Sequence[float], Sequence[float]]:
        change = (first, second)[modality - 1][strength]
        values = [level + change + (wobble if change else 0) for level, wobble in zip(LEVELS, WOBBLE, strict=True)]
        return values, values

    write_sweep(folder, accuracies, cases=["true pairs"], strengths=list(first), seeds=seeds, epochs=2)
    (only,) = conclusions(folder)
    return only


def test_rise_and_fall(tmp_path: Path) -> None:
    assert sentence(tmp_path, FALL, RISE) == (
        "true pairs: best strength for text is 1 [1, 1], +5.0 points [4.8, 5.2] over no alignment (rises); "
        "no gain for image (falls, best without alignment, strength 1 costs 10.0 points [9.8, 10.2])."
    )


def test_peak_and_flat(tmp_path: Path) -> None:
    assert sentence(tmp_path, PEAK, FLAT) == (
        "true pairs: best strength for image is 0.5 [0.5, 0.5], +4.0 points [3.8, 4.2] over no alignment "
        "(peaks between, strength 1 costs 2.0 points [1.8, 2.2]); "
        "no gain for text (flat, validation chose no alignment, 0 [0, 0])."
    )


def test_a_gain_whose_interval_holds_zero_is_no_gain(tmp_path: Path) -> None:
    # the seeds gain 3, -1 and 1 points: mean 1, t(2) x 2 / sqrt(3) = 4.97
    table = {0.0: (0.60, 0.64, 0.62), 0.5: (0.63, 0.63, 0.63)}
    write_sweep(tmp_path, constant(table), cases=["c"], strengths=[0.0, 0.5], seeds=[0, 1, 2], epochs=2)
    (only,) = conclusions(tmp_path)
    change = "+1.0 points [-4.0, 6.0] at the strength validation chose, 0.5 [0, 0.5]"
    assert only.startswith(f"c: no gain for image (undecided, {change}); ")


def test_test_accuracy_has_no_part_in_choosing_the_strength(tmp_path: Path) -> None:
    validation = {0.0: 0.5, 0.5: 0.6, 1.0: 0.4}
    test = {0.0: 0.5, 0.5: 0.4, 1.0: 0.9}
    write_sweep(
        tmp_path,
        lambda case, modality, strength: ([validation[strength]] * 3, [test[strength]] * 3),
        cases=["c"],
        strengths=[0.0, 0.5, 1.0],
        seeds=[0, 1, 2],
        epochs=2,
    )
    assert conclusions(tmp_path) == [
        "c: no gain for image (rises, -10.0 points [-10.0, -10.0] at the strength validation chose, 0.5 [0.5, 0.5], "
        "strength 1 adds +40.0 points [40.0, 40.0]); "
        "no gain for text (rises, -10.0 points [-10.0, -10.0] at the strength validation chose, 0.5 [0.5, 0.5], "
        "strength 1 adds +40.0 points [40.0, 40.0])."
    ]


def test_one_seed_has_no_interval_and_claims_nothing(tmp_path: Path) -> None:
    table = {0.0: [0.6], 0.5: [0.65], 1.0: [0.5]}
    write_sweep(tmp_path, constant(table), cases=["c"], strengths=list(table), seeds=[4], epochs=2)
    assert conclusions(tmp_path) == [
        "c: best strength for image is 0.5, +5.0 points over no alignment; "
        "best strength for text is 0.5, +5.0 points over no alignment; one seed, so no interval can be given."
    ]


def test_without_strength_zero_the_smallest_is_the_baseline(tmp_path: Path) -> None:
    rise, fall = {0.25: 0.0, 1.0: 0.03}, {0.25: 0.0, 1.0: -0.03}
    assert sentence(tmp_path, rise, fall) == (
        "true pairs: best strength for image is 1 [1, 1], +3.0 points [2.8, 3.2] over strength 0.25 (rises); "
        "no gain for text (falls, best at strength 0.25, strength 1 costs 3.0 points [2.8, 3.2]); "
        "there is no strength 0, so the smallest, 0.25, is the baseline."
    )


def test_one_strength_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    assert sentence(tmp_path, {0.5: 0.0}, {0.5: 0.0}) == (
        "true pairs: only strength 0.5 was run, so there is nothing to compare."
    )


def test_a_bound_just_above_zero_is_not_written_as_zero(tmp_path: Path) -> None:
    # gains of 0.10, 0.12 and 0.14 points: half-width 4.3027 x 0.02 / sqrt(3) = 0.0497, and then three times as much
    narrow = {0.0: (0.6, 0.6, 0.6), 0.5: (0.6010, 0.6012, 0.6014)}
    wide = {0.0: (0.6, 0.6, 0.6), 0.5: (0.6006, 0.6012, 0.6013)}
    for table, text in ((narrow, "+0.1 points [0.1, 0.2]"), (wide, "+0.1 points [0.01, 0.2]")):
        write_sweep(tmp_path, constant(table), cases=["c"], strengths=[0.0, 0.5], seeds=[0, 1, 2], epochs=2)
        assert text in conclusions(tmp_path)[0]


def test_every_case_has_its_sentence_in_the_order_of_the_configuration(tmp_path: Path) -> None:
    cases = ["zebra", "a", "true pairs"]
    write_sweep(tmp_path, constant({s: [0.5, 0.6] for s in STRENGTHS}), cases=cases, seeds=[0, 1], epochs=2)
    assert [text.partition(":")[0] for text in conclusions(tmp_path)] == cases


@pytest.mark.parametrize(
    ("pair", "names"),
    [("image-text", ("image", "text")), ("text-text", ("text 1", "text 2")), ("", ("modality 1", "modality 2"))],
)
def test_modalities_are_named_after_the_pair(tmp_path: Path, pair: str, names: tuple[str, str]) -> None:
    write_sweep(tmp_path, constant({0.0: [0.5, 0.6]}), cases=["c"], strengths=[0.0], seeds=[0, 1], pair=pair)
    from modalign.experiments.sweep.results import read

    assert read(tmp_path).cases[0].modalities == names
