"""Class probabilities of items from the model that predicts the label best, out of fold, and what it may miss.

The models of ``models`` run a race: each fold is predicted by those that are left, trained on the others, and who
trails the best by more than chance is out. The winner's probabilities are calibrated (a power and a share of the
prior), and what it gains when its training items are doubled says what it would learn from more.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from modalign.information.inputs import FOLDS, Array, Codes, Side
from modalign.information.models import Classifier, candidates

__all__ = ["Predictions", "fold_numbers", "predicted", "standardized"]

TRAILING = 2.0  # standard errors of the mean difference of losses from which a model is out of the race
REACH = 3.0  # times the last gain that may still be gained
RUNNERS = 3  # the most models that are trained on all folds
FLEXIBLE = ("boosted trees", "a network")  # models that go on learning where the winner has learned all that it can
POWERS = (0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0)
PRIORS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Out-of-fold class probabilities of the best model.

    Attributes:
        probabilities: (n, classes), calibrated, each row summing to 1.
        model: The name of the model.
        bits: H(Y) less the mean of -log2 p(label): what the probabilities tell about the label.
        expected: The bits that the model would reach with all items that there could be, if its error falls as
            1 / items: it gains once more what it gained when its training items were doubled.
        possible: The bits that it or another model may reach: ``REACH`` times its last gain, since errors may fall
            slower, or what boosted trees or a network reach with their last gain.
    """

    probabilities: Array
    model: str
    bits: float
    expected: float
    possible: float


def standardized(table: Side) -> Array:
    """Return columns of mean 0 and standard deviation 1; constant ones are 0."""
    from sklearn.preprocessing import StandardScaler

    return np.asarray(StandardScaler().fit_transform(table), np.float64)


def fold_numbers(labels: Codes, seed: int) -> Codes:
    """Return the fold of each item, (n,) from 0 to 4, with the classes spread evenly over the folds."""
    from sklearn.model_selection import StratifiedKFold

    numbers = np.empty(len(labels), np.int64)
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels)
    for fold, (_, items) in enumerate(splits):
        numbers[items] = fold
    return numbers


