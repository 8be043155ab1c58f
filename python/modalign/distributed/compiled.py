"""The agreement of ranks about a call that torch.compile has compiled.

The numbers of rows are constants of a graph: ranks tell each other theirs while they compile. An operator in the graph
compares every call with them, so that no graph computes with the numbers of another batch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch._guards import CompileContext, TracingContext

from modalign.distributed.agreement import ROWS, SIZES, Description, agree, refuse
from modalign.distributed.ranks import group_of

__all__ = ["agree_at_compilation", "agree_in_the_graph", "refuse_at_compilation"]

Function = TypeVar("Function", bound=Callable[..., object])

# sizes by compiled function and call: a rank may compile a function again for reasons of its own
_agreed: WeakKeyDictionary[dist.ProcessGroup, dict[object, tuple[int, ...]]] = WeakKeyDictionary()


def _constant(function: Function) -> Function:
    """Let the compiler call a function while it traces, and take the result for a constant."""
    constant: Any = torch.compiler.assume_constant_result
    marked: Function = constant(function)
    return marked


@_constant
def agree_at_compilation(operation: str, name: str, n: int, described: str) -> tuple[int, ...]:
    """Return the number of rows of each rank.

    Args:
        operation: The name of the loss.
        name: That of the group.
        n: The number of rows of this rank.
        described: What must be equal on all ranks, as ``str(dict)``.
    """
    compiling = CompileContext.current_compile_id()
    group, call = group_of(name), (compiling and compiling.frame_id, operation, n, described)
    known = _agreed.setdefault(group, {})
    if call not in known:
        known[call] = _rows(_compared(operation, group, {ROWS: n, **ast.literal_eval(described)}))
    return known[call]


@_constant
def refuse_at_compilation(name: str, error: str) -> None:
    """Tell the other ranks that this one refuses its input, unless torch runs the call again without compiling it."""
    from torch._dynamo.symbolic_convert import InstructionTranslator  # not before something is compiled

    compiler: Any = InstructionTranslator.current_tx() if TracingContext.try_get() else None
    if compiler is None or compiler.one_graph or compiler.error_on_graph_break:
        refuse(group_of(name), error)


@torch.library.custom_op(
    "modalign::agree",
    mutates_args=(),
    schema="(Tensor x, str operation, str group, SymInt n, SymInt[] sizes, str described) -> Tensor",
    tags=(torch.Tag.cudagraph_unsafe,),
)
def agree_operator(x: Tensor, operation: str, name: str, n: int, sizes: list[int], described: str) -> Tensor:
    """Return a zero, on which the operators of the loss depend, after the ranks have compared this call."""
    description = {ROWS: n, SIZES: sizes, **ast.literal_eval(described)}
    while any(SIZES not in one for one in _compared(operation, group_of(name), description)):
        pass  # a rank compiles this call, and runs it next
    return x.new_zeros(())


@agree_operator.register_fake
def _(x: Tensor, operation: str, name: str, n: int, sizes: list[int], described: str) -> Tensor:
    return x.new_zeros(())


def agree_in_the_graph(x: Tensor, operation: str, name: str, n: int, sizes: tuple[int, ...], described: str) -> Tensor:
    """Let every run of the graph compare its call with those of other ranks, and return what the loss depends on."""
    agreed: Tensor = torch.ops.modalign.agree.default(x.detach(), operation, name, n, list(sizes), described)
    return agreed


def _compared(operation: str, group: dist.ProcessGroup, description: Description) -> list[Description]:
    """Return the descriptions of all ranks, whose graphs have been compiled for the rows that they have."""
    everyone = agree(operation, group, description)
    told = _rows(everyone)
    for rank, one in enumerate(everyone):
        sizes = one.get(SIZES)
        if isinstance(sizes, list) and tuple(sizes) != told:
            _agreed.pop(group, None)  # on all ranks at once
            raise ValueError(
                f"{operation}: the ranks have {told} rows, but rank {rank} has compiled this call for {tuple(sizes)}. "
                "A loss is compiled anew only if the rows of all ranks change. Drop or fill up uneven batches, or "
                "leave the loss out of what is compiled, by torch.compiler.disable"
            )
    return everyone


def _rows(everyone: list[Description]) -> tuple[int, ...]:
    return tuple(int(str(one[ROWS])) for one in everyone)
