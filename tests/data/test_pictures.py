"""Debian's folders of pictures, made here in their form and small."""

import importlib.util
import wave

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from modalign.data import openclipart, openclipart_items, require_trainable, tuxpaint, tuxpaint_items
from modalign.data.pictures import _log_mel

COLOURS = {"animals/birds": "red", "animals/fish": "blue", "food/fruit": "green"}
SVG = """<svg><metadata><rdf:RDF><cc:Work><dc:title>{0}</dc:title><dc:subject><rdf:Bag>
<rdf:li>{0}</rdf:li><rdf:li></rdf:li><rdf:li>salt &amp; pepper</rdf:li></rdf:Bag></dc:subject>
<dc:publisher><rdf:li>someone</rdf:li></dc:publisher></cc:Work></rdf:RDF></metadata></svg>"""


def drawing(path, colour, title=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = PngImagePlugin.PngInfo()
    if title is not None:
        text.add_text("Title", title)
    Image.new("RGBA", (40, 20), colour).save(path, pnginfo=text)


@pytest.fixture
def clipart(tmp_path):
    for place, colour in COLOURS.items():
        for i in range(15):
            name = f"{place}/{i:02d}"
            drawing(tmp_path / "png" / f"{name}.png", colour, f"{colour.title()} thing {i}")
            (tmp_path / "svg" / place).mkdir(parents=True, exist_ok=True)
            (tmp_path / "svg" / f"{name}.svg").write_text(SVG.format(colour))
    drawing(tmp_path / "png/animals/untitled.png", "black")
    drawing(tmp_path / "png/unsorted/odd.png", "black", "odd")
    drawing(tmp_path / "png/rare/one.png", "black", "one of its class")
    (tmp_path / "png/food/fruit/again.png").symlink_to(tmp_path / "png/food/fruit/00.png")
    return tmp_path


def test_drawings_have_titles_classes_and_groups(clipart):
    data = openclipart(folder=clipart)
    assert data.classes == ("animals", "food")
    assert torch.bincount(data.labels).tolist() == [30, 15]
    assert torch.bincount(data.groups).tolist() == [15, 15, 15]
    assert data.x.shape == (45, 3, 32, 32)
    assert data.x.dtype == torch.uint8
    assert data.x[0, :, 16, 16].tolist() == [255, 0, 0]
    assert data.x[-1, :, 16, 16].tolist() == [0, 128, 0]
    items = openclipart_items(clipart)
    assert [item.text for item in items[:2]] == ["Red thing 0", "Red thing 1"]
    assert len(torch.unique(data.y[:15, 0])) == 1 < len(torch.unique(data.y[:, 0]))
    require_trainable(data)
    assert torch.equal(openclipart(**data.settings).y, data.y)


def test_keywords_come_from_the_svg_of_the_same_name(clipart):
    assert openclipart_items(clipart, keywords=True)[0].keywords == ("red", "salt & pepper")
    data = openclipart(("image", "title", "keywords"), folder=clipart)
    assert data.pair(1, 2).modalities == ("title", "keywords")
    (clipart / "svg/animals/birds/03.svg").unlink()
    assert len(openclipart(("title", "keywords"), folder=clipart)) == 44
    for file in (clipart / "svg").rglob("*.svg"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match="apt-get install openclipart-svg"):
        openclipart(("title", "keywords"), folder=clipart)


@pytest.mark.parametrize("side", [8300, 13400])
def test_a_drawing_too_large_to_read_is_left_out(clipart, side):
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "huge")
    Image.new("1", (side, side)).save(clipart / "png/animals/huge.png", pnginfo=text, compress_level=1)
    assert len(openclipart_items(clipart)) == 45


def test_features_of_a_file_take_the_place_of_pixels(clipart, tmp_path):
    values = np.random.default_rng(0).normal(size=(45, 6)).astype(np.float32)
    np.save(tmp_path / "features.npy", values)
    data = openclipart(folder=clipart, image_features=tmp_path / "features.npy", pca=3)
    assert data.x.shape == (45, 3)
    assert data.settings["image_features"] == str(tmp_path / "features.npy")
    np.save(tmp_path / "features.npy", values[1:])
    with pytest.raises(
        ValueError, match=r"image_features must be \(45, d\) floats, a row for each of openclipart_items"
    ):
        openclipart(folder=clipart, image_features=tmp_path / "features.npy")
    values[4] = np.nan
    np.save(tmp_path / "features.npy", values)
    with pytest.raises(ValueError, match=r"image_features must be finite, got NaN or inf in rows \[4\]"):
        openclipart(folder=clipart, image_features=tmp_path / "features.npy")


