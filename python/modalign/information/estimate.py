"""Information about a label, estimated from samples.

The redundant and unique parts of Bertschinger et al. depend on p(x1, y) and p(x2, y) alone. What a modality tells about
the label lies in p(y | x): so each modality is replaced by the class probabilities that a classifier gives it, out of
fold, and those by a few clusters. The tables p(cluster, y) are small, the exact solver takes them, and only the synergy
needs a third classifier, of both modalities together.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalign.information.joint import GAP, Information, decomposed

__all__ = ["PIDEstimate", "co_information", "mutual_information", "pid"]

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
FOLDS = 5
PARTS = ("redundancy", "unique_1", "unique_2", "synergy", "mutual_1", "mutual_2", "mutual_12")
PART_OF = {
    "redundancy": ("mutual_1", "mutual_2"), "unique_1": ("mutual_1",), "unique_2": ("mutual_2",),
    "synergy": ("mutual_12",),
}  # fmt: skip
METHODS = ("cvx", "batch")
DISCRETIZE = ("predictions", "kmeans")
FILLED = 2  # items for every cell (code, class) of a table, from which it counts as filled
ROUGH = 1e-4  # nats to which the parts of a sample are solved
CELLS = 480  # clusters times classes, at most: the solver's time grows with the cube
CHANCE_DRAWS = 40
LEARNABLE = 40  # items from which a network is tried


@dataclasses.dataclass(frozen=True)
class PIDEstimate:
    """information: the parts in bits. intervals: of each part by name, at ``confidence``. notes: what limits them, in
    words. Prints as a table."""

    information: Information
    intervals: dict[str, tuple[float, float]]
    method: str
    n: int
    settings: dict[str, Any]
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


def pid(
    x1: Any,
    x2: Any,
    y: Any,
    *,
    method: str = "cvx",
    discretize: str = "predictions",
    clusters: int | None = None,
    resamples: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
) -> PIDEstimate:
    """Redundant, unique and synergistic information of two modalities about a label, from samples.

    Args:
        x1, x2: (n, d1), (n, d2) numbers, or (n,) whole numbers or booleans, codes that are taken as they are.
        y: (n,) whole numbers or booleans, the classes.
        method: "cvx", the exact solver on discretised modalities; "batch", the neural coupling of Liang et al. 2023,
            learned on mini-batches within the same predictions: it can only tell too much, so that redundancy comes out
            too low and uniqueness too high, and the intervals reach as far as a better coupling could.
        discretize: with "cvx": "predictions", clusters of the class probabilities that a classifier gives each modality
            out of fold; "kmeans", clusters of the features, whose joint table is then taken as it is (Liang et al.):
            it loses what clusters of features do not show, and is biased where the table's cells are not well filled.
        clusters: of each modality, at least 2; None for 20 with k-means, and with predictions for 3 a class, but at
            most 24, n / (2 classes) and 480 / classes, and at least 2.
        resamples: samples of the items; they correct the bias of the tables and give the intervals; 0 does neither. The
            classifiers are not trained again, so that their own variance is not in the intervals.
        confidence: of the intervals. seed: of folds, classifiers, clusters and draws: the same seed, the same bits.

    Returns: ``PIDEstimate``, in bits. A classifier that misses what is there gives less than there is: the estimates
    are of the information the classifiers find. Error on the papers' synthetic data: docs/information.md.
    Chance: tables tell something even where there is nothing to know. Each table (code, y) is mixed with the one of
    independent codes until samples of it tell what the table does; what they tell beyond it is taken off.
    ``notes`` name tables with fewer than 2 items a cell, whose parts have all that is possible as their interval, and
    clusters that cannot tell as much as the label holds.
    Time: of classifiers, and (resamples + 2) times the solver's O((codes_1 + codes_2)^3 classes^3): half a second each
    at most where clusters are chosen and classes are up to 240 (docs/information.md).
    Peak memory: the inputs in float64, standardised.
    Raises ValueError for other shapes, labels that are no whole numbers, a class with fewer than 5 items, NaN or inf, a
    modality that never changes, options that do not exist, fewer than 2 clusters.
    Sources: Bertschinger et al. 2014 (arXiv:1311.2839); Liang et al. 2023 (arXiv:2302.12247).

    Examples:
        >>> import numpy as np
        >>> from modalign.information import pid
        >>> x1, x2 = np.random.default_rng(0).integers(0, 2, (2, 4000))
        >>> round(pid(x1, x2, x1 ^ x2).synergy, 2)
        1.0
    """
    if method not in METHODS or discretize not in DISCRETIZE:
        raise ValueError(
            f"pid: method must be one of {', '.join(METHODS)} and discretize one of {', '.join(DISCRETIZE)}, got "
            f"{method!r} and {discretize!r}"
        )
    if resamples < 0 or resamples == 1 or not 0 < confidence < 1:
        raise ValueError("pid: resamples must be 0 or at least 2 and confidence between 0 and 1")
    if clusters is not None and clusters < 2:
        raise ValueError(f"pid: clusters must be at least 2, or None to have them chosen, got {clusters}")
    labels = _labels("pid", y)
    sides = [_features("pid", name, x, len(labels)) for name, x in (("x1", x1), ("x2", x2))]
    settings = {"discretize": discretize, "clusters": clusters, "resamples": resamples, "confidence": confidence,
                "seed": seed}  # fmt: skip
    most = float(np.log2(labels.max() + 1))  # bits of a label
    with _one_thread():
        if method == "batch":
            from modalign.information.batch import coupled

            sides = [np.eye(int(side.max()) + 1)[side] if side.ndim == 1 else side for side in sides]
            items = np.stack([labels, *_codes(sides, labels, "predictions", clusters, seed)], 1)
            parts, intervals, found = coupled(sides[0], sides[1], items, max(resamples, 2), confidence, most, seed)
        else:
            items = np.stack([labels, *_codes(sides, labels, discretize, clusters, seed)], 1)
            parts, draws = _resampled(items, _parts, resamples, seed)
            intervals, found = _intervals(parts, draws, confidence, most), ()
    notes = (*found, *_notes(items, [side.ndim == 2 for side in sides]))
    return PIDEstimate(
        Information(**_whole(parts)), _widened(intervals, items, most), method, len(labels), settings, notes
    )


def mutual_information(x: Any, y: Any, *, seed: int = 0) -> float:
    """I(X; Y) in bits: what a classifier of x, out of fold, tells about the label.

    x: (n, d) numbers or (n,) whole numbers; y: (n,) classes. Of clustered predictions or of the codes, with what chance
    tells taken off as in ``pid``; not below 0. Codes of one item each are taken for chance, whatever their labels.
    Raises ValueError as ``pid``.

    Examples:
        >>> import numpy as np
        >>> from modalign.information import mutual_information
        >>> x = np.random.default_rng(0).integers(0, 2, 1000)
        >>> round(mutual_information(x, x), 2)
        1.0
    """
    labels = _labels("mutual_information", y)
    side = _features("mutual_information", "x", x, len(labels))
    classes = int(labels.max()) + 1
    with _one_thread():
        if side.ndim == 2:
            said = _predictions(side, labels, _folds(labels, seed), seed)
            side = _clustered(np.sqrt(said), _clusters(len(labels), classes), seed)
        table = np.zeros((int(side.max()) + 1, classes))
        np.add.at(table, (side, labels), 1)
        share = _chance(table, np.random.default_rng(seed))
    return float(_mutual(_mixed(table, share)) / np.log(2))


def co_information(x1: Any, x2: Any, y: Any, *, seed: int = 0) -> float:
    """I(X1; Y) + I(X2; Y) - I(X1, X2; Y) in bits: redundancy less synergy. Arguments and errors as ``pid``.

    Examples:
        >>> import numpy as np
        >>> from modalign.information import co_information
        >>> x = np.random.default_rng(0).integers(0, 2, 1000)
        >>> round(co_information(x, x, x), 2)
        1.0
    """
    labels = _labels("co_information", y)
    sides = [_features("co_information", name, x, len(labels)) for name, x in (("x1", x1), ("x2", x2))]
    if all(side.ndim == 1 for side in sides):
        both: Any = sides[0] * (int(sides[1].max()) + 1) + sides[1]
    else:
        both = _together(sides)
    one, two, together = (mutual_information(side, labels, seed=seed) for side in (*sides, both))
    return one + two - together


def _one_thread() -> Any:
    """Systems are small: on a busy machine threads of BLAS wait for each other 25 times as long as they work."""
    from threadpoolctl import threadpool_limits  # of scikit-learn

    return threadpool_limits(1)


def _codes(sides: Sequence[Any], labels: Codes, discretize: str, clusters: int | None, seed: int) -> list[Codes]:
    """What is known of modality 1, modality 2 and both, as one whole number an item each."""
    if discretize == "kmeans":
        sides = [side if side.ndim == 1 else _clustered(_scaled(side), clusters or 20, seed) for side in sides]
    if all(side.ndim == 1 for side in sides):
        return [*sides, _pairs(sides)]
    count = clusters or _clusters(len(labels), int(labels.max()) + 1)
    folds = _folds(labels, seed)
    every = (*sides, _together(sides))
    return [
        side if side.ndim == 1 else _clustered(np.sqrt(_predictions(side, labels, folds, seed)), count, seed)
        for side in every
    ]


def _clusters(n: int, classes: int) -> int:
    """3 a class, and no more than the items can fill, than 24, or than the solver takes in a second or so."""
    return max(2, min(3 * classes, 24, n // (FILLED * classes), CELLS // classes))


def _pairs(sides: Sequence[Codes]) -> Codes:
    pairs = np.unique(sides[0] * (int(sides[1].max()) + 1) + sides[1], return_inverse=True)[1]
    return np.asarray(pairs, np.int64)


def _hollow(items: Codes) -> list[bool]:
    """Whether too few items fill the tables (code, y) of modality 1, modality 2 and both."""
    return [not _filled(table) for table in _counted(items, items.max(0) + 1)]


def _widened(intervals: dict[str, tuple[float, float]], items: Codes, most: float) -> dict[str, tuple[float, float]]:
    """Of parts that depend on a table that is not filled: all that is possible, from nothing to log2(classes)."""
    one, two, both = _hollow(items)
    of = {"mutual_1": one, "mutual_2": two, "mutual_12": both, "synergy": one or two or both}
    return {
        name: (0.0, max(most, high)) if of.get(name, one or two) else (low, high)
        for name, (low, high) in intervals.items()
    }


def _entropy(labels: Codes) -> float:
    shares = np.bincount(labels) / len(labels)
    return float(-(shares * np.log2(shares)).sum())


def _notes(items: Codes, clustered: Sequence[bool]) -> tuple[str, ...]:
    """Where tables are too large for the items, or clusters too few for the classes."""
    n, classes = len(items), int(items[:, 0].max()) + 1
    codes = [len(np.unique(column)) for column in items.T[1:]]
    notes = [
        f"{n:,} items are too few for {count:,} codes of {name} x {classes:,} classes (wanted: {FILLED} a cell, "
        f"{FILLED * count * classes:,}): {told} and the parts of it are not known, and their intervals are all that is "
        "possible; give more items, or merge values, clusters or classes"
        for name, told, count, hollow in zip(
            ("x1", "x2", "x1 and x2"), ("mutual_1", "mutual_2", "mutual_12"), codes, _hollow(items), strict=True
        )
        if hollow
    ]
    clusters = [count for count, some in zip(codes, clustered, strict=False) if some]
    entropy = _entropy(items[:, 0])
    if clusters and np.log2(min(clusters)) < entropy - 0.01:
        notes.append(
            f"{min(clusters)} clusters of a modality tell at most {np.log2(min(clusters)):.2f} of the label's "
            f"{entropy:.2f} bits; give more items, for more clusters ({FILLED} for each cluster and class), or merge "
            "classes"
        )
    return tuple(notes)


def _labels(operation: str, y: Any) -> Codes:
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "biu":
        raise ValueError(f"{operation}: y must be (n,) whole numbers, the classes, got {labels.dtype} {labels.shape}")
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise ValueError(f"{operation}: y must hold at least 2 classes, got {len(counts)}")
    if counts.min() < FOLDS:
        raise ValueError(
            f"{operation}: every class must have at least {FOLDS} items, got one with {counts.min()}; merge or drop it"
        )
    return codes.astype(np.int64)


def _features(operation: str, name: str, x: Any, n: int) -> Any:
    """(n,) codes from 0, or (n, d) float64."""
    values = np.asarray(x)
    if values.ndim == 0 or len(values) != n:
        raise ValueError(f"{operation}: {name} must have a row for each label, {n}, got {values.shape}")
    if values.ndim == 1 and values.dtype.kind in "biu":
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{operation}: {name} must be (n, d) numbers or (n,) whole numbers, got {values.shape}")
    table = values.astype(np.float64)
    if not np.isfinite(table).all():
        bad = np.flatnonzero(~np.isfinite(table).all(1))[:3].tolist()
        raise ValueError(f"{operation}: {name} must be finite, got NaN or inf in rows {bad} (the first)")
    if not table.std(0).any():
        raise ValueError(f"{operation}: {name} never changes: it tells nothing about anything")
    return table


def _scaled(table: Array) -> Array:
    spread = table.std(0)
    return np.asarray((table - table.mean(0)) / np.where(spread > 0, spread, 1.0))


def _together(sides: Sequence[Any]) -> Array:
    """Both modalities as one table; codes become one column a value."""
    return np.concatenate(
        [np.eye(int(side.max()) + 1)[side] if side.ndim == 1 else _scaled(side) for side in sides], axis=1
    )


def _folds(labels: Codes, seed: int) -> Codes:
    """(n,) the fold of each item, classes spread evenly."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds


