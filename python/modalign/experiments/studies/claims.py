"""Claims of a paper beside our numbers, with verdicts by rules that are fixed before anything is run.

A verdict may be wrong in two ways, and both are simulated (``benchmarks/verdicts.py``): "reproduced" where the paper is
wrong, at most once in twenty for each claim, and anything else where the paper is right, which is why a number that its
interval leaves open is "undecided", with what there is too little of.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from modalign.experiments.studies.characteristics import characteristics_of, key_of
from modalign.experiments.studies.measured import Measured
from modalign.experiments.studies.repetition import Source, fisher

__all__ = ["COMPOUND", "RULES", "WORDS", "Claim", "Lack", "every", "records"]

MARGIN = 0.3  # a correlation within it of 0 is none
POWER, POWER_OF_BOTH = 0.842, 1.282  # of the normal distribution, for a chance of 80 % at one end and at both
RULES = {
    "strong": "A correlation. Reproduced if its interval lies on the paper's side of 0 and it is at least half as "
    "strong as the paper's; partly if it is weaker; not if the interval leaves out half of the paper's; else "
    "undecided.",
    "sign": "A correlation for which the paper gives no number that means the same. Reproduced if its interval lies "
    f"on the paper's side of 0; not if the interval leaves out {MARGIN} on that side; else undecided.",
    "none": f"The paper found about 0. Reproduced if the interval lies within {MARGIN} of 0; not if it lies outside; "
    "else undecided, which it is at nearly every size: so short an interval takes about 100 points.",
    "above": "A number that the paper has above a bound. Reproduced if its interval lies above the bound; not if it "
    "lies below; else undecided.",
    "below": "A number that the paper has below a bound. Reproduced if its interval lies below the bound; not if it "
    "lies above; else undecided.",
    "holds": "A statement that chance has no part in. Reproduced if it holds in every case that it covers; partly if "
    "in at least half; else not.",
}
# claims with parts, by what their designs begin with
COMPOUND = {
    "every": "The rule of its parts holds in every part, as at every U.",
    "ends": "Alignment is above 0.5 at U = 0 and below 0.1 at U = 8.",
    "every falls": "By every kind of change alignment falls by half or more from U = 10 to 100 %.",
    "every left": "By every kind of change half of the paper's alignment over chance or more is left at U = 100 %.",
    "falls": "Accuracy is lower at the greatest strength, and gains no point (1 %) at the chosen one.",
    "rises": "Accuracy is higher at the chosen strength, and loses no point (1 %) at the greatest.",
    "rises then falls": "Accuracy is higher at the chosen strength and falls from there to the greatest, and the best "
    "strength lies in the paper's range.",
    "gains and loses": "Accuracy gains at the chosen strength at R = 8, and falls to the greatest at R = 0.",
}
# what the pages of studies say about verdicts
WORDS = RULES | {
    "Parts": "A claim with parts, as at every U, is reproduced if all of them are, partly if some are and others are "
    "not, and not if some are not and none is. The number in the table is that of the weakest part.",
    "Intervals": "Intervals are of 90 %, so that each end is wrong in 5 %. They draw seeds, units such as "
    "heterogeneities, and points such as depths, whichever say least. Three points or two seeds say nothing.",
    "Undecided": "The interval holds both what the paper found and what would refute it. The verdict names what there "
    "is too little of, with the number that would show the paper's number in four of five studies. A seed draws the "
    "data, where they are made up, and the training of every model anew; a run is one such model, so that a table of "
    "3 seeds, 5 heterogeneities and 5 depths has 75. A number that cannot be measured, such as the correlation of a "
    "constant, is undecided too.",
}


@dataclasses.dataclass(frozen=True)
class Lack:
    """What an undecided claim has too little of.

    Attributes:
        name: what it is, in the plural, such as "seeds" or "depths".
        now: how many there are.
        needed: how many would decide, if the paper is right, in four of five studies; None where that is not known.
        at_least: whether ``needed`` is only the smallest number from which an interval can be had.
    """

    name: str
    now: int
    needed: int | None
    at_least: bool = False


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper and our number.

    Attributes:
        source: the part of the paper.
        text: the claim.
        rule: a key of ``RULES``.
        paper: the paper's number, or None where it made a statement.
        value: our number; NaN where it cannot be measured.
        low, high: its 90 % interval, infinite where an end is open; None where there is none.
        bound: the bound of the rules "above" and "below".
        side: 1 or -1, the sign of the paper's correlation where it gives no number.
        correlation: whether the number lies between -1 and 1.
        design: what was measured, as the record of the rules' characteristics names it.
        sources: the sources of chance of our number.
        parts: claims that must all be reproduced; the number of a claim with parts is that of the weakest.
        changed: the settings of the study that its caller changed, each as ``k = 10 (the paper: 100)``.
    """

    source: str
    text: str
    rule: str
    _: dataclasses.KW_ONLY
    paper: float | None = None
    value: float
    low: float | None = None
    high: float | None = None
    bound: float = 0.0
    side: int = 1
    correlation: bool = True
    design: str = ""
    sources: tuple[Source, ...] = ()
    parts: tuple[Claim, ...] = ()
    changed: tuple[str, ...] = ()

    @classmethod
    def measured(cls, source: str, text: str, rule: str, ours: Measured, **facts: Any) -> Claim:
        """Return a claim with our number and its interval; ``facts`` are paper, bound and side."""
        known = {field.name: getattr(ours, field.name) for field in dataclasses.fields(ours)}
        return cls(source, text, rule, **known, **facts)

    @property
    def verdict(self) -> str:
        """The verdict by the rule: "reproduced", "partly", "not" or "undecided"."""
        if self.parts:
            return _together([part.verdict for part in self.parts])
        if self.rule == "holds":
            return "not" if not self.value >= 0.5 else "reproduced" if self.value >= 1 else "partly"
        if self.low is None or self.high is None or not math.isfinite(self.value):
            return "undecided"
        if self.rule == "none":
            if self.low > -MARGIN and self.high < MARGIN:
                return "reproduced"
            return "not" if self.low > MARGIN or self.high < -MARGIN else "undecided"
        value, low, high = self._towards_the_paper()
        if low > 0:
            return "reproduced" if value >= self._half_of_the_paper() else "partly"
        return "not" if high < self._too_little() else "undecided"

    @property
    def lacking(self) -> list[Lack]:
        """What an undecided claim has too little of; empty where nothing could be measured."""
        if self.verdict != "undecided":
            return []
        if self.parts:
            lacks = [lack for part in self.parts for lack in part.lacking]
        else:
            lacks = [self._lack(source) for source in self.sources if self._by(source) == "undecided"]
        most: dict[tuple[str, int], Lack] = {}
        for lack in lacks:  # like is compared with like: as many of the same name
            known = most.setdefault((lack.name, lack.now), lack)
            if known.needed is not None and (lack.needed is None or lack.needed > known.needed):
                most[lack.name, lack.now] = lack
        return list(most.values())

    def _by(self, source: Source) -> str:
        """Return the verdict that a source of chance alone would give."""
        return dataclasses.replace(self, low=source.low, high=source.high, sources=()).verdict

    def _lack(self, source: Source) -> Lack:
        if source.count < source.fewest:
            return Lack(source.name, source.count, source.fewest, at_least=True)
        scale = fisher if source.is_of_points else float
        if self.rule == "none":  # both ends must stay inside the margin
            distance, chance, observed = scale(MARGIN), POWER_OF_BOTH, math.inf
        else:
            value, too_little = scale(self._towards_the_paper()[0]), scale(self._too_little())
            of_paper = abs(self.paper - self.bound) if self.paper is not None else math.inf
            expected = of_paper if math.isfinite(of_paper) else 2 * MARGIN if self.correlation else math.inf
            distance, chance, observed = scale(expected), POWER, max(abs(value), abs(too_little - value))
        return Lack(source.name, source.count, source.count_for(distance, chance, observed))

    def record(self) -> dict[str, Any]:
        """Return the claim as claims.json holds it: with its verdict and the characteristics of its rule.

        JSON has no infinity and no NaN: a value of None could not be measured, and an end of None is open.
        """
        facts = dataclasses.asdict(self)
        facts["parts"] = [part.record() for part in self.parts]
        lacking = [dataclasses.asdict(lack) for lack in self.lacking]
        known = {"key": self.key, "characteristics": characteristics_of(self.key)}
        record: dict[str, Any] = _finite(facts | {"verdict": self.verdict, "lacking": lacking} | known)
        return record

    @property
    def key(self) -> str:
        """The key of the rule with what it was applied to, in the record of characteristics."""
        return self.design if self.parts else key_of(self.rule, self.paper, self.design)

    def _towards_the_paper(self) -> tuple[float, float, float]:
        """Return our number and its interval so that the paper's side is the positive one."""
        assert self.low is not None
        assert self.high is not None
        value, low, high = (end - self.bound for end in (self.value, self.low, self.high))
        side = self.side if self.paper is None else math.copysign(1, self.paper)
        negative = self.rule == "below" or (self.rule != "above" and side < 0)
        return (-value, -high, -low) if negative else (value, low, high)

    def _half_of_the_paper(self) -> float:
        """Return the least number of a reproduced claim on the paper's side."""
        return abs(self.paper) / 2 if self.rule == "strong" and self.paper is not None else 0.0

    def _too_little(self) -> float:
        """Return the number on the paper's side that an interval must hold for the claim to stay open."""
        if self.rule in ("above", "below"):
            return 0.0
        return self._half_of_the_paper() if self.rule == "strong" and self.paper is not None else MARGIN


def every(source: str, text: str, parts: Sequence[Claim], *, design: str = "") -> Claim:
    """Return the claim that all of ``parts`` hold, with the number of the weakest, which the text names."""
    order = ("not", "undecided", "partly", "reproduced")
    weakest = min(parts, key=lambda part: (order.index(part.verdict), part._towards_the_paper()[1]))
    return dataclasses.replace(
        weakest, source=source, text=f"{text} (weakest: {weakest.text})", parts=tuple(parts), design=design
    )


def records(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Return claims as claims.json holds them."""
    return [claim.record() for claim in claims]


def _together(verdicts: Sequence[str]) -> str:
    """Return the verdict on a claim whose parts have these verdicts."""
    if "not" in verdicts:
        return "partly" if "reproduced" in verdicts else "not"
    return next((verdict for verdict in ("undecided", "partly") if verdict in verdicts), "reproduced")


def _finite(content: Any) -> Any:
    """Return JSON content with None for numbers that are not finite."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