def test_folders_and_modalities_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="apt-get install openclipart-png"):
        openclipart(folder=tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="apt-get install tuxpaint-stamps-default"):
        tuxpaint(folder=tmp_path / "no")
    (tmp_path / "png").mkdir()
    with pytest.raises(ValueError, match="must have a class of 14 pictures or more, it has none"):
        openclipart(folder=tmp_path)
    with pytest.raises(ValueError, match="modalities must be one of image, title, keywords, got 'sound'"):
        openclipart(("image", "sound"))
    with pytest.raises(ValueError, match="two or more of image, caption, speech"):
        tuxpaint(("speech",))
    drawing(tmp_path / "png/animals/a.png", "red", "a")
    (tmp_path / "png/animals/b.png").write_text("no image")
    with pytest.raises(ValueError, match=r"b.png cannot be read as an image"):
        openclipart(folder=tmp_path)


@pytest.fixture
def stamps(tmp_path):
    for place, colour in COLOURS.items():
        for i in range(15):
            image = tmp_path / place / f"{i:02d}.png"
            drawing(image, colour)
            text = f"A {colour} thing.\naf.utf8='n ding\nfr.utf8=Une chose.\n"
            image.with_suffix(".txt").write_text(text, encoding="utf-8")
            if i != 3:
                tone = np.sin(np.arange(1600 * (1 + i % 3)) * (0.2 + 0.2 * len(colour)))
                image.with_name(f"{i:02d}_desc_fr.ogg").write_bytes(b"")
                with wave.open(str(image.with_name(f"{i:02d}_desc.ogg")), "wb") as out:
                    out.setnchannels(1)
                    out.setsampwidth(2)
                    out.setframerate(16000)
                    out.writeframes((tone * 9000).astype("<i2").tobytes())
    drawing(tmp_path / "animals/birds/00_mirror.png", "black")
    return tmp_path


def test_stamps_have_an_english_caption(stamps):
    data = tuxpaint(folder=stamps)
    assert (len(data), data.classes) == (45, ("animals", "food"))
    assert tuxpaint_items(stamps)[0].text == "A red thing."
    assert data.modalities == ("image", "caption")
    assert torch.equal(tuxpaint(**data.settings).y, data.y)


def test_speech_keeps_the_stamps_that_are_spoken(stamps, tmp_path):
    items = tuxpaint_items(stamps, speech=True)
    assert len(items) == 42
    assert items[0].speech == stamps / "animals/birds/00_desc_fr.ogg"
    assert tuxpaint_items(stamps, language="en", speech=True)[0].speech.name == "00_desc.ogg"
    np.save(tmp_path / "speech.npy", np.random.default_rng(0).normal(size=(42, 5)))
    data = tuxpaint(("image", "caption", "speech"), folder=stamps, speech_features=tmp_path / "speech.npy")
    assert data.more[0].shape == (42, 5)
    assert data.pair(2, 1).x.shape == (42, 5)
    with pytest.raises(ValueError, match="must have a class of 14 pictures or more"):
        tuxpaint(("image", "speech"), folder=stamps, language="xx")


def test_raw_speech_is_read_or_its_package_named(stamps):
    if importlib.util.find_spec("soundfile") is None:
        with pytest.raises(ModuleNotFoundError, match="pip install soundfile, or give speech_features"):
            tuxpaint(("image", "speech"), folder=stamps)
        return
    data = tuxpaint(("image", "speech"), folder=stamps, language="en")
    assert data.y.shape == (42, 100, 40)
    assert not data.y[:, :90].any()
    with pytest.raises(ValueError, match="cannot be read as sound"):
        tuxpaint(("image", "speech"), folder=stamps, language="fr")


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_a_tone_is_loudest_in_the_band_of_its_pitch(rate, hertz):
    heard = _log_mel(torch.sin(2 * torch.pi * hertz * torch.arange(rate) / rate), rate)
    assert heard.shape == (10, 40)
    mel = 2595 * np.log10(1 + hertz / 700)
    top = 2595 * np.log10(1 + min(8000, rate / 2) / 700)
    assert abs(heard.argmax(1) - (mel / top * 41 - 1)).max() < 1
