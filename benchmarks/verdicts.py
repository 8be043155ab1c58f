"""Simulate how often the rule of every claim of the studies says "reproduced", rightly and wrongly.

    python -m benchmarks.verdicts                     1,000 tables of each (some ten minutes on one core)
    python -m benchmarks.verdicts --out FILE.json     also write a record with machine, versions and commit
    python -m benchmarks.verdicts --install           also write the record that the package and the docs show

Every claim of ``modalign reproduce`` is judged on made-up tables of its real size, quick and full: noise, the paper's
relation reversed, a constant, the paper's number exactly, and half of it. "Reproduced" where a claim is false may come
at most once in twenty; where the paper is right it should come in four of five, or else be "undecided".
"""

from __future__ import annotations

import argparse
import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import verdict_tables as made
from benchmarks.verdict_tables import CONSTANT, HALF, NOISE, ONE, REVERSED, RIGHT, SCENARIOS
from modalign.common import provenance
from modalign.experiments.studies import (
    emergence,
    emergence_claims,
    multibench,
    multibench_claims,
    strength,
    vision_language,
    vision_language_claims,
)
from modalign.experiments.studies import strength_claims as shapes
from modalign.experiments.studies.characteristics import FILE
from modalign.experiments.studies.claims import Claim, every
from modalign.experiments.studies.measured import (
    grid_correlation,
    mean_over_draws,
    median_correlation,
    pooled_correlation,
    trend,
)
from modalign.experiments.sweep.config import parse
from modalign.files.atomic import write_atomically

VERDICTS = ("reproduced", "partly", "undecided", "not")
ASSUMED = 0.6  # the correlation of a claim for which the paper gives no number
CONSTANTS = 20  # tables of a constant, which are all alike
Judge = Callable[[np.random.Generator, str, int], Claim]


@dataclass(frozen=True)
class Design:
    """A claim at one size of its study.

    Attributes:
        study, size, claim: the study, "quick" or "full", and the claim in a few words.
        judge: a function of a generator, a scenario and the number of the table that returns the claim.
        scenarios: the scenarios; false: those in which the claim is false.
        share: the share of the tables that is made, smaller for claims of many parts.
    """

    study: str
    size: str
    claim: str
    judge: Judge
    scenarios: tuple[str, ...] = SCENARIOS
    false: tuple[str, ...] = (NOISE, REVERSED, CONSTANT)
    share: float = 1.0


def judged_trend(rule: str, paper: float | None, shape: tuple[int, int], rng: Any, scenario: str, number: int) -> Claim:
    """Judge a trend over points (draws, points)."""
    values = made.curves_over_points(rng, scenario, paper or ASSUMED, (shape[0], 1, shape[1]), number=number)[:, 0]
    return Claim.measured("", "", rule, trend(range(shape[1]), values), paper=paper)


def judged_median(
    paper: float, shape: tuple[int, int, int], fixed: bool, rng: Any, scenario: str, number: int
) -> Claim:
    """Judge a median correlation over points (draws, units, points), with the points themselves if ``fixed``."""
    if paper == 0:  # the claim is that there is none: it is false where there is one
        relation = {NOISE: 0.0, RIGHT: 0.0, CONSTANT: 0.0, REVERSED: 0.6, HALF: 0.3}[scenario]
        scenario = {NOISE: NOISE, CONSTANT: CONSTANT}.get(scenario, RIGHT)
        rule = "none"
    else:
        relation, rule = paper, "strong"
    x, y = made.cells_over_points(rng, scenario, relation, shape, number=number)
    if fixed and scenario != CONSTANT:
        x, y = np.arange(shape[2], dtype=np.float64), _cells_of_trend(rng, scenario, relation, shape, number)
    return Claim.measured("", "", rule, median_correlation(x, y), paper=paper)


def _cells_of_trend(rng: Any, scenario: str, paper: float, shape: tuple[int, int, int], number: int) -> made.Array:
    """Return cells, rather than their mean, with the correlation of the scenario."""
    strength = made.strength_of(scenario, paper)
    shares = made.SOURCES[number % len(made.SOURCES)] if scenario == NOISE else made.USUAL
    at = np.arange(shape[2]) - (shape[2] - 1) / 2
    return strength * at / at.std() + np.sqrt(1 - strength**2) * made.noise(rng, shape, shares)


