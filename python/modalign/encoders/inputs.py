"""Inputs of ``embed``: texts and images from text files, folders, columns of tables and sequences."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalign.common.labels import missing_rows
from modalign.files.paths import expanded, require_data
from modalign.files.pictures import PICTURES, is_picture, note_on_order, open_picture, picture_paths, pictures_in
from modalign.files.tables import column_of, is_table, split_column
from modalign.files.texts import lines_of, numbers_in

if TYPE_CHECKING:
    from PIL.Image import Image

    Item = str | bytes | Path | Image

__all__ = ["Items", "notes_on_pairs", "read_items", "read_texts"]
SHOWN = 40  # characters of a text in a note


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
        return [open_picture(self.values[i], f"image {self.ids[i]}") for i in range(start, stop)]


def read_items(inputs: str | Path | Sequence[Item]) -> Items:
    """Read the names and values of all inputs, as ``embed`` takes them; image files are not opened yet.

    Raises:
        ValueError: If there are none, or texts and images are mixed.
        FileNotFoundError: If there is no such file or folder.
    """
    if isinstance(inputs, (str, Path)):
        values, ids = _read(str(inputs))
    else:
        values, ids = _texts_or_pictures("embed: inputs", list(inputs), None)
    if not values:
        raise ValueError("embed: there is nothing to embed: the inputs are empty")
    texts = isinstance(values[0], str)
    missing = missing_rows(values)
    if missing:
        raise ValueError(f"embed: inputs must be there, got none in rows {missing[:3]} (the first of {len(missing):,})")
    if any(isinstance(value, str) != texts for value in values):
        raise ValueError("embed: inputs must be all texts or all images, got both")
    odd = next((value for value in values if not (isinstance(value, (str, bytes, Path)) or is_picture(value))), None)
    if odd is not None:
        raise ValueError(
            f"embed: inputs must be texts, paths of images, their bytes or pictures of Pillow, got {type(odd).__name__}"
            "; an array of pixels becomes a picture by PIL.Image.fromarray"
        )
    digest = hashlib.sha256()
    for value in values:
        digest.update(_fingerprint(value))
    return Items(values, ids, texts, digest.hexdigest())


def notes_on_pairs(inputs: Sequence[str | Path]) -> list[str]:
    """Check, before any is embedded, that inputs of the same items have as many texts or images each.

    Returns:
        A note on each folder whose files are paired with a list in another order than that of the numbers in their
        names.

    Raises:
        ValueError: If they have not, or an input is empty.
        FileNotFoundError: If there is no such file or folder.
    """
    if len(inputs) < 2:
        return []
    items = [read_items(spec) for spec in inputs]
    counts = [len(side.ids) for side in items]
    if len(set(counts)) > 1:
        listed = ", ".join(f"{count:,} in {spec}" for count, spec in zip(counts, inputs, strict=True))
        raise ValueError(f"embed: inputs must be the same items in one order, got {listed}")
    is_folder = [expanded(spec).is_dir() for spec in inputs]
    if all(is_folder):
        return []
    listed_side = items[is_folder.index(False)]
    partners = [
        f"row {row} ({str(value)[:SHOWN]!r})" if isinstance(value, str) else f"row {row}"
        for row, value in enumerate(listed_side.values)
    ]
    notes = [
        note_on_order(spec, side.ids, partners)
        for spec, side, folder in zip(inputs, items, is_folder, strict=True)
        if folder
    ]
    return [note for note in notes if note is not None]


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
    path = expanded(spec)
    if path.is_dir():
        files = pictures_in(path)
        if not files:
            raise ValueError(f"{path} holds no images; they end in {', '.join(sorted(PICTURES))}")
        return list(files), [str(file.relative_to(path)) for file in files]
    if path.is_file() and not is_table(path):
        return _texts_or_pictures(spec, lines_of(require_data(path)), path.parent)
    name, column = split_column(spec) or spec.rpartition(":")[::2]
    table = expanded(name)
    if not name or not table.is_file():
        if path.is_file():
            raise ValueError(f"{path} holds columns; say which holds the inputs as {path}:NAME")
        raise FileNotFoundError(f"there is no file or folder {spec}")
    entries = column_of(table, column, cells="texts")
    return _texts_or_pictures(spec, [_item(spec, entry) for entry in entries], table.parent)


def _item(spec: str, entry: Any) -> Item:
    """Return the text or the bytes of a cell; Hugging Face's images are bytes with a path."""
    value = entry.get("bytes") or entry.get("path") if isinstance(entry, dict) else entry
    if not isinstance(value, (str, bytes)):
        raise ValueError(f"{spec} must hold texts or images, got {type(value).__name__}; name a column that does")
    return value


def _texts_or_pictures(name: str, values: Sequence[Item], folder: Path | None) -> tuple[list[Item], list[str]]:
    """Return values and ids, with the pictures that texts name in place of their paths."""
    texts = [value for value in values if isinstance(value, str)]
    if values and len(texts) == len(values):
        paths = picture_paths(name, texts, folder)
        if paths is not None:
            return list(paths), texts
        numbers = numbers_in(name, texts)
        if numbers is not None and numbers.ndim == 2:
            raise ValueError(
                f"{name} holds lists of {numbers.shape[1]} numbers as text, which are embeddings and no texts; save "
                "them as an array (.npy)"
            )
    return list(values), [str(i) for i in range(len(values))]


def _fingerprint(value: Item) -> bytes:
    if isinstance(value, str):
        return value.encode() + b"\0"
    if isinstance(value, Path):
        status = value.stat()
        return f"{value.name}:{status.st_size}:{status.st_mtime_ns}\0".encode()
    return value if isinstance(value, bytes) else value.tobytes()
