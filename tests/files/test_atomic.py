"""A file appears whole or not at all, with the permissions of a new file; a full disk is named with the file."""

import os
import resource
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import modalign
from modalign.encoders.embedding import embed
from modalign.files.atomic import reserve, temporary_name, write_atomically

ROWS = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Let no file of this process grow beyond 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_does_not_fit_is_named_with_its_bytes_and_leaves_the_old_one(
    tmp_path: Path, small_disk: None
) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, lambda place: place.write_bytes(b"old"))
    with pytest.raises(OSError, match=r"File too large \(1,000 bytes of it were written, [\d,]+ are free\)") as caught:
        write_atomically(path, lambda place: place.write_bytes(bytes(5000)))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("name", ["result.json", "result.parquet"])
def test_a_saved_alignment_that_does_not_fit_names_the_file(name: str, tmp_path: Path, small_disk: None) -> None:
    result = modalign.align(ROWS, ROWS, ["cka", "mutual_knn"], k=3)
    with pytest.raises(OSError, match="File too large") as caught:
        result.save(tmp_path / name)
    assert caught.value.filename == str(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_embeddings_that_do_not_fit_are_refused_before_the_encoder_has_worked_through_them(
    tmp_path: Path, small_disk: None
) -> None:
    batches = []

    def encode(batch: list[str]) -> np.ndarray:
        batches.append(batch)
        return ROWS[: len(batch)]

    with pytest.raises(OSError, match=r"File too large \(it takes 3,728 bytes, [\d,]+ are free\)") as caught:
        embed(encode, [str(i) for i in range(300)], tmp_path / "rows.npy", batch_size=10)
    assert caught.value.filename == str(tmp_path / "rows.npy")
    assert len(batches) == 1
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_a_search_that_does_not_fit_names_the_file(tmp_path: Path, small_disk: None) -> None:
    with pytest.raises(OSError, match=r"cannot write .*: File too large.*the same call continues"):
        modalign.knn(ROWS, 20, block_size=100, checkpoint=tmp_path / "graph")


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="it is a folder") as caught:
        write_atomically(tmp_path, lambda place: place.write_bytes(b""))
    assert caught.value.filename == str(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as taken:
        write_atomically(tmp_path / "file" / "x.json", lambda place: place.write_bytes(b""))
    assert taken.value.filename == str(tmp_path / "file" / "x.json")


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_permissions_of_new_files_and_the_umask_is_never_changed(
    mask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(mask)
    try:
        monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask of the whole process was changed"))
        writers = [
            threading.Thread(
                target=write_atomically, args=(tmp_path / f"{i}.json", lambda place: place.write_bytes(b"1"))
            )
            for i in range(8)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        reserve(tmp_path / "8.json", 10, tmp_path / "8.json")
    finally:
        monkeypatch.undo()
        os.umask(before)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert (len(list(tmp_path.iterdir())), modes) == (9, {0o666 & ~mask})


def test_a_reserved_file_has_all_its_bytes_on_the_disk(tmp_path: Path) -> None:
    reserve(tmp_path / "rows.npy", 100_000, tmp_path / "rows.npy")
    status = (tmp_path / "rows.npy").stat()
    assert status.st_size == 100_000
    assert 512 * status.st_blocks >= 100_000


def test_temporary_files_are_known_by_their_names(tmp_path: Path) -> None:
    import re

    seen = []
    write_atomically(tmp_path / "part-3.npz", lambda place: seen.append(place.name))
    assert re.fullmatch(temporary_name(r"part-[0-9]\.npz"), seen[0])


@pytest.mark.parametrize("limit", [1000, 20_000, 1_000_000])
def test_pictures_of_a_page_that_do_not_fit_leave_nothing(limit: int, tmp_path: Path, small_disk: None) -> None:
    result = modalign.align(ROWS, ROWS[:, :3], ["cka"], intervals=False, null="none")
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(OSError, match="File too large") as caught:
        result.save(tmp_path / "r.html")
    assert "same call continues" not in str(caught.value)
    assert not list(tmp_path.iterdir())
