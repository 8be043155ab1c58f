"""Sums over rows that linear alignment scores are functions of: read once, in float64, and added up over parts."""

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
from modalign.common.conversion import require_same_index
from modalign.common.tensors import as_tensor
from modalign.common.types import Integers
from modalign.files.rows import Rows, RowSource, open_rows

__all__ = ["Moments", "moments", "moments_of_parts", "relabelled"]

BLOCK_BYTES = 1 << 24  # float64 copies of a block of rows of x and y
FEWEST_ROWS = 256  # in a block, however wide: a product of fewer rows takes longer to add than to compute
CROSSED = ("uv", "pv", "qu", "pq")  # the sums that depend on how rows of x and y are paired
_Factor = TypeVar("_Factor")


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Sums over n rows of u = x - a and v = y - b, which add up over parts.

    a and b are near the means and the same for all parts, so that float64 keeps its digits when the means are large.
    They are the means of the first block, of n_b rows: in every direction (mean - a)^2 is at most n / n_b of the
    variance, which bounds what one pass loses compared with two.

    Attributes:
        n: The number of rows.
        operation: The name of the calling function, with which error messages begin.
        sums: float64 tensors by name: "u" and "v"; "uu" = sum u u', "uv" and "vv"; and with the squared lengths
            p = |u|^2 and q = |v|^2: "p", "q", "pp", "pq", "qq", "pu", "pv", "qu" and "qv".
        a: (d_x,) float64.
        b: (d_y,) float64.
        factors: Decompositions that several metrics share, filled by ``factor``.
    """

    n: int
    operation: str
    sums: dict[str, Tensor]
    a: Tensor
    b: Tensor
    factors: dict[tuple[object, ...], Any] = dataclasses.field(default_factory=dict)

    def factor(self, key: tuple[object, ...], make: Callable[[], _Factor]) -> _Factor:
        """Return make(), computed once for a key. Keys begin with the side, "x" or "y", or with "xy"."""
        if key not in self.factors:
            self.factors[key] = make()
        value: _Factor = self.factors[key]
        return value

    def __add__(self, other: Moments) -> Moments:
        if not (torch.equal(self.a, other.a) and torch.equal(self.b, other.b)):
            raise ValueError(
                "Moments: only parts of one pass add up, got those of different rows; see moments_of_parts"
            )
        sums = {name: total + other.sums[name] for name, total in self.sums.items()}
        return Moments(self.n + other.n, self.operation, sums, a=self.a, b=self.b)

    @cached_property
    def xx(self) -> Tensor:
        """X'X of centred columns [d_x, d_x]."""
        return self._centred("u", "u")

    @cached_property
    def yy(self) -> Tensor:
        """Y'Y of centred columns [d_y, d_y]."""
        return self._centred("v", "v")

    @cached_property
    def xy(self) -> Tensor:
        """X'Y of centred columns [d_x, d_y]."""
        return self._centred("u", "v")

    def raw(self, sides: str) -> Tensor:
        """Return X'X, Y'Y or X'Y of the rows as they are, for sides "xx", "yy" or "xy"."""
        n = max(self.n, 1)
        shift = {"x": self.a + self.sums["u"] / n, "y": self.b + self.sums["v"] / n}
        return self.product(sides) + self.n * torch.outer(shift[sides[0]], shift[sides[1]])

    def product(self, sides: str) -> Tensor:
        """Return ``xx``, ``yy`` or ``xy`` by name."""
        product: Tensor = getattr(self, sides)
        return product

    def square(self, sides: str) -> float:
        """Return tr(K L) of the centred kernels, which is |X'Y|_F^2 for "xy"."""
        return float(self.product(sides).square().sum())

    def varies(self, side: str) -> bool:
        """Return whether the centred rows of a side are more than rounding."""
        near, length = (self.a, "p") if side == "x" else (self.b, "q")
        rounding = 1e-28 * self.n * float(near @ near) + 1e-12 * float(self.sums[length])
        return self.n > 1 and self.trace(side) > rounding

    def scales(self, side: str) -> Tensor:
        """Return 1 / |column| of the centred columns of a side, 0 for those that are nothing but rounding."""
        near, squares = (self.a, "uu") if side == "x" else (self.b, "vv")
        variances = self.product(2 * side).diagonal()
        rounding = 1e-28 * self.n * near.square() + 1e-12 * self.sums[squares].diagonal()
        return torch.where(variances > rounding, variances.clamp_min(torch.finfo(variances.dtype).tiny).rsqrt(), 0.0)

    def trace(self, side: str) -> float:
        """Return sum_i |x_i|^2 of the centred rows of a side."""
        return float(self.product(2 * side).diagonal().sum())

    def fourth(self, sides: str) -> float:
        """Return sum_i |x_i|^2 |y_i|^2 of centred rows, for "xy", "xx" or "yy"."""
        (u, p), (v, q) = ({"x": ("u", "p"), "y": ("v", "q")}[side] for side in sides)
        s, n = self.sums, self.n
        d, e = s[u] / n, s[v] / n
        dd, ee = d @ d, e @ e
        # (p - 2 u.d + dd) (q - 2 v.e + ee), summed
        total = s["".join(sorted(p + q))] - 2 * (e @ s[p + v]) + ee * s[p] - 2 * (d @ s[q + u]) + dd * s[q]
        total += 4 * (d @ s[u + v] @ e)
        total += n * dd * ee - 2 * ee * (d @ s[u]) - 2 * dd * (e @ s[v])
        return float(total)

    def traces(self, side: str) -> tuple[float, float, float]:
        """Return tr K, tr K^2 and sum_i K_ii^2 of the centred kernel, for ``modalign.alignment.nulls.cka_null``."""
        return self.trace(side), self.square(2 * side), self.fourth(2 * side)

    def skewness(self, side: str) -> float:
        """Return the skewness of the centred kernel's spectrum, for ``modalign.alignment.nulls.unbiased_cka_null``.

        It is sum c^3 / (sum c^2)^(3/2) of the n - 1 eigenvalues less their mean, from -1 to 1: 1 for a single
        direction, near 0 for many that are alike.
        """
        product = self.product(2 * side)
        first, second = self.trace(side), self.square(2 * side)
        third = float(((product @ product) * product).sum())
        mean = first / (self.n - 1)
        squares = second - first * mean
        if not squares > 1e-12 * second:
            return 0.0
        return (third - 3 * mean * second + 2 * mean * mean * first) / (squares * math.sqrt(squares))

    def hsic(self, sides: str) -> float:
        """Return HSIC_1 times n (n - 3), a factor that cancels in CKA.

        With centred rows, sum_j K_ij over j != i is -|x_i|^2.
        """
        n, fourth = self.n, self.fourth(sides)
        total = self.trace(sides[0]) * self.trace(sides[1])
        return self.square(sides) - fourth + total / ((n - 1) * (n - 2)) - 2 / (n - 2) * fourth

    def _centred(self, left: str, right: str) -> Tensor:
        s = self.sums
        return s[left + right] - torch.outer(s[left], s[right]) / max(self.n, 1)


