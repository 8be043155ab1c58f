"""Mistakes in a configuration, each in one line: the key, what was wanted, what came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from modalign.common.names import did_you_mean
from modalign.encoders.configs import ENCODERS
from modalign.files.settings import in_words

__all__ = ["sentence"]

LABELS = "should be a whole number of pairs, a fraction of them from 0 to 1, or null for all"
# words of pydantic -> words for a reader of YAML, replaced in this order
WORDS = {
    "Input should": "should",
    "should be a valid dictionary or instance of": "should be a mapping for",
    "should be a valid dictionary": "should be a mapping",
    "should be a valid tuple": "should be a list",
    "should be a valid integer": "should be a whole number",
    "should be a valid number": "should be a number",
    "should be a valid string": "should be text",
    "Tuple should": "should",
    "String should": "should",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}
PATTERNS = {
    "name": "should start with a letter or digit and hold only letters, digits, spaces and . _ -",
    "training.device": "should be cpu, cuda or cuda:0, cuda:1 ...",
}


def sentence(error: ErrorDetails, content: Mapping[str, Any], sections: Mapping[str, type[BaseModel]]) -> str:
    """Return the line for one mistake.

    Args:
        error: An entry of pydantic's ``ValidationError.errors()``.
        content: The configuration.
        sections: The model of each section and of each kind of encoder; "" is that of the whole.
    """
    location = list(error["loc"])
    section = sections.get(str(location[0]) if len(location) > 1 else "", sections[""])
    if len(location) > 2 and location[0] == "encoders" and location[2] in ENCODERS:
        section = sections[str(location.pop(2))]
    if location[:1] == ["encoders"] and isinstance(content.get("encoders"), Mapping):
        # one for all modalities: pydantic's number of it means nothing
        location = [part for part in location if not isinstance(part, int)]
    if location[:2] == ["training", "labels"]:  # pydantic reports each alternative of the union
        return f"training.labels: {LABELS}, got {in_words(content['training']['labels'])}"
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    got = f", got {in_words(error['input'])}"
    match error["type"]:
        case "extra_forbidden":
            known = list(section.model_fields)
            return f"{key}: unknown key; " + (did_you_mean(location[-1], known) or f"known here: {', '.join(known)}")
        case "missing":
            return f"{key}: is required, and is not there"
        case "union_tag_invalid" | "union_tag_not_found":
            kind = error["input"].get("kind") if isinstance(error["input"], Mapping) else None
            hint = did_you_mean(kind, ENCODERS)
            return f"{key}.kind: should be one of {', '.join(ENCODERS)}, got {in_words(kind)}" + (hint and f"; {hint}")
        case "string_pattern_mismatch" if key in PATTERNS:
            return f"{key}: {PATTERNS[key]}{got}"
        case "value_error":
            reason = str(error["ctx"]["error"])
            # a reason that begins with "should" is about the value of this key; any other stands alone
            return f"{key}: {reason}{got if reason.startswith('should') else ''}".removeprefix(": ")
    message = str(error["msg"])
    for words, replacement in WORDS.items():
        message = message.replace(words, replacement)
    return f"{key}: {message}{got}"
