"""Made-up tables of the studies, in which a claim is false, true as the paper has it, or half as strong.

Noise has three sources: each run's own, that of a point (the same in every draw and unit) and that of a draw, which is
smooth over the points, as where neighbouring depths share their networks. Tables without any relation take each
source alone and all together in turn. Other tables have half of their noise from runs, 30 % from points and 20 % from
draws.

Smooth noise is scenarios of its own: each side that is measured is a random walk over the points with a tenth of its
steps' scatter from each run. The walk is each cell's own, or shared by draws, by units, or by all of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from modalign.experiments.studies.strength_claims import Curves

Array = np.ndarray[Any, np.dtype[np.float64]]
NOISE, REVERSED, CONSTANT, RIGHT, HALF, ONE = (
    "noise", "reversed", "constant", "as the paper", "half as strong", "one part wrong",
)  # fmt: skip


DISCRETE = "two or three levels"
SMOOTH, OF_UNITS, OF_DRAWS, OF_ALL = (
    "smooth", "smooth, shared by draws", "smooth, shared by units", "smooth, shared by all",
)  # fmt: skip
# by scenario: whether draws and whether units share their walk
SHARED = {SMOOTH: (False, False), OF_UNITS: (True, False), OF_DRAWS: (False, True), OF_ALL: (True, True)}
RUN_OF_A_STEP = 0.1  # deviation of a run about its walk, in steps


@dataclass(frozen=True)
class Scene:
    """What a table is drawn from: the name of the scenario, the number of the table in it, and the part of a claim."""

    name: str
    number: int
    part: int = 0

    @functools.cached_property
    def rng(self) -> np.random.Generator:
        """The generator of the table."""
        return np.random.default_rng([17, self.part, self.number, *self.name.encode()])


SCENARIOS = (NOISE, REVERSED, CONSTANT, RIGHT, HALF)
USUAL = {"runs": 0.5, "points": 0.3, "draws": 0.2}
SOURCES: tuple[dict[str, float], ...] = (
    {"runs": 1.0}, {"runs": 0.1, "points": 0.9}, {"runs": 0.1, "draws": 0.9},
    {"runs": 1 / 3, "points": 1 / 3, "draws": 1 / 3},
)  # fmt: skip
STRONGEST = 0.995  # a correlation of 1 has no noise


def noise(rng: np.random.Generator, shape: tuple[int, int, int], shares: dict[str, float]) -> Array:
    """Return noise (draws, units, points) of variance 1 with so much of it from each source."""
    draws, _, points = shape
    smooth = rng.normal(size=(draws, 1, points)).cumsum(2)
    parts = {
        "runs": rng.normal(size=shape),
        "points": rng.normal(size=(1, 1, points)),
        "draws": smooth / np.sqrt(np.arange(1, points + 1)),
    }
    return np.asarray(sum(np.sqrt(share) * parts[name] for name, share in shares.items()))


def walks(scene: Scene, shape: tuple[int, int, int]) -> Array:
    """Return random walks (draws, units, points) over points, shared as the scenario says, with each run's noise."""
    shared = SHARED[scene.name]
    size = [1 if share else count for share, count in zip(shared, shape, strict=False)] + [shape[2]]
    walk = scene.rng.normal(size=size).cumsum(2)
    return np.broadcast_to(walk, shape) + RUN_OF_A_STEP * scene.rng.normal(size=shape)


def strength_of(scenario: str, paper: float) -> float:
    """Return the true correlation of a scenario."""
    factor = {REVERSED: -1.0, RIGHT: 1.0, HALF: 0.5}.get(scenario, 0.0)
    return float(np.clip(factor * paper, -STRONGEST, STRONGEST))


def curves_over_points(scene: Scene, strength: float, shape: tuple[int, int, int]) -> Array:
    """Return values (draws, units, points) whose mean over draws has this correlation with the points."""
    draws, _, points = shape
    if scene.name in SHARED:
        return walks(scene, shape)
    if scene.name == CONSTANT:
        return np.full(shape, 0.3)
    at = (np.arange(points) - (points - 1) / 2) / np.arange(points).std()
    shares = SOURCES[scene.number % len(SOURCES)] if scene.name == NOISE else USUAL
    spread = np.sqrt(1 - strength**2)
    table = noise(scene.rng, shape, shares)
    # the mean over draws, which the paper draws, has the whole of the noise
    scale = 1 / np.sqrt(shares.get("points", 0) + (shares.get("draws", 0) + shares.get("runs", 0)) / draws)
    return strength * at + spread * scale * table


