"""Pictures with names from Debian packages: Open Clip Art (image, title, keywords), Tux Paint's stamps (with speech).

    apt-get install openclipart-png openclipart-svg tuxpaint-stamps-default

None of them are embedded here: these functions read the folders those packages make, or an unpacked copy of them
(``apt-get download NAME && dpkg-deb -x NAME*.deb FOLDER``).
"""

from __future__ import annotations

import functools
import html
import importlib
import math
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.data.arrays import pixels_of, require_finite, require_two_or_more, scaled, scaled_sequences, token_ids
from modalign.data.paired import TRAIN, PairedDataset, split_of
from modalign.data.registry import CLIPART, STAMPS
from modalign.files.paths import expanded

__all__ = ["Picture", "openclipart", "openclipart_items", "tuxpaint", "tuxpaint_items"]

UNSORTED = "unsorted"  # a folder of Open Clip Art that is no subject
LEAST = 14  # pictures of a class, so that training, validation and test have 2 of each
PIXELS = 1 << 26  # pixels of the largest drawing taken
BANDS, FRAMES = 40, 100  # of a spoken caption: mel bands, and the largest number of frames
FRAME_SECONDS = 0.1


class Picture(NamedTuple):
    """One item: its image, its texts, its spoken caption if it has one, and its folder."""

    image: Path
    text: str  # a title, or an English caption
    keywords: tuple[str, ...]
    speech: Path | None
    label: str  # the folder
    group: str  # the folder with its sub-folder


def openclipart(
    modalities: Sequence[str] = ("image", "title"),
    *,
    folder: str | Path = CLIPART,
    image_features: str | Path | None = None,
    title_features: str | Path | None = None,
    keywords_features: str | Path | None = None,
    pca: int | None = None,
    seed: int = 0,
) -> PairedDataset:
    """Return Open Clip Art: 6,667 drawings, their titles and keywords, in 19 classes (the folders).

    Args:
        modalities: two or three of "image", "title", "keywords". Keywords name the folder, which gives a task on
            folders away: prefer titles. They are read from ``folder``/svg (Debian's openclipart-svg).
        folder: holds png/ (openclipart-png), whose files carry their titles, and maybe svg/.
        image_features, title_features, keywords_features: a .npy of (n, d) features in the order of
            ``openclipart_items(folder)``; None for uint8 pixels (n, 3, 32, 32) and int64 word ids (n, length).
        pca: width to reduce features to, or None.
        seed: fixes the split, 70 / 15 / 15 per cent of every sub-folder.

    Untitled, unsorted and huge drawings (over 64 megapixels), links to others, and folders of fewer than 14 are left
    out. The first call reads each image: some 30 s.
    Raises FileNotFoundError for a folder that is not there, ValueError for features of other rows or NaN.
    Licence: public domain. Source: openclipart.org, release 0.18.

    Examples:
        >>> from modalign.data import openclipart
        >>> openclipart()  # doctest: +SKIP
    """
    seed = whole_number("openclipart", "seed", seed, least=0)
    settings = {"folder": str(folder), "pca": pca, "seed": seed}
    require_two_or_more("openclipart", modalities, ("image", "title", "keywords"))
    items = openclipart_items(folder, keywords="keywords" in modalities)
    features = {"image": image_features, "title": title_features, "keywords": keywords_features}
    raw: dict[str, _Raw] = {
        "image": lambda train: _pixels(tuple(item.image for item in items)).clone(),
        "title": lambda train: token_ids([item.text for item in items], train),
        "keywords": lambda train: token_ids([" ".join(item.keywords) for item in items], train),
    }
    return _assembled("openclipart", items, modalities, features=features, raw=raw, settings=settings)


