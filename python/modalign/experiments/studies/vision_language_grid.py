"""The settings of the vision-language study, by either protocol."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from modalign.experiments.studies.registry import Protocol
from modalign.experiments.studies.settings import Count, Device, Seed, Several, check_settings

__all__ = ["FULL", "GRIDS", "QUICK", "Grid"]


@dataclasses.dataclass(frozen=True)
class Grid:
    """What the study compares. The annotation of a field says what a value may be and what it means."""

    uniqueness: Annotated[
        Several[Annotated[int, Field(ge=0, le=100)]], "Percentages of a caption's words that change."
    ] = (0, 10, 30, 50, 70, 90, 100)
    kinds: Annotated[
        Several[Literal["deleted", "replaced", "given"]],
        "What happens to these words; given are captions as a folder has them.",
    ] = ("deleted", "replaced")
    seeds: Annotated[Several[Seed], "Seeds of the choice of words."] = (0, 1, 2)
    pairs: Annotated[Count | None, "The most pairs, a fixed random choice; null for all."] = 1024
    layers: Annotated[
        Count | None, "The most layers of a text encoder, evenly spaced from first to last; null for all."
    ] = 7
    k: Annotated[Count, "Neighbours of mutual k-NN, fewer than the pairs."] = 10
    relabellings: Annotated[Annotated[int, Field(ge=19)], "Random pairings, for chance."] = 200
    device: Annotated[Device, "Where text encoders run."] = "cpu"
    protocol: Annotated[
        Protocol,
        "Our choices, or the published code: all layers concatenated are scored too, and bits per byte are of the "
        "captions at each uniqueness.",
    ] = "default"

    def __post_init__(self) -> None:
        check_settings("vision-language", self)

    @property
    def paper(self) -> bool:
        """Whether the study follows the published code."""
        return self.protocol == "paper"


QUICK = Grid()
FULL = Grid(uniqueness=tuple(range(0, 101, 10)), seeds=tuple(range(5)), pairs=None, layers=None)
# the whole grid and the small one of each protocol
GRIDS = {
    "default": (FULL, QUICK),
    "paper": (
        dataclasses.replace(QUICK, uniqueness=tuple(range(10, 101, 10)), layers=None, protocol="paper"),
        dataclasses.replace(QUICK, uniqueness=(10, 30, 50, 70, 90, 100), protocol="paper"),
    ),
}
