"""Files that are damaged, hostile, or something else than data end in one sentence that names them."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import modalign
from modalign.alignment.results import load_alignment
from modalign.data.pickles import read_plain_pickle
from modalign.experiments.sweep.config import load
from modalign.files.arrays import map_array
from modalign.files.documents import read_json, read_yaml
from modalign.files.labels import read_labels
from modalign.files.pickles import require_modest_pickle
from modalign.files.rows import open_layers, open_rows

ROWS = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
ROUNDS = 40  # corruptions of a file of each kind


def rows_of(path: Path) -> None:
    for rows in open_layers(path):
        rows.read(0, rows.shape[0])
    rows = open_rows(path)
    rows.read(0, rows.shape[0])


def write_npz(path: Path, save: Any = np.savez) -> None:
    with path.open("wb") as file:
        save(file, rows=ROWS)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"rows": pa.array(list(ROWS)), "label": [str(i) for i in range(20)]}), path)


def write_arrow(path: Path) -> None:
    table = pa.table({"rows": pa.array(list(ROWS))})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def write_safetensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"rows": torch.from_numpy(ROWS)}, path)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": [1, 2.5, "text"], "b": (ROWS, None)}, protocol=4))


def labels_of(path: Path) -> None:
    read_labels(path if path.suffix == ".npy" else f"{path}:label")


# how a file is written, and how it is read
FORMATS: dict[str, tuple[str, Callable[[Path], Any], Callable[[Path], Any]]] = {
    "npy": ("rows.npy", lambda path: np.save(path, ROWS), rows_of),
    "npz": ("rows.npz", write_npz, rows_of),
    "compressed npz": ("rows.npz", lambda path: write_npz(path, np.savez_compressed), rows_of),
    "safetensors": ("rows.safetensors", write_safetensors, rows_of),
    "pt": ("rows.pt", lambda path: torch.save({"rows": torch.from_numpy(ROWS), "epoch": 3}, path), rows_of),
    "pt of layers": ("rows.pt", lambda path: torch.save([torch.from_numpy(ROWS)] * 2, path), open_layers),
    "old pt": (
        "rows.pt",
        lambda path: torch.save({"rows": torch.from_numpy(ROWS)}, path, _use_new_zipfile_serialization=False),
        rows_of,
    ),
    "parquet": ("rows.parquet", write_parquet, rows_of),
    "arrow": ("rows.arrow", write_arrow, rows_of),
    "pickle": ("rows.pkl", write_pickle, read_plain_pickle),
    "labels in npy": ("labels.npy", lambda path: np.save(path, np.arange(20)), labels_of),
    "labels in parquet": ("labels.parquet", write_parquet, labels_of),
    "yaml": ("sweep.yaml", lambda path: path.write_text("dataset: moons\ncases: [a, {b: 1}]\nseeds: [1, 2]\n"), load),
    "json": (
        "result.json",
        lambda path: modalign.align(ROWS, ROWS, ["cka"], k=3, intervals=False).save(path),
        load_alignment,
    ),
}


def corrupted(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a file cut short, with other bytes, with a piece of itself elsewhere, or with more or fewer bytes."""
    damaged = bytearray(content)
    place = int(rng.integers(len(damaged)))
    length = int(rng.integers(1, 64))
    kind = rng.integers(6)
    if kind == 0:
        return bytes(damaged[:place])
    if kind == 1:
        damaged[place] = int(rng.integers(256))
    elif kind == 2:
        damaged[place : place + length] = bytes([int(rng.choice([0, 255]))]) * length
    elif kind == 3:
        start = int(rng.integers(len(damaged)))
        damaged[place : place + length] = damaged[start : start + length]
    elif kind == 4:
        del damaged[place : place + length]
    else:
        damaged[place:place] = rng.bytes(length)
    return bytes(damaged)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_corrupted_file_is_read_or_refused_in_a_sentence_with_its_name(kind: str, tmp_path: Path) -> None:
    name, write, read = FORMATS[kind]
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    rng = np.random.default_rng(list(FORMATS).index(kind))
    for i in range(ROUNDS):
        path = tmp_path / f"{i}-{name}"
        path.write_bytes(corrupted(content, rng))
        refusal = path.name
        try:
            read(path)
        except (ValueError, TypeError) as error:
            refusal = str(error)
        assert path.name in refusal


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "pointer of git-lfs.*git lfs pull",
        ),
        (b"<!DOCTYPE html><html><head><title>Sign in</title>", "page of a web site"),
        (b"\n <html>", "page of a web site"),
        (b"", "empty"),
    ],
    ids=["git-lfs", "HTML", "html", "empty"],
)
def test_what_lies_in_place_of_data_is_named(kind: str, content: bytes, message: str, tmp_path: Path) -> None:
    name, _, read = FORMATS[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": dtype, "fortran_order": False, "shape": shape})
    return content.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_promises_more_than_it_holds_is_not_read_past_its_end(compression: int, tmp_path: Path) -> None:
    path = tmp_path / "short.npz"
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a.npy", header((20, 4)) + ROWS.tobytes()[:100])
        file.writestr("b.npy", header((20, 4)) + ROWS.tobytes())
    with pytest.raises(
        ValueError, match=r"short.npz:a must be whole, got 100 of the 320 bytes that its header promises"
    ):
        modalign.knn(f"{path}:a", 2)
    modalign.knn(f"{path}:b", 2)


def test_a_member_whose_size_in_the_table_is_a_lie_is_not_read_past_its_end(tmp_path: Path) -> None:
    path = tmp_path / "lie.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", header((20, 4)) + ROWS.tobytes()[:100])
        file.writestr("b.npy", header((20, 4)) + ROWS.tobytes())
        file.filelist[0].file_size = file.filelist[0].compress_size = len(header((20, 4))) + 320
    with pytest.raises(ValueError, match=r"lie.npz.*(promises|cut short)"):
        modalign.knn(f"{path}:a", 2)


