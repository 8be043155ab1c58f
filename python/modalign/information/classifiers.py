"""Codes of modalities: class probabilities from classifiers, out of fold, and their clusters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modalign.information.inputs import FOLDS, Array, Codes, Side, is_codes
from modalign.information.tables import FILLED

__all__ = ["clustered", "codes_of", "concatenated", "fold_numbers", "most_clusters", "predictions", "standardized"]

CELLS = 480  # the largest product of clusters and classes: the solver's time grows with its cube
LEARNABLE = 40  # the fewest items from which a network is tried
KMEANS_CLUSTERS = 20  # of features, unless the caller says otherwise


class Classifier(Protocol):
    """A scikit-learn classifier that predicts probabilities."""

    def fit(self, table: Array, labels: Codes) -> Classifier: ...

    def predict_proba(self, table: Array) -> NDArray[np.floating]: ...


def codes_of(sides: Sequence[Side], labels: Codes, discretize: str, clusters: int | None, *, seed: int) -> list[Codes]:
    """Return what is known of modality 1, modality 2 and both as (n,) codes.

    Args:
        sides: The two modalities.
        labels: (n,) classes from 0.
        discretize: "predictions", clusters of out-of-fold class probabilities, or "kmeans", clusters of the features.
        clusters: The number of clusters; None to choose it.
        seed: Seed of folds, classifiers and clusters.
    """
    if discretize == "kmeans":
        count = clusters or KMEANS_CLUSTERS
        sides = [side if is_codes(side) else clustered(standardized(side), count, seed) for side in sides]
    first, second = sides
    if is_codes(first) and is_codes(second):
        pairs = np.unique(first * (int(second.max()) + 1) + second, return_inverse=True)[1]
        return [first, second, np.asarray(pairs, np.int64)]
    count = clusters or most_clusters(len(labels), int(labels.max()) + 1)
    folds = fold_numbers(labels, seed)
    return [
        side if is_codes(side) else clustered(np.sqrt(predictions(side, labels, folds, seed)), count, seed)
        for side in (*sides, concatenated(sides))
    ]


def most_clusters(n: int, classes: int) -> int:
    """Return 3 clusters a class, but no more than 24, than n items can fill, or than the solver takes in a second."""
    return max(2, min(3 * classes, 24, n // (FILLED * classes), CELLS // classes))


def standardized(table: Side) -> Array:
    """Return columns of mean 0 and standard deviation 1; constant ones are 0."""
    from sklearn.preprocessing import StandardScaler

    return np.asarray(StandardScaler().fit_transform(table), np.float64)


def concatenated(sides: Sequence[Side]) -> Array:
    """Return both modalities as one table; codes become one column for each value."""
    return np.concatenate(
        [np.eye(int(side.max()) + 1)[side] if is_codes(side) else standardized(side) for side in sides], axis=1
    )


def fold_numbers(labels: Codes, seed: int) -> Codes:
    """Return the fold of each item, (n,) from 0 to 4, with the classes spread evenly over the folds."""
    from sklearn.model_selection import StratifiedKFold

    numbers = np.empty(len(labels), np.int64)
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels)
    for fold, (_, items) in enumerate(splits):
        numbers[items] = fold
    return numbers


def predictions(table: Side, labels: Codes, folds: Codes, seed: int) -> Array:
    """Return class probabilities (n, classes) from classifiers that did not see the item.

    The classifier is a logistic regression or, with enough items, a network of 64 units: the one with the lower log
    loss on fold 1, trained on folds 2 and up.

    Args:
        table: (n, d) features.
        labels: (n,) classes from 0.
        folds: (n,) the fold of each item.
        seed: Seed of the network.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    scaled = standardized(table)
    n, d = scaled.shape

    def linear(items: int) -> Classifier:
        # variance that many columns share is damped as in ridge regression
        model: Classifier = LogisticRegression(C=min(1.0, 10.0 / d), max_iter=200)
        return model

    def network(items: int) -> Classifier:
        # a tenth of the items decides when to stop
        batch = min(256, max(16, n // 20), items - items // 10 - 1)
        model: Classifier = MLPClassifier(
            hidden_layer_sizes=(64,),
            early_stopping=True,
            n_iter_no_change=8,
            max_iter=200,
            batch_size=batch,
            learning_rate_init=3e-3,
            alpha=1e-3,
            random_state=seed,
        )
        return model

    def probabilities(make: Callable[[int], Classifier], trained: NDArray[np.generic], asked: Codes) -> Array:
        model = make(len(scaled[trained])).fit(scaled[trained], labels[trained])
        values: Array = model.predict_proba(scaled[asked]).astype(np.float64).clip(1e-6)
        values /= values.sum(1, keepdims=True)
        return values

    result = np.zeros((n, int(labels.max()) + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit cut short is judged by its predictions, as any is
        trained, judged = np.flatnonzero(folds > 1), np.flatnonzero(folds == 1)
        choice = linear
        if len(trained) >= LEARNABLE:
            losses = [
                -np.log(probabilities(make, trained, judged)[np.arange(len(judged)), labels[judged]]).mean()
                for make in (linear, network)
            ]
            choice = network if losses[1] < losses[0] else linear
        for fold in range(FOLDS):
            result[folds == fold] = probabilities(choice, np.flatnonzero(folds != fold), np.flatnonzero(folds == fold))
    return result


def clustered(table: Array, clusters: int, seed: int) -> Codes:
    """Return the k-means clusters of rows, (n,) from 0; at most as many as there are different rows."""
    from sklearn.cluster import KMeans

    different = len(np.unique(table.round(12), axis=0))
    model = KMeans(min(clusters, different), n_init=4, random_state=seed)
    return np.asarray(model.fit_predict(table), np.int64)
