"""How often the rule of a claim is right, by simulation: the record that ``python -m benchmarks.verdicts`` makes."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["FILE", "characteristics_of", "expected_by_chance", "key_of"]

FILE = Path(__file__).with_name("characteristics.json")
LEVEL = 0.05  # the largest share of false "reproduced" of a claim


def key_of(rule: str, paper: float | None, design: str) -> str:
    """Return the key of a rule with the paper's number and a design, such as ``strong -0.95, trend 3x8``."""
    return f"{rule}{'' if paper is None else f' {paper:g}'}, {design}"


def characteristics_of(key: str) -> dict[str, Any] | None:
    """Return the shares of each verdict by scenario, and the scenarios in which the claim is false.

    None for a design that was not simulated.
    """
    return _record().get(key)


def expected_by_chance(claims: Sequence[Mapping[str, Any]]) -> float:
    """Return how many of these records of claims would be reproduced, at the most expected, if the paper were wrong."""
    return sum(_false_share(claim) for claim in claims if claim["rule"] != "holds")


def _false_share(claim: Mapping[str, Any]) -> float:
    known = claim.get("characteristics")
    return LEVEL if not known else max(float(known["scenarios"][name]["reproduced"]) for name in known["false"])


@functools.cache
def _record() -> dict[str, dict[str, Any]]:
    if not FILE.is_file():
        return {}
    content: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["designs"]
    return content
