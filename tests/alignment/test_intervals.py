"""Intervals from random parts of the items: what they are, and where there is none."""

import numpy as np
import pytest
import torch
from tests.alignment.test_align import pair

import modalign
from modalign import align, metrics
from modalign.alignment.intervals import population_interval, random_parts, within_part


def test_few_items_have_no_interval() -> None:
    result = align(*pair(60), ["mutual_knn", "cka"], k=5)
    assert all(score.interval == "none" for score in result.scores)
    assert sum("no intervals" in note for note in result.notes) == 1
    assert "note: no intervals" in repr(result)


def test_wide_representations_have_the_intervals_that_a_quarter_has() -> None:
    rng = np.random.default_rng(0)
    result = align(rng.normal(size=(200, 80)), rng.normal(size=(200, 90)), ["cca", "cka"], k=5, null="none")
    assert result["cca"].low is None
    assert result["cka"].low is not None
    assert any("no interval for cca, which is not defined for a quarter of the items" in note for note in result.notes)


def test_a_metric_that_no_quarter_has_leaves_no_interval() -> None:
    rng = np.random.default_rng(0)
    result = align(rng.normal(size=(200, 80)), rng.normal(size=(200, 90)), ["cca"], k=5, null="none")
    assert result["cca"].low is None


def test_parts_of_a_graph_are_the_graphs_of_the_parts() -> None:
    x, _ = pair(300)
    lists = torch.as_tensor(modalign.knn(x, 100).indices)
    for part in random_parts(300, 4, repeats=2):
        kept = part == 1
        expected = torch.as_tensor(modalign.knn(x[kept.numpy()], 6).indices)
        assert torch.equal(within_part(lists, kept, 6), expected)
    short = within_part(lists[:, :8], kept, 6)
    assert short.shape == expected.shape
    assert bool((short.sort(1).values.diff(dim=1) > 0).all())
    assert not bool((short == torch.arange(len(short))[:, None]).any())


def test_parts_keep_groups_together() -> None:
    groups = torch.arange(90) // 3
    for part in random_parts(90, 2, groups=groups, repeats=3):
        assert all(len(set(part[groups == group].tolist())) == 1 for group in range(30))


def test_interval_of_a_mean() -> None:
    """The variance of a mean is known, so its interval is the textbook one."""
    values = torch.from_numpy(np.random.default_rng(0).normal(size=400))
    splits = [
        [[float(values[part == number].mean()) for number in range(parts)] for part in random_parts(400, parts, 1)]
        for parts in (2, 4)
    ]
    low, high = population_interval(float(values.mean()), *splits)
    assert (high - low) / 2 == pytest.approx(2.06 * float(values.std()) / 20, rel=0.35)


def test_no_interval_leaves_what_a_score_can_be() -> None:
    x, y = (np.random.default_rng(seed).normal(size=(300, 6)) for seed in (0, 1))
    result = align(x, y, "all", null="none")
    for score in result.scores:
        least, most = metrics.METRICS[score.metric].range
        assert score.low is not None, score.metric
        assert least <= score.low <= score.value <= score.high <= most, score.metric
    assert result["unbiased_cka"].low < 0
    assert population_interval(0.01, [[0.0, 0.3]] * 5, None, within=(0, 1))[0] == 0
    assert population_interval(0.99, [[0.7, 1.0]] * 5, None, within=(0, 1))[1] == 1


def test_a_part_without_a_score_costs_the_interval_alone() -> None:
    rng = np.random.default_rng(0)
    x, rare, few = rng.normal(size=(200, 3)), np.zeros((200, 1)), np.zeros((200, 1))
    rare[[6, 7]] = 1
    few[:62] = rng.normal(size=(62, 1))  # 0.48 of all distances are 0, and more than half in some part
    for y, name in ((rare, "cka"), (few, "rbf_cka")):
        result = align(x, y, ["mutual_knn", name], k=5, relabellings=19)
        assert result[name].low is None, name
        assert any(
            f"no interval for {name}, which is not defined for a part of the items: " in note for note in result.notes
        )
        assert result["mutual_knn"].low is not None
