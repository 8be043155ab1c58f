"""The screen of the exact k-NN: for each query, the gallery rows with the highest upper bounds of the score.

With t = fl(<q_i, x_j>) in float32, the bound is

    u_ij = t row_scale_i col_scale_j + col_offset_j + row_slack_i col_slack_j  >=  s_ij

    metric      s_ij, row constants dropped     row_scale  col_scale  col_offset             row_slack    col_slack
    dot         <q_i, x_j>                      1          1          0                      g |q_i|      |x_j|
    cosine      <q_i, x_j> / |q_i| |x_j|        1/|q_i|    1/|x_j|    0                      g            1
    euclidean   2 <q_i, x_j> - |x_j|^2          2          1          -|x_j|^2 (1 - g)       2 g |q_i|    |x_j|

A narrow screen multiplies float16 codes q^ and x^ of float32 rows, each with a power of two taken out, on tensor cores
at many times the rate. With E = |x^ - x|, known in float64, row_slack gains E_q, |x_j| becomes |x_j| + E_j, and u gains
the term |q_i| E_j.

g = (d + 32) e bounds the rounding: |t - <q, x>| <= d e |q| |x| in whatever order the products are summed (Higham 2002,
section 3.1), and 32 e cover the operations that follow. e is 2^-23 for float32 inputs, twice the unit roundoff, which
holds with and without fused multiply-add, and 2^-22 for half precision, whose products are exact but which tensor cores
align and truncate. Powers of two keep underflow out: rows far from 1 are scaled, exactly, and tiny terms get a floor.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.shared.launch import dot_tile, launch, to_operand
from modalign.kernels.shared.tiles import architecture, tile

__all__ = ["NO_KEY", "Screen", "empty_survivors", "pack_keys", "power_of_two", "unpack_keys", "upper_bounds"]

MILD_EXPONENT = 32  # rows whose largest entry lies within 2^-32 .. 2^32 are screened without scaling
CODE_EXPONENT = 60  # the largest exponent taken out of float16 codes: beyond it float32 scales would leave their range
FLOOR = 2.0**-50  # the least |x_j| in the slack of "dot", which covers products that underflow
NO_KEY = -(1 << 63)  # an empty place in a list or a buffer of keys
PROGRAMS = 256  # enough to fill a device; with fewer blocks of rows than this, the gallery is split


class _Lengths(NamedTuple):
    """The norms of rows, and the norms of the errors of their codes; float64."""

    norms: Tensor
    errors: Tensor


class Screen:
    """Scaled rows and the vectors of the bound, for one gallery and one set of queries.

    Args:
        x: [n, d], the gallery.
        queries: [m, d], or x itself.
        metric: "cosine", "dot" or "euclidean".
        narrow: whether float32 rows are multiplied as float16 codes.
        groups: int64 [n] and [m], the groups of the gallery's rows and of the queries; rows of equal groups are no
            neighbours. (None, None) for no groups.
    """

    def __init__(
        self,
        x: Tensor,
        queries: Tensor,
        metric: str,
        *,
        narrow: bool = False,
        groups: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
    ) -> None:
        self.metric = metric
        self.groups, self.query_groups = groups
        self_search = queries is x
        exponents, query_exponents = _exponents(x), _exponents(queries)
        if metric == "euclidean":  # one power of two for both sides
            exponents = torch.maximum(exponents.amax(), query_exponents.amax()).expand(len(x))
            query_exponents = exponents[:1].expand(len(queries))
        elif metric == "dot":  # one for the gallery, one for each query
            exponents = exponents.amax().expand(len(x))
        mild = bool((exponents.abs().amax() <= MILD_EXPONENT) & (query_exponents.abs().amax() <= MILD_EXPONENT))
        if mild:
            exponents, query_exponents = torch.zeros_like(exponents), torch.zeros_like(query_exponents)
        self.x = to_operand(x if mild else _scale_rows(x, -exponents))
        if self_search and (mild or metric != "dot"):
            self.queries = self.x
        else:
            self.queries = to_operand(queries if mild else _scale_rows(queries, -query_exponents))
        self.shift = power_of_two(-query_exponents) * power_of_two(-exponents.amax())  # of dot and euclidean scores
        norms, query_norms = _norms(self.x), _norms(self.queries)
        power, query_power = torch.ones_like(norms), torch.ones_like(query_norms)
        errors, query_errors = torch.zeros_like(norms), torch.zeros_like(query_norms)
        if narrow:
            one_table = self.queries is self.x
            self.x, power, errors = _codes(self.x)
            self.queries, query_power, query_errors = (self.x, power, errors) if one_table else _codes(self.queries)
        unit = 2.0**-23 if self.x.dtype == torch.float32 else 2.0**-22
        self._set_bound(_Lengths(norms, errors), _Lengths(query_norms, query_errors), unit)
        self.row_scale, self.col_scale = self.row_scale * query_power.float(), self.col_scale * power.float()

    def _set_bound(self, gallery: _Lengths, queries: _Lengths, unit: float) -> None:
        """Set the vectors of the bound, as the table at the top of this module has them."""
        norms, errors = gallery
        query_norms, query_errors = queries
        d = self.x.shape[1]
        rounding = (d + 32) * unit
        largest = norms.amax()
        nonzero = (query_norms > 0).double()
        ones, row_ones = torch.ones_like(norms), torch.ones_like(query_norms)
        self.row_constant = torch.zeros_like(query_norms)
        slack = rounding * (query_norms + query_errors) + query_errors
        if self.metric == "dot":
            row_scale, col_scale, col_offset = row_ones, ones, 0 * ones
            row_slack, col_slack = slack, (norms + errors).clamp_min(FLOOR)
            row_norm, col_error = query_norms, errors
            size = query_norms * largest
        elif self.metric == "cosine":
            row_scale, col_scale = _invert(query_norms), _invert(norms)
            col_offset, row_slack, col_slack = 0 * ones, slack * row_scale, 1 + errors * col_scale
            row_norm, col_error = nonzero, errors * col_scale
            size = nonzero
        else:
            row_scale, col_scale = 2 * row_ones, ones
            col_offset = 2.0**-100 - norms * norms * (1 - rounding)
            row_slack, col_slack = 2 * slack, norms + errors
            row_norm, col_error = 2 * query_norms, errors
            size = (query_norms + largest) ** 2
            self.row_constant = query_norms * query_norms
        # the float64 score and its conversion to the units of u are rounded too
        self.margin = (d + 8) * 2.0**-51 * size
        self.row_scale, self.row_slack, self.row_norm = row_scale.float(), row_slack.float(), row_norm.float()
        self.col_scale, self.col_offset = col_scale.float(), col_offset.float()
        self.col_slack, self.col_error = col_slack.float(), col_error.float()

    def in_bound_units(self, scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return exact scores of queries ``rows`` in the units of u, and a bound on their rounding errors."""
        shift = 1.0 if self.metric == "cosine" else self.shift[rows]
        return scores * shift + self.row_constant[rows], self.margin[rows]

    def restrict_to(self, columns: Tensor) -> Screen:
        """Return the screen of the gallery rows ``columns`` alone, numbered by their places in ``columns``."""
        part = copy.copy(self)
        part.x = self.x[columns]
        for name in ("col_scale", "col_offset", "col_slack", "col_error"):
            setattr(part, name, getattr(self, name)[columns])
        part.groups = None if self.groups is None else self.groups[columns]
        return part

    def select_groups(self, rows: Tensor | slice) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return the groups of the queries ``rows``, and those of the gallery."""
        if self.groups is None or self.query_groups is None:
            return None, None
        return self.query_groups[rows], self.groups

    def extremes(self, rows: int, multiple: int) -> Tensor:
        """Return the extreme column vectors of every ``rows`` gallery rows.

        The result is [., 5] float32: the largest offset, slack, error and scale, and the least scale. Its length is a
        multiple of ``multiple``; entries beyond the last gallery row are neutral.
        """
        largest = torch.stack([self.col_offset, self.col_slack, self.col_error, self.col_scale, -self.col_scale])
        padded = F.pad(largest, (0, -largest.shape[1] % (rows * multiple)), value=-torch.inf)
        extremes = padded.unflatten(1, (-1, rows)).amax(2).T
        return torch.cat([extremes[:, :4], -extremes[:, 4:]], 1).contiguous()

    def keep_highest(self, rows: Tensor, excluded: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """Return the highest bounds of each query and the gallery rows that have them.

        Args:
            rows: [r] indices of the queries.
            excluded: [r] the gallery row that is no neighbour of each query, or -1.
            kept: the number of gallery rows to keep.

        Returns:
            Bounds [r, kept] in falling order and ids [r, kept]; an id is -1 where the gallery has no further rows.
        """
        n, d = self.x.shape
        sizes = tile("knn_screen", self.x.dtype, kept, architecture(self.x.device))
        row_blocks = triton.cdiv(len(rows), sizes.blocks["BLOCK_M"])
        col_blocks = triton.cdiv(n, sizes.blocks["BLOCK_N"])
        splits = max(1, min(PROGRAMS // row_blocks, col_blocks // 4))
        split_length = triton.cdiv(col_blocks, splits) * sizes.blocks["BLOCK_N"]
        keys = torch.empty(len(rows), splits, kept, dtype=torch.int64, device=self.x.device)
        row_vectors = (self.row_scale[rows], self.row_slack[rows], self.row_norm[rows])
        col_vectors = (self.col_scale, self.col_offset, self.col_slack, self.col_error)
        pointers = (self.queries[rows], self.x, excluded, *row_vectors, *col_vectors, *self.select_groups(rows), keys)
        numbers = (len(rows), n, d, splits, split_length)
        launch(_knn_screen_kernel, row_blocks * splits, sizes, *pointers, *numbers, KEPT=kept)
        return unpack_keys(keys.flatten(1).sort(dim=1, descending=True).values[:, :kept])


def power_of_two(exponents: Tensor) -> Tensor:
    """Return 2^e in float64, exactly, for |e| <= 1022."""
    return ((exponents.long() + 1023) << 52).view(torch.float64)


def _exponents(x: Tensor) -> Tensor:
    """Return e with 2^(e-1) <= max |x_i| < 2^e for each row; zero rows get the largest e, to have no influence."""
    largest = torch.maximum(x.amax(1), -x.amin(1)).double()
    exponents = torch.frexp(largest).exponent.long()
    top = torch.frexp(largest.amax()).exponent.long()
    return torch.where(largest > 0, exponents, top)


def _scale_rows(x: Tensor, exponents: Tensor) -> Tensor:
    """Return the rows times 2^exponents, in x's dtype."""
    scaled, factors = torch.empty_like(x), power_of_two(exponents)[:, None]
    for rows in torch.arange(len(x), device=x.device).split(1 << 14):
        scaled[rows] = (x[rows].double() * factors[rows]).to(x.dtype)
    return scaled


