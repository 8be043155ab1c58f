"""A search by blocks that was stopped continues from its checkpoint, or refuses it with a reason."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modalign.files.rows import open_rows
from modalign.neighbors import blocks as blocks_module
from modalign.neighbors.lists import GraphFolder
from modalign.reference.knn import knn
from neighbors.block_searches import K, N, require_same, run, some_rows, stopped_after


@pytest.fixture(autouse=True)
def _every_pair_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "SECONDS_BETWEEN_SAVES", 0)


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
blocks.SECONDS_BETWEEN_SAVES = 0
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
    "facts without a block size": ("checkpoint.json", lambda file: file.write_text('{"format": 2}')),
    "facts with an endless block": (
        "checkpoint.json",
        lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), "block_size": float("inf")})),
    ),
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
    left_by_a_kill = [half / ".block-00001.npz.abcde_99.npz", half / ".checkpoint.json.abcdefgh.json"]
    for file in [half / name for name in others] + left_by_a_kill:
        file.write_text("")
    (half / "block-00099.npz").mkdir()
    (half / "block-00088.npz").write_text("of another graph")
    with pytest.raises(
        ValueError, match=r"holds block-00088\.npz, which modalign .* did not write; nothing was touched"
    ):
        run(half, k=2, fresh=True)
    (half / "block-00088.npz").unlink()
    run(half, k=2, fresh=True)
    left = {file.name for file in half.iterdir()} - {".modalign"}
    assert left == {*others, "block-00099.npz", "checkpoint.json", *(f"block-{i:05d}.npz" for i in range(7))}


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_the_users_is_refused(fresh: bool, tmp_path: Path) -> None:
    (tmp_path / "block-00000.npz").write_text("mine")
    (tmp_path / "checkpoint.json").write_text('{"mine": 1}')
    with pytest.raises(
        ValueError, match=r"holds something else \(block-00000\.npz, checkpoint\.json\), not a k-NN graph"
    ):
        run(tmp_path, fresh=fresh)
    assert {file.name for file in tmp_path.iterdir()} == {"block-00000.npz", "checkpoint.json"}


def test_a_folder_of_an_earlier_version_is_continued(half: Path, merges: list[Any]) -> None:
    (half / ".modalign").unlink()
    require_same(run(half), knn(some_rows(), None, K, "euclidean"))
    assert 0 < len(merges) < 28
    (half / ".modalign").unlink()
    (half / "notes.txt").touch()
    run(half, k=2, fresh=True)
    assert (half / "notes.txt").exists()


def test_nothing_is_removed_before_the_rows_are_checked(half: Path) -> None:
    files = {file: file.read_bytes() for file in half.iterdir()}
    rows = some_rows().double()
    rows[3, 1] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        run(half, open_rows(rows), fresh=True)
    assert {file: file.read_bytes() for file in half.iterdir()} == files


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
    (half / "checkpoint.json").write_text(json.dumps(facts | {"format": 3, "modalign": "9.0"}))
    with pytest.raises(ValueError, match=r"checkpoint.json must be of format 2, got 3 of modalign 9.0; .*fresh=True"):
        run(half)


def test_a_checkpoint_of_an_earlier_format_is_named(half: Path) -> None:
    facts = json.loads((half / "checkpoint.json").read_text()) | {"format": 1, "modalign": "0.1.0"}
    del facts["search"]
    (half / "checkpoint.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"must be of format 2, got 1 of modalign 0.1.0; .*fresh=True"):
        run(half)


def swap(half: Path) -> None:
    first, second = half / "block-00000.npz", half / "block-00001.npz"
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])


def copy(half: Path) -> None:
    (half / "block-00001.npz").write_bytes((half / "block-00000.npz").read_bytes())


def of_another_search(half: Path) -> None:
    with stopped_after(4):
        run(half.with_name("other"), k=K)
    (half / "block-00000.npz").write_bytes((half.with_name("other") / "block-00000.npz").read_bytes())


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (swap, r"block-00000.npz is damaged \(block 1 of this search\)"),
        (copy, r"block-00001.npz is damaged \(block 0 of this search\)"),
        (of_another_search, r"block-00000.npz is damaged \(a block of another search\)"),
    ],
)
def test_a_block_in_the_place_of_another_is_refused(mistake: Callable[[Path], Any], message: str, half: Path) -> None:
    mistake(half)
    with pytest.raises(ValueError, match=message + ".*fresh=True"):
        run(half)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("row", [0, 35, 100])
def test_rows_that_changed_behind_an_old_time_stamp_are_refused(finished: bool, row: int, tmp_path: Path) -> None:
    file, folder = tmp_path / "x.npy", tmp_path / "graph"
    np.save(file, some_rows().numpy())
    with stopped_after(99 if finished else 20):
        run(folder, open_rows(file))
    stat = file.stat()
    rows = some_rows().numpy()
    rows[row, 3] += 1
    np.save(file, rows)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    first = row // 30 * 30
    with pytest.raises(ValueError, match=rf"x.npy: rows {first} to {first + 29} are not those .*fresh=True"):
        run(folder, open_rows(file))


def test_queries_that_changed_behind_an_old_time_stamp_are_refused(tmp_path: Path) -> None:
    file, folder = tmp_path / "queries.npy", tmp_path / "graph"
    np.save(file, some_rows(40, seed=1).numpy())
    with stopped_after(5):
        run(folder, queries=open_rows(file))
    stat = file.stat()
    np.save(file, some_rows(40, seed=2).numpy())
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ValueError, match=r"queries.npy: rows 0 to 29 are not those"):
        run(folder, queries=open_rows(file))


def test_what_a_killed_write_left_is_removed_by_the_next_call(half: Path) -> None:
    left_by_a_kill = [half / ".block-00001.npz.abcdef_9.npz", half / ".checkpoint.json.abcdefgh.json"]
    others = [half / ".block-00001.npz.mine", half / ".notes"]
    for file in left_by_a_kill + others:
        file.write_text("half of it")
    run(half)
    assert not any(file.exists() for file in left_by_a_kill)
    assert all(file.exists() for file in others)


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
