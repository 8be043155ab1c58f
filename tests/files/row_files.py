"""The same rows in every kind of file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

N, D = 53, 7
ROWS = np.random.default_rng(0).integers(-100, 100, (N, D)) / 4  # exact in float16


def lists(array: np.ndarray, kind: Callable[..., pa.DataType] = pa.list_, width: int = -1) -> pa.Array:
    return pa.array(list(array), type=kind(pa.from_numpy_dtype(array.dtype), width))


def npy(path: Path, array: np.ndarray) -> str:
    np.save(path / "rows.npy", array)
    return str(path / "rows.npy")


def safetensors(path: Path, array: np.ndarray, **others: torch.Tensor) -> str:
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
