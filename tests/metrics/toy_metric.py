"""A metric in a file of its own: a function of rows, an evaluator, and an entry in the registry."""

import numpy as np

from modalign.metrics.cost import COLUMN_PRODUCTS
from modalign.metrics.registry import Metric
from modalign.metrics.sums import Moments, moments


def shared_variance(x: np.ndarray, y: np.ndarray) -> float:
    return shared_variance_of_moments(moments(x, y, "shared_variance"))


def shared_variance_of_moments(sums: Moments) -> float:
    return min(sums.trace("x"), sums.trace("y")) / max(sums.trace("x"), sums.trace("y"))


METRIC = Metric(
    name="shared_variance",
    title="ratio of variances",
    needs="moments",
    score=f"{__name__}:shared_variance",
    evaluate=f"{__name__}:shared_variance_of_moments",
    cost=COLUMN_PRODUCTS,
)