def moments(x: RowSource, y: RowSource, operation: str = "moments") -> Moments:
    """Return the sums that every linear metric is a function of, from one pass over the rows.

    Args:
        x: (n, d_x), as in ``cka``; so are memory and errors.
        y: (n, d_y), row i is the same item as row i of x.
        operation: The name of the calling function, with which error messages begin.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.registry import METRICS
        >>> from modalign.metrics.sums import moments
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> sums = moments(x, 2 * x)
        >>> [round(METRICS[name].load("evaluate")(sums), 12) for name in ("cka", "cca", "linear_r2")]
        [1.0, 1.0, 1.0]
    """
    return moments_of_parts(x, y, None, operation)[0]


def relabelled(sums: Moments, x: RowSource, y: RowSource) -> Moments:
    """Return the sums of the same rows paired differently.

    The sums and decompositions of one side alone are kept, and one matrix product of three is computed.

    Args:
        sums: The sums of the rows in their first order.
        x: (n, d_x), the rows of x as ``sums`` has them.
        y: (n, d_y), the rows of y in another order.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.canonical import cca_of_moments
        >>> from modalign.metrics.sums import moments, relabelled
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> sums = relabelled(moments(x, x), x, x[::-1])
        >>> abs(cca_of_moments(sums) - cca_of_moments(moments(x, x[::-1]))) < 1e-12
        True
    """
    left, right = _readers(sums.operation, x, y)
    crossed = {name: torch.zeros_like(sums.sums[name]) for name in CROSSED}
    for _, u, v in _blocks(left, right, sums.a, sums.b):
        p, q = u.square().sum(1), v.square().sum(1)
        crossed["uv"].addmm_(u.T, v)
        crossed["pv"].addmv_(v.T, p)
        crossed["qu"].addmv_(u.T, q)
        crossed["pq"] += p @ q
    kept = {key: factor for key, factor in sums.factors.items() if key[0] != "xy"}
    return dataclasses.replace(sums, sums={**sums.sums, **crossed}, factors=kept)


