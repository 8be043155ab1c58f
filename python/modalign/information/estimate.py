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

from modalign.information.joint import Information, pid_of_joint

__all__ = ["PIDEstimate", "co_information", "mutual_information", "pid"]

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
FOLDS = 5
PARTS = ("redundancy", "unique_1", "unique_2", "synergy", "mutual_1", "mutual_2", "mutual_12")
METHODS = ("cvx", "batch")
DISCRETIZE = ("predictions", "kmeans")


@dataclasses.dataclass(frozen=True)
class PIDEstimate:
    """information: the parts in bits. intervals: of each part by name, at ``confidence``. Prints as a table."""

    information: Information
    intervals: dict[str, tuple[float, float]]
    method: str
    n: int
    settings: dict[str, Any]

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
        return "\n".join([f"information in bits ({self.method}, n = {self.n:,})", *rows])


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
        x1, x2: (n, d1), (n, d2) numbers, or (n,) whole numbers, which are taken as they are.
        y: (n,) whole numbers, the classes.
        method: "cvx", the exact solver on discretised modalities; "batch", the neural coupling of Liang et al. 2023,
            which learns it on mini-batches.
        discretize: with "cvx": "predictions", clusters of the class probabilities that a classifier gives each modality
            out of fold; "kmeans", clusters of the features, whose joint table is then taken as it is (Liang et al.):
            it loses what clusters of features do not show, and is biased where the table's cells are not well filled.
        clusters: of each modality; None for 3 a class with predictions (at most 24), 20 with k-means.
        resamples: bootstrap draws of the items; they correct the bias of the tables and give the intervals. The
            classifiers are not trained again, so that their own variance is not in the intervals.
        confidence: of the intervals. seed: of folds, classifiers, clusters and draws: the same seed, the same bits.

    Returns: ``PIDEstimate``, in bits. A classifier that misses what is there gives less than there is: the estimates
    are of the information the classifiers find. Error on the papers' synthetic data: docs/information.md.
    Peak memory: the inputs in float64, standardised.
    Raises ValueError for other shapes, labels that are no whole numbers, a class with fewer than 5 items, NaN or inf, a
    modality that never changes, options that do not exist.
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
    labels = _labels("pid", y)
    sides = [_features("pid", name, x, len(labels)) for name, x in (("x1", x1), ("x2", x2))]
    classes = int(labels.max()) + 1
    settings = {"discretize": discretize, "clusters": clusters, "resamples": resamples, "confidence": confidence,
                "seed": seed}  # fmt: skip
    if method == "batch":
        from modalign.information.batch import least_mutual

        if any(side.ndim == 1 for side in sides):
            sides = [np.eye(int(side.max()) + 1)[side] if side.ndim == 1 else side for side in sides]
        found = least_mutual(sides[0], sides[1], labels, folds=FOLDS, resamples=max(resamples, 2), seed=seed)
        return _summary(*found, method, len(labels), confidence, settings)
    if all(side.ndim == 1 for side in sides):
        tables = _counts([*sides], labels, classes)
        return _summary(
            *_resampled(tables, None, _of_table, resamples, seed), method, len(labels), confidence, settings
        )
    folds = _folds(labels, seed)
    if discretize == "kmeans":
        codes = [_clustered(_scaled(side), clusters or 20, seed) if side.ndim == 2 else side for side in sides]
        tables = _counts(codes, labels, classes)
        return _summary(
            *_resampled(tables, None, _of_table, resamples, seed), method, len(labels), confidence, settings
        )
    count = clusters or min(3 * classes, 24)
    said = [side if side.ndim == 1 else _predictions(side, labels, folds, seed) for side in sides]
    both = _predictions(_together(sides), labels, folds, seed)
    codes = [_clustered(np.sqrt(some), count, seed) if some.ndim == 2 else some for some in (*said, both)]
    tables = np.stack([labels, *codes], 1)
    found = _resampled(tables, classes, _of_marginals, resamples, seed)
    return _summary(*found, method, len(labels), confidence, settings)


