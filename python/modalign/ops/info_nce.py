"""The info_nce operators: log-sum-exps of a similarity matrix that is never stored, and products with its softmaxes.

    S_ij = logit_scale_i <x_i, y_j>                       x [b, n, d], y [b, m, d], logit_scale [b, n]

``info_nce_forward`` gives the log-sum-exps of S's rows and columns over the entries that count, and S's diagonal. All
of InfoNCE's forms are sums of these. ``info_nce_backward`` multiplies W = dL/dS by two tables; with y and x themselves
these are the gradients. ``modalign.reference.info_nce`` defines both, and which entries count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modalign.common.dtypes import FLOATS, HALF_AND_FLOAT, accumulator
from modalign.ops import _torch
from modalign.ops._refusals import interpreter_is_for_tests, no_hopper, no_triton, not_measured, not_on_cpu, wrong_dtype
from modalign.ops._transforms import differentiable, register_vmap
from modalign.ops.dispatch import Implementation, Operation, select

__all__ = ["INFO_NCE", "backward_operator", "forward_operator", "info_nce_backward", "info_nce_forward"]


def implementations(operation: str) -> tuple[Implementation, ...]:
    """Who computes ``operation``_forward and ``operation``_backward, fastest first."""

    def functions(module: str) -> dict[str, str]:
        return {role: f"{module}:{operation}_{role}" for role in ("forward", "backward")}

    def takes_floats(x: Tensor, *_: object) -> str | None:
        return wrong_dtype(x, FLOATS)

    return (
        Implementation(
            "triton",
            functions(f"modalign.kernels.losses.{operation}"),
            lambda x, *_: no_triton(x) or wrong_dtype(x, HALF_AND_FLOAT),
            interpreter_is_for_tests,
        ),
        Implementation("cpp", functions("modalign.ops._cpp"), lambda x, *_: not_on_cpu(x) or wrong_dtype(x, FLOATS)),
        Implementation("torch", functions("modalign.ops._torch"), takes_floats),
        Implementation("reference", functions("modalign.reference.info_nce"), takes_floats),
    )


PLAIN = "nothing more"


def _asked(ids: Tensor | None, caps: tuple[Tensor | None, ...], stats: bool, workspace: int) -> str:
    """What a call has beyond two tables and their scales, in words."""
    asked = {
        "ids": ids is not None,
        "caps": any(cap is not None for cap in caps),
        "statistics": stats,
        "stored logits": workspace > 0,
    }
    return ", ".join(name for name, there in asked.items() if there) or PLAIN


def _refused_by_cuda(x: Tensor, y: Tensor | None = None, _: Tensor | None = None, asked: str = PLAIN) -> str | None:
    if asked != PLAIN:
        return f"takes no ids, caps, statistics or stored logits (workspace=0 stores none); this call has {asked}"
    if y is None:
        return "one stream (takes two)"
    if x.dim() == 3 and len(x) != 1:
        return f"a batch of {len(x)} problems (takes one)"
    return wrong_dtype(x, (torch.bfloat16,)) or no_hopper(x)


INFO_NCE = Operation(
    "info_nce",
    (
        Implementation(
            "cuda",
            {role: f"modalign.ops._cuda:info_nce_{role}" for role in ("forward", "backward")},
            _refused_by_cuda,
            not_measured,
        ),
        *implementations("info_nce"),
    ),
)


@torch.library.custom_op("modalign::info_nce_forward", mutates_args=())
def forward_operator(
    x: Tensor, y: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None,
    mask: str, columns: bool, stats: bool, workspace: int, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """row_lse [b, n], col_lse [b, m], positive [b, n], stored [rows, m], row_best, row_mean, col_best, col_mean.

    What is not asked for has width 0: columns' results without ``columns`` or in one stream (y None), the last four
    without ``stats``, positive unless n = m in two streams. ``stored``: the first rows of S, as many as fit into
    ``workspace`` bytes; the backward pass reads them again. The first three are differentiable.
    """
    asked = _asked(row_id, (row_cap, col_cap), stats, workspace)
    forward = select(INFO_NCE, "forward", backend, x, y, logit_scale, asked)
    tables = [x, y, logit_scale, row_id, col_id, row_cap, col_cap]
    outputs = forward(*map(contiguous, tables), mask, columns, stats, workspace)
    if x.device.type == "cpu":  # elsewhere the check would make the host wait for the device
        _require_finite(x, y, logit_scale, *outputs[:3])
    return outputs  # type: ignore[no-any-return]


@forward_operator.register_fake
def _(
    x: Tensor, y: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None,
    mask: str, columns: bool, stats: bool, workspace: int, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    b, n, _ = x.shape
    m = n if y is None else y.shape[1]
    dtype = accumulator(x.dtype)

    def vector(width: int, wanted: bool) -> Tensor:
        return x.new_empty(b, width if wanted else 0, dtype=dtype)

    columns = columns and y is not None
    rows = 0 if y is None else min(b * n, workspace // (dtype.itemsize * m))
    by_products = [vector(n, stats), vector(n, stats), vector(m, stats and columns), vector(m, stats and columns)]
    return (
        vector(n, True), vector(m, columns), vector(n, y is not None and m == n),
        x.new_empty(rows, m, dtype=dtype), *by_products,
    )  # type: ignore[return-value]  # fmt: skip


@torch.library.custom_op("modalign::info_nce_backward", mutates_args=())
def backward_operator(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor | None, v: Tensor | None, u: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
    row_lse: Tensor, col_lse: Tensor, stored: Tensor, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """W v [b, n, e] and W' u [b, m, e]; [b, 0, d] for a table that is None, whose product is not computed.

    W_ij = logit_scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j) + [i = j] grad_positive_i)
    """
    asked = _asked(row_id, (row_cap, col_cap), False, stored.numel())
    backward = select(INFO_NCE, "backward", backend, x, y, logit_scale, asked)
    tables = [grad_row, grad_col, grad_positive, x, y, v, u, logit_scale, row_id, col_id, row_cap, col_cap]
    products: tuple[Tensor, Tensor] = backward(
        *map(contiguous, tables), mask, *map(contiguous, (row_lse, col_lse, stored))
    )
    return products


@backward_operator.register_fake
def _(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor | None, v: Tensor | None, u: Tensor | None, logit_scale: Tensor,
    row_id: Tensor | None, col_id: Tensor | None, row_cap: Tensor | None, col_cap: Tensor | None, mask: str,
    row_lse: Tensor, col_lse: Tensor, stored: Tensor, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    b, n, d = x.shape
    m = n if y is None else y.shape[1]

    def product(rows: int, values: Tensor | None) -> Tensor:
        shape = (b, 0, d) if values is None else (b, rows, values.shape[2])
        return x.new_empty(shape, dtype=accumulator(x.dtype))

    return product(n, v), product(m, u)


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, y, logit_scale, row_id, col_id, row_cap, col_cap, ctx.mask, _, _, _, ctx.backend = inputs
    row_lse, col_lse, _, stored = output[:4]
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, y, logit_scale, row_id, col_id, row_cap, col_cap, row_lse, col_lse, stored)


def _differentiate_forward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    x, y, logit_scale, row_id, col_id, row_cap, col_cap, row_lse, col_lse, stored = ctx.saved_tensors
    need_x, need_y, need_scale = ctx.needs_input_grad[:3]
    none: Tensor = row_lse[:, :0]
    of_lse = [none if grad is None else grad for grad in grads[:3]]
    # d logit_scale_i = sum_j dS_ij <x_i, y_j> = <x_i, dx_i> / logit_scale_i: free once dx is there
    v = (x if y is None else y) if need_x or need_scale else None
    dx, dy = info_nce_backward(
        *of_lse, x, y, v, x if need_y else None, logit_scale,
        row_id, col_id, row_cap, col_cap, ctx.mask, row_lse, col_lse, stored, ctx.backend,
    )  # fmt: skip
    # in one stream <x_i, dx_i> counts S_ij from both its sides
    sides = 2 if y is None else 1
    dscale = torch.linalg.vecdot(x.to(dx.dtype), dx) / (sides * logit_scale) if need_scale else None
    return dx.to(x.dtype) if need_x else None, dy.to(x.dtype) if need_y else None, dscale, *9 * [None]


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tables, ctx.mask, row_lse, col_lse, stored, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tables, row_lse, col_lse, stored)


def _differentiate_backward(ctx: Any, grad_a: Tensor | None, grad_b: Tensor | None) -> tuple[Tensor | None, ...]:
    """Of (A, B) = (W v, W' u): dv = W' dA and du = W dB by the operator itself; the rest needs dA v' + u dB' against
    W's parts, block by block."""
    *tables, row_lse, col_lse, stored = ctx.saved_tensors
    y, v, u = tables[4:7]
    needs = ctx.needs_input_grad
    dv = du = None
    if needs[5] and grad_a is not None and y is not None:
        dv = _product(tables, (None, grad_a), ctx.mask, row_lse, col_lse, stored, ctx.backend)[1]
    elif needs[5] and grad_a is not None:  # one stream: W is symmetric
        dv = _product(tables, (grad_a, None), ctx.mask, row_lse, col_lse, stored, ctx.backend)[0]
    if needs[6] and grad_b is not None:
        du = _product(tables, (grad_b, None), ctx.mask, row_lse, col_lse, stored, ctx.backend)[0]
    weights = [index in (0, 1, 2, 3, 4, 7) and need for index, need in enumerate(needs)]
    grads: list[Tensor | None] = [None] * len(needs)
    if any(weights) or any(needs[13:15]):
        grads = _torch.info_nce_double_backward(grad_a, grad_b, *tables, ctx.mask, row_lse, col_lse, needs)  # type: ignore[call-arg]
    grads[5] = None if dv is None or v is None else dv.to(v.dtype)
    grads[6] = None if du is None or u is None else du.to(u.dtype)
    return tuple(grads)


def _product(
    tables: list[Tensor], values: tuple[Tensor | None, Tensor | None], mask: str, *saved: Any
) -> tuple[Tensor, Tensor]:
    """The operator with other tables in v's and u's place, in the dtype they would have."""
    v, u = (None if table is None else table.to(tables[3].dtype) for table in values)
    products: tuple[Tensor, Tensor] = info_nce_backward(*tables[:5], v, u, *tables[7:], mask, *saved)
    return products


info_nce_forward = differentiable(forward_operator, _save_forward, _differentiate_forward)
info_nce_backward = differentiable(backward_operator, _save_backward, _differentiate_backward)
register_vmap(forward_operator, {"workspace": 0}, unbatched_outputs=(3,))
register_vmap(backward_operator, {}, unbatched_inputs=("stored",))


def contiguous(table: Tensor | None) -> Tensor | None:
    return None if table is None else table.contiguous()


def require_finite_tables(operation: str, named: dict[str, Tensor | None]) -> None:
    """Two numbers of each table tell; the search for the culprit comes only when something is wrong."""
    for name, table in named.items():
        if table is None or not table.numel() or all(bool(bound.isfinite()) for bound in table.aminmax()):
            continue
        bad = (~table.isfinite()).any(-1).nonzero()
        rows = ", ".join(str(row.tolist()) for row in bad[:3])
        raise ValueError(
            f"{operation}: {name} must be finite, got NaN or inf in {len(bad)} rows, the first [problem, row]: {rows}"
        )


def require_scales(operation: str, logit_scale: Tensor) -> None:
    fine = (logit_scale > 0) & (logit_scale < torch.inf)
    if not bool(fine.all()):
        wrong = (1 / logit_scale[~fine])[:3].tolist()
        raise ValueError(f"{operation}: temperature must be positive and finite, got {wrong} (the first)")


def raise_overflow(operation: str, x: Tensor, y: Tensor, logit_scale: Tensor) -> None:
    raise ValueError(
        f"{operation}: the logits overflow {accumulator(x.dtype)}: largest |x| {float(x.abs().amax()):.3g}, "
        f"|y| {float(y.abs().amax()):.3g}, 1/temperature {float(logit_scale.max()):.3g}. "
        "Use normalize=True, a larger temperature or float64"
    )


def _require_finite(
    x: Tensor, y: Tensor | None, logit_scale: Tensor, row_lse: Tensor, col_lse: Tensor, positive: Tensor
) -> None:
    operation = "nt_xent" if y is None else "info_nce"
    require_scales(operation, logit_scale)
    require_finite_tables(operation, {"x": x, "y": y})
    # a row without candidates has the log-sum-exp -inf; +inf and NaN are logits out of range
    if not bool((row_lse < torch.inf).all() & (col_lse < torch.inf).all() & positive.isfinite().all()):
        raise_overflow(operation, x, x if y is None else y, logit_scale)
