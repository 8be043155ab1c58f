"""What the study of MultiBench trains: the paper's grid and a small one, for each protocol."""

from __future__ import annotations

import dataclasses

__all__ = ["FULL", "GRIDS", "QUICK", "Grid"]


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is trained. items: pairs of each part at most, a fixed random choice; steps: of an affect sequence, the last
    ones; None for all. trials: pairs of learning rate and weight decay tried for each encoder, so many at once.
    compared: held-out pairs that are compared; k: neighbours among them. long: how many times the epochs AV-MNIST has.
    protocol: "default", or "paper", which tries no settings but takes those that the paper's code publishes.
    """

    depths: tuple[int, ...] = (1, 2, 3, 4, 5)
    seeds: tuple[int, ...] = (2, 22)
    items: int | None = 512
    steps: int | None = 20
    epochs: int = 6
    long: int = 2
    batch_size: int = 64
    clip: float = 8.0
    trials: int = 2
    trials_at_once: int = 2
    learning_rates: tuple[float, ...] = (1e-3, 5e-4)
    weight_decays: tuple[float, ...] = (0.0, 0.1, 0.01, 1e-3, 1e-4)
    compared: int = 512
    k: int = 10
    device: str = "cpu"
    protocol: str = "default"

    def __post_init__(self) -> None:
        for name, fewest in (("depths", 3), ("seeds", 1)):
            values = getattr(self, name)
            if len(values) < fewest or len(set(values)) < len(values) or min(values) < (name == "depths"):
                raise ValueError(f"multibench: {name} must hold {fewest} or more different whole numbers, got {values}")
        if max(self.depths) > 10:
            raise ValueError(f"multibench: depths go from 1 to 10, got {max(self.depths)}")
        if not 1 <= self.trials_at_once <= self.trials:
            raise ValueError(f"multibench: trials_at_once must be from 1 to {self.trials}, got {self.trials_at_once}")
        if self.protocol == "paper" and (self.trials > 1 or self.learning_rates or self.weight_decays):
            raise ValueError(
                "multibench: the protocol paper tries no settings but takes those that the paper's code publishes; "
                "leave trials, learning_rates and weight_decays out"
            )


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
