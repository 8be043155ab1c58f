"""Rows are the same in every kind of file, and a file without rows is refused with a reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from modalign.files import rows as rows_module
from modalign.files.rows import indexable, open_layers, open_rows

N, D = 53, 7
ROWS = np.random.default_rng(0).integers(-100, 100, (N, D)) / 4  # exact in float16


def lists(array: np.ndarray, kind: Callable[..., pa.DataType] = pa.list_, width: int = -1) -> pa.Array:
    return pa.array(list(array), type=kind(pa.from_numpy_dtype(array.dtype), width))


def npy(path: Path, array: np.ndarray) -> str:
    np.save(path / "rows.npy", array)
    return str(path / "rows.npy")


def safetensors(path: Path, array: np.ndarray, **others: torch.Tensor) -> str:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({"rows": torch.from_numpy(array), **others}, path / "rows.safetensors")
    return str(path / "rows.safetensors")


def parquet(path: Path, column: pa.Array, **others: pa.Array) -> str:
    pq.write_table(pa.table({"rows": column, **others}), path / "rows.parquet", row_group_size=10)
    return str(path / "rows.parquet")


def npz(path: Path, array: np.ndarray, save: Any = np.savez, **others: np.ndarray) -> str:
    save(path / "rows.npz", rows=array, **others)
    return str(path / "rows.npz")


def pt(path: Path, content: Any) -> str:
    torch.save(content, path / "rows.pt")
    return str(path / "rows.pt")


def arrow(path: Path, column: pa.Array, file: str = "rows.arrow", **others: pa.Array) -> str:
    table = pa.table({"rows": column, **others})
    with pa.OSFile(str(path / file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    return str(path / file)


def saved_to_disk(path: Path, column: pa.Array) -> str:
    """Write a folder as Hugging Face's save_to_disk does: Arrow streams and a state.json with their order."""
    half = len(column) // 2
    names = ["data-00001.arrow", "data-00000.arrow"]  # the order is that of state.json, not of the names
    for name, part in zip(names, (column[:half], column[half:]), strict=True):
        table = pa.table({"rows": part, "text": pa.array(["a"] * len(part))})
        with pa.OSFile(str(path / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=10)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "f", "_indices_files": []}
    (path / "state.json").write_text(json.dumps(state))
    return str(path)


def memory_map(path: Path, array: np.ndarray, mode: Any = "r") -> np.ndarray:
    return np.load(npy(path, array), mmap_mode=mode)


def layered(array: np.ndarray) -> torch.Tensor:
    """Return a tensor (n, 2, d) whose last layer is the array."""
    return torch.stack([torch.full((N, D), 9.0).to(torch.from_numpy(array).dtype), torch.from_numpy(array)], 1)


