"""What is wrong with a configuration, said in one line: the key, what was wanted, what came."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from modalign.encoders.configs import ENCODERS
from modalign.files.settings import in_words

__all__ = ["sentence"]

LABELS = "should be a whole number of pairs, a fraction of them from 0 to 1, or null for all"
# what pydantic says -> what a reader of YAML understands, applied in this order
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


def sentence(error: Any, content: Mapping[str, Any], sections: Mapping[str, type[BaseModel]]) -> str:
    """One mistake that pydantic found in ``content``. ``sections``: the model that holds the keys of each part."""
    location = list(error["loc"])
    section = sections.get(str(location[0]) if len(location) > 1 else "", sections[""])
    if len(location) > 2 and location[0] == "encoders" and location[2] in ENCODERS:
        section = sections[location.pop(2)]
    if location[:1] == ["encoders"] and isinstance(content.get("encoders"), Mapping):  # one for both: [0] means nothing
        location = [part for part in location if not isinstance(part, int)]
    if location[:2] == ["training", "labels"]:  # what follows are the alternatives of a union
        return f"training.labels: {LABELS}, got {in_words(content['training']['labels'])}"
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    got = f", got {in_words(error['input'])}"
    match error["type"]:
        case "extra_forbidden":
            known = list(section.model_fields)
            return f"{key}: unknown key; " + (_nearest(location[-1], known) or f"known here: {', '.join(known)}")
        case "missing":
            return f"{key}: is required, and is not there"
        case "union_tag_invalid" | "union_tag_not_found":
            kind = error["input"].get("kind") if isinstance(error["input"], Mapping) else None
            hint = _nearest(kind, ENCODERS)
            return f"{key}.kind: should be one of {', '.join(ENCODERS)}, got {in_words(kind)}" + (hint and f"; {hint}")
        case "string_pattern_mismatch" if key in PATTERNS:
            return f"{key}: {PATTERNS[key]}{got}"
        case "value_error":
            reason = str(error["ctx"]["error"])
            # what begins with "should" is about this key's value; anything else tells the whole story
            return f"{key}: {reason}{got if reason.startswith('should') else ''}".removeprefix(": ")
    message = str(error["msg"])
    for said, meant in WORDS.items():
        message = message.replace(said, meant)
    return f"{key}: {message}{got}"


def _nearest(name: object, known: Any) -> str:
    near = difflib.get_close_matches(str(name), known, 1)
    return f"did you mean {near[0]}?" if near else ""
