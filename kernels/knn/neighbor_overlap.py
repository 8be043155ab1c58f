"""The number of shared neighbours of two graphs for every k' <= k, from one comparison of their lists.

    new_r = [a_r in b_0 .. b_r] + [b_r in a_0 .. a_r-1]        counts_r = new_0 + ... + new_r

A common neighbour is counted at the larger of its two ranks. A program owns a few rows and visits their ranks in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.shared.launch import launch
from modalign.kernels.shared.tiles import architecture, tile

__all__ = ["neighbor_overlap"]


def neighbor_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the number of common entries among the first r + 1 entries of a_i and b_i, for every row i and rank r.

    a and b are [n, k] int64, with distinct entries in each row; the result is [n, k] int32. O(k^2) comparisons a row.
    """
    n, k = a.shape
    counts = torch.empty(n, k, dtype=torch.int32, device=a.device)
    sizes = tile("neighbor_overlap", a.dtype, k, architecture(a.device))
    programs = triton.cdiv(n, sizes.blocks["BLOCK_M"])
    launch(_neighbor_overlap_kernel, programs, sizes, a.contiguous(), b.contiguous(), counts, n, k)
    return counts


@triton.jit(do_not_specialize=["n"])
def _neighbor_overlap_kernel(
    a_ptr,  # [n, k] int64
    b_ptr,  # [n, k] int64
    counts_ptr,  # [n, k] int32
    n,
    k,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write the counts of BLOCK_M rows; ranks are visited in tiles of BLOCK_K."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offsets = rows[:, None] * k
    counted = tl.zeros([BLOCK_M], tl.int32)
    for first_rank in range(0, k, BLOCK_K):
        ranks = first_rank + tl.arange(0, BLOCK_K)
        inside = (rows[:, None] < n) & (ranks[None, :] < k)
        # different fillers, so that entries outside the lists equal nothing
        a = tl.load(a_ptr + offsets + ranks[None, :], inside, other=-1)
        b = tl.load(b_ptr + offsets + ranks[None, :], inside, other=-2)
        new = tl.zeros([BLOCK_M, BLOCK_K], tl.int32)
        for first_earlier in range(0, first_rank + BLOCK_K, BLOCK_K):
            earlier = first_earlier + tl.arange(0, BLOCK_K)
            earlier_inside = (rows[:, None] < n) & (earlier[None, :] < k)
            earlier_a = tl.load(a_ptr + offsets + earlier[None, :], earlier_inside, other=-3)
            earlier_b = tl.load(b_ptr + offsets + earlier[None, :], earlier_inside, other=-4)
            not_after = earlier[None, None, :] <= ranks[None, :, None]
            before = earlier[None, None, :] < ranks[None, :, None]
            new += tl.sum(((a[:, :, None] == earlier_b[:, None, :]) & not_after).to(tl.int32), 2)
            new += tl.sum(((b[:, :, None] == earlier_a[:, None, :]) & before).to(tl.int32), 2)
        tl.store(counts_ptr + offsets + ranks[None, :], counted[:, None] + tl.cumsum(new, 1), inside)
        counted += tl.sum(new, 1)