def predicted(table: Side, labels: Codes, folds: Codes, seed: int) -> Predictions:
    """Return the predictions of the model that predicts the labels of (n, d) features best.

    Args:
        table: (n, d) features.
        labels: (n,) classes from 0.
        folds: (n,) the fold of each item.
        seed: Seed of the models.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit cut short is judged by its predictions, as any is
        return _Race(standardized(table), labels, folds, seed).winner()


class _Race:
    """The models, the probabilities that they gave so far, and who is left."""

    def __init__(self, table: Array, labels: Codes, folds: Codes, seed: int) -> None:
        self.table, self.labels, self.folds, self.seed = table, labels, folds, seed
        self.classes = int(labels.max()) + 1
        self.prior = np.bincount(labels, minlength=self.classes) / len(labels)
        trained = len(labels) - len(labels) // FOLDS
        self.models = candidates(trained, table.shape[1], self.classes, seed)
        self.given = {name: np.zeros((len(labels), self.classes)) for name in self.models}

    def winner(self) -> Predictions:
        """Run the race over all folds, and return the predictions of the model with the least loss."""
        left = list(self.models)
        for fold in range(FOLDS):
            held_out = np.flatnonzero(self.folds == fold)
            for name in left:
                model = self.models[name]().fit(*self.training(fold))
                self.given[name][held_out] = self.probabilities(model, held_out)
            left = self.leaders(left, np.flatnonzero(self.folds <= fold))
        calibrated = self.calibrated(self.given[left[0]])
        bits = self.bits(calibrated)
        gained = max(bits - max(self.bits(self.calibrated(self.halved(left[0], FOLDS))), 0.0), 0.0)
        rivals = [self.rival(name, left[0]) for name in FLEXIBLE if name in self.models and name != left[0]]
        possible = bits + max([REACH * gained, *rivals])
        told = max(bits, 0.0)
        return Predictions(calibrated, left[0], told, expected=told + gained, possible=max(possible, 0.0))

    def rival(self, name: str, winner: str) -> float:
        """Return the bits that a model tells more than the winner on the first fold, with its last gain once more."""
        rows = np.flatnonzero(self.folds == 0)
        full = self.bits(self.calibrated(self.given[name], rows), rows)
        half = self.bits(self.calibrated(self.halved(name, 1), rows), rows)
        return full + max(full - half, 0.0) - self.bits(self.calibrated(self.given[winner], rows), rows)

    def bits(self, probabilities: Array, rows: Codes | None = None) -> float:
        """Return H(Y) less the mean of -log2 p(label) over some items, or all."""
        entropy = float(-(self.prior * np.log2(self.prior)).sum())
        logs = np.log2(self.of_labels(probabilities))
        return entropy + float((logs if rows is None else logs[rows]).mean())

    def training(self, fold: int, share: float = 1.0) -> tuple[Array, Codes]:
        """Return features and labels of a share of the items of other folds, classes in proportion."""
        rows = np.flatnonzero(self.folds != fold)
        if share < 1:
            order = np.random.default_rng([self.seed, fold]).permutation(len(rows))
            ranks = np.empty(len(rows))
            for label in range(self.classes):
                of_label = order[self.labels[rows[order]] == label]
                ranks[of_label] = np.arange(len(of_label)) / max(len(of_label), 1)
            rows = rows[ranks < share]
        return self.table[rows], self.labels[rows]

    def halved(self, name: str, folds: int) -> Array:
        """Return probabilities of the items of the first folds from a model that is trained on half of the others."""
        result = np.full((len(self.labels), self.classes), 1 / self.classes)
        for fold in range(folds):
            held_out = np.flatnonzero(self.folds == fold)
            table, labels = self.training(fold, 0.5)
            make = candidates(len(labels), self.table.shape[1], self.classes, self.seed).get(name, self.models[name])
            result[held_out] = self.probabilities(make().fit(table, labels), held_out)
        return result

    def probabilities(self, model: Classifier, rows: Codes) -> Array:
        """Return p(class | row); an item's worth of the prior keeps each above 0."""
        values = np.asarray(model.predict_proba(self.table[rows]), np.float64)
        n = len(self.labels)
        return (n * values + self.prior) / (n + 1)

    def of_labels(self, probabilities: Array) -> Array:
        """Return the probability of each item's label."""
        return np.asarray(probabilities[np.arange(len(self.labels)), self.labels])

    def leaders(self, names: list[str], rows: Codes) -> list[str]:
        """Return at most ``RUNNERS`` models by rising loss on some items: the best, and who may be as good."""
        losses = {name: -np.log(self.of_labels(self.calibrated(self.given[name], rows))[rows]) for name in names}
        ranked = sorted(names, key=lambda name: float(losses[name].mean()))
        ahead = losses[ranked[0]]

        def may_win(name: str) -> bool:
            behind = losses[name] - ahead
            return bool(behind.mean() <= TRAILING * behind.std() / np.sqrt(len(rows)))

        return [name for name in ranked if may_win(name)][:RUNNERS]

    def calibrated(self, probabilities: Array, rows: Codes | None = None) -> Array:
        """Return (1 - s) p^t / sum p^t + s prior with the t and s of the least loss on some items, or on all."""
        chosen = np.arange(len(self.labels)) if rows is None else rows
        labels = self.labels[chosen]

        def mixed(values: Array, power: float, share: float) -> Array:
            raised = values**power
            raised /= raised.sum(1, keepdims=True)
            return np.asarray((1 - share) * raised + share * self.prior)

        def loss(power: float, share: float) -> float:
            values = mixed(probabilities[chosen], power, share)
            return float(-np.log(values[np.arange(len(labels)), labels]).mean())

        power = min(POWERS, key=lambda value: loss(value, 0.0))
        share = min(PRIORS, key=lambda value: loss(power, value))
        power = min(POWERS, key=lambda value: loss(value, share))
        result = np.full_like(probabilities, 1 / self.classes)
        result[chosen] = mixed(probabilities[chosen], power, share)
        return result
