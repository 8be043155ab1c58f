"""The settings of the emergence study, and what they make: data sets and encoders, by either protocol."""

from __future__ import annotations

import dataclasses
import itertools

from modalign.data import PairedDataset, synthetic
from modalign.encoders import EncoderConfig, LeakyMLPConfig, MLPConfig

__all__ = ["FULL", "GRIDS", "PUBLISHED", "QUICK", "Cell", "Grid"]

WIDTH = 12
FEATURES = 8  # features of the label
GROWTH = ("depth", "width")
TUNING = ("each", "once", "published")
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
    """What the study trains and compares.

    Attributes:
        uniqueness, heterogeneity, seeds: the factors; temperatures: levels of information, the largest first.
        depths_1, depths_2: depths of the encoders of modality 1 and 2.
        n, epochs_1, epochs_2, batch_size, clip: pairs of a data set, and how encoders are trained.
        trials, trials_at_once, learning_rates, weight_decays: pairs of learning rate and weight decay tried by Optuna.
        tuning: "each" tunes every encoder; "once" tunes for each uniqueness and modality, on depths up to 4 that are
            as deep as the heterogeneity or one less; "published" takes the values that the published code lists.
        compared, k: held-out pairs that are compared, and neighbours among them.
        variant, nonlinearity: as of ``synthetic``.
        growth: "depth", or "width" for encoders of one hidden layer of 12 depth^2 units.
        protocol: "default", or "paper": the data of the published code, drawn once for all seeds of training;
            encoders with a nonlinearity after every layer; the first test pairs; CKA clipped at 0 and ``svcca_code``.
    """

    uniqueness: tuple[int, ...] = tuple(range(9))
    heterogeneity: tuple[int, ...] = (1, 3, 5, 7, 9)
    seeds: tuple[int, ...] = (2, 22, 42)
    depths_1: tuple[int, ...] = (1,)
    depths_2: tuple[int, ...] = (1, 2, 3, 5, 8)
    n: int = 16384
    epochs_1: int = 20
    epochs_2: int = 30
    batch_size: int = 512
    clip: float = 8.0
    trials: int = 3
    trials_at_once: int = 3
    learning_rates: tuple[float, ...] = (1e-3, 5e-3, 1e-2, 5e-2)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
    compared: int = 2048
    k: int = 50
    device: str = "cpu"
    protocol: str = "default"
    tuning: str = "each"
    temperatures: tuple[float, ...] = (0.05,)
    variant: str = "uni"
    nonlinearity: str = "tanh"
    growth: str = "depth"

    def __post_init__(self) -> None:
        for name in ("uniqueness", "heterogeneity", "seeds", "depths_1", "depths_2"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or min(values) < (name.startswith("depth")):
                raise ValueError(f"emergence: {name} must hold different whole numbers, got {values}")
        if max(self.uniqueness) > FEATURES or max(*self.depths_1, *self.depths_2) > 10:
            raise ValueError("emergence: uniqueness goes from 0 to 8 and depth from 1 to 10")
        if not 1 <= self.trials_at_once <= self.trials:
            raise ValueError(f"emergence: trials_at_once must be from 1 to {self.trials}, got {self.trials_at_once}")
        for name, allowed in (("tuning", TUNING), ("growth", GROWTH)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"emergence: {name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if not self.temperatures or len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"emergence: temperatures must hold different numbers, got {self.temperatures}")

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
