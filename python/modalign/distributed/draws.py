"""Random draws of a step, such as dropout masks: a rank takes its part of those that one process draws.

Every rank and the one process begin with the same seed. A draw of the same shape everywhere, such as initial weights,
is the same everywhere. Where the shapes on the ranks add up to that in the one process along one dimension, as the mask
of a rank's rows does, each rank draws the whole and keeps its part. So the generators stay in step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Draw", "Draws", "Part", "parts_of", "unequal_draws"]

# operators whose draws depend on the shape alone, not on the values of a tensor
BY_SHAPE = {
    *("bernoulli_.float", "uniform_", "normal_", "exponential_", "cauchy_", "log_normal_", "geometric_"),
    *("random_", "random_.from", "random_.to", "rand", "randn", "randint", "randint.low", "normal.float_float"),
    *("rand_like", "randn_like", "randint_like", "randint_like.low_dtype", "native_dropout"),
}
HALF = (torch.float16, torch.bfloat16)

Shape = tuple[int, ...]


class Draw(NamedTuple):
    """A random draw.

    Attributes:
        name: The operator.
        shape: The shape of its result.
        order: The dimensions from the largest stride to the smallest: draws fill memory in this order.
    """

    name: str
    shape: Shape
    order: Shape


@dataclasses.dataclass(frozen=True)
class Part:
    """The part of a draw that a rank keeps.

    Attributes:
        whole: The whole draw.
        dim: The dimension along which the ranks divide it.
        rows: The rank's entries along it.
    """

    whole: Draw
    dim: int
    rows: tuple[int, ...]

    def of(self, whole: Tensor) -> Tensor:
        """Return the part of a whole draw."""
        return whole.index_select(self.dim, torch.tensor(self.rows, dtype=torch.long, device=whole.device))


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record every random draw, and give this rank its part of those that have one.

    Args:
        parts: The part of each draw, in their order; None for a draw that is equal everywhere, and for those beyond.

    Attributes:
        found: The draws so far. That of a part has the shape of the whole.
        half: Whether any operator returned half precision.
    """

    def __init__(self, parts: Sequence[Part | None] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parts = parts
        self.found: list[Draw] = []
        self.half = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or _is_sharded(args):
            result = func(*args, **kwargs)
            self.half = self.half or getattr(result, "dtype", None) in HALF
            return result
        part = self.parts[len(self.found)] if len(self.found) < len(self.parts) else None
        name = _name(func)
        if part is None or name not in BY_SHAPE:
            result = func(*args, **kwargs)
            self.found.append(_draw(name, result if isinstance(result, Tensor) else result[0]))
            return result
        self.found.append(part.whole)
        return _part_of_draw(func, args, kwargs, part)


def parts_of(ranks: Sequence[Sequence[Draw]], single: Sequence[Draw], rank: int, views: int) -> list[Part | None]:
    """Return the part that a rank keeps of each draw.

    Args:
        ranks: The draws of every rank, each alone.
        single: Those of one process.
        rank: The rank.
        views: How often a batch stands in the divided dimension, one after the other: 2 for two views of each item.
            A dimension whose sizes are no multiples of it holds one view.
    """
    parts: list[Part | None] = []
    for number, whole in enumerate(single):
        shapes = [draws[number].shape for draws in ranks]
        dim = _divided(shapes, whole.shape)
        if dim is None:
            parts.append(None)
            continue
        count = views if all(other[dim] % views == 0 for other in shapes) else 1
        sizes = [other[dim] // count for other in shapes]
        start, batch = sum(sizes[:rank]), whole.shape[dim] // count
        rows = [view * batch + start + row for view in range(count) for row in range(sizes[rank])]
        parts.append(Part(whole, dim, tuple(rows)))
    return parts


def unequal_draws(ranks: Sequence[Sequence[Draw]], single: Sequence[Draw]) -> str | None:
    """Return a clause on the first draw of the ranks that cannot be a part of that of one process, None for none."""
    for rank, draws in enumerate(ranks):
        if [draw.name for draw in draws] != [draw.name for draw in single]:
            return f"rank {rank} makes {len(draws)} random draws and one process makes {len(single)} (or others)"
    for number, (name, shape, _) in enumerate(single):
        shapes = [draws[number].shape for draws in ranks]
        if any(other != shape for other in shapes) and (_divided(shapes, shape) is None or name not in BY_SHAPE):
            return f"{name} draws {shapes[0]} on rank 0 and {shape} in one process"
    return None


def _divided(shapes: Sequence[Shape], whole: Shape) -> int | None:
    """Return the one dimension along which shapes add up to the whole; None if they are equal or do not."""
    if any(len(shape) != len(whole) for shape in shapes):
        return None
    differing = {dim for shape in shapes for dim, size in enumerate(whole) if shape[dim] != size}
    if len(differing) != 1:
        return None
    (dim,) = differing
    return dim if sum(shape[dim] for shape in shapes) == whole[dim] else None


def _part_of_draw(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], part: Part) -> Any:
    """Draw the whole and return the part."""
    name = _name(func)
    if name == "native_dropout":
        table, p, train = (*args, *[kwargs[key] for key in ("p", "train") if key in kwargs])
        _, kept = func(_empty(part.whole, table).fill_(1), p, train)
        mask = part.of(kept)
        scale = 0.0 if p == 1 else 1 / (1 - p)
        return table * mask * scale, mask
    if not isinstance(args[0], Tensor):  # rand and its like: the size is a list
        sized = [list(part.whole.shape) if isinstance(value, (list, tuple)) else value for value in args]
        return part.of(func(*sized, **kwargs))
    whole = func(_empty(part.whole, args[0]), *args[1:], **kwargs)
    return args[0].copy_(part.of(whole)) if name.partition(".")[0].endswith("_") else part.of(whole)


def _empty(whole: Draw, like: Tensor) -> Tensor:
    """Return an empty tensor for a whole draw."""
    return torch.empty_permuted(whole.shape, whole.order, dtype=like.dtype, device=like.device)


def _draw(name: str, result: Tensor) -> Draw:
    """Return a draw by its result."""
    strides: tuple[int, ...] = result.stride()
    return Draw(name, tuple(result.shape), tuple(sorted(range(result.ndim), key=lambda dim: -strides[dim])))


def _name(func: Any) -> str:
    return str(func).removeprefix("aten.").removesuffix(".default")


def _is_sharded(args: Sequence[Any]) -> bool:
    """Return whether an operator fills a tensor that is sharded already."""
    return bool(args) and type(args[0]).__name__ == "DTensor"
