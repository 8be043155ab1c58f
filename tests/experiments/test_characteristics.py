"""The simulated characteristics of the verdicts' rules: within their bars, shipped, and on the page of the docs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from benchmarks import verdicts
from benchmarks.verdict_tables import CONSTANT, NOISE, RIGHT, SMOOTH

from modalign.experiments.studies.characteristics import FILE, characteristics_of, expected_by_chance, nearest_key
from modalign.experiments.studies.claims import COMPOUND, RULES, Claim, records
from modalign.experiments.studies.emergence_claims import Levels, claims_of
from modalign.experiments.studies.emergence_grid import GRIDS
from modalign.experiments.studies.measured import STATISTICS, trend
from modalign.report.words import claims_table, verdict_counts, verdict_of

ROOT = Path(__file__).parents[2]
RECORD = max((ROOT / "benchmarks" / "results").glob("verdicts-*.json"))


def test_every_rule_was_simulated_and_is_right_often_enough() -> None:
    record = json.loads(RECORD.read_text())
    rows = {row["key"]: row for row in record["rows"]}
    assert set(verdicts.designs()) == set(rows)
    assert record["tables"] >= 1000
    assert [key for key, row in rows.items() if not verdicts.holds(row)] == []
    shipped = json.loads(FILE.read_text())["designs"]
    assert {key: value["scenarios"] for key, value in shipped.items()} == {
        key: row["scenarios"] for key, row in rows.items()
    }
    page = (ROOT / "docs" / "verdicts.md").read_text()
    table = page.split(f"{verdicts.MARK}\n")[1].split("\n<!-- end -->")[0]
    assert table == verdicts.table_of(record["rows"])


@pytest.mark.parametrize(
    "key", ["strong -0.929, trend 3x8", "strong 0.887, curves 3x10", "sign, grid 3x5x5", "falls 10x6"]
)
def test_a_few_rules_simulated_anew_keep_to_their_record(key: str) -> None:
    tables = 240
    shares = verdicts.simulate(verdicts.designs()[key], tables)
    known = characteristics_of(key)
    assert known is not None
    for noise in (NOISE, SMOOTH):
        assert shares[noise]["reproduced"] <= 0.05 + 2.6 * (0.05 * 0.95 / tables) ** 0.5
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


def test_the_docs_list_every_rule_claim_with_parts_and_statistic_in_use() -> None:
    page = (ROOT / "docs" / "verdicts.md").read_text().split(verdicts.MARK)[0]
    listed = re.findall(r"^\| `([^|]*)`", page, re.MULTILINE)
    assert listed == [*RULES, *COMPOUND, *STATISTICS]
    # "strong -0.95, trend 3x8" has a rule and a statistic, "every 2 left mean 3" its parts and their statistic
    keys = [key.rpartition(", ")[::2] for key in json.loads(FILE.read_text())["designs"]]
    assert {rule.partition(" ")[0] for rule, _ in keys if rule} | {"above", "below", "holds"} == {*RULES}
    designs = {" ".join(word for word in design.split() if not word[0].isdigit()) for _, design in keys}
    names = {*COMPOUND, *STATISTICS}
    assert [design for design in designs if not any(design.startswith(name) for name in names)] == []
    assert [name for name in names if not any(name in design for design in designs)] == []


def test_a_size_that_was_not_simulated_is_named_with_the_nearest_that_was() -> None:
    assert nearest_key("strong -0.95, trend 2x4") == "strong -0.939, trend 3x5"
    assert nearest_key("sign, trend 10x40") == "sign, trend 5x41"
    assert nearest_key("rises 4x7") == "rises 5x7"
    assert nearest_key("sign, median 1x2x3") == "strong 0.27, median 3x5x5"
    assert nearest_key("strong 0.5, unheard 3x5") is None
    rng = np.random.default_rng(0)
    claims = [Claim.measured("", "", "strong", trend(range(4), rng.normal(size=(2, 4))), paper=-0.95)]
    text = verdict_counts(records(claims), "claim", " of the paper that this study can judge")
    assert text.startswith("Of 1 claim of the paper that this study can judge, 0 are")
    assert "0.05 would be expected" in text
    assert text.endswith("were not simulated: strong -0.95, trend 2x4 (the nearest is strong -0.939, trend 3x5).")


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        ([("seeds", 3, 9, False)], "about 9 seeds, not 3"),
        ([("seeds", 1, 3, True), ("depths", 5, 1200, False)], "3 seeds or more, not 1, and about 1,200 depths, not 5"),
        ([("seeds", 10, None, False)], "more seeds than 10"),
    ],
)
def test_an_undecided_verdict_says_what_is_lacking(lacking: list[tuple[str, int, int, bool]], words: str) -> None:
    rows = [dict(zip(("name", "now", "needed", "at_least"), lack, strict=True)) for lack in lacking]
    assert verdict_of({"verdict": "undecided", "lacking": rows}) == f"undecided: it would take {words}"
    assert verdict_of({"verdict": "reproduced", "lacking": []}) == "reproduced"


def test_an_interval_shows_on_which_side_of_zero_it_lies_and_where_it_is_open() -> None:
    claim = {"text": "a", "source": "b", "rule": "sign", "paper": None, "verdict": "reproduced"}
    ends = [(-1.0, -0.003), (-1.0, 0.0), (2e-5, 0.4), (None, 0.02), (None, None)]
    table = claims_table([{**claim, "value": -0.5, "low": low, "high": high} for low, high in ends])
    assert [row[4] for row in table.rows] == [
        "−1.00 to −0.003", "−1.00 to 0.00", "just above 0 to 0.40", "open to 0.02", "open",
    ]  # fmt: skip
