"""The measurement of coverage: exact cells, draws that are continued, and a folder of other code refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import information_coverage as coverage
from benchmarks.information_cells import Cell, cells, from_joint, modes, views

from modalign.information import pid_of_joint


def test_cells_have_their_own_names() -> None:
    assert len({coverage.file_of(Path(), cell) for cell in cells()}) == len(cells()) >= 16


def test_modes_far_apart_tell_what_their_codes_do() -> None:
    joint = np.zeros((2, 2, 2))
    joint[0, 0, 0] = joint[0, 1, 0] = joint[1, 0, 0] = joint[1, 1, 1] = 0.25
    exact = modes(10, 2, 6.0, joint)(0)[3]
    assert exact.redundancy == pytest.approx(pid_of_joint(joint).redundancy, abs=1e-4)


def small() -> list[Cell]:
    """Return a cell whose modalities are codes, which takes milliseconds."""
    return [Cell("two views", from_joint(views(np.full(2, 0.5), 0.8, 0.6), 200, lambda code, rng: code))]


def measured(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(coverage, "cells", small)
    monkeypatch.setattr(sys, "argv", ["coverage", str(folder), *options])
    coverage.main()


def test_draws_are_continued_and_the_table_is_put_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, record = tmp_path / "page.md", tmp_path / "record.json"
    page.write_text(f"before\n{coverage.BEGIN}\nold\n{coverage.END}\nafter\n")
    measured(tmp_path / "draws", monkeypatch, "--draws", "2")
    file = tmp_path / "draws" / "two-views.jsonl"
    first = file.read_text()
    file.write_text(first + '{"draw": 2, "cut')  # as an interruption leaves it
    measured(tmp_path / "draws", monkeypatch, "--draws", "3", "--out", str(record), "--page", str(page))
    rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["draw"] for row in rows] == [0, 1, 2]
    assert file.read_text().startswith(first)
    (cell,) = json.loads(record.read_text())["cells"]
    assert cell["draws"] == 3
    assert cell["parts"]["redundancy"]["coverage"] in (0, 0.3333, 0.6667, 1)
    assert "| two views | 3 |" in page.read_text()
    assert "old" not in page.read_text()
    assert page.read_text().endswith("after\n")


def test_draws_of_other_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code.txt").write_text("other")
    with pytest.raises(SystemExit):
        measured(tmp_path, monkeypatch, "--draws", "1")
