"""MultiBench's files, made here in their form and small."""

import importlib.util
import pickle
import re

import numpy as np
import pytest
import torch

from modalign.data import TEST, TRAIN, VALIDATION, affect, av_mnist, mm_imdb, require_trainable

SIZES = {"train": 12, "valid": 5, "test": 6}
WIDTHS = {"vision": 20, "audio": 5, "text": 300}


def corpus(dataset="mosi", seed=0):
    rng = np.random.default_rng(seed)
    table = {}
    for part, n in SIZES.items():
        lengths = rng.integers(1, 51, n)
        padded = np.arange(50) < (50 - lengths)[:, None]
        arrays = {name: rng.normal(3, 2, (n, 50, width)).astype(np.float32) for name, width in WIDTHS.items()}
        for values in arrays.values():
            values[padded] = 0
        labels = rng.uniform(-3, 3, (n, 1, 1)) if dataset in ("mosi", "mosei") else np.arange(n)[:, None] % 2
        if dataset == "sarcasm":
            labels = labels * 2 - 1
        ids = np.array([f"video[{i}]" for i in range(n)], dtype=object)
        table[part] = {**arrays, "labels": labels, "id": ids}
    return table


def saved(tmp_path, table):
    file = tmp_path / "corpus.pkl"
    file.write_bytes(pickle.dumps(table))
    return file


@pytest.mark.parametrize("dataset", ["mosi", "mosei", "humor", "sarcasm"])
def test_the_split_and_the_labels_are_those_of_the_file(tmp_path, dataset):
    table = corpus(dataset)
    data = affect(saved(tmp_path, table), dataset)
    assert torch.bincount(data.split.long()).tolist() == [12, 5, 6]
    assert data.x.shape == (23, 50, 20)
    assert data.y.shape == (23, 50, 300)
    raw = np.concatenate([table[part]["labels"].ravel() for part in SIZES])
    if dataset in ("mosi", "mosei"):
        assert data.task == "regression"
        assert data.labels.numpy() == pytest.approx(raw.astype(np.float32))
    else:
        assert data.task == "classification"
        assert data.labels.tolist() == (raw > 0).astype(int).tolist()
    require_trainable(data)
    assert torch.equal(affect(**data.settings).x, data.x)


def test_three_modalities_and_any_two_of_them(tmp_path):
    data = affect(saved(tmp_path, corpus()), "mosi", ("vision", "audio", "text"))
    pair = data.pair(1, 2)
    assert pair.modalities == ("audio", "text")
    assert torch.equal(pair.x, affect(data.settings["path"], "mosi", ("audio", "text")).x)


def test_features_are_standardised_over_training_frames_and_padding_stays(tmp_path):
    table = corpus()
    data = affect(saved(tmp_path, table), "mosi", ("vision", "audio"))
    raw = np.concatenate([table[part]["vision"] for part in SIZES])
    padded = torch.from_numpy((raw == 0).all(2))
    assert padded.any()
    assert not data.x[padded].any()
    train = data.split == TRAIN
    frames = data.x[train][~padded[train]]
    assert frames.mean(0).abs().max() < 1e-5
    assert frames.std(0, correction=0) == pytest.approx(np.ones(20), abs=1e-4)
    plain = affect(data.settings["path"], "mosi", ("vision", "audio"), standardise=False)
    assert np.array_equal(plain.x.numpy(), raw)


def test_items_without_text_are_dropped_whatever_the_modalities(tmp_path):
    table = corpus()
    table["train"]["text"][[2, 7]] = 0
    table["test"]["text"][0] = 0
    data = affect(saved(tmp_path, table), "mosi", ("vision", "audio"), standardise=False)
    assert torch.bincount(data.split.long()).tolist() == [10, 5, 5]
    kept = np.delete(np.arange(12), [2, 7])
    assert np.array_equal(data.part(TRAIN).x.numpy(), table["train"]["vision"][kept])
    assert data.part(TRAIN).labels.numpy() == pytest.approx(table["train"]["labels"].ravel()[kept].astype(np.float32))


def test_minus_infinity_in_audio_is_silence(tmp_path):
    table = corpus()
    table["valid"]["audio"][1, -1, 3] = -np.inf
    data = affect(saved(tmp_path, table), "mosi", ("audio", "text"), standardise=False)
    assert data.part(VALIDATION).x[1, -1, 3] == 0
    assert data.x.isfinite().all()


class Command:
    def __reduce__(self):
        return eval, ("open('was here', 'w')",)


