"""The compiled core seen from torch: contiguous memory in, freshly allocated results out."""

from __future__ import annotations

import torch
from torch import Tensor

from modalign import _core


def info_nce_forward(x: Tensor, y: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, y, logit_scale = x.contiguous(), y.contiguous(), logit_scale.contiguous()
    problems, n, d = x.shape
    row_lse, col_lse, positive = (torch.empty(x.shape[:2], dtype=logit_scale.dtype) for _ in range(3))
    run = _core.info_nce_forward_float64 if x.dtype == torch.float64 else _core.info_nce_forward_float32
    run(
        x.data_ptr(), y.data_ptr(), _name(x.dtype), problems, n, d, logit_scale.data_ptr(),
        row_lse.data_ptr(), col_lse.data_ptr(), positive.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return row_lse, col_lse, positive


def info_nce_backward(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor, logit_scale: Tensor, row_lse: Tensor, col_lse: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    grad_row, grad_col, grad_positive = grad_row.contiguous(), grad_col.contiguous(), grad_positive.contiguous()
    problems, n, d = x.shape
    x, y, logit_scale = x.contiguous(), y.contiguous(), logit_scale.contiguous()
    dx, dy = (torch.empty(x.shape, dtype=row_lse.dtype) for _ in range(2))
    run = _core.info_nce_backward_float64 if x.dtype == torch.float64 else _core.info_nce_backward_float32
    run(
        grad_row.data_ptr(), grad_col.data_ptr(), grad_positive.data_ptr(),
        x.data_ptr(), y.data_ptr(), _name(x.dtype), problems, n, d, logit_scale.data_ptr(),
        row_lse.data_ptr(), col_lse.data_ptr(), dx.data_ptr(), dy.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return dx, dy


def knn(x: Tensor, queries: Tensor | None, k: int, metric: str) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    queries = None if queries is None else queries.contiguous()
    rows = x if queries is None else queries
    indices = torch.empty(len(rows), k, dtype=torch.int64)
    scores = torch.empty(len(rows), k, dtype=torch.float64)
    _core.knn(
        x.data_ptr(), 0 if queries is None else queries.data_ptr(), _name(x.dtype), len(x), len(rows), x.shape[1], k,
        metric, indices.data_ptr(), scores.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return indices, scores


def neighbor_overlap(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.contiguous(), b.contiguous()
    n, k = a.shape
    counts = torch.empty(n, k, dtype=torch.int32)
    _core.neighbor_overlap(a.data_ptr(), b.data_ptr(), n, k, counts.data_ptr(), torch.get_num_threads())
    return counts


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
