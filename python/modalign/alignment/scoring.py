"""The base of graph, moment and pair scores: timing, what can be afforded, splits of the items, relabelled nulls.

A ``Scoring`` computes the scores of all metrics that need the same thing. The values come first, when it is made, so
that a metric that is not defined for the rows is known at once; ``finish`` adds intervals and nulls, which take longer.
"""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TypeVar

from torch import Tensor

from modalign.alignment.closed_forms import CLOSED_FORMS
from modalign.alignment.intervals import SPLITS, PartScore, population_interval, random_parts
from modalign.alignment.items import Items
from modalign.alignment.nulls import Null, sampled_null
from modalign.alignment.relabelling import random_relabellings
from modalign.alignment.results import Chance, Score
from modalign.alignment.settings import Settings
from modalign.common.progress import bar
from modalign.metrics.cost import AFFORDED, Sizes
from modalign.metrics.registry import METRICS
from modalign.metrics.undefined import UndefinedScoreError

__all__ = ["Interval", "Record", "Scoring"]

NOTHING: Mapping[str, float] = MappingProxyType({})
FEWEST, USUAL = 39, 200  # relabellings where the caller gives no number
UNITS_OF_NEIGHBORS = 16  # items or groups for each of k + 1: a quarter of the items still has four times k

Interval = tuple[float, float]
Evaluate = Callable[[str], float]
Splits = list[list[Mapping[str, PartScore]]]
_Item = TypeVar("_Item")
_Value = TypeVar("_Value", bound=PartScore)


