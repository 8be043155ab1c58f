"""How often the rule of a claim is right, by simulation: the record that ``python -m benchmarks.verdicts`` makes."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["FILE", "characteristics_of", "expected_by_chance", "key_of", "nearest_key"]

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


def nearest_key(key: str) -> str | None:
    """Return the simulated rule and design nearest to a key: of the same statistic, then in size, then in number.

    None where no such statistic was simulated.
    """
    statistic, rule, size = _parsed(key)
    like = []
    for other in _record():
        known = _parsed(other)
        if known[0] == statistic and len(known[2]) == len(size):
            apart = sum(abs(math.log(a / b)) for a, b in zip(size, known[2], strict=True) if a and b)
            like.append((apart, _unlikeness(rule, known[1]), _difference(rule, known[1]), other))
    return min(like)[-1] if like else None


def _parsed(key: str) -> tuple[str, str, tuple[int, ...]]:
    """Return the statistic of a key without its sizes, its rule with the paper's number, and the sizes."""
    rule, _, design = key.rpartition(", ")
    words = [word for word in design.split() if not word[0].isdigit()]
    numbers = [number for word in design.split() if word[0].isdigit() for number in word.split("x")]
    return " ".join(words), rule, tuple(int(number) for number in numbers)


def _unlikeness(rule: str, other: str) -> int:
    """Return 0 for one rule, 1 for two that want a relation, and 2 where one of them wants none."""
    words = {rule.partition(" ")[0], other.partition(" ")[0]}
    return len(words) - 1 + ("none" in words and len(words) > 1)


def _difference(rule: str, other: str) -> float:
    """Return how far the paper's numbers of two rules are apart; 2 where one has none."""
    numbers = [text.partition(" ")[2] for text in (rule, other)]
    return abs(float(numbers[0]) - float(numbers[1])) if all(numbers) else 2.0


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
