"""Random choices that a seed decides: labels, orders of batches, initial weights, compared pairs."""

from __future__ import annotations

import pytest
import torch

from modalign.experiments.sweep.randomness import (
    batch_order,
    compared_pairs,
    initial_seed,
    label_budget,
    labelled_pairs,
)


@pytest.mark.parametrize("budget", [1, 7, 50, 333, 1000])
def test_labelled_pairs_are_stratified_to_within_one(budget: int) -> None:
    labels = torch.randint(0, 4, (1000,), generator=torch.Generator().manual_seed(0)).clamp(max=2)
    mask = labelled_pairs(labels, budget, seed=1)
    assert int(mask.sum()) == budget
    shares = labels.bincount() * budget / 1000
    assert bool(((labels[mask].bincount(minlength=3) - shares).abs() < 1).all())


def test_labelled_pairs_depend_on_the_seed_alone() -> None:
    labels = torch.arange(500) % 3
    assert torch.equal(labelled_pairs(labels, 60, 4), labelled_pairs(labels, 60, 4))
    assert not torch.equal(labelled_pairs(labels, 60, 4), labelled_pairs(labels, 60, 5))


def test_a_label_budget_is_a_number_a_fraction_or_everything() -> None:
    assert [label_budget(labels, 200) for labels in (1, 200, 1.0, 0.25, 1e-9, None)] == [1, 200, 200, 50, 1, 200]
    with pytest.raises(ValueError, match=r"asks for 201 labelled pairs, but there are 200 training pairs"):
        label_budget(201, 200)


def test_batch_orders_are_permutations_that_change_with_seed_and_epoch() -> None:
    orders = [batch_order(seed, epoch, 101) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(101))
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_initial_seeds_differ_by_part_seed_and_modality() -> None:
    parts = ("encoder", "head", "projection")
    assert len({initial_seed(part, seed, m) for part in parts for seed in range(50) for m in (0, 1)}) == 300


def test_compared_pairs_are_all_or_a_fixed_choice() -> None:
    assert torch.equal(compared_pairs(9, 9), torch.arange(9))
    chosen = compared_pairs(100, 30)
    assert len(set(chosen.tolist())) == 30
    assert torch.equal(chosen, compared_pairs(100, 30))
    assert torch.equal(chosen, chosen.sort().values)
