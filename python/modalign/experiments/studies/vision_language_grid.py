"""The settings of the vision-language study, by either protocol."""

from __future__ import annotations

import dataclasses

from modalign.experiments.studies.caption_changes import KINDS
from modalign.experiments.studies.caption_levels import GIVEN

__all__ = ["FULL", "GRIDS", "QUICK", "Grid"]


@dataclasses.dataclass(frozen=True)
class Grid:
    """What the study compares.

    Attributes:
        uniqueness: percentages of the words that change.
        kinds: kinds of change, of ``caption_changes.KINDS``.
        seeds: seeds of the changes.
        pairs: the largest number of pairs, a fixed random choice; None for all.
        layers: the largest number of layers of a text encoder, evenly spaced from first to last; None for all.
        k: neighbours of each item.
        relabellings: relabellings for chance.
        device: where text encoders run.
        protocol: "default", or "paper": all layers of an encoder concatenated are scored, too, and bits per byte are
            those of the published code, of the captions at each uniqueness.
    """

    uniqueness: tuple[int, ...] = (0, 10, 30, 50, 70, 90, 100)
    kinds: tuple[str, ...] = KINDS
    seeds: tuple[int, ...] = (0, 1, 2)
    pairs: int | None = 1024
    layers: int | None = 7
    k: int = 10
    relabellings: int = 200
    device: str = "cpu"
    protocol: str = "default"

    def __post_init__(self) -> None:
        for name in ("uniqueness", "kinds", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"vision-language: {name} must hold different values, got {values}")
        if min(self.uniqueness) < 0 or max(self.uniqueness) > 100:
            raise ValueError(f"vision-language: uniqueness is per cent, from 0 to 100, got {self.uniqueness}")
        if not set(self.kinds) <= {*KINDS, GIVEN}:
            raise ValueError(f"vision-language: kinds are {' and '.join(KINDS)}, got {self.kinds}")
        for name in ("pairs", "layers"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"vision-language: {name} must be at least 1, or None for all")
        if self.relabellings < 19:
            raise ValueError(f"vision-language: relabellings must be at least 19, got {self.relabellings}")

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
