"""Rows as published code prepares them before it measures alignment: outliers clamped, rows of length one.

    rows clamped to [-c, c], then divided by their lengths

"platonic": c is the mean over items of the q-quantile of an item's absolute values, in all its layers together.
"emergence": c is the absolute value at place int(q N) of all N values of a layer in rising order.
"unit_rows": nothing is clamped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import one_of
from modalign.files.rows import PIECE, Rows, open_rows
from modalign.ops.unit_rows import unit_rows

__all__ = ["PREPARATIONS", "prepare", "prepare_layers"]

PREPARATIONS = ("platonic", "emergence", "unit_rows")
BLOCK = 1 << 20  # numbers looked at together
DIGIT = 16  # bits that a pass of the search for a value at a place settles


def prepare(x: Any, how: str, *, quantile: float = 0.95, name: str = "x") -> Any:
    """The rows of x, prepared before alignment is measured as the code of a paper does it.

        clip(x, -c, c) / |clip(x, -c, c)|      a row of zeros stays zero

    how: "platonic", c = mean_i quantile(|x_i|, q) as Huh et al. do before every metric; "emergence", c = the value at
    place int(q n d) of all |x_ij| in rising order, as Tjandrasuwita et al. do; "unit_rows", nothing is clamped.
    x: (n, d), as ``modalign.files.rows.open_rows`` takes them. quantile: q, above 0; 1 clamps nothing.
    Returns float64 for float64 and float32 for everything else: an array for an array, a tensor for a tensor, and for a
    file or a memory map ``modalign.files.rows.Rows``, which are prepared as they are read and which ``modalign.knn``,
    ``modalign.align`` and the metrics of moments take.
    c is exact, from as few passes as two over float32; lengths are taken in float64.
    Peak memory: beside the result 80 MB at most, however many rows of up to 1,000,000 numbers there are.
    Raises TypeError and ValueError as ``open_rows``; ValueError for NaN and inf, another ``how``, or a quantile out of
    range.
    Source: Huh et al. 2024 (arXiv:2405.07987); Tjandrasuwita et al. 2025 (arXiv:2502.16282).

    Examples:
        >>> import numpy as np
        >>> from modalign.alignment.preparation import prepare
        >>> x = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 90.0]])
        >>> prepare(x, "unit_rows").tolist()
        [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]
        >>> prepare(x, "emergence", quantile=0.7).round(3).tolist()  # clamped at 4, at place 4 of 0 0 0 3 4 90
        [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]
    """
    return prepare_layers([x], how, quantile=quantile, name=name)[0]


def prepare_layers(layers: Sequence[Any], how: str, *, quantile: float = 0.95, name: str = "x") -> list[Any]:
    """``prepare`` for every layer of a model: "platonic" finds one c from all values that an item has in all layers.

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
    sources = [open_rows(layer, name) for layer in layers]
    bounds: list[float | None] = [None] * len(sources)
    if how == "platonic" and quantile < 1:
        bounds = [_mean_quantile(sources, quantile)] * len(sources)
    elif how == "emergence" and quantile < 1:
        bounds = [_value_at(source, int(quantile * source.shape[0] * source.shape[1])) for source in sources]
    if 0.0 in bounds:
        raise ValueError(
            f"prepare: {quantile:g} of the absolute values of {name} are 0, so that clamping leaves nothing; take a "
            "higher quantile, or unit_rows"
        )
    return [_like(layer, _bounded(source, bound)) for layer, source, bound in zip(layers, sources, bounds, strict=True)]


def _bounded(source: Rows, bound: float | None) -> Rows:
    """The rows clamped and of length one, as they are read."""

    def fetch(start: int, stop: int) -> Tensor:
        rows = source.fetch(start, stop).double()
        return unit_rows(rows if bound is None else rows.clamp(-bound, bound)).to(dtype)

    dtype = _kept(source)
    part = f"{source.part}|unit rows" + ("" if bound is None else f" clamped at {bound!r}")
    overhead = source.overhead + 8 * PIECE  # two float64 copies of a piece, which may be of half precision
    return dataclasses.replace(source, dtype=dtype, fetch=fetch, part=part, overhead=overhead, mapped=None)


def _like(given: Any, rows: Rows) -> Any:
    if isinstance(given, Tensor):
        return rows.read(0, rows.shape[0])
    if isinstance(given, np.ndarray) and not isinstance(given, np.memmap):
        return rows.read(0, rows.shape[0]).numpy()
    return rows


def _kept(source: Rows) -> torch.dtype:
    return torch.float64 if source.dtype == torch.float64 else torch.float32


def _blocks(n: int, d: int) -> list[tuple[int, int]]:
    step = max(1, BLOCK // d)
    return [(start, min(start + step, n)) for start in range(0, n, step)]


def _mean_quantile(sources: list[Rows], quantile: float) -> float:
    """The mean over items of the quantile of their absolute values, those of all sources together."""
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
    return mean if _kept(sources[0]) == torch.float64 else float(np.float32(mean))


def _value_at(source: Rows, place: int) -> float:
    """The absolute value at ``place`` of all of them in rising order, from 0: found digit by digit from above, since
    numbers that are not negative rise as their bits do."""
    dtype = _kept(source)
    whole = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    low = torch.finfo(dtype).bits
    known = 0
    while low:
        low -= DIGIT
        counts = torch.zeros(1 << DIGIT, dtype=torch.int64)
        for start, stop in _blocks(*source.shape):
            bits = source.read(start, stop).to(dtype).abs_().view(whole).flatten()
            here = bits[(bits >> (low + DIGIT)) == known] if low + DIGIT < torch.finfo(dtype).bits else bits
            counts += torch.bincount((here >> low) & ((1 << DIGIT) - 1), minlength=1 << DIGIT)
        below = counts.cumsum(0)
        digit = int(torch.searchsorted(below, place, right=True))
        place -= int(below[digit - 1]) if digit else 0
        known = (known << DIGIT) | digit
    return float(torch.tensor(known, dtype=whole).view(dtype))
