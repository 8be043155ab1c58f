"""Measure how often the 95 % intervals of ``pid`` hold the exact parts, in cells whose decomposition is known.

    python -m benchmarks.information_coverage FOLDER                       200 draws a cell; hours on one core
    python -m benchmarks.information_coverage FOLDER --draws 10 --cells and xor
    python -m benchmarks.information_coverage FOLDER --out FILE.json --page docs/information.md

Each draw is saved in FOLDER as it finishes, and a call goes on where the last one stopped; a folder of other code is
refused. Cells are chosen by parts of their names. ``--out`` writes the record of all draws in FOLDER, ``--page`` puts
its table between the marks of a page.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

import benchmarks.information_cells
import modalign.information
from benchmarks.information_cells import Cell, cells
from benchmarks.pages import put_on_page
from modalign.common import provenance
from modalign.files.atomic import write_atomically
from modalign.information import pid

PARTS = ("redundancy", "unique_1", "unique_2", "synergy")
WHOLES = ("mutual_1", "mutual_2", "mutual_12")
WANTED = 0.90  # the share of intervals that must hold the exact part
ROUNDING = 2e-3  # bits by which the exact parts of binned normals may be off
REDRAWN = 1_000_000  # added to the seed of a draw that has one class
BEGIN, END = "<!-- coverage table: made by benchmarks/information_coverage.py -->", "<!-- end of the coverage table -->"


def fingerprint() -> str:
    """Return a digest of the code that makes the data and the estimates; notes, docstrings and comments aside."""
    files = sorted(Path(modalign.information.__file__).parent.glob("*.py"))
    files = [path for path in files if path.name not in ("notes.py", "regimes.py")]
    texts = []
    for path in (*files, Path(benchmarks.information_cells.__file__)):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                del node.body[0]
        texts.append(ast.dump(tree))
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]


def measure(cell: Cell, seed: int) -> dict[str, Any]:
    """Return the exact parts of a draw, the estimates and their intervals."""
    x1, x2, y, exact = cell.draw(seed)
    redrawn = seed
    while len(np.unique(y)) < 2:  # pid refuses a few items that are all of one class
        redrawn += REDRAWN
        x1, x2, y, exact = cell.draw(redrawn)
    begin = time.process_time()
    estimate = pid(x1, x2, y, seed=seed)
    names = (*PARTS, *WHOLES)
    return {
        "draw": seed,
        "seconds": round(time.process_time() - begin, 2),
        "exact": {name: round(getattr(exact, name), 5) for name in names},
        "value": {name: round(getattr(estimate, name), 5) for name in names},
        "interval": {name: [round(end, 5) for end in estimate.intervals[name]] for name in names},
        "models": estimate.models,
        "shortfall": [round(bits, 5) for bits in estimate.shortfall],
    }


def drawn(path: Path) -> list[dict[str, Any]]:
    """Return the draws that a file holds; a last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def run(folder: Path, chosen: Sequence[Cell], draws: int, console: Console) -> None:
    """Measure the draws that the folder lacks, cell after cell in rounds of ten."""
    for least in [*range(10, draws, 10), draws]:
        for cell in chosen:
            path = file_of(folder, cell)
            done = drawn(path)
            text = "".join(json.dumps(row) + "\n" for row in done)
            if path.exists() and path.read_text(encoding="utf-8") != text:
                write_atomically(path, lambda place, text=text: place.write_text(text, encoding="utf-8"))
            for seed in range(len(done), least):
                row = measure(cell, seed)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            if len(done) < least:
                console.print(f"{cell.name}: {least} draws")


def file_of(folder: Path, cell: Cell) -> Path:
    """Return the file of a cell's draws."""
    return folder / ("".join(letter if letter.isalnum() else "-" for letter in cell.name) + ".jsonl")


def summary(cell: Cell, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return coverage, means and widths of each part over the draws of a cell."""
    result: dict[str, Any] = {"cell": cell.name, "draws": len(rows), "parts": {}}
    result["seconds"] = round(float(np.mean([row["seconds"] for row in rows])), 2)
    for name in (*PARTS, *WHOLES):
        exact, value = (np.array([row[kind][name] for row in rows]) for kind in ("exact", "value"))
        low, high = np.array([row["interval"][name] for row in rows]).T
        covered = float(((low <= exact + ROUNDING) & (exact - ROUNDING <= high)).mean())
        result["parts"][name] = {
            "coverage": round(covered, 4),
            "exact": round(float(exact.mean()), 4),
            "value": round(float(value.mean()), 4),
            "rms_error": round(float(np.sqrt(((value - exact) ** 2).mean())), 4),
            "width": round(float((high - low).mean()), 4),
            "holds": covered >= WANTED,
        }
    return result


def table(summaries: Sequence[dict[str, Any]]) -> str:
    """Return the table of a page: exact and mean bits, half the mean width, and the share that holds the exact part."""
    lines = ["| cell | draws | redundancy | unique 1 | unique 2 | synergy |", "|---|---|---|---|---|---|"]
    for one in summaries:
        columns = []
        for name in PARTS:
            part = one["parts"][name]
            share = f"{100 * part['coverage']:.0f} %"
            share = share if part["holds"] else f"**{share}**"
            columns.append(f"{_bits(part['exact'])} / {_bits(part['value'])} +- {_bits(part['width'] / 2)}, {share}")
        lines.append(f"| {one['cell']} | {one['draws']} | {' | '.join(columns)} |")
    return "\n".join(lines)


def _bits(value: float) -> str:
    text = f"{abs(value):.2f}"
    return text[1:] if text.startswith("0") else text


def main() -> None:
    """Measure the draws that are asked for, print the table, and write record and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the draws, which an interrupted run continues")
    parser.add_argument("--draws", type=int, default=200, help="number of draws a cell (default: 200)")
    parser.add_argument("--cells", nargs="*", default=[], help="parts of the names of cells (default: all)")
    parser.add_argument("--out", type=Path, help="write the record to this JSON file")
    parser.add_argument("--page", type=Path, help="put the table on this page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console, code = Console(), fingerprint()
    chosen = [cell for cell in cells() if not arguments.cells or any(part in cell.name for part in arguments.cells)]
    if not chosen:
        parser.error(
            f"no cell is called {' or '.join(arguments.cells)}; there are: {'; '.join(c.name for c in cells())}"
        )
    arguments.folder.mkdir(parents=True, exist_ok=True)
    mark = arguments.folder / "code.txt"
    if mark.exists() and mark.read_text(encoding="utf-8") != code:
        parser.error(f"{arguments.folder} holds draws of other code; give another folder")
    mark.write_text(code, encoding="utf-8")
    run(arguments.folder, chosen, arguments.draws, console)
    every = [(cell, drawn(file_of(arguments.folder, cell))) for cell in cells()]
    summaries = [summary(cell, rows) for cell, rows in every if rows]
    console.print(table(summaries), markup=False, soft_wrap=True)
    if arguments.out:
        record = {"provenance": provenance.collect(), "code": code, "wanted": WANTED, "cells": summaries}
        text = json.dumps(record, indent=1) + "\n"
        write_atomically(arguments.out, lambda path: path.write_text(text, encoding="utf-8"))
    if arguments.page:
        put_on_page(arguments.page, table(summaries), (BEGIN, END))


if __name__ == "__main__":
    main()
