"""A choice that is not there is refused with the most similar one, at every door."""

from collections.abc import Callable

import pytest
import torch

import modalign
from modalign.data import PairedDataset, affect, own, synthetic
from modalign.encoders import embed
from modalign.information import pid
from modalign.losses.drop_ins import MultipleNegativesRankingLoss, info_nce_loss

X = torch.eye(4)
DOORS: dict[str, tuple[Callable[[], object], str]] = {
    "info_nce: direction": (lambda: modalign.info_nce(X, X, direction="x2y"), "x_to_y"),
    "InfoNCE: reduction": (lambda: modalign.InfoNCE(reduction="average"), "mean"),
    "Sharding: way": (lambda: modalign.distributed.Sharding(way="rings"), "ring"),
    "info_nce_loss: reduction": (lambda: info_nce_loss(X, X, reduction="men"), "mean"),
    "MultipleNegativesRankingLoss: hardness_mode": (
        lambda: MultipleNegativesRankingLoss(torch.nn.Identity(), hardness_mode="hard_negative"),
        "hard_negatives",
    ),
    "knn: metric": (lambda: modalign.knn(X, 1, metric="l2"), "euclidean"),
    "knn: backend": (lambda: modalign.knn(X, 1, backend="trition"), "triton"),
    "align: metric": (lambda: modalign.align(X, X, metrics="mutual_knn", k=1, metric="cos"), "cosine"),
    "explain: operation": (lambda: modalign.explain("infonce", X, X), "info_nce"),
    "pid: method": (lambda: pid(X, X, [0, 1, 0, 1], method="bach"), "batch"),
    "own: task": (lambda: own(X, X, labels=[0, 1, 0, 1], task="classifcation"), "classification"),
    "PairedDataset: task": (
        lambda: PairedDataset(
            "a", ("x", "y"), X, X, torch.arange(4) % 2, torch.arange(4) % 3, (), task="classifcation"
        ),
        "classification",
    ),
    "synthetic: variant": (lambda: synthetic(redundancy=8, n=100, variant="widht"), "width"),
    "affect: dataset": (lambda: affect("mosei.pkl", "moseii"), "mosei"),
    "embed: pooling": (lambda: embed(len, ["a"], "a.npy", pooling="means"), "mean"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("door", DOORS)
def test_a_choice_with_a_slip_is_answered_with_the_one_that_was_meant(door: str) -> None:
    call, meant = DOORS[door]
    with pytest.raises(ValueError, match=rf"{door.split(': ')[1]}.* got .*; did you mean {meant}\?"):
        call()
