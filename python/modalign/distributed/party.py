"""The ranks that share a batch: what ``process_group=`` is resolved to, and what they agree on before a call."""

from __future__ import annotations

import dataclasses
import operator
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from modalign.common.dtypes import autocast_dtype
from modalign.distributed.agreement import ROWS, Description, agree, refuse
from modalign.distributed.calls import Call
from modalign.distributed.compiled import agree_at_compilation, agree_in_the_graph, refuse_at_compilation
from modalign.distributed.ranks import Ranks
from modalign.distributed.sharding import Sharding, require_process_group

__all__ = ["Party", "ProcessGroup", "copied_as_it_is", "note_gathered", "party_of", "warn_of_other_ranks"]

Result = TypeVar("Result")

GATHERED_BYTES = 1 << 31  # of the rows of all ranks and their gradients, up to which they are gathered

_agreed: WeakKeyDictionary[dist.ProcessGroup, set[str]] = WeakKeyDictionary()  # descriptions that were checked
_warned: set[str] = set()


@dataclasses.dataclass(frozen=True)
class Party:
    """The ranks that share a batch, before they have agreed about a call."""

    operation: str
    group: dist.ProcessGroup
    sharding: Sharding
    also: Description = dataclasses.field(default_factory=dict)  # what must be equal besides the options of the loss

    def describing(self, **also: object) -> Party:
        """Return the ranks, which also compare these options of the function that called the loss."""
        return dataclasses.replace(self, also={**self.also, **also})

    def refuse(self, error: Exception) -> None:
        """Tell the other ranks that this one refuses its input."""
        if not self.sharding.listens:
            return
        if torch.compiler.is_compiling():
            refuse_at_compilation(self.group.group_name, str(error))
        else:
            refuse(self.group, error)

    def checked(self, check: Callable[[], Result]) -> Result:
        """Return the result of a check of this rank's input, of whose errors the other ranks hear."""
        try:
            return check()
        except (TypeError, ValueError, NotImplementedError) as error:
            self.refuse(error)
            raise

    def agree(self, x: Tensor, description: Description, *, needs_all: str | None) -> Call:
        """Return the call of all ranks, after they have compared it.

        Args:
            x: (..., n, d) the rows of this rank.
            description: What must be equal on all ranks.
            needs_all: The option for which all rows are gathered, or None.
        """
        sharding = self.sharding
        self.checked(lambda: self._require_possible(x, needs_all))
        *batch, n, d = map(operator.index, x.shape)
        described: dict[str, object] = {"batch": batch, "d": d, "dtype": x.dtype, "device": x.device.type}
        described |= {"autocast": autocast_dtype(x), **description}
        described |= {"way": sharding.way, "wire": sharding.wire, "sizes": sharding.sizes}
        call = self.exchange(x, n, described)
        moved = call.ranks.total * d * (x.element_size() + 4) * max(1, x.shape[:-2].numel())
        ring = sharding.way == "ring" or (sharding.way == "auto" and needs_all is None and moved > GATHERED_BYTES)
        wire = sharding.wire if sharding.wire is not None and sharding.wire.itemsize < x.element_size() else None
        return dataclasses.replace(call, way="ring" if ring else "gathered", wire=wire)

    def _require_possible(self, x: Tensor, needs_all: str | None) -> None:
        sharding = self.sharding
        if sharding.way == "ring" and needs_all is not None:
            raise ValueError(f'{self.operation}: {needs_all} needs the rows of all ranks; write way="gathered"')
        if sharding.wire is not None and x.dtype == torch.float64:
            raise ValueError(
                f"{self.operation}: float64 rows do not travel in {sharding.wire}, which keeps three digits of them; "
                "leave wire None, or pass x.float()"
            )
        if sharding.given is not None and len(sharding.given) != self.group.size():
            raise ValueError(
                f"{self.operation}: sizes must have {self.group.size()} numbers, one for each rank, got "
                f"{len(sharding.given)}"
            )

    def exchange(self, x: Tensor, n: int, description: Mapping[str, object]) -> Call:
        """Return the call of all ranks, gathered, after they have compared it and told each other their rows.

        Args:
            x: The rows of this rank.
            n: Their number.
            description: What must be equal on all ranks.
        """
        sharding, group = self.sharding, self.group
        given = (n,) * group.size() if sharding.sizes == "even" else sharding.given
        described = {name: str(value) for name, value in description.items()}
        agreed = None
        if given is not None and sharding.check == "never":
            told = given
        elif torch.compiler.is_compiling():
            call = (self.operation, group.group_name, n)
            words = str({**described, "compiled": "yes"})
            told = agree_at_compilation(*call, words)
            agreed = agree_in_the_graph(x, *call, told, words) if sharding.listens else None
        else:
            told = self._told(n, {**described, "compiled": "no"}, given)
        if given is not None and told != given:
            raise ValueError(f"{self.operation}: sizes must be the ranks' numbers of rows, {told}, got {given}")
        if told[group.rank()] != n:
            raise ValueError(
                f"{self.operation}: rank {group.rank()} must have {told[group.rank()]} rows, as sizes says, got {n}"
            )
        return Call(Ranks(group.group_name, group.rank(), told), "gathered", None, agreed)

    def _told(self, n: int, described: Description, given: tuple[int, ...] | None) -> tuple[int, ...]:
        """Return the number of rows of each rank, or those that are given where these ranks have compared the call."""
        agreed, call = _agreed.setdefault(self.group, set()), f"{self.operation} {n} {described}"
        if given is not None and self.sharding.check == "first" and call in agreed:
            return given
        everyone = agree(self.operation, self.group, {ROWS: n, **described})
        if self.sharding.check == "first":
            agreed.add(call)
        return tuple(int(str(one[ROWS])) for one in everyone)


