"""Blocks are as large as the memory allows."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modalign.files.rows import Rows, open_rows
from modalign.neighbors import block_size, bytes_of, knn_out_of_core
from modalign.reference.knn import knn
from neighbors.block_searches import D, K, require_same, run, some_rows


def test_blocks_are_as_large_as_memory_allows(merges: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_size, "merge_bytes", lambda n, m, **_: 1000 * (n + m))
    x = open_rows(some_rows(1000))
    fixed = x.overhead + 1000 * 16 * K
    for allowed, blocks in ((256, 8), (285, 8), (286, 7), (664, 4), (667, 4), (668, 3), (999, 3), (1000, 1)):
        del merges[:]
        knn_out_of_core(x, K, metric="dot", max_memory=fixed + allowed * (4 * D + 1000))
        assert len({start for start, *_ in merges}) == blocks


@pytest.mark.parametrize("queries", [None, open_rows(some_rows(700))])
def test_too_little_memory_says_what_would_do(queries: Rows | None) -> None:
    x = open_rows(some_rows(1000))
    with pytest.raises(
        ValueError, match=r"max_memory must be at least \d+ bytes .* blocks of 128 rows .*got 1000"
    ) as caught:
        knn_out_of_core(x, K, queries=queries, metric="dot", max_memory=1000)
    least = int(re.findall(r"least (\d+) bytes", str(caught.value))[0])
    with pytest.raises(ValueError, match=f"at least {least} bytes"):
        knn_out_of_core(x, K, queries=queries, metric="dot", max_memory=least - 1)
    result = knn_out_of_core(x, K, queries=queries, metric="dot", max_memory=least)
    require_same(result, knn(some_rows(1000), None if queries is None else some_rows(700), K, "dot"))


def test_a_continued_call_keeps_its_blocks_unless_they_are_too_large(half: Path) -> None:
    require_same(run(half, block_size=None), knn(some_rows(), None, K, "euclidean"))
    require_same(run(half, block_size=None, max_memory=10**9), knn(some_rows(), None, K, "euclidean"))
    run(half, block_size=200, fresh=True)
    least = re.compile(r"max_memory must be at least (\d+)")
    with pytest.raises(ValueError, match=least) as caught:
        run(half, block_size=None, max_memory=1)
    with pytest.raises(ValueError, match=r"block_size: 200 before, \d+ now"):
        run(half, block_size=None, max_memory=int(least.findall(str(caught.value))[0]))


MEMORY_SCRIPT = """
import mmap, pathlib, re, sys
import numpy as np, torch
from modalign.neighbors.blocks import knn_out_of_core
from modalign.files.rows import open_rows
torch.set_num_threads(2)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
rows = open_rows(sys.argv[1])
knn_out_of_core(open_rows(np.random.default_rng(0).normal(size=(300, 4))), 3, block_size=128)
base = peak()
import modalign.neighbors.blocks
def merge(x, y, options):  # allocates the memory that a merge may take, and does nothing else
    size = modalign.ops.knn.merge_bytes(len(x.rows), 0 if y is None else len(y.rows), d=512, k=3)
    np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)[:] = 1
    for block in (x, y):
        block is not None and block.best is not None and block.best[0].zero_()
    return modalign.ops.knn.Report("none", 0, 0, 0)
modalign.neighbors.blocks.merge = merge
knn_out_of_core(rows, 3, metric="dot", max_memory=int(sys.argv[2]), checkpoint=sys.argv[3] if sys.argv[3:] else None)
print(peak() - base)
"""


@pytest.mark.parametrize("checkpoint", [False, True])
def test_memory_stays_below_what_is_allowed(checkpoint: bool, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40_000, 512)).astype(np.float32)  # 82 MB
    np.save(tmp_path / "x.npy", rows)
    command = [sys.executable, "-c", MEMORY_SCRIPT, tmp_path / "x.npy", "60000000"]
    command += [tmp_path / "graph"] if checkpoint else []
    used = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert used < 60_000_000


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * 10**9),
        ("500 MB", 5 * 10**8),
        ("1.5kb", 1500),
        ("2GiB", 2**31),
        ("7", 7),
        (7, 7),
        ("1TB", 10**12),
        ("12B", 12),
        (" 3 MiB ", 3 * 2**20),
    ],
)
def test_bytes_of_a_size(text: int | str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "8 XB", "-1GB", "0", 0, -5, "8 GB of it", "1e9"])
def test_what_is_no_size_is_named(text: int | str) -> None:
    with pytest.raises(ValueError, match=r"a size must be .*got " + re.escape(repr(text))):
        bytes_of(text)


@pytest.mark.parametrize("size", [1.5, None, True])
def test_a_size_is_an_integer_or_a_string(size: Any) -> None:
    with pytest.raises(TypeError, match='bytes or a string such as "8GB", got'):
        bytes_of(size)
