"""The screen of the exact k-NN: for each row, the gallery rows of the highest upper bound of the score.

With t = fl(<q_i, x_j>) in float32, the bound is

    u_ij = t row_scale_i col_scale_j + col_offset_j + row_slack_i col_slack_j  >=  s_ij

    metric      s_ij, row constants dropped     row_scale  col_scale  col_offset             row_slack    col_slack
    dot         <q_i, x_j>                      1          1          0                      g |q_i|      |x_j|
    cosine      <q_i, x_j> / |q_i| |x_j|        1/|q_i|    1/|x_j|    0                      g            1
    euclidean   2 <q_i, x_j> - |x_j|^2          2          1          -|x_j|^2 (1 - g)       2 g |q_i|    |x_j|

A narrow screen multiplies float16 codes q^ and x^ of float32 rows, each at its own power of two, on tensor cores at
many times the rate. With E = |x^ - x|, known in float64, row_slack gains E_q, |x_j| becomes |x_j| + E_j, and u gains
the term |q_i| E_j.

g = (d + 32) e bounds the rounding: |t - <q, x>| <= d e |q| |x| in whatever order the products are summed (Higham 2002,
section 3.1), and 32 e cover what follows. e is 2^-23 for float32 inputs, twice the unit roundoff, which holds with and
without fused multiply-add, and 2^-22 for half precision, whose products are exact but which tensor cores align and
truncate. Underflow is kept out by powers of two: rows far from 1 are scaled, exactly, and tiny terms get a floor.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F  # noqa: N812
import triton
import triton.language as tl
from torch import Tensor

from modalign.kernels.shared.launch import dot_tile, launch, operand
from modalign.kernels.shared.tiles import architecture, tile

__all__ = ["NO_KEY", "Screen", "no_survivors", "packed", "power_of_two", "unpacked", "upper_bounds"]

MILD = 32  # rows whose largest entry lies within 2^-32 .. 2^32 are screened as they are
CODE_RANGE = 60  # exponents of rows in float16: beyond it float32 scales would leave their range, and E tells
FLOOR = 2.0**-50  # of |x_j| in dot's slack: covers products that underflow
NO_KEY = -(1 << 63)  # where a list or a buffer has a place for a row and no row
PROGRAMS = 256  # enough to fill a device; fewer row blocks than this split the gallery


class Screen:
    """Scaled rows and the vectors of the bound, for one gallery and one set of queries.

    groups: int64 [n] and [m] of the gallery's rows and of the queries, equal ones are no neighbours; None for none.
    """

    def __init__(
        self, x: Tensor, queries: Tensor, metric: str, narrow: bool = False,
        groups: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
    ) -> None:  # fmt: skip
        self.metric = metric
        self.groups, self.query_groups = groups
        itself = queries is x
        exponents, query_exponents = _exponents(x), _exponents(queries)
        if metric == "euclidean":  # one power of two for both sides
            exponents = torch.maximum(exponents.amax(), query_exponents.amax()).expand(len(x))
            query_exponents = exponents[:1].expand(len(queries))
        elif metric == "dot":  # one for the gallery, one for each query
            exponents = exponents.amax().expand(len(x))
        mild = bool((exponents.abs().amax() <= MILD) & (query_exponents.abs().amax() <= MILD))
        if mild:
            exponents, query_exponents = torch.zeros_like(exponents), torch.zeros_like(query_exponents)
        self.x = operand(x if mild else _scaled(x, -exponents))
        if itself and (mild or metric != "dot"):
            self.queries = self.x
        else:
            self.queries = operand(queries if mild else _scaled(queries, -query_exponents))
        self.shift = power_of_two(-query_exponents) * power_of_two(-exponents.amax())  # of dot and euclidean scores
        norms, query_norms = _norms(self.x), _norms(self.queries)
        power, query_power = torch.ones_like(norms), torch.ones_like(query_norms)
        error, query_error = torch.zeros_like(norms), torch.zeros_like(query_norms)
        if narrow:
            one_table = self.queries is self.x
            self.x, power, error = _codes(self.x)
            self.queries, query_power, query_error = (
                (self.x, power, error) if one_table else _codes(self.queries)
            )  # fmt: skip
        unit = 2.0**-23 if self.x.dtype == torch.float32 else 2.0**-22
        self._set_bound(norms, query_norms, error, query_error, unit)
        self.row_scale, self.col_scale = self.row_scale * query_power.float(), self.col_scale * power.float()

    def _set_bound(self, norms: Tensor, query_norms: Tensor, error: Tensor, query_error: Tensor, unit: float) -> None:
        d = self.x.shape[1]
        rounding = (d + 32) * unit
        largest = norms.amax()
        nonzero = (query_norms > 0).double()
        ones, row_ones = torch.ones_like(norms), torch.ones_like(query_norms)
        self.row_constant = torch.zeros_like(query_norms)
        slack = rounding * (query_norms + query_error) + query_error
        if self.metric == "dot":
            row_scale, col_scale, col_offset = row_ones, ones, 0 * ones
            row_slack, col_slack = slack, (norms + error).clamp_min(FLOOR)
            row_norm, col_error = query_norms, error
            size = query_norms * largest
        elif self.metric == "cosine":
            row_scale, col_scale = _inverse(query_norms), _inverse(norms)
            col_offset, row_slack, col_slack = 0 * ones, slack * row_scale, 1 + error * col_scale
            row_norm, col_error = nonzero, error * col_scale
            size = nonzero
        else:
            row_scale, col_scale = 2 * row_ones, ones
            col_offset = 2.0**-100 - norms * norms * (1 - rounding)
            row_slack, col_slack = 2 * slack, norms + error
            row_norm, col_error = 2 * query_norms, error
            size = (query_norms + largest) ** 2
            self.row_constant = query_norms * query_norms
        # the float64 score and its way to the units of u are rounded too
        self.margin = (d + 8) * 2.0**-51 * size
        self.row_scale, self.row_slack, self.row_norm = row_scale.float(), row_slack.float(), row_norm.float()
        self.col_scale, self.col_offset = col_scale.float(), col_offset.float()
        self.col_slack, self.col_error = col_slack.float(), col_error.float()

    def in_bound_units(self, scores: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Exact scores of the rows ``which`` in the units of u, and how far rounding may have moved them."""
        shift = 1.0 if self.metric == "cosine" else self.shift[which]
        return scores * shift + self.row_constant[which], self.margin[which]

    def over(self, columns: Tensor) -> Screen:
        """The same bounds for the gallery rows ``columns`` alone, numbered as they stand there."""
        part = copy.copy(self)
        part.x = self.x[columns]
        for name in ("col_scale", "col_offset", "col_slack", "col_error"):
            setattr(part, name, getattr(self, name)[columns])
        part.groups = None if self.groups is None else self.groups[columns]
        return part

    def groups_of(self, which: Tensor | slice) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Groups of the queries ``which``, and of the gallery."""
        if self.groups is None or self.query_groups is None:
            return None, None
        return self.query_groups[which], self.groups

    def extremes(self, rows: int, multiple: int) -> Tensor:
        """[., 5] float32: of so many gallery rows each, the largest offset, slack, error and scale, and the least
        scale; a ``multiple`` of them, those beyond the last row neutral."""
        largest = torch.stack([self.col_offset, self.col_slack, self.col_error, self.col_scale, -self.col_scale])
        padded = F.pad(largest, (0, -largest.shape[1] % (rows * multiple)), value=-torch.inf)
        most = padded.unflatten(1, (-1, rows)).amax(2).T
        return torch.cat([most[:, :4], -most[:, 4:]], 1).contiguous()

    def highest(self, which: Tensor, excluded: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """Bounds [r, kept] in falling order and ids [r, kept] of the kept rows; id -1 where the gallery has no more.

        which: [r] rows of the queries, excluded: [r] the gallery row each must not find, or -1.
        """
        n, d = self.x.shape
        sizes = tile("knn_screen", self.x.dtype, kept, architecture(self.x.device))
        row_blocks = triton.cdiv(len(which), sizes.blocks["BLOCK_M"])
        col_blocks = triton.cdiv(n, sizes.blocks["BLOCK_N"])
        splits = max(1, min(PROGRAMS // row_blocks, col_blocks // 4))
        split_length = triton.cdiv(col_blocks, splits) * sizes.blocks["BLOCK_N"]
        keys = torch.empty(len(which), splits, kept, dtype=torch.int64, device=self.x.device)
        launch(
            _knn_screen_kernel, row_blocks * splits, sizes, self.queries[which], self.x, excluded,
            self.row_scale[which], self.row_slack[which], self.row_norm[which], self.col_scale, self.col_offset,
            self.col_slack, self.col_error, *self.groups_of(which), keys, len(which), n, d, splits, split_length,
            KEPT=kept,
        )  # fmt: skip
        keys = keys.flatten(1).sort(dim=1, descending=True).values[:, :kept]
        return unpacked(keys)


def power_of_two(exponents: Tensor) -> Tensor:
    """2^e in float64 from its bits, exactly; |e| <= 1022."""
    return ((exponents.long() + 1023) << 52).view(torch.float64)


def _exponents(x: Tensor) -> Tensor:
    """e with 2^(e-1) <= max |x_i| < 2^e for each row; a zero row takes the largest e, so that it decides nothing."""
    largest = torch.maximum(x.amax(1), -x.amin(1)).double()
    exponents = torch.frexp(largest).exponent.long()
    top = torch.frexp(largest.amax()).exponent.long()
    return torch.where(largest > 0, exponents, top)


def _scaled(x: Tensor, exponents: Tensor) -> Tensor:
    scaled, factors = torch.empty_like(x), power_of_two(exponents)[:, None]
    for rows in torch.arange(len(x), device=x.device).split(1 << 14):
        scaled[rows] = (x[rows].double() * factors[rows]).to(x.dtype)
    return scaled


def _codes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float16 codes of float32 rows, the power of two that was taken out of each, and |code * power - x| in float64."""
    exponents = _exponents(x).clamp(-CODE_RANGE, CODE_RANGE)
    power, error = power_of_two(exponents), torch.empty(len(x), dtype=torch.float64, device=x.device)
    codes = torch.empty_like(x, dtype=torch.float16)
    for rows in torch.arange(len(x), device=x.device).split(1 << 14):
        exact, own = x[rows].double(), power[rows, None]
        codes[rows] = (exact / own).half()
        error[rows] = (1 + 2.0**-40) * (codes[rows].double() * own - exact).norm(dim=1)
    return codes, power, error


