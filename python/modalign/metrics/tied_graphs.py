"""The neighbours of the same items in two representations, where neighbours tie."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from modalign.common.types import Array
from modalign.metrics.expected_overlap import Pairing, Side, expected_overlap, joint
from modalign.metrics.inputs import Graphs
from modalign.neighbors.tie_search import Lists
from modalign.neighbors.ties import TiedLists

__all__ = ["TiedGraphs", "expected_shares", "graphs_of_lists"]

KEPT = 1 << 17  # edges of a drawn graph that is kept


@dataclasses.dataclass(frozen=True, eq=False)
class TiedGraphs:
    """The neighbours of the same items in two representations, with their ties.

    Attributes:
        x: The lists of one representation.
        y: Those of the other, of the same items.
        k: Neighbours of each item.
        metric: The similarity that the graphs were searched by.
        rows: The two tables (x, y), for metrics whose registry entry has ``reads_rows``; None for the others.
        seed: The seed of drawn orders.
    """

    x: TiedLists
    y: TiedLists
    k: int
    metric: str = "cosine"
    rows: tuple[Array, Array] | None = None
    seed: int = 0

    def shares(
        self, ranks: Sequence[float] | None = None, *, kept: Tensor | None = None, relabelling: Tensor | None = None
    ) -> Tensor:
        """Return the expected share of common neighbours of each item.

            S_i(k) = 1 / k sum_j w_ij v_ij

        w_ij is the probability that item j is among the k nearest of item i in x, v_ij in y (``Ranks.weights``).

        Args:
            ranks: Numbers of neighbours up to ``k``, whole or not; None for ``k`` alone.
            kept: (n,) bool, the items of a part, which alone are neighbours; None for all.
            relabelling: (n,) a permutation s; item i of x is paired with item s(i) of y. None for i itself.

        Returns:
            (m, len(ranks)) float64, a row for each searched item, or for each that is kept.
        """
        ks: list[float] = [self.k] if ranks is None else list(ranks)
        mask = None if kept is None else kept.numpy()
        sides = self._sides if mask is None else (Side.of(self.x, mask, self.k), Side.of(self.y, mask, self.k))
        s = None if relabelling is None else relabelling.numpy()
        overlap = expected_overlap(Pairing.of(self.x, self.y, mask, s), sides, ks)
        return torch.from_numpy(overlap / np.asarray(ks, dtype=np.float64))

    @cached_property
    def _sides(self) -> tuple[Side, Side]:
        return Side.of(self.x, None, self.k), Side.of(self.y, None, self.k)

    def self_shares(self) -> tuple[Tensor, Tensor]:
        """Return the expected share of common neighbours of each item in two orders of x, and in two of y, (m,).

        By the inequality of Cauchy and Schwarz, the mean of ``shares`` is at most the root of the product of theirs.
        """
        squares = []
        for lists, side in zip((self.x, self.y), self._sides, strict=True):
            weights = side.ranks.weights(self.k)
            both = side.ranks.copies * joint(weights, weights, self.k)
            of_list = np.bincount(side.ranks.lists, both, minlength=len(lists.searched))
            squares.append(torch.from_numpy(of_list[lists.lists] / self.k))
        return squares[0], squares[1]

    def tied_share(self) -> float:
        """Return the share of the edges of x or of y, whichever is larger, that a random order decides."""
        shares = []
        for lists, side in zip((self.x, self.y), self._sides, strict=True):
            weights = side.ranks.weights(self.k)
            open_weight = side.ranks.copies * weights * (weights < 1)
            of_list = np.bincount(side.ranks.lists, open_weight, minlength=len(lists.searched))
            shares.append(float(of_list[lists.lists].mean()) / self.k)
        return max(shares)

    def assignment_terms(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Return sum w_ij^2, sum w_ij w_ji and sum_j (sum_i w_ij)^2 of x and of y, as Mantel's variance takes them."""
        return self._terms(self.x, self._sides[0]), self._terms(self.y, self._sides[1])

    def _terms(self, lists: TiedLists, side: Side) -> tuple[float, float, float]:
        ranks, counts = side.ranks, np.bincount(lists.rows)
        weights, source = ranks.weights(self.k), lists.searched[ranks.lists]
        items = counts[source]
        squares = float((items * ranks.copies * weights**2).sum())
        reverse = side.find(np.searchsorted(lists.searched, ranks.members), source)
        mutual = float((items * ranks.copies * weights * weights[reverse] * (reverse >= 0)).sum())
        into = np.bincount(ranks.members, weights * (items - (source == ranks.members)), minlength=len(counts))
        return squares, mutual, float((counts * into**2).sum())

    def draw(self, number: int, length: int | None = None) -> Graphs:
        """Return the graphs of one random order of each representation; numbers from 0 tell the draws apart.

        Those of few items are kept for the next metric that asks for them.
        """
        key = number, self.k if length is None else length
        if key in self._drawn:
            return self._drawn[key]
        graphs = self._draw(*key)
        if graphs.a.numel() <= KEPT:
            self._drawn[key] = graphs
        return graphs

    @cached_property
    def _drawn(self) -> dict[tuple[int, int], Graphs]:
        return {}

    def draw_with_itself(self, side: int, number: int) -> Graphs:
        """Return two random orders of x (side 0) or of y (side 1), from the random numbers of ``draw``.

        So they are the graphs of ``draw`` where x and y are equal.
        """
        lists, rows = (self.x, self.y)[side], None if self.rows is None else (self.rows[side],) * 2
        return dataclasses.replace(self, x=lists, y=lists, rows=rows).draw(number)

    def _draw(self, number: int, length: int) -> Graphs:
        of_x, of_y = np.random.SeedSequence([abs(self.seed), self.seed < 0, number]).spawn(2)
        a, b = self.x.draw(length, of_x), self.y.draw(length, of_y)
        n = len(self.x.rows)
        return Graphs(a, b, metric=self.metric, rows=self.rows, candidates=None if len(a) == n else n)


def expected_shares(graphs: TiedGraphs, *, kept: Tensor | None = None, relabelling: Tensor | None = None) -> Tensor:
    """Return ``TiedGraphs.shares`` for k neighbours, (m,): the expectation of mutual k-NN that the registry names.

    A part of the items, ``kept``, has as large a part of the k neighbours.
    """
    k = graphs.k if kept is None else graphs.k * float(kept.double().mean())
    return graphs.shares([k], kept=kept, relabelling=relabelling)[:, 0]


def graphs_of_lists(
    x: Lists, y: Lists, graphs: Graphs, *, items: Tensor | None = None, seed: int = 0
) -> Graphs | TiedGraphs:
    """Return the given graphs, or those with ties if a list of x or y has ties.

    Args:
        x: The lists of x.
        y: The lists of y.
        graphs: The k nearest neighbours of both; ``candidates`` if the lists are of some items.
        items: (m,) the items whose lists these are; None for all.
        seed: The seed of drawn orders.
    """
    if x.ties is None and y.ties is None:
        return graphs
    n = graphs.candidates or len(graphs.a)
    left, right = (lists.ties or TiedLists.without_ties(lists.indices, n, items) for lists in (x, y))
    return TiedGraphs(left, right, graphs.a.shape[1], metric=graphs.metric, rows=graphs.rows, seed=seed)
