"""Claims of a paper beside our numbers, with verdicts by rules that are fixed before anything is run.

A verdict may be wrong in two ways, and both are simulated (``benchmarks/verdicts.py``): "reproduced" where the paper is
wrong, at most once in twenty for each claim, and anything else where the paper is right, which is why a number that its
interval leaves open is "undecided", with the number of runs that it would take.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from modalign.experiments.studies.characteristics import characteristics_of, key_of
from modalign.experiments.studies.measured import Measured

__all__ = ["RULES", "Claim", "every", "records"]

MARGIN = 0.3  # a correlation within it of 0 is none
POWER = 0.842  # of the normal distribution, for a chance of 80 %
QUANTILE = 1.645  # and for an end of an interval that is wrong in 5 %
RULES = {
    "strong": "A correlation. Reproduced if its interval lies on the paper's side of 0 and it is at least half as "
    "strong as the paper's; partly if it is weaker; not if the interval leaves out half of the paper's; else "
    "undecided.",
    "sign": "A correlation for which the paper gives no number that means the same. Reproduced if its interval lies "
    f"on the paper's side of 0; not if the interval leaves out {MARGIN} on that side; else undecided.",
    "none": f"The paper found about 0. Reproduced if the interval lies within {MARGIN} of 0; not if it lies outside; "
    "else undecided.",
    "above": "A number that the paper has above a bound. Reproduced if its interval lies above the bound; not if it "
    "lies below; else undecided.",
    "below": "A number that the paper has below a bound. Reproduced if its interval lies below the bound; not if it "
    "lies above; else undecided.",
    "holds": "A statement that chance has no part in. Reproduced if it holds in every case that it covers; partly if "
    "in at least half; else not.",
    "Parts": "A claim with parts, as at every U, is reproduced if all of them are, partly if some are and others are "
    "not, and not if some are not and none is. The number in the table is that of the weakest part.",
    "Intervals": "Intervals are of 90 %, so that each end is wrong in 5 %. They draw seeds, data and points, whichever "
    "says least. Of three points or of a single seed nothing can be said.",
    "Undecided": "The interval holds both what the paper found and what would refute it. The number of runs is what it "
    "would take to show the paper's number in four of five studies. A number that cannot be measured, such as the "
    "correlation of a constant, is undecided too.",
}


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper and our number.

    Attributes:
        source: the part of the paper.
        text: the claim.
        rule: a key of ``RULES``.
        paper: the paper's number, or None where it made a statement.
        value, low, high: our number and its 90 % interval, or None where there is no interval.
        half: half the width of the interval, of a correlation in Fisher's z, or None.
        runs: the number of models behind our number, or None.
        bound: the bound of the rules "above" and "below".
        side: 1 or -1, the sign of the paper's correlation where it gives no number.
        correlation: whether the number lies between -1 and 1.
        design: what was measured, as the record of the rules' characteristics names it.
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
    half: float | None = None
    runs: int | None = None
    bound: float = 0.0
    side: int = 1
    correlation: bool = True
    design: str = ""
    parts: tuple[Claim, ...] = ()
    changed: tuple[str, ...] = ()

    @classmethod
    def measured(cls, source: str, text: str, rule: str, ours: Measured, **facts: Any) -> Claim:
        """Return a claim with our number and its interval; ``facts`` are paper, bound and side."""
        return cls(source, text, rule, **dataclasses.asdict(ours), **facts)

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
    def needed(self) -> int | None:
        """The number of runs that would decide an undecided claim, to two digits; None where none would."""
        if self.verdict != "undecided":
            return None
        if self.parts:
            needed = [part.needed for part in self.parts if part.verdict == "undecided"]
            return None if any(n is None for n in needed) else max(n for n in needed if n is not None)
        if self.half is None or self.runs is None or not math.isfinite(self.value):
            return None
        scale = _fisher if self.correlation else float
        half = max(self.half, 1e-9)
        if self.rule == "none":
            # both ends must stay inside the margin
            factors = [(QUANTILE + 1.282) / QUANTILE * half / _fisher(MARGIN)]
        else:
            value = scale(self._towards_the_paper()[0])
            factors = [half / max(abs(value), abs(scale(self._too_little()) - value), 1e-9)]
            expected = (
                abs(self.paper - self.bound) if self.paper is not None else 2 * MARGIN if self.correlation else None
            )
            if expected:
                factors.append((QUANTILE + POWER) / QUANTILE * half / scale(expected))
        digits = math.ceil(self.runs * max(1.1, *factors) ** 2)
        return int(float(f"{digits:.2g}"))

    def record(self) -> dict[str, Any]:
        """Return the claim as claims.json holds it: with its verdict and the characteristics of its rule."""
        facts = dataclasses.asdict(self)
        facts["parts"] = [part.record() for part in self.parts]
        known = characteristics_of(self.key)
        return facts | {"verdict": self.verdict, "needed": self.needed, "characteristics": known}

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
    runs = sum(part.runs or 0 for part in parts)
    return dataclasses.replace(
        weakest, source=source, text=f"{text} (weakest: {weakest.text})", parts=tuple(parts), design=design, runs=runs
    )


def records(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Return claims as claims.json holds them."""
    return [claim.record() for claim in claims]


def _together(verdicts: Sequence[str]) -> str:
    """Return the verdict on a claim whose parts have these verdicts."""
    if "not" in verdicts:
        return "partly" if "reproduced" in verdicts else "not"
    return next((verdict for verdict in ("undecided", "partly") if verdict in verdicts), "reproduced")


def _fisher(value: float) -> float:
    """Return Fisher's z of a correlation, finite for 1."""
    return math.atanh(min(0.999, max(-0.999, value)))
