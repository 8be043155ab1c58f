"""Labels are the same in every kind of file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet

from modalign.data import own
from modalign.encoders.inputs import read_texts
from modalign.files.labels import as_classes, read_labels

LABELS = ["cat", "a dog", "cat", "émeu"]


def files(path: Path) -> dict[str, Any]:
    table = pa.table({"id": list(range(4)), "of:what": LABELS})
    (path / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    np.save(path / "labels.npy", np.array(LABELS))
    np.savez(path / "labels.npz", of=np.array(LABELS))
    parquet.write_table(table, path / "labels.parquet")
    renamed = table.rename_columns(["id", "what"])
    csv.write_csv(renamed, path / "labels.csv")
    for name, new in (("labels.arrow", pa.ipc.new_file), ("part.arrow", pa.ipc.new_stream)):
        with pa.OSFile(str(path / name), "wb") as sink, new(sink, renamed.schema) as writer:
            writer.write_table(renamed)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "part.arrow"}]}))
    return {
        "text": path / "labels.txt",
        "npy": path / "labels.npy",
        "npz": f"{path}/labels.npz:of",
        "csv": f"{path}/labels.csv:what",
        "arrow": f"{path}/labels.arrow:what",
        "folder": f"{path}:what",
    }


@pytest.mark.parametrize("kind", ["text", "npy", "npz", "csv", "arrow", "folder"])
def test_every_file_gives_the_same_labels(kind: str, tmp_path: Path) -> None:
    assert read_labels(files(tmp_path)[kind]) == LABELS


def test_a_line_ends_with_its_newline_alone(tmp_path: Path) -> None:
    """Texts from the web hold separators that do not end a line."""
    texts = ["a dog\u2028running", "a bird\x85", "a\x0cb\x1c"]
    for end in ("\n", "\r\n"):
        (tmp_path / "texts.txt").write_bytes((end.join(texts) + end).encode())
        assert read_labels(tmp_path / "texts.txt") == texts
        (tmp_path / "texts.txt").write_bytes((end.join(["", *texts]) + end).encode())
        assert read_texts(tmp_path / "texts.txt") == ["", *texts]


def test_tensors_of_labels_are_read(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    codes = torch.arange(40) % 2
    torch.save(codes, tmp_path / "l.pt")
    torch.save({"labels": codes.float(), "x": torch.from_numpy(x)}, tmp_path / "all.pt")
    assert read_labels(tmp_path / "l.pt") == [str(code) for code in codes.tolist()]
    assert read_labels(f"{tmp_path}/all.pt:labels") == [str(code) for code in codes.tolist()]
    expected = own(x, x, codes).fingerprint()
    assert own(x, x, tmp_path / "l.pt").fingerprint() == expected
    assert own(x, x, f"{tmp_path}/all.pt:labels", task="classification").fingerprint() == expected


def test_numbers_become_text_and_classes_follow_names(tmp_path: Path) -> None:
    files(tmp_path)
    assert read_labels(f"{tmp_path}/labels.parquet:id") == ["0", "1", "2", "3"]
    assert as_classes(LABELS).tolist() == [1, 0, 1, 2]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("none.txt", FileNotFoundError, "there is no file .*none.txt"),
        ("none.csv:a", FileNotFoundError, "there is no file .*none.csv$"),
        ("labels.csv", ValueError, "holds columns; say which"),
        ("labels.csv:b", ValueError, "has no column 'b'; it holds id, what"),
        ("labels.npz:b", ValueError, "has no array 'b'; it holds of"),
        ("labels.txt:b", ValueError, "has no columns to name"),
        ("matrix.npy", ValueError, r"must be \(n,\), one for each item, got \(2, 2\)"),
        ("objects.npy", TypeError, "objects.npy must hold numbers, got Python objects"),
        ("broken.parquet:a", ValueError, "must be a whole .parquet file"),
        ("gaps.parquet:a", ValueError, r"something in each row, got nothing in rows \[1\]"),
        ("latin.txt", ValueError, "must be UTF-8 text"),
    ],
)
def test_a_mistake_is_a_sentence(spec: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    files(tmp_path)
    np.save(tmp_path / "matrix.npy", np.ones((2, 2)))
    np.save(tmp_path / "objects.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    parquet.write_table(pa.table({"a": ["x", None]}), tmp_path / "gaps.parquet")
    with pytest.raises(error, match=message):
        read_labels(tmp_path / spec)
