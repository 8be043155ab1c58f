"""Exact k nearest neighbours: a screen in low precision with a proved bound, then the float64 scores of the definition.

For every pair the screen computes u_ij, an upper bound of the score s_ij (modalign.kernels.knn.screen says which), and
keeps the m rows of the highest u: every discarded row has u <= the lowest kept u. The kept rows get their exact
scores, and if the k-th of them exceeds the lowest kept u, no discarded row can be a neighbour: the query is *proved*.
Queries that are not are searched again with a larger m, float32 rows then in float32 rather than float16, and what
remains against the whole gallery in float64.

Keeping the highest u of so many costs more than the products do. A large gallery is therefore sampled first: the k-th
exact score among the kept rows of the sample is a threshold that no neighbour lies below, and one pass over the whole
gallery appends what reaches it (modalign.kernels.knn.survivors), both sides of a pair at once when a gallery is
searched for itself. The sample takes a tenth of the products of all pairs, and any k is served; a row with more
survivors than there is room for goes the way of the small galleries.

The order is always (float64 score, lower index), so the answer does not depend on tiles, splits, the order in which
survivors are appended, or rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.knn.screen import Screen, unpacked
from modalign.kernels.knn.survivors import survivors
from modalign.kernels.shared.launch import launch, readable
from modalign.kernels.shared.tiles import ANY, architecture, interpreted, tile

__all__ = ["knn", "merge"]

KEPT = (32, 128)  # rows kept by the first screen and by the second
SLACK = 8  # fewer kept rows than k + SLACK prove too little to be worth a screen
LARGE = 1 << 15  # galleries from this size on, or searched for more than lists keep, are sampled for thresholds
ROOM = 16  # survivors a row has room for, for each of its k neighbours (at least 16 of them)
SURVIVORS_AT_ONCE = 1 << 28  # 8 bytes each
ROWS_AT_ONCE = 1 << 14
SCORES_AT_ONCE = 1 << 22  # float64 scores held by the search without a screen


Report = tuple[str, int, int, int]  # the screen, rows it proved, rows searched again, pairs scored in float64


def knn(
    x: Tensor, queries: Tensor | None, k: int, metric: str, *, groups: Tensor | None = None,
    query_groups: Tensor | None = None, survivors: Callable[..., tuple[Tensor, Tensor]] = survivors,
) -> tuple[Tensor, Tensor, Report]:  # fmt: skip
    """The k rows of x of the highest score for each query, ties to the lower index, self excluded by id.

    x: [n, d], queries: [m, d] of one dtype (float32, float16, bfloat16), or None to search x for itself.
    metric: "cosine", "dot" or "euclidean". groups: [n] int64, and query_groups [m] where there are queries: rows of
    equal groups are no neighbours. survivors: what screens a large gallery, as modalign.kernels.knn.survivors does.
    Returns indices [m, k] int64 and scores [m, k] float64, -1 and -inf where there is no neighbour, and what it took.
    Memory beyond the results: O(n + m) and a fixed working set, float16 codes of float32 rows, a copy of x and queries
    when their values are so large or small that float32 products of them would leave its range, and of a large gallery
    survivors, 128 m max(16, k) bytes or twice that, at most 2 GiB.
    """
    groups = None if groups is None else groups.to(x.device)
    query_groups = groups if query_groups is None else query_groups.to(x.device)
    search = _Search(x, queries, k, metric, (groups, query_groups), survivors)
    indices = torch.empty(len(search.rows), k, dtype=torch.int64, device=x.device)
    scores = torch.empty(len(search.rows), k, dtype=torch.float64, device=x.device)
    left = torch.arange(len(search.rows), device=x.device)
    ways = [(partial(search.screened, kept=kept, narrow=narrow), ROWS_AT_ONCE) for kept, narrow in search.levels]
    if search.room:
        ways.insert(0, (search.survived, max(1, SURVIVORS_AT_ONCE // search.room)))
    redone = 0 if ways else len(left)
    for number, (way, at_once) in enumerate(ways):
        unproved = []
        for which in left.split(at_once):
            indices[which], scores[which], proved = way(which)
            unproved.append(which[~proved])
        left = torch.cat(unproved)
        redone += len(left) if number == 0 else 0
        if len(left) == 0:
            break
    for which in left.split(max(1, SCORES_AT_ONCE // len(x))) if len(left) else ():
        indices[which], scores[which] = search.exhaustive(which)
    indices.masked_fill_(scores == -torch.inf, -1)
    name = "float16" if search.wide and ways else str(x.dtype).removeprefix("torch.")
    return indices, scores, (name, len(search.rows) - redone, redone, search.scored)


def merge(
    x: Tensor, y: Tensor | None, metric: str, x_best: tuple[Tensor, Tensor] | None,
    y_best: tuple[Tensor, Tensor] | None, *, x_start: int = 0, y_start: int = 0,
    x_groups: Tensor | None = None, y_groups: Tensor | None = None, watch: tuple[Tensor, Tensor] | None = None,
    threads: int | None = None,
) -> Report:  # fmt: skip
    """Fold the pairs of two blocks in the host's memory into the lists of best neighbours of either, in place there.

    x, y, lists, starts, groups and watch: as in ``modalign.ops.knn.merge``; threads are not needed. The blocks are
    searched on the GPU, one for the other in turn. Memory there: both blocks, and what ``knn`` takes for them.
    """
    itself = y is None
    own = x if interpreted() else x.to("cuda")
    other = own if itself else (y if interpreted() else y.to("cuda"))
    other_groups = x_groups if itself else y_groups
    sides = [
        (x_best, own, other, x_start if itself else y_start, x_groups, other_groups),
        (y_best, other, own, x_start, other_groups, x_groups),
    ]
    screens, tally = set(), np.zeros(3, dtype=np.int64)
    for best, rows, gallery, start, of_rows, of_gallery in sides:
        k = 0 if best is None else min(best[0].shape[1], len(gallery) - itself)
        if k:
            indices, scores, (screen, *counts) = knn(
                gallery, None if itself else rows, k, metric, groups=of_gallery,
                query_groups=None if itself else of_rows,
            )  # fmt: skip
            indices = torch.where(indices >= 0, indices + start, -1)
            screens.add(screen)
            tally += counts
            for part in torch.arange(len(rows)).split(ROWS_AT_ONCE):
                found = indices[part].cpu(), scores[part].cpu()
                _fold(best[0][part[0] : part[-1] + 1], best[1][part[0] : part[-1] + 1], *found)
    if watch is not None:
        watch[0].add_(len(own) * len(other))
    return ", ".join(sorted(screens)) or "none", *map(int, tally)


def _fold(ids: Tensor, scores: Tensor, new_ids: Tensor, new_scores: Tensor) -> None:
    """The best of two lists, in place of the first: by falling score, ties by the lower id."""
    every_id, every_score = torch.cat([ids, new_ids], 1), torch.cat([scores, new_scores], 1)
    by_id = every_id.sort(dim=1)
    by_score = every_score.gather(1, by_id.indices).sort(dim=1, descending=True, stable=True)
    ids.copy_(by_id.values.gather(1, by_score.indices[:, : ids.shape[1]]))
    scores.copy_(by_score.values[:, : ids.shape[1]])


class _Search:
    """What is known of the gallery and the queries before the first row is searched."""

    def __init__(
        self, x: Tensor, queries: Tensor | None, k: int, metric: str,
        groups: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
        survivors: Callable[..., tuple[Tensor, Tensor]] = survivors,
    ) -> None:  # fmt: skip
        if len(x) >= 1 << 30:
            raise NotImplementedError(f"knn: the Triton kernels take fewer than 2^30 rows, got {len(x)}")
        self.x, self.k, self.metric, self.groups, self.survivors = x.contiguous(), k, metric, groups, survivors
        self.rows = self.x if queries is None else queries.contiguous()
        self.itself = queries is None
        self.candidates = len(x) - self.itself
        self.wide = x.dtype == torch.float32
        levels = [*((kept, self.wide) for kept in KEPT), *([(KEPT[-1], False)] if self.wide else [])]
        self.levels = [(kept, narrow) for kept, narrow in levels if kept >= min(k + SLACK, self.candidates)]
        room = ROOM * triton.next_power_of_2(max(k, 16))
        # a smaller gallery would be sampled for more than its k neighbours in vain
        wanted = len(x) >= LARGE or k + SLACK > KEPT[-1]
        self.room = room if wanted and 4 * room <= len(x) else 0
        self.screens: dict[bool, Screen] = {}
        self.scored = 0
        if metric == "cosine":
            self.inverse = inverse_norms(squared_norms(self.x))
            self.row_inverse = self.inverse if self.itself else inverse_norms(squared_norms(self.rows))

    def screened(self, which: Tensor, kept: int, narrow: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Neighbours of the rows ``which`` among the ``kept`` highest upper bounds, and whether they are proved."""
        screen = self.screen(narrow)
        bounds, candidates = screen.highest(which, self.excluded(which), kept)
        indices, best = self.best(which, candidates)
        proved = self.proved(screen, which, indices, best, bounds[:, -1], candidates[:, -1])
        # a list that has room left holds all that the row may find
        return indices, best, proved | (kept >= self.candidates) | (candidates[:, -1] < 0)

    def survived(self, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Neighbours of the rows ``which`` among those that survive a threshold, and whether they are proved."""
        screen = self.screen(self.wide)
        at_once = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // self.room))
        thresholds = torch.cat([self.thresholds(screen, part) for part in which.split(at_once)])
        everything = self.itself and len(which) == len(self.rows) and screen.queries is screen.x
        whose = None if everything else which
        keys, counts = self.survivors(screen, whose, self.excluded(which), thresholds, self.room)
        found = [
            self.among(screen, which[part], keys[part], counts[part])
            for part in torch.arange(len(which), device=which.device).split(at_once)
        ]
        indices, best, proved = (torch.cat(parts) for parts in zip(*found, strict=True))
        return indices, best, proved

    def thresholds(self, screen: Screen, which: Tensor) -> Tensor:
        """For each row a bound, in float32, that k rows of a sample of the gallery are known to reach."""
        # of a sample of the share s, k / s are expected to survive, give or take sqrt(k) / s
        size = int((self.k + 4 * self.k**0.5 + 4) / self.room * len(self.x))
        sample = torch.arange(size, device=which.device) * len(self.x) // size
        kept = KEPT[0] if self.k + SLACK <= KEPT[0] else KEPT[1]
        parts = -(-2 * self.k // kept)
        candidates = []
        for part in (sample[first::parts].contiguous() for first in range(parts)):
            places = torch.searchsorted(part, which).clamp_(max=len(part) - 1)
            excluded = torch.where(part[places] == which, places, -1) if self.itself else torch.full_like(which, -1)
            ids = screen.over(part).highest(which, excluded, kept)[1]
            candidates.append(torch.where(ids >= 0, part[ids.clamp(min=0)], -1))
        best = self.best(which, torch.cat(candidates, 1))[1]
        lowest, margin = screen.in_bound_units(best[:, -1], which)
        rounded = (lowest - margin).float()
        return torch.where(
            rounded.double() > lowest - margin, rounded.nextafter(rounded.new_tensor(-torch.inf)), rounded
        )

    def among(self, screen: Screen, which: Tensor, keys: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Neighbours of the rows ``which`` among their survivors: among the highest if that proves them, or all."""
        keys = keys[:, : max(self.k, int(counts.max()))].sort(dim=1, descending=True).values
        complete = counts <= self.room
        bounds, candidates = unpacked(keys)
        kept = min(keys.shape[1], max(KEPT[0], 2 * self.k))
        indices, best = self.best(which, candidates[:, :kept])
        proved = self.proved(screen, which, indices, best, bounds[:, kept - 1], candidates[:, kept - 1])
        proved |= counts <= kept
        again = (~proved & complete).nonzero()[:, 0]
        if len(again):
            indices[again], best[again] = self.best(which[again], candidates[again])
        return indices, best, complete

    def proved(
        self, screen: Screen, which: Tensor, indices: Tensor, best: Tensor, last_bound: Tensor, last_id: Tensor
    ) -> Tensor:
        """Whether no row whose bound is at most ``last_bound`` can be a neighbour."""
        lowest, margin = screen.in_bound_units(best[:, -1], which)
        # margin 0 marks rows whose bounds are exact: there a discarded row of equal score has a higher index
        ties = (margin == 0) & (lowest == last_bound.double()) & (indices[:, -1] <= last_id)
        return (lowest - margin > last_bound.double()) | ties

    def best(self, which: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The k best by exact score of the candidates [r, c] of the rows ``which``; -1 is no candidate."""
        candidates = torch.where(candidates >= 0, candidates, len(self.x)).sort(dim=1).values
        missing = candidates == len(self.x)
        scores = self.exact(which, candidates.masked_fill(missing, 0)).masked_fill_(missing, -torch.inf)
        order = scores.sort(dim=1, descending=True, stable=True)  # stable: ties to the lower index
        return candidates.gather(1, order.indices[:, : self.k]), order.values[:, : self.k]

    def excluded(self, which: Tensor) -> Tensor:
        """The gallery row that each of the rows must not find, -1 for none."""
        return which if self.itself else torch.full_like(which, -1)

    def screen(self, narrow: bool) -> Screen:
        if narrow not in self.screens:
            self.screens[narrow] = Screen(self.x, self.rows, self.metric, narrow, self.groups)
        return self.screens[narrow]

    def exhaustive(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbours of the rows ``which`` from their exact scores with the whole gallery."""
        scores = self.exact(which, None)
        if self.itself:
            scores.scatter_(1, which[:, None], -torch.inf)
        groups, query_groups = self.groups
        if groups is not None and query_groups is not None:
            scores.masked_fill_(query_groups[which][:, None] == groups, -torch.inf)
        order = scores.sort(dim=1, descending=True, stable=True)
        return order.indices[:, : self.k], order.values[:, : self.k]

    def exact(self, which: Tensor, candidates: Tensor | None) -> Tensor:
        """float64 scores of the rows ``which`` with their candidates [len(which), m], or with the whole gallery."""
        self.scored += len(which) * (self.candidates if candidates is None else candidates.shape[1])
        total = exact_scores(self.rows[which], self.x, candidates, self.metric == "euclidean")
        if self.metric == "cosine":
            total *= self.row_inverse[which][:, None]
            total *= self.inverse if candidates is None else self.inverse[candidates]
        return total


def inverse_norms(squares: Tensor) -> Tensor:
    """1 / sqrt, 0 for 0. NumPy's square root is correctly rounded; torch's on the CPU may be off by one place."""
    norms = np.sqrt(squares.cpu().numpy())
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return torch.from_numpy(inverse).to(squares.device)


def squared_norms(x: Tensor) -> Tensor:
    """|x_i|^2 in float64, the squares summed feature by feature in order."""
    return exact_scores(x, x, torch.arange(len(x), device=x.device)[:, None], euclidean=False)[:, 0]


def exact_scores(queries: Tensor, x: Tensor, candidates: Tensor | None, euclidean: bool) -> Tensor:
    """sum_c q_c x_c, or -sum_c (q_c - x_c)^2, in float64, feature by feature in order, no fused multiply-add.

    queries: [m, d], x: [n, d], candidates: [m, c] int64 rows of x, or None for all. Returns [m, c] or [m, n].
    """
    queries, x = readable(queries), readable(x)
    columns = len(x) if candidates is None else candidates.shape[1]
    scores = torch.empty(len(queries), columns, dtype=torch.float64, device=x.device)
    sizes = tile("knn_exact", x.dtype, ANY if candidates is None else columns, architecture(x.device))
    programs = triton.cdiv(len(queries), sizes.blocks["BLOCK_M"]) * triton.cdiv(columns, sizes.blocks["BLOCK_N"])
    launch(
        _knn_exact_kernel, programs, sizes, queries, x, scores if candidates is None else candidates.contiguous(),
        scores, len(queries), columns, x.shape[1], CANDIDATES=candidates is not None, EUCLIDEAN=euclidean,
    )  # fmt: skip
    return scores


@triton.jit(do_not_specialize=["n_rows", "n_cols"])
def _knn_exact_kernel(
    queries_ptr, x_ptr,  # [n_rows, d], [., d]
    candidates_ptr,  # [n_rows, n_cols] int64
    scores_ptr,  # [n_rows, n_cols] float64
    n_rows, n_cols, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CANDIDATES: tl.constexpr, EUCLIDEAN: tl.constexpr,
):  # fmt: skip
    row_blocks = tl.cdiv(n_rows, BLOCK_M)
    rows = ((tl.program_id(0) % row_blocks) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None].to(tl.int64)
    cols = ((tl.program_id(0) // row_blocks) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :].to(tl.int64)
    inside = (rows < n_rows) & (cols < n_cols)
    # what lies outside reads row 0, so that the loop needs no mask
    if CANDIDATES:
        ids = tl.load(candidates_ptr + rows * n_cols + cols, inside, other=0)
    else:
        ids = tl.where(cols < n_cols, cols, 0)
    left_ptr = queries_ptr + tl.where(rows < n_rows, rows, 0) * d
    right_ptr = x_ptr + ids * d
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float64)
    for c in range(d):
        left = tl.load(left_ptr + c).to(tl.float64)
        right = tl.load(right_ptr + c).to(tl.float64)
        if EUCLIDEAN:
            difference = left - right
            total -= difference * difference
        else:
            total += left * right
    tl.store(scores_ptr + rows * n_cols + cols, total, inside)
