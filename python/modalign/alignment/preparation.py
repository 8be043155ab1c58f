"""Preparation of rows as published code prepares them before it measures alignment.

Rows are clamped to [-c, c], then divided by their norms:

- "platonic": c is the mean over items of the q-quantile of the absolute values of an item, in all its layers together.
- "platonic_exact": c is the absolute value at position int(q N) of all N values of all layers in rising order.
- "emergence": c is the absolute value at position int(q N) of all N values of a layer in rising order.
- "unit_rows": nothing is clamped.

Names that end in "_unnorm", such as "emergence_unnorm", leave out the division: clamped rows keep their lengths.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import one_of
from modalign.files.rows import PIECE, Rows, as_source, open_rows
from modalign.ops.unit_rows import unit_rows

__all__ = ["PREPARATIONS", "prepare", "prepare_layers"]

CLAMPED = ("platonic", "platonic_exact", "emergence")  # rules of the threshold
UNNORM = "_unnorm"
PREPARATIONS = (*CLAMPED, "unit_rows", *(f"{rule}{UNNORM}" for rule in CLAMPED))
BLOCK = 1 << 20  # numbers that are looked at together
DIGIT = 16  # bits of a value that one pass determines


def prepare(x: Any, how: str, *, quantile: float = 0.95, name: str = "x") -> Any:
    """Prepare the rows of x as the code of a paper does before it measures alignment::

        clip(x, -c, c) / |clip(x, -c, c)|      a row of zeros stays zero

    The threshold c is exact, from as few as two passes over float32 rows; norms are computed in float64.

    Args:
        x: (n, d) array, tensor or file, as ``modalign.files.rows.open_rows`` takes it.
        how: "platonic", c = mean_i quantile(|x_i|, q), as Huh et al. do before every metric; "emergence", c = the value
            at position int(q n d) of all |x_ij| in rising order, as Tjandrasuwita et al. do; "platonic_exact", the same
            of all layers of a model together, as ``platonic.Alignment.score`` and ``--precise`` of Huh et al. do (of
            one layer it is "emergence"); or "unit_rows", without clamping. "platonic_unnorm", "platonic_exact_unnorm"
            and "emergence_unnorm" do not divide by the norms, as ``cmd_unnorm`` of Tjandrasuwita et al. takes the rows.
        quantile: float in (0, 1]. q; 1 clamps nothing.
        name: str. Name of x in error messages.

    Returns:
        (n, d) float64 for float64, float32 for every other dtype: an array for an array, a tensor for a tensor. For a
        file or a memory map, ``modalign.files.rows.Rows`` that are prepared as they are read, which ``modalign.knn``,
        ``modalign.align`` and the metrics of moments take. Peak memory: the result, and at most 80 MB for rows of up to
        1,000,000 numbers, however many there are.

    Raises:
        TypeError: As ``open_rows``.
        ValueError: As ``open_rows``; for NaN and inf, an unknown ``how``, a quantile out of range, or a threshold of 0.

    Source:
        Huh et al. 2024 (arXiv:2405.07987); Tjandrasuwita et al. 2025 (arXiv:2502.16282).

    Examples:
        >>> import numpy as np
        >>> from modalign.alignment.preparation import prepare
        >>> x = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 90.0]])
        >>> prepare(x, "unit_rows").tolist()
        [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]
        >>> prepare(x, "emergence", quantile=0.7).round(3).tolist()  # clamped at 4, position 4 of 0 0 0 3 4 90
        [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]
    """
    return prepare_layers([x], how, quantile=quantile, name=name)[0]


def prepare_layers(layers: Sequence[Any], how: str, *, quantile: float = 0.95, name: str = "x") -> list[Any]:
    """Prepare every layer of a model; "platonic" and "platonic_exact" take one threshold from all layers.

    Args:
        layers: list of (n, d) arrays, tensors or files. The layers.
        how: str. As in ``prepare``.
        quantile: float in (0, 1]. As in ``prepare``.
        name: str. Name of the layers in error messages.

    Returns:
        The prepared layers, each as ``prepare`` returns it.

    Raises:
        TypeError, ValueError: As ``prepare``; ValueError also for "platonic" layers of different numbers of rows.

    Examples:
        >>> import numpy as np
        >>> from modalign.alignment.preparation import prepare_layers
        >>> small, large = prepare_layers([np.eye(2), 9 * np.eye(2)], "platonic", quantile=0.5)
        >>> large.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    one_of("prepare", "how", how, PREPARATIONS)
    if not 0 < quantile <= 1:
        raise ValueError(f"prepare: quantile must be above 0 and at most 1, got {quantile}")
    layers = [as_source(name, layer) for layer in layers]
    sources = [open_rows(layer, name) for layer in layers]
    thresholds = _thresholds(sources, how.removesuffix(UNNORM), quantile)
    if 0.0 in thresholds:
        raise ValueError(
            f"prepare: {quantile:g} of the absolute values of {name} are 0, so that clamping leaves nothing; take a "
            "higher quantile, or unit_rows"
        )
    return [
        _in_kind_of(layer, _clamped(source, threshold, unit=not how.endswith(UNNORM)))
        for layer, source, threshold in zip(layers, sources, thresholds, strict=True)
    ]


