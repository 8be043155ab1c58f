"""Make the rows behind ``modalign advise`` from a finished ``modalign reproduce align``.

python -m benchmarks.suite results/align                    print the hit rate, leaving out each pair in turn
python -m benchmarks.suite results/align --out suite.json   also write the file that the package reads
python -m benchmarks.suite --information --out suite.json   estimate the information of the rows of the package anew

The last takes a minute or two a pair: strengths and gains, which come from training, stay as they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from modalign.common import provenance
from modalign.data import load as load_data
from modalign.experiments.advice import hit_rate, suite
from modalign.experiments.studies.claims import spearman
from modalign.experiments.studies.strength import CONFIGS, information_of
from modalign.experiments.sweep.config import load
from modalign.files.atomic import write_atomically

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


def main() -> None:
    """Print the hit rate and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="folder of a finished `modalign reproduce align`")
    parser.add_argument("--information", action="store_true", help="estimate the information of the rows anew")
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    arguments = parser.parse_args()
    if arguments.information == (arguments.folder is not None):
        parser.error("give either the folder of a study or --information")
    if arguments.information:
        rows, facts = informed(suite()), provenance.collect()
    else:
        best = pd.read_parquet(arguments.folder / "best.parquet")
        rows = [rounded(row) for row in best[best["setting"] == "default"][list(COLUMNS)].to_dict("records")]
        facts = json.loads((arguments.folder / "settings.json").read_text(encoding="utf-8"))["provenance"]
    rates = hit_rate(rows)
    print(f"{len(rows)} modalities, leaving out each pair in turn:")
    print(f"  best strength in the suggested range      {rates['range']:.0%} (it is {rates['width']:.0%} of 0 to 4)")
    print(f"  whether it helps by half a point          {rates['helps']:.0%} (always saying no: {rates['never']:.0%})")
    print(f"  best strength and redundant share         Spearman's correlation {redundancy_rank(rows):.2f}")
    if arguments.out:
        text = json.dumps({"provenance": facts, "hit_rate": rates, "rows": rows}, indent=1) + "\n"
        write_atomically(arguments.out, lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
