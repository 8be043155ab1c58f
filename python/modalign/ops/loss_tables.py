"""The tables that travel between the contrastive losses and the backends of their operators.

A public function builds a ``LossTables``, and it reaches the backend as one object. Only the schemas of the torch
operators, which take no dataclass, spell its fields as a flat list: ``flat()`` gives that list, and the constructor
takes it back.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from modalign.common.dtypes import accumulator

__all__ = ["ForwardOptions", "LossTables", "Sums", "WeightTables"]


# the fields of LossTables in order
FlatTables = tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, str]


def _contiguous(table: Tensor | None) -> Tensor | None:
    return None if table is None else table.contiguous()


@dataclasses.dataclass(frozen=True)
class LossTables:
    """The rows and columns of similarity matrices S, and which entries of S count. S itself is never stored.

        S_ij = logit_scale_i <x_i, y_j>

    Attributes:
        x: (b, n, d) the rows of b independent problems.
        y: (b, m, d) the columns, in x's dtype. None means one stream: y = x, and S is symmetric.
        logit_scale: (b, n) the positive factor of each row, float64 for float64 rows and float32 otherwise.
        row_id: (b, n) int64, or None. A negative id leaves out the whole row.
        col_id: (b, m) int64, or None. A negative id leaves out the whole column.
        row_cap: (b, n), or None. A row does not count entries above its cap.
        col_cap: (b, m), or None. A column does not count entries above its cap.
        mask: the entries that neither rows nor columns count: "none"; "diagonal", those with i = j; "same", those with
            equal ids; "different", those with different ids.
    """

    x: Tensor
    y: Tensor | None
    logit_scale: Tensor
    row_id: Tensor | None = None
    col_id: Tensor | None = None
    row_cap: Tensor | None = None
    col_cap: Tensor | None = None
    mask: str = "none"

    @property
    def right(self) -> Tensor:
        """The columns (b, m, d): y, or x in one stream."""
        return self.x if self.y is None else self.y

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """b problems, n rows, m columns and d features."""
        b, n, d = self.x.shape
        return b, n, self.right.shape[1], d

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of sums and results: float64 for float64 rows, float32 otherwise."""
        return accumulator(self.x.dtype)

    def flat(self) -> FlatTables:
        """Return the fields in the order in which the operators' schemas list them."""
        ids, caps = (self.row_id, self.col_id), (self.row_cap, self.col_cap)
        return (self.x, self.y, self.logit_scale, *ids, *caps, self.mask)

    def contiguous(self) -> LossTables:
        """Return the same tables in contiguous memory, as the compiled backends read them."""
        return LossTables(
            self.x.contiguous(),
            _contiguous(self.y),
            self.logit_scale.contiguous(),
            row_id=_contiguous(self.row_id),
            col_id=_contiguous(self.col_id),
            row_cap=_contiguous(self.row_cap),
            col_cap=_contiguous(self.col_cap),
            mask=self.mask,
        )

    def two_streams(self) -> LossTables:
        """Return the same matrices with both sides spelled out: in one stream the columns are the rows."""
        if self.y is not None:
            return self
        return dataclasses.replace(self, y=self.x, col_id=self.row_id, col_cap=self.row_cap)


@dataclasses.dataclass(frozen=True)
class ForwardOptions:
    """The results of the forward pass besides the log-sum-exps of rows.

    Attributes:
        columns: compute the results of columns as well. Without effect in one stream.
        stats: compute the largest logit and the mean logit under the softmax.
        workspace: bytes in which to keep rows of S for the backward pass. Without effect in one stream.
        check_finite: raise a ValueError for NaN or inf in the rows or the logits. Otherwise the results are NaN then.
        pairs: compute the diagonal of S, in two streams with n = m.
    """

    columns: bool = True
    stats: bool = False
    workspace: int = 0
    check_finite: bool = True
    pairs: bool = True

    def flat(self) -> tuple[bool, bool, int, bool, bool]:
        """Return the fields in the order in which the operator's schema lists them."""
        return (self.columns, self.stats, self.workspace, self.check_finite, self.pairs)

    def stored_rows(self, tables: LossTables) -> int:
        """Return how many rows of S, counted through all problems, fit into the workspace."""
        b, n, m, _ = tables.sizes
        if tables.y is None or not self.workspace:
            return 0
        return min(b * n, self.workspace // (tables.dtype.itemsize * m))


class Sums(NamedTuple):
    """The results of the forward pass. A result that is not computed has width 0.

    Attributes:
        row_lse, col_lse: (b, n) and (b, m) log-sum-exps of the entries that count; -inf where none does.
        positive: (b, n) the diagonal of S.
        stored: (rows, m) the first rows of S, counted through all problems.
        row_best, col_best: (b, n) and (b, m) the largest entry that counts; -inf where none does.
        row_mean, col_mean: (b, n) and (b, m) the mean entry under the softmax; 0 where none counts.
    """

    row_lse: Tensor
    col_lse: Tensor
    positive: Tensor
    stored: Tensor
    row_best: Tensor
    row_mean: Tensor
    col_best: Tensor
    col_mean: Tensor

    @classmethod
    def empty(cls, tables: LossTables, options: ForwardOptions) -> Sums:
        """Return uninitialised results of the widths that the call has."""
        b, n, m, _ = tables.sizes
        two, stats = tables.y is not None, options.stats
        columns = options.columns and two

        def vector(width: int, wanted: bool) -> Tensor:
            return tables.x.new_empty(b, width if wanted else 0, dtype=tables.dtype)

        return cls(
            row_lse=vector(n, True),
            col_lse=vector(m, columns),
            positive=vector(n, two and options.pairs and m == n),
            stored=tables.x.new_empty(options.stored_rows(tables), m, dtype=tables.dtype),
            row_best=vector(n, stats),
            row_mean=vector(n, stats),
            col_best=vector(m, stats and columns),
            col_mean=vector(m, stats and columns),
        )


@dataclasses.dataclass(frozen=True)
class WeightTables:
    """The gradients of the sums and the results of the forward pass that determine W = dL/dS.

        W_ij = logit_scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j)
                              + [i = j] grad_positive_i)

    where row i's term is 0 for entries that row i does not count, and column j's for those that column j does not
    count. The factor logit_scale_i makes W the gradient at the inner products <x_i, y_j>.

    Attributes:
        grad_row, grad_col, grad_positive: (b, n), (b, m) and (b, n) gradients of ``Sums.row_lse``, ``col_lse`` and
            ``positive``. Width 0 stands for zeros.
        row_lse, col_lse, stored: the results of the forward pass.
    """

    grad_row: Tensor
    grad_col: Tensor
    grad_positive: Tensor
    row_lse: Tensor
    col_lse: Tensor
    stored: Tensor

    def flat(self) -> tuple[Tensor, ...]:
        """Return the fields in the order in which the operator's schema lists them."""
        return (self.grad_row, self.grad_col, self.grad_positive, self.row_lse, self.col_lse, self.stored)

    def two_streams(self) -> WeightTables:
        """Return the tables of one stream with the columns' spelled out: W is symmetric, so they are the rows'."""
        return dataclasses.replace(self, grad_col=self.grad_row, col_lse=self.row_lse)