def damaged(change):
    table = corpus("humor")
    change(table)
    return table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["train"].update(id=Command()), r"holds builtins.eval, and only dict, list"),
        (lambda t: t.pop("valid"), "must be a dict of train, valid and test dicts, it has no valid"),
        (lambda t: t["test"].pop("vision"), "test must have vision, it has audio, text, labels, id"),
        (
            lambda t: t["test"].update(vision=np.zeros((6, 20))),
            r"vision must be \(N, length, d\) numbers, got \(6, 20\)",
        ),
        (lambda t: t["test"].update(vision=np.zeros((5, 50, 20))), "5 rows of vision and 6 of text"),
        (lambda t: t["test"].update(vision=np.zeros((6, 50, 21))), "one length and width in train, valid and test"),
        (
            lambda t: t["train"]["vision"].fill(np.nan),
            r"train: vision must be finite, got NaN or inf in rows \[0, 1, 2\]",
        ),
        (lambda t: t["train"].update(labels=np.zeros(3)), r"labels must be one number a row, 12, got \(3,\)"),
        (lambda t: t["train"].update(labels=np.full((12, 1), 2)), r"labels of humor must be 0 or 1, got \[0 1 2\]"),
    ],
)
def test_affect_refuses_files_of_another_form(tmp_path, change, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        affect(saved(tmp_path, damaged(change)), "humor")
    assert not (tmp_path / "was here").exists()


def test_affect_refuses_impossible_settings(tmp_path):
    with pytest.raises(ValueError, match="dataset must be one of mosi, mosei, humor, sarcasm, got 'avec'"):
        affect("x.pkl", "avec")
    with pytest.raises(ValueError, match="two or more of vision, audio, text, each once"):
        affect("x.pkl", "mosi", ("text", "text"))
    with pytest.raises(ValueError, match="two or more of vision, audio, text"):
        affect("x.pkl", "mosi", "text")
    with pytest.raises(FileNotFoundError, match=r"no file x.pkl"):
        affect("x.pkl")


@pytest.fixture
def avmnist(tmp_path):
    rng = np.random.default_rng(0)
    for modality, shape in (("image", (784,)), ("audio", (112, 112))):
        (tmp_path / modality).mkdir()
        for part, n in (("train", 60), ("test", 10)):
            np.save(tmp_path / modality / f"{part}_data.npy", rng.integers(0, 256, (n, *shape)).astype(np.uint8))
    for part, n in (("train", 60), ("test", 10)):
        np.save(tmp_path / f"{part}_labels.npy", rng.integers(0, 10, n).astype(np.uint8))
    return tmp_path


def test_av_mnist_is_flat_or_tokens(avmnist):
    flat, tokens = av_mnist(avmnist), av_mnist(avmnist, features="tokens", audio_pool=4)
    assert torch.bincount(flat.split.long()).tolist() == [55, 5, 10]
    assert (flat.x.shape, flat.y.shape) == ((70, 784), (70, 112 * 112))
    assert (tokens.x.shape, tokens.y.shape) == ((70, 49, 16), (70, 28, 28))
    image = flat.x[3].reshape(28, 28)
    assert torch.equal(tokens.x[3, 9].reshape(4, 4), image[4:8, 8:12])
    for values in (flat.x, flat.y, tokens.x, tokens.y):
        assert values[:55].mean().abs() < 1e-5
        assert values[:55].std(correction=0) == pytest.approx(1, abs=1e-4)
    audio = np.concatenate([np.load(avmnist / f"audio/{part}_data.npy") for part in ("train", "test")]).astype(float)
    pooled = audio.reshape(70, 28, 4, 28, 4).mean((2, 4))
    assert np.corrcoef(pooled.ravel(), tokens.y.numpy().ravel())[0, 1] == pytest.approx(1, abs=1e-6)
    labels = np.concatenate([np.load(avmnist / f"{part}_labels.npy") for part in ("train", "test")])
    assert flat.labels.tolist() == labels.tolist()


def test_av_mnist_takes_mfcc_tokens_as_they_are(avmnist):
    for part, n in (("train", 60), ("test", 10)):
        np.save(avmnist / f"audio/{part}_data.npy", np.random.default_rng(1).normal(size=(n, 20, 36)))
    assert av_mnist(avmnist, features="tokens").y.shape == (70, 20, 36)


def test_av_mnist_refuses_files_of_another_form(avmnist):
    with pytest.raises(ValueError, match="features must be one of flat, tokens"):
        av_mnist(avmnist, features="rows")
    with pytest.raises(ValueError, match="audio_pool must divide 112 and 112, got 5"):
        av_mnist(avmnist, audio_pool=5)
    np.save(avmnist / "audio/test_data.npy", np.zeros((9, 112, 112)))
    with pytest.raises(ValueError, match=r"audio must be 10 rows .* got \(9, 112, 112\)"):
        av_mnist(avmnist)
    np.save(avmnist / "test_labels.npy", np.arange(3, 13))
    with pytest.raises(ValueError, match=r"test_labels.npy must hold one digit a row, .* from 3 to 12"):
        av_mnist(avmnist)
    (avmnist / "train_labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*train_labels.npy"):
        av_mnist(avmnist)


def films(n=60):
    rng = np.random.default_rng(0)
    return {
        "features": rng.normal(size=(n, 30)).astype(np.float32),
        "vgg_features": rng.normal(size=(n, 40)).astype(np.float32),
        "genres": rng.integers(0, 2, (n, 4)),
    }


def test_films_have_several_labels(tmp_path):
    arrays = films()
    np.savez(tmp_path / "films.npz", **arrays, classes=["drama", "comedy", "war", "crime"])
    data = mm_imdb(tmp_path / "films.npz")
    assert (data.task, data.classes[3]) == ("multilabel", "crime")
    assert (data.x.shape, data.y.shape) == ((60, 40), (60, 30))
    assert np.array_equal(data.labels.numpy(), arrays["genres"])
    assert np.corrcoef(data.x[:, 0], arrays["vgg_features"][:, 0])[0, 1] == pytest.approx(1, abs=1e-6)
    assert torch.bincount(data.split.long()).tolist() == [42, 9, 9]
    require_trainable(data)


def test_all_films_are_split_as_published(tmp_path):
    n = 25959
    arrays = {"features": np.arange(2.0 * n).reshape(n, 2), "vgg_features": np.arange(2.0 * n).reshape(n, 2)}
    np.savez(tmp_path / "films.npz", **arrays, genres=np.ones((n, 1)))
    split = mm_imdb(tmp_path / "films.npz").split
    assert [int((split == part).sum()) for part in (TRAIN, VALIDATION, TEST)] == [15552, 2608, 7799]
    assert (split.diff() >= 0).all()


def test_hdf5_is_read_or_its_package_named(tmp_path):
    file = tmp_path / "multimodal_imdb.hdf5"
    if importlib.util.find_spec("h5py") is None:
        file.write_bytes(b"")
        with pytest.raises(ModuleNotFoundError, match="needs the h5py package: pip install h5py"):
            mm_imdb(file)
        return
    h5py = importlib.import_module("h5py")
    with h5py.File(file, "w") as out:
        for name, values in films().items():
            out[name] = values
    np.savez(tmp_path / "films.npz", **films())
    assert torch.equal(mm_imdb(file).x, mm_imdb(tmp_path / "films.npz").x)
    file.write_bytes(b"no such format")
    with pytest.raises(ValueError, match="must be a whole HDF5 file"):
        mm_imdb(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"genres": np.full((60, 4), 2)}, "genres must be (n, genres) of 0 and 1"),
        ({"features": np.zeros((59, 30))}, "features must be (60, d) floats, a row per film, got (59, 30)"),
        ({"features": np.full((60, 30), np.nan)}, "features must be finite"),
        ({"features": None}, "it has no features"),
    ],
)
def test_films_of_another_form_are_refused(tmp_path, changes, message):
    arrays = {name: values for name, values in (films() | changes).items() if values is not None}
    np.savez(tmp_path / "films.npz", **arrays)
    with pytest.raises(ValueError, match=re.escape(message)):
        mm_imdb(tmp_path / "films.npz")


def test_a_cut_keeps_the_last_steps_and_a_fixed_choice_of_pairs_of_sequences_standardised_whole(tmp_path):
    whole = affect(saved(tmp_path, corpus()), "mosi")
    cut = affect(whole.settings["path"], "mosi", steps=7, items=4)
    assert torch.bincount(cut.split.long()).tolist() == [4, 4, 4]
    assert cut.x.shape == (12, 7, 20)
    kept = [row for row in range(len(whole)) if any(torch.equal(whole.x[row, -7:], x) for x in cut.x)]
    assert len(kept) == 12
    assert torch.equal(cut.x, whole.x[kept, -7:])
    assert torch.equal(affect(**cut.settings).x, cut.x)
    assert whole.sample(100).fingerprint() == whole.fingerprint()
