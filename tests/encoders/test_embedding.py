"""Embeddings are those of the encoder, whatever the inputs lie in and however often the run was killed."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from modalign.encoders.embedding import embed
from modalign.files.locking import claimed_file

TEXTS = [f"{'a' * (i % 5)} text number {i}" for i in range(23)]


def counts(batch: list[str]) -> np.ndarray:
    return np.array([[len(text), text.count("a"), ord(text[-1])] for text in batch], dtype=np.float32)


def colours(batch: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image, np.float32).mean((0, 1)) for image in batch])


def picture(i: int) -> Image.Image:
    return Image.new("RGB", (4, 3), (10 * i, 5, 200 - i))


def png(i: int) -> bytes:
    buffer = io.BytesIO()
    picture(i).save(buffer, "PNG")
    return buffer.getvalue()


def text_inputs(path: Path) -> dict[str, Any]:
    (path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    with (path / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *enumerate(TEXTS)])
    table = pa.table({"text": TEXTS})
    pq.write_table(table, path / "texts.parquet")
    with pa.OSFile(str(path / "texts.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return {
        "lines": path / "texts.txt",
        "csv": f"{path}/texts.csv:text",
        "parquet": f"{path}/texts.parquet:text",
        "arrow": f"{path}/texts.arrow:text",
        "list": TEXTS,
    }


@pytest.mark.parametrize("kind", ["lines", "csv", "parquet", "arrow", "list"])
def test_texts_wherever_they_lie(kind: str, tmp_path: Path) -> None:
    out = embed(counts, text_inputs(tmp_path)[kind], tmp_path / "out.npy", batch_size=5, dtype="float32")
    assert np.array_equal(np.load(out), counts(TEXTS))
    record = json.loads((tmp_path / "out.npy.json").read_text())
    assert len(record["ids"]) == len(TEXTS)
    assert record["settings"]["batch_size"] == 5
    assert "versions" in record["provenance"]


@pytest.mark.parametrize("kind", ["folder", "pillow", "paths", "bytes", "structs"])
def test_images_wherever_they_lie(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    for i in range(7):
        picture(i).save(folder / ("b" if i > 3 else ".") / f"{i}.png")
    (folder / "notes.txt").write_text("not an image")
    pq.write_table(pa.table({"image": [png(i) for i in range(7)]}), tmp_path / "bytes.parquet")
    pq.write_table(
        pa.table({"image": [{"bytes": png(i), "path": None} for i in range(7)]}), tmp_path / "structs.parquet"
    )
    inputs = {
        "folder": folder,
        "pillow": [picture(i) for i in range(7)],
        "paths": sorted(folder.rglob("*.png")),
        "bytes": f"{tmp_path}/bytes.parquet:image",
        "structs": f"{tmp_path}/structs.parquet:image",
    }[kind]
    out = embed(colours, inputs, tmp_path / "out.npy", batch_size=3)
    assert np.array_equal(np.load(out), colours([picture(i) for i in range(7)]).astype(np.float16))
    if kind == "folder":
        assert json.loads((tmp_path / "out.npy.json").read_text())["ids"][-1] == "b/6.png"


def test_layers_stay_apart(tmp_path: Path) -> None:
    out = embed(lambda batch: np.stack([counts(batch), -counts(batch)], 1), TEXTS, tmp_path / "out.npy", batch_size=4)
    assert np.load(out).shape == (23, 2, 3)


CHILD = """
import sys, time, numpy as np
from modalign.encoders.embedding import embed
def slow(batch):
    time.sleep(0.05)
    return np.array([[len(text), text.count("a")] for text in batch], dtype=np.float32)
