"""Simulate how often the rule of every claim of the studies says "reproduced", rightly and wrongly.

    python -m benchmarks.verdicts --folder FOLDER     1,000 tables of each (ten minutes on one core); resumes there
    python -m benchmarks.verdicts ... --out FILE.json     also write a record with machine, versions and commit
    python -m benchmarks.verdicts ... --install           also write the record that studies and their pages show

Every claim of ``modalign reproduce`` is judged on made-up tables of its real size, quick and full: noise, the paper's
relation reversed, a constant, the paper's number exactly, and half of it. "Reproduced" where a claim is false may come
at most once in twenty; where the paper is right it should come in four of five, or else be "undecided".
"""

from __future__ import annotations

import argparse
import functools
import hashlib
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
    emergence_claims,
    emergence_grid,
    multibench_claims,
    multibench_grid,
    strength,
    strength_real,
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
# tables of a scenario, as a share: those of a constant are all alike, and half as strong and reversed decide nothing
SHARES = {CONSTANT: 0.02, REVERSED: 0.2, HALF: 0.3}
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


def designs() -> dict[str, Design]:
    """Return every claim of every study at its two sizes and by its protocols, by the key of its record."""
    every_design = [
        design
        for number, size in ((1, "quick"), (0, "full"))
        for make in (_emergence, _multibench, _vision_language, _strength, _real)
        for design in make(size, number)
    ]
    by_key: dict[str, Design] = {}
    for design in every_design:
        by_key.setdefault(key_of_design(design), design)
    return by_key


def key_of_design(design: Design) -> str:
    """Return the key of a design, from one table."""
    return design.judge(np.random.default_rng(0), RIGHT, 0).key


def _emergence(size: str, number: int) -> Iterator[Design]:
    grids, paper = {grids[number] for grids in emergence_grid.GRIDS.values()}, emergence_claims.PAPER
    shapes_of_grids = {
        (len(g.seeds), len(g.heterogeneity), len(g.depths_2), sum(u <= emergence_claims.LAST for u in g.uniqueness))
        for g in grids
    }
    make = functools.partial(Design, "emergence", size)
    for seeds, heterogeneities, depths, points in sorted(shapes_of_grids):
        for d, rho in paper["uniqueness"].items():
            judge = functools.partial(judged_trend, "strong", rho, (seeds, points))
            yield make(f"falls with uniqueness, D {d}", judge)
        yield make("falls with uniqueness, other D", functools.partial(judged_trend, "sign", None, (seeds, points)))
        yield make("high at U = 0, none at 8", functools.partial(judged_ends, seeds, heterogeneities))
        for measure, numbers in paper["heterogeneity"].items():
            for u, rho in numbers.items():
                judge = functools.partial(judged_trend, "strong", rho, (seeds, heterogeneities))
                yield make(f"{measure} falls with heterogeneity, U {u}", judge)
        judge = functools.partial(judged_trend, "sign", None, (seeds, heterogeneities))
        yield make("falls with heterogeneity, no number", judge)
        shape = (seeds, heterogeneities, depths)
        for which in ("performance", "depth"):
            for u, rho in paper[which].items():
                false = (REVERSED, HALF, CONSTANT) if rho == 0 else (NOISE, REVERSED, CONSTANT)
                judge = functools.partial(judged_median, rho, shape, which == "depth")
                words = "none with" if rho == 0 else "goes with"
                yield make(f"alignment {words} {which}, U {u}", judge, false=false)
        count = len(next(iter(grids)).uniqueness)
        yield make(
            "performance grows with depth at every U",
            functools.partial(judged_every, count, paper["deeper"], shape),
            scenarios=(*SCENARIOS, ONE),
            false=(NOISE, REVERSED, CONSTANT, ONE),
            share=0.3,
        )
        yield make("heat-map", functools.partial(judged_grid, (seeds, depths, heterogeneities)))


def _multibench(size: str, number: int) -> Iterator[Design]:
    grid = multibench_grid.GRIDS["default"][number]
    for rows, words in ((1, "means over seeds"), (len(grid.seeds), "every seed")):
        shape = (rows, len(grid.depths))
        numbers: dict[str, float | None] = {
            f"{dataset}, {varying} with {other}": r
            for dataset, table in multibench_claims.PAPER.items()
            for (varying, other), r in table.items()
        }
        for name, r in (numbers | {"a side of 0": None, "none": 0.0}).items():
            none = r is not None and abs(r) < multibench_claims.ABOUT_ZERO
            rule = "none" if none else "sign" if r is None else "strong"
            judge = functools.partial(judged_pairs, rule, None if name == "none" else r, shape, False)
            false = (REVERSED, HALF, CONSTANT) if none else (NOISE, REVERSED, CONSTANT)
            yield Design("multibench", size, f"{name}, {words}", judge, false=false)


def _vision_language(size: str, number: int) -> Iterator[Design]:
    grid, paper = (vision_language.FULL, vision_language.QUICK)[number], vision_language_claims.PAPER
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
        for u, rho in paper["performance"].items():
            judge_models = functools.partial(judged_pairs, "strong", rho, (2, 1, models), True)
            yield make(f"goes with performance over {models} models, U {u}", judge_models)


