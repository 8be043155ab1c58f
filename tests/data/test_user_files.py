"""A user's own pairs, from arrays and from files."""

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import safetensors.numpy
import torch
from PIL import Image

from modalign.data import TEST, TRAIN, load, own, platonic, require_trainable

RNG = np.random.default_rng(0)
N = 60
X, Y = RNG.normal(2, 3, (N, 5)), RNG.normal(size=(N, 4))
LABELS = np.array(["cat", "dog", "bird"])[np.arange(N) % 3]


def test_three_lines_are_enough():
    data = own(X, Y, LABELS)
    require_trainable(data)
    assert data.classes == ("bird", "cat", "dog")
    assert [data.classes[i] for i in data.labels] == LABELS.tolist()
    assert torch.bincount(data.split.long()).tolist() == [42, 9, 9]
    train = data.part(TRAIN)
    assert train.x.mean(0).abs().max() < 1e-5
    assert train.x.var(0, correction=0).mean() == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(data.x[:, 2], X[:, 2])[0, 1] == pytest.approx(1, abs=1e-9)


def test_arrays_lists_tensors_and_files_give_the_same(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "both.npz", x=X, y=Y)
    np.savez(tmp_path / "one.npz", only=Y)
    table = pa.table({"x": X.tolist(), "y": Y.tolist(), "label": LABELS, "score": Y[:, 0]})
    pyarrow.parquet.write_table(table, tmp_path / "all.parquet")
    expected = own(X, Y, LABELS)
    for x, y, labels in (
        (X.tolist(), torch.from_numpy(Y), LABELS.tolist()),
        (tmp_path / "x.npy", f"{tmp_path}/both.npz:y", LABELS),
        (f"{tmp_path}/both.npz:x", tmp_path / "one.npz", f"{tmp_path}/all.parquet:label"),
        (f"{tmp_path}/all.parquet:x", f"{tmp_path}/all.parquet:y", f"{tmp_path}/all.parquet:label"),
    ):
        data = own(x, y, labels)
        assert torch.allclose(data.x, expected.x, atol=1e-6)
        assert torch.allclose(data.y, expected.y, atol=1e-6)
        assert torch.equal(data.labels, expected.labels)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "all.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"cut.parquet must be a whole .parquet file"):
        own(f"{tmp_path}/cut.parquet:x", Y, LABELS)
    assert own(X, Y, f"{tmp_path}/all.parquet:score").task == "regression"
    again = load("own", **data.settings)
    assert torch.equal(again.x, data.x)


def test_labels_say_what_the_task_is():
    assert own(X, Y, np.arange(N) % 4).task == "classification"
    assert own(X, Y, np.arange(N) % 4 + 7).classes == ("7", "8", "9", "10")
    assert own(X, Y, np.arange(N) % 2 == 0).classes == ("False", "True")
    score = own(X, Y, np.linspace(-3, 3, N))
    assert (score.task, score.labels.dtype, score.classes) == ("regression", torch.float32, ())
    assert own(X, Y, np.arange(N), task="regression").labels[-1] == N - 1
    several = own(X, Y, RNG.integers(0, 2, (N, 3)))
    assert (several.task, several.labels.shape) == ("multilabel", (N, 3))
    assert several.classes == ("label 0", "label 1", "label 2")


def test_one_number_a_row_is_one_feature(tmp_path):
    whole = np.arange(N) % 7
    (tmp_path / "t.csv").write_text("num,age\n" + "\n".join(f"{v},{a}" for v, a in zip(X[:, 0], whole, strict=True)))
    (tmp_path / "t.txt").write_text("\n".join(map(str, whole)))
    expected = own(X[:, :1], Y, LABELS).x
    for x in (X[:, 0], X[:, 0].tolist(), pandas.Series(X[:, 0]), torch.from_numpy(X[:, 0]), f"{tmp_path}/t.csv:num"):
        assert torch.allclose(own(x, Y, LABELS).x, expected, atol=1e-6)
    expected = own(whole[:, None] * 1.0, Y, LABELS).x
    for x in (whole, whole.astype(np.uint8), f"{tmp_path}/t.csv:age", tmp_path / "t.txt"):
        assert torch.equal(own(x, Y, LABELS).x, expected)
        assert torch.equal(own(Y, x, LABELS, more=[x]).more[0], expected)


