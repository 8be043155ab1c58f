"""The lists of best neighbours that a search by blocks fills, in memory and in the folder of a checkpoint:

checkpoint.json     what the graph is of; written first
block-00012.npz     the lists of one block of rows so far, and which blocks of candidates are folded into them
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modalign.files.checkpoint import Checkpoint
from modalign.files.settings import digest_of
from modalign.ops.knn_tables import Best, Report

__all__ = ["BlockLists", "GraphFolder", "Side"]

FORMAT = 1
RECORD = "checkpoint.json"
BLOCK = r"block-\d{5,}\.npz"  # the name of a block's file
ADVICE = "give another folder, or fresh=True to start over"
Side = tuple[int, int]  # (block of searching rows, block of candidates)
Settings = dict[str, Any]  # as JSON has them


class BlockLists:
    """The lists of every searching row, and which blocks of candidates are folded into those of which block of rows.

    Args:
        rows: The number of searching rows.
        candidates: The number of rows they search.
        k: The length of a list.
        size: Rows of a block.
        symmetric: Whether the candidates search each other, so that a pair of blocks serves both.
    """

    def __init__(self, rows: int, candidates: int, *, k: int, size: int, symmetric: bool) -> None:
        self.candidates, self.size, self.symmetric = candidates, size, symmetric
        blocks = -(-rows // size)
        self.indices = torch.full((rows, k), -1)
        self.scores = torch.full((rows, k), -torch.inf, dtype=torch.float64)
        self.done = np.zeros((blocks, -(-candidates // size)), dtype=bool)
        self.screens, self.tallies = np.zeros((blocks, 1), dtype="U16"), np.zeros((blocks, 2), dtype=np.int64)

    def best(self, i: int) -> Best:
        """Return the lists of block i, views."""
        rows = slice(i * self.size, (i + 1) * self.size)
        return self.indices[rows], self.scores[rows]

    def arrays(self, i: int) -> dict[str, NDArray[Any]]:
        """Return what a checkpoint keeps of block i, views by the names they have in its file."""
        indices, scores = self.best(i)
        return {
            "indices": indices.numpy(),
            "scores": scores.numpy(),
            "done": self.done[i],
            "screen": self.screens[i],
            "redone_scored": self.tallies[i],
        }

    def record(self, sides: list[Side], report: Report) -> None:
        """Note that the sides of a pair of blocks are folded in, and what the search of the pair took."""
        self.tallies[sides[0][0]] += report.redone, report.scored
        for side in sides:
            self.done[side], self.screens[side[0]] = True, report.screen

    def report(self) -> Report:
        """Return the report of the whole search."""
        redone = min(len(self.indices), int(self.tallies[:, 0].sum()))
        screen = ", ".join(sorted({str(name) for name in self.screens.ravel()}))
        return Report(screen, len(self.indices) - redone, redone, int(self.tallies[:, 1].sum()))


class GraphFolder:
    """The checkpoint of a k-NN graph in a folder."""

    def __init__(self, path: Path) -> None:
        self.checkpoint = Checkpoint(
            folder=path,
            content="a k-NN graph",
            advice=ADVICE,
            names=(r"checkpoint\.json", BLOCK),
            option="checkpoint",
            earlier=_earlier_files,
        )

    def block_size(self) -> int | None:
        """Return the block size of the graph begun here, None if there is none."""
        record = self._record()
        return None if record is None else int(record["block_size"])

    def begin(self, settings: Settings) -> None:
        """Write what the graph is of; ValueError if the folder holds a graph of other settings."""
        before = self._record()
        if before is None:
            self.checkpoint.begin(digest_of(settings))
            version = {"format": FORMAT, "modalign": importlib.metadata.version("modalign")}
            self.checkpoint.write_json(RECORD, version | settings, indent=2)
            return
        before = {name: value for name, value in before.items() if name not in {"format", "modalign"}}
        self.checkpoint.require_same(before, json.loads(json.dumps(settings)))
        self.checkpoint.begin(digest_of(settings))

    def load(self, lists: BlockLists) -> None:
        """Fill the lists with what the folder holds of them; ValueError if a file is damaged or missing."""
        absent = []
        for i in range(len(lists.done)):
            if (self.checkpoint.folder / _name(i)).exists():
                self._load_block(i, lists.arrays(i), lists.candidates)
            else:
                absent.append(i)
        # where a pair of blocks serves both, a kill leaves at most one pair of which only one side is kept
        for i in absent if lists.symmetric else ():
            if lists.done[:, i].sum() > 1:
                raise self.checkpoint.damaged(_name(i), "missing")

    def save(self, i: int, lists: BlockLists) -> None:
        """Write the lists of block i."""
        arrays: dict[str, Any] = lists.arrays(i)  # NumPy's stubs take names of arrays for options
        self.checkpoint.write(_name(i), lambda path: np.savez(path, **arrays))

    def _load_block(self, i: int, arrays: dict[str, NDArray[Any]], candidates: int) -> None:
        try:
            with np.load(self.checkpoint.folder / _name(i)) as file:
                for name, array in arrays.items():
                    stored = file[name]
                    if (stored.shape, stored.dtype) != (array.shape, array.dtype):
                        raise ValueError(f"{name} {stored.shape} {stored.dtype}")
                    array[...] = stored
            indices, scores = arrays["indices"], arrays["scores"]
            if indices.min() < -1 or indices.max() >= candidates or np.isnan(scores).any():
                raise ValueError("indices or scores out of range")
        except Exception as error:  # zipfile, zlib and numpy raise many kinds
            raise self.checkpoint.damaged(_name(i), str(error) or type(error).__name__) from error

    def _record(self) -> Settings | None:
        record = self.checkpoint.read_json(RECORD)
        if record is None:
            if any(file.name.startswith("block") for file in self.checkpoint.files()):
                raise self.checkpoint.damaged(RECORD, "missing")
            return None
        try:
            valid = record["format"] != FORMAT or int(record["block_size"]) >= 1
        except (ValueError, KeyError, TypeError) as error:
            raise self.checkpoint.damaged(RECORD, f"{type(error).__name__}: {error}") from error
        if not valid:
            raise self.checkpoint.damaged(RECORD, f"block_size {record['block_size']}")
        if record["format"] != FORMAT:
            raise ValueError(
                f"{self.checkpoint.folder / RECORD} must be of format {FORMAT}, got {record['format']!r} of modalign "
                f"{record.get('modalign')}; {self.checkpoint.advice}"
            )
        return record


def _earlier_files(folder: Path) -> list[str]:
    """Return the files of a graph of modalign 0.1.0, whose folders carry no mark."""
    try:
        ours = {"format", "modalign", "block_size"} <= set(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return []
    blocks = sorted(path.name for path in folder.iterdir() if re.fullmatch(BLOCK, path.name) and path.is_file())
    return [RECORD, *blocks] if ours else []


def _name(i: int) -> str:
    return f"block-{i:05d}.npz"