embed(slow, [f"{'a' * (i % 5)} {i}" for i in range(200)], sys.argv[1], batch_size=4)
"""


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    out, note = tmp_path / "out.npy", tmp_path / ".out.npy.partial.json"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(out)])
    until = time.monotonic() + 60
    while not note.exists() or json.loads(note.read_text())["done"] < 20:
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    done = json.loads(note.read_text())["done"]
    assert 20 <= done < 200
    assert subprocess.run([sys.executable, "-c", CHILD, str(out)]).returncode == 0
    subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "whole.npy")], check=True)
    assert out.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert not note.exists()


def test_a_finished_file_is_left_and_another_refused(tmp_path: Path) -> None:
    out = embed(counts, TEXTS, tmp_path / "out.npy")
    before = out.stat().st_mtime_ns
    assert embed(counts, TEXTS, out).stat().st_mtime_ns == before
    with pytest.raises(
        ValueError,
        match=r"embeddings out.npy of other settings \(inputs: .*; items: 23 .* 22 now\); .*fresh",
    ):
        embed(counts, TEXTS[1:], out)
    assert len(np.load(embed(counts, TEXTS[1:], out, fresh=True))) == 22


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["out.npy", "out.npy.json", "a link"])
def test_a_file_of_the_users_is_refused(name: str, fresh: bool, tmp_path: Path) -> None:
    if name == "a link":
        (tmp_path / "precious.npy").write_text("precious")
        (tmp_path / "out.npy").symlink_to(tmp_path / "precious.npy")
    else:
        (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match=r"was not written by embed; nothing was touched: give another place"):
        embed(counts, TEXTS, tmp_path / "out.npy", fresh=fresh)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"precious"}


def test_rows_that_the_user_put_in_place_of_ours_are_kept(tmp_path: Path) -> None:
    out = embed(counts, TEXTS, tmp_path / "out.npy")
    np.save(out, np.ones((5, 2)))
    for fresh in (False, True):
        with pytest.raises(ValueError, match="was not written by embed"):
            embed(counts, TEXTS, out, fresh=fresh)
    assert np.load(out).shape == (5, 2)


@pytest.mark.parametrize("step", ["before the rows", "after the rows"])
def test_a_kill_at_the_end_is_continued(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is there, and the rows are still beside their place, or the note was not yet removed."""
    out, real = tmp_path / "out.npy", Path.replace

    def killed(path: Path, target: Path) -> Path:
        if path.name == ".out.npy.partial.npy":
            if step == "after the rows":
                real(path, target)
            raise KeyboardInterrupt
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            embed(counts, TEXTS, out, dtype="float32")
    assert np.array_equal(np.load(embed(counts, TEXTS, out, dtype="float32")), counts(TEXTS))
    assert len(np.load(embed(counts, TEXTS[1:], out, fresh=True))) == 22
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "out.npy.json"]


def test_two_do_not_write_one_file(tmp_path: Path) -> None:
    with (
        claimed_file(tmp_path / ".out.npy.partial.npy", "writes out.npy"),
        pytest.raises(ValueError, match=r"another process writes out\.npy; wait for it or stop it"),
    ):
        embed(counts, TEXTS, tmp_path / "out.npy")
    assert list(tmp_path.iterdir()) == []


def stops(batch: list[str]) -> np.ndarray:
    if TEXTS[-1] in batch:
        raise KeyboardInterrupt
    return counts(batch)


def test_a_partial_file_of_other_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(stops, TEXTS, tmp_path / "out.npy", batch_size=4)
    with pytest.raises(ValueError, match=r"of other settings \(batch_size: 4 before, 8 now\); .*start over"):
        embed(stops, TEXTS, tmp_path / "out.npy", batch_size=8)
    (tmp_path / ".out.npy.partial.json").write_text("{")
    with pytest.raises(ValueError, match=r"is damaged \(.*\); .*start over"):
        embed(stops, TEXTS, tmp_path / "out.npy", batch_size=4)


def nan(batch: list[str]) -> np.ndarray:
    return np.where(np.arange(len(batch))[:, None] == 2, np.nan, counts(batch))


