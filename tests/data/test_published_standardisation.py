"""Features standardised as the code of Tjandrasuwita et al. does it: by all steps, and by MFCC coefficient."""

import pickle

import numpy as np
import pytest
import torch

from modalign.data import TRAIN, affect, av_mnist

PARTS = {"train": 9, "valid": 4, "test": 5}


@pytest.fixture
def videos(tmp_path):
    rng = np.random.default_rng(0)
    table = {}
    for part, n in PARTS.items():
        padded = np.arange(50) < (50 - rng.integers(1, 51, n))[:, None]
        arrays = {name: rng.normal(3, 2, (n, 50, d)) for name, d in (("vision", 4), ("audio", 3), ("text", 6))}
        arrays["vision"][:, :, 1] = 0.1  # a constant feature
        for values in arrays.values():
            values[padded] = 0
        arrays["text"][:, -1] = 0  # a last word without embedding is no padding
        arrays["text"][:, -2] = 1
        table[part] = {**arrays, "labels": rng.normal(size=(n, 1, 1))}
    (tmp_path / "mosi.pkl").write_bytes(pickle.dumps(table))
    return tmp_path / "mosi.pkl", table


def test_vision_and_audio_are_standardised_over_all_steps_and_text_is_not(videos):
    path, table = videos
    data = affect(path, "mosi", ("vision", "audio", "text"), standardise="multibench")
    train = data.split == TRAIN
    spoken = torch.from_numpy(np.logical_or.accumulate((table["train"]["text"] != 0).any(2), axis=1))
    for x, name in ((data.x, "vision"), (data.y, "audio")):
        raw = table["train"][name]
        mean, deviation = raw.mean((0, 1)), raw.std((0, 1))
        expected = np.where(spoken[:, :, None], (raw - mean) / deviation, 0)
        assert x[train].numpy() == pytest.approx(expected, abs=1e-5)
        assert not x[train][~spoken].any()
    assert np.array_equal(data.more[0][train].numpy(), table["train"]["text"].astype(np.float32))
    assert torch.equal(affect(**data.settings).x, data.x)


def test_another_way_to_standardise_is_refused(videos):
    with pytest.raises(ValueError, match="standardise must be one of True, False, multibench, got 'multibnch'"):
        affect(videos[0], "mosi", standardise="multibnch")


@pytest.fixture
def digits(tmp_path):
    rng = np.random.default_rng(0)
    for modality in ("image", "audio"):
        (tmp_path / modality).mkdir()
    for part, n in (("train", 60), ("test", 10)):
        audio = rng.normal(size=(n, 20, 36)) * np.linspace(9, 0.1, 20)[:, None] - np.linspace(50, 0, 20)[:, None]
        audio[:, 7] = 3
        np.save(tmp_path / "audio" / f"{part}_data.npy", audio)
        np.save(tmp_path / "image" / f"{part}_data.npy", rng.integers(0, 256, (n, 784)).astype(np.uint8))
        np.save(tmp_path / f"{part}_labels.npy", rng.integers(0, 10, n).astype(np.float64))
    return tmp_path


def test_every_mfcc_coefficient_has_mean_0_and_variance_1_and_labels_may_be_floats(digits):
    data = av_mnist(digits, features="tokens")
    assert data.labels.dtype == torch.int64
    train = data.y[:55]
    varying = [row for row in range(20) if row != 7]
    assert train.mean((0, 2))[varying].abs().max() < 1e-4
    assert train.std((0, 2), correction=0)[varying].numpy() == pytest.approx(1, abs=1e-4)
    assert not data.y[:, 7].any()  # a constant coefficient says nothing
    raw = np.load(digits / "audio" / "train_data.npy")[:55]
    expected = (raw - raw.mean((0, 2), keepdims=True)) / raw.std((0, 2), keepdims=True).clip(1e-9)
    assert train[:, varying].numpy() == pytest.approx(expected[:, varying], abs=1e-4)
    whole = av_mnist(digits, features="tokens", coefficients=False).y[:55]
    assert whole.mean().abs() < 1e-4
    assert whole.mean((0, 2)).abs().max() > 0.5


def test_pixels_are_divided_by_255_as_the_papers_code_does(digits):
    data = av_mnist(digits, standardise="multibench")
    raw = np.load(digits / "image" / "train_data.npy")
    assert data.x[:60].numpy() == pytest.approx(raw / 255, abs=1e-6)
    assert torch.equal(data.y, av_mnist(digits).y)
    assert torch.equal(av_mnist(**data.settings).x, data.x)
    with pytest.raises(ValueError, match="standardise must be one of True, multibench"):
        av_mnist(digits, standardise=False)
