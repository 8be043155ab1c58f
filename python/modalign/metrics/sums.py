"""Sums over rows that alignment scores are functions of: streamed once, in float64, added up over parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import require_same_items
from modalign.common.dtypes import FLOATS
from modalign.files.rows import Rows, open_rows
from modalign.neighbors.functional import as_tensor

__all__ = ["Moments", "moments", "moments_of_parts", "relabelled"]

BLOCK_BYTES = 1 << 24  # float64 copies of a block of rows of x and y
FEWEST_ROWS = 256  # of a block, however wide: a product of fewer takes longer to add than to compute
CROSSED = ("uv", "pv", "qu", "pq")  # what depends on which row of y is beside which of x
_Factor = TypeVar("_Factor")


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Sums over n rows of u = x - a and v = y - b, which add up: a and b are near the means, the same for all parts,
    so that float64 keeps its digits when the means are large. They are the means of the first block, of n_b rows: in
    every direction (mean - a)^2 is at most n / n_b of the variance, which bounds what one pass loses to two.

    sums: "u", "v", "uu" = sum u u', "uv", "vv", and with the squared lengths p = |u|^2, q = |v|^2 "p", "q", "pp", "pq",
    "qq", "pu", "pv", "qu", "qv".
    """

    n: int
    operation: str
    sums: dict[str, Tensor]
    a: Tensor
    b: Tensor
    factors: dict[tuple[Any, ...], Any] = dataclasses.field(default_factory=dict)

    def factor(self, key: tuple[Any, ...], make: Callable[[], _Factor]) -> _Factor:
        """make(), once: what several metrics take. Keys begin with the side, "x" or "y", or with "xy"."""
        if key not in self.factors:
            self.factors[key] = make()
        found: _Factor = self.factors[key]
        return found

    def __add__(self, other: Moments) -> Moments:
        if not (torch.equal(self.a, other.a) and torch.equal(self.b, other.b)):
            raise ValueError(
                "Moments: only parts of one pass add up, got those of different rows; see moments_of_parts"
            )
        sums = {name: total + other.sums[name] for name, total in self.sums.items()}
        return Moments(self.n + other.n, self.operation, sums, self.a, self.b)

    @cached_property
    def xx(self) -> Tensor:
        """X'X of centred columns [d_x, d_x]; so yy and xy."""
        return self._centred("u", "u")

    @cached_property
    def yy(self) -> Tensor:
        return self._centred("v", "v")

    @cached_property
    def xy(self) -> Tensor:
        return self._centred("u", "v")

    def raw(self, which: str) -> Tensor:
        """X'X, Y'Y or X'Y of the rows as they are."""
        n = max(self.n, 1)
        shift = {"x": self.a + self.sums["u"] / n, "y": self.b + self.sums["v"] / n}
        return self.product(which) + self.n * torch.outer(shift[which[0]], shift[which[1]])

    def product(self, which: str) -> Tensor:
        product: Tensor = getattr(self, which)
        return product

    def square(self, which: str) -> float:
        """tr(K L) of the centred kernels: |X'Y|_F^2 for "xy"."""
        return float(self.product(which).square().sum())

    def varies(self, side: str) -> bool:
        """Whether the centred rows are more than rounding."""
        near, length = (self.a, "p") if side == "x" else (self.b, "q")
        rounding = 1e-28 * self.n * float(near @ near) + 1e-12 * float(self.sums[length])
        return self.n > 1 and self.trace(side) > rounding

    def scales(self, side: str) -> Tensor:
        """1 / |column| of the centred columns, 0 for those that are nothing but rounding."""
        near, squares = (self.a, "uu") if side == "x" else (self.b, "vv")
        own = self.product(2 * side).diagonal()
        rounding = 1e-28 * self.n * near.square() + 1e-12 * self.sums[squares].diagonal()
        return torch.where(own > rounding, own.clamp_min(torch.finfo(own.dtype).tiny).rsqrt(), 0.0)

    def trace(self, side: str) -> float:
        """sum_i |x_i|^2 of centred rows."""
        return float(self.product(2 * side).diagonal().sum())

    def fourth(self, which: str) -> float:
        """sum_i |x_i|^2 |y_i|^2 of centred rows, for "xy", "xx" or "yy"."""
        (u, p), (v, q) = ({"x": ("u", "p"), "y": ("v", "q")}[side] for side in which)
        s, n = self.sums, self.n
        d, e = s[u] / n, s[v] / n
        dd, ee = d @ d, e @ e
        # (p - 2 u.d + dd) (q - 2 v.e + ee), summed
        total = s["".join(sorted(p + q))] - 2 * (e @ s[p + v]) + ee * s[p] - 2 * (d @ s[q + u]) + dd * s[q]
        total += 4 * (d @ s[u + v] @ e)
        total += n * dd * ee - 2 * ee * (d @ s[u]) - 2 * dd * (e @ s[v])
        return float(total)

    def traces(self, side: str) -> tuple[float, float, float]:
        """tr K, tr K^2 and sum_i K_ii^2 of the centred kernel, as ``modalign.alignment.nulls.cka_null`` takes them."""
        return self.trace(side), self.square(2 * side), self.fourth(2 * side)

    def skewness(self, side: str) -> float:
        """sum c^3 / (sum c^2)^(3/2) of the n - 1 eigenvalues of the centred kernel less their mean, from -1 to 1: 1 for
        one direction, near 0 for many alike. ``modalign.alignment.nulls.unbiased_cka_null`` takes it."""
        product = self.product(2 * side)
        first, second = self.trace(side), self.square(2 * side)
        third = float(((product @ product) * product).sum())
        mean = first / (self.n - 1)
        squares = second - first * mean
        if not squares > 1e-12 * second:
            return 0.0
        return (third - 3 * mean * second + 2 * mean * mean * first) / (squares * math.sqrt(squares))

    def hsic(self, which: str) -> float:
        """HSIC_1 times n (n - 3), which cancels in CKA; with centred rows sum_j K_ij over j != i is -|x_i|^2."""
        n, fourth = self.n, self.fourth(which)
        total = self.trace(which[0]) * self.trace(which[1])
        return self.square(which) - fourth + total / ((n - 1) * (n - 2)) - 2 / (n - 2) * fourth

    def _centred(self, one: str, two: str) -> Tensor:
        s = self.sums
        return s[one + two] - torch.outer(s[one], s[two]) / max(self.n, 1)


