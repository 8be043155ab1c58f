"""The compiled core seen from torch: contiguous memory in, freshly allocated results out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from modalign import _core
from modalign.common.threads import is_forked
from modalign.ops.knn_tables import Report, RowBlock, SearchOptions
from modalign.ops.loss_tables import ForwardOptions, LossTables, Sums, WeightTables

if is_forked():  # the threads of torch's OpenMP runtime are not in this process
    _core.forget_openmp()


def info_nce_forward(tables: LossTables, options: ForwardOptions) -> Sums:
    sums = Sums.empty(tables, options)
    if len(tables.x):
        _run("info_nce_forward", tables.x)(
            _describe(tables),
            [_address(table) for table in (sums.row_lse, sums.row_best, sums.row_mean)],
            [_address(table) for table in (sums.col_lse, sums.col_best, sums.col_mean)],
            _address(sums.positive),
            _address(sums.stored),
            len(sums.stored),
            torch.get_num_threads(),
        )
    return sums


def info_nce_backward(
    tables: LossTables, weights: WeightTables, v: Tensor | None, u: Tensor | None
) -> tuple[Tensor, Tensor]:
    products = _empty_products(tables, v, u)
    if len(tables.x):
        *vectors, stored = weights.flat()
        _run("info_nce_backward", tables.x)(
            _describe(tables),
            [_address(vector) for vector in vectors],
            _describe_products(v, u, products),
            _address(stored),
            len(stored),
            torch.get_num_threads(),
        )
    return products


def sigmoid_loss_forward(tables: LossTables, bias: Tensor) -> Tensor:
    row_loss = torch.empty_like(tables.logit_scale)
    if len(tables.x):
        run = _run("sigmoid_loss_forward", tables.x)
        run(_describe(tables), _address(bias), _address(row_loss), torch.get_num_threads())
    return row_loss


def sigmoid_loss_backward(
    tables: LossTables, bias: Tensor, grad_row: Tensor, *, need_x: bool, need_y: bool
) -> tuple[Tensor, Tensor, Tensor]:
    v, u = tables.y if need_x else None, tables.x if need_y else None
    products = _empty_products(tables, v, u)
    slope = torch.empty_like(tables.logit_scale)
    if len(tables.x):
        _run("sigmoid_loss_backward", tables.x)(
            _describe(tables),
            _address(bias),
            _address(grad_row),
            _describe_products(v, u, products),
            _address(slope),
            torch.get_num_threads(),
        )
    return *products, slope


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
    """Return the address of a table, 0 for one that is None or has no elements."""
    return 0 if table is None or table.numel() == 0 else table.data_ptr()


def _describe(tables: LossTables) -> tuple[int | str, ...]:
    """Return the addresses and sizes of a loss's tables, as the core takes them."""
    # an address has no dtype: the core would read, or write, beyond the end of a table of another dtype
    x, y, scale = tables.x, tables.y, tables.logit_scale
    if (y is not None and y.dtype != x.dtype) or scale.dtype != tables.dtype:
        dtypes = [table.dtype for table in (x, y, scale) if table is not None]
        raise TypeError(f"x and y must share a dtype, and the scales of {x.dtype} be {tables.dtype}, got {dtypes}")
    options = (scale, tables.row_id, tables.col_id, tables.row_cap, tables.col_cap)
    return (_address(x), _address(y), _name(x.dtype), *tables.sizes, *map(_address, options), tables.mask)


def _empty_products(tables: LossTables, v: Tensor | None, u: Tensor | None) -> tuple[Tensor, Tensor]:
    b, n, m, d = tables.sizes
    scale = tables.logit_scale
    by_row = scale.new_empty((b, 0, d) if v is None else (b, n, v.shape[2]))
    return by_row, scale.new_empty((b, 0, d) if u is None else (b, m, u.shape[2]))


def _describe_products(v: Tensor | None, u: Tensor | None, products: tuple[Tensor, Tensor]) -> tuple[int, ...]:
    by_row, by_col = products
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
        a.data_ptr(),
        b.data_ptr(),
        n,
        k,
        relabellings.data_ptr(),
        totals.numel(),
        totals.data_ptr(),
        torch.get_num_threads(),
    )
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
