"""A search by blocks returns the same graph whatever the blocks are, and however often it was stopped."""

import _thread
import contextlib
import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import modalign
from modalign.files import checkpoint as checkpoint_module
from modalign.files.rows import Rows, open_rows
from modalign.neighbors import block_size, bytes_of, knn_out_of_core
from modalign.neighbors import blocks as blocks_module
from modalign.neighbors.lists import GraphFolder
from modalign.ops.knn import RowBlock, SearchOptions
from modalign.reference.knn import knn

N, D, K = 203, 7, 5
METRICS = ("cosine", "dot", "euclidean")


def some_rows(n: int = N, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return rows with duplicates far apart, so that ties cross blocks, and a zero row."""
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(seed)).mul(8).round().to(dtype)
    x[n // 2 : n // 2 + n // 8] = x[: n // 8]
    x[-1] = 0
    return x


def require_same(result: tuple[Tensor, Tensor, Any], wanted: tuple[Tensor, Tensor]) -> None:
    assert result[2].proved + result[2].redone == len(wanted[0])
    assert result[0].dtype == torch.int64
    assert result[1].dtype == torch.float64
    assert torch.equal(result[0], wanted[0])
    assert torch.equal(result[1], wanted[1])


@pytest.fixture
def merges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Record the calls of merge: the starts of both blocks, and whether each has lists."""
    calls: list[tuple[Any, ...]] = []
    real = blocks_module.merge

    def counted(x: RowBlock, y: RowBlock | None, options: SearchOptions) -> Any:
        report = real(x, y, options)
        calls.append((x.start, (x if y is None else y).start, x.best is not None, y is not None and y.best is not None))
        return report

    monkeypatch.setattr(blocks_module, "merge", counted)
    return calls


@pytest.mark.parametrize("block_size", [17, 100, N, 1000])
@pytest.mark.parametrize("metric", METRICS)
def test_blocks_change_nothing(metric: str, block_size: int) -> None:
    x = some_rows()
    require_same(knn_out_of_core(open_rows(x), K, metric=metric, block_size=block_size), knn(x, None, K, metric))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8])
def test_every_dtype_has_its_float64_scores(dtype: torch.dtype) -> None:
    x = some_rows(dtype=dtype)
    require_same(knn_out_of_core(open_rows(x), K, metric="dot", block_size=50), knn(x, None, K, "dot"))


@pytest.mark.parametrize("block_size", [17, 100, 1000])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("m", [1, 90, 300])
def test_queries_search_the_gallery(metric: str, block_size: int, m: int) -> None:
    x, queries = (
        some_rows(),
        torch.cat([some_rows(N, seed=0)[:m], some_rows(N, seed=1)])[:m],
    )  # with rows of x among them
    result = knn_out_of_core(open_rows(x), K, queries=open_rows(queries), metric=metric, block_size=block_size)
    require_same(result, knn(x, queries, K, metric))


def test_a_set_that_queries_itself_finds_itself() -> None:
    rows = open_rows(some_rows())
    result = knn_out_of_core(rows, K, queries=rows, metric="euclidean", block_size=30)
    require_same(result, knn(some_rows(), some_rows(), K, "euclidean"))


@pytest.mark.parametrize(("backend", "block_size"), [("cpp", 17), ("cpp", 100), ("cpp", 1000), ("triton", 60)])
@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_a_group_are_no_neighbours(metric: str, backend: str, block_size: int) -> None:
    x, groups = some_rows(), torch.randint(-3, 4, (N,))
    groups[:70] = 9  # a block may hold no candidate for a row
    result = knn_out_of_core(open_rows(x), K, metric=metric, groups=groups, block_size=block_size, backend=backend)
    require_same(result, knn(x, None, K, metric, groups=groups))
    queries, query_groups = some_rows(90, seed=1), torch.randint(-4, 5, (90,))  # some groups are not in x
    result = knn_out_of_core(
        open_rows(x),
        K,
        queries=open_rows(queries),
        metric=metric,
        groups=groups,
        query_groups=query_groups,
        block_size=block_size,
        backend=backend,
    )
    require_same(result, knn(x, queries, K, metric, groups=groups, query_groups=query_groups))


