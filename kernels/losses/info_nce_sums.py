"""The forward kernels of info_nce: log-sum-exps of the rows and columns of a similarity matrix.

A program of the first kernel computes a block of rows of S for a part of the columns, once for both directions. While
it walks over the columns it updates the largest logit and the sum of exponentials of each row; for each tile it writes
those of the columns. The second kernel combines these partial sums in order, so the result is the same every time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from modalign.kernels.losses.entries import mask_logits, scale_tile
from modalign.kernels.shared.launch import dot_tile

__all__: list[str] = []


@triton.jit(do_not_specialize=["first_block", "blocks", "band", "splits", "length", "stored_rows", "n", "m"])
def _info_nce_fwd_kernel(
    x,  # [b, n, d], a table of dot_tile
    y,  # [b, m, d], likewise
    scale_ptr,  # [b, n]
    row_id_ptr,  # [b, n] or None
    row_cap_ptr,  # [b, n] or None
    col_id_ptr,  # [b, m] or None
    col_cap_ptr,  # [b, m] or None
    row_part_ptr,  # [b, splits, kinds, band * BLOCK_M], largest logit, sum of exponentials, with STATS times logits
    col_part_ptr,  # [b, 1 + band, kinds, m] or None
    positive_ptr,  # [b, n] or None
    stored_ptr,  # [stored_rows, m] or None
    first_block,
    blocks,
    band,
    splits,
    length,
    stored_rows,
    n,
    m,
    d,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    MASK: tl.constexpr,
    STATS: tl.constexpr,
    ONE_STREAM: tl.constexpr,
):
    """Write the partial sums of ``blocks`` blocks of rows, in ``splits`` parts of ``length`` columns.

    The kernel is long because both directions, the positives and the stored logits read the same tile of logits.
    """
    KINDS: tl.constexpr = 3 if STATS else 2
    block = tl.program_id(0) % blocks
    split = tl.program_id(0) // blocks % splits
    problem = (tl.program_id(0) // (blocks * splits)).to(tl.int64)
    first_row = (first_block + block) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    scale_ptr += problem * n
    if row_id_ptr is not None:
        row_id_ptr += problem * n
        col_id_ptr += problem * m
    if row_cap_ptr is not None:
        row_cap = tl.load(row_cap_ptr + problem * n + rows, rows < n, other=0.0)

    running_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    running_sum = tl.zeros([BLOCK_M], tl.float32)
    running_dot = tl.zeros([BLOCK_M], tl.float32)
    positive = tl.zeros([BLOCK_M], tl.float32)
    start_col, end_col = split * length, tl.minimum(m, (split + 1) * length)
    if ONE_STREAM:  # by symmetry, tiles left of the diagonal block are computed as tiles above it
        start_col = tl.maximum(start_col, first_row // BLOCK_N * BLOCK_N)
    for first_col in range(start_col, end_col, BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        dots = dot_tile(
            x, y, problem * n, problem * m, first_row, first_col, n, m, d, BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS
        )
        logits = scale_tile(dots, scale_ptr, rows, cols, n, m, True)
        # the diagonal is read from the same logits, so a single pair has a loss of exactly 0
        if positive_ptr is not None:  # noqa: SIM102 - decided at compile time, the inner condition at run time
            if (first_col < first_row + BLOCK_M) & (first_row < first_col + BLOCK_N):
                positive += tl.sum(tl.where(rows[:, None] == cols[None, :], logits, 0.0), 1)
        if stored_ptr is not None:
            index = problem * n + rows
            tl.store(
                stored_ptr + index[:, None] * m + cols[None, :],
                logits,
                (rows < n)[:, None] & (index < stored_rows)[:, None] & (cols < m)[None, :],
            )
        counted = mask_logits(logits, rows, cols, row_id_ptr, col_id_ptr, n, m, MASK)
        kept = tl.where((cols < m)[None, :], counted, -float("inf"))
        if ONE_STREAM:
            kept = tl.where((cols >= first_row)[None, :], kept, -float("inf"))
        if row_cap_ptr is not None:
            kept = tl.where(kept <= row_cap[:, None], kept, -float("inf"))
        new_max = tl.maximum(running_max, tl.max(kept, 1))
        exps, correction = _exponentials(kept, new_max[:, None]), _exponentials(running_max, new_max)
        running_sum = running_sum * correction + tl.sum(exps, 1)
        if STATS:
            running_dot = running_dot * correction + tl.sum(exps * tl.where(exps > 0.0, kept, 0.0), 1)
        running_max = new_max
        if col_part_ptr is not None:
            kept = tl.where((rows < n)[:, None], counted, -float("inf"))
            if col_cap_ptr is not None:
                col_cap = tl.load(col_cap_ptr + problem * m + cols, cols < m, other=0.0)
                kept = tl.where(kept <= col_cap[None, :], kept, -float("inf"))
            col_max = tl.max(kept, 0)
            exps = _exponentials(kept, col_max[None, :])
            place = col_part_ptr + (problem * (1 + band) + 1 + block) * KINDS * m + cols
            tl.store(place, col_max, cols < m)
            tl.store(place + m, tl.sum(exps, 0), cols < m)
            if STATS:
                tl.store(place + 2 * m.to(tl.int64), tl.sum(exps * tl.where(exps > 0.0, kept, 0.0), 0), cols < m)

    width = band * BLOCK_M
    place = row_part_ptr + (problem * splits + split) * KINDS * width + block * BLOCK_M + tl.arange(0, BLOCK_M)
    tl.store(place, running_max)
    tl.store(place + width, running_sum)
    if STATS:
        tl.store(place + 2 * width, running_dot)
    if positive_ptr is not None:
        tl.store(positive_ptr + problem * n + rows, positive, (rows >= start_col) & (rows < end_col) & (rows < n))


@triton.jit
def _exponentials(logits, largest):
    """Return exp(logits - largest), and 0 rather than NaN where both are -inf."""
    return tl.exp(logits - tl.where(largest == -float("inf"), 0.0, largest))


@triton.jit
def _merge_parts(largest, total, dot, part_ptr, kind_stride, valid, STATS: tl.constexpr):
    """Merge parts [parts, size] into the largest logits, the sums of exponentials and, with STATS, those times logits.

    Sums are relative to exp of the largest logit.
    """
    part_max = tl.load(part_ptr, valid, other=-float("inf"))
    part_sum = tl.load(part_ptr + kind_stride, valid, other=0.0)
    new_max = tl.maximum(largest, tl.max(part_max, 0))
    correction, part_correction = _exponentials(largest, new_max), _exponentials(part_max, new_max[None, :])
    if STATS:
        part_dot = tl.load(part_ptr + 2 * kind_stride, valid, other=0.0)
        dot = dot * correction + tl.sum(part_dot * part_correction, 0)
    return new_max, total * correction + tl.sum(part_sum * part_correction, 0), dot


@triton.jit(do_not_specialize=["first", "last", "size", "offset", "row", "height"])
def _info_nce_combine_kernel(
    part_ptr,  # [b, ., kinds, kind_stride]
    running_ptr,  # like part_ptr, or None
    extra_ptr,  # [b, ., kinds, extra_kind_stride] or None
    lse_ptr,  # [b, result_stride] or None
    best_ptr,  # [b, result_stride] or None
    mean_ptr,  # [b, result_stride] or None
    first,
    last,
    size,
    part_stride,
    kind_stride,
    extra_stride,
    extra_kind_stride,
    result_stride,
    offset,
    row,
    height,
    BLOCK_N: tl.constexpr,
    PARTS: tl.constexpr,
    STATS: tl.constexpr,
):
    """Combine parts ``first`` to ``last`` - 1 of ``size`` rows or columns; PARTS of them are loaded at a time."""
    KINDS: tl.constexpr = 3 if STATS else 2
    blocks = tl.cdiv(size, BLOCK_N)
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    index = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    part_ptr += problem * part_stride + index
    largest = tl.full([BLOCK_N], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    dot = tl.zeros([BLOCK_N], tl.float32)
    for start in range(first, last, PARTS):
        parts = (start + tl.arange(0, PARTS))[:, None]
        valid = (index < size)[None, :] & (parts < last)
        valid &= (parts == 0) | (height == 0) | (index[None, :] >= row + parts * height)
        place = part_ptr[None, :] + parts.to(tl.int64) * KINDS * kind_stride
        largest, total, dot = _merge_parts(largest, total, dot, place, kind_stride, valid, STATS)
    if extra_ptr is not None:
        place = (extra_ptr + problem * extra_stride + offset + index)[None, :]
        valid = (index < size)[None, :]
        largest, total, dot = _merge_parts(largest, total, dot, place, extra_kind_stride, valid, STATS)
    if running_ptr is not None:
        running_ptr += problem * part_stride + index
        tl.store(running_ptr, largest, index < size)
        tl.store(running_ptr + kind_stride, total, index < size)
        if STATS:
            tl.store(running_ptr + 2 * kind_stride, dot, index < size)
    if lse_ptr is not None:
        # a row with at least one counted entry has a sum of at least exp(0), so 0 means that it has none
        total = tl.where(total == 0.0, 1.0, total)
        place = problem * result_stride + offset + index
        tl.store(lse_ptr + place, largest + tl.log(total), index < size)
        if STATS:
            tl.store(best_ptr + place, largest, index < size)
            tl.store(mean_ptr + place, dot / total, index < size)
