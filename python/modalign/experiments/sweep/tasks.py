"""What encoders are trained for: the loss and the score of each kind of task.

task              loss of a pair                               score, "accuracy" in tables
classification    cross-entropy                                share of right classes
regression        |prediction - label| (L1)                    share of right signs, 0 counting as positive
multilabel        binary cross-entropy, mean over labels       micro-averaged F1 at probability 1/2
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from modalign.data import PairedDataset

__all__ = ["Score", "chance", "losses", "outputs", "strata"]

BINS = 4  # of a regression's labels, so that labelled pairs are spread over their range


def outputs(data: PairedDataset) -> int:
    """How wide a task head is."""
    return 1 if data.task == "regression" else len(data.classes)


def losses(task: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Of each pair: logits (runs, n, outputs), labels (runs, n) or (runs, n, L); returns (runs, n)."""
    if task == "classification":
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    if task == "regression":
        return (logits[..., 0] - labels).abs()
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)


class Score:
    """The score of every run, from blocks of pairs."""

    def __init__(self, task: str, runs: int) -> None:
        self.task, self.hits, self.total = (
            task,
            torch.zeros(runs, dtype=torch.int64),
            torch.zeros(runs, dtype=torch.int64),
        )

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits (runs, n, outputs); labels (n,) or (n, L) of all runs, or (runs, n) or (runs, n, L) of each."""
        if self.task == "multilabel":
            said, true = logits > 0, (labels > 0.5).expand_as(logits)
            self.hits += 2 * (said & true).sum((1, 2)).cpu()
            self.total += (said.sum((1, 2)) + true.sum((1, 2))).cpu()
            return
        right = logits.argmax(-1) == labels if self.task == "classification" else (logits[..., 0] >= 0) == (labels >= 0)
        self.hits += right.sum(1).cpu()
        self.total += right.shape[1]

    def value(self) -> Tensor:
        """(runs,) float64"""
        return self.hits.double() / self.total.clamp(min=1)


def chance(task: str, labels: Tensor) -> float:
    """The score of the best answer that is always the same."""
    if task == "classification":
        return float(labels.bincount().max()) / len(labels)
    if task == "regression":
        positive = float((labels >= 0).double().mean())
        return max(positive, 1 - positive)
    share = labels.double().mean(0).sort(descending=True).values.cumsum(0)
    said = torch.arange(1, len(share) + 1)
    return float((2 * share / (said + labels.double().mean(0).sum())).max())


def strata(data: PairedDataset) -> Tensor:
    """(n,) int64: the classes that a label budget is spread over."""
    if data.task == "classification":
        return data.labels
    if data.task == "multilabel":
        return torch.zeros(len(data), dtype=torch.int64)
    edges = torch.quantile(data.labels.double(), torch.arange(1, BINS, dtype=torch.float64) / BINS)
    return torch.bucketize(data.labels.double(), edges)