def judged_every(count: int, paper: float, shape: tuple[int, int, int], rng: Any, scenario: str, number: int) -> Claim:
    """Judge a claim on the median correlations of several tables; ONE: on all but one, which has none."""
    kinds = [NOISE, *[RIGHT] * (count - 1)] if scenario == ONE else [scenario] * count
    parts = [judged_median(paper, shape, True, rng, kind, number) for kind in kinds]
    return every("", "", parts, design=f"every {count} {parts[0].design}")


def judged_trends(count: int, shape: tuple[int, int], rng: Any, scenario: str, number: int) -> Claim:
    """Judge the claim of several rising curves; ONE: all but one, which has no trend."""
    kinds = [NOISE, *[RIGHT] * (count - 1)] if scenario == ONE else [scenario] * count
    size = (shape[0], 1, shape[1])
    values = [made.curves_over_points(rng, kind, 0.97, size, number=number)[:, 0] for kind in kinds]
    parts = [Claim.measured("", "", "sign", trend(range(shape[1]), one)) for one in values]
    return every("", "", parts, design=f"every {count} {parts[0].design}")


def judged_pairs(
    rule: str, paper: float | None, shape: tuple[int, ...], ranks: bool, rng: Any, scenario: str, number: int
) -> Claim:
    """Judge a correlation over all entries of two tables (..., points)."""
    relation = paper if paper is not None else ASSUMED
    if rule == "none":
        relation = {NOISE: 0.0, RIGHT: 0.0, CONSTANT: 0.0, REVERSED: 0.6, HALF: 0.3}[scenario]
        scenario = {NOISE: NOISE, CONSTANT: CONSTANT}.get(scenario, RIGHT)
    x, y = made.pairs_of_points(rng, scenario, relation, shape, number=number)
    return Claim.measured("", "", rule, pooled_correlation(x, y, ranks=ranks), paper=paper)


def judged_grid(shape: tuple[int, int, int], rng: Any, scenario: str, number: int) -> Claim:
    """Judge the heat-map."""
    values = made.heat_map(rng, scenario, shape, number=number)
    return Claim.measured("", "", "sign", grid_correlation(range(shape[1]), range(shape[2]), values))


def judged_ends(draws: int, units: int, rng: Any, scenario: str, number: int) -> Claim:
    """Judge the ends of alignment over uniqueness."""
    return emergence_claims.ends_claim(*made.ends(rng, scenario, draws, units))


def judged_captions(what: str, kinds: int, seeds: int, rng: Any, scenario: str, number: int) -> Claim:
    """Judge the ends of alignment over changed words."""
    paper = vision_language_claims.PAPER
    over = paper["ends"][100] - paper["chance"]
    expected, bound = (paper["ends"][100] / paper["ends"][10], 0.5) if what == "falls" else (over, over / 2)
    other = 1.0 if what == "falls" else 0.0
    share = {NOISE: 0.0, REVERSED: -0.5, CONSTANT: 0.0, RIGHT: 1.0, HALF: 0.5}[scenario]
    level = other + share * (expected - other)
    spread = 0.0 if scenario == CONSTANT else 0.08 * abs(expected)
    rule = "below" if what == "falls" else "above"
    parts = [
        Claim.measured(
            "", "", rule, mean_over_draws(level + spread * rng.normal(size=seeds)), paper=expected, bound=bound
        )
        for _ in range(kinds)
    ]
    return every("", "", parts, design=f"every {kinds} {what} {parts[0].design}")


def judged_shape(shape: str, draws: int, strengths: tuple[float, ...], rng: Any, scenario: str, number: int) -> Claim:
    """Judge a shape of accuracy against strength."""
    rule = {"falls": shapes.falls, "rises": shapes.rises, "rises then falls": shapes.rises_then_falls}[shape]
    return rule(made.accuracy_curves(rng, scenario, shape, draws, strengths), "")


def judged_sensitivity(draws: int, strengths: tuple[float, ...], rng: Any, scenario: str, number: int) -> Claim:
    """Judge that R = 8 gains and R = 0 loses; ONE: R = 0 does not."""
    kinds = (RIGHT, NOISE) if scenario == ONE else (scenario, scenario)
    gains, loses = (
        made.accuracy_curves(rng, kind, shape, draws, strengths)
        for kind, shape in zip(kinds, ("rises", "falls"), strict=True)
    )
    return shapes.gains_and_loses(gains, loses, "")


def designs() -> Iterator[Design]:
    """Yield every claim of every study at its two sizes."""
    for size in ("quick", "full"):
        yield from _emergence(size)
        yield from _multibench(size)
        yield from _vision_language(size)
        yield from _strength(size)


