"""The examples of the docstrings and of the page on data run."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
MODULES = ["arrays", "catalogue", "digits", "features", "multibench", "own", "paired", "pickles", "pictures"]


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(f"modalign.data.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_page_prints_what_it_says(tmp_path, monkeypatch, capsys):
    """All Python blocks of the page, in order; a comment after a print says what it prints."""
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S))
    exec(compile(code, str(PAGE), "exec"), {})
    expected = re.findall(r"^print\(.*\)  # (.*)$", code, re.M)
    assert len(expected) >= 3
    assert capsys.readouterr().out.splitlines() == expected
