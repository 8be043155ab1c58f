"""What all metrics of one call of ``align`` share: their values, then the intervals and nulls around them.

Each graph is searched once, with lists a little longer than k, and each table is read once: metrics, intervals and
nulls come from what that leaves.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from modalign.alignment import sampling
from modalign.alignment.intervals import (
    SPLITS,
    balanced_halves,
    list_length,
    population_interval,
    random_parts,
    within_part,
)
from modalign.alignment.nulls import (
    Null,
    cka_null,
    cka_tail_holds,
    mutual_knn_null,
    random_relabellings,
    sampled_null,
    unbiased_cka_null,
)
from modalign.alignment.results import Score
from modalign.common.progress import bar
from modalign.files.rows import indexable, open_rows
from modalign.metrics.cost import AFFORDED, Sizes
from modalign.metrics.diagnostics import duplicates, hubness, reciprocity, zero_rows
from modalign.metrics.inputs import Graphs, PairedRows, group_weights, mean_over_items
from modalign.metrics.pair_tables import bytes_of_tables, relabelled_pairs
from modalign.metrics.registry import METRICS
from modalign.metrics.sums import Moments, moments, moments_of_parts, relabelled
from modalign.neighbors.blocks import bytes_of
from modalign.neighbors.functional import knn, neighbor_overlap

__all__ = ["Measurement"]

PIECES = 16  # of the items, whose moments are held
FEWEST, USUAL = 39, 200  # relabellings
HELD = 800_000_000  # bytes of the tables that relabellings look up: 5,773 items

_Splits = list[list[dict[str, float]]]
_Item = TypeVar("_Item")


@dataclasses.dataclass
class Measurement:
    """Of two representations: what was asked for, what all metrics share, and what was found on the way."""

    x: Any
    y: Any
    n: int
    k: int
    metric: str
    groups: Tensor | None
    within: Tensor | None
    null: str
    relabellings: int | None
    intervals: bool
    confidence: float
    seed: int
    max_memory: int | str | None
    num_threads: int | None
    progress: bool
    if_defined: bool  # leave out metrics that are not defined for these rows
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    cost: dict[str, float] = dataclasses.field(default_factory=dict)
    curves: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.cost[stage] = self.cost.get(stage, 0.0) + time.perf_counter() - start

    def _computed(self, names: list[str], of: Callable[[str], float], spent: dict[str, float]) -> dict[str, float]:
        """The values of all metrics, or of those that are defined."""
        found = {}
        for name in names:
            start = time.perf_counter()
            try:
                found[name] = of(name)
            except ValueError as error:
                if not self.if_defined:
                    raise
                self.notes.append(f"no {name}: {error}")
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
        return found

    def _of_part(self, names: list[str], of: Callable[[str], float], spent: dict[str, float]) -> dict[str, float]:
        """The values for a part of the items; a metric that it does not have is taken out of ``names``."""
        found = {}
        for name in list(names):
            start = time.perf_counter()
            try:
                found[name] = of(name)
            except ValueError as error:
                names.remove(name)
                self.notes.append(f"no interval for {name}, for a part of the items: {error}")
            spent[name] += time.perf_counter() - start
        return found

    # sampled rows

    def of_sample(self, names: list[str], sample: int | None, tolerance: float | None) -> dict[str, Score]:
        if not names:
            return {}
        with self.timed("sample"):
            estimates = sampling.sampled_scores(
                self.x, self.y, names, self.k, metric=self.metric, groups=self.groups, sample=sample,
                tolerance=tolerance, confidence=self.confidence, seed=self.seed, max_memory=self.max_memory,
                num_threads=self.num_threads, progress=self.progress,
            )  # fmt: skip
        if self.null != "none":
            self.notes.append(f"no null for a sample; by chance mutual k-NN is {self._chance(self.k):.2g} in the mean")
        seconds = self.cost["sample"] / len(names)
        return {
            name: Score(name, found.value, found.low, found.high, "these items", None, found.sample, seconds)
            if self.intervals
            else Score(name, found.value, None, None, "none", None, found.sample, seconds)
            for name, found in estimates.items()
        }

    def _chance(self, k: int) -> float:
        """The mean of mutual k-NN under relabelling: where there are groups, lists hold the items of others."""
        if self.groups is None:
            return k / (self.n - 1)
        _, ids, sizes = torch.unique(self.groups, return_inverse=True, return_counts=True)
        return float(group_weights(self.groups) @ (k / (self.n - sizes[ids].double())))

    # graphs

    def of_graphs(self, names: list[str], with_sizes: bool) -> Callable[[], dict[str, Score]]:
        self.intervals = self.intervals and self._enough_items()
        length = list_length(self.n, self.k) if self.intervals else self.k
        if with_sizes:
            length = max(length, min(self.n - 1, 10 * self.k))
        with self.timed("graphs"):
            graphs = [
                knn(rows, length, metric=self.metric, groups=self.groups, max_memory=self.max_memory,
                    num_threads=self.num_threads, progress=self.progress)
                for rows in (self.x, self.y)
            ]  # fmt: skip
        a, b = (torch.as_tensor(graph.indices).cpu() for graph in graphs)
        near = a[:, : self.k].contiguous(), b[:, : self.k].contiguous()
        self.facts["graphs"] = {side: str(graph.certificate) for side, graph in zip("xy", graphs, strict=True)}
        with self.timed("facts"):
            self.facts["reciprocity"] = {side: reciprocity(graph) for side, graph in zip("xy", near, strict=True)}
            self.facts["hubness"] = {
                side: dataclasses.asdict(hubness(graph)) for side, graph in zip("xy", near, strict=True)
            }
            self.facts["duplicates"] = {
                side: dataclasses.asdict(duplicates(indexable(rows))) for side, rows in (("x", self.x), ("y", self.y))
            }
            self.facts["zero_rows"] = {
                side: zero_rows(indexable(rows)) for side, rows in (("x", self.x), ("y", self.y))
            }
        self._note_facts()
        counts = neighbor_overlap(*near).double()
        shares = counts.mean(0) if self.groups is None else group_weights(self.groups) @ counts
        shares /= torch.arange(1, self.k + 1)
        ranks = list(range(1, self.k + 1))
        self.curves["k"] = {"k": ranks, "value": shares.tolist(), "chance": [self._chance(k) for k in ranks]}
        if with_sizes:
            with self.timed("size curve"):
                self.curves["size"] = dataclasses.asdict(sampling.size_curve(a, b, self.k, confidence=self.confidence))
        spent: dict[str, float] = {}
        rows, weights = self._rows(names), None if self.groups is None else group_weights(self.groups)
        values = self._computed(names, lambda name: self._of_neighbors(name, rows, near, weights), spent)

        def rest() -> dict[str, Score]:
            some = list(values)
            spans = self._graph_intervals(some, a, b, values, spent) if self.intervals else {}
            nulls = {} if self.null == "none" else self._graph_nulls(some, near, values, spent)
            return self._scores(values, spans, nulls, spent)

        return rest

    def _scores(
        self, values: dict[str, float], spans: dict[str, tuple[float, float]], nulls: dict[str, Null],
        spent: dict[str, float],
    ) -> dict[str, Score]:  # fmt: skip
        scores = {}
        for name, value in values.items():
            low, high = spans.get(name, (None, None))
            of = "population" if name in spans else "none"
            scores[name] = Score(name, value, low, high, of, nulls.get(name), self.n, spent[name])
        return scores

    def _enough_items(self) -> bool:
        units = self.n if self.groups is None else len(torch.unique(self.groups))
        if units >= 16 * (self.k + 1):  # a quarter of the items still has four times k
            return True
        note = f"no intervals: they need {16 * (self.k + 1)} items or groups, there are {units}"
        if note not in self.notes:
            self.notes.append(note)
        return False

    def _rows(self, names: list[str]) -> tuple[Any, Any] | None:
        """The tables themselves, for metrics that look at them again."""
        if not any(METRICS[name].reads_rows for name in names):
            return None
        return indexable(self.x), indexable(self.y)

    def _of_neighbors(
        self, name: str, rows: tuple[Any, Any] | None, graphs: tuple[Tensor, Tensor], weights: Tensor | None
    ) -> float:
        """A metric of graphs of all items among themselves."""
        scores = METRICS[name].load("evaluate")(Graphs(*graphs, self.metric, rows))
        return mean_over_items(scores, weights)

    def _seconds(self, name: str, again: bool = False) -> float:
        """Of one evaluation."""
        d_x, d_y = (open_rows(rows).shape[1] for rows in (self.x, self.y))
        return METRICS[name].seconds(Sizes(self.n, self.k, d_x, d_y), again=again)

    def _graph_intervals(
        self, names: list[str], a: Tensor, b: Tensor, values: dict[str, float], spent: dict[str, float]
    ) -> dict[str, tuple[float, float]]:
        cheap = self._affordable(names, sum(SPLITS.values()), "interval")
        if not cheap:
            return {}
        rows = self._rows(cheap)

        def of_part(kept: Tensor) -> dict[str, float]:
            some = within_part(a, kept, self.k), within_part(b, kept, self.k)
            some_rows = None if rows is None else (rows[0][kept], rows[1][kept])
            weights = None if self.groups is None else group_weights(self.groups[kept])
            return self._of_part(cheap, lambda name: self._of_neighbors(name, some_rows, some, weights), spent)

        halves, quarters = self._of_splits(cheap, of_part)
        return self._spans(cheap, values, halves, quarters)

    def _of_splits(
        self, names: list[str], of_part: Callable[[Tensor], dict[str, float]]
    ) -> tuple[_Splits, _Splits]:  # fmt: skip
        """What of_part(kept) finds in the halves and in the quarters of random splits."""
        found: dict[int, _Splits] = {parts: [] for parts in SPLITS}
        splits = ((parts, part) for parts in SPLITS for part in random_parts(self.n, parts, self.seed, self.groups))
        with self.timed("intervals"):
            for parts, part in self._steps(_title("interval", names), splits, sum(SPLITS.values())):
                found[parts].append([of_part(part == which) for which in range(parts)])
        return found[2], found[4]

    def _spans(
        self, names: list[str], values: dict[str, float], halves: _Splits, quarters: _Splits
    ) -> dict[str, tuple[float, float]]:
        def of(name: str, splits: _Splits) -> list[list[float]]:
            return [[found[name] for found in split] for split in splits]

        return {
            name: population_interval(
                values[name], of(name, halves), of(name, quarters), self.confidence, within=METRICS[name].range
            )
            for name in names
        }

    def _graph_nulls(
        self, names: list[str], near: tuple[Tensor, Tensor], values: dict[str, float], spent: dict[str, float]
    ) -> dict[str, Null]:
        nulls = {}
        drawn = list(names)
        if "mutual_knn" in names and self._closed_form() and 10 * self.k <= self.n:
            nulls["mutual_knn"] = mutual_knn_null(*near, values["mutual_knn"], self.confidence)
            drawn.remove("mutual_knn")
        rows, weights = self._rows(drawn), None if self.groups is None else group_weights(self.groups)

        def of_relabelled(drawn: list[str], s: Tensor) -> dict[str, float]:
            back = torch.empty_like(s)
            back[s] = torch.arange(self.n)
            some_rows = None if rows is None else (rows[0], rows[1][s])
            graphs = near[0], back[near[1][s]]
            return self._computed(drawn, lambda name: self._of_neighbors(name, some_rows, graphs, weights), spent)

        return nulls | self._relabelled_nulls(drawn, values, of_relabelled)

    def _relabelled_nulls(
        self, names: list[str], values: dict[str, float],
        of_relabelled: Callable[[list[str], Tensor], dict[str, float]], again: bool = False,
    ) -> dict[str, Null]:  # fmt: skip
        """Of the metrics that are affordable: of_relabelled(names, s) gives their scores, item s[i] of y beside item i
        of x. again: as in ``seconds_of``."""
        count = self.relabellings
        if count is None:
            names = self._affordable(names, FEWEST, "null", again)
            slowest = max((self._seconds(name, again) for name in names), default=1.0)
            count = int(min(USUAL, max(FEWEST, AFFORDED / slowest)))
        if not names:
            return {}
        drawn = random_relabellings(self.n, count, self.seed, within=self.within, units=self.groups)
        with self.timed("nulls"):
            found = [of_relabelled(names, s) for s in self._steps(_title("null", names), drawn, count)]
        return {
            name: sampled_null(
                values[name], [scores[name] for scores in found], self.confidence, self.within is not None,
                METRICS[name].best,
            )
            for name in names
        }  # fmt: skip

    def _affordable(self, names: list[str], evaluations: float, what: str, again: bool = False) -> list[str]:
        """Those of which so many evaluations take no longer than is sensible."""
        cheap = [name for name in names if evaluations * self._seconds(name, again) <= AFFORDED]
        if len(cheap) < len(names):
            skipped = ", ".join(name for name in names if name not in cheap)
            advice = f"; give relabellings={FEWEST} or more to have it computed" if what == "null" else ""
            self.notes.append(f"no {what} for {skipped}, which would take too long{advice}")
        return cheap

    def _steps(self, title: str, each: Iterable[_Item], total: int) -> Iterator[_Item]:
        """``each``, with a bar."""
        with bar(self.progress) as shown:
            task = shown.add_task(title, total=total)
            for item in each:
                yield item
                shown.advance(task)

    def _closed_form(self) -> bool:
        """Whether every relabelling is as likely as another."""
        return self.null == "auto" and self.groups is None and self.within is None

    def _note_facts(self) -> None:
        for side, found in self.facts["duplicates"].items():
            if found["items"] > 0.01 * self.n:
                self.notes.append(
                    f"{found['items']:,} items of {side} have an exact copy, in {found['groups']:,} groups: "
                    "neighbours among copies are chosen by index"
                )
        for side, count in self.facts["zero_rows"].items():
            if count and self.metric == "cosine":
                self.notes.append(
                    f"{count:,} rows of {side} are all zero, without a direction: failed embeddings? Where both sides "
                    "have them in the same places they look like alignment; leave them out"
                )

    # moments

    def of_moments(self, names: list[str]) -> Callable[[], dict[str, Score]]:
        x, y = indexable(self.x), indexable(self.y)
        with self.timed("moments"):
            whole = moments(x, y)
        spent: dict[str, float] = {}
        values = self._computed(names, lambda name: METRICS[name].load("evaluate")(whole), spent)

        def rest() -> dict[str, Score]:
            spans = self._moment_intervals(list(values), x, y, values, spent) if self.intervals else {}
            nulls = {} if self.null == "none" else self._moment_nulls(list(values), x, y, whole, values, spent)
            return self._scores(values, spans, nulls, spent)

        return rest

    def _moment_intervals(
        self, names: list[str], x: Any, y: Any, values: dict[str, float], spent: dict[str, float]
    ) -> dict[str, tuple[float, float]]:
        names = self._affordable(names, 2 * (PIECES - 1), "interval", again=True) if self._enough_items() else []
        if not names:
            return {}
        # one pass for the sums of a few pieces, which add up to those of any half or quarter
        with self.timed("intervals"):
            pieces = moments_of_parts(x, y, next(random_parts(self.n, PIECES, self.seed, self.groups, repeats=1)))

            def of_part(kept: Tensor) -> dict[str, float]:
                first, *others = [piece for piece, taken in zip(pieces, kept.tolist(), strict=True) if taken]
                whole = sum(others, start=first)
                return self._of_part(names, lambda name: METRICS[name].load("evaluate")(whole), spent)

            names = self._defined(names, sum(pieces[1 : PIECES // 4], start=pieces[0]))
            splits = self._steps(_title("interval", names), balanced_halves(PIECES), PIECES - 1)
            halves = [[of_part(half), of_part(~half)] for half in splits]
        return {
            name: population_interval(
                values[name], [[part[name] for part in split] for split in halves], None, self.confidence,
                PIECES - 1, METRICS[name].range,
            )
            for name in names
        }  # fmt: skip

    def _defined(self, names: list[str], quarter: Moments) -> list[str]:
        """Those that a quarter of the items has: a half of twice the width or less says little of the whole."""
        found = []
        for name in names:
            try:
                METRICS[name].load("evaluate")(quarter)
                found.append(name)
            except ValueError as error:
                self.notes.append(f"no interval for {name}, for a quarter of the items: {error}")
        return found

    def _moment_nulls(
        self, names: list[str], x: Any, y: Any, whole: Moments, values: dict[str, float], spent: dict[str, float]
    ) -> dict[str, Null]:
        nulls: dict[str, Null] = {}
        traces = whole.traces("x"), whole.traces("y")
        closed = []
        if self._closed_form() and cka_tail_holds(self.n, *traces):
            closed = [name for name in ("cka", "rv", "unbiased_cka") if name in names]
        for name in closed:
            skewness = whole.skewness("x"), whole.skewness("y")
            if name == "unbiased_cka":
                nulls[name] = unbiased_cka_null(self.n, skewness, values[name], self.confidence)
            else:
                nulls[name] = cka_null(self.n, *traces, skewness, values[name], self.confidence)

        def of_relabelled(drawn: list[str], s: Tensor) -> dict[str, float]:
            anew = relabelled(whole, x, y[s])
            return self._computed(drawn, lambda name: METRICS[name].load("evaluate")(anew), spent)

        drawn = [name for name in names if name not in closed]
        return nulls | self._relabelled_nulls(drawn, values, of_relabelled, again=True)

    # pairs

    def of_pairs(self, names: list[str]) -> Callable[[], dict[str, Score]]:
        x, y = indexable(self.x), indexable(self.y)
        spent: dict[str, float] = {}
        with self.timed("pairs"):
            values = self._computed(names, lambda name: self._pair(name, x, y, self.groups), spent)

        def rest() -> dict[str, Score]:
            spans = self._pair_intervals(list(values), x, y, values, spent) if self.intervals else {}
            nulls = {} if self.null == "none" else self._pair_nulls(list(values), x, y, values, spent)
            return self._scores(values, spans, nulls, spent)

        return rest

    def _pair_intervals(
        self, names: list[str], x: Any, y: Any, values: dict[str, float], spent: dict[str, float]
    ) -> dict[str, tuple[float, float]]:
        # halves and quarters have a half and a quarter of the pairs
        names = self._affordable(names, SPLITS[2] / 2 + SPLITS[4] / 4, "interval") if self._enough_items() else []
        if not names:
            return {}

        def of_part(kept: Tensor) -> dict[str, float]:
            one, two = x[kept], y[kept]
            groups = None if self.groups is None else self.groups[kept]
            return self._of_part(names, lambda name: self._pair(name, one, two, groups), spent)

        halves, quarters = self._of_splits(names, of_part)
        return self._spans(names, values, halves, quarters)

    def _pair_nulls(
        self, names: list[str], x: Any, y: Any, values: dict[str, float], spent: dict[str, float]
    ) -> dict[str, Null]:
        nulls: dict[str, Null] = {}
        for name in names:
            start = time.perf_counter()
            nulls |= self._pair_null(name, x, y, values)
            spent[name] += time.perf_counter() - start
        return nulls

    def _pair_null(self, name: str, x: Any, y: Any, values: dict[str, float]) -> dict[str, Null]:
        most = HELD if self.max_memory is None else min(HELD, bytes_of(self.max_memory))
        if bytes_of_tables(name, self.n) > most:
            return self._relabelled_nulls([name], values, lambda _, s: {name: self._pair(name, x, y[s], self.groups)})
        score = relabelled_pairs(name, x, y, self.metric, self.groups)
        return self._relabelled_nulls([name], values, lambda _, s: {name: score(s)}, again=True)

    def _pair(self, name: str, x: Any, y: Any, groups: Tensor | None) -> float:
        value: float = METRICS[name].load("evaluate")(PairedRows(x, y, self.metric, groups))
        return value


def _title(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{what} of {names[0]}{more}"
