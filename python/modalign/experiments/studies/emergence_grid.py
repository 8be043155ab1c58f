"""The settings of the emergence study, and what they make: data sets and encoders, by either protocol."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Annotated, Literal

from pydantic import Field

from modalign.data import PairedDataset, synthetic
from modalign.encoders import EncoderConfig, LeakyMLPConfig, MLPConfig
from modalign.experiments.studies.registry import Protocol
from modalign.experiments.studies.settings import (
    Count,
    Decay,
    Depth,
    Device,
    Positive,
    Rate,
    Seed,
    Several,
    check_settings,
)

__all__ = ["FULL", "GRIDS", "PUBLISHED", "QUICK", "Cell", "Grid"]

WIDTH = 12
FEATURES = 8  # features of the label
Tuning = Literal["each", "once", "published"]
Variant = Literal["uni", "multi", "width", "identity"]
Nonlinearity = Literal["tanh", "sigmoid"]
Growth = Literal["depth", "width"]
# learning rate and weight decay of modality 1 and 2 by redundancy, as the published code lists them
PUBLISHED: dict[int, tuple[tuple[float, float], tuple[float, float]]] = {
    0: ((0.005, 0.1), (0.01, 0.0)),
    1: ((0.001, 0.0001), (0.01, 0.0)),
    2: ((0.005, 0.1), (0.01, 0.0)),
    3: ((0.01, 0.001), (0.01, 0.0)),
    4: ((0.005, 0.1), (0.01, 0.0)),
    5: ((0.01, 0.001), (0.01, 0.0001)),
    6: ((0.005, 0.1), (0.01, 0.0)),
    7: ((0.005, 0.1), (0.01, 0.0)),
    8: ((0.001, 0.0001), (0.01, 0.0)),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One data set of the study: the level of information, by its temperature, and uniqueness."""

    temperature: float
    uniqueness: int


@dataclasses.dataclass(frozen=True)
class Grid:
    """What the study trains and compares. The annotation of a field says what a value may be and what it means."""

    uniqueness: Annotated[
        Several[Annotated[int, Field(ge=0, le=FEATURES)]],
        "Features of the label, of 8, that only one modality has.",
    ] = tuple(range(9))
    heterogeneity: Annotated[
        Several[Annotated[int, Field(ge=0, le=100)]], "Depths of the network in front of modality 2."
    ] = (1, 3, 5, 7, 9)
    seeds: Annotated[Several[Seed], "Seeds of training and, by the default protocol, of the data."] = (2, 22, 42)
    depths_1: Annotated[Several[Depth], "Depths of encoders of modality 1; claims are of the smallest."] = (1,)
    depths_2: Annotated[Several[Depth], "Depths of encoders of modality 2."] = (1, 2, 3, 5, 8)
    n: Annotated[Annotated[int, Field(ge=100, le=10**8)], "Pairs of a data set."] = 16384
    epochs_1: Annotated[Count, "Epochs of encoders of modality 1."] = 20
    epochs_2: Annotated[Count, "Epochs of encoders of modality 2."] = 30
    batch_size: Annotated[Count, "Pairs of a step of training."] = 512
    clip: Annotated[Positive, "The largest norm of a gradient."] = 8.0
    trials: Annotated[Count, "Pairs of learning rate and weight decay that a search tries."] = 3
    trials_at_once: Annotated[Count, "Trials that train side by side, at most all."] = 3
    learning_rates: Annotated[Several[Rate], "Learning rates of the search."] = (1e-3, 5e-3, 1e-2, 5e-2)
    weight_decays: Annotated[Several[Decay], "Weight decays of the search."] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
    compared: Annotated[Annotated[int, Field(ge=4)], "Held-out pairs that are compared."] = 2048
    k: Annotated[Count, "Neighbours of mutual k-NN, fewer than the pairs compared."] = 50
    device: Annotated[Device, "Where encoders are trained."] = "cpu"
    protocol: Annotated[Protocol, "Our choices, or the published code."] = "default"
    tuning: Annotated[
        Tuning,
        "The search: of each encoder; once for each uniqueness and modality, on depths up to 4 that are as deep as the "
        "heterogeneity or one less; or none, but the values that the published code lists.",
    ] = "each"
    temperatures: Annotated[
        Several[Positive], "Levels of information of the label, the most at the smallest, of which the claims are."
    ] = (0.05,)
    variant: Annotated[Variant, "The network in front of modality 2, as of `synthetic`."] = "uni"
    nonlinearity: Annotated[Nonlinearity, "The nonlinearity of that network."] = "tanh"
    growth: Annotated[Growth, "What a depth d adds: layers, or one hidden layer of 12 d^2 units."] = "depth"

    def __post_init__(self) -> None:
        check_settings("emergence", self)

    @property
    def paper(self) -> bool:
        """Whether the study follows the published code."""
        return self.protocol == "paper"

    @property
    def trained_for(self) -> tuple[int, ...]:
        """The heterogeneities for which encoders of modality 1 are trained.

        Modality 1 does not depend on heterogeneity, so one set of encoders serves all, unless it is transformed too or
        the published code splits the data anew for each.
        """
        return self.heterogeneity if self.paper or self.variant == "multi" else (0,)

    def cells(self) -> list[Cell]:
        """Return the levels of information and uniqueness."""
        return [Cell(*pair) for pair in itertools.product(self.temperatures, self.uniqueness)]

    def data(self, cell: Cell, heterogeneity: int, seed: int) -> PairedDataset:
        """Return a data set. By the paper's protocol, seeds are seeds of training and share one draw of the data."""
        return synthetic(
            redundancy=FEATURES - cell.uniqueness,
            n=self.n,
            heterogeneity=heterogeneity,
            variant=self.variant,
            nonlinearity=self.nonlinearity,
            temperature=cell.temperature,
            information=False,
            **({"draw": "published"} if self.paper else {"seed": seed}),
        )

    def encoder(self, depth: int) -> EncoderConfig:
        """Return the encoder of a depth."""
        width, depth = (WIDTH * depth**2, 1) if self.growth == "width" else (WIDTH, depth)
        if self.paper:
            return LeakyMLPConfig(kind="leaky_mlp", depth=depth, dim=width)
        if self.growth == "width":  # one hidden layer, and an output as wide as the input
            return MLPConfig(kind="mlp", width=width, depth=2, dim=WIDTH)
        return MLPConfig(kind="mlp", width=width, depth=depth, dim=width)

    def training_seed(self, seed: int, heterogeneity: int, depth: int) -> int:
        """Return the seed of an encoder's weights and batches."""
        return seed + heterogeneity + depth if self.paper else seed


# a quarter of the paper's pairs and a tenth of its epochs; k is the same share of the compared pairs
QUICK = Grid()
FULL = Grid(
    heterogeneity=tuple(range(1, 11)),
    depths_1=tuple(range(1, 11)),
    depths_2=tuple(range(1, 11)),
    n=65536,
    epochs_1=50,
    epochs_2=300,
    trials=8,
    trials_at_once=4,
    compared=4096,
    k=100,
)
# the whole grid and the small one of each protocol
GRIDS = {
    "default": (FULL, QUICK),
    "paper": (
        dataclasses.replace(FULL, protocol="paper", compared=512, k=100, tuning="once", trials_at_once=1),
        dataclasses.replace(QUICK, protocol="paper", compared=512, k=100, tuning="published"),
    ),
}
