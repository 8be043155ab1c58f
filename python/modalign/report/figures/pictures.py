"""Drawn pictures and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modalign.files.atomic import write_atomically

__all__ = ["Picture", "write_pictures"]


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
        target = Path(path)
        contents = {".svg": self.svg, ".png": self.png}
        if target.suffix not in contents:
            raise ValueError(f"save: path must end in .svg or .png, got {target}")
        write_atomically(target, partial(_put, contents[target.suffix]))
        return target


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> Path:
    """Write every picture into ``folder`` as SVG and PNG, each file whole or not at all, and return ``folder``."""
    for picture in pictures:
        for suffix in ("svg", "png"):
            picture.save(folder / f"{picture.name}.{suffix}")
    return folder


def _put(content: bytes, path: Path) -> None:
    path.write_bytes(content)