ProcessGroup: TypeAlias = "str | dist.ProcessGroup | DeviceMesh | Sharding | Party"  # Party within the package


def party_of(operation: str, process_group: ProcessGroup) -> Party | None:
    """Return the ranks that share a batch, or None where the loss is of this process alone.

    Raises:
        TypeError: The value is nothing that names a group.
        ValueError: A mesh has several dimensions, or this process is not in the group.
        RuntimeError: torch.distributed is not initialised.
    """
    if isinstance(process_group, Party):
        return process_group
    require_process_group(operation, process_group)
    if isinstance(process_group, str) and process_group in ("unset", "self"):
        if process_group == "unset":
            warn_of_other_ranks(operation)
        return None
    sharding = process_group if isinstance(process_group, Sharding) else Sharding(process_group)
    group: Any = sharding.group
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise ValueError(
                f"{operation}: process_group must be a mesh of one dimension, got {group.ndim}; choose one, such as "
                f"mesh[{(group.mesh_dim_names or ('dp',))[0]!r}]"
            )
        group = group.get_group()
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            f"{operation}: process_group={process_group!r} needs torch.distributed.init_process_group() first"
        )
    resolved = dist.group.WORLD if isinstance(group, str) else group
    assert resolved is not None
    if dist.get_rank(resolved) < 0:
        raise ValueError(f"{operation}: rank {dist.get_rank()} is not in the process group")
    return Party(operation, resolved, sharding)


def copied_as_it_is(process_group: ProcessGroup) -> ProcessGroup:
    """Return the same group in a form that ``copy.deepcopy`` of a module keeps."""
    return process_group if isinstance(process_group, (str, Sharding)) else Sharding(process_group)


def note_gathered() -> None:
    """Remember that rows were gathered, so that a loss of them is no surprise."""
    _warned.add("gather")


def warn_of_other_ranks(operation: str, remedy: str = 'process_group="world"') -> None:
    """Warn once if other ranks may have rows of the batch; ``remedy`` are the arguments for their loss."""
    if (
        torch.compiler.is_compiling()
        or not (dist.is_available() and dist.is_initialized())
        or dist.get_world_size() == 1
        or _warned & {"gather", operation}
    ):
        return
    _warned.add(operation)
    warnings.warn(
        f"{operation}: this process is one of {dist.get_world_size()}, and the loss has its rows alone. The rows of "
        f"other processes are no negatives. Write {remedy} for the loss of the rows of all processes, or "
        'process_group="self" for a loss of the rows that it is given',
        stacklevel=_level_of_the_user(),
    )


def _level_of_the_user() -> int:
    """Return how many calls before its own caller the code is that neither modalign nor torch holds."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).split(".")[0] in ("modalign", "torch"):
        frame, level = frame.f_back, level + 1
    return level
