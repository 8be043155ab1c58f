"""The container and its split."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.data import TEST, TRAIN, VALIDATION, PairedDataset, load, split_of


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


@pytest.mark.parametrize("strata", [np.zeros((3, 3), int), np.zeros(5)])
def test_strata_are_one_whole_number_per_item(strata):
    with pytest.raises(ValueError, match="whole numbers"):
        split_of(strata)


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
    with pytest.raises(ValueError, match="no data set 'mnist'; there are synthetic, emoji"):
        load("mnist")
    with pytest.raises(ValueError, match=r"emoji has no setting 'pairs'; it has pair, features, pairing"):
        load("emoji", pairs="image-text")
    with pytest.raises(ValueError, match=r"synthetic has no setting 'R'; it has redundancy, unique_1"):
        load("synthetic", R=3)


def test_load_passes_settings_on():
    assert load("synthetic", redundancy=8, n=60, seed=2).settings["seed"] == 2
