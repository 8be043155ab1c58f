"""Neighbours as functions: contracts, argument checks and docstrings. ``ops`` computes them."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.common.dtypes import FLOATS, accumulator
from modalign.common.interruption import watched
from modalign.common.progress import bar
from modalign.files.rows import Rows, open_rows
from modalign.neighbors.approximate import approximate_knn
from modalign.neighbors.blocks import bytes_of, knn_out_of_core
from modalign.neighbors.graph import Certificate, Neighbors
from modalign.neighbors.groups import require_groups
from modalign.ops.knn import DTYPES, METRICS, search
from modalign.ops.neighbor_overlap import neighbor_overlap as _neighbor_overlap

__all__ = ["as_tensor", "knn", "neighbor_overlap"]

MOST_THREADS = 4096


def knn(
    x: Any,
    k: int,
    *,
    queries: Any = None,
    metric: str = "cosine",
    groups: Any = None,
    query_groups: Any = None,
    exact: bool = True,
    max_memory: int | str | None = None,
    block_size: int | None = None,
    checkpoint: str | Path | None = None,
    fresh: bool = False,
    num_threads: int | None = None,
    progress: bool = False,
    seed: int = 0,
    backend: str = "auto",
) -> Neighbors:
    """The k rows of ``x`` with the highest score for each query, exactly.

    The score is the float64 score of the stored values, its sum taken in the order of the features:
    cosine <q, x_j> / |q| |x_j| (0 for a zero row), dot <q, x_j>, euclidean -|q - x_j|^2. Equal scores are ordered by
    the lower index. Low precision is used only to discard rows that a proved error bound excludes, so every backend,
    block size, thread count and machine returns the same indices.

    Args:
        x: (n, d) gallery: a NumPy array (memory-mapped too) or a tensor; float16, bfloat16, float32, float64 or int8.
            Or the path of a file that may be larger than memory: "rows.npy", "rows.safetensors:tensor",
            "rows.parquet:column" (see ``modalign.files.rows.open_rows``, whose rows are taken too).
        k: 1 <= k <= n, or n - 1 when x is searched for itself.
        queries: (m, d) of x's dtype, or None: every row of x looks for the others, itself excluded by its id, so a
            duplicate of a row is its neighbour.
        metric: "cosine", "dot" or "euclidean".
        groups: (n,) integers, one for each row of x: rows of a query's own group are not its neighbours (captions of
            one image, frames of one film). query_groups: (m,), those of the queries, needed where both are given.
        exact: False for an approximate search by pynndescent (``pip install pynndescent``), whose recall is measured:
            see ``modalign.neighbors.approximate.approximate_knn``, which ``seed`` is for.
        max_memory: bytes, or "8GB": search block by block, holding at most so much beyond the arguments. A file is
            always searched so, in 4 GB unless this says otherwise.
        block_size: rows of a block, instead of what max_memory allows.
        checkpoint: a folder where a search by blocks keeps what is finished: killed at any moment, the same call
            continues. fresh: forget what is there.
        num_threads: of the search on a CPU; None for as many as torch has.
        progress: a bar on standard error, if that is a terminal.
        backend: "auto" or the name of one; see ``modalign.explain("knn", x, None, 10, "cosine")``. A search by blocks
            runs on the CPU, or with "triton" on the GPU, block by block: files and rows larger than its memory. "cuda"
            screens large galleries by a compiled kernel, on GPUs of compute capability 9.0.

    Returns:
        ``modalign.Neighbors``: indices (m, k) int64, scores (m, k) in falling order, float64 for float64 inputs else
        float32, NumPy arrays for a NumPy input or a file and tensors for a tensor; certificate, how they are known.

    Peak memory beyond inputs and results, on the CPU: 4 d bytes a row at most (d where the int8 screen serves, 2 d for
    int16), 8 max(64, 2 k + 32) + 100 bytes a query, and 10 MB; never O(n m). With max_memory no more than that.

    Raises:
        TypeError: x or queries is no array of these dtypes.
        ValueError: k out of range, shapes that do not match, NaN or inf, with the first rows that hold them, fewer than
            k candidates outside a row's group, options that exclude each other, a max_memory too small (the least that
            would do is named), a checkpoint of something else or damaged.
        OSError: a file or a checkpoint cannot be read or written.
        NotImplementedError: the named backend refuses the call, with its reason.

    Source: the neighbour sets of mutual k-NN, Huh et al. 2024 (arXiv:2405.07987).

    Examples:
        >>> import numpy as np, modalign
        >>> x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> modalign.knn(x, k=1).indices.ravel().tolist()
        [1, 0, 1]
        >>> modalign.knn(x, k=1, groups=[0, 0, 1]).indices.ravel().tolist()
        [2, 2, 1]
    """
    _require_options(metric, k, exact, groups, query_groups, max_memory, block_size, checkpoint, fresh, num_threads)
    options = (max_memory, block_size, checkpoint)
    by_blocks = isinstance(x, (str, Path, Rows)) or any(option is not None for option in options)
    own, of_queries = (
        None if labels is None else _labels(name, labels)
        for name, labels in (("groups", groups), ("query_groups", query_groups))
    )
    if by_blocks:
        source = open_rows(x)
        indices, scores, report = knn_out_of_core(
            source, k, queries=None if queries is None else open_rows(queries, "queries"), metric=metric,
            groups=own, query_groups=of_queries, max_memory=None if max_memory is None else bytes_of(max_memory),
            block_size=block_size, checkpoint=None if checkpoint is None else Path(checkpoint), fresh=fresh,
            threads=num_threads, progress=progress, backend=backend,
        )  # fmt: skip
        return _result(x, indices, scores.to(accumulator(source.dtype)), metric, source.shape[0], Certificate(*report))
    gallery = as_tensor("knn", "x", x, DTYPES)
    rows = None if queries is None else as_tensor("knn", "queries", queries, DTYPES)
    if rows is not None and (rows.shape[1] != gallery.shape[1] or rows.dtype != gallery.dtype):
        raise ValueError(
            "knn: queries must have the width and dtype of x, "
            f"got {tuple(rows.shape)} {rows.dtype} for {tuple(gallery.shape)} {gallery.dtype}"
        )
    n, m = len(gallery), len(gallery if rows is None else rows)
    most = n - (rows is None)
    if not 1 <= k <= most:
        raise ValueError(f"knn: k must be between 1 and {most} for {n} rows, got {k}")
    require_groups(n, m, int(k), own, own if rows is None else of_queries)
    exponent = torch.tensor(0)
    if gallery.dtype == torch.float64 and not all(
        _squares_fit(table) for table in (gallery, rows) if table is not None
    ):
        gallery, rows, exponent = _rescaled(gallery, rows, metric)
    if not exact:
        indices, scores, recall = approximate_knn(
            gallery, int(k), queries=rows, metric=metric, seed=seed, threads=num_threads
        )
        scores = scores.ldexp(2 * exponent).to(accumulator(gallery.dtype))
        return _result(x, indices, scores, metric, n, Certificate("pynndescent", 0, 0, 0, recall))
    run = partial(
        search, gallery, rows, int(k), metric, groups=own, query_groups=of_queries, backend=backend,
        threads=num_threads,
    )  # fmt: skip
    if gallery.device.type == "cpu":
        with bar(progress) as shown:
            task = shown.add_task("knn", total=n * (n if rows is None else m))
            indices, scores, report = watched(lambda watch: run(watch=watch), partial(shown.advance, task))
    else:
        indices, scores, report = run()
    return _result(x, indices, scores.ldexp(2 * exponent) if exponent else scores, metric, n, Certificate(*report))


def _result(x: Any, indices: Tensor, scores: Tensor, metric: str, n: int, certificate: Certificate) -> Neighbors:
    if not bool(scores.isfinite().all()):
        raise ValueError(f"knn: the {metric} scores overflow {scores.dtype}; scale the rows down or use float64")
    if isinstance(x, torch.Tensor):
        return Neighbors(indices, scores, metric, n, certificate)
    return Neighbors(indices.numpy(), scores.numpy(), metric, n, certificate)


def _labels(name: str, labels: Any) -> Tensor:
    table = torch.as_tensor(labels)
    if table.dtype.is_floating_point or table.dtype.is_complex or table.dtype == torch.bool:
        raise TypeError(f"knn: {name} must be integers, one for each row, got {table.dtype}")
    return table.long()


def _require_options(
    metric: str, k: int, exact: bool, groups: Any, query_groups: Any, max_memory: int | str | None,
    block_size: int | None, checkpoint: str | Path | None, fresh: bool, num_threads: int | None,
) -> None:  # fmt: skip
    if metric not in METRICS:
        raise ValueError(f"knn: metric must be one of {METRICS}, got {metric!r}")
    for name, number in (("k", k), ("block_size", block_size), ("num_threads", num_threads)):
        if number is None and name != "k":
            continue
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"knn: {name} must be an integer, got {number!r}")
        if number < 1 and name != "k":
            raise ValueError(f"knn: {name} must be at least 1, got {number}")
        if number > MOST_THREADS and name == "num_threads":
            raise ValueError(f"knn: num_threads must be at most {MOST_THREADS}, got {number}")
    by_blocks = {"max_memory": max_memory, "block_size": block_size, "checkpoint": checkpoint}
    given = [name for name, option in by_blocks.items() if option is not None]
    for wrong, message in (
        (fresh and checkpoint is None, "fresh forgets what a checkpoint holds: it needs checkpoint"),
        (query_groups is not None and groups is None, "query_groups needs groups"),
        (not exact and given, f"exact=False holds everything in memory: it excludes {', '.join(given)}"),
        (not exact and groups is not None, "exact=False knows no groups"),
    ):
        if wrong:
            raise ValueError(f"knn: {message}")


def neighbor_overlap(a: Any, b: Any, *, backend: str = "auto") -> Any:
    """How many neighbours two k-NN graphs share, for every k' <= k from one merge of the lists.

        counts[i, r] = | {a_i0 .. a_ir} & {b_i0 .. b_ir} |

    a, b: ``Neighbors``, or (n, k) int64 indices, nearest first, distinct in each row, NumPy or torch.
    Returns counts (n, k) int32 of the same kind. Memory: the result and O(k) a thread.
    Raises TypeError for anything but int64 indices, ValueError for shapes that differ or a row with a repeated index.

    Examples:
        >>> import torch, modalign
        >>> modalign.neighbor_overlap(torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 4]])).tolist()
        [[0, 2, 2]]
    """
    left, right = (_graph(graph) for graph in (a, b))
    for name, graph in (("a", left), ("b", right)):
        if graph.dtype != torch.int64 or graph.ndim != 2:
            raise TypeError(f"neighbor_overlap: {name} must be (n, k) int64, got {tuple(graph.shape)} {graph.dtype}")
        if bool((graph.sort(dim=1).values.diff(dim=1) == 0).any()):
            raise ValueError(f"neighbor_overlap: each row of {name} must hold distinct indices, got a repeated one")
        if graph.numel() and int(graph.min()) < 0:
            raise ValueError(f"neighbor_overlap: indices of {name} must be 0 or more, got {int(graph.min())}")
    if left.shape != right.shape or left.numel() == 0:
        raise ValueError(
            "neighbor_overlap: a and b must have one shape (n, k) with n, k >= 1, "
            f"got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    counts = _neighbor_overlap(left, right, backend)
    return counts if isinstance(a.indices if isinstance(a, Neighbors) else a, torch.Tensor) else counts.numpy()


def _graph(graph: Any) -> Tensor:
    indices = graph.indices if isinstance(graph, Neighbors) else graph
    # torch knows no negative strides
    return torch.as_tensor(np.ascontiguousarray(indices) if isinstance(indices, np.ndarray) else indices)


def as_tensor(operation: str, name: str, array: Any, dtypes: tuple[torch.dtype, ...] = FLOATS) -> Tensor:
    """A finite (n, d) tensor over the memory of ``array``; arrays are not copied, lists are refused."""
    *names, last = (str(dtype).removeprefix("torch.") for dtype in dtypes)
    wanted = f"{', '.join(names)} or {last}"
    if isinstance(array, np.ndarray):
        if array.dtype.newbyteorder("=").name not in (*names, last):
            raise TypeError(f"{operation}: {name} must be {wanted}, got {array.dtype}")
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        with warnings.catch_warnings():  # of a read-only memory map: nothing here writes to its inputs
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            tensor = torch.from_numpy(array)
    elif isinstance(array, torch.Tensor):
        tensor = array.detach()
    else:
        raise TypeError(f"{operation}: {name} must be a NumPy array or a torch tensor, got {type(array).__name__}")
    if tensor.dtype not in dtypes:
        raise TypeError(f"{operation}: {name} must be {wanted}, got {tensor.dtype}")
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise ValueError(f"{operation}: {name} must be (n, d) with n, d >= 1, got {tuple(tensor.shape)}")
    _require_finite_rows(operation, name, tensor)
    return tensor


def _require_finite_rows(operation: str, name: str, tensor: Tensor) -> None:
    block = max(1, (1 << 22) // tensor.shape[1])
    for start in range(0, len(tensor), block):
        finite = tensor[start : start + block].isfinite()
        if not bool(finite.all()):
            bad = (~finite.all(1)).nonzero()[:, 0] + start
            raise ValueError(
                f"{operation}: {name} must be finite, got NaN or inf in rows {bad[:3].tolist()} (the first)"
            )


def _squares_fit(table: Tensor) -> bool:
    """Whether every row's squares stay far from where float64 ends; rows of narrower types always do."""
    least, most = torch.aminmax(table, dim=1)
    largest = torch.maximum(-least, most)
    return bool(((largest == 0) | ((largest > 2.0**-400) & (largest < 2.0**400))).all())


def _rescaled(gallery: Tensor, queries: Tensor | None, metric: str) -> tuple[Tensor, Tensor | None, Tensor]:
    """Rows times powers of two, exactly: each its own for the cosine, which ignores it, one for all otherwise. The
    exponent taken out is returned for the scores to get back, squared."""
    tables = [table for table in (gallery, queries) if table is not None]
    exponents = [torch.frexp(table.abs().amax(1, keepdim=True)).exponent for table in tables]
    if metric == "cosine":
        scaled, common = [torch.ldexp(t, -e) for t, e in zip(tables, exponents, strict=True)], torch.tensor(0)
    else:
        # zero rows have none
        common = torch.cat([e[t.any(1)] for t, e in zip(tables, exponents, strict=True)]).max()
        scaled = [torch.ldexp(table, -common) for table in tables]
    return scaled[0], None if queries is None else scaled[1], common
