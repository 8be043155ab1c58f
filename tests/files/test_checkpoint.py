"""A checkpoint's folder is continued, refused or started over."""

import multiprocessing
from pathlib import Path

import pytest

from modalign.files.checkpoint import Checkpoint
from modalign.files.settings import ABSENT, differences, different_settings

ADVICE = "give another --out, or --fresh to start over"


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder, (r"part-\d+\.bin",), (r"record\.json",), "a sum", ADVICE, ("parts",))


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be a folder for a sum, got a file; give another place"):
        checkpoint(tmp_path / "file")


def test_clear_removes_its_own_files_and_the_record_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["part-1.bin", "part-12.bin", ".part-1.bin.a9_bcdef.bin", "record.json", ".record.json.abcdefgh.json"]
    others = ["notes.txt", "part-x.bin", "part-1.bin.old", ".hidden", "record.json~"]
    for name in names + others:
        (tmp_path / name).touch()
    for name in ("part-3.bin", "parts"):
        (tmp_path / name).mkdir()
    (tmp_path / "parts" / "one.bin").touch()
    removed = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **rest: (removed.append(path.name), unlink(path, **rest)))
    checkpoint(tmp_path).clear()
    assert sorted(removed) == sorted(names)
    assert removed[-1] == "record.json"
    assert {path.name for path in tmp_path.iterdir()} == {*others, "part-3.bin"}


def test_leftovers_of_a_killed_process_are_removed_and_one_file_may_stay(tmp_path: Path) -> None:
    for name in ("part-1.bin", ".part-1.bin.a9_bcdef.bin", "record.json"):
        (tmp_path / name).touch()
    checkpoint(tmp_path).remove_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == {"part-1.bin", "record.json"}
    checkpoint(tmp_path).clear(keep="record.json")
    assert {path.name for path in tmp_path.iterdir()} == {"record.json"}


def test_other_settings_are_named_three_of_them(tmp_path: Path) -> None:
    place = checkpoint(tmp_path)
    place.write_json("record.json", {"a": 1, "b": {"c": [1, 2]}})
    assert place.read_json("record.json") == {"a": 1, "b": {"c": [1, 2]}}
    place.require_same(place.read_json("record.json"), {"b": {"c": [1, 2]}, "a": 1})
    with pytest.raises(
        ValueError, match=r"holds a sum of other settings \(a: 1 before, 2 now; b.c: .* \[1\] now\); gi"
    ):
        place.require_same(place.read_json("record.json"), {"a": 2, "b": {"c": [1]}})
    with pytest.raises(ValueError, match=r"c: absent before, 5 now and 2 more\); give another --out"):
        place.require_same({}, {"a": 1, "b": 2, "c": 5, "d": 6, "e": 7})


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe\x00", b""])
def test_a_damaged_record_is_named(content: bytes, tmp_path: Path) -> None:
    place = checkpoint(tmp_path)
    assert place.read_json("record.json") is None
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"record.json is damaged \(.+\); give another --out"):
        place.read_json("record.json")


def _hold(folder: Path, held, release) -> None:
    with checkpoint(folder).claimed():
        held.set()
        release.wait(60)


def test_one_process_at_a_time_works_in_the_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "new", held, release))
    other.start()
    assert held.wait(60)
    with (
        pytest.raises(ValueError, match="another process computes a sum in this folder; wait for it or stop it"),
        checkpoint(tmp_path / "new").claimed(),
    ):
        pass
    release.set()
    other.join()
    with checkpoint(tmp_path / "new").claimed():
        pass


def test_differences_are_named_by_their_paths() -> None:
    before = {"a": [{"b": 1, "c": True}, {"b": float("nan")}], "d": [0.0, 1.0], "e": None}
    assert differences(before, before) == []
    now = {"a": [{"b": 2}, {"b": float("nan")}], "d": [0.0], "e": None, "f": "x" * 99}
    assert differences(before, now) == [
        "a[0].b: 1 before, 2 now",
        "a[0].c: true before, absent now",
        "d: [0.0, 1.0] before, [0.0] now",
        f"f: absent before, 'xxx{'x' * 73}... now",
    ]
    assert different_settings({"a": 1}, {"b": None}) == [("a", 1, ABSENT), ("b", ABSENT, None)]
