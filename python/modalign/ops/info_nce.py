"""The info_nce operator: row and column log-sum-exps and the diagonal of a similarity matrix that is never stored.

    S = logit_scale * x y'     row_lse_i = log sum_j exp S_ij     col_lse_j = log sum_i exp S_ij     positive_i = S_ii

All of InfoNCE's forms are sums of these three, so they are the operator's outputs and each is differentiable.
x, y: [b, n, d], b independent problems; logit_scale: [b]; outputs [b, n], float64 for float64 inputs, else float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.backends import Implementation, Operation, select
from modalign.ops._refusals import FLOATS, HALF_AND_FLOAT, interpreter_is_for_tests, no_triton, not_on_cpu, wrong_dtype

__all__ = ["INFO_NCE", "accumulator", "info_nce_backward", "info_nce_forward"]


def _functions(module: str) -> dict[str, str]:
    return {"forward": f"{module}:info_nce_forward", "backward": f"{module}:info_nce_backward"}


INFO_NCE = Operation(
    "info_nce",
    (
        Implementation(
            "triton",
            _functions("modalign.kernels.info_nce"),
            lambda x, *_: no_triton(x) or wrong_dtype(x, HALF_AND_FLOAT),
            interpreter_is_for_tests,
        ),
        Implementation("cpp", _functions("modalign.ops._cpp"), lambda x, *_: not_on_cpu(x) or wrong_dtype(x, FLOATS)),
        Implementation("reference", _functions("modalign.reference.info_nce"), lambda x, *_: wrong_dtype(x, FLOATS)),
    ),
)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype sums are kept in, and results returned in, for inputs of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@torch.library.custom_op("modalign::info_nce_forward", mutates_args=())
def info_nce_forward(x: Tensor, y: Tensor, logit_scale: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    forward = select(INFO_NCE, "forward", backend, x, y, logit_scale)
    row_lse, col_lse, positive = forward(x.contiguous(), y.contiguous(), logit_scale)
    if x.device.type == "cpu":  # elsewhere the check would make the host wait for the device
        _require_finite(row_lse, col_lse, positive, x, y, logit_scale)
    return row_lse, col_lse, positive


@info_nce_forward.register_fake
def _(x: Tensor, y: Tensor, logit_scale: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    row_lse, col_lse, positive = (x.new_empty(x.shape[:2], dtype=accumulator(x.dtype)) for _ in range(3))
    return row_lse, col_lse, positive


@torch.library.custom_op("modalign::info_nce_backward", mutates_args=())
def info_nce_backward(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor, logit_scale: Tensor, row_lse: Tensor, col_lse: Tensor, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, y and logit_scale.

    dS_ij = grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j) + [i = j] grad_positive_i, and
    d logit_scale = sum dS * x y' = sum_i <x_i, dx_i> / logit_scale, so the temperature's gradient costs O(n d).
    """
    backward = select(INFO_NCE, "backward", backend, x, y, logit_scale)
    grads = (grad.contiguous() for grad in (grad_row, grad_col, grad_positive))
    dx, dy = backward(*grads, x.contiguous(), y.contiguous(), logit_scale, row_lse, col_lse)
    dscale = torch.linalg.vecdot(x.to(dx.dtype), dx).sum(-1) / logit_scale
    return dx.to(x.dtype), dy.to(y.dtype), dscale


@info_nce_backward.register_fake
def _(
    grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor,
    x: Tensor, y: Tensor, logit_scale: Tensor, row_lse: Tensor, col_lse: Tensor, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(x), torch.empty_like(y), torch.empty_like(logit_scale)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, y, logit_scale, ctx.backend = inputs
    row_lse, col_lse, _ = output
    ctx.save_for_backward(x, y, logit_scale, row_lse, col_lse)


def _backward(ctx, grad_row: Tensor, grad_col: Tensor, grad_positive: Tensor):  # type: ignore[no-untyped-def]
    x, y, logit_scale, row_lse, col_lse = ctx.saved_tensors
    dx, dy, dscale = info_nce_backward(
        grad_row, grad_col, grad_positive, x, y, logit_scale, row_lse, col_lse, ctx.backend
    )
    return dx, dy, dscale, None


info_nce_forward.register_autograd(_backward, setup_context=_setup_context)


def _require_finite(
    row_lse: Tensor, col_lse: Tensor, positive: Tensor, x: Tensor, y: Tensor, logit_scale: Tensor
) -> None:
    """One look at the O(n) results; the O(n d) search for the culprit only when something is wrong."""
    if not bool(((logit_scale > 0) & (logit_scale < torch.inf)).all()):
        raise ValueError(f"info_nce: temperature must be positive and finite, got {(1 / logit_scale).tolist()}")
    if bool(row_lse.isfinite().all() & col_lse.isfinite().all() & positive.isfinite().all()):
        return
    for name, tensor in (("x", x), ("y", y)):
        bad = (~tensor.isfinite()).any(-1).nonzero()
        if len(bad):
            rows = ", ".join(str(row.tolist()) for row in bad[:3])
            raise ValueError(
                f"info_nce: {name} must be finite, got NaN or inf in {len(bad)} rows, the first [problem, row]: {rows}"
            )
    raise ValueError(
        f"info_nce: the logits overflow {row_lse.dtype}: largest |x| {float(x.abs().amax()):.3g}, "
        f"|y| {float(y.abs().amax()):.3g}, 1/temperature {float(logit_scale.max()):.3g}. "
        "Use normalize=True, a larger temperature or float64"
    )
