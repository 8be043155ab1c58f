"""Picture files: which names they have, and how they are opened upright in 8 bits a channel."""

from __future__ import annotations

import io
import re
import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PICTURES", "is_picture", "note_on_order", "open_picture", "picture_paths", "pictures_in"]

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # Pillow's modes of more than 8 bits
DIRECT = ("RGB", "RGBA", "RGBa", "L", "LA", "P", "PA", "1")  # modes that Pillow converts to RGBA
ORIENTATION = 0x0112  # the number of this tag in EXIF
SHOWN = 3  # names or pairs in a message


def is_picture(value: object) -> bool:
    """Return whether a value is a picture of Pillow, which is not imported for it."""
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(value).__mro__)


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files below a folder in the order of their paths.

    The files ``._name`` that macOS writes beside pictures on other disks and into archives are left out.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURES and not path.name.startswith("._") and path.is_file()
    )


def note_on_order(folder: str | Path, names: Sequence[str], partners: Sequence[str]) -> str | None:
    """Return a note if names in the order of their paths are not in the order of the numbers in them, else None.

    Args:
        folder: The folder of the files.
        names: The names of its files, in the order of their paths.
        partners: What each of the files is paired with, as the note says it.

    Examples:
        >>> from modalign.files.pictures import note_on_order
        >>> note_on_order("photos", ["8.png", "9.png"], ["row 0", "row 1"])
        >>> note_on_order("photos", ["10.png", "9.png"], ["row 0", "row 1"])[:72]
        'photos: the files of a folder are taken in the order of their paths, not'
    """
    alike = defaultdict(list)
    for place, name in enumerate(names):
        alike[re.sub(r"\d+", "0", name)].append(place)
    first = len(names)
    for places in alike.values():  # of names that differ only in their numbers
        numbers = [[int(number) for number in re.findall(r"\d+", names[place])] for place in places]
        by_number = zip(places, numbers, sorted(numbers), strict=True)
        first = min(first, next((place for place, now, natural in by_number if now != natural), first))
    if first == len(names):
        return None
    start = max(0, first - SHOWN + 1)
    pairs = [f"{name} with {partner}" for name, partner in zip(names, partners, strict=False)][start : start + SHOWN]
    return (
        f"{folder}: the files of a folder are taken in the order of their paths, not of the numbers in their names, "
        f"which pairs {', '.join(pairs)}; if that is not meant, give the paths of the files in a list or a column of a "
        "table, in the order of the rows, in place of the folder"
    )


def picture_paths(name: str, texts: Sequence[str], folder: Path | None = None) -> list[Path] | None:
    """Return the pictures that texts name, or None where the texts are not all names of picture files.

    Args:
        name: What messages call the texts.
        texts: Paths, from ``folder`` or from the working folder.
        folder: The folder of the file that holds the texts, or None.

    Raises:
        FileNotFoundError: All texts end like pictures' names, and some of the files are not there.
    """
    if not texts or not all(Path(text.strip()).suffix.lower() in PICTURES for text in texts):
        return None
    paths, missing = [], []
    for text in texts:
        place = Path(text.strip()).expanduser()
        here = [base / place for base in ([folder] if folder is not None else []) + [Path()]]
        path = next((path for path in here if path.is_file()), None)
        paths.append(path or place)
        missing += [] if path else [text]
    if missing:
        places = f"{folder} or {Path.cwd()}" if folder is not None else f"{Path.cwd()}"
        raise FileNotFoundError(
            f"{name} names pictures, of which {len(missing):,} are not there, such as {', '.join(missing[:SHOWN])}; "
            f"paths begin at {places}, and nothing is downloaded"
        )
    return paths


def open_picture(source: str | Path | bytes | Image, name: str, mode: str = "RGB") -> Image:
    """Open a picture upright, in 8 bits a channel.

    A picture is turned as its EXIF orientation says. Grey levels of 16 bits are divided by 257, levels from 0.0 to 1.0
    multiplied by 255, so that a gradient stays a gradient. CMYK is converted by way of RGB.

    Args:
        source: A path, the bytes of a file, or an opened picture.
        name: What messages call it.
        mode: The mode to return, "RGB" or "RGBA".

    Raises:
        ValueError: The file is no whole picture, or its levels are in a range that says not which is white.
    """
    from PIL import Image

    try:
        if not isinstance(source, (str, Path, bytes)):
            return _converted(_upright(source), name, mode)
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            return _converted(_upright(file), name, mode)
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name} cannot be read as an image ({reason}); drop or mend it") from None


def _upright(image: Image) -> Image:
    """Return a picture turned as its EXIF orientation says; a damaged EXIF block says nothing."""
    from PIL import ImageOps

    try:
        turned = image.getexif().get(ORIENTATION, 1) != 1
    except (SyntaxError, ValueError, KeyError, TypeError, OverflowError, struct.error):
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _converted(image: Image, name: str, mode: str) -> Image:
    if image.mode in WIDE:
        image = _in_8_bits(image, name)
    if mode == "RGBA" and image.mode not in DIRECT:
        image = image.convert("RGB")
    try:
        return image.convert(mode)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as an image ({error}); save it as RGB") from None


def _in_8_bits(image: Image, name: str) -> Image:
    """Return a grey picture of 16 or 32 bits, or of floats, in 8 bits."""
    from PIL.Image import fromarray

    levels: Any = np.asarray(image).astype(np.float64)
    if not np.isfinite(levels).all():
        raise ValueError(f"{name} must hold finite grey levels, got NaN or inf; mend or drop it")
    low, high = float(levels.min(initial=0)), float(levels.max(initial=0))
    if low < 0 or high > 65535 or (image.mode == "F" and high > 255) or 255 < high < 4096:
        raise ValueError(
            f"{name} has grey levels from {low:g} to {high:g}, which do not say what is white; bring them to 8 bits "
            "first, such as Image.fromarray((levels / white * 255).clip(0, 255).astype('uint8'))"
        )
    if image.mode == "F" and high <= 1:
        levels = levels * 255
    elif high > 255:
        levels = levels / 257
    return fromarray(np.round(levels).astype(np.uint8))
