"""Limits on what a pickle may ask for, checked before anything in it is built.

A pickle is a program: nine bytes of it can ask for a table of 4 GB, and 84 bytes can build a tuple of shared tuples
that takes for ever to visit or to hash. So the program is read once without being run.
"""

from __future__ import annotations

import io
import os
import pickletools
from typing import IO, Any, cast

__all__ = ["require_modest_pickle"]

MOST_SHARED = 100  # times that parts may count, over the number of instructions
SMALL = 1_000_000  # parts that every pickle may have
DEEPEST = 200  # containers inside each other
MEMO = ("PUT", "BINPUT", "LONG_BINPUT")
GROWING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")  # instructions that change an object
GETS = ("GET", "BINGET", "LONG_BINGET")
MARK = object()


class _Part:
    """What an instruction leaves on the stack: how many parts it has, shared ones counted each time, and how deep."""

    __slots__ = ("depth", "size")

    def __init__(self, parts: list[_Part]) -> None:
        self.size, self.depth = 1, 0
        self.take(parts)

    def take(self, parts: list[_Part]) -> None:
        self.size += sum(part.size for part in parts)
        self.depth = max([self.depth, *(part.depth + 1 for part in parts)])


LEAF = _Part([])
# instructions that leave a plain value, which nothing is put into later
CONSTANTS = {
    code.name
    for code in pickletools.opcodes
    if not code.stack_before and len(code.stack_after) == 1 and not code.name.startswith("EMPTY")
} - {*GETS, "MARK"}


def require_modest_pickle(file: IO[bytes]) -> int:
    """Check a pickle from where the file stands, leave the file there, and return where the pickle ends.

    Raises:
        ValueError: The pickle is damaged, asks for more memory than it holds, or its parts hold each other so often
            that a visit would not end.
    """
    start = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(start)
    stack: list[Any] = []
    memo: dict[int, _Part] = {}
    try:
        for count, (code, given, _) in enumerate(pickletools.genops(cast("IO[bytes]", _Bounded(file, end))), 1):
            name, argument = code.name, cast("Any", given)
            if name in CONSTANTS:
                stack.append(LEAF)
            elif name in MEMO:
                if int(argument) > count:
                    raise ValueError(f"it numbers part {int(argument):,} of {count:,}")
                memo[int(argument)] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name == "FRAME":
                if argument > end - start:
                    raise ValueError(f"it promises {argument:,} of {end - start:,} bytes")
            else:
                _step(code, argument, stack, memo)
                if stack and isinstance(stack[-1], _Part):
                    _require(stack[-1], count)
        return file.tell()
    finally:
        file.seek(start)


def _require(part: _Part, count: int) -> None:
    if part.size > max(SMALL, MOST_SHARED * count):
        raise ValueError(f"its parts hold each other so often that they unfold to more than {part.size:,}")
    if part.depth > DEEPEST:
        raise ValueError(f"its parts lie more than {DEEPEST} deep in each other")


def _step(code: pickletools.OpcodeInfo, argument: Any, stack: list[Any], memo: dict[int, _Part]) -> None:
    """Do to the stack what an instruction does, with parts in place of objects."""
    if code.name == "MARK":
        stack.append(MARK)
    elif code.name in GETS:
        stack.append(memo[int(argument)])
    elif code.name == "DUP":
        stack.append(stack[-1])
    else:
        taken = _taken(code, stack)
        if code.name in GROWING:
            taken[0].take(taken[1:])
            stack.append(taken[0])
        elif code.stack_after:
            stack.append(_Part(taken))


def _taken(code: pickletools.OpcodeInfo, stack: list[Any]) -> list[_Part]:
    """Remove what an instruction takes from the stack, and return it in order."""
    taken: list[_Part] = []
    wanted = [kind.name for kind in code.stack_before]
    if "mark" in wanted:
        while stack[-1] is not MARK:
            taken.append(stack.pop())
        stack.pop()
        wanted = wanted[: wanted.index("mark")]
    elif code.name == "POP" and stack[-1] is MARK:
        stack.pop()
        return []
    for _ in wanted:
        taken.append(stack.pop())
    return taken[::-1]


class _Bounded(io.RawIOBase):
    """A file whose reads never ask for more than is left of it."""

    def __init__(self, file: IO[bytes], end: int) -> None:
        self.file, self.end = file, end

    def read(self, size: int = -1) -> bytes:
        return self.file.read(min(size, self.end - self.file.tell()) if size >= 0 else -1)

    def readline(self, size: int | None = -1) -> bytes:
        return self.file.readline()

    def tell(self) -> int:
        return self.file.tell()