@pytest.mark.parametrize("n", [2, 3, 128])
def test_k_may_be_all_the_others(n: int) -> None:
    x = some_rows()[:n]
    require_same(knn_out_of_core(open_rows(x), n - 1, metric="dot", block_size=2), knn(x, None, n - 1, "dot"))


@pytest.mark.parametrize("block_size", [64, 100])
@pytest.mark.parametrize("metric", METRICS)
def test_blocks_on_the_gpu_give_the_same_bits(metric: str, block_size: int) -> None:
    """The Triton interpreter runs the kernels in this process."""
    x, queries = some_rows(), some_rows(90, seed=1)
    result = knn_out_of_core(open_rows(x), K, metric=metric, block_size=block_size, backend="triton")
    require_same(result, knn(x, None, K, metric))
    result = knn_out_of_core(
        open_rows(x), K, queries=open_rows(queries), metric=metric, block_size=block_size, backend="triton"
    )
    require_same(result, knn(x, queries, K, metric))


@pytest.mark.parametrize("block_size", [17, 100])
@pytest.mark.parametrize("metric", METRICS)
def test_the_reference_goes_by_blocks_too(metric: str, block_size: int) -> None:
    x, groups, queries = some_rows(), torch.randint(-3, 4, (N,)), some_rows(90, seed=1)
    settings: dict[str, Any] = {"metric": metric, "block_size": block_size, "backend": "reference"}
    result = knn_out_of_core(open_rows(x), K, groups=groups, **settings)
    require_same(result, knn(x, None, K, metric, groups=groups))
    require_same(knn_out_of_core(open_rows(x), K, queries=open_rows(queries), **settings), knn(x, queries, K, metric))


def test_a_checkpoint_of_one_backend_is_continued_by_another(tmp_path: Path) -> None:
    """A list here is longer than a block."""
    x = some_rows(130, torch.float16)
    with stopped_after(5):
        knn_out_of_core(open_rows(x), 70, block_size=60, checkpoint=tmp_path, backend="triton")
    assert len(list(tmp_path.glob("block-*.npz"))) >= 1
    require_same(knn_out_of_core(open_rows(x), 70, block_size=60, checkpoint=tmp_path), knn(x, None, 70, "cosine"))


def test_what_the_gpu_cannot_search_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match=r"triton: dtype torch\.int8"):
        knn_out_of_core(open_rows(some_rows(dtype=torch.int8)), K, checkpoint=tmp_path / "new", backend="triton")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="backend must be 'auto' or one of"):
        knn_out_of_core(open_rows(some_rows()), K, backend="torch")


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    if not torch.cuda.is_available():
        with pytest.raises(NotImplementedError, match="triton: torch sees no GPU"):
            knn_out_of_core(open_rows(some_rows()), K, block_size=50, backend="triton")


def test_one_row_has_itself_for_a_neighbour_of_queries() -> None:
    x = open_rows(torch.ones(1, 3))
    assert knn_out_of_core(x, 1, queries=x)[0].tolist() == [[0]]


