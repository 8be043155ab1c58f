"""Information about a label, estimated from samples.

The redundant and unique parts of Bertschinger et al. depend on p(x1, y) and p(x2, y) alone, and what a modality tells
about the label lies in p(y | x). So each modality is replaced by the class probabilities that the model with the best
predictions gives it, out of fold, and those by a few clusters. The tables p(cluster, y) are small, the exact solver
takes them, and only the synergy needs a third model, of both modalities together. What clusters lose and what the
models would learn from more items is estimated, made up for, and added to the intervals.
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
from modalign.information.codes import Coded, clusters_of, coded, concatenated
from modalign.information.inputs import Side, checked_features, checked_labels, is_codes
from modalign.information.joint import Information
from modalign.information.notes import notes_on
from modalign.information.parts import PARTS, Intervals, consistent, intervals_of, parts_of_tables, widened
from modalign.information.predictions import fold_numbers, predicted
from modalign.information.shortfall import (
    sharpened,
    sharpening_gains,
    shortfalls,
    widened_by_shortfalls,
)
from modalign.information.tables import (
    Resampled,
    chance_share,
    label_bits,
    mixed,
    most_label_bits,
    mutual_nats,
    resampled,
)

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
        models: The model that predicts the label best from modality 1, modality 2 and both; "codes" where they are
            the user's own.
        shortfall: The bits by which the codes may tell less than modality 1, modality 2 and both, estimated from the
            predictions of the best models and their learning curves.
    """

    information: Information
    intervals: Intervals
    method: str
    n: int
    settings: Mapping[str, object]
    notes: tuple[str, ...] = ()
    models: tuple[str, str, str] = ("codes", "codes", "codes")
    shortfall: tuple[float, float, float] = (0.0, 0.0, 0.0)

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

    Of linear models, trees, boosted trees, neighbours and a network, the one that predicts the label best out of fold
    stands for each modality; its calibrated probabilities are divided into clusters, and the decomposition is that of
    the tables (cluster, y). Tables tell something even where there is nothing to know: each is mixed with the one of
    independent codes until samples of the mixture tell what the table does, and what they tell beyond the mixture is
    taken off. Tables are then sharpened until they tell what the model's probabilities tell and what it would gain from
    more items, as its gain from the second half of the items predicts.

    The intervals reach from what the codes hold to what the models may reach (``shortfall``). They are no bounds:
    nothing is known of information that none of these models finds. How often they hold the exact parts in
    twenty kinds of data, and where they do not, is in docs/information.md.

    Args:
        x1: (n, d1) numbers, or (n,) codes that are used as they are: whole numbers (floats too), booleans or text.
        x2: (n, d2) numbers or (n,) codes of the same items.
        y: (n,) the classes: text, whole numbers (floats too), booleans, categories; a list, an array, a tensor or a
            column.
        method: "cvx", the exact solver on discretised modalities; or "batch", the neural coupling of Liang et al. 2023,
            learned on mini-batches within the same predictions. It can only tell too much, so redundancy comes out too
            low and uniqueness too high, and its intervals reach as far as a better coupling could.
        discretize: With "cvx": "predictions", clusters of the class probabilities that a model gives each modality out
            of fold; or "kmeans", clusters of the features, whose joint table is used as it is (Liang et al.). The
            latter loses what clusters of features do not show, and is biased where cells of the table are not filled.
        clusters: The number of clusters of each modality, at least 2. None for 20 with k-means; with predictions, for
            as many as lose least of them and tell least by chance, up to 6 a class, 24, n / (2 classes) and
            480 / classes.
        resamples: The number of samples of the items, which correct the bias of the tables and tell how they vary. The
            models are not trained again. With 0, nothing is corrected, and the intervals hold the shortfall alone.
        confidence: The confidence level of the intervals.
        seed: Seed of folds, models, clusters and samples; the same seed gives the same bits.

    Returns:
        The parts in bits with their intervals, between 0 and the entropy of the label. ``notes`` name tables with fewer
        than 2 items a cell, whose parts have all that is possible as their interval, clusters that cannot tell as much
        as the label holds, and what the codes may lack. Time is that of the models (a few seconds for 2,000 items, half
        a minute for 20,000), and (resamples + 2) times the solver's O((codes_1 + codes_2)^3 classes^3): half a second
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
    clusters, confidence, seed = options.clusters, options.confidence, options.seed
    require_same_index("pid", x1, x2)
    labels = checked_labels("pid", y)
    sides = [checked_features("pid", name, x, len(labels)) for name, x in (("x1", x1), ("x2", x2))]
    with _one_thread():
        known = coded(sides, labels, discretize if method == "cvx" else "predictions", clusters, seed=seed)
        measured, intervals, notes = (_coupling if method == "batch" else _solution)(sides, known, options)
        most = most_label_bits(known.items, confidence)
        entropy = label_bits(known.items)
        gains = sharpening_gains(measured.tables, shortfalls(measured.tables, known.expected, entropy))
        short = shortfalls(measured.tables, known.possible, entropy)
    parts = consistent(measured.estimate + gains, entropy)
    intervals = widened_by_shortfalls(intervals, short, parts, most)
    return PIDEstimate(
        Information(**parts),
        widened(intervals, known.items, confidence),
        method,
        n=len(labels),
        settings=dataclasses.asdict(options),
        notes=(*notes, *notes_on(known, short, clusters)),
        models=known.models,
        shortfall=(float(short[0]), float(short[1]), float(short[2])),
    )


