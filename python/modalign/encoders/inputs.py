"""Inputs of ``embed``: texts and images from text files, folders, columns of tables and sequences."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from modalign.files.tables import KINDS, column_of, lines_of, read_table

if TYPE_CHECKING:
    from PIL.Image import Image

    Item = str | bytes | Path | Image

__all__ = ["Items", "read_items", "read_texts"]

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class Items:
    """Texts or images to embed.

    Args:
        values: Texts; or paths, bytes or Pillow images, which are opened when they are needed.
        ids: One name for each: a path, or its number.
        texts: True for texts, False for images.
        fingerprint: Digest of the texts, the images' bytes, or the names, sizes and times of their files.
    """

    values: Sequence[Item]
    ids: list[str]
    texts: bool
    fingerprint: str

    def batch(self, start: int, stop: int) -> list[Item]:
        """Return texts, or images opened in RGB; ValueError names an image that cannot be read."""
        if self.texts:
            return list(self.values[start:stop])
        return [_open_image(self.values[i], self.ids[i]) for i in range(start, stop)]


def read_items(inputs: str | Path | Sequence[Item]) -> Items:
    """Read the names and values of all inputs, as ``embed`` takes them; image files are not opened yet.

    Raises:
        ValueError: If there are none, or texts and images are mixed.
        FileNotFoundError: If there is no such file or folder.
    """
    if isinstance(inputs, (str, Path)):
        values, ids = _read(str(inputs))
    else:
        values = list(inputs)
        ids = [str(i) for i in range(len(values))]
    if not values:
        raise ValueError("embed: there is nothing to embed: the inputs are empty")
    texts = isinstance(values[0], str)
    if any(isinstance(value, str) != texts or value is None for value in values):
        raise ValueError("embed: inputs must be all texts or all images, got both")
    digest = hashlib.sha256()
    for value in values:
        digest.update(_fingerprint(value))
    return Items(values, ids, texts, digest.hexdigest())


def read_texts(spec: str | Path) -> list[str]:
    """Read the texts of a file of one text a line, or of ``file.csv:column`` and the like.

    Raises:
        ValueError: If the file holds images, or no texts.
        FileNotFoundError: If there is no such file.
    """
    values, _ = _read(str(spec))
    if not values or not all(isinstance(value, str) for value in values):
        content = "images" if values else "nothing"
        raise ValueError(f"{spec} must hold texts, one a line or in a column, got {content}")
    return [str(value) for value in values]


def _read(spec: str) -> tuple[list[Item], list[str]]:
    """Return values and ids of a text file, a folder of images or a column."""
    path = Path(spec)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES)
        if not files:
            raise ValueError(f"{path} holds no images; they end in {', '.join(sorted(IMAGES))}")
        return list(files), [str(file.relative_to(path)) for file in files]
    if path.is_file() and path.suffix not in KINDS:
        try:
            lines = lines_of(path)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} must be UTF-8 text of one text a line ({error.reason})") from None
        return list(lines), [str(i) for i in range(len(lines))]
    name, _, column = spec.rpartition(":")
    if not name or not Path(name).is_file():
        if path.is_file():
            raise ValueError(f"{path} holds columns; say which holds the inputs as {path}:NAME")
        raise FileNotFoundError(f"there is no file or folder {spec}")
    values = [
        entry["bytes"] if isinstance(entry, dict) else entry
        for entry in column_of(read_table(Path(name), column), name, column)
    ]
    return values, [str(i) for i in range(len(values))]


def _fingerprint(value: Item) -> bytes:
    if isinstance(value, str):
        return value.encode() + b"\0"
    if isinstance(value, Path):
        status = value.stat()
        return f"{value.name}:{status.st_size}:{status.st_mtime_ns}\0".encode()
    return value if isinstance(value, bytes) else value.tobytes()


def _open_image(value: Item, name: str) -> Image:
    from PIL import Image, UnidentifiedImageError

    if not isinstance(value, (str, bytes, Path)):
        return value.convert("RGB")
    try:
        with Image.open(io.BytesIO(value) if isinstance(value, bytes) else value) as image:
            return cast("Image.Image", image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"image {name} cannot be read ({reason}); mend it or take it out") from None
