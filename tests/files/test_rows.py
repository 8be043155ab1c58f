"""Rows are the same in every kind of file, and a file without rows is refused with a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from files.row_files import KINDS, ROWS, D, N, layered, lists, memory_map, npy, npz, parquet, pt, safetensors
from modalign.files import rows as rows_module
from modalign.files.rows import indexable, open_layers, open_rows


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
    save_file({"rows": tensor}, tmp_path / "rows.safetensors")
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
