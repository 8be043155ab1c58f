"""Every alignment metric by its name, and what it takes to compute it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

__all__ = ["METRICS", "Metric", "metric_names"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """needs: "lists" (the k nearest neighbours of an item in both representations: a mean over items), "graphs" (the
    lists of all items, and rows), "moments" (sums over rows, streamed) or "pairs" (every pair of items, in tiles).
    title: for tables. best: the value of two equal representations. symmetric: the same for (x, y) and (y, x). range:
    what the score cannot leave, so that no interval does."""

    name: str
    needs: str
    title: str
    best: float = 1.0
    symmetric: bool = True
    range: tuple[float, float] = (0.0, 1.0)


ANY = (-math.inf, math.inf)
SIGNED = (-1.0, 1.0)

METRICS = {
    metric.name: metric
    for metric in (
        Metric("mutual_knn", "lists", "mutual k-NN"),
        Metric("jaccard_knn", "lists", "Jaccard index of neighbours"),
        Metric("rank_similarity", "lists", "rank similarity of neighbours"),
        Metric("lcs_knn", "lists", "longest common subsequence of neighbours"),
        Metric("edit_distance_knn", "lists", "edit similarity of neighbours"),
        Metric("cycle_knn", "graphs", "cycle k-NN", symmetric=False),
        Metric("cknna", "graphs", "CKNNA", range=SIGNED),
        Metric("second_order_cosine", "graphs", "second-order cosine", range=SIGNED),
        Metric("cka", "moments", "linear CKA"),
        Metric("unbiased_cka", "moments", "unbiased linear CKA", range=ANY),
        Metric("clipped_cka", "moments", "unbiased linear CKA, clipped at 0", range=(0.0, math.inf)),
        Metric("cca", "moments", "mean canonical correlation"),
        Metric("svcca", "moments", "SVCCA"),
        Metric("pwcca", "moments", "PWCCA", symmetric=False),
        Metric("procrustes", "moments", "Procrustes similarity"),
        Metric("rv", "moments", "RV coefficient"),
        Metric("cmd", "moments", "correlation-matrix distance", best=0.0),
        Metric("centered_cmd", "moments", "centred correlation-matrix distance", best=0.0),
        Metric("linear_r2", "moments", "R2 of linear regression", symmetric=False),
        Metric("rbf_cka", "pairs", "CKA of Gaussian kernels", range=ANY),
        Metric("rsa", "pairs", "RSA", range=SIGNED),
        Metric(
            "information_imbalance",
            "pairs",
            "information imbalance, x to y",
            best=0.0,
            symmetric=False,
            range=(0.0, math.inf),
        ),
        Metric("retrieval", "pairs", "recall at 1 of y by x", symmetric=False),
    )
}


def metric_names(operation: str, metrics: str | Sequence[str]) -> list[str]:
    """The names asked for: one, several, or "all"."""
    if metrics == "all":
        return list(METRICS)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        if name not in METRICS:
            raise ValueError(f"{operation}: metrics must be among {', '.join(METRICS)}, or 'all', got {name!r}")
    if not names:
        raise ValueError(f"{operation}: metrics must name at least one of {', '.join(METRICS)}, got none")
    if len(set(names)) < len(names):
        raise ValueError(f"{operation}: metrics must be different names, got {names}")
    return names
