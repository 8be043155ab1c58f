"""Exact k nearest neighbours: a screen in low precision with a proved bound, then the float64 scores of the definition.

For every pair the screen computes u_ij, an upper bound of the score s_ij (derived in ``modalign.kernels.knn.screen``).
It keeps the m rows of the highest u, so every discarded row has u <= the lowest kept u. The kept rows get their exact
scores; if the k-th of them exceeds the lowest kept u, no discarded row can be a neighbour, and the query is *proved*.
Queries that are not proved are searched again with a larger m (float32 rows then in float32 rather than float16), and
those still not proved are compared with the whole gallery in float64.

Keeping the m highest bounds costs more than the products. A large gallery is therefore sampled first: the k-th exact
score among the kept rows of the sample is a threshold that no neighbour lies below, and one pass over the whole gallery
appends the rows whose bounds reach it (``modalign.kernels.knn.survivors``), for both rows of a pair at once when a
gallery is searched for itself. The sample takes a tenth of the products of all pairs, and any k is served. A row with
more survivors than there is room for is searched like the rows of a small gallery.

The order is always (float64 score, lower index), so the answer does not depend on tiles, splits, the order in which
survivors are appended, or rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import triton
from torch import Tensor

from modalign.kernels.knn.exact_scores import exact_scores, inverse_norms, squared_norms
from modalign.kernels.knn.screen import Screen, unpack_keys
from modalign.kernels.knn.survivors import find_survivors
from modalign.ops.knn_tables import Report, RowBlock, SearchOptions

__all__ = ["knn", "search"]

KEPT = (32, 128)  # the number of rows kept by the first screen and by the second
SLACK = 8  # a screen that keeps fewer rows than k + SLACK proves too few queries to be worth its cost
LARGE = 1 << 15  # galleries of at least this size, or searched for more than the lists keep, are sampled for thresholds
ROOM = 16  # survivors a row has room for, for each of its k neighbours (at least 16 of them)
SURVIVORS_AT_ONCE = 1 << 28  # 8 bytes each
ROWS_AT_ONCE = 1 << 14
SCORES_AT_ONCE = 1 << 22  # float64 scores held by the search without a screen

FindSurvivors = Callable[..., tuple[Tensor, Tensor]]
Neighbors = tuple[Tensor, Tensor]  # indices [r, k] and scores [r, k]
Groups = tuple[Tensor, Tensor] | tuple[None, None]  # of the gallery and of the queries


def knn(
    x: Tensor,
    queries: Tensor | None,
    k: int,
    metric: str,
    *,
    groups: Tensor | None = None,
    query_groups: Tensor | None = None,
    survivors: FindSurvivors = find_survivors,
) -> tuple[Tensor, Tensor, Report]:
    """Return the k rows of x with the highest score for each query, ties to the lower index.

    Args:
        x: [n, d] float32, float16 or bfloat16, the gallery.
        queries: [m, d] of the same dtype, or None to search x for itself; a row is then no neighbour of itself.
        k: the number of neighbours.
        metric: "cosine", "dot" or "euclidean".
        groups: [n] int64 or None; rows of equal groups are no neighbours.
        query_groups: [m] int64, the groups of the queries, if there are queries and groups.
        survivors: screens a large gallery, by default ``modalign.kernels.knn.survivors.find_survivors``.

    Returns:
        Indices [m, k] int64, scores [m, k] float64 and a report. Where a query has fewer than k neighbours, indices are
        -1 and scores -inf. Memory beyond the results: O(n + m) and a fixed working set; float16 codes of float32 rows;
        a copy of x and queries when their values are so large or small that float32 products would leave its range;
        survivors of a large gallery, 128 m max(16, k) bytes or twice that, at most 2 GiB.
    """
    groups = None if groups is None else groups.to(x.device)
    query_groups = groups if query_groups is None else query_groups.to(x.device)
    search = _Search(x, queries, k, metric, groups=(groups, query_groups), survivors=survivors)
    count = len(search.queries)
    indices = torch.empty(count, k, dtype=torch.int64, device=x.device)
    scores = torch.empty(count, k, dtype=torch.float64, device=x.device)
    remaining = torch.arange(count, device=x.device)
    levels = [(partial(search.search_lists, kept=kept, narrow=narrow), ROWS_AT_ONCE) for kept, narrow in search.levels]
    if search.room:
        levels.insert(0, (search.search_survivors, max(1, SURVIVORS_AT_ONCE // search.room)))
    repeated = 0 if levels else count
    for level, (search_rows, rows_at_once) in enumerate(levels):
        unproved = []
        for rows in remaining.split(rows_at_once):
            indices[rows], scores[rows], proved = search_rows(rows)
            unproved.append(rows[~proved])
        remaining = torch.cat(unproved)
        repeated += len(remaining) if level == 0 else 0
        if len(remaining) == 0:
            break
    for rows in remaining.split(max(1, SCORES_AT_ONCE // len(x))) if len(remaining) else ():
        indices[rows], scores[rows] = search.search_gallery(rows)
    indices.masked_fill_(scores == -torch.inf, -1)
    screen = "float16" if search.has_codes and levels else str(x.dtype).removeprefix("torch.")
    return indices, scores, Report(screen, count - repeated, repeated, search.scored)


def search(x: RowBlock, queries: RowBlock | None, options: SearchOptions) -> tuple[Tensor, Tensor, Report]:
    """Call ``knn`` as ``modalign.ops.knn.search`` does."""
    rows, groups = (None, None) if queries is None else (queries.rows, queries.groups)
    return knn(x.rows, rows, options.k, options.metric, groups=x.groups, query_groups=groups)


class _Search:
    """A gallery, its queries, and everything about them that every level of the search uses.

    ``rows`` in the methods are indices [r] of the queries that a call searches for.
    """

    def __init__(
        self,
        x: Tensor,
        queries: Tensor | None,
        k: int,
        metric: str,
        *,
        groups: Groups = (None, None),
        survivors: FindSurvivors = find_survivors,
    ) -> None:
        if len(x) >= 1 << 30:
            raise NotImplementedError(f"knn: the Triton kernels take fewer than 2^30 rows, got {len(x)}")
        self.x, self.k, self.metric, self.groups, self.find_survivors = x.contiguous(), k, metric, groups, survivors
        self.queries = self.x if queries is None else queries.contiguous()
        self.self_search = queries is None
        self.candidates = len(x) - self.self_search
        self.has_codes = x.dtype == torch.float32  # float16 codes, which the first levels multiply
        levels = [(kept, self.has_codes) for kept in KEPT]
        if self.has_codes:
            levels.append((KEPT[-1], False))
        self.levels = [(kept, narrow) for kept, narrow in levels if kept >= min(k + SLACK, self.candidates)]
        room = ROOM * triton.next_power_of_2(max(k, 16))
        # a smaller gallery would need a sample with room for more than k neighbours, which saves nothing
        sampled = len(x) >= LARGE or k + SLACK > KEPT[-1]
        self.room = room if sampled and 4 * room <= len(x) else 0
        self.screens: dict[bool, Screen] = {}
        self.scored = 0
        if metric == "cosine":
            self.inverse_norms = inverse_norms(squared_norms(self.x))
            self.query_inverse_norms = (
                self.inverse_norms if self.self_search else inverse_norms(squared_norms(self.queries))
            )

    def search_lists(self, rows: Tensor, kept: int, narrow: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return neighbours among the ``kept`` highest upper bounds, and whether each query is proved."""
        screen = self.make_screen(narrow)
        bounds, candidates = screen.keep_highest(rows, self.excluded(rows), kept)
        neighbors = self.best(rows, candidates)
        proved = self.is_proved(screen, rows, neighbors, lowest_kept=(bounds[:, -1], candidates[:, -1]))
        # a list with an empty place holds every row that the query may have as a neighbour
        return *neighbors, proved | (kept >= self.candidates) | (candidates[:, -1] < 0)

    def search_survivors(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return neighbours among the rows whose bounds reach a threshold, and whether each query is proved."""
        screen = self.make_screen(self.has_codes)
        rows_at_once = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // self.room))
        thresholds = torch.cat([self.thresholds(screen, part) for part in rows.split(rows_at_once)])
        symmetric = self.self_search and len(rows) == len(self.queries) and screen.queries is screen.x
        keys, counts = self.find_survivors(
            screen, None if symmetric else rows, self.excluded(rows), thresholds=thresholds, capacity=self.room
        )
        results = [
            self.best_survivors(screen, rows[part], keys[part], counts[part])
            for part in torch.arange(len(rows), device=rows.device).split(rows_at_once)
        ]
        indices, scores, proved = (torch.cat(parts) for parts in zip(*results, strict=True))
        return indices, scores, proved

    def search_gallery(self, rows: Tensor) -> Neighbors:
        """Return neighbours by the exact scores of the whole gallery."""
        scores = self.exact(rows, None)
        if self.self_search:
            scores.scatter_(1, rows[:, None], -torch.inf)
        groups, query_groups = self.groups
        if groups is not None and query_groups is not None:
            scores.masked_fill_(query_groups[rows][:, None] == groups, -torch.inf)
        order = scores.sort(dim=1, descending=True, stable=True)
        return order.indices[:, : self.k], order.values[:, : self.k]

    def thresholds(self, screen: Screen, rows: Tensor) -> Tensor:
        """Return for each query a float32 number that the bounds of at least k rows of a sample reach."""
        # of a sample of the share s, k / s rows are expected to survive, with a deviation of about sqrt(k) / s
        size = int((self.k + 4 * self.k**0.5 + 4) / self.room * len(self.x))
        sample = torch.arange(size, device=rows.device) * len(self.x) // size
        kept = KEPT[0] if self.k + SLACK <= KEPT[0] else KEPT[1]
        parts = -(-2 * self.k // kept)
        candidates = []
        for part in (sample[first::parts].contiguous() for first in range(parts)):
            places = torch.searchsorted(part, rows).clamp_(max=len(part) - 1)
            none = torch.full_like(rows, -1)
            excluded = torch.where(part[places] == rows, places, -1) if self.self_search else none
            ids = screen.restrict_to(part).keep_highest(rows, excluded, kept)[1]
            candidates.append(torch.where(ids >= 0, part[ids.clamp(min=0)], -1))
        scores = self.best(rows, torch.cat(candidates, 1))[1]
        lowest, margin = screen.in_bound_units(scores[:, -1], rows)
        threshold = lowest - margin
        rounded = threshold.float()
        below = rounded.nextafter(rounded.new_tensor(-torch.inf))
        return torch.where(rounded.double() > threshold, below, rounded)

    def best_survivors(
        self, screen: Screen, rows: Tensor, keys: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return neighbours among the survivors, and whether all survivors of each query are there.

        The survivors of the highest bounds are scored first; the others only if those do not prove the query.
        """
        keys = keys[:, : max(self.k, int(counts.max()))].sort(dim=1, descending=True).values
        complete = counts <= self.room
        bounds, candidates = unpack_keys(keys)
        kept = min(keys.shape[1], max(KEPT[0], 2 * self.k))
        indices, scores = self.best(rows, candidates[:, :kept])
        lowest_kept = (bounds[:, kept - 1], candidates[:, kept - 1])
        proved = self.is_proved(screen, rows, (indices, scores), lowest_kept=lowest_kept) | (counts <= kept)
        unproved = (~proved & complete).nonzero()[:, 0]
        if len(unproved):
            indices[unproved], scores[unproved] = self.best(rows[unproved], candidates[unproved])
        return indices, scores, complete

    def is_proved(
        self, screen: Screen, rows: Tensor, neighbors: Neighbors, *, lowest_kept: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return for each query whether no row below its lowest kept bound (bound and id) can be a neighbour."""
        indices, scores = neighbors
        last_bound, last_id = lowest_kept
        lowest, margin = screen.in_bound_units(scores[:, -1], rows)
        # margin 0 marks queries whose bounds are exact: there a discarded row of equal score has a higher index
        ties = (margin == 0) & (lowest == last_bound.double()) & (indices[:, -1] <= last_id)
        return (lowest - margin > last_bound.double()) | ties

    def best(self, rows: Tensor, candidates: Tensor) -> Neighbors:
        """Return the k best of the candidates [r, c] by exact score; a candidate of -1 stands for none."""
        candidates = torch.where(candidates >= 0, candidates, len(self.x)).sort(dim=1).values
        missing = candidates == len(self.x)
        scores = self.exact(rows, candidates.masked_fill(missing, 0)).masked_fill_(missing, -torch.inf)
        order = scores.sort(dim=1, descending=True, stable=True)  # stable: ties to the lower index
        return candidates.gather(1, order.indices[:, : self.k]), order.values[:, : self.k]

    def exact(self, rows: Tensor, candidates: Tensor | None) -> Tensor:
        """Return float64 scores of the queries with their candidates [r, c], or with the whole gallery."""
        self.scored += len(rows) * (self.candidates if candidates is None else candidates.shape[1])
        scores = exact_scores(self.queries[rows], self.x, candidates, euclidean=self.metric == "euclidean")
        if self.metric == "cosine":
            scores *= self.query_inverse_norms[rows][:, None]
            scores *= self.inverse_norms if candidates is None else self.inverse_norms[candidates]
        return scores

    def excluded(self, rows: Tensor) -> Tensor:
        """Return the gallery row that is no neighbour of each query, -1 for none."""
        return rows if self.self_search else torch.full_like(rows, -1)

    def make_screen(self, narrow: bool) -> Screen:
        """Return the screen of float16 codes if ``narrow``, else of the rows as they are; each is made once."""
        if narrow not in self.screens:
            self.screens[narrow] = Screen(self.x, self.queries, self.metric, narrow=narrow, groups=self.groups)
        return self.screens[narrow]
