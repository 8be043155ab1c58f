"""The tables of docs/parity.md: the numbers of public programs, from ``tests/parity.json``, beside ours, computed now.

    python tests/parity_page.py        write the tables

``tests/parity.json`` holds what the programs returned, and nothing else of them.
"""

from __future__ import annotations

import json
from pathlib import Path

from parity_cases import PROGRAMS, STEPS

__all__ = ["PAGE", "stored", "written"]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "parity.md"


def stored() -> dict[str, dict[str, list[float]]]:
    """Return what the programs returned, by program and ``Case.key``: a number, or a mean and a standard deviation."""
    values: dict[str, dict[str, list[float]]] = json.loads((ROOT / "tests" / "parity.json").read_text(encoding="utf-8"))
    return values


def table(program: str) -> str:
    """Return the Markdown table of a program, with ours computed now."""
    lines = ["| theirs | input | value | ours | value | |", "|---|---|---|---|---|---|"]
    for case in PROGRAMS[program]:
        mean, *spread = stored()[program][case.key]
        theirs = f"{mean:.6f}" if not spread else f"{mean:.3f} ({spread[0]:.3f})"
        agreement = f"differs: {case.step}" if case.step else f"equal to {case.within:.0e}".replace("e-0", "e-")
        cells = (f"`{case.theirs}`", case.rows, theirs, f"`{case.ours}`", f"{case.value():.6f}", agreement)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).replace("-0.000000", "0.000000")


def steps() -> str:
    """Return the Markdown table of the steps at which programs and ours part."""
    return "\n".join(["| step | |", "|---|---|", *(f"| {name} | {text} |" for name, text in STEPS.items())])


def written(text: str) -> str:
    """Return the page with the tables between its marks replaced by those of ``table`` and ``steps``."""
    tables = {program: table(program) for program in PROGRAMS} | {"steps": steps()}
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", "\n<!-- end -->"
        before, _, rest = text.partition(begin)
        assert rest, f"the page has no mark {begin!r}"
        text = before + begin + lines + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
