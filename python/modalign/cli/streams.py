"""Output on terminals and pipes that cannot encode every character, such as those of LANG=C."""

from __future__ import annotations

import codecs
import io
import sys

import typer

__all__ = ["echo", "encode_everything"]

PLAIN = str.maketrans(
    {
        "→": "->",
        "−": "-",
        "–": "-",
        "—": "-",
        "±": "+/-",
        "≤": "<=",
        "≥": ">=",
        "×": "x",
        "·": "|",
        "…": "...",
        "•": "*",
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "\u2009": " ",
        "\u202f": " ",
        "\u00a0": " ",
    }
)


def encode_everything() -> None:
    """Let standard output and error write what they cannot encode as plain characters, and names by their escapes.

    Without this, one minus sign ends the command with UnicodeEncodeError where Python's output is ASCII.
    """
    codecs.register_error("modalign", _in_plain_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="modalign")


def echo(text: str, *, err: bool = False) -> None:
    """Write a line to standard output or error as these encode it; by itself typer writes UTF-8 to an ASCII stream."""
    typer.echo(text, file=sys.stderr if err else sys.stdout)


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end