def test_a_flipped_byte_in_a_stored_member_is_named_by_its_checksum(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    np.savez(tmp_path / "c.npz", x=rows, y=rows[:, :3].T)
    content = bytearray((tmp_path / "c.npz").read_bytes())
    content[content.index(rows[50].tobytes()) + 2] ^= 0x40
    (tmp_path / "c.npz").write_bytes(content)
    for read in (open_rows, read_labels, map_array_of):
        with pytest.raises(ValueError, match=r"c\.npz:x is damaged: .*CRC-32"):
            read(f"{tmp_path}/c.npz:x")
    assert open_rows(f"{tmp_path}/c.npz:y").shape == (3, 200)


def map_array_of(spec: str) -> object:
    return map_array(Path(spec.removesuffix(":x")), "x")


def test_a_storage_of_torch_that_holds_less_than_its_pickle_promises_is_refused(tmp_path: Path) -> None:
    path, short = tmp_path / "whole.pt", tmp_path / "short.pt"
    torch.save({"a": torch.from_numpy(ROWS), "b": torch.from_numpy(ROWS + 1)}, path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(short, "w") as file:
        for info in whole.infolist():
            content = whole.read(info)
            file.writestr(info.filename, content[:100] if info.filename.endswith("data/0") else content)
    with pytest.raises(ValueError, match=r"short.pt must be a whole .pt file.*storage 0 has 100 of 320 bytes"):
        open_rows(f"{short}:a")


@pytest.mark.parametrize("shape", [(10**9, 10**6), (20, 400), (-1, 4)])
def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "large.npy"
    path.write_bytes(header(shape) + ROWS.tobytes())
    with pytest.raises(ValueError, match=r"large.npy must be (whole|a whole)"):
        open_rows(path)
    with zipfile.ZipFile(tmp_path / "large.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", header(shape) + ROWS.tobytes())
    with pytest.raises(ValueError, match=r"large.npz.*whole"):
        open_rows(tmp_path / "large.npz").read(0, 1)


def nested(levels: int, empty: Any = ()) -> Any:
    value = empty
    for _ in range(levels):
        value = (value, value) if isinstance(value, tuple) else [value, value]
    return value


@pytest.mark.parametrize("protocol", [1, 2, 4])
@pytest.mark.parametrize("kind", ["tuples", "lists", "key"])
def test_a_pickle_whose_parts_hold_each_other_without_end_is_refused(kind: str, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "shared.pkl"
    content = pickle.dumps(nested(60, [] if kind == "lists" else ()), protocol)
    if kind == "key":  # no dictionary can be made of it here: its hash would take for ever
        start = 2 if protocol > 1 else 0
        start += 9 * (protocol >= 4)  # the frame
        content = b"}" + content[start:-1] + b"K\x01s."
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"shared.pkl .*its parts hold each other so often"):
        read_plain_pickle(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02Nr\xff\xff\xff\x1f.",  # part number 536,870,911 of 3
        b"\x80\x04\x8e\xff\xff\xff\xff\x01\x00\x00\x00abc.",  # bytes that are not there
        b"\x80\x04\x95\xff\xff\xff\xff\x01\x00\x00\x00N.",  # a frame that is not there
        b"(" * 300 + b"l" * 300 + b".",
        b"\x80\x02h\x05.",
        b"\x80\x02.",
        b"\x80\x02(K\x01u.",
    ],
)
def test_a_pickle_that_asks_for_more_than_it_holds_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "large.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"large.pkl must be a whole pickle file"):
        read_plain_pickle(tmp_path / "large.pkl")
    with zipfile.ZipFile(tmp_path / "large.pt", "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", "3")
    (tmp_path / "old.pt").write_bytes(content)
    for name in ("large.pt", "old.pt"):
        with pytest.raises(ValueError, match=rf"{name} must be a whole .pt file"):
            open_rows(tmp_path / name)


def test_pickles_that_share_parts_within_reason_pass() -> None:
    part = (1, 2, 3)
    for value in ([part] * 1000, {"a": ROWS, "b": [ROWS, ROWS]}, {1, 2}, [[[]]], {"x": part, "y": part}):
        for protocol in range(6):
            content = pickle.dumps(value, protocol)
            file = io.BytesIO(content + b"more")
            assert require_modest_pickle(file) == len(content)
            assert file.tell() == 0


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    return "\n".join([*lines, *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(9), "stand for more than 100,000 values"),
        ("a: &a {x: 1}\n" + "\n".join(f"b{i}: &b{i} {{<<: [*a, *a]}}" for i in range(3)) + "\nc: &c [*c]", "a part of"),
        ("[" * 3000 + "]" * 3000, "too deep"),
        ("a: !!int ''", "tag"),
        ("a: !!bool perhaps", "tag"),
        (f"a: {'9' * 5000}", "digits|limit"),
        ("a: 2020-99-99", "month|range"),
        ("a" * (1 << 23), "characters"),
    ],
)
def test_yaml_that_unfolds_without_end_or_has_odd_values_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_yaml(text)
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)sweep.yaml .*({message})"):
        load(tmp_path / "sweep.yaml")


