"""Text files: their encoding, their lines, and numbers that were written as text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["encoding_of", "lines_of", "numbers_in", "require_decodable", "text_of"]

# the longer marks come first: UTF-16's is the beginning of UTF-32's
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
ARRAY = re.compile(r"\s*(?:array|tensor)\((.*?)(?:,\s*dtype=[\w.]+)?\)\s*", re.DOTALL)  # as Python shows it
LEFT_OUT = "..."  # what NumPy writes in place of most numbers of a long array
DIGITS = 19  # of the smallest whole number beyond int64
SHOWN = 3  # rows that a message names
PIECE = 1 << 20  # bytes of a file that are decoded at once


def encoding_of(path: Path) -> str:
    """Return the encoding that the mark at the beginning of a text file names, UTF-8 without one."""
    with path.open("rb") as file:
        head = file.read(4)
    return next((encoding for mark, encoding in MARKS if head.startswith(mark)), "utf-8")


def require_decodable(path: Path) -> None:
    """Check that a file is text in the encoding that its mark names, UTF-8 without one. Memory: a piece of 1 MiB.

    Raises:
        ValueError: It is not; the message names the first byte at fault and its line.
    """
    decoder, line = codecs.getincrementaldecoder(encoding_of(path))(), 1
    with path.open("rb") as file:
        try:
            while piece := file.read(PIECE):
                decoder.decode(piece)
                line += piece.count(b"\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            raise ValueError(
                f"{path} must be UTF-8 text, got byte 0x{error.object[error.start]:02x} in line {line} "
                f"({error.reason}); save it as UTF-8, such as by iconv -f latin1 -t utf-8"
            ) from None


def text_of(path: Path) -> str:
    """Return the text of a file, with its line ends as newlines and without a byte-order mark.

    Raises:
        ValueError: The file is no text in UTF-8, or in UTF-16 or UTF-32 with a mark.
    """
    require_decodable(path)
    text = path.read_text(encoding=encoding_of(path))
    if "\0" in text:
        raise ValueError(f"{path} must be UTF-8 text, got bytes of 0: it is another kind of file, or UTF-16")
    return text.removeprefix("\ufeff")


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text file. Newlines alone end a line; other separators belong to the text.

    Raises:
        ValueError: As ``text_of``.
    """
    lines = text_of(path).split("\n")
    return lines if lines[-1] else lines[:-1]


def numbers_in(name: str, texts: Sequence[str]) -> NDArray[Any] | None:
    """Return numbers that were written as text, (n,) or (n, d), or None where the texts are words.

    Args:
        name: What messages call the texts.
        texts: One text for each row: a number, or a list of numbers such as "[0.1, -0.2]" or "0.1 -0.2".

    Returns:
        int64 where all numbers are whole and written without a point, else float64.

    Raises:
        ValueError: Most texts are numbers and some are not, they are lists of different lengths, or numbers were left
            out when they were written.

    Examples:
        >>> from modalign.files.texts import numbers_in
        >>> numbers_in("x", ["[0.5, 1.0]", "[2. 3.]"]).tolist()
        [[0.5, 1.0], [2.0, 3.0]]
        >>> numbers_in("x", ["a red fox", "7"])
    """
    rows = [_tokens(text) for text in texts]
    others = [row for row, tokens in enumerate(rows) if not tokens]
    if 2 * len(others) >= len(texts):
        return None
    if others:
        raise ValueError(
            f"{name} holds numbers as text but for rows {others[:SHOWN]} (the first of {len(others):,}); mend or drop "
            "them, and save the numbers as an array (.npy)"
        )
    cut = [row for row, tokens in enumerate(rows) if LEFT_OUT in tokens]
    if cut:
        raise ValueError(
            f"{name} holds lists of numbers of which most were left out ({LEFT_OUT}) in rows {cut[:SHOWN]}, when NumPy "
            "wrote the arrays as text; save the array itself (.npy)"
        )
    lengths = sorted({len(tokens) for tokens in rows})
    if len(lengths) > 1 or any(len(re.findall(r"[\[({]", ARRAY.sub(r"\1", text))) > 1 for text in texts):
        raise ValueError(
            f"{name} holds numbers as text, of which each row must be one list of one length, got {lengths[0]} to "
            f"{lengths[-1]} numbers, maybe in lists of lists; pad them with 0, or save an array (.npy)"
        )
    whole = all(token.lstrip("+-").isdecimal() and len(token) < DIGITS for tokens in rows for token in tokens)
    values: NDArray[Any] = np.array(rows).astype(np.int64 if whole else np.float64)
    return values[:, 0] if lengths == [1] and not any("[" in text for text in texts) else values


def _tokens(text: str) -> list[str]:
    """Return the numbers of a text, as text; none where it holds anything else."""
    array = ARRAY.fullmatch(text)
    tokens = re.sub(r"[\[\](){},;]", " ", array[1] if array else text).split()
    try:
        for token in tokens:
            if token != LEFT_OUT:
                float(token)
    except ValueError:
        return []
    return tokens
