"""Findings in words: one sentence for each case, which names the modalities that gain first."""

from __future__ import annotations

from itertools import groupby

from modalign.alignment.nulls import Null
from modalign.alignment.results import Score
from modalign.experiments.sweep.findings import Finding
from modalign.experiments.sweep.statistics import Estimate
from modalign.metrics.registry import METRICS

__all__ = [
    "accuracy",
    "at_the_floor",
    "baseline_name",
    "chance_of",
    "closer",
    "fixed",
    "interval_of",
    "points",
    "sentences",
    "strength",
    "strength_range",
    "title_of",
]


def strength(value: float) -> str:
    return f"{value:g}"


def strength_range(finding: Finding) -> str:
    """``0.4 [0.2, 0.6]``, or ``0.4`` where one seed gives no range."""
    if finding.best_range is None:
        return strength(finding.best)
    return f"{strength(finding.best)} [{strength(finding.best_range[0])}, {strength(finding.best_range[1])}]"


def points(change: Estimate, *, sign: bool = True, unit: str = " points") -> str:
    """A change of accuracy in percentage points, ``+1.9 points [0.8, 3.0]``."""
    mean = f"{_decimal(change.mean, sign=sign)}{unit}"
    if change.low is None or change.high is None:
        return mean
    return f"{mean} [{_decimal(change.low)}, {_decimal(change.high)}]"


def accuracy(value: Estimate) -> str:
    """An accuracy in percent, ``68.1 ± 0.9``."""
    half = value.half_width
    return f"{100 * value.mean:.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def _decimal(fraction: float, *, sign: bool = False) -> str:
    value = 100 * fraction
    # a second decimal where one would turn a bound that is not zero into zero, and so hide on which side of it it lies
    digits = 1 if abs(value) >= 0.05 else 2
    return f"{round(value, digits) or 0.0:{'+' if sign else ''}.{digits if round(value, digits) else 1}f}"


def baseline_name(finding: Finding) -> str:
    return "no alignment" if finding.baseline == 0 else f"strength {strength(finding.baseline)}"


def sentences(found: list[Finding]) -> list[str]:
    """One sentence for each case of ``found``, whose findings of one case stand together."""
    return [_sentence(list(group)) for _, group in groupby(found, key=lambda finding: finding.case.label)]


def _sentence(group: list[Finding]) -> str:
    first = group[0]
    if first.baseline == first.strongest:
        only = strength(first.baseline)
        return f"{first.case.label}: only strength {only} was run, so there is nothing to compare."
    clauses = [_clause(finding) for finding in sorted(group, key=lambda finding: not finding.gains)]
    if first.trend is None:
        clauses.append("one seed, so no interval can be given")
    if first.baseline != 0:
        clauses.append(f"there is no strength 0, so the smallest, {strength(first.baseline)}, is the baseline")
    return f"{first.case.label}: {'; '.join(clauses)}."


def _clause(finding: Finding) -> str:
    best = f"best strength for {finding.name} is {strength_range(finding)}"
    without = "without alignment" if finding.baseline == 0 else f"at {baseline_name(finding)}"
    if finding.trend is None:
        return f"{best}, the baseline" if finding.best == finding.baseline else f"{best}, {_over(finding)}"
    remarks: list[str] = [finding.trend]
    if finding.gains:
        clause = f"{best}, {_over(finding)}"
    else:
        clause = f"no gain for {finding.name}"
        at_best = f"{points(finding.gain)} at the strength validation chose, {strength_range(finding)}"
        remarks.append(f"best {without}" if finding.best == finding.baseline else at_best)
    if finding.best != finding.strongest:
        if finding.end.negative:
            remarks.append(f"strength {strength(finding.strongest)} costs {points(_cost(finding.end), sign=False)}")
        elif finding.end.positive and not finding.gains:
            remarks.append(f"strength {strength(finding.strongest)} adds {points(finding.end)}")
    return f"{clause} ({', '.join(remarks)})"


def _over(finding: Finding) -> str:
    return f"{points(finding.gain)} over {baseline_name(finding)}"


def _cost(change: Estimate) -> Estimate:
    low, high = change.high, change.low
    return Estimate(-change.mean, None if low is None else -low, None if high is None else -high)


def chance_of(score: Score) -> str:
    """The p-value, as short as it is sure."""
    if score.null is None:
        return ""
    if score.null.p < 1e-12:
        return "< 1e-12"
    return f"{'≤ ' if at_the_floor(score.null) else ''}{score.null.p:.2g}"


def at_the_floor(null: Null) -> bool:
    """Whether no relabelling reached the score: p is then the least that so many can give, and may be less."""
    return null.relabellings > 0 and null.p * (null.relabellings + 1) < 1 + 1e-9


def title_of(metric: str) -> str:
    """A metric's title; a distance's says which way is closer."""
    return f"{METRICS[metric].title}{closer(metric)}"


def closer(metric: str, before: str = " ") -> str:
    return f"{before}(lower is closer)" if METRICS[metric].best == 0 else ""


def fixed(value: float, digits: int = 4) -> str:
    """So many decimals, and no minus before a zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def interval_of(score: Score, digits: int = 4) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"{fixed(score.low, digits)} to {fixed(score.high, digits)}"
