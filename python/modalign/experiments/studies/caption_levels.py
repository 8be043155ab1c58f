"""The captions of the vision-language study at each uniqueness: changed by words, or given by the user's files."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modalign.encoders.inputs import read_texts
from modalign.experiments.studies.caption_changes import changed_captions
from modalign.files.paths import expanded

__all__ = ["GIVEN", "CaptionLevels", "read_captions"]

GIVEN = "given"  # the kind of change of captions that files hold
INDEX, LEVEL = re.compile(r"Index - (\d+)"), re.compile(r".*- (\d+)%")
FORMS = (
    "the folder must hold data.json, as the published code has it, or text files of one caption a line that are named "
    "by their uniqueness, such as 10.txt and 100.txt"
)


@dataclasses.dataclass(frozen=True)
class CaptionLevels:
    """The captions of the same images at each uniqueness.

    Attributes:
        texts: the captions, of the least uniqueness where files hold several.
        given: the captions by per cent of uniqueness that files hold; empty where words of ``texts`` are changed.
    """

    texts: list[str]
    given: dict[int, list[str]] = dataclasses.field(default_factory=dict)

    def changed(self, uniqueness: int, kind: str, seed: int) -> list[str]:
        """Return the captions of a uniqueness."""
        if kind == GIVEN:
            if uniqueness not in self.given:
                raise ValueError(f"captions of kind {GIVEN} come from a folder that --captions names, got none")
            return self.given[uniqueness]
        return changed_captions(self.texts, uniqueness, kind, seed=seed)

    def of(self, rows: Sequence[int]) -> CaptionLevels:
        """Return the captions of some images."""
        given = {level: [texts[i] for i in rows] for level, texts in self.given.items()}
        return CaptionLevels([self.texts[i] for i in rows], given)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the study's grid that these captions decide."""
        return {"uniqueness": tuple(self.given), "kinds": (GIVEN,), "seeds": (0,)} if self.given else {}


def read_captions(path: str | Path) -> CaptionLevels:
    """Read captions: one a line of a text file, a column of a table, or a folder that has them at several levels.

    A folder holds the published data.json, in which each image has captions from 0 to 100 %, or text files such as
    10.txt, one caption a line. A file named ``.json`` is read as data.json. Raises FileNotFoundError for a file that is
    not there, and ValueError for one of another form, for levels of different number and for an empty caption.
    """
    place = expanded(str(path))
    if not place.is_dir() and place.suffix != ".json":
        return CaptionLevels(read_texts(path))
    file = place / "data.json" if place.is_dir() else place
    if file.is_file():
        levels = _levels_of_json(file)
    else:
        texts = {int(entry.stem): entry for entry in place.glob("*.txt") if entry.stem.isdecimal()}
        levels = {level: read_texts(texts[level]) for level in sorted(texts)}
    if not levels or max(levels) > 100:
        raise ValueError(f"{place}: there are no captions by uniqueness; {FORMS}")
    first = min(levels)
    for level, captions in levels.items():
        if len(captions) != len(levels[first]):
            raise ValueError(
                f"{place}: every uniqueness must have as many captions, got {len(levels[first])} at {first} % and "
                f"{len(captions)} at {level} %"
            )
        for number, caption in enumerate(captions):
            if not caption.split():
                raise ValueError(f"{place}: caption {number} (from 0) at {level} % has no words")
    return CaptionLevels(levels[first], levels)


def _levels_of_json(file: Path) -> dict[int, list[str]]:
    """Return the captions of data.json by level, in the order of the images' numbers."""
    levels: dict[int, dict[int, str]] = {}
    try:
        for entry in json.loads(file.read_text(encoding="utf-8")):
            for index, captions in entry.items():
                image = INDEX.fullmatch(index)
                for name, caption in captions["sentences"].items():
                    level = LEVEL.fullmatch(name)
                    if image is None or level is None or not isinstance(caption, str):
                        raise TypeError
                    levels.setdefault(int(level[1]), {})[int(image[1])] = caption
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise ValueError(
            f'{file}: expected a list of {{"Index - 0": {{"sentences": {{"Caption 1 - 10%": "...", ...}}}}}}, as the '
            "published data.json is"
        ) from None
    for per_cent, captions in levels.items():
        missing = next((i for i in range(len(captions)) if i not in captions), None)
        if missing is not None:
            raise ValueError(f"{file}: image {missing} has no caption at {per_cent} %; every image needs one")
    return {level: [captions[i] for i in range(len(captions))] for level, captions in sorted(levels.items())}