def _thresholds(sources: list[Rows], rule: str, quantile: float) -> list[float | None]:
    """Return the threshold of each layer by a rule of ``CLAMPED``; None where nothing is clamped."""
    if quantile == 1 or rule not in CLAMPED:
        return [None] * len(sources)
    if rule == "platonic":
        return [_mean_quantile(sources, quantile)] * len(sources)
    together = [sources] if rule == "platonic_exact" else [[source] for source in sources]
    values = [_value_at(layers, int(quantile * sum(math.prod(layer.shape) for layer in layers))) for layers in together]
    return [value for value in values for _ in range(len(sources) // len(values))]


def _clamped(source: Rows, threshold: float | None, *, unit: bool) -> Rows:
    """Return the rows clamped, and divided by their norms if they shall be unit rows, as they are read."""

    def fetch(start: int, stop: int) -> Tensor:
        rows = source.fetch(start, stop).double()
        rows = rows if threshold is None else rows.clamp(-threshold, threshold)
        return (unit_rows(rows) if unit else rows).to(dtype)

    dtype = _prepared_dtype([source])
    clamped = "" if threshold is None else f" clamped at {threshold!r}"
    part = f"{source.part}|{'unit rows' if unit else 'rows'}{clamped}"
    overhead = source.overhead + 8 * PIECE  # two float64 copies of a piece, which may be of half precision
    return dataclasses.replace(source, dtype=dtype, fetch=fetch, part=part, overhead=overhead, mapped=None)


def _in_kind_of(given: object, rows: Rows) -> Any:
    """Return the rows as a tensor or an array if the caller gave one, and as they are otherwise."""
    if isinstance(given, Tensor):
        return rows.read(0, rows.shape[0])
    if isinstance(given, np.ndarray) and not isinstance(given, np.memmap):
        return rows.read(0, rows.shape[0]).numpy()
    return rows


def _prepared_dtype(sources: list[Rows]) -> torch.dtype:
    return torch.float64 if any(source.dtype == torch.float64 for source in sources) else torch.float32


def _blocks(n: int, d: int) -> list[tuple[int, int]]:
    """Return the first and last row of blocks of about a million numbers."""
    step = max(1, BLOCK // d)
    return [(start, min(start + step, n)) for start in range(0, n, step)]


def _mean_quantile(sources: list[Rows], quantile: float) -> float:
    """Return the mean over items of the quantile of their absolute values in all sources together."""
    n = sources[0].shape[0]
    if {source.shape[0] for source in sources} != {n}:
        raise ValueError(
            f"prepare: every layer must hold the same items, got {[source.shape[0] for source in sources]} rows"
        )
    total = 0.0
    for start, stop in _blocks(n, sum(source.shape[1] for source in sources)):
        values = torch.cat([source.read(start, stop).double() for source in sources], 1).abs_()
        total += float(np.quantile(values.numpy(), quantile, axis=1).sum())
    mean = total / n
    return mean if _prepared_dtype(sources) == torch.float64 else float(np.float32(mean))


def _value_at(sources: list[Rows], place: int) -> float:
    """Return the absolute value at a position, from 0, of all those of the sources in rising order.

    Numbers that are not negative rise as their bits do, so the value is determined 16 bits at a time from above.
    """
    dtype = _prepared_dtype(sources)
    integers = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    low = torch.finfo(dtype).bits
    prefix = 0
    while low:
        low -= DIGIT
        counts = torch.zeros(1 << DIGIT, dtype=torch.int64)
        for source in sources:
            for start, stop in _blocks(*source.shape):
                bits = source.read(start, stop).to(dtype).abs_().view(integers).flatten()
                if low + DIGIT < torch.finfo(dtype).bits:
                    bits = bits[(bits >> (low + DIGIT)) == prefix]
                counts += torch.bincount((bits >> low) & ((1 << DIGIT) - 1), minlength=1 << DIGIT)
        below = counts.cumsum(0)
        digit = int(torch.searchsorted(below, place, right=True))
        place -= int(below[digit - 1]) if digit else 0
        prefix = (prefix << DIGIT) | digit
    return float(torch.tensor(prefix, dtype=integers).view(dtype))