@pytest.mark.parametrize(
    ("encoder", "inputs", "options", "error", "message"),
    [
        (counts, [], {}, ValueError, "the inputs are empty"),
        (counts, ["a", b"b"], {}, ValueError, "all texts or all images"),
        (counts, ["a", None, "b", float("nan")], {}, ValueError, r"must be there, got none in rows \[1, 3\]"),
        (counts, [1, 2], {}, ValueError, "must be texts, paths of images, their bytes or pictures of Pillow, got int"),
        (colours, [np.zeros((4, 4, 3))], {}, ValueError, "got ndarray; .*Image.fromarray"),
        (counts, "none.txt", {}, FileNotFoundError, "there is no file or folder none.txt"),
        (nan, TEXTS, {}, ValueError, r"NaN or inf for inputs 2 \(the first\)"),
        (lambda batch: np.ones(3), TEXTS, {}, ValueError, r"must give \(b, d\) .* got \(3,\)"),
        (lambda batch: 1e6 * counts(batch), TEXTS, {}, ValueError, "exceed float16; use dtype float32"),
        (lambda batch: counts(batch)[:, : len(batch)], TEXTS[:5], {"batch_size": 3}, ValueError, "must give one shape"),
        (colours, [b"not a picture"], {}, ValueError, "image 0 cannot be read .*; drop or mend it"),
        ("bert", TEXTS, {}, ValueError, "encoder must be one of sentence-transformers:"),
        ("transformers:nowhere", TEXTS, {}, FileNotFoundError, "nothing is downloaded"),
        ("timm:resnet18", [b""], {}, FileNotFoundError, "timm:resnet18@WEIGHTS, nothing is downloaded"),
        ("python:math:none", TEXTS, {}, ValueError, "encoder 'math:none' cannot be imported"),
        ("timm:resnet18", TEXTS, {"layers": "all"}, ValueError, "gives one layer"),
        (counts, TEXTS, {"layers": "first"}, ValueError, "layers must be last or all"),
        (counts, TEXTS, {"pooling": "max"}, ValueError, "pooling must be one of mean, cls, last"),
        (counts, TEXTS, {"dtype": "int8"}, ValueError, "dtype must be float16 or float32"),
        (counts, TEXTS, {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ],
)
def test_mistakes_are_sentences(
    encoder: Any, inputs: Any, options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        embed(encoder, inputs, tmp_path / "out.npy", **options)
    with pytest.raises(ValueError, match=r"must end in \.npy"):
        embed(counts, TEXTS, tmp_path / "out.bin")


def test_a_transformers_model_from_a_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "text", "number", "a", *map(str, range(30))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    folder = tmp_path / "model"
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(folder)
    capfd.readouterr()
    last = np.load(embed(f"transformers:{folder}", TEXTS, tmp_path / "last.npy", dtype="float32"))
    assert "Loading" not in capfd.readouterr().err
    assert transformers.utils.logging.is_progress_bar_enabled()
    every = np.load(embed(f"transformers:{folder}", TEXTS, tmp_path / "all.npy", layers="all", dtype="float32"))
    assert last.shape == (23, 8)
    assert every.shape == (23, 4, 8)
    assert np.allclose(every[:, -1], last)
    alone = np.load(embed(f"transformers:{folder}", TEXTS, tmp_path / "one.npy", batch_size=1, dtype="float32"))
    assert np.allclose(alone, last, atol=1e-5)  # padding does not count


def crash(batch: list[str]) -> np.ndarray:
    if TEXTS[6] in batch:
        raise KeyError("no such token")
    return counts(batch)


def test_an_encoder_that_fails_is_named_with_its_inputs_and_its_error(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the encoder fails on inputs 4 to 7 \(4 to 7\): KeyError: 'no such token'"
    ) as e:
        embed(crash, TEXTS, tmp_path / "out.npy", batch_size=4)
    assert isinstance(e.value.__cause__, KeyError)


@pytest.mark.parametrize("late", [False, True])
def test_rows_beyond_float16_leave_no_file(late: bool, tmp_path: Path) -> None:
    def grows(batch: list[str]) -> np.ndarray:
        return counts(batch) * (1.0 if late and TEXTS[0] in batch else 1e6)

    with pytest.raises(ValueError, match="exceed float16; use dtype float32"):
        embed(grows, TEXTS, tmp_path / "big.npy", batch_size=4)
    assert not list(tmp_path.iterdir())
    embed(grows, TEXTS, tmp_path / "big.npy", batch_size=4, dtype="float32")
