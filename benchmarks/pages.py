"""Tables of simulations on pages of the documentation, between two marks."""

from __future__ import annotations

from pathlib import Path

from modalign.files.atomic import write_atomically

__all__ = ["put_on_page"]


def put_on_page(path: Path, text: str, marks: tuple[str, str]) -> None:
    """Put a table between the two marks of a page, in the place of what is there."""
    begin, end = marks
    before, rest = path.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    content = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    write_atomically(path, lambda place: place.write_text(content, encoding="utf-8"))
