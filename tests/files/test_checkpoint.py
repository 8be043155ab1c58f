"""A checkpoint's folder is continued, refused or started over."""

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modalign.files.checkpoint import Checkpoint
from modalign.files.marks import Mark
from modalign.files.settings import ABSENT, differences, different_settings

ADVICE = "give another --out, or --fresh to start over"


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder, "a sum", ADVICE, (r"record\.json", r"parts/part-\d+\.bin", r"sum\.json"))


def filled(folder: Path) -> Checkpoint:
    place = checkpoint(folder)
    with place.claimed():
        place.begin("81f0")
        place.write_json("record.json", {"n": 2})
        for number in (1, 2):
            place.write_bytes(f"parts/part-{number}.bin", b"1")
        place.write_json("sum.json", {"sum": 2})
    return place


def contents(folder: Path) -> dict[str, bytes | str]:
    """Return the bytes of every file and the target of every link."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes() for path in paths
    }


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be a folder for a sum, got a file; give another place"):
        checkpoint(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="got a link to nothing"):
        checkpoint(tmp_path / "link")


@pytest.mark.parametrize("name", ["notes.txt", "parts/drawing.step", "record.json", "sum.json", ".hidden"])
def test_a_folder_without_a_mark_is_refused_and_nothing_is_touched(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"holds something else \(.*\), not a sum; nothing was touched.*--out"):
        filled(tmp_path)
    with pytest.raises(ValueError, match="something else"):
        checkpoint(tmp_path).clear()
    assert contents(tmp_path) == before


def test_clear_removes_listed_files_newest_first_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = filled(tmp_path)
    others = ["notes.txt", "parts/drawing.step", "parts/part-x.bin", ".record.json.swp", "record.json~", "sum.json.old"]
    for name in others:
        (tmp_path / name).write_text("precious")
    place = checkpoint(tmp_path)
    with place.claimed():
        removed = []
        unlink = Path.unlink
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", lambda path, **rest: (removed.append(path.name), unlink(path, **rest)))
            place.clear()
        assert removed[:4] == ["sum.json", "part-2.bin", "part-1.bin", "record.json"]
    assert set(contents(tmp_path)) == {*others, ".modalign"}
    filled(tmp_path)
    assert set(others) < set(contents(tmp_path))


def test_folders_inside_go_when_they_are_empty(tmp_path: Path) -> None:
    place = filled(tmp_path)
    place.clear(keep=["record.json"])
    assert set(contents(tmp_path)) == {".modalign", "record.json"}
    assert not (tmp_path / "parts").exists()


def test_a_file_of_the_users_in_place_of_ours_is_refused(tmp_path: Path) -> None:
    """Before the work where the name is known, otherwise before the file is written."""
    place = filled(tmp_path)
    with place.claimed():
        place.drop("sum.json")
    (tmp_path / "sum.json").write_text("precious")
    (tmp_path / "page.html").write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"holds sum\.json, which modalign .* did not write; .* move it away"):
        filled(tmp_path)
    (tmp_path / "sum.json").unlink()
    with pytest.raises(ValueError, match=r"page\.html was not written by modalign, and is kept; move it away"):
        place.write_bytes("page.html", b"ours")
    assert {**contents(tmp_path), "sum.json": b"precious"} == before


def test_read_only_files_are_kept_with_all_others(tmp_path: Path) -> None:
    place = filled(tmp_path)
    (tmp_path / "parts" / "part-1.bin").chmod(0o444)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"part-1\.bin is read-only, .*; nothing was removed"):
        place.clear()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["parts", "record.json", "parts/part-1.bin"])
def test_links_inside_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    filled(folder)
    elsewhere.mkdir()
    (folder / name).rename(elsewhere / "moved")
    (folder / name).symlink_to(elsewhere / "moved")
    before = contents(tmp_path)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"{name} must be a f.*, got a link; nothing was touched"):
            checkpoint(folder).clear()
    assert contents(tmp_path) == before


def test_a_link_to_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    filled(tmp_path / "link").clear()
    assert list(contents(tmp_path / "elsewhere")) == [".modalign"]


def test_a_folder_in_place_of_a_listed_file_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "sum.json").unlink()
    (tmp_path / "sum.json").mkdir()
    with pytest.raises(ValueError, match=r"sum\.json must be a file that modalign wrote, got a folder"):
        checkpoint(tmp_path).clear()


def test_another_kind_of_folder_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    before = contents(tmp_path)
    other = Checkpoint(tmp_path, "a product", ADVICE)
    with pytest.raises(ValueError, match="holds a sum, not a product; give another --out"), other.claimed():
        pass
    assert contents(tmp_path) == before


def test_files_of_other_settings_are_not_taken_up(tmp_path: Path) -> None:
    place = filled(tmp_path)
    with pytest.raises(ValueError, match="holds what is left of a sum of other settings; give another --out"):
        place.begin("9999")
    place.clear()
    place.begin("9999")
    assert Mark.read(tmp_path).digest == "9999"


DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[1]\n",
    "no digest": b'{"format": 1, "modalign": "0.2", "kind": "a sum"}\n',
    "binary": b"\xff\xfe\x00\n",
    "nested": b"[" * 100_000,
    "a path above": b'{"format": 1, "modalign": "0.2", "kind": "a sum", "digest": "1"}\n+ "../precious"\n',
    "a path from the root": b'{"format": 1, "modalign": "0.2", "kind": "a sum", "digest": "1"}\n+ "/precious"\n',
    "itself": b'{"format": 1, "modalign": "0.2", "kind": "a sum", "digest": "1"}\n+ ".modalign"\n',
    "a strange line": b'{"format": 1, "modalign": "0.2", "kind": "a sum", "digest": "1"}\n? "sum.json"\n',
    "no list": b'{"format": 1, "modalign": "0.2", "kind": "a sum", "digest": "1"}\n+ ["sum.json"]\n',
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_mark_is_named_and_nothing_is_touched(damage: str, tmp_path: Path) -> None:
    filled(tmp_path / "folder")
    (tmp_path / "precious").touch()
    (tmp_path / "folder" / ".modalign").write_bytes(DAMAGE[damage])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"\.modalign is damaged \(.+\); nothing was changed"):
        checkpoint(tmp_path / "folder").clear()
    assert contents(tmp_path) == before


def test_a_mark_of_a_later_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".modalign").write_text('{"format": 2, "modalign": "9.0", "kind": "a sum", "digest": "1"}\n* odd\n')
    with pytest.raises(ValueError, match=r"must be of format 1, got 2 of modalign 9\.0"):
        filled(tmp_path)


def test_a_line_that_a_kill_cut_short_is_ignored(tmp_path: Path) -> None:
    place = filled(tmp_path)
    with (tmp_path / ".modalign").open("a") as file:
        file.write('+ "parts/pa')
    place = checkpoint(tmp_path)
    with place.claimed():
        place.write_bytes("parts/part-3.bin", b"1")
    assert Mark.read(tmp_path).files == [
        "record.json", "parts/part-1.bin", "parts/part-2.bin", "sum.json", "parts/part-3.bin",
    ]  # fmt: skip


def test_a_mark_that_cannot_be_written_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = filled(tmp_path)
    before = contents(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            place.mark.add("parts/part-3.bin")
    assert contents(tmp_path) == before
    assert "parts/part-3.bin" not in place.mark


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    filled(tmp_path)
    for name in (".sum.json.a9_bcdef.json", "parts/.part-7.bin.a9_bcdef.bin", "..modalign.abcdefgh"):
        (tmp_path / name).touch()
    filled(tmp_path)
    assert set(contents(tmp_path)) == {
        ".modalign", "record.json", "sum.json", "parts/part-1.bin", "parts/part-2.bin",
    }  # fmt: skip


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from files.test_checkpoint import checkpoint, filled

left = int(sys.argv[3])
def counted(call):
    def one(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return call(*arguments, **options)
    return one

for name in ("write", "fsync", "replace", "unlink", "ftruncate", "open"):
    setattr(os, name, counted(getattr(os, name)))
Path.unlink, Path.replace = counted(Path.unlink), counted(Path.replace)
place = checkpoint(Path(sys.argv[1]))
with place.claimed():
    place.clear()
filled(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("steps", [2, 5, 9, 14, 20, 27])
def test_a_kill_at_any_step_leaves_a_folder_that_can_be_started_over(steps: int, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    filled(folder)
    (folder / "notes.txt").write_text("precious")
    tests = str(Path(__file__).resolve().parents[1])
    assert subprocess.run([sys.executable, "-c", KILLED, folder, tests, str(steps)]).returncode == 9
    place = checkpoint(folder)
    with place.claimed():
        place.clear()
    filled(folder)
    assert set(contents(folder)) == {
        ".modalign", "notes.txt", "record.json", "sum.json", "parts/part-1.bin", "parts/part-2.bin",
    }  # fmt: skip


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