def _solution(sides: Sequence[Side], known: Coded, options: _Options) -> tuple[Resampled, Intervals, tuple[str, ...]]:
    """Return the parts of the codes by the exact solver, with their intervals and notes."""
    measured = resampled(known.items, parts_of_tables, options.resamples, options.seed)
    return measured, intervals_of(measured, options.confidence, known.items), ()


def _coupling(sides: Sequence[Side], known: Coded, options: _Options) -> tuple[Resampled, Intervals, tuple[str, ...]]:
    """Return the parts of the codes by the neural coupling, with their intervals and notes."""
    from modalign.information.batch import coupled

    inputs: list[Side] = [
        np.eye(int(side.max()) + 1)[side] if one is None else np.sqrt(one.probabilities)
        for side, one in zip(sides, known.predictions, strict=False)
    ]
    measured, ends, notes = coupled(inputs, known.items, max(options.resamples, 2), options.seed)
    return measured, _hull([intervals_of(end, options.confidence, known.items) for end in ends]), notes


def mutual_information(x: ArrayLike, y: Labels, *, seed: int = 0) -> float:
    """Estimate I(X; Y) in bits: what the best model of x, out of fold, tells about the label.

    The estimate is of clustered predictions or of the codes, with what chance tells taken off and what clusters lose
    made up for as in ``pid``. Codes of one item each count as chance, whatever their labels.

    Args:
        x: (n, d) numbers or (n,) whole numbers.
        y: (n,) the classes, as ``pid`` takes them.
        seed: Seed of folds, models, clusters and samples.

    Returns:
        A number of bits, from 0 to the entropy of the labels.

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
    with _one_thread():
        known = None if is_codes(side) else predicted(side, labels, fold_numbers(labels, seed), seed)
        codes = side if is_codes(side) else clusters_of(known, labels, None, seed=seed)
        table = np.zeros((int(codes.max()) + 1, int(labels.max()) + 1))
        np.add.at(table, (codes, labels), 1)
        clean = mixed(table, chance_share(table, np.random.default_rng(seed)))
        entropy = label_bits(labels[:, None])
        (short,) = shortfalls([clean], [None if known is None else known.expected], entropy)
    return float(np.clip(mutual_nats(sharpened(clean, short)) / np.log(2), 0.0, entropy))


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
