"""Findings, numbers and tables in words, which pages and the command line share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import Any

from modalign.alignment.nulls import Null
from modalign.alignment.results import Score
from modalign.experiments.studies.changes import changes_of
from modalign.experiments.studies.characteristics import expected_by_chance, nearest_key
from modalign.experiments.studies.registry import STUDIES
from modalign.experiments.sweep.findings import Finding
from modalign.experiments.sweep.statistics import Estimate
from modalign.metrics.registry import METRICS

__all__ = [
    "Table",
    "accuracy",
    "at_the_floor",
    "baseline_name",
    "baseline_of",
    "capitalised",
    "chance_of",
    "changes_in_words",
    "claims_table",
    "closer",
    "counted",
    "fixed",
    "interval_of",
    "points",
    "protocol_in_words",
    "rounded",
    "sentences",
    "signed_points",
    "strength",
    "strength_range",
    "title_of",
    "verdict_counts",
    "verdict_of",
]


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        name (str): The identifier of its section.
        title (str): The heading of its section.
        columns (sequence of str): The names of the columns.
        rows (sequence of sequences of str): The cells.
        lead (str): A sentence above the table.
        wide (sequence of int): The columns, from 0, whose text may be broken into lines; 0 always is.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    lead: str = ""
    wide: Sequence[int] = ()


def strength(value: float) -> str:
    """Return a strength as short as it can be, such as ``0.3``."""
    return f"{value:g}"


def strength_range(finding: Finding) -> str:
    """Return the best strength with its range, ``0.4 [0.2, 0.6]``, or ``0.4`` where one seed gives no range."""
    if finding.best_range is None:
        return strength(finding.best)
    return f"{strength(finding.best)} [{strength(finding.best_range[0])}, {strength(finding.best_range[1])}]"


def points(change: Estimate, *, sign: bool = True, unit: str = " points") -> str:
    """Return a change of accuracy in percentage points with its interval, such as ``+1.9 points [0.8, 3.0]``.

    Args:
        change (Estimate): The change as a fraction.
        sign (bool): Whether a change above 0 has a plus.
        unit (str): The text after the number.
    """
    mean = f"{_decimal(change.mean, sign=sign)}{unit}"
    if change.low is None or change.high is None:
        return mean
    return f"{mean} [{_decimal(change.low)}, {_decimal(change.high)}]"


def signed_points(fraction: float) -> str:
    """Return a change of accuracy in percentage points with its sign and a typographic minus, such as ``−0.4``."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", "−")


def accuracy(value: Estimate) -> str:
    """Return an accuracy in percent with its half-width, such as ``68.1 ± 0.9``."""
    half = value.half_width
    return f"{100 * value.mean:.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def _decimal(fraction: float, *, sign: bool = False) -> str:
    value = 100 * fraction
    # a second decimal where one would turn a bound that is not zero into zero, and so hide on which side of it it lies
    digits = 1 if abs(value) >= 0.05 else 2
    return f"{round(value, digits) or 0.0:{'+' if sign else ''}.{digits if round(value, digits) else 1}f}"


def baseline_of(strengths: Sequence[float]) -> str:
    """Return the name of the baseline of a sweep: ``no alignment``, or the smallest strength where 0 is missing."""
    return "no alignment" if strengths[0] == 0 else f"strength {strength(strengths[0])}"


def baseline_name(finding: Finding) -> str:
    """Return the name of the baseline of a finding."""
    return baseline_of([finding.baseline])


def sentences(findings: Sequence[Finding]) -> list[str]:
    """Return one sentence for each case, which names the models that gain first.

    Args:
        findings (sequence of Finding): The findings; those of one case stand together.
    """
    return [_sentence(list(group)) for _, group in groupby(findings, key=lambda finding: finding.case.label)]


def _sentence(group: Sequence[Finding]) -> str:
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


def _subject(finding: Finding) -> str:
    return f"the {finding.name}" if finding.predictor.fused else finding.name


