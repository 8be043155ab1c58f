"""The agreement of ranks about a call, before any rows travel: through the store of the process group, on the host.

Every rank publishes a description of its call, waits for those of the others and compares them. Ranks that disagree all
raise the same error, instead of waiting for each other or mixing rows of different widths.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import torch.distributed as dist

__all__ = ["ROWS", "SIZES", "Description", "agree", "naming_lost_ranks", "refuse"]

Description = dict[str, object]

ROWS, SIZES = "rows", "compiled sizes"  # of a description, and may differ: the rows of a rank, and its graph's sizes
ANSWER = timedelta(seconds=2)  # in which ranks answer after one of their collectives failed
GIVEN_UP = "given up"  # the whole description of a rank that gives up the call: what it did


@dataclasses.dataclass
class _Calls:
    """The calls of a group that this process made, as many as each other rank.

    Attributes:
        store: The store of the group, by a connection of its own: another thread may wait in the group's for long.
        rank: The number of this rank.
        count: The number of calls.
        deleted: The number of those whose descriptions were deleted.
    """

    store: Any
    rank: int
    count: int = 0
    deleted: int = 0

    @classmethod
    def of(cls, group: dist.ProcessGroup) -> _Calls:
        """Return the calls of a group, none for a new one."""
        if group not in _calls:
            theirs: Any = group.get_group_store()
            theirs.check(["modalign"])  # raises if the store is gone; to connect to it would be tried for minutes
            store = theirs.clone()
            # of the groups that had this name in this store one after the other
            generation = store.add(f"modalign/generation/{group.rank()}", 1)
            _calls[group] = cls(vars(dist)["PrefixStore"](f"modalign/{generation}", store), group.rank())
        return _calls[group]

    def tell(self, description: Description) -> int:
        """Publish the description of the next call, and return its number."""
        self.count += 1
        self.store.set(self.key(self.count - 1, self.rank), json.dumps(description))
        return self.count - 1

    @staticmethod
    def key(number: int, rank: int) -> str:
        return f"{number}/{rank}"

    def heard(self, number: int, ranks: int) -> list[Description]:
        """Return the descriptions of a call that all ranks have published."""
        everyone = [json.loads(self.store.get(self.key(number, rank))) for rank in range(ranks)]
        for earlier in range(self.deleted, number):  # all ranks are in this call, so none reads those before
            self.store.delete_key(self.key(earlier, self.rank))
        self.deleted = number
        return everyone


# by group, not by name, which a group takes over from one that was destroyed
_calls: WeakKeyDictionary[dist.ProcessGroup, _Calls] = WeakKeyDictionary()


def agree(operation: str, group: dist.ProcessGroup, description: Description) -> list[Description]:
    """Return the descriptions of all ranks, in their order.

    Args:
        operation: The name of the calling function, with which error messages begin.
        group: The process group.
        description: What must be equal on all ranks, by name; and ROWS and SIZES, which may differ.

    Raises:
        RuntimeError: A rank did not arrive within the group's timeout, or refused its input.
        ValueError: The descriptions of two ranks differ.
    """
    everyone = _exchange(operation, group, {"function": operation, **description})
    for rank, one in enumerate(everyone):
        if GIVEN_UP in one:
            raise RuntimeError(f"{operation}: rank {rank} {one[GIVEN_UP]}")
    first = everyone[0]
    for rank, other in enumerate(everyone):
        for name in dict.fromkeys([*first, *other]):
            if name not in (ROWS, SIZES) and first.get(name) != other.get(name):
                raise ValueError(
                    f"{operation}: all ranks must make the same call, got {name} = {other.get(name)} on rank {rank} "
                    f"and {first.get(name)} on rank 0"
                )
    return everyone


def refuse(group: dist.ProcessGroup, error: Exception | str) -> None:
    """Tell the other ranks that this one refuses its input, so that they do not wait for it."""
    with contextlib.suppress(RuntimeError):  # without a store they do not wait either
        _Calls.of(group).tell({GIVEN_UP: f"refused its input, so no rank goes on: {error}"})


@contextlib.contextmanager
def naming_lost_ranks(group: dist.ProcessGroup) -> Iterator[None]:
    """Let the error of a collective say which ranks do not answer any more."""
    try:
        yield
    except RuntimeError as error:  # of gloo; NCCL may end the process before
        lost = _lost(group)
        if lost:
            raise RuntimeError(
                f"rows did not travel: no answer within {ANSWER.total_seconds():g} s from {_ranks(lost)}; a rank has "
                "ended, and others may wait for it"
            ) from error
        raise


def _lost(group: dist.ProcessGroup) -> list[int]:
    """Return the ranks that do not say within two seconds that a collective of this call failed on them, too."""
    with _store_that_answers("a collective failed, and"):
        calls = _Calls.of(group)
        keys = [f"failed/{calls.count}/{rank}" for rank in range(group.size())]
        calls.store.set(keys[calls.rank], "")
        with contextlib.suppress(RuntimeError, ValueError):
            calls.store.wait(keys, ANSWER)
        return [rank for rank, key in enumerate(keys) if not calls.store.check([key])]


@contextlib.contextmanager
def _store_that_answers(begin: str) -> Iterator[None]:
    """Let the error of a store that is gone say whose it was; the message has a beginning."""
    try:
        yield
    except dist.DistError as error:
        raise RuntimeError(
            f"{begin} the store of the process group does not answer: the process that holds it has ended, which is "
            "rank 0 or the launcher"
        ) from error


def _exchange(operation: str, group: dist.ProcessGroup, description: Description) -> list[Description]:
    limit, size = _timeout(group), group.size()
    with _store_that_answers(f"{operation}:"):
        calls = _Calls.of(group)
        number = calls.tell(description)
        keys = [calls.key(number, rank) for rank in range(size)]
        try:
            calls.store.wait(keys, limit)
        except (RuntimeError, ValueError) as error:  # DistStoreError is a RuntimeError
            late = [rank for rank, key in enumerate(keys) if not calls.store.check([key])]
            if late:
                seconds = f"the group's timeout of {limit.total_seconds():g} s"
                # a rank that is merely late hears of it in this call, and makes the next with the others
                words = f"waited for {_ranks(late)} until {seconds} and gave up, so no rank goes on"
                calls.store.set(keys[calls.rank], json.dumps({GIVEN_UP: words}))
                raise RuntimeError(
                    f"{operation}: {_ranks(late)} did not make this call within {seconds}: it ended, waits elsewhere, "
                    "or makes fewer calls than the others"
                ) from error
        return calls.heard(number, size)


def _ranks(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"rank{'s' if len(numbers) > 1 else ''} {shown}"


def _timeout(group: dist.ProcessGroup) -> timedelta:
    """Return the timeout of a group's collectives."""
    for device in group._device_types:
        limit = getattr(getattr(group._get_backend(device), "options", None), "_timeout", None)
        if isinstance(limit, timedelta):
            return limit
    return dist.constants.default_pg_timeout
