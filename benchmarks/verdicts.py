"""Simulate how often the rule of every claim of the studies says "reproduced", rightly and wrongly.

    python -m benchmarks.verdicts --folder FOLDER     1,000 tables of noise (ten minutes on one core); resumes there
    python -m benchmarks.verdicts ... --out FILE.json     also write a record with machine, versions and commit
    python -m benchmarks.verdicts ... --install           also write the record that studies and their pages show

Every claim of ``modalign reproduce`` is judged on made-up tables of its real size, quick and full: noise, the paper's
relation reversed, a constant, smooth noise, the paper's number exactly, and half of it. "Reproduced" where a claim is
false may come at most once in twenty; where the paper is right it should come in four of five, or else be "undecided".
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

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import verdict_claims as judges
from benchmarks.verdict_tables import (
    CONSTANT,
    DISCRETE,
    HALF,
    NOISE,
    OF_ALL,
    OF_DRAWS,
    OF_UNITS,
    ONE,
    REVERSED,
    RIGHT,
    SCENARIOS,
    SMOOTH,
    Scene,
)
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
from modalign.experiments.studies.claims import Claim
from modalign.experiments.sweep.config import parse
from modalign.files.atomic import write_atomically

VERDICTS = ("reproduced", "partly", "undecided", "not")
MARK = "<!-- table_of(rows) -->"
# tables of a scenario, as a share of those of noise: those of a constant are all alike, and reversed is rarely near
SHARES = {CONSTANT: 0.02, REVERSED: 0.1, HALF: 0.1, RIGHT: 0.4, OF_ALL: 0.4}
FALSE = (NOISE, REVERSED, CONSTANT)
BY_UNITS = (SMOOTH, OF_UNITS, OF_DRAWS)  # smooth noise that repetitions show to be noise
Judge = Callable[[Scene], Claim]


@dataclass(frozen=True)
class Design:
    """A claim at one size of its study.

    Attributes:
        study, size, claim: the study, "quick" or "full", and the claim in a few words.
        judge: a function of a scene that returns the claim.
        false: the scenarios in which the claim is false.
        beside: scenarios that are shown beside them: smooth noise that all share is one observation, which no number
            of repetitions can tell from an effect of the factor.
        share: the share of the tables that is made, smaller for claims of many parts.
    """

    study: str
    size: str
    claim: str
    judge: Judge
    false: tuple[str, ...] = FALSE
    beside: tuple[str, ...] = ()
    share: float = 1.0

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Every scenario that is simulated."""
        return tuple(dict.fromkeys((*SCENARIOS, *self.false, *self.beside)))


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
    return design.judge(Scene(RIGHT, 0)).key


def _emergence(size: str, number: int) -> Iterator[Design]:
    grids, paper = {grids[number] for grids in emergence_grid.GRIDS.values()}, emergence_claims.PAPER
    shapes_of_grids = {
        (len(g.seeds), len(g.heterogeneity), len(g.depths_2), sum(u <= emergence_claims.LAST for u in g.uniqueness))
        for g in grids
    }
    make = functools.partial(Design, "emergence", size)
    trends = functools.partial(make, false=(*FALSE, SMOOTH), beside=(OF_ALL,))
    for seeds, heterogeneities, depths, points in sorted(shapes_of_grids):
        for d, rho in paper["uniqueness"].items():
            judge = functools.partial(judges.judged_trend, "strong", rho, (seeds, points))
            yield trends(f"falls with uniqueness, D {d}", judge)
        judge = functools.partial(judges.judged_trend, "sign", None, (seeds, points))
        yield trends("falls with uniqueness, other D", judge)
        judge = functools.partial(judges.judged_ends, seeds, heterogeneities)
        yield make("high at U = 0, none at 8", judge, false=(*FALSE, DISCRETE))
        for measure, numbers in paper["heterogeneity"].items():
            for u, rho in numbers.items():
                judge = functools.partial(judges.judged_trend, "strong", rho, (seeds, heterogeneities))
                yield trends(f"{measure} falls with heterogeneity, U {u}", judge)
        judge = functools.partial(judges.judged_trend, "sign", None, (seeds, heterogeneities))
        yield trends("falls with heterogeneity, no number", judge)
        shape = (seeds, heterogeneities, depths)
        for which in ("performance", "depth"):
            for u, rho in paper[which].items():
                false = (REVERSED, HALF, CONSTANT) if rho == 0 else (*FALSE, *BY_UNITS)
                judge = functools.partial(judges.judged_median, rho, shape, which == "depth")
                words = "none with" if rho == 0 else "goes with"
                yield make(f"alignment {words} {which}, U {u}", judge, false=false, beside=(OF_ALL,) if rho else ())
        count = len(next(iter(grids)).uniqueness)
        yield make(
            "performance grows with depth at every U",
            functools.partial(judges.judged_every, count, paper["deeper"], shape),
            false=(*FALSE, ONE, *BY_UNITS, OF_ALL),
            share=0.3,
        )
        yield trends("heat-map", functools.partial(judges.judged_grid, (seeds, depths, heterogeneities)))


