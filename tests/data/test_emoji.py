"""The embedded emoji set: what is in it, its split, its redundancy dial."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from modalign import mutual_knn
from modalign.data import TEST, TRAIN, VALIDATION, emoji, emoji_texts, emoji_vocabulary

PARTS = (TRAIN, VALIDATION, TEST)


@pytest.fixture(scope="module")
def true():
    return emoji("image-text")


def test_what_is_there(true):
    assert len(true) == 1644
    assert true.classes == (
        "smileys-emotion",
        "people-body",
        "animals-nature",
        "food-drink",
        "travel-places",
        "activities",
        "objects",
        "symbols",
    )
    assert true.x.dtype == true.y.dtype == torch.float32
    assert true.labels_y is None
    assert true.groups_y is None
    assert torch.bincount(true.labels).min() > 80
    flags = emoji("image-text", flags=True)
    assert (len(flags), flags.classes[-1]) == (1652, "flags")
    assert emoji_texts()[0] == "grinning face"
    assert "cheerful" in emoji_texts(tags=True)[0]


def test_embedded_files_are_small_and_plain():
    sizes = {file.name: len(file.read_bytes()) for file in files("modalign.data").joinpath("emoji_files").iterdir()}
    assert set(sizes) == {f"{v}.{e}" for v in ("twemoji", "noto") for e in ("png", "npz")} | {
        "label.npz",
        "tags.npz",
        "items.json",
    }
    assert max(sizes.values()) < 3e6


def test_the_split_is_70_15_15_in_every_class(true):
    for label in range(8):
        counts = torch.bincount(true.split[true.labels == label].long(), minlength=3)
        assert (counts - counts.sum() * torch.tensor([0.7, 0.15, 0.15])).abs().max() < 3


def test_the_same_seed_gives_the_same_data(true):
    again, other = emoji("image-text"), emoji("image-text", seed=1)
    assert torch.equal(true.x, again.x)
    assert torch.equal(true.split, again.split)
    assert not torch.equal(true.split, other.split)
    assert torch.equal(true.labels, other.labels)


@pytest.mark.parametrize(("pair", "score"), [("image-text", 0.197), ("image-image", 0.305), ("text-text", 0.364)])
def test_true_pairs_share_neighbours(pair, score):
    """The features are those of real encoders of the same thing; what they share is known."""
    full = emoji(pair, pca=None)
    assert mutual_knn(full.x, full.y, 10) == pytest.approx(score, abs=0.005)
    reduced = emoji(pair)
    assert mutual_knn(reduced.x, reduced.y, 10) == pytest.approx(score, abs=0.02)


def test_a_linear_classifier_reads_the_class_from_either_modality(true):
    for values, least in ((true.x, 0.65), (true.y, 0.75)):
        x, labels, train = values.numpy(), true.labels.numpy(), true.split.numpy() == TRAIN
        assert RidgeClassifier(alpha=300).fit(x[train], labels[train]).score(x[~train], labels[~train]) > least


def test_components_come_from_the_training_part_alone(true):
    train = true.part(TRAIN).x.double()
    assert train.mean(0).abs().max() < 1e-5
    covariance = train.T @ train / len(train)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-5
    assert covariance.diag().mean() == pytest.approx(1, abs=1e-5)
    assert (covariance.diag()[:-1] >= covariance.diag()[1:] - 1e-6).all()
    assert true.part(TEST).x.mean(0).abs().max() > 0.01


def test_fewer_components_are_the_first_of_more(true):
    few = emoji("image-text", pca=7)
    ratio = few.x / true.x[:, :7]
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-3)
    assert emoji("image-text", pca=None).x.shape[1] == 1280


def rows_of(values, table):
    """For every row, its index in a table of the same, distinct rows (-1 for rows that occur twice)."""
    where = {}
    for i, row in enumerate(table.numpy()):
        where[row.tobytes()] = -1 if row.tobytes() in where else i
    return np.array([where[row.tobytes()] for row in values.numpy()])


@pytest.mark.parametrize("pairing", ["within-group", "random"])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.6, 1.0])
def test_the_dial_permutes_the_fraction_it_says_and_leaks_nothing(true, pairing, fraction):
    data = emoji("image-text", pairing=pairing, fraction=fraction)
    partner = rows_of(data.y, true.y)
    known = partner >= 0
    assert known.mean() > 0.99
    assert torch.equal(data.x, true.x)
    assert torch.equal(data.split, true.split)
    for part in PARTS:
        inside = known & (data.split.numpy() == part)
        assert (true.split.numpy()[partner[inside]] == part).all()
        moved = (partner[inside] != np.flatnonzero(inside)).mean()
        assert moved == pytest.approx(fraction, abs=0.03)
    labels_y = data.labels if data.labels_y is None else data.labels_y
    assert np.array_equal(true.labels.numpy()[partner[known]], labels_y.numpy()[known])
    if pairing == "within-group":
        assert data.labels_y is None
    groups_y = data.groups if data.groups_y is None else data.groups_y
    assert np.array_equal(true.groups.numpy()[partner[known]], groups_y.numpy()[known])
    assert sorted(partner[known]) == sorted(set(partner[known]))


def test_a_larger_fraction_permutes_the_same_pairs_and_more(true):
    half, more = (emoji("image-text", pairing="random", fraction=f) for f in (0.3, 0.7))
    moved = [(data.y != true.y).any(1) for data in (half, more)]
    assert (moved[1] | ~moved[0]).all()


def test_permuting_destroys_what_the_modalities_share():
    scores = [
        mutual_knn(data.x, data.y, 10)
        for data in (emoji(pairing="true"), emoji(pairing="within-group"), emoji(pairing="random"))
    ]
    assert scores[0] > 0.15
    assert 0.01 < scores[1] < 0.05
    assert scores[2] < 0.012


def test_random_pairing_leaves_classes_to_chance():
    data = emoji(pairing="random")
    shares = torch.bincount(data.labels) / len(data)
    assert (data.labels == data.labels_y).float().mean() == pytest.approx(shares.square().sum().item(), abs=0.03)


def test_raw_features_are_pixels_and_words():
    data = emoji("image-text", features="raw")
    assert data.x.shape == (1644, 3, 32, 32)
    assert data.x.dtype == torch.uint8
    assert data.x[:, :, 0, 0].float().mean() > 200  # drawn on white
    assert data.y.dtype == torch.int64
    words = emoji_vocabulary()
    assert words[:2] == ["", "?"]
    first = [words[i] for i in data.y[0].tolist() if i]
    assert first == ["grinning", "face"]
    assert int(data.y.max()) == len(words) - 1


def test_words_of_other_parts_are_unknown_unless_training_texts_have_them():
    data = emoji("text-text", features="raw")
    assert (data.part(TRAIN).x != 1).all()
    assert (data.part(TEST).x == 1).any()


def test_two_vendors_draw_the_same_things_differently():
    data = emoji("image-image", features="raw")
    difference = (data.x.float() - data.y.float()).abs().mean((1, 2, 3))
    assert difference.min() > 0
    assert difference.mean() < (data.x.float() - data.y.roll(1, 0).float()).abs().mean()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pair": "image-audio"}, "pair must be one of image-text, image-image, text-text, got 'image-audio'"),
        ({"features": "pixels"}, "features must be one of frozen, raw, got 'pixels'"),
        ({"pairing": "shuffled"}, "pairing must be one of true, within-group, random, got 'shuffled'"),
        ({"pairing": True}, "pairing must be one of true, within-group, random, got True"),
        ({"fraction": 1.5}, "from 0 to 1, got 1.5"),
        ({"fraction": float("nan")}, "from 0 to 1, got nan"),
        ({"pca": 0}, "pca must be from 1 to 384 components here, or None for no reduction, got 0"),
        ({"pca": 2000}, "pca must be from 1 to"),
    ],
)
def test_refuses_settings_that_do_not_exist(settings, message):
    with pytest.raises(ValueError, match=message):
        emoji(**{"pair": "text-text"} | settings)