@pytest.mark.parametrize(("m", "blocks"), [(None, 7), (150, 7)])
def test_a_pair_of_blocks_is_visited_once_and_one_of_it_stays(
    m: int | None, blocks: int, merges: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    real = Rows.read

    def counted(self: Rows, start: int, stop: int, into: Tensor) -> Tensor:
        reads.append((self, start))
        return real(self, start, stop, into)

    monkeypatch.setattr(Rows, "read", counted)
    queries = None if m is None else open_rows(some_rows(m))
    knn_out_of_core(open_rows(some_rows()), K, queries=queries, metric="dot", block_size=30)
    starts = range(0, N, 30)
    pairs = [(x, y) for x, y, *_ in merges]
    if queries is None:
        assert sorted(pairs) == list(itertools.combinations_with_replacement(starts, 2))
        assert (
            len(reads) == blocks + (blocks - 1) * (blocks - 2) // 2
        )  # in the first run all; later the first and the last are in memory
    else:
        assert sorted(pairs) == list(itertools.product(range(0, 150, 30), starts))
        assert len(reads) == 5 + 7 + 4 * 6


# checkpoints


def run(folder: Path | None, x: Rows | None = None, **others: Any) -> tuple[Tensor, Tensor]:
    settings: dict[str, Any] = {"metric": "euclidean", "block_size": 30, "checkpoint": folder} | others
    return knn_out_of_core(open_rows(some_rows()) if x is None else x, settings.pop("k", K), **settings)


@contextlib.contextmanager
def stopped_after(saves: int, error: type[BaseException] = SystemExit) -> Iterator[None]:
    """Raise ``error`` where the search would write the next block file, as if the process ended there."""
    real, writes = checkpoint_module.write_atomically, []

    def write(path: Path, content: Callable[[Path], Any]) -> None:
        writes.extend([path] * path.name.startswith("block"))
        if len(writes) > saves:
            raise error
        real(path, content)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(error):
        patch.setattr(checkpoint_module, "write_atomically", write)
        yield


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """Return a checkpoint of a graph of 7 blocks, stopped after two pairs of blocks and one side of the third."""
    with stopped_after(1 + 2 + 1):
        run(tmp_path / "graph")
    return tmp_path / "graph"


@pytest.mark.parametrize("saves", [0, 1, 2, 3, 4, 13, 14, 15, 48, 49])
def test_it_continues_wherever_it_was_stopped(saves: int, tmp_path: Path, merges: list[Any]) -> None:
    with stopped_after(saves):
        run(tmp_path)
    before = len(merges)
    require_same(run(tmp_path), knn(some_rows(), None, K, "euclidean"))
    again = merges[before:]
    # 7 * 7 sides, each folded in once: every block with every block, a block with itself once
    assert sum(x + y for *_, x, y in again) == 49 - saves
    assert len(again) == len({(x, y) for x, y, *_ in again})
    del merges[:]
    require_same(run(tmp_path), knn(some_rows(), None, K, "euclidean"))
    assert merges == []


def test_the_side_that_was_kept_is_not_folded_in_again(half: Path, merges: list[Any]) -> None:
    run(half)
    assert merges[0] == (0, 60, False, True)
    assert all(y or x_start == y_start for x_start, y_start, _, y in merges)


def test_either_side_of_a_pair_may_be_the_one_that_is_missing(tmp_path: Path, merges: list[Any]) -> None:
    with stopped_after(3):
        run(tmp_path)
    (tmp_path / "block-00000.npz").unlink()
    del merges[:]
    require_same(run(tmp_path), knn(some_rows(), None, K, "euclidean"))
    assert merges[:2] == [(0, 0, True, False), (0, 30, True, False)]


def test_the_report_is_of_the_whole_search(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [blocks_module.Report("int8", 3, 2, 10), blocks_module.Report("float32", 3, 1, 100)]
    reports = itertools.chain(seen, itertools.repeat(blocks_module.Report("int8", 5, 0, 1)))
    real = blocks_module.merge

    def reported(*arguments: Any, **others: Any) -> Any:
        real(*arguments, **others)
        return next(reports)

    monkeypatch.setattr(blocks_module, "merge", reported)
    with stopped_after(5):
        run(half, fresh=True)  # three pairs
    report = run(half)[2]
    assert report == ("int8", N - 3, 3, 110 + 28 - 2)
    assert run(half)[2] == report


@pytest.mark.parametrize("m", [20, 100])
def test_queries_continue_too(m: int, tmp_path: Path, merges: list[Any]) -> None:
    queries = open_rows(some_rows(m, seed=1))
    groups, query_groups = torch.arange(N) % 4, torch.arange(m) % 3
    others = {"queries": queries, "groups": groups, "query_groups": query_groups}
    with stopped_after(5):
        run(tmp_path, **others)
    del merges[:]
    wanted = knn(some_rows(), some_rows(m, seed=1), K, "euclidean", groups=groups, query_groups=query_groups)
    require_same(run(tmp_path, **others), wanted)
    assert len(merges) == -(-m // 30) * 7 - 5
    with pytest.raises(ValueError, match=r"query_groups: '\w{64}' before, '\w{64}' now"):
        run(tmp_path, **others | {"query_groups": query_groups + 1})


def test_as_many_queries_as_rows_continue_too(tmp_path: Path) -> None:
    """A query block that was not reached yet is no missing file, though the candidates of its number are folded in."""
    queries = some_rows(seed=1)
    with stopped_after(17):
        run(tmp_path, queries=open_rows(queries))
    result = run(tmp_path, queries=open_rows(queries))
    require_same(result, knn(some_rows(), queries, K, "euclidean"))


SCRIPT = """
import sys, time
import numpy as np
from modalign.neighbors import blocks
from modalign.files.rows import open_rows
real = blocks.merge
def slow(*arguments, **others):
    time.sleep(0.02)
    return real(*arguments, **others)
blocks.merge = slow
blocks.knn_out_of_core(open_rows(sys.argv[1]), 5, metric="euclidean", block_size=30, checkpoint=sys.argv[2])
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_is_continued(how: signal.Signals, tmp_path: Path, merges: list[Any]) -> None:
    np.save(tmp_path / "x.npy", some_rows().numpy())
    folder = tmp_path / "graph"
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, tmp_path / "x.npy", folder], stderr=subprocess.DEVNULL
    ) as process:
        while not (folder / "block-00003.npz").exists():
            assert process.poll() is None, "it ended too soon"
            time.sleep(0.005)
        process.send_signal(how)
    assert process.returncode not in {0, 1}
    kept = sum(int(np.load(file)["done"].sum()) for file in folder.glob("block-*.npz"))
    assert 7 <= kept < 49
    require_same(run(folder, open_rows(tmp_path / "x.npy")), knn(some_rows(), None, K, "euclidean"))
    assert sum(x + y for *_, x, y in merges) == 49 - kept
    assert len(merges) < 28


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def resave(file: Path, **others: Any) -> None:
    np.savez(file, **{**np.load(file), **others})


DAMAGE: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "block cut short": ("block-00001.npz", lambda file: file.write_bytes(file.read_bytes()[:200])),
    "block emptied": ("block-00001.npz", lambda file: file.write_bytes(b"")),
    "block with a wrong bit": ("block-00000.npz", flip),
    "block of nothing": ("block-00000.npz", lambda file: np.savez(file, other=np.ones(3))),
    "block of another shape": ("block-00000.npz", lambda file: resave(file, done=np.zeros(1, dtype=bool))),
    "block of another dtype": ("block-00000.npz", lambda file: resave(file, scores=np.ones((30, K), np.float32))),
    "block of foreign rows": ("block-00000.npz", lambda file: resave(file, indices=np.full((30, K), N))),
    "block that is NaN": ("block-00000.npz", lambda file: resave(file, scores=np.full((30, K), np.nan))),
    "block of pickles": ("block-00000.npz", lambda file: resave(file, done=np.array([None] * 7))),
    "block missing": ("block-00000.npz", Path.unlink),
    "facts missing": ("checkpoint.json", Path.unlink),
    "facts cut short": ("checkpoint.json", lambda file: file.write_text(file.read_text()[:50])),
    "facts of another kind": ("checkpoint.json", lambda file: file.write_text("[1]")),
    "facts without a format": ("checkpoint.json", lambda file: file.write_text("{}")),
    "facts without a block size": ("checkpoint.json", lambda file: file.write_text('{"format": 1}')),
    "facts not text": ("checkpoint.json", lambda file: file.write_bytes(b"\xff\xfe\x00")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_can_be_started_over(damage: str, half: Path, merges: list[Any]) -> None:
    with stopped_after(4):
        run(half)
    name, harm = DAMAGE[damage]
    harm(half / name)
    del merges[:]
    with pytest.raises(ValueError, match=rf"{name} is damaged \(.+\); .*fresh=True to start over"):
        run(half)
    assert merges == []
    require_same(run(half, fresh=True), knn(some_rows(), None, K, "euclidean"))
    assert len(merges) == 28


def test_fresh_takes_away_its_own_files_and_no_others(half: Path) -> None:
    others = ["notes.txt", "block-1.npz", "block-00001.npz.bak", "checkpoint.json~", ".hidden"]
    left_by_a_kill = [half / ".block-00001.npz.abc_9.npz", half / ".checkpoint.json.abc.json"]
    for file in [half / name for name in others] + left_by_a_kill:
        file.write_text("")
    (half / "block-00099.npz").mkdir()
    (half / "block-00088.npz").write_text("of a graph of more blocks")
    run(half, k=2, fresh=True)
    left = {file.name for file in half.iterdir()}
    assert left == {*others, "block-00099.npz", "checkpoint.json", *(f"block-{i:05d}.npz" for i in range(7))}


MISMATCHES: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "k": ("k: 5 before, 4 now", lambda: {"k": 4}),
    "metric": ("metric: 'euclidean' before, 'dot' now", lambda: {"metric": "dot"}),
    "block_size": ("block_size: 30 before, 31 now", lambda: {"block_size": 31}),
    "other values": (r"x.sha256: '\w{64}' before, '\w{64}' now", lambda: {"x": open_rows(some_rows(seed=1))}),
    "other shape": (r"x.shape: \[203, 7\] before, \[202, 7\] now", lambda: {"x": open_rows(some_rows(N - 1))}),
    "other dtype": ("x.dtype: 'float32' before, 'float64' now", lambda: {"x": open_rows(some_rows().double())}),
    "queries": ("queries.kind: absent before, 'array' now", lambda: {"queries": open_rows(some_rows())}),
    "groups": (r"groups: null before, '\w{64}' now", lambda: {"groups": torch.arange(N)}),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_checkpoint_of_something_else_says_what_differs(name: str, half: Path) -> None:
    message, settings = MISMATCHES[name]
    files = {file: file.read_bytes() for file in half.iterdir()}
    with pytest.raises(ValueError, match=rf"graph holds a k-NN graph of other settings \(.*{message}.*fresh=True"):
        run(half, **settings())
    assert {file: file.read_bytes() for file in half.iterdir()} == files


def test_a_file_that_changed_is_something_else(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, some_rows().numpy())
    run(tmp_path / "graph", open_rows(file))
    np.save(file, some_rows(seed=1).numpy())
    with pytest.raises(ValueError, match=r"other settings \(x.mtime_ns: \d+ before, \d+ now\)"):
        run(tmp_path / "graph", open_rows(file))


def test_a_checkpoint_of_a_later_format_is_named(half: Path) -> None:
    facts = json.loads((half / "checkpoint.json").read_text())
    (half / "checkpoint.json").write_text(json.dumps(facts | {"format": 2, "modalign": "9.0"}))
    with pytest.raises(ValueError, match=r"checkpoint.json must be of format 1, got 2 of modalign 9.0; .*fresh=True"):
        run(half)


@pytest.mark.parametrize("at", ["savez", "fsync"])
def test_a_full_disk_keeps_what_is_finished(
    at: str, half: Path, merges: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file: file.read_bytes() for file in half.iterdir()}

    def full(target: Any, **arrays: Any) -> None:
        if at == "savez":
            Path(target).write_bytes(b"PK half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np if at == "savez" else os, at, full)
        with pytest.raises(
            OSError, match=r"cannot write .*block-00002.npz: No space left .* is kept, and the same call continues"
        ) as caught:
            run(half)
    assert caught.value.errno == errno.ENOSPC
    assert {file: file.read_bytes() for file in half.iterdir()} == files
    del merges[:]
    require_same(run(half), knn(some_rows(), None, K, "euclidean"))
    assert sum(x + y for *_, x, y in merges) == 49 - 4


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path, merges: list[Any]) -> None:
    with stopped_after(10, KeyboardInterrupt):
        run(tmp_path)
    del merges[:]
    require_same(run(tmp_path), knn(some_rows(), None, K, "euclidean"))
    assert sum(x + y for *_, x, y in merges) == 49 - 10


def test_an_interrupt_is_heard_in_the_middle_of_a_pair(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {file: file.read_bytes() for file in half.iterdir()}
    stopped = []

    def endless(x: RowBlock, y: RowBlock | None, options: SearchOptions) -> None:
        time.sleep(0.3)
        _thread.interrupt_main()
        deadline = time.monotonic() + 30
        while not options.watch.stop and time.monotonic() < deadline:
            time.sleep(0.01)
        stopped.append(bool(options.watch.stop))

    monkeypatch.setattr(blocks_module, "merge", endless)
    with pytest.raises(KeyboardInterrupt):
        run(half)
    assert stopped == [True]
    assert {file: file.read_bytes() for file in half.iterdir()} == files


def test_an_error_of_the_search_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "merge", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(None)


def test_two_cannot_compute_in_one_folder(half: Path) -> None:
    with (
        GraphFolder(half).checkpoint.claimed(),
        pytest.raises(ValueError, match="another process computes a k-NN graph in this folder"),
    ):
        run(half)


def test_a_checkpoint_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be a folder for a k-NN graph, got a file"):
        run(tmp_path / "file")


# memory


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
        ValueError, match=r"max_memory must be at least \d+ bytes, .* blocks of 128 rows .*got 1000"
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


# mistakes

X = some_rows()
BAD: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "k = 0": (ValueError, "k must be between 1 and 202 for 203 rows, got 0", {"k": 0}),
    "k = n": (ValueError, "between 1 and 202 for 203 rows, got 203", {"k": N}),
    "k > n": (ValueError, "between 1 and 203 for 203 rows, got 204", {"k": N + 1, "queries": open_rows(X[:3])}),
    "k text": (TypeError, "k must be an integer, got '5'", {"k": "5"}),
    "k None": (TypeError, "k must be an integer, got None", {"k": None}),
    "k true": (TypeError, "k must be an integer, got True", {"k": True}),
    "metric": (ValueError, r"metric must be one of \('cosine', .*got 'l1'", {"metric": "l1"}),
    "block_size": (ValueError, "block_size must be at least 1, got 0", {"block_size": 0}),
    "block_size text": (TypeError, "block_size must be an integer, got 1.5", {"block_size": 1.5}),
    "max_memory text": (TypeError, "max_memory must be an integer, got '8GB'", {"max_memory": "8GB"}),
    "width": (ValueError, r"width and dtype of x, got \(203, 6\)", {"queries": open_rows(X[:, :6])}),
    "dtype": (ValueError, r"width and dtype of x, got .*float64 for", {"queries": open_rows(X.double())}),
    "groups short": (
        ValueError,
        r"groups must be \(203,\), one for each row, got \(202,\)",
        {"groups": torch.arange(N - 1)},
    ),
    "groups float": (TypeError, "groups must be int64, got torch.float32", {"groups": torch.ones(N)}),
    "query_groups missing": (ValueError, "go together", {"groups": torch.arange(N), "queries": open_rows(X)}),
    "groups missing": (ValueError, "go together", {"query_groups": torch.arange(N), "queries": open_rows(X)}),
    "query_groups alone": (
        ValueError,
        "query_groups need queries",
        {"query_groups": torch.arange(N), "groups": torch.arange(N)},
    ),
    "query_groups short": (
        ValueError,
        r"query_groups must be \(3,\)",
        {"query_groups": torch.arange(N), "queries": open_rows(X[:3]), "groups": torch.arange(N)},
    ),
    "large group": (
        ValueError,
        r"k = 5 candidates outside its group, got fewer for 199 rows, the first \[0, 1, 3\]",
        {"groups": torch.where(torch.isin(torch.arange(N), torch.tensor([2, 9, 100, 202])), 1, 0)},
    ),
    "NaN": (
        ValueError,
        r"x must be finite, got NaN or inf in rows \[202\]",
        {"x": open_rows(torch.cat([X[:-1], torch.full((1, D), torch.nan)]))},
    ),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_named(mistake: str) -> None:
    kind, message, settings = BAD[mistake]
    with pytest.raises(kind, match=message):
        run(None, **settings)


def test_negative_rows_of_float64_are_fine() -> None:
    x = -some_rows(dtype=torch.float64).abs() - 1
    require_same(run(None, open_rows(x)), knn(x, None, K, "euclidean"))


# rows whose squares float64 cannot hold

SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "tiny": lambda x: x * 1e-130,
    "huge": lambda x: x * 2.0**450,
    "least": lambda x: x * 2.0**-1060,
    "a block of them": lambda x: torch.cat([x[:150], x[150:] * 1e-130]),
    "one row": lambda x: torch.cat([x[:40], x[40:41] * 2.0**405, x[41:]]),
    "a row of zeros": lambda x: torch.cat([x * 1e-140, torch.zeros(3, 8, dtype=x.dtype)]),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", SCALES)
def test_rows_out_of_range_have_the_neighbours_they_have_in_memory(scale: str, metric: str, tmp_path: Path) -> None:
    """``knn(x, 3)`` and ``knn(x, 3, max_memory=...)`` agree bit for bit, with queries, groups and a checkpoint too."""
    generator = torch.Generator().manual_seed(0)
    x = SCALES[scale](torch.randn(300, 8, dtype=torch.float64, generator=generator))
    queries, groups = x[::5] * 1.25, torch.arange(len(x)) % 7
    variants: list[dict[str, Any]] = [
        {},
        {"groups": groups},
        {"queries": queries},
        {"queries": queries, "groups": groups, "query_groups": torch.arange(len(queries)) % 5},
        {"queries": torch.randn(20, 8, dtype=torch.float64, generator=generator)},  # in range, though x is not
    ]
    for number, variant in enumerate(variants):
        whole = modalign.knn(x, 3, metric=metric, **variant)
        folder = {"block_size": 64, "checkpoint": tmp_path / f"{number}"}
        for limit in ({"max_memory": "40MB"}, {"block_size": 64}, folder):
            parts = modalign.knn(x, 3, metric=metric, **variant, **limit)
            assert torch.equal(parts.indices, whole.indices)
            assert torch.equal(parts.scores, whole.scores)


def test_rows_out_of_range_are_continued(tmp_path: Path) -> None:
    x = some_rows(dtype=torch.float64) * 1e-200
    with stopped_after(5):
        run(tmp_path, open_rows(x))
    result = run(tmp_path, open_rows(x))
    assert torch.equal(result[0], modalign.knn(x, K, metric="euclidean").indices)
    assert json.loads((tmp_path / "checkpoint.json").read_text())["scale"] == -659


def test_a_checkpoint_of_rows_that_were_not_scaled_is_refused(tmp_path: Path) -> None:
    """Earlier versions kept the blocks before the first one with rows out of range, where they raised an error."""
    x = some_rows(dtype=torch.float64) * 1e-200
    with stopped_after(2):
        run(tmp_path, open_rows(x))
    record = json.loads((tmp_path / "checkpoint.json").read_text())
    del record["scale"]
    (tmp_path / "checkpoint.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"of other settings \(scale: absent before, -659 now\); .*fresh=True"):
        run(tmp_path, open_rows(x))


def test_exactly_k_candidates_outside_the_group_are_enough() -> None:
    groups = torch.zeros(N, dtype=torch.int64)
    groups[[2, 9, 100, 150, 202]] = torch.arange(1, 6)
    require_same(run(None, groups=groups), knn(X, None, K, "euclidean", groups=groups))


# what is shown


@pytest.mark.parametrize("progress", [True, False])
def test_the_bar_is_for_terminals(
    progress: bool, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(None, progress=True)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    run(None, progress=progress)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("100%" in err) == progress


def test_the_bar_counts_pairs_of_rows_those_of_earlier_calls_too(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []
    real = blocks_module.bar
    monkeypatch.setattr(blocks_module, "bar", lambda shown: bars.append(real(shown)) or bars[-1])
    for _ in range(2):
        run(half)
    total = sum(x * y for x, y in itertools.combinations_with_replacement([30] * 6 + [23], 2))
    assert [(bar.tasks[0].total, bar.tasks[0].completed) for bar in bars] == [(total, total)] * 2