def _codes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return float16 codes of float32 rows, the power of two taken out of each, and |code * power - x| in float64."""
    exponents = _exponents(x).clamp(-CODE_EXPONENT, CODE_EXPONENT)
    power, error = power_of_two(exponents), torch.empty(len(x), dtype=torch.float64, device=x.device)
    codes = torch.empty_like(x, dtype=torch.float16)
    for rows in torch.arange(len(x), device=x.device).split(1 << 14):
        exact, row_power = x[rows].double(), power[rows, None]
        codes[rows] = (exact / row_power).half()
        error[rows] = (1 + 2.0**-40) * (codes[rows].double() * row_power - exact).norm(dim=1)
    return codes, power, error


def _norms(x: Tensor) -> Tensor:
    """Return |x_i| in float64, computed in chunks of rows that bound the float64 copy."""
    return torch.cat([torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in x.split(1 << 14)])


def _invert(norms: Tensor) -> Tensor:
    """Return 1 / norms, and 0 for 0."""
    return torch.where(norms > 0, 1 / norms, 0.0)


def empty_survivors(rows: int, capacity: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return empty buffers: keys [rows, capacity] of each row's survivors, and their numbers [rows], all 0."""
    keys = torch.full((rows, capacity), NO_KEY, dtype=torch.int64, device=device)
    return keys, torch.zeros(rows, dtype=torch.int32, device=device)


