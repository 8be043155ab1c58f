"""``~`` and ``$VARIABLES`` in paths are replaced, endings may be in capitals, and layers are found in every file."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modalign
from modalign.data import own, platonic
from modalign.data.pickles import read_plain_pickle
from modalign.encoders.embedding import embed
from modalign.experiments.sweep.config import load
from modalign.files.labels import read_labels
from modalign.files.paths import expanded
from modalign.files.rows import indexable, open_layers, open_rows
from modalign.information import pid

ROWS = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
LABELS = ["a", "b", "c"] * 20


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    np.save(tmp_path / "x.npy", ROWS)
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    torch.save({"feats": torch.from_numpy(ROWS)}, tmp_path / "x.pt")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1]))
    (tmp_path / "texts.txt").write_text("one\ntwo")
    return tmp_path


DOORS: dict[str, Callable[[str], Any]] = {
    "open_rows": lambda place: open_rows(f"{place}/x.npy"),
    "open_layers": lambda place: open_layers(f"{place}/x.pt:feats"),
    "knn": lambda place: modalign.knn(f"{place}/x.npy", 3, checkpoint=f"{place}/graph"),
    "align": lambda place: modalign.align(f"{place}/x.npy", f"{place}/x.npy", ["cka"], intervals=False),
    "save": lambda place: modalign.align(ROWS, ROWS, ["cka"], intervals=False).save(f"{place}/a.json"),
    "own": lambda place: own(f"{place}/x.npy", f"{place}/x.npy", f"{place}/labels.txt"),
    "read_labels": lambda place: read_labels(f"{place}/labels.txt"),
    "platonic": lambda place: platonic(f"{place}/x.pt", f"{place}/x.pt"),
    "read_plain_pickle": lambda place: read_plain_pickle(f"{place}/x.pkl"),
    "embed": lambda place: embed(lambda texts: np.ones((len(texts), 2)), f"{place}/texts.txt", f"{place}/out.npy"),
}


@pytest.mark.parametrize("place", ["~", "$SCRATCH", "${SCRATCH}"])
@pytest.mark.parametrize("door", DOORS)
def test_home_and_variables_are_replaced_at_every_door(door: str, place: str, home: Path) -> None:
    DOORS[door](place)
    assert not Path(place).exists()


def test_a_file_of_exactly_that_name_is_taken_and_an_unknown_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("$odd.npy", ROWS)
    assert open_rows("$odd.npy").shape == (60, 4)
    with pytest.raises(ValueError, match="environment has no variable NOWHERE_AT_ALL"):
        open_rows("$NOWHERE_AT_ALL/x.npy")
    with pytest.raises(ValueError, match="there is no user 'nobody-of-this-name'"):
        expanded("~nobody-of-this-name/x.npy")
    with pytest.raises(ValueError, match="no such file"):
        load(Path("~/none.yaml"))


@pytest.mark.parametrize("name", ["X.NPY", "X.NPZ", "X.PT", "X.Pth", "X.SAFETENSORS", "X.PARQUET", "X.ARROW"])
def test_endings_may_be_in_capitals(name: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / name
    table = pa.table({"rows": pa.array(list(ROWS))})
    kind = path.suffix.lower()
    if kind in (".npy", ".npz"):
        with path.open("wb") as file:
            np.save(file, ROWS) if kind == ".npy" else np.savez(file, rows=ROWS)
    elif kind in (".pt", ".pth"):
        torch.save(torch.from_numpy(ROWS), path)
    elif kind == ".safetensors":
        from safetensors.torch import save_file

        save_file({"rows": torch.from_numpy(ROWS)}, path)
    elif kind == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    np.testing.assert_array_equal(open_rows(path).read(0, 60).numpy(), ROWS)
    if kind in (".npy", ".npz", ".pt", ".pth", ".safetensors"):
        assert own(path, ROWS, LABELS).x.shape == (60, 4)


@pytest.mark.parametrize("name", ["a.JSON", "a.Parquet"])
def test_results_are_saved_under_endings_in_capitals(name: str, tmp_path: Path) -> None:
    assert modalign.align(ROWS, ROWS, ["cka"], intervals=False).save(tmp_path / name).stat().st_size > 0


LAYERS = [torch.randn(50, 4), torch.randn(50, 6), torch.randn(50, 6)]
LAYERED: dict[str, Any] = {
    "list": LAYERS,
    "tuple": tuple(LAYERS),
    "list in a dictionary": {"feats": LAYERS, "num_params": 3, "mask": torch.ones(50, 9, dtype=torch.bool)},
    "dictionary": {f"layer{i}": layer for i, layer in enumerate(LAYERS)},
    "dictionary of numbers": dict(enumerate(LAYERS)),
    "dictionary out of order": {f"block_{i}": LAYERS[i // 5] for i in (10, 0, 5)},
    "nested": {"model": {"layers": {f"{i}.out": layer for i, layer in enumerate(LAYERS)}}, "bpb": [1.0]},
}


@pytest.mark.parametrize("kind", LAYERED)
def test_layers_in_lists_and_dictionaries_are_read_in_their_order(kind: str, tmp_path: Path) -> None:
    torch.save(LAYERED[kind], tmp_path / "layers.pt")
    layers = open_layers(tmp_path / "layers.pt")
    assert [layer.shape for layer in layers] == [(50, 4), (50, 6), (50, 6)]
    for layer, expected in zip(layers, LAYERS, strict=True):
        assert torch.equal(layer.read(0, 50), expected)
    path = str(tmp_path / "layers.pt")
    assert np.shape(modalign.align_layers(path, path, k=5, relabellings=0).matrix) == (3, 3)
    with pytest.raises(ValueError, match=r"must hold one tensor of rows.*; it holds .*align_layers takes all"):
        open_rows(path)


def test_arrays_of_an_npz_are_layers_and_one_is_named_by_its_place(tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", *[layer.numpy() for layer in LAYERS])
    assert [layer.shape[1] for layer in open_layers(tmp_path / "z.npz")] == [4, 6, 6]
    torch.save({"feats": LAYERS}, tmp_path / "d.pt")
    assert torch.equal(open_rows(f"{tmp_path}/d.pt:feats.1").read(0, 50), LAYERS[1])
    assert [layer.shape[1] for layer in open_layers(f"{tmp_path}/d.pt:feats")] == [4, 6, 6]
    torch.save(LAYERS, tmp_path / "l.pt")
    assert torch.equal(open_rows(f"{tmp_path}/l.pt:0").read(0, 50), LAYERS[0])


def test_arrays_that_are_not_layers_for_certain_are_named(tmp_path: Path) -> None:
    torch.save({"image": LAYERS[0], "text": LAYERS[1]}, tmp_path / "pair.pt")
    with pytest.raises(ValueError, match="it holds image, text"):
        open_layers(tmp_path / "pair.pt")
    torch.save({"a0": LAYERS[0], "a1": LAYERS[1], "b0": LAYERS[0], "b1": LAYERS[1]}, tmp_path / "two.pt")
    with pytest.raises(ValueError, match="it holds a0, a1, b0, b1"):
        open_layers(tmp_path / "two.pt")
    torch.save({f"id {i}x": torch.ones(3) for i in range(1000)}, tmp_path / "many.pt")
    with pytest.raises(ValueError, match=r"id 7x and 992 more"):
        open_rows(tmp_path / "many.pt")
    torch.save({"a": [1, 2]}, tmp_path / "none.pt")
    with pytest.raises(TypeError, match=r"must hold tensors, got a dict without one; save torch.as_tensor\(x\)"):
        open_rows(tmp_path / "none.pt")


def test_files_of_bfloat16_and_of_integers_are_features_everywhere(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(ROWS).bfloat16(), tmp_path / "half.pt")
    torch.save((100 * torch.from_numpy(ROWS)).to(torch.int16), tmp_path / "whole.pt")
    assert own(tmp_path / "half.pt", ROWS, LABELS).x.shape == (60, 4)
    assert open_rows(tmp_path / "whole.pt").dtype == torch.float32
    values = pid(indexable(tmp_path / "half.pt"), indexable(tmp_path / "whole.pt"), LABELS, resamples=0)
    assert 0 <= values.redundancy < 2
    for name in ("half.pt", "whole.pt"):
        assert modalign.knn(tmp_path / name, 3).indices.shape == (60, 3)
        assert modalign.cka(str(tmp_path / name), ROWS) > 0.99


def test_a_list_of_vectors_is_a_table(tmp_path: Path) -> None:
    torch.save(list(torch.from_numpy(ROWS)), tmp_path / "rows.pt")
    assert torch.equal(open_rows(tmp_path / "rows.pt").read(0, 60), torch.from_numpy(ROWS))


def test_platonic_reads_a_list_of_layers(tmp_path: Path) -> None:
    torch.save({"feats": LAYERS}, tmp_path / "list.pt")
    torch.save({"feats": torch.stack(LAYERS[1:], 1)}, tmp_path / "tensor.pt")
    one = platonic(tmp_path / "list.pt", tmp_path / "list.pt", layer_1=1)
    two = platonic(tmp_path / "tensor.pt", tmp_path / "tensor.pt", layer_1=0)
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.y, two.y)
