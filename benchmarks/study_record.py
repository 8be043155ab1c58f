"""Record the verdicts of a finished study in benchmarks/results: settings, machine, and each claim with our number.

modalign reproduce emergence --out results/emergence
python -m benchmarks.study_record results/emergence --out benchmarks/results/emergence-quick.json --seconds 900
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

FACTS = ("source", "text", "rule", "paper", "value", "low", "high", "verdict", "lacking", "changed")


def record_of(folder: Path, *, seconds: float | None = None, note: str = "") -> dict[str, Any]:
    """Return the record of a study. seconds: the time of all cores together that it took."""
    begun = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    verdicts = [claim["verdict"] for claim in claims]
    counts = {verdict: verdicts.count(verdict) for verdict in ("reproduced", "partly", "not", "undecided")}
    return {
        "command": begun["provenance"]["command"],
        "settings": begun["settings"],
        "provenance": begun["provenance"],
        **({} if seconds is None else {"cpu_seconds": round(seconds)}),
        **({"note": note} if note else {}),
        "verdicts": {"claims": len(claims), **counts},
        "claims": [{name: claim[name] for name in FACTS if name in claim} for claim in claims],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of a finished study")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    parser.add_argument("--seconds", type=float, help="the time of all cores together, where it was measured")
    parser.add_argument("--note", default="", help="what a reader should know about the run")
    options = parser.parse_args()
    record = record_of(options.folder, seconds=options.seconds, note=options.note)
    options.out.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