def _multibench(size: str, number: int) -> Iterator[Design]:
    grid = multibench_grid.GRIDS["default"][number]
    shape = (len(grid.seeds), len(grid.depths))
    for entries, words in ((False, "means over seeds"), (True, "every seed")):
        numbers: dict[str, float | None] = {
            f"{dataset}, {varying} with {other}": r
            for dataset, table in multibench_claims.PAPER.items()
            for (varying, other), r in table.items()
        }
        for name, r in (numbers | {"a side of 0": None, "none": 0.0}).items():
            none = r is not None and abs(r) < multibench_claims.ABOUT_ZERO
            rule = "none" if none else "sign" if r is None else "strong"
            judge = functools.partial(judges.judged_curves, rule, None if name == "none" else r, shape, entries)
            false = (REVERSED, HALF, CONSTANT) if none else (*FALSE, SMOOTH, OF_ALL)
            yield Design("multibench", size, f"{name}, {words}", judge, false=false)


def _vision_language(size: str, number: int) -> Iterator[Design]:
    grid, paper = (vision_language.FULL, vision_language.QUICK)[number], vision_language_claims.PAPER
    seeds, kinds = len(grid.seeds), len(grid.kinds)
    points = sum(u >= min(paper["ends"]) for u in grid.uniqueness)
    make = functools.partial(Design, "vision-language", size)
    judge = functools.partial(judges.judged_trend, "strong", paper["uniqueness"], (seeds, points))
    yield make("the highest falls with uniqueness", judge, false=(*FALSE, SMOOTH), beside=(OF_ALL,))
    for encoders in (2, 3, 4):
        judge_all = functools.partial(judges.judged_models, paper["all pairs"], (seeds, 2, encoders, points))
        words = f"all pairs fall with uniqueness, {encoders} text encoders"
        yield make(words, judge_all, false=(*FALSE, *BY_UNITS), beside=(OF_ALL,))
    for what in ("falls", "left"):
        judge_ends = functools.partial(judges.judged_captions, what, kinds, seeds)
        yield make(f"ends: {what}", judge_ends, false=(*FALSE, DISCRETE))
    for models in (5, 8, 12):
        for u, rho in paper["performance"].items():
            judge_models = functools.partial(judges.judged_pairs, "strong", rho, (2, 1, models))
            yield make(f"goes with performance over {models} models, U {u}", judge_models, beside=(OF_ALL,))


