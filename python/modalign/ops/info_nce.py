"""The info_nce operators: log-sum-exps of a similarity matrix that is never stored, and products with its softmaxes.

``info_nce_forward`` computes the log-sum-exps of the rows and columns of S over the entries that count, and the
diagonal of S. Every form of InfoNCE is a sum of these. ``info_nce_backward`` multiplies W = dL/dS by two tables; with y
and x themselves the products are the gradients of x and y. ``modalign.ops.loss_tables`` describes S, W and the entries
that count, and ``modalign.reference.info_nce`` defines both operators.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from modalign.common.dtypes import FLOATS, HALF_AND_FLOAT, accumulator
from modalign.ops import _examples, _torch
from modalign.ops._refusals import interpreter_is_for_tests, no_hopper, no_triton, not_measured, not_on_cpu, wrong_dtype
from modalign.ops.dispatch import Implementation, Operation, select
from modalign.ops.loss_tables import ForwardOptions, LossTables, Sums, WeightTables
from modalign.ops.transforms import Context, differentiable, register_vmap

__all__ = [
    "INFO_NCE",
    "backward_operator",
    "finite_problems",
    "forward_operator",
    "info_nce_backward",
    "info_nce_forward",
    "loss_implementations",
    "raise_overflow",
    "require_finite_tables",
    "require_scales",
]


def loss_implementations(operation: str) -> tuple[Implementation, ...]:
    """Return the implementations of a loss's forward and backward operators, fastest first."""

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
Arguments = tuple[Any, ...]  # the flat list of an operator


def _describe_options(tables: LossTables, stats: bool, stored: int) -> str:
    """Return the options of a call that not every backend takes, in words."""
    options = {
        "ids": tables.row_id is not None,
        "caps": tables.row_cap is not None or tables.col_cap is not None,
        "statistics": stats,
        "stored logits": stored > 0,
    }
    return ", ".join(name for name, present in options.items() if present) or PLAIN


def _refused_by_cuda(x: Tensor, y: Tensor | None = None, _: Tensor | None = None, options: str = PLAIN) -> str | None:
    if options != PLAIN:
        return f"takes no ids, caps, statistics or stored logits (workspace=0 stores none); this call has {options}"
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
        *loss_implementations("info_nce"),
    ),
    _examples.paired_rows,
)

# the fields of LossTables, ForwardOptions and WeightTables, in order
IDS_AND_CAPS = "Tensor? row_id, Tensor? col_id, Tensor? row_cap, Tensor? col_cap"
TABLES = f"Tensor x, Tensor? y, Tensor logit_scale, {IDS_AND_CAPS}, str mask"
WEIGHTS = "Tensor grad_row, Tensor grad_col, Tensor grad_positive, Tensor row_lse, Tensor col_lse, Tensor stored"
OPTIONS = "bool columns, bool stats, SymInt workspace, bool check_finite, bool pairs"
FORWARD = f"({TABLES}, {OPTIONS}, str backend) -> ({', '.join(['Tensor'] * 8)})"
BACKWARD = f"({TABLES}, {WEIGHTS}, Tensor? v, Tensor? u, str backend) -> (Tensor, Tensor)"
_TABLE_FIELDS = [field.name for field in dataclasses.fields(LossTables)]
_WEIGHT_FIELDS = [field.name for field in dataclasses.fields(WeightTables)]
_BACKWARD_ARGUMENTS = (*_TABLE_FIELDS, *_WEIGHT_FIELDS, "v", "u", "backend")
_TWICE_DIFFERENTIABLE = {*_WEIGHT_FIELDS, "x", "y", "logit_scale"} - {"stored"}


def _unpack_forward(arguments: Arguments) -> tuple[LossTables, ForwardOptions, str]:
    return LossTables(*arguments[:8]), ForwardOptions(*arguments[8:13]), arguments[13]


def _unpack_backward(arguments: Arguments) -> tuple[LossTables, WeightTables, Tensor | None, Tensor | None, str]:
    return LossTables(*arguments[:8]), WeightTables(*arguments[8:14]), *arguments[14:]


