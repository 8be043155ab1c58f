"""JSON and YAML that may be damaged or hostile, read within limits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

__all__ = ["read_json", "read_yaml"]

MOST_VALUES = 100_000  # that the aliases of a YAML document may unfold to
LONGEST = 1 << 22  # characters of a YAML document


def read_json(path: Path, *, finite: bool = False) -> Any:
    """Return what a JSON file holds.

    Args:
        path: The file.
        finite: Whether NaN, Infinity and numbers beyond float64 are refused.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no JSON in UTF-8, lists lie too deep in each other, or a number is not finite.
    """
    text = path.read_bytes()
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite) if finite else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a whole JSON file, got one that cannot be read ({error})") from None


def read_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> object:
    """Return what a YAML document holds.

    Aliases let a few lines stand for more values than memory holds, so the values are counted before they are built.

    Args:
        text: The document.
        loader: A safe loader.

    Raises:
        yaml.YAMLError: The text is no YAML; the error has the place.
        ValueError: A value is not of the type that its tag says, or the document is too long, too deep, refers to
            itself, or stands for more than 100,000 values.

    Examples:
        >>> from modalign.files.documents import read_yaml
        >>> read_yaml("a: &list [1, 2]" + chr(10) + "b: *list")
        {'a': [1, 2], 'b': [1, 2]}
    """
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text):,} characters, more than {LONGEST:,}")
    reader = loader(text)
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return reader.construct_document(node)
    except RecursionError:
        raise ValueError("its lists and mappings lie too deep in each other") from None
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a value is not of the type that its tag says ({type(error).__name__}: {error})") from None
    finally:
        reader.dispose()


def _finite(text: str) -> float:
    """Return the number that a text stands for."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {text} in place of a finite number")
    return number


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values in a node, those behind an alias counted each time."""
    if id(node) not in known:
        known[id(node)] = 0  # until it is known; a node inside itself finds it
        parts = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts if isinstance(part, yaml.Node))
    elif not known[id(node)]:
        raise ValueError("an alias stands for something that it is a part of")
    if known[id(node)] > MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
    return known[id(node)]
