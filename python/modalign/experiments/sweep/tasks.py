"""Tasks that encoders are trained for: the loss and the score of each kind.

task              loss of a pair                              score, "accuracy" in tables
classification    cross-entropy                               share of correct classes
regression        |prediction - label| (L1)                   share of correct signs, 0 counting as negative
multilabel        binary cross-entropy, mean over labels      micro-averaged F1 at probability 1/2
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from modalign.data import PairedDataset

__all__ = ["Score", "chance", "losses", "outputs", "strata"]

BINS = 4  # of a regression's labels, so that labelled pairs are spread over their range


def outputs(data: PairedDataset) -> int:
    """Return the number of outputs of a task head."""
    return 1 if data.task == "regression" else len(data.classes)


def losses(task: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss (runs, n) of each pair.

    Args:
        task: "classification", "regression" or "multilabel".
        logits: (runs, n, outputs).
        labels: (runs, n), or (runs, n, labels) for a multilabel task.
    """
    if task == "classification":
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    if task == "regression":
        return (logits[..., 0] - labels).abs()
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)


class Score:
    """Score of every run, summed up over blocks of pairs.

    Args:
        task: "classification", "regression" or "multilabel".
        runs: Number of runs.
    """

    def __init__(self, task: str, runs: int) -> None:
        self.task = task
        self._hits, self._total = (torch.zeros(runs, dtype=torch.int64) for _ in range(2))

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a block of pairs.

        Args:
            logits: (runs, n, outputs).
            labels: (n,) or (n, labels) for all runs, or (runs, n) or (runs, n, labels) for each.
        """
        if self.task == "multilabel":
            predicted, true = logits > 0, (labels > 0.5).expand_as(logits)
            self._hits += 2 * (predicted & true).sum((1, 2)).cpu()
            self._total += (predicted.sum((1, 2)) + true.sum((1, 2))).cpu()
            return
        signs = self.task == "regression"  # 0 is negative, as MultiBench counts
        correct = (logits[..., 0] > 0) == (labels > 0) if signs else logits.argmax(-1) == labels
        self._hits += correct.sum(1).cpu()
        self._total += correct.shape[1]

    def value(self) -> Tensor:
        """Return the scores (runs,) float64 of all pairs added so far."""
        return self._hits.double() / self._total.clamp(min=1)


def chance(task: str, labels: Tensor) -> float:
    """Return the score of the best constant prediction for ``labels``, (n,) or (n, labels)."""
    if task == "classification":
        return float(labels.bincount().max()) / len(labels)
    if task == "regression":
        positive = float((labels > 0).double().mean())
        return max(positive, 1 - positive)
    # the best constant set of labels holds the most frequent ones
    share = labels.double().mean(0).sort(descending=True).values.cumsum(0)
    predicted = torch.arange(1, len(share) + 1)
    return float((2 * share / (predicted + labels.double().mean(0).sum())).max())


def strata(data: PairedDataset) -> Tensor:
    """Return the classes (n,) int64 that a label budget is spread over; those of pairs without a label mean nothing."""
    if data.task == "classification":
        return data.labels
    if data.task == "multilabel":
        return torch.zeros(len(data), dtype=torch.int64)
    known = data.labels[data.has_label()].double()
    edges = torch.quantile(known, torch.arange(1, BINS, dtype=torch.float64) / BINS)
    return torch.bucketize(data.labels.double(), edges)