def _strength(size: str, number: int) -> Iterator[Design]:
    plan = (strength.FULL, strength.QUICK)[number]
    sweep = parse({**plan.strength, "name": "strength"}, "strength")
    draws, strengths = len(sweep.seeds), tuple(s for s in sweep.strengths if s <= shapes.HIGHEST)
    make = functools.partial(Design, "align", size)
    for shape in ("falls", "rises then falls", "rises"):
        judge = functools.partial(judged_shape, shape, draws, strengths)
        yield make(f"accuracy {shape}", judge, share=0.3 if " " in shape else 1.0)
    cases = len(sweep.cases)
    yield make("best strength by redundancy", functools.partial(judged_trend, "sign", None, (draws, cases)))
    yield make(
        "alignment rises with strength at every R",
        functools.partial(judged_trends, cases, (draws, len(sweep.strengths))),
        scenarios=(*SCENARIOS, ONE),
        false=(NOISE, REVERSED, CONSTANT, ONE),
        share=0.3,
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


def _real(size: str, number: int) -> Iterator[Design]:
    seeds = (5, 3)[number]
    for protocol, strengths in strength_real.STRENGTHS.items():
        make = functools.partial(Design, "align", size)
        for shape in ("falls", "rises then falls", "rises"):
            judge = functools.partial(judged_shape, shape, seeds, strengths)
            yield make(f"real data, {protocol}: {shape}", judge, share=0.3 if " " in shape else 1.0)
        judge = functools.partial(judged_trend, "sign", None, (seeds, len(strengths)))
        yield make(f"real data, {protocol}: alignment rises with strength", judge)


def _counted(content: Any) -> dict[str, Any]:
    return parse({**content, "name": "sensitivity"}, "sensitivity").model_dump()


def simulate(design: Design, count: int) -> dict[str, dict[str, float]]:
    """Return the shares of the verdicts by scenario over ``count`` tables of each."""
    shares = {}
    for scenario in design.scenarios:
        rng = np.random.default_rng([17, *scenario.encode()])
        tables = max(1, round(design.share * SHARES.get(scenario, 1.0) * count))
        verdicts = Counter(design.judge(rng, scenario, number).verdict for number in range(tables))
        shares[scenario] = {verdict: round(verdicts[verdict] / tables, 4) for verdict in VERDICTS}
    return shares


def resumed(item: tuple[str, Design], count: int, folder: Path) -> dict[str, Any]:
    """Return the row of a design, from ``folder`` if it was simulated before."""
    key, design = item
    file = folder / f"{hashlib.sha256(f'{key} {count}'.encode()).hexdigest()[:16]}.json"
    if file.is_file():
        row: dict[str, Any] = json.loads(file.read_text())
        return row
    facts = {"study": design.study, "size": design.size, "claim": design.claim, "key": key}
    row = {**facts, "scenarios": simulate(design, count), "false": list(design.false)}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: path.write_text(json.dumps(row)))
    return row


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


def holds(row: dict[str, Any], tables: int) -> bool:
    """Return whether a false claim is reproduced in 5 % at most, and a true one in 80 % or else mostly undecided."""
    shares = row["scenarios"]
    false = max(shares[name]["reproduced"] for name in row["false"])
    right = shares[RIGHT]
    open_or_right = right["reproduced"] >= 0.8 or right["reproduced"] + right["undecided"] >= 0.9
    return bool(false <= 0.05 + 2.6 * (0.05 * 0.95 / tables) ** 0.5 and open_or_right)


def main() -> None:
    """Run the simulations, print the table and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000, help="tables of each scenario (default: 1000)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--folder", type=Path, default=Path("build/verdicts"), help="where finished designs are kept")
    parser.add_argument("--out", type=Path, help="write the record to this JSON file")
    parser.add_argument("--install", action="store_true", help=f"write the record to {FILE.name} of the package")
    arguments = parser.parse_args()
    console, every_design = Console(width=160), list(designs().items())
    run = functools.partial(resumed, count=arguments.tables, folder=arguments.folder)
    with ProcessPoolExecutor(arguments.workers) as pool:
        results = pool.map(run, every_design)
        rows = list(track(results, "designs", len(every_design), console=console, transient=True))
    table = Table(title=f"{arguments.tables:,} tables: reproduced, %")
    for column in ("study", "size", "claim", "false, at most", "half", "right", "right: undecided", ""):
        table.add_column(column)
    for row in rows:
        shares = row["scenarios"]
        false = max(shares[name]["reproduced"] for name in row["false"])
        cells = (false, shares[HALF]["reproduced"], shares[RIGHT]["reproduced"], shares[RIGHT]["undecided"])
        names = [row[name] for name in ("study", "size", "claim")]
        mark = "" if holds(row, arguments.tables) else "[red]no[/red]"
        table.add_row(*names, *(f"{100 * cell:.1f}" for cell in cells), mark)
    console.print(table)
    if arguments.out:
        record = {"provenance": provenance.collect(), "tables": arguments.tables, "rows": rows}
        write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1) + "\n"))
        console.print(f"record: {arguments.out}")
    if arguments.install:
        known = {row["key"]: {"scenarios": row["scenarios"], "false": row["false"]} for row in rows}
        content = {"tables": arguments.tables, "designs": known}
        write_atomically(FILE, lambda path: path.write_text(json.dumps(content) + "\n"))
        console.print(f"record of the package: {FILE}")


if __name__ == "__main__":
    main()
