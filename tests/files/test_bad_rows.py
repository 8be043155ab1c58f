"""A file without rows, or with rows that cannot be read, is refused with a reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from files.row_files import KINDS, ROWS, N, arrow, layered, lists, npy, npz, parquet, pt, safetensors, saved_to_disk
from modalign.files import rows as rows_module
from modalign.files.rows import open_rows


def cut(path: str, left: int = 300) -> str:
    Path(path).write_bytes(Path(path).read_bytes()[:left])
    return path


def ragged() -> pa.Array:
    return pa.array([[1.0, 2.0]] * 12 + [[3.0]] + [[1.0, 2.0]] * 4 + [[]])


class Harmful:
    def __reduce__(self) -> Any:
        return (Path, ("harm",))


def without(path: Path, folder: str) -> str:
    (path / "data-00000.arrow").unlink()
    return folder


def chosen(path: Path, column: pa.Array) -> str:
    folder = saved_to_disk(path, column)
    state = json.loads((path / "state.json").read_text()) | {"_indices_files": [{"filename": "indices.arrow"}]}
    (path / "state.json").write_text(json.dumps(state))
    return folder


BAD: dict[str, tuple[type[Exception], str, Callable[[Path], Any]]] = {
    "a set": (
        TypeError,
        "x must be a NumPy array, a torch tensor, a data frame or a list of rows, got set",
        lambda _: {1},
    ),
    "booleans": (TypeError, "x must be float16, .* int8, .*got bool; write x.astype", lambda _: np.ones((2, 2), bool)),
    "complex": (TypeError, "got complex64", lambda _: torch.ones(2, 2, dtype=torch.complex64)),
    "without numbers": (TypeError, "got a tensor on the meta device", lambda _: torch.ones(2, 2, device="meta")),
    "sparse": (TypeError, r"dense, got a sparse tensor .*x.to_dense\(\)", lambda _: torch.eye(2).to_sparse()),
    "1-D": (ValueError, r"\(n, d\) with n, d >= 1, got \(3,\)", lambda _: np.ones(3)),
    "no rows": (ValueError, r"\(n, d\) with n, d >= 1, got \(0, 3\)", lambda _: np.ones((0, 3))),
    "no columns": (ValueError, r"got \(3, 0\)", lambda _: torch.ones(3, 0)),
    "no file": (FileNotFoundError, r"there is no file .*none.npy", lambda path: path / "none.npy"),
    "a folder": (ValueError, r"must end in .npy, .npz, .*or be a folder that", lambda path: path),
    "another kind": (ValueError, r"rows.csv must end in .npy, .*got another kind", lambda path: path / "rows.csv"),
    "npy with a name": (ValueError, "one array without a name, got 'a'; leave", lambda path: npy(path, ROWS) + ":a"),
    "npy cut short": (ValueError, "npy must be whole, got 172 of the 2,968 bytes", lambda p: cut(npy(p, ROWS))),
    "npy header cut short": (
        ValueError,
        "whole .npy file, got one cut short .*; write",
        lambda p: cut(npy(p, ROWS), 50),
    ),
    "npy without rows": (ValueError, r"npy must be \(n, d\).* got \(0, 7\)", lambda path: npy(path, ROWS[:0])),
    "npy of nothing": (ValueError, "got an empty file", lambda path: cut(npy(path, ROWS), 0)),
    "npy of text": (TypeError, "rows.npy must be float16.*, got str", lambda path: npy(path, np.array([["a"]]))),
    "npy 3-D": (ValueError, r"\(n, d\).*got \(1, 53, 7\)", lambda path: npy(path, ROWS[None])),
    "tensor missing": (ValueError, r"no tensor 'a'; it holds rows", lambda path: safetensors(path, ROWS) + ":a"),
    "two tensors": (
        ValueError,
        r"safetensors:tensor; it holds .*(rows, two|two, rows)",
        lambda path: safetensors(path, ROWS, two=torch.ones(2, 2)),
    ),
    "1-D tensor": (
        ValueError,
        r"rows.safetensors:one must be \(n, d\).*got \(2,\)",
        lambda path: safetensors(path, ROWS, one=torch.ones(2)) + ":one",
    ),
    "tensor of booleans": (TypeError, "got BOOL; convert", lambda path: safetensors(path, ROWS > 0)),
    "safetensors cut short": (ValueError, "whole .safetensors file", lambda path: cut(safetensors(path, ROWS))),
    "column missing": (
        ValueError,
        "no column 'a'; it holds rows, more",
        lambda path: parquet(path, lists(ROWS), more=pa.array(range(N))) + ":a",
    ),
    "two columns": (
        ValueError,
        r"parquet:column; it holds rows, more",
        lambda path: parquet(path, lists(ROWS), more=lists(ROWS)),
    ),
    "no column of lists": (
        ValueError,
        "lists of numbers, one a row, got double",
        lambda p: parquet(p, pa.array([1.0])),
    ),
    "column of numbers": (
        ValueError,
        "must hold lists of numbers, one a row, got double",
        lambda path: parquet(path, pa.array([1.0])) + ":rows",
    ),
    "null at first": (ValueError, "got None in row 0; drop", lambda path: parquet(path, pa.array([None, [1.0]]))),
    "empty at first": (ValueError, r"got \[\] in row 0; drop", lambda path: parquet(path, pa.array([[], [1.0]]))),
    "column of text": (TypeError, "parquet:rows must be float16.*got string", lambda p: parquet(p, pa.array([["a"]]))),
    "parquet without rows": (ValueError, r"got \(0, 0\)", lambda path: parquet(path, lists(ROWS[:0]))),
    "npz cut short": (ValueError, "whole .npz file", lambda path: cut(npz(path, ROWS))),
    "array missing": (ValueError, "no array 'a'; it holds rows", lambda path: npz(path, ROWS) + ":a"),
    "npz of objects": (
        TypeError,
        "npz:rows must hold numbers, got Python objects",
        lambda path: npz(path, np.array([["a", None]], dtype=object)),
    ),
    "pt cut short": (ValueError, "whole .pt file", lambda path: cut(pt(path, torch.ones(9, 9)))),
    "pt of code": (
        TypeError,
        "must hold tensors alone, got other objects, which could run code",
        lambda path: pt(path, {"rows": torch.ones(2, 2), "path": Harmful()}),
    ),
    "two in a pt": (
        ValueError,
        "pt:tensor; it holds a, b",
        lambda path: pt(path, {"a": torch.ones(2, 2), "b": torch.ones(2, 2)}),
    ),
    "layers without a number": (
        ValueError,
        r"\(n, d\).*a layer of \(n, layers, d\) is .*:feats\[0\]",
        lambda path: pt(path, {"feats": torch.ones(2, 2, 2)}) + ":feats",
    ),
    "no such layer": (ValueError, r"with a layer 2, got \(53, 2, 7\)", lambda p: npy(p, layered(ROWS).numpy()) + "[2]"),
    "layer of two dimensions": (ValueError, r"\(n, layers, d\) with a layer 0", lambda path: npy(path, ROWS) + "[0]"),
    "arrow cut short": (ValueError, "whole .arrow file", lambda path: cut(arrow(path, lists(ROWS)))),
    "a shard missing": (
        FileNotFoundError,
        "must hold .*data-00000.arrow, as its state.json says",
        lambda path: without(path, saved_to_disk(path, lists(ROWS))),
    ),
    "rows in another order": (ValueError, "use flatten_indices", lambda path: chosen(path, lists(ROWS))),
    "parquet cut short": (ValueError, "whole .parquet file", lambda path: cut(parquet(path, lists(ROWS)))),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_named_on_opening(mistake: str, tmp_path: Path) -> None:
    kind, message, source = BAD[mistake]
    with pytest.raises(kind, match=message):
        open_rows(source(tmp_path))


UNREADABLE: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "ragged lists": (
        r"lists of one length, 2 as in row 0, got others in rows \[12, 17\]",
        lambda p: parquet(p, ragged()),
    ),
    "null lists": (
        r"no nulls, got nulls in rows \[14\]",
        lambda path: parquet(path, pa.array([[1.0, 2.0]] * 14 + [None] + [[1.0, 2.0]] * 10)),
    ),
    "null fixed lists": (
        r"no nulls, got nulls in rows \[14\]",
        lambda path: parquet(path, pa.array([[1.0]] * 14 + [None], type=pa.list_(pa.float64(), 1))),
    ),
    "null numbers": (
        r"no nulls, got nulls in rows \[14\]",
        lambda path: parquet(path, pa.array([[1.0, 2.0]] * 14 + [[1, None]])),
    ),
}


@pytest.mark.parametrize("mistake", UNREADABLE)
def test_a_mistake_in_the_rows_is_named_with_their_numbers(mistake: str, tmp_path: Path) -> None:
    message, source = UNREADABLE[mistake]
    rows = open_rows(source(tmp_path))
    with pytest.raises(ValueError, match=message):
        rows.read(0, rows.shape[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_finite_are_named(kind: str, value: float, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(rows_module, "PIECE", 200)
    array = ROWS.copy()
    array[[31, 32, 33, 34], 3] = value
    rows = open_rows(KINDS[kind](tmp_path, array))
    rows.read(0, 31)
    with pytest.raises(ValueError, match=r"must be finite, got NaN or inf in rows \[3[12]"):
        rows.read(10, 40)


def test_a_page_of_a_parquet_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = Path(parquet(tmp_path, lists(ROWS)))
    content = bytearray(path.read_bytes())
    content[4:40] = bytes([255]) * 36
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"rows.parquet must be a whole"):
        open_rows(path).read(0, N)


def test_safetensors_is_asked_for_where_it_is_missing(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "rows.safetensors").write_bytes(b"data")
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        open_rows(tmp_path / "rows.safetensors")