def _strength(size: str, number: int) -> Iterator[Design]:
    plan = (strength.FULL, strength.QUICK)[number]
    sweep = parse({**plan.strength, "name": "strength"}, "strength")
    draws, strengths = len(sweep.seeds), tuple(s for s in sweep.strengths if s <= shapes.HIGHEST)
    make = functools.partial(Design, "align", size)
    for shape in ("falls", "rises then falls", "rises"):
        judge = functools.partial(judges.judged_shape, shape, draws, strengths)
        yield make(f"accuracy {shape}", judge, false=(*FALSE, SMOOTH), share=0.3 if " " in shape else 1.0)
    cases = len(sweep.cases)
    judge = functools.partial(judges.judged_trend, "sign", None, (draws, cases))
    yield make("best strength by redundancy", judge, false=(*FALSE, SMOOTH), beside=(OF_ALL,))
    yield make(
        "alignment rises with strength at every R",
        functools.partial(judges.judged_trends, cases, (draws, len(sweep.strengths))),
        false=(*FALSE, ONE, SMOOTH, OF_ALL),
        share=0.3,
    )
    for pairs in (len(plan.pairs["cases"]), len(plan.pairs["cases"]) + cases):
        judge = functools.partial(judges.judged_pairs, "sign", None, (2, pairs))
        yield make(f"best strength by redundancy, {pairs} pairs", judge, beside=(OF_ALL,))
    for sensitive in {(len(s["seeds"]), tuple(s["strengths"])) for s in map(_counted, plan.sensitivity.values())}:
        yield make(
            "gains at R = 8 and loses at R = 0",
            functools.partial(judges.judged_sensitivity, *sensitive),
            false=(*FALSE, ONE, SMOOTH),
        )


def _real(size: str, number: int) -> Iterator[Design]:
    seeds = (5, 3)[number]
    for protocol, strengths in strength_real.STRENGTHS.items():
        make = functools.partial(Design, "align", size)
        for shape in ("falls", "rises then falls", "rises"):
            judge = functools.partial(judges.judged_shape, shape, seeds, strengths)
            share = 0.3 if " " in shape else 1.0
            yield make(f"real data, {protocol}: {shape}", judge, false=(*FALSE, SMOOTH), share=share)
        judge = functools.partial(judges.judged_trend, "sign", None, (seeds, len(strengths)))
        yield make(
            f"real data, {protocol}: alignment rises with strength", judge, false=(*FALSE, SMOOTH), beside=(OF_ALL,)
        )


def _counted(content: Any) -> dict[str, Any]:
    return parse({**content, "name": "sensitivity"}, "sensitivity").model_dump()


def simulate(design: Design, count: int) -> dict[str, dict[str, float]]:
    """Return the shares of the verdicts by scenario over ``count`` tables of each."""
    shares = {}
    for scenario in design.scenarios:
        tables = tables_of(design, scenario, count)
        verdicts = Counter(design.judge(Scene(scenario, number)).verdict for number in range(tables))
        shares[scenario] = {verdict: round(verdicts[verdict] / tables, 4) for verdict in VERDICTS}
    return shares


def tables_of(design: Design, scenario: str, count: int) -> int:
    """Return how many tables of a scenario are made where ``count`` are of noise."""
    return max(1, round(design.share * SHARES.get(scenario, 1.0) * count))


