"""The container and its split."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.data import TEST, TRAIN, VALIDATION, PairedDataset, load, require_trainable, split_of


@given(strata=st.lists(st.integers(0, 12), min_size=20, max_size=400), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_stratum_is_split_70_15_15(strata, seed):
    split = split_of(strata, seed=seed).numpy()
    for stratum in (None, *set(strata)):
        inside = np.ones(len(strata), bool) if stratum is None else np.array(strata) == stratum
        for part, share in ((TRAIN, 0.7), (VALIDATION, 0.15), (TEST, 0.15)):
            assert abs((split[inside] == part).sum() - share * inside.sum()) < 2.5


def test_the_split_is_fixed_by_its_seed_and_moves_with_it():
    strata = np.arange(500) % 7
    assert torch.equal(split_of(strata, seed=3), split_of(strata, seed=3))
    assert not torch.equal(split_of(strata, seed=3), split_of(strata, seed=4))


@pytest.mark.parametrize("strata", [np.zeros((3, 3), int), np.linspace(0, 1, 5), [0.0, np.nan]])
def test_strata_are_one_label_per_item(strata):
    with pytest.raises(ValueError, match="split_of: strata must be"):
        split_of(strata)
    words = ["ant", "bee"] * 20
    assert torch.equal(split_of(words), split_of([0.0, 1.0] * 20))


def pairs(n=40, **changes):
    rows = torch.arange(n)
    values = {"x": rows[:, None].float(), "y": -rows[:, None].float(), "labels": rows % 4, "split": split_of(rows % 4)}
    return PairedDataset(**({"name": "t", "modalities": ("a", "b"), "classes": tuple("0123")} | values | changes))


def test_parts_are_disjoint_cover_everything_and_keep_pairs_together():
    data = pairs(groups=torch.arange(40))
    parts = [data.part(which) for which in (TRAIN, VALIDATION, TEST)]
    assert sorted(torch.cat([part.groups for part in parts]).tolist()) == list(range(40))
    for which, part in zip((TRAIN, VALIDATION, TEST), parts, strict=True):
        assert torch.equal(part.x, -part.y)
        assert torch.equal(part.x[:, 0].long(), part.groups)
        assert (part.split == which).all()
        assert part.labels_y is None


def test_a_part_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="which must be one of"):
        pairs().part(3)


def test_rows_must_agree():
    with pytest.raises(ValueError, match="labels must have a row per pair, 40, got 39"):
        pairs(labels=torch.zeros(39, dtype=torch.int64))


def test_a_data_set_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        pairs().name = "other"


def test_load_knows_what_exists():
    with pytest.raises(ValueError, match=r"no data set 'mnist'; .*there are synthetic, emoji"):
        load("mnist")
    with pytest.raises(ValueError, match=r"emoji has no setting 'pairs'; .*it has pair, features, pairing"):
        load("emoji", pairs="image-text")
    with pytest.raises(ValueError, match=r"synthetic has no setting 'R'; .*it has redundancy, unique_1"):
        load("synthetic", R=3)
    with pytest.raises(ValueError, match="load: own needs x, y"):
        load("own", pca=3)


def test_load_passes_settings_on():
    assert load("synthetic", redundancy=8, n=60, seed=2).settings["seed"] == 2


def three(**changes):
    rows = torch.arange(40)
    return pairs(modalities=("a", "b", "c"), more=(rows[:, None, None].float() * torch.ones(1, 4, 2),), **changes)


def test_any_two_of_three_modalities_are_a_data_set():
    data = three(labels_y=(torch.arange(40) + 1) % 4, groups=torch.arange(40))
    later = data.pair(2, 1)
    assert later.modalities == ("c", "b")
    assert torch.equal(later.x, data.more[0])
    assert torch.equal(later.y, data.y)
    assert later.more == ()
    assert torch.equal(later.labels, data.labels)
    assert torch.equal(later.labels_y, data.labels_y)
    swapped = data.pair(1, 0)
    assert torch.equal(swapped.labels, data.labels_y)
    assert torch.equal(swapped.labels_y, data.labels)
    assert data.pair(0, 2).labels_y is None
    assert torch.equal(data.pair(0, 1).x, data.x)


def test_information_stays_with_the_modalities_it_is_of():
    data = load("synthetic", n=60)
    assert data.pair(0, 1).information == data.information
    assert data.pair(1, 0).information is None


def test_parts_cut_further_modalities_too():
    part = three().part(TEST)
    assert torch.equal(part.more[0][:, 0, :1], part.x)
    assert len(part.pair(1, 2)) == len(part)


@pytest.mark.parametrize(("i", "j"), [(0, 0), (0, 3), (-1, 1)])
def test_a_pair_is_two_modalities_that_exist(i, j):
    with pytest.raises(ValueError, match="must be two of the modalities 0 to 2"):
        three().pair(i, j)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.arange(40) % 5}, "labels must be from 0 to 3, one of the 4 classes, got 0 to 4"),
        ({"labels": torch.arange(40) % 4 - 1}, "labels must be from 0 to 3, one of the 4 classes, got -1 to 2"),
        ({"labels_y": torch.full((40,), 7)}, "labels_y must be from 0 to 3"),
        ({"labels": torch.zeros(40)}, r"classification task must be \(n,\) torch.int64, got \(40,\) torch.float32"),
        ({"labels": torch.zeros(40, 2, dtype=torch.int64)}, r"must be \(n,\) torch.int64, got \(40, 2\)"),
        ({"task": "regression"}, r"regression task must be \(n,\) torch.float32, got \(40,\) torch.int64"),
        ({"task": "regression", "labels": torch.full((40,), torch.nan)}, "labels must be finite"),
        ({"task": "multilabel", "labels": torch.zeros(40)}, r"must be \(n, L\) torch.float32"),
        ({"task": "multilabel", "labels": torch.zeros(40, 3)}, "a column per class, 4, got 3"),
        ({"task": "multilabel", "labels": torch.full((40, 4), 0.5)}, "must be 0 or 1"),
        ({"task": "ranking"}, "task must be one of classification, regression, multilabel, got 'ranking'"),
        ({"modalities": ("a", "b", "c")}, "modalities must name x, y and each of more, 2 in all"),
        (
            {"modalities": ("a", "b", "c"), "more": (torch.zeros(39, 2),)},
            r"more\[0\] must have a row per pair, 40, got 39",
        ),
    ],
)
def test_labels_and_modalities_must_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        pairs(**changes)


def test_other_tasks_are_held():
    assert pairs(task="regression", labels=torch.linspace(-3, 3, 40), classes=()).part(TRAIN).task == "regression"
    assert pairs(task="multilabel", labels=torch.eye(4).repeat(10, 1)).part(TEST).labels.shape == (6, 4)


def in_training(*labels):
    """The labels given, all in the training part."""
    return {"labels": torch.tensor(labels), "split": torch.zeros(len(labels), dtype=torch.int8), "n": len(labels)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (in_training(0, 0, 1, 1, 3), r"every class of labels must have at least 2 items .* '3' has 1"),
        (in_training(0, 0, 0), "at least 2 classes in the training part, got 1"),
        (
            {"labels_y": torch.where(torch.arange(40) == 0, 3, torch.arange(40) % 3)},
            "every class of labels_y must have at least 2",
        ),
        (in_training([1.0, 0, 1, 1], [1, 1, 0, 0]) | {"task": "multilabel"}, "for others; '0' is not"),
        (in_training(2.0, 2.0, 2.0) | {"task": "regression"}, "labels must differ among the training items"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_when_asked(changes, message):
    data = pairs(**changes)
    with pytest.raises(ValueError, match=message):
        require_trainable(data)


def test_a_class_that_is_only_tested_cannot_be_trained_on():
    data = pairs(split=torch.where(torch.arange(40) % 4 == 3, 2, 0).to(torch.int8))
    with pytest.raises(ValueError, match="'3' has 0"):
        require_trainable(data)


def test_what_can_be_trained_on_passes():
    require_trainable(pairs())
    require_trainable(pairs(classes=tuple("01234")))  # a class that nobody has
    require_trainable(pairs(task="regression", labels=torch.linspace(-3, 3, 40)))
    require_trainable(pairs(task="multilabel", labels=torch.eye(4).repeat(10, 1)))
