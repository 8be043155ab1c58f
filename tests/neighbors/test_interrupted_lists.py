"""A search by blocks that is interrupted, or whose disk is full, keeps what is finished."""

import _thread
import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modalign.neighbors import blocks as blocks_module
from modalign.neighbors.lists import GraphFolder
from modalign.ops.knn import RowBlock, SearchOptions
from modalign.reference.knn import knn
from neighbors.block_searches import K, require_same, run, some_rows, stopped_after


@pytest.fixture(autouse=True)
def _every_pair_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "SECONDS_BETWEEN_SAVES", 0)


def test_lists_are_saved_every_15_seconds_and_at_the_end(
    tmp_path: Path, merges: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "SECONDS_BETWEEN_SAVES", 15.0)
    monkeypatch.setattr(blocks_module.time, "monotonic", lambda: 2.0 * len(merges))  # each pair takes 2 seconds
    written = []
    real = GraphFolder.save
    monkeypatch.setattr(
        GraphFolder, "save", lambda folder, blocks, lists: (written.append(len(merges)), real(folder, blocks, lists))
    )
    run(tmp_path)
    assert written == [8, 16, 24, 28]
    del merges[:]
    run(tmp_path)
    assert merges == []


def test_an_interrupted_pair_is_not_saved_half_merged(
    tmp_path: Path, merges: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "SECONDS_BETWEEN_SAVES", 15.0)
    real = blocks_module.merge

    def interrupted(x: RowBlock, y: RowBlock | None, options: SearchOptions) -> Any:
        report = real(x, y, options)
        if len(merges) == 4:
            raise KeyboardInterrupt
        return report

    with monkeypatch.context() as patch:
        patch.setattr(blocks_module, "merge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert {file.name for file in tmp_path.glob("block*")} == {"block-00001.npz", "block-00002.npz"}
    require_same(run(tmp_path), knn(some_rows(), None, K, "euclidean"))


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


@pytest.fixture
def _interrupts_are_heard() -> Iterator[None]:
    """Hear interrupts also in a process that a shell began in the background, where they are ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts_are_heard")
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
