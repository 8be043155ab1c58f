"""Make the rows behind ``modalign advise`` from a finished ``modalign reproduce align``.

python -m benchmarks.suite results/align                    print the hit rate, leaving out each pair in turn
python -m benchmarks.suite results/align --out suite.json   also write the file that the package reads
python -m benchmarks.suite --information --out suite.json   estimate the information of the rows of the package anew
python -m benchmarks.suite --figure docs/images/thesis.png  draw best strength and gain against the redundant share

With ``--information`` strengths and gains, which come from training, stay as they are; it takes minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from modalign.common import provenance
from modalign.data import load as load_data
from modalign.experiments.advice import hit_rate, suite
from modalign.experiments.studies.measured import spearman
from modalign.experiments.studies.strength import CONFIGS, information_of
from modalign.experiments.sweep.config import load
from modalign.files.atomic import write_atomically
from modalign.report.figures.stills import draw_sheet
from modalign.report.pages.strength import best_strengths_sheet

PARTS = ("redundancy", "unique_1", "unique_2", "synergy", "mutual_12")
COLUMNS = ("case", "modality", "best", "gain", "gain_low", "end", *PARTS)


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose numbers have four decimals."""
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def informed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of real pairs with their information estimated anew, and print what changed."""
    known: dict[str, dict[str, Any]] = {}
    for case in load(CONFIGS / "pairs.yaml").model_dump(mode="json")["cases"]:
        settings = dict(case["data"])
        parts = dataclasses.asdict(information_of(load_data(settings.pop("name"), **settings)))
        known[case["label"]] = {name: parts[name] for name in PARTS}
        before = next(row for row in rows if row["case"] == case["label"])
        changes = ", ".join(f"{name} {before[name]:.2f} -> {parts[name]:.2f}" for name in PARTS)
        print(f"{case['label']}: {changes}", flush=True)
    return [rounded({**row, **known.get(row["case"], {})}) for row in rows]


def redundancy_rank(rows: list[dict[str, Any]]) -> float:
    """Return Spearman's correlation of the best strength and the redundant share, over modalities of pairs."""
    shares = [row["redundancy"] / row["mutual_12"] for row in rows]
    return spearman(pd.Series(shares).to_numpy(), pd.Series([row["best"] for row in rows]).to_numpy())


def figure(rows: list[dict[str, Any]]) -> bytes:
    """Return the figure of the thesis as PNG, without the intervals of the runs, which the rows do not keep."""
    best = pd.DataFrame(rows)
    best["kind"] = ["synthetic" if case.startswith("R = ") else "pairs" for case in best["case"]]
    ends = [f"{column}_{end}" for column in ("best", "gain") for end in ("low", "high")]
    return draw_sheet(best_strengths_sheet(best.assign(**dict.fromkeys(ends, math.nan)))).png


def main() -> None:
    """Print the hit rate and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="folder of a finished `modalign reproduce align`")
    parser.add_argument("--information", action="store_true", help="estimate the information of the rows anew")
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    parser.add_argument("--figure", type=Path, help="write the figure of the thesis to this PNG file")
    arguments = parser.parse_args()
    if arguments.folder is None:
        rows, made = suite(), dict(json.loads((files("modalign.experiments") / "suite.json").read_text("utf-8")))
        if arguments.information:
            rows, made["information"] = informed(rows), provenance.collect()
    else:
        best = pd.read_parquet(arguments.folder / "best.parquet")
        rows = [rounded(row) for row in best[best["setting"] == "default"][list(COLUMNS)].to_dict("records")]
        made = {"provenance": json.loads((arguments.folder / "settings.json").read_text("utf-8"))["provenance"]}
    rates = hit_rate(rows)
    print(f"{len(rows)} modalities, leaving out each pair in turn:")
    print(f"  best strength in the suggested range      {rates['range']:.0%} (it is {rates['width']:.0%} of 0 to 4)")
    print(f"  whether it helps by half a point          {rates['helps']:.0%} (always saying no: {rates['never']:.0%})")
    print(f"  best strength and redundant share         Spearman's correlation {redundancy_rank(rows):.2f}")
    if arguments.out:
        text = json.dumps(made | {"hit_rate": rates, "rows": rows}, indent=1) + "\n"
        write_atomically(arguments.out, lambda path: path.write_text(text, encoding="utf-8"))
    if arguments.figure:
        picture = figure(rows)
        write_atomically(arguments.figure, lambda path: path.write_bytes(picture))


if __name__ == "__main__":
    main()
