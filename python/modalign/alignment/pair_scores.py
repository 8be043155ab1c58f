"""Scores of metrics that look at every pair of items.

Relabelled scores look the pairs up in tables of n x n numbers that are computed once, where these fit into memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from torch import Tensor

from modalign.alignment.intervals import SPLITS
from modalign.alignment.items import Items
from modalign.alignment.memory import bytes_left_for_tables
from modalign.alignment.nulls import Null
from modalign.alignment.scoring import Interval, Record, Scoring
from modalign.alignment.settings import Settings
from modalign.metrics.inputs import PairedRows
from modalign.metrics.registry import METRICS

__all__ = ["PairScores"]

SECONDS_OF_PAIR = 8e-9  # in which a pair is looked up in a table
TABLE_BYTES = 800_000_000  # the most that tables of pairs may take: 5,773 items


class PairScores(Scoring):
    """The scores of metrics that need "pairs"."""

    def __init__(self, items: Items, settings: Settings, record: Record, names: Iterable[str]) -> None:
        super().__init__(items, settings, record)
        x, y = items.rows
        self.rows = PairedRows(x, y, metric=settings.metric, groups=items.groups)
        with record.timed("pairs"):
            self.values = self.evaluate(names, lambda name: _score(name, self.rows))
            self._record_ties()

    def _record_ties(self) -> None:
        """Keep the best scores that ties allow, and note what they are."""
        for name in self.values:
            metric = METRICS[name]
            best = metric.best if metric.attainable is None else metric.load("attainable")(self.rows)
            if best == metric.best:
                continue
            self.best[name] = best
            bound = "least" if metric.lower_is_closer else "most"
            self.record.note(
                f"items tie for the nearest, so {name} is its expectation over random orders of ties, which is "
                f"{best:.2g} at {bound}; the calibrated score is relative to that"
            )

    def cost_of(self, name: str, *, again: bool = False) -> float:
        # where items tie, relabellings look up the ranks of all that tie for the nearest
        seconds = super().cost_of(name, again=again)
        return max(seconds, SECONDS_OF_PAIR * self.items.n**2) if again and name in self.best else seconds

    def intervals(self) -> dict[str, Interval]:
        # halves and quarters have a half and a quarter of the pairs
        names = self.affordable(self.values, SPLITS[2] / 2 + SPLITS[4] / 4, "interval")
        if not names:
            return {}
        x, y, groups = self.rows.x, self.rows.y, self.rows.groups

        def evaluate_part(names: list[str], kept: Tensor) -> dict[str, float]:
            part_groups = None if groups is None else groups[kept]
            rows = PairedRows(x[kept], y[kept], metric=self.rows.metric, groups=part_groups)
            return self.evaluate_part(names, lambda name: _score(name, rows))

        return self.split_intervals(names, evaluate_part)

    def nulls(self) -> dict[str, Null]:
        nulls: dict[str, Null] = {}
        for name in self.values:
            start = time.perf_counter()
            nulls |= self._null(name)
            self.seconds[name] += time.perf_counter() - start
        return nulls

    def _null(self, name: str) -> dict[str, Null]:
        metric, limit = METRICS[name], bytes_left_for_tables(self.items, self.settings)
        most = TABLE_BYTES if limit is None else min(TABLE_BYTES, limit)
        table_bytes = metric.cost.table_bytes
        if metric.relabelled is not None and table_bytes is not None and table_bytes(self.items.n) <= most:
            score = metric.load("relabelled")(self.rows)
            if score is not None:
                return self.relabelled_nulls([name], lambda _, s: {name: score(s)}, again=True)
        x, y, groups = self.rows.x, self.rows.y, self.rows.groups

        def evaluate_relabelled(names: list[str], s: Tensor) -> dict[str, float]:
            rows = PairedRows(x, y[s], metric=self.rows.metric, groups=groups)
            return {name: _score(name, rows) for name in names}

        return self.relabelled_nulls([name], evaluate_relabelled)


def _score(name: str, rows: PairedRows) -> float:
    value: float = METRICS[name].load("evaluate")(rows)
    return value