def _emergence(size: str) -> Iterator[Design]:
    grid, paper = getattr(emergence, size.upper()), emergence_claims.PAPER
    seeds, heterogeneities, depths = len(grid.seeds), len(grid.heterogeneity), len(grid.depths_2)
    points = sum(u <= emergence_claims.LAST for u in grid.uniqueness)
    make = functools.partial(Design, "emergence", size)
    for d, number in paper["uniqueness"].items():
        if d in grid.heterogeneity:
            yield make(
                f"falls with uniqueness, D {d}", functools.partial(judged_trend, "strong", number, (seeds, points))
            )
    if set(grid.heterogeneity) - set(paper["uniqueness"]):
        yield make("falls with uniqueness, other D", functools.partial(judged_trend, "sign", None, (seeds, points)))
    yield make("high at U = 0, none at 8", functools.partial(judged_ends, seeds, heterogeneities))
    for measure, numbers in paper["heterogeneity"].items():
        for u, number in numbers.items():
            judge = functools.partial(judged_trend, "strong", number, (seeds, heterogeneities))
            yield make(f"{measure} falls with heterogeneity, U {u}", judge)
    shape = (seeds, heterogeneities, depths)
    for which in ("performance", "depth"):
        for u, number in paper[which].items():
            false = (REVERSED, HALF, CONSTANT) if number == 0 else (NOISE, REVERSED, CONSTANT)
            judge = functools.partial(judged_median, number, shape, which == "depth")
            words = "none with" if number == 0 else "goes with"
            yield make(f"alignment {words} {which}, U {u}", judge, false=false)
    count = len(grid.uniqueness)
    yield make(
        "performance grows with depth at every U",
        functools.partial(judged_every, count, paper["deeper"], shape),
        scenarios=(*SCENARIOS, ONE),
        false=(NOISE, REVERSED, CONSTANT, ONE),
        share=0.3,
    )
    yield make("heat-map", functools.partial(judged_grid, (seeds, depths, heterogeneities)))


def _multibench(size: str) -> Iterator[Design]:
    grid = getattr(multibench, size.upper())
    shapes_of_tables = {"means": (1, len(grid.depths))}
    if size == "full":  # the paper's protocol: every seed and depth is an entry
        shapes_of_tables["all"] = (len(grid.seeds), len(grid.depths))
    for shape in shapes_of_tables.values():
        for dataset, numbers in multibench_claims.PAPER.items():
            for (varying, other), number in numbers.items():
                none = abs(number) < multibench_claims.ABOUT_ZERO
                judge = functools.partial(judged_pairs, "none" if none else "strong", number, shape, False)
                false = (REVERSED, HALF, CONSTANT) if none else (NOISE, REVERSED, CONSTANT)
                name = f"{dataset}, {varying} with {other}" + (", all entries" if shape[0] > 1 else "")
                yield Design("multibench", size, name, judge, false=false)


def _vision_language(size: str) -> Iterator[Design]:
    grid, paper = getattr(vision_language, size.upper()), vision_language_claims.PAPER
    seeds, kinds = len(grid.seeds), len(grid.kinds)
    points = sum(u >= min(paper["ends"]) for u in grid.uniqueness)
    make = functools.partial(Design, "vision-language", size)
    judge = functools.partial(judged_trend, "strong", paper["uniqueness"], (seeds, points))
    yield make("the highest falls with uniqueness", judge)
    for encoders in (2, 3, 4):
        judge_all = functools.partial(judged_pairs, "strong", paper["all pairs"], (2, encoders, points), True)
        yield make(f"all pairs fall with uniqueness, {encoders} text encoders", judge_all)
    for what in ("falls", "left"):
        yield make(f"ends: {what}", functools.partial(judged_captions, what, kinds, seeds))
    for models in (5, 8, 12):
        for u, number in paper["performance"].items():
            judge_models = functools.partial(judged_pairs, "strong", number, (2, 1, models), True)
            yield make(f"goes with performance over {models} models, U {u}", judge_models)


