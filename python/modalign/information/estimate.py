"""Information about a label, estimated from samples.

The redundant and unique parts of Bertschinger et al. depend on p(x1, y) and p(x2, y) alone, and what a modality tells
about the label lies in p(y | x). So each modality is replaced by the class probabilities that a classifier gives it,
out of fold, and those by a few clusters. The tables p(cluster, y) are small, the exact solver takes them, and only the
synergy needs a third classifier, of both modalities together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import ArrayLike

from modalign.common.checks import LARGEST_SEED, number, one_of, whole_number
from modalign.common.conversion import require_same_index
from modalign.common.labels import Labels
from modalign.information.classifiers import (
    clustered,
    codes_of,
    concatenated,
    fold_numbers,
    most_clusters,
    predictions,
)
from modalign.information.inputs import Codes, Side, checked_features, checked_labels, is_codes
from modalign.information.joint import Information
from modalign.information.parts import PARTS, Intervals, consistent, intervals_of, parts_of_tables, unfilled, widened
from modalign.information.tables import FILLED, chance_share, label_bits, mixed, mutual_nats, resampled

__all__ = ["PIDEstimate", "co_information", "mutual_information", "pid"]

METHODS = ("cvx", "batch")
DISCRETIZE = ("predictions", "kmeans")


@dataclasses.dataclass(frozen=True)
class PIDEstimate:
    """An estimated decomposition, which prints as a table.

    Its parts are attributes: ``estimate.redundancy`` is ``estimate.information.redundancy``.

    Attributes:
        information: The parts in bits.
        intervals: The interval (low, high) of each part by name.
        method: "cvx" or "batch".
        n: The number of items.
        settings: The other options of ``pid``.
        notes: Sentences on what limits the estimate.
    """

    information: Information
    intervals: Intervals
    method: str
    n: int
    settings: Mapping[str, object]
    notes: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> float:
        if name in PARTS:
            value: float = getattr(self.information, name)
            return value
        raise AttributeError(f"a PIDEstimate has no {name}; it has {', '.join(PARTS)}")

    def __str__(self) -> str:
        rows = [
            f"  {name:<11}{getattr(self.information, name):6.3f}  [{self.intervals[name][0]:.3f}, "
            f"{self.intervals[name][1]:.3f}]"
            for name in PARTS
        ]
        notes = [f"  note: {note}" for note in self.notes]
        return "\n".join([f"information in bits ({self.method}, n = {self.n:,})", *rows, *notes])


@dataclasses.dataclass(frozen=True)
class _Options:
    """The options of ``pid`` but for the method, with their checks."""

    discretize: str
    clusters: int | None
    resamples: int
    confidence: float
    seed: int

    @classmethod
    def checked(
        cls, discretize: str, clusters: int | None, resamples: int, confidence: float, *, seed: int
    ) -> _Options:
        """Return options whose counts and seed are Python integers."""
        return cls(
            discretize,
            None if clusters is None else whole_number("pid", "clusters", clusters),
            whole_number("pid", "resamples", resamples),
            float(number("pid", "confidence", confidence)),
            seed=whole_number("pid", "seed", seed, least=0, most=LARGEST_SEED),
        )

    def require(self, method: str) -> None:
        """Raise ValueError for an option out of range."""
        one_of("pid", "method", method, METHODS)
        one_of("pid", "discretize", self.discretize, DISCRETIZE)
        if self.resamples < 0 or self.resamples == 1 or not 0 < self.confidence < 1:
            raise ValueError(
                "pid: resamples must be 0 or at least 2 and confidence between 0 and 1, got "
                f"{self.resamples} and {self.confidence}"
            )
        if self.clusters is not None and self.clusters < 2:
            raise ValueError(f"pid: clusters must be at least 2, or None to have them chosen, got {self.clusters}")


def pid(
    x1: ArrayLike,
    x2: ArrayLike,
    y: Labels,
    *,
    method: str = "cvx",
    discretize: str = "predictions",
    clusters: int | None = None,
    resamples: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
) -> PIDEstimate:
    """Estimate the redundant, unique and synergistic information of two modalities about a label from samples.

    Tables tell something even where there is nothing to know. So each table (code, y) is mixed with the one of
    independent codes until samples of the mixture tell what the table does, and what they tell beyond the mixture is
    taken off. A classifier that misses what is there gives less than there is: the estimates are of the information
    that the classifiers find. Errors on the papers' synthetic data are in docs/information.md.

    Args:
        x1: (n, d1) numbers, or (n,) whole numbers or booleans, codes that are used as they are.
        x2: (n, d2) numbers or (n,) codes of the same items.
        y: (n,) the classes: text, whole numbers (floats too), booleans, categories; a list, an array, a tensor or a
            column.
        method: "cvx", the exact solver on discretised modalities; or "batch", the neural coupling of Liang et al. 2023,
            learned on mini-batches within the same predictions. It can only tell too much, so redundancy comes out too
            low and uniqueness too high, and its intervals reach as far as a better coupling could.
        discretize: With "cvx": "predictions", clusters of the class probabilities that a classifier gives each modality
            out of fold; or "kmeans", clusters of the features, whose joint table is used as it is (Liang et al.). The
            latter loses what clusters of features do not show, and is biased where cells of the table are not filled.
        clusters: The number of clusters of each modality, at least 2. None for 20 with k-means; with predictions, for
            3 a class but at most 24, n / (2 classes) and 480 / classes, and at least 2.
        resamples: The number of samples of the items, which correct the bias of the tables and give the intervals; 0
            does neither. The classifiers are not trained again, so their variance is not in the intervals.
        confidence: The confidence level of the intervals.
        seed: Seed of folds, classifiers, clusters and samples; the same seed gives the same bits.

    Returns:
        The parts in bits with their intervals. ``notes`` name tables with fewer than 2 items a cell, whose parts have
        all that is possible as their interval, and clusters that cannot tell as much as the label holds. Time is that
        of the classifiers, and (resamples + 2) times the solver's O((codes_1 + codes_2)^3 classes^3): half a second
        each at most where clusters are chosen and there are up to 240 classes. Peak memory is that of the inputs in
        float64, standardised.

    Raises:
        TypeError: For what is no array or list of numbers or labels, or a seed that is no integer.
        ValueError: For other shapes, labels that are missing or continuous, a class with fewer than 5 items, NaN or
            inf, a modality that never changes, an unknown option, or fewer than 2 clusters.

    Source:
        Bertschinger et al. 2014 (arXiv:1311.2839); Liang et al. 2023 (arXiv:2302.12247).

    Examples:
        >>> import numpy as np
        >>> from modalign.information import pid
        >>> x1, x2 = np.random.default_rng(0).integers(0, 2, (2, 4000))
        >>> round(pid(x1, x2, x1 ^ x2).synergy, 2)
        1.0
    """
    options = _Options.checked(discretize, clusters, resamples, confidence, seed=seed)
    options.require(method)
    clusters, resamples, confidence, seed = options.clusters, options.resamples, options.confidence, options.seed
    require_same_index("pid", x1, x2)
    labels = checked_labels("pid", y)
    sides = [checked_features("pid", name, x, len(labels)) for name, x in (("x1", x1), ("x2", x2))]
    with _one_thread():
        if method == "batch":
            from modalign.information.batch import coupled

            sides = [np.eye(int(side.max()) + 1)[side] if is_codes(side) else side for side in sides]
            items = np.stack([labels, *codes_of(sides, labels, "predictions", clusters, seed=seed)], 1)
            parts, draws_of, notes = coupled(sides, items, max(resamples, 2), seed)
            intervals = _hull([intervals_of(*ends, confidence, items) for ends in draws_of])
        else:
            items = np.stack([labels, *codes_of(sides, labels, discretize, clusters, seed=seed)], 1)
            parts, draws = resampled(items, parts_of_tables, resamples, seed)
            intervals, notes = intervals_of(parts, draws, confidence, items), ()
    return PIDEstimate(
        Information(**consistent(parts, label_bits(items))),
        widened(intervals, items, confidence),
        method,
        n=len(labels),
        settings=dataclasses.asdict(options),
        notes=(*notes, *_notes(items, [not is_codes(side) for side in sides])),
    )


def mutual_information(x: ArrayLike, y: Labels, *, seed: int = 0) -> float:
    """Estimate I(X; Y) in bits: what a classifier of x, out of fold, tells about the label.

    The estimate is of clustered predictions or of the codes, with what chance tells taken off as in ``pid``. Codes of
    one item each count as chance, whatever their labels.

    Args:
        x: (n, d) numbers or (n,) whole numbers.
        y: (n,) the classes, as ``pid`` takes them.
        seed: Seed of folds, classifiers, clusters and samples.

    Returns:
        A number of bits, not below 0.

    Raises:
        ValueError: As ``pid``.

    Examples:
        >>> import numpy as np
        >>> from modalign.information import mutual_information
        >>> x = np.random.default_rng(0).integers(0, 2, 1000)
        >>> round(mutual_information(x, x), 2)
        1.0
    """
    seed = whole_number("mutual_information", "seed", seed, least=0, most=LARGEST_SEED)
    labels = checked_labels("mutual_information", y)
    side = checked_features("mutual_information", "x", x, len(labels))
    classes = int(labels.max()) + 1
    with _one_thread():
        if is_codes(side):
            codes = side
        else:
            probabilities = predictions(side, labels, fold_numbers(labels, seed), seed)
            codes = clustered(np.sqrt(probabilities), most_clusters(len(labels), classes), seed)
        table = np.zeros((int(codes.max()) + 1, classes))
        np.add.at(table, (codes, labels), 1)
        share = chance_share(table, np.random.default_rng(seed))
    return float(mutual_nats(mixed(table, share)) / np.log(2))


def co_information(x1: ArrayLike, x2: ArrayLike, y: Labels, *, seed: int = 0) -> float:
    """Estimate I(X1; Y) + I(X2; Y) - I(X1, X2; Y) in bits, which is redundancy less synergy.

    Args:
        x1: (n, d1) numbers or (n,) whole numbers.
        x2: (n, d2) numbers or (n,) whole numbers of the same items.
        y: (n,) the classes, as ``pid`` takes them.
        seed: As in ``mutual_information``.

    Returns:
        A number of bits, negative where there is more synergy than redundancy.

    Raises:
        ValueError: As ``pid``.

    Examples:
        >>> import numpy as np
        >>> from modalign.information import co_information
        >>> x = np.random.default_rng(0).integers(0, 2, 1000)
        >>> round(co_information(x, x, x), 2)
        1.0
    """
    seed = whole_number("co_information", "seed", seed, least=0, most=LARGEST_SEED)
    labels = checked_labels("co_information", y)
    sides = [checked_features("co_information", name, x, len(labels)) for name, x in (("x1", x1), ("x2", x2))]
    first, second = sides
    coded = is_codes(first) and is_codes(second)
    both: Side = first * (int(second.max()) + 1) + second if coded else concatenated(sides)
    one, two, together = (mutual_information(side, labels, seed=seed) for side in (first, second, both))
    return one + two - together


def _one_thread() -> AbstractContextManager[object]:
    """Return a context with one BLAS thread: on a busy machine, threads wait 25 times as long as they work."""
    from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

    context: AbstractContextManager[object] = threadpool_limits(1)
    return context


def _hull(intervals: Sequence[Intervals]) -> Intervals:
    """Return the intervals of each part from the lowest to the highest end."""
    return {
        name: (min(ends[name][0] for ends in intervals), max(ends[name][1] for ends in intervals)) for name in PARTS
    }


def _notes(items: Codes, clustered_sides: Sequence[bool]) -> tuple[str, ...]:
    """Say where tables are too large for the items, or clusters too few for the classes."""
    n, classes = len(items), int(items[:, 0].max()) + 1
    counts = [len(np.unique(column)) for column in items.T[1:]]
    names = (("x1", "mutual_1"), ("x2", "mutual_2"), ("x1 and x2", "mutual_12"))
    notes = [
        f"{n:,} items are too few for {count:,} codes of {name} x {classes:,} classes (wanted: {FILLED} a cell, "
        f"{FILLED * count * classes:,}): {part} and the parts of it are not known, and their intervals are all that is "
        "possible; give more items, or merge values, clusters or classes"
        for (name, part), count, few in zip(names, counts, unfilled(items), strict=True)
        if few
    ]
    clusters = [count for count, is_clustered in zip(counts, clustered_sides, strict=False) if is_clustered]
    shares = np.bincount(items[:, 0]) / n
    entropy = float(-(shares * np.log2(shares)).sum())
    if clusters and np.log2(min(clusters)) < entropy - 0.01:
        notes.append(
            f"{min(clusters)} clusters of a modality tell at most {np.log2(min(clusters)):.2f} of the label's "
            f"{entropy:.2f} bits; give more items, for more clusters ({FILLED} for each cluster and class), or merge "
            "classes"
        )
    return tuple(notes)
