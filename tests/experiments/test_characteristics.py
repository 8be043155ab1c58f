"""The simulated characteristics of the verdicts' rules: within their bars, shipped, and on the page of the docs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import verdicts
from benchmarks.verdict_tables import CONSTANT, NOISE, RIGHT

from modalign.experiments.studies.characteristics import FILE, characteristics_of, expected_by_chance
from modalign.experiments.studies.claims import records
from modalign.experiments.studies.emergence_claims import Levels, claims_of
from modalign.experiments.studies.emergence_grid import GRIDS
from modalign.report.words import verdict_counts

ROOT = Path(__file__).parents[2]
RECORD = max((ROOT / "benchmarks" / "results").glob("verdicts-*.json"))


def test_every_rule_was_simulated_and_is_right_often_enough() -> None:
    record = json.loads(RECORD.read_text())
    rows = {row["key"]: row for row in record["rows"]}
    assert set(verdicts.designs()) == set(rows)
    assert record["tables"] >= 1000
    assert [key for key, row in rows.items() if not verdicts.holds(row, record["tables"])] == []
    shipped = json.loads(FILE.read_text())["designs"]
    assert {key: value["scenarios"] for key, value in shipped.items()} == {
        key: row["scenarios"] for key, row in rows.items()
    }
    page = (ROOT / "docs" / "verdicts.md").read_text()
    table = page.split(f"{verdicts.MARK}\n")[1].split("\n<!-- end -->")[0]
    assert table == verdicts.table_of(record["rows"])


@pytest.mark.parametrize(
    "key", ["strong -0.929, trend 3x8", "strong 0.887, pooled 1x5", "sign, grid 3x5x5", "falls 10x6"]
)
def test_a_few_rules_simulated_anew_keep_to_their_record(key: str) -> None:
    tables = 120
    shares = verdicts.simulate(verdicts.designs()[key], tables)
    known = characteristics_of(key)
    assert known is not None
    assert shares[NOISE]["reproduced"] <= 0.05 + 2.6 * (0.05 * 0.95 / tables) ** 0.5
    assert shares[CONSTANT]["reproduced"] == 0
    for verdict in ("reproduced", "undecided"):
        assert shares[RIGHT][verdict] == pytest.approx(known["scenarios"][RIGHT][verdict], abs=0.13)


def test_the_claims_of_a_study_carry_the_characteristics_of_their_rules() -> None:
    rng = np.random.default_rng(0)
    for protocol in GRIDS:
        quick = GRIDS[protocol][1]
        shape = [len(axis) for axis in (quick.seeds, quick.uniqueness, quick.heterogeneity, quick.depths_2)]
        values = {name: rng.random(shape) for name in ("unbiased_cka", "mutual_knn", "svcca", "accuracy")}
        levels = Levels(quick.uniqueness, quick.heterogeneity, quick.depths_2, values)
        found = records(claims_of(levels, paper=protocol == "paper"))
        assert [claim["text"] for claim in found if claim["characteristics"] is None] == []
        chance = expected_by_chance(found)
        assert 0 < chance <= 0.06 * len(found)
        assert f"{chance:.2g} would be expected to be reproduced by chance" in verdict_counts(found)
        # noise through the whole study: hardly anything is reproduced
        assert sum(claim["verdict"] == "reproduced" for claim in found) <= 4
