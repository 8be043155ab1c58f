"""The lists of best neighbours that a search by blocks fills, in memory and in the folder of a checkpoint:

checkpoint.json     what the graph is of, and a name for this search; written first
block-00012.npz     the lists of one block of rows so far, and which blocks of candidates are folded into them

A block file names its search and its block, and holds a digest of the rows of every block that was read for it. A file
in the place of another, and rows that changed behind an old time stamp, are refused.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import uuid
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.files.checkpoint import Checkpoint
from modalign.files.settings import digest_of
from modalign.ops.knn_tables import Best, Report

__all__ = ["BlockLists", "GraphFolder", "Side", "digest_of_rows"]

FORMAT = 2
RECORD = "checkpoint.json"
BLOCK = r"block-\d{5,}\.npz"  # the name of a block's file
ADVICE = "give another folder, or fresh=True to start over"
DIGEST = 32  # bytes of SHA-256
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
        # of the rows of each block that was read, all zeros for others
        self.row_digests = np.zeros((blocks, DIGEST), dtype=np.uint8)
        self.candidate_digests = self.row_digests if symmetric else np.zeros((self.done.shape[1], DIGEST), np.uint8)
        self.save_number = np.zeros((blocks, 1), dtype=np.int64)  # of the save that wrote the block last

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
            "save_number": self.save_number[i],
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
    """The checkpoint of a k-NN graph in a folder.

    Attributes:
        checkpoint: The files.
        search: The name of the search, which ``begin`` gives or reads.
    """

    def __init__(self, path: Path) -> None:
        self.search = ""
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
            self.search = uuid.uuid4().hex
            mark = {"format": FORMAT, "modalign": importlib.metadata.version("modalign"), "search": self.search}
            self.checkpoint.write_json(RECORD, mark | settings, indent=2)
            return
        self.search = str(before["search"])
        before = {name: value for name, value in before.items() if name not in {"format", "modalign", "search"}}
        self.checkpoint.require_same(before, json.loads(json.dumps(settings)))
        self.checkpoint.begin(digest_of(settings))

    def load(self, lists: BlockLists) -> None:
        """Fill the lists with what the folder holds of them; ValueError if a file is damaged or missing."""
        absent = []
        for i in range(len(lists.done)):
            if (self.checkpoint.folder / _name(i)).exists():
                self._load_block(i, lists)
            else:
                absent.append(i)
        # a kill may leave blocks of the last save without a file, but of no earlier one
        earlier = lists.done[lists.save_number[:, 0] < lists.save_number.max()]
        for i in absent if lists.symmetric else ():
            if earlier[:, i].any():
                raise self.checkpoint.damaged(_name(i), "missing")

    def save(self, blocks: Iterable[int], lists: BlockLists) -> None:
        """Write the lists of some blocks."""
        number = int(lists.save_number.max()) + 1
        for i in sorted(blocks):
            lists.save_number[i] = number
            arrays: dict[str, Any] = lists.arrays(i)  # NumPy's stubs take names of arrays for options
            arrays |= {"search": np.array(self.search), "block": np.array(i), "rows": lists.row_digests[i]}
            arrays["candidates"] = lists.candidate_digests * lists.done[i][:, None]
            self.checkpoint.write(_name(i), partial(np.savez, **arrays))

    def _load_block(self, i: int, lists: BlockLists) -> None:
        try:
            with np.load(self.checkpoint.folder / _name(i)) as file:
                if str(file["search"]) != self.search:
                    raise ValueError("a block of another search")
                if int(file["block"]) != i:
                    raise ValueError(f"block {int(file['block'])} of this search")
                for name, array in lists.arrays(i).items():
                    stored = file[name]
                    if (stored.shape, stored.dtype) != (array.shape, array.dtype):
                        raise ValueError(f"{name} {stored.shape} {stored.dtype}")
                    array[...] = stored
                _copy_digests(file["rows"][None], lists.row_digests[i : i + 1])
                _copy_digests(file["candidates"], lists.candidate_digests)
            indices, scores = lists.best(i)
            if int(indices.min()) < -1 or int(indices.max()) >= lists.candidates or bool(scores.isnan().any()):
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
            valid = record["format"] != FORMAT or (int(record["block_size"]) >= 1 and bool(record["search"]))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise self.checkpoint.damaged(RECORD, f"{type(error).__name__}: {error}") from error
        if not valid:
            raise self.checkpoint.damaged(RECORD, f"block_size {record['block_size']}, search {record['search']!r}")
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


def digest_of_rows(rows: Tensor) -> NDArray[np.uint8]:
    """Return the SHA-256 of every byte of contiguous rows."""
    return np.frombuffer(hashlib.sha256(rows.view(torch.uint8).numpy().data).digest(), dtype=np.uint8)


def _copy_digests(stored: NDArray[np.uint8], known: NDArray[np.uint8]) -> None:
    """Add the digests of a block file to those of the others, with which they must agree."""
    if (stored.shape, stored.dtype) != (known.shape, known.dtype):
        raise ValueError(f"digests {stored.shape} {stored.dtype}")
    given = stored.any(1)
    if (known[given & known.any(1)] != stored[given & known.any(1)]).any():
        raise ValueError("of rows with other digests than in the other blocks")
    known[given] = stored[given]


def _name(i: int) -> str:
    return f"block-{i:05d}.npz"