KINDS: dict[str, Callable[[Path, np.ndarray], Any]] = {
    "array": lambda _, array: array,
    "other byte order": lambda _, array: array.astype(array.dtype.newbyteorder()),
    "columns": lambda _, array: np.asfortranarray(array),
    "backwards": lambda _, array: array[::-1].copy()[::-1],
    "memory map": memory_map,
    "private memory map": lambda path, array: memory_map(path, array, "c"),
    "part of a memory map": lambda path, array: np.asarray(memory_map(path, np.concatenate([array, array]))[N:]),
    "tensor": lambda _, array: torch.from_numpy(array).requires_grad_(array.dtype != np.int8),
    "strided tensor": lambda _, array: torch.from_numpy(array.T.copy()).T,
    "npy": npy,
    "npy path": lambda path, array: Path(npy(path, array)),
    "npy of columns": lambda path, array: npy(path, np.asfortranarray(array)),
    "npy in the other byte order": lambda path, array: npy(path, array.astype(array.dtype.newbyteorder())),
    "safetensors": safetensors,
    "named tensor": lambda path, array: safetensors(path, array, more=torch.ones(2, 2)) + ":rows",
    "parquet": lambda path, array: parquet(path, lists(array)),
    "fixed lists": lambda path, array: parquet(path, lists(array, width=D)),
    "large lists": lambda path, array: parquet(path, lists(array, lambda kind, _: pa.large_list(kind))),
    "npz": npz,
    "npz of columns": lambda path, array: npz(path, np.asfortranarray(array)),
    "compressed npz": lambda path, array: npz(path, array, np.savez_compressed),
    "named array": lambda path, array: npz(path, array, more=np.ones((2, 2))) + ":rows",
    "pt": lambda path, array: pt(path, torch.from_numpy(array)),
    "pt of a dictionary": lambda path, array: pt(path, {"rows": torch.from_numpy(array), "epoch": 3}),
    "nested tensor": lambda path, array: pt(path, {"a": {"b.c": torch.from_numpy(array)}}) + ":a.b.c",
    "layer of a tensor": lambda path, array: pt(path, {"feats": layered(array)}) + ":feats[-1]",
    "layer of an npy": lambda path, array: npy(path, layered(array).numpy()) + "[1]",
    "layer of a safetensors": lambda path, array: safetensors(path, layered(array).numpy()) + "[1]",
    "arrow": lambda path, array: arrow(path, lists(array)),
    "feather": lambda path, array: arrow(path, lists(array, width=D), "rows.feather", more=pa.array(range(len(array)))),
    "saved to disk": lambda path, array: saved_to_disk(path, lists(array)),
    "named column": lambda path, array: parquet(path, lists(array), more=lists(array)) + ":rows",
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same_rows(kind: str, dtype: type, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(rows_module, "PIECE", 200)  # blocks of several pieces
    array = ROWS.astype(dtype)
    rows = open_rows(KINDS[kind](tmp_path, array))
    assert rows.shape == (N, D)
    for start, stop in [(0, N), (41, 53), (5, 29), (9, 11), (52, 53)]:
        block = rows.read(start, stop)
        assert block.is_contiguous()
        assert torch.equal(block, torch.from_numpy(array[start:stop]))
        assert block.dtype == rows.dtype == torch.from_numpy(array).dtype
        assert not block.requires_grad


def test_rows_are_read_into_a_buffer() -> None:
    buffer = torch.full((9, D), 1e6, dtype=torch.float64)
    block = open_rows(ROWS).read(3, 8, buffer)
    assert block.data_ptr() == buffer.data_ptr()
    assert torch.equal(buffer, torch.cat([torch.from_numpy(ROWS[3:8]), torch.full((4, D), 1e6).double()]))


def test_bfloat16_comes_from_tensors_and_safetensors(tmp_path: Path) -> None:
    tensor = torch.from_numpy(ROWS).bfloat16()
    assert torch.equal(open_rows(tensor).read(3, 50), tensor[3:50])
    pytest.importorskip("safetensors.torch").save_file({"rows": tensor}, tmp_path / "rows.safetensors")
    assert torch.equal(open_rows(tmp_path / "rows.safetensors").read(3, 50), tensor[3:50])


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_copies(kind: str, tmp_path: Path) -> None:
    rows = open_rows(KINDS[kind](tmp_path, ROWS.copy()))
    rows.read(0, N).zero_()
    assert torch.equal(rows.read(0, N), torch.from_numpy(ROWS))


def test_what_was_written_to_a_private_map_stays(tmp_path: Path) -> None:
    array = memory_map(tmp_path, ROWS, "c")
    array[3] = 7
    for _ in range(2):
        assert open_rows(array).read(3, 4).tolist() == [[7.0] * D]


def test_a_map_that_was_read_is_not_resident(tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[2]) * 4096  # shared pages of files

    array = np.zeros((1 << 13, 1 << 10), dtype=np.float32)  # 32 MiB
    for source in (memory_map(tmp_path, array), npy(tmp_path, array)):
        rows = open_rows(source)
        before = resident()
        rows.read(0, 1 << 13)
        assert resident() - before < 1 << 24


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed npz", "pt", "layer of a tensor", "saved to disk"])
def test_items_of_a_file_can_be_indexed(kind: str, tmp_path: Path) -> None:
    result = indexable(KINDS[kind](tmp_path, ROWS))
    assert np.array_equal(np.asarray(result)[[3, 50]], ROWS[[3, 50]])


def test_layers_of_every_kind(tmp_path: Path) -> None:
    both = layered(ROWS)
    for source in (
        both,
        both.numpy(),
        npy(tmp_path, both.numpy()),
        npz(tmp_path, both.numpy()),
        pt(tmp_path, {"feats": both}),
        safetensors(tmp_path, both.numpy(), scale=torch.ones(2, 2)),
    ):
        layers = open_layers(source)
        assert [layer.shape for layer in layers] == [(N, D), (N, D)]
        assert all(torch.equal(layer.read(3, 9), both[3:9, i]) for i, layer in enumerate(layers))
        assert np.array_equal(np.asarray(indexable(layers[1])), ROWS)
    assert [len(open_layers(source)) for source in (ROWS, open_rows(ROWS), npy(tmp_path, both.numpy()) + "[0]")] == [
        1,
        1,
        1,
    ]


def test_names_may_hold_colons_and_folders_dots(tmp_path: Path) -> None:
    folder = tmp_path / "a.npy"
    folder.mkdir()
    pq.write_table(pa.table({"b:c.parquet": lists(ROWS), "other": lists(ROWS)}), folder / "rows.parquet")
    assert open_rows(f"{folder}/rows.parquet:b:c.parquet").shape == (N, D)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "rows.npy"
    np.save(file, ROWS)
    rows = open_rows(file)
    assert rows.read(0, 1).shape[1] == ROWS.shape[1]
    np.save(file, ROWS[:, :1])
    with pytest.raises(ValueError, match=r"rows.npy has changed since it was opened"):
        rows.read(0, 1)


def test_fingerprints_differ_where_rows_may(tmp_path: Path) -> None:
    other = ROWS.copy()
    other[-1, -1] += 1
    seen = [open_rows(array).fingerprint() for array in (ROWS, other, ROWS.astype(np.float32), ROWS[:-1])]
    file = npy(tmp_path, ROWS)
    seen.append(open_rows(file).fingerprint())
    Path(file).touch()
    seen.append(open_rows(file).fingerprint())
    table = parquet(tmp_path, lists(ROWS), more=lists(ROWS))
    seen += [open_rows(f"{table}:{name}").fingerprint() for name in ("rows", "more")]
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    assert open_rows(torch.from_numpy(ROWS)).fingerprint() == seen[0]
    assert open_rows(file).fingerprint() == seen[5]


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