def moments(x: Any, y: Any, operation: str = "moments") -> Moments:
    """The sums that every metric of this file is a function of, from one pass over the rows.

    x, y, memory and errors: as in ``cka``. operation: what errors begin with.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import OF_MOMENTS, moments
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> found = moments(x, 2 * x)
        >>> [round(OF_MOMENTS[name](found), 12) for name in ("cka", "cca", "linear_r2")]
        [1.0, 1.0, 1.0]
    """
    return moments_of_parts(x, y, None, operation)[0]


def relabelled(found: Moments, x: Any, y: Any) -> Moments:
    """The sums of the same rows paired anew, x and y as ``found`` has them but in another order of y: what one side
    alone gives is kept, decompositions included, and one matrix product of three is taken.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import OF_MOMENTS, moments, relabelled
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> found = relabelled(moments(x, x), x, x[::-1])
        >>> abs(OF_MOMENTS["cca"](found) - OF_MOMENTS["cca"](moments(x, x[::-1]))) < 1e-12
        True
    """
    left, right = _readers(found.operation, x, y)
    crossed = {name: torch.zeros_like(found.sums[name]) for name in CROSSED}
    for _, u, v in _blocks(left, right, found.a, found.b):
        p, q = u.square().sum(1), v.square().sum(1)
        crossed["uv"].addmm_(u.T, v)
        crossed["pv"].addmv_(v.T, p)
        crossed["qu"].addmv_(u.T, q)
        crossed["pq"] += p @ q
    kept = {key: factor for key, factor in found.factors.items() if key[0] != "xy"}
    return Moments(found.n, found.operation, {**found.sums, **crossed}, found.a, found.b, kept)


def moments_of_parts(x: Any, y: Any, parts: Any, operation: str = "moments") -> list[Moments]:
    """The sums of each part of the rows, from one pass; those of any parts added up are ``moments`` of their rows.

    parts: (n,) integers from 0, the part of each row; None for one part. x, y, operation: as in ``moments``.
    Returns as many as the largest part says. Peak memory: as ``cka``, and 8 (d_x d_y + d_x^2 + d_y^2) bytes a part.
    Raises as ``moments``, and ValueError for parts of another shape or below 0.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import OF_MOMENTS, moments_of_parts
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> a, b, c = moments_of_parts(x, x[:, :2], np.arange(50) % 3)
        >>> (a + b).n, 0 < OF_MOMENTS["cka"](a + b) < 1
        (34, True)
    """
    left, right = _readers(operation, x, y)
    labels = torch.zeros(left.n, dtype=torch.int64) if parts is None else _labels(operation, parts, left.n)
    counts = torch.bincount(labels)
    first = min(left.n, _rows_of_a_block(left, right))
    a, b = (rows.fetch(0, first).double().mean(0) for rows in (left, right))
    sums = _zeros(len(counts), a, b)
    for rows, u, v in _blocks(left, right, a, b):
        here = labels[rows]
        if len(counts) == 1:
            _add(sums, u, v, here)
        else:
            order = here.argsort(stable=True)
            _add(sums, u[order.to(u.device)], v[order.to(u.device)], here[order])
    for name, center, length in (("x", a, "p"), ("y", b, "q")):
        _require_range(operation, name, left.n * float(center @ center), float(sums[length].sum()))
    return [
        Moments(count, operation, {name: total[part] for name, total in sums.items()}, a, b)
        for part, count in enumerate(counts.tolist())
    ]