@torch.library.custom_op("modalign::info_nce_forward", mutates_args=(), schema=FORWARD)
def forward_operator(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the fields of ``Sums``. The first three are differentiable."""
    tables, options, backend = _unpack_forward(arguments)
    described = _describe_options(tables, options.stats, options.workspace)
    forward = select(INFO_NCE, "forward", backend, (tables.x, tables.y, tables.logit_scale, described))
    sums: Sums = forward(tables.contiguous(), options)
    on_cpu = tables.x.device.type == "cpu"
    if on_cpu or options.check_finite:  # elsewhere the check makes the host wait for the device
        require_scales(_name(tables), tables.logit_scale)
    if options.check_finite:
        _require_finite(tables, sums)
    elif on_cpu:  # on a GPU NaN spreads by itself
        _spread(tables, sums)
    return tuple(sums)


@forward_operator.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    tables, options, _ = _unpack_forward(arguments)
    return tuple(Sums.empty(tables, options))


@torch.library.custom_op("modalign::info_nce_backward", mutates_args=(), schema=BACKWARD)
def backward_operator(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Return W v (b, n, e) and W' u (b, m, e); (b, 0, d) for a table that is None, whose product is not computed."""
    tables, weights, v, u, backend = _unpack_backward(arguments)
    described = _describe_options(tables, False, weights.stored.numel())
    backward = select(INFO_NCE, "backward", backend, (tables.x, tables.y, tables.logit_scale, described))
    weights = WeightTables(*(table.contiguous() for table in weights.flat()))
    values = (None if table is None else table.contiguous() for table in (v, u))
    products: tuple[Tensor, Tensor] = backward(tables.contiguous(), weights, *values)
    return products


@backward_operator.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    tables, _, v, u, _ = _unpack_backward(arguments)
    b, n, m, d = tables.sizes

    def product(rows: int, values: Tensor | None) -> Tensor:
        shape = (b, 0, d) if values is None else (b, rows, values.shape[2])
        return tables.x.new_empty(shape, dtype=tables.dtype)

    return product(n, v), product(m, u)


def _save_forward(ctx: Context, inputs: Arguments, output: tuple[Tensor, ...]) -> None:
    *tables, ctx.mask = inputs[:8]
    ctx.check_finite, ctx.backend = inputs[11], inputs[-1]
    row_lse, col_lse, _, stored = output[:4]
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tables, row_lse, col_lse, stored)