def _clause(finding: Finding) -> str:
    """Return the clause about one model: its best strength and gain, its trend, and the cost of the strongest."""
    best = f"best strength for {_subject(finding)} is {strength_range(finding)}"
    if finding.trend is None:
        return f"{best}, the baseline" if finding.best == finding.baseline else f"{best}, {_over(finding)}"
    remarks: list[str] = [finding.trend]
    if finding.gains:
        clause = f"{best}, {_over(finding)}"
    else:
        clause = f"no gain for {_subject(finding)}"
        at_best = f"{points(finding.gain)} at the strength validation chose, {strength_range(finding)}"
        remarks.append(_baseline_chosen(finding) if finding.best == finding.baseline else at_best)
    if finding.best != finding.strongest:
        if finding.end.negative:
            remarks.append(f"strength {strength(finding.strongest)} costs {points(_cost(finding.end), sign=False)}")
        elif finding.end.positive and not finding.gains:
            remarks.append(f"strength {strength(finding.strongest)} adds {points(finding.end)}")
    return f"{clause} ({', '.join(remarks)})"


def _baseline_chosen(finding: Finding) -> str:
    """Return that the baseline is best where the data tell, and else that validation chose it."""
    baseline = finding.baseline
    if finding.trend == "falls" and finding.best_range == (baseline, baseline):
        return f"best {'without alignment' if baseline == 0 else f'at {baseline_name(finding)}'}"
    return f"validation chose {baseline_name(finding)}, {strength_range(finding)}"


def _over(finding: Finding) -> str:
    return f"{points(finding.gain)} over {baseline_name(finding)}"


def _cost(change: Estimate) -> Estimate:
    """Return a change with its sign turned."""
    low, high = change.high, change.low
    return Estimate(-change.mean, None if low is None else -low, None if high is None else -high)