def tuxpaint(
    modalities: Sequence[str] = ("image", "caption"),
    *,
    folder: str | Path = STAMPS,
    language: str = "fr",
    image_features: str | Path | None = None,
    caption_features: str | Path | None = None,
    speech_features: str | Path | None = None,
    pca: int | None = None,
    seed: int = 0,
) -> PairedDataset:
    """Return Tux Paint's stamps: some 740 pictures with a written and a spoken caption; the folders are the classes.

    Args:
        modalities: two or three of "image", "caption", "speech".
        folder: of the stamps, as Debian's tuxpaint-stamps-default installs it.
        language: of the spoken caption, "fr" (the most there are), "en", "es", ... Only pictures that have one are kept
            where speech is a modality.
        image_features, caption_features, speech_features: a .npy of (n, d) features in the order of ``tuxpaint_items``;
            None for uint8 pixels (n, 3, 32, 32), int64 word ids (n, length), and for speech (n, 100, 40): log power in
            40 mel bands of frames of 0.1 s, zero padding on the left, read by the soundfile package.
        pca: width to reduce features to, or None.
        seed: fixes the split, 70 / 15 / 15 per cent of every sub-folder.

    Folders of fewer than 14 pictures are left out. Reading speech takes some 30 s.
    Raises FileNotFoundError for a folder that is not there, ValueError for features of other rows or NaN,
    ModuleNotFoundError for raw speech without soundfile.
    Licence: GPL-2 or later. Source: tuxpaint.org.

    Examples:
        >>> from modalign.data import tuxpaint
        >>> tuxpaint(("image", "caption", "speech")).pair(2, 1)  # doctest: +SKIP
    """
    seed = whole_number("tuxpaint", "seed", seed, least=0)
    settings = {"folder": str(folder), "language": language, "pca": pca, "seed": seed}
    require_two_or_more("tuxpaint", modalities, ("image", "caption", "speech"))
    items = tuxpaint_items(folder, language=language, speech="speech" in modalities)
    features = {"image": image_features, "caption": caption_features, "speech": speech_features}

    def heard(train: NDArray[np.bool_]) -> Tensor:
        frames = _speech(tuple(item.speech for item in items if item.speech))
        return scaled_sequences(frames, train, name="tuxpaint: speech")

    raw: dict[str, _Raw] = {
        "image": lambda train: _pixels(tuple(item.image for item in items)).clone(),
        "caption": lambda train: token_ids([item.text for item in items], train),
        "speech": heard,
    }
    return _assembled("tuxpaint", items, modalities, features=features, raw=raw, settings=settings)


def openclipart_items(folder: str | Path = CLIPART, *, keywords: bool = False) -> list[Picture]:
    """Return the drawings of ``openclipart`` in its order; with ``keywords``, only those that have some."""
    root = expanded(folder) / "png"
    pictures = []
    for image in _files("openclipart_items", root, ".png", "openclipart-png"):
        place = image.relative_to(root)
        title = _title(image)
        if len(place.parts) < 2 or place.parts[0] == UNSORTED or not title:
            continue
        words = _keywords(expanded(folder) / "svg" / place.with_suffix(".svg")) if keywords else ()
        if words or not keywords:
            pictures.append(Picture(image, title, words, None, label=place.parts[0], group=str(place.parent)))
    if keywords and not pictures:
        raise FileNotFoundError(
            f"openclipart_items: keywords are in {expanded(folder) / 'svg'}, which has none of these drawings: "
            "apt-get install openclipart-svg"
        )
    return _frequent(pictures)


def tuxpaint_items(folder: str | Path = STAMPS, *, language: str = "fr", speech: bool = False) -> list[Picture]:
    """Return the stamps of ``tuxpaint`` in its order; with ``speech``, only those spoken in the language."""
    root = expanded(folder)
    ending = "_desc.ogg" if language == "en" else f"_desc_{language}.ogg"
    pictures = []
    for image in _files("tuxpaint_items", root, ".png", "tuxpaint-stamps-default"):
        place, text = image.relative_to(root), image.with_suffix(".txt")
        if len(place.parts) < 2 or not text.is_file():
            continue
        # the first line is English, the others are language.utf8=caption
        caption = text.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
        spoken = image.with_name(image.stem + ending)
        if caption and (spoken.is_file() or not speech):
            heard = spoken if spoken.is_file() else None
            pictures.append(Picture(image, caption, (), heard, label=place.parts[0], group=str(place.parent)))
    return _frequent(pictures)


_Raw = Callable[[NDArray[np.bool_]], Tensor]


def _assembled(
    name: str,
    items: list[Picture],
    modalities: Sequence[str],
    *,
    features: dict[str, str | Path | None],
    raw: dict[str, _Raw],
    settings: dict[str, Any],
) -> PairedDataset:
    if not items:
        raise ValueError(f"{name}: {settings['folder']} must have a class of {LEAST} pictures or more, it has none")
    classes = sorted({item.label for item in items})
    places = sorted({item.group for item in items})
    groups = np.array([places.index(item.group) for item in items])
    split = split_of(groups, seed=settings["seed"])
    train = split.numpy() == TRAIN
    inputs = []
    for modality in modalities:
        path = features[modality]
        if path is None:
            inputs.append(raw[modality](train))
        else:
            inputs.append(scaled(_given(name, modality, path, len(items)), train, pca=settings["pca"], name=name))
    given = {f"{modality}_features": str(path) for modality, path in features.items() if path is not None}
    return PairedDataset(
        name=name,
        modalities=tuple(modalities),
        x=inputs[0],
        y=inputs[1],
        more=tuple(inputs[2:]),
        labels=torch.tensor([classes.index(item.label) for item in items]),
        split=split,
        classes=tuple(classes),
        groups=torch.from_numpy(groups),
        settings={"modalities": list(modalities), **settings, **given},
    )


