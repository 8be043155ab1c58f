"""Checks of what users pass, shared by all rooms: a check returns, or raises an error that names the mistake."""

from __future__ import annotations

import operator
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from modalign.common.arithmetic import flushes_subnormal_numbers
from modalign.common.dtypes import FLOATS, autocast_dtype
from modalign.common.names import suggestion
from modalign.common.threads import leave_torch_threads_that_start

__all__ = [
    "LARGEST_SEED",
    "number",
    "one_of",
    "refuse_forward_mode",
    "require_finite_rows",
    "require_floats",
    "require_like",
    "require_pairs",
    "require_same_items",
    "require_tensor",
    "torch_seed",
    "whole_number",
]

# every door imports this module
leave_torch_threads_that_start()

LARGEST_SEED = 2**32 - 1  # of scikit-learn; NumPy's seeds begin at 0 too


def one_of(operation: str, name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Check that ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{operation}: {name} must be one of {allowed}, got {value!r}{suggestion(value, allowed)}")


def number(operation: str, name: str, value: object) -> float:
    """Return ``value`` if it is a number of Python or NumPy, and no truth value."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise TypeError(f"{operation}: {name} must be a number, got {value!r}")
    return value  # type: ignore[return-value]


def whole_number(operation: str, name: str, value: object, *, least: int | None = None, most: int | None = None) -> int:
    """Return a seed or a count as a Python integer, which every random generator and every file takes.

    Args:
        operation: The function that checks, for messages.
        name: The argument, for messages.
        value: An integer of Python, NumPy or torch; truth values and floating-point numbers are refused.
        least: The smallest value allowed, None for any.
        most: The largest value allowed, None for any.

    Examples:
        >>> import numpy as np
        >>> from modalign.common.checks import whole_number
        >>> whole_number("align", "seed", np.int64(3), least=0)
        3
    """
    try:
        if isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool:
            raise TypeError
        whole = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{operation}: {name} must be an integer, got {value!r}") from None
    if least is not None and whole < least:
        raise ValueError(f"{operation}: {name} must be at least {least}, got {whole}")
    if most is not None and whole > most:
        raise ValueError(f"{operation}: {name} must be at most {most}, got {whole}")
    return whole


def torch_seed(operation: str, seed: object) -> int:
    """Return a seed that torch's generators take as a Python integer."""
    return whole_number(operation, "seed", seed, least=-(2**63), most=2**64 - 1)


def require_tensor(operation: str, name: str, value: object, wanted: str = "a torch tensor") -> None:
    """Check that a value is a tensor that is dense and that this process holds; the message has the line to write."""
    argument = name if name.isidentifier() else "..."
    if not isinstance(value, torch.Tensor):
        line = _conversion(value, argument)
        raise TypeError(f"{operation}: {name} must be {wanted}, got {type(value).__name__}{line}")
    if type(value).__name__ == "DTensor":
        raise TypeError(
            f"{operation}: {name} must be a tensor of this process, got a sharded one (DTensor). Pass "
            f"{argument}.full_tensor(), or {argument}.to_local() for the part that this process holds; a parameter "
            "of a sharded module is whole within the module's forward"
        )
    if value.is_nested:
        raise TypeError(
            f"{operation}: {name} must have rows of one length, got a nested tensor. Pass "
            f"torch.nested.to_padded_tensor({argument}, 0.0), or stack rows of one length"
        )
    if value.layout != torch.strided:
        raise TypeError(
            f"{operation}: {name} must be a dense tensor, got layout {value.layout}. Pass {argument}.to_dense()"
        )


def _holds_text(value: object) -> bool:
    """Return whether a value is a list, an array or a column that begins with text."""
    table = value.to_numpy() if hasattr(value, "to_numpy") else value
    entries = table.flat if isinstance(table, np.ndarray) else table
    return isinstance(entries, (list, tuple, np.flatiter)) and isinstance(next(iter(entries), None), str)


def _conversion(value: object, argument: str) -> str:
    """Return the end of a message: the line that makes a tensor of the value, if there is one."""
    if isinstance(value, np.ma.MaskedArray):
        return f". Replace or drop its masked entries, then pass torch.from_numpy({argument}.data)"
    if _holds_text(value):
        return f". Pass torch.from_numpy(numpy.unique({argument}, return_inverse=True)[1])"
    if isinstance(value, np.ndarray):
        return f". Pass torch.from_numpy({argument})"
    if hasattr(value, "toarray"):  # sparse matrices of SciPy
        return f". Pass torch.from_numpy({argument}.toarray())"
    if hasattr(value, "to_numpy"):  # data frames, series and Arrow's tables
        return f". Pass torch.from_numpy({argument}.to_numpy())"
    if isinstance(value, (list, tuple)):
        make = "torch.stack" if value and isinstance(value[0], torch.Tensor) else "torch.tensor"
        return f". Pass {make}({argument})"
    return f". Pass torch.from_numpy(numpy.asarray({argument}))" if hasattr(value, "__array__") else ""


def require_floats(operation: str, name: str, value: object, wanted: str = "a torch tensor") -> None:
    """Check that a value is a dense floating-point tensor that this process holds."""
    require_tensor(operation, name, value, wanted)
    dtype = value.dtype  # type: ignore[attr-defined]
    if dtype not in FLOATS:
        line = "" if dtype.is_complex or not name.isidentifier() else f". Pass {name}.float()"
        raise TypeError(f"{operation}: {name} must be float16, bfloat16, float32 or float64, got {dtype}{line}")


def require_pairs(operation: str, x: Tensor, y: Tensor, *, fewest: int = 1) -> None:
    """Check that x and y are floating-point tensors (..., n, d) of one shape, device and dtype, any under autocast.

    ``fewest`` is the fewest rows that they may have.
    """
    for name, tensor in (("x", x), ("y", y)):
        require_floats(operation, name, tensor)
    one_dtype = x.dtype == y.dtype or (autocast_dtype(x) is not None and autocast_dtype(y) is not None)
    if x.device != y.device or not one_dtype:
        raise TypeError(
            f"{operation}: x and y must share dtype and device, got {x.dtype} {x.device} and {y.dtype} {y.device}"
        )
    if x.ndim < 2 or x.shape != y.shape:
        raise ValueError(
            f"{operation}: x and y must have one shape (..., n, d), row i of x paired with row i of y, "
            f"got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if x.shape[-2] < fewest or x.shape[-1] == 0 or 0 in x.shape[:-2]:
        raise ValueError(f"{operation}: x and y must not be empty, got {tuple(x.shape)}")


def require_same_items(operation: str, x: tuple[int, ...], y: tuple[int, ...]) -> None:
    """Check that two shapes are (n, d_x) and (n, d_y): representations of the same items."""
    if len(x) != 2 or len(y) != 2 or x[0] != y[0]:
        raise ValueError(
            f"{operation}: x and y must be (n, d_x) and (n, d_y), row i of both the same item, got {x} and {y}"
        )


def require_like(
    operation: str,
    name: str,
    tensor: Tensor,
    x: Tensor,
    shapes: tuple[tuple[int | str, ...], ...],
    any_float: bool = False,
) -> None:
    """Check that a tensor goes with x.

    Args:
        operation: The function that checks, for messages.
        name: The argument, for messages.
        tensor: The tensor to check.
        x: The tensor whose dtype and device it must have.
        shapes: The shapes that are allowed, letters standing for any size of at least 1.
        any_float: Whether every floating-point dtype is allowed.
    """
    require_tensor(operation, name, tensor)

    def fits(shape: tuple[int | str, ...]) -> bool:
        return len(shape) == tensor.ndim and all(
            size > 0 if isinstance(wanted, str) else size == wanted
            for size, wanted in zip(tensor.shape, shape, strict=True)
        )

    if not any(map(fits, shapes)):
        wanted = " or ".join(dict.fromkeys("(" + ", ".join(map(str, shape)) + ")" for shape in shapes))
        raise ValueError(f"{operation}: {name} must be {wanted} for x {tuple(x.shape)}, got {tuple(tensor.shape)}")
    cast = tensor.dtype in FLOATS and autocast_dtype(x) is not None and autocast_dtype(tensor) is not None
    same = tensor.dtype == x.dtype or cast or (any_float and tensor.dtype in FLOATS)
    if tensor.device != x.device or not same:
        raise TypeError(
            f"{operation}: {name} must have the dtype and device of x, {x.dtype} {x.device}, "
            f"got {tensor.dtype} {tensor.device}"
        )


def require_finite_rows(name: str, rows: Tensor, first: int = 0) -> None:
    """Check that rows [n, d] hold neither NaN nor inf, nor subnormal numbers where the process takes these as 0.

    Args:
        name: What the message calls the rows.
        rows: The rows.
        first: The number of the first row, from which the message counts.
    """
    if rows.dtype in FLOATS and flushes_subnormal_numbers():
        _require_normal_numbers(name, rows, first)
    finite = rows.isfinite()
    if not bool(finite.all()):
        bad = ((~finite.all(1)).nonzero()[:, 0] + first).tolist()
        raise ValueError(f"{name} must be finite, got NaN or inf in rows {bad[:3]} (the first); drop or mend them")


def _require_normal_numbers(name: str, rows: Tensor, first: int) -> None:
    """Raise ValueError if rows hold subnormal numbers; their bits are compared, which no mode changes."""
    info = torch.finfo(rows.dtype)
    integers = {16: torch.int16, 32: torch.int32, 64: torch.int64}[info.bits]
    largest_subnormal = int(torch.tensor(info.tiny, dtype=rows.dtype).view(integers)) - 1
    magnitudes = rows.contiguous().view(integers) & torch.iinfo(integers).max
    subnormal = ((magnitudes > 0) & (magnitudes <= largest_subnormal)).any(1)
    # float16 is computed in float32, where its subnormal numbers are normal
    if rows.dtype != torch.float16 and bool(subnormal.any()):
        bad = (subnormal.nonzero()[:, 0] + first).tolist()
        raise ValueError(
            f"{name} holds numbers below {info.tiny:.2g} in rows {bad[:3]} (the first), which this process takes as 0: "
            "call torch.set_flush_denormal(False), which a library may have set, or scale the rows up"
        )


def refuse_forward_mode(ctx: object, *tangents: object) -> NoReturn:
    """Raise the error for a forward-mode derivative: the static method ``jvp`` of an autograd.Function."""
    raise NotImplementedError(
        "the losses of modalign have no forward-mode derivatives (jvp, jacfwd, hessian). Use reverse mode: "
        "torch.func.jacrev(torch.func.jacrev(loss)) in place of torch.func.hessian(loss), and "
        "torch.autograd.functional.jvp(loss, inputs, v) in place of torch.func.jvp"
    )
