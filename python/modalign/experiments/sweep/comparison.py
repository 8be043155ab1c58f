"""Comparison of two finished sweeps of the same cases: which settings differ, and what changes with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modalign.experiments.sweep.findings import Finding, findings
from modalign.experiments.sweep.results import Predictor, Results, read
from modalign.experiments.sweep.statistics import Estimate, mean_difference, paired_gain
from modalign.files import settings
from modalign.files.settings import ABSENT

__all__ = ["Difference", "compare", "different_settings", "settings_that_differ"]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Difference between two sweeps for one predictor of one case.

    Args:
        case: Label of the case.
        name: Name of the modality, or "fused model".
        findings: The findings of the first and of the second sweep.
        accuracy: Mean test accuracy of both at their own best strengths.
        change: Second less first of that accuracy, paired by seed where both sweeps have the same seeds.
        paired: True if ``change`` is paired by seed; otherwise its interval is Welch's.
    """

    case: str
    name: str
    findings: tuple[Finding, Finding]
    accuracy: tuple[float, float]
    change: Estimate
    paired: bool

    @property
    def predictor(self) -> Predictor:
        """The predictor, as the first sweep has it."""
        return self.findings[0].predictor

    @property
    def modality(self) -> int:
        """Position of the predictor among those of its case, from 1."""
        return self.predictor.position

    @property
    def best(self) -> tuple[float, float]:
        """Best strengths of the first and of the second sweep."""
        return self.findings[0].best, self.findings[1].best

    @property
    def gain(self) -> tuple[Estimate, Estimate]:
        """Gains at the best strength of the first and of the second sweep."""
        return self.findings[0].gain, self.findings[1].gain


def compare(first: Path, second: Path) -> list[Difference]:
    """Compare every predictor that two finished sweeps have in common: a modality, or the fused model, of one case.

    Args:
        first: Folder of a finished sweep.
        second: Folder of another. Cases are matched by their labels, modalities by their numbers.

    Returns:
        The differences in the order of the first sweep's cases and predictors.

    Raises:
        ValueError: If a folder holds no finished sweep, or the sweeps have no case in common.
    """
    sweeps = read(Path(first)), read(Path(second))
    others = {(other.case.label, other.predictor.suffix): other for other in findings(sweeps[1])}
    paired = sweeps[0].seeds == sweeps[1].seeds
    differences = []
    for finding in findings(sweeps[0]):
        other = others.get((finding.case.label, finding.predictor.suffix))
        if other is None:
            continue
        before, after = _accuracy_at_best(sweeps[0], finding), _accuracy_at_best(sweeps[1], other)
        differences.append(
            Difference(
                case=finding.case.label,
                name=finding.name,
                findings=(finding, other),
                accuracy=(float(before.mean()), float(after.mean())),
                change=paired_gain(after, before) if paired else mean_difference(after, before),
                paired=paired,
            )
        )
    if not differences:
        raise ValueError(f"{first} and {second} have no case in common; a case is known by its label")
    return differences


def settings_that_differ(first: Path, second: Path) -> list[str]:
    """Return the settings that differ between two sweeps, each as ``key: value in the first, value in the second``."""
    return [
        f"{key}: {before} in the first, {after} in the second"
        for key, before, after in different_settings(first, second)
    ]


def different_settings(first: Path, second: Path) -> list[tuple[str, object, object]]:
    """Return (key, value in the first, value in the second) of every setting that differs; None where it is absent."""
    before, after = (read(Path(folder)).config for folder in (first, second))
    sides = [
        (key, None if one is ABSENT else one, None if two is ABSENT else two)
        for key, one, two in settings.different_settings(before, after)
    ]
    return [(key, one, two) for key, one, two in sides if key != "name" and one != two]


def _accuracy_at_best(results: Results, finding: Finding) -> NDArray[np.float64]:
    test = results.grid(finding.case, finding.predictor.column("accuracy"))
    return test[:, results.strengths.index(finding.best)]