def _strength(size: str) -> Iterator[Design]:
    plan = getattr(strength, size.upper())
    sweep = parse({**plan.strength, "name": "strength"}, "strength")
    draws, strengths = len(sweep.seeds), tuple(s for s in sweep.strengths if s <= shapes.HIGHEST)
    make = functools.partial(Design, "align", size)
    for shape in ("falls", "rises then falls", "rises"):
        yield make(f"accuracy {shape}", functools.partial(judged_shape, shape, draws, strengths))
    cases = len(sweep.cases)
    yield make("best strength by redundancy", functools.partial(judged_trend, "sign", None, (draws, cases)))
    yield make(
        "alignment rises with strength at every R",
        functools.partial(judged_trends, cases, (draws, len(sweep.strengths))),
        scenarios=(*SCENARIOS, ONE),
        false=(NOISE, REVERSED, CONSTANT, ONE),
    )
    for pairs in (len(plan.pairs["cases"]), len(plan.pairs["cases"]) + cases):
        judge = functools.partial(judged_pairs, "sign", None, (2, pairs), True)
        yield make(f"best strength by redundancy, {pairs} pairs", judge)
    for sensitive in {(len(s["seeds"]), tuple(s["strengths"])) for s in map(_counted, plan.sensitivity.values())}:
        yield make(
            "gains at R = 8 and loses at R = 0",
            functools.partial(judged_sensitivity, *sensitive),
            scenarios=(*SCENARIOS, ONE),
            false=(NOISE, REVERSED, CONSTANT, ONE),
        )


def _counted(content: Any) -> dict[str, Any]:
    return parse({**content, "name": "sensitivity"}, "sensitivity").model_dump()


def simulate(design: Design, count: int) -> tuple[str, dict[str, dict[str, float]]]:
    """Return the key of a design, and the shares of the verdicts by scenario over ``count`` tables."""
    shares = {}
    key = ""
    for scenario in design.scenarios:
        rng = np.random.default_rng([17, *scenario.encode()])
        tables = CONSTANTS if scenario == CONSTANT else max(1, round(design.share * count))
        claims = [design.judge(rng, scenario, number) for number in range(tables)]
        key = claims[0].key
        verdicts = Counter(claim.verdict for claim in claims)
        shares[scenario] = {verdict: round(verdicts[verdict] / tables, 4) for verdict in VERDICTS}
    return key, shares


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return the Markdown table that docs/experiments.md shows: shares of "reproduced", in per cent."""
    columns = ("study", "size", "claim", "noise", "reversed", "constant", "half as strong", "right", "right: undecided")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        shares = row["scenarios"]
        cells = [f"{100 * shares[name]['reproduced']:.1f}" for name in (NOISE, REVERSED, CONSTANT, HALF, RIGHT)]
        cells.append(f"{100 * shares[RIGHT]['undecided']:.1f}")
        lines.append(f"| {row['study']} | {row['size']} | {row['claim']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the simulations, print the table and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000, help="tables of each scenario (default: 1000)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--out", type=Path, help="write the record to this JSON file")
    parser.add_argument("--install", action="store_true", help=f"write the record to {FILE.name} of the package")
    arguments = parser.parse_args()
    console, every_design = Console(), list(designs())
    with ProcessPoolExecutor(arguments.workers) as pool:
        run = functools.partial(simulate, count=arguments.tables)
        results = list(
            track(pool.map(run, every_design), "designs", len(every_design), console=console, transient=True)
        )
    rows = []
    for design, (key, shares) in zip(every_design, results, strict=True):
        facts = {"study": design.study, "size": design.size, "claim": design.claim, "key": key}
        rows.append({**facts, "scenarios": shares, "false": list(design.false)})
    table = Table(title=f"{arguments.tables:,} tables: reproduced, %")
    for column in ("study", "size", "claim", "false, at most", "half", "right", "right: undecided", ""):
        table.add_column(column)
    for row in rows:
        shares = row["scenarios"]
        false = max(shares[name]["reproduced"] for name in row["false"])
        decided = shares[RIGHT]["reproduced"] >= 0.8 or shares[RIGHT]["undecided"] >= 0.9 - shares[RIGHT]["reproduced"]
        holds = false <= 0.05 + 2.6 * (0.05 * 0.95 / arguments.tables) ** 0.5 and decided
        cells = (false, shares[HALF]["reproduced"], shares[RIGHT]["reproduced"], shares[RIGHT]["undecided"])
        names = [row[name] for name in ("study", "size", "claim")]
        table.add_row(*names, *(f"{100 * cell:.1f}" for cell in cells), "" if holds else "[red]no[/red]")
    console.print(table)
    known = {row["key"]: {"scenarios": row["scenarios"], "false": row["false"]} for row in rows}
    record = {"provenance": provenance.collect(), "tables": arguments.tables, "rows": rows}
    if arguments.out:
        write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1) + "\n"))
        console.print(f"record: {arguments.out}")
    if arguments.install:
        content = {"tables": arguments.tables, "designs": known}
        write_atomically(FILE, lambda path: path.write_text(json.dumps(content, indent=1) + "\n"))
        console.print(f"record of the package: {FILE}")


if __name__ == "__main__":
    main()