def claims_table(claims: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of a paper's numbers beside those of a study, with the verdicts."""
    rows = []
    for claim in claims:
        known = claim["value"] is not None and isfinite(claim["value"])
        measured = rounded(claim["value"]) if known else "not measurable"
        interval = _interval(claim) if known and claim["rule"] != "holds" else ""
        if claim["rule"] == "holds":
            measured = ""
        published = "" if claim["paper"] is None else rounded(claim["paper"])
        texts = (str(claim["text"]), str(claim["source"]))
        rows.append((*texts, published, measured, interval, verdict_of(claim)))
    return Table(
        "verdicts",
        "Claims and verdicts",
        columns=("claim", "source", "paper", "here", "90 % interval", "verdict"),
        rows=rows,
        lead="The rules for the verdicts were fixed before anything was run; they are listed at the end of this page.",
        wide=(5,),  # an undecided claim says what it lacks
    )


def protocol_in_words(settings: Mapping[str, Any]) -> str:
    """Return what a study of a paper followed, from the settings that settings.json has."""
    if settings["protocol"] == "default":
        return (
            "This study followed our own choices where we hold them to be better than the paper's. "
            "docs/experiments.md lists every difference and its reason. A number of the paper stands only beside a "
            "number that means the same."
        )
    if not STUDIES[settings["study"]].published_code:
        return "This study has the paper's grid. The paper publishes no code, so that encoders and training are ours."
    changes = changes_of(settings)
    small = "; ".join(str(change) for change in changes if not change.by_user)
    return (
        f"This study followed the paper's published code{'' if changes else ' step by step'}"
        f"{f', with smaller settings, because --full was not given: {small}' if small else ''}. docs/experiments.md "
        "lists what that code does differently from our default."
    )


def changes_in_words(settings: Mapping[str, Any]) -> list[str]:
    """Return the sentence on the settings of a study that its caller changed, if there are any."""
    changes = [str(change) for change in changes_of(settings) if change.by_user]
    if not changes:
        return []
    return [
        f"Changed by you: {'; '.join(changes)}. The paper's number is left out where such a setting gives ours another "
        "meaning."
    ]


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, with an s where it is not one: ``1 seed``, ``1,024 pairs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def verdict_of(claim: Mapping[str, Any]) -> str:
    """Return the verdict on a claim, with what an undecided one has too little of."""
    lacking = [_lack(lack) for lack in claim.get("lacking", ())]
    return f"undecided: it would take {', and '.join(lacking)}" if lacking else str(claim["verdict"])


def _lack(lack: Mapping[str, Any]) -> str:
    name, now, needed = lack["name"], lack["now"], lack["needed"]
    if needed is None:
        return f"more {name} than {now:,}"
    return f"{needed:,} {name} or more, not {now:,}" if lack["at_least"] else f"about {needed:,} {name}, not {now:,}"


def _interval(claim: Mapping[str, Any]) -> str:
    low, high = _end(claim["low"]), _end(claim["high"])
    return "open" if low == high == "open" else f"{low} to {high}"


def _end(end: float | None) -> str:
    """Return an end of an interval with two decimals, or more where they would hide on which side of 0 it lies."""
    if end is None or not isfinite(end):
        return "open"
    if end == 0 or abs(end) >= 0.005:
        return rounded(end)
    side = "above" if end > 0 else "below"
    return f"just {side} 0" if abs(end) < 5e-4 else f"{end:.1g}".replace("-", "−")


def rounded(value: object) -> str:
    """Return a number with two decimals, a typographic minus, and no minus before a zero."""
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def verdict_counts(claims: Sequence[Mapping[str, Any]], noun: str = "claim", whose: str = "") -> str:
    """Return how many claims of a study have each verdict, and how many of them chance would reproduce.

    Args:
        claims (sequence of mappings): The claims with their verdicts.
        noun (str): What a claim is called.
        whose (str): What follows the noun, with a space before it.
    """
    if not claims:
        return "The study has too few runs or too few values of its settings to judge a claim of the paper."
    verdicts = [claim["verdict"] for claim in claims]
    reproduced, partly, not_reproduced = (verdicts.count(verdict) for verdict in ("reproduced", "partly", "not"))
    undecided = verdicts.count("undecided")
    counts = (
        f"Of {counted(len(claims), noun)}{whose}, {reproduced} {'is' if reproduced == 1 else 'are'} reproduced, "
        f"{partly} partly, {not_reproduced} not, and {undecided} {'is' if undecided == 1 else 'are'} undecided."
    )
    by_chance = expected_by_chance(claims)
    chance = f"If all of them were false, {by_chance:.2g} would be expected to be reproduced by chance."
    return " ".join([counts, chance, *_not_simulated(claims)])


def _not_simulated(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence on the claims whose rule was not simulated at their size, and what was."""
    new = [claim for claim in claims if claim["rule"] != "holds" and not claim.get("characteristics")]
    keys = {str(claim["key"]): nearest_key(str(claim["key"])) for claim in new if claim.get("key")}
    if not keys:
        return []
    listed = "; ".join(f"{key} (the nearest is {near})" if near else key for key, near in keys.items())
    return [f"5 % is assumed of these rules and sizes, which were not simulated: {listed}."]


def mean_by_chance(score: Score, digits: int = 4) -> str:
    """Return the mean score by chance, with the number of relabellings where they are few; "" where it is not known."""
    if score.chance is None:
        return ""
    few = score.null is None and score.chance.relabellings > 0
    return fixed(score.chance.mean, digits) + (f" (of {score.chance.relabellings})" if few else "")


def chance_of(score: Score) -> str:
    """Return the p-value of a score, with a sign of inequality where it is only a bound; empty without a null."""
    if score.null is None:
        return ""
    if score.null.p < 1e-12:
        return "< 1e-12"
    return f"{'≤ ' if at_the_floor(score.null) else ''}{score.null.p:.2g}"


def at_the_floor(null: Null) -> bool:
    """Return whether no relabelling reached the score, so that p is only bounded by their number."""
    return null.relabellings > 0 and null.p * (null.relabellings + 1) < 1 + 1e-9


def title_of(metric: str) -> str:
    """Return the title of a metric; that of a distance says that lower is closer."""
    return f"{METRICS[metric].title}{closer(metric)}"


def closer(metric: str, before: str = " ") -> str:
    """Return ``(lower is closer)`` after ``before`` where the metric is a distance, else nothing."""
    return f"{before}(lower is closer)" if METRICS[metric].best == 0 else ""


def capitalised(text: str) -> str:
    """Return ``text`` with a capital first letter and the other letters as they are."""
    return text[0].upper() + text[1:]


def fixed(value: float, digits: int = 4) -> str:
    """Return a number with so many decimals, and no minus before a zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def interval_of(score: Score, digits: int = 4) -> str:
    """Return the interval of a score as ``0.1 to 0.2``; empty where it has none."""
    if score.low is None or score.high is None:
        return ""
    return f"{fixed(score.low, digits)} to {fixed(score.high, digits)}"
