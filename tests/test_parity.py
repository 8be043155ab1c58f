"""Ours equals the numbers of the papers' public programs, or differs by a step that docs/parity.md names."""

import pytest

from parity_cases import PROGRAMS, STEPS, Case
from parity_inputs import INPUTS, LABELS, TABLES
from parity_page import PAGE, stored, written

CASES = [(program, case) for program, cases in PROGRAMS.items() for case in cases]


@pytest.mark.parametrize(("program", "case"), CASES, ids=[f"{case.key} | {case.ours}" for _, case in CASES])
def test_ours_is_theirs_or_differs_by_a_step(program: str, case: Case) -> None:
    theirs, *spread = stored()[program][case.key]
    difference = abs(case.value() - theirs)
    if case.step:
        assert case.step in STEPS
        assert difference > (2e-6 if not spread else 0)
    else:
        assert difference <= case.within


def test_every_stored_number_has_a_case() -> None:
    assert {program: {case.key for case in cases} for program, cases in PROGRAMS.items()} == {
        program: set(values) for program, values in stored().items()
    }


def test_the_page_shows_the_tables() -> None:
    """To make them anew: ``python tests/parity_page.py``."""
    text = PAGE.read_text(encoding="utf-8")
    assert written(text) == text
    for rows in (*INPUTS, *LABELS, *TABLES):
        assert f"| {rows} |" in text, f"the page shows no input {rows!r}"
