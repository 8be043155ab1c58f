"""Checks that the rows of a search belong together, and that every searching row has k candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["require_candidates"]


class _Table(Protocol):
    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...


class _Grouped(Protocol):
    @property
    def rows(self) -> _Table: ...

    @property
    def groups(self) -> Tensor | None: ...


def require_candidates(x: _Grouped, queries: _Grouped | None, k: int) -> None:
    """Check the tables of a search.

    Args:
        x: (n, d) rows, with groups (n,) or None.
        queries: (m, d) rows with groups (m,) where x has groups; None if the rows of x search for each other.
        k: The number of neighbours.

    Raises:
        TypeError: Groups are not int64.
        ValueError: Widths, dtypes or lengths do not match, k is out of range, or a searching row has fewer than k
            candidates outside its group.
    """
    searching = x if queries is None else queries
    if searching.rows.shape[1] != x.rows.shape[1] or searching.rows.dtype != x.rows.dtype:
        raise ValueError(
            "knn: queries must have the width and dtype of x, "
            f"got {tuple(searching.rows.shape)} {searching.rows.dtype} for {tuple(x.rows.shape)} {x.rows.dtype}"
        )
    n = x.rows.shape[0]
    most = n - (queries is None)
    if not 1 <= k <= most:
        raise ValueError(f"knn: k must be between 1 and {most} for {n} rows, got {k}")
    _require_groups(x, searching, k)


def _require_groups(x: _Grouped, searching: _Grouped, k: int) -> None:
    groups, searching_groups = x.groups, searching.groups
    if groups is None and searching_groups is None:
        return
    if groups is None or searching_groups is None:
        raise ValueError("knn: groups and query_groups go together where there are queries, got one of them")
    for name, table, rows in (("groups", groups, x.rows), ("query_groups", searching_groups, searching.rows)):
        if table.dtype != torch.int64:
            raise TypeError(f"knn: {name} must be int64, got {table.dtype}")
        if tuple(table.shape) != (rows.shape[0],):
            raise ValueError(f"knn: {name} must be ({rows.shape[0]},), one for each row, got {tuple(table.shape)}")
    n = x.rows.shape[0]
    values, counts = torch.unique(groups, return_counts=True)
    position = torch.searchsorted(values, searching_groups).clamp_(max=len(values) - 1)
    excluded = counts[position] * (values[position] == searching_groups)
    few = (n - excluded < k).nonzero()[:, 0]
    if len(few):
        raise ValueError(
            f"knn: every row must have k = {k} candidates outside its group, got fewer for {len(few)} rows, the first "
            f"{few[:3].tolist()}; take a smaller k or leave out the largest groups"
        )