def unpack_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bounds and ids in keys that ``pack_keys`` made; the id of an empty place is -1."""
    ordered = (keys >> 32).to(torch.int32)
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    ids = 0xFFFFFFFF - (keys & 0xFFFFFFFF)
    return bits.view(torch.float32), torch.where(ordered == -(1 << 31), -1, ids)


@triton.jit
def pack_keys(scores, cols):
    """Return 64-bit keys that are ordered by score, then by falling column: a lower column has the higher key.

    The upper half holds the bits of the score, made monotonic, the lower half the column counted from the end.
    """
    bits = scores.to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (0xFFFFFFFF - cols.to(tl.int64))


@triton.jit
def upper_bounds(dots, row_scale, row_slack, row_norm, col_scale, col_offset, col_slack, col_error):
    """Return the bounds u of a tile of products; each vector has a dimension of size 1 along the other side."""
    bounds = dots * row_scale * col_scale + col_offset
    return bounds + (row_slack * col_slack + row_norm * col_error)


@triton.jit(do_not_specialize=["n_rows", "n", "splits"])
def _knn_screen_kernel(
    queries_ptr,  # [n_rows, d]
    x_ptr,  # [n, d]
    excluded_ptr,  # [n_rows]
    row_scale_ptr,  # [n_rows]
    row_slack_ptr,  # [n_rows]
    row_norm_ptr,  # [n_rows]
    col_scale_ptr,  # [n]
    col_offset_ptr,  # [n]
    col_slack_ptr,  # [n]
    col_error_ptr,  # [n]
    row_group_ptr,  # [n_rows] int64 or None
    col_group_ptr,  # [n] int64 or None
    keys_ptr,  # [n_rows, splits, KEPT] int64
    n_rows,
    n,
    d,
    splits,
    split_length,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    KEPT: tl.constexpr,
):
    """Write the KEPT highest keys of BLOCK_M queries in one part of the gallery.

    The kernel is long because its signature is, and because a tile's products never leave its registers.
    """
    EMPTY: tl.constexpr = -(1 << 63)
    split = tl.program_id(0) % splits
    first_row = (tl.program_id(0) // splits) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    excluded = tl.load(excluded_ptr + rows, rows < n_rows, other=-1)
    row_scale = tl.load(row_scale_ptr + rows, rows < n_rows, other=0.0)
    row_slack = tl.load(row_slack_ptr + rows, rows < n_rows, other=0.0)
    row_norm = tl.load(row_norm_ptr + rows, rows < n_rows, other=0.0)

    # the empty places are distinct, so that a key replaces exactly one of them
    slots = tl.arange(0, KEPT)
    kept = EMPTY + slots[None, :].to(tl.int64) + tl.zeros([BLOCK_M, KEPT], tl.int64)
    lowest = tl.min(kept, 1)
    for first_col in range(split * split_length, tl.minimum(n, (split + 1) * split_length), BLOCK_N):
        cols = first_col + tl.arange(0, BLOCK_N)
        dots = dot_tile(queries_ptr, x_ptr, 0, 0, first_row, first_col, n_rows, n, d, BLOCK_M, BLOCK_N, BLOCK_D, False)
        col_scale = tl.load(col_scale_ptr + cols, cols < n, other=0.0)
        col_offset = tl.load(col_offset_ptr + cols, cols < n, other=0.0)
        col_slack = tl.load(col_slack_ptr + cols, cols < n, other=0.0)
        col_error = tl.load(col_error_ptr + cols, cols < n, other=0.0)
        bounds = upper_bounds(
            dots,
            row_scale[:, None],
            row_slack[:, None],
            row_norm[:, None],
            col_scale[None, :],
            col_offset[None, :],
            col_slack[None, :],
            col_error[None, :],
        )
        candidate = (cols[None, :] < n) & (cols[None, :] != excluded[:, None]) & (rows[:, None] < n_rows)
        if row_group_ptr is not None:
            row_group = tl.load(row_group_ptr + rows, rows < n_rows, other=0)
            candidate &= row_group[:, None] != tl.load(col_group_ptr + cols, cols < n, other=0)[None, :]
        keys = tl.where(candidate, pack_keys(bounds, cols[None, :]), EMPTY)
        # one iteration for each key that any row still has to keep; after a few tiles most need none
        best = tl.max(keys, 1)
        while tl.max((best > lowest).to(tl.int32), 0) > 0:
            replaced = (kept == lowest[:, None]) & (best > lowest)[:, None]
            kept = tl.where(replaced, best[:, None], kept)
            keys = tl.where(keys == best[:, None], EMPTY, keys)
            lowest = tl.min(kept, 1)
            best = tl.max(keys, 1)

    places = (rows[:, None].to(tl.int64) * splits + split) * KEPT + slots[None, :]
    tl.store(keys_ptr + places, kept, rows[:, None] < n_rows)
