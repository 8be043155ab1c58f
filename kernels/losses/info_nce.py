"""InfoNCE's log-sum-exps, and products with its softmaxes, by tiles of a similarity matrix that is never stored.

    S_ij = scale_i <x_i, y_j>     row_lse_i = log sum_j exp S_ij     col_lse_j = log sum_i exp S_ij
    W_ij = scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j) + [i = j] grad_positive_i)

over the entries that count. A forward program computes a block of rows of S for a part of the columns, once for both
directions: it keeps the largest logit and the sum of exponentials of its rows while it walks, and writes those of each
tile's columns. A second kernel puts the parts together in order, so the result is the same every time. One stream is
symmetric: tiles on and above the diagonal serve both of their sides. ``modalign.reference.info_nce`` defines both
operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.losses.entries import contiguous, left_out, scaled, weight_scale
from modalign.kernels.losses.info_nce_weights import _info_nce_bwd_kernel, _info_nce_weights_kernel
from modalign.kernels.losses.products import BAND_BYTES, Block, banded_products, choose
from modalign.kernels.shared.launch import dot_tile, launch, misread, operand, table
from modalign.kernels.shared.tiles import ANY, architecture, tile

__all__ = ["Compiled", "info_nce_backward", "info_nce_forward"]

PROGRAMS = 1024  # enough to fill a device; fewer row blocks than this split the columns


class Compiled(NamedTuple):
    """Tiles by other kernels than Triton's, of one bfloat16 problem [1, n, d], [1, m, d] in two streams, where every
    entry counts but those that the mask "diagonal" leaves out, and nothing is stored.

    sums(x, y, scale, row_parts, col_parts, positive, mask, row, rows): the parts of the rows from ``row`` on, each of
    ``height`` rows or ``width`` columns; ``together`` such blocks of rows are a tile.
    weights(x, y, scale, row, col, positive_grad, mask, weights, block): the band's, row and col being log-sum-exps and
    gradients.
    """

    height: int
    width: int
    together: int
    sums: Callable[..., None]
    weights: Callable[..., None]


def info_nce_forward(
    x: Tensor, y: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None = None, col_id: Tensor | None = None,
    row_cap: Tensor | None = None, col_cap: Tensor | None = None,
    mask: str = "none", columns: bool = True, stats: bool = False, workspace: int = 0,
    *, compiled: Compiled | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """row_lse, col_lse, positive, stored, row_best, row_mean, col_best, col_mean, all float32; the reference says more.

    x, y: [b, n, d], [b, m, d] float32, float16 or bfloat16; the rest is on their device, where the host never waits.
    Products are accumulated in float32 (float32 inputs without tf32). What is not asked for is not computed.
    ``compiled`` makes the tiles in the kernel's place.
    """
    b, n, width = x.shape
    m = n if y is None else y.shape[1]
    columns = columns and y is not None
    row_id, col_id = contiguous(row_id), contiguous(col_id)
    row_cap, col_cap, scale = _float(row_cap), _float(col_cap), _float(logit_scale)
    square = y is not None and m == n
    one_stream = y is None
    left = operand(x, compiled is not None)
    right = left if y is None else operand(y, compiled is not None)
    if one_stream:
        col_id, col_cap = row_id, row_cap

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=x.device)

    row_lse, col_lse = empty(b, n), empty(b, m if columns else 0)
    positive = empty(b, n if square else 0)
    stored = empty(0 if one_stream else min(b * n, workspace // (4 * m)), m)
    row_best, row_mean = (empty(b, n if stats else 0) for _ in range(2))
    col_best, col_mean = (empty(b, m if stats and columns else 0) for _ in range(2))
    row = (row_lse, row_best if stats else None, row_mean if stats else None)
    col = (col_lse, col_best if stats else None, col_mean if stats else None) if columns else (None, None, None)
    variant = "full" if stats or stored.numel() or _any(row_id, row_cap, col_cap) else "lean"
    sizes = tile("info_nce_forward", x.dtype, width, architecture(x.device), variant)
    height = compiled.height if compiled else sizes.blocks["BLOCK_M"]
    kinds = 3 if stats else 2
    # rows go in bands, so that the parts, of the columns one for each block of rows, take little memory
    blocks = triton.cdiv(n, height)
    both_sides = columns or one_stream
    splits = triton.cdiv(m, compiled.width) if compiled else 0
    of_block = 4 * kinds * b * ((m if both_sides else 0) + splits * height)
    together = min(blocks, max(1, BAND_BYTES // max(1, of_block) - 1))
    if compiled and together < blocks:  # whole tiles
        together = max(compiled.together, together // compiled.together * compiled.together)
    if not compiled:
        splits = max(1, min(PROGRAMS // max(1, b * together), triton.cdiv(m, sizes.blocks["BLOCK_N"]) // 4))
    length = triton.cdiv(triton.cdiv(m, splits), sizes.blocks["BLOCK_N"]) * sizes.blocks["BLOCK_N"]
    row_parts = empty(b, splits, kinds, together * height)
    col_parts = empty(b, 1 + together, kinds, m) if both_sides else None

    def write(first: int, count: int) -> None:
        if compiled:
            rows = min(count * height, n - first * height)
            diagonal = positive if square else None
            compiled.sums(left, right, scale, row_parts, col_parts, diagonal, mask, first * height, rows)
            return
        launch(
            _info_nce_fwd_kernel, b * count * splits, sizes,
            table(left, "BLOCK_M", sizes), table(right, "BLOCK_N", sizes), scale, row_id, row_cap, col_id, col_cap,
            row_parts, col_parts,
            positive if square else None, stored if stored.numel() else None,
            first, count, together, splits, length, len(stored), n, m, left.shape[2],
            MASK=mask, STATS=stats, ONE_STREAM=one_stream,
        )  # fmt: skip

    for first in range(0, blocks, together):
        count = min(together, blocks - first)
        write(first, count)
        if col_parts is not None:
            _combine(
                col_parts, 1 if first == 0 else 0, 1 + count, m, running=True,
                above=(first * height, height) if one_stream else (0, 0),
                results=col if first + count == blocks else (None, None, None),
            )  # fmt: skip
        _combine(
            row_parts, 0, splits, min(count * height, n - first * height),
            more=col_parts if one_stream else None, results=row, offset=first * height,
        )  # fmt: skip
    return row_lse, col_lse, positive, stored, row_best, row_mean, col_best, col_mean


def info_nce_backward(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor | None, v: Tensor | None, u: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
    row_lse: Tensor, col_lse: Tensor, stored: Tensor, *, schedule: str | None = None, compiled: Compiled | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """W v [b, n, e] and W' u [b, m, e] in float32, for v [b, m, e] and u [b, n, e]; [b, 0, d] for one that is None.

    Weights, v and u meet in x's dtype; float16 weights are first scaled by 2^15 over the largest that is possible in
    their problem. ``schedule``: "fused", "banded" or "stored", as ``modalign.kernels.losses.products`` describes them;
    by default the one that should cost least. ValueError for another or for "stored" with nothing stored,
    NotImplementedError for one that cannot run here.
    ``compiled`` makes the weights of the bands.
    """
    b, n, d = x.shape
    m = n if y is None else y.shape[1]
    if y is None:
        # W is symmetric: columns have the rows' values
        grad_col, col_lse, col_id, col_cap = grad_row, row_lse, row_id, row_cap
    row_id, col_id, stored = contiguous(row_id), contiguous(col_id), contiguous(stored)
    widths = [values.shape[2] for values in (v, u) if values is not None]
    e = max(widths, default=0)
    variant = "full" if _any(row_id, row_cap, col_cap) else "lean"
    sizes = tile("info_nce_backward", x.dtype, e, architecture(x.device), variant)
    schedule = "banded" if compiled else schedule
    schedule = choose(schedule, "info_nce_backward", x, e, len(widths), sizes.blocks["BLOCK_V"], bool(stored.numel()))
    scale = _float(logit_scale)
    scale_of_weights = None
    if x.dtype == torch.float16:
        largest = _largest(scale) * (_largest(grad_row) + _largest(grad_col) + _largest(grad_positive))
        scale_of_weights = weight_scale(largest)
    left = operand(x, compiled is not None)
    right = left if y is None else operand(y, compiled is not None)
    v_table, u_table = (None if values is None else operand(values.to(x.dtype)) for values in (v, u))
    positive = _given(grad_positive)
    row = (row_id, _float(row_cap), _float(row_lse), _given(grad_row))
    col = (col_id, _float(col_cap), _float(col_lse), _given(grad_col))
    constants = {"MASK": mask, "ROUND": misread(x.dtype)}

    def fused(own: tuple, other: tuple, values: Tensor | None, row_side: bool) -> Tensor | None:
        (own_rows, own_side), (other_rows, other_side) = own, other
        if values is None:
            return None
        size, width = own_rows.shape[1], values.shape[2]
        product = torch.empty(b, size, width, dtype=torch.float32, device=x.device)
        launch(
            _info_nce_bwd_kernel,
            b * triton.cdiv(size, sizes.blocks["BLOCK_M"]) * triton.cdiv(width, sizes.blocks["BLOCK_V"]), sizes,
            own_rows, other_rows, values, scale, scale_of_weights, *own_side, *other_side, positive, product,
            size, other_rows.shape[1], left.shape[2], width, SCALE_OWN=row_side, **constants,
        )  # fmt: skip
        return product

    def write(weights: Tensor, block: Block) -> None:
        if compiled:
            compiled.weights(left, right, scale, row[2:], col[2:], positive, mask, weights, block)
            return
        reading = schedule == "stored"
        tiles = tile("info_nce_weights", x.dtype, d, architecture(x.device), "full" if reading else variant)
        programs = triton.cdiv(block.rows, tiles.blocks["BLOCK_M"]) * triton.cdiv(block.cols, tiles.blocks["BLOCK_N"])
        launch(
            _info_nce_weights_kernel, block.problems * programs, tiles,
            table(left, "BLOCK_M", tiles), table(right, "BLOCK_N", tiles), stored if reading else None, scale,
            scale_of_weights, *row, *col, positive, weights, weights.stride(1), block.problem, block.row, block.rows,
            block.col, block.cols, len(stored), n, m, left.shape[2], **constants,
        )  # fmt: skip

    if schedule == "fused":
        wv = fused((left, row), (right, col), v_table, True)
        wu = fused((right, col), (left, row), u_table, False)
    else:
        wv, wu = banded_products(write, left, m, v_table, u_table)
        if scale_of_weights is not None:
            wv, wu = (None if product is None else product / scale_of_weights[:, None, None] for product in (wv, wu))
    nothing = torch.empty(b, 0, d, dtype=torch.float32, device=x.device)
    return (
        nothing if v is None or wv is None else wv[..., : v.shape[2]].contiguous(),
        nothing.clone() if u is None or wu is None else wu[..., : u.shape[2]].contiguous(),
    )


def _any(*tables: Tensor | None) -> bool:
    return any(table is not None for table in tables)


def _float(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.float().contiguous()


def _given(grad: Tensor) -> Tensor | None:
    """None for a gradient of width 0, which is zero."""
    return grad.float().contiguous() if grad.shape[1] else None


def _largest(values: Tensor | None) -> Tensor | float:
    """[b]: the largest absolute value of each problem."""
    return values.float().abs().amax(1) if values is not None and values.shape[1] else 0.0


def _combine(
    parts: Tensor, first: int, last: int, size: int, *,
    running: bool = False, above: tuple[int, int] = (0, 0), more: Tensor | None = None,
    results: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None), offset: int = 0,
) -> None:  # fmt: skip
    """Put parts [b, ., kinds, .], ``first`` to ``last``, of the first ``size`` rows or columns together.

    running: the outcome takes the place of part 0. results: log-sum-exp, largest logit and mean [b, .], from ``offset``
    on, which part 0 of ``more``, from there on too, is part of. above: (row, height) where part p > 0 is that of the
    rows from row + (p - 1) height on, and of one stream: it holds only the columns right of its block.
    """
    sizes = tile("info_nce_combine", parts.dtype, ANY, architecture(parts.device))
    lse = results[0]
    launch(
        _info_nce_combine_kernel, len(parts) * triton.cdiv(size, sizes.blocks["BLOCK_N"]), sizes,
        parts, parts if running else None, more, *results, first, last, size, parts.stride(0), parts.stride(2),
        0 if more is None else more.stride(0), 0 if more is None else more.stride(2),
        0 if lse is None else lse.shape[1], offset, *above, STATS=parts.shape[2] == 3,
    )  # fmt: skip


@triton.jit(do_not_specialize=["first_block", "blocks", "band", "splits", "length", "stored_rows", "n", "m"])
def _info_nce_fwd_kernel(
    x, y,  # [b, n, d], [b, m, d], tables of dot_tile
    scale_ptr,  # [b, n]
    row_id_ptr, row_cap_ptr,  # [b, n], or None
    col_id_ptr, col_cap_ptr,  # [b, m], or None
    row_part_ptr,  # [b, splits, kinds, band * BLOCK_M]: largest logit, sum of exponentials, with STATS times logits
    col_part_ptr,  # [b, 1 + band, kinds, m], or None
    positive_ptr,  # [b, n] or None
    stored_ptr,  # [stored_rows, m] or None
    first_block, blocks, band, splits, length, stored_rows, n, m, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, DESCRIPTORS: tl.constexpr,
    MASK: tl.constexpr, STATS: tl.constexpr, ONE_STREAM: tl.constexpr,
):  # fmt: skip
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
    first, last = split * length, tl.minimum(m, (split + 1) * length)
    if ONE_STREAM:  # what lies left of the block's own columns is met above the diagonal
        first = tl.maximum(first, first_row // BLOCK_N * BLOCK_N)
    for first_col in range(first, last, BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        dots = dot_tile(
            x, y, problem * n, problem * m, first_row, first_col, n, m, d, BLOCK_M, BLOCK_N, BLOCK_D, DESCRIPTORS
        )
        logits = scaled(dots, scale_ptr, rows, cols, n, m, True)
        # the diagonal is read from the same logits: a pair alone has a loss of exactly 0
        if positive_ptr is not None:  # noqa: SIM102 - decided when compiling, the next one when running
            if (first_col < first_row + BLOCK_M) & (first_row < first_col + BLOCK_N):
                positive += tl.sum(tl.where(rows[:, None] == cols[None, :], logits, 0.0), 1)
        if stored_ptr is not None:
            index = problem * n + rows
            tl.store(
                stored_ptr + index[:, None] * m + cols[None, :], logits,
                (rows < n)[:, None] & (index < stored_rows)[:, None] & (cols < m)[None, :],
            )  # fmt: skip
        counted = left_out(logits, rows, cols, row_id_ptr, col_id_ptr, n, m, MASK)
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
        tl.store(positive_ptr + problem * n + rows, positive, (rows >= first) & (rows < last) & (rows < n))


@triton.jit
def _exponentials(logits, largest):
    """exp(logits - largest), and 0, not NaN, where both are -inf."""
    return tl.exp(logits - tl.where(largest == -float("inf"), 0.0, largest))


@triton.jit
def _taken_in(largest, total, dot, part_ptr, kind_stride, there, STATS: tl.constexpr):
    """Some parts more [parts, size]: largest logits, sums of exponentials below them and, with STATS, times logits."""
    part_max = tl.load(part_ptr, there, other=-float("inf"))
    part_sum = tl.load(part_ptr + kind_stride, there, other=0.0)
    new_max = tl.maximum(largest, tl.max(part_max, 0))
    own, of_part = _exponentials(largest, new_max), _exponentials(part_max, new_max[None, :])
    if STATS:
        part_dot = tl.load(part_ptr + 2 * kind_stride, there, other=0.0)
        dot = dot * own + tl.sum(part_dot * of_part, 0)
    return new_max, total * own + tl.sum(part_sum * of_part, 0), dot


@triton.jit(do_not_specialize=["first", "last", "size", "offset", "row", "height"])
def _info_nce_combine_kernel(
    part_ptr, running_ptr,  # [b, ., kinds, kind_stride]; the second or None
    more_ptr,  # [b, ., kinds, more_kind_stride] or None
    lse_ptr, best_ptr, mean_ptr,  # [b, result_stride] or None
    first, last, size, part_stride, kind_stride, more_stride, more_kind_stride, result_stride, offset, row, height,
    BLOCK_N: tl.constexpr, PARTS: tl.constexpr, STATS: tl.constexpr,
):  # fmt: skip
    """PARTS of them at a time, so that as many loads are on their way."""
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
        there = (index < size)[None, :] & (parts < last)
        there &= (parts == 0) | (height == 0) | (index[None, :] >= row + parts * height)
        place = part_ptr[None, :] + parts.to(tl.int64) * KINDS * kind_stride
        largest, total, dot = _taken_in(largest, total, dot, place, kind_stride, there, STATS)
    if more_ptr is not None:
        place = (more_ptr + problem * more_stride + offset + index)[None, :]
        largest, total, dot = _taken_in(largest, total, dot, place, more_kind_stride, (index < size)[None, :], STATS)
    if running_ptr is not None:
        running_ptr += problem * part_stride + index
        tl.store(running_ptr, largest, index < size)
        tl.store(running_ptr + kind_stride, total, index < size)
        if STATS:
            tl.store(running_ptr + 2 * kind_stride, dot, index < size)
    if lse_ptr is not None:
        # what counts something has at least exp(0)
        total = tl.where(total == 0.0, 1.0, total)
        place = problem * result_stride + offset + index
        tl.store(lse_ptr + place, largest + tl.log(total), index < size)
        if STATS:
            tl.store(best_ptr + place, largest, index < size)
            tl.store(mean_ptr + place, dot / total, index < size)