def _differentiate_forward(ctx: Context, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *saved, row_lse, col_lse, stored = ctx.saved_tensors
    tables = LossTables(*(*saved, ctx.mask))
    need_x, need_y, need_scale = ctx.needs_input_grad[:3]
    nothing: Tensor = row_lse[:, :0]
    grad_row, grad_col, grad_positive = (nothing if grad is None else grad for grad in grads[:3])
    if not ctx.check_finite:  # the weight of a log-sum-exp that is NaN is NaN
        grad_row, grad_col = (
            torch.where(lse.isnan(), lse, grad) if grad.shape[1] else grad
            for lse, grad in ((row_lse, grad_row), (col_lse, grad_col))
        )
    weights = WeightTables(grad_row, grad_col, grad_positive, row_lse=row_lse, col_lse=col_lse, stored=stored)
    # d logit_scale_i = sum_j dS_ij <x_i, y_j> = <x_i, dx_i> / logit_scale_i: free once dx is there
    v = tables.right if need_x or need_scale else None
    dx, dy = info_nce_backward(tables, weights, v, tables.x if need_y else None, backend=ctx.backend)
    # in one stream <x_i, dx_i> counts S_ij from both its sides
    streams = 2 if tables.y is None else 1
    x, scale = tables.x, tables.logit_scale
    dscale = torch.linalg.vecdot(x.to(dx.dtype), dx) / (streams * scale) if need_scale else None
    return dx.to(x.dtype) if need_x else None, dy.to(x.dtype) if need_y else None, dscale, *11 * [None]


def _save_backward(ctx: Context, inputs: Arguments, output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.backend = inputs
    ctx.mask = tensors.pop(7)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _differentiate_backward(ctx: Context, grad_a: Tensor | None, grad_b: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the gradients of <grad_a, W v> + <grad_b, W' u>.

    Those of v and u are W' grad_a and W grad_b, products of the operator itself. The others need grad_a v' + u grad_b'
    against the parts of W, which are computed block by block.
    """
    *saved, v, u = ctx.saved_tensors
    tables, weights = LossTables(*(*saved[:7], ctx.mask)), WeightTables(*saved[7:])
    needed = {name for name, need in zip(_BACKWARD_ARGUMENTS, ctx.needs_input_grad, strict=True) if need}
    grads: dict[str, Tensor] = {}
    if needed & _TWICE_DIFFERENTIABLE:
        products = _torch.Products((v, u), (grad_a, grad_b))
        grads = _torch.info_nce_double_backward(tables, weights, products, wanted=needed & _TWICE_DIFFERENTIABLE)

    def multiply(values: Tensor, transposed: bool) -> Tensor:
        values = values.to(tables.x.dtype)
        pair = (None, values) if transposed else (values, None)
        result: Tensor = info_nce_backward(tables, weights, *pair, backend=ctx.backend)[int(transposed)]
        return result

    if "v" in needed and grad_a is not None and v is not None:
        grads["v"] = multiply(grad_a, tables.y is not None).to(v.dtype)  # in one stream W is symmetric
    if "u" in needed and grad_b is not None and u is not None:
        grads["u"] = multiply(grad_b, False).to(u.dtype)
    return tuple(grads.get(name) for name in _BACKWARD_ARGUMENTS)


_forward = differentiable(forward_operator, _save_forward, _differentiate_forward)
_backward = differentiable(backward_operator, _save_backward, _differentiate_backward)
register_vmap(forward_operator, {"workspace": 0}, unbatched_outputs=(3,))
register_vmap(backward_operator, {}, unbatched_inputs=("stored",))


def info_nce_forward(tables: LossTables, options: ForwardOptions, backend: str = "auto") -> Sums:
    """Return the sums over the entries of S that count; row_lse, col_lse and positive are differentiable.

    ``backend`` is "auto" or the name of one of the implementations of ``INFO_NCE``.
    """
    return Sums(*_forward(*tables.flat(), *options.flat(), backend))


def info_nce_backward(
    tables: LossTables, weights: WeightTables, v: Tensor | None, u: Tensor | None, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Return the products W v (b, n, e) and W' u (b, m, e) for v (b, m, e) and u (b, n, e).

    A product whose table is None is not computed and has the shape (b, 0, d).
    """
    products: tuple[Tensor, Tensor] = _backward(*tables.flat(), *weights.flat(), v, u, backend)
    return products


def require_finite_tables(operation: str, tables: dict[str, Tensor | None]) -> None:
    """Raise a ValueError that names the rows of the first table with NaN or inf.

    Two numbers of a table decide whether it is finite; its rows are searched only if it is not.
    """
    for name, table in tables.items():
        if table is None or not table.numel() or all(bool(bound.isfinite()) for bound in table.aminmax()):
            continue
        bad = (~table.isfinite()).any(-1).nonzero()
        rows = ", ".join(str(row.tolist()) for row in bad[:3])
        raise ValueError(
            f"{operation}: {name} must be finite, got NaN or inf in {len(bad)} rows, the first [problem, row]: {rows}"
        )


def require_scales(operation: str, logit_scale: Tensor) -> None:
    """Raise a ValueError unless every scale is positive and finite."""
    valid = (logit_scale > 0) & (logit_scale < torch.inf)
    if not bool(valid.all()):
        # the inverse of 0 and of the smallest numbers is inf
        shown = {torch.inf: f"0 or less than 1 / {torch.finfo(logit_scale.dtype).max:.2g}", 0.0: "inf"}
        distinct = list(dict.fromkeys(shown.get(scale) or f"{1 / scale:g}" for scale in logit_scale[~valid].tolist()))
        raise ValueError(
            f"{operation}: temperature must be positive and finite, got "
            f"{', '.join(distinct[:3])}{' (the first)' if len(distinct) > 1 else ''}"
        )


def raise_overflow(operation: str, x: Tensor, y: Tensor, logit_scale: Tensor) -> None:
    """Raise the ValueError for logits beyond the range of the dtype that they are computed in."""
    raise ValueError(
        f"{operation}: the logits overflow {accumulator(x.dtype)}: largest |x| {float(x.abs().amax()):.3g}, "
        f"|y| {float(y.abs().amax()):.3g}, 1/temperature {float(logit_scale.max()):.3g}. "
        "Use normalize=True, a larger temperature or float64"
    )


def finite_problems(tables: LossTables, *results: Tensor) -> Tensor:
    """Return whether the rows of each problem (b,) are finite, and its ``results`` neither NaN nor +inf."""
    # a row without candidates has the log-sum-exp -inf; +inf and NaN are logits out of range
    finite = torch.stack([(result < torch.inf).all(1) for result in results]).all(0)
    for rows in (tables.x, tables.right):
        finite = finite & rows.isfinite().flatten(1).all(1)
    return finite


def _name(tables: LossTables) -> str:
    """Return the loss whose messages a call has."""
    return "nt_xent" if tables.y is None else "info_nce"


def _require_finite(tables: LossTables, sums: Sums) -> None:
    operation = _name(tables)
    require_finite_tables(operation, {"x": tables.x, "y": tables.y})
    # a row without candidates has the log-sum-exp -inf; +inf and NaN are logits out of range
    finite = (sums.row_lse < torch.inf).all() & (sums.col_lse < torch.inf).all() & sums.positive.isfinite().all()
    if not bool(finite):
        raise_overflow(operation, tables.x, tables.right, tables.logit_scale)


def _spread(tables: LossTables, sums: Sums) -> None:
    """Fill the results of problems with NaN or inf with NaN: the compiled core leaves out an entry that is NaN."""
    spoiled = ~finite_problems(tables, sums.row_lse, sums.col_lse, sums.positive.abs())
    for result in (*sums[:3], *sums[4:]):
        result[spoiled] = torch.nan
