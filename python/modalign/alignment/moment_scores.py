"""Scores of metrics that are functions of sums over the rows.

The rows are read once for the values, and once more for the sums of a few pieces of the items, which add up to those of
any half or quarter.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from modalign.alignment.intervals import balanced_halves, population_interval, random_parts
from modalign.alignment.items import Items
from modalign.alignment.nulls import Null
from modalign.alignment.scoring import Interval, Record, Scoring
from modalign.alignment.settings import Settings
from modalign.metrics.registry import METRICS
from modalign.metrics.sums import Moments, moments, moments_of_parts, relabelled

__all__ = ["MomentScores"]

PIECES = 16  # of the items, whose moments are held in memory


class MomentScores(Scoring):
    """The scores of metrics that need "moments"."""

    def __init__(self, items: Items, settings: Settings, record: Record, names: Iterable[str]) -> None:
        super().__init__(items, settings, record)
        with record.timed("moments"):
            self.moments = moments(*items.rows)
        self.values = self.evaluate(names, lambda name: _score(name, self.moments))

    def intervals(self) -> dict[str, Interval]:
        names = self.affordable(self.values, 2 * (PIECES - 1), "interval", again=True)
        if not names:
            return {}
        items, settings = self.items, self.settings
        with self.record.timed("intervals"):
            parts = next(random_parts(items.n, PIECES, settings.seed, items.groups, repeats=1))
            pieces = moments_of_parts(*items.rows, parts)
            # halves that are little more than twice as wide as a quarter say little of the whole
            self.evaluate_part(names, lambda name: _score(name, _sum(pieces[: PIECES // 4])), "quarter")
            if not names:
                return {}
            splits = []
            for half in self.steps("interval", names, balanced_halves(PIECES), PIECES - 1):
                splits.append([self._evaluate_pieces(names, pieces, kept) for kept in (half, ~half)])
        return {
            name: population_interval(
                self.values[name],
                [[part[name] for part in split] for split in splits],
                quarters=None,
                confidence=settings.confidence,
                freedom=PIECES - 1,
                within=METRICS[name].range,
            )
            for name in names
        }

    def _evaluate_pieces(self, names: list[str], pieces: list[Moments], kept: Tensor) -> dict[str, float]:
        """Return the values for the pieces that are kept."""
        half = _sum([piece for piece, is_kept in zip(pieces, kept.tolist(), strict=True) if is_kept])
        return self.evaluate_part(names, lambda name: _score(name, half))

    def nulls(self) -> dict[str, Null]:
        nulls = self.closed_form_nulls(self.moments)
        x, y = self.items.rows

        def evaluate_relabelled(names: list[str], s: Tensor) -> dict[str, float]:
            shuffled = relabelled(self.moments, x, y[s])
            return self.evaluate_relabelling(names, lambda name: _score(name, shuffled))

        names = [name for name in self.values if name not in nulls]
        return nulls | self.relabelled_nulls(names, evaluate_relabelled, again=True, inputs=self.moments)


def _score(name: str, sums: Moments) -> float:
    value: float = METRICS[name].load("evaluate")(sums)
    return value


def _sum(pieces: list[Moments]) -> Moments:
    total, *others = pieces
    for piece in others:
        total = total + piece
    return total
