"""Pictures are opened upright and in 8 bits without losing their gradients, at both doors that read pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from modalign.cli import app
from modalign.data import own
from modalign.data.arrays import pixels_of
from modalign.encoders.embedding import embed
from modalign.encoders.inputs import notes_on_pairs
from modalign.files.pictures import open_picture

RAMP = np.tile(np.linspace(0, 1, 32), (32, 1))
WIDE = {
    "16 bits": ("g.png", (RAMP * 65535).astype(np.uint16)),
    "16 bits, TIFF": ("g.tif", (RAMP * 65535).astype(np.uint16)),
    "big endian": ("g.tif", (RAMP * 65535).astype(">u2")),
    "32 bits": ("g.tif", (RAMP * 65535).astype(np.int32)),
    "32 bits of 8": ("g.tif", (RAMP * 255).astype(np.int32)),
    "floats": ("g.tif", RAMP.astype(np.float32)),
    "floats to 255": ("g.tif", (RAMP * 255).astype(np.float32)),
}


@pytest.mark.parametrize("kind", WIDE)
def test_a_gradient_of_more_than_8_bits_stays_a_gradient(kind: str, tmp_path: Path) -> None:
    name, levels = WIDE[kind]
    Image.fromarray(levels).save(tmp_path / name)
    row = pixels_of([tmp_path / name], 32)[0, 0, 16].numpy().astype(int)
    assert np.abs(row - 255 * RAMP[0]).max() <= 1
    assert np.array_equal(np.asarray(open_picture(tmp_path / name, "g"))[16, :, 1], row)
    with Image.open(tmp_path / name) as opened:
        assert np.array_equal(np.asarray(open_picture(opened, "g"))[16, :, 1], row)


@pytest.mark.parametrize("levels", [RAMP * 4095, RAMP * 1e6, RAMP - 0.5, RAMP * np.nan, RAMP * 1000])
def test_levels_that_do_not_say_what_is_white_are_refused(levels: np.ndarray, tmp_path: Path) -> None:
    kind: Any = np.float32 if levels.min() < 0 or np.isnan(levels).any() else np.int32
    Image.fromarray(levels.astype(kind)).save(tmp_path / "g.tif")
    for read in (lambda: pixels_of([tmp_path / "g.tif"]), lambda: open_picture(tmp_path / "g.tif", "g.tif")):
        with pytest.raises(ValueError, match=r"g.tif (has grey levels from .* Image.fromarray|must hold finite)"):
            read()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_stands_as_its_orientation_says(orientation: int, tmp_path: Path) -> None:
    upright = np.full((24, 12, 3), 255, np.uint8)
    upright[:8, :4] = 0  # a dark corner, top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(upright)
    stored = stored.transpose(undo[orientation]) if orientation in undo else stored
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "p.png", "p")), upright)
    pixels = pixels_of([tmp_path / "p.png"], 24)[0, 0].numpy()
    assert (pixels[:7, 6:9] == 0).all()
    assert (pixels[10:] == 255).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "P", "PA", "L", "LA", "1", "RGBA", "HSV"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    white = Image.new("RGB", (4, 4), "white")
    image = Image.new("LA", (4, 4), (255, 255)).convert("PA") if mode == "PA" else white.convert(mode)
    for wanted in ("RGB", "RGBA"):
        opened = open_picture(image, "p", wanted)
        assert opened.mode == wanted
        assert (np.asarray(opened)[..., :3] >= 254).all()


def test_what_is_no_picture_is_refused_with_its_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG")
    for content in (b"", b"no picture", buffer.getvalue()[:300]):
        (tmp_path / "p.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=r"p.jpg cannot be read as an image"):
            pixels_of([tmp_path / "p.jpg"])


def test_a_damaged_exif_block_turns_nothing(tmp_path: Path) -> None:
    for block in (b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\x00", b"Exif\x00\x00no TIFF at all"):
        Image.new("RGB", (4, 2), "red").save(tmp_path / "p.jpg", exif=block)
        assert open_picture(tmp_path / "p.jpg", "p").size == (4, 2)


def mean_levels(batch: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image, np.float32).mean((0, 1)) for image in batch])


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(40):
        Image.new("RGB", (8, 8), (6 * i, 5, 200)).save(tmp_path / "photos" / f"{i}.PNG")
    names = [f"photos/{i}.PNG" for i in range(40)]
    (tmp_path / "t.csv").write_text("path,y\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names)))
    (tmp_path / "paths.txt").write_text("\n".join(names))
    return tmp_path


def test_paths_of_pictures_in_a_table_are_those_pictures(photographs: Path, tmp_path: Path) -> None:
    expected = [[6 * i, 5, 200] for i in range(40)]
    listed = [str(photographs / f"photos/{i}.PNG") for i in range(40)]
    for number, inputs in enumerate((f"{photographs}/t.csv:path", photographs / "paths.txt", listed)):
        out = embed(mean_levels, inputs, tmp_path / f"out{number}.npy", dtype="float32")
        assert np.load(out).tolist() == expected
        data = own(inputs, np.random.default_rng(0).normal(size=(40, 3)), f"{photographs}/t.csv:y", size=8)
        assert data.x[:, :, 4, 4].tolist() == expected
    opened = [Image.open(path) for path in listed]
    stored = [Path(path).read_bytes() for path in listed]
    for pictures in (opened, stored, [Path(path) for path in listed]):
        data = own(pictures, np.random.default_rng(0).normal(size=(40, 3)), ["a", "b"] * 20, size=8)
        assert data.x[:, :, 4, 4].tolist() == expected
    (photographs / "photos/7.PNG").unlink()
    for read in (
        lambda: embed(mean_levels, f"{photographs}/t.csv:path", tmp_path / "none.npy"),
        lambda: own(f"{photographs}/t.csv:path", np.eye(40), f"{photographs}/t.csv:y"),
    ):
        with pytest.raises(FileNotFoundError, match=r"names pictures, of which 1 are not there, such as photos/7.PNG"):
            read()


def test_files_that_macos_writes_beside_pictures_are_no_pictures(photographs: Path, tmp_path: Path) -> None:
    (photographs / "photos/._0.PNG").write_bytes(b"\x00\x05\x16\x07")
    assert len(np.load(embed(mean_levels, photographs / "photos", tmp_path / "out.npy"))) == 40


def test_a_folder_in_another_order_than_its_numbers_is_noted_where_it_is_paired_with_rows(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = tmp_path / "pics"
    (folder / "a").mkdir(parents=True)
    (tmp_path / "padded" / "a").mkdir(parents=True)
    for i in range(12):
        Image.new("RGB", (4, 4), (20 * i, 0, 0)).save(folder / "a" / f"{i}.png")
        Image.new("RGB", (4, 4), (20 * i, 0, 0)).save(tmp_path / "padded" / "a" / f"{i:02}.png")
    (tmp_path / "t.csv").write_text("caption\n" + "\n".join(f"fox {i}" for i in range(12)))
    captions = f"{tmp_path}/t.csv:caption"
    (note,) = notes_on_pairs([folder, captions])
    assert "a/0.png with row 0 ('fox 0'), a/1.png with row 1 ('fox 1'), a/10.png with row 2 ('fox 2'); if" in note
    outputs = [f"--out={tmp_path}/{name}.npy" for name in "ab"]
    result = CliRunner().invoke(app, ["embed", "python:math:sqrt", str(folder), captions, *outputs])
    assert f"note: {note}\n" in result.stderr
    assert notes_on_pairs([folder, folder]) == notes_on_pairs([tmp_path / "padded", captions]) == []
    labels = ["a", "b"] * 6
    own(folder, folder)
    own(tmp_path / "padded", np.eye(12), labels)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"which pairs a/0 with row 0 of y, a/1 with row 1 of y, a/10 with row 2 of y"):
        own(folder, np.eye(12))
    with pytest.warns(UserWarning, match=r"a/10 with row 2 of labels; if that is not meant, give the paths"):
        own(folder, folder, labels)
