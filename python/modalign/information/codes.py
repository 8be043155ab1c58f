"""Codes of modalities: clusters of the class probabilities that a model gives them out of fold, or of features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from modalign.information.inputs import Array, Codes, Side, is_codes
from modalign.information.predictions import Predictions, fold_numbers, predicted, standardized
from modalign.information.tables import FILLED

__all__ = ["Coded", "clusters_of", "coded", "concatenated", "most_clusters"]

CELLS = 480  # the largest product of clusters and classes: the solver's time grows with its cube
MOST_CLUSTERS, MOST_OF_BOTH = 24, 60
CHANCE = 2.0  # weight of what a table tells by chance, which unique information has from both tables
FITTED = 5000  # items of which clusters are made
KMEANS_CLUSTERS = 20  # of features, unless the caller says otherwise


@dataclasses.dataclass(frozen=True, eq=False)
class Coded:
    """What is known of modality 1, modality 2 and both.

    Attributes:
        items: (n, 4) the label and the three codes.
        predictions: Those of modality 1, modality 2 and both; None for codes that are the user's own.
    """

    items: Codes
    predictions: tuple[Predictions | None, Predictions | None, Predictions | None]

    @property
    def expected(self) -> list[float | None]:
        """The bits that the models would reach with all items that there could be; None for the user's own codes."""
        return [None if one is None else one.expected for one in self.predictions]

    @property
    def possible(self) -> list[float | None]:
        """The bits that these or other models may reach; None for the user's own codes."""
        return [None if one is None else one.possible for one in self.predictions]

    @property
    def models(self) -> tuple[str, str, str]:
        """The names of the models behind the codes."""
        first, second, both = ("codes" if one is None else one.model for one in self.predictions)
        return first, second, both


def coded(sides: Sequence[Side], labels: Codes, discretize: str, clusters: int | None, *, seed: int) -> Coded:
    """Return the codes of both modalities.

    Args:
        sides: The two modalities.
        labels: (n,) classes from 0.
        discretize: "predictions", clusters of out-of-fold class probabilities, or "kmeans", clusters of the features.
        clusters: The number of clusters; None to choose it.
        seed: Seed of folds, models and clusters.
    """
    folds = fold_numbers(labels, seed)
    first, second = sides
    both: Side = _pairs(first, second) if is_codes(first) and is_codes(second) else concatenated(sides)
    known = [None if is_codes(side) else predicted(side, labels, folds, seed) for side in (first, second, both)]
    if discretize == "kmeans":
        count = clusters or KMEANS_CLUSTERS
        one, two = (side if is_codes(side) else _clustered(standardized(side), count, seed) for side in sides)
        codes = [one, two, _pairs(one, two)]
    else:
        # the solver takes the codes of both modalities, but not those of both together
        mosts = (MOST_CLUSTERS, MOST_CLUSTERS, MOST_OF_BOTH)
        codes = [
            side if is_codes(side) else clusters_of(predictions, labels, clusters, seed=seed, most=most)
            for side, predictions, most in zip((first, second, both), known, mosts, strict=True)
        ]
    return Coded(np.stack([labels, *codes], 1), (known[0], known[1], known[2]))


def clusters_of(
    known: Predictions | None, labels: Codes, clusters: int | None, *, seed: int, most: int = MOST_CLUSTERS
) -> Codes:
    """Return clusters of class probabilities, (n,); square roots make equal distances tell equally much.

    Where their number is not given, it is the one with the least sum of what clusters lose of the probabilities and of
    what their table would tell by chance, (clusters - 1) (classes - 1) / 2n nats, which counts for ``CHANCE`` times.
    """
    assert known is not None, "features have predictions"
    probabilities = known.probabilities
    roots = np.sqrt(probabilities)
    n, classes = roots.shape
    if clusters is not None:
        return _clustered(roots, clusters, seed)
    largest = most_clusters(n, classes, most)
    tried = [_clustered(roots, size, seed) for size in sorted({max(2, largest * i // 6) for i in (1, 2, 3, 4, 6)})]

    def cost(codes: Codes) -> float:
        chance: float = CHANCE * float(codes.max()) * (classes - 1) / (2 * n)
        return _lost(probabilities, codes) + chance

    return min(tried, key=cost)


def most_clusters(n: int, classes: int, most: int = MOST_CLUSTERS) -> int:
    """Return 6 clusters a class, but no more than some number, than n items can fill, or than the solver takes."""
    return max(2, min(most, 6 * classes, n // (FILLED * classes), CELLS * most // MOST_CLUSTERS // classes))


def _lost(probabilities: Array, codes: Codes) -> float:
    """Return the mean divergence of probabilities from the mean of their cluster, in nats."""
    sums = np.zeros((int(codes.max()) + 1, probabilities.shape[1]))
    np.add.at(sums, codes, probabilities)
    means = sums / sums.sum(1, keepdims=True)
    divergence = (probabilities * np.log(probabilities / means[codes])).sum(1).mean()
    return float(divergence)


def concatenated(sides: Sequence[Side]) -> Array:
    """Return both modalities as one table; codes become one column for each value."""
    return np.concatenate(
        [np.eye(int(side.max()) + 1)[side] if is_codes(side) else standardized(side) for side in sides], axis=1
    )


def _clustered(table: Array, clusters: int, seed: int) -> Codes:
    """Return the k-means clusters of rows, (n,) from 0; at most as many as there are different rows."""
    from sklearn.cluster import KMeans

    fitted = table[np.random.default_rng(seed).permutation(len(table))[:FITTED]]
    different = len(np.unique(fitted.round(12), axis=0))
    model = KMeans(min(clusters, different), n_init=4, random_state=seed).fit(fitted)
    codes = np.asarray(model.predict(table), np.int64)
    return np.asarray(np.unique(codes, return_inverse=True)[1], np.int64)


def _pairs(first: Codes, second: Codes) -> Codes:
    """Return a code for each pair of codes that occurs."""
    return np.asarray(np.unique(first * (int(second.max()) + 1) + second, return_inverse=True)[1], np.int64)
