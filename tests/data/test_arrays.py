"""Scaling by the training part, tokens, pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from modalign.data.arrays import pixels_of, scaled, scaled_sequences, token_ids, vocabulary

RNG = np.random.default_rng(0)
TRAIN = np.arange(50) < 35


def test_scaling_keeps_the_geometry_and_sees_the_training_part_alone():
    values = RNG.normal(3, [1, 10, 100], (50, 3))
    out = scaled(values, TRAIN)
    assert out.dtype == torch.float32
    assert out[:35].mean(0).abs().max() < 1e-5
    assert out[:35].var(0, correction=0).mean() == pytest.approx(1, abs=1e-5)
    assert torch.cdist(out, out)[0, 1] / torch.cdist(out, out)[2, 3] == pytest.approx(
        np.linalg.norm(values[0] - values[1]) / np.linalg.norm(values[2] - values[3]), rel=1e-4
    )
    changed = np.where(TRAIN[:, None], values, 1e6)
    assert torch.equal(scaled(changed, TRAIN)[:35], out[:35])


def test_columns_of_different_units_weigh_the_same_and_constant_ones_nothing():
    out = scaled(
        np.column_stack([RNG.normal(0, 1e4, 50), RNG.normal(0, 1e-4, 50), np.full(50, 7)]), TRAIN, columns=True
    )
    variance = out[:35].var(0, correction=0)
    assert variance[0] == pytest.approx(variance[1].item(), rel=1e-4)
    assert not out[:, 2].any()


def test_components_are_uncorrelated_and_fall():
    out = scaled(RNG.normal(size=(50, 6)) @ RNG.normal(size=(6, 6)), TRAIN, pca=4)[:35].double()
    covariance = out.T @ out / 35
    assert out.shape == (35, 4)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-5
    assert (covariance.diag()[:-1] >= covariance.diag()[1:]).all()


def test_scaling_refuses_what_it_cannot_do():
    with pytest.raises(
        ValueError, match="mine: pca must be from 1 to 3 components here, or None for no reduction, got 4"
    ):
        scaled(np.eye(50)[:, :3], TRAIN, pca=4, name="mine")
    with pytest.raises(ValueError, match="mine: the training rows are all the same"):
        scaled(np.where(TRAIN[:, None], 1.0, 2.0), TRAIN, name="mine")
    with pytest.raises(ValueError, match="padding alone"):
        scaled_sequences(np.zeros((50, 3, 2)), TRAIN)


def test_padding_stays_zero_and_counts_for_nothing():
    lengths = RNG.integers(1, 9, 50)
    values = RNG.normal(5, [2, 30], (50, 8, 2))
    padded = np.arange(8) < (8 - lengths)[:, None]
    values[padded] = 0
    out = scaled_sequences(values, TRAIN).numpy()
    assert not out[padded].any()
    known = out[:35][~padded[:35]]
    assert known.mean(0) == pytest.approx([0, 0], abs=1e-5)
    assert known.std(0) == pytest.approx([1, 1], abs=1e-5)
    longer = np.concatenate([np.zeros((50, 4, 2)), values], 1)
    assert np.array_equal(scaled_sequences(longer, TRAIN).numpy()[:, 4:], out)


def test_a_zero_frame_inside_a_sequence_is_no_padding():
    out = scaled_sequences([[[0.0], [4.0], [0.0], [2.0]]], np.array([True])).flatten()
    assert out[0] == 0
    assert out[2] == pytest.approx(-2 / np.sqrt(8 / 3), rel=1e-5)


def test_words_that_training_texts_lack_are_unknown():
    texts = ["red fox", "red hen", "blue fox!"]
    assert vocabulary(texts[:2]) == ["", "?", "red", "fox", "hen"]
    ids = token_ids(texts, np.array([True, True, False]))
    assert ids.tolist() == [[2, 3], [2, 4], [1, 3]]
    assert token_ids(["", "a b"], np.array([True, True])).tolist() == [[0, 0], [2, 3]]


def test_images_are_centred_on_white_whatever_their_form(tmp_path):
    wide, clear = tmp_path / "wide.png", tmp_path / "clear.png"
    Image.new("RGB", (64, 16), "red").save(wide)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear)
    pixels = pixels_of([wide, clear], 32)
    assert pixels.shape == (2, 3, 32, 32)
    assert pixels.dtype == torch.uint8
    assert pixels[0, :, 15, 15].tolist() == [255, 0, 0]
    assert (pixels[0, 1] == 0).any(1).nonzero().flatten().tolist() == list(range(12, 20))
    assert (pixels[1] == 255).all()
    (tmp_path / "no.png").write_text("text")
    with pytest.raises(ValueError, match=r"no.png cannot be read as an image"):
        pixels_of([tmp_path / "no.png"])