def _zeros(parts: int, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    shapes = {"u": a.shape, "v": b.shape, "uu": (len(a), len(a)), "uv": (len(a), len(b)), "vv": (len(b), len(b))}
    shapes |= dict.fromkeys(("p", "q", "pp", "pq", "qq"), ())
    shapes |= {"pu": a.shape, "pv": b.shape, "qu": a.shape, "qv": b.shape}
    return {name: a.new_zeros(parts, *shape) for name, shape in shapes.items()}


def _add(sums: dict[str, Tensor], u: Tensor, v: Tensor, labels: Tensor) -> None:
    """Adds a block of rows, ordered by the part they belong to."""
    parts = len(sums["p"])
    first = 0
    for part, count in enumerate(torch.bincount(labels, minlength=parts).tolist()):
        own = slice(first, first + count)
        first += count
        for name, one, two in (("uu", u, u), ("uv", u, v), ("vv", v, v)):
            sums[name][part].addmm_(one[own].T, two[own])
    p, q = u.square().sum(1), v.square().sum(1)
    member = (torch.arange(parts)[:, None] == labels).to(u)  # [parts, rows]
    for name, weights, rows in (("u", 1, u), ("v", 1, v), ("pu", p, u), ("pv", p, v), ("qu", q, u), ("qv", q, v)):
        sums[name].addmm_(member * weights, rows)
    for name, values in (("p", p), ("q", q), ("pp", p * p), ("pq", p * q), ("qq", q * q)):
        sums[name].addmv_(member, values)


def _labels(operation: str, parts: Any, n: int) -> Tensor:
    labels = torch.as_tensor(parts).cpu()
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise TypeError(f"{operation}: parts must be integers, the part of each row, got {labels.dtype}")
    if tuple(labels.shape) != (n,) or int(labels.min()) < 0:
        raise ValueError(
            f"{operation}: parts must be ({n},) integers from 0, got {tuple(labels.shape)} or some below 0"
        )
    return labels.long()


def _require_range(operation: str, name: str, about: float, squares: float) -> None:
    """Squares of sums of squares must neither overflow float64 nor fall below where it is precise."""
    if not about + squares < 1e150:
        raise ValueError(
            f"{operation}: {name} is so large that its fourth powers overflow float64; scale the rows down"
        )
    if 0 < squares < 1e-140:
        raise ValueError(f"{operation}: {name} is so small that its fourth powers vanish in float64; scale the rows up")


@dataclasses.dataclass(frozen=True)
class _Reader:
    n: int
    d: int
    device: torch.device
    fetch: Callable[[int, int], Tensor]


def _readers(operation: str, x: Any, y: Any) -> tuple[_Reader, _Reader]:
    left, right = (_reader(operation, name, rows) for name, rows in (("x", x), ("y", y)))
    require_same_items(operation, (left.n, left.d), (right.n, right.d))
    if left.device != right.device:
        raise TypeError(f"{operation}: x and y must be on one device, got {left.device} and {right.device}")
    return left, right


def _rows_of_a_block(left: _Reader, right: _Reader) -> int:
    return max(FEWEST_ROWS, BLOCK_BYTES // (8 * (left.d + right.d)))


def _blocks(left: _Reader, right: _Reader, a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Which rows, x - a and y - b of them in float64: a block at a time, all in the same memory."""
    step = _rows_of_a_block(left, right)
    u, v = (near.new_empty(min(left.n, step), len(near)) for near in (a, b))
    for start in range(0, left.n, step):
        stop = min(start + step, left.n)
        for side, near, block in ((left, a, u), (right, b, v)):
            block[: stop - start].copy_(side.fetch(start, stop)).sub_(near)
        yield slice(start, stop), u[: stop - start], v[: stop - start]


def _reader(operation: str, name: str, rows: Any) -> _Reader:
    """Files and memory maps are looked at once only, arrays are checked first."""
    if not isinstance(rows, (str, Path, Rows, np.memmap)):
        table = as_tensor(operation, name, rows)
        n, d = table.shape
        return _Reader(n, d, table.device, lambda start, stop: table[start:stop])
    source = open_rows(rows, f"{operation}: {name}")
    if source.dtype not in FLOATS:
        raise TypeError(f"{operation}: {name} must be floating point, got {source.dtype}")
    return _Reader(*source.shape, torch.device("cpu"), source.read)
