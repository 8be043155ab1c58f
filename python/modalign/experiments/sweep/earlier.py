"""Folders of results that modalign 0.1.0 made, which carry no mark: their files say what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["files_of_a_study", "files_of_a_sweep"]

PAGE = b"default-src 'none'; script-src 'unsafe-inline'"  # near the beginning of every page


def files_of_a_sweep(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the paths of the files that a sweep of modalign 0.1.0 left in ``folder``; none for other folders.

    Args:
        folder (Path): A folder without a mark.
        names (sequence of str): Regular expressions for the paths of a sweep's files, oldest first.
    """
    return _files(folder, names) if "modalign_commit" in _json(folder / "provenance.json") else []


def files_of_a_study(folder: Path, names: Sequence[str], study: str) -> list[str]:
    """Return the paths of the files that a study of modalign 0.1.0 left in ``folder``; none for other folders.

    Args:
        folder (Path): A folder without a mark.
        names (sequence of str): Regular expressions for the paths of a study's files, oldest first.
        study (str): The name of the study in its settings.
    """
    record = _json(folder / "settings.json")
    settings, provenance = record.get("settings"), record.get("provenance")
    if not isinstance(settings, dict) or not isinstance(provenance, dict) or "modalign_commit" not in provenance:
        return []
    return _files(folder, names) if str(settings.get("study", "")) == study else []


def _files(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the files of these names, without those whose content shows that they are the user's."""
    places = {path.relative_to(folder).as_posix(): path for path in folder.glob("*")}
    places |= {path.relative_to(folder).as_posix(): path for path in folder.glob("*/*")}
    ordered = dict.fromkeys(place for name in names for place in sorted(places) if re.fullmatch(name, place))
    return [place for place in ordered if places[place].is_file() and _is_ours(places[place])]


def _is_ours(path: Path) -> bool:
    check = CHECKS.get(path.suffix)
    return check is None or check(path)


def _is_part(path: Path) -> bool:
    import torch

    try:
        part = torch.load(path, weights_only=True, mmap=True)
        return {"of", "versions", "runs", "content"} == set(part)
    except Exception:  # torch.load raises many kinds
        return False


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return PAGE in file.read(4096)


CHECKS: dict[str, Callable[[Path], bool]] = {".pt": _is_part, ".html": _is_page}


def _json(path: Path) -> dict[str, object]:
    """Return the object in a JSON file, an empty one for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