def _given(name: str, modality: str, path: str | Path, n: int) -> NDArray[Any]:
    values: NDArray[Any] = np.load(path, allow_pickle=False)
    if values.ndim != 2 or len(values) != n or values.dtype.kind != "f":
        raise ValueError(
            f"{name}: {modality}_features must be ({n}, d) floats, a row for each of {name}_items(), got "
            f"{values.shape} {values.dtype}"
        )
    require_finite(values, f"{name}: {modality}_features")
    return values


def _files(name: str, root: Path, suffix: str, package: str) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {root}: apt-get install {package}, or say where it is")
    # Debian links equal files: one of them is enough, and two could fall into training and test
    return sorted(path for path in root.rglob(f"*{suffix}") if not path.is_symlink())


def _frequent(pictures: list[Picture]) -> list[Picture]:
    count: dict[str, int] = {}
    for picture in pictures:
        count[picture.label] = count.get(picture.label, 0) + 1
    return [picture for picture in pictures if count[picture.label] >= LEAST]


def _title(path: Path) -> str:
    """Return the title in a drawing's file, or None for a drawing that is too large to be read beside others."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return str(image.info.get("Title") or "").strip() if math.prod(image.size) <= PIXELS else ""
    except Image.DecompressionBombError:
        return ""
    except OSError as error:
        raise ValueError(f"{path} cannot be read as an image: {error}; drop or mend it") from None


def _keywords(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    subject = re.search(r"<dc:subject>(.*?)</dc:subject>", path.read_text(encoding="utf-8", errors="replace"), re.S)
    found = re.findall(r"<rdf:li>([^<]+)</rdf:li>", subject[1]) if subject else []
    return tuple(html.unescape(word).strip() for word in found if word.strip())


@functools.lru_cache(maxsize=2)
def _pixels(paths: tuple[Path, ...]) -> Tensor:
    return pixels_of(paths)


@functools.lru_cache(maxsize=2)
def _speech(paths: tuple[Path, ...]) -> NDArray[np.float32]:
    """Return the log mel power in frames of 0.1 s (n, FRAMES, BANDS), zero on the left of shorter recordings."""
    try:
        soundfile = importlib.import_module("soundfile")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "tuxpaint: raw speech is read by the soundfile package: pip install soundfile, or give speech_features"
        ) from None
    frames = np.zeros((len(paths), FRAMES, BANDS), np.float32)
    for row, path in zip(frames, paths, strict=True):
        try:
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except RuntimeError as error:
            raise ValueError(f"{path} cannot be read as sound: {error}; drop or mend it") from None
        heard = _log_mel(torch.from_numpy(samples.mean(1)), int(rate))[:FRAMES]
        row[FRAMES - len(heard) :] = heard
    return frames


def _log_mel(samples: Tensor, rate: int) -> NDArray[np.float32]:
    """Return (frames, BANDS): windows of 32 ms every 10 ms, triangular mel bands up to 8 kHz, averaged over 0.1 s."""
    window, hop = round(0.032 * rate), round(0.01 * rate)
    samples = torch.nn.functional.pad(samples, (0, max(0, window - len(samples))))
    power = samples.unfold(0, window, hop).mul(torch.hann_window(window)).double()
    spectrum = torch.fft.rfft(power).abs().square()
    hertz = torch.arange(spectrum.shape[1], dtype=torch.float64) * rate / window
    top = 2595 * math.log10(1 + min(8000, rate / 2) / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, BANDS + 2, dtype=torch.float64) / 2595) - 1)
    # the width of a bin at least, or a low band would fall between two bins
    rising = (hertz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2]).clamp(min=rate / window)
    falling = (edges[2:] - hertz[:, None]) / (edges[2:] - edges[1:-1]).clamp(min=rate / window)
    bands = spectrum @ torch.minimum(rising, falling).clamp(min=0)
    together = round(FRAME_SECONDS / 0.01)
    pooled = [part.mean(0) for part in bands.split(together)]
    return torch.stack(pooled).add(1e-10).log().float().numpy()
