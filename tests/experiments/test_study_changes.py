"""Settings that a caller changed: where they are named, and the paper's numbers that no longer mean the same."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modalign.experiments.studies.changes import beside_the_paper, changes_of
from modalign.experiments.studies.claims import Claim
from modalign.experiments.studies.emergence_claims import Levels, claims_of, defining
from modalign.experiments.studies.emergence_grid import GRIDS
from modalign.experiments.studies.vision_language_grid import GRIDS as VISION_LANGUAGE
from modalign.report.words import changes_in_words, protocol_in_words


def settings_of(grid: Any, study: str = "emergence", **changes: object) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(json.dumps({"study": study, **dataclasses.asdict(grid), **changes}))
    return settings


def claims_with(folder: Path, protocol: str = "paper", **changes: object) -> list[Claim]:
    """Return the claims of a quick study of noise whose settings.json has these changes."""
    quick = GRIDS[protocol][1]
    (folder / "settings.json").write_text(json.dumps({"settings": settings_of(quick, **changes)}), encoding="utf-8")
    shape = [len(axis) for axis in (quick.seeds, quick.uniqueness, quick.heterogeneity, quick.depths_2)]
    values = {
        name: np.random.default_rng(0).random(shape) for name in ("unbiased_cka", "mutual_knn", "svcca", "accuracy")
    }
    levels = Levels(quick.uniqueness, quick.heterogeneity, quick.depths_2, values)
    found = claims_of(levels, paper=protocol == "paper")
    return beside_the_paper(found, folder, lambda claim: defining(claim.source, claim.text))


def papers(claims: list[Claim], part: str) -> set[float | None]:
    return {claim.paper for claim in claims if part in claim.text}


def test_numbers_of_the_paper_stand_beside_a_study_that_nobody_changed(tmp_path: Path) -> None:
    whole = claims_with(tmp_path)
    assert all(claim.paper is not None or claim.rule == "sign" for claim in whole)
    assert papers(whole, "(mutual_knn)") == {-0.939, -0.648, -0.309, -0.588}
    assert all(claim.changed == () and "changed by you" not in claim.text for claim in whole)
    # by the default protocol mutual k-NN and SVCCA are measured otherwise
    default = claims_with(tmp_path, "default")
    assert papers(default, "(mutual_knn)") == papers(default, "(svcca)") == {None}
    assert papers(default, "(unbiased_cka)") == {-0.915, -0.709, -0.442, -0.77}


@pytest.mark.parametrize("protocol", GRIDS)
def test_a_setting_that_defines_every_number_leaves_none_of_the_paper(protocol: str, tmp_path: Path) -> None:
    for name, value in (("variant", "width"), ("depths_2", [1, 2, 3]), ("n", 512), ("compared", 64), ("epochs_2", 1)):
        claims = claims_with(tmp_path, protocol, **{name: value})
        assert {one.paper for claim in claims for one in (claim, *claim.parts)} == {None}
        assert all(claim.text.endswith(f"(changed by you: {name})") for claim in claims)
        assert all(claim.changed[0].startswith(f"{name} = ") for claim in claims)
        assert {claim.rule for claim in claims} <= {"sign", "none", "above", "below"}


def test_a_setting_takes_only_the_numbers_that_it_defines(tmp_path: Path) -> None:
    k = claims_with(tmp_path, k=10)
    assert papers(k, "(mutual_knn)") == {None}
    assert papers(k, "(svcca)") == {-0.673, -0.782, -0.624, -0.576}
    assert {claim.changed for claim in k} == {("k = 10 (the paper: 100)",)}
    levels = claims_with(tmp_path, uniqueness=[0, 4, 8])
    assert papers(levels, "falls with uniqueness") == {None}
    assert papers(levels, "at every U") == {None}
    assert papers(levels, "goes with performance, U = 4") == {0.27}
    kinds = claims_with(tmp_path, heterogeneity=[1, 3])
    assert papers(kinds, "falls with uniqueness up to 7, heterogeneity 3") == {-0.762}
    assert papers(kinds, "goes with performance, U = 4") == papers(kinds, "from above 0.5") == {None}
    assert all(claim.paper is not None or claim.rule == "sign" for claim in claims_with(tmp_path, seeds=[1]))


def test_a_claim_without_the_papers_number_is_judged_by_its_side(tmp_path: Path) -> None:
    before, after = (claims_with(tmp_path, **change)[0] for change in ({}, {"n": 512}))
    assert (before.rule, before.paper, after.rule, after.side) == ("strong", -0.929, "sign", -1)
    assert (after.value, after.low, after.high) == (before.value, before.low, before.high)


def test_the_small_grid_is_not_a_change_of_the_callers() -> None:
    quick = changes_of(settings_of(GRIDS["paper"][1], k=10))
    assert [str(change) for change in quick if change.by_user] == ["k = 10 (the paper: 100)"]
    assert "n = 16384 (the paper: 65536)" in [str(change) for change in quick if not change.by_user]
    assert changes_of(settings_of(GRIDS["paper"][0])) == []
    # captions of a folder come with their own levels
    given = {"uniqueness": [0, 100], "kinds": ["given"], "seeds": [0]}
    assert changes_of(settings_of(VISION_LANGUAGE["paper"][0], "vision-language", **given)) == []
    assert changes_of({"study": "align", "protocol": "paper"}) == []


def test_step_by_step_is_said_only_if_nothing_differs() -> None:
    full, quick = GRIDS["paper"]
    assert "published code step by step." in protocol_in_words(settings_of(full))
    small = protocol_in_words(settings_of(quick))
    assert "step by step" not in small
    assert "n = 16384 (the paper: 65536)" in small
    assert "step by step" not in protocol_in_words(settings_of(full, k=10))
    assert "publishes no code" in protocol_in_words({"study": "align", "protocol": "paper"})
    assert changes_in_words(settings_of(quick)) == []
    assert changes_in_words(settings_of(quick, k=10))[0].startswith("Changed by you: k = 10 (the paper: 100).")
