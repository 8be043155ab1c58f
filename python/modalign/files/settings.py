"""The settings of a computation as JSON has them, and the words for how two of them differ."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator

__all__ = ["ABSENT", "differences", "different_settings", "digest_of", "in_words"]

ABSENT = object()  # the value of a key that one of two settings lacks
LONGEST = 80  # characters of a value in a message


def differences(before: object, now: object) -> list[str]:
    """Return a phrase for each setting that differs: ``key: value before, value now``.

    Args:
        before, now: settings as ``json.loads`` returns them. A key of a nested setting is written as a path.

    Examples:
        >>> from modalign.files.settings import differences
        >>> differences({"k": 5, "x": {"rows": 9}}, {"k": 5, "x": {"rows": 8}, "metric": "dot"})
        ['x.rows: 9 before, 8 now', "metric: absent before, 'dot' now"]
    """
    return [f"{key}: {in_words(one)} before, {in_words(two)} now" for key, one, two in different_settings(before, now)]


def different_settings(first: object, second: object) -> list[tuple[str, object, object]]:
    """Return (key, value in the first, value in the second) of each setting that differs; ``ABSENT`` for no value."""
    one, two = dict(_leaves(first)), dict(_leaves(second))
    sides = ((key, one.get(key, ABSENT), two.get(key, ABSENT)) for key in dict.fromkeys((*one, *two)))
    return [(key, left, right) for key, left, right in sides if left != right]


def digest_of(settings: object) -> str:
    """Return a digest of settings that JSON can hold: 16 hexadecimal digits, whatever the order of their keys."""
    plain = json.loads(json.dumps(settings))  # every key is text then, and can be sorted
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def in_words(value: object) -> str:
    """Return a value as YAML would write it, cut where it gets long; "absent" for ``ABSENT``.

    Examples:
        >>> from modalign.files.settings import in_words
        >>> in_words(None), in_words([0.5, 1])
        ('null', '[0.5, 1]')
    """
    if value is ABSENT:
        return "absent"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield the path and the value of everything that is no dictionary and no list of dictionaries."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{key}[{i}]")
    else:
        yield key, None if isinstance(value, float) and math.isnan(value) else value  # NaN differs from itself
