"""The claims of the studies on made-up tables: functions of a scene that return a claim with its verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks import verdict_tables as made
from benchmarks.verdict_tables import CONSTANT, HALF, NOISE, ONE, REVERSED, RIGHT, Scene
from modalign.experiments.studies import emergence_claims, vision_language_claims
from modalign.experiments.studies import strength_claims as shapes
from modalign.experiments.studies.claims import Claim, every
from modalign.experiments.studies.measured import (
    grid_correlation,
    mean_over_draws,
    median_correlation,
    pooled_correlation,
    trend,
)

ASSUMED = 0.6  # the correlation of a claim for which the paper gives no number


def judged_trend(rule: str, paper: float | None, shape: tuple[int, int], scene: Scene) -> Claim:
    """Judge a trend over points (draws, points)."""
    values = made.curves_over_points(scene, paper or ASSUMED, (shape[0], 1, shape[1]))[:, 0]
    return Claim.measured("", "", rule, trend(range(shape[1]), values), paper=paper)


def judged_median(paper: float, shape: tuple[int, int, int], fixed: bool, scene: Scene) -> Claim:
    """Judge a median correlation over points (draws, units, points), with the points themselves if ``fixed``."""
    if paper == 0:  # the claim is that there is none: it is false where there is one
        relation = {NOISE: 0.0, RIGHT: 0.0, CONSTANT: 0.0, REVERSED: 0.6, HALF: 0.3}[scene.name]
        scene = replace(scene, name={NOISE: NOISE, CONSTANT: CONSTANT}.get(scene.name, RIGHT))
        rule = "none"
    else:
        relation, rule = paper, "strong"
    x, y = made.cells_over_points(scene, relation, shape)
    if fixed and scene.name != CONSTANT:
        x, y = np.arange(shape[2], dtype=np.float64), _cells_of_trend(scene, relation, shape)
    return Claim.measured("", "", rule, median_correlation(x, y), paper=paper)


def _cells_of_trend(scene: Scene, paper: float, shape: tuple[int, int, int]) -> made.Array:
    """Return cells, rather than their mean, with the correlation of the scenario."""
    strength = made.strength_of(scene.name, paper)
    shares = made.SOURCES[scene.number % len(made.SOURCES)] if scene.name == NOISE else made.USUAL
    at = np.arange(shape[2]) - (shape[2] - 1) / 2
    return strength * at / at.std() + np.sqrt(1 - strength**2) * made.noise(scene.rng, shape, shares)


def judged_every(count: int, paper: float, shape: tuple[int, int, int], scene: Scene) -> Claim:
    """Judge a claim on the median correlations of several tables; ONE: on all but one, which has none."""
    kinds = [NOISE, *[RIGHT] * (count - 1)] if scene.name == ONE else [scene.name] * count
    parts = [judged_median(paper, shape, True, replace(scene, name=kind)) for kind in kinds]
    return every("", "", parts, design=f"every {count} {parts[0].design}")


def judged_trends(count: int, shape: tuple[int, int], scene: Scene) -> Claim:
    """Judge the claim of several rising curves; ONE: all but one, which has no trend."""
    kinds = [NOISE, *[RIGHT] * (count - 1)] if scene.name == ONE else [scene.name] * count
    size = (shape[0], 1, shape[1])
    values = [made.curves_over_points(replace(scene, name=kind), 0.97, size)[:, 0] for kind in kinds]
    parts = [Claim.measured("", "", "sign", trend(range(shape[1]), one)) for one in values]
    return every("", "", parts, design=f"every {count} {parts[0].design}")


def judged_pairs(rule: str, paper: float | None, shape: tuple[int, ...], ranks: bool, scene: Scene) -> Claim:
    """Judge a correlation over all entries of two tables (..., points)."""
    relation = paper if paper is not None else ASSUMED
    if rule == "none":
        relation = {NOISE: 0.0, RIGHT: 0.0, CONSTANT: 0.0, REVERSED: 0.6, HALF: 0.3}[scene.name]
        scene = replace(scene, name={NOISE: NOISE, CONSTANT: CONSTANT}.get(scene.name, RIGHT))
    x, y = made.pairs_of_points(scene, relation, shape)
    return Claim.measured("", "", rule, pooled_correlation(x, y, ranks=ranks), paper=paper)


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
    share = {NOISE: 0.0, REVERSED: -0.5, CONSTANT: 0.0, RIGHT: 1.0, HALF: 0.5}[scene.name]
    level = other + share * (expected - other)
    spread = 0.0 if scene.name == CONSTANT else 0.08 * abs(expected)
    rule = "below" if what == "falls" else "above"
    parts = [
        Claim.measured(
            "", "", rule, mean_over_draws(level + spread * scene.rng.normal(size=seeds)), paper=expected, bound=bound
        )
        for _ in range(kinds)
    ]
    return every("", "", parts, design=f"every {kinds} {what} {parts[0].design}")


def judged_shape(shape: str, draws: int, strengths: tuple[float, ...], scene: Scene) -> Claim:
    """Judge a shape of accuracy against strength."""
    rule = {"falls": shapes.falls, "rises": shapes.rises, "rises then falls": shapes.rises_then_falls}[shape]
    return rule(made.accuracy_curves(scene, shape, draws, strengths), "")


def judged_sensitivity(draws: int, strengths: tuple[float, ...], scene: Scene) -> Claim:
    """Judge that R = 8 gains and R = 0 loses; ONE: R = 0 does not."""
    kinds = (RIGHT, NOISE) if scene.name == ONE else (scene.name, scene.name)
    gains, loses = (
        made.accuracy_curves(replace(scene, name=kind), shape, draws, strengths)
        for kind, shape in zip(kinds, ("rises", "falls"), strict=True)
    )
    return shapes.gains_and_loses(gains, loses, "")