@dataclasses.dataclass
class Record:
    """What a call of ``align`` reports beside the scores: see the attributes of ``Alignment``."""

    facts: dict[str, object] = dataclasses.field(default_factory=dict)
    cost: dict[str, float] = dataclasses.field(default_factory=dict)
    curves: dict[str, object] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a note, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to the cost of the stage."""
        start = time.perf_counter()
        yield
        self.cost[stage] = self.cost.get(stage, 0.0) + time.perf_counter() - start


class Scoring(abc.ABC):
    """The scores of all metrics that need the same thing.

    Attributes:
        values: dict of float. The value of each metric that is defined for the rows, by name.
        seconds: dict of float. The time spent on each metric.
        errors: dict of float. The standard error of values that drawn orders of ties give, by name.
        best: dict of float. The best score that the ties of the rows allow, by name, where it is not the metric's.
        chances: dict of ``Chance``. The mean scores by chance of the metrics that have no null, by name.
    """

    values: dict[str, float]

    def __init__(self, items: Items, settings: Settings, record: Record) -> None:
        self.items, self.settings, self.record = items, settings, record
        self.seconds: dict[str, float] = {}
        self.errors: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.chances: dict[str, Chance] = {}

    @abc.abstractmethod
    def intervals(self) -> dict[str, Interval]:
        """Return the confidence intervals of the metrics that have one."""

    @abc.abstractmethod
    def nulls(self) -> dict[str, Null]:
        """Return the nulls of the metrics that have one."""

    def finish(self) -> dict[str, Score]:
        """Return the scores with their intervals and nulls."""
        intervals = self.intervals() if self.has_intervals() else {}
        nulls = {} if self.settings.null == "none" else self.nulls()
        scores = {}
        for name, value in self.values.items():
            low, high = intervals.get(name, (None, None))
            null = nulls.get(name)
            chance = self.chances.get(name) if null is None else Chance(null.mean, null.relabellings)
            scores[name] = Score(
                metric=name,
                value=value,
                low=low,
                high=high,
                interval="population" if name in intervals else "none",
                null=null,
                chance=chance,
                best=self.best_of(name),
                rows=self.items.n,
                seconds=self.seconds[name],
            )
        return scores

    def has_intervals(self) -> bool:
        """Return whether intervals are asked for and there are items enough for them."""
        needed = UNITS_OF_NEIGHBORS * (self.settings.k + 1)
        if not self.settings.intervals or self.items.units >= needed:
            return self.settings.intervals
        self.record.note(f"no intervals: they need at least {needed} items or groups, got {self.items.units}")
        return False

    # values

    def evaluate(self, names: Iterable[str], evaluate: Evaluate) -> dict[str, float]:
        """Return the values of the metrics that are defined; of a single metric, raise why it is not."""
        values = {}
        for name in names:
            start = time.perf_counter()
            try:
                values[name] = evaluate(name)
            except ValueError as error:
                is_undefined = isinstance(error, UndefinedScoreError) and len(self.settings.names) > 1
                if not (self.settings.asks_for_all or is_undefined):
                    raise
                self.record.note(f"no {name}: {error}")
            else:
                low, high = METRICS[name].range  # which rounding may pass
                values[name] = min(high, max(low, values[name]))
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        return values

    def evaluate_relabelling(self, names: list[str], evaluate: Evaluate) -> dict[str, float]:
        """Return the values under a relabelling; remove from ``names`` the metrics that are not defined for it."""
        values = {}
        for name in list(names):
            try:
                values[name] = evaluate(name)
            except ValueError as error:
                names.remove(name)
                self.record.note(f"no null for {name}, which is not defined for a relabelling of the items: {error}")
        return values

    def evaluate_part(
        self, names: list[str], evaluate: Callable[[str], _Value], part: str = "part"
    ) -> dict[str, _Value]:
        """Return the values for a part of the items; remove from ``names`` the metrics that are not defined for it."""
        values = {}
        for name in list(names):
            start = time.perf_counter()
            try:
                values[name] = evaluate(name)
            except ValueError as error:
                names.remove(name)
                self.record.note(f"no interval for {name}, which is not defined for a {part} of the items: {error}")
            self.seconds[name] += time.perf_counter() - start
        return values

    # what can be afforded

    def best_of(self, name: str) -> float:
        """Return the best score that the rows allow."""
        return self.best.get(name, METRICS[name].best)

    def cost_of(self, name: str, *, again: bool = False) -> float:
        """Return the estimated seconds of one evaluation; ``again``: with what earlier evaluations leave."""
        sizes = Sizes(self.items.n, self.settings.k, *self.items.widths)
        return METRICS[name].seconds(sizes, again=again)

    def affordable(
        self, names: Iterable[str], evaluations: float, purpose: str, *, again: bool = False, advice: str = ""
    ) -> list[str]:
        """Return the metrics of which so many evaluations take at most 40 seconds; note the others."""
        names = list(names)
        cheap = [name for name in names if evaluations * self.cost_of(name, again=again) <= AFFORDED]
        if len(cheap) < len(names):
            skipped = ", ".join(name for name in names if name not in cheap)
            self.record.note(f"no {purpose} for {skipped}, which would take too long{advice}")
        return cheap

    # intervals

    def split_intervals(
        self, names: list[str], evaluate_part: Callable[[list[str], Tensor], Mapping[str, PartScore]]
    ) -> dict[str, Interval]:
        """Return intervals from the halves and quarters of random splits.

        Args:
            names: list of str. The metrics.
            evaluate_part: function of the names and a bool tensor of shape (n,), true for the items of the part. It
                returns the values, and removes from the names the metrics that are not defined for the part.
        """
        names = list(names)
        n, groups, seed = self.items.n, self.items.groups, self.settings.seed
        values: dict[int, Splits] = {parts: [] for parts in SPLITS}
        splits = ((parts, part) for parts in SPLITS for part in random_parts(n, parts, seed, groups))
        with self.record.timed("intervals"):
            for parts, part in self.steps("interval", names, splits, sum(SPLITS.values())):
                values[parts].append([evaluate_part(names, part == number) for number in range(parts)])

        def scores(name: str, parts: int) -> list[list[PartScore]]:
            return [[part[name] for part in split] for split in values[parts]]

        return {
            name: population_interval(
                self.values[name],
                halves=scores(name, 2),
                quarters=scores(name, 4),
                confidence=self.settings.confidence,
                within=METRICS[name].range,
                error=self.errors.get(name, 0.0),
            )
            for name in names
        }

    # nulls

    def closed_form_nulls(self, inputs: object) -> dict[str, Null]:
        """Return the nulls of the metrics whose null is known in closed form and holds for these inputs.

        A closed form is over all relabellings, so there is none with groups or classes.
        """
        items, settings = self.items, self.settings
        if settings.null != "auto" or items.groups is not None or items.within is not None:
            return {}
        nulls = {}
        for name, value in self.values.items():
            form = METRICS[name].closed_form
            null = None if form is None else CLOSED_FORMS[form](inputs, value, settings.confidence, self.best_of(name))
            if null is not None:
                nulls[name] = null
        return nulls

    def relabelled_nulls(
        self,
        names: Iterable[str],
        evaluate_relabelled: Callable[[list[str], Tensor], dict[str, float]],
        *,
        again: bool = False,
        compared: Mapping[str, float] = NOTHING,
        inputs: object = None,
    ) -> dict[str, Null]:
        """Return the nulls of the metrics that can be evaluated often enough.

        Args:
            names: The metrics.
            evaluate_relabelled: function of the names and a permutation s (n,). It returns the values with item s[i] of
                y beside item i of x.
            again: bool. As in ``cost_of``.
            compared: What relabelled values are compared with, by name, where it is not the value.
            inputs: The inputs of the metrics' evaluators, for means by chance in closed form.
        """
        every, settings = list(names), self.settings
        names, count = every, settings.relabellings
        if count is None:
            advice = f"; give relabellings={FEWEST} or more to have it computed"
            names = self.affordable(names, FEWEST, "null", again=again, advice=advice)
            self._record_chances([name for name in every if name not in names], evaluate_relabelled, inputs)
            slowest = max((self.cost_of(name, again=again) for name in names), default=1.0)
            count = int(min(USUAL, max(FEWEST, AFFORDED / slowest)))
        if not names:
            return {}
        within = self.items.within
        drawn = random_relabellings(self.items.n, count, settings.seed, within=within, units=self.items.groups)
        with self.record.timed("nulls"):
            scores = [evaluate_relabelled(names, s) for s in self.steps("null", names, drawn, count)]
        return {
            name: sampled_null(
                self.values[name],
                [values[name] for values in scores],
                settings.confidence,
                within_groups=within is not None,
                best=self.best_of(name),
                lower_is_closer=METRICS[name].lower_is_closer,
                compared=compared.get(name),
            )
            for name in names
        }

    def _record_chances(
        self,
        names: list[str],
        evaluate_relabelled: Callable[[list[str], Tensor], dict[str, float]],
        inputs: object,
    ) -> None:
        """Record the mean by chance of metrics that are too slow for a null: exactly, or of a few relabellings."""
        for name in names:
            free = self.items.groups is None and self.items.within is None
            if free and METRICS[name].mean_by_chance is not None:
                self.chances[name] = Chance(METRICS[name].load("mean_by_chance")(inputs), 0)
                continue
            count = max(1, int(AFFORDED / self.cost_of(name)))
            drawn = random_relabellings(
                self.items.n, count, self.settings.seed, within=self.items.within, units=self.items.groups
            )
            with self.record.timed("nulls"):
                scores = [evaluate_relabelled([name], s).get(name) for s in self.steps("chance", [name], drawn, count)]
            defined = [score for score in scores if score is not None]
            if defined:
                self.chances[name] = Chance(sum(defined) / len(defined), len(defined))

    def steps(self, purpose: str, names: list[str], steps: Iterable[_Item], total: int) -> Iterator[_Item]:
        """Yield the steps of a long computation while a progress bar shows them."""
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        with bar(self.settings.progress) as progress:
            task = progress.add_task(f"{purpose} of {names[0]}{others}", total=total)
            for step in steps:
                yield step
                progress.advance(task)
