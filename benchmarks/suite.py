"""Make the rows behind ``modalign advise`` from a finished ``modalign reproduce align``.

python -m benchmarks.suite results/align                    print the hit rate, leaving out each pair in turn
python -m benchmarks.suite results/align --out suite.json   also write the file that the package reads
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from modalign.experiments.advice import hit_rate
from modalign.files.atomic import write_atomically

COLUMNS = (
    "case",
    "modality",
    "best",
    "gain",
    "gain_low",
    "end",
    "redundancy",
    "unique_1",
    "unique_2",
    "synergy",
    "mutual_12",
)


def main() -> None:
    """Print the hit rate and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a finished `modalign reproduce align`")
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    arguments = parser.parse_args()
    best = pd.read_parquet(arguments.folder / "best.parquet")
    rows = best[best["setting"] == "default"][list(COLUMNS)].to_dict("records")
    rows = [{key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    rates = hit_rate(rows)
    print(f"{len(rows)} modalities, leaving out each pair in turn:")
    print(f"  best strength in the suggested range      {rates['range']:.0%} (it is {rates['width']:.0%} of 0 to 4)")
    print(f"  whether it helps by half a point          {rates['helps']:.0%} (always saying no: {rates['never']:.0%})")
    if arguments.out:
        facts = json.loads((arguments.folder / "settings.json").read_text(encoding="utf-8"))["provenance"]
        text = json.dumps({"provenance": facts, "hit_rate": rates, "rows": rows}, indent=1) + "\n"
        write_atomically(arguments.out, lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
