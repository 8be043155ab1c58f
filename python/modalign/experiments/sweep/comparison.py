"""Two sweeps side by side: the same cases under other settings, and what that changes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from modalign.experiments.sweep.findings import Finding, findings
from modalign.experiments.sweep.results import Results, read
from modalign.experiments.sweep.statistics import Estimate, paired_gain, student_t

__all__ = ["Difference", "compare", "different_settings", "settings_that_differ"]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of one modality of one case: what both sweeps found, and the change of test accuracy at the best strength, second
    less first, paired by seed where both have the same seeds."""

    case: str
    name: str
    found: tuple[Finding, Finding]
    accuracy: tuple[float, float]
    change: Estimate
    paired: bool

    @property
    def modality(self) -> int:
        """1 or 2."""
        return self.found[0].modality

    @property
    def best(self) -> tuple[float, float]:
        return self.found[0].best, self.found[1].best

    @property
    def gain(self) -> tuple[Estimate, Estimate]:
        return self.found[0].gain, self.found[1].gain


def compare(first: Path, second: Path) -> list[Difference]:
    """For every case and modality that both finished sweeps have. ValueError where they have none in common."""
    one, two = read(Path(first)), read(Path(second))
    others = {(found.case.label, found.modality): found for found in findings(two)}
    differences = []
    for found in findings(one):
        other = others.get((found.case.label, found.modality))
        if other is None:
            continue
        a, b = _at_best(one, found), _at_best(two, other)
        paired = one.seeds == two.seeds
        differences.append(
            Difference(
                found.case.label, found.name, (found, other), (float(a.mean()), float(b.mean())),
                paired_gain(b, a) if paired else _welch(b, a), paired,
            )
        )  # fmt: skip
    if not differences:
        raise ValueError(f"{first} and {second} have no case in common; a case is known by its label")
    return differences


def settings_that_differ(first: Path, second: Path) -> list[str]:
    """The settings of two sweeps that are not the same, as ``key: value in the first, value in the second``."""
    return [f"{key}: {one} in the first, {two} in the second" for key, one, two in different_settings(first, second)]


def different_settings(first: Path, second: Path) -> list[tuple[str, Any, Any]]:
    """(key, value in the first, value in the second) of each setting that is not the same; None where there is none."""
    one, two = (dict(_leaves(read(Path(folder)).config)) for folder in (first, second))
    keys = [key for key in dict.fromkeys((*one, *two)) if one.get(key) != two.get(key)]
    return [(key, one.get(key), two.get(key)) for key in keys if key != "name"]


def _at_best(results: Results, found: Any) -> Any:
    return results.grid(found.case, f"accuracy_{found.modality}")[:, results.strengths.index(found.best)]


def _welch(after: Any, before: Any) -> Estimate:
    """Mean of after less that of before, and Welch's interval; none where one of them has a single value."""
    mean = float(after.mean() - before.mean())
    if min(len(after), len(before)) < 2:
        return Estimate(mean, None, None)
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (after, before)]
    if not sum(parts):
        return Estimate(mean, mean, mean)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (after, before), strict=True))
    half = student_t(max(1, math.floor(freedom))) * math.sqrt(sum(parts))
    return Estimate(mean, mean - half, mean + half)


def _leaves(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{key}[{i}]")
    else:
        yield key, value
