"""InfoNCE's log-sum-exps, and products with its softmaxes, by tiles of a similarity matrix that is never stored.

    S_ij = scale_i <x_i, y_j>     row_lse_i = log sum_j exp S_ij     col_lse_j = log sum_i exp S_ij
    W_ij = scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j) + [i = j] grad_positive_i)

over the entries that count. Each forward program owns a block of rows of ``own`` and walks over all rows of ``other``:
there is no sum between programs, so the result is the same every time. (own, other) = (x, y) gives the row side, (y, x)
the column side. ``modalign.reference.info_nce`` defines both operators.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.entries import contiguous, left_out, scaled, weight_scale
from modalign.kernels.info_nce_weights import _info_nce_bwd_kernel, _info_nce_weights_kernel
from modalign.kernels.launch import dot_tile, launch, misread, operand
from modalign.kernels.products import Block, banded_products, choose
from modalign.kernels.tiles import architecture, tile

__all__ = ["info_nce_backward", "info_nce_forward"]


def info_nce_forward(
    x: Tensor, y: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None = None, col_id: Tensor | None = None,
    row_cap: Tensor | None = None, col_cap: Tensor | None = None,
    mask: str = "none", columns: bool = True, stats: bool = False, workspace: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """row_lse, col_lse, positive, stored, row_best, row_mean, col_best, col_mean, all float32; the reference says more.

    x, y: [b, n, d], [b, m, d] float32, float16 or bfloat16; the rest is on their device, where the host never waits.
    Products are accumulated in float32 (float32 inputs without tf32). What is not asked for is not computed.
    """
    b, n, width = x.shape
    m = n if y is None else y.shape[1]
    columns = columns and y is not None
    row_id, col_id = contiguous(row_id), contiguous(col_id)
    row_cap, col_cap, scale = _float(row_cap), _float(col_cap), _float(logit_scale)
    square = y is not None and m == n
    own = operand(x)
    other = own if y is None else operand(y)

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=x.device)

    row_lse, col_lse = empty(b, n), empty(b, m if columns else 0)
    positive = empty(b, n if square else 0)
    stored = empty(0 if y is None else min(b * n, workspace // (4 * m)), m)
    row_best, row_mean = (empty(b, n if stats else 0) for _ in range(2))
    col_best, col_mean = (empty(b, m if stats and columns else 0) for _ in range(2))
    variant = "full" if stats or stored.numel() or _any(row_id, row_cap, col_cap) else "lean"
    sizes = tile("info_nce_forward", x.dtype, width, architecture(x.device), variant)

    launch(
        _info_nce_fwd_kernel, b * triton.cdiv(n, sizes.blocks["BLOCK_M"]), sizes,
        own, other, scale, row_id, row_id if y is None else col_id, row_cap,
        row_lse, positive if square else None, row_best if stats else None, row_mean if stats else None,
        stored if stored.numel() else None, len(stored), n, m, own.shape[2], SCALE_OWN=True, MASK=mask,
    )  # fmt: skip
    if columns:
        launch(
            _info_nce_fwd_kernel, b * triton.cdiv(m, sizes.blocks["BLOCK_M"]), sizes,
            other, own, scale, col_id, row_id, col_cap,
            col_lse, None, col_best if stats else None, col_mean if stats else None,
            None, 0, m, n, own.shape[2], SCALE_OWN=False, MASK=mask,
        )  # fmt: skip
    return row_lse, col_lse, positive, stored, row_best, row_mean, col_best, col_mean


def info_nce_backward(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor | None, v: Tensor | None, u: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
    row_lse: Tensor, col_lse: Tensor, stored: Tensor, *, schedule: str | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """W v [b, n, e] and W' u [b, m, e] in float32, for v [b, m, e] and u [b, n, e]; [b, 0, d] for one that is None.

    Weights, v and u meet in x's dtype; float16 weights are first scaled by 2^15 over the largest that is possible in
    their problem. ``schedule``: "fused", "banded" or "stored", as ``modalign.kernels.products`` describes them; by
    default the one that should cost least. ValueError for another or for "stored" with nothing stored,
    NotImplementedError for one that cannot run here.
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
    schedule = choose(schedule, "info_nce_backward", x, e, len(widths), sizes.blocks["BLOCK_V"], bool(stored.numel()))
    scale = _float(logit_scale)
    scale_of_weights = None
    if x.dtype == torch.float16:
        largest = _largest(scale) * (_largest(grad_row) + _largest(grad_col) + _largest(grad_positive))
        scale_of_weights = weight_scale(largest)
    left = operand(x)
    right = left if y is None else operand(y)
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
        reading = schedule == "stored"
        tiles = tile("info_nce_weights", x.dtype, d, architecture(x.device), "full" if reading else variant)
        programs = triton.cdiv(block.rows, tiles.blocks["BLOCK_M"]) * triton.cdiv(block.cols, tiles.blocks["BLOCK_N"])
        launch(
            _info_nce_weights_kernel, block.problems * programs, tiles,
            left, right, stored if reading else None, scale, scale_of_weights, *row, *col, positive,
            weights, weights.stride(1), block.problem, block.row, block.rows, block.col, block.cols,
            len(stored), n, m, left.shape[2], **constants,
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


@triton.jit(do_not_specialize=["stored_rows", "n_own", "n_other"])
def _info_nce_fwd_kernel(
    own_ptr,  # [b, n_own, d]
    other_ptr,  # [b, n_other, d]
    scale_ptr,  # [b, n_own] if SCALE_OWN, else [b, n_other]
    own_id_ptr, other_id_ptr, own_cap_ptr,  # [b, n_own], [b, n_other], [b, n_own]; or None
    lse_ptr, positive_ptr, best_ptr, mean_ptr,  # [b, n_own]; all but the first or None
    stored_ptr,  # [stored_rows, n_other] or None
    stored_rows, n_own, n_other, d,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, SCALE_OWN: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    row_blocks = tl.cdiv(n_own, BLOCK_M)
    problem = (tl.program_id(0) // row_blocks).to(tl.int64)
    first_row = (tl.program_id(0) % row_blocks) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    own_ptr += problem * n_own * d
    other_ptr += problem * n_other * d
    scale_ptr += problem * (n_own if SCALE_OWN else n_other)
    if own_id_ptr is not None:
        own_id_ptr += problem * n_own
        other_id_ptr += problem * n_other
    if own_cap_ptr is not None:
        own_cap = tl.load(own_cap_ptr + problem * n_own + rows, rows < n_own, other=0.0)

    running_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    running_sum = tl.zeros([BLOCK_M], tl.float32)
    running_dot = tl.zeros([BLOCK_M], tl.float32)
    positive = tl.zeros([BLOCK_M], tl.float32)
    for first_col in range(0, n_other, BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        dots = dot_tile(own_ptr, other_ptr, rows, cols, n_own, n_other, d, BLOCK_M, BLOCK_N, BLOCK_D)
        logits = scaled(dots, scale_ptr, rows, cols, n_own, n_other, SCALE_OWN)
        # the diagonal is read from the same logits: a pair alone has a loss of exactly 0
        if positive_ptr is not None:  # noqa: SIM102 - decided when compiling, the next one when running
            if (first_col < first_row + BLOCK_M) & (first_row < first_col + BLOCK_N):
                positive += tl.sum(tl.where(rows[:, None] == cols[None, :], logits, 0.0), 1)
        if stored_ptr is not None:
            index = problem * n_own + rows
            tl.store(
                stored_ptr + index[:, None] * n_other + cols[None, :], logits,
                (rows < n_own)[:, None] & (index < stored_rows)[:, None] & (cols < n_other)[None, :],
            )  # fmt: skip
        kept = tl.where(cols[None, :] < n_other, logits, -float("inf"))
        kept = left_out(kept, rows, cols, own_id_ptr, other_id_ptr, n_own, n_other, MASK)
        if own_cap_ptr is not None:
            kept = tl.where(kept <= own_cap[:, None], kept, -float("inf"))
        new_max = tl.maximum(running_max, tl.max(kept, 1))
        # a row that counts nothing yet has the sum 0, not NaN
        shift = tl.where(new_max == -float("inf"), 0.0, new_max)
        exps = tl.exp(kept - shift[:, None])
        correction = tl.exp(running_max - shift)
        running_sum = running_sum * correction + tl.sum(exps, 1)
        if mean_ptr is not None:
            running_dot = running_dot * correction + tl.sum(exps * tl.where(exps > 0.0, kept, 0.0), 1)
        running_max = new_max

    # a row that counts something has at least exp(0)
    total = tl.where(running_sum == 0.0, 1.0, running_sum)
    tl.store(lse_ptr + problem * n_own + rows, running_max + tl.log(total), rows < n_own)
    if positive_ptr is not None:
        tl.store(positive_ptr + problem * n_own + rows, positive, rows < n_own)
    if mean_ptr is not None:
        tl.store(best_ptr + problem * n_own + rows, running_max, rows < n_own)
        tl.store(mean_ptr + problem * n_own + rows, running_dot / total, rows < n_own)