def cells_over_points(scene: Scene, strength: float, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """Return x and y (draws, units, points) whose cells have this correlation."""
    if scene.name in SHARED:
        return walks(scene, shape), walks(scene, shape)
    if scene.name == CONSTANT:
        return np.full(shape, 0.3), np.full(shape, 0.3)
    shares = SOURCES[scene.number % len(SOURCES)] if scene.name == NOISE else USUAL
    at = np.arange(shape[2]) - (shape[2] - 1) / 2
    common = np.sqrt(abs(strength)) * at / at.std()
    spread = np.sqrt(1 - abs(strength))
    x, y = (spread * noise(scene.rng, shape, shares) for _ in range(2))
    return x + common, y + np.sign(strength) * common


def pairs_of_points(scene: Scene, strength: float, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return x and y whose entries have this correlation; half of a row's noise is its point's."""
    if scene.name in SHARED:
        x, y = (walks(scene, (shape[0], 1, shape[-1])).reshape(shape) for _ in range(2))
        return x, y
    if scene.name == CONSTANT:
        return np.full(shape, 0.3), np.full(shape, 0.3)
    shared = (1.0, 0.5, 0.0)[scene.number % 3] if scene.name == NOISE else 0.5

    def side() -> Array:
        point, own = scene.rng.normal(size=(shape[-1],)), scene.rng.normal(size=shape)
        return np.sqrt(shared) * point + np.sqrt(1 - shared) * own

    x = side()
    return x, strength * x + np.sqrt(1 - strength**2) * side()


def heat_map(scene: Scene, shape: tuple[int, int, int]) -> Array:
    """Return values (draws, depths, heterogeneities) that follow their difference, or only one of the two."""
    if scene.name == CONSTANT:
        return np.full(shape, 0.3)
    draws, depths, heterogeneities = shape
    if scene.name in SHARED:  # a walk over rows and one over columns
        over = [walks(scene, (draws, 1, count)) for count in (depths, heterogeneities)]
        return over[0].transpose(0, 2, 1) + over[1]
    rows, columns = (np.arange(count) / count for count in (depths, heterogeneities))
    own = 0.15 * scene.rng.normal(size=shape)
    if scene.name == NOISE:
        sides = ((0, 0), (0, 1), (1, 0))[scene.number % 3]
        return own + sides[0] * rows[:, None] - sides[1] * columns
    factor = {REVERSED: -1.0, RIGHT: 1.0, HALF: 0.5}[scene.name]
    return own + 0.15 * scene.rng.normal(size=shape[1:]) + factor * np.subtract.outer(rows, columns)


def ends(scene: Scene, draws: int, units: int) -> tuple[Array, Array]:
    """Return the alignment (draws, units) at U = 0 and at U = 8, which falls from 0.9 to 0.01."""
    if scene.name == DISCRETE:
        return discrete(scene, (draws, units), 0.5), discrete(scene, (draws, units), 0.1)
    levels = {
        NOISE: (0.3, 0.3), REVERSED: (0.01, 0.9), CONSTANT: (0.3, 0.3), RIGHT: (0.9, 0.01), HALF: (0.45, 0.01),
    }[scene.name]  # fmt: skip
    scatter = (0.0, 0.0) if scene.name == CONSTANT else tuple(0.1 if level > 0.1 else 0.02 for level in levels)
    first, last = (
        level + spread * (scene.rng.normal(size=(draws, 1)) + scene.rng.normal(size=(draws, units))) / np.sqrt(2)
        for level, spread in zip(levels, scatter, strict=True)
    )
    return first, last


def discrete(scene: Scene, shape: tuple[int, ...], bound: float) -> Array:
    """Return values of two levels about a bound, as of a measurement on a few items; the mean is the bound."""
    level = 0.05 * (1 + scene.number % 3)
    steps = scene.rng.integers(0, 2, shape) * 2 - 1 if scene.number % 2 else scene.rng.integers(-1, 2, shape)
    return bound + level * steps


KNOTS = (0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0)  # strengths of the effects below
SHAPES = {
    "falls": (0.0, -0.001, -0.01, -0.04, -0.15, -0.25, -0.30),
    "rises": (0.0, 0.008, 0.018, 0.022, 0.024, 0.020, 0.015),
    "rises then falls": (0.0, 0.006, 0.014, 0.015, 0.004, -0.03, -0.10),
}
RUN, DRAW = 0.006, 0.5  # deviation of the accuracy of a run, and of the effect from draw to draw as a share of it


def accuracy_curves(scene: Scene, shape: str, draws: int, strengths: tuple[float, ...]) -> Curves:
    """Return accuracies (draws, strengths) of a shape; validation and test share 70 % of a run's noise."""
    if scene.name in SHARED:
        walk = RUN * walks(scene, (draws, 1, len(strengths)))[:, 0]
        return Curves(strengths, 0.6 + walk + 0.5 * RUN * scene.rng.normal(size=walk.shape), 0.6 + walk)
    effect = np.interp(strengths, KNOTS, SHAPES[shape])
    factor = {NOISE: 0.0, REVERSED: -1.0, CONSTANT: 0.0, RIGHT: 1.0, HALF: 0.5}[scene.name]
    effects = factor * effect * (1 + DRAW * scene.rng.normal(size=(draws, 1)))
    run = 0.0 if scene.name == CONSTANT else RUN
    common = np.sqrt(0.7) * scene.rng.normal(size=effects.shape)
    test, validation = (
        0.6 + effects + run * (common + np.sqrt(0.3) * scene.rng.normal(size=effects.shape)) for _ in range(2)
    )
    return Curves(strengths, validation, test)
