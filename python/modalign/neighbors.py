"""Neighbours as functions: contracts, argument checks and docstrings. ``ops`` computes them."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modalign.arguments import FLOATS
from modalign.ops.knn import METRICS
from modalign.ops.knn import knn as _knn
from modalign.ops.neighbor_overlap import neighbor_overlap as _neighbor_overlap

__all__ = ["Neighbors", "as_tensor", "knn", "neighbor_overlap"]


class Neighbors(NamedTuple):
    """The k nearest neighbours of each row, best first: ``indices`` (m, k) int64 and ``scores`` (m, k)."""

    indices: Any
    scores: Any


def knn(x: Any, k: int, *, queries: Any = None, metric: str = "cosine", backend: str = "auto") -> Neighbors:
    """The k rows of ``x`` with the highest score for each query, exactly.

    The score is the float64 score of the stored values, its sum taken in the order of the features:
    cosine <q, x_j> / |q| |x_j| (0 for a zero row), dot <q, x_j>, euclidean -|q - x_j|^2. Equal scores are ordered by
    the lower index. Low precision is used only to discard rows that a proved error bound excludes, so every backend,
    thread count and machine returns the same indices.

    Args:
        x: (n, d) gallery: a NumPy array (memory-mapped too) or a tensor; float16, bfloat16, float32 or float64.
        k: 1 <= k <= n, or n - 1 when x is searched for itself.
        queries: (m, d) of x's dtype, or None: every row of x looks for the others, itself excluded by its id, so a
            duplicate of a row is its neighbour.
        metric: "cosine", "dot" or "euclidean".
        backend: "auto" or the name of one; see ``modalign.explain("knn", x, None, 10, "cosine")``.

    Returns:
        Neighbors(indices (m, k) int64, scores (m, k) in falling order, float64 for float64 inputs else float32), NumPy
        arrays for a NumPy input and tensors for a tensor.

    Peak memory beyond inputs and results: about (k + 200) * 8 bytes a row on the CPU; never O(n m).

    Raises:
        TypeError: x or queries is not a floating-point array.
        ValueError: k out of range, shapes that do not match, NaN or inf, with the first rows that hold them.

    Source: the neighbour sets of mutual k-NN, Huh et al. 2024 (arXiv:2405.07987).

    Example:
        >>> import numpy as np, modalign
        >>> modalign.knn(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), k=1).indices.ravel().tolist()
        [1, 0, 1]
    """
    gallery = as_tensor("knn", "x", x)
    rows = None if queries is None else as_tensor("knn", "queries", queries)
    if metric not in METRICS:
        raise ValueError(f"knn: metric must be one of {METRICS}, got {metric!r}")
    if rows is not None and (rows.shape[1] != gallery.shape[1] or rows.dtype != gallery.dtype):
        raise ValueError(
            "knn: queries must have the width and dtype of x, "
            f"got {tuple(rows.shape)} {rows.dtype} for {tuple(gallery.shape)} {gallery.dtype}"
        )
    most = len(gallery) - (rows is None)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise TypeError(f"knn: k must be an integer, got {k!r}")
    if not 1 <= k <= most:
        raise ValueError(f"knn: k must be between 1 and {most} for {len(gallery)} rows, got {k}")
    exponent = torch.tensor(0)
    if gallery.dtype == torch.float64 and not all(
        _squares_fit(table) for table in (gallery, rows) if table is not None
    ):
        gallery, rows, exponent = _rescaled(gallery, rows, metric)
    indices, scores = _knn(gallery, rows, int(k), metric, backend)
    scores = scores.ldexp(2 * exponent) if exponent else scores
    if not bool(scores.isfinite().all()):
        raise ValueError(f"knn: the {metric} scores overflow {scores.dtype}; scale the rows down or use float64")
    if isinstance(x, torch.Tensor):
        return Neighbors(indices, scores)
    return Neighbors(indices.numpy(), scores.numpy())


def neighbor_overlap(a: Any, b: Any, *, backend: str = "auto") -> Any:
    """How many neighbours two k-NN graphs share, for every k' <= k from one merge of the lists.

        counts[i, r] = | {a_i0 .. a_ir} & {b_i0 .. b_ir} |

    a, b: (n, k) int64 indices, nearest first, distinct in each row (as ``knn`` returns them), NumPy or torch.
    Returns counts (n, k) int32 of the same kind. Memory: the result and O(k) a thread.
    Raises TypeError for anything but int64 indices, ValueError for shapes that differ or a row with a repeated index.

    Example:
        >>> import torch, modalign
        >>> modalign.neighbor_overlap(torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 4]])).tolist()
        [[0, 2, 2]]
    """
    left, right = (torch.as_tensor(graph) for graph in (a, b))
    for name, graph in (("a", left), ("b", right)):
        if graph.dtype != torch.int64 or graph.ndim != 2:
            raise TypeError(f"neighbor_overlap: {name} must be (n, k) int64, got {tuple(graph.shape)} {graph.dtype}")
        if bool((graph.sort(dim=1).values.diff(dim=1) == 0).any()):
            raise ValueError(f"neighbor_overlap: each row of {name} must hold distinct indices, got a repeated one")
    if left.shape != right.shape or left.numel() == 0:
        raise ValueError(
            "neighbor_overlap: a and b must have one shape (n, k) with n, k >= 1, "
            f"got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    counts = _neighbor_overlap(left, right, backend)
    return counts if isinstance(a, torch.Tensor) else counts.numpy()


def as_tensor(operation: str, name: str, array: Any) -> Tensor:
    """A finite (n, d) floating-point tensor over the memory of ``array``; arrays are not copied, lists are refused."""
    if isinstance(array, np.ndarray):
        if array.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
            raise TypeError(f"{operation}: {name} must be float16, float32 or float64, got {array.dtype}")
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        with warnings.catch_warnings():  # of a read-only memory map: nothing here writes to its inputs
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            tensor = torch.from_numpy(array)
    elif isinstance(array, torch.Tensor):
        tensor = array.detach()
    else:
        raise TypeError(f"{operation}: {name} must be a NumPy array or a torch tensor, got {type(array).__name__}")
    if tensor.dtype not in FLOATS:
        raise TypeError(f"{operation}: {name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise ValueError(f"{operation}: {name} must be (n, d) with n, d >= 1, got {tuple(tensor.shape)}")
    _require_finite_rows(operation, name, tensor)
    return tensor


def _require_finite_rows(operation: str, name: str, tensor: Tensor) -> None:
    block = max(1, (1 << 24) // tensor.shape[1])
    for start in range(0, len(tensor), block):
        finite = tensor[start : start + block].isfinite()
        if not bool(finite.all()):
            bad = (~finite.all(1)).nonzero()[:, 0] + start
            raise ValueError(
                f"{operation}: {name} must be finite, got NaN or inf in rows {bad[:3].tolist()} (the first)"
            )


def _squares_fit(table: Tensor) -> bool:
    """Whether every row's squares stay far from where float64 ends; rows of narrower types always do."""
    block = max(1, (1 << 22) // table.shape[1])
    largest = torch.cat([table[start : start + block].abs().amax(1) for start in range(0, len(table), block)])
    return bool(((largest == 0) | ((largest > 2.0**-400) & (largest < 2.0**400))).all())


def _rescaled(gallery: Tensor, queries: Tensor | None, metric: str) -> tuple[Tensor, Tensor | None, Tensor]:
    """Rows times powers of two, exactly: each its own for the cosine, which ignores it, one for all otherwise. The
    exponent taken out is returned for the scores to get back, squared."""
    tables = [table for table in (gallery, queries) if table is not None]
    exponents = [torch.frexp(table.abs().amax(1, keepdim=True)).exponent for table in tables]
    if metric == "cosine":
        scaled, common = [torch.ldexp(t, -e) for t, e in zip(tables, exponents, strict=True)], torch.tensor(0)
    else:
        common = torch.cat(exponents).max()
        scaled = [torch.ldexp(table, -common) for table in tables]
    return scaled[0], None if queries is None else scaled[1], common
