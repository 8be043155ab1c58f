"""Pools of candidates, and sums over the candidates of each anchor that need O(n d).

An anchor meets the candidates of a pool (the batch, its hard negatives, a queue) through sums over the pool, never
through the single entries. All tables are [problems, rows, ...].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from modalign.common.dtypes import accumulator
from modalign.distributed.calls import Call
from modalign.distributed.rows import gather_rows, total_of_ranks
from modalign.losses.inputs import without_autocast

__all__ = ["Pool", "count_and_total", "dots", "lead_over_mates", "sum_pools", "union"]


@dataclasses.dataclass(frozen=True)
class Pool:
    """A set of candidates of each anchor, known by numbers [problems, n].

    Attributes:
        lse: the log-sum-exp of the candidates' logits; -inf without candidates.
        best: the largest logit, if statistics are computed.
        mean: the mean logit under the softmax, if statistics are computed.
        count_and_total: computes the number of candidates and the sum of their inner products with the anchor.
    """

    lse: Tensor
    best: Tensor
    mean: Tensor
    count_and_total: Callable[[], tuple[Tensor, Tensor]]


def sum_pools(pools: tuple[Pool, ...]) -> tuple[Tensor, Tensor]:
    """Return the number of candidates in all pools, and the sum of their inner products with the anchor."""
    counts, totals = zip(*(pool.count_and_total() for pool in pools), strict=True)
    return torch.stack(counts).sum(0), torch.stack(totals).sum(0)


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner products of paired rows, in the dtype in which sums are kept."""
    with without_autocast(a):
        products: Tensor = torch.linalg.vecdot(a.to(accumulator(a.dtype)), b.to(accumulator(b.dtype)))
    return products


def union(logs: Tensor, dim: int) -> Tensor:
    """Return the log-sum-exp along ``dim``; where all terms are -inf it is -inf as well, with the gradient 0."""
    empty = (logs == -torch.inf).all(dim, keepdim=True)
    return logs.masked_fill(empty, 0.0).logsumexp(dim).masked_fill(empty.squeeze(dim), -torch.inf)


def count_and_total(
    a: Tensor, b: Tensor, ids: Tensor | None, mask: str, call: Call | None = None
) -> tuple[Tensor, Tensor]:
    """Return how many rows of b each row of a counts, and the sum of their inner products, [problems, n], in O(n d).

    ``mask`` leaves out rows of b as ``modalign.ops.loss_tables.LossTables.mask`` does; ``ids`` are those of both sides.
    With a call, the rows of b on all ranks count.
    """
    dtype = accumulator(a.dtype)

    def of_all(values: Tensor) -> Tensor:
        return values if call is None else total_of_ranks(values, call)

    if ids is None:
        rows = b.shape[1] if call is None else call.ranks.total
        count = torch.full(a.shape[:2], rows - (mask == "diagonal"), dtype=dtype, device=a.device)
        total = dots(a, of_all(b.to(dtype).sum(1, keepdim=True)))
        return count, total - dots(a, b) if mask == "diagonal" else total
    present, b = (ids >= 0).to(dtype), b.to(dtype)
    count = of_all(present.sum(1, keepdim=True))
    total = dots(a, of_all((b * present[..., None]).sum(1, keepdim=True)))
    if mask == "diagonal":
        count, total = count - 1, total - dots(a, b)
    elif mask != "none":
        sizes, sums = _sum_groups(b, ids, call)
        mates = sizes, dots(a, sums)
        count, total = mates if mask == "different" else (count - mates[0], total - mates[1])
    return count * present, total * present


def lead_over_mates(a: Tensor, b: Tensor, ids: Tensor | None, call: Call | None = None) -> Tensor:
    """Return <a_i, b_i> less the mean of <a_i, b_j> over the rows j of i's group, [problems, n].

    It is exactly 0 for a row that is alone in its group. With a call, groups are those of all ranks.
    """
    assert ids is not None
    sizes, sums = _sum_groups(b.to(accumulator(b.dtype)), ids, call)
    return dots(a, sizes[..., None] * b - sums) / sizes


def _sum_groups(b: Tensor, ids: Tensor, call: Call | None) -> tuple[Tensor, Tensor]:
    """Return the number of rows in the group of each row, [problems, n], and their sum, [problems, n, d]."""
    if call is not None:
        own = call.ranks.own
        sizes, sums = _sum_groups(gather_rows(b, call), gather_rows(ids, call), None)
        return sizes[:, own], sums[:, own]
    # the slot after the last gathers the rows that are left out
    slots = torch.where(ids >= 0, ids, ids.shape[1])
    index = slots[..., None].expand_as(b)
    sizes = b.new_zeros(ids.shape[0], ids.shape[1] + 1).scatter_add(1, slots, torch.ones_like(slots, dtype=b.dtype))
    sums = b.new_zeros(b.shape[0], b.shape[1] + 1, b.shape[2]).scatter_add(1, index, b).gather(1, index)
    return sizes.gather(1, slots), sums