def test_names_fix_the_order_of_classes():
    data = own(X, Y, LABELS, names=["dog", "cat", "bird", "fish"])
    assert [data.classes[i] for i in data.labels] == LABELS.tolist()
    assert data.classes[3] == "fish"
    assert own(X, Y, np.arange(N) % 2, names=["no", "yes"]).classes == ("no", "yes")


def test_the_split_may_be_given():
    words = np.array(["train", "test", "validation"])[np.arange(N) % 3]
    assert torch.equal(own(X, Y, LABELS, split=words).split, own(X, Y, LABELS, split=[0, 2, 1] * 20).split)
    assert (own(X, Y, LABELS, split=words).split == TEST).sum() == 20


def test_kinds_of_modality():
    pixels = RNG.integers(0, 256, (N, 3, 8, 8)).astype(np.uint8)
    tokens = RNG.integers(0, 9, (N, 6)).astype(np.int32)
    sequences = RNG.normal(4, 1, (N, 7, 2))
    sequences[:, :3] = 0
    data = own(pixels, tokens, LABELS, more=[sequences, ["a red fox", "one hen"] * 30], modalities="ptsw")
    assert torch.equal(data.x, torch.from_numpy(pixels))
    assert data.y.dtype == torch.int64
    assert not data.more[0][:, :3].any()
    assert data.more[0][:, 3:].mean().abs() < 0.2
    assert data.more[1][0].tolist()[-1] != data.more[1][1].tolist()[-1] == 0
    assert data.pair(3, 0).modalities == ("w", "p")
    plain = own(X, sequences, LABELS, standardise=False)
    assert np.allclose(plain.x, X)
    assert np.allclose(plain.y, sequences)
    assert own(X, Y, LABELS, pca=3).x.shape == (N, 3)


@pytest.fixture
def folders(tmp_path):
    for side, ending in (("photos", ".jpg"), ("sketches", ".png")):
        for label, colour in (("cat", "red"), ("dog", "blue")):
            (tmp_path / side / label).mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (20, 20), colour).save(tmp_path / side / label / f"{i}{ending}")
    return tmp_path


def test_folders_of_images_name_the_classes(folders):
    data = own(folders / "photos", folders / "sketches", size=16)
    assert data.classes == ("cat", "dog")
    assert data.x.shape == data.y.shape == (20, 3, 16, 16)
    assert data.y[0, :, 8, 8].tolist() == [255, 0, 0]
    assert data.y[-1, :, 8, 8].tolist() == [0, 0, 255]
    assert torch.equal(own(**data.settings).x, data.x)
    captions = own(folders / "photos", ["a cat"] * 10 + ["a dog"] * 10)
    assert captions.labels.tolist() == [0] * 10 + [1] * 10
    (folders / "sketches/cat/3.png").unlink()
    with pytest.raises(ValueError, match="files of the same names, 1 are in only one: cat/3"):
        own(folders / "photos", folders / "sketches")
    (folders / "none").mkdir()
    with pytest.raises(ValueError, match="must hold images in sub-folders, one a class"):
        own(folders / "none", Y, LABELS)


