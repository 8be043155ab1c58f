"""Checks of the groups whose members are no neighbours of each other."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["require_groups"]


def require_groups(n: int, m: int, k: int, groups: Tensor | None, query_groups: Tensor | None) -> None:
    """Groups [n] of candidates and [m] of those who search; every one of these must have k outside its own."""
    if groups is None and query_groups is None:
        return
    if groups is None or query_groups is None:
        raise ValueError("knn: groups and query_groups go together where there are queries, got one of them")
    for name, of, rows in (("groups", groups, n), ("query_groups", query_groups, m)):
        if tuple(of.shape) != (rows,):
            raise ValueError(f"knn: {name} must be ({rows},), one for each row, got {tuple(of.shape)}")
    values, counts = torch.unique(groups, return_counts=True)
    place = torch.searchsorted(values, query_groups).clamp_(max=len(values) - 1)
    mates = counts[place] * (values[place] == query_groups)
    few = (n - mates < k).nonzero()[:, 0]
    if len(few):
        raise ValueError(
            f"knn: every row must have k = {k} candidates outside its group, got fewer for {len(few)} rows, the first "
            f"{few[:3].tolist()}; take a smaller k or leave out the largest groups"
        )
