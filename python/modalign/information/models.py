"""The classifiers among which the one that predicts the label best is chosen.

They differ in what they find: sums of features (linear), thresholds of a few features (trees, boosted trees), distances
(neighbours) and smooth combinations of all features (network). All are scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modalign.information.inputs import Array, Codes

__all__ = ["Classifier", "candidates"]

LEAF = 30  # the fewest items in a leaf of a tree, where there are enough items
DEPTHS = (1, 2, 4)
BOOSTED = 500  # columns times classes up to which boosted trees are tried: their time grows with it
NEIGHBOUR_ITEMS = 10_000  # up to which neighbours are tried: they compare each item with each
NETWORK_ITEMS = 200  # from which networks and boosted trees are tried: both hold a tenth out to know when to stop


class Classifier(Protocol):
    """A scikit-learn classifier that predicts probabilities."""

    def fit(self, table: Array, labels: Codes) -> Classifier: ...

    def predict_proba(self, table: Array) -> NDArray[np.floating]: ...


def candidates(items: int, columns: int, classes: int, seed: int) -> dict[str, Callable[[], Classifier]]:
    """Return the classifiers to try, by the name that notes call them, each as a function that makes one.

    Args:
        items: The number of items that each is trained on.
        columns: The number of features.
        classes: The number of classes.
        seed: Seed of trees and networks.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.tree import DecisionTreeClassifier

    def linear(strength: float) -> Callable[[], Classifier]:
        return lambda: LogisticRegression(C=strength, max_iter=300)

    def tree(depth: int) -> Callable[[], Classifier]:
        leaf = max(1, min(LEAF, items // 20))
        return lambda: DecisionTreeClassifier(max_depth=depth, min_samples_leaf=leaf, random_state=seed)

    # variance that many columns share is damped as in ridge regression, or not
    tried = {"a linear model": linear(min(1.0, 10.0 / columns)), "an undamped linear model": linear(1000.0)}
    tried |= {f"a tree of depth {depth}": tree(depth) for depth in DEPTHS}
    if items <= NEIGHBOUR_ITEMS:
        tried["neighbours"] = lambda: KNeighborsClassifier(max(1, min(int(items**0.5), items // 2)))
    if items < max(NETWORK_ITEMS, 30 * classes):
        return tried
    if columns * classes <= BOOSTED:
        tried["boosted trees"] = lambda: HistGradientBoostingClassifier(
            max_iter=200, max_leaf_nodes=8, early_stopping=True, n_iter_no_change=8, random_state=seed
        )
    tried["a network"] = lambda: MLPClassifier(
        hidden_layer_sizes=(64,),
        early_stopping=True,
        n_iter_no_change=8,
        max_iter=200,
        batch_size=min(512, max(16, items // 20)),
        learning_rate_init=3e-3,
        alpha=1e-3,
        random_state=seed,
    )
    return tried