def moments_of_parts(x: RowSource, y: RowSource, parts: Integers | None, operation: str = "moments") -> list[Moments]:
    """Return the sums of each part of the rows, from one pass; the sums of several parts add up.

    Args:
        x: (n, d_x), as in ``cka``.
        y: (n, d_y), row i is the same item as row i of x.
        parts: (n,) integers from 0, the part of each row; None for one part.
        operation: The name of the calling function, with which error messages begin.

    Returns:
        The sums of part 0 to the largest part. Peak memory is that of ``cka``, and 8 (d_x d_y + d_x^2 + d_y^2) bytes a
        part.

    Raises:
        TypeError: As ``cka``, and for parts that are not integers.
        ValueError: As ``cka``, and for parts of another shape or below 0.

    Examples:
        >>> import numpy as np
        >>> from modalign.metrics.linear import cka_of_moments
        >>> from modalign.metrics.sums import moments_of_parts
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> a, b, c = moments_of_parts(x, x[:, :2], np.arange(50) % 3)
        >>> (a + b).n, 0 < cka_of_moments(a + b) < 1
        (34, True)
    """
    left, right = _readers(operation, x, y)
    labels = torch.zeros(left.n, dtype=torch.int64) if parts is None else _labels(operation, parts, left.n)
    counts = torch.bincount(labels)
    first = min(left.n, _rows_of_a_block(left, right))
    a, b = (rows.fetch(0, first).double().mean(0) for rows in (left, right))
    sums = _zeros(len(counts), a, b)
    for rows, u, v in _blocks(left, right, a, b):
        block_labels = labels[rows]
        if len(counts) == 1:
            _add(sums, u, v, block_labels)
        else:
            order = block_labels.argsort(stable=True)
            _add(sums, u[order.to(u.device)], v[order.to(v.device)], block_labels[order])
    for name, centre, length in (("x", a, "p"), ("y", b, "q")):
        _require_range(operation, name, left.n * float(centre @ centre), float(sums[length].sum()))
    return [
        Moments(count, operation, {name: total[part] for name, total in sums.items()}, a=a, b=b)
        for part, count in enumerate(counts.tolist())
    ]


