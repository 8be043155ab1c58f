"""The page on data prints what it says, and its table is the registry's."""

import re
from pathlib import Path

from modalign.data.registry import data_set_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_the_page_prints_what_it_says(tmp_path, monkeypatch, capsys):
    """All Python blocks of the page, in order; a comment after a print says what it prints."""
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S))
    exec(compile(code, str(PAGE), "exec"), {})
    expected = re.findall(r"^print\(.*\)  # (.*)$", code, re.M)
    assert len(expected) >= 3
    assert capsys.readouterr().out.splitlines() == expected


def test_the_table_of_data_sets_is_the_registry() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.split("<!-- data_set_table() -->\n")[1].split("\n<!-- end -->")[0]
    assert table == data_set_table(), (
        "docs/data.md: run python -c 'from modalign.data.registry import data_set_table as t; print(t())'"
    )