def _norms(x: Tensor) -> Tensor:
    """|x_i| in float64, in chunks that bound the float64 copy."""
    return torch.cat([torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in x.split(1 << 14)])


def _inverse(norms: Tensor) -> Tensor:
    return torch.where(norms > 0, 1 / norms, 0.0)


def no_survivors(rows: int, capacity: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Room for the keys of each row's survivors [rows, capacity], and how many it has [rows]: none yet."""
    keys = torch.full((rows, capacity), NO_KEY, dtype=torch.int64, device=device)
    return keys, torch.zeros(rows, dtype=torch.int32, device=device)


def unpacked(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The bounds and ids in keys made by the kernel; id -1 for an empty place."""
    ordered = (keys >> 32).to(torch.int32)
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    ids = 0xFFFFFFFF - (keys & 0xFFFFFFFF)
    return bits.view(torch.float32), torch.where(ordered == -(1 << 31), -1, ids)


@triton.jit
def packed(scores, cols):
    """64-bit keys in the order of (score, lower column first): float bits made monotonic above the reversed column."""
    bits = scores.to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (0xFFFFFFFF - cols.to(tl.int64))


@triton.jit
def upper_bounds(dots, row_scale, row_slack, row_norm, col_scale, col_offset, col_slack, col_error):
    """u of a tile of products; the vectors of its rows and its columns are told apart by their shapes."""
    bounds = dots * row_scale * col_scale + col_offset
    return bounds + (row_slack * col_slack + row_norm * col_error)


@triton.jit(do_not_specialize=["n_rows", "n", "splits"])
def _knn_screen_kernel(
    queries_ptr, x_ptr,  # [n_rows, d], [n, d]
    excluded_ptr, row_scale_ptr, row_slack_ptr, row_norm_ptr,  # [n_rows]
    col_scale_ptr, col_offset_ptr, col_slack_ptr, col_error_ptr,  # [n]
    row_group_ptr, col_group_ptr,  # [n_rows], [n] int64, or None
    keys_ptr,  # [n_rows, splits, KEPT] int64
    n_rows, n, d, splits, split_length,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    EMPTY: tl.constexpr = -(1 << 63)
    split = tl.program_id(0) % splits
    first_row = (tl.program_id(0) // splits) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    excluded = tl.load(excluded_ptr + rows, rows < n_rows, other=-1)
    row_scale = tl.load(row_scale_ptr + rows, rows < n_rows, other=0.0)
    row_slack = tl.load(row_slack_ptr + rows, rows < n_rows, other=0.0)
    row_norm = tl.load(row_norm_ptr + rows, rows < n_rows, other=0.0)

    # distinct empty places, so that one key takes the place of one
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
            dots, row_scale[:, None], row_slack[:, None], row_norm[:, None],
            col_scale[None, :], col_offset[None, :], col_slack[None, :], col_error[None, :],
        )  # fmt: skip
        candidate = (cols[None, :] < n) & (cols[None, :] != excluded[:, None]) & (rows[:, None] < n_rows)
        if row_group_ptr is not None:
            row_group = tl.load(row_group_ptr + rows, rows < n_rows, other=0)
            candidate &= row_group[:, None] != tl.load(col_group_ptr + cols, cols < n, other=0)[None, :]
        keys = tl.where(candidate, packed(bounds, cols[None, :]), EMPTY)
        # one round for each key that any row still has to take in; soon most tiles need none
        best = tl.max(keys, 1)
        while tl.max((best > lowest).to(tl.int32), 0) > 0:
            replaced = (kept == lowest[:, None]) & (best > lowest)[:, None]
            kept = tl.where(replaced, best[:, None], kept)
            keys = tl.where(keys == best[:, None], EMPTY, keys)
            lowest = tl.min(kept, 1)
            best = tl.max(keys, 1)

    places = (rows[:, None].to(tl.int64) * splits + split) * KEPT + slots[None, :]
    tl.store(keys_ptr + places, kept, rows[:, None] < n_rows)
