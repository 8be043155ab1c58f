"""The first case of every suite under pytest-benchmark: pytest benchmarks --benchmark-autosave.

The saved runs are a history of one machine.
"""

import pytest

from benchmarks.cases import Case
from benchmarks.suites import CASES

SMALL = [case for suite in CASES.values() for case in suite()[:1]]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
@pytest.mark.parametrize("rival", ["modalign"])
def test_speed(benchmark, case: Case, rival: str) -> None:  # type: ignore[no-untyped-def]
    inputs = case.make()
    other = next(name for name in case.rivals if name != rival)
    assert case.agree(benchmark(case.rivals[rival], *inputs), case.rivals[other](*inputs))
