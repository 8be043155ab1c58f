"""Scores of tasks against their definitions."""

import torch

from modalign.experiments.sweep import tasks


def test_a_score_of_zero_is_negative_as_multibench_counts() -> None:
    labels, predictions = torch.tensor([0.0, 0, 0, 1, -1]), torch.tensor([-0.1, -0.2, 0.3, 0.5, -0.5])
    score = tasks.Score("regression", 1)
    score.add(predictions[None, :, None], labels)
    assert score.value().tolist() == [0.8]
    assert tasks.chance("regression", labels) == 0.8  # always negative