NAN = np.where(np.arange(N)[:, None] == 7, np.nan, X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, Y[1:], LABELS), "y must have a row per pair, 60 as x has, got 59"),
        ((X, Y, LABELS[1:]), "labels must have a row per pair, 60 as x has, got 59"),
        ((NAN, Y, LABELS), r"own: x must be finite, got NaN or inf in rows \[7\]"),
        (
            ([[1.0], [1.0, 2.0]] * 30, Y, LABELS),
            r"x must have rows of one length, \(1,\) as row 0 has, got others in rows \[1, 3, 5\]",
        ),
        ((X, Y), "labels must be given, unless x or y is a folder"),
        ((X[:, 0] > 0, Y, LABELS), r"x must be floats \(n, d\), .* got \(60,\) bool"),
        ((np.full((N, 2), -1), Y, LABELS), "whole numbers are token ids from 0, got -1"),
        ((["a fox"] * 59 + [None], Y, LABELS), r"own: x must have a text in every row, got none in rows \[59\]"),
        ((np.array(["a"] * 59 + [np.nan], object), Y, LABELS), r"own: x must have a text in every row, .* rows \[59\]"),
        ((X[:0], Y[:0], LABELS[:0]), "x must have a row per pair|labels must have a row per pair"),
        (("x.doc", Y, LABELS), r"x.doc must be a folder of images, or end in .npy, .npz, .pt"),
    ],
)
def test_rows_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        own(*arguments)


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (np.arange(N) % 3, {"names": ["a", "b"]}, "labels must be from 0 to 1, one of the 2 names, got 0 to 2"),
        (LABELS, {"names": ["cat", "dog"]}, "labels must be among names, cat, dog; got bird"),
        (
            np.arange(N) * 0.5,
            {"task": "classification"},
            "own: labels must be classes, got 60 different numbers such as 0.5; cut them into bins",
        ),
        (LABELS, {"task": "regression"}, r"regression task must be \(n,\) numbers"),
        (RNG.normal(size=(N, 2)), {}, "multilabel task must be 0 or 1"),
        (LABELS, {"task": "ranking"}, "own: task must be one of classification, regression, multilabel"),
        (LABELS, {"split": ["train", "dev"] * 30}, r"split must be \(60,\) of train, validation, test .* with dev"),
        (LABELS, {"split": [0, 3] * 30}, "with 3"),
        (LABELS, {"split": [0] * 59}, r"got shape \(59,\)"),
        (LABELS, {"split": [2] * 60}, "must leave pairs to train on"),
        (LABELS, {"modalities": ("a",)}, "modalities must name x, y and each of more, 2 in all"),
        (LABELS, {"pca": 50}, "own: x: pca must be from 1 to 5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(labels, settings, message):
    with pytest.raises(ValueError, match=message):
        own(X, Y, labels, **settings)


def test_a_folder_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for arguments in (("~/absent", Y, LABELS), (X, f"{tmp_path}/absent/", LABELS), (X, Y, f"{tmp_path}/absent")):
        with pytest.raises(FileNotFoundError, match=rf"own: there is no file or folder {tmp_path}/absent"):
            own(*arguments)


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match="x must be one array, got a dict of nothing"):
        own({}, Y, LABELS)
    with pytest.raises(TypeError, match=r"x must hold numbers, got an array of objects with \{\} in row 0"):
        own(np.array([{}] * N), Y, LABELS)


def test_files_that_are_damaged_or_lack_the_name(tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"x.npy must be whole, got 2,391 of the 2,400 bytes"):
        own(tmp_path / "x.npy", Y, LABELS)
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(TypeError, match=r"objects.npy must hold numbers, got Python objects"):
        own(tmp_path / "objects.npy", Y, LABELS)
    np.savez(tmp_path / "both.npz", a=X, b=Y)
    with pytest.raises(ValueError, match=r"must name one as .*both.npz:array; it holds a, b"):
        own(f"{tmp_path}/both.npz", Y, LABELS)
    with pytest.raises(ValueError, match=r"both.npz has no array 'c'; it holds a, b"):
        own(f"{tmp_path}/both.npz:c", Y, LABELS)
    table = pa.table({"ragged": [[1.0], [1.0, 2.0]] * 30, "null": [None, "a"] * 30, "deep": [[[1], [1, 2]]] * N})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    for member, message in (
        (":ragged", "lists of one length, got 1 to 2"),
        (":deep", "lists of one length, got 2 to 2 and maybe more inside"),
        (":null", "a value in every row, 30 are missing"),
        (":other", "t.parquet:COLUMN, one of ragged, null, deep; got other"),
        ("", "t.parquet:COLUMN, one of ragged, null"),
    ):
        with pytest.raises(ValueError, match=message):
            own(f"{tmp_path}/t.parquet{member}", Y, LABELS)
    with pytest.raises(FileNotFoundError, match=r"no file .*no.npy"):
        own(tmp_path / "no.npy", Y, LABELS)


@pytest.fixture
def wit(tmp_path):
    files = []
    for name, width, dtype in (("vision", 6, torch.float16), ("language", 5, torch.bfloat16)):
        features = torch.from_numpy(RNG.normal(size=(40, 3, width))).to(dtype)
        extra = {"mask": torch.ones(40, 7), "loss": 1.0, "bpb": 0.9} if name == "language" else {}
        files.append(tmp_path / f"{name}.pt")
        torch.save({"feats": features, "num_params": 10**9, **extra}, files[-1])
    return files


