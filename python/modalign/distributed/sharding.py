"""``process_group=`` of the losses: which ranks share a batch, and how its rows travel between them."""

from __future__ import annotations

import dataclasses
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from modalign.common.checks import one_of, whole_number
from modalign.common.dtypes import autocast_dtype
from modalign.distributed.agreement import ROWS, Description, agree, refuse
from modalign.distributed.calls import Call
from modalign.distributed.compiled import agree_at_compilation, agree_in_the_graph, refuse_at_compilation
from modalign.distributed.ranks import Ranks

__all__ = [
    "Party",
    "ProcessGroup",
    "Sharding",
    "copied_as_it_is",
    "note_gathered",
    "party_of",
    "require_process_group",
    "warn_of_other_ranks",
]

Result = TypeVar("Result")

WAYS = ("auto", "gathered", "ring")
CHECKS = ("always", "first", "never")
QUEUES = ("replicated", "sharded")
GATHERED_BYTES = 1 << 31  # of the rows of all ranks and their gradients, up to which they are gathered

_agreed: WeakKeyDictionary[dist.ProcessGroup, set[str]] = WeakKeyDictionary()  # descriptions that were checked
_warned: set[str] = set()


@dataclasses.dataclass(frozen=True)
class Sharding:
    """A process group whose ranks share a batch, with the settings of their communication.

    Args:
        group: "world", a ``torch.distributed`` process group, or a ``DeviceMesh`` of one dimension, such as
            ``mesh["dp"]``.
        sizes: The number of rows of each rank: "exchange", told by each in every call; "even", as many as this one
            has; or a sequence of numbers.
        way: "gathered", every rank holds the rows of all, O(N d) of memory; "ring", a block of rows at a time, O(n_r
            d), both in numbers in the docstring of ``modalign.info_nce``; or "auto", gathered up to 2 GiB of rows and
            gradients, and for the options that need all rows.
        wire: ``torch.bfloat16`` or ``torch.float16``, in which rows and gradients travel; None for their own dtype.
            Sums are in float32 whatever travels. For float16 a power of two travels along, by which a table is scaled
            into its range.
        check: "always", ranks compare shapes, dtypes and options before any rows travel; "first", in the first call
            with these shapes and options; or "never". A call that is not checked may mix rows of different widths
            without an error, or wait until the group's timeout for a rank that makes another call. A compiled loss has
            the sizes of all ranks as constants, and compares them in every run, on the host. With sizes "even" or given
            and "first" or "never" its graph does not wait for the host, and may be captured by CUDA graphs; but a rank
            with another number of rows than its sizes say is then found only while it compiles, or not at all.
        queue: "replicated", each rank passes the same queue; or "sharded", each passes a part of it.

    Raises:
        TypeError, ValueError: A group that is none, or that this rank is not in; an unknown value; or sizes that are no
            whole numbers from 0.

    Examples:
        >>> from modalign.distributed import Sharding
        >>> Sharding("world", way="ring").way
        'ring'
    """

    group: object = "world"
    sizes: str | Sequence[int] = "exchange"
    way: str = "auto"
    wire: torch.dtype | None = None
    check: str = "always"
    queue: str = "replicated"

    def __post_init__(self) -> None:
        if self.group != "world":
            _require_group("Sharding: group must be 'world'", self.group)
        one_of("Sharding", "way", self.way, WAYS)
        one_of("Sharding", "check", self.check, CHECKS)
        one_of("Sharding", "queue", self.queue, QUEUES)
        if self.wire not in (None, torch.bfloat16, torch.float16):
            raise ValueError(
                "Sharding: wire must be torch.bfloat16 or torch.float16, or None for the dtype of the rows, got "
                f"{self.wire!r}"
            )
        if isinstance(self.sizes, str):
            one_of("Sharding", "sizes", self.sizes, ("exchange", "even"))
        elif not isinstance(self.sizes, Iterable):
            raise TypeError(
                "Sharding: sizes must be 'exchange', 'even' or a sequence with the number of rows of each rank, got "
                f"{self.sizes!r}"
            )
        else:
            sizes = tuple(whole_number("Sharding", "sizes", size, least=0) for size in self.sizes)
            object.__setattr__(self, "sizes", sizes)

    @property
    def given(self) -> tuple[int, ...] | None:
        """The numbers of rows, where they are given."""
        return None if isinstance(self.sizes, str) else tuple(self.sizes)

    @property
    def listens(self) -> bool:
        """Whether ranks hear of each other in every call."""
        return self.sizes == "exchange" or self.check == "always"

    def __deepcopy__(self, memo: dict[int, object]) -> Sharding:
        """Return itself: a copy of a module has the same ranks."""
        return self

    def __reduce__(self) -> tuple[object, ...]:
        if not isinstance(self.group, str):
            raise TypeError(
                "a process group belongs to its process and cannot be pickled: give the loss "
                'process_group="world", or set its process_group after it is loaded'
            )
        return type(self), tuple(getattr(self, field.name) for field in dataclasses.fields(self))


ProcessGroup: TypeAlias = "str | dist.ProcessGroup | DeviceMesh | Sharding | Party"  # Party within the package


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


def note_gathered() -> None:
    """Remember that rows were gathered, so that a loss of them is no surprise."""
    _warned.add("gather")


def require_process_group(operation: str, value: object) -> None:
    """Raise a TypeError for a value that names no process group, before there need be one."""
    if not isinstance(value, Sharding) and not (isinstance(value, str) and value in ("unset", "self", "world")):
        wanted = "process_group must be 'self', 'world', a modalign.distributed.Sharding"
        _require_group(f"{operation}: {wanted}", value)


def _require_group(wanted: str, group: object) -> None:
    """Raise an error for what is no group of torch.distributed; ``wanted`` are the words for other values."""
    available = dist.is_available()
    if available and isinstance(group, int) and group == dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError(
            f"{wanted.partition(':')[0]}: this rank is not in the process group, for which new_group returns "
            f"{group} here; only the ranks of a group call its loss"
        )
    if not available or not isinstance(group, (dist.ProcessGroup, DeviceMesh)):
        raise TypeError(f"{wanted}, a torch.distributed process group or a DeviceMesh of one dimension, got {group!r}")


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
