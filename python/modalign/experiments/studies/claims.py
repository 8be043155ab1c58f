"""Claims of a paper beside our numbers, with verdicts by rules that are fixed before anything is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["RULES", "Claim", "bootstrap", "pearson", "pearson_of_means", "spearman", "spearman_of_points"]

RESAMPLES = 2000
RULES = {
    "strong": "A correlation. Reproduced if its 95 % interval leaves out 0 on the paper's side and it is at least half "
    "as strong as the paper's; partly if only its sign is the paper's; else not.",
    "sign": "A correlation for which the paper gives no single number. As above, but any strength will do.",
    "none": "The paper found about 0. Reproduced within 0.3 of 0; partly if the interval holds 0; else not.",
    "holds": "A statement. Reproduced if it holds in every case it covers; partly if in at least half; else not.",
}
Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper and our number.

    Attributes:
        source: the part of the paper.
        text: the claim.
        rule: a key of ``RULES``.
        paper: the paper's number, or None where it made a statement.
        value, low, high: our number and its 95 % interval, or None where there is no interval.
    """

    source: str
    text: str
    rule: str
    _: dataclasses.KW_ONLY
    paper: float | None = None
    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def measured(
        cls, source: str, text: str, rule: str, *, paper: float | None, ours: tuple[float, float, float]
    ) -> Claim:
        """Return a claim with our number and its interval, ``ours`` = (value, low, high)."""
        value, low, high = ours
        return cls(source, text, rule, paper=paper, value=value, low=low, high=high)

    @property
    def verdict(self) -> str:
        """The verdict by the rule: "reproduced", "partly" or "not"."""
        value = self.value
        if not np.isfinite(value):
            return "not"
        if self.rule == "holds":
            return "reproduced" if value >= 1 else "partly" if value >= 0.5 else "not"
        low, high = (value, value) if self.low is None or self.high is None else (self.low, self.high)
        if self.rule == "none":
            return "reproduced" if abs(value) <= 0.3 else "partly" if low <= 0 <= high else "not"
        sign = np.sign(self.paper if self.paper is not None else 1.0)
        clear = min(sign * low, sign * high) > 0
        strong = self.rule == "sign" or self.paper is None or sign * value >= abs(self.paper) / 2
        if clear and strong:
            return "reproduced"
        return "partly" if sign * value > 0 else "not"


def spearman(x: Array, y: Array) -> float:
    """Return Spearman's rank correlation, ties by their mean rank; 0 where one side is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(x), rankdata(y))


def pearson(x: Array, y: Array) -> float:
    """Return Pearson's correlation; 0 where one side is constant."""
    a, b = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def spearman_of_points(x: Sequence[float], values: Array, *, seed: int = 0) -> tuple[float, float, float]:
    """Return Spearman's correlation of x with the mean over seeds of values (seeds, points), and its interval.

    The 95 % interval draws the seeds of every point again, separately for each point, 2,000 times.
    """
    at = np.asarray(x, np.float64)
    rng = np.random.default_rng(seed)
    seeds, points = values.shape
    drawn = rng.integers(0, seeds, (RESAMPLES, seeds, points))
    means = np.take_along_axis(values[None], drawn, 1).mean(1)
    found = np.array([spearman(at, mean) for mean in means])
    low, high = np.quantile(found, [0.025, 0.975])
    return spearman(at, values.mean(0)), float(low), float(high)


def pearson_of_means(x: Array, y: Array, *, seed: int = 0) -> tuple[float, float, float]:
    """Return Pearson's correlation over points of the means over seeds of x and y, (seeds, points), and its interval.

    The 95 % interval draws the points again, and the seeds of each drawn point, 2,000 times. A draw of a single
    repeated point has no correlation and is left out.
    """
    seeds, points = x.shape
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, points, (RESAMPLES, 1, points))
    of_seeds = rng.integers(0, seeds, (RESAMPLES, seeds, points))
    several = (drawn[:, 0] != drawn[:, 0, :1]).any(1)
    a, b = (values[of_seeds, drawn].mean(1)[several] for values in (x, y))
    a, b = (values - values.mean(1, keepdims=True) for values in (a, b))
    norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    found = np.divide((a * b).sum(1), norm, out=np.zeros_like(norm), where=norm > 0).clip(-1, 1)
    low, high = np.quantile(found, [0.025, 0.975])
    return pearson(x.mean(0), y.mean(0)), float(low), float(high)


def bootstrap(
    values: Array, statistic: Callable[[Array], float], *, clusters: Sequence[object] | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Return a statistic of independent values (n,) and its 95 % percentile interval from 2,000 bootstrap samples.

    clusters: n keys; values of one key depend on each other and are drawn together.
    """
    rng = np.random.default_rng(seed)
    keys = list(range(len(values)) if clusters is None else clusters)
    members: dict[object, list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(key, []).append(i)
    rows = list(members.values())
    found = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(rows), len(rows))
        found.append(statistic(values[[i for which in drawn for i in rows[which]]]))
    low, high = np.quantile(found, [0.025, 0.975])
    return statistic(values), float(low), float(high)
