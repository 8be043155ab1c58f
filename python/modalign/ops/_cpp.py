"""The compiled core seen from torch: contiguous memory in, freshly allocated results out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modalign import _core
from modalign.ops import dispatch
from modalign.ops.knn_tables import Report, RowBlock, SearchOptions

if os.getpid() != dispatch.PROCESS:  # forked since: torch's threads are not here, and would be waited for for ever
    _core.forget_openmp()


def info_nce_forward(
    x: Tensor, y: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None,
    mask: str, columns: bool, stats: bool, workspace: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    b, n, _ = x.shape
    m = n if y is None else y.shape[1]
    columns = columns and y is not None

    def vector(width: int, wanted: bool) -> Tensor:
        return logit_scale.new_empty(b, width if wanted else 0)

    stored = logit_scale.new_empty(0 if y is None else min(b * n, workspace // (logit_scale.itemsize * m)), m)
    row = [vector(n, True), vector(n, stats), vector(n, stats)]
    col = [vector(m, columns), vector(m, columns and stats), vector(m, columns and stats)]
    positive = vector(n, y is not None and n == m)
    if b:
        _run("info_nce_forward", x)(
            _tables(x, y, logit_scale, row_id, col_id, row_cap, col_cap, mask), list(map(_address, row)),
            list(map(_address, col)), _address(positive), _address(stored), len(stored), torch.get_num_threads(),
        )  # fmt: skip
    return row[0], col[0], positive, stored, row[1], row[2], col[1], col[2]


def info_nce_backward(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor | None, v: Tensor | None, u: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
    row_lse: Tensor, col_lse: Tensor, stored: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    by_row, by_col = _products(x, y, v, u, logit_scale)
    if len(x):
        _run("info_nce_backward", x)(
            _tables(x, y, logit_scale, row_id, col_id, row_cap, col_cap, mask),
            [_address(grad) for grad in (grad_row, grad_col, grad_positive, row_lse, col_lse)],
            _product_tables(v, u, by_row, by_col), _address(stored), len(stored), torch.get_num_threads(),
        )  # fmt: skip
    return by_row, by_col


def sigmoid_loss_forward(
    x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor, row_id: Tensor | None, col_id: Tensor | None
) -> Tensor:
    row_loss = torch.empty_like(logit_scale)
    if len(x):
        _run("sigmoid_loss_forward", x)(
            _tables(x, y, logit_scale, row_id, col_id, None, None, "none"), _address(bias), _address(row_loss),
            torch.get_num_threads(),
        )  # fmt: skip
    return row_loss


def sigmoid_loss_backward(
    grad_row: Tensor, x: Tensor, y: Tensor, logit_scale: Tensor, bias: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, need_x: bool, need_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    v, u = y if need_x else None, x if need_y else None
    dx, dy = _products(x, y, v, u, logit_scale)
    slope = torch.empty_like(logit_scale)
    if len(x):
        _run("sigmoid_loss_backward", x)(
            _tables(x, y, logit_scale, row_id, col_id, None, None, "none"), _address(bias), _address(grad_row),
            _product_tables(v, u, dx, dy), _address(slope), torch.get_num_threads(),
        )  # fmt: skip
    return dx, dy, slope


def unit_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n, d = x.shape
    unit, size, norm = torch.empty_like(x), x.new_empty(n, 1), x.new_empty(n, 1)
    _run("unit_rows", x)(_address(x), n, d, *map(_address, (unit, size, norm)), torch.get_num_threads())
    return unit, size, norm


def unit_rows_backward(grad: Tensor, x: Tensor, size: Tensor, norm: Tensor) -> Tensor:
    dx = torch.empty_like(x)
    _run("unit_rows_backward", x)(
        *map(_address, (grad, x, size, norm)), *x.shape, _address(dx), torch.get_num_threads()
    )
    return dx


def _run(name: str, x: Tensor) -> Callable[..., None]:
    run: Callable[..., None] = getattr(_core, f"{name}_{'float64' if x.dtype == torch.float64 else 'float32'}")
    return run


def _address(table: Tensor | None) -> int:
    """0 for what is not there."""
    return 0 if table is None or table.numel() == 0 else table.data_ptr()


def _tables(x: Tensor, y: Tensor | None, *rest: Tensor | str | None) -> tuple[Any, ...]:
    b, n, d = x.shape
    *tables, mask = rest
    scale = tables[0]
    # addresses have no dtype: a table of another one would be read, or written, beyond its end
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    if (y is not None and y.dtype != x.dtype) or not isinstance(scale, Tensor) or scale.dtype != wide:
        came = [table.dtype for table in (x, y, scale) if isinstance(table, Tensor)]
        raise TypeError(f"x and y must share a dtype, and the scales of {x.dtype} be {wide}, got {came}")
    m = n if y is None else y.shape[1]
    return (_address(x), _address(y), _name(x.dtype), b, n, m, d, *map(_address, tables), mask)  # type: ignore[arg-type]


def _products(
    x: Tensor, y: Tensor | None, v: Tensor | None, u: Tensor | None, logit_scale: Tensor
) -> tuple[Tensor, Tensor]:
    b, n, d = x.shape
    m = n if y is None else y.shape[1]
    by_row = logit_scale.new_empty((b, 0, d) if v is None else (b, n, v.shape[2]))
    return by_row, logit_scale.new_empty((b, 0, d) if u is None else (b, m, u.shape[2]))


def _product_tables(v: Tensor | None, u: Tensor | None, by_row: Tensor, by_col: Tensor) -> tuple[int, ...]:
    return (_address(v), _address(u), by_row.shape[2], by_col.shape[2], _address(by_row), _address(by_col))


def search(x: RowBlock, queries: RowBlock | None, options: SearchOptions) -> tuple[Tensor, Tensor, Report]:
    m = len((x if queries is None else queries).rows)
    best = torch.full((m, options.k), -1), torch.full((m, options.k), -torch.inf, dtype=torch.float64)
    if queries is None:
        report = merge(dataclasses.replace(x, best=best), None, options)
    else:
        report = merge(dataclasses.replace(queries, best=best), x, options)
    return *best, report


def merge(x: RowBlock, y: RowBlock | None, options: SearchOptions) -> Report:
    lists = [block.best for block in (x, y) if block is not None and block.best is not None]
    assert all(table.is_contiguous() for best in lists for table in best)
    # contiguous copies, which must live while the core reads them
    x, y = _contiguous_block(x), None if y is None else _contiguous_block(y)
    done, stop = options.watch or (None, None)
    screen, scored, redone = _core.knn(
        _block_addresses(x),
        _block_addresses(y),
        _name(x.rows.dtype),
        x.rows.shape[1],
        lists[0][0].shape[1],
        options.metric,
        _best_addresses(x),
        _best_addresses(y),
        _address(done),
        _address(stop),
        options.threads or torch.get_num_threads(),
    )
    return Report(screen, sum(len(best[0]) for best in lists) - redone, redone, scored)


def knn_bytes(n: int, m: int, *, d: int, k: int, threads: int | None = None) -> int:
    return _core.knn_bytes(n, m, d, k, threads or torch.get_num_threads())


def _contiguous_block(block: RowBlock) -> RowBlock:
    return dataclasses.replace(block, rows=block.rows.contiguous(), groups=_contiguous(block.groups))


def _block_addresses(block: RowBlock | None) -> tuple[int, int, int, int]:
    return (
        (0, 0, 0, 0) if block is None else (_address(block.rows), len(block.rows), block.start, _address(block.groups))
    )


def _best_addresses(block: RowBlock | None) -> tuple[int, int]:
    return (0, 0) if block is None or block.best is None else (_address(block.best[0]), _address(block.best[1]))


def _contiguous(table: Tensor | None) -> Tensor | None:
    return None if table is None else table.contiguous()


def neighbor_overlap(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.contiguous(), b.contiguous()
    n, k = a.shape
    counts = torch.empty(n, k, dtype=torch.int32)
    _core.neighbor_overlap(a.data_ptr(), b.data_ptr(), n, k, counts.data_ptr(), torch.get_num_threads())
    return counts


def neighborhood_scores(a: Tensor, b: Tensor, name: str) -> Tensor:
    a, b = a.contiguous(), b.contiguous()
    n, k = a.shape
    scores = torch.empty(n, dtype=torch.float64)
    _core.neighborhood_scores(a.data_ptr(), b.data_ptr(), n, k, name, scores.data_ptr(), torch.get_num_threads())
    return scores


def relabelled_overlap(a: Tensor, b: Tensor, relabellings: Tensor) -> Tensor:
    a, b, relabellings = a.contiguous(), b.contiguous(), relabellings.contiguous()
    n, k = a.shape
    totals = torch.empty(relabellings.shape[:-1], dtype=torch.int64)
    _core.relabelled_overlap(
        a.data_ptr(), b.data_ptr(), n, k, relabellings.data_ptr(), totals.numel(), totals.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return totals


def edge_products(x: Tensor, items: Tensor, others: Tensor) -> Tensor:
    x, items, others = x.contiguous(), items.contiguous(), others.contiguous()
    (n, d), (m, k) = x.shape, others.shape
    products = torch.empty(m, k, dtype=torch.float64)
    rows = (x.data_ptr(), _name(x.dtype), n, d)
    edges = (items.data_ptr(), others.data_ptr(), m, k)
    _core.edge_products(*rows, *edges, products.data_ptr(), torch.get_num_threads())
    return products


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