def resumed(item: tuple[str, Design], count: int, folder: Path) -> dict[str, Any]:
    """Return the row of a design, from ``folder`` if it was simulated before."""
    key, design = item
    tables = {scenario: tables_of(design, scenario, count) for scenario in design.scenarios}
    file = folder / f"{hashlib.sha256(f'{key} {tables}'.encode()).hexdigest()[:16]}.json"
    if file.is_file():
        row: dict[str, Any] = json.loads(file.read_text())
        return row
    facts = {"study": design.study, "size": design.size, "claim": design.claim, "key": key}
    row = {**facts, "scenarios": simulate(design, count), "false": list(design.false), "tables": tables}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: path.write_text(json.dumps(row)))
    return row


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return the Markdown table that docs/verdicts.md shows, in per cent.

    The claims of a study that differ only in the paper's number have two rows, for the largest number and the smallest.
    """
    lines = [f"| {' | '.join(('study', 'size', *COLUMNS))} |", "|---" * (len(COLUMNS) + 2) + "|"]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        rule, _, table = row["key"].rpartition(", ")
        groups.setdefault((row["study"], row["size"], rule.partition(" ")[0], table), []).append(row)
    for group in groups.values():
        ranked = sorted(group, key=lambda row: row["scenarios"][RIGHT]["reproduced"])
        for row in [ranked[-1], ranked[0]][: len(ranked)]:
            lines.append(f"| {row['study']} | {row['size']} | {row['key']} | {' | '.join(cells_of(row))} |")
    return "\n".join(lines)


# the largest share of these scenarios, where the claim is false; then smooth noise that is one observation
GROUPS = ((NOISE, DISCRETE), BY_UNITS, (OF_ALL,), (REVERSED, CONSTANT, ONE))
COLUMNS = (
    "rule, paper's number, table", "noise", "smooth noise", "smooth, shared by all", "reversed", "half as strong",
    "right", "right: undecided",
)  # fmt: skip


def cells_of(row: dict[str, Any]) -> list[str]:
    """Return the per cent that are reproduced by group of scenarios, and undecided of the paper's number.

    Of a claim of no relation, noise makes it right and half as strong means a relation of .3.
    """
    shares = row["scenarios"]
    right = row["false"][0] != NOISE
    groups = [[] if right and NOISE in names else [name for name in names if name in shares] for names in GROUPS]
    cells = [max(shares[name]["reproduced"] for name in names) if names else None for names in groups]
    cells += [shares[HALF]["reproduced"], shares[RIGHT]["reproduced"], shares[RIGHT]["undecided"]]
    return ["" if cell is None else f"{100 * cell:.1f}" for cell in cells]


def holds(row: dict[str, Any]) -> bool:
    """Return whether a false claim is reproduced in 5 % at most, and a true one in 80 % or else mostly undecided."""
    shares, tables = row["scenarios"], row["tables"]
    held = all(shares[name]["reproduced"] <= 0.05 + 2.6 * (0.05 * 0.95 / tables[name]) ** 0.5 for name in row["false"])
    right = shares[RIGHT]
    return held and (right["reproduced"] >= 0.8 or right["reproduced"] + right["undecided"] >= 0.9)


def main() -> None:
    """Run the simulations, print the table and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000, help="tables of noise (default: 1000)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--folder", type=Path, default=Path("build/verdicts"), help="where finished designs are kept")
    parser.add_argument("--out", type=Path, help="write the record to this JSON file")
    parser.add_argument("--page", type=Path, help="write the table into this page of the documentation")
    parser.add_argument("--install", action="store_true", help=f"write the record to {FILE.name} of the package")
    arguments = parser.parse_args()
    console, every_design = Console(width=160), list(designs().items())
    run = functools.partial(resumed, count=arguments.tables, folder=arguments.folder)
    with ProcessPoolExecutor(arguments.workers) as pool:
        results = pool.map(run, every_design)
        rows = list(track(results, "designs", len(every_design), console=console, transient=True))
    table = Table(title=f"{arguments.tables:,} tables: reproduced, %")
    for column in ("study", "size", "claim", *COLUMNS, ""):
        table.add_column(column)
    for row in rows:
        names = [row[name] for name in ("study", "size", "claim", "key")]
        table.add_row(*names, *cells_of(row), "" if holds(row) else "[red]no[/red]")
    console.print(table)
    if arguments.out:
        record = {"provenance": provenance.collect(), "tables": arguments.tables, "rows": rows}
        write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1) + "\n"))
        console.print(f"record: {arguments.out}")
    if arguments.page:
        before, _, rest = arguments.page.read_text(encoding="utf-8").partition(f"{MARK}\n")
        text = f"{before}{MARK}\n{table_of(rows)}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
        write_atomically(arguments.page, lambda path: path.write_text(text, encoding="utf-8"))
    if arguments.install:
        known = {row["key"]: {"scenarios": row["scenarios"], "false": row["false"]} for row in rows}
        content = {"tables": arguments.tables, "designs": known}
        write_atomically(FILE, lambda path: path.write_text(json.dumps(content) + "\n"))
        console.print(f"record of the package: {FILE}")


if __name__ == "__main__":
    main()
