"""Run the examples in the docstrings of every module; walking the package finds the modules."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import modalign

ROOT = Path(__file__).resolve().parents[1]
# compiled modules, and the wrapper of the one that is compiled on request only
NO_SOURCE = {"modalign._core", "modalign._cuda", "modalign.ops._cuda"}
MODULES = sorted({info.name for info in pkgutil.walk_packages(modalign.__path__, "modalign.")} - NO_SOURCE)
DOCUMENTED = re.findall(r"^::: (modalign\S+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.M)
# result classes; the functions that return them have the examples
RESULTS = {
    "Alignment",
    "Certificate",
    "Finding",
    "LayerAlignment",
    "Neighbors",
    "RankCheck",
    "Score",
    "Stats",
    "Information",
    "PIDEstimate",
    "PairedDataset",
}


def examples(value: object) -> list[doctest.DocTest]:
    """Return the examples in the docstrings of a module, class or function and of its members."""
    return [test for test in doctest.DocTestFinder().find(value, getattr(value, "__name__", "")) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_show(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("path", DOCUMENTED)
def test_everything_in_the_reference_has_an_example(path: str) -> None:
    assert examples(pkgutil.resolve_name(path)) or path.rpartition(".")[2] in RESULTS, f"{path} has no example"


def test_many_examples_are_found() -> None:
    """Without this test, a walk that finds no module would pass."""
    count = sum(len(test.examples) for name in MODULES for test in examples(importlib.import_module(name)))
    print(f"{count} examples in docstrings")
    assert count >= 400