def test_a_layer_of_each_encoder(wit):
    raw = torch.load(wit[0], weights_only=True)["feats"].float()
    data = platonic(*wit, layer_1=1)
    assert (data.x.shape, data.y.shape) == ((40, 6), (40, 5))
    assert np.corrcoef(data.x[:, 0], raw[:, 1, 0])[0, 1] == pytest.approx(1, abs=1e-6)
    assert torch.equal(platonic(*wit, layer_1=-1).x, platonic(*wit, layer_1=2).x)
    assert data.classes == ("unlabelled",)
    with pytest.raises(ValueError, match="at least 2 classes"):
        require_trainable(data)
    labelled = platonic(*wit, labels=np.arange(40) % 2, classes=("indoors", "outdoors"))
    require_trainable(labelled)
    assert torch.equal(platonic(**labelled.settings).y, labelled.y)
    some = [None if i % 4 == 0 else i % 2 for i in range(40)]
    with pytest.warns(UserWarning, match="platonic: 10 of 40 pairs have no label"):
        partly = platonic(*wit, labels=some)
    assert partly.has_label().tolist() == [label is not None for label in some]
    assert platonic(**partly.settings).fingerprint() == partly.fingerprint()


class Command:
    def __reduce__(self):
        return eval, ("open('was here', 'w')",)


def test_features_of_another_form_are_refused(wit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="layer_2 must be from 0 to 2, or negative from the end, got 3"):
        platonic(*wit, layer_2=3)
    with pytest.raises(ValueError, match=r"labels must be \(40,\), one for each item, got \(2,\)"):
        platonic(*wit, labels=[0, 1])
    torch.save({"feats": Command()}, tmp_path / "evil.pt")
    with pytest.raises(TypeError, match=r"evil.pt must hold tensors alone, got other objects, which could run code"):
        platonic(tmp_path / "evil.pt", wit[1])
    assert not (tmp_path / "was here").exists()
    torch.save({"feats": torch.zeros(39, 2)}, tmp_path / "short.pt")
    with pytest.raises(ValueError, match="must be of the same items, got 39 and 40"):
        platonic(tmp_path / "short.pt", wit[1])
    torch.save({"features": torch.zeros(40, 2)}, tmp_path / "named.pt")
    with pytest.raises(ValueError, match=r"named.pt has no tensor 'feats'; it holds features"):
        platonic(tmp_path / "named.pt", wit[1])
    torch.save({"feats": torch.full((40, 2), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"must be finite, got NaN or inf in rows \[0, 1, 2\]"):
        platonic(tmp_path / "nan.pt", wit[1])
    wit[0].write_bytes(wit[0].read_bytes()[:300])
    with pytest.raises(ValueError, match=r"vision.pt must be a whole .pt file"):
        platonic(*wit)
    with pytest.raises(FileNotFoundError, match=r"no file .*no.pt"):
        platonic("no.pt", wit[1])


def test_other_files_are_read_as_everywhere_else(tmp_path, monkeypatch):
    """Labels and rows that ``modalign align`` and ``advise`` take."""
    expected = own(X, Y, LABELS)
    torch.save(torch.from_numpy(X), tmp_path / "x.pt")
    safetensors.numpy.save_file({"y": Y}, tmp_path / "y.safetensors")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    table = pa.table({"label": LABELS, "score": Y[:, 0]})
    pyarrow.csv.write_csv(table, tmp_path / "table.csv")
    monkeypatch.chdir(tmp_path)
    for labels in ("labels.txt", "table.csv:label"):
        data = own("x.pt", "y.safetensors:y", labels)
        assert data.fingerprint() == expected.fingerprint()
        assert data.classes == expected.classes
    assert own(X, Y, "table.csv:score").task == "regression"
    assert own(X + 1e-3 * Y[:, :1], Y, LABELS).fingerprint() != expected.fingerprint()
    assert own(X, Y, LABELS[::-1]).fingerprint() != expected.fingerprint()
    with pytest.raises(FileNotFoundError, match=f"there is no file nowhere.npy; paths begin at {tmp_path}"):
        own("nowhere.npy", Y, LABELS)
    with pytest.raises(ValueError, match=r"labels.doc must be a folder of images, or end in .npy, .npz, .pt"):
        own(X, Y, "labels.doc")
