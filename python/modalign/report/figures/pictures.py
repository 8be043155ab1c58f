"""Drawn pictures and their files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modalign.files.atomic import write_atomically
from modalign.files.checkpoint import Checkpoint
from modalign.files.marks import MARK
from modalign.files.paths import expanded

__all__ = ["Picture", "files_of", "pictures_of_page", "place_of", "write_pictures"]

# the pictures that modalign 0.1.0 wrote beside the pages of alignments, comparisons and advice
EARLIER = ("curves", "information", "k-curve", "layers", "neighbours", "null", "scores", "size-curve")


@dataclass(frozen=True)
class Picture:
    """A drawn picture.

    Attributes:
        name (str): The file name without its ending.
        svg (bytes): The picture as SVG.
        png (bytes): The picture as PNG.
    """

    name: str
    svg: bytes
    png: bytes

    def _repr_svg_(self) -> str:
        return self.svg.decode()

    def save(self, path: str | Path) -> Path:
        """Write the picture to a .svg or .png file, whole or not at all, and return the path.

        Args:
            path (str or Path): The file.

        Raises:
            ValueError: If the name ends in something else.
        """
        target = expanded(path)
        contents = {".svg": self.svg, ".png": self.png}
        if target.suffix.lower() not in contents:
            raise ValueError(f"save: path must end in .svg or .png, got {target}")
        write_atomically(target, partial(_put, contents[target.suffix.lower()]))
        return target


@contextlib.contextmanager
def pictures_of_page(folder: Path, pictures: Sequence[Picture]) -> Iterator[None]:
    """Write the pictures of a page as ``write_pictures`` does, then run the block that writes the page.

    Raises:
        ValueError: If the folder holds files that modalign did not write, and nothing else.
        OSError: If a picture or the page cannot be written. New pictures are removed, and so is a new folder.
    """
    place, names = place_of(folder), files_of(pictures)
    is_new = not folder.exists()
    try:
        with place.claimed():
            for name in names:
                place.require_free(name)
            place.drop(*(name for name in place.mark.files if name not in names))
            before = place.mark.existing()
            try:
                for name, content in names.items():
                    place.write_bytes(name, content)
                yield
            except OSError:
                place.drop(*(name for name in names if name not in before))
                raise
    except OSError:
        if is_new:
            (folder / MARK).unlink(missing_ok=True)
            place.remove_folder("")
        raise


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> Path:
    """Write every picture into a folder of pictures as SVG and PNG, each file whole or not at all, and return it.

    Pictures that an earlier call left there and this one does not have are removed; other files stay. Errors are those
    of ``pictures_of_page``.
    """
    with pictures_of_page(folder, pictures):
        return folder


def place_of(folder: Path) -> Checkpoint:
    """Return the folder of the pictures of a page; its ``require_ours`` refuses a folder of the user's."""
    return Checkpoint(
        folder,
        content="the pictures of a page",
        advice="give another place",
        option="place of the page",
        kept="new pictures were removed, and the page was not written",
        earlier=_earlier_pictures,
    )


def files_of(pictures: Sequence[Picture]) -> dict[str, bytes]:
    """Return the content of each file of the pictures, by name."""
    return {
        f"{picture.name}.{suffix}": content
        for picture in pictures
        for suffix, content in (("svg", picture.svg), ("png", picture.png))
    }


def _earlier_pictures(folder: Path) -> list[str]:
    """Return the files of a folder of pictures of modalign 0.1.0, which carries no mark: pairs of SVG and PNG alone."""
    paths = sorted(folder.iterdir())
    names = {path.name for path in paths}
    pairs = {f"{path.stem}.{suffix}" for path in paths for suffix in ("svg", "png") if path.stem in EARLIER}
    return sorted(names) if names == pairs and all(path.is_file() for path in paths) else []


def _put(content: bytes, path: Path) -> None:
    path.write_bytes(content)