def _zeros(parts: int, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    shapes = {"u": a.shape, "v": b.shape, "uu": (len(a), len(a)), "uv": (len(a), len(b)), "vv": (len(b), len(b))}
    shapes |= dict.fromkeys(("p", "q", "pp", "pq", "qq"), ())
    shapes |= {"pu": a.shape, "pv": b.shape, "qu": a.shape, "qv": b.shape}
    return {name: a.new_zeros(parts, *shape) for name, shape in shapes.items()}


def _add(sums: dict[str, Tensor], u: Tensor, v: Tensor, labels: Tensor) -> None:
    """Add a block of rows, ordered by the part they belong to, to the sums of the parts."""
    parts = len(sums["p"])
    first = 0
    for part, count in enumerate(torch.bincount(labels, minlength=parts).tolist()):
        rows = slice(first, first + count)
        first += count
        for name, left, right in (("uu", u, u), ("uv", u, v), ("vv", v, v)):
            sums[name][part].addmm_(left[rows].T, right[rows])
    p, q = u.square().sum(1), v.square().sum(1)
    member = (torch.arange(parts)[:, None] == labels).to(u)  # [parts, rows]
    for name, weights, table in (("u", 1, u), ("v", 1, v), ("pu", p, u), ("pv", p, v), ("qu", q, u), ("qv", q, v)):
        sums[name].addmm_(member * weights, table)
    for name, values in (("p", p), ("q", q), ("pp", p * p), ("pq", p * q), ("qq", q * q)):
        sums[name].addmv_(member, values)


def _labels(operation: str, parts: Integers, n: int) -> Tensor:
    labels = torch.as_tensor(parts).cpu()
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise TypeError(f"{operation}: parts must be integers, the part of each row, got {labels.dtype}")
    if tuple(labels.shape) != (n,) or int(labels.min()) < 0:
        raise ValueError(
            f"{operation}: parts must be ({n},) integers from 0, got {tuple(labels.shape)} or some below 0"
        )
    return labels.long()


def _require_range(operation: str, name: str, of_centre: float, squares: float) -> None:
    """Raise ValueError if squares of sums of squares would overflow float64, or fall below where it is precise."""
    if not of_centre + squares < 1e150:
        raise ValueError(
            f"{operation}: {name} is so large that its fourth powers overflow float64; scale the rows down"
        )
    if 0 < squares < 1e-140:
        raise ValueError(f"{operation}: {name} is so small that its fourth powers vanish in float64; scale the rows up")


@dataclasses.dataclass(frozen=True)
class _Reader:
    """n rows of width d; ``fetch(start, stop)`` returns some of them."""

    n: int
    d: int
    device: torch.device
    fetch: Callable[[int, int], Tensor]


def _readers(operation: str, x: RowSource, y: RowSource) -> tuple[_Reader, _Reader]:
    require_same_index(operation, x, y)
    left, right = (_reader(operation, name, rows) for name, rows in (("x", x), ("y", y)))
    require_same_items(operation, (left.n, left.d), (right.n, right.d))
    if left.device != right.device:
        raise TypeError(f"{operation}: x and y must be on one device, got {left.device} and {right.device}")
    return left, right


def _rows_of_a_block(left: _Reader, right: _Reader) -> int:
    return max(FEWEST_ROWS, BLOCK_BYTES // (8 * (left.d + right.d)))


def _blocks(left: _Reader, right: _Reader, a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield rows as a slice, and x - a and y - b of them in float64: block after block, all in the same memory."""
    step = _rows_of_a_block(left, right)
    u, v = (near.new_empty(min(left.n, step), len(near)) for near in (a, b))
    for start in range(0, left.n, step):
        stop = min(start + step, left.n)
        for side, near, block in ((left, a, u), (right, b, v)):
            block[: stop - start].copy_(side.fetch(start, stop)).sub_(near)
        yield slice(start, stop), u[: stop - start], v[: stop - start]


def _reader(operation: str, name: str, rows: RowSource) -> _Reader:
    """Return a reader of rows; files and memory maps are read once only, arrays are checked first."""
    if not isinstance(rows, (str, Path, Rows, np.memmap)):
        table = as_tensor(f"{operation}: {name}", rows)
        n, d = table.shape
        return _Reader(n, d, table.device, lambda start, stop: table[start:stop])
    source = open_rows(rows, f"{operation}: {name}")
    return _Reader(source.shape[0], source.shape[1], torch.device("cpu"), source.read)