def _predictions(table: Array, labels: Codes, folds: Codes, seed: int) -> Array:
    """(n, classes): probabilities of a classifier that did not see the item.

    A logistic regression or, of enough items, a network of 64 units; which of them, is chosen by the log loss on a part
    of the training items of the first fold.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    scaled = _scaled(table)
    n, d = scaled.shape

    def linear(items: int) -> Any:
        # variance shared by many columns is damped as in ridge regression
        return LogisticRegression(C=min(1.0, 10.0 / d), max_iter=200)

    def network(items: int) -> Any:
        # a tenth of the items say when to stop
        batch = min(256, max(16, n // 20), items - items // 10 - 1)
        return MLPClassifier(
            (64,), early_stopping=True, n_iter_no_change=8, max_iter=200, batch_size=batch, learning_rate_init=3e-3,
            alpha=1e-3, random_state=seed,
        )  # fmt: skip

    def told(make: Any, seen: Any, asked: Any) -> Array:
        return _said(make(len(scaled[seen])).fit(scaled[seen], labels[seen]), scaled[asked])

    found = np.zeros((n, int(labels.max()) + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit cut short is judged by its predictions, as any is
        first, judged = np.flatnonzero(folds > 1), np.flatnonzero(folds == 1)
        choice: Any = linear
        if len(first) >= LEARNABLE:
            losses = [
                -np.log(told(make, first, judged)[np.arange(len(judged)), labels[judged]]).mean()
                for make in (linear, network)
            ]
            choice = network if losses[1] < losses[0] else linear
        for fold in range(FOLDS):
            found[folds == fold] = told(choice, folds != fold, folds == fold)
    return found


def _said(model: Any, table: Array) -> Array:
    said: Array = model.predict_proba(table).astype(np.float64).clip(1e-6)
    said /= said.sum(1, keepdims=True)
    return said


def _clustered(table: Array, clusters: int, seed: int) -> Codes:
    from sklearn.cluster import KMeans

    different = len(np.unique(table.round(12), axis=0))
    model = KMeans(min(clusters, different), n_init=4, random_state=seed)
    return np.asarray(model.fit_predict(table), np.int64)


def _counted(items: Codes, shape: Codes) -> list[Array]:
    """The tables (code, y) of modality 1, modality 2 and both, from items (n, 4) of label and codes."""
    return [
        np.bincount(items[:, i] * shape[0] + items[:, 0], minlength=shape[i] * shape[0])
        .reshape(shape[i], shape[0]).astype(np.float64)
        for i in (1, 2, 3)
    ]  # fmt: skip


def _parts(tables: Sequence[Array], gap: float) -> Array:
    """PARTS in bits of tables (code, y) of modality 1, modality 2 and both; by chance synergy may be negative."""
    first, second, both = tables
    by_class = first.sum(0)
    coupled = first[:, None] * second[None] / np.where(by_class > 0, by_class, 1.0)  # independent given y
    found = decomposed(coupled / coupled.sum(), gap)
    together = _mutual(both) / np.log(2)
    least = found.redundancy + found.unique_1 + found.unique_2
    return np.array([
        found.redundancy, found.unique_1, found.unique_2, together - least, found.mutual_1, found.mutual_2, together,
    ])  # fmt: skip


def _whole(parts: Array) -> dict[str, float]:
    """Parts that are not negative and add up: of what each modality tells, what both must tell at least, and what they
    do tell."""
    one, two, both = parts[4:].clip(0)
    least = parts[:3].sum().clip(max(one, two), one + two)
    both = max(both, least)
    found = (one + two - least, least - two, least - one, both - least, one, two, both)
    return {name: max(float(part), 0.0) for name, part in zip(PARTS, found, strict=True)}


def _mixed(table: Array, share: float) -> Array:
    """(1 - share) p(code, y) + share p(code) p(y), as counts."""
    apart = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return np.asarray((1 - share) * table + share * apart)


def _filled(table: Array) -> bool:
    """Of the codes that occur."""
    return bool(table.sum() >= FILLED * (table.sum(1) > 0).sum() * table.shape[1])


def _chance(table: Array, rng: np.random.Generator) -> float:
    """The share of items whose code is as if drawn without regard to their label.

    It is chosen so that labels drawn anew for the codes at hand, from the mixed table, tell on average what the table
    at hand does: 1 where shuffled labels tell as much (in one draw of 40, where the table is not filled), 0 where
    nothing is left to chance. By halving, to 1/256.
    """
    table = table[table.sum(1) > 0]
    sizes, seen = table.sum(1).astype(np.int64), _mutual(table)

    def told(share: float) -> Array:
        mixed = _mixed(table, share)
        draws = rng.multinomial(sizes, mixed / mixed.sum(1, keepdims=True), size=(CHANCE_DRAWS, len(sizes)))
        return np.array([_mutual(draw) for draw in draws])

    shuffled = told(1.0)
    if (shuffled.mean() if _filled(table) else shuffled.max()) >= seen - 1e-9:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(8):
        share = (low + high) / 2
        low, high = (share, high) if told(share).mean() > seen else (low, share)
    return low


def _resampled(items: Codes, of: Any, resamples: int, seed: int) -> tuple[Array, Array]:
    """What ``of`` makes of the tables of items (n, 4), label and codes, less its bias; and that of samples of them.

    A sample draws items with replacement and gives the share of them that is chance the codes of other items. What the
    samples tell beyond the tables that they are of, with chance taken out, is the bias.
    """
    rng = np.random.default_rng(seed)
    n, shape = len(items), items.max(0) + 1
    tables = _counted(items, shape)
    value = of(tables, GAP)
    if resamples == 0:
        return value, value[None]
    shares = [_chance(table, rng) for table in tables]
    draws = []
    for _ in range(resamples):
        drawn = items[rng.integers(0, n, n)]
        for column, share in enumerate(shares, 1):
            by_chance = rng.random(n) < share
            drawn[by_chance, column] = rng.permutation(items[:, column])[by_chance]
        draws.append(of(_counted(drawn, shape), ROUGH))
    clean = of([_mixed(table, share) for table, share in zip(tables, shares, strict=True)], GAP)
    return value - np.mean(draws, 0) + clean, np.array(draws)


def _intervals(found: Array, draws: Array, confidence: float, most: float) -> dict[str, tuple[float, float]]:
    """What samples scatter about their mean, the estimate does about the truth.

    Below it as far as a sample may lie above: so nothing has an interval from 0. Above it as far as a sample may lie to
    either side, since samples of more information scatter more. The mean of the draws, which was taken off, is itself
    known to their spread / sqrt(draws). A part reaches as low as the information that it is a part of.
    """
    half = (1 - confidence) / 2
    below, above = np.quantile(draws - draws.mean(0), [half, 1 - half], axis=0) * np.sqrt(1 + 1 / len(draws))
    parts = _whole(found)
    low = dict(zip(PARTS, found - above, strict=True))
    high = dict(zip(PARTS, found + np.maximum(above, -below), strict=True))
    for name, wholes in PART_OF.items():
        low[name] = min(low[name], *(low[whole] for whole in wholes))
    return {
        name: (min(max(float(low[name]), 0.0), part), max(min(float(high[name]), most), part))
        for name, part in parts.items()
    }


def _mutual(table: Array) -> float:
    """I in nats of counts (x, y)."""
    p = table / table.sum()
    outer = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    inside = p > 0
    return float((p[inside] * np.log(p[inside] / outer[inside])).sum())