def test_json_that_is_too_deep_or_cut_short_is_refused(tmp_path: Path) -> None:
    for content in ("[" * 100_000, '{"a": 1', "\x00"):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(ValueError, match=r"a.json must be a whole JSON file"):
            read_json(tmp_path / "a.json")
        with pytest.raises(ValueError, match=r"a.json must be a"):
            load_alignment(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r"a.json must be a file that Alignment.save wrote"):
        load_alignment(tmp_path / "a.json")


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed npz"])
def test_objects_in_a_file_are_named_with_what_to_write(kind: str, tmp_path: Path) -> None:
    name, _, _ = FORMATS[kind]
    objects = np.empty(20, object)
    objects[:] = list(ROWS)
    save = {"npy": np.save, "npz": np.savez, "compressed npz": np.savez_compressed}[kind]
    save(tmp_path / name, objects)
    with pytest.raises(TypeError, match=rf"{name}.* must hold numbers, got Python objects \(20,\).*np\.stack"):
        open_rows(tmp_path / name)
    with pytest.raises(TypeError, match="Python objects"):
        modalign.data.own(tmp_path / name, ROWS, [0, 1] * 10)


def test_offsets_of_a_damaged_arrow_file_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    write_arrow(path)
    content = bytearray(path.read_bytes())
    offsets = struct.pack("<5i", 0, 4, 8, 12, 16)
    place = content.index(offsets)
    for number in (0, 2):  # the first row is read to know how wide rows are
        damaged = content.copy()
        damaged[place + 4 * number : place + 4 * number + 4] = struct.pack("<i", 1 << 30)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"rows.arrow must be a whole"):
            open_rows(path).read(0, 20)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", '"0.5"', "true", "null"])
def test_a_saved_score_that_is_no_finite_number_is_refused(value: str, tmp_path: Path) -> None:
    saved = modalign.align(ROWS, ROWS, ["cka"], k=3, intervals=False, null="none").save(tmp_path / "r.json")
    record = json.loads(saved.read_text())
    record["scores"][0]["value"] = "HERE"
    saved.write_text(json.dumps(record).replace('"HERE"', value))
    with pytest.raises(ValueError, match=r"r\.json must be a file that Alignment.save wrote"):
        load_alignment(saved)
