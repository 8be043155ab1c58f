"""The values of ``process_group=``: groups of ranks, and ``Sharding`` with the settings of their communication."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from modalign.common.checks import one_of, whole_number

__all__ = ["Sharding", "require_process_group"]

WAYS = ("auto", "gathered", "ring")
CHECKS = ("always", "first", "never")
QUEUES = ("replicated", "sharded")


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
