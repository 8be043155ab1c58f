"""Batches that several ranks share: what the ranks agree on before a loss, and ranks that have no rows.

A rank without rows takes part with one row that is ignored, so that all ranks make the same calls.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from modalign.common.checks import require_pairs
from modalign.common.dtypes import FLOATS
from modalign.distributed.agreement import Description
from modalign.distributed.calls import Call
from modalign.distributed.party import Party
from modalign.distributed.rows import replicated
from modalign.losses.inputs import (
    blank_ignored,
    checks_values,
    groups_and_ignored,
    has_value_per_anchor,
    logit_scales,
    per_row,
    readable,
    require_positive,
)
from modalign.losses.options import InfoNCEOptions
from modalign.losses.reduction import require_weights
from modalign.ops.info_nce import require_finite_tables
from modalign.ops.loss_tables import LossTables

__all__ = ["SharedBatch", "describe", "flag", "require_finite_rows", "share_batch", "share_pairs"]


@dataclasses.dataclass(frozen=True)
class SharedBatch:
    """A batch that several ranks share.

    Attributes:
        call: The ranks with their rows, at least one each.
        is_empty: Whether this rank had no rows.
        some_empty: Whether some rank had none.
    """

    call: Call
    is_empty: bool
    some_empty: bool

    def shared_value(self, value: float | Tensor) -> float | Tensor:
        """Return a temperature or bias that is equal on all ranks, whose gradient is the same on each."""
        return replicated(value, self.call) if isinstance(value, Tensor) and value.requires_grad else value

    def fill(self, table: Tensor | None, dim: int, value: float = 0.0) -> Tensor | None:
        """Return a table with a row on a rank that had none."""
        if table is None or not self.is_empty:
            return table
        shape = list(table.shape)
        shape[dim] = 1
        return torch.cat([table, table.new_full(shape, value)], dim)

    def rows(self, *tables: Tensor) -> tuple[Tensor, ...]:
        """Return tables (..., n, d) with a row on a rank that had none."""
        return tuple(self.fill(table, -2) for table in tables)  # type: ignore[misc]

    def ignored(self, ignore: Tensor | None, x: Tensor) -> Tensor | None:
        """Return the marks of ignored rows, with that of a row that was filled in; ``x`` has it already."""
        if not self.some_empty:
            return ignore
        if self.is_empty or ignore is None:
            return torch.full(x.shape[-2:-1], self.is_empty, device=x.device)
        return ignore

    def with_global_pairs(self, tables: LossTables) -> tuple[LossTables, Tensor | None]:
        """Return the tables of two views of n items each, with numbers of items that are unique among all ranks.

        They are needed where a rank had no rows; the second result are the rows (b, 2n) that are not filled in, or
        None.
        """
        if not self.some_empty or tables.row_id is None:
            return tables, None
        kept = torch.full_like(tables.row_id, not self.is_empty, dtype=torch.bool)
        ids = torch.where(kept, tables.row_id + self.call.ranks.own.start, -1)
        return dataclasses.replace(tables, row_id=ids, col_id=ids), kept

    def trimmed(self, values: Tensor) -> Tensor:
        """Return values (..., n) without that of a row that was filled in."""
        return values[..., :0] if self.is_empty else values


def require_finite_rows(
    operation: str, tables: Mapping[str, Tensor | None], check_finite: bool | str, x: Tensor
) -> None:
    """Raise a ValueError for NaN or inf in tables (..., n, d), where the host checks the values of the rows x."""
    for name, table in tables.items():
        if table is not None and table.numel() and checks_values(check_finite, x) and readable(table, wait=True):
            require_finite_tables(operation, {name: table.reshape(-1, *table.shape[-2:])})


def flag(value: bool | str) -> bool | str:
    """Return an option that is a name, True or False, for which 1 and 0 are other words."""
    return value if isinstance(value, str) else bool(value)


def describe(value: object, rows: int | None = None) -> str:
    """Return what must be equal on all ranks of an option: a value, or a tensor's dtype, shape and need of a gradient.

    Args:
        value: The option. Numbers of different types are equal if their values are.
        rows: The dimension of a tensor that counts rows, which may differ.
    """
    if not isinstance(value, Tensor):
        is_number = isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)
        return str(float(value)) if is_number else str(value)  # type: ignore[arg-type]
    shape: list[object] = [*map(operator.index, value.shape)]
    if rows is not None and shape:
        shape[rows] = "n"
    gradient = value.requires_grad and torch.is_grad_enabled()
    return f"{value.dtype} {shape}{' with a gradient' if gradient else ''}"


def describe_values(value: Tensor) -> str:
    """Return a number that is equal for equal values: the only one, or the sum of all as integers of the same bits."""
    value = value.detach()
    if value.numel() == 1:
        return str(value.item())
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
    return f"checksum {int(value.contiguous().view(integers).sum(dtype=torch.int64))}"


def share_batch(
    party: Party,
    pairs: tuple[Tensor, Tensor],
    described: Description,
    *,
    equal: Mapping[str, float | Tensor | None],
    needs_all: str | None = None,
) -> SharedBatch:
    """Return the batch of all ranks, after they have compared their arguments, which each has checked.

    Args:
        party: The ranks.
        pairs: The rows x and y of this rank.
        described: What must be equal on all ranks.
        equal: Numbers and tensors whose values must be equal, too. Tensors are compared where the host can read them
            without waiting for a device, in calls that are always checked.
        needs_all: The option for which all rows are gathered, or None.
    """
    x, y = pairs

    def refuse_transforms() -> None:
        if not torch.compiler.is_compiling() and any(map(torch._C._functorch.is_functorch_wrapped_tensor, pairs)):
            raise NotImplementedError(
                f"{party.operation}: torch.func cannot transform a loss of several ranks; use process_group='self'"
            )

    party.checked(refuse_transforms)
    described = {**party.also, **described, **{name: describe(value) for name, value in equal.items()}}
    if party.sharding.check == "always":
        readable_ones = {name: one for name, one in equal.items() if isinstance(one, Tensor) and readable(one)}
        described |= {f"the values of {name}": describe_values(one) for name, one in readable_ones.items()}
    for name, side in (("x", x), ("y", y)):
        described[name] = "a gradient" if side.requires_grad and torch.is_grad_enabled() else "no gradient"
    call = party.agree(x, described, needs_all=needs_all)
    sizes = call.ranks.sizes
    full = call.with_sizes(tuple(max(size, 1) for size in sizes))
    if not sum(sizes):
        raise ValueError(f"{party.operation}: x and y must not be empty on all ranks")
    return SharedBatch(full, is_empty=sizes[call.ranks.rank] == 0, some_empty=0 in sizes)


def share_pairs(
    party: Party, x: Tensor, y: Tensor, options: InfoNCEOptions
) -> tuple[Tensor, Tensor, InfoNCEOptions, SharedBatch]:
    """Return the rows and options of this rank for ``info_nce``, and the batch of all ranks."""
    options = dataclasses.replace(options, sharded_queue=party.sharding.queue == "sharded")
    party.checked(lambda: _require_valid(x, y, options))
    flags = ("normalize", "stats", "check_finite")
    plain = ("direction", "positives", "label_smoothing", "margin", "reduction", "backend")
    by_row = {"groups": -1, "weights": -1, "ignore": -1, "negatives": -3}
    described: Description = {name: flag(getattr(options, name)) for name in flags}
    described |= {name: describe(getattr(options, name)) for name in plain}
    described |= {name: describe(getattr(options, name), dim) for name, dim in by_row.items()}
    teacher, queue, temperature = options.teacher, options.queue, options.temperature
    described["teacher"] = "None"
    if teacher is not None:
        described["teacher"] = f"{describe(teacher[0], -2)}, temperature {describe(teacher[2])}"
    per_anchor, equal = has_value_per_anchor(temperature, x), {}
    if per_anchor:
        described["temperature"] = f"{describe(temperature, -1)}, one for each anchor (one value has the shape ()),"
    else:
        if isinstance(temperature, Tensor) and temperature.numel() == 1:
            temperature = temperature.reshape(())
        options, equal = dataclasses.replace(options, temperature=temperature), {"temperature": temperature}
    described |= {"queue": describe(queue)} if options.sharded_queue else {}
    equal |= {} if options.sharded_queue else {"queue": queue}  # type: ignore[dict-item]
    batch = share_batch(party, (x, y), described, equal=equal, needs_all=_needs_all(options))
    if per_anchor and batch.call.ranks.count > 1 and max(batch.call.ranks.sizes) == 1:
        raise ValueError(
            "info_nce: a temperature with one element is one for each anchor or one for the batch where every rank has "
            "one row: pass temperature.reshape(()) for one value. One for each anchor needs a rank with more rows"
        )
    x, y = batch.rows(x, y)
    return x, y, _filled(options, batch, x, per_anchor=per_anchor), batch


def _require_valid(x: Tensor, y: Tensor, options: InfoNCEOptions) -> None:
    """Raise the error that one process would raise for the rows and options of this rank."""
    require_pairs("info_nce", x, y, fewest=0)
    options.require_valid(x)
    scale, _ = logit_scales("info_nce", options.temperature, x.shape[:-2], x)
    require_positive("info_nce", scale)
    _, kept = groups_and_ignored("info_nce", options.groups, options.ignore, x, some_kept=False)
    if options.weights is not None:
        require_weights("info_nce", per_row("info_nce", "weights", options.weights, x, dtypes=FLOATS))
    tables = {"x": x, "y": y}
    if options.teacher is not None:
        tables |= {"the teacher's x": options.teacher[0], "the teacher's y": options.teacher[1]}
    if options.negatives is not None:
        tables["negatives"] = options.negatives.flatten(-2)
    blanked: dict[str, Tensor | None] = {name: blank_ignored(table, kept) for name, table in tables.items()}
    require_finite_rows("info_nce", {**blanked, "queue": options.queue}, options.check_finite, x)


def _needs_all(options: InfoNCEOptions) -> str | None:
    """Return the option for which a rank holds the rows of all."""
    if options.teacher is not None:
        return "teacher"
    if options.groups is not None and options.positives == "out":
        return 'positives="out"'
    if options.groups is not None and (options.label_smoothing or options.stats or options.positives == "in"):
        return "groups with label_smoothing, stats or positives='in'"
    return "a sharded queue" if options.sharded_queue and options.queue is not None else None


def _filled(options: InfoNCEOptions, batch: SharedBatch, x: Tensor, *, per_anchor: bool) -> InfoNCEOptions:
    """Return options with a row on a rank that had none; ``x`` has it already."""
    temperature, teacher = options.temperature, options.teacher
    if per_anchor and isinstance(temperature, Tensor):
        temperature = batch.fill(temperature, -1, 1.0)  # type: ignore[assignment]
    else:
        temperature = batch.shared_value(temperature)
    if teacher is not None:
        teacher = (*batch.rows(*teacher[:2]), teacher[2])  # type: ignore[assignment]
    return dataclasses.replace(
        options,
        temperature=temperature,
        teacher=teacher,
        ignore=batch.ignored(options.ignore, x),
        groups=batch.fill(options.groups, -1),
        weights=batch.fill(options.weights, -1),
        negatives=batch.fill(options.negatives, -3),
    )
