"""A layer that gives all items the same has no alignment: a missing value, by one rule in every study."""

import math
from typing import Any

import pandas as pd
import pytest
import torch

import modalign
from modalign.experiments.studies import emergence_claims, vision_language
from modalign.experiments.studies.layer_pairs import compared_layers, highest_defined
from modalign.metrics.undefined import UndefinedScoreError, score_or_nan

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).double()
CONSTANT = torch.ones_like(X)


def layers(*tables: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(rows, torch.as_tensor(modalign.knn(rows, 5).indices)) for rows in tables]


def test_every_study_leaves_the_score_out() -> None:
    first, second = compared_layers(layers(X), layers(CONSTANT, X))
    assert math.isnan(first["unbiased_cka"])
    assert math.isnan(first["svcca"])
    assert second["svcca"] == pytest.approx(1)
    compared = vision_language._scores(vision_language.QUICK, [X], [CONSTANT, X], lambda _: None)
    assert math.isnan(compared["unbiased_cka"][0][0])
    assert compared["unbiased_cka"][0][1] == pytest.approx(1)


@pytest.mark.parametrize("score", [modalign.cka, modalign.unbiased_cka, modalign.metrics.svcca])
def test_only_undefined_scores_are_left_out(score: Any) -> None:
    assert math.isnan(score_or_nan(score, X, CONSTANT))
    with pytest.raises(UndefinedScoreError):
        score(X, CONSTANT)
    with pytest.raises(ValueError, match="must be finite"):
        score_or_nan(score, X, X * torch.nan)
    with pytest.raises(ValueError, match="row i of both the same item"):
        score_or_nan(score, X, X[:10])


def test_a_pair_of_encoders_takes_its_highest_defined_score(tmp_path: Any) -> None:
    key = {"uniqueness": 0, "heterogeneity": 1, "seed": 0, "depth_1": 1, "depth_2": 1, "accuracy": 0.5}
    rows = [
        {**key, "unbiased_cka": math.nan, "svcca": math.nan, "mutual_knn": 0.1},
        {**key, "unbiased_cka": -0.2, "svcca": math.nan, "mutual_knn": 0.2},
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "alignment.parquet")
    (best,) = emergence_claims.best_of_layers(tmp_path).to_dict("records")
    assert (best["unbiased_cka"], best["svcca"], best["mutual_knn"]) == (-0.2, 0.0, 0.2)
    assert highest_defined([math.nan]) == 0.0
