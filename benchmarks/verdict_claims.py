"""The claims of the studies on made-up tables: functions of a scene that return a claim with its verdict.

Claims that differ in the paper's number alone have the same tables of noise, which are measured once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks import verdict_tables as made
from benchmarks.verdict_tables import CONSTANT, DISCRETE, HALF, NOISE, ONE, REVERSED, RIGHT, SHARED, Scene
from modalign.experiments.studies import emergence_claims, vision_language_claims
from modalign.experiments.studies import strength_claims as shapes
from modalign.experiments.studies.claims import Claim, every
from modalign.experiments.studies.measured import (
    Measured,
    curve_correlation,
    grid_correlation,
    mean_over_draws,
    median_correlation,
    pooled_correlation,
    pooled_trend,
    trend,
)

ASSUMED = 0.6  # the correlation of a claim for which the paper gives no number


def judged_trend(rule: str, paper: float | None, shape: tuple[int, int], scene: Scene) -> Claim:
    """Judge a trend over points (draws, points)."""
    return Claim.measured(
        "", "", rule, _trend(made.strength_of(scene.name, paper or ASSUMED), shape, scene), paper=paper
    )


@functools.lru_cache(8192)
def _trend(strength: float, shape: tuple[int, int], scene: Scene) -> Measured:
    values = made.curves_over_points(scene, strength, (shape[0], 1, shape[1]))[:, 0]
    return trend(range(shape[1]), values)


def judged_median(paper: float, shape: tuple[int, int, int], fixed: bool, scene: Scene) -> Claim:
    """Judge a median correlation over points (draws, units, points), with the points themselves if ``fixed``."""
    if paper == 0:
        strength, scene, rule = *_none(scene), "none"
    else:
        strength, rule = made.strength_of(scene.name, paper), "strong"
    return Claim.measured("", "", rule, _median(strength, shape, fixed, scene), paper=paper)


@functools.lru_cache(8192)
def _median(strength: float, shape: tuple[int, int, int], fixed: bool, scene: Scene) -> Measured:
    if fixed and scene.name != CONSTANT:
        return median_correlation(np.arange(shape[2], dtype=np.float64), _cells_of_trend(scene, strength, shape))
    return median_correlation(*made.cells_over_points(scene, strength, shape))


def _cells_of_trend(scene: Scene, strength: float, shape: tuple[int, int, int]) -> made.Array:
    """Return cells, rather than their mean, with this correlation."""
    if scene.name in SHARED:
        return made.walks(scene, shape)
    shares = made.SOURCES[scene.number % len(made.SOURCES)] if scene.name == NOISE else made.USUAL
    at = np.arange(shape[2]) - (shape[2] - 1) / 2
    return strength * at / at.std() + np.sqrt(1 - strength**2) * made.noise(scene.rng, shape, shares)


def _none(scene: Scene) -> tuple[float, Scene]:
    """Return the relation and the scene of a claim that there is none, which is false where there is one."""
    relation = {REVERSED: 0.6, HALF: 0.3}.get(scene.name, 0.0)
    return relation, scene if scene.name in (NOISE, CONSTANT, *SHARED) else replace(scene, name=RIGHT)


def _scenes(scene: Scene, count: int) -> list[Scene]:
    """Return the scenes of the parts of a claim; ONE: all but one, which has no relation."""
    kinds = [NOISE, *[RIGHT] * (count - 1)] if scene.name == ONE else [scene.name] * count
    return [replace(scene, name=kind, part=part) for part, kind in enumerate(kinds)]


def judged_every(count: int, paper: float, shape: tuple[int, int, int], scene: Scene) -> Claim:
    """Judge a claim on the median correlations of several tables."""
    parts = [judged_median(paper, shape, True, part) for part in _scenes(scene, count)]
    return every("", "", parts, design=f"every {count} {parts[0].design}")


def judged_trends(count: int, shape: tuple[int, int], scene: Scene) -> Claim:
    """Judge the claim of several rising curves."""
    curves = [_trend(made.strength_of(part.name, 0.97), shape, part) for part in _scenes(scene, count)]
    parts = [Claim.measured("", "", "sign", one) for one in curves]
    return every("", "", parts, design=f"every {count} {parts[0].design}")


def judged_pairs(rule: str, paper: float | None, shape: tuple[int, ...], scene: Scene) -> Claim:
    """Judge a rank correlation over all entries of two tables (..., points) of points without an order."""
    strength = made.strength_of(scene.name, paper or ASSUMED)
    return Claim.measured("", "", rule, _pooled(strength, shape, scene), paper=paper)


@functools.lru_cache(8192)
def _pooled(strength: float, shape: tuple[int, ...], scene: Scene) -> Measured:
    return pooled_correlation(*made.pairs_of_points(scene, strength, shape), ranks=True)


def judged_curves(rule: str, paper: float | None, shape: tuple[int, int], entries: bool, scene: Scene) -> Claim:
    """Judge a correlation of two sets of curves (draws, points) over ordered points."""
    strength = made.strength_of(scene.name, paper or ASSUMED)
    if rule == "none":
        strength, scene = _none(scene)
    return Claim.measured("", "", rule, _curves(strength, shape, entries, scene), paper=paper)


@functools.lru_cache(8192)
def _curves(strength: float, shape: tuple[int, int], entries: bool, scene: Scene) -> Measured:
    return curve_correlation(*made.pairs_of_points(scene, strength, shape), entries=entries)


def judged_models(paper: float, shape: tuple[int, int, int, int], scene: Scene) -> Claim:
    """Judge a trend of all pairs of models (draws, vision models, text encoders, points)."""
    draws, tables, units, points = shape
    strength = made.strength_of(scene.name, paper)
    if scene.name in SHARED:  # a text encoder's walk is the same for every vision model
        values = np.repeat(made.walks(scene, (draws, units, points))[:, None], tables, 1)
    else:
        values = made.curves_over_points(scene, strength, (draws, tables * units, points)).reshape(shape)
    if scene.name != CONSTANT:
        values = values + 0.05 * scene.rng.normal(size=shape)
    return Claim.measured("", "", "strong", pooled_trend(range(points), values), paper=paper)


def judged_grid(shape: tuple[int, int, int], scene: Scene) -> Claim:
    """Judge the heat-map."""
    values = made.heat_map(scene, shape)
    return Claim.measured("", "", "sign", grid_correlation(range(shape[1]), range(shape[2]), values))


def judged_ends(draws: int, units: int, scene: Scene) -> Claim:
    """Judge the ends of alignment over uniqueness."""
    return emergence_claims.ends_claim(*made.ends(scene, draws, units))


def judged_captions(what: str, kinds: int, seeds: int, scene: Scene) -> Claim:
    """Judge the ends of alignment over changed words."""
    paper = vision_language_claims.PAPER
    over = paper["ends"][100] - paper["chance"]
    expected, bound = (paper["ends"][100] / paper["ends"][10], 0.5) if what == "falls" else (over, over / 2)
    other = 1.0 if what == "falls" else 0.0
    if scene.name == DISCRETE:
        draws = [made.discrete(scene, (seeds,), bound) for _ in range(kinds)]
        return _captions(what, draws, expected, bound)
    share = {NOISE: 0.0, REVERSED: -0.5, CONSTANT: 0.0, RIGHT: 1.0, HALF: 0.5}[scene.name]
    level = other + share * (expected - other)
    spread = 0.0 if scene.name == CONSTANT else 0.08 * abs(expected)
    return _captions(what, [level + spread * scene.rng.normal(size=seeds) for _ in range(kinds)], expected, bound)


def _captions(what: str, draws: Sequence[made.Array], expected: float, bound: float) -> Claim:
    rule, kinds = "below" if what == "falls" else "above", len(draws)
    parts = [Claim.measured("", "", rule, mean_over_draws(one), paper=expected, bound=bound) for one in draws]
    return every("", "", parts, design=f"every {kinds} {what} {parts[0].design}")


def judged_shape(shape: str, draws: int, strengths: tuple[float, ...], scene: Scene) -> Claim:
    """Judge a shape of accuracy against strength."""
    rule = {"falls": shapes.falls, "rises": shapes.rises, "rises then falls": shapes.rises_then_falls}[shape]
    return rule(made.accuracy_curves(scene, shape, draws, strengths), "")


def judged_sensitivity(draws: int, strengths: tuple[float, ...], scene: Scene) -> Claim:
    """Judge that R = 8 gains and R = 0 loses; ONE: R = 0 does not."""
    gains, loses = (
        made.accuracy_curves(part, shape, draws, strengths)
        for part, shape in zip(reversed(_scenes(scene, 2)), ("rises", "falls"), strict=True)
    )
    return shapes.gains_and_loses(gains, loses, "")
