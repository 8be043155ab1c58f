"""Settings that a caller changed from those of the protocol, and the claims that this takes from beside the paper's.

A number of a paper stands beside ours only where the settings that define it are those of the protocol.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from modalign.common.names import resolve
from modalign.experiments.studies.claims import Claim
from modalign.experiments.studies.registry import STUDIES
from modalign.experiments.studies.settings import setting_names, shown
from modalign.files.paths import expanded

__all__ = ["Change", "beside_the_paper", "changes_in", "changes_of"]


class Change(NamedTuple):
    """A setting that differs from that of the whole grid of the protocol.

    by_user: False where it has the value of the small grid, which a call without ``--full`` runs.
    """

    name: str
    value: object
    protocol: str
    theirs: object
    by_user: bool

    def __str__(self) -> str:
        whose = "the paper" if self.protocol == "paper" else "the protocol"
        return f"{self.name} = {shown(self.value)} ({whose}: {shown(self.theirs)})"


def changes_of(settings: Mapping[str, Any]) -> list[Change]:
    """Return the settings of a study, as settings.json has them, that differ from the whole grid of its protocol."""
    study, protocol = STUDIES.get(str(settings.get("study"))), str(settings.get("protocol", "default"))
    if study is None or study.grids is None:
        return []
    full, quick = resolve(study.grids)[protocol]
    # captions of a folder come with values of their own
    apart = ("uniqueness", "kinds", "seeds") if settings.get("kinds") == ["given"] else ()
    changes = []
    for name in setting_names(type(full)):
        if name in settings and name not in apart:
            value, theirs, small = (
                json.loads(json.dumps(one)) for one in (settings[name], getattr(full, name), getattr(quick, name))
            )
            if value != theirs:
                changes.append(Change(name, value, protocol, theirs, by_user=value != small))
    return changes


def changes_in(folder: Path) -> list[Change]:
    """Return ``changes_of`` the study in a folder."""
    record = json.loads((expanded(folder) / "settings.json").read_text(encoding="utf-8"))
    return changes_of(record["settings"])


def beside_the_paper(
    claims: Sequence[Claim], folder: Path, defining: Callable[[Claim], Collection[str]]
) -> list[Claim]:
    """Return the claims with what the caller changed, without the paper's number where that changes its meaning.

    defining: returns the names of the settings that define the number of a claim.
    """
    changes = [change for change in changes_in(folder) if change.by_user]
    return [_beside(claim, changes, defining(claim)) for claim in claims]


def _beside(claim: Claim, changes: Sequence[Change], defining: Collection[str]) -> Claim:
    claim = dataclasses.replace(claim, changed=tuple(map(str, changes)))
    differing = [change.name for change in changes if change.name in defining]
    if not differing:
        return claim
    return dataclasses.replace(_alone(claim), text=f"{claim.text} (changed by you: {', '.join(differing)})")


def _alone(claim: Claim) -> Claim:
    """Return the claim, and its parts, as a statement of the paper without a number."""
    parts = tuple(map(_alone, claim.parts))
    if claim.paper is None:
        return dataclasses.replace(claim, parts=parts)
    if claim.rule != "strong":
        return dataclasses.replace(claim, paper=None, parts=parts)
    # the rules of the parts, and so their characteristics, are others
    design = "" if parts else claim.design
    side = int(math.copysign(1, claim.paper))
    return dataclasses.replace(claim, rule="sign", paper=None, side=side, design=design, parts=parts)
