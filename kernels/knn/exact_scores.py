"""Exact scores in float64, summed feature by feature in order and without fused multiply-add, as the definition does.

The score of a query and a gallery row is their inner product, or minus their squared Euclidean distance.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.shared.launch import launch, to_readable
from modalign.kernels.shared.tiles import ANY, architecture, tile

__all__ = ["exact_scores", "inverse_norms", "squared_norms"]


def exact_scores(queries: Tensor, x: Tensor, candidates: Tensor | None, *, euclidean: bool) -> Tensor:
    """Return sum_c q_c x_c, or -sum_c (q_c - x_c)^2 if ``euclidean``, in float64.

    Args:
        queries: [m, d].
        x: [n, d], the gallery.
        candidates: [m, c] int64 rows of x for each query, or None for all rows.
        euclidean: whether the score is minus the squared distance.

    Returns:
        Scores [m, c], or [m, n] without candidates.
    """
    queries, x = to_readable(queries), to_readable(x)
    columns = len(x) if candidates is None else candidates.shape[1]
    scores = torch.empty(len(queries), columns, dtype=torch.float64, device=x.device)
    sizes = tile("knn_exact", x.dtype, ANY if candidates is None else columns, architecture(x.device))
    programs = triton.cdiv(len(queries), sizes.blocks["BLOCK_M"]) * triton.cdiv(columns, sizes.blocks["BLOCK_N"])
    pointers = (queries, x, scores if candidates is None else candidates.contiguous(), scores)
    constants = {"CANDIDATES": candidates is not None, "EUCLIDEAN": euclidean}
    launch(_knn_exact_kernel, programs, sizes, *pointers, len(queries), columns, x.shape[1], **constants)
    return scores


def squared_norms(x: Tensor) -> Tensor:
    """Return |x_i|^2 [n] in float64, summed feature by feature in order."""
    return exact_scores(x, x, torch.arange(len(x), device=x.device)[:, None], euclidean=False)[:, 0]


def inverse_norms(squares: Tensor) -> Tensor:
    """Return 1 / sqrt(squares), and 0 for 0.

    NumPy's square root is correctly rounded; torch's on the CPU may be off by one unit in the last place.
    """
    norms = np.sqrt(squares.cpu().numpy())
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return torch.from_numpy(inverse).to(squares.device)


@triton.jit(do_not_specialize=["n_rows", "n_cols"])
def _knn_exact_kernel(
    queries_ptr,  # [n_rows, d]
    x_ptr,  # [., d]
    candidates_ptr,  # [n_rows, n_cols] int64
    scores_ptr,  # [n_rows, n_cols] float64
    n_rows,
    n_cols,
    d,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CANDIDATES: tl.constexpr,
    EUCLIDEAN: tl.constexpr,
):
    """Write exact scores; a program computes BLOCK_M x BLOCK_N of them."""
    row_blocks = tl.cdiv(n_rows, BLOCK_M)
    rows = ((tl.program_id(0) % row_blocks) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None].to(tl.int64)
    cols = ((tl.program_id(0) // row_blocks) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :].to(tl.int64)
    inside = (rows < n_rows) & (cols < n_cols)
    # rows and columns beyond the table read row 0, so that the loop needs no mask
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