def mutual_information(x: Any, y: Any, *, seed: int = 0) -> float:
    """I(X; Y) in bits: what a classifier of x, out of fold, tells about the label.

    x: (n, d) numbers or (n,) whole numbers; y: (n,) classes. The plug-in estimate of clustered predictions, less its
    bias (Miller and Madow); not below 0. Raises ValueError as ``pid``.

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
    if side.ndim == 2:
        said = _predictions(side, labels, _folds(labels, seed), seed)
        side = _clustered(np.sqrt(said), min(3 * classes, 24), seed)
    table = np.zeros((int(side.max()) + 1, classes))
    np.add.at(table, (side, labels), 1)
    used = (table.sum(1) > 0).sum()
    bias = (used - 1) * (classes - 1) / (2 * len(labels))
    return max(0.0, float((_mutual(table) - bias) / np.log(2)))


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


def _labels(operation: str, y: Any) -> Codes:
    labels = np.asarray(y)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
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
    if values.ndim == 1 and np.issubdtype(values.dtype, np.integer):
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

    A logistic regression and a network of 64 units; which of them, is chosen by the log loss on a part of the training
    items of the first fold.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    scaled = _scaled(table)
    n, d = scaled.shape

    def linear() -> Any:
        # variance shared by many columns is damped as in ridge regression
        return LogisticRegression(C=min(1.0, 10.0 / d), max_iter=200)

    def network() -> Any:
        return MLPClassifier(
            (64,), early_stopping=True, n_iter_no_change=8, max_iter=200, batch_size=min(256, max(16, n // 20)),
            learning_rate_init=3e-3, alpha=1e-3, random_state=seed,
        )  # fmt: skip

    found = np.zeros((n, int(labels.max()) + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit cut short is judged by its predictions, as any is
        first = np.flatnonzero(folds > 1)
        judged = np.flatnonzero(folds == 1)
        losses = []
        for make in (linear, network):
            said = _said(make().fit(scaled[first], labels[first]), scaled[judged])
            losses.append(-np.log(said[np.arange(len(judged)), labels[judged]]).mean())
        make = network if losses[1] < losses[0] else linear
        for fold in range(FOLDS):
            trained = make().fit(scaled[folds != fold], labels[folds != fold])
            found[folds == fold] = _said(trained, scaled[folds == fold])
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


def _counts(codes: Sequence[Codes], labels: Codes, classes: int) -> Array:
    table = np.zeros((int(codes[0].max()) + 1, int(codes[1].max()) + 1, classes))
    np.add.at(table, (codes[0], codes[1], labels), 1)
    return table


def _of_table(counts: Array) -> Array:
    """The parts in bits of a joint table of counts."""
    found = pid_of_joint(counts / counts.sum())
    return np.array([getattr(found, name) for name in PARTS])


def _of_marginals(counts: Sequence[Array]) -> Array:
    """The parts in bits of tables (cluster, y) of modality 1, modality 2 and both together."""
    first, second, both = counts
    total = first.sum()
    by_class = first.sum(0)
    coupled = first[:, None] * second[None] / np.where(by_class > 0, by_class, 1.0) / total  # independent given y
    found = pid_of_joint(coupled / coupled.sum())
    apart = found.redundancy + found.unique_1 + found.unique_2
    together = max(_mutual(both) / np.log(2), apart)
    return np.array([
        found.redundancy, found.unique_1, found.unique_2, together - apart, found.mutual_1, found.mutual_2, together,
    ])  # fmt: skip


def _resampled(items: Any, classes: int | None, of: Any, resamples: int, seed: int) -> tuple[Array, Array]:
    """The parts, and those of bootstrap draws: of a joint table of counts, or of items (n, 4) of label and clusters."""
    rng = np.random.default_rng(seed)
    if classes is None:
        n, shares = int(items.sum()), (items / items.sum()).ravel()
        draws = [of(rng.multinomial(n, shares).reshape(items.shape).astype(np.float64)) for _ in range(resamples)]
        return of(items), np.array(draws)
    sizes = items.max(0) + 1

    def tables(rows: Codes) -> list[Array]:
        found = []
        for column in (1, 2, 3):
            table = np.zeros((sizes[column], classes))
            np.add.at(table, (rows[:, column], rows[:, 0]), 1)
            found.append(table)
        return found

    draws = [of(tables(items[rng.integers(0, len(items), len(items))])) for _ in range(resamples)]
    return of(tables(np.asarray(items))), np.array(draws)


def _summary(
    value: Array, draws: Array, method: str, n: int, confidence: float, settings: dict[str, Any]
) -> PIDEstimate:
    """Corrected for the bias that the draws show, and made whole again: parts are not negative and add up."""
    if len(draws) == 0:
        mine = dict(zip(PARTS, value.tolist(), strict=True))
        return PIDEstimate(Information(**mine), {name: (mine[name],) * 2 for name in PARTS}, method, n, settings)
    bias = draws.mean(0) - value
    r, u1, u2, s = (value - bias)[:4].clip(0)
    parts = dict(zip(PARTS, (r, u1, u2, s, r + u1, r + u2, r + u1 + u2 + s), strict=True))
    half = (1 - confidence) / 2
    low, high = np.quantile(draws - 2 * bias, [half, 1 - half], axis=0).clip(0)
    intervals = {
        name: (min(float(low[i]), parts[name]), max(float(high[i]), parts[name])) for i, name in enumerate(PARTS)
    }
    return PIDEstimate(
        Information(**{name: float(part) for name, part in parts.items()}), intervals, method, n, settings
    )


def _mutual(table: Array) -> float:
    """I in nats of counts (x, y)."""
    p = table / table.sum()
    outer = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    inside = p > 0
    return float((p[inside] * np.log(p[inside] / outer[inside])).sum())
