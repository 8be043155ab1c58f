"""What the study of MultiBench trains: the paper's grid and a small one, for each protocol."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from modalign.experiments.studies.registry import Protocol
from modalign.experiments.studies.settings import (
    Count,
    Decay,
    Depth,
    Device,
    Different,
    Positive,
    Rate,
    Seed,
    Several,
    check_settings,
)

__all__ = ["FULL", "GRIDS", "QUICK", "Grid"]


@dataclasses.dataclass(frozen=True)
class Grid:
    """What the study trains. The annotation of a field says what a value may be and what it means."""

    depths: Annotated[
        Annotated[Different[Depth], Field(min_length=3)], "Depths of the Transformers, over which r is taken."
    ] = (1, 2, 3, 4, 5)
    seeds: Annotated[Several[Seed], "Seeds of training."] = (2, 22)
    items: Annotated[Count | None, "The most pairs of each part, a fixed random choice; null for all."] = 512
    steps: Annotated[Count | None, "Steps of an affect sequence, the last ones; null for all."] = 20
    epochs: Annotated[Count, "Epochs of training."] = 6
    long: Annotated[Count, "How many times these epochs AV-MNIST has."] = 2
    batch_size: Annotated[Count, "Pairs of a step of training."] = 64
    clip: Annotated[Positive, "The largest norm of a gradient."] = 8.0
    trials: Annotated[Count, "Pairs of learning rate and weight decay that the search of an encoder tries."] = 2
    trials_at_once: Annotated[Count, "Trials that train side by side, at most all."] = 2
    learning_rates: Annotated[Different[Rate], "Learning rates of the search."] = (1e-3, 5e-4)
    weight_decays: Annotated[Different[Decay], "Weight decays of the search."] = (0.0, 0.1, 0.01, 1e-3, 1e-4)
    compared: Annotated[Annotated[int, Field(ge=4)], "Held-out pairs that are compared."] = 512
    k: Annotated[Count, "Neighbours of mutual k-NN, fewer than the pairs compared."] = 10
    device: Annotated[Device, "Where encoders are trained."] = "cpu"
    protocol: Annotated[Protocol, "Our choices, or the published code and its settings."] = "default"

    def __post_init__(self) -> None:
        check_settings("multibench", self)
        if self.protocol == "paper" and (self.trials > 1 or self.learning_rates or self.weight_decays):
            raise ValueError(
                "multibench: the protocol paper tries no settings but takes those that the paper's code publishes; "
                "leave trials, learning_rates and weight_decays out"
            )
        if self.protocol != "paper" and not (self.learning_rates and self.weight_decays):
            raise ValueError("multibench: learning_rates and weight_decays must hold one or more numbers, got []")


QUICK = Grid()
FULL = Grid(
    depths=tuple(range(1, 11)),
    seeds=(2, 22, 42),
    items=None,
    steps=None,
    epochs=50,
    trials=8,
    learning_rates=(1e-3, 5e-4, 1e-4, 5e-5, 1e-5),
    compared=4096,
)


def _published(grid: Grid) -> Grid:
    """Return a grid that takes the settings which the paper's code publishes and tries no others."""
    untried: tuple[float, ...] = ()
    return dataclasses.replace(
        grid, trials=1, trials_at_once=1, learning_rates=untried, weight_decays=untried, protocol="paper"
    )


# the whole grid and the small one of each protocol
GRIDS = {"default": (FULL, QUICK), "paper": (_published(FULL), _published(QUICK))}
