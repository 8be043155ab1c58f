"""Alignment scores of two representations of the same items, by the field's names."""

from modalign.metrics.diagnostics import Duplicates, Hubness, duplicates, hubness, reciprocity
from modalign.metrics.edges import cknna, second_order_cosine
from modalign.metrics.linear import (
    Moments,
    cca,
    centered_cmd,
    cka,
    clipped_cka,
    cmd,
    linear_r2,
    procrustes,
    pwcca,
    rv,
    svcca,
    unbiased_cka,
)
from modalign.metrics.neighborhoods import (
    cycle_knn,
    edit_distance_knn,
    jaccard_knn,
    lcs_knn,
    mutual_knn,
    rank_similarity,
)
from modalign.metrics.pairwise import Approximate, rbf_cka, rbf_cka_of_features, rsa
from modalign.metrics.ranks import InformationImbalance, Ranks, Retrieval, information_imbalance, retrieval
from modalign.metrics.registry import METRICS, Metric

__all__ = [
    "METRICS",
    "Approximate",
    "Duplicates",
    "Hubness",
    "InformationImbalance",
    "Metric",
    "Moments",
    "Ranks",
    "Retrieval",
    "cca",
    "centered_cmd",
    "cka",
    "cknna",
    "clipped_cka",
    "cmd",
    "cycle_knn",
    "duplicates",
    "edit_distance_knn",
    "hubness",
    "information_imbalance",
    "jaccard_knn",
    "lcs_knn",
    "linear_r2",
    "mutual_knn",
    "procrustes",
    "pwcca",
    "rank_similarity",
    "rbf_cka",
    "rbf_cka_of_features",
    "reciprocity",
    "retrieval",
    "rsa",
    "rv",
    "second_order_cosine",
    "svcca",
    "unbiased_cka",
]
