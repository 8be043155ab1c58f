"""Searches by blocks: their merges recorded, and a checkpoint that is half done."""

from pathlib import Path
from typing import Any

import pytest

from modalign.neighbors import blocks as blocks_module
from modalign.ops.knn import RowBlock, SearchOptions
from neighbors.block_searches import run, stopped_after


@pytest.fixture
def merges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Record the calls of merge: the starts of both blocks, and whether each has lists."""
    calls: list[tuple[Any, ...]] = []
    real = blocks_module.merge

    def counted(x: RowBlock, y: RowBlock | None, options: SearchOptions) -> Any:
        report = real(x, y, options)
        calls.append((x.start, (x if y is None else y).start, x.best is not None, y is not None and y.best is not None))
        return report

    monkeypatch.setattr(blocks_module, "merge", counted)
    return calls


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """Return a checkpoint of a graph of 7 blocks, stopped after two pairs of blocks and one side of the third."""
    with stopped_after(1 + 2 + 1):
        run(tmp_path / "graph")
    return tmp_path / "graph"
